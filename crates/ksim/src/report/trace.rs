//! The trace of a run: every visible operation, in order.
//!
//! Objects appear by number, never by address, so that the same seed gives the same bytes on every host. [`Outcome::trace`](crate::Outcome::trace) is the
//! text, [`Outcome::events`](crate::Outcome::events) the same as values.

use super::sites::SiteId;
use rustc_hash::FxHashMap;
use std::fmt;
use std::io::Write;

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
#[non_exhaustive]
pub enum Operation {
    /// A thread was created: the object. The argument is its place among the threads, as in [`Actor::Thread`].
    CreateThread,
    /// A thread ended: the object. The argument is its exit status.
    TerminateThread,
    /// The processor goes on with a thread: the object. The argument is its place among the threads.
    DispatchThread,
    /// The processor leaves a thread: the object. The argument is 0 if the thread could go on, 1 if it waits, 2 if it has ended.
    LeaveThread,
    /// The thread that acts blocks until something is done to the object, or for a time where there is none. The argument is how many objects
    /// there are to wait for.
    Block,
    /// The wait of a thread ended: the object. The argument is the status.
    EndWait,
    /// A wait on the object began. The argument is how many objects the wait names.
    BeginWait,
    /// An event was set.
    SetEvent,
    /// An event was pulsed.
    PulseEvent,
    /// An event was reset or cleared.
    ResetEvent,
    /// The state of a dispatcher object was read.
    ReadState,
    /// A semaphore was released.
    ReleaseSemaphore,
    /// A mutex was acquired.
    AcquireMutex,
    /// A mutex was released.
    ReleaseMutex,
    /// The processor turns on a spin lock that another one holds.
    SpinOnLock,
    /// A spin lock was acquired, of any kind. The argument is 0 for an ordinary lock, 1 for a queued one, 2 for shared and 3 for exclusive ownership of a
    /// reader-writer spin lock.
    AcquireSpinLock,
    /// A spin lock was released.
    ReleaseSpinLock,
    /// A fast or guarded mutex was acquired.
    AcquireFastMutex,
    /// A fast or guarded mutex was released.
    ReleaseFastMutex,
    /// A resource was acquired. The argument is 0 for exclusive ownership.
    AcquireResource,
    /// A resource was released. The argument is the place of its owner among the threads, or all ones for an owner pointer.
    ReleaseResource,
    /// Exclusive ownership of a resource became shared.
    ConvertResource,
    /// A push lock was acquired. The argument is 1 for exclusive ownership.
    AcquirePushLock,
    /// A push lock was released.
    ReleasePushLock,
    /// Rundown protection was asked for. The argument is 1 if it was granted.
    AcquireRundown,
    /// Rundown protection was released.
    ReleaseRundown,
    /// A wait for the release of rundown protection.
    WaitForRundown,
    /// A timer was set.
    SetTimer,
    /// A timer was cancelled.
    CancelTimer,
    /// A timer expired. The argument is 1 if it is periodic, so that it is set again.
    TimerExpired,
    /// A DPC was queued.
    InsertDpc,
    /// A DPC was taken off its queue.
    RemoveDpc,
    /// A DPC routine began.
    RunDpc,
    /// A DPC routine returned.
    EndDpc,
    /// An APC was queued to the thread that is the object.
    InsertApc,
    /// A kernel APC was delivered to the thread that is the object.
    DeliverApc,
    /// The thread that is the object was alerted.
    AlertThread,
    /// An entry was inserted into a queue.
    InsertQueue,
    /// The IRQL was raised. The argument is the level before.
    RaiseIrql,
    /// The IRQL is lowered. The argument is the level after.
    LowerIrql,
    /// A delay began. The argument is the interval.
    Delay,
    /// All processors were idle and the clock went on. The argument is the interrupt time.
    AdvanceClock,
    /// A driver was loaded. The object is its number among the drivers.
    LoadDriver,
    /// A driver was unloaded. The object is its number among the drivers.
    UnloadDriver,
    /// A device was created. The argument is its driver's number.
    CreateDevice,
    /// A device was deleted.
    DeleteDevice,
    /// A device was attached to another one's stack. The argument is the other one's number.
    AttachDevice,
    /// A device was detached from the one named.
    DetachDevice,
    /// A request was sent to a driver. The argument is the major function.
    CallDriver,
    /// A request was completed. The argument is its status.
    CompleteRequest,
    /// A request was cancelled.
    CancelRequest,
    /// A work item was queued. The argument is the queue.
    QueueWork,
    /// A worker thread runs a work item.
    RunWork,
    /// A remove lock was asked for. The argument is 1 if it was granted.
    AcquireRemoveLock,
    /// A remove lock was released.
    ReleaseRemoveLock,
    /// An atomic of `ksync::sync::atomic` was read, or was not what it should have been to be written. The argument is its number among the atomics of the run, from 1.
    ReadAtomic,
    /// An atomic was written. The argument is as for `ReadAtomic`.
    WriteAtomic,
    /// A driver printed something. The argument is how many bytes it was; [`Outcome::printed`](crate::Outcome::printed) has the text.
    DebugPrint,
}

