//! What lasted how long: the events of a trace as spans on lanes.
//!
//! Virtual time stands still while code runs, so a span is counted in steps: from the event that begins it to the one that ends it. The timeline and the trace-event
//! file are both drawn from these.

use crate::report::trace::{Actor, Event, Operation};
use rustc_hash::FxHashMap;

/// How many rows a lane has for what it holds at once. What is more shares the last row.
const ROWS: u8 = 8;

/// What a span shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum What {
    /// A thread runs: on a processor's lane the object is its place among the threads, on a thread's lane the processor.
    Run,
    /// As `Run`, and the processor turns on a lock.
    Spin,
    /// A DPC routine runs: the object.
    Dpc,
    /// The thread could run, and no processor is free for it.
    Ready,
    /// The thread has a processor, and a DPC runs there.
    Interrupted,
    /// The thread waits for the object.
    Wait,
    /// A lock is held: the object.
    Hold,
    /// A lock is held by one of several owners: the object.
    HoldShared,
    /// A timer is armed: the object.
    Armed,
}

/// Something that lasted from one step to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    /// The first step.
    pub(crate) begin: u32,
    /// The step that it is over at.
    pub(crate) end: u32,
    pub(crate) what: What,
    /// The IRQL.
    pub(crate) irql: u8,
    /// The row of its lane. Row 0 is what the lane itself does.
    pub(crate) row: u8,
    /// See [`What`].
    pub(crate) object: u32,
}

/// Whose lane it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Owner {
    /// A processor.
    Processor(u8),
    /// A thread, by its place among the threads.
    Thread(u32),
    /// The clock, with the timers.
    Clock,
}

/// The spans of one processor or thread, by row and beginning.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    pub(crate) owner: Owner,
    pub(crate) spans: Vec<Span>,
}

impl Lane {
    /// How many rows it has.
    pub(crate) fn rows(&self) -> u8 {
        self.spans.iter().map(|span| span.row + 1).max().unwrap_or(1)
    }
}

/// A thread, as far as the trace tells.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct ThreadSpan {
    /// Its number among the objects, as in reports.
    pub(crate) number: u32,
    pub(crate) created: u32,
    pub(crate) ended: Option<u32>,
}

/// The spans of a run.
#[derive(Clone, Debug)]
pub(crate) struct Spans {
    /// The clock, the processors, the threads.
    pub(crate) lanes: Vec<Lane>,
    /// By place among the threads.
    pub(crate) threads: Vec<ThreadSpan>,
    /// What each object is that appears.
    pub(crate) kinds: FxHashMap<u32, &'static str>,
}

impl Spans {
    /// The spans of `events` on a machine with so many processors.
    pub(crate) fn of(events: impl Iterator<Item = Event>, processors: u8) -> Self {
        let mut builder = Builder::new(processors);
        let mut steps = 0;
        for event in events {
            builder.event(steps, &event);
            steps += 1;
        }
        builder.finish(steps)
    }
}

/// What a processor does.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct OnProcessor {
    thread: Option<u32>,
    dpc: Option<u32>,
    spinning: bool,
    irql: u8,
}

/// What a thread is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum OfThread {
    Nothing,
    Ready,
    On(u8),
    Waiting(u32),
}

/// Something held: a lock, or protection.
#[derive(Clone, Copy, Debug)]
struct Held {
    owner: Owner,
    object: u32,
    operation: Operation,
    span: Span,
}

struct Builder {
    lanes: FxHashMap<Owner, Vec<Span>>,
    open: FxHashMap<Owner, Span>,
    processors: Vec<OnProcessor>,
    states: Vec<OfThread>,
    blocked_on: Vec<u32>,
    threads: Vec<ThreadSpan>,
    by_number: FxHashMap<u32, u32>,
    held: Vec<Held>,
    kinds: FxHashMap<u32, &'static str>,
}

impl Builder {
    fn new(processors: u8) -> Self {
        Self {
            lanes: FxHashMap::default(),
            open: FxHashMap::default(),
            processors: vec![OnProcessor::default(); processors.into()],
            states: Vec::new(),
            blocked_on: Vec::new(),
            threads: Vec::new(),
            by_number: FxHashMap::default(),
            held: Vec::new(),
            kinds: FxHashMap::default(),
        }
    }

