//! Timers that are known by handle, and may tell the thread that set them by an APC.

use super::kernel::{Check, Kernel};
use super::layout::{self, ApcParts};
use super::object::ObjId;
use super::thread::Tid;
use crate::image::call as call_driver;
use ksync_sys::{KAPC, KernelMode, LONG, PKNORMAL_ROUTINE, PVOID, TIMER_APC_ROUTINE, ULONG};
use std::collections::BTreeMap;

/// The APC of a timer that was set.
#[derive(Debug)]
struct TimerApc {
    apc: KAPC,
    tid: Tid,
    routine: TIMER_APC_ROUTINE,
    context: PVOID,
}

/// The APCs of all timers.
#[derive(Debug, Default)]
pub(crate) struct TimerApcs {
    of: BTreeMap<ObjId, Box<TimerApc>>,
    /// Those of timers that were set again, cancelled or deleted: their routines may be about to be called.
    #[expect(clippy::vec_box, reason = "the true APCs inside must not move")]
    retired: Vec<Box<TimerApc>>,
}

impl TimerApcs {
    /// True when it is as a new machine's.
    pub(super) fn is_unused(&self) -> bool {
        self.of.is_empty() && self.retired.is_empty()
    }
}

/// The kernel routine of the APCs: there is nothing to free.
unsafe extern "system-unwind" fn keep(
    _apc: *mut KAPC,
    _normal: *mut PKNORMAL_ROUTINE,
    _context: *mut PVOID,
    _argument1: *mut PVOID,
    _argument2: *mut PVOID,
) {
}

/// The normal routine of the APCs: calls the driver's.
unsafe extern "system-unwind" fn call_routine(context: PVOID, low: PVOID, high: PVOID) {
    // SAFETY: the context is the `TimerApc`, which is kept until the machine ends.
    let timer = unsafe { &*context.cast_const().cast::<TimerApc>() };
    // SAFETY: the driver vouched for the routine and its context when it set the timer.
    unsafe { call_driver(timer.routine, (timer.context, low as usize as ULONG, high as usize as LONG)) };
}

impl Kernel {
    /// Sets a timer by its handle, with a routine for an APC of the running thread.
    pub(crate) fn set_timer_of_handle(
        &mut self,
        id: ObjId,
        due: i64,
        period: u32,
        tolerance: u32,
        routine: Option<(TIMER_APC_ROUTINE, PVOID)>,
    ) -> Check<()> {
        self.retire_timer_apc(id)?;
        if let Some((routine, context)) = routine {
            let tid = self.this_thread();
            let thread = self.threads[tid as usize].address() as *mut _;
            let parts = ApcParts {
                thread,
                environment: ksync_sys::OriginalApcEnvironment,
                kernel: Some(keep),
                rundown: None,
                normal: Some(call_routine),
                mode: KernelMode,
                context: std::ptr::null_mut(),
            };
            let mut timer = Box::new(TimerApc { apc: layout::apc(parts), tid, routine, context });
            timer.apc.NormalContext = (&raw mut *timer).cast();
            self.timer_apcs.of.insert(id, timer);
        }
        self.set_timer(id, due, period, tolerance, std::ptr::null_mut()).map(drop)
    }

    /// Cancels a timer by its handle.
    pub(crate) fn cancel_timer_of_handle(&mut self, id: ObjId) -> Check<()> {
        self.cancel_timer(id);
        self.retire_timer_apc(id)
    }

    /// Takes the APC of a timer off its thread's queue, and away from the timer.
    fn retire_timer_apc(&mut self, id: ObjId) -> Check<()> {
        if let Some(mut timer) = self.timer_apcs.of.remove(&id) {
            let apc = &raw mut timer.apc;
            self.timer_apcs.retired.push(timer);
            self.remove_apc(apc)?;
        }
        Ok(())
    }

    /// A timer has expired: its APC is queued, unless it still is.
    pub(crate) fn timer_apc_expired(&mut self, id: ObjId) -> Check<()> {
        let time = self.clock.system_time() as u64;
        let Some(timer) = self.timer_apcs.of.get_mut(&id) else { return Ok(()) };
        if timer.apc.Inserted == 0 {
            timer.apc.SystemArgument1 = (time & 0xffff_ffff) as usize as PVOID;
            timer.apc.SystemArgument2 = (time >> 32) as usize as PVOID;
        }
        let apc = &raw mut timer.apc;
        self.insert_apc(apc, 0).map(drop)
    }

    /// A thread ends: the timers that would tell it are cancelled, as NT does.
    pub(crate) fn run_down_timers_of(&mut self, tid: Tid) -> Check<()> {
        if self.timer_apcs.of.is_empty() {
            return Ok(());
        }
        let timers: Vec<ObjId> = self.timer_apcs.of.iter().filter(|(_, timer)| timer.tid == tid).map(|(&id, _)| id).collect();
        timers.into_iter().try_for_each(|id| self.cancel_timer_of_handle(id))
    }
}
