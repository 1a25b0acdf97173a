//! A processor: its IRQL, its current thread, its DPC queue.

use super::context::Context;
use super::groups::MAXIMUM_PROCESSORS;
use super::object::ObjId;
use super::spinning::Watch;
use super::thread::{ThreadObject, Tid};
use crate::irql::DISPATCH_LEVEL;
use crate::report::sites::SiteId;
use crate::schedule::Progress;
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut, Index, IndexMut};

/// The index of a processor.
pub(crate) type Cpu = u8;

/// One processor. Its size is a power of two, so that finding one is a shift.
#[derive(Default)]
#[repr(align(512))]
pub(crate) struct Processor {
    pub(crate) irql: u8,
    /// The thread that runs here. `None` is the idle thread.
    pub(crate) current: Option<Tid>,
    /// A DPC interrupt is being serviced.
    pub(crate) in_dpc: bool,
    /// While in a DPC: the level to return to.
    pub(crate) interrupted_irql: u8,
    /// What drivers see as the idle thread: its ETHREAD's memory, made when it is first asked for.
    pub(crate) idle_thread: Option<Box<ThreadObject>>,
    /// It turns on a spin lock that another processor holds.
    pub(crate) spinning: bool,
    /// The DPC queue, head first.
    pub(crate) dpcs: VecDeque<ObjId>,
    /// Threaded DPCs that wait for their thread, and that thread.
    pub(crate) threaded_dpcs: VecDeque<ObjId>,
    pub(crate) dpc_thread: Option<Tid>,
    /// The threaded DPC that runs, with its place among all insertions.
    pub(crate) running_threaded: Option<(ObjId, u64)>,
    /// Something in the queue asks for a DPC interrupt now, rather than at the next occasion.
    pub(crate) dpc_requested: bool,
    /// One of them has not asked for an interrupt at once.
    pub(crate) dpcs_have_waited: bool,
    /// The policy knows what made the queue's DPCs interrupt the processor.
    pub(crate) interrupt_noted: bool,
    /// How far the queue has come, for policies.
    pub(crate) dpc_progress: Progress,
    pub(crate) dpc_watch: Watch,
    /// The coroutine that runs the queue, between two of its activations or suspended within one.
    pub(crate) dpc_context: Option<Box<Context>>,
    /// The DPC whose routine runs with its place among all insertions, and the driver whose code it is.
    pub(crate) running_dpc: Option<(ObjId, u64)>,
    pub(crate) running_driver: Option<u16>,
    /// Spin locks that the running DPC routine has taken and not released.
    pub(crate) dpc_spin_locks: Vec<ObjId>,
    /// For how long, in 100 ns units, it has stalled at DISPATCH_LEVEL or above without a break.
    pub(crate) dispatch_time: u64,
    /// How many calls it has made at DISPATCH_LEVEL or above without a break.
    pub(crate) dispatch_calls: u64,
    /// How many blocks of pool its DPC routines have allocated.
    pub(crate) allocated: u32,
    /// Where the running DPC routine made its last call, if that is recorded.
    pub(crate) dpc_site: Option<SiteId>,
    /// Where the thread-context IRQL raised by KeRaiseIrql must return to, innermost last (rule 59).
    pub(crate) raises: Vec<u8>,
}

/// The processors of a machine.
pub(crate) struct Processors {
    /// There is room for as many as a machine can have, so that looking one up needs no check.
    all: Box<[Processor; MAXIMUM_PROCESSORS]>,
    count: usize,
}

const _: () = assert!(MAXIMUM_PROCESSORS.is_power_of_two() && size_of::<Processor>() == 512);

impl Default for Processors {
    fn default() -> Self {
        let all: Vec<Processor> = std::iter::repeat_with(Processor::default).take(MAXIMUM_PROCESSORS).collect();
        let Ok(all) = all.try_into() else { unreachable!("there are so many") };
        Self { all, count: 0 }
    }
}

