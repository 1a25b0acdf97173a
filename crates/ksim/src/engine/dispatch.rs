//! Which thread runs on which processor: ready queues, preemption, priority boosts, quantum end.

use super::kernel::{Executing, Kernel};
use super::processor::Cpu;
use super::thread::{LOW_REALTIME_PRIORITY, State, Tid};
use crate::irql::DISPATCH_LEVEL;
use crate::report::trace::Operation;
use crate::schedule::{Actor, Event, Footprint};
use std::collections::VecDeque;

/// One queue for each of the 32 priorities.
#[derive(Debug, Default)]
pub(crate) struct ReadyQueues {
    queues: [VecDeque<Tid>; 32],
    /// One bit for each queue that is not empty.
    occupied: u32,
}

impl ReadyQueues {
    fn push_back(&mut self, tid: Tid, priority: u8) {
        self.queues[priority as usize].push_back(tid);
        self.occupied |= 1 << priority;
    }

    fn push_front(&mut self, tid: Tid, priority: u8) {
        self.queues[priority as usize].push_front(tid);
        self.occupied |= 1 << priority;
    }

    /// Takes all threads out.
    pub(crate) fn clear(&mut self) {
        let mut occupied = std::mem::take(&mut self.occupied);
        while occupied != 0 {
            self.queues[occupied.trailing_zeros() as usize].clear();
            occupied &= occupied - 1;
        }
    }

    /// True when no thread waits for a processor.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    /// The highest priority with a ready thread.
    #[inline]
    pub(crate) fn highest(&self) -> Option<u8> {
        if self.occupied == 0 { None } else { Some(31 - self.occupied.leading_zeros() as u8) }
    }

    /// Takes a thread out. False when it was not in the queue of that priority.
    pub(crate) fn remove(&mut self, tid: Tid, priority: u8) -> bool {
        let queue = &mut self.queues[priority as usize];
        let Some(position) = queue.iter().position(|&queued| queued == tid) else { return false };
        queue.remove(position);
        if queue.is_empty() {
            self.occupied &= !(1 << priority);
        }
        true
    }
}

impl Kernel {
    /// The first thread of the highest priority that may run on `cpu`, if that priority is above `floor` (or equal, when `or_equal`), with its priority and its
    /// place in the queue. At the end of a quantum, those that wait for a write of an atomic do not count.
    fn find_ready(&self, cpu: Cpu, floor: Option<u8>, or_equal: bool, quantum: bool) -> Option<(u8, usize, Tid)> {
        let may_run = |&tid: &Tid| {
            let thread = &self.threads[tid as usize];
            thread.affinity & (1 << cpu) != 0 && !(quantum && thread.watch.waiting)
        };
        let mut occupied = self.ready.occupied;
        while occupied != 0 {
            let priority = 31 - occupied.leading_zeros() as u8;
            if let Some(floor) = floor
                && (priority < floor || (priority == floor && !or_equal))
            {
                return None;
            }
            let queue = &self.ready.queues[priority as usize];
            let position = queue.iter().position(may_run);
            if let Some(position) = position {
                return Some((priority, position, queue[position]));
            }
            occupied &= !(1 << priority);
        }
        None
    }

    /// Takes that thread out of its queue.
    fn take_ready(&mut self, cpu: Cpu, floor: Option<u8>, or_equal: bool) -> Option<Tid> {
        let found = self.find_ready(cpu, floor, or_equal, false)?;
        self.take_found(found)
    }

    fn take_found(&mut self, (priority, position, tid): (u8, usize, Tid)) -> Option<Tid> {
        let queue = &mut self.ready.queues[priority as usize];
        if position == 0 {
            queue.pop_front();
        } else {
            queue.remove(position);
        }
        if queue.is_empty() {
            self.ready.occupied &= !(1 << priority);
        }
        Some(tid)
    }

