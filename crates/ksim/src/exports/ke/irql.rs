//! The IRQL (rules 58 and 59).

use crate::engine::kernel::{Check, Kernel};
use crate::exports::{ANY, exports};
use crate::irql::{DISPATCH_LEVEL, HIGH_LEVEL};
use crate::machine::acting_processor;
use crate::report::bug_check::{Violation, codes};
use crate::report::trace::Operation;
use ksync_sys::KIRQL;

/// Raises the level of the acting processor. Returns the old one.
fn raise(kernel: &mut Kernel, to: u8) -> Check<u8> {
    let from = kernel.irql();
    if to < from || to > HIGH_LEVEL {
        return Err(Violation::boxed(
            codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [codes::verifier::RAISE_TO_LOWER, u64::from(from), u64::from(to), 0],
            "KeRaiseIrql to a lower level than the current one",
        ));
    }
    let processor = kernel.processor();
    processor.irql = to;
    processor.raises.push(from);
    kernel.note(Operation::RaiseIrql, 0, u64::from(from));
    Ok(from)
}

exports! {
    [ANY] silent fn KeGetCurrentIrql(call) -> KIRQL {
        call.read(|kernel| kernel.irql())
    }

    [ANY] silent fn KfRaiseIrql(call; NewIrql: KIRQL) -> KIRQL {
        call.operate(|kernel| raise(kernel, NewIrql))
    }

    [ANY] silent fn KeRaiseIrqlToDpcLevel(call) -> KIRQL {
        call.operate(|kernel| raise(kernel, DISPATCH_LEVEL))
    }

    [ANY] visible(level acting_processor()) fn KeLowerIrql(call; NewIrql: KIRQL) {
        call.operate(|kernel| {
            let from = kernel.irql();
            let raised_from = kernel.processor().raises.pop();
            // A level that a spin lock or a fast mutex left behind is lowered by drivers too: only the order of raises that
            // are still open is checked (rule 59).
            if NewIrql > from || raised_from.is_some_and(|raised_from| raised_from != NewIrql) {
                return Err(Violation::boxed(
                    codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                    [codes::verifier::LOWER_TO_HIGHER, u64::from(from), u64::from(NewIrql), 0],
                    "KeLowerIrql to a higher level than the current one, or not to that of the last KeRaiseIrql",
                ));
            }
            kernel.note(Operation::LowerIrql, 0, u64::from(NewIrql));
            kernel.set_irql(NewIrql)
        });
    }
}
