//! Pageable code and data, and paged pool, must not be touched at DISPATCH_LEVEL or above, where their pages may be out.
//!
//! Code is looked for where it calls the kernel. What runs at a raised level and calls nothing, and what data it touches, is seen where pages are taken away there: see
//! [`Machine::force_irql_checking`](crate::Machine::force_irql_checking).

use super::State;
use super::arena::{Access, Block};
use crate::engine::Kernel;
use crate::irql::DISPATCH_LEVEL;
use crate::machine::{Call, current};
use crate::report::bug_check::{Violation, codes};

const PAGE: usize = 4096;

/// Code at an address has called an import.
#[cold]
pub(super) fn check(return_address: u64) {
    let call = Call { cell: current("an import of an image"), export: None };
    let irql = call.read(|kernel| kernel.irql());
    if irql < DISPATCH_LEVEL {
        return;
    }
    let place = call.cell.images.state().and_then(|state| {
        let mapping = state.mapping_at(return_address)?;
        let section = mapping.pageable_at(return_address)?;
        Some(format!("{} in section {}", mapping.describe(return_address), section.name))
    });
    if let Some(place) = place {
        call.fail(Violation::boxed_owned(
            codes::DRIVER_IRQL_NOT_LESS_OR_EQUAL,
            [return_address, u64::from(irql), 8, return_address],
            format!("pageable code ran at IRQL {irql}: {place}"),
        ));
    }
}

/// The driver is about to go on: what is pageable is there, or not, as the level of the processor says.
#[cold]
pub(super) fn settle() {
    let call = Call { cell: current("an image"), export: None };
    if let Some(mut state) = call.cell.images.state_mut() {
        call.read(|kernel| state.settle_paging(kernel));
    }
}

impl State {
    /// Takes away what is pageable, or gives it back, as the level of the acting processor says.
    pub(super) fn settle_paging(&mut self, kernel: &mut Kernel) {
        let out = kernel.irql() >= DISPATCH_LEVEL;
        if self.paged_out != out {
            self.paged_out = out;
            for mapping in &self.mappings {
                mapping.page(out);
            }
            kernel.pool.page(out);
        }
    }
}

/// Memory of paged pool in pages of its own, which can be taken away.
#[derive(Debug)]
pub(crate) struct PagedMemory {
    block: Block,
    size: usize,
}

impl PagedMemory {
    /// Takes so many bytes, if there are as many.
    pub(crate) fn new(bytes: usize) -> Option<Self> {
        let size = bytes.checked_next_multiple_of(PAGE)?;
        let memory = Self { block: Block::new(size).ok()?, size };
        memory.block.protect(0, size, Access::Write).ok()?;
        Some(memory)
    }

    pub(crate) fn start(&self) -> usize {
        self.block.start()
    }

    /// Takes the pages away, or gives them back.
    pub(crate) fn page(&self, out: bool) {
        // A failure leaves the pages as they are, and the host is out of memory.
        let _ = self.block.protect(0, self.size, if out { Access::None } else { Access::Write });
    }
}
