//! The machine: its settings and its loop.

use crate::check::rules::RuleId;
use crate::config::Config;
use crate::engine::context::{Context, ContextHandle, Resumed};
use crate::engine::dpc::RunningDpc;
use crate::engine::kernel::Executing;
use crate::engine::pool::PoolBlock;
use crate::engine::thread::State;
use crate::engine::turns::{Going, Point, Resumption};
use crate::engine::{Cpu, Kernel, Stop, Tid};
use crate::explore::token::Choice;
use crate::explore::watchdog::run_begins;
use crate::exports::Export;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
use crate::image::Place;
use crate::image::{self, Activity, MachineImages};
use crate::report::bug_check::{Related, Violation, codes};
use crate::report::sites::Frames;
use crate::report::state::Snapshot;
use crate::report::trace::Operation;
use crate::report::{BugCheck, DriverPanic, End, Left, Outcome, PoolLeft, RelatedSite, Statistics, WaitGraph};
use crate::schedule::{Estimate, Footprint, Policy};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::Once;
use std::time::Duration;

mod call;
mod settings;
mod twice;

pub(crate) use call::{
    Call, acting_context, acting_processor, cancel_lock, current, images_of_this_thread, is_running, object_of_handle,
};
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) use call::{machine_of_this_thread, panicked_in_image};

thread_local! {
    /// The machine that runs on this OS thread.
    static CURRENT: Cell<*const MachineCell> = const { Cell::new(std::ptr::null()) };
}

/// What the panic hook saw.
#[derive(Default)]
struct PanicSeen {
    message: String,
    location: Option<String>,
}

/// How many calls the drops of one panic may make.
const UNWINDING_CALLS: u32 = 100_000;

/// What a run tells beside its outcome.
pub(crate) enum Keep {
    Nothing,
    /// Its class.
    Class,
    /// Its class, and its choices, in this list.
    Choices(Vec<Choice>),
}

/// A run of a search.
pub(crate) struct Recorded {
    pub(crate) outcome: Outcome,
    /// The choices that were made, if they were to be kept.
    pub(crate) choices: Vec<Choice>,
    /// Stands for what was done, up to the order of independent operations, if that was to be told.
    pub(crate) class: u64,
    /// What the run says about others, if its choices were to be kept.
    pub(crate) estimate: Estimate,
    /// Objects in statics were used.
    pub(crate) uses_statics: bool,
}

/// One running machine.
pub(crate) struct MachineCell {
    kernel: RefCell<Box<Kernel>>,
    /// The way back to the machine's loop for the context that runs.
    handle: Cell<ContextHandle>,
    /// What the context that is resumed has to do first.
    going: Cell<Going>,
    /// The context that the one which suspends gives way to. None if the machine's loop is to find out.
    next: Cell<Option<NonNull<Context>>>,
    /// A panic unwinds hosted code. The machine is dead: nothing else will run, waits return and locks are granted.
    dying: Cell<bool>,
    /// An operation of the engine was left where it stood.
    torn: Cell<bool>,
    /// How many calls came from there.
    unwinding_calls: Cell<u32>,
    panic: RefCell<Option<PanicSeen>>,
    /// Frames of a bug check, resolved when the machine has stopped and there is stack to do it on.
    frames: RefCell<Option<Frames>>,
    related: RefCell<Vec<Related>>,
    /// Contexts that are resumed only say where they stand.
    inspecting: Cell<bool>,
    inspected: RefCell<Option<Frames>>,
    snapshot: RefCell<Snapshot>,
    /// Drivers' images, and what the context that runs has under way in them.
    pub(crate) images: MachineImages,
}

/// Builds and runs a simulated machine.
///
/// ```
/// use ksim::Machine;
///
/// let outcome = Machine::new().processors(4).seed(1).run(|| {
///     // Driver code: this is a system thread at PASSIVE_LEVEL.
/// });
/// outcome.expect_clean();
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a machine does nothing until it is run"]
pub struct Machine {
    config: Config,
}

