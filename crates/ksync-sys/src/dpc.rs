//! Deferred and asynchronous procedure calls.

use crate::{
    BOOLEAN, CCHAR, KAFFINITY, KPROCESSOR_MODE, KTHREAD, LIST_ENTRY, NTSTATUS, PROCESSOR_NUMBER, PVOID, SINGLE_LIST_ENTRY, UCHAR,
    ULONG, ULONG_PTR, USHORT,
};

/// A DPC's routine: the DPC, its context and two arguments from whoever queued it.
pub type KDEFERRED_ROUTINE =
    unsafe extern "system-unwind" fn(Dpc: *mut KDPC, DeferredContext: PVOID, SystemArgument1: PVOID, SystemArgument2: PVOID);
/// A [`KDEFERRED_ROUTINE`], or null.
pub type PKDEFERRED_ROUTINE = Option<KDEFERRED_ROUTINE>;

/// What `KeIpiGenericCall` runs on each processor.
pub type KIPI_BROADCAST_WORKER = unsafe extern "system-unwind" fn(Argument: ULONG_PTR) -> ULONG_PTR;
/// A [`KIPI_BROADCAST_WORKER`], or null.
pub type PKIPI_BROADCAST_WORKER = Option<KIPI_BROADCAST_WORKER>;

/// How far the addition of a processor is.
pub type KE_PROCESSOR_CHANGE_NOTIFY_STATE = i32;
/// The processor is about to be added.
pub const KeProcessorAddStartNotify: KE_PROCESSOR_CHANGE_NOTIFY_STATE = 0;
/// It was added.
pub const KeProcessorAddCompleteNotify: KE_PROCESSOR_CHANGE_NOTIFY_STATE = 1;
/// It could not be added.
pub const KeProcessorAddFailureNotify: KE_PROCESSOR_CHANGE_NOTIFY_STATE = 2;

/// A flag of `KeRegisterProcessorChangeCallback`: the routine is called for the processors that are there, too.
pub const KE_PROCESSOR_CHANGE_ADD_EXISTING: ULONG = 1;

/// Which processor is added.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KE_PROCESSOR_CHANGE_NOTIFY_CONTEXT {
    /// How far that is.
    pub State: KE_PROCESSOR_CHANGE_NOTIFY_STATE,
    /// The processor's index.
    pub NtNumber: ULONG,
    /// Why it could not be added.
    pub Status: NTSTATUS,
    /// The processor's group and number.
    pub ProcNumber: PROCESSOR_NUMBER,
}

/// A routine that is told of processors.
pub type PROCESSOR_CALLBACK_FUNCTION = unsafe extern "system-unwind" fn(
    CallbackContext: PVOID,
    ChangeContext: *mut KE_PROCESSOR_CHANGE_NOTIFY_CONTEXT,
    OperationStatus: *mut NTSTATUS,
);
/// A [`PROCESSOR_CALLBACK_FUNCTION`], or null.
pub type PPROCESSOR_CALLBACK_FUNCTION = Option<PROCESSOR_CALLBACK_FUNCTION>;

/// Where in a queue a DPC goes, and how soon the queue is drained.
pub type KDPC_IMPORTANCE = i32;
/// At the tail; the queue may wait.
pub const LowImportance: KDPC_IMPORTANCE = 0;
/// At the tail; the default.
pub const MediumImportance: KDPC_IMPORTANCE = 1;
/// At the head, at once.
pub const HighImportance: KDPC_IMPORTANCE = 2;
/// At the tail, at once on other processors too.
pub const MediumHighImportance: KDPC_IMPORTANCE = 3;

/// A deferred procedure call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KDPC {
    /// [`DpcObject`](crate::DpcObject) or [`ThreadedDpcObject`](crate::ThreadedDpcObject).
    pub Type: UCHAR,
    /// One of [`KDPC_IMPORTANCE`].
    pub Importance: UCHAR,
    /// The target processor, in the kernel's own encoding; zero is "whichever queues it".
    pub Number: USHORT,
    /// The entry in a processor's DPC queue.
    pub DpcListEntry: SINGLE_LIST_ENTRY,
    /// The processors that it ran on lately.
    pub ProcessorHistory: KAFFINITY,
    /// The routine.
    pub DeferredRoutine: PKDEFERRED_ROUTINE,
    /// What the routine is given as context.
    pub DeferredContext: PVOID,
    /// The first argument of whoever queued it.
    pub SystemArgument1: PVOID,
    /// The second argument.
    pub SystemArgument2: PVOID,
    /// The queue that it is in, or null.
    pub DpcData: PVOID,
}