    fn event(&mut self, step: u32, event: &Event) {
        if event.object != 0 && !event.object_kind.is_empty() && event.object_kind != "driver" {
            self.kinds.insert(event.object, event.object_kind);
        }
        let cpu = event.processor;
        let on = &mut self.processors[usize::from(cpu)];
        // What is handed to a thread that waits says nothing of the processor that it was last on.
        let acts_here = match event.actor {
            Actor::Thread(thread) => on.thread == Some(thread) && on.dpc.is_none(),
            Actor::Dpc | Actor::Clock => true,
        };
        let before = *on;
        if acts_here && event.actor != Actor::Clock {
            on.irql = event.irql_after;
            on.spinning = event.operation == Operation::SpinOnLock;
        }
        let by_dpc = event.actor == Actor::Dpc;
        match event.operation {
            Operation::RunDpc if by_dpc => on.dpc = Some(event.object),
            Operation::EndDpc if by_dpc => on.dpc = None,
            Operation::DispatchThread => {
                on.thread = Some(event.argument as u32);
                on.irql = event.irql_after;
            }
            Operation::LeaveThread => {
                on.thread = None;
                on.irql = event.irql_after;
            }
            _ => {}
        }
        let after = *on;
        self.thread_event(step, event, before.thread);
        if before != after {
            self.show_processor(step, cpu);
        }
        let owner = match event.actor {
            Actor::Thread(thread) => Owner::Thread(thread),
            Actor::Dpc | Actor::Clock => Owner::Processor(cpu),
        };
        self.held_event(step, event, owner);
    }

    /// What an event does to the state of threads.
    fn thread_event(&mut self, step: u32, event: &Event, on_processor: Option<u32>) {
        match event.operation {
            Operation::CreateThread => {
                let thread = event.argument as u32;
                let index = thread as usize;
                if self.threads.len() <= index {
                    self.threads.resize(index + 1, ThreadSpan::default());
                    self.states.resize(index + 1, OfThread::Nothing);
                    self.blocked_on.resize(index + 1, 0);
                }
                self.threads[index] = ThreadSpan { number: event.object, created: step, ended: None };
                self.by_number.insert(event.object, thread);
                self.set_state(step, thread, OfThread::Ready);
            }
            Operation::DispatchThread => self.set_state(step, event.argument as u32, OfThread::On(event.processor)),
            Operation::LeaveThread => {
                let Some(thread) = on_processor else { return };
                let state = match event.argument {
                    0 => OfThread::Ready,
                    1 => OfThread::Waiting(self.blocked_on.get(thread as usize).copied().unwrap_or(0)),
                    _ => OfThread::Nothing,
                };
                self.set_state(step, thread, state);
            }
            Operation::Block => {
                if let Actor::Thread(thread) = event.actor
                    && let Some(object) = self.blocked_on.get_mut(thread as usize)
                {
                    *object = event.object;
                }
            }
            Operation::EndWait => {
                if let Some(&thread) = self.by_number.get(&event.object)
                    && matches!(self.states[thread as usize], OfThread::Waiting(_))
                {
                    self.set_state(step, thread, OfThread::Ready);
                }
            }
            Operation::TerminateThread => {
                if let Some(&thread) = self.by_number.get(&event.object) {
                    self.threads[thread as usize].ended = Some(step);
                    // Its mutexes are abandoned.
                    self.let_go(step, |held| held.owner == Owner::Thread(thread) && held.operation == Operation::AcquireMutex);
                }
            }
            _ => {}
        }
    }

    /// What an event takes and releases.
    fn held_event(&mut self, step: u32, event: &Event, owner: Owner) {
        use Operation as O;
        let object = event.object;
        match event.operation {
            O::AcquireMutex | O::AcquireFastMutex => self.hold(step, event, owner, What::Hold),
            O::AcquireSpinLock => {
                self.hold(step, event, owner, if event.argument == 2 { What::HoldShared } else { What::Hold });
            }
            O::AcquireResource => self.hold(step, event, owner, if event.argument == 0 { What::Hold } else { What::HoldShared }),
            O::AcquirePushLock => self.hold(step, event, owner, if event.argument == 1 { What::Hold } else { What::HoldShared }),
            O::AcquireRundown if event.argument == 1 => self.hold(step, event, owner, What::HoldShared),
            O::SetTimer | O::TimerExpired | O::CancelTimer => {
                self.let_go(step, |held| held.object == object);
                if event.operation == O::SetTimer || event.operation == O::TimerExpired && event.argument == 1 {
                    self.hold(step, event, Owner::Clock, What::Armed);
                }
            }
            O::ReleaseResource => {
                let owner = u32::try_from(event.argument).map_or(owner, Owner::Thread);
                self.release(step, object, owner);
            }
            O::ReleaseMutex | O::ReleaseFastMutex | O::ReleaseSpinLock | O::ReleasePushLock | O::ReleaseRundown => {
                self.release(step, object, owner);
            }
            _ => {}
        }
    }

