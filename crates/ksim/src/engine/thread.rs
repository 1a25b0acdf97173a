//! Threads.

use super::apc::ApcState;
use super::context::Context;
use super::kernel::{Check, Executing, Kernel};
use super::layout;
use super::object::{Kind, ObjId};
use super::processor::Cpu;
use super::spinning::Watch;
use super::wait::Wait;
use crate::config::OsProfile;
use crate::irql::{DISPATCH_LEVEL, PASSIVE_LEVEL};
use crate::report::bug_check::{Violation, codes};
use crate::report::sites::SiteId;
use crate::report::trace::Operation;
use crate::schedule::{Event, Footprint, Progress};
use ksync_sys::{DISPATCHER_HEADER, KWAIT_BLOCK, NTSTATUS};
use std::ops::Range;

/// The index of a thread in its machine.
pub(crate) type Tid = u32;

/// The priority of system threads (NT: 8).
pub(crate) const NORMAL_PRIORITY: u8 = 8;
/// The highest priority.
pub(crate) const HIGH_PRIORITY: u8 = 31;
/// The lowest priority that is never boosted or decayed.
pub(crate) const LOW_REALTIME_PRIORITY: u8 = 16;

/// How often a thread may look at the clock and do nothing else before the clock starts to move under it.
pub(crate) const FREE_CLOCK_READS: u32 = 64;

/// The memory that a driver sees as the ETHREAD: a dispatcher header, and nothing else that it may look at.
#[repr(C)]
pub(crate) struct ThreadObject {
    pub(crate) header: DISPATCHER_HEADER,
    opaque: [u64; 13],
}

/// What a thread is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// In a ready queue.
    Ready,
    /// The current thread of a processor.
    Running,
    /// In a wait.
    Waiting,
    /// Ended; the object may still be referenced.
    Terminated,
}

/// One thread.
pub(crate) struct Thread {
    pub(crate) memory: Box<ThreadObject>,
    pub(crate) object: ObjId,
    /// The client ID's thread part: a multiple of 4.
    pub(crate) client_id: u32,
    pub(crate) process: u32,
    /// The driver that created it.
    pub(crate) driver: Option<u16>,
    pub(crate) state: State,
    pub(crate) base_priority: u8,
    pub(crate) priority: u8,
    /// The processors that it may run on, one bit each, and the one it last ran on.
    pub(crate) affinity: u64,
    pub(crate) last_cpu: Cpu,
    /// The processor that it is to run on where that is idle, if someone has said so.
    pub(crate) ideal_cpu: Option<Cpu>,
    /// How many blocks of pool it has allocated.
    pub(crate) allocated: u32,
    /// Its level while it is not on a processor.
    pub(crate) irql: u8,
    pub(crate) raises: Vec<u8>,
    pub(crate) context: Option<Box<Context>>,
    /// The addresses of its stack.
    pub(crate) stack: Range<usize>,
    /// How far it has come, for policies.
    pub(crate) progress: Progress,
    pub(crate) watch: Watch,
    /// How often another thread could have had its processor since it got it.
    pub(super) passed_over: u32,
    pub(crate) wait: Wait,
    /// The wait blocks of up to three objects, and the memory NT has for the timer's.
    pub(crate) wait_blocks: [KWAIT_BLOCK; 4],
    pub(crate) apc: ApcState,
    /// Mutexes that it owns, oldest first.
    pub(crate) mutants: Vec<ObjId>,
    /// Fast and guarded mutexes that it owns.
    pub(crate) fast_mutexes: Vec<ObjId>,
    /// Push locks that it holds, once for each time.
    pub(crate) push_locks: Vec<ObjId>,
    /// Rundown protection that it has acquired, as often as it has, where it is known to be the one that releases it.
    pub(crate) rundowns: Vec<ObjId>,
    /// Resources that it owns, each once.
    pub(crate) resources: Vec<ObjId>,
    /// Spin locks that it holds.
    pub(crate) spin_locks: Vec<ObjId>,
    /// The queue that it serves, from its removing an entry until it comes back (rule 20).
    pub(crate) queue: Option<ObjId>,
    pub(crate) exit_status: NTSTATUS,
    /// It runs threaded DPCs: it belongs to the system, and its machine does not wait for it.
    pub(crate) runs_dpcs: bool,
    /// Its kernel stack may be paged out while it waits in user mode.
    pub(crate) stack_swap: bool,
    /// Its name, if someone named it.
    pub(crate) name: Vec<u16>,
    /// It runs a system service of a user's: `Nt...` services act for the user.
    pub(crate) user_mode_before: bool,
    /// It is a system worker thread.
    pub(crate) worker: bool,
    /// Someone wants it to end: user-mode waits end early (rule 17).
    pub(crate) terminating: bool,
    /// For the clock's protection against loops that only look at the time: how often it did, and the machine's count of
    /// operations when it last did.
    pub(crate) idle_clock_reads: u32,
    pub(crate) last_operation: u64,
    /// The processors that it may run on when no system affinity is in force.
    pub(crate) user_affinity: u64,
    /// The processors of KeSetSystemAffinityThreadEx, while in force.
    pub(crate) system_affinity: Option<u64>,
    /// The object that it last waited for alone, by number, and how that ended, if it was in vain.
    pub(crate) waited_in_vain: Vec<(u32, NTSTATUS)>,
    /// Where it made its last call, if that is recorded.
    pub(crate) site: Option<SiteId>,
}

