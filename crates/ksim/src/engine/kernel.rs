//! The state of one machine.

use super::clock::Clock;
use super::context::{Context, KERNEL_STACK_BYTES};
use super::dispatch::ReadyQueues;
use super::dpc::DpcCounters;
use super::driver::Drivers;
use super::generic_dpc::GenericCall;
use super::io::IoManager;
use super::ob::ObjectManager;
use super::object::{ObjId, ObjectTable};
use super::pool::Pool;
use super::processor::{Cpu, Processor};
use super::races::Races;
use super::run_once::RunOnceWaits;
use super::spinning::CLOCK;
use super::thread::{Thread, Tid};
use super::timer::TimerQueue;
use super::timer_object::TimerApcs;
use crate::check::lock_order::{LockOrder, Who};
use crate::config::Config;
use crate::explore::token::Choice;
use crate::faults::FaultKind;
use crate::image_local::ImageLocals;
use crate::report::bug_check::Violation;
use crate::report::bug_check::codes;
use crate::report::sites::{Frames, SiteId, Sites};
use crate::report::trace::{Operation, Place, Trace};
use crate::schedule::{Actor, Contexts, Decision, Effect, Estimate, Event, Footprint, Policy, Progress, Resolver, nth_set_bit};
use rustc_hash::FxHashMap;
use std::ops::Range;
use std::ptr::NonNull;

/// A rule that was broken, on its way to stop the machine.
pub(crate) type Fault = Box<Violation>;

/// The result of an operation that the caller may have had no right to.
pub(crate) type Check<R> = Result<R, Fault>;

/// Why the machine runs no further.
#[derive(Debug)]
pub(crate) enum Stop {
    /// All threads have ended.
    Completed,
    /// A bug check.
    BugCheck(Box<crate::report::BugCheck>),
    /// Hosted code panicked.
    Panic(Box<crate::report::DriverPanic>),
    /// Live threads, none of which can ever run.
    Deadlock(Box<crate::report::WaitGraph>),
    /// The limit on steps was reached.
    StepLimit(u64),
}

/// What runs on the OS thread right now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Executing {
    /// The machine's loop.
    Machine,
    /// A thread, on [`Kernel::cpu`].
    Thread(Tid),
    /// The DPC queue of [`Kernel::cpu`].
    Dpcs,
}

