//! Touches of pool that is not there: freed blocks, what is behind a block, and paged blocks at raised levels.

use super::{Kernel, Memory, PAGE, Pool, PoolBlock, special};
use crate::access::Access;
use crate::report::bug_check::{Violation, codes};

/// Who has touched it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Toucher {
    Driver,
    /// The kernel, on a driver's behalf.
    Kernel,
}

impl Pool {
    /// True for an address in the pages of a block, allocated or freed, or next to them.
    pub(crate) fn has_pages_at(&self, address: usize) -> bool {
        self.in_pages(address).is_some()
    }

    /// The block in pages of its own, allocated or freed, that an address is in or else nearest to, with its first address and the offset, if the address belongs to these pages or is in one next to them.
    fn in_pages(&self, address: usize) -> Option<(usize, isize, &PoolBlock)> {
        if !special::contains(address) {
            return None;
        }
        let mut nearest: Option<(usize, (usize, isize, &PoolBlock))> = None;
        for blocks in [&self.blocks, &self.freed] {
            let below = blocks.range(..=address).next_back();
            for (&start, block) in below.into_iter().chain(blocks.range(address..).next()) {
                let pages = start - block.front();
                let distance = if address < start { start - address } else { (address + 1).saturating_sub(start + block.size) };
                if block.memory != Memory::Heap
                    && (pages - PAGE..pages + block.bytes() + PAGE).contains(&address)
                    && nearest.is_none_or(|(other, _)| distance < other)
                {
                    nearest = Some((distance, (start, address.wrapping_sub(start) as isize, block)));
                }
            }
        }
        nearest.map(|(_, found)| found)
    }
}

impl Kernel {
    /// What it is to have touched an address of pool that is not there. `by` says who did what, such as "hosted code read". None for other addresses.
    pub(crate) fn touched_pool(
        &self,
        address: u64,
        access: Access,
        rip: u64,
        toucher: Toucher,
        by: &str,
    ) -> Option<Box<Violation>> {
        let (start, offset, block) = self.pool.in_pages(address as usize)?;
        let operation = access.operation();
        let (size, tag) = (block.size, block.tag_text());
        // An entry that its list keeps is freed, for the driver.
        let is_kept = block.memory == Memory::Kept;
        let is_inside = usize::try_from(offset).is_ok_and(|offset| offset < size);
        // All of its pages are gone, also where the block is not.
        let own = start - block.front()..start - block.front() + block.bytes();
        let is_out = self.pool.paged_out && block.paged && own.contains(&(address as usize));
        let mut violation = if block.memory == Memory::Pages && (is_inside || is_out) {
            if !is_out {
                return None;
            }
            let irql = self.irql();
            let code = match toucher {
                Toucher::Driver => codes::DRIVER_IRQL_NOT_LESS_OR_EQUAL,
                Toucher::Kernel => codes::IRQL_NOT_LESS_OR_EQUAL,
            };
            let outside = block.outside(offset);
            let meaning = format!(
                "{by} paged pool at IRQL {irql}: byte {offset} of a block of {size} bytes of paged pool with tag '{tag}'{outside}"
            );
            Violation::boxed_owned(code, [address, u64::from(irql), operation, rip], meaning)
        } else {
            let is_freed = is_kept || block.memory == Memory::Gone;
            let code = match (is_freed, toucher) {
                (true, Toucher::Driver) => codes::DRIVER_PAGE_FAULT_IN_FREED_SPECIAL_POOL,
                (true, Toucher::Kernel) => codes::PAGE_FAULT_IN_FREED_SPECIAL_POOL,
                (false, Toucher::Driver) => codes::DRIVER_PAGE_FAULT_BEYOND_END_OF_ALLOCATION,
                (false, Toucher::Kernel) => codes::PAGE_FAULT_BEYOND_END_OF_ALLOCATION,
            };
            let freed = match (is_kept, is_freed) {
                (true, _) => " that has been freed to its lookaside list",
                (_, true) => " that has been freed",
                _ => "",
            };
            let meaning =
                format!("{by} byte {offset} of a block of {size} bytes with tag '{tag}'{freed}{}", block.outside(offset));
            Violation::boxed_owned(code, [address, operation, rip, 0], meaning)
        };
        violation.related = block.related();
        Some(violation)
    }
}
