//! What callgrind wrote about one stretch of a program.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};

/// What was executed in one stretch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// All instructions, without those of the function that marks the stretch.
    pub(crate) total: u64,
    /// What of them was executed in the kernel's routines, by routine: how many calls, how many instructions.
    pub(crate) routines: BTreeMap<String, Calls>,
}

/// Calls of one routine.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Calls {
    /// How many.
    pub(crate) count: u64,
    /// Instructions in them, and in what they called.
    pub(crate) instructions: u64,
}

impl Part {
    /// Reads a file in callgrind's format without its compressions.
    ///
    /// `marker` is the function that marks the stretch, `exports` are the names of the kernel's routines.
    pub(crate) fn parse(text: &str, marker: &str, exports: &BTreeSet<String>) -> Result<Self> {
        let mut part = Self::default();
        let (mut function, mut callee, mut calls) = ("", "", None);
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                function = name;
            } else if let Some(name) = line.strip_prefix("cfn=") {
                callee = name;
            } else if let Some(counts) = line.strip_prefix("calls=") {
                let count = counts.split(' ').next().unwrap_or_default();
                calls = Some(count.parse().with_context(|| format!("not a number of calls: `{line}`"))?);
            } else if line.starts_with(|first: char| first.is_ascii_digit()) {
                let cost = line.split(' ').nth(1).unwrap_or("0");
                let cost: u64 = cost.parse().with_context(|| format!("not a cost: `{line}`"))?;
                match calls.take() {
                    Some(count) => part.called(function, callee, Calls { count, instructions: cost }, exports),
                    None if function == marker => (),
                    None => part.total += cost,
                }
            }
        }
        Ok(part)
    }

    /// Notes calls, if they go from the outside into the kernel.
    fn called(&mut self, caller: &str, callee: &str, calls: Calls, exports: &BTreeSet<String>) {
        let inside = exports.contains(caller) || caller.starts_with("ksim::") || caller.starts_with("<ksim::");
        // Calls are counted even where nothing is collected.
        let collected = calls.instructions != 0;
        if collected && !inside && exports.contains(callee) {
            let routine = self.routines.entry(callee.to_owned()).or_default();
            routine.count += calls.count;
            routine.instructions += calls.instructions;
        }
    }

    /// Calls of one routine.
    pub(crate) fn calls(&self, routine: &str) -> Calls {
        self.routines.get(routine).copied().unwrap_or_default()
    }

    /// Instructions outside the kernel: the caller's own, the calls themselves included.
    pub(crate) fn own(&self) -> u64 {
        self.total - self.routines.values().map(|calls| calls.instructions).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_of_calls_are_not_counted_twice() {
        let text = "part: 1\nsummary: 40\n\nfn=region\n197 4\ncfn=op\ncalls=1 10\n197 30\n\nfn=op\n10 3\n11 2\ncfn=KeOne\ncalls=2 0\n11 25\n\nfn=KeOne\n0 20\ncfn=KeTwo\ncalls=1 0\n0 5\n\nfn=KeTwo\n0 5\n";
        let exports = ["KeOne", "KeTwo"].map(str::to_owned).into();
        let part = Part::parse(text, "region", &exports).unwrap();
        assert_eq!(part.total, 30);
        assert_eq!(part.calls("KeOne"), Calls { count: 2, instructions: 25 });
        assert_eq!(part.calls("KeTwo"), Calls::default());
        assert_eq!(part.own(), 5);
    }
}
