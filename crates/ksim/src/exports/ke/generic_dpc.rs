//! KeGenericCallDpc: a routine on every processor at once (rule 48).

use crate::exports::{ANY, BLOCKING, at_least, exports};
use crate::irql::DISPATCH_LEVEL;
use ksync_sys::{KDEFERRED_ROUTINE, LOGICAL, PVOID};

exports! {
    [BLOCKING] visible fn KeGenericCallDpc(call; Routine: Option<KDEFERRED_ROUTINE>, Context: PVOID) {
        if call.is_dying() {
            return;
        }
        // One call at a time: the system has one set of DPCs for it.
        while !call.operate(|kernel| kernel.begin_generic_call(Routine, Context)) {}
        while !call.operate(|kernel| kernel.generic_call_is_over()) {}
        call.operate(|kernel| kernel.end_generic_call());
    }

    [at_least(DISPATCH_LEVEL)] visible fn KeSignalCallDpcDone(call; SystemArgument1: PVOID) {
        call.operate(|kernel| kernel.generic_call_done(SystemArgument1 as usize));
    }

    [ANY] visible fn KeSignalCallDpcSynchronize(call; SystemArgument2: PVOID) -> LOGICAL {
        let phase = call.operate(|kernel| kernel.generic_call_arrive(SystemArgument2 as usize));
        let Some(phase) = phase else { return 1 };
        while !call.is_dying() && !call.operate(|kernel| kernel.generic_call_passed(phase)) {}
        0
    }
}
