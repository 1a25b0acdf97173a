//! APCs and the regions that hold them back (rules 21 to 25).

use super::kernel::{Check, Kernel};
use super::thread::{State, Tid};
use crate::check::rules::RuleId;
use crate::irql::PASSIVE_LEVEL;
use crate::report::bug_check::{Violation, codes};
use crate::report::trace::Operation;
use ksync_sys::{KAPC, PKNORMAL_ROUTINE};
use std::collections::VecDeque;

/// The kernel APC disable counter of a fresh system thread: it starts inside a critical region (rule 26).
pub(crate) const START_REGION: i16 = -1;

/// A thread's APC state.
#[derive(Debug)]
pub(crate) struct ApcState {
    /// KernelApcDisable: negative inside critical regions and while a KMUTEX is owned.
    pub(crate) kernel_disable: i16,
    /// SpecialApcDisable: negative inside guarded regions.
    pub(crate) special_disable: i16,
    /// Guarded regions that KeEnterGuardedRegion has entered, and not a mutex.
    guarded_regions: u16,
    /// How many critical regions it has entered by their own routine and not left.
    critical_regions: u16,
    /// Special kernel APCs first, then normal ones, each kind in order of insertion.
    pub(crate) kernel: VecDeque<*mut KAPC>,
    pub(crate) user: VecDeque<*mut KAPC>,
    pub(crate) user_pending: bool,
    /// Alerted in kernel mode, in user mode.
    pub(crate) alerted: [bool; 2],
    /// A normal routine runs: no other normal one may interrupt it.
    pub(crate) in_progress: bool,
    /// The thread ends, and has left the region that it started in.
    pub(crate) start_region_left: bool,
    /// The thread ends, and takes no APCs any more.
    pub(crate) closed: bool,
}

impl ApcState {
    /// True when a pending kernel APC may run at this level: a special one first; a normal one only outside critical regions and while no other normal one is in progress (rule 25).
    pub(crate) fn can_deliver(&self, level: u8) -> bool {
        let Some(&first) = self.kernel.front() else { return false };
        let regions_allow = self.special_disable == 0 && level == PASSIVE_LEVEL;
        regions_allow && (is_special(first) || self.kernel_disable == 0 && !self.in_progress)
    }
}

impl Default for ApcState {
    fn default() -> Self {
        Self {
            kernel_disable: START_REGION,
            special_disable: 0,
            guarded_regions: 0,
            critical_regions: 0,
            kernel: VecDeque::new(),
            user: VecDeque::new(),
            user_pending: false,
            alerted: [false; 2],
            in_progress: false,
            start_region_left: false,
            closed: false,
        }
    }
}

impl ApcState {
    /// Becomes that of a fresh thread, and keeps its memory.
    pub(super) fn recycle(&mut self) {
        let (mut kernel, mut user) = (std::mem::take(&mut self.kernel), std::mem::take(&mut self.user));
        kernel.clear();
        user.clear();
        *self = Self { kernel, user, ..Self::default() };
    }

    /// KeAreApcsDisabled: both counters, not the IRQL (rule 23).
    pub(crate) fn normal_disabled(&self) -> bool {
        self.kernel_disable != 0 || self.special_disable != 0
    }
}