impl Operation {
    /// Its name in the text of the trace.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CreateThread => "create thread",
            Self::TerminateThread => "terminate thread",
            Self::DispatchThread => "dispatch thread",
            Self::LeaveThread => "leave thread",
            Self::Block => "block",
            Self::EndWait => "end wait",
            Self::BeginWait => "wait",
            Self::SetEvent => "set event",
            Self::PulseEvent => "pulse event",
            Self::ResetEvent => "reset event",
            Self::ReadState => "read state",
            Self::ReleaseSemaphore => "release semaphore",
            Self::AcquireMutex => "acquire mutex",
            Self::ReleaseMutex => "release mutex",
            Self::SpinOnLock => "spin on lock",
            Self::AcquireSpinLock => "acquire spin lock",
            Self::ReleaseSpinLock => "release spin lock",
            Self::AcquireFastMutex => "acquire fast mutex",
            Self::ReleaseFastMutex => "release fast mutex",
            Self::AcquireResource => "acquire resource",
            Self::ReleaseResource => "release resource",
            Self::ConvertResource => "convert resource",
            Self::AcquirePushLock => "acquire push lock",
            Self::ReleasePushLock => "release push lock",
            Self::AcquireRundown => "acquire rundown",
            Self::ReleaseRundown => "release rundown",
            Self::WaitForRundown => "wait for rundown",
            Self::SetTimer => "set timer",
            Self::CancelTimer => "cancel timer",
            Self::TimerExpired => "timer expired",
            Self::InsertDpc => "insert DPC",
            Self::RemoveDpc => "remove DPC",
            Self::RunDpc => "run DPC",
            Self::EndDpc => "end DPC",
            Self::InsertApc => "insert APC",
            Self::DeliverApc => "deliver APC",
            Self::AlertThread => "alert thread",
            Self::InsertQueue => "insert queue",
            Self::RaiseIrql => "raise IRQL",
            Self::LowerIrql => "lower IRQL",
            Self::Delay => "delay",
            Self::AdvanceClock => "advance clock",
            Self::LoadDriver => "load driver",
            Self::UnloadDriver => "unload driver",
            Self::CreateDevice => "create device",
            Self::DeleteDevice => "delete device",
            Self::AttachDevice => "attach device",
            Self::DetachDevice => "detach device",
            Self::CallDriver => "call driver",
            Self::CompleteRequest => "complete request",
            Self::CancelRequest => "cancel request",
            Self::QueueWork => "queue work",
            Self::RunWork => "run work",
            Self::AcquireRemoveLock => "acquire remove lock",
            Self::ReleaseRemoveLock => "release remove lock",
            Self::ReadAtomic => "read atomic",
            Self::WriteAtomic => "write atomic",
            Self::DebugPrint => "debug print",
        }
    }
}

impl Operation {
    /// True when a lock has an owner, or one more, after it.
    pub(crate) fn acquires(self) -> bool {
        matches!(
            self,
            Self::AcquireMutex | Self::AcquireSpinLock | Self::AcquireFastMutex | Self::AcquireResource | Self::AcquirePushLock
        )
    }
}

/// Who acted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Actor {
    /// A thread, by its place among the threads of the run in order of creation, from 0.
    Thread(u32),
    /// A DPC routine of the processor.
    Dpc,
    /// The clock of the machine: no driver code ran.
    Clock,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Thread(thread) => write!(f, "t{thread}"),
            Self::Dpc => write!(f, "dpc"),
            Self::Clock => write!(f, "clock"),
        }
    }
}

/// One operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Event {
    /// The interrupt time, in 100 ns units.
    pub time: u64,
    /// The processor.
    pub processor: u8,
    /// Its IRQL.
    pub irql: u8,
    /// Its IRQL after the operation, until the processor's next one raises it.
    pub irql_after: u8,
    /// Who acted. What is handed to a waiting thread is acquired by that thread.
    pub actor: Actor,
    /// What was done.
    pub operation: Operation,
    /// The number of the object, or 0 for none.
    pub object: u32,
    /// What the object is, as in reports ("event", "spin lock"), or "" for none.
    pub object_kind: &'static str,
    /// What else there is to say; see [`Operation`].
    pub argument: u64,
    /// Where driver code made the call, when [`Machine::record_sites`](crate::Machine::record_sites) is on.
    /// [`Outcome::call_sites`](crate::Outcome::call_sites) has the place.
    pub site: Option<SiteId>,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, rest) = (self.time / 10_000_000, self.time % 10_000_000);
        let (processor, actor, operation) = (self.processor, self.actor, self.operation.name());
        write!(f, "{seconds}.{rest:07} p{processor} {actor} {operation} #{} {:#x}", self.object, self.argument)
    }
}