impl Machine {
    /// Boots the machine, runs `main` as a system thread at PASSIVE_LEVEL, lets all other threads end and all DPCs run, and
    /// says how it went. Whatever goes wrong inside comes back in the outcome; nothing of it ends the process, unless hosted code uses up its stack, or touches what is not
    /// there, where it cannot be stopped (`docs/design/02-contexts.md`).
    ///
    /// A run that does not complete is abandoned where it stands: what its threads' stacks own is leaked, not dropped, and the stacks are used again. So hosted code must not
    /// lend its stack to threads of the host (`std::thread::scope`); the machine's own threads are abandoned with it.
    ///
    /// # Panics
    /// If called from code that runs on a machine already.
    #[must_use = "a bug check, a panic, a deadlock and a leak are all reported in the outcome and nowhere else"]
    pub fn run(&self, main: impl FnOnce()) -> Outcome {
        self.run_with_policy(self.config.policy(), main)
    }

    /// [`run`](Self::run) with another search policy than the seeded random one.
    ///
    /// # Panics
    /// If called from code that runs on a machine already.
    #[must_use = "a bug check, a panic, a deadlock and a leak are all reported in the outcome and nowhere else"]
    pub fn run_with_policy(&self, policy: Box<dyn Policy>, main: impl FnOnce()) -> Outcome {
        self.run_recorded(policy, Keep::Nothing, main).outcome
    }

    /// The settings.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// [`run_with_policy`](Self::run_with_policy) that tells more than the outcome.
    pub(crate) fn run_recorded(&self, policy: Box<dyn Policy>, keep: Keep, main: impl FnOnce()) -> Recorded {
        let _running = run_begins();
        install_panic_hook();
        crate::overflow::prepare();
        let mut kernel = Kernel::boot(&self.config, policy);
        kernel.classifies = !matches!(keep, Keep::Nothing);
        if let Keep::Choices(choices) = keep {
            kernel.choices = Some(choices);
            kernel.plain = false;
        }
        let cell = MachineCell {
            kernel: RefCell::new(kernel),
            handle: Cell::new(ContextHandle::NONE),
            going: Cell::new(Going::Looks),
            next: Cell::new(None),
            dying: Cell::new(false),
            torn: Cell::new(false),
            unwinding_calls: Cell::new(0),
            panic: RefCell::new(None),
            frames: RefCell::new(None),
            related: RefCell::new(Vec::new()),
            inspecting: Cell::new(false),
            inspected: RefCell::new(None),
            snapshot: RefCell::new(Snapshot::default()),
            images: MachineImages::default(),
        };
        if self.config.force_irql_checking {
            cell.images.force_paging();
        }
        assert!(CURRENT.get().is_null(), "a machine runs on this thread already: Machine::run cannot be nested");
        CURRENT.set(&raw const cell);
        // Leaves the thread usable for the next machine, however this one ends.
        struct Leave;
        impl Drop for Leave {
            fn drop(&mut self) {
                CURRENT.set(std::ptr::null());
            }
        }
        let leave = Leave;
        // SAFETY: `run_to_end` discards all contexts before `main` and what it borrows go away.
        let context = unsafe { cell.thread_context(move |_| main()) };
        match context {
            Ok(context) => {
                let system = Kernel::SYSTEM_PROCESS;
                cell.kernel.borrow_mut().create_thread(system, context);
                cell.run_to_end();
            }
            Err(error) => panic!("ksim: no stack for the first thread: {error}"),
        }
        drop(leave);
        let mut kernel = cell.kernel.borrow_mut();
        kernel.note_end();
        let (choices, class, uses_statics) = (kernel.choices.take(), kernel.class, kernel.objects.uses_statics());
        let estimate = choices.as_ref().map(|_| kernel.estimate()).unwrap_or_default();
        let choices = choices.unwrap_or_default();
        drop(kernel);
        Recorded { outcome: cell.outcome(self.config.seed), choices, class, estimate, uses_statics }
    }
}