impl Kernel {
    /// Enters a guarded region by its own routine.
    pub(crate) fn enter_guarded_region(&mut self) -> Check<()> {
        let Some(tid) = self.current_thread() else { return Ok(()) };
        let entered = self.thread(tid).apc.guarded_regions;
        if entered > 0 && self.config.rules.has(RuleId::GuardedRegions) {
            return Err(Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::GUARDED_REGIONS, u64::from(entered), 0, 0],
                "a guarded region was entered within another (rule GuardedRegions)",
            ));
        }
        self.change_region(true, -1)?;
        self.thread(tid).apc.guarded_regions = entered.saturating_add(1);
        Ok(())
    }

    /// Leaves a guarded region by its own routine.
    pub(crate) fn leave_guarded_region(&mut self) -> Check<()> {
        if let Some(tid) = self.current_thread() {
            let entered = &mut self.thread(tid).apc.guarded_regions;
            *entered = entered.saturating_sub(1);
        }
        self.change_region(true, 1)
    }

    /// Enters a critical region by its own routine.
    pub(crate) fn enter_critical_region(&mut self) -> Check<()> {
        self.change_region(false, -1)?;
        if let Some(tid) = self.current_thread() {
            let entered = &mut self.thread(tid).apc.critical_regions;
            *entered = entered.saturating_add(1);
        }
        Ok(())
    }

    /// Leaves a critical region by its own routine.
    pub(crate) fn leave_critical_region(&mut self) -> Check<()> {
        self.change_region(false, 1)?;
        let Some(tid) = self.current_thread() else { return Ok(()) };
        let apc = &mut self.thread(tid).apc;
        let (own, disabled) = (apc.critical_regions > 0, apc.kernel_disable as u16);
        apc.critical_regions = apc.critical_regions.saturating_sub(1);
        if own || !self.config.rules.has(RuleId::CriticalRegions) {
            return Ok(());
        }
        Err(Violation::boxed(
            codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [codes::verifier::CRITICAL_REGIONS, u64::from(disabled), 0, 0],
            "a thread left a critical region that it has not entered itself (rule CriticalRegions)",
        ))
    }

    /// Changes a region counter of the running thread.
    pub(crate) fn change_region(&mut self, guarded: bool, by: i16) -> Check<()> {
        let Some(tid) = self.current_thread() else { return Ok(()) };
        let thread = self.thread(tid);
        let counter = if guarded { &mut thread.apc.special_disable } else { &mut thread.apc.kernel_disable };
        let Some(value) = counter.checked_add(by) else {
            return Err(Violation::boxed(
                codes::APC_INDEX_MISMATCH,
                [0, *counter as u16 as u64, 0, 0],
                "a critical or guarded region was entered too often",
            ));
        };
        if value > 0 {
            let value = u64::from(value as u16);
            return Err(Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::REGION_LEFT_TOO_OFTEN, value, 0, 0],
                "a critical or guarded region was left more often than it was entered",
            ));
        }
        *counter = value;
        let pending = value == 0 && !thread.apc.kernel.is_empty();
        self.attention |= pending;
        Ok(())
    }

    /// Takes the next deliverable kernel APC of the running thread off its queue.
    pub(crate) fn take_apc(&mut self, tid: Tid) -> Option<*mut KAPC> {
        let level = self.irql();
        let state = &mut self.threads[tid as usize].apc;
        let apc = state.can_deliver(level).then(|| state.kernel.pop_front()).flatten()?;
        // SAFETY: a queued APC's memory is valid until it is delivered, by the contract of KeInsertQueueApc.
        unsafe { (*apc).Inserted = 0 };
        let number = self.thread_number(tid);
        self.record(Operation::DeliverApc, number, 0);
        Some(apc)
    }

    /// Queues an initialised APC. False when it is queued already or the thread is ending.
    pub(crate) fn insert_apc(&mut self, apc: *mut KAPC, increment: i32) -> Check<bool> {
        // SAFETY: the caller of KeInsertQueueApc passes an initialised APC.
        let value = unsafe { apc.read() };
        let tid = self.thread_at(value.Thread)?;
        if value.Inserted != 0 || self.threads[tid as usize].apc.closed {
            return Ok(false);
        }
        // SAFETY: as above.
        unsafe { (*apc).Inserted = 1 };
        let number = self.thread_number(tid);
        self.record(Operation::InsertApc, number, 0);
        let user = value.ApcMode != 0 && value.NormalRoutine.is_some();
        let thread = self.thread(tid);
        if user {
            thread.apc.user.push_back(apc);
        } else if value.NormalRoutine.is_none() {
            let specials = thread.apc.kernel.iter().take_while(|&&queued| is_special(queued)).count();
            thread.apc.kernel.insert(specials, apc);
        } else {
            thread.apc.kernel.push_back(apc);
        }
        self.wake_for_apc(tid, user, value.NormalRoutine.is_none(), increment)?;
        self.attention = true;
        Ok(true)
    }

    /// A waiting thread is woken for an APC only if it waits at PASSIVE_LEVEL and its regions allow it.
    fn wake_for_apc(&mut self, tid: Tid, user: bool, special: bool, increment: i32) -> Check<()> {
        let thread = self.thread(tid);
        if thread.state != State::Waiting {
            return Ok(());
        }
        let request = thread.wait.request;
        if user {
            if request.alertable && request.user_mode {
                thread.apc.user_pending = true;
                self.check_waited(tid)?;
                self.end_wait(tid, ksync_sys::STATUS_USER_APC, increment);
            }
            return Ok(());
        }
        let allowed = thread.apc.special_disable == 0
            && (special || (thread.apc.kernel_disable == 0 && !thread.apc.in_progress))
            && thread.irql == PASSIVE_LEVEL;
        if allowed { self.interrupt_wait(tid) } else { Ok(()) }
    }

    /// Takes the next user APC of the running thread off its queue, if a wait was broken off for one.
    pub(crate) fn take_user_apc(&mut self) -> Option<*mut KAPC> {
        let tid = self.this_thread();
        let thread = self.thread(tid);
        if !thread.apc.user_pending {
            return None;
        }
        let Some(apc) = thread.apc.user.pop_front() else {
            thread.apc.user_pending = thread.terminating;
            return None;
        };
        // SAFETY: a queued APC's memory is valid until it is delivered, by the contract of KeInsertQueueApc.
        unsafe { (*apc).Inserted = 0 };
        let number = self.thread_number(tid);
        self.record(Operation::DeliverApc, number, 1);
        Some(apc)
    }

    /// The running thread ends: if it leaves no level and no region behind, the one that it started in is over too.
    pub(crate) fn leave_start_region(&mut self) {
        let tid = self.this_thread();
        let level = self.irql();
        let apcs = &mut self.thread(tid).apc;
        if level == PASSIVE_LEVEL && (apcs.kernel_disable, apcs.special_disable) == (START_REGION, 0) {
            apcs.kernel_disable = 0;
            apcs.start_region_left = true;
            let held_back = !apcs.kernel.is_empty();
            self.attention |= held_back;
        }
    }

    /// The running thread has ended but for this: it takes no APCs any more, and its user APCs are run down. Returns the next of them.
    pub(crate) fn take_apc_of_ending_thread(&mut self) -> Option<*mut KAPC> {
        let tid = self.this_thread();
        let apcs = &mut self.thread(tid).apc;
        apcs.closed = true;
        let apc = apcs.user.pop_front()?;
        // SAFETY: as in `take_user_apc`.
        unsafe { (*apc).Inserted = 0 };
        Some(apc)
    }

    /// Someone wants a thread to end: its waits in user mode are over (rule 17).
    pub(crate) fn request_termination(&mut self, tid: Tid) {
        let thread = self.thread(tid);
        thread.terminating = true;
        thread.apc.user_pending = true;
        if thread.state == State::Waiting && thread.wait.request.user_mode {
            self.end_wait(tid, ksync_sys::STATUS_USER_APC, 0);
        }
    }

    /// Takes an APC off its queue. True when it was there.
    pub(crate) fn remove_apc(&mut self, apc: *mut KAPC) -> Check<bool> {
        // SAFETY: the caller of KeRemoveQueueApc passes an initialised APC.
        let value = unsafe { apc.read() };
        if value.Inserted == 0 {
            return Ok(false);
        }
        let tid = self.thread_at(value.Thread)?;
        let thread = self.thread(tid);
        thread.apc.kernel.retain(|&queued| queued != apc);
        thread.apc.user.retain(|&queued| queued != apc);
        // SAFETY: as above.
        unsafe { (*apc).Inserted = 0 };
        Ok(true)
    }

    /// Alerts a thread in a mode. Returns whether it was alerted already.
    pub(crate) fn alert_thread(&mut self, tid: Tid, user_mode: bool) -> Check<bool> {
        let number = self.thread_number(tid);
        self.record(Operation::AlertThread, number, u64::from(user_mode));
        let thread = self.thread(tid);
        let mode = usize::from(user_mode);
        let previous = thread.apc.alerted[mode];
        if previous {
            return Ok(true);
        }
        let request = thread.wait.request;
        // A kernel-mode alert ends any alertable wait, a user-mode one only those in user mode.
        if thread.state == State::Waiting && request.alertable && (request.user_mode || !user_mode) {
            self.check_waited(tid)?;
            self.end_wait(tid, ksync_sys::STATUS_ALERTED, 0);
        } else {
            thread.apc.alerted[mode] = true;
        }
        Ok(false)
    }

    /// KeTestAlertThread: takes an alert of the running thread in a mode, and marks user APCs for delivery.
    pub(crate) fn test_alert(&mut self, user_mode: bool) -> bool {
        let tid = self.this_thread();
        let apc = &mut self.thread(tid).apc;
        let alerted = std::mem::take(&mut apc.alerted[usize::from(user_mode)]);
        if !alerted && user_mode && !apc.user.is_empty() {
            apc.user_pending = true;
        }
        alerted
    }
}

/// A special kernel APC has no normal routine.
fn is_special(apc: *mut KAPC) -> bool {
    // SAFETY: a queued APC's memory is valid until it is delivered, by the contract of KeInsertQueueApc.
    let normal: PKNORMAL_ROUTINE = unsafe { (*apc).NormalRoutine };
    normal.is_none()
}
