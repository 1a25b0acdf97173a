//! Remove locks (rule 32).

use crate::engine::io::remove_lock::remove_event;
use crate::exports::{IO_DISPATCH, PASSIVE, exports};
use ksync_sys::{CHAR, IO_REMOVE_LOCK, KeWaitForSingleObject, NTSTATUS, PVOID, ULONG};

exports! {
    [PASSIVE] silent fn IoInitializeRemoveLockEx(
        call; Lock: *mut IO_REMOVE_LOCK, _AllocateTag: ULONG, _MaxLockedMinutes: ULONG, _HighWatermark: ULONG, RemlockSize: ULONG
    ) {
        call.operate(|kernel| kernel.initialize_remove_lock(Lock, RemlockSize));
    }

    [IO_DISPATCH] visible(access remove_event(RemoveLock)) fn IoAcquireRemoveLockEx(
        call; RemoveLock: *mut IO_REMOVE_LOCK, Tag: PVOID, _File: *const CHAR, _Line: ULONG, RemlockSize: ULONG
    ) -> NTSTATUS {
        call.operate(|kernel| kernel.acquire_remove_lock(RemoveLock, Tag as usize, RemlockSize))
    }

    [IO_DISPATCH] visible(access remove_event(RemoveLock)) fn IoReleaseRemoveLockEx(call; RemoveLock: *mut IO_REMOVE_LOCK, Tag: PVOID, RemlockSize: ULONG) {
        call.operate(|kernel| kernel.release_remove_lock(RemoveLock, Tag as usize, RemlockSize));
    }

    [PASSIVE] visible(access remove_event(RemoveLock)) fn IoReleaseRemoveLockAndWaitEx(call; RemoveLock: *mut IO_REMOVE_LOCK, Tag: PVOID, RemlockSize: ULONG) {
        let wait = call.operate(|kernel| kernel.begin_removal(RemoveLock, Tag as usize, RemlockSize));
        if wait {
            if call.is_dying() {
                // Who has acquired it may be this thread.
                call.end_unwinding();
            }
            // SAFETY: the lock is initialised, and so is the event in it.
            unsafe { KeWaitForSingleObject(remove_event(RemoveLock).cast(), 0, 0, 0, std::ptr::null()) };
        }
    }
}