/// An event as it is kept: compact, since a run has very many.
#[derive(Clone, Copy, Debug)]
struct Entry {
    time: u64,
    argument: u64,
    thread: u32,
    object: u32,
    site: Option<SiteId>,
    cpu: u8,
    irql: u8,
    irql_after: u8,
    operation: Operation,
}

/// How many events a processor's last one is looked for in, when its level has fallen.
const LOOK_BACK: usize = 16;

/// Where an operation happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) time: u64,
    pub(crate) cpu: u8,
    pub(crate) irql: u8,
    pub(crate) thread: u32,
    pub(crate) site: Option<SiteId>,
}

/// The events of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    entries: Vec<Entry>,
    enabled: bool,
    /// How many there were, recorded or not.
    pushed: u64,
    /// What each object is, by its number.
    kinds: Vec<&'static str>,
    /// The number of each atomic, by its address.
    atomics: FxHashMap<usize, u64>,
    /// What was printed, by the place of the event, in order.
    printed: Vec<(usize, Box<str>)>,
}

impl Trace {
    /// Stands for the DPC queue of the processor where a thread would be.
    pub(crate) const DPC: u32 = u32::MAX;
    /// Stands for the machine's loop.
    pub(crate) const MACHINE: u32 = u32::MAX - 1;

    pub(crate) fn new(enabled: bool) -> Self {
        Self { enabled, ..Self::default() }
    }

    /// Records an operation that driver code made.
    #[inline]
    pub(crate) fn push(&mut self, place: Place, operation: Operation, object: u32, argument: u64) {
        self.count();
        self.note(place, operation, object, argument);
    }

    /// Counts an operation.
    #[inline]
    pub(crate) fn count(&mut self) {
        self.pushed += 1;
    }

    /// Records what follows from operations, and does not count as one.
    #[inline]
    pub(crate) fn note(&mut self, place: Place, operation: Operation, object: u32, argument: u64) {
        if self.enabled {
            let Place { time, cpu, irql, thread, site } = place;
            self.entries.push(Entry { time, argument, thread, object, site, cpu, irql, irql_after: irql, operation });
        }
    }

    /// The last event is a line that the driver printed: this one.
    pub(crate) fn set_printed(&mut self, text: &str) {
        if self.enabled {
            let text = text.trim_end_matches(['\n', '\r']);
            self.printed.push((self.entries.len().saturating_sub(1), text.into()));
        }
    }

    /// What the driver printed in an event, by its place.
    pub(crate) fn printed(&self, event: usize) -> Option<&str> {
        let at = self.printed.binary_search_by_key(&event, |(at, _)| *at).ok()?;
        Some(&self.printed[at].1)
    }

    /// Whether events are recorded.
    #[inline]
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// The level of a processor changed in the course of its last operation.
    #[inline]
    pub(crate) fn level_changed(&mut self, cpu: u8, irql: u8) {
        if self.enabled
            && let Some(entry) = self.entries.iter_mut().rev().take(LOOK_BACK).find(|entry| entry.cpu == cpu)
        {
            entry.irql_after = irql;
        }
    }

    /// The number of an atomic among those of the run, in order of their first operations.
    pub(crate) fn number_atomic(&mut self, address: usize) -> u64 {
        let next = self.atomics.len() as u64 + 1;
        *self.atomics.entry(address).or_insert(next)
    }

    /// What reports call an atomic, which has a number where the run is recorded.
    pub(crate) fn name_of_atomic(&self, address: usize) -> String {
        self.atomics.get(&address).map_or_else(|| "an atomic".to_owned(), |number| format!("atomic a{number}"))
    }

    /// The run is over: what each object was, by its number.
    pub(crate) fn set_kinds(&mut self, kinds: Vec<&'static str>) {
        self.kinds = kinds;
    }

    fn kind(&self, operation: Operation, object: u32) -> &'static str {
        match operation {
            Operation::LoadDriver | Operation::UnloadDriver => "driver",
            _ => self.kinds.get(object as usize).copied().unwrap_or(""),
        }
    }

    /// The events, in order.
    pub(crate) fn events(&self) -> impl DoubleEndedIterator<Item = Event> + ExactSizeIterator {
        self.entries.iter().map(|entry| Event {
            time: entry.time,
            processor: entry.cpu,
            irql: entry.irql,
            irql_after: entry.irql_after,
            actor: match entry.thread {
                Self::DPC => Actor::Dpc,
                Self::MACHINE => Actor::Clock,
                thread => Actor::Thread(thread),
            },
            operation: entry.operation,
            object: entry.object,
            object_kind: self.kind(entry.operation, entry.object),
            argument: entry.argument,
            site: entry.site,
        })
    }

    /// One line an event: time in seconds, processor, thread, operation, object, argument.
    pub(crate) fn render(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.entries.len() * 48);
        for event in self.events() {
            writeln!(text, "{event}").expect("writing to a Vec cannot fail");
        }
        text
    }

    /// How many operations there were so far.
    pub(crate) fn pushed(&self) -> u64 {
        self.pushed
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}
