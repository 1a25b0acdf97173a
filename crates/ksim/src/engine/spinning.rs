//! Loops that wait by reading: an atomic, or the state of an object, again and again, until another context changes it.
//!
//! Each pass of such a loop is one more schedule that differs in nothing, and a policy that prefers the looping context would never end. So a context that reads, at one
//! place of its code, what it has read there before and nobody has written since, is let wait until somebody writes it or the clock moves. If nothing else can happen it goes on
//! all the same: it may not be a loop. Where the state of an object is read nothing tells the place: there it is the number of times.

use super::Tid;
use super::kernel::{Executing, Kernel, Stop};
use super::processor::Cpu;
use super::thread::State;
use crate::irql::DISPATCH_LEVEL;
use crate::report::WaitGraph;
use crate::schedule::{Actor, Effect, Event, Footprint};

/// Stands for the clock in footprints. Who only looks at it, or lets it move, changes nothing.
pub(crate) const CLOCK: usize = 1;

/// How often all contexts that are left may look in vain before this is a deadlock.
const VAIN_ROUNDS: u32 = 256;

/// How often a context may read the same state of an object, and do nothing else, before it is let wait.
const POLLS: u32 = 8;

/// Something that was read.
#[derive(Debug)]
struct Read {
    address: usize,
    /// The place in the code, or the state of the object.
    what: usize,
    times: u32,
}

/// What a context has read since it last changed something that others see.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// What has not been written since.
    reads: Vec<Read>,
    /// It has read one of them again, and is let wait.
    pub(crate) waiting: bool,
}

impl Watch {
    /// Becomes that of a fresh context, and keeps its memory.
    pub(super) fn recycle(&mut self) {
        self.reads.clear();
        self.waiting = false;
    }

    /// True when the context has read nothing since.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.reads.is_empty()
    }

    /// The context changes something: what it reads from now on is not the same loop. To try to change an atomic that it reads may be part of that.
    pub(crate) fn changes(&mut self, object: usize, is_atomic: bool) {
        if !is_atomic || !self.reads.iter().any(|read| read.address == object) {
            self.reads.clear();
        }
    }

    /// It reads. Returns how often it has read that.
    fn reads(&mut self, address: usize, what: usize) -> u32 {
        match self.reads.iter_mut().find(|read| (read.address, read.what) == (address, what)) {
            Some(read) => {
                read.times = read.times.saturating_add(1);
                read.times
            }
            None => {
                self.reads.push(Read { address, what, times: 1 });
                1
            }
        }
    }
}

impl Kernel {
    pub(super) fn watch(&mut self) -> &mut Watch {
        match self.executing {
            Executing::Thread(tid) => &mut self.threads[tid as usize].watch,
            _ => &mut self.processors[self.cpu as usize].dpc_watch,
        }
    }

    /// The context that runs has read an atomic at `address`, or failed to change it, at one place of its code.
    pub(crate) fn has_read(&mut self, address: usize, site: usize) {
        if self.watch().reads(address, site) > 1 {
            self.wait_for_write();
        }
    }

    /// The context that runs has read the state of an object. At DISPATCH_LEVEL it goes on: to poll there is a mistake of its own, which the number of calls shows.
    pub(crate) fn has_polled(&mut self, object: usize, state: i32) {
        if self.irql() < DISPATCH_LEVEL && self.watch().reads(object, state as u32 as usize) > POLLS {
            // Operations on objects have to be followed from now on.
            (self.polled, self.plain) = (true, false);
            self.wait_for_write();
        }
    }

    /// A context performs an operation: who waits for a change of its objects looks again.
    pub(super) fn has_changed(&mut self, operation: Footprint) {
        if operation.effect == Effect::Unknown {
            self.let_all_look();
            return;
        }
        for (effect, object) in operation.objects() {
            if effect != Effect::Read && object != CLOCK {
                self.wake_readers(object);
            }
        }
    }

