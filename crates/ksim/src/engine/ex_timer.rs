//! EX_TIMER: timers that the system allocates, with callbacks at DISPATCH_LEVEL (rule 56).
//!
//! The callback of an expiry runs in a DPC of the timer's own. A timer whose deletion has begun cannot be set any more; it goes when it is neither pending nor in
//! its callback.

use super::dpc::DpcState;
use super::kernel::{Check, Kernel};
use super::layout;
use super::object::{Kind, ObjId, SYSTEM};
use super::pool::PoolRequest;
use super::processor::Cpu;
use super::thread::Tid;
use super::timer::{Due, Expiry, Target};
use crate::report::bug_check::{Violation, codes};
use crate::report::trace::Operation;
use ksync_sys::{
    DISPATCHER_HEADER, EX_TIMER, EX_TIMER_HIGH_RESOLUTION, EX_TIMER_NO_WAKE, EX_TIMER_NOTIFICATION, EX_TIMER_UNLIMITED_TOLERANCE,
    EXT_CALLBACK, EXT_DELETE_CALLBACK, KDPC, MediumImportance, PEXT_CALLBACK, PKDEFERRED_ROUTINE,
};
use std::ffi::c_void;

/// What a driver sees of an EX_TIMER: a dispatcher header, and nothing else that it may look at.
#[repr(C)]
struct Memory {
    header: DISPATCHER_HEADER,
    opaque: [u64; 14],
}

/// How late a no-wake timer is at most that may be as late as it likes: in an idle machine something else wakes the processor by then.
const UNLIMITED_TOLERANCE: u64 = 10 * 10_000_000;

/// The pool tag of an EX_TIMER.
const TAG: u32 = u32::from_le_bytes(*b"ExTm");

/// An EX_TIMER's state beside its header.
#[derive(Debug)]
pub(crate) struct ExTimerState {
    pub(crate) notification: bool,
    high_resolution: bool,
    no_wake: bool,
    callback: Option<EXT_CALLBACK>,
    context: *mut c_void,
    /// Runs the callbacks.
    dpc: Box<KDPC>,
    armed: Option<Expiry>,
    /// 100 ns units; 0 is one-shot.
    period: u64,
    /// How late an expiry may be, in 100 ns units.
    tolerance: u64,
    /// The interrupt time that the pending expiry was for before the tolerance was added.
    nominal: u64,
    /// Expiries whose callback has not begun, and callbacks that run.
    due: u32,
    running: u32,
    /// The deletion has begun.
    deleting: Option<Deletion>,
    /// Threads in ExDeleteTimer.
    waiting: Vec<Tid>,
    /// The driver that allocated it.
    pub(crate) driver: Option<u16>,
}

impl ExTimerState {
    /// An expiry sets it again.
    pub(crate) fn rearms(&self) -> bool {
        self.period != 0 && self.deleting.is_none()
    }
}

/// What a driver wants to be told when its timer is gone.
pub(crate) type Deletion = Option<(EXT_DELETE_CALLBACK, *mut c_void)>;

/// What ExDeleteTimer did.
#[derive(Debug)]
pub(crate) struct Deleted {
    /// A pending timer was cancelled.
    pub(crate) cancelled: bool,
    /// The timer is gone, and this is to be called.
    pub(crate) gone: Option<Deletion>,
    /// The timer's number, to wait for.
    pub(crate) number: u32,
}

/// How a driver sets an EX_TIMER.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExTimerSetting {
    /// 100 ns units; negative is relative.
    pub(crate) due: i64,
    /// 100 ns units; 0 is one-shot.
    pub(crate) period: u64,
    /// The tolerance of a no-wake timer.
    pub(crate) tolerance: i64,
}

impl ExTimerState {
    /// True when it will expire.
    pub(crate) fn is_armed(&self) -> bool {
        self.armed.is_some()
    }

    /// True when its callback may still run.
    pub(crate) fn is_in_use(&self) -> bool {
        self.armed.is_some() || self.due > 0 || self.running > 0
    }
}

