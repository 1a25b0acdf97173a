//! DPCs and their queues (rules 41 to 46, 48, 49).

use super::context::Context;
use super::kernel::{Check, Executing, Kernel};
use super::layout;
use super::object::{Kind, ObjId, SYSTEM};
use super::processor::Cpu;
use super::thread::Tid;
use crate::irql::{DISPATCH_LEVEL, PASSIVE_LEVEL};
use crate::report::bug_check::{Violation, codes};
use crate::report::trace::Operation;
use crate::schedule::{Actor, Event};
use ksync_sys::{HighImportance, KDPC, LowImportance, MediumHighImportance, MediumImportance, PKDEFERRED_ROUTINE};
use std::ffi::c_void;

/// A Low or Medium DPC waits for company until so many are queued. (The figure is ReactOS's; Windows does not document its own.)
const MAXIMUM_DEPTH: usize = 4;

/// A DPC's state beside its structure.
#[derive(Debug)]
pub(crate) struct DpcState {
    pub(crate) importance: i32,
    /// The processor that it is for, or the number in group 0 that no processor has. `None` is whichever queues it.
    pub(crate) target: Option<Result<Cpu, u8>>,
    pub(crate) threaded: bool,
    pub(crate) queued_on: Option<Cpu>,
    /// The processor that it was queued to last.
    pub(crate) last_queued_on: Option<Cpu>,
    /// Its place among all insertions, for KeFlushQueuedDpcs.
    pub(crate) order: u64,
    pub(crate) driver: Option<u16>,
    /// A timer's expiry queued it.
    pub(crate) by_timer: bool,
}

/// What there is of DPCs beside the queues of the processors.
#[derive(Debug, Default)]
pub(crate) struct DpcCounters {
    pub(crate) inserted: u64,
    /// Threads in KeFlushQueuedDpcs, with the last insertion that they wait for.
    pub(crate) flushing: Vec<(Tid, u64)>,
}

impl DpcState {
    /// Whether it asks for an interrupt when it is queued, to the processor that queues it or to another (rule 44).
    pub(crate) fn asks_for_interrupt(&self, here: bool) -> bool {
        if here {
            self.importance != LowImportance
        } else {
            self.importance == HighImportance || self.importance == MediumHighImportance
        }
    }
}

/// A DPC that is about to run.
#[derive(Clone, Copy)]
pub(crate) struct RunningDpc {
    pub(crate) routine: PKDEFERRED_ROUTINE,
    pub(crate) dpc: *mut KDPC,
    /// Its number in the trace.
    pub(crate) number: u32,
    pub(crate) context: *mut c_void,
    pub(crate) arguments: [*mut c_void; 2],
    /// The disable counters of the interrupted thread before the routine, and that thread.
    pub(crate) counters: Option<(Tid, i16, i16)>,
    pub(crate) by_timer: bool,
}

impl Kernel {
    /// Registers a DPC.
    ///
    /// # Safety
    /// `dpc` points to writable memory of a KDPC.
    pub(crate) unsafe fn initialize_dpc(
        &mut self,
        dpc: *mut KDPC,
        routine: PKDEFERRED_ROUTINE,
        context: *mut c_void,
        threaded: bool,
    ) -> Check<()> {
        let driver = self.current_driver();
        if let Some(id) = self.objects.find(dpc as usize)
            && let Kind::Dpc(state) = &self.objects[id].kind
            && state.queued_on.is_some()
        {
            return Err(Violation::boxed(
                codes::TIMER_OR_DPC_INVALID,
                [1, dpc as u64, 0, 0],
                "a DPC was initialised again while it was queued",
            ));
        }
        if (dpc as usize) < 0x1_0000 {
            return Err(Violation::boxed(
                codes::IRQL_NOT_LESS_OR_EQUAL,
                [dpc as u64, u64::from(self.irql()), 1, 0],
                "a null or near-null pointer was passed as a DPC",
            ));
        }
        // SAFETY: by the caller's contract.
        unsafe { dpc.write(layout::dpc(routine, context, threaded)) };
        let state = DpcState {
            importance: MediumImportance,
            target: None,
            threaded,
            queued_on: None,
            last_queued_on: None,
            order: 0,
            driver,
            by_timer: false,
        };
        let kind = Kind::Dpc(state);
        self.check_resident(dpc as usize, &kind)?;
        let id = self.objects.register(dpc as usize, kind);
        self.objects.note_beginning(id);
        Ok(())
    }