    /// What the context that runs has read it has read before: it is let wait.
    fn wait_for_write(&mut self) {
        self.watch().waiting = true;
        self.attention = true;
        let cpu = self.cpu;
        if self.ready.highest().is_some() && self.irql() < DISPATCH_LEVEL && matches!(self.executing, Executing::Thread(_)) {
            // Others want the processor: it looks again when it has it back.
            self.end_quantum();
        }
        self.update_runnable(cpu);
    }

    /// An atomic at `address` has been written.
    pub(crate) fn has_written(&mut self, address: usize) {
        self.watch().reads.clear();
        self.wake_readers(address);
    }

    /// Contexts that wait for a change at `address` look again.
    fn wake_readers(&mut self, address: usize) {
        self.vain_rounds = 0;
        for cpu in 0..self.config.processors {
            let processor = &mut self.processors[cpu as usize];
            let dpcs = written(&mut processor.dpc_watch, address).then_some(Actor::dpcs(cpu));
            let current = processor.current.filter(|&tid| written(&mut self.threads[tid as usize].watch, address));
            for woken in dpcs.into_iter().chain(current.map(Actor::thread)) {
                self.note_follower(woken);
                self.update_runnable(cpu);
            }
        }
        for queued in 0..self.threads.len() {
            written(&mut self.threads[queued].watch, address);
        }
    }

    /// All contexts that wait for a write look again. False when none does.
    pub(crate) fn let_all_look(&mut self) -> bool {
        let mut any = false;
        for cpu in 0..self.config.processors {
            if self.watches(cpu) {
                any = true;
                let processor = &mut self.processors[cpu as usize];
                processor.dpc_watch.waiting = false;
                if let Some(tid) = processor.current {
                    self.threads[tid as usize].watch.waiting = false;
                }
                self.update_runnable(cpu);
            }
        }
        self.threads.iter_mut().for_each(|thread| thread.watch.waiting = false);
        any
    }

    /// Nothing can happen, and the clock cannot move: contexts that wait for a write look again, some number of times. False when none does.
    pub(crate) fn look_in_vain(&mut self) -> bool {
        if !self.let_all_look() {
            return false;
        }
        if self.observed {
            // As when the clock moves: they go on only because nothing else is left.
            self.policy.observe(Event::ClockMoves);
        }
        self.vain_rounds += 1;
        if self.vain_rounds > VAIN_ROUNDS {
            let graph = WaitGraph::of(self);
            self.stop = Some(Stop::Deadlock(Box::new(graph)));
        }
        true
    }

    /// The names of the atomics and objects that a thread reads again and again while it can do nothing else.
    pub(crate) fn spins_on(&self, tid: Tid) -> Vec<String> {
        let thread = &self.threads[tid as usize];
        let may_act = matches!(thread.state, State::Running | State::Ready);
        if !may_act || !thread.watch.waiting && self.vain_rounds <= VAIN_ROUNDS {
            return Vec::new();
        }
        let mut addresses: Vec<usize> = Vec::new();
        for read in &thread.watch.reads {
            if !addresses.contains(&read.address) {
                addresses.push(read.address);
            }
        }
        let name = |&address: &usize| match self.objects.peek(address) {
            Some(object) => format!("{} #{}", object.kind.name(), object.number),
            None => self.trace.name_of_atomic(address),
        };
        addresses.iter().map(name).collect()
    }

    /// True when what runs on `cpu` waits for a write.
    #[inline]
    pub(crate) fn watches(&self, cpu: Cpu) -> bool {
        let processor = &self.processors[cpu as usize];
        match processor.current {
            _ if processor.in_dpc => processor.dpc_watch.waiting,
            Some(tid) => self.threads[tid as usize].watch.waiting,
            None => false,
        }
    }
}

/// An address that a context has read is written: the context has something new to see, whatever else it has read. True when it waited for that.
fn written(watch: &mut Watch, address: usize) -> bool {
    if !watch.reads.iter().any(|read| read.address == address) {
        return false;
    }
    // All of it: which of the two comes first, the write or another read of the same loop, must not decide whether that read waits.
    watch.reads.clear();
    std::mem::take(&mut watch.waiting)
}