    /// Raises a thread's priority for having waited (rule 5).
    #[inline]
    pub(crate) fn boost(&mut self, tid: Tid, increment: i32) {
        let thread = self.thread(tid);
        if thread.priority >= LOW_REALTIME_PRIORITY || increment <= 0 {
            return;
        }
        let boosted = (i32::from(thread.base_priority) + increment).min(15) as u8;
        thread.priority = thread.priority.max(boosted);
    }

    /// Makes a thread ready: an idle processor takes it, or it preempts a lower-priority thread, or it queues.
    #[inline(never)]
    pub(crate) fn make_ready(&mut self, tid: Tid) {
        self.make_ready_now(tid);
    }

    /// The same, where it happens most.
    #[inline(always)]
    pub(super) fn make_ready_now(&mut self, tid: Tid) {
        self.note_follower(Actor::thread(tid));
        let thread = self.thread(tid);
        thread.state = State::Ready;
        let (affinity, priority, last) = (thread.affinity, thread.priority, thread.last_cpu);
        let ideal = thread.ideal_cpu;
        if let Some(cpu) = self.idle_processor(affinity, ideal, last) {
            self.assign_now(cpu, tid);
            return;
        }
        self.make_ready_for_later(tid, affinity, priority, last);
    }

    /// The same, where no processor is idle.
    #[inline(never)]
    fn make_ready_for_later(&mut self, tid: Tid, affinity: u64, priority: u8, last: Cpu) {
        if let Some(cpu) = self.processor_to_preempt(affinity, priority, last) {
            if self.switches_later(cpu) {
                // The operation under way still acts for the current thread (it may have a level to restore, or be about to wait):
                // the switch comes when it is over, as in NT when the dispatcher lock is released.
                self.ready.push_back(tid, priority);
                self.attention = true;
                return;
            }
            self.preempt(cpu);
            self.assign(cpu, tid);
            return;
        }
        self.ready.push_back(tid, priority);
    }

    /// True when the current thread of `cpu` cannot be replaced at once: the operation under way is its own, or a DPC has
    /// interrupted it, at whose end the processor looks for one that outranks it.
    fn switches_later(&self, cpu: Cpu) -> bool {
        if self.processors[cpu as usize].in_dpc {
            return true;
        }
        match self.executing {
            Executing::Thread(tid) => cpu == self.cpu && self.processors[cpu as usize].current == Some(tid),
            _ => false,
        }
    }

    /// An idle processor of the set; the thread's ideal one is preferred, then the one that it ran on last, as its caches are.
    #[inline(always)]
    fn idle_processor(&self, affinity: u64, ideal: Option<Cpu>, last: Cpu) -> Option<Cpu> {
        let idle = |cpu: Cpu| {
            let processor = &self.processors[cpu as usize];
            processor.current.is_none() && affinity & (1 << cpu) != 0
        };
        if let Some(ideal) = ideal.filter(|&cpu| idle(cpu)) {
            return Some(ideal);
        }
        if idle(last) {
            return Some(last);
        }
        self.any_idle_processor(affinity)
    }

    #[inline(never)]
    fn any_idle_processor(&self, affinity: u64) -> Option<Cpu> {
        let idle = |&cpu: &Cpu| self.processors[cpu as usize].current.is_none() && affinity & (1 << cpu) != 0;
        (0..self.config.processors).find(idle)
    }

    /// The processor whose current thread has the lowest priority below `priority`; among equals the first from `last` on.
    fn processor_to_preempt(&self, affinity: u64, priority: u8, last: Cpu) -> Option<Cpu> {
        let mut best: Option<(u8, Cpu)> = None;
        let (below, from) = self.processors.split_at(usize::from(last));
        for (index, processor) in from.iter().chain(below).enumerate() {
            let Some(current) = processor.current else { continue };
            let running = self.threads[current as usize].priority;
            if running >= priority || best.is_some_and(|(lowest, _)| running >= lowest) || !processor.preemptible() {
                continue;
            }
            let cpu = ((usize::from(last) + index) % self.processors.len()) as Cpu;
            if affinity & (1 << cpu) != 0 {
                best = Some((running, cpu));
            }
        }
        best.map(|(_, cpu)| cpu)
    }

