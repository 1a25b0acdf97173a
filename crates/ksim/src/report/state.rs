//! The threads and processors at the moment a run stopped.

use super::bug_check::CallSite;
use super::sites::{Frames, SiteId, Sites};
use crate::check::lock_order::Who;
use crate::engine::object::{ObjId, SYSTEM};
use crate::engine::thread::{State, Thread};
use crate::engine::{Kernel, Kind, Tid};

/// A lock that a thread held.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct HeldLock {
    /// The lock, by kind and number.
    pub lock: String,
    /// Where it was acquired; empty where that was not recorded.
    pub acquired_at: Vec<CallSite>,
}

/// What a thread was doing.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ThreadState {
    /// The thread's number.
    pub thread: u32,
    /// Its place among the threads of the run in order of creation, from 0: what the trace calls it.
    pub index: u32,
    /// Running, ready, waiting, or spinning.
    pub state: &'static str,
    /// The processor that it ran on.
    pub processor: Option<u8>,
    /// Its IRQL.
    pub irql: u8,
    /// The kind of wait, if it waited.
    pub reason: Option<&'static str>,
    /// What it waited for or turned on, by kind and number. An atomic has the number that its operations have in the trace.
    pub waits_for: Vec<String>,
    /// The numbers of the threads that own that.
    pub owners: Vec<u32>,
    /// The locks that it held.
    pub holds: Vec<HeldLock>,
    /// Where its code was, innermost first.
    pub call_sites: Vec<CallSite>,
}

/// What a processor was doing.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ProcessorState {
    /// The processor.
    pub processor: u8,
    /// Its IRQL.
    pub irql: u8,
    /// The number of its thread; none when it was idle.
    pub thread: Option<u32>,
    /// A DPC routine ran.
    pub in_dpc: bool,
    /// It turned on a spin lock.
    pub spinning: bool,
}

/// A thread as it is kept: its places are given names only for a report.
#[derive(Clone, Debug)]
struct Kept {
    state: ThreadState,
    held_at: Vec<Option<SiteId>>,
    frames: Option<Frames>,
}

/// All threads and processors.
#[derive(Clone, Default, Debug)]
pub(crate) struct Snapshot {
    threads: Vec<Kept>,
    pub(crate) processors: Vec<ProcessorState>,
}

impl Snapshot {
    /// What there is when the machine stops. `frames` has the stacks of threads that were looked at.
    pub(crate) fn of(kernel: &Kernel, mut frames: Vec<(Tid, Frames)>) -> Self {
        let live = |thread: &Thread| thread.state != State::Terminated && !thread.runs_dpcs;
        let threads = (0..kernel.threads.len() as Tid)
            .filter(|&tid| live(&kernel.threads[tid as usize]))
            .map(|tid| {
                let position = frames.iter().position(|(of, _)| *of == tid);
                kept(kernel, tid, position.map(|position| frames.swap_remove(position).1))
            })
            .collect();
        let processors = kernel.processors.iter().enumerate().map(|(number, processor)| ProcessorState {
            processor: number as u8,
            irql: processor.irql,
            thread: processor.current.map(|tid| kernel.thread_number(tid)),
            in_dpc: processor.in_dpc,
            spinning: processor.spinning,
        });
        Self { threads, processors: processors.collect() }
    }

    /// The threads, with the places where they were.
    pub(crate) fn threads(&self, sites: &Sites) -> Vec<ThreadState> {
        let resolved = self.threads.iter().map(|kept| {
            let mut state = kept.state.clone();
            for (held, at) in state.holds.iter_mut().zip(&kept.held_at) {
                held.acquired_at = at.map(|site| sites.resolve(site)).unwrap_or_default();
            }
            state.call_sites = kept.frames.as_ref().map(Frames::resolve).unwrap_or_default();
            state
        });
        resolved.collect()
    }
}

fn kept(kernel: &Kernel, tid: Tid, frames: Option<Frames>) -> Kept {
    let thread = &kernel.threads[tid as usize];
    let processor = kernel.processors.iter().position(|processor| processor.current == Some(tid));
    let waited = waited_for(kernel, tid);
    let spins = kernel.spins_on(tid);
    let turns = thread.state != State::Waiting && !waited.is_empty() || !spins.is_empty();
    let mut owners: Vec<u32> =
        waited.iter().flat_map(|&id| owners(kernel, id)).map(|owner| kernel.thread_number(owner)).collect();
    owners.dedup();
    let held: Vec<ObjId> = [&thread.spin_locks, &thread.mutants, &thread.fast_mutexes, &thread.push_locks, &thread.resources]
        .into_iter()
        .flatten()
        .copied()
        .collect();
    let name = |id: ObjId| format!("{} #{}", kernel.objects[id].kind.name(), kernel.objects[id].number);
    Kept {
        held_at: held.iter().map(|&id| kernel.acquired_at(Who::Thread(tid), id)).collect(),
        state: ThreadState {
            thread: kernel.thread_number(tid),
            index: tid,
            state: match thread.state {
                _ if turns => "spinning",
                State::Running => "running",
                State::Ready => "ready",
                _ => "waiting",
            },
            processor: processor.map(|processor| processor as u8),
            irql: processor.map_or(thread.irql, |processor| kernel.processors[processor].thread_irql()),
            reason: (thread.state == State::Waiting).then_some(thread.wait.request.reason),
            waits_for: waited.iter().map(|&id| name(id)).chain(spins).collect(),
            owners,
            holds: held.iter().map(|&id| HeldLock { lock: name(id), acquired_at: Vec::new() }).collect(),
            call_sites: Vec::new(),
        },
        frames,
    }
}

/// What a thread waits for, or its processor turns on.
pub(super) fn waited_for(kernel: &Kernel, tid: Tid) -> Vec<ObjId> {
    let thread = &kernel.threads[tid as usize];
    if thread.state == State::Waiting {
        let parked = thread.wait.parked_on.filter(|&id| id != SYSTEM);
        return thread.wait.objects.iter().copied().chain(parked).collect();
    }
    let turns_on = |kind: &Kind| match kind {
        Kind::SpinLock(lock) => lock.turning.iter().any(|turning| turning.thread == Some(tid)),
        Kind::SpinRw(lock) => lock.turning.iter().any(|(turning, _)| turning.thread == Some(tid)),
        _ => false,
    };
    kernel.objects.iter().filter(|(_, object)| turns_on(&object.kind)).map(|(id, _)| id).collect()
}

/// The threads that own an object.
pub(super) fn owners(kernel: &Kernel, id: ObjId) -> Vec<Tid> {
    match &kernel.objects[id].kind {
        Kind::Mutant(state) => state.owner.into_iter().collect(),
        Kind::Thread(tid) => vec![*tid],
        Kind::SpinLock(state) => state.owner.and_then(|owner| owner.thread).into_iter().collect(),
        Kind::SpinRw(state) => state.exclusive.iter().chain(&state.shared).filter_map(|owner| owner.thread).collect(),
        Kind::Event { .. } => kernel.owner_of_event(id).into_iter().collect(),
        Kind::PushLock(state) => state.exclusive.iter().chain(&state.shared).copied().collect(),
        Kind::Resource(state) => {
            let by_address = |key: usize| kernel.threads.iter().position(|thread| thread.address() == key);
            state.owner_keys().filter_map(by_address).map(|index| index as Tid).collect()
        }
        _ => Vec::new(),
    }
}