impl ThreadObject {
    /// Memory for a thread that has not been initialised.
    pub(crate) fn boxed() -> Box<Self> {
        Box::new(Self { header: layout::header(0, 0, 0, std::ptr::null_mut()), opaque: [0; 13] })
    }
}

impl Thread {
    /// What is no thread yet.
    fn unused() -> Self {
        Self {
            memory: ThreadObject::boxed(),
            object: 0,
            client_id: 0,
            process: 0,
            driver: None,
            state: State::Ready,
            base_priority: NORMAL_PRIORITY,
            priority: NORMAL_PRIORITY,
            affinity: 0,
            last_cpu: 0,
            ideal_cpu: None,
            allocated: 0,
            irql: PASSIVE_LEVEL,
            raises: Vec::new(),
            context: None,
            stack: 0..0,
            progress: Progress::default(),
            watch: Watch::default(),
            passed_over: 0,
            wait: Wait::default(),
            wait_blocks: [layout::WAIT_BLOCK; 4],
            apc: ApcState::default(),
            mutants: Vec::new(),
            fast_mutexes: Vec::new(),
            push_locks: Vec::new(),
            rundowns: Vec::new(),
            resources: Vec::new(),
            spin_locks: Vec::new(),
            queue: None,
            exit_status: 0,
            runs_dpcs: false,
            stack_swap: true,
            name: Vec::new(),
            user_mode_before: false,
            worker: false,
            terminating: false,
            idle_clock_reads: 0,
            last_operation: 0,
            user_affinity: 0,
            system_affinity: None,
            waited_in_vain: Vec::new(),
            site: None,
        }
    }

    /// A thread of a machine that is over becomes unused, and keeps its memory.
    pub(super) fn recycle(&mut self) {
        // Each field is named, so that none is forgotten.
        let Self {
            memory: _,
            object,
            client_id,
            process,
            driver,
            state,
            base_priority,
            priority,
            affinity,
            last_cpu,
            ideal_cpu,
            allocated,
            irql,
            raises,
            context,
            stack,
            progress,
            watch,
            passed_over,
            wait,
            // They are written before they are used.
            wait_blocks: _,
            apc,
            mutants,
            fast_mutexes,
            push_locks,
            rundowns,
            resources,
            spin_locks,
            queue,
            exit_status,
            runs_dpcs,
            stack_swap,
            name,
            user_mode_before,
            worker,
            terminating,
            idle_clock_reads,
            last_operation,
            user_affinity,
            system_affinity,
            waited_in_vain,
            site,
        } = self;
        (*object, *client_id, *process, *driver) = (0, 0, 0, None);
        (*state, *base_priority, *priority) = (State::Ready, NORMAL_PRIORITY, NORMAL_PRIORITY);
        (*affinity, *user_affinity, *system_affinity, *last_cpu, *irql) = (0, 0, None, 0, PASSIVE_LEVEL);
        (*ideal_cpu, *allocated) = (None, 0);
        if context.is_some() {
            *context = None;
        }
        *stack = 0..0;
        *progress = Progress::default();
        watch.recycle();
        *passed_over = 0;
        wait.recycle();
        apc.recycle();
        for held in [mutants, fast_mutexes, push_locks, rundowns, resources, spin_locks] {
            held.clear();
        }
        raises.clear();
        name.clear();
        (*queue, *exit_status, *runs_dpcs, *stack_swap) = (None, 0, false, true);
        (*user_mode_before, *worker, *terminating) = (false, false, false);
        (*idle_clock_reads, *last_operation, *site) = (0, 0, None);
        waited_in_vain.clear();
    }

