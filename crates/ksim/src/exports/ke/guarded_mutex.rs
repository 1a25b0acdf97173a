//! KGUARDED_MUTEX (rule 28).
//!
//! Before Windows 8 a guarded mutex enters a guarded region and leaves the IRQL alone. From Windows 8 on it is a fast
//! mutex: it raises to APC_LEVEL and keeps the old level inside.

use crate::config::OsProfile;
use crate::exports::ex::fast_mutex::{acquire_raising, acquire_unsafe, release_restoring, release_unsafe, try_raising};
use crate::exports::{ANY, IrqlRange, at_most, exports};
use crate::irql::APC_LEVEL;
use crate::machine::Call;
use ksync_sys::{BOOLEAN, KGUARDED_MUTEX};

const GUARDED: IrqlRange = at_most(APC_LEVEL).rule(0x2_000f);

/// True where guarded mutexes are a primitive of their own.
fn of_its_own(call: Call) -> bool {
    call.read(|kernel| kernel.config.profile < OsProfile::Windows8)
}

exports! {
    [ANY] silent fn KeInitializeGuardedMutex(call; Mutex: *mut KGUARDED_MUTEX) {
        // The two structures have one layout; ksync-sys asserts it.
        // SAFETY: the caller passes memory for a KGUARDED_MUTEX.
        call.operate(|kernel| unsafe { kernel.initialize_fast_mutex(Mutex.cast()) });
    }

    [GUARDED] visible(acquire Mutex) fn KeAcquireGuardedMutex(call; Mutex: *mut KGUARDED_MUTEX) {
        if of_its_own(call) {
            call.operate(|kernel| kernel.change_region(true, -1));
            acquire_unsafe(call, Mutex.cast());
        } else {
            acquire_raising(call, Mutex.cast());
        }
    }

    [GUARDED] visible(release Mutex) fn KeReleaseGuardedMutex(call; Mutex: *mut KGUARDED_MUTEX) {
        if of_its_own(call) {
            release_unsafe(call, Mutex.cast());
            call.operate(|kernel| kernel.change_region(true, 1));
        } else {
            release_restoring(call, Mutex.cast());
        }
    }

    [GUARDED] visible(access Mutex) fn KeTryToAcquireGuardedMutex(call; Mutex: *mut KGUARDED_MUTEX) -> BOOLEAN {
        if !of_its_own(call) {
            return BOOLEAN::from(try_raising(call, Mutex.cast()));
        }
        call.operate(|kernel| kernel.change_region(true, -1));
        let acquired = call.operate(|kernel| kernel.fast_try(Mutex.cast()));
        if !acquired {
            call.operate(|kernel| kernel.change_region(true, 1));
        }
        BOOLEAN::from(acquired)
    }

    [GUARDED] visible(acquire Mutex) fn KeAcquireGuardedMutexUnsafe(call; Mutex: *mut KGUARDED_MUTEX) {
        acquire_unsafe(call, Mutex.cast());
    }

    [GUARDED] visible(release Mutex) fn KeReleaseGuardedMutexUnsafe(call; Mutex: *mut KGUARDED_MUTEX) {
        release_unsafe(call, Mutex.cast());
    }
}