    /// The DPC at `pointer`.
    pub(crate) fn dpc_at(&mut self, pointer: *const KDPC) -> Check<ObjId> {
        self.object_of_kind(pointer, "DPC", |kind| matches!(kind, Kind::Dpc(_)))
    }

    pub(crate) fn dpc_state(&mut self, id: ObjId) -> &mut DpcState {
        match &mut self.objects[id].kind {
            Kind::Dpc(state) => state,
            _ => unreachable!("the caller found a DPC here"),
        }
    }

    /// Queues a DPC from the acting processor. False when it is queued already (rule 41).
    pub(crate) fn insert_dpc(&mut self, id: ObjId, argument1: *mut c_void, argument2: *mut c_void) -> Check<bool> {
        let cpu = self.cpu;
        self.insert_dpc_from(id, argument1, argument2, cpu)
    }

    /// Queues a DPC as if from processor `from`.
    pub(crate) fn insert_dpc_from(
        &mut self,
        id: ObjId,
        argument1: *mut c_void,
        argument2: *mut c_void,
        from: Cpu,
    ) -> Check<bool> {
        let object = &self.objects[id];
        let (memory, number) = (object.address as *mut KDPC, object.number);
        let count = self.config.groups.size(0);
        let order = self.dpcs.inserted + 1;
        let state = self.dpc_state(id);
        if state.queued_on.is_some() {
            return Ok(false);
        }
        let cpu = match state.target {
            None => from,
            Some(Ok(cpu)) => cpu,
            Some(Err(number)) => {
                return Err(Violation::boxed(
                    codes::TIMER_OR_DPC_INVALID,
                    [3, memory as u64, u64::from(number), u64::from(count)],
                    "a DPC was queued to a processor that does not exist",
                ));
            }
        };
        // A timer expires on the processor that it was set on.
        let here = from == cpu;
        state.by_timer = false;
        state.queued_on = Some(cpu);
        state.last_queued_on = Some(cpu);
        state.order = order;
        let importance = state.importance;
        let at_once = state.asks_for_interrupt(here);
        self.dpcs.inserted = order;
        self.order_published(id);
        // SAFETY: a registered DPC's memory is valid.
        unsafe { (*memory).SystemArgument1 = argument1 };
        // SAFETY: as above.
        unsafe { (*memory).SystemArgument2 = argument2 };
        self.record(Operation::InsertDpc, number, u64::from(cpu));
        if let Some(actor) = self.actor() {
            if self.observed {
                self.policy.observe(Event::Queues { dpc: memory.addr() });
            }
            if self.races.enabled {
                self.races.publishes(actor, memory.addr());
            }
        }
        if self.dpc_state(id).threaded && self.config.threaded_dpcs {
            self.insert_threaded(id, cpu, importance);
            return Ok(true);
        }
        let processor = &mut self.processors[cpu as usize];
        if importance == HighImportance {
            processor.dpcs.push_front(id);
        } else {
            processor.dpcs.push_back(id);
        }
        let deep = processor.dpcs.len() > MAXIMUM_DEPTH;
        processor.dpc_requested |= at_once || deep;
        processor.dpcs_have_waited |= !at_once;
        self.update_runnable(cpu);
        self.attention = true;
        Ok(true)
    }

    /// Sets a DPC's importance, for its next insertion (rule 44).
    pub(crate) fn set_dpc_importance(&mut self, id: ObjId, importance: i32) {
        self.dpc_state(id).importance = importance;
        let memory = self.objects[id].address as *mut KDPC;
        // SAFETY: a registered DPC's memory is valid.
        unsafe { (*memory).Importance = importance as u8 };
        self.objects.note_beginning(id);
    }

    /// Sets the processor that a DPC's next insertion goes to.
    pub(crate) fn set_dpc_target(&mut self, id: ObjId, target: Result<Cpu, u8>) {
        self.dpc_state(id).target = Some(target);
        let memory = self.objects[id].address as *mut KDPC;
        let (Ok(number) | Err(number)) = target;
        // SAFETY: a registered DPC's memory is valid.
        unsafe { (*memory).Number = u16::from(number) + 0x800 };
        self.objects.note_beginning(id);
    }

