//! Paged pool that is not there at DISPATCH_LEVEL and above, where that is asked for.

use super::{Kernel, Memory, Pool, special};
use crate::irql::DISPATCH_LEVEL;

impl Pool {
    /// True when a change of the level may take pages away, or give them back.
    #[inline]
    pub(crate) fn follows_level(&self) -> bool {
        self.pageable != 0
    }

    /// Takes the pages of paged blocks away that drivers have, or gives them back.
    pub(super) fn page(&mut self, out: bool) {
        if self.paged_out == out {
            return;
        }
        self.paged_out = out;
        for (address, block) in self.blocks.iter().filter(|(_, block)| block.paged && block.memory == Memory::Pages) {
            let (start, bytes) = (address - block.front(), block.bytes());
            if out {
                // What the host refuses to take away stays, and touches of it are not seen.
                special::protect(start, bytes, false);
            } else {
                special::bring_back(start, bytes);
            }
        }
    }
}

impl Kernel {
    /// Takes pages away, or gives them back, as the level of the acting processor says.
    pub(crate) fn settle_paging(&mut self) {
        if self.pool.follows_level() {
            self.attention = true;
            let out = self.irql() >= DISPATCH_LEVEL;
            self.pool.page(out);
        }
    }
}
