//! EX_RUNDOWN_REF, plain and cache-aware (rule 31).
//!
//! The cache-aware form has a counter for each processor in Windows. Here it is one plain reference at the start of its block, which
//! no caller can tell from the outside.

use crate::engine::pool::PoolRequest;
use crate::exports::{IrqlRange, at_most, exports};
use crate::irql::{APC_LEVEL, DISPATCH_LEVEL};
use crate::machine::Call;
use ksync_sys::{BOOLEAN, EX_RUNDOWN_REF, EX_RUNDOWN_REF_CACHE_AWARE, POOL_TYPE, SIZE_T, ULONG};

/// The block that is acquired at up to DISPATCH_LEVEL is nonpaged; ksim cannot see where a plain one lies.
const ACQUIRE: IrqlRange = at_most(DISPATCH_LEVEL);
const WAIT: IrqlRange = at_most(APC_LEVEL);

fn acquire(call: Call, reference: *mut EX_RUNDOWN_REF, count: ULONG) -> BOOLEAN {
    BOOLEAN::from(call.operate(|kernel| kernel.acquire_rundown(reference, count)))
}

fn wait(call: Call, reference: *mut EX_RUNDOWN_REF) {
    if call.is_dying() {
        // Who is protected may be this thread.
        if !call.operate(|kernel| kernel.begin_rundown(reference)) {
            call.end_unwinding();
        }
        return;
    }
    while !call.operate(|kernel| kernel.wait_for_rundown(reference)) {}
}

exports! {
    [ACQUIRE] silent fn ExInitializeRundownProtection(call; RunRef: *mut EX_RUNDOWN_REF) {
        call.operate(|kernel| kernel.initialize_rundown(RunRef));
    }

    [ACQUIRE] visible(access RunRef) fn ExReInitializeRundownProtection(call; RunRef: *mut EX_RUNDOWN_REF) {
        call.operate(|kernel| kernel.set_rundown(RunRef, false));
    }

    [ACQUIRE] visible(access RunRef) fn ExAcquireRundownProtection(call; RunRef: *mut EX_RUNDOWN_REF) -> BOOLEAN {
        acquire(call, RunRef, 1)
    }

    [ACQUIRE] visible(access RunRef) fn ExAcquireRundownProtectionEx(call; RunRef: *mut EX_RUNDOWN_REF, Count: ULONG) -> BOOLEAN {
        acquire(call, RunRef, Count)
    }

    [ACQUIRE] visible(access RunRef) fn ExReleaseRundownProtection(call; RunRef: *mut EX_RUNDOWN_REF) {
        call.operate(|kernel| kernel.release_rundown(RunRef, 1));
    }

    [ACQUIRE] visible(access RunRef) fn ExReleaseRundownProtectionEx(call; RunRef: *mut EX_RUNDOWN_REF, Count: ULONG) {
        call.operate(|kernel| kernel.release_rundown(RunRef, Count));
    }

    [WAIT] visible(access RunRef) fn ExWaitForRundownProtectionRelease(call; RunRef: *mut EX_RUNDOWN_REF) {
        wait(call, RunRef);
    }

    [ACQUIRE] visible(access RunRef) fn ExRundownCompleted(call; RunRef: *mut EX_RUNDOWN_REF) {
        call.operate(|kernel| kernel.set_rundown(RunRef, true));
    }

    [at_most(DISPATCH_LEVEL)] silent fn ExSizeOfRundownProtectionCacheAware(call) -> SIZE_T {
        let _ = call;
        64
    }

    [at_most(DISPATCH_LEVEL)] silent fn ExAllocateCacheAwareRundownProtection(
        call; PoolType: POOL_TYPE, PoolTag: ULONG
    ) -> *mut EX_RUNDOWN_REF_CACHE_AWARE {
        let request = PoolRequest { size: 64, tag: PoolTag, paged: PoolType & 1 != 0, zeroed: true };
        call.operate(|kernel| {
            let block = kernel.allocate_pool(request)?;
            if !block.is_null() {
                kernel.initialize_rundown(block.cast())?;
            }
            Ok(block.cast())
        })
    }

    [at_most(DISPATCH_LEVEL)] silent fn ExFreeCacheAwareRundownProtection(
        call; RunRefCacheAware: *mut EX_RUNDOWN_REF_CACHE_AWARE
    ) {
        call.operate(|kernel| kernel.free_pool(RunRefCacheAware as usize, 0));
    }

    [ACQUIRE] silent fn ExInitializeRundownProtectionCacheAware(
        call; RunRefCacheAware: *mut EX_RUNDOWN_REF_CACHE_AWARE, _RunRefSize: SIZE_T
    ) {
        call.operate(|kernel| kernel.initialize_rundown(RunRefCacheAware.cast()));
    }

    [ACQUIRE] visible(access RunRefCacheAware) fn ExReInitializeRundownProtectionCacheAware(
        call; RunRefCacheAware: *mut EX_RUNDOWN_REF_CACHE_AWARE
    ) {
        call.operate(|kernel| kernel.set_rundown(RunRefCacheAware.cast(), false));
    }

    [ACQUIRE] visible(access RunRefCacheAware) fn ExAcquireRundownProtectionCacheAware(
        call; RunRefCacheAware: *mut EX_RUNDOWN_REF_CACHE_AWARE
    ) -> BOOLEAN {
        acquire(call, RunRefCacheAware.cast(), 1)
    }

    [ACQUIRE] visible(access RunRefCacheAware) fn ExAcquireRundownProtectionCacheAwareEx(
        call; RunRefCacheAware: *mut EX_RUNDOWN_REF_CACHE_AWARE, Count: ULONG
    ) -> BOOLEAN {
        acquire(call, RunRefCacheAware.cast(), Count)
    }

    [ACQUIRE] visible(access RunRefCacheAware) fn ExReleaseRundownProtectionCacheAware(
        call; RunRefCacheAware: *mut EX_RUNDOWN_REF_CACHE_AWARE
    ) {
        call.operate(|kernel| kernel.release_rundown(RunRefCacheAware.cast(), 1));
    }

    [ACQUIRE] visible(access RunRef) fn ExReleaseRundownProtectionCacheAwareEx(
        call; RunRef: *mut EX_RUNDOWN_REF_CACHE_AWARE, Count: ULONG
    ) {
        call.operate(|kernel| kernel.release_rundown(RunRef.cast(), Count));
    }

    [WAIT] visible(access RunRef) fn ExWaitForRundownProtectionReleaseCacheAware(call; RunRef: *mut EX_RUNDOWN_REF_CACHE_AWARE) {
        wait(call, RunRef.cast());
    }

    [ACQUIRE] visible(access RunRefCacheAware) fn ExRundownCompletedCacheAware(call; RunRefCacheAware: *mut EX_RUNDOWN_REF_CACHE_AWARE) {
        call.operate(|kernel| kernel.set_rundown(RunRefCacheAware.cast(), true));
    }
}
