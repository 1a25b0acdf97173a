//! Entries of lookaside lists, which are blocks of pool.
//!
//! Driver Verifier has such lists keep nothing, so that every entry that is freed to one goes back to special pool. Here lists keep what they keep in NT, and the pages of what they keep
//! are not there meanwhile.

use super::{Check, Kernel, Memory, Pool, special};
use crate::report::bug_check::{Violation, codes};
use crate::report::sites::SiteId;

impl Pool {
    /// A list has got an entry, which has another for the next one.
    fn keep(&mut self, entry: usize, next: usize, site: Option<SiteId>) {
        let Some(block) = self.blocks.get_mut(&entry).filter(|block| block.memory == Memory::Pages) else { return };
        if self.is_special && special::protect(entry - block.front(), block.bytes(), false) {
            (block.memory, block.freed_at) = (Memory::Kept, site);
            self.kept.insert(entry, next);
        }
    }

    /// A list gives an entry out: its pages are there again.
    pub(super) fn give_out(&mut self, entry: usize) {
        if self.kept.remove(&entry).is_some()
            && let Some(block) = self.blocks.get_mut(&entry)
        {
            special::bring_back(entry - block.front(), block.bytes());
            (block.memory, block.freed_at) = (Memory::Pages, None);
        }
    }

    /// True while there are entries whose pages are not there.
    pub(crate) fn keeps_any(&self) -> bool {
        !self.kept.is_empty()
    }

    /// The next entry of one whose pages are not there.
    pub(crate) fn next_of_kept(&self, entry: usize) -> Option<usize> {
        self.kept.get(&entry).copied()
    }
}

impl Kernel {
    /// A lookaside list has got an entry that it keeps, in front of another.
    pub(crate) fn keep_entry(&mut self, entry: usize, next: usize) {
        let site = self.site();
        self.pool.keep(entry, next, site);
    }

    /// An entry is about to leave a list: a lookaside list, if that is named, which is the one that gives it out.
    pub(crate) fn give_out_entry(&mut self, entry: usize, list: Option<usize>) {
        self.pool.give_out(entry);
        if let Some(list) = list {
            self.note_list(entry, list);
        }
    }

    /// A lookaside list gives out a block.
    pub(crate) fn note_list(&mut self, memory: usize, list: usize) {
        if let Some(block) = self.pool.blocks.get_mut(&memory) {
            block.list = list;
        }
    }

    /// Checks what is given back to a lookaside list: `alike` is the size and tag of its entries, if they are all of pool.
    pub(crate) fn check_entry_of(&self, list: usize, entry: usize, alike: Option<(usize, u32)>) -> Check<()> {
        self.check_allocated(entry)?;
        let Some(block) = self.pool.blocks.get(&entry) else { return Ok(()) };
        let is_other = match (block.list, alike) {
            (0, Some(alike)) => (block.size, block.tag) != alike,
            (given, _) => given != 0 && given != list,
        };
        if !is_other {
            return self.check_overrun(entry, block);
        }
        let mut violation = Violation::boxed_owned(
            codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [codes::verifier::BAD_ARGUMENT, list as u64, entry as u64, block.list as u64],
            format!(
                "a block of {} bytes with tag '{}' was freed to a lookaside list that has not given it out",
                block.size,
                block.tag_text()
            ),
        );
        violation.related = block.related();
        Err(violation)
    }
}