/// One machine.
pub(crate) struct Kernel {
    pub(crate) config: Config,
    pub(crate) policy: Box<dyn Policy>,
    /// Whether the policy observes.
    pub(crate) observed: bool,
    /// The choices that were made, where they are recorded.
    pub(crate) choices: Option<Vec<Choice>>,
    /// Whether the class of the run is told.
    pub(crate) classifies: bool,
    /// Stands for what was done up to the order of independent operations.
    pub(crate) class: u64,
    /// The operation before that depends on everything, for the class.
    pub(super) last_unknown: u64,
    /// The last operations on what is not in the table of objects (yet), by address, for the class.
    pub(super) first_operations: FxHashMap<usize, u64>,
    pub(crate) processors: Vec<Processor>,
    /// The processor that performs the current operation.
    pub(crate) cpu: Cpu,
    pub(crate) executing: Executing,
    /// One bit for each processor that could act.
    pub(crate) runnable: u64,
    /// One bit for each processor whose context has announced what it will do.
    pub(crate) announced: u64,
    /// The processor that a scheduling decision has picked to act next.
    pub(crate) chosen: Option<Cpu>,
    /// The context that is to be resumed next: it has been let perform what it announced.
    pub(crate) granted: Option<NonNull<Context>>,
    /// The processor that performed the last visible operation.
    pub(crate) acting: Cpu,
    /// How often the clock may still move while something could act.
    pub(crate) early_left: u32,
    /// A scheduling decision has let the clock move next.
    pub(crate) clock_due: bool,
    /// What expires does so as a choice of the schedule.
    pub(crate) expiring: bool,
    /// A context has announced that it lets time pass.
    pub(crate) stalls: bool,
    /// How often the clock has moved as something that a policy observes.
    pub(super) clock_moves: u32,
    /// A processor, and how many choices in a row found it the one that acted last.
    pub(super) in_a_row: (Cpu, u32),
    /// Set by whatever may keep the current context from simply going on; looked at after every operation.
    pub(crate) attention: bool,
    #[expect(clippy::vec_box, reason = "the true wait blocks inside must not move")]
    pub(crate) threads: Vec<Box<Thread>>,
    /// Threads of machines before this, whose memory is used again.
    #[expect(clippy::vec_box, reason = "as above")]
    pub(super) spare_threads: Vec<Box<Thread>>,
    pub(crate) live_threads: usize,
    pub(crate) ready: ReadyQueues,
    pub(crate) objects: ObjectTable,
    pub(crate) timers: TimerQueue,
    pub(crate) timer_apcs: TimerApcs,
    pub(crate) dpcs: DpcCounters,
    /// Processors whose thread for threaded DPCs the machine's loop is to create.
    pub(crate) wanted_dpc_threads: Vec<Cpu>,
    pub(crate) generic: GenericCall,
    pub(crate) run_once: RunOnceWaits,
    pub(crate) clock: Clock,
    pub(crate) pool: Pool,
    pub(crate) ob: ObjectManager,
    pub(crate) drivers: Drivers,
    pub(crate) io: IoManager,
    pub(crate) image_locals: ImageLocals,
    pub(crate) lock_order: LockOrder,
    pub(crate) trace: Trace,
    pub(crate) sites: Sites,
    /// Where each lock that is held was acquired, by who has it (a thread, or [`Trace::DPC`]) and its number; if sites are recorded.
    pub(super) acquired: FxHashMap<(u32, u32), SiteId>,
    pub(crate) debug_output: Vec<String>,
    /// What `DbgPrint` printed behind the last line's end.
    pub(crate) debug_partial: String,
    pub(crate) races: Races,
    /// How often all contexts that were left have looked in vain for a write.
    pub(crate) vain_rounds: u32,
    pub(crate) stop: Option<Stop>,
    /// What a fault of the kind that was asked for could have made fail so far.
    pub(crate) failing: u64,
    pub(crate) steps: u64,
    pub(crate) switches: u64,
    pub(crate) dpcs_run: u64,
}

impl Kernel {
    /// The processor that acts.
    #[inline]
    pub(crate) fn processor(&mut self) -> &mut Processor {
        &mut self.processors[self.cpu as usize]
    }

    /// The IRQL of the processor that acts.
    #[inline]
    pub(crate) fn irql(&self) -> u8 {
        self.processors[self.cpu as usize].irql
    }

    /// True when a DPC routine is what runs.
    #[inline]
    pub(crate) fn in_dpc(&self) -> bool {
        self.executing == Executing::Dpcs
    }

    /// The bug check for an exception that nothing handles, whose status, place and first parameters those are.
    ///
    /// NT has handlers at the bottom of system threads and of system calls. Their bug checks name the exception and context records in memory, for a debugger: here those are 0.
    pub(crate) fn unhandled_exception(&self, parameters: [u64; 4]) -> (u32, [u64; 4]) {
        let [status, address, ..] = parameters;
        match self.executing {
            Executing::Thread(tid) if self.threads[tid as usize].user_mode_before => {
                (codes::SYSTEM_SERVICE_EXCEPTION, [status, address, 0, 0])
            }
            Executing::Thread(_) => (codes::SYSTEM_THREAD_EXCEPTION_NOT_HANDLED, [status, address, 0, 0]),
            _ => (codes::KMODE_EXCEPTION_NOT_HANDLED, parameters),
        }
    }

    /// The thread in whose context the current code runs. In a DPC, that is the interrupted thread, and none when the
    /// processor was idle.
    #[inline]
    pub(crate) fn current_thread(&self) -> Option<Tid> {
        match self.executing {
            Executing::Thread(tid) => Some(tid),
            Executing::Dpcs => self.processors[self.cpu as usize].current,
            Executing::Machine => None,
        }
    }

