//! Who waits for whom, when nobody can go on.

use super::state::{owners, waited_for};
use crate::engine::thread::State;
use crate::engine::{Kernel, Tid};
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
        for (tid, thread) in kernel.threads.iter().enumerate() {
            if thread.state == State::Terminated || thread.runs_dpcs || kernel.io.work.is_idle(tid as Tid) {
                continue;
            }
            let number = kernel.objects[thread.object].number;
            let waited = waited_for(kernel, tid as Tid);
            let spins = kernel.spins_on(tid as Tid);
            let reason = match thread.state {
                State::Waiting => thread.wait.request.reason.to_owned(),
                State::Running if !waited.is_empty() => "spin lock".to_owned(),
                State::Running | State::Ready if !spins.is_empty() => SPINNING.to_owned(),
                State::Running => "its processor cannot go on".to_owned(),
                State::Ready => "ready, but no processor is free".to_owned(),
                State::Terminated => continue,
            };
            let name = |id: &u32| format!("{} #{}", kernel.objects[*id].kind.name(), kernel.objects[*id].number);
            let objects = waited.iter().map(name).chain(spins).collect();
            let owners = waited.iter().flat_map(|&id| owners(kernel, id)).map(|owner| kernel.thread_number(owner)).collect();
            threads.push(WaitingThread { thread: number, reason, objects, owners });
        }
        let cycle = find_cycle(&threads);
        Self { threads, cycle }
    }
}

/// Follows the owners of what each thread waits for until a thread repeats.
fn find_cycle(threads: &[WaitingThread]) -> Vec<u32> {
    let mut done = Vec::new();
    threads.iter().find_map(|start| follow(threads, start.thread, &mut Vec::new(), &mut done)).unwrap_or_default()
}

fn follow(threads: &[WaitingThread], thread: u32, path: &mut Vec<u32>, done: &mut Vec<u32>) -> Option<Vec<u32>> {
    if let Some(position) = path.iter().position(|seen| *seen == thread) {
        return Some(path.split_off(position));
    }
    if done.contains(&thread) {
        return None;
    }
    path.push(thread);
    let waiting = threads.iter().find(|waiting| waiting.thread == thread);
    let cycle = waiting.and_then(|waiting| waiting.owners.iter().find_map(|&owner| follow(threads, owner, path, done)));
    if cycle.is_none() {
        path.pop();
        done.push(thread);
    }
    cycle
}

impl WaitGraph {
    /// Without the threads one by one.
    pub(super) fn summary(&self) -> String {
        let mut spinning = String::new();
        for thread in self.threads.iter().filter(|thread| thread.reason == SPINNING) {
            let objects = thread.objects.join(", ");
            spinning += &format!(
                "\n    thread #{} spins: it reads {objects} again and again, and nobody is left to change that",
                thread.thread
            );
        }
        match self.cycle.first() {
            None => format!("{HEADLINE}{spinning}"),
            Some(first) => {
                let names: Vec<_> = self.cycle.iter().chain([first]).map(|thread| format!("#{thread}")).collect();
                format!("{HEADLINE}{spinning}\n    cycle: {}", names.join(" -> "))
            }
        }
    }
}

/// In place of the kind of wait.
const SPINNING: &str = "spinning";

const HEADLINE: &str = "deadlock: no thread can go on, and nothing is due";

impl fmt::Display for WaitGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HEADLINE}")?;
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
