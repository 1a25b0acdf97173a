//! Objects that threads wait on, and what a wait is made of.

use crate::{BOOLEAN, KDPC, KTHREAD, LIST_ENTRY, LONG, PVOID, UCHAR, ULARGE_INTEGER, ULONG, USHORT};

/// The kind of a kernel object, as in [`DISPATCHER_HEADER::Type`].
pub type KOBJECTS = i32;
/// A notification event.
pub const EventNotificationObject: KOBJECTS = 0;
/// A synchronization event.
pub const EventSynchronizationObject: KOBJECTS = 1;
/// A mutant, which is what a mutex is.
pub const MutantObject: KOBJECTS = 2;
/// A process.
pub const ProcessObject: KOBJECTS = 3;
/// A queue.
pub const QueueObject: KOBJECTS = 4;
/// A semaphore.
pub const SemaphoreObject: KOBJECTS = 5;
/// A thread.
pub const ThreadObject: KOBJECTS = 6;
/// A gate.
pub const GateObject: KOBJECTS = 7;
/// A notification timer.
pub const TimerNotificationObject: KOBJECTS = 8;
/// A synchronization timer.
pub const TimerSynchronizationObject: KOBJECTS = 9;
/// An APC.
pub const ApcObject: KOBJECTS = 18;
/// A DPC.
pub const DpcObject: KOBJECTS = 19;
/// A device queue.
pub const DeviceQueueObject: KOBJECTS = 20;
/// A threaded DPC.
pub const ThreadedDpcObject: KOBJECTS = 24;

/// What every waitable object begins with.
///
/// C overlays several views of the first four bytes. The fields here are the views that hold for the objects of this crate.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DISPATCHER_HEADER {
    /// The kind of object, one of [`KOBJECTS`].
    pub Type: UCHAR,
    /// Being signaled right now (events, gates); abandoned (mutants); control flags (timers, threads).
    pub Signalling: UCHAR,
    /// The object's size in units of four bytes; control flags for timers and threads.
    pub Size: UCHAR,
    /// In the timer queue (timers); a DPC runs for it.
    pub Inserted: UCHAR,
    /// Above zero when a wait would be satisfied. The meaning of the number depends on the kind.
    pub SignalState: LONG,
    /// The wait blocks of those who wait.
    pub WaitListHead: LIST_ENTRY,
}

/// An event.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KEVENT {
    /// The object's header; its signal state is 0 or 1.
    pub Header: DISPATCHER_HEADER,
}

/// A gate, the kernel's own lightweight event.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KGATE {
    /// The object's header.
    pub Header: DISPATCHER_HEADER,
}

/// A counting semaphore.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KSEMAPHORE {
    /// The object's header; its signal state is the count.
    pub Header: DISPATCHER_HEADER,
    /// The greatest count.
    pub Limit: LONG,
}

/// A mutant: a mutex that its owner may take again.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KMUTANT {
    /// The object's header; its signal state is 1 when free, 0 when owned once, -1 when owned twice and so on.
    pub Header: DISPATCHER_HEADER,
    /// The entry in the owner's list of mutants.
    pub MutantListEntry: LIST_ENTRY,
    /// The owner, or null.
    pub OwnerThread: *mut KTHREAD,
    /// Bit 0: the last owner ended without a release. `MutantFlags` in newer headers.
    pub Abandoned: UCHAR,
    /// 1 when owning it holds back normal kernel APCs: a mutex rather than a mutant.
    pub ApcDisable: UCHAR,
}

/// A mutex is a mutant that `KeInitializeMutex` initialised.
pub type KMUTEX = KMUTANT;

/// A timer.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KTIMER {
    /// The object's header.
    pub Header: DISPATCHER_HEADER,
    /// When the timer expires, as interrupt time in 100 ns.
    pub DueTime: ULARGE_INTEGER,
    /// The entry in the timer queue.
    pub TimerListEntry: LIST_ENTRY,
    /// The DPC to queue at expiry, or null.
    pub Dpc: *mut KDPC,
    /// The processor whose queue the timer is in.
    pub Processor: USHORT,
    /// The kernel's own classification.
    pub TimerType: USHORT,
    /// The period in milliseconds, or zero.
    pub Period: ULONG,
}

/// One object of a thread's wait.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KWAIT_BLOCK {
    /// The entry in the object's wait list.
    pub WaitListEntry: LIST_ENTRY,
    /// [`WaitAll`](crate::WaitAll), [`WaitAny`](crate::WaitAny) or a kind of the kernel's own.
    pub WaitType: UCHAR,
    /// How far the wait has got.
    pub BlockState: UCHAR,
    /// What the wait returns when this block satisfies it: the object's index.
    pub WaitKey: USHORT,
    /// Unused.
    pub SpareLong: LONG,
    /// The thread that waits. For blocks of other kinds, a queue or a DPC.
    pub Thread: *mut KTHREAD,
    /// The object.
    pub Object: PVOID,
    /// Unused.
    pub SparePtr: PVOID,
}

/// A queue that threads take entries from, with a bound on how many of them run.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KQUEUE {
    /// The object's header; its signal state is the number of entries.
    pub Header: DISPATCHER_HEADER,
    /// The entries.
    pub EntryListHead: LIST_ENTRY,
    /// How many of the queue's threads run.
    pub CurrentCount: ULONG,
    /// How many may.
    pub MaximumCount: ULONG,
    /// The queue's threads.
    pub ThreadListHead: LIST_ENTRY,
}

/// A device queue.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KDEVICE_QUEUE {
    /// [`DeviceQueueObject`].
    pub Type: i16,
    /// The size of this structure in bytes.
    pub Size: i16,
    /// The entries.
    pub DeviceListHead: LIST_ENTRY,
    /// The lock.
    pub Lock: usize,
    /// The device is busy.
    pub Busy: BOOLEAN,
    /// A hint in the upper bytes of the same word.
    pub Hint: [u8; 7],
}

/// An entry of a device queue.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KDEVICE_QUEUE_ENTRY {
    /// The entry in the queue.
    pub DeviceListEntry: LIST_ENTRY,
    /// The key to sort by.
    pub SortKey: ULONG,
    /// The entry is in a queue.
    pub Inserted: BOOLEAN,
}

layout! {
    DISPATCHER_HEADER: 24, Type @ 0, Signalling @ 1, Size @ 2, Inserted @ 3, SignalState @ 4, WaitListHead @ 8;
    KEVENT: 24, Header @ 0;
    KGATE: 24;
    KSEMAPHORE: 32, Limit @ 24;
    KMUTANT: 56, MutantListEntry @ 24, OwnerThread @ 40, Abandoned @ 48, ApcDisable @ 49;
    KTIMER: 64, DueTime @ 24, TimerListEntry @ 32, Dpc @ 48, Processor @ 56, TimerType @ 58, Period @ 60;
    KWAIT_BLOCK: 48, WaitType @ 16, BlockState @ 17, WaitKey @ 18, SpareLong @ 20, Thread @ 24, Object @ 32, SparePtr @ 40;
    KQUEUE: 64, EntryListHead @ 24, CurrentCount @ 40, MaximumCount @ 44, ThreadListHead @ 48;
    KDEVICE_QUEUE: 40, DeviceListHead @ 8, Lock @ 24, Busy @ 32;
    KDEVICE_QUEUE_ENTRY: 24, SortKey @ 16, Inserted @ 20;
}
