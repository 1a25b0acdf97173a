//! Locks by older names: the system's queued spin locks, which have numbers, acquisitions that raise to SYNCH_LEVEL, `Exf...` push locks.

use crate::exports::ke::queued_spin_lock::acquire_queued;
use crate::exports::ke::spin_lock::{acquire, raise_to};
use crate::exports::{ANY, BLOCKING, IrqlRange, at_most, image_exports};
use crate::image::host::{CANCEL_LOCK, QUEUED_LOCKS};
use crate::irql::{APC_LEVEL, DISPATCH_LEVEL, HIGH_LEVEL, SYNCH_LEVEL};
use crate::machine::Call;
use crate::report::bug_check::{Violation, codes};
use ksync_sys::{
    BOOLEAN, ERESOURCE, EX_PUSH_LOCK, ExAcquireFastMutexUnsafe, ExAcquirePushLockExclusiveEx, ExAcquirePushLockSharedEx,
    ExAcquireResourceExclusiveLite, ExReleaseFastMutexUnsafe, ExReleasePushLockExclusiveEx, ExReleasePushLockSharedEx,
    ExTryAcquirePushLockSharedEx, FALSE, FAST_MUTEX, KIRQL, KLOCK_QUEUE_HANDLE, KMUTANT, KSPIN_LOCK, KeEnterCriticalRegion,
    KeLeaveCriticalRegion, KeReadStateMutex, LOGICAL, LONG,
};

/// What may be acquired up to DISPATCH_LEVEL.
const RAISING: IrqlRange = at_most(DISPATCH_LEVEL).rule(0x2_0011);
const TO_SYNCH: IrqlRange = at_most(SYNCH_LEVEL);
/// A release checks its level by itself.
const RELEASING: IrqlRange = at_most(HIGH_LEVEL);

/// A queued spin lock of the system's, and the queue entry that an acquisition has: the cancel lock, which has its own routines, is used as an ordinary one.
fn numbered(call: Call, number: LONG) -> (*mut KSPIN_LOCK, usize) {
    let known = usize::try_from(number).ok().filter(|&number| number < QUEUED_LOCKS);
    let Some(number) = known else {
        call.fail(Violation::boxed_owned(
            codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [0, number as u64, QUEUED_LOCKS as u64, 0],
            format!("the system has {QUEUED_LOCKS} queued spin locks, and none with the number {number}"),
        ));
    };
    if number == CANCEL_LOCK {
        return (crate::exports::io::cancel::lock(call), 0);
    }
    let lock = call.cell.images.queued_lock(number);
    // A processor has one entry for each of the locks, which its lock and the processor stand for.
    (lock, lock as usize)
}

fn acquire_numbered(call: Call, number: LONG, level: KIRQL) -> KIRQL {
    let (lock, handle) = numbered(call, number);
    let old = raise_to(call, level);
    acquire(call, lock, Some(old), handle);
    old
}

fn try_numbered(call: Call, number: LONG, old_irql: *mut KIRQL, level: KIRQL) -> LOGICAL {
    let (lock, handle) = numbered(call, number);
    let old = raise_to(call, level);
    if !call.operate(|kernel| kernel.spin_try(lock, Some(old), handle)) {
        call.operate(|kernel| kernel.set_irql(old));
        return 0;
    }
    // SAFETY: the driver passes a valid pointer.
    unsafe { old_irql.write(old) };
    1
}

