//! KSEMAPHORE.

use crate::exports::ke::wait::{after_release, check_wait_next};
use crate::exports::{ANY, DISPATCHER, exports};
use crate::irql::PASSIVE_LEVEL;
use crate::report::bug_check::Violation;
use ksync_sys::{BOOLEAN, KPRIORITY, KSEMAPHORE, LONG, STATUS_INVALID_PARAMETER};

exports! {
    [ANY] silent fn KeInitializeSemaphore(call; Semaphore: *mut KSEMAPHORE, Count: LONG, Limit: LONG) {
        call.operate(|kernel| {
            if Count < 0 || Limit <= 0 || Count > Limit {
                return Err(Violation::raised(
                    STATUS_INVALID_PARAMETER,
                    format!("a semaphore cannot have a count of {Count} with a limit of {Limit}"),
                ));
            }
            // SAFETY: the caller passes memory for a KSEMAPHORE.
            unsafe { kernel.initialize_semaphore(Semaphore, Count, Limit) }
        });
    }

    [DISPATCHER] visible(access Semaphore) fn KeReleaseSemaphore(
        call; Semaphore: *mut KSEMAPHORE, Increment: KPRIORITY, Adjustment: LONG, Wait: BOOLEAN
    ) -> LONG {
        check_wait_next(call, Wait, PASSIVE_LEVEL);
        call.operate(|kernel| {
            let id = kernel.semaphore_at(Semaphore)?;
            let previous = kernel.release_semaphore(id, Increment, Adjustment)?;
            after_release(kernel, Wait);
            Ok(previous)
        })
    }

    [DISPATCHER] visible(read Semaphore) fn KeReadStateSemaphore(call; Semaphore: *const KSEMAPHORE) -> LONG {
        call.operate(|kernel| {
            let id = kernel.semaphore_at(Semaphore)?;
            Ok(kernel.read_state(id))
        })
    }
}