    /// The addresses of the stack that runs, as far as it is the driver's: what lies below is for the kernel that it calls.
    pub(crate) fn driver_stack(&self) -> Range<usize> {
        let stack = match self.executing {
            Executing::Thread(tid) => self.threads[tid as usize].stack.clone(),
            _ => self.processors[self.cpu as usize].dpc_context.as_ref().map_or(0..0, |context| context.stack()),
        };
        stack.start + KERNEL_STACK_BYTES..stack.end
    }

    /// The thread that runs. Only for operations that cannot be called from a DPC.
    pub(crate) fn this_thread(&self) -> Tid {
        match self.executing {
            Executing::Thread(tid) => tid,
            _ => panic!("ksim: an operation of a thread was reached outside one"),
        }
    }

    /// The state of a thread.
    #[inline]
    pub(crate) fn thread(&mut self, tid: Tid) -> &mut Thread {
        &mut self.threads[tid as usize]
    }

    /// True when the fault that was asked for has happened.
    pub(crate) fn has_fault(&self) -> bool {
        let allocation = self.config.failing_allocation.is_some_and(|n| self.pool.allocations() >= n);
        allocation || self.config.failing.is_some_and(|fault| self.failing >= fault.n)
    }

    /// True when this creation is the one that is to fail.
    pub(crate) fn fails_to_create(&mut self, kind: FaultKind) -> bool {
        let Some(fault) = self.config.failing.filter(|fault| fault.kind == kind) else { return false };
        self.failing += 1;
        self.failing == fault.n
    }

    /// Records an operation on an object in the trace.
    #[inline]
    pub(crate) fn record(&mut self, operation: Operation, object: u32, argument: u64) {
        if self.trace.is_enabled() || self.config.sites {
            self.record_here(operation, object, argument);
        } else {
            self.trace.count();
        }
    }

    #[inline(never)]
    fn record_here(&mut self, operation: Operation, object: u32, argument: u64) {
        let place = self.place();
        self.enter(place, operation, object, argument);
    }

    /// Records what follows from an operation: it does not count as one.
    #[inline]
    pub(crate) fn note(&mut self, operation: Operation, object: u32, argument: u64) {
        if self.trace.is_enabled() {
            let place = self.place();
            self.trace.note(place, operation, object, argument);
        }
    }

    /// Records what the dispatcher does to a thread on a processor.
    #[inline]
    pub(crate) fn note_dispatch(&mut self, operation: Operation, cpu: Cpu, tid: Tid, argument: u64) {
        if self.trace.is_enabled() {
            self.note_dispatched(operation, cpu, tid, argument);
        }
    }

    #[inline(never)]
    fn note_dispatched(&mut self, operation: Operation, cpu: Cpu, tid: Tid, argument: u64) {
        let place = Place { cpu, irql: self.processors[cpu as usize].irql, ..self.place() };
        let number = self.thread_number(tid);
        self.trace.note(place, operation, number, argument);
    }

    /// Records an operation of a thread that need not be the one that acts: what it waited for is handed to it.
    #[inline]
    pub(crate) fn record_for(&mut self, tid: Tid, operation: Operation, object: u32, argument: u64) {
        if self.trace.is_enabled() || self.config.sites {
            self.record_of(tid, operation, object, argument);
        } else {
            self.trace.count();
        }
    }

    #[inline(never)]
    fn record_of(&mut self, tid: Tid, operation: Operation, object: u32, argument: u64) {
        let mut place = self.place();
        if self.executing != Executing::Thread(tid) {
            let thread = &self.threads[tid as usize];
            let site = if self.config.sites { thread.site } else { None };
            place = Place { thread: tid, cpu: thread.last_cpu, irql: thread.irql, site, ..place };
        }
        self.enter(place, operation, object, argument);
    }

    /// Where what acts is.
    #[inline]
    pub(crate) fn place(&self) -> Place {
        let thread = match self.executing {
            Executing::Thread(tid) => tid,
            Executing::Dpcs => Trace::DPC,
            Executing::Machine => Trace::MACHINE,
        };
        let site = if self.config.sites { self.site() } else { None };
        Place { time: self.clock.interrupt_time(), cpu: self.cpu, irql: self.irql(), thread, site }
    }

