//! Queues from which several entries are removed at once, cache-aware push locks, ideal processors.
//!
//! None of these has a page of its own in the driver documentation; kits declare or export them.

use crate::engine::pool::PoolRequest;
use crate::exports::ke::queue::remove;
use crate::exports::{BLOCKING, DISPATCHER, image_exports};
use crate::report::bug_check::{Violation, codes};
use crate::schedule::Footprint;
use ksync_sys::{
    BOOLEAN, EX_PUSH_LOCK, ExAcquirePushLockExclusiveEx, ExAcquirePushLockSharedEx, ExReleasePushLockExclusiveEx,
    ExReleasePushLockSharedEx, KPROCESSOR_MODE, KQUEUE, KTHREAD, LARGE_INTEGER, LIST_ENTRY, NTSTATUS, PROCESSOR_NUMBER,
    STATUS_INVALID_PARAMETER, STATUS_SUCCESS, UCHAR, ULONG,
};
use std::ptr::null_mut;

/// A cache-aware push lock has a lock for each processor in NT: who shares it takes the own one, and who has it alone takes all.
/// Here it is one lock at the start of its block, which no driver can tell from the outside.
const CACHE_AWARE_BYTES: usize = 64;
const CACHE_AWARE_TAG: u32 = u32::from_le_bytes(*b"CaPl");

image_exports! {
    // As many entries as there are, up to Count, or one place with the status, as KeRemoveQueue returns it.
    [BLOCKING] visible fn KeRemoveQueueEx(
        call; Queue: *mut KQUEUE, WaitMode: KPROCESSOR_MODE, Alertable: BOOLEAN, Timeout: *const LARGE_INTEGER,
        EntryArray: *mut *mut LIST_ENTRY, Count: ULONG
    ) -> ULONG {
        call.check_pointer(EntryArray);
        if Count == 0 {
            call.fail(Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::BAD_ARGUMENT, Queue as u64, 0, 0],
                "KeRemoveQueueEx was called for no entries",
            ));
        }
        let first = remove(call, Queue, WaitMode, Alertable != 0, Timeout, "KeRemoveQueueEx");
        let more = match first {
            Ok(_) if Count > 1 => {
                // Others may have been woken, too, and take what is left before.
                call.again(Footprint::UNKNOWN);
                call.operate(|kernel| {
                    let id = kernel.queue_at(Queue)?;
                    Ok(kernel.take_more_queue_entries(id, Count as usize - 1))
                })
            }
            _ => Vec::new(),
        };
        let first = first.unwrap_or_else(|status| status as isize as *mut LIST_ENTRY);
        for (index, entry) in std::iter::once(first).chain(more.iter().copied()).enumerate() {
            // SAFETY: the driver passes an array of Count places.
            unsafe { EntryArray.wrapping_add(index).write(entry) };
        }
        more.len() as ULONG + 1
    }

    [DISPATCHER] visible fn KeSetIdealProcessorThread(call; Thread: *mut KTHREAD, Processor: UCHAR) -> UCHAR {
        call.operate(|kernel| {
            let tid = kernel.thread_at(Thread)?;
            // One that is not there, such as MAXIMUM_PROCESSORS, asks for what it is.
            let exists = Processor < kernel.config.processors;
            let thread = kernel.thread(tid);
            let before = thread.ideal_cpu.unwrap_or(0);
            if exists {
                thread.ideal_cpu = Some(Processor);
            }
            Ok(before)
        })
    }

    [DISPATCHER] visible fn KeSetIdealProcessorEx(
        call; Thread: *mut KTHREAD, IdealProcessor: *mut PROCESSOR_NUMBER, PreviousIdealProcessor: *mut PROCESSOR_NUMBER
    ) -> NTSTATUS {
        call.check_pointer(IdealProcessor);
        // SAFETY: the driver passes a valid pointer.
        let wanted = unsafe { IdealProcessor.read() };
        let before = call.operate(|kernel| {
            let tid = kernel.thread_at(Thread)?;
            let Some(cpu) = kernel.config.groups.cpu(wanted) else { return Ok(None) };
            let before = kernel.thread(tid).ideal_cpu.replace(cpu).unwrap_or(0);
            Ok(Some(kernel.config.groups.number(before)))
        });
        let Some(before) = before else { return STATUS_INVALID_PARAMETER };
        if !PreviousIdealProcessor.is_null() {
            // SAFETY: the driver passes null or a valid pointer.
            unsafe { PreviousIdealProcessor.write(before) };
        }
        STATUS_SUCCESS
    }

    [DISPATCHER] silent fn ExAllocateCacheAwarePushLock(call) -> *mut EX_PUSH_LOCK {
        let request = PoolRequest { size: CACHE_AWARE_BYTES, tag: CACHE_AWARE_TAG, paged: false, zeroed: true };
        call.operate(|kernel| {
            let lock: *mut EX_PUSH_LOCK = kernel.allocate_pool(request)?.cast();
            if lock.is_null() {
                return Ok(null_mut());
            }
            kernel.initialize_push_lock(lock)?;
            Ok(lock)
        })
    }

    [DISPATCHER] silent fn ExFreeCacheAwarePushLock(call; PushLock: *mut EX_PUSH_LOCK) {
        call.operate(|kernel| kernel.free_pool(PushLock as usize, CACHE_AWARE_TAG));
    }

    // The lock that was taken, which its release is passed.
    [BLOCKING] silent fn ExAcquireCacheAwarePushLockSharedEx(_call; PushLock: *mut EX_PUSH_LOCK, Flags: ULONG) -> *mut EX_PUSH_LOCK {
        // SAFETY: the same routine for a plain lock; here and below.
        unsafe { ExAcquirePushLockSharedEx(PushLock, Flags) };
        PushLock
    }

    [BLOCKING] silent fn ExReleaseCacheAwarePushLockSharedEx(_call; PushLock: *mut EX_PUSH_LOCK, Flags: ULONG) {
        // SAFETY: as above.
        unsafe { ExReleasePushLockSharedEx(PushLock, Flags) };
    }

    [BLOCKING] silent fn ExAcquireCacheAwarePushLockExclusiveEx(_call; PushLock: *mut EX_PUSH_LOCK, Flags: ULONG) {
        // SAFETY: as above.
        unsafe { ExAcquirePushLockExclusiveEx(PushLock, Flags) };
    }

    [BLOCKING] silent fn ExReleaseCacheAwarePushLockExclusiveEx(_call; PushLock: *mut EX_PUSH_LOCK, Flags: ULONG) {
        // SAFETY: as above.
        unsafe { ExReleasePushLockExclusiveEx(PushLock, Flags) };
    }

    // Without flags, by older names.
    [BLOCKING] silent fn ExAcquireCacheAwarePushLockExclusive(_call; PushLock: *mut EX_PUSH_LOCK) {
        // SAFETY: as above.
        unsafe { ExAcquirePushLockExclusiveEx(PushLock, 0) };
    }

    [BLOCKING] silent fn ExReleaseCacheAwarePushLockExclusive(_call; PushLock: *mut EX_PUSH_LOCK) {
        // SAFETY: as above.
        unsafe { ExReleasePushLockExclusiveEx(PushLock, 0) };
    }
}