/// An APC's normal routine.
pub type KNORMAL_ROUTINE = unsafe extern "system-unwind" fn(NormalContext: PVOID, SystemArgument1: PVOID, SystemArgument2: PVOID);
/// A [`KNORMAL_ROUTINE`], or null.
pub type PKNORMAL_ROUTINE = Option<KNORMAL_ROUTINE>;
/// An APC's kernel routine, at `APC_LEVEL`. It may change the normal routine and all its arguments.
pub type KKERNEL_ROUTINE = unsafe extern "system-unwind" fn(
    Apc: *mut KAPC,
    NormalRoutine: *mut PKNORMAL_ROUTINE,
    NormalContext: *mut PVOID,
    SystemArgument1: *mut PVOID,
    SystemArgument2: *mut PVOID,
);
/// A [`KKERNEL_ROUTINE`], or null.
pub type PKKERNEL_ROUTINE = Option<KKERNEL_ROUTINE>;
/// An APC's rundown routine, called instead of the others when the thread ends first.
pub type KRUNDOWN_ROUTINE = unsafe extern "system-unwind" fn(Apc: *mut KAPC);
/// A [`KRUNDOWN_ROUTINE`], or null.
pub type PKRUNDOWN_ROUTINE = Option<KRUNDOWN_ROUTINE>;

/// Which of a thread's APC environments an APC is for.
pub type KAPC_ENVIRONMENT = i32;
/// The thread's own process.
pub const OriginalApcEnvironment: KAPC_ENVIRONMENT = 0;
/// The process that the thread is attached to.
pub const AttachedApcEnvironment: KAPC_ENVIRONMENT = 1;
/// Whichever is current at initialisation.
pub const CurrentApcEnvironment: KAPC_ENVIRONMENT = 2;
/// Whichever is current at insertion.
pub const InsertApcEnvironment: KAPC_ENVIRONMENT = 3;

/// An asynchronous procedure call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KAPC {
    /// [`ApcObject`](crate::ApcObject).
    pub Type: UCHAR,
    /// Flags.
    pub AllFlags: UCHAR,
    /// The size of this structure in bytes.
    pub Size: UCHAR,
    /// Unused.
    pub SpareByte1: UCHAR,
    /// Unused.
    pub SpareLong0: ULONG,
    /// The thread that it is for.
    pub Thread: *mut KTHREAD,
    /// The entry in the thread's APC queue.
    pub ApcListEntry: LIST_ENTRY,
    /// Runs first, at `APC_LEVEL`.
    pub KernelRoutine: PKKERNEL_ROUTINE,
    /// Runs when the thread ends first.
    pub RundownRoutine: PKRUNDOWN_ROUTINE,
    /// Runs last; null makes a special APC.
    pub NormalRoutine: PKNORMAL_ROUTINE,
    /// What the normal routine is given as context.
    pub NormalContext: PVOID,
    /// The first argument of whoever queued it.
    pub SystemArgument1: PVOID,
    /// The second argument.
    pub SystemArgument2: PVOID,
    /// One of [`KAPC_ENVIRONMENT`].
    pub ApcStateIndex: CCHAR,
    /// The mode of the normal routine.
    pub ApcMode: KPROCESSOR_MODE,
    /// The APC is in a queue.
    pub Inserted: BOOLEAN,
}

layout! {
    KE_PROCESSOR_CHANGE_NOTIFY_CONTEXT: 16, NtNumber @ 4, Status @ 8, ProcNumber @ 12;
    KDPC: 64, Type @ 0, Importance @ 1, Number @ 2, DpcListEntry @ 8, ProcessorHistory @ 16, DeferredRoutine @ 24,
        DeferredContext @ 32, SystemArgument1 @ 40, SystemArgument2 @ 48, DpcData @ 56;
    KAPC: 88, Size @ 2, Thread @ 8, ApcListEntry @ 16, KernelRoutine @ 32, RundownRoutine @ 40, NormalRoutine @ 48,
        NormalContext @ 56, SystemArgument1 @ 64, SystemArgument2 @ 72, ApcStateIndex @ 80, ApcMode @ 81, Inserted @ 82;
}