    /// Enters an event into the trace, and remembers where what it acquires was acquired.
    #[inline]
    pub(crate) fn enter(&mut self, place: Place, operation: Operation, object: u32, argument: u64) {
        self.trace.push(place, operation, object, argument);
        if let Some(site) = place.site
            && operation.acquires()
        {
            self.acquired.insert((place.thread, object), site);
        }
    }

    /// Where someone acquired a lock, if that is recorded. A resource that was handed over was acquired where its thread waits.
    pub(crate) fn acquired_at(&self, who: Who, lock: ObjId) -> Option<SiteId> {
        let thread = match who {
            Who::Thread(tid) => tid,
            Who::Dpc(_) => Trace::DPC,
        };
        self.acquired.get(&(thread, self.objects[lock].number)).copied()
    }

    /// Where what acts made the call that it is in, if that is recorded.
    pub(crate) fn site(&self) -> Option<SiteId> {
        match self.executing {
            Executing::Thread(tid) => self.threads[tid as usize].site,
            Executing::Dpcs => self.processors[self.cpu as usize].dpc_site,
            Executing::Machine => None,
        }
    }

    /// What acts makes a call: records where.
    #[cold]
    pub(crate) fn record_site(&mut self) {
        let site = Some(self.sites.enter(Frames::capture()));
        match self.executing {
            Executing::Thread(tid) => self.threads[tid as usize].site = site,
            Executing::Dpcs => self.processors[self.cpu as usize].dpc_site = site,
            Executing::Machine => {}
        }
    }

    /// Decides one thing that NT leaves open and that is not about who acts next.
    pub(crate) fn choose(&mut self, options: usize) -> usize {
        if options < 2 {
            return 0;
        }
        let decision = Decision { options: options as u32, contexts: None };
        let choice = self.policy.choose(&decision);
        check_choice(choice, decision.options);
        if let Some(choices) = &mut self.choices {
            record_choice(choices, choice, &decision);
        }
        choice as usize
    }

    /// Recomputes whether `cpu` could act, and whether it has announced what it would do, after a change of its state.
    #[inline]
    pub(crate) fn update_runnable(&mut self, cpu: Cpu) {
        let bit = 1 << cpu;
        self.runnable &= !bit;
        self.announced &= !bit;
        let processor = &self.processors[cpu as usize];
        // The interrupt itself: on another processor it may come late.
        let interrupted = processor.dpc_deliverable();
        let (progress, watch) = match processor.current {
            _ if processor.in_dpc => (&processor.dpc_progress, &processor.dpc_watch),
            Some(tid) => {
                let thread = &*self.threads[tid as usize];
                (&thread.progress, &thread.watch)
            }
            None if interrupted => (&processor.dpc_progress, &processor.dpc_watch),
            None => return,
        };
        if interrupted || !(processor.spinning || watch.waiting) {
            self.runnable |= bit;
        }
        if interrupted || progress.pending.is_some() {
            self.announced |= bit;
        }
    }

    /// What acts, as policies know it.
    #[inline]
    pub(crate) fn actor(&self) -> Option<Actor> {
        match self.executing {
            Executing::Thread(tid) => Some(Actor::thread(tid)),
            Executing::Dpcs => Some(Actor::dpcs(self.cpu)),
            Executing::Machine if self.expiring => Some(Actor::CLOCK),
            Executing::Machine => None,
        }
    }

    /// True when the clock may move although something else can act.
    #[inline]
    fn clock_may_move(&self) -> bool {
        self.early_left > 0 && !self.timers.is_empty()
    }

    /// The clock moves: where it may do so early, that is an operation as others are, which depends on all.
    pub(crate) fn note_clock(&mut self) {
        if self.config.early_expiries == 0 {
            if self.observed {
                self.policy.observe(Event::ClockMoves);
            }
            return;
        }
        self.clock_moves += 1;
        if self.observed {
            self.policy.observe(Event::Performs { actor: Actor::CLOCK, operation: Footprint::UNKNOWN, available: true });
        }
    }

    #[inline]
    fn progress(&mut self) -> &mut Progress {
        match self.executing {
            Executing::Thread(tid) => &mut self.threads[tid as usize].progress,
            _ => &mut self.processors[self.cpu as usize].dpc_progress,
        }
    }

