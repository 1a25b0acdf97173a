//! The scalar types, lists, strings and constants that everything else is made of.

use core::ffi::c_void;

/// A truth value of one byte: [`FALSE`] is zero, everything else is true.
pub type BOOLEAN = u8;
/// The true value of a [`BOOLEAN`].
pub const TRUE: BOOLEAN = 1;
/// The false value of a [`BOOLEAN`].
pub const FALSE: BOOLEAN = 0;
/// An unsigned 8-bit integer.
pub type UCHAR = u8;
/// A signed 8-bit character.
pub type CHAR = i8;
/// A signed 8-bit integer.
pub type CCHAR = i8;
/// A signed 16-bit integer.
pub type SHORT = i16;
/// A signed 16-bit integer, as the I/O manager's structures call it.
pub type CSHORT = i16;
/// An unsigned 16-bit integer.
pub type USHORT = u16;
/// A UTF-16 code unit.
pub type WCHAR = u16;
/// A signed 32-bit integer.
pub type LONG = i32;
/// An unsigned 32-bit integer.
pub type ULONG = u32;
/// A truth value of 32 bits.
pub type LOGICAL = u32;
/// A signed 64-bit integer.
pub type LONGLONG = i64;
/// An unsigned 64-bit integer.
pub type ULONGLONG = u64;
/// A signed 64-bit integer, mostly a time in units of 100 ns.
///
/// C declares a union of 8 bytes. Both 64-bit Windows calling conventions pass such a union in one integer register, as they pass an
/// `i64`, so the integer itself stands for it here.
pub type LARGE_INTEGER = i64;
/// An unsigned 64-bit integer; see [`LARGE_INTEGER`].
pub type ULARGE_INTEGER = u64;
/// A count of bytes.
pub type SIZE_T = usize;
/// An unsigned integer of a pointer's size.
pub type ULONG_PTR = usize;
/// A signed integer of a pointer's size.
pub type LONG_PTR = isize;
/// A pointer to anything.
pub type PVOID = *mut c_void;
/// A handle: an index into a handle table, never a pointer.
pub type HANDLE = *mut c_void;
/// A status code. Zero and above is success or information, below is a warning or an error.
pub type NTSTATUS = i32;
/// A set of access rights.
pub type ACCESS_MASK = u32;
/// A thread priority, or an increment to one.
pub type KPRIORITY = i32;
/// A set of processors of one group, one bit each.
pub type KAFFINITY = usize;

/// An interrupt request level.
pub type KIRQL = u8;
/// Threads run here; everything may be called.
pub const PASSIVE_LEVEL: KIRQL = 0;
/// Another name for [`PASSIVE_LEVEL`].
pub const LOW_LEVEL: KIRQL = 0;
/// Asynchronous procedure calls are held back.
pub const APC_LEVEL: KIRQL = 1;
/// The dispatcher and DPCs run here: no waiting, no paged memory.
pub const DISPATCH_LEVEL: KIRQL = 2;
/// Corrected machine checks (ARM64, x86-64 by another name).
pub const CMCI_LEVEL: KIRQL = 5;
/// The clock interrupt.
pub const CLOCK_LEVEL: KIRQL = 13;
/// Interprocessor interrupts.
pub const IPI_LEVEL: KIRQL = 14;
/// Deferred recovery service.
pub const DRS_LEVEL: KIRQL = 14;
/// Power failure.
pub const POWER_LEVEL: KIRQL = 14;
/// The profiling interrupt.
pub const PROFILE_LEVEL: KIRQL = 15;
/// The highest level: all interrupts are held back.
pub const HIGH_LEVEL: KIRQL = 15;

/// The mode that a wait, an APC or an access check is made for.
pub type KPROCESSOR_MODE = i8;
/// Kernel mode.
pub const KernelMode: KPROCESSOR_MODE = 0;
/// User mode.
pub const UserMode: KPROCESSOR_MODE = 1;

/// How many objects one wait can name.
pub const MAXIMUM_WAIT_OBJECTS: ULONG = 64;
/// How many objects one wait can name without an array of wait blocks from the caller.
pub const THREAD_WAIT_OBJECTS: ULONG = 3;
/// The greatest suspend count.
pub const MAXIMUM_SUSPEND_COUNT: ULONG = 127;

/// The lowest thread priority, that of the zero page thread.
pub const LOW_PRIORITY: KPRIORITY = 0;
/// The lowest real-time priority.
pub const LOW_REALTIME_PRIORITY: KPRIORITY = 16;
/// The highest priority.
pub const HIGH_PRIORITY: KPRIORITY = 31;
/// The number of priorities.
pub const MAXIMUM_PRIORITY: KPRIORITY = 32;

