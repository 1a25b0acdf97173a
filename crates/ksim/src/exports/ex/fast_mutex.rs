//! FAST_MUTEX (rule 27).

use crate::engine::fast_mutex::FastAttempt;
use crate::exports::{IrqlRange, at_most, exports};
use crate::irql::APC_LEVEL;
use crate::machine::Call;
use crate::report::bug_check::{Violation, codes};
use crate::schedule::Footprint;
use ksync_sys::{BOOLEAN, FAST_MUTEX};

const FAST: IrqlRange = at_most(APC_LEVEL).rule(0x2_0005);

/// Takes the mutex as it is: no level, no region is changed.
pub(crate) fn acquire_unsafe(call: Call, mutex: *mut FAST_MUTEX) {
    while call.operate(|kernel| kernel.fast_acquire(mutex)) == FastAttempt::Waiting {
        if call.is_dying() {
            return;
        }
        call.again(Footprint::acquire(mutex));
    }
}

/// Raises to APC_LEVEL and takes the mutex, which keeps the old level.
pub(crate) fn acquire_raising(call: Call, mutex: *mut FAST_MUTEX) {
    let old = raise_to_apc(call);
    acquire_unsafe(call, mutex);
    // SAFETY: the mutex is the caller's now.
    unsafe { (*mutex).OldIrql = old.into() };
}

/// Takes the mutex at APC_LEVEL if nobody has it.
pub(crate) fn try_raising(call: Call, mutex: *mut FAST_MUTEX) -> bool {
    let old = raise_to_apc(call);
    if call.operate(|kernel| kernel.fast_try(mutex)) {
        // SAFETY: the mutex is the caller's now.
        unsafe { (*mutex).OldIrql = old.into() };
        return true;
    }
    call.operate(|kernel| kernel.set_irql(old));
    false
}

/// Releases the mutex as it is.
pub(crate) fn release_unsafe(call: Call, mutex: *mut FAST_MUTEX) {
    call.operate(|kernel| kernel.fast_release(mutex));
}

/// Releases the mutex and returns to the level that it kept.
pub(crate) fn release_restoring(call: Call, mutex: *mut FAST_MUTEX) {
    call.operate(|kernel| {
        let irql = kernel.irql();
        if irql != APC_LEVEL {
            return Err(Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [0x34, u64::from(irql), mutex as u64, 0],
                "a fast mutex was released at another level than APC_LEVEL",
            ));
        }
        let id = kernel.owned_fast_mutex(mutex)?;
        // SAFETY: the running thread owns the mutex, so that it is a valid one.
        let old = unsafe { (*mutex).OldIrql };
        kernel.release_owned(id, mutex)?;
        kernel.set_irql(old as u8)
    });
}

fn raise_to_apc(call: Call) -> u8 {
    call.operate(|kernel| Ok(std::mem::replace(&mut kernel.processor().irql, APC_LEVEL)))
}

/// The unsafe forms are for where APCs are held back (rule 27): at APC_LEVEL or in a region. The routine's page allows
/// either, Verifier only the level; the page wins.
fn check_apcs_off(call: Call, sub_code: u64, mutex: *mut FAST_MUTEX) {
    if call.is_dying() {
        return;
    }
    call.operate(|kernel| {
        let tid = kernel.this_thread();
        if kernel.irql() >= APC_LEVEL || kernel.thread(tid).apc.normal_disabled() || !kernel.config.rules.has_level(sub_code) {
            return Ok(());
        }
        Err(Violation::boxed(
            codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [sub_code, u64::from(kernel.irql()), mutex as u64, 0],
            "a fast mutex's unsafe form was used with APCs enabled",
        ))
    });
}

exports! {
    [FAST] visible(acquire FastMutex) fn ExAcquireFastMutex(call; FastMutex: *mut FAST_MUTEX) {
        acquire_raising(call, FastMutex);
    }

    [FAST] visible(release FastMutex) fn ExReleaseFastMutex(call; FastMutex: *mut FAST_MUTEX) {
        release_restoring(call, FastMutex);
    }

    [FAST] visible(access FastMutex) fn ExTryToAcquireFastMutex(call; FastMutex: *mut FAST_MUTEX) -> BOOLEAN {
        BOOLEAN::from(try_raising(call, FastMutex))
    }

    [FAST] visible(acquire FastMutex) fn ExAcquireFastMutexUnsafe(call; FastMutex: *mut FAST_MUTEX) {
        check_apcs_off(call, codes::verifier::FAST_MUTEX_ACQUIRED_WITH_APCS, FastMutex);
        acquire_unsafe(call, FastMutex);
    }

    [FAST] visible(release FastMutex) fn ExReleaseFastMutexUnsafe(call; FastMutex: *mut FAST_MUTEX) {
        check_apcs_off(call, codes::verifier::FAST_MUTEX_RELEASED_WITH_APCS, FastMutex);
        release_unsafe(call, FastMutex);
    }
}
