//! Pageable code and data, and paged pool, must not be touched at DISPATCH_LEVEL or above, where their pages may be out.
//!
//! Code is looked for where it calls the kernel. What runs at a raised level and calls nothing, and what data it touches, is seen where pages are taken away there: see
//! [`Machine::force_irql_checking`](crate::Machine::force_irql_checking).

use super::State;
use crate::engine::Kernel;
use crate::irql::DISPATCH_LEVEL;
use crate::machine::{Call, current};
use crate::report::bug_check::{Violation, codes};

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
    let mut state = call.cell.images.state_mut();
    call.read(|kernel| settle_for(state.as_deref_mut(), kernel));
}

/// The same, with what there is of images.
pub(super) fn settle_for(state: Option<&mut State>, kernel: &mut Kernel) {
    if let Some(state) = state {
        state.settle_paging(kernel);
    }
    kernel.settle_paging();
}

impl State {
    /// Takes away what is pageable, or gives it back, as the level of the acting processor says.
    fn settle_paging(&mut self, kernel: &Kernel) {
        let out = kernel.irql() >= DISPATCH_LEVEL;
        if self.paged_out != out {
            self.paged_out = out;
            for mapping in &self.mappings {
                mapping.page(out);
            }
        }
    }
}
