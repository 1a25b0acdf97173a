//! The true structures as NT's initialisation routines leave them.

use ksync_sys::{
    CCHAR, DISPATCHER_HEADER, DRIVER_OBJECT, KAPC, KDPC, KLOCK_QUEUE_HANDLE, KMUTANT, KPROCESSOR_MODE, KQUEUE, KSPIN_LOCK,
    KSPIN_LOCK_QUEUE, KTHREAD, KWAIT_BLOCK, LIST_ENTRY, PKDEFERRED_ROUTINE, PKKERNEL_ROUTINE, PKNORMAL_ROUTINE,
    PKRUNDOWN_ROUTINE, PVOID, SINGLE_LIST_ENTRY,
};
use std::ptr::null_mut;

/// A list entry that is in no list.
const UNLINKED: LIST_ENTRY = LIST_ENTRY { Flink: null_mut(), Blink: null_mut() };

/// A wait block that no wait uses.
pub(crate) const WAIT_BLOCK: KWAIT_BLOCK = KWAIT_BLOCK {
    WaitListEntry: UNLINKED,
    WaitType: 0,
    BlockState: 0,
    WaitKey: 0,
    SpareLong: 0,
    Thread: null_mut(),
    Object: null_mut(),
    SparePtr: null_mut(),
};

/// The header of an object without waiters. `head` is the address of its own wait list head.
pub(crate) fn header(object_type: i32, bytes: usize, signal_state: i32, head: *mut LIST_ENTRY) -> DISPATCHER_HEADER {
    DISPATCHER_HEADER {
        Type: object_type as u8,
        Signalling: 0,
        Size: (bytes / 4) as u8,
        Inserted: 0,
        SignalState: signal_state,
        WaitListHead: LIST_ENTRY { Flink: head, Blink: head },
    }
}

/// A DPC that is not queued.
pub(crate) fn dpc(routine: PKDEFERRED_ROUTINE, context: PVOID, threaded: bool) -> KDPC {
    KDPC {
        Type: if threaded { ksync_sys::ThreadedDpcObject } else { ksync_sys::DpcObject } as u8,
        Importance: ksync_sys::MediumImportance as u8,
        Number: 0,
        DpcListEntry: SINGLE_LIST_ENTRY { Next: null_mut() },
        ProcessorHistory: 0,
        DeferredRoutine: routine,
        DeferredContext: context,
        SystemArgument1: null_mut(),
        SystemArgument2: null_mut(),
        DpcData: null_mut(),
    }
}

/// What makes an APC.
pub(crate) struct ApcParts {
    pub(crate) thread: *mut KTHREAD,
    pub(crate) environment: i32,
    pub(crate) kernel: PKKERNEL_ROUTINE,
    pub(crate) rundown: PKRUNDOWN_ROUTINE,
    pub(crate) normal: PKNORMAL_ROUTINE,
    pub(crate) mode: KPROCESSOR_MODE,
    pub(crate) context: PVOID,
}

/// An APC that is not queued.
pub(crate) fn apc(parts: ApcParts) -> KAPC {
    // A special APC has no normal routine, and is always kernel mode.
    let special = parts.normal.is_none();
    KAPC {
        Type: ksync_sys::ApcObject as u8,
        AllFlags: 0,
        Size: size_of::<KAPC>() as u8,
        SpareByte1: 0,
        SpareLong0: 0,
        Thread: parts.thread,
        ApcListEntry: UNLINKED,
        KernelRoutine: parts.kernel,
        RundownRoutine: parts.rundown,
        NormalRoutine: parts.normal,
        NormalContext: if special { null_mut() } else { parts.context },
        SystemArgument1: null_mut(),
        SystemArgument2: null_mut(),
        ApcStateIndex: parts.environment as CCHAR,
        ApcMode: if special { ksync_sys::KernelMode } else { parts.mode },
        Inserted: 0,
    }
}

/// Writes what a mutex has behind its header.
///
/// # Safety
/// `mutex` points to writable memory of a KMUTANT.
pub(crate) unsafe fn write_mutant_tail(mutex: *mut KMUTANT, kernel: bool) {
    // SAFETY: by this function's contract.
    unsafe { (*mutex).MutantListEntry = UNLINKED };
    // SAFETY: as above.
    unsafe { (*mutex).OwnerThread = null_mut() };
    // SAFETY: as above.
    unsafe { (*mutex).Abandoned = 0 };
    // SAFETY: as above.
    unsafe { (*mutex).ApcDisable = u8::from(kernel) };
}

/// Writes what a queue has behind its header.
///
/// # Safety
/// `queue` points to writable memory of a KQUEUE.
pub(crate) unsafe fn write_queue_tail(queue: *mut KQUEUE, maximum: u32) {
    // SAFETY: by this function's contract.
    let entries = unsafe { &raw mut (*queue).EntryListHead };
    // SAFETY: as above.
    unsafe { entries.write(LIST_ENTRY { Flink: entries, Blink: entries }) };
    // SAFETY: as above.
    let threads = unsafe { &raw mut (*queue).ThreadListHead };
    // SAFETY: as above.
    unsafe { threads.write(LIST_ENTRY { Flink: threads, Blink: threads }) };
    // SAFETY: as above.
    unsafe { (*queue).CurrentCount = 0 };
    // SAFETY: as above.
    unsafe { (*queue).MaximumCount = maximum };
}

/// A queue handle of an acquisition.
pub(crate) fn lock_queue_handle(lock: *mut KSPIN_LOCK, old_irql: u8) -> KLOCK_QUEUE_HANDLE {
    KLOCK_QUEUE_HANDLE { LockQueue: KSPIN_LOCK_QUEUE { Next: null_mut(), Lock: lock }, OldIrql: old_irql }
}

/// The object of a driver that has no devices and no routines yet.
pub(crate) fn driver_object() -> DRIVER_OBJECT {
    // SAFETY: the structure is plain data: integers, raw pointers, and optional function pointers, for all of which zero is valid.
    let mut object: DRIVER_OBJECT = unsafe { std::mem::zeroed() };
    object.Type = 4;
    object.Size = size_of::<DRIVER_OBJECT>() as i16;
    object
}