    /// The context that runs is about to perform a visible operation: others may first have to act. True when it must give control to the
    /// machine's loop, and false when it performs it now.
    #[inline]
    pub(crate) fn scheduling_point(&mut self, footprint: Footprint) -> bool {
        self.steps += 1;
        if self.steps > self.config.step_limit {
            self.stop = Some(Stop::StepLimit(self.config.step_limit));
            return true;
        }
        let bit = 1 << self.cpu;
        let others = self.runnable & !bit;
        let rotatable = !self.ready.is_empty() && self.quantum_can_end();
        if others == 0 && !rotatable && !self.clock_may_move() {
            self.perform(footprint);
            return false;
        }
        self.progress().pending = Some(footprint);
        self.announced |= bit;
        self.stalls |= footprint.lets_time_pass();
        let silent = others & !self.announced;
        if silent != 0 {
            // Those that have not said what they would do go on until they have.
            self.chosen = Some(silent.trailing_zeros() as Cpu);
            return true;
        }
        let rotation = if rotatable { self.after_quantum() } else { None };
        match self.decide(rotation) {
            Next::Acts(cpu) if cpu == self.cpu => {
                self.perform(footprint);
                false
            }
            Next::Acts(cpu) => {
                self.hand_over(cpu);
                true
            }
            Next::Rotated | Next::ClockMoves | Next::Nobody => true,
        }
    }

    /// The acting context gives way to that of another processor. If nothing comes first there, that performs what it has announced right now, and the machine's loop need
    /// only resume it.
    #[inline]
    fn hand_over(&mut self, cpu: Cpu) {
        let machine_waits = !self.wanted_dpc_threads.is_empty() || self.io.work.wanted > 0;
        if self.processors[cpu as usize].in_dpc || machine_waits {
            self.chosen = Some(cpu);
            return;
        }
        if let Some(tid) = self.processors[cpu as usize].current
            && let Some(context) = self.grant(cpu, tid)
        {
            self.granted = Some(context);
        } else {
            self.chosen = Some(cpu);
        }
    }

    /// Lets a thread perform what it has announced, if nothing comes first (see [`is_settled`](Self::is_settled)), and returns its context, which is to be resumed.
    #[inline]
    pub(crate) fn grant(&mut self, cpu: Cpu, tid: Tid) -> Option<NonNull<Context>> {
        let (processor, thread) = (&self.processors[cpu as usize], &mut *self.threads[tid as usize]);
        let looks = processor.spinning || thread.watch.waiting;
        let interrupted = !processor.dpcs.is_empty() || !thread.apc.kernel.is_empty();
        if looks || interrupted || !self.ready.is_empty() {
            return None;
        }
        let (footprint, context) = (thread.progress.pending?, NonNull::from(&mut **thread.context.as_mut()?));
        self.cpu = cpu;
        self.executing = Executing::Thread(tid);
        self.perform(footprint);
        Some(context)
    }

    /// The thread that runs begins.
    pub(crate) fn begin_thread(&mut self) {
        if let Some(footprint) = self.progress().pending {
            self.perform(footprint);
        }
    }

    /// The context that runs has been chosen after it had suspended at a scheduling point. True when it performs its operation now, and
    /// false when it has done something else meanwhile (an APC was delivered) and must announce it again.
    pub(crate) fn resume_point(&mut self, footprint: Footprint) -> bool {
        if self.progress().pending.is_none() {
            return false;
        }
        self.perform(footprint);
        true
    }

    /// The context that runs performs an operation.
    #[inline(always)]
    pub(crate) fn perform(&mut self, footprint: Footprint) {
        let (progress, watch, actor) = match self.executing {
            Executing::Thread(tid) => {
                let thread = &mut *self.threads[tid as usize];
                (&mut thread.progress, &mut thread.watch, Actor::thread(tid))
            }
            _ => {
                let processor = &mut self.processors[self.cpu as usize];
                (&mut processor.dpc_progress, &mut processor.dpc_watch, Actor::dpcs(self.cpu))
            }
        };
        progress.pending = None;
        progress.performed += 1;
        let operation = u64::from(actor.index()) << 32 | u64::from(progress.performed);
        let watches = !watch.is_empty();
        self.announced &= !(1 << self.cpu);
        self.acting = self.cpu;
        if watches || self.observed || self.races.enabled {
            self.observe_operation(footprint);
        }
        if self.classifies {
            self.classify(footprint, operation);
        }
    }

