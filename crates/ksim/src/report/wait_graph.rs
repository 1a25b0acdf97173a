//! Who waits for whom, when nobody can go on.

use crate::engine::object::SYSTEM;
use crate::engine::thread::State;
use crate::engine::{Kernel, Kind};
use std::fmt;

/// A thread that cannot go on.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct WaitingThread {
    /// The thread's number.
    pub thread: u32,
    /// The kind of wait.
    pub reason: String,
    /// What it waits for, by kind and number.
    pub objects: Vec<String>,
    /// The numbers of the threads that own what it waits for.
    pub owners: Vec<u32>,
}

/// The threads of a deadlock, and what each waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct WaitGraph {
    /// Every thread that is alive.
    pub threads: Vec<WaitingThread>,
    /// A cycle of threads each of which waits for what the next one owns, if there is one.
    pub cycle: Vec<u32>,
}

impl WaitGraph {
    pub(crate) fn of(kernel: &Kernel) -> Self {
        let mut threads = Vec::new();
        for thread in kernel.threads.iter().filter(|thread| thread.state != State::Terminated && !thread.runs_dpcs) {
            let number = kernel.objects[thread.object].number;
            let is = |tid: Option<u32>| tid.is_some_and(|tid| kernel.threads[tid as usize].object == thread.object);
            let turning = kernel
                .objects
                .iter()
                .filter(|(_, object)| match &object.kind {
                    Kind::SpinLock(lock) => lock.turning.iter().any(|turning| is(turning.thread)),
                    Kind::SpinRw(lock) => lock.turning.iter().any(|(turning, _)| is(turning.thread)),
                    _ => false,
                })
                .map(|(id, _)| id);
            let waited: Vec<_> = if thread.state == State::Waiting {
                let parked = thread.wait.parked_on.filter(|&id| id != SYSTEM);
                thread.wait.objects.iter().copied().chain(parked).collect()
            } else {
                turning.collect()
            };
            let reason = match thread.state {
                State::Waiting => thread.wait.request.reason.to_owned(),
                State::Running if !waited.is_empty() => "spin lock".to_owned(),
                State::Running => "its processor cannot go on".to_owned(),
                State::Ready => "ready, but no processor is free".to_owned(),
                State::Terminated => continue,
            };
            let mut owners = Vec::new();
            let mut objects = Vec::new();
            for id in waited {
                let object = &kernel.objects[id];
                objects.push(format!("{} #{}", object.kind.name(), object.number));
                match &object.kind {
                    Kind::Mutant(state) => owners.extend(state.owner),
                    Kind::Thread(tid) => owners.push(*tid),
                    Kind::SpinLock(state) => owners.extend(state.owner.and_then(|owner| owner.thread)),
                    Kind::SpinRw(state) => {
                        owners.extend(state.exclusive.iter().chain(&state.shared).filter_map(|owner| owner.thread));
                    }
                    Kind::Event { .. } => owners.extend(kernel.owner_of_event(id)),
                    Kind::PushLock(state) => owners.extend(state.exclusive.iter().chain(&state.shared)),
                    Kind::Resource(state) => {
                        let by_address = |key: usize| kernel.threads.iter().position(|thread| thread.address() == key);
                        owners.extend(state.owner_keys().filter_map(by_address).map(|index| index as u32));
                    }
                    _ => {}
                }
            }
            let owners = owners.into_iter().map(|tid| kernel.thread_number(tid)).collect();
            threads.push(WaitingThread { thread: number, reason, objects, owners });
        }
        let cycle = find_cycle(&threads);
        Self { threads, cycle }
    }
}

/// Follows first owners from each thread until one repeats.
fn find_cycle(threads: &[WaitingThread]) -> Vec<u32> {
    for start in threads {
        let mut path = vec![start.thread];
        let mut current = start;
        while let Some(next) = current.owners.first() {
            if let Some(position) = path.iter().position(|seen| seen == next) {
                return path.split_off(position);
            }
            path.push(*next);
            match threads.iter().find(|thread| thread.thread == *next) {
                Some(thread) => current = thread,
                None => break,
            }
        }
    }
    Vec::new()
}

impl fmt::Display for WaitGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "deadlock: no thread can go on, and nothing is due")?;
        for thread in &self.threads {
            write!(f, "\n    thread #{} ({})", thread.thread, thread.reason)?;
            if !thread.objects.is_empty() {
                write!(f, " waits for {}", thread.objects.join(", "))?;
            }
            for owner in &thread.owners {
                write!(f, ", owned by thread #{owner}")?;
            }
        }
        if !self.cycle.is_empty() {
            let names: Vec<_> = self.cycle.iter().map(|thread| format!("#{thread}")).collect();
            write!(f, "\n    cycle: {} -> {}", names.join(" -> "), names[0])?;
        }
        Ok(())
    }
}