impl Processors {
    /// How many a new machine has.
    pub(super) fn set_count(&mut self, count: usize) {
        self.count = count;
    }

    /// Become those of a new machine, and keep their memory.
    pub(super) fn recycle(&mut self) {
        self.iter_mut().for_each(Processor::recycle);
        self.count = 0;
    }
}

impl Deref for Processors {
    type Target = [Processor];

    #[inline]
    fn deref(&self) -> &[Processor] {
        &self.all[..self.count]
    }
}

impl DerefMut for Processors {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Processor] {
        &mut self.all[..self.count]
    }
}

impl Index<usize> for Processors {
    type Output = Processor;

    #[inline]
    fn index(&self, cpu: usize) -> &Processor {
        debug_assert!(cpu < self.count, "there is such a processor");
        &self.all[cpu % MAXIMUM_PROCESSORS]
    }
}

impl IndexMut<usize> for Processors {
    #[inline]
    fn index_mut(&mut self, cpu: usize) -> &mut Processor {
        debug_assert!(cpu < self.count, "there is such a processor");
        &mut self.all[cpu % MAXIMUM_PROCESSORS]
    }
}

impl Processor {
    /// Becomes one of a new machine, and keeps its memory.
    pub(super) fn recycle(&mut self) {
        // Each field is named, so that none is forgotten.
        let Self {
            irql,
            current,
            in_dpc,
            interrupted_irql,
            idle_thread,
            spinning,
            dpcs,
            threaded_dpcs,
            dpc_thread,
            running_threaded,
            dpc_requested,
            dpcs_have_waited,
            interrupt_noted,
            dpc_progress,
            dpc_watch,
            dpc_context,
            running_dpc,
            running_driver,
            dpc_spin_locks,
            dispatch_time,
            dispatch_calls,
            dpc_site,
            raises,
            allocated,
        } = self;
        *allocated = 0;
        (*irql, *current, *in_dpc, *interrupted_irql) = (0, None, false, 0);
        (*idle_thread, *spinning) = (None, false);
        dpcs.clear();
        threaded_dpcs.clear();
        (*dpc_thread, *running_threaded) = (None, None);
        (*dpc_requested, *dpcs_have_waited, *interrupt_noted) = (false, false, false);
        *dpc_progress = Progress::default();
        if dpc_context.is_some() {
            *dpc_context = None;
        }
        dpc_watch.recycle();
        (*running_dpc, *running_driver, *dpc_site) = (None, None, None);
        dpc_spin_locks.clear();
        (*dispatch_time, *dispatch_calls) = (0, 0);
        raises.clear();
    }

    /// The level of the thread context, below any DPC that interrupted it.
    pub(crate) fn thread_irql(&self) -> u8 {
        if self.in_dpc { self.interrupted_irql } else { self.irql }
    }

    /// The levels to return to go with their thread.
    #[inline]
    pub(crate) fn swap_raises(&mut self, threads: &mut Vec<u8>) {
        if !self.raises.is_empty() || !threads.is_empty() {
            std::mem::swap(&mut self.raises, threads);
        }
    }

    /// True when the DPC interrupt would be taken now. An idle processor takes it for any queued DPC, as NT's idle loop drains the queue.
    #[inline]
    pub(crate) fn dpc_deliverable(&self) -> bool {
        !self.in_dpc && self.irql < DISPATCH_LEVEL && !self.dpcs.is_empty() && (self.dpc_requested || self.current.is_none())
    }

    /// Idle means that neither a thread nor a DPC runs.
    pub(crate) fn is_idle(&self) -> bool {
        self.current.is_none() && !self.in_dpc
    }

    /// True when the thread here can be replaced at once.
    pub(crate) fn preemptible(&self) -> bool {
        self.thread_irql() < DISPATCH_LEVEL
    }

    /// Sets the level of the thread context.
    pub(crate) fn set_thread_irql(&mut self, irql: u8) {
        if self.in_dpc {
            self.interrupted_irql = irql;
        } else {
            self.irql = irql;
        }
    }
}
