//! EX_PUSH_LOCK (rule 30).

use crate::bug_check::verifier;
use crate::exports::{IrqlRange, at_most, exports};
use crate::irql::APC_LEVEL;
use crate::machine::Call;
use ksync_sys::{BOOLEAN, EX_PUSH_LOCK, ULONG};

const PUSH: IrqlRange = at_most(APC_LEVEL);
/// Verifier's sub-codes for a critical region that is missing.
const ACQUIRED_WITH_APCS: u64 = verifier::PUSH_LOCK_ACQUIRED_WITH_APCS;
const RELEASED_WITH_APCS: u64 = verifier::PUSH_LOCK_RELEASED_WITH_APCS;

fn acquire(call: Call, lock: *mut EX_PUSH_LOCK, flags: ULONG, exclusive: bool) {
    if call.is_dying() {
        let granted = call.operate(|kernel| kernel.push_acquire(lock, exclusive, false));
        if !granted {
            // The thread holds it itself.
            call.end_unwinding();
        }
        return;
    }
    call.operate(|kernel| kernel.check_push_use(lock, flags, ACQUIRED_WITH_APCS));
    while !call.operate(|kernel| kernel.push_acquire(lock, exclusive, true)) {}
}

fn try_acquire(call: Call, lock: *mut EX_PUSH_LOCK, flags: ULONG, exclusive: bool) -> BOOLEAN {
    call.operate(|kernel| kernel.check_push_use(lock, flags, ACQUIRED_WITH_APCS));
    BOOLEAN::from(call.operate(|kernel| kernel.push_acquire(lock, exclusive, false)))
}

fn release(call: Call, lock: *mut EX_PUSH_LOCK, flags: ULONG, exclusive: bool) {
    call.operate(|kernel| kernel.check_push_use(lock, flags, RELEASED_WITH_APCS));
    call.operate(|kernel| kernel.push_release(lock, exclusive));
}

exports! {
    [PUSH] silent fn ExInitializePushLock(call; PushLock: *mut EX_PUSH_LOCK) {
        call.operate(|kernel| kernel.initialize_push_lock(PushLock));
    }

    [PUSH] visible(acquire PushLock) fn ExAcquirePushLockExclusiveEx(call; PushLock: *mut EX_PUSH_LOCK, Flags: ULONG) {
        acquire(call, PushLock, Flags, true);
    }

    [PUSH] visible(share PushLock) fn ExAcquirePushLockSharedEx(call; PushLock: *mut EX_PUSH_LOCK, Flags: ULONG) {
        acquire(call, PushLock, Flags, false);
    }

    [PUSH] visible(release PushLock) fn ExReleasePushLockExclusiveEx(call; PushLock: *mut EX_PUSH_LOCK, Flags: ULONG) {
        release(call, PushLock, Flags, true);
    }

    [PUSH] visible(unshare PushLock) fn ExReleasePushLockSharedEx(call; PushLock: *mut EX_PUSH_LOCK, Flags: ULONG) {
        release(call, PushLock, Flags, false);
    }

    [PUSH] visible(access PushLock) fn ExTryAcquirePushLockExclusiveEx(call; PushLock: *mut EX_PUSH_LOCK, Flags: ULONG) -> BOOLEAN {
        try_acquire(call, PushLock, Flags, true)
    }

    [PUSH] visible(among_waiters PushLock) fn ExTryAcquirePushLockSharedEx(call; PushLock: *mut EX_PUSH_LOCK, Flags: ULONG) -> BOOLEAN {
        try_acquire(call, PushLock, Flags, false)
    }
}
