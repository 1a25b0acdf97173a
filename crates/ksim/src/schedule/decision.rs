//! One thing that NT leaves open, as a policy sees it.

use super::{Effect, Footprint};
use crate::engine::Kind;
use crate::engine::clock::Clock;
use crate::engine::dpc::DpcState;
use crate::engine::object::{ObjId, Object, ObjectTable};
use crate::engine::pool::Pool;
use crate::engine::processor::{Cpu, Processors};
use crate::engine::spinning::CLOCK;
use crate::engine::thread::{State, Thread, Tid};
use crate::engine::timer::TimerQueue;
use crate::irql::DISPATCH_LEVEL;
use crate::report::sites::SiteId;
use ksync_sys::FAST_MUTEX;
use std::cell::Cell;
use std::fmt;

/// A context: a thread, or the DPC queue of a processor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Actor(pub(crate) u32);

impl Actor {
    const DPCS: u32 = 1 << 31;

    /// The clock, which lets expire what is due next.
    pub(crate) const CLOCK: Self = Self(u32::MAX);

    pub(crate) fn thread(tid: Tid) -> Self {
        Self(tid)
    }

    pub(crate) fn dpcs(cpu: Cpu) -> Self {
        Self(Self::DPCS | u32::from(cpu))
    }

    /// The thread, if it is one.
    pub(crate) fn as_thread(self) -> Option<Tid> {
        (self.0 & Self::DPCS == 0).then_some(self.0)
    }

    /// A number that is the same in all runs in which threads are created in the same order: threads are counted from 0 in the order of their creation, and the DPC
    /// queues of the processors come behind.
    pub(crate) fn index(self) -> u32 {
        self.0
    }

    /// True for the DPC queue of a processor.
    #[must_use]
    pub fn is_dpcs(self) -> bool {
        self.0 & Self::DPCS != 0 && !self.is_clock()
    }

    /// True for the clock, which may move while others could act: see [`Machine::early_expiries`](crate::Machine::early_expiries).
    #[must_use]
    pub fn is_clock(self) -> bool {
        self == Self::CLOCK
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.0 & !Self::DPCS;
        if *self == Self::CLOCK {
            return f.write_str("the clock");
        }
        if self.is_dpcs() { write!(f, "the DPCs of processor {number}") } else { write!(f, "thread {number}") }
    }
}

/// How far a context has come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// What it has announced.
    pub(crate) pending: Option<Footprint>,
    /// How many visible operations it has performed.
    pub(crate) performed: u32,
}

impl Progress {
    /// It performs what it has announced. Returns how many operations that makes.
    #[inline]
    pub(crate) fn advance(&mut self) -> u32 {
        self.pending = None;
        self.performed += 1;
        self.performed
    }
}

/// A context that may act.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Candidate {
    /// Which.
    pub actor: Actor,
    /// The processor that it acts on.
    pub processor: u8,
    /// What it would do. For a thread that has yet to begin this is [unknown](Effect::Unknown).
    pub operation: Footprint,
    /// How many visible operations it has performed.
    pub performed: u32,
}

/// The state that options are read from.
pub(crate) struct Contexts<'a> {
    pub(crate) processors: &'a Processors,
    #[expect(clippy::vec_box, reason = "as the kernel has them")]
    pub(crate) threads: &'a Vec<Box<Thread>>,
    pub(crate) objects: &'a ObjectTable,
    pub(crate) timers: &'a TimerQueue,
    pub(crate) time: &'a Clock,
    pub(crate) pool: &'a Pool,
    /// The processor of option 0, whether it is the one that acted last, and the processors of the others.
    pub(crate) first: Cpu,
    pub(crate) continues: bool,
    pub(crate) others: u64,
    /// The thread that would get the processor of the deciding context, if its quantum ended here.
    pub(crate) rotation: Option<(Cpu, Tid)>,
    /// How often the clock has moved, if that is an option: it is the last.
    pub(crate) clock: Option<u32>,
}