    /// Gives an idle processor to a thread.
    #[inline(never)]
    fn assign(&mut self, cpu: Cpu, tid: Tid) {
        self.assign_now(cpu, tid);
    }

    /// The same, where it happens most.
    #[inline(always)]
    fn assign_now(&mut self, cpu: Cpu, tid: Tid) {
        self.switches += 1;
        let thread = &mut self.threads[tid as usize];
        thread.state = State::Running;
        thread.watch.waiting = false;
        thread.passed_over = 0;
        thread.last_cpu = cpu;
        let processor = &mut self.processors[cpu as usize];
        processor.current = Some(tid);
        if processor.in_dpc {
            processor.interrupted_irql = thread.irql;
        } else {
            processor.irql = thread.irql;
        }
        processor.swap_raises(&mut thread.raises);
        if processor.in_dpc || processor.spinning || !processor.dpcs.is_empty() || self.generic.broadcast.held != 0 {
            self.update_runnable(cpu);
        } else {
            let bit = 1 << cpu;
            self.repeats.end();
            self.runnable |= bit;
            self.announced = if thread.progress.pending.is_some() { self.announced | bit } else { self.announced & !bit };
        }
        if self.observed {
            self.note_assignment(cpu, tid);
        }
        self.attention |= cpu == self.cpu;
        self.note_dispatch(Operation::DispatchThread, cpu, tid, u64::from(tid));
    }

    /// Tells the policy that a thread has got a processor.
    #[inline(never)]
    fn note_assignment(&mut self, cpu: Cpu, tid: Tid) {
        if self.actor().is_some() {
            self.policy.observe(Event::Occupies { processor: cpu });
            // Also after what that comes after.
            self.note_follower(Actor::thread(tid));
        }
        self.note_resumption(cpu);
    }

    /// Takes the current thread off a processor and remembers its level.
    #[inline(always)]
    fn unassign(&mut self, cpu: Cpu) -> Option<Tid> {
        let processor = &mut self.processors[cpu as usize];
        let tid = processor.current.take()?;
        let thread = &mut self.threads[tid as usize];
        thread.irql = processor.thread_irql();
        processor.set_thread_irql(0);
        processor.swap_raises(&mut thread.raises);
        self.attention |= cpu == self.cpu;
        let state = thread.state;
        if self.trace.is_enabled() {
            let why = match state {
                State::Running | State::Ready => 0,
                State::Waiting => 1,
                State::Terminated => 2,
            };
            self.note_dispatch(Operation::LeaveThread, cpu, tid, why);
        }
        Some(tid)
    }

    /// The current thread of `cpu` loses it, and is the first of its priority to get one again.
    fn preempt(&mut self, cpu: Cpu) {
        if let Some(tid) = self.unassign(cpu) {
            let thread = self.thread(tid);
            if thread.state != State::Running {
                // It ends, or begins to wait, and woke the thread that takes over before it left the processor.
                return;
            }
            thread.state = State::Ready;
            let priority = thread.priority;
            self.ready.push_front(tid, priority);
        }
    }

    /// The running thread gives up its processor (it waits, or has ended), and the next ready thread gets it, unless one that it
    /// woke on its way has taken it already.
    #[inline(always)]
    pub(crate) fn leave_processor(&mut self) {
        let cpu = self.cpu;
        if self.processors[cpu as usize].current != Some(self.this_thread()) {
            return;
        }
        self.unassign(cpu);
        self.fill(cpu);
    }

    /// Gives an idle processor the next ready thread, if there is one.
    #[inline]
    fn fill(&mut self, cpu: Cpu) {
        if !self.ready.is_empty()
            && let Some(next) = self.take_ready(cpu, None, true)
        {
            return self.assign(cpu, next);
        }
        let processor = &self.processors[cpu as usize];
        if processor.in_dpc || !processor.dpcs.is_empty() {
            return self.update_runnable(cpu);
        }
        self.repeats.end();
        self.runnable &= !(1 << cpu);
        self.announced &= !(1 << cpu);
    }

