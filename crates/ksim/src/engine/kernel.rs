//! The state of one machine.

use super::clock::Clock;
use super::dispatch::ReadyQueues;
use super::dpc::DpcCounters;
use super::driver::Drivers;
use super::generic_dpc::GenericCall;
use super::io::IoManager;
use super::ob::ObjectManager;
use super::object::{ObjId, ObjectTable};
use super::pool::Pool;
use super::processor::{Cpu, Processor};
use super::run_once::RunOnceWaits;
use super::thread::{Thread, Tid};
use super::timer::TimerQueue;
use super::timer_object::TimerApcs;
use crate::check::lock_order::{LockOrder, Who};
use crate::config::Config;
use crate::explore::token::Choice;
use crate::image_local::ImageLocals;
use crate::report::bug_check::Violation;
use crate::report::sites::{Frames, SiteId, Sites};
use crate::report::trace::{Operation, Place, Trace};
use crate::schedule::Policy;
use rustc_hash::FxHashMap;

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
    /// The choices that were made, where they are recorded.
    pub(crate) choices: Option<Vec<Choice>>,
    pub(crate) processors: Vec<Processor>,
    /// The processor that performs the current operation.
    pub(crate) cpu: Cpu,
    pub(crate) executing: Executing,
    /// One bit for each processor that could act.
    pub(crate) runnable: u64,
    /// The processor that a scheduling decision has picked to act next.
    pub(crate) chosen: Option<Cpu>,
    /// Set by whatever may keep the current context from simply going on; looked at after every operation.
    pub(crate) attention: bool,
    #[expect(clippy::vec_box, reason = "the true wait blocks inside must not move")]
    pub(crate) threads: Vec<Box<Thread>>,
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
    acquired: FxHashMap<(u32, u32), SiteId>,
    pub(crate) debug_output: Vec<String>,
    /// What `DbgPrint` printed behind the last line's end.
    pub(crate) debug_partial: String,
    pub(crate) stop: Option<Stop>,
    /// Waits so far that a fault of the kind that was asked for could have ended.
    pub(crate) failing_waits: u64,
    pub(crate) steps: u64,
    pub(crate) switches: u64,
    pub(crate) dpcs_run: u64,
}