/// One thing that NT leaves open.
pub struct Decision<'a> {
    pub(crate) options: u32,
    /// None where it is not about who acts.
    pub(crate) contexts: Option<Contexts<'a>>,
    pub(crate) passed: u64,
    pub(crate) repeats: Cell<u64>,
}

impl fmt::Debug for Decision<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries((0..self.options).map(|option| self.candidate(option))).finish()
    }
}

/// The index of the `n`th set bit of `mask`.
#[inline]
pub(crate) fn nth_set_bit(mut mask: u64, n: u32) -> Cpu {
    for _ in 0..n {
        mask &= mask - 1;
    }
    mask.trailing_zeros() as Cpu
}

impl Decision<'_> {
    /// One between so many options, not about who acts.
    #[inline]
    pub(crate) fn of(options: u32) -> Self {
        Self { options, contexts: None, passed: 0, repeats: Cell::new(0) }
    }

    /// How many options there are, at least 2.
    #[inline]
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a decision is never empty")]
    pub fn len(&self) -> u32 {
        self.options
    }

    /// True when it is about which context acts next.
    #[must_use]
    pub fn is_about_contexts(&self) -> bool {
        self.contexts.is_some()
    }

    /// Says that the same context would be chosen so many times more, as long as the contexts that can act stay the same and none of them stalls. The policy may not be asked
    /// for these choices.
    #[inline]
    pub fn repeat(&self, choices: u64) {
        self.repeats.set(choices);
    }

    /// For how many choices about contexts the policy has not been asked since the last one, because it had said that they would [repeat](Self::repeat) that.
    #[inline]
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// Which context acts if this option is chosen. None where the decision is about something else.
    #[must_use]
    pub fn candidate(&self, option: u32) -> Option<Candidate> {
        let standing = self.standing(option)?;
        let (actor, processor, performed) = (standing.actor, standing.processor, standing.performed());
        Some(Candidate { actor, processor, operation: standing.operation(), performed })
    }

    /// The same for who does not look at all of it.
    #[inline(always)]
    pub(super) fn standing(&self, option: u32) -> Option<Standing<'_>> {
        let contexts = self.contexts.as_ref()?;
        if option >= self.options {
            return None;
        }
        if contexts.rotation.is_some() || contexts.clock.is_some() {
            return Some(self.any_standing(contexts, option));
        }
        let cpu = if option == 0 { contexts.first } else { nth_set_bit(contexts.others, option - 1) };
        Some(contexts.of_processor(cpu))
    }

    #[inline(never)]
    fn any_standing<'b>(&'b self, contexts: &'b Contexts<'_>, option: u32) -> Standing<'b> {
        if let Some(performed) = contexts.clock
            && option == self.options - 1
        {
            return Standing { actor: Actor::CLOCK, processor: contexts.first, doing: Doing::Expiring(performed) };
        }
        if let Some((cpu, tid)) = contexts.rotation
            && option == self.options - 1 - u32::from(contexts.clock.is_some())
        {
            return contexts.of_thread(cpu, tid);
        }
        let cpu = if option == 0 { contexts.first } else { nth_set_bit(contexts.others, option - 1) };
        contexts.of_processor(cpu)
    }

    /// True when choosing this option means that a running thread loses its processor to another.
    #[must_use]
    pub fn ends_quantum(&self, option: u32) -> bool {
        self.contexts.as_ref().is_some_and(|contexts| {
            contexts.rotation.is_some() && option == self.options - 1 - u32::from(contexts.clock.is_some())
        })
    }

    /// True when choosing this option takes the turn from a context that could go on.
    #[must_use]
    pub fn preempts(&self, option: u32) -> bool {
        option != 0 && self.contexts.as_ref().is_some_and(|contexts| contexts.continues) && !self.would_wait(0)
    }

    /// True when the clock would move if no context could act.
    #[must_use]
    pub fn clock_can_move(&self) -> bool {
        self.contexts.as_ref().is_some_and(|contexts| !contexts.timers.is_empty())
    }

    /// True when something would go on if no context could act: the clock, or who waits for a write.
    pub(crate) fn ends_by_itself(&self) -> bool {
        let watches = |contexts: &Contexts<'_>| {
            contexts.threads.iter().any(|thread| thread.watch.waiting)
                || contexts.processors.iter().any(|processor| processor.dpc_watch.waiting)
        };
        self.clock_can_move() || self.contexts.as_ref().is_some_and(watches)
    }

    /// True when the option's context would do nothing but wait: it wants what another has.
    #[must_use]
    pub fn would_wait(&self, option: u32) -> bool {
        let (Some(contexts), Some(candidate)) = (&self.contexts, self.candidate(option)) else { return false };
        // What it is interrupted for may end its wait. (The level is that of who has the processor; who would get it at the end of a quantum is not asked about here.)
        let level = contexts.processors[usize::from(candidate.processor)].irql;
        if candidate.actor.as_thread().is_some_and(|tid| contexts.threads[tid as usize].apc.can_deliver(level)) {
            return false;
        }
        candidate.operation.waits() && !contexts.objects.is_available(candidate.operation.object, Some(candidate.actor.0))
    }

    /// What the option's context would do, in the state that it would do it in. `early` says whether the clock may move early in this run.
    pub(crate) fn resolved(&self, option: u32, early: bool) -> Option<Footprint> {
        let (contexts, candidate) = (self.contexts.as_ref()?, self.candidate(option)?);
        let Contexts { objects, timers, threads, time, processors, pool, .. } = *contexts;
        let thread = candidate.actor.as_thread().map(|tid| &*threads[tid as usize]);
        let level = processors[usize::from(candidate.processor)].irql;
        let resolver = Resolver { objects, timers, time, processors, threads, pool, early };
        Some(resolver.resolved(candidate.operation, thread, level, candidate.processor))
    }

    /// True when the option's context, whose operation turns out to be this, would do nothing but wait.
    pub(crate) fn only_waits(&self, option: u32, operation: Footprint) -> bool {
        operation.waits() && self.would_wait(option)
    }

    /// True when the option is the DPC interrupt of a processor.
    pub(crate) fn interrupts(&self, option: u32) -> bool {
        self.candidate(option).is_some_and(|Candidate { actor, processor, operation, .. }| {
            actor.is_dpcs() && operation == Footprint::interrupt(processor)
        })
    }

    /// Where the driver code is that makes the call which the first option's context is in, in a run that records it.
    #[cold]
    pub(super) fn site(&self) -> Option<SiteId> {
        let contexts = self.contexts.as_ref()?;
        let Candidate { actor, processor, .. } = self.candidate(0)?;
        match actor.as_thread() {
            Some(tid) => contexts.threads[tid as usize].site,
            None => contexts.processors[usize::from(processor)].dpc_site.filter(|_| actor.is_dpcs()),
        }
    }

    /// A byte that tells this decision from others.
    pub(crate) fn point(&self) -> u8 {
        let effects =
            self.contexts.as_ref().map_or(0, |contexts| contexts.of_processor(contexts.first).operation().effect as u32 + 1);
        (self.options + 32 * effects) as u8
    }
}