    /// True when it holds a lock of any kind.
    #[inline]
    pub(crate) fn holds_locks(&self) -> bool {
        let Self { spin_locks, mutants, fast_mutexes, push_locks, rundowns, resources, .. } = self;
        spin_locks.len() | mutants.len() | fast_mutexes.len() | push_locks.len() | rundowns.len() | resources.len() != 0
    }

    /// The true KWAIT_BLOCK of the wait that it is in, for one of the objects.
    #[inline]
    pub(crate) fn wait_block(&mut self, slot: u16) -> *mut KWAIT_BLOCK {
        let blocks = self.wait.request.blocks;
        if blocks.is_null() {
            &raw mut self.wait_blocks[slot as usize]
        } else {
            // SAFETY: the caller of the wait passed an array of as many blocks as objects, and is blocked, so that
            // the array is alive.
            unsafe { blocks.add(slot as usize) }
        }
    }

    /// True when another look at the clock may make time pass.
    pub(crate) fn makes_time_pass(&self) -> bool {
        self.idle_clock_reads >= FREE_CLOCK_READS
    }

    /// The pointer that drivers know the thread by.
    pub(crate) fn address(&self) -> usize {
        (&raw const *self.memory) as usize
    }
}

impl Kernel {
    /// Creates a thread and makes it ready. `context` will run it.
    pub(crate) fn create_thread(&mut self, process: u32, context: Box<Context>) -> Tid {
        let tid = self.new_thread(process, context);
        self.thread(tid).ideal_cpu = Some(self.next_ideal_processor(tid));
        // To begin is a choice too: what it does before its first visible operation may touch what others touch.
        let address = self.threads[tid as usize].address();
        self.thread(tid).progress.pending = Some(Footprint::read(address as *const u8));
        self.make_ready(tid);
        tid
    }

    /// The ideal processor of a new thread: they go round, as in NT, over those of threads that have ended before those that others have. So where each thread has a processor of its own, it
    /// keeps that, whoever else waits. Which one it is depends on what has been created before, and where they have gone round, on what has ended.
    fn next_ideal_processor(&mut self, tid: Tid) -> Cpu {
        let reuses = self.threads.len() > self.processors.len();
        if self.observed
            && let Some(actor) = self.actor()
        {
            self.policy.observe(Event::Creates { actor, reuses });
        }
        let all = self.threads[tid as usize].affinity;
        let affinity = if reuses { self.without_ideal(all) } else { all };
        let from = self.ideal_seed;
        let behind = affinity & (u64::MAX << from);
        let ideal = (if behind != 0 { behind } else { affinity }).trailing_zeros() as Cpu;
        self.ideal_seed = (ideal + 1) % self.config.processors;
        ideal
    }

    /// Those of some processors that no thread has as its ideal one; all, if there are none.
    fn without_ideal(&self, of: u64) -> u64 {
        let live = self.threads.iter().filter(|thread| thread.state != State::Terminated);
        let taken = live.filter_map(|thread| thread.ideal_cpu).fold(0, |taken, cpu| taken | 1 << cpu);
        if of & !taken != 0 { of & !taken } else { of }
    }

    fn new_thread(&mut self, process: u32, context: Box<Context>) -> Tid {
        let tid = self.threads.len() as Tid;
        let mut thread = self.spare_threads.pop().unwrap_or_else(|| Box::new(Thread::unused()));
        let header = &raw mut thread.memory.header;
        // SAFETY: the memory is of the right size, and of no thread's.
        let object = unsafe {
            self.initialize_dispatcher(header, ksync_sys::ThreadObject, size_of::<ThreadObject>(), 0, Kind::Thread(tid))
        }
        .expect("ksim: the memory of a new thread is not in use");
        self.ob.add_object(object, crate::engine::ob::Type::Thread);
        let affinity = self.first_affinity();
        thread.object = object;
        thread.client_id = self.ob.new_client_id(object);
        thread.process = process;
        thread.driver = self.current_driver();
        thread.affinity = affinity;
        thread.user_affinity = affinity;
        thread.last_cpu = self.cpu;
        thread.stack = context.stack();
        thread.context = Some(context);
        self.threads.push(thread);
        self.live_threads += 1;
        self.record(Operation::CreateThread, self.objects[object].number, u64::from(tid));
        self.order_published(object);
        self.order_learned(object, tid);
        tid
    }