    fn hold(&mut self, step: u32, event: &Event, owner: Owner, what: What) {
        if what == What::Hold {
            // Who held it alone has let it go without a word: its mutex was abandoned.
            self.let_go(step, |held| held.object == event.object && held.owner != owner && held.span.what == What::Hold);
        }
        let taken = self.held.iter().filter(|held| held.owner == owner).fold(0_u32, |rows, held| rows | 1 << held.span.row);
        let row = (1..ROWS).find(|row| taken & (1 << row) == 0).unwrap_or(ROWS);
        let span = Span { begin: step, end: step, what, irql: event.irql, row, object: event.object };
        self.held.push(Held { owner, object: event.object, operation: event.operation, span });
    }

    /// The owner's last acquisition of the object ends, or, where it has none, the last of all.
    fn release(&mut self, step: u32, object: u32, owner: Owner) {
        let own = self.held.iter().rposition(|held| held.object == object && held.owner == owner);
        if let Some(index) = own.or_else(|| self.held.iter().rposition(|held| held.object == object)) {
            self.end_held(step, index);
        }
    }

    fn let_go(&mut self, step: u32, which: impl Fn(&Held) -> bool) {
        while let Some(index) = self.held.iter().position(&which) {
            self.end_held(step, index);
        }
    }

    fn end_held(&mut self, step: u32, index: usize) {
        let held = self.held.remove(index);
        self.lanes.entry(held.owner).or_default().push(Span { end: step, ..held.span });
    }

    fn set_state(&mut self, step: u32, thread: u32, state: OfThread) {
        if let Some(current) = self.states.get_mut(thread as usize) {
            *current = state;
            self.show_thread(step, thread);
        }
    }

    /// A processor does something else from this step on, and so does its thread.
    fn show_processor(&mut self, step: u32, cpu: u8) {
        let on = self.processors[usize::from(cpu)];
        let what = if on.spinning { What::Spin } else { What::Run };
        let shown = match (on.dpc, on.thread) {
            (Some(dpc), _) => Some((if on.spinning { What::Spin } else { What::Dpc }, dpc)),
            (None, Some(thread)) => Some((what, thread)),
            (None, None) => None,
        };
        self.show(step, Owner::Processor(cpu), shown, on.irql);
        if let Some(thread) = on.thread {
            self.show_thread(step, thread);
        }
    }

    /// A thread is at something else from this step on.
    fn show_thread(&mut self, step: u32, thread: u32) {
        let Some(&state) = self.states.get(thread as usize) else { return };
        let (shown, irql) = match state {
            OfThread::Nothing => (None, 0),
            OfThread::Ready => (Some((What::Ready, 0)), 0),
            OfThread::Waiting(object) => (Some((What::Wait, object)), 0),
            OfThread::On(cpu) => {
                let on = self.processors[usize::from(cpu)];
                match on {
                    OnProcessor { dpc: Some(dpc), .. } => (Some((What::Interrupted, dpc)), 0),
                    OnProcessor { spinning: true, .. } => (Some((What::Spin, u32::from(cpu))), on.irql),
                    _ => (Some((What::Run, u32::from(cpu))), on.irql),
                }
            }
        };
        self.show(step, Owner::Thread(thread), shown, irql);
    }

    /// Row 0 of a lane shows something else from this step on.
    fn show(&mut self, step: u32, owner: Owner, shown: Option<(What, u32)>, irql: u8) {
        let next = shown.map(|(what, object)| Span { begin: step, end: step, what, irql, row: 0, object });
        if let Some(open) = self.open.get(&owner) {
            if next.is_some_and(|next| Span { begin: open.begin, end: open.end, ..next } == *open) {
                return;
            }
            if open.begin < step {
                let closed = Span { end: step, ..*open };
                self.lanes.entry(owner).or_default().push(closed);
            }
        }
        match next {
            Some(next) => self.open.insert(owner, next),
            None => self.open.remove(&owner),
        };
    }

    fn finish(mut self, steps: u32) -> Spans {
        while !self.held.is_empty() {
            self.end_held(steps, 0);
        }
        for (owner, span) in std::mem::take(&mut self.open) {
            self.lanes.entry(owner).or_default().push(Span { end: steps, ..span });
        }
        let processors = (0..self.processors.len()).map(|cpu| Owner::Processor(cpu as u8));
        let threads = (0..self.threads.len()).map(|thread| Owner::Thread(thread as u32));
        let mut lanes: Vec<_> = std::iter::once(Owner::Clock)
            .chain(processors)
            .chain(threads)
            .map(|owner| Lane { owner, spans: self.lanes.remove(&owner).unwrap_or_default() })
            .collect();
        for lane in &mut lanes {
            lane.spans.sort_by_key(|span| (span.row, span.begin, span.end));
        }
        Spans { lanes, threads: self.threads, kinds: self.kinds }
    }
}