impl MachineCell {
    /// A context that runs `body` as a thread: a panic in it ends the machine, its return ends the thread.
    ///
    /// # Safety
    /// Everything that `body` borrows outlives the machine's run.
    pub(crate) unsafe fn thread_context(&self, body: impl FnOnce(&MachineCell)) -> std::io::Result<Box<Context>> {
        let cell: *const MachineCell = self;
        let start = move |handle| {
            // SAFETY: the cell outlives all contexts, which `run_to_end` discards.
            let cell = unsafe { &*cell };
            cell.handle.set(handle);
            cell.images.set_activity(Activity::NONE);
            let mut going = cell.going.take();
            if going == Going::Looks {
                cell.settle();
                going = cell.going.take();
            }
            if going != Going::Performs {
                cell.kernel.borrow_mut().begin_thread();
            }
            cell.guard(|| body(cell));
            if !cell.dying.get() {
                crate::exports::ke::apc::run_down(cell.call());
                cell.call().end(0);
            }
        };
        // SAFETY: by this function's contract.
        unsafe { Context::new(start) }
    }

    /// The context of a processor's DPC queue: it drains the queue, suspends, and drains it again when resumed.
    fn dpc_context(&self) -> std::io::Result<Box<Context>> {
        let cell: *const MachineCell = self;
        let start = move |handle| {
            // SAFETY: the cell outlives all contexts, which `run_to_end` discards.
            let cell = unsafe { &*cell };
            cell.handle.set(handle);
            cell.images.set_activity(Activity::NONE);
            loop {
                cell.drain_dpcs();
                cell.suspend();
            }
        };
        // SAFETY: the closure borrows nothing but the cell.
        unsafe { Context::new(start) }
    }

    /// The context of the thread that runs a processor's threaded DPCs (rule 47).
    fn threaded_dpc_context(&self, cpu: Cpu) -> std::io::Result<Box<Context>> {
        let body = move |cell: &MachineCell| {
            let call = cell.call();
            loop {
                // Until it is off the queue, it cannot be queued again.
                call.again(Footprint::THREADED_DPCS);
                match call.operate(|kernel| kernel.next_threaded_dpc(cpu)) {
                    Some(dpc) => cell.run_dpc(dpc),
                    // Woken for more, or for a kernel APC.
                    None => continue,
                }
            }
        };
        // SAFETY: the body borrows nothing.
        unsafe { self.thread_context(body) }
    }

    /// The context of a system worker thread.
    fn worker_context(&self) -> std::io::Result<Box<Context>> {
        let body = move |cell: &MachineCell| {
            let call = cell.call();
            loop {
                // Which worker has which item is up to the schedule.
                call.again(Footprint::WORK);
                // None when it was woken for work, or for a kernel APC.
                if let Some(work) = call.operate(Kernel::next_work) {
                    crate::exports::io::work_item::run(call, work);
                }
            }
        };
        // SAFETY: the body borrows nothing.
        unsafe { self.thread_context(body) }
    }

    /// Creates the worker threads that the engine has asked for.
    fn create_workers(&self) {
        while self.kernel.borrow().io.work.wanted > 0 {
            match self.worker_context() {
                Ok(context) => self.kernel.borrow_mut().create_worker(context),
                Err(error) => panic!("ksim: no stack for a worker thread: {error}"),
            }
        }
    }

    /// Creates the threads for threaded DPCs that the engine has asked for.
    fn create_dpc_threads(&self) {
        loop {
            let Some(cpu) = self.kernel.borrow_mut().wanted_dpc_threads.pop() else { return };
            match self.threaded_dpc_context(cpu) {
                Ok(context) => self.kernel.borrow_mut().create_dpc_thread(cpu, context),
                Err(error) => panic!("ksim: no stack for threaded DPCs: {error}"),
            }
        }
    }

    /// Runs one DPC routine, and checks what it leaves.
    fn run_dpc(&self, dpc: RunningDpc) {
        self.guard(|| {
            if let Some(routine) = dpc.routine {
                // SAFETY: the driver vouched for the routine and its context when it initialised the DPC.
                unsafe { image::call(routine, (dpc.dpc, dpc.context, dpc.arguments[0], dpc.arguments[1])) };
            }
        });
        self.call().operate(|kernel| kernel.finish_dpc(dpc));
    }