/// Where a context that may act stands.
pub(super) struct Standing<'a> {
    pub(super) actor: Actor,
    processor: Cpu,
    doing: Doing<'a>,
}

enum Doing<'a> {
    /// It has come so far.
    Acting(&'a Progress),
    /// So have the DPCs that the processor is interrupted for.
    Interrupting(&'a Progress),
    /// It is the clock, which has moved so often.
    Expiring(u32),
}

impl Standing<'_> {
    /// How many visible operations it has performed.
    #[inline]
    pub(super) fn performed(&self) -> u32 {
        match self.doing {
            Doing::Acting(progress) | Doing::Interrupting(progress) => progress.performed,
            Doing::Expiring(performed) => performed,
        }
    }

    /// What it would do.
    #[inline]
    pub(super) fn operation(&self) -> Footprint {
        match self.doing {
            Doing::Acting(progress) => progress.pending.unwrap_or(Footprint::UNKNOWN),
            Doing::Interrupting(_) => Footprint::interrupt(self.processor),
            Doing::Expiring(_) => Footprint::UNKNOWN,
        }
    }
}

impl Contexts<'_> {
    #[inline(always)]
    fn of_processor(&self, cpu: Cpu) -> Standing<'_> {
        let processor = &self.processors[cpu as usize];
        if processor.dpc_deliverable() {
            let doing = Doing::Interrupting(&processor.dpc_progress);
            return Standing { actor: Actor::dpcs(cpu), processor: cpu, doing };
        }
        match processor.current {
            Some(tid) if !processor.in_dpc => self.of_thread(cpu, tid),
            _ => Standing { actor: Actor::dpcs(cpu), processor: cpu, doing: Doing::Acting(&processor.dpc_progress) },
        }
    }

    #[inline(always)]
    fn of_thread(&self, cpu: Cpu, tid: Tid) -> Standing<'_> {
        let progress = &self.threads[tid as usize].progress;
        Standing { actor: Actor::thread(tid), processor: cpu, doing: Doing::Acting(progress) }
    }
}