    /// Creates a thread of the system's own, of the highest priority and bound to a processor. The machine does not wait for its end.
    pub(crate) fn create_system_thread(&mut self, cpu: Cpu, context: Box<Context>) -> Tid {
        let tid = self.new_thread(Self::SYSTEM_PROCESS, context);
        self.live_threads -= 1;
        let thread = self.thread(tid);
        thread.runs_dpcs = true;
        thread.driver = None;
        thread.affinity = 1 << cpu;
        thread.last_cpu = cpu;
        thread.priority = HIGH_PRIORITY;
        thread.base_priority = HIGH_PRIORITY;
        self.make_ready(tid);
        tid
    }

    /// The processors that a new thread may run on. From Windows 11 on that is all of them; before, a thread belongs to one group, that of its creator.
    fn first_affinity(&self) -> u64 {
        if self.config.profile >= OsProfile::Windows11 {
            self.all_processors()
        } else {
            let groups = &self.config.groups;
            groups.all_of(groups.number(self.cpu).Group)
        }
    }

    /// Creates a system worker thread. The machine waits for the work, not for the worker.
    pub(crate) fn create_worker_thread(&mut self, priority: u8, context: Box<Context>) {
        let tid = self.new_thread(Self::SYSTEM_PROCESS, context);
        self.live_threads -= 1;
        let thread = self.thread(tid);
        thread.worker = true;
        thread.driver = None;
        thread.priority = priority;
        thread.base_priority = priority;
        self.make_ready(tid);
    }

    /// One bit for each processor.
    pub(crate) fn all_processors(&self) -> u64 {
        u64::MAX >> (64 - u32::from(self.config.processors))
    }

    /// Ends the running thread: checks that it leaves nothing behind, abandons its mutants, signals its object, and
    /// gives its processor to another.
    pub(crate) fn terminate_thread(&mut self, status: NTSTATUS) -> Check<()> {
        let tid = self.this_thread();
        self.check_thread_exit(tid)?;
        self.run_down_timers_of(tid)?;
        self.check_resources_at_exit(tid)?;
        self.check_stack_at_exit(tid)?;
        self.rundown_mutants(tid);
        let thread = self.thread(tid);
        thread.exit_status = status;
        thread.state = State::Terminated;
        let object = thread.object;
        self.live_threads -= 1;
        self.record(Operation::TerminateThread, self.objects[object].number, status as u32 as u64);
        self.objects[object].set_signal_state(1);
        self.order_published(object);
        self.satisfy_waiters(object, 0)?;
        self.deactivate_queue_thread(tid)?;
        self.leave_processor();
        self.dereference_object(object, 1)?;
        Ok(())
    }