    /// A call into the engine that is not of an export.
    pub(crate) fn call(&self) -> Call {
        let cell: *const MachineCell = self;
        // SAFETY: the reference is used within the call only, and the machine outlives everything that runs on it.
        Call { cell: unsafe { &*cell }, export: None }
    }

    fn drain_dpcs(&self) {
        loop {
            let next = self.kernel.borrow_mut().next_dpc();
            match next {
                Ok(Some(dpc)) => self.run_dpc(dpc),
                Ok(None) => break,
                Err(fault) => return self.stop_with(*fault, None),
            }
        }
        // `operate` would look at whether this context may go on; it suspends next in any case.
        let left = self.kernel.borrow_mut().leave_dpcs();
        if let Err(fault) = left {
            self.stop_with(*fault, None);
        }
    }

    /// Runs driver code. A panic ends the machine, also one that the code catches: in a driver, which is built with
    /// `panic = "abort"`, it would not get there.
    fn guard(&self, code: impl FnOnce()) {
        let ended = catch_unwind(AssertUnwindSafe(code));
        if ended.is_ok() && !self.dying.get() {
            return;
        }
        self.record_panic();
        self.suspend();
    }

    /// The machine stops for the panic that the hook saw.
    fn record_panic(&self) {
        let mut kernel = self.kernel.borrow_mut();
        if kernel.stop.is_some() {
            return;
        }
        let seen = self.panic.borrow_mut().take().unwrap_or_default();
        let thread = kernel.current_thread().map(|tid| kernel.thread_number(tid));
        let (processor, in_dpc) = (kernel.cpu, kernel.in_dpc());
        kernel.stop = Some(Stop::Panic(Box::new(DriverPanic {
            message: seen.message,
            location: seen.location,
            thread,
            processor,
            in_dpc,
        })));
    }

    /// A call while a panic unwinds. Waits are over at once then, so that a drop that looks again and again for something to
    /// happen would never end: after very many calls nothing more is run.
    #[cold]
    fn count_unwinding_call(&self) {
        let calls = self.unwinding_calls.get() + 1;
        self.unwinding_calls.set(calls);
        if calls > UNWINDING_CALLS {
            self.record_panic();
            loop {
                self.suspend();
            }
        }
    }

    /// A drop makes a call while a panic unwinds: records where, as what was called before the panic says nothing about that, and what others hold of what it is about is free.
    #[cold]
    fn begin_unwinding_call(&self, footprint: Option<Footprint>) {
        let Ok(mut kernel) = self.kernel.try_borrow_mut() else { return };
        if kernel.config.sites {
            kernel.record_site();
        }
        if let Some(footprint) = footprint {
            kernel.leave_to_unwinding(footprint.object);
        }
    }

    /// Gives control to others until the context that runs, which has announced an operation, is chosen to perform it.
    #[inline]
    fn wait_for_turn(&self, footprint: Footprint, next: Option<Resumption>) {
        self.give_way(next);
        if self.going.take() != Going::Performs {
            self.look_for_turn(footprint);
        }
    }

    /// The same for a context that has been resumed without being let perform what it announced.
    #[inline(never)]
    fn look_for_turn(&self, footprint: Footprint) {
        loop {
            let mut kernel = self.kernel.borrow_mut();
            if !kernel.is_settled() {
                drop(kernel);
                self.settle();
                if self.going.take() == Going::Performs {
                    return;
                }
                kernel = self.kernel.borrow_mut();
            }
            if kernel.resume_point(footprint) {
                return;
            }
            let next = match kernel.scheduling_point(footprint) {
                Point::Performs => return,
                Point::GivesWay(next) => Some(next),
                Point::Waits => None,
            };
            drop(kernel);
            self.give_way(next);
            if self.going.take() == Going::Performs {
                return;
            }
        }
    }

    /// Gives control to a context, or to the machine's loop, until that resumes the context that runs.
    #[inline]
    fn give_way(&self, next: Option<Resumption>) {
        if let Some(Resumption { context, going }) = next {
            self.next.set(Some(context));
            self.going.set(going);
        }
        self.suspend();
    }

