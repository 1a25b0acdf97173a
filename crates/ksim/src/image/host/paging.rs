//! Pageable code must not run at DISPATCH_LEVEL or above, where its pages may be out.
//!
//! It is looked for where pageable code calls the kernel. What runs at a raised level and calls nothing goes unseen.

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
        let section = mapping.file.section_at(mapping.rva(return_address))?;
        section.pageable.then(|| format!("{} in section {}", mapping.describe(return_address), section.name))
    });
    if let Some(place) = place {
        call.fail(Violation::boxed_owned(
            codes::DRIVER_IRQL_NOT_LESS_OR_EQUAL,
            [return_address, u64::from(irql), 8, return_address],
            format!("pageable code ran at IRQL {irql}: {place}"),
        ));
    }
}
