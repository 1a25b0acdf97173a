//! What system services tell of objects, threads and processes.

use crate::{
    ACCESS_MASK, BOOLEAN, CLIENT_ID, KAFFINITY, KPRIORITY, LARGE_INTEGER, LONG, NTSTATUS, PVOID, ULONG, ULONG_PTR, UNICODE_STRING,
};

/// Called as an APC of the thread that set a timer object. The time is the system time of the expiry, in two halves.
pub type TIMER_APC_ROUTINE = unsafe extern "system-unwind" fn(TimerContext: PVOID, TimerLowValue: ULONG, TimerHighValue: LONG);
/// A [`TIMER_APC_ROUTINE`], or null.
pub type PTIMER_APC_ROUTINE = Option<TIMER_APC_ROUTINE>;

/// What `ZwSetTimerEx` is to do.
pub type TIMER_SET_INFORMATION_CLASS = i32;
/// [`TIMER_SET_COALESCABLE_TIMER_INFO`].
pub const TimerSetCoalescableTimer: TIMER_SET_INFORMATION_CLASS = 0;

opaque! {
    /// Why a timer wakes the computer.
    struct COUNTED_REASON_CONTEXT;
}

/// How `ZwSetTimerEx` sets a timer, and what it was before.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TIMER_SET_COALESCABLE_TIMER_INFO {
    /// When, as for `ZwSetTimer`.
    pub DueTime: LARGE_INTEGER,
    /// The routine of an APC for the current thread.
    pub TimerApcRoutine: PTIMER_APC_ROUTINE,
    /// What that is passed.
    pub TimerContext: PVOID,
    /// Null for a timer that does not wake the computer.
    pub WakeContext: *mut COUNTED_REASON_CONTEXT,
    /// Milliseconds; 0 is one-shot.
    pub Period: ULONG,
    /// How many milliseconds late each expiry may be.
    pub TolerableDelay: ULONG,
    /// Where the state before goes, or null.
    pub PreviousState: *mut BOOLEAN,
}

/// What `ZwQueryObject` is asked for.
pub type OBJECT_INFORMATION_CLASS = i32;
/// [`PUBLIC_OBJECT_BASIC_INFORMATION`].
pub const ObjectBasicInformation: OBJECT_INFORMATION_CLASS = 0;
/// [`PUBLIC_OBJECT_TYPE_INFORMATION`].
pub const ObjectTypeInformation: OBJECT_INFORMATION_CLASS = 2;

/// What is known of an object.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PUBLIC_OBJECT_BASIC_INFORMATION {
    /// The handle's `OBJ_...` flags.
    pub Attributes: ULONG,
    /// The rights that the handle grants.
    pub GrantedAccess: ACCESS_MASK,
    /// How many handles are open to the object.
    pub HandleCount: ULONG,
    /// How many references there are to the object.
    pub PointerCount: ULONG,
    /// For the system.
    pub Reserved: [ULONG; 10],
}

/// What is known of an object's type. The name's text lies behind the structure.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PUBLIC_OBJECT_TYPE_INFORMATION {
    /// The name of the type, such as `Mutant`.
    pub TypeName: UNICODE_STRING,
    /// For the system.
    pub Reserved: [ULONG; 22],
}

/// In the options of `ZwDuplicateObject`: closes the source handle, whether the call succeeds or not.
pub const DUPLICATE_CLOSE_SOURCE: ULONG = 1;
/// In the options of `ZwDuplicateObject`: the new handle grants what the old one does.
pub const DUPLICATE_SAME_ACCESS: ULONG = 2;
/// In the options of `ZwDuplicateObject`: the new handle has the old one's attributes.
pub const DUPLICATE_SAME_ATTRIBUTES: ULONG = 4;

/// What is asked or changed about a thread.
pub type THREADINFOCLASS = i32;
/// [`THREAD_BASIC_INFORMATION`].
pub const ThreadBasicInformation: THREADINFOCLASS = 0;
/// A [`KPRIORITY`].
pub const ThreadPriority: THREADINFOCLASS = 2;
/// A [`ULONG`]: whether the thread has ended.
pub const ThreadIsTerminated: THREADINFOCLASS = 20;
/// A [`UNICODE_STRING`]: the thread's name (Windows 10 version 1607 on).
pub const ThreadNameInformation: THREADINFOCLASS = 38;

/// What is known of a thread.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct THREAD_BASIC_INFORMATION {
    /// The exit status, or `STATUS_PENDING`.
    pub ExitStatus: NTSTATUS,
    /// The user's thread block.
    pub TebBaseAddress: PVOID,
    /// The identifiers.
    pub ClientId: CLIENT_ID,
    /// The processors that it may run on.
    pub AffinityMask: KAFFINITY,
    /// The priority at the moment.
    pub Priority: KPRIORITY,
    /// The base priority.
    pub BasePriority: KPRIORITY,
}

/// What is asked about a process.
pub type PROCESSINFOCLASS = i32;
/// [`PROCESS_BASIC_INFORMATION`].
pub const ProcessBasicInformation: PROCESSINFOCLASS = 0;

/// What is known of a process.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PROCESS_BASIC_INFORMATION {
    /// The exit status, or `STATUS_PENDING`.
    pub ExitStatus: NTSTATUS,
    /// The user's process block.
    pub PebBaseAddress: PVOID,
    /// The processors that its threads may run on.
    pub AffinityMask: KAFFINITY,
    /// The base priority of its threads.
    pub BasePriority: KPRIORITY,
    /// The identifier.
    pub UniqueProcessId: ULONG_PTR,
    /// The identifier of the process that made it.
    pub InheritedFromUniqueProcessId: ULONG_PTR,
}

layout! {
    TIMER_SET_COALESCABLE_TIMER_INFO: 48, TimerApcRoutine @ 8, TimerContext @ 16, WakeContext @ 24, Period @ 32,
        TolerableDelay @ 36, PreviousState @ 40;
    PUBLIC_OBJECT_BASIC_INFORMATION: 56, GrantedAccess @ 4, HandleCount @ 8, PointerCount @ 12, Reserved @ 16;
    PUBLIC_OBJECT_TYPE_INFORMATION: 104, Reserved @ 16;
    THREAD_BASIC_INFORMATION: 48, TebBaseAddress @ 8, ClientId @ 16, AffinityMask @ 32, Priority @ 40, BasePriority @ 44;
    PROCESS_BASIC_INFORMATION: 48, PebBaseAddress @ 8, AffinityMask @ 16, BasePriority @ 24, UniqueProcessId @ 32,
        InheritedFromUniqueProcessId @ 40;
}