    /// Gives control to the machine's loop until it resumes the context that runs.
    fn suspend(&self) {
        let handle = self.handle.get();
        assert!(handle.is_some(), "ksim: a suspension outside a context");
        let activity = self.images.activity();
        // SAFETY: `handle` was set by the context that runs, at its start or its last resumption.
        unsafe { handle.suspend() };
        self.images.set_activity(activity);
        while self.inspecting.get() {
            // The machine has stopped, and wants to know where this context stands.
            *self.inspected.borrow_mut() = Some(Frames::capture());
            // SAFETY: as above.
            unsafe { handle.suspend() };
        }
        self.handle.set(handle);
    }

    /// The machine has stopped short: what each of its threads was doing, for the report.
    fn inspect(&self) {
        let mut kernel = self.kernel.borrow_mut();
        if matches!(kernel.stop, None | Some(Stop::Completed)) || !kernel.config.trace {
            return;
        }
        let contexts: Vec<(Tid, Box<Context>)> = kernel
            .threads
            .iter_mut()
            .enumerate()
            .filter(|(_, thread)| thread.state != State::Terminated && !thread.runs_dpcs)
            .filter_map(|(tid, thread)| Some((tid as Tid, thread.context.take_if(|context| context.has_started())?)))
            .collect();
        drop(kernel);
        let mut stacks = Vec::new();
        self.inspecting.set(true);
        for (tid, mut context) in contexts {
            context.resume();
            stacks.extend(self.inspected.borrow_mut().take().map(|frames| (tid, frames)));
            self.kernel.borrow_mut().threads[tid as usize].context = Some(context);
        }
        self.inspecting.set(false);
        let snapshot = Snapshot::of(&self.kernel.borrow(), stacks);
        *self.snapshot.borrow_mut() = snapshot;
    }

    /// Records why the machine stops. The context that runs is not resumed after its next suspension.
    fn stop_with(&self, fault: Violation, export: Option<&'static Export>) {
        let frames = Frames::capture();
        let mut kernel = self.kernel.borrow_mut();
        if kernel.stop.is_some() {
            return;
        }
        let thread = kernel.current_thread().map(|tid| kernel.thread_number(tid));
        let (code, parameters) = match fault.code {
            codes::KMODE_EXCEPTION_NOT_HANDLED => kernel.unhandled_exception(fault.parameters),
            code => (code, fault.parameters),
        };
        let bug_check = BugCheck {
            code,
            name: codes::name(code),
            parameters,
            meaning: fault.meaning.into_owned(),
            thread,
            processor: kernel.cpu,
            irql: kernel.irql(),
            in_dpc: kernel.in_dpc(),
            routine: export.map(|export| export.name),
            call_sites: Vec::new(),
            related: Vec::new(),
        };
        *self.related.borrow_mut() = fault.related;
        kernel.stop = Some(Stop::BugCheck(Box::new(bug_check)));
        *self.frames.borrow_mut() = Some(frames);
    }

    /// A fault in what the running context called: the machine stops, and the call does not return.
    #[cold]
    fn halt(&self, fault: Violation, export: Option<&'static Export>) -> ! {
        if self.dying.get() {
            // What a drop does wrong after a panic is not what ended the run.
            self.record_panic();
        } else {
            let Err(fault) = self.images.raise(fault);
            self.stop_with(fault, export);
        }
        loop {
            self.suspend();
        }
    }