impl Kernel {
    /// Allocates a timer, whose callbacks `routine` runs as a DPC. Null when there is no memory.
    pub(crate) fn allocate_ex_timer(
        &mut self,
        callback: PEXT_CALLBACK,
        context: *mut c_void,
        attributes: u32,
        routine: PKDEFERRED_ROUTINE,
    ) -> Check<*mut EX_TIMER> {
        let known = EX_TIMER_HIGH_RESOLUTION | EX_TIMER_NO_WAKE | EX_TIMER_NOTIFICATION;
        let both = EX_TIMER_HIGH_RESOLUTION | EX_TIMER_NO_WAKE;
        if attributes & !known != 0 || attributes & both == both {
            return Err(Violation::boxed_owned(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::BAD_ARGUMENT, u64::from(attributes), 0, 0],
                format!("ExAllocateTimer has no attributes {attributes:#x}"),
            ));
        }
        let request = PoolRequest { size: size_of::<Memory>(), tag: TAG, paged: false, zeroed: true };
        let memory = self.allocate_pool(request)?;
        if memory.is_null() {
            return Ok(std::ptr::null_mut());
        }
        let driver = self.current_driver();
        let notification = attributes & EX_TIMER_NOTIFICATION != 0;
        let dpc = Box::new(layout::dpc(routine, memory.cast(), false));
        let dpc_address = (&raw const *dpc) as usize;
        let state = ExTimerState {
            notification,
            high_resolution: attributes & EX_TIMER_HIGH_RESOLUTION != 0,
            no_wake: attributes & EX_TIMER_NO_WAKE != 0,
            callback,
            context,
            dpc,
            armed: None,
            period: 0,
            tolerance: 0,
            nominal: 0,
            due: 0,
            running: 0,
            deleting: None,
            waiting: Vec::new(),
            driver,
        };
        let object_type = if notification { ksync_sys::TimerNotificationObject } else { ksync_sys::TimerSynchronizationObject };
        let kind = Kind::ExTimer(Box::new(state));
        // SAFETY: the block was allocated just now, with room for a header.
        unsafe { self.initialize_dispatcher(memory.cast(), object_type, size_of::<Memory>(), 0, kind)? };
        let dpc = DpcState {
            importance: MediumImportance,
            target: None,
            threaded: false,
            queued_on: None,
            last_queued_on: None,
            order: 0,
            // Whose code runs is known by callback: between two of them it is the system's.
            driver: None,
            by_timer: true,
        };
        self.objects.register(dpc_address, Kind::Dpc(dpc));
        Ok(memory.cast())
    }

    /// The timer at `pointer`.
    fn ex_timer_at(&mut self, pointer: *const EX_TIMER) -> Check<ObjId> {
        self.object_of_kind(pointer, "EX_TIMER", |kind| matches!(kind, Kind::ExTimer(_)))
    }

    fn ex_timer(&mut self, id: ObjId) -> &mut ExTimerState {
        match &mut self.objects[id].kind {
            Kind::ExTimer(state) => state,
            _ => unreachable!("the caller found an EX_TIMER here"),
        }
    }

    /// Takes a timer out of the queue. True when it was there.
    fn disarm_ex_timer(&mut self, id: ObjId) -> bool {
        let Some(expiry) = self.ex_timer(id).armed.take() else { return false };
        self.timers.remove(expiry, Target::Timer(id));
        true
    }

    /// Arms a timer for `nominal` or, within its tolerance, later.
    fn arm_ex_timer(&mut self, id: ObjId, nominal: Due, cpu: Cpu) {
        let time = self.clock.interrupt_time_of(nominal);
        let state = self.ex_timer(id);
        state.nominal = time;
        let tolerance = state.tolerance;
        let delay = self.choose_delay(tolerance);
        let due = match nominal {
            Due::Interrupt(time) => Due::Interrupt(time.saturating_add(delay)),
            Due::System(time) => Due::System(time.saturating_add_unsigned(delay)),
            Due::Precise(time) => Due::Precise(time.saturating_add(delay)),
        };
        let expiry = self.timers.insert(due, Target::Timer(id), cpu);
        self.ex_timer(id).armed = Some(expiry);
    }

    /// Sets a timer. True when that cancelled a pending one.
    pub(crate) fn set_ex_timer(&mut self, timer: *mut EX_TIMER, setting: ExTimerSetting) -> Check<bool> {
        let id = self.ex_timer_at(timer)?;
        let number = self.objects[id].number;
        self.record(Operation::SetTimer, number, setting.due as u64);
        let state = self.ex_timer(id);
        if state.deleting.is_some() {
            // Its deletion has disabled it, so that a callback cannot keep it going.
            return Ok(false);
        }
        state.period = setting.period;
        state.tolerance = match setting.tolerance {
            _ if !state.no_wake => 0,
            EX_TIMER_UNLIMITED_TOLERANCE => UNLIMITED_TOLERANCE,
            tolerance => tolerance.unsigned_abs(),
        };
        let high_resolution = state.high_resolution;
        let was_armed = self.disarm_ex_timer(id);
        self.objects[id].set_signal_state(0);
        let due = match self.clock.due(setting.due) {
            Due::Interrupt(_) if high_resolution => {
                Due::Precise(self.clock.precise_interrupt_time().saturating_add(setting.due.unsigned_abs()))
            }
            due => due,
        };
        let cpu = self.cpu;
        if self.clock.is_past(due) {
            self.ex_timer(id).nominal = self.clock_of(high_resolution);
            self.record(Operation::TimerExpired, number, 0);
            self.ex_timer_expired(id, cpu)?;
        } else {
            self.arm_ex_timer(id, due, cpu);
        }
        Ok(was_armed)
    }

    /// The interrupt time by which a timer goes.
    fn clock_of(&self, high_resolution: bool) -> u64 {
        if high_resolution { self.clock.precise_interrupt_time() } else { self.clock.interrupt_time() }
    }

    /// A timer becomes signaled: it re-arms if periodic, its callback is due, and waits are satisfied.
    pub(super) fn ex_timer_expired(&mut self, id: ObjId, cpu: Cpu) -> Check<()> {
        let state = self.ex_timer(id);
        state.armed = None;
        let (period, nominal, high_resolution) = (state.period, state.nominal, state.high_resolution);
        state.due += u32::from(state.callback.is_some());
        // A deletion that waited for this expiry ends in the DPC too.
        let wanted = state.callback.is_some() || state.deleting.is_some();
        let dpc = wanted.then_some((&raw const *state.dpc) as usize);
        // A timer that is deleted without being cancelled expires once more.
        if state.rearms() {
            let now = self.clock_of(high_resolution);
            // Expiries that could not be made in time, for the length of a tick or for a raised level, are one.
            let nominal = nominal.min(now);
            let missed = (now - nominal) / period;
            let next = nominal.saturating_add(period.saturating_mul(missed + 1));
            let due = if high_resolution { Due::Precise(next) } else { Due::Interrupt(next) };
            self.arm_ex_timer(id, due, cpu);
        }
        self.objects[id].set_signal_state(1);
        self.satisfy_waiters(id, 0)?;
        if let Some(dpc) = dpc
            && let Some(dpc) = self.objects.find(dpc)
        {
            if self.races.enabled {
                self.races.forwards(self.objects[id].address, self.objects[dpc].address);
            }
            // One that is queued already runs this callback too.
            self.insert_dpc_from(dpc, std::ptr::null_mut(), std::ptr::null_mut(), cpu)?;
            self.dpc_state(dpc).by_timer = true;
        }
        Ok(())
    }

    /// Cancels a timer. True when it was pending.
    pub(crate) fn cancel_ex_timer(&mut self, timer: *mut EX_TIMER) -> Check<bool> {
        let id = self.ex_timer_at(timer)?;
        let number = self.objects[id].number;
        let was_armed = self.disarm_ex_timer(id);
        self.record(Operation::CancelTimer, number, u64::from(was_armed));
        Ok(was_armed)
    }

    /// The next callback that is due, for the timer's DPC. None when there is none, or the timer is gone.
    pub(crate) fn begin_ex_callback(&mut self, timer: *mut EX_TIMER) -> Option<(EXT_CALLBACK, *mut c_void)> {
        let id = self.objects.find(timer as usize)?;
        let Kind::ExTimer(state) = &mut self.objects[id].kind else { return None };
        let callback = state.callback.filter(|_| state.due > 0)?;
        state.due -= 1;
        state.running += 1;
        let (context, driver) = (state.context, state.driver);
        self.processor().running_driver = driver;
        Some((callback, context))
    }

    /// A callback has returned.
    pub(crate) fn end_ex_callback(&mut self, timer: *mut EX_TIMER) -> Check<()> {
        let id = self.ex_timer_at(timer)?;
        self.ex_timer(id).running -= 1;
        self.processor().running_driver = None;
        Ok(())
    }

    /// No callback is due: a deletion that waited for that is made. The result is what is to be called then.
    pub(crate) fn end_ex_callbacks(&mut self, timer: *mut EX_TIMER) -> Check<Option<Deletion>> {
        match self.objects.find(timer as usize) {
            Some(id) if matches!(self.objects[id].kind, Kind::ExTimer(_)) => {
                let driver = self.ex_timer(id).driver;
                let then = self.delete_if_idle(id)?;
                if then.flatten().is_some() {
                    self.processor().running_driver = driver;
                }
                Ok(then)
            }
            // Another processor's DPC of the same timer has made it.
            _ => Ok(None),
        }
    }

    /// Begins the deletion of a timer, which is over at once if nothing of it is outstanding.
    pub(crate) fn delete_ex_timer(&mut self, timer: *mut EX_TIMER, cancel: bool, wait: bool, then: Deletion) -> Check<Deleted> {
        let id = self.ex_timer_at(timer)?;
        let number = self.objects[id].number;
        if self.ex_timer(id).deleting.is_some() {
            return Err(Violation::boxed(
                codes::TIMER_OR_DPC_INVALID,
                [0, timer as u64, 0, 0],
                "an EX_TIMER was deleted a second time",
            ));
        }
        let cancelled = cancel && self.disarm_ex_timer(id);
        self.record(Operation::CancelTimer, number, u64::from(cancelled));
        self.ex_timer(id).deleting = Some(then);
        let gone = self.delete_if_idle(id)?;
        if gone.is_none() && wait {
            let tid = self.this_thread();
            self.ex_timer(id).waiting.push(tid);
        }
        Ok(Deleted { cancelled, gone, number })
    }

    /// Deletes a timer whose deletion has begun, if nothing of it is outstanding. The result is what is to be called then.
    fn delete_if_idle(&mut self, id: ObjId) -> Check<Option<Deletion>> {
        let state = self.ex_timer(id);
        if state.is_in_use() {
            return Ok(None);
        }
        let Some(then) = state.deleting else { return Ok(None) };
        let waiting = std::mem::take(&mut state.waiting);
        let dpc = (&raw const *state.dpc) as usize;
        if let Some(dpc) = self.objects.find(dpc) {
            self.remove_dpc(dpc);
            self.objects.remove(dpc);
        }
        let object = &self.objects[id];
        let (address, number) = (object.address, object.number);
        if !object.waiters.is_empty() {
            return Err(Violation::boxed_owned(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::DELETED_WHILE_OWNED, address as u64, 0, 0],
                format!("EX_TIMER #{number} was deleted while threads wait on it"),
            ));
        }
        self.objects.remove(id);
        self.free_pool(address, TAG)?;
        for tid in waiting {
            self.unpark(tid, SYSTEM);
        }
        Ok(Some(then))
    }

    /// True when a timer is gone. Otherwise the running thread waits for it.
    pub(crate) fn ex_timer_is_gone(&mut self, timer: *mut EX_TIMER, number: u32) -> Check<bool> {
        let there = self.objects.find(timer as usize).is_some_and(|id| self.objects[id].number == number);
        if there {
            self.park(SYSTEM, "ExDeleteTimer")?;
        }
        Ok(!there)
    }
}