impl ObjectTable {
    /// True when a context that wants the object would get it. An object that is not known yet is free.
    pub(crate) fn is_available(&self, address: usize, thread: Option<Tid>) -> bool {
        let Some(object) = self.peek(address) else { return true };
        match &object.kind {
            Kind::SpinLock(state) => state.owner.is_none(),
            Kind::FastMutex(state) => state.owner.is_none(),
            Kind::PushLock(state) => state.exclusive.is_none_or(|owner| Some(owner) == thread),
            Kind::SpinRw(state) => state.exclusive.is_none_or(|owner| owner.thread.is_some() && owner.thread == thread),
            Kind::Resource(state) => {
                let is_own =
                    |key| self.peek(key).is_some_and(|object| matches!(object.kind, Kind::Thread(tid) if Some(tid) == thread));
                !state.is_exclusive() || state.owner_keys().all(is_own)
            }
            Kind::Mutant(state) if state.owner.is_some() && state.owner == thread => true,
            kind if kind.is_waitable() => object.signal_state() > 0,
            _ => true,
        }
    }

    /// True when somebody waits to have a lock for himself.
    fn is_contended(&self, address: usize) -> bool {
        self.peek(address).is_some_and(|object| match &object.kind {
            Kind::PushLock(state) => state.is_contended(),
            Kind::SpinRw(state) => state.is_contended(),
            Kind::Resource(state) => state.is_contended(),
            _ => false,
        })
    }

    /// True when waiting for the object takes nothing from others.
    fn is_shared_by_waiters(&self, address: usize) -> bool {
        let Some(object) = self.peek(address) else { return false };
        match &object.kind {
            Kind::Thread(_) | Kind::Process(_) => true,
            Kind::Event { notification } => *notification,
            Kind::Timer(state) => state.notification,
            _ => false,
        }
    }
}

/// What tells what an operation turns out to be in the state that it is performed in.
pub(crate) struct Resolver<'a> {
    pub(crate) objects: &'a ObjectTable,
    pub(crate) timers: &'a TimerQueue,
    pub(crate) time: &'a Clock,
    pub(crate) processors: &'a Processors,
    #[expect(clippy::vec_box, reason = "as the kernel has them")]
    pub(crate) threads: &'a Vec<Box<Thread>>,
    pub(crate) pool: &'a Pool,
    /// Whether the clock may move early.
    pub(crate) early: bool,
}