    /// An image did what ends the machine, at places that its registers tell.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    pub(crate) fn stop_at(&self, fault: Violation, places: Vec<Place>) -> ! {
        self.abandon_operation();
        self.stop_with(fault, None);
        *self.frames.borrow_mut() = Some(Frames::of_image(places));
        loop {
            self.suspend();
        }
    }

    /// After a fault within an operation of the engine, which will not go on: the engine is free again, as it is.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    pub(crate) fn abandon_operation(&self) {
        if self.kernel.try_borrow_mut().is_ok() {
            return;
        }
        // SAFETY: the only reference to the engine is that of the operation that faulted, and is not used any more.
        let kernel = unsafe { self.kernel.as_ptr().read() };
        let cell = (&raw const self.kernel).cast_mut();
        // SAFETY: all fields of the cell are of interior mutability, so that they may be written through a shared reference. Nothing is
        // dropped twice: the old value is overwritten.
        unsafe { cell.write(RefCell::new(kernel)) };
        self.torn.set(true);
    }

    /// Lets happen what must happen before the context that runs goes on: other contexts that have taken its processor, DPC
    /// interrupts, and kernel APCs of its own thread.
    pub(crate) fn settle(&self) {
        if self.dying.get() {
            return;
        }
        loop {
            let mut kernel = self.kernel.borrow_mut();
            kernel.attention = false;
            kernel.settle_paging();
            if kernel.is_settled() {
                return;
            }
            if !kernel.has_processor() {
                // It waits, has ended, or was taken off: others are chosen already.
                let next = kernel.after_wait_began();
                drop(kernel);
                self.give_way(next);
                match self.going.get() {
                    Going::Looks => continue,
                    Going::Settled => return self.going.set(Going::Looks),
                    Going::Performs => return,
                }
            }
            if matches!(kernel.executing, Executing::Thread(_)) {
                let cpu = kernel.cpu;
                kernel.switch_if_outranked(cpu);
            }
            if !kernel.may_continue() {
                drop(kernel);
                self.suspend();
                match self.going.get() {
                    Going::Looks => continue,
                    Going::Settled => return self.going.set(Going::Looks),
                    Going::Performs => return,
                }
            }
            let apc = match kernel.executing {
                Executing::Thread(tid) => kernel.take_apc(tid),
                _ => None,
            };
            drop(kernel);
            match apc {
                Some(apc) => crate::exports::ke::apc::deliver(self, apc),
                None => return,
            }
        }
    }

    /// The machine's loop. Afterwards no context is left.
    fn run_to_end(&self) {
        // Also after a panic of the engine itself: dropping a suspended context would run it.
        struct Discard<'a>(&'a MachineCell);
        impl Drop for Discard<'_> {
            fn drop(&mut self) {
                self.0.discard_contexts();
            }
        }
        let _discard = Discard(self);
        while let Some(next) = self.next_context() {
            let Next::Context(mut context) = next else { continue };
            loop {
                self.images.enter(&self.kernel);
                // SAFETY: it is the address of a context whose box its thread or processor has. Both live as long as the machine, and leave it alone until the context has
                // given control back.
                let resumed = unsafe { context.as_mut() }.resume();
                self.handle.set(ContextHandle::NONE);
                match self.next.take() {
                    Some(next) => context = next,
                    None => break self.take_if_over(resumed),
                }
            }
        }
        self.inspect();
    }

    /// Takes all stacks back without running anything more on them.
    fn discard_contexts(&self) {
        let mut kernel = self.kernel.borrow_mut();
        let mut contexts = Vec::new();
        for thread in &mut kernel.threads {
            contexts.extend(thread.context.take());
        }
        for processor in kernel.processors.iter_mut() {
            contexts.extend(processor.dpc_context.take());
        }
        kernel.executing = Executing::Machine;
        drop(kernel);
        for context in contexts {
            context.discard();
        }
    }

    /// What acts next. `None` when the machine has stopped.
    fn next_context(&self) -> Option<Next> {
        let mut kernel = self.kernel.borrow_mut();
        if kernel.stop.is_some() {
            return None;
        }
        if !kernel.wanted_dpc_threads.is_empty() {
            drop(kernel);
            self.create_dpc_threads();
            kernel = self.kernel.borrow_mut();
        }
        if kernel.io.work.wanted > 0 {
            drop(kernel);
            self.create_workers();
            kernel = self.kernel.borrow_mut();
        }
        let Some(cpu) = kernel.pick_processor() else {
            drop(kernel);
            self.idle();
            return Some(Next::Idle);
        };
        kernel.cpu = cpu;
        if kernel.processors[cpu as usize].dpc_deliverable() {
            kernel.enter_dpcs(cpu);
            kernel.executing = Executing::Dpcs;
            kernel.perform(Footprint::interrupt(cpu));
        }
        let kernel = &mut **kernel;
        let processor = &mut kernel.processors[cpu as usize];
        if processor.in_dpc {
            kernel.executing = Executing::Dpcs;
            let context = processor.dpc_context.get_or_insert_with(|| match self.dpc_context() {
                Ok(context) => context,
                Err(error) => panic!("ksim: no stack for a DPC queue: {error}"),
            });
            return Some(Next::Context(NonNull::from(&mut **context)));
        }
        let tid = processor.current.expect("ksim: a runnable processor has a thread or DPCs");
        if let Some(Resumption { context, going }) = kernel.let_go_on(cpu) {
            self.going.set(going);
            return Some(Next::Context(context));
        }
        kernel.executing = Executing::Thread(tid);
        let context = kernel.threads[tid as usize].context.as_mut().expect("ksim: a live thread has a context");
        Some(Next::Context(NonNull::from(&mut **context)))
    }

    /// Takes the stack of the context that has just run, if that is over.
    #[inline]
    fn take_if_over(&self, resumed: Resumed) {
        self.images.set_activity(Activity::NONE);
        let mut kernel = self.kernel.borrow_mut();
        let context = match kernel.executing {
            Executing::Thread(tid) => {
                let thread = &mut kernel.threads[tid as usize];
                if resumed != Resumed::Finished && thread.state != State::Terminated {
                    return;
                }
                thread.context.take()
            }
            _ if resumed == Resumed::Finished => kernel.processor().dpc_context.take(),
            _ => return,
        };
        drop(kernel);
        if let Some(context) = context {
            context.discard();
        }
    }

    /// No processor can act: the run is over, or the clock jumps to the next expiry, or this is a deadlock.
    fn idle(&self) {
        let mut kernel = self.kernel.borrow_mut();
        kernel.executing = Executing::Machine;
        let in_dpc = kernel.processors.iter().any(|processor| processor.in_dpc);
        let early = std::mem::take(&mut kernel.clock_due);
        if kernel.live_threads == 0 && !in_dpc {
            let checked = kernel.check_armed_at_end().and_then(|()| kernel.check_pool_at_end());
            if checked.is_ok() {
                kernel.stop = Some(Stop::Completed);
            }
            drop(kernel);
            if let Err(fault) = checked {
                self.stop_with(*fault, None);
            }
            return;
        }
        kernel.steps += 1;
        if kernel.steps > kernel.config.step_limit {
            let limit = kernel.config.step_limit;
            kernel.stop = Some(Stop::StepLimit(limit));
            return;
        }
        let all_turning = kernel.processors.iter().all(|processor| processor.spinning || processor.is_idle());
        let stuck = all_turning && kernel.processors.iter().any(|processor| processor.spinning);
        match kernel.next_expiry() {
            Some(time) if early || !(stuck && kernel.processors.iter().all(|processor| processor.spinning)) => {
                kernel.clock.advance_to(time);
                kernel.let_all_look();
                kernel.early_left -= u32::from(early);
                kernel.note_clock();
                if kernel.races.enabled {
                    kernel.races.clock_moves();
                }
                kernel.record(Operation::AdvanceClock, 0, time);
                kernel.expiring = kernel.config.early_expiries > 0;
                let expired = kernel.expire();
                kernel.expiring = false;
                kernel.prefetch_expiries();
                drop(kernel);
                if let Err(fault) = expired {
                    self.stop_with(*fault, None);
                }
            }
            _ if kernel.look_in_vain() => {}
            _ => {
                let graph = WaitGraph::of(&kernel);
                kernel.stop = Some(Stop::Deadlock(Box::new(graph)));
            }
        }
    }

    /// The machine is over: how it ended.
    fn outcome(self, seed: u64) -> Outcome {
        let torn = self.torn.get();
        let mut kernel = self.kernel.into_inner();
        let left = left_behind(&kernel);
        let statistics = Statistics {
            virtual_time: Duration::from_micros(kernel.clock.precise_interrupt_time() / 10)
                + Duration::from_nanos(kernel.clock.precise_interrupt_time() % 10 * 100),
            switches: kernel.switches,
            scheduling_points: kernel.steps,
            dpcs: kernel.dpcs_run,
            allocations: kernel.pool.allocations(),
            threads: kernel.threads.len() as u64,
        };
        if !kernel.debug_partial.is_empty() {
            let rest = std::mem::take(&mut kernel.debug_partial);
            kernel.debug_output.push(rest);
        }
        let rules = kernel.config.rules;
        let end = match kernel.stop.take() {
            Some(Stop::Completed) | None => End::Completed,
            Some(Stop::BugCheck(mut bug_check)) => {
                if let Some(frames) = self.frames.into_inner() {
                    bug_check.call_sites = frames.resolve();
                }
                let resolve = |related: Related| RelatedSite {
                    what: related.what,
                    call_sites: related.site.map(|site| kernel.sites.resolve(site)).unwrap_or_default(),
                };
                bug_check.related = self.related.into_inner().into_iter().map(resolve).collect();
                End::BugCheck(*bug_check).under(rules)
            }
            Some(Stop::Panic(panic)) => End::Panic(*panic),
            Some(Stop::Deadlock(graph)) => End::Deadlock(*graph).under(rules),
            Some(Stop::StepLimit(limit)) => End::StepLimit(limit),
        };
        let mut trace = std::mem::take(&mut kernel.trace);
        if trace.is_enabled() {
            trace.set_kinds(kernel.objects.take_kinds());
        }
        let sites = std::mem::take(&mut kernel.sites);
        let state = self.snapshot.into_inner();
        let fault = kernel.has_fault();
        let debug_output = std::mem::take(&mut kernel.debug_output);
        let processors = kernel.config.processors;
        // What an operation has left half done is no good for the next machine.
        if !torn {
            kernel.recycle();
        }
        Outcome { end, left, statistics, debug_output, trace, sites, state, fault, seed, processors }
    }
}

