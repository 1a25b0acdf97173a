//! In-stack queued spin locks (rule 36).

use super::spin_lock::{AT_DPC_LEVEL, RAISING, RELEASING, acquire, raise_if_below, raise_to_dispatch};
use crate::engine::Kernel;
use crate::engine::layout::lock_queue_handle;
use crate::exports::exports;
use crate::machine::Call;
use ksync_sys::{KLOCK_QUEUE_HANDLE, KSPIN_LOCK};

/// Fills in the handle and takes the lock with it.
pub(crate) fn acquire_queued(call: Call, lock: *mut KSPIN_LOCK, handle: *mut KLOCK_QUEUE_HANDLE, old_irql: Option<u8>) {
    if let Err(fault) = call.read(|kernel| kernel.check_queue_handle(handle as usize)) {
        call.fail(fault);
    }
    // SAFETY: the caller passes a handle of its own.
    unsafe { handle.write(lock_queue_handle(lock, old_irql.unwrap_or(0))) };
    acquire(call, lock, old_irql, handle as usize);
}

/// What a handle says that it was used for.
fn lock_in(handle: *mut KLOCK_QUEUE_HANDLE) -> *mut KSPIN_LOCK {
    if handle.is_null() || !handle.is_aligned() {
        return std::ptr::null_mut();
    }
    // SAFETY: the caller passes the handle of its acquisition.
    unsafe { (*handle).LockQueue.Lock }
}

/// The lock that a handle was used for.
fn lock_of(call: Call, handle: *mut KLOCK_QUEUE_HANDLE) -> *mut KSPIN_LOCK {
    let lock = lock_in(handle);
    if lock.is_null() {
        let why = "an in-stack queued spin lock was released with a handle that holds none";
        call.fail(Kernel::wrong_queue_handle(0, handle as usize, why));
    }
    lock
}

fn release_queued(call: Call, handle: *mut KLOCK_QUEUE_HANDLE, restore: bool) {
    let lock = lock_of(call, handle);
    // SAFETY: the caller passes the handle of its acquisition.
    let old = unsafe { (*handle).OldIrql };
    call.operate(|kernel| kernel.spin_release(lock, restore.then_some(old), handle as usize));
}

exports! {
    [RAISING] visible(acquire SpinLock) fn KeAcquireInStackQueuedSpinLock(
        call; SpinLock: *mut KSPIN_LOCK, LockHandle: *mut KLOCK_QUEUE_HANDLE
    ) {
        let old = raise_to_dispatch(call);
        acquire_queued(call, SpinLock, LockHandle, Some(old));
    }

    [RELEASING] visible(release lock_in(LockHandle)) fn KeReleaseInStackQueuedSpinLock(call; LockHandle: *mut KLOCK_QUEUE_HANDLE) {
        release_queued(call, LockHandle, true);
    }

    [AT_DPC_LEVEL] visible(acquire SpinLock) fn KeAcquireInStackQueuedSpinLockAtDpcLevel(
        call; SpinLock: *mut KSPIN_LOCK, LockHandle: *mut KLOCK_QUEUE_HANDLE
    ) {
        acquire_queued(call, SpinLock, LockHandle, None);
    }

    [RELEASING] visible(release lock_in(LockHandle)) fn KeReleaseInStackQueuedSpinLockFromDpcLevel(call; LockHandle: *mut KLOCK_QUEUE_HANDLE) {
        release_queued(call, LockHandle, false);
    }

    [RAISING] visible(acquire SpinLock) fn KeAcquireInStackQueuedSpinLockForDpc(
        call; SpinLock: *mut KSPIN_LOCK, LockHandle: *mut KLOCK_QUEUE_HANDLE
    ) {
        let old = raise_if_below(call);
        acquire_queued(call, SpinLock, LockHandle, Some(old));
    }

    [RELEASING] visible(release lock_in(LockHandle)) fn KeReleaseInStackQueuedSpinLockForDpc(call; LockHandle: *mut KLOCK_QUEUE_HANDLE) {
        release_queued(call, LockHandle, true);
    }
}