image_exports! {
    [ANY] silent fn KeInitializeSpinLock(call; SpinLock: *mut KSPIN_LOCK) {
        // SAFETY: the driver passes memory for a lock.
        unsafe { SpinLock.write(0) };
        call.operate(|kernel| kernel.initialize_spin_lock(SpinLock));
    }

    [RAISING] visible fn KeAcquireQueuedSpinLock(call; Number: LONG) -> KIRQL {
        acquire_numbered(call, Number, DISPATCH_LEVEL)
    }

    [TO_SYNCH] visible fn KeAcquireQueuedSpinLockRaiseToSynch(call; Number: LONG) -> KIRQL {
        acquire_numbered(call, Number, SYNCH_LEVEL)
    }

    [RAISING] visible fn KeTryToAcquireQueuedSpinLock(call; Number: LONG, OldIrql: *mut KIRQL) -> LOGICAL {
        try_numbered(call, Number, OldIrql, DISPATCH_LEVEL)
    }

    [TO_SYNCH] visible fn KeTryToAcquireQueuedSpinLockRaiseToSynch(call; Number: LONG, OldIrql: *mut KIRQL) -> LOGICAL {
        try_numbered(call, Number, OldIrql, SYNCH_LEVEL)
    }

    [RELEASING] visible fn KeReleaseQueuedSpinLock(call; Number: LONG, OldIrql: KIRQL) {
        let (lock, handle) = numbered(call, Number);
        call.operate(|kernel| kernel.spin_release(lock, Some(OldIrql), handle));
    }

    [TO_SYNCH] visible fn KeAcquireSpinLockRaiseToSynch(call; SpinLock: *mut KSPIN_LOCK) -> KIRQL {
        let old = raise_to(call, SYNCH_LEVEL);
        acquire(call, SpinLock, Some(old), 0);
        old
    }

    [TO_SYNCH] visible fn KeAcquireInStackQueuedSpinLockRaiseToSynch(
        call; SpinLock: *mut KSPIN_LOCK, LockHandle: *mut KLOCK_QUEUE_HANDLE
    ) {
        let old = raise_to(call, SYNCH_LEVEL);
        acquire_queued(call, SpinLock, LockHandle, Some(old));
    }

    // The forms without flags, for which headers have these names.
    [BLOCKING] silent fn ExfAcquirePushLockExclusive(_call; PushLock: *mut EX_PUSH_LOCK) {
        // SAFETY: the same routine with no flags; here and below.
        unsafe { ExAcquirePushLockExclusiveEx(PushLock, 0) };
    }

    [BLOCKING] silent fn ExfAcquirePushLockShared(_call; PushLock: *mut EX_PUSH_LOCK) {
        // SAFETY: as above.
        unsafe { ExAcquirePushLockSharedEx(PushLock, 0) };
    }

    [BLOCKING] silent fn ExfTryAcquirePushLockShared(_call; PushLock: *mut EX_PUSH_LOCK) -> BOOLEAN {
        // SAFETY: as above.
        unsafe { ExTryAcquirePushLockSharedEx(PushLock, 0) }
    }

    [BLOCKING] silent fn ExfReleasePushLockExclusive(_call; PushLock: *mut EX_PUSH_LOCK) {
        // SAFETY: as above.
        unsafe { ExReleasePushLockExclusiveEx(PushLock, 0) };
    }

    [BLOCKING] silent fn ExfReleasePushLockShared(_call; PushLock: *mut EX_PUSH_LOCK) {
        // SAFETY: as above.
        unsafe { ExReleasePushLockSharedEx(PushLock, 0) };
    }

    // Releases what the lock is held for.
    [BLOCKING] silent fn ExfReleasePushLock(call; PushLock: *mut EX_PUSH_LOCK) {
        if call.operate(|kernel| kernel.is_push_lock_exclusive(PushLock)) {
            // SAFETY: as above.
            unsafe { ExReleasePushLockExclusiveEx(PushLock, 0) };
        } else {
            // SAFETY: as above.
            unsafe { ExReleasePushLockSharedEx(PushLock, 0) };
        }
    }

    [BLOCKING] silent fn ExEnterCriticalRegionAndAcquireFastMutexUnsafe(_call; FastMutex: *mut FAST_MUTEX) {
        // SAFETY: the driver passes a valid mutex; here and below.
        unsafe { KeEnterCriticalRegion() };
        // SAFETY: as above.
        unsafe { ExAcquireFastMutexUnsafe(FastMutex) };
    }

    [at_most(APC_LEVEL)] silent fn ExReleaseFastMutexUnsafeAndLeaveCriticalRegion(_call; FastMutex: *mut FAST_MUTEX) {
        // SAFETY: as above.
        unsafe { ExReleaseFastMutexUnsafe(FastMutex) };
        // SAFETY: as above.
        unsafe { KeLeaveCriticalRegion() };
    }

    [BLOCKING] silent fn ExTryToAcquireResourceExclusiveLite(_call; Resource: *mut ERESOURCE) -> BOOLEAN {
        // SAFETY: the same routine, not waiting.
        unsafe { ExAcquireResourceExclusiveLite(Resource, FALSE) }
    }

    [RAISING] silent fn KeReadStateMutant(_call; Mutant: *const KMUTANT) -> LONG {
        // SAFETY: the same routine by its older name.
        unsafe { KeReadStateMutex(Mutant) }
    }
}
