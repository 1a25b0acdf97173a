//! KSPIN_LOCK.

use crate::engine::spin::Attempt;
use crate::exports::{ANY, IrqlRange, at_least, at_most, exports};
use crate::irql::{DISPATCH_LEVEL, HIGH_LEVEL};
use crate::machine::Call;
use crate::report::bug_check::codes::verifier;
use crate::schedule::Footprint;
use ksync_sys::{BOOLEAN, KIRQL, KSPIN_LOCK};

/// Ordinary acquisition: up to DISPATCH_LEVEL.
pub(super) const RAISING: IrqlRange = at_most(DISPATCH_LEVEL).rule(0x2_0011);
/// Acquisition that raises nothing: DISPATCH_LEVEL or above (rule 35).
pub(super) const AT_DPC_LEVEL: IrqlRange = at_least(DISPATCH_LEVEL).rule(verifier::AT_DPC_LEVEL_TOO_LOW);
/// Release, which checks its level by itself.
pub(super) const RELEASING: IrqlRange = at_most(HIGH_LEVEL);

/// Turns until the lock is the caller's.
pub(crate) fn acquire(call: Call, lock: *mut KSPIN_LOCK, old_irql: Option<u8>, handle: usize) {
    while call.operate(|kernel| kernel.spin_acquire(lock, old_irql, handle)) == Attempt::Turning {
        if call.is_dying() {
            return;
        }
        // A queued lock has been handed over; on an ordinary one all that turned race again.
        if handle == 0 {
            call.again(Footprint::acquire(lock));
        }
    }
}

/// Raises to DISPATCH_LEVEL. Returns the old level.
pub(crate) fn raise_to_dispatch(call: Call) -> u8 {
    raise_to(call, DISPATCH_LEVEL)
}

/// Raises to a level that the range of the routine does not exceed. Returns the old one.
pub(crate) fn raise_to(call: Call, level: u8) -> u8 {
    call.operate(|kernel| {
        let processor = kernel.processor();
        Ok(std::mem::replace(&mut processor.irql, level))
    })
}

/// Whether a ...ForDpc routine raises: a threaded DPC may run below DISPATCH_LEVEL (rule 38).
pub(super) fn raise_if_below(call: Call) -> u8 {
    call.operate(|kernel| {
        let processor = kernel.processor();
        let old = processor.irql;
        processor.irql = old.max(DISPATCH_LEVEL);
        Ok(old)
    })
}

exports! {
    [RAISING] visible(acquire SpinLock) fn KeAcquireSpinLockRaiseToDpc(call; SpinLock: *mut KSPIN_LOCK) -> KIRQL {
        let old = raise_to_dispatch(call);
        acquire(call, SpinLock, Some(old), 0);
        old
    }

    [RELEASING] visible(release SpinLock) fn KeReleaseSpinLock(call; SpinLock: *mut KSPIN_LOCK, NewIrql: KIRQL) {
        call.operate(|kernel| kernel.spin_release(SpinLock, Some(NewIrql), 0));
    }

    [AT_DPC_LEVEL] visible(acquire SpinLock) fn KeAcquireSpinLockAtDpcLevel(call; SpinLock: *mut KSPIN_LOCK) {
        acquire(call, SpinLock, None, 0);
    }

    [RELEASING] visible(release SpinLock) fn KeReleaseSpinLockFromDpcLevel(call; SpinLock: *mut KSPIN_LOCK) {
        call.operate(|kernel| kernel.spin_release(SpinLock, None, 0));
    }

    [AT_DPC_LEVEL] visible(access SpinLock) fn KeTryToAcquireSpinLockAtDpcLevel(call; SpinLock: *mut KSPIN_LOCK) -> BOOLEAN {
        BOOLEAN::from(call.operate(|kernel| kernel.spin_try(SpinLock, None, 0)))
    }

    [ANY] visible(read SpinLock) fn KeTestSpinLock(call; SpinLock: *const KSPIN_LOCK) -> BOOLEAN {
        // SAFETY: the caller passes a valid pointer.
        let word = call.read(|_| unsafe { SpinLock.read() });
        BOOLEAN::from(word == 0)
    }

    [RAISING] visible(acquire SpinLock) fn KeAcquireSpinLockForDpc(call; SpinLock: *mut KSPIN_LOCK) -> KIRQL {
        let old = raise_if_below(call);
        acquire(call, SpinLock, Some(old), 0);
        old
    }

    [RELEASING] visible(release SpinLock) fn KeReleaseSpinLockForDpc(call; SpinLock: *mut KSPIN_LOCK, OldIrql: KIRQL) {
        call.operate(|kernel| kernel.spin_release(SpinLock, Some(OldIrql), 0));
    }
}