    /// After the acting processor's level fell below DISPATCH_LEVEL, or a priority changed: a ready thread that outranks
    /// the current one takes over. In a thread that is when the operation under way is over: see [`make_ready`](Self::make_ready).
    pub(crate) fn reschedule_if_outranked(&mut self) {
        self.reschedule(self.cpu);
    }

    /// The same for any processor.
    pub(crate) fn reschedule(&mut self, cpu: Cpu) {
        if self.switches_later(cpu) {
            self.attention = true;
        } else {
            self.switch_if_outranked(cpu);
        }
    }

    /// A ready thread that outranks the current one of `cpu` takes over now.
    pub(crate) fn switch_if_outranked(&mut self, cpu: Cpu) {
        let processor = &self.processors[cpu as usize];
        if !processor.preemptible() {
            return;
        }
        let floor = processor.current.map(|tid| self.threads[tid as usize].priority);
        if self.ready.highest().is_none() {
            return;
        }
        if let Some(next) = self.take_ready(cpu, floor, floor.is_none()) {
            self.preempt(cpu);
            self.assign(cpu, next);
        }
    }

    /// True when the quantum of the running thread could end here with an effect.
    #[inline]
    pub(crate) fn quantum_can_end(&self) -> bool {
        let Some(highest) = self.ready.highest() else { return false };
        let Executing::Thread(tid) = self.executing else { return false };
        if self.irql() >= DISPATCH_LEVEL {
            return false;
        }
        // A boost decays quantum by quantum, until a thread of the base priority has its turn.
        let thread = &self.threads[tid as usize];
        highest >= thread.priority.min(thread.base_priority)
    }

    /// Another thread could have the processor of the running one at this operation: true when the running one has had it for very long.
    pub(crate) fn quantum_has_to_end(&mut self, operation: Footprint) -> bool {
        let Executing::Thread(tid) = self.executing else { return false };
        let thread = self.thread(tid);
        thread.passed_over += 1;
        thread.passed_over >= if operation.lets_time_pass() { LONGEST_STALLING } else { LONGEST_QUANTUM }
    }

    /// The thread that would run if the quantum of the running one ended now: itself, if only its boost decays.
    pub(crate) fn after_quantum(&self) -> Option<Tid> {
        let Executing::Thread(tid) = self.executing else { return None };
        let thread = &self.threads[tid as usize];
        let floor = decayed(thread.priority, thread.base_priority);
        Some(self.find_ready(self.cpu, Some(floor), true, true).map_or(tid, |(_, _, next)| next))
    }

    /// Ends the quantum of the running thread: a boost decays by one level, and the thread goes behind the others of
    /// its priority.
    pub(crate) fn end_quantum(&mut self) {
        let Executing::Thread(tid) = self.executing else { return };
        let cpu = self.cpu;
        let thread = self.thread(tid);
        thread.priority = decayed(thread.priority, thread.base_priority);
        let priority = thread.priority;
        let next = self.find_ready(cpu, Some(priority), true, true);
        if let Some(next) = next.and_then(|found| self.take_found(found)) {
            self.unassign(cpu);
            self.thread(tid).state = State::Ready;
            self.ready.push_back(tid, priority);
            self.assign(cpu, next);
        }
    }
}

/// A quantum ends by itself after so many operations at which it could end: the thread may wait in a loop for what waits for the processor.
const LONGEST_QUANTUM: u32 = 10_000;
/// The same at an operation that lets time pass, of which a loop that polls makes one in each turn.
const LONGEST_STALLING: u32 = 1_000;

/// The priority after one quantum.
fn decayed(priority: u8, base: u8) -> u8 {
    if priority < LOW_REALTIME_PRIORITY && priority > base { priority - 1 } else { priority }
}