/// The usual increment for a signaled event.
pub const EVENT_INCREMENT: KPRIORITY = 1;
/// No increment, for I/O.
pub const IO_NO_INCREMENT: KPRIORITY = 0;
/// The usual increment for a released semaphore.
pub const SEMAPHORE_INCREMENT: KPRIORITY = 1;
/// The usual increment for a released mutant. It is not in the WDK's headers.
pub const MUTANT_INCREMENT: KPRIORITY = 1;

/// Why a thread waits, for debuggers to show.
pub type KWAIT_REASON = i32;
/// A driver's own reason.
pub const Executive: KWAIT_REASON = 0;
/// A free page is needed.
pub const FreePage: KWAIT_REASON = 1;
/// A page is read in.
pub const PageIn: KWAIT_REASON = 2;
/// Pool is needed.
pub const PoolAllocation: KWAIT_REASON = 3;
/// The thread sleeps.
pub const DelayExecution: KWAIT_REASON = 4;
/// The thread is suspended.
pub const Suspended: KWAIT_REASON = 5;
/// On behalf of a user request.
pub const UserRequest: KWAIT_REASON = 6;
/// The counterpart of [`Executive`] in waits that the system itself made.
pub const WrExecutive: KWAIT_REASON = 7;
/// A work queue.
pub const WrQueue: KWAIT_REASON = 15;
/// A terminated thread.
pub const WrTerminated: KWAIT_REASON = 22;
/// An executive resource.
pub const WrResource: KWAIT_REASON = 27;
/// A push lock.
pub const WrPushLock: KWAIT_REASON = 28;
/// A mutex.
pub const WrMutex: KWAIT_REASON = 29;
/// A processor given up.
pub const WrYieldExecution: KWAIT_REASON = 33;
/// A fast mutex.
pub const WrFastMutex: KWAIT_REASON = 34;
/// A guarded mutex.
pub const WrGuardedMutex: KWAIT_REASON = 35;
/// Rundown protection.
pub const WrRundown: KWAIT_REASON = 36;

/// Whether a wait ends with the first object or with all of them.
pub type WAIT_TYPE = i32;
/// The wait ends when all objects can be taken at once.
pub const WaitAll: WAIT_TYPE = 0;
/// The wait ends when one object can be taken.
pub const WaitAny: WAIT_TYPE = 1;

/// Whether an event stays signaled.
pub type EVENT_TYPE = i32;
/// The event stays signaled until it is cleared and releases every waiter.
pub const NotificationEvent: EVENT_TYPE = 0;
/// The event is cleared by the one wait that it satisfies.
pub const SynchronizationEvent: EVENT_TYPE = 1;

/// Whether a timer stays signaled.
pub type TIMER_TYPE = i32;
/// The timer stays signaled until it is set again and releases every waiter.
pub const NotificationTimer: TIMER_TYPE = 0;
/// The timer is cleared by the one wait that it satisfies.
pub const SynchronizationTimer: TIMER_TYPE = 1;

/// A doubly linked list's head or entry.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LIST_ENTRY {
    /// The next entry, or the first one in a head.
    pub Flink: *mut LIST_ENTRY,
    /// The previous entry, or the last one in a head.
    pub Blink: *mut LIST_ENTRY,
}

/// A singly linked list's head or entry.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SINGLE_LIST_ENTRY {
    /// The next entry, or null.
    pub Next: *mut SINGLE_LIST_ENTRY,
}

/// An entry of an interlocked singly linked list; 16-byte aligned.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug)]
pub struct SLIST_ENTRY {
    /// The next entry, or null.
    pub Next: *mut SLIST_ENTRY,
}

/// The head of an interlocked singly linked list. All zero is an empty list.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug)]
pub struct SLIST_HEADER {
    /// The depth in bits 0 to 15, a sequence number above.
    pub Alignment: ULONGLONG,
    /// The address of the first entry in bits 4 to 63.
    pub Region: ULONGLONG,
}

/// A counted UTF-16 string.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct UNICODE_STRING {
    /// The length in bytes, without a terminating zero.
    pub Length: USHORT,
    /// The size of the buffer in bytes.
    pub MaximumLength: USHORT,
    /// The code units, not necessarily terminated.
    pub Buffer: *mut WCHAR,
}

/// What a routine that opens or creates an object is told of it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct OBJECT_ATTRIBUTES {
    /// The size of this structure in bytes.
    pub Length: ULONG,
    /// The directory that the name is relative to, or null.
    pub RootDirectory: HANDLE,
    /// The object's name, or null.
    pub ObjectName: *mut UNICODE_STRING,
    /// `OBJ_...` flags, such as [`OBJ_KERNEL_HANDLE`](crate::OBJ_KERNEL_HANDLE).
    pub Attributes: ULONG,
    /// The object's security descriptor, or null.
    pub SecurityDescriptor: PVOID,
    /// The quality of service for impersonation, or null.
    pub SecurityQualityOfService: PVOID,
}

