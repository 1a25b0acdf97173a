//! Processor groups. The engine counts processors through all groups; drivers name them by group and number.

use super::processor::Cpu;
use ksync_sys::{GROUP_AFFINITY, KAFFINITY, PROCESSOR_NUMBER};
use std::fmt;
use std::sync::Arc;

/// The greatest number of processors of a machine, whatever their groups.
pub(crate) const MAXIMUM_PROCESSORS: usize = 64;

/// How many processors each group has. There is at least one group, and none is empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Groups {
    /// Each machine of a search has them.
    sizes: Arc<[u8]>,
}

impl Groups {
    /// Groups of these sizes.
    ///
    /// # Panics
    /// If there is none, if one is empty, or if there are more than 64 processors in all.
    #[track_caller]
    pub(crate) fn new(sizes: &[u8]) -> Self {
        let total: usize = sizes.iter().map(|&size| usize::from(size)).sum();
        let possible = !sizes.is_empty() && !sizes.contains(&0) && total <= MAXIMUM_PROCESSORS;
        assert!(possible, "a machine has 1 to 64 processors in groups of at least one, not {sizes:?}");
        Self { sizes: sizes.into() }
    }

    /// How many groups there are.
    pub(crate) fn count(&self) -> u16 {
        self.sizes.len() as u16
    }

    /// How many processors there are in all.
    pub(crate) fn processors(&self) -> u8 {
        self.sizes.iter().sum()
    }

    /// How many processors a group has: none, if there is no such group.
    pub(crate) fn size(&self, group: u16) -> u8 {
        self.sizes.get(usize::from(group)).copied().unwrap_or(0)
    }

    /// The first processor of a group.
    fn base(&self, group: u16) -> Cpu {
        self.sizes.iter().take(usize::from(group)).sum()
    }

    /// The group and number of a processor.
    pub(crate) fn number(&self, cpu: Cpu) -> PROCESSOR_NUMBER {
        let (mut group, mut number) = (0, cpu);
        for &size in self.sizes.iter() {
            if number < size {
                break;
            }
            number -= size;
            group += 1;
        }
        PROCESSOR_NUMBER { Group: group, Number: number, Reserved: 0 }
    }

    /// The processor with a group and number.
    pub(crate) fn cpu(&self, number: PROCESSOR_NUMBER) -> Option<Cpu> {
        let exists = number.Reserved == 0 && number.Number < self.size(number.Group);
        exists.then(|| self.base(number.Group) + number.Number)
    }

    /// One bit for each processor of a group, as drivers number them there.
    pub(crate) fn active(&self, group: u16) -> KAFFINITY {
        let size = u32::from(self.size(group));
        if size == 0 { 0 } else { KAFFINITY::MAX >> (KAFFINITY::BITS - size) }
    }

    /// The machine's processors among those that a driver names of a group.
    pub(crate) fn flat(&self, group: u16, mask: KAFFINITY) -> u64 {
        let mask = (mask & self.active(group)) as u64;
        if mask == 0 { 0 } else { mask << self.base(group) }
    }

    /// The machine's processors of a group.
    pub(crate) fn all_of(&self, group: u16) -> u64 {
        self.flat(group, KAFFINITY::MAX)
    }

    /// Processors of one group, as drivers number them.
    pub(crate) fn affinity(&self, processors: u64) -> GROUP_AFFINITY {
        if processors == 0 {
            return GROUP_AFFINITY::default();
        }
        let group = self.number(processors.trailing_zeros() as Cpu).Group;
        let mask = (processors & self.all_of(group)) >> self.base(group);
        GROUP_AFFINITY { Mask: mask as KAFFINITY, Group: group, Reserved: [0; 3] }
    }
}

impl fmt::Display for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (group, size) in self.sizes.iter().enumerate() {
            write!(f, "{}{size}", if group == 0 { "" } else { "+" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_indices_are_inverse() {
        for sizes in [&[1][..], &[64], &[1, 1, 1], &[3, 1, 60], &[63, 1], &[2; 32]] {
            let groups = Groups::new(sizes);
            let mut all = 0;
            for cpu in 0..groups.processors() {
                let number = groups.number(cpu);
                assert_eq!(groups.cpu(number), Some(cpu), "{sizes:?}");
                let flat = groups.flat(number.Group, 1 << number.Number);
                assert_eq!(flat, 1 << cpu);
                assert_eq!(
                    groups.affinity(flat),
                    GROUP_AFFINITY { Mask: 1 << number.Number, Group: number.Group, Reserved: [0; 3] }
                );
                all |= flat;
            }
            assert_eq!((0..groups.count()).map(|group| groups.all_of(group)).sum::<u64>(), all);
            assert_eq!(groups.size(groups.count()), 0);
            assert_eq!(groups.flat(groups.count(), 1), 0);
        }
    }
}