impl Kernel {
    /// A machine before its first thread.
    pub(crate) fn boot(config: Config, policy: Box<dyn Policy>) -> Self {
        let processors = (0..config.processors).map(|_| Processor::default()).collect();
        let clock = Clock::new(config.system_time, config.clock);
        let trace = Trace::new(config.trace);
        let pool = Pool::new(config.pool_limit, config.failing_allocation);
        let mut kernel = Self {
            config,
            policy,
            choices: None,
            processors,
            cpu: 0,
            executing: Executing::Machine,
            runnable: 0,
            chosen: None,
            attention: false,
            threads: Vec::new(),
            live_threads: 0,
            ready: ReadyQueues::default(),
            objects: ObjectTable::default(),
            timers: TimerQueue::default(),
            timer_apcs: TimerApcs::default(),
            dpcs: DpcCounters::default(),
            wanted_dpc_threads: Vec::new(),
            generic: GenericCall::default(),
            run_once: RunOnceWaits::default(),
            clock,
            pool,
            ob: ObjectManager::default(),
            drivers: Drivers::default(),
            io: IoManager::default(),
            lock_order: LockOrder::default(),
            image_locals: ImageLocals::default(),
            trace,
            sites: Sites::default(),
            acquired: FxHashMap::default(),
            debug_output: Vec::new(),
            debug_partial: String::new(),
            stop: None,
            failing_waits: 0,
            steps: 0,
            switches: 0,
            dpcs_run: 0,
        };
        kernel.boot_object_manager();
        kernel
    }

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
        allocation || self.config.failing_wait.is_some_and(|fault| self.failing_waits >= fault.n)
    }

    /// Records an operation on an object in the trace.
    #[inline]
    pub(crate) fn record(&mut self, operation: Operation, object: u32, argument: u64) {
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
            let place = Place { cpu, irql: self.processors[cpu as usize].irql, ..self.place() };
            let number = self.thread_number(tid);
            self.trace.note(place, operation, number, argument);
        }
    }

    /// Records an operation of a thread that need not be the one that acts: what it waited for is handed to it.
    #[inline]
    pub(crate) fn record_for(&mut self, tid: Tid, operation: Operation, object: u32, argument: u64) {
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

    /// Decides one thing that NT leaves open.
    #[inline]
    pub(crate) fn choose(&mut self, options: usize) -> usize {
        if options < 2 {
            return 0;
        }
        let choice = self.policy.choose(options as u32) as usize;
        assert!(choice < options, "ksim: a policy chose {choice} of {options} options");
        if let Some(choices) = &mut self.choices {
            choices.push(Choice { value: choice as u32, point: Choice::point(options as u32) });
        }
        choice
    }

    /// Recomputes whether `cpu` could act, after a change of its state.
    #[inline]
    pub(crate) fn update_runnable(&mut self, cpu: Cpu) {
        let processor = &self.processors[cpu as usize];
        let active = processor.in_dpc || processor.current.is_some();
        let can_act = if active && processor.spinning { false } else { active || processor.dpc_deliverable() };
        let bit = 1 << cpu;
        if can_act {
            self.runnable |= bit;
        } else {
            self.runnable &= !bit;
        }
    }

    /// One scheduling point: the context that is about to perform a visible operation may first have to let another
    /// one act. True when it must give control to the machine's loop.
    #[inline]
    pub(crate) fn scheduling_point(&mut self) -> bool {
        self.steps += 1;
        if self.steps > self.config.step_limit {
            self.stop = Some(Stop::StepLimit(self.config.step_limit));
            return true;
        }
        let others = self.runnable & !(1 << self.cpu);
        let rotatable = self.quantum_can_end();
        if others == 0 && !rotatable {
            return false;
        }
        self.scheduling_choice(others, rotatable)
    }

    /// The part of a scheduling point where there is a choice.
    fn scheduling_choice(&mut self, others: u64, rotatable: bool) -> bool {
        let count = others.count_ones() as usize;
        let choice = self.choose(1 + count + usize::from(rotatable));
        if choice == 0 {
            return false;
        }
        if choice <= count {
            self.chosen = Some(nth_set_bit(others, choice - 1));
        } else {
            self.end_quantum();
            self.chosen = Some(self.cpu);
        }
        true
    }

    /// Which processor acts next, for the machine's loop. `None` when none can.
    #[inline]
    pub(crate) fn pick_processor(&mut self) -> Option<Cpu> {
        if let Some(cpu) = self.chosen.take()
            && self.runnable & (1 << cpu) != 0
        {
            return Some(cpu);
        }
        let runnable = self.runnable;
        match runnable.count_ones() {
            0 => None,
            1 => Some(runnable.trailing_zeros() as Cpu),
            count => {
                let choice = self.choose(count as usize);
                Some(nth_set_bit(runnable, choice))
            }
        }
    }

    /// True when the context that just performed an operation may simply go on.
    pub(crate) fn may_continue(&self) -> bool {
        if self.stop.is_some() || !self.wanted_dpc_threads.is_empty() || self.io.work.wanted > 0 {
            return false;
        }
        let processor = &self.processors[self.cpu as usize];
        if processor.spinning {
            return false;
        }
        match self.executing {
            Executing::Thread(tid) => processor.current == Some(tid) && !processor.dpc_deliverable(),
            Executing::Dpcs => true,
            Executing::Machine => true,
        }
    }
}

/// The index of the `n`th set bit of `mask`.
fn nth_set_bit(mut mask: u64, n: usize) -> Cpu {
    for _ in 0..n {
        mask &= mask - 1;
    }
    mask.trailing_zeros() as Cpu
}
