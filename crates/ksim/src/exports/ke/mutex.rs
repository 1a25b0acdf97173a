//! KMUTEX and KMUTANT.

use crate::exports::ke::wait::{after_release, check_wait_next};
use crate::exports::{ANY, DISPATCHER, exports};
use crate::irql::APC_LEVEL;
use ksync_sys::{BOOLEAN, KMUTANT, KPRIORITY, LONG, ULONG};

exports! {
    [ANY] silent fn KeInitializeMutex(call; Mutex: *mut KMUTANT, _Level: ULONG) {
        // SAFETY: the caller passes memory for a KMUTEX.
        call.operate(|kernel| unsafe { kernel.initialize_mutant(Mutex, true, false) });
    }

    [DISPATCHER] silent fn KeInitializeMutant(call; Mutant: *mut KMUTANT, InitialOwner: BOOLEAN) {
        // SAFETY: the caller passes memory for a KMUTANT.
        call.operate(|kernel| unsafe { kernel.initialize_mutant(Mutant, false, InitialOwner != 0) });
    }

    [DISPATCHER] visible(release Mutex) fn KeReleaseMutex(call; Mutex: *mut KMUTANT, Wait: BOOLEAN) -> LONG {
        check_wait_next(call, Wait, APC_LEVEL);
        call.operate(|kernel| {
            let id = kernel.mutant_at(Mutex)?;
            let previous = kernel.release_mutant(id, ksync_sys::MUTANT_INCREMENT)?;
            after_release(kernel, Wait);
            Ok(previous)
        })
    }

    [DISPATCHER] visible(access Mutant) fn KeReleaseMutant(
        call; Mutant: *mut KMUTANT, Increment: KPRIORITY, Abandoned: BOOLEAN, Wait: BOOLEAN
    ) -> LONG {
        check_wait_next(call, Wait, APC_LEVEL);
        call.operate(|kernel| {
            let id = kernel.mutant_at(Mutant)?;
            let previous = if Abandoned != 0 {
                kernel.abandon_mutant(id, Increment)?
            } else {
                kernel.release_mutant(id, Increment)?
            };
            after_release(kernel, Wait);
            Ok(previous)
        })
    }

    [DISPATCHER] visible(read Mutex) fn KeReadStateMutex(call; Mutex: *const KMUTANT) -> LONG {
        call.operate(|kernel| {
            let id = kernel.mutant_at(Mutex)?;
            Ok(kernel.read_state(id))
        })
    }
}