    /// Takes a DPC off its queue. True when it had not started (rule 45).
    pub(crate) fn remove_dpc(&mut self, id: ObjId) -> bool {
        let number = self.objects[id].number;
        let queued = self.dpc_state(id).queued_on.take();
        self.record(Operation::RemoveDpc, number, u64::from(queued.is_some()));
        let Some(cpu) = queued else { return false };
        let order = self.dpc_state(id).order;
        self.note_flushers(order);
        self.processors[cpu as usize].dpcs.retain(|&queued| queued != id);
        self.processors[cpu as usize].threaded_dpcs.retain(|&queued| queued != id);
        self.update_runnable(cpu);
        self.wake_flushers();
        true
    }

    /// The DPC interrupt: the processor begins to drain its queue.
    pub(crate) fn enter_dpcs(&mut self, cpu: Cpu) {
        if self.observed {
            self.note_interrupts();
            self.processors[cpu as usize].interrupt_noted = false;
        }
        let processor = &mut self.processors[cpu as usize];
        processor.in_dpc = true;
        processor.interrupted_irql = processor.irql;
        processor.irql = DISPATCH_LEVEL;
        self.update_runnable(cpu);
    }

    /// Tells the policy which processors the last operation has made DPCs interrupt, or spared that.
    pub(crate) fn note_interrupts(&mut self) {
        for (cpu, processor) in self.processors.iter_mut().enumerate() {
            let deliverable = processor.dpc_deliverable();
            if deliverable && !processor.interrupt_noted {
                self.policy.observe(Event::Interrupts { dpcs: Actor::dpcs(cpu as Cpu) });
            }
            if !deliverable
                && processor.interrupt_noted
                && let Some(tid) = processor.current
            {
                self.policy.observe(Event::Spares { actor: Actor::thread(tid), dpcs: Actor::dpcs(cpu as Cpu) });
            }
            processor.interrupt_noted = deliverable;
        }
    }

    /// Tells the policy that the thread of a processor goes on, or begins, after the DPCs that have run there.
    pub(crate) fn note_resumption(&mut self, cpu: Cpu) {
        let processor = &self.processors[cpu as usize];
        if let Some(tid) = processor.current
            && !processor.in_dpc
            && processor.dpc_progress.performed > 0
        {
            self.policy.observe(Event::Resumes { actor: Actor::thread(tid), after: Actor::dpcs(cpu) });
        }
    }

    /// Takes the next DPC off the acting processor's queue, ready to run. It may be queued again from now on (rule 42).
    pub(crate) fn next_dpc(&mut self) -> Check<Option<RunningDpc>> {
        let cpu = self.cpu;
        let Some(&id) = self.processor().dpcs.front() else { return Ok(None) };
        self.check_intact(id)?;
        self.processor().dpcs.pop_front();
        let (driver, order, mut dpc) = self.start_dpc(id);
        let interrupted = self.processors[cpu as usize].current;
        dpc.counters = interrupted.map(|tid| {
            let apc = &self.threads[tid as usize].apc;
            (tid, apc.kernel_disable, apc.special_disable)
        });
        let processor = self.processor();
        processor.dispatch_time = 0;
        processor.running_dpc = Some((id, order));
        processor.running_driver = driver;
        Ok(Some(dpc))
    }

    /// What is common to both kinds: the DPC leaves its queue, and its structure is read.
    fn start_dpc(&mut self, id: ObjId) -> (Option<u16>, u64, RunningDpc) {
        let state = self.dpc_state(id);
        state.queued_on = None;
        let (driver, order, by_timer) = (state.driver, state.order, state.by_timer);
        let (memory, number) = (self.objects[id].address as *mut KDPC, self.objects[id].number);
        self.dpcs_run += 1;
        self.record(Operation::RunDpc, number, 0);
        match self.executing {
            Executing::Thread(tid) => self.order_learned(id, tid),
            _ => self.order_of_dpc_begins(id),
        }
        if let Some(actor) = self.actor() {
            if self.observed {
                self.policy.observe(Event::Starts { actor, dpc: memory.addr() });
                if let Some(block) = self.pool.name_around(memory.addr()) {
                    self.policy.observe(Event::Uses { actor, block });
                }
            }
            if self.races.enabled {
                self.races.learns(actor, memory.addr());
            }
        }
        // SAFETY: a registered DPC's memory is valid.
        let value = unsafe { memory.read() };
        let dpc = RunningDpc {
            routine: value.DeferredRoutine,
            dpc: memory,
            number,
            context: value.DeferredContext,
            arguments: [value.SystemArgument1, value.SystemArgument2],
            counters: None,
            by_timer,
        };
        (driver, order, dpc)
    }