impl Resolver<'_> {
    /// What an operation turns out to be, which is a thread's if that is given, at a level of a processor.
    pub(crate) fn resolved(&self, operation: Footprint, thread: Option<&Thread>, level: u8, cpu: Cpu) -> Footprint {
        let operation = self.with_several(self.with_boosts(self.with_pool(operation)));
        let objects = self.objects;
        if operation.ends_thread() && thread.is_some_and(|thread| !thread.mutants.is_empty()) {
            // Its mutexes are released.
            return Footprint::UNKNOWN;
        }
        let moves_clock = match operation.effect {
            Effect::Access => operation.object == CLOCK,
            Effect::Read => operation.object == CLOCK && thread.is_some_and(Thread::makes_time_pass),
            _ => false,
        };
        // That nothing is armed or held back any more says nothing, as what changed that could have come later.
        let expires = moves_clock && self.timers.has_been_used();
        // It may lower the level, or end the DPCs, that held expiries back.
        let may_lower = !operation.waits() || thread.is_some_and(|thread| thread.wait.next_irql.is_some());
        let lets_expire = self.timers.has_deferred_before() && level >= DISPATCH_LEVEL && may_lower;
        if expires || lets_expire {
            return Footprint::UNKNOWN;
        }
        if operation.queues_dpc() {
            return self.queues_dpc(operation, cpu);
        }
        if operation.removes_dpc() {
            return self.removes_dpc(operation, cpu);
        }
        if thread.is_none() && operation == Footprint::interrupt(cpu) && !self.processors[cpu as usize].dpc_requested {
            return Footprint { processor: cpu, ..operation }.idling(cpu);
        }
        let effect = match operation.effect {
            // Where the clock may move early, what arms decides whether it can.
            _ if self.early && (operation.effect == Effect::Arm || operation.is_due()) => return Footprint::UNKNOWN,
            Effect::Arm => Effect::AmongWaiters,
            // Who waits leaves his processor to DPCs that wait for company.
            Effect::Acquire | Effect::Await | Effect::Share if self.processors[cpu as usize].dpcs_have_waited => Effect::Access,
            Effect::Read if moves_clock => Effect::Access,
            Effect::Acquire if objects.is_shared_by_waiters(operation.object) => Effect::Await,
            // Who waits to have the lock for himself keeps new sharers out, and the last release hands it to him.
            Effect::Share | Effect::Unshare | Effect::Leave if objects.is_contended(operation.object) => Effect::Access,
            Effect::Unshare if !objects.is_available(operation.object, None) => Effect::Release,
            effect => effect,
        };
        let operation = Footprint { effect, processor: cpu, ..operation }.at(self.time.exact());
        if self.threads.iter().any(|thread| thread.queue.is_some()) { self.with_queues(operation, thread) } else { operation }
    }

    /// The same operation, if its objects lie in pool.
    fn with_pool(&self, operation: Footprint) -> Footprint {
        if self.pool.is_unused() {
            return operation;
        }
        let blocks = operation.objects().filter_map(|(_, object)| self.pool.name_around(object));
        blocks.fold(operation, Footprint::using_pool)
    }

    /// The same operation, if it touches what somebody waits for among several objects. That somebody has done so at all depends on what has been done to each of them, and never changes back.
    fn with_several(&self, operation: Footprint) -> Footprint {
        let is_one = |(_, object)| self.objects.peek(object).is_some_and(|object| object.of_several);
        if operation.objects().any(is_one) { operation.on_one_of_several() } else { operation }
    }

    /// The same operation, if it wakes threads, or waits for what boosts those that it wakes.
    fn with_boosts(&self, operation: Footprint) -> Footprint {
        // What others may signal with an increment.
        let boosts = |object: &&Object| matches!(object.kind, Kind::Event { .. } | Kind::Semaphore | Kind::Mutant(_));
        let Some(object) = self.objects.peek(operation.object).filter(boosts) else { return operation };
        let operation = if object.waiters.is_empty() { operation } else { operation.boosting() };
        if operation.waits() { operation.boosted() } else { operation }
    }

    fn dpc(&self, operation: Footprint) -> Option<&DpcState> {
        self.objects.peek(operation.object).and_then(|object| match &object.kind {
            Kind::Dpc(state) => Some(state),
            _ => None,
        })
    }

    /// What it is to take a DPC off its queue. If it is in none any more, that is as its processor has gone on.
    fn removes_dpc(&self, operation: Footprint, cpu: Cpu) -> Footprint {
        match self.dpc(operation) {
            Some(state) if !state.threaded => Footprint { processor: cpu, ..operation }.with_dpcs_of(state.last_queued_on, None),
            _ => Footprint::UNKNOWN,
        }
    }

    /// What it is to queue a DPC. Where another processor is not asked to be interrupted, it depends on when that will have nothing to do.
    fn queues_dpc(&self, operation: Footprint, cpu: Cpu) -> Footprint {
        let Some((state, Ok(target))) = self.dpc(operation).map(|state| (state, state.target.unwrap_or(Ok(cpu)))) else {
            return Footprint::UNKNOWN;
        };
        // It may still be in another processor's queue, which depends on what is performed there.
        let leaving = state.last_queued_on.filter(|last| *last != target);
        if state.threaded {
            return Footprint::UNKNOWN;
        }
        let queues = Footprint { processor: cpu, ..operation }.with_dpcs_of(Some(target), leaving);
        if target == cpu || state.asks_for_interrupt(false) { queues } else { queues.idling(target) }
    }

    /// The KQUEUE that a thread serves, if all threads together could be too many for it.
    fn served(&self, thread: &Thread) -> Option<usize> {
        let object = &self.objects[thread.queue?];
        let is_limited = matches!(&object.kind, Kind::Queue(state) if (state.maximum as usize) < self.threads.len());
        is_limited.then_some(object.address)
    }

    /// True for a thread that waits for the object. Who waits for a fast mutex waits for the event in it.
    fn is_awaited_by(&self, object: usize, thread: &Thread) -> bool {
        let is_it = |id: ObjId| {
            let waited = self.objects[id].address;
            waited == object || waited.wrapping_sub(std::mem::offset_of!(FAST_MUTEX, Event)) == object
        };
        thread.state == State::Waiting
            && (thread.wait.parked_on.is_some_and(is_it) || thread.wait.objects.iter().copied().any(is_it))
    }

    /// An operation, with the KQUEUE whose active threads it may change the number of: one that its thread serves, as that hands its place on where it waits, and those that threads serve
    /// which it may wake, as they take their places back.
    #[inline(never)]
    fn with_queues(&self, operation: Footprint, thread: Option<&Thread>) -> Footprint {
        if operation.effect == Effect::Read || operation.effect == Effect::Unknown || !operation.synchronizes {
            return operation;
        }
        let gives_back = matches!(operation.effect, Effect::Release | Effect::Unshare | Effect::Leave);
        let own = thread.filter(|_| !gives_back).and_then(|thread| self.served(thread));
        let operation = match operation.effect {
            // It is not the same to wait and to come when the object is free.
            _ if operation.waits() && own.is_some() => Footprint { effect: Effect::Access, ..operation },
            _ if operation.waits() => return operation,
            _ => operation,
        };
        let woken = self
            .threads
            .iter()
            .filter(|thread| thread.queue.is_some() && operation.objects().any(|(_, object)| self.is_awaited_by(object, thread)));
        let mut touched = operation;
        for queue in own.into_iter().chain(woken.filter_map(|thread| self.served(thread))) {
            touched = match touched.second {
                _ if [touched.object, touched.second].contains(&queue) => touched,
                0 => touched.and(Effect::Access, queue),
                _ => return Footprint::UNKNOWN,
            };
        }
        touched
    }
}
