//! The state of one machine.

use super::addresses::AddressTable;
use super::clock::Clock;
use super::context::KERNEL_STACK_BYTES;
use super::dispatch::ReadyQueues;
use super::dpc::DpcCounters;
use super::driver::Drivers;
use super::generic_dpc::GenericCall;
use super::io::IoManager;
use super::ob::ObjectManager;
use super::object::{ObjId, ObjectTable};
use super::pool::Pool;
use super::processor::{Cpu, Processor, Processors};
use super::races::Races;
use super::run_once::RunOnceWaits;
use super::spinning::CLOCK;
use super::thread::{Thread, Tid};
use super::timer::TimerQueue;
use super::timer_object::TimerApcs;
use super::turns::{Repeats, check_choice, record_choice};
use crate::check::lock_order::{LockOrder, Who};
use crate::config::Config;
use crate::explore::token::Choice;
use crate::faults::FaultKind;
use crate::image_local::ImageLocals;
use crate::report::bug_check::Violation;
use crate::report::bug_check::codes;
use crate::report::sites::{Frames, SiteId, Sites};
use crate::report::trace::{Operation, Place, Trace};
use crate::schedule::{Actor, Decision, Effect, Estimate, Event, Footprint, Policy, Resolver};
use rustc_hash::FxHashMap;
use std::ops::Range;

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
    /// Whether it looks at what the options of a decision are.
    pub(crate) looks: bool,
    /// Nobody observes or records, and the clock moves only where nothing else can happen: what most runs are, and what turns are quickest in.
    pub(crate) plain: bool,
    pub(super) repeats: Repeats,
    /// The choices that were made, where they are recorded.
    pub(crate) choices: Option<Vec<Choice>>,
    /// Whether the class of the run is told.
    pub(crate) classifies: bool,
    /// Stands for what was done up to the order of independent operations.
    pub(crate) class: u64,
    /// The operation before that depends on everything, for the class.
    pub(super) last_unknown: u64,
    /// The last operations on what is not in the table of objects (yet), by address, for the class.
    pub(super) first_operations: AddressTable<u64>,
    pub(crate) processors: Processors,
    /// The processor that performs the current operation.
    pub(crate) cpu: Cpu,
    pub(crate) executing: Executing,
    /// One bit for each processor that could act.
    pub(crate) runnable: u64,
    /// One bit for each processor whose context has announced what it will do.
    pub(crate) announced: u64,
    /// The processor that a scheduling decision has picked to act next.
    pub(crate) chosen: Option<Cpu>,
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
    /// Where the ideal processor of the next thread is looked for.
    pub(crate) ideal_seed: Cpu,
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
    /// How often rundown references and remove locks have been acquired and not released.
    pub(crate) uses: u64,
    /// Semaphores that may be locks, by number, with those who have taken them, if rule WaitStatus is on.
    pub(crate) semaphore_locks: FxHashMap<u32, Vec<Tid>>,
    pub(crate) trace: Trace,
    /// Whether operations are recorded, in the trace or by their sites.
    pub(crate) records: bool,
    pub(crate) sites: Sites,
    /// Where each lock that is held was acquired, by who has it (a thread, or [`Trace::DPC`]) and its number; if sites are recorded.
    pub(super) acquired: FxHashMap<(u32, u32), SiteId>,
    pub(crate) debug_output: Vec<String>,
    /// What `DbgPrint` printed behind the last line's end.
    pub(crate) debug_partial: String,
    pub(crate) races: Races,
    /// A context has waited for a change of an object by reading its state.
    pub(super) polled: bool,
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
        if self.records {
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

    /// Records an operation on an atomic, which is no object: it does not count as one.
    #[inline]
    pub(crate) fn note_atomic(&mut self, address: usize, writes: bool) {
        if self.trace.is_enabled() {
            let number = self.trace.number_atomic(address);
            self.note(if writes { Operation::WriteAtomic } else { Operation::ReadAtomic }, 0, number);
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
        if self.records {
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
        let decision = Decision::of(options as u32);
        let choice = self.policy.choose(&decision);
        check_choice(choice, decision.options);
        if let Some(choices) = &mut self.choices {
            record_choice(choices, choice, &decision);
        }
        choice as usize
    }

    /// Recomputes whether `cpu` could act, and whether it has announced what it would do, after a change of its state.
    #[inline(never)]
    pub(crate) fn update_runnable(&mut self, cpu: Cpu) {
        let bit = 1 << cpu;
        self.repeats.end();
        self.runnable &= !bit;
        self.announced &= !bit;
        if self.generic.broadcast.held & bit != 0 {
            return;
        }
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
        let (number, watches) = (progress.advance(), !watch.is_empty());
        self.performs(footprint, actor, number, watches);
    }

    /// The same for a context whose operation has that number.
    #[inline(always)]
    pub(super) fn performs(&mut self, footprint: Footprint, actor: Actor, number: u32, watches: bool) {
        let operation = u64::from(actor.index()) << 32 | u64::from(number);
        self.announced &= !(1 << self.cpu);
        self.acting = self.cpu;
        if watches || !self.plain {
            self.observe_operation(footprint);
        }
        if self.classifies && footprint.is_classified() {
            self.classify(footprint, operation);
        }
    }

    /// Adds an operation to the class of the run: which operation of which context came before it on the same object.
    #[inline(always)]
    fn classify(&mut self, footprint: Footprint, operation: u64) {
        let before = match footprint.effect {
            Effect::Unknown => std::mem::replace(&mut self.last_unknown, operation),
            effect => self.follow(effect, footprint.object, operation),
        };
        self.add_pair(before, operation);
        if footprint.second != 0 {
            self.classify_second(footprint, operation);
        }
    }

    /// The same for its second object. What has a moment depends on the clock too.
    #[inline(never)]
    fn classify_second(&mut self, footprint: Footprint, operation: u64) {
        if !footprint.is_due() {
            let before = self.follow(footprint.second_effect, footprint.second, operation);
            return self.add_pair(before, operation);
        }
        let moment = footprint.at(self.clock.exact()).second;
        for (effect, object) in [(Effect::Access, moment), (Effect::Read, CLOCK)] {
            let before = self.follow(effect, object, operation);
            self.add_pair(before, operation);
        }
    }

    /// Adds a pair of operations to the class of the run.
    #[inline]
    fn add_pair(&mut self, before: u64, operation: u64) {
        let product = u128::from(before ^ 0x9e37_79b9_7f4a_7c15) * u128::from(operation ^ 0xc2b2_ae3d_27d4_eb4f);
        self.class = self.class.wrapping_add(product as u64 ^ (product >> 64) as u64);
    }

    /// The operation that came before one on its object; those behind it come after this one, unless they commute.
    #[inline(always)]
    fn follow(&mut self, effect: Effect, address: usize, operation: u64) -> u64 {
        let Some(id) = self.objects.find(address) else { return self.follow_unknown(address, operation) };
        let before = self.objects[id].last_operation;
        let before = if before == 0 { self.first_operation(address) } else { before };
        self.objects[id].last_operation = if matches!(effect, Effect::Read | Effect::Share) { before } else { operation };
        before
    }

    #[inline(never)]
    fn first_operation(&mut self, address: usize) -> u64 {
        if self.first_operations.is_empty() { 0 } else { self.first_operations.remove(address).unwrap_or(0) }
    }

    /// The same for what is not in the table of objects.
    #[inline(never)]
    fn follow_unknown(&mut self, address: usize, operation: u64) -> u64 {
        if address == 0 {
            // A null pointer, which is about to be reported.
            return 0;
        }
        // Header code has initialised it, and this is its first use; or it is no object, as a handle.
        self.first_operations.insert(address, operation).unwrap_or(0)
    }

    /// Tells those that follow the operations of one: a context's loops that wait by reading, the check for data races, and the policy.
    #[inline(never)]
    fn observe_operation(&mut self, operation: Footprint) {
        for (effect, object) in operation.objects() {
            if effect != Effect::Read && object != CLOCK {
                self.watch().changes(object, !operation.synchronizes);
            }
        }
        let Some(actor) = self.actor() else { return };
        if self.races.enabled && operation.synchronizes {
            self.races.performs(actor, operation);
        }
        if !self.observed && !self.polled {
            return;
        }
        if self.observed {
            self.note_interrupts();
        }
        let operation = self.resolved(operation, actor, self.irql(), self.cpu);
        if self.observed {
            let available = self.objects.is_available(operation.object, None);
            self.policy.observe(Event::Performs { actor, operation, available });
        }
        if self.polled {
            self.has_changed(operation);
        }
    }

    /// What an operation of a context turns out to be now.
    fn resolved(&self, operation: Footprint, actor: Actor, level: u8, cpu: Cpu) -> Footprint {
        let Self { objects, timers, clock, threads, processors, pool, .. } = self;
        let thread = actor.as_thread().map(|tid| &*threads[tid as usize]);
        let early = self.config.early_expiries > 0;
        let resolver = Resolver { objects, timers, time: clock, processors, threads, pool, early };
        resolver.resolved(operation, thread, level, cpu)
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
                let thread = &self.threads[tid];
                let operation = self.resolved(operation, actor, thread.irql, thread.last_cpu);
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
}