    /// What NT checks when a thread exits.
    fn check_thread_exit(&mut self, tid: Tid) -> Check<()> {
        let irql = self.irql();
        let in_start_region = self.threads[tid as usize].apc.kernel_disable;
        let thread = &self.threads[tid as usize];
        let address = thread.address() as u64;
        if let Some(&lock) = thread.spin_locks.first() {
            let lock = self.objects[lock].address as u64;
            return Err(Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::THREAD_ENDED_OWNING, lock, address, 0],
                "a thread ended while it held a spin lock",
            ));
        }
        if let Some(&mutex) = thread.fast_mutexes.first() {
            let mutex = self.objects[mutex].address as u64;
            return Err(Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::THREAD_ENDED_OWNING, mutex, address, 0],
                "a thread ended while it held a fast or guarded mutex",
            ));
        }
        if let Some(&lock) = thread.push_locks.first() {
            let lock = self.objects[lock].address as u64;
            return Err(Violation::boxed(
                codes::KERNEL_LOCK_ENTRY_LEAKED_ON_THREAD_TERMINATION,
                [address, lock, 0, 0],
                "a thread ended while it held a push lock",
            ));
        }
        let held = thread.mutants.iter().copied().find(|&mutant| match &self.objects[mutant].kind {
            Kind::Mutant(state) => state.kernel,
            _ => false,
        });
        if let Some(mutex) = held {
            let mutex = self.objects[mutex].address as u64;
            return Err(Violation::boxed(
                codes::THREAD_TERMINATE_HELD_MUTEX,
                [address, mutex, 0, 0],
                "a thread ended while it held a KMUTEX",
            ));
        }
        if irql != PASSIVE_LEVEL {
            return Err(Violation::boxed(
                codes::KERNEL_APC_PENDING_DURING_EXIT,
                [0, in_start_region as u16 as u64, u64::from(irql), 0],
                "a thread ended above PASSIVE_LEVEL",
            ));
        }
        if let Some(&apc) = thread.apc.kernel.front() {
            return Err(Violation::boxed(
                codes::KERNEL_APC_PENDING_DURING_EXIT,
                [apc as u64, in_start_region as u16 as u64, u64::from(irql), 0],
                "a thread ended with a kernel APC in its queue, which its regions held back",
            ));
        }
        // System threads start inside a critical region (rule 26), and leave it by ending.
        let special = thread.apc.special_disable;
        let balanced = if thread.apc.start_region_left { 0 } else { super::apc::START_REGION };
        if in_start_region != balanced || special != 0 {
            return Err(Violation::boxed(
                codes::KERNEL_APC_PENDING_DURING_EXIT,
                [0, if special != 0 { special as u16 as u64 } else { in_start_region as u16 as u64 }, u64::from(irql), 0],
                "a thread ended inside a critical or guarded region, or left one too often",
            ));
        }
        Ok(())
    }

    /// True when the running thread is in a system service of a user's.
    pub(crate) fn previous_mode_is_user(&self) -> bool {
        self.current_thread().is_some_and(|tid| self.threads[tid as usize].user_mode_before)
    }

    /// The thread whose ETHREAD is at `pointer`.
    pub(crate) fn thread_at<T>(&mut self, pointer: *const T) -> Check<Tid> {
        let id = self.object_of_kind(pointer, "thread", |kind| matches!(kind, Kind::Thread(_)))?;
        match self.objects[id].kind {
            Kind::Thread(tid) => Ok(tid),
            _ => unreachable!("object_of_kind checked the kind"),
        }
    }

    /// Tells whether a pointer is to the idle thread of a processor, which is no object.
    pub(crate) fn is_idle_thread<T>(&self, pointer: *const T) -> bool {
        let mut idle = self.processors.iter().filter_map(|processor| processor.idle_thread.as_deref());
        idle.any(|thread| std::ptr::from_ref(thread).addr() == pointer.addr())
    }

    /// A thread's number in reports: its object's.
    pub(crate) fn thread_number(&self, tid: Tid) -> u32 {
        self.objects[self.threads[tid as usize].object].number
    }

    /// The driver in whose code the current operation happens.
    pub(crate) fn current_driver(&self) -> Option<u16> {
        match self.executing {
            Executing::Dpcs => self.processors[self.cpu as usize].running_driver,
            Executing::Thread(tid) => self.threads[tid as usize].driver,
            Executing::Machine => None,
        }
    }

    /// Sets a thread's base and current priority. Returns the old one.
    pub(crate) fn set_priority(&mut self, tid: Tid, priority: u8) -> u8 {
        let old = self.threads[tid as usize].priority;
        let queued = self.threads[tid as usize].state == State::Ready && self.ready.remove(tid, old);
        let thread = self.thread(tid);
        thread.priority = priority;
        thread.base_priority = priority;
        let (state, cpu) = (thread.state, thread.last_cpu);
        if queued {
            self.make_ready(tid);
        } else if state == State::Running {
            self.reschedule(cpu);
        }
        old
    }

    /// Restricts a thread to some processors, which moves it at once when it runs elsewhere. Returns the old set.
    pub(crate) fn set_affinity(&mut self, tid: Tid, affinity: u64) -> u64 {
        let affinity = affinity & self.all_processors();
        let old = std::mem::replace(&mut self.thread(tid).affinity, affinity);
        if self.executing == Executing::Thread(tid) && affinity & (1 << self.cpu) == 0 && self.irql() < DISPATCH_LEVEL {
            self.leave_processor();
            self.make_ready(tid);
        }
        old
    }
}