    /// Queues a threaded DPC for its processor's thread, which is created when first needed.
    fn insert_threaded(&mut self, id: ObjId, cpu: Cpu, importance: i32) {
        let processor = &mut self.processors[cpu as usize];
        if importance == HighImportance {
            processor.threaded_dpcs.push_front(id);
        } else {
            processor.threaded_dpcs.push_back(id);
        }
        match processor.dpc_thread {
            Some(tid) => self.unpark(tid, SYSTEM),
            None if self.wanted_dpc_threads.contains(&cpu) => {}
            None => self.wanted_dpc_threads.push(cpu),
        }
        self.attention = true;
    }

    /// Enters the thread that runs a processor's threaded DPCs: of the highest priority, and the system's own.
    pub(crate) fn create_dpc_thread(&mut self, cpu: Cpu, context: Box<Context>) {
        let tid = self.create_system_thread(cpu, context);
        self.processors[cpu as usize].dpc_thread = Some(tid);
    }

    /// The next threaded DPC of the processor, for its thread. None when it had to wait for one.
    pub(crate) fn next_threaded_dpc(&mut self, cpu: Cpu) -> Check<Option<RunningDpc>> {
        let Some(&id) = self.processors[cpu as usize].threaded_dpcs.front() else {
            self.park(SYSTEM, "threaded DPCs")?;
            return Ok(None);
        };
        self.check_intact(id)?;
        self.processors[cpu as usize].threaded_dpcs.pop_front();
        let (driver, order, mut dpc) = self.start_dpc(id);
        let tid = self.this_thread();
        self.processors[cpu as usize].running_threaded = Some((id, order));
        let thread = self.thread(tid);
        thread.driver = driver;
        dpc.counters = Some((tid, thread.apc.kernel_disable, thread.apc.special_disable));
        Ok(Some(dpc))
    }

    /// What is checked when a DPC routine has returned.
    pub(crate) fn finish_dpc(&mut self, dpc: RunningDpc) -> Check<()> {
        self.order_ended();
        let routine = dpc.routine.map_or(0, |routine| routine as usize as u64);
        let irql = self.irql();
        let threaded = match self.executing {
            Executing::Thread(tid) => Some(tid),
            _ => None,
        };
        let expected = if threaded.is_some() { PASSIVE_LEVEL } else { DISPATCH_LEVEL };
        let held = match threaded {
            Some(tid) => self.threads[tid as usize].spin_locks.first(),
            None => self.processors[self.cpu as usize].dpc_spin_locks.first(),
        };
        if let Some(&lock) = held {
            return Err(self.spin_lock_held_at_return(lock, "a DPC routine", routine));
        }
        if irql != expected {
            return Err(Violation::boxed(
                codes::IRQL_UNEXPECTED_VALUE,
                [u64::from(irql) << 16 | u64::from(expected) << 8, routine, 0, 0],
                "a DPC routine returned at another IRQL than it was called at",
            ));
        }
        if let Some((tid, kernel, special)) = dpc.counters {
            let apc = &self.threads[tid as usize].apc;
            if (apc.kernel_disable, apc.special_disable) != (kernel, special) {
                let after = apc.kernel_disable as u16 as u64;
                return Err(Violation::boxed(
                    codes::TIMER_OR_DPC_INVALID,
                    [if dpc.by_timer { 5 } else { 4 }, routine, kernel as u16 as u64, after],
                    "a DPC routine changed the APC disable count of the thread that it interrupted",
                ));
            }
        }
        let ended = match threaded {
            Some(tid) => {
                self.threads[tid as usize].driver = None;
                let processor = self.processors.iter_mut().find(|processor| processor.dpc_thread == Some(tid));
                processor.and_then(|processor| processor.running_threaded.take())
            }
            None => {
                let processor = self.processor();
                let ended = processor.running_dpc.take();
                processor.running_driver = None;
                if self.races.enabled {
                    self.races.dpc_ends(Actor::dpcs(self.cpu));
                }
                ended
            }
        };
        if let Some((_, order)) = ended {
            self.note_flushers(order);
        }
        self.note(Operation::EndDpc, dpc.number, 0);
        self.wake_flushers();
        self.wake_removing();
        Ok(())
    }