    /// Adds an operation to the class of the run: which operation of which context came before it on the same object. A release adds nothing, as it
    /// comes behind its acquisition in any case.
    #[inline]
    fn classify(&mut self, footprint: Footprint, operation: u64) {
        let before = match footprint.effect {
            Effect::Release | Effect::Await | Effect::Unshare => return,
            Effect::Unknown => std::mem::replace(&mut self.last_unknown, operation),
            effect => match self.objects.last_operation(footprint.object) {
                Some(last) => {
                    let before = *last;
                    if !matches!(effect, Effect::Read | Effect::Share) {
                        *last = operation;
                    }
                    before
                }
                None => return self.classify_rare(footprint, operation),
            },
        };
        self.add_pair(before, operation);
        if footprint.second != 0 {
            self.classify_second(footprint, operation);
        }
    }

    /// The same for its second object. What has a moment depends on the clock too.
    #[inline(never)]
    fn classify_second(&mut self, footprint: Footprint, operation: u64) {
        let effect = if footprint.is_due() { Effect::Access } else { footprint.second_effect };
        let object = footprint.at(self.clock.exact()).second;
        self.classify_first(effect, object, operation);
        if footprint.is_due() {
            self.classify_first(Effect::Read, CLOCK, operation);
        }
    }

    /// Adds a pair of operations to the class of the run.
    #[inline]
    fn add_pair(&mut self, before: u64, operation: u64) {
        let product = u128::from(before ^ 0x9e37_79b9_7f4a_7c15) * u128::from(operation ^ 0xc2b2_ae3d_27d4_eb4f);
        self.class = self.class.wrapping_add(product as u64 ^ (product >> 64) as u64);
    }

    /// The same for an operation whose object is not at hand.
    #[inline(never)]
    fn classify_rare(&mut self, footprint: Footprint, operation: u64) {
        self.classify_first(footprint.effect, footprint.object, operation);
        if footprint.second != 0 {
            self.classify_second(footprint, operation);
        }
    }

    /// The same for the first operation on an object since it is in the table, or since it was found last.
    fn classify_first(&mut self, effect: Effect, address: usize, operation: u64) {
        let before = match self.objects.find(address) {
            Some(id) => {
                let mut before = self.objects[id].last_operation;
                if before == 0 && !self.first_operations.is_empty() {
                    before = self.first_operations.remove(&address).unwrap_or(0);
                }
                self.objects[id].last_operation = if matches!(effect, Effect::Read | Effect::Share) { before } else { operation };
                before
            }
            // Header code has initialised it, and this is its first use.
            None => self.first_operations.insert(address, operation).unwrap_or(0),
        };
        self.add_pair(before, operation);
    }

    /// Tells those that follow the operations of one: a context's loops that wait by reading, the check for data races, and the policy.
    #[inline(never)]
    fn observe_operation(&mut self, operation: Footprint) {
        for (effect, object) in operation.objects() {
            if effect != Effect::Read && object != CLOCK {
                self.watch().changes(object);
            }
        }
        let Some(actor) = self.actor() else { return };
        if self.races.enabled && operation.synchronizes {
            self.races.performs(actor, operation);
        }
        if !self.observed {
            return;
        }
        let operation = self.resolved(operation, actor, self.irql());
        let available = self.objects.is_available(operation.object, None);
        self.policy.observe(Event::Performs { actor, operation, available });
    }

    /// What an operation of a context turns out to be now.
    fn resolved(&self, operation: Footprint, actor: Actor, level: u8) -> Footprint {
        let Self { objects, timers, clock, threads, .. } = self;
        let thread = actor.as_thread().map(|tid| &*threads[tid as usize]);
        let early = self.config.early_expiries > 0;
        Resolver { objects, timers, time: clock, all_threads: threads.len(), early }.resolved(operation, thread, level)
    }

