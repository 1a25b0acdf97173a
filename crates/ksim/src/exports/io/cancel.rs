//! Cancellation, and its spin lock.

use crate::exports::ke::spin_lock::{acquire, raise_to_dispatch};
use crate::exports::{IO_DISPATCH, exactly, exports};
use crate::irql::DISPATCH_LEVEL;
use crate::machine::{Call, cancel_lock};
use ksync_sys::{BOOLEAN, FALSE, IRP, KIRQL, KSPIN_LOCK, TRUE};

/// The lock itself.
pub(crate) fn lock(call: Call) -> *mut KSPIN_LOCK {
    call.read(|kernel| &raw mut *kernel.io.cancel_lock)
}

/// Acquires the cancel spin lock. Returns the level before.
pub(super) fn acquire_lock(call: Call) -> u8 {
    let lock = lock(call);
    let old = raise_to_dispatch(call);
    acquire(call, lock, Some(old), 0);
    old
}

/// Releases the cancel spin lock.
pub(super) fn release_lock(call: Call, irql: u8) {
    let lock = lock(call);
    call.operate(|kernel| kernel.spin_release(lock, Some(irql), 0));
}

exports! {
    [IO_DISPATCH] visible fn IoCancelIrp(call; Irp: *mut IRP) -> BOOLEAN {
        cancel(call, Irp)
    }

    [IO_DISPATCH] visible(acquire cancel_lock()) fn IoAcquireCancelSpinLock(call; Irql: *mut KIRQL) {
        let old = acquire_lock(call);
        // SAFETY: the caller passes a valid pointer.
        unsafe { Irql.write(old) };
    }

    [exactly(DISPATCH_LEVEL)] visible(release cancel_lock()) fn IoReleaseCancelSpinLock(call; Irql: KIRQL) {
        release_lock(call, Irql);
    }
}

/// Cancels a request: sets its bit, and calls its cancel routine if there is one.
pub(crate) fn cancel(call: Call, irp: *mut IRP) -> BOOLEAN {
    let old = acquire_lock(call);
    let Some(cancelling) = call.operate(|kernel| kernel.begin_cancel(irp, old)) else {
        release_lock(call, old);
        return FALSE;
    };
    if let Some(routine) = cancelling.routine {
        // SAFETY: the driver vouched for the routine when it set it in the request.
        unsafe { crate::image::call(routine, (cancelling.device, irp)) };
    }
    call.operate(|kernel| kernel.end_cancel(&cancelling, old));
    TRUE
}
