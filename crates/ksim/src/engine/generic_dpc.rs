//! KeGenericCallDpc: one DPC for each processor, with a barrier (rule 48).

use super::broadcast::Broadcast;
use super::dpc::DpcState;
use super::kernel::{Check, Kernel};
use super::layout;
use super::object::{Kind, SYSTEM};
use super::processor::Cpu;
use super::thread::Tid;
use crate::report::bug_check::{Violation, codes};
use ksync_sys::{HighImportance, KDPC, PKDEFERRED_ROUTINE};
use std::ffi::c_void;

/// The top bit of the barrier word, which toggles at each phase.
const PHASE: u32 = 0x8000_0000;

/// The memory that drivers get pointers into.
#[derive(Default)]
#[repr(C)]
struct Words {
    /// Processors that have not finished: SystemArgument1 points here.
    outstanding: u32,
    /// DEFERRED_REVERSE_BARRIER, where SystemArgument2 points. Processors that have not arrived at the barrier, with the phase bit.
    barrier: u32,
    /// All processors.
    total: u32,
}

/// The one generic call that may be under way.
#[derive(Default)]
pub(crate) struct GenericCall {
    #[expect(clippy::vec_box, reason = "the DPCs must not move while they are queued")]
    dpcs: Vec<Box<KDPC>>,
    words: Box<Words>,
    /// The thread that called, while it is under way.
    caller: Option<Tid>,
    /// Threads that wait for their turn to call.
    turns: Vec<Tid>,
    /// Processors that turn at the barrier.
    turning: Vec<Cpu>,
    /// The one call of KeIpiGenericCall that may be under way.
    pub(crate) broadcast: Broadcast,
    /// Who waits for a DPC routine to return, in KeRemoveQueueDpcEx: threads, and processors that turn.
    pub(crate) removing: (Vec<Tid>, Vec<Cpu>),
}

impl GenericCall {
    /// Forgets all calls.
    pub(crate) fn clear(&mut self) {
        if self.caller.is_some() || !self.dpcs.is_empty() || !self.turns.is_empty() || !self.turning.is_empty() {
            *self = Self::default();
        }
        *self.words = Words::default();
        self.broadcast.clear();
        self.removing.0.clear();
        self.removing.1.clear();
    }
}

impl Kernel {
    /// Queues the routine on all processors. False when another call is under way; try again when the thread goes on.
    pub(crate) fn begin_generic_call(&mut self, routine: PKDEFERRED_ROUTINE, context: *mut c_void) -> Check<bool> {
        let tid = self.this_thread();
        if self.generic.caller.is_some() {
            if !self.generic.turns.contains(&tid) {
                self.generic.turns.push(tid);
            }
            self.park(SYSTEM, "KeGenericCallDpc")?;
            return Ok(false);
        }
        self.generic.caller = Some(tid);
        let count = self.config.processors;
        *self.generic.words = Words { outstanding: u32::from(count), barrier: u32::from(count), total: u32::from(count) };
        let words = &raw mut *self.generic.words;
        // SAFETY: field addresses within the box.
        let outstanding = unsafe { &raw mut (*words).outstanding };
        // SAFETY: as above.
        let barrier = unsafe { &raw mut (*words).barrier };
        let driver = self.current_driver();
        self.generic.dpcs = (0..count).map(|_| Box::new(layout::dpc(routine, context, false))).collect();
        for cpu in 0..count {
            let memory = &raw mut *self.generic.dpcs[cpu as usize];
            let state = DpcState {
                importance: HighImportance,
                target: Some(Ok(cpu)),
                threaded: false,
                queued_on: None,
                last_queued_on: None,
                order: 0,
                driver,
                by_timer: false,
            };
            let id = self.objects.register(memory as usize, Kind::Dpc(state));
            self.insert_dpc(id, outstanding.cast(), barrier.cast())?;
        }
        Ok(true)
    }

    /// True when the last processor is done. Otherwise the caller waits.
    pub(crate) fn generic_call_is_over(&mut self) -> Check<bool> {
        if self.generic.words.outstanding == 0 {
            let tid = self.this_thread();
            self.order_end_seen(tid);
            return Ok(true);
        }
        self.park(SYSTEM, "KeGenericCallDpc")?;
        Ok(false)
    }

    /// The call is over: the DPCs go, and the next caller has its turn.
    pub(crate) fn end_generic_call(&mut self) -> Check<()> {
        for dpc in std::mem::take(&mut self.generic.dpcs) {
            if let Some(id) = self.objects.find((&raw const *dpc) as usize) {
                self.objects.remove(id);
            }
        }
        self.generic.caller = None;
        for tid in std::mem::take(&mut self.generic.turns) {
            self.unpark(tid, SYSTEM);
        }
        Ok(())
    }

    fn check_generic_argument(&self, argument: usize, expected: *const u32) -> Check<()> {
        if argument == expected as usize && self.generic.caller.is_some() && self.in_dpc() {
            return Ok(());
        }
        Err(Violation::boxed(
            codes::TIMER_OR_DPC_INVALID,
            [2, argument as u64, 0, 0],
            "KeSignalCallDpc... was called outside a routine of KeGenericCallDpc, or not with its argument",
        ))
    }

    /// A processor is done with the routine.
    pub(crate) fn generic_call_done(&mut self, argument: usize) -> Check<()> {
        self.check_generic_argument(argument, &raw const self.generic.words.outstanding)?;
        self.order_ended();
        let words = &mut self.generic.words;
        words.outstanding = words.outstanding.saturating_sub(1);
        if words.outstanding == 0
            && let Some(caller) = self.generic.caller
        {
            self.unpark(caller, SYSTEM);
        }
        Ok(())
    }

    /// A processor arrives at the barrier. None for the last one, which opens it; else the phase to wait out.
    pub(crate) fn generic_call_arrive(&mut self, argument: usize) -> Check<Option<u32>> {
        self.check_generic_argument(argument, &raw const self.generic.words.barrier)?;
        let count = u32::from(self.config.processors);
        let words = &mut self.generic.words;
        let phase = words.barrier & PHASE;
        words.barrier -= 1;
        if words.barrier & !PHASE > 0 {
            return Ok(Some(phase));
        }
        words.barrier = (phase ^ PHASE) | count;
        for cpu in std::mem::take(&mut self.generic.turning) {
            self.note_processor_follows(cpu);
            self.processors[cpu as usize].spinning = false;
            self.update_runnable(cpu);
        }
        Ok(None)
    }

    /// True when the barrier has opened since `phase`. Otherwise the processor turns until it does.
    pub(crate) fn generic_call_passed(&mut self, phase: u32) -> Check<bool> {
        if self.generic.words.barrier & PHASE != phase {
            return Ok(true);
        }
        let cpu = self.cpu;
        self.processor().spinning = true;
        self.generic.turning.push(cpu);
        self.update_runnable(cpu);
        self.attention = true;
        Ok(false)
    }
}