    /// The queue is empty: the processor returns to what it was doing.
    pub(crate) fn leave_dpcs(&mut self) -> Check<()> {
        let cpu = self.cpu;
        let processor = self.processor();
        processor.in_dpc = false;
        processor.dispatch_time = 0;
        processor.dispatch_calls = 0;
        processor.dpc_requested = false;
        processor.irql = processor.interrupted_irql;
        let irql = processor.irql;
        self.trace.level_changed(cpu, irql);
        if self.observed {
            self.note_resumption(cpu);
        }
        self.update_runnable(cpu);
        self.level_lowered()
    }

    /// The oldest insertion that is still queued or running.
    fn oldest_unfinished_dpc(&self) -> u64 {
        let threaded = self.config.flushes_threaded_dpcs;
        let queued = self
            .processors
            .iter()
            .flat_map(|processor| processor.dpcs.iter().chain(processor.threaded_dpcs.iter().filter(move |_| threaded)))
            .map(|&id| match &self.objects[id].kind {
                Kind::Dpc(state) => state.order,
                _ => u64::MAX,
            });
        let running = self
            .processors
            .iter()
            .flat_map(|processor| [processor.running_dpc, processor.running_threaded.filter(|_| threaded)])
            .flatten()
            .map(|(_, order)| order);
        queued.chain(running).min().unwrap_or(u64::MAX)
    }

    /// True when all DPCs up to the insertion `last` are done. Otherwise the running thread waits for them.
    pub(crate) fn flush_dpcs(&mut self, last: u64) -> Check<bool> {
        if self.oldest_unfinished_dpc() > last {
            let tid = self.this_thread();
            self.order_end_seen(tid);
            return Ok(true);
        }
        for cpu in 0..self.config.processors {
            let processor = &mut self.processors[cpu as usize];
            processor.dpc_requested |= !processor.dpcs.is_empty();
            self.update_runnable(cpu);
        }
        let tid = self.this_thread();
        // A kernel APC may have broken an earlier turn of the same wait.
        self.dpcs.flushing.retain(|(flushing, _)| *flushing != tid);
        self.dpcs.flushing.push((tid, last));
        self.park(SYSTEM, "KeFlushQueuedDpcs")?;
        Ok(false)
    }

    /// What waits for the DPC of an insertion comes after its end, whichever comes to its end last.
    fn note_flushers(&mut self, order: u64) {
        for place in 0..self.dpcs.flushing.len() {
            let (tid, last) = self.dpcs.flushing[place];
            if order <= last {
                self.note_follower(Actor::thread(tid));
            }
        }
    }

    fn wake_flushers(&mut self) {
        if self.dpcs.flushing.is_empty() {
            return;
        }
        let oldest = self.oldest_unfinished_dpc();
        let flushing = std::mem::take(&mut self.dpcs.flushing);
        let (done, waiting) = flushing.into_iter().partition(|(_, last)| oldest > *last);
        self.dpcs.flushing = waiting;
        let done: Vec<(Tid, u64)> = done;
        for (tid, _) in done {
            self.unpark(tid, SYSTEM);
        }
    }

    /// The acting processor's level fell below DISPATCH_LEVEL, or may have: what was held back happens now.
    #[inline]
    pub(crate) fn level_lowered(&mut self) -> Check<()> {
        if self.irql() < DISPATCH_LEVEL {
            if self.timers.has_deferred() {
                self.expire_deferred()?;
            }
            if !self.ready.is_empty() {
                self.reschedule_if_outranked();
            }
            self.attention |= !self.is_settled();
        }
        Ok(())
    }
}