    /// What `actor` does from now on comes after what acts has done so far.
    #[inline(always)]
    pub(crate) fn note_follower(&mut self, actor: Actor) {
        if self.observed || self.races.enabled {
            self.observe_follower(actor);
        }
    }

    #[inline(never)]
    fn observe_follower(&mut self, actor: Actor) {
        let Some(after) = self.actor().filter(|after| *after != actor) else { return };
        if self.observed {
            self.policy.observe(Event::Follows { actor, after });
        }
        if self.races.enabled {
            self.races.follows(actor, after);
        }
    }

    /// The run is over: tells the policy what was announced and not performed.
    pub(crate) fn note_end(&mut self) {
        if !self.observed {
            return;
        }
        for tid in 0..self.threads.len() {
            if let Some(operation) = self.threads[tid].progress.pending {
                let actor = Actor::thread(tid as Tid);
                let operation = self.resolved(operation, actor, self.threads[tid].irql);
                let available = self.objects.is_available(operation.object, None);
                self.policy.observe(Event::Unperformed { actor, operation, available });
            }
        }
    }

    /// What the run says about others of the same program.
    pub(crate) fn estimate(&self) -> Estimate {
        Estimate {
            choices: self.steps,
            threads: self.threads.iter().map(|thread| thread.progress.performed).collect(),
            dpcs: self.processors.iter().map(|processor| processor.dpc_progress.performed).collect(),
        }
    }

    /// True when the context that acted last is not the first to act again: it stalls, or has gone on for so long that it may wait in a loop for another.
    #[inline]
    fn gives_way(&mut self) -> bool {
        if self.in_a_row.0 == self.acting {
            self.in_a_row.1 += 1;
        } else {
            self.in_a_row = (self.acting, 1);
        }
        if self.in_a_row.1 > LONGEST_ROW {
            self.in_a_row.1 = 0;
            return true;
        }
        self.stalls && self.acting_stalls()
    }

    /// True when the context that acted last would do no more than let time pass.
    #[cold]
    fn acting_stalls(&self) -> bool {
        let processor = &self.processors[self.acting as usize];
        let pending = match processor.current {
            Some(tid) if !processor.in_dpc => self.threads[tid as usize].progress.pending,
            _ => processor.dpc_progress.pending,
        };
        pending.is_some_and(Footprint::lets_time_pass)
    }

    /// The next of these processors, cyclically.
    fn next_after_acting(&self, runnable: u64) -> Cpu {
        let behind = runnable & (u64::MAX << self.acting << 1);
        (if behind != 0 { behind } else { runnable }).trailing_zeros() as Cpu
    }

    /// Decides which processor acts next, of those that can. `rotation` is the thread that would get the acting processor if the quantum there
    /// ended here.
    #[inline(always)]
    fn decide(&mut self, rotation: Option<Tid>) -> Next {
        let runnable = self.runnable;
        let clock = self.clock_may_move();
        if runnable == 0 {
            return Next::Nobody;
        }
        let continues = runnable & (1 << self.acting) != 0 && !self.gives_way();
        let first = if continues { self.acting } else { self.next_after_acting(runnable) };
        let others = runnable & !(1 << first);
        if others == 0 && rotation.is_none() && !clock {
            return Next::Acts(first);
        }
        let rotation = rotation.map(|tid| (self.cpu, tid));
        let clock = clock.then_some(self.clock_moves);
        // Most often there is one other.
        let others_count = if others & others.wrapping_sub(1) == 0 { u32::from(others != 0) } else { several(others) };
        let count = 1 + others_count + u32::from(rotation.is_some()) + u32::from(clock.is_some());
        let Self { processors, threads, objects, timers, clock: time, policy, choices, .. } = self;
        let contexts = Contexts { processors, threads, objects, timers, time, first, continues, others, rotation, clock };
        let decision = Decision { options: count, contexts: Some(contexts) };
        let choice = policy.choose(&decision);
        check_choice(choice, count);
        if let Some(choices) = choices {
            record_choice(choices, choice, &decision);
        }
        if choice == 0 {
            return Next::Acts(first);
        }
        if choice <= others_count {
            return Next::Acts(nth_set_bit(others, choice - 1));
        }
        if clock.is_some() && choice == count - 1 {
            self.clock_due = true;
            return Next::ClockMoves;
        }
        self.end_quantum();
        self.chosen = rotation.map(|(cpu, _)| cpu);
        Next::Rotated
    }

