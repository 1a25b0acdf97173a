//! Locks, rundown protection, and run-once blocks.

use crate::{BOOLEAN, KEVENT, KIRQL, KSEMAPHORE, LIST_ENTRY, LONG, LONGLONG, PVOID, SHORT, ULONG, ULONG_PTR, USHORT};

/// A spin lock. Zero is free.
pub type KSPIN_LOCK = ULONG_PTR;

/// A place in a queued spin lock's queue.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KSPIN_LOCK_QUEUE {
    /// Who comes next, or null.
    pub Next: *mut KSPIN_LOCK_QUEUE,
    /// The lock, with flags in the low bits.
    pub Lock: *mut KSPIN_LOCK,
}

/// An acquisition of an in-stack queued spin lock. It must stay where it is until the release.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KLOCK_QUEUE_HANDLE {
    /// The place in the queue.
    pub LockQueue: KSPIN_LOCK_QUEUE,
    /// The level to return to.
    pub OldIrql: KIRQL,
}

/// A fast mutex.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FAST_MUTEX {
    /// 1 when free.
    pub Count: LONG,
    /// The owner's thread object, or null.
    pub Owner: PVOID,
    /// How often an acquire had to wait.
    pub Contention: ULONG,
    /// What waiters wait on.
    pub Event: KEVENT,
    /// The owner's level before the acquire.
    pub OldIrql: ULONG,
}

/// A guarded mutex, which from Windows 8 on is the same structure as a fast mutex.
pub type KGUARDED_MUTEX = FAST_MUTEX;

/// A push lock. Zero is free.
pub type EX_PUSH_LOCK = ULONG_PTR;
/// The flags that the `...Ex` forms of the push lock routines take.
pub const EX_DEFAULT_PUSH_LOCK_FLAGS: ULONG = 0;
/// The owner's priority is not boosted for waiters.
pub const EX_PUSH_LOCK_FLAG_DISABLE_AUTOBOOST: ULONG = 1;

/// A reader-writer spin lock. Zero is free.
pub type EX_SPIN_LOCK = LONG;

/// A thread, or an owner pointer with both low bits set, that holds an executive resource.
pub type ERESOURCE_THREAD = ULONG_PTR;

/// An owner of an executive resource.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct OWNER_ENTRY {
    /// The owner.
    pub OwnerThread: ERESOURCE_THREAD,
    /// Flags in bits 0 and 1, the count of acquisitions above. In a table's first entry, the table's size.
    pub OwnerCount: ULONG,
}

/// An executive resource: a reader-writer lock whose exclusive owner may take it again.
///
/// 104 bytes on 64-bit Windows: `Reserved2` is missing from some translations of the headers.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ERESOURCE {
    /// The entry in the system's list of resources.
    pub SystemResourcesList: LIST_ENTRY,
    /// Owners beyond the first.
    pub OwnerTable: *mut OWNER_ENTRY,
    /// How many hold it.
    pub ActiveCount: SHORT,
    /// Flags, such as [`ResourceOwnedExclusive`].
    pub Flag: USHORT,
    /// What shared waiters wait on.
    pub SharedWaiters: *mut KSEMAPHORE,
    /// What exclusive waiters wait on.
    pub ExclusiveWaiters: *mut KEVENT,
    /// The exclusive owner, or the first shared one.
    pub OwnerEntry: OWNER_ENTRY,
    /// How many owner entries are in use.
    pub ActiveEntries: ULONG,
    /// How often an acquire had to wait.
    pub ContentionCount: ULONG,
    /// How many wait for shared access.
    pub NumberOfSharedWaiters: ULONG,
    /// How many wait for exclusive access.
    pub NumberOfExclusiveWaiters: ULONG,
    /// Unused; 64-bit only.
    pub Reserved2: PVOID,
    /// For debugging.
    pub Address: PVOID,
    /// Guards the fields.
    pub SpinLock: KSPIN_LOCK,
}

/// In [`ERESOURCE::Flag`]: the resource can only be taken shared.
pub const ResourceNeverExclusive: USHORT = 0x10;
/// In [`ERESOURCE::Flag`]: another thread may release it.
pub const ResourceReleaseByOtherThread: USHORT = 0x20;
/// In [`ERESOURCE::Flag`]: it is held exclusively.
pub const ResourceOwnedExclusive: USHORT = 0x80;

/// A rundown reference: counts users, until someone waits for the last of them. Zero is ready for use.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct EX_RUNDOWN_REF {
    /// Bit 0: run down, or being run down. Above it the count; once a wait began, the address of its wait block.
    pub Count: ULONG_PTR,
}
/// In [`EX_RUNDOWN_REF::Count`]: run down, or being run down.
pub const EX_RUNDOWN_ACTIVE: ULONG_PTR = 1;
/// In [`EX_RUNDOWN_REF::Count`]: one user.
pub const EX_RUNDOWN_COUNT_INC: ULONG_PTR = 2;

