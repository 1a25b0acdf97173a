//! EX_SPIN_LOCK (rule 37).

use crate::engine::spin::Attempt;
use crate::exports::{IrqlRange, TO_DISPATCH, at_least, at_most, exports};
use crate::irql::{DISPATCH_LEVEL, HIGH_LEVEL};
use crate::machine::Call;
use crate::report::bug_check::codes::verifier;
use crate::schedule::Footprint;
use ksync_sys::{EX_SPIN_LOCK, KIRQL, LOGICAL};

const RAISING: IrqlRange = TO_DISPATCH;
const AT_DPC_LEVEL: IrqlRange = at_least(DISPATCH_LEVEL).rule(verifier::AT_DPC_LEVEL_TOO_LOW);
const RELEASING: IrqlRange = at_most(HIGH_LEVEL);

fn acquire(call: Call, lock: *mut EX_SPIN_LOCK, exclusive: bool, old_irql: Option<u8>) {
    while call.operate(|kernel| kernel.spin_rw_acquire(lock, exclusive, old_irql, true)) == Some(Attempt::Turning) {
        if call.is_dying() {
            return;
        }
        call.again(if exclusive { Footprint::acquire(lock) } else { Footprint::share(lock) });
    }
}

fn acquire_raising(call: Call, lock: *mut EX_SPIN_LOCK, exclusive: bool) -> KIRQL {
    let old = call.operate(|kernel| Ok(std::mem::replace(&mut kernel.processor().irql, DISPATCH_LEVEL)));
    acquire(call, lock, exclusive, Some(old));
    old
}

fn try_acquire(call: Call, lock: *mut EX_SPIN_LOCK, exclusive: bool) -> LOGICAL {
    LOGICAL::from(call.operate(|kernel| kernel.spin_rw_acquire(lock, exclusive, None, false)).is_some())
}

exports! {
    [RAISING] visible(acquire SpinLock) fn ExAcquireSpinLockExclusive(call; SpinLock: *mut EX_SPIN_LOCK) -> KIRQL {
        acquire_raising(call, SpinLock, true)
    }

    [RAISING] visible(share SpinLock) fn ExAcquireSpinLockShared(call; SpinLock: *mut EX_SPIN_LOCK) -> KIRQL {
        acquire_raising(call, SpinLock, false)
    }

    [RELEASING] visible(release SpinLock) fn ExReleaseSpinLockExclusive(call; SpinLock: *mut EX_SPIN_LOCK, OldIrql: KIRQL) {
        call.operate(|kernel| kernel.spin_rw_release(SpinLock, true, Some(OldIrql)));
    }

    [RELEASING] visible(leave SpinLock) fn ExReleaseSpinLockShared(call; SpinLock: *mut EX_SPIN_LOCK, OldIrql: KIRQL) {
        call.operate(|kernel| kernel.spin_rw_release(SpinLock, false, Some(OldIrql)));
    }

    [AT_DPC_LEVEL] visible(acquire SpinLock) fn ExAcquireSpinLockExclusiveAtDpcLevel(call; SpinLock: *mut EX_SPIN_LOCK) {
        acquire(call, SpinLock, true, None);
    }

    [AT_DPC_LEVEL] visible(share SpinLock) fn ExAcquireSpinLockSharedAtDpcLevel(call; SpinLock: *mut EX_SPIN_LOCK) {
        acquire(call, SpinLock, false, None);
    }

    [RELEASING] visible(release SpinLock) fn ExReleaseSpinLockExclusiveFromDpcLevel(call; SpinLock: *mut EX_SPIN_LOCK) {
        call.operate(|kernel| kernel.spin_rw_release(SpinLock, true, None));
    }

    [RELEASING] visible(leave SpinLock) fn ExReleaseSpinLockSharedFromDpcLevel(call; SpinLock: *mut EX_SPIN_LOCK) {
        call.operate(|kernel| kernel.spin_rw_release(SpinLock, false, None));
    }

    [AT_DPC_LEVEL] visible(among_waiters SpinLock) fn ExTryConvertSharedSpinLockExclusive(call; SpinLock: *mut EX_SPIN_LOCK) -> LOGICAL {
        LOGICAL::from(call.operate(|kernel| kernel.spin_rw_convert(SpinLock)))
    }

    [AT_DPC_LEVEL] visible(access SpinLock) fn ExTryAcquireSpinLockExclusiveAtDpcLevel(call; SpinLock: *mut EX_SPIN_LOCK) -> LOGICAL {
        try_acquire(call, SpinLock, true)
    }

    [AT_DPC_LEVEL] visible(among_waiters SpinLock) fn ExTryAcquireSpinLockSharedAtDpcLevel(call; SpinLock: *mut EX_SPIN_LOCK) -> LOGICAL {
        try_acquire(call, SpinLock, false)
    }
}