    /// Which processor acts next, for the machine's loop. `None` when none can.
    #[inline]
    pub(crate) fn pick_processor(&mut self) -> Option<Cpu> {
        if self.clock_due {
            return None;
        }
        if let Some(cpu) = self.chosen.take()
            && self.runnable & (1 << cpu) != 0
        {
            return Some(cpu);
        }
        let silent = self.runnable & !self.announced;
        if silent != 0 {
            return Some(silent.trailing_zeros() as Cpu);
        }
        match self.decide(None) {
            Next::Acts(cpu) => Some(cpu),
            Next::Rotated | Next::ClockMoves | Next::Nobody => None,
        }
    }

    /// True when nothing has come up that the thread which runs has to let happen before it goes on. In doubt it is false.
    #[inline]
    pub(crate) fn is_settled(&self) -> bool {
        let Executing::Thread(tid) = self.executing else { return false };
        let (processor, thread) = (&self.processors[self.cpu as usize], &self.threads[tid as usize]);
        let takes_turns = processor.current == Some(tid) && !processor.spinning && !thread.watch.waiting && self.ready.is_empty();
        let interrupted = !processor.dpcs.is_empty() || !thread.apc.kernel.is_empty();
        let machine_waits = self.stop.is_some() || !self.wanted_dpc_threads.is_empty() || self.io.work.wanted > 0;
        takes_turns && !interrupted && !machine_waits
    }

    /// False when the thread that runs has lost its processor in the operation that it just performed.
    #[inline]
    pub(crate) fn has_processor(&self) -> bool {
        match self.executing {
            Executing::Thread(tid) => self.processors[self.cpu as usize].current == Some(tid),
            Executing::Dpcs | Executing::Machine => true,
        }
    }

    /// True when the context that just performed an operation may simply go on.
    pub(crate) fn may_continue(&self) -> bool {
        if self.stop.is_some() || !self.wanted_dpc_threads.is_empty() || self.io.work.wanted > 0 {
            return false;
        }
        let processor = &self.processors[self.cpu as usize];
        if processor.spinning || self.watches(self.cpu) {
            return false;
        }
        match self.executing {
            Executing::Thread(tid) => processor.current == Some(tid) && !processor.dpc_deliverable(),
            Executing::Dpcs => true,
            Executing::Machine => true,
        }
    }
}

/// After so many choices in a row, going on is no longer the uneventful option.
const LONGEST_ROW: u32 = 10_000;

/// What was decided.
enum Next {
    /// This processor's context acts next.
    Acts(Cpu),
    /// A quantum ended, and another thread has the processor.
    Rotated,
    /// The clock moves, although something could act.
    ClockMoves,
    /// No processor can act.
    Nobody,
}

/// How many bits are set. Out of the way of the usual case, as it takes a host without an instruction for it some time.
#[inline(never)]
fn several(mask: u64) -> u32 {
    mask.count_ones()
}

/// Checks a choice.
#[inline]
fn check_choice(choice: u32, options: u32) {
    if choice >= options {
        invalid_choice(choice, options);
    }
}

#[cold]
fn invalid_choice(choice: u32, options: u32) -> ! {
    panic!("ksim: a policy chose {choice} of {options} options");
}

/// Records a choice.
#[cold]
fn record_choice(choices: &mut Vec<Choice>, choice: u32, decision: &Decision<'_>) {
    let actor = decision.candidate(choice).map(|candidate| candidate.actor.index());
    choices.push(match choice {
        0 => Choice { actor, ..Choice::UNEVENTFUL },
        _ => Choice { value: choice, point: decision.point(), preempts: decision.preempts(choice), actor },
    });
}
