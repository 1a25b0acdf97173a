//! The trace of a run: every visible operation, in order.
//!
//! Objects appear by number, never by address, so that the same seed gives the same bytes on every host.

use std::io::Write;

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Operation {
    CreateThread,
    TerminateThread,
    EndWait,
    BeginWait,
    SetEvent,
    PulseEvent,
    ResetEvent,
    ReadState,
    ReleaseSemaphore,
    AcquireMutex,
    ReleaseMutex,
    AcquireSpinLock,
    ReleaseSpinLock,
    AcquireFastMutex,
    ReleaseFastMutex,
    AcquireResource,
    ReleaseResource,
    AcquirePushLock,
    ReleasePushLock,
    AcquireRundown,
    ReleaseRundown,
    WaitForRundown,
    SetTimer,
    CancelTimer,
    TimerExpired,
    InsertDpc,
    RemoveDpc,
    RunDpc,
    InsertApc,
    DeliverApc,
    AlertThread,
    InsertQueue,
    Delay,
    AdvanceClock,
    LoadDriver,
    UnloadDriver,
    DebugPrint,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::CreateThread => "create thread",
            Self::TerminateThread => "terminate thread",
            Self::EndWait => "end wait",
            Self::BeginWait => "wait",
            Self::SetEvent => "set event",
            Self::PulseEvent => "pulse event",
            Self::ResetEvent => "reset event",
            Self::ReadState => "read state",
            Self::ReleaseSemaphore => "release semaphore",
            Self::AcquireMutex => "acquire mutex",
            Self::ReleaseMutex => "release mutex",
            Self::AcquireSpinLock => "acquire spin lock",
            Self::ReleaseSpinLock => "release spin lock",
            Self::AcquireFastMutex => "acquire fast mutex",
            Self::ReleaseFastMutex => "release fast mutex",
            Self::AcquireResource => "acquire resource",
            Self::ReleaseResource => "release resource",
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
            Self::InsertApc => "insert APC",
            Self::DeliverApc => "deliver APC",
            Self::AlertThread => "alert thread",
            Self::InsertQueue => "insert queue",
            Self::Delay => "delay",
            Self::AdvanceClock => "advance clock",
            Self::LoadDriver => "load driver",
            Self::UnloadDriver => "unload driver",
            Self::DebugPrint => "debug print",
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Event {
    time: u64,
    argument: u64,
    thread: u32,
    object: u32,
    cpu: u8,
    operation: Operation,
}

/// The events of a run.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    events: Vec<Event>,
    enabled: bool,
    /// How many there were, recorded or not.
    pushed: u64,
}

impl Trace {
    /// Stands for the DPC queue of the processor where a thread would be.
    pub(crate) const DPC: u32 = u32::MAX;
    /// Stands for the machine's loop.
    pub(crate) const MACHINE: u32 = u32::MAX - 1;

    pub(crate) fn new(enabled: bool) -> Self {
        Self { events: Vec::new(), enabled, pushed: 0 }
    }

    #[inline]
    pub(crate) fn push(&mut self, time: u64, cpu: u8, thread: u32, operation: Operation, object: u32, argument: u64) {
        self.pushed += 1;
        if self.enabled {
            self.events.push(Event { time, argument, thread, object, cpu, operation });
        }
    }

    /// One line an event: time in seconds, processor, thread, operation, object, argument.
    pub(crate) fn render(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.events.len() * 48);
        for event in &self.events {
            let (seconds, rest) = (event.time / 10_000_000, event.time % 10_000_000);
            let actor = match event.thread {
                Self::DPC => "dpc".to_owned(),
                Self::MACHINE => "clock".to_owned(),
                thread => format!("t{thread}"),
            };
            let (cpu, operation, object, argument) = (event.cpu, event.operation.name(), event.object, event.argument);
            writeln!(text, "{seconds}.{rest:07} p{cpu} {actor} {operation} #{object} {argument:#x}")
                .expect("writing to a Vec cannot fail");
        }
        text
    }

    /// How many operations there were so far.
    pub(crate) fn pushed(&self) -> u64 {
        self.pushed
    }

    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }
}