/// What a remove lock holds in all builds.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IO_REMOVE_LOCK_COMMON_BLOCK {
    /// The device is being removed; no acquire succeeds any more.
    pub Removed: BOOLEAN,
    /// Unused.
    pub Reserved: [BOOLEAN; 3],
    /// The users, and one.
    pub IoCount: LONG,
    /// Set when the last user is gone.
    pub RemoveEvent: KEVENT,
}

/// What a remove lock holds in addition in a checked (`DBG`) driver.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IO_REMOVE_LOCK_DBG_BLOCK {
    /// `COLR`.
    pub Signature: LONG,
    /// The greatest expected number of users.
    pub HighWatermark: LONG,
    /// How long a user may take, in ticks.
    pub MaxLockedTicks: LONGLONG,
    /// The tag for the blocks that track users.
    pub AllocateTag: LONG,
    /// The users.
    pub LockList: LIST_ENTRY,
    /// Guards the list.
    pub Spin: KSPIN_LOCK,
    /// How many users could not be tracked.
    pub LowMemoryCount: LONG,
    /// Unused.
    pub Reserved1: [ULONG; 4],
    /// Unused.
    pub Reserved2: PVOID,
    /// The blocks that track users.
    pub Blocks: PVOID,
}

/// A remove lock, as a driver built without `DBG` has it. Its size is passed to every routine, so both forms work.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IO_REMOVE_LOCK {
    /// All of it.
    pub Common: IO_REMOVE_LOCK_COMMON_BLOCK,
}

/// A run-once block. Zero is "not yet".
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RTL_RUN_ONCE {
    /// The state in bits 0 and 1, and the context or the waiters above.
    pub Ptr: PVOID,
}
/// Only ask; do not begin to initialise.
pub const RTL_RUN_ONCE_CHECK_ONLY: ULONG = 1;
/// Several threads may initialise; the first to complete wins.
pub const RTL_RUN_ONCE_ASYNC: ULONG = 2;
/// The initialisation failed; another thread may try.
pub const RTL_RUN_ONCE_INIT_FAILED: ULONG = 4;
/// How many low bits of a context must be zero.
pub const RTL_RUN_ONCE_CTX_RESERVED_BITS: ULONG = 2;

/// Initialises on behalf of `RtlRunOnceExecuteOnce`; returns non-zero for success.
pub type RTL_RUN_ONCE_INIT_FN =
    unsafe extern "system-unwind" fn(RunOnce: *mut RTL_RUN_ONCE, Parameter: PVOID, Context: *mut PVOID) -> ULONG;
/// An [`RTL_RUN_ONCE_INIT_FN`], or null.
pub type PRTL_RUN_ONCE_INIT_FN = Option<RTL_RUN_ONCE_INIT_FN>;

opaque! {
    /// Rundown protection with a counter per processor. Its size is [`ExSizeOfRundownProtectionCacheAware`](fn@crate::ExSizeOfRundownProtectionCacheAware).
    struct EX_RUNDOWN_REF_CACHE_AWARE;
}

layout! {
    KSPIN_LOCK: 8;
    KSPIN_LOCK_QUEUE: 16, Lock @ 8;
    KLOCK_QUEUE_HANDLE: 24, OldIrql @ 16;
    FAST_MUTEX: 56, Count @ 0, Owner @ 8, Contention @ 16, Event @ 24, OldIrql @ 48;
    EX_PUSH_LOCK: 8;
    EX_SPIN_LOCK: 4;
    OWNER_ENTRY: 16, OwnerCount @ 8;
    ERESOURCE: 104, OwnerTable @ 16, ActiveCount @ 24, Flag @ 26, SharedWaiters @ 32, ExclusiveWaiters @ 40, OwnerEntry @ 48,
        ActiveEntries @ 64, ContentionCount @ 68, NumberOfSharedWaiters @ 72, NumberOfExclusiveWaiters @ 76, Reserved2 @ 80,
        Address @ 88, SpinLock @ 96;
    EX_RUNDOWN_REF: 8;
    IO_REMOVE_LOCK_COMMON_BLOCK: 32, IoCount @ 4, RemoveEvent @ 8;
    IO_REMOVE_LOCK_DBG_BLOCK: 88, HighWatermark @ 4, MaxLockedTicks @ 8, AllocateTag @ 16, LockList @ 24, Spin @ 40,
        LowMemoryCount @ 48, Reserved1 @ 52, Reserved2 @ 72, Blocks @ 80;
    IO_REMOVE_LOCK: 32;
    RTL_RUN_ONCE: 8;
}