/// What the loop does next.
enum Next {
    Context(NonNull<Context>),
    Idle,
}

fn left_behind(kernel: &Kernel) -> Left {
    let is_on = |rule| kernel.config.rules.has(rule);
    let block = |block: PoolBlock| PoolLeft {
        tag: block.tag_text(),
        size: block.size,
        order: block.order,
        allocated_at: block.allocated_at.map(|site| kernel.sites.resolve(site)).unwrap_or_default(),
    };
    let blocks = if is_on(RuleId::PoolLeft) { kernel.pool.outstanding() } else { Vec::new() };
    let objects = if is_on(RuleId::ObjectsLeft) { kernel.objects_left() } else { Vec::new() };
    Left {
        pool: blocks.into_iter().map(block).collect(),
        timers: if is_on(RuleId::TimersLeft) { kernel.armed_timers() } else { Vec::new() },
        handles: objects.iter().map(|object| object.handles).sum(),
        references: objects.iter().map(|object| object.references).sum(),
        objects,
        tick_requests: if is_on(RuleId::TickRequestsLeft) { kernel.clock.tick_requests() } else { 0 },
        uses: if is_on(RuleId::UsesLeft) { kernel.uses_left() } else { Vec::new() },
    }
}

/// Panics in hosted code are reported in the outcome; others are the previous hook's.
fn install_panic_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let cell = CURRENT.get();
            if cell.is_null() {
                previous(info);
                return;
            }
            // SAFETY: as in `current`.
            let cell = unsafe { &*cell };
            if !cell.handle.get().is_some() || cell.dying.get() {
                previous(info);
                return;
            }
            cell.dying.set(true);
            let payload = info.payload();
            let message = payload
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| payload.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "a panic whose payload is not a string".to_owned());
            let location = info.location().map(ToString::to_string);
            *cell.panic.borrow_mut() = Some(PanicSeen { message, location });
        }));
    });
}