/// What an object reference through a handle tells of the handle.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct OBJECT_HANDLE_INFORMATION {
    /// The handle's `OBJ_...` flags.
    pub HandleAttributes: ULONG,
    /// The rights that the handle grants.
    pub GrantedAccess: ACCESS_MASK,
}

/// The identifiers of a thread and its process.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CLIENT_ID {
    /// The process identifier.
    pub UniqueProcess: HANDLE,
    /// The thread identifier.
    pub UniqueThread: HANDLE,
}

/// A processor by group and number.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct PROCESSOR_NUMBER {
    /// The group.
    pub Group: USHORT,
    /// The number in the group.
    pub Number: UCHAR,
    /// Zero.
    pub Reserved: UCHAR,
}

/// A set of processors of one group.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct GROUP_AFFINITY {
    /// The processors, one bit each.
    pub Mask: KAFFINITY,
    /// The group.
    pub Group: USHORT,
    /// Zero.
    pub Reserved: [USHORT; 3],
}

/// As a group number: all groups.
pub const ALL_PROCESSOR_GROUPS: USHORT = 0xFFFF;
/// As a processor's index: there is no such processor.
pub const INVALID_PROCESSOR_INDEX: ULONG = 0xFFFF_FFFF;

/// What `RtlGetVersion` reports.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RTL_OSVERSIONINFOW {
    /// The size of this structure in bytes; the caller sets it.
    pub dwOSVersionInfoSize: ULONG,
    /// The major version: 10 for Windows 10 and 11.
    pub dwMajorVersion: ULONG,
    /// The minor version.
    pub dwMinorVersion: ULONG,
    /// The build number.
    pub dwBuildNumber: ULONG,
    /// 2, the NT family.
    pub dwPlatformId: ULONG,
    /// The service pack's name, terminated by a zero.
    pub szCSDVersion: [WCHAR; 128],
}

/// The kind of pool that the older allocation routines take.
pub type POOL_TYPE = i32;
/// Nonpaged and executable.
pub const NonPagedPool: POOL_TYPE = 0;
/// Another name for [`NonPagedPool`].
pub const NonPagedPoolExecute: POOL_TYPE = 0;
/// Paged.
pub const PagedPool: POOL_TYPE = 1;
/// Nonpaged, aligned to cache lines.
pub const NonPagedPoolCacheAligned: POOL_TYPE = 4;
/// Paged, aligned to cache lines.
pub const PagedPoolCacheAligned: POOL_TYPE = 5;
/// Nonpaged and not executable (Windows 8 on).
pub const NonPagedPoolNx: POOL_TYPE = 512;
/// Nonpaged, not executable, aligned to cache lines (Windows 8 on).
pub const NonPagedPoolNxCacheAligned: POOL_TYPE = 516;
/// Added to a pool type: raise an exception instead of returning null.
pub const POOL_RAISE_IF_ALLOCATION_FAILURE: POOL_TYPE = 16;

/// What `ExAllocatePool2` takes instead of a pool type.
pub type POOL_FLAGS = ULONGLONG;
/// Charge the current process's quota.
pub const POOL_FLAG_USE_QUOTA: POOL_FLAGS = 0x1;
/// Do not zero the memory.
pub const POOL_FLAG_UNINITIALIZED: POOL_FLAGS = 0x2;
/// Session pool.
pub const POOL_FLAG_SESSION: POOL_FLAGS = 0x4;
/// Align to cache lines.
pub const POOL_FLAG_CACHE_ALIGNED: POOL_FLAGS = 0x8;
/// Raise an exception instead of returning null.
pub const POOL_FLAG_RAISE_ON_FAILURE: POOL_FLAGS = 0x20;
/// Nonpaged and not executable.
pub const POOL_FLAG_NON_PAGED: POOL_FLAGS = 0x40;
/// Nonpaged and executable.
pub const POOL_FLAG_NON_PAGED_EXECUTE: POOL_FLAGS = 0x80;
/// Paged.
pub const POOL_FLAG_PAGED: POOL_FLAGS = 0x100;

layout! {
    LIST_ENTRY: 16, Flink @ 0, Blink @ 8;
    SINGLE_LIST_ENTRY: 8;
    SLIST_ENTRY: 16;
    SLIST_HEADER: 16, Alignment @ 0, Region @ 8;
    UNICODE_STRING: 16, Length @ 0, MaximumLength @ 2, Buffer @ 8;
    OBJECT_ATTRIBUTES: 48, RootDirectory @ 8, ObjectName @ 16, Attributes @ 24, SecurityDescriptor @ 32, SecurityQualityOfService @ 40;
    OBJECT_HANDLE_INFORMATION: 8;
    CLIENT_ID: 16, UniqueThread @ 8;
    PROCESSOR_NUMBER: 4, Number @ 2;
    GROUP_AFFINITY: 16, Group @ 8;
    RTL_OSVERSIONINFOW: 276, szCSDVersion @ 20;
}
