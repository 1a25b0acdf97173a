//! Waiting: on one object, on several (any, all), and for a time.
//!
//! A wait is in this order (rules 13 and 17): the objects, in index order; then alerts and user APCs; then the zero
//! timeout; then the thread blocks. Waiters of one object are served first come, first served (rule 4).

use super::kernel::{Check, Executing, Kernel};
use super::layout;
use super::object::{Kind, ObjId, SYSTEM, Waiter};
use super::thread::{State, Tid};
use super::timer::{Due, Expiry, Target};
use crate::check::lock_order::Wanted;
use crate::check::rules::RuleId;
use crate::faults::FaultKind;
use crate::irql::DISPATCH_LEVEL;
use crate::report::bug_check::{Violation, codes};
use crate::report::trace::Operation;
use crate::schedule::Actor;
use ksync_sys::{KWAIT_BLOCK, LIST_ENTRY, NTSTATUS};
use ksync_sys::{STATUS_ABANDONED_WAIT_0, STATUS_ALERTED, STATUS_KERNEL_APC, STATUS_SUCCESS, STATUS_TIMEOUT, STATUS_USER_APC};

/// How long a wait may last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Timeout {
    /// For ever.
    Never,
    /// Not at all.
    Poll,
    /// Until then.
    Until(Due),
}

/// What a wait asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaitRequest {
    pub(crate) all: bool,
    pub(crate) alertable: bool,
    pub(crate) user_mode: bool,
    pub(crate) timeout: Timeout,
    /// The status of expiry: STATUS_TIMEOUT, or STATUS_SUCCESS for a delay (rule 15).
    pub(crate) expired: NTSTATUS,
    /// The caller's wait blocks, when there are more objects than the thread has blocks.
    pub(crate) blocks: *mut KWAIT_BLOCK,
    pub(crate) reason: &'static str,
}

impl WaitRequest {
    /// What nearly all waits ask for.
    pub(crate) const FOR_EVER: Self = Self {
        all: false,
        alertable: false,
        user_mode: false,
        timeout: Timeout::Never,
        expired: STATUS_TIMEOUT,
        blocks: std::ptr::null_mut(),
        reason: "",
    };
}

/// The wait that a thread is in, or was last in.
#[derive(Debug)]
pub(crate) struct Wait {
    pub(crate) objects: Vec<ObjId>,
    pub(crate) request: WaitRequest,
    pub(crate) status: NTSTATUS,
    pub(crate) expiry: Option<Expiry>,
    /// The level that a KeSetEvent(Wait = TRUE) or its like wants the coming wait to return to (rule 3).
    pub(crate) next_irql: Option<u8>,
    /// What the thread waits for, when that is not a dispatcher object.
    pub(crate) parked_on: Option<ObjId>,
    /// For a wait on a KQUEUE: the entry that ended it.
    pub(crate) entry: *mut LIST_ENTRY,
}

impl Default for Wait {
    fn default() -> Self {
        Self {
            objects: Vec::new(),
            request: WaitRequest::FOR_EVER,
            status: STATUS_SUCCESS,
            expiry: None,
            next_irql: None,
            parked_on: None,
            entry: std::ptr::null_mut(),
        }
    }
}

impl Wait {
    /// Becomes that of a fresh thread, and keeps its memory.
    pub(super) fn recycle(&mut self) {
        let mut objects = std::mem::take(&mut self.objects);
        objects.clear();
        *self = Self { objects, ..Self::default() };
    }
}

/// Stands for a DPC where a thread that waits would be.
const NOBODY: Tid = Tid::MAX;

/// How a wait began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Begun {
    /// It is over, with this status.
    Done(NTSTATUS),
    /// The thread has left its processor.
    Blocked,
}

impl Kernel {
    /// Begins a wait of the running thread on `self.thread(tid).wait.objects`.
    pub(crate) fn begin_wait(&mut self, request: WaitRequest) -> Check<Begun> {
        let tid = self.this_thread();
        if request.timeout == Timeout::Never {
            self.check_order_of_waited(tid, request.all)?;
        }
        if let Some(status) = self.satisfy_now(tid, request.all)? {
            return Ok(Begun::Done(status));
        }
        self.block(tid, &request)
    }

    /// The same for a wait on one object alone, which is what nearly all waits are.
    #[inline]
    pub(crate) fn begin_single_wait(&mut self, id: ObjId, request: &WaitRequest) -> Check<Begun> {
        let tid = self.this_thread();
        if request.timeout == Timeout::Never && matches!(self.objects[id].kind, Kind::Mutant(_)) {
            self.check_lock_order(id, Wanted::Only)?;
        }
        if self.is_signaled_for(id, tid) {
            let abandoned = self.consume(id, tid)?;
            return Ok(Begun::Done(wait_status(0, abandoned)));
        }
        let objects = &mut self.threads[tid as usize].wait.objects;
        objects.clear();
        objects.push(id);
        self.block(tid, request)
    }

    /// A wait for ever of a thread that holds nothing, for an object of the usual kinds, where nobody records it: what most waits are. None where it is not so, and nothing has
    /// been done.
    #[inline]
    pub(crate) fn begin_plain_wait(&mut self, address: usize, request: &WaitRequest) -> Option<Begun> {
        let Executing::Thread(tid) = self.executing else { return None };
        let id = self.objects.find(address)?;
        let level = self.irql();
        let thread = &mut *self.threads[tid as usize];
        let is_unusual = thread.runs_dpcs || thread.wait.next_irql.is_some() || thread.holds_locks();
        let is_unusual = is_unusual || self.config.rules.has(RuleId::WaitStatus);
        if level >= DISPATCH_LEVEL || is_unusual || self.records || self.lock_order.clocks.are_running() {
            return None;
        }
        // The long way comes to the same.
        self.check_live(id).ok()?;
        let thread = &mut *self.threads[tid as usize];
        let object = &mut self.objects[id];
        let count = object.signal_state();
        let left = match &object.kind {
            Kind::Mutant(_) | Kind::Event { notification: false } => 0,
            Kind::Semaphore => count - 1,
            Kind::Event { notification: true } | Kind::Thread(_) => count,
            _ => return None,
        };
        if count <= 0 && (self.config.failing.is_some() || thread.queue.is_some()) {
            return None;
        }
        self.trace.count();
        if count <= 0 {
            thread.wait.objects.clear();
            thread.wait.objects.push(id);
            self.block_plainly(tid, id, request);
            return Some(Begun::Blocked);
        }
        if matches!(object.kind, Kind::Mutant(_)) {
            self.trace.count();
            let abandoned = object.give_mutant(id, thread, tid, false);
            return Some(Begun::Done(wait_status(0, abandoned)));
        }
        object.set_signal_state(left);
        Some(Begun::Done(STATUS_SUCCESS))
    }

    /// The mutexes among what a thread is about to wait for, checked against the order of locks. One of several that will do gives no order.
    fn check_order_of_waited(&mut self, tid: Tid, all: bool) -> Check<()> {
        if !all && self.threads[tid as usize].wait.objects.len() > 1 {
            return Ok(());
        }
        for index in 0..self.threads[tid as usize].wait.objects.len() {
            let id = self.threads[tid as usize].wait.objects[index];
            if matches!(self.objects[id].kind, Kind::Mutant(_)) {
                self.check_lock_order(id, Wanted::Only)?;
            }
        }
        Ok(())
    }

    /// Begins a wait for an entry of a queue that has none to give.
    pub(crate) fn block_on_queue(&mut self, id: ObjId, request: WaitRequest) -> Check<Begun> {
        let tid = self.this_thread();
        self.thread(tid).wait.objects.push(id);
        self.block(tid, &request)
    }

    /// The part of a wait after its objects turned out not to be signaled.
    fn block(&mut self, tid: Tid, request: &WaitRequest) -> Check<Begun> {
        if (request.alertable || request.user_mode)
            && let Some(status) = self.check_alertability(tid, request.alertable, request.user_mode)
        {
            return Ok(Begun::Done(status));
        }
        let due = match request.timeout {
            Timeout::Poll => return Ok(Begun::Done(request.expired)),
            Timeout::Never => None,
            Timeout::Until(due) if self.clock.is_past(due) => return Ok(Begun::Done(request.expired)),
            Timeout::Until(due) => Some(due),
        };
        self.check_blocking(tid)?;
        if self.config.failing.is_some()
            && let Some(status) = self.injected_end(request)
        {
            return Ok(Begun::Done(status));
        }
        let expiry = due.map(|due| self.timers.insert_wait(due, tid, self.cpu));
        let thread = &mut *self.threads[tid as usize];
        thread.wait.request = *request;
        thread.wait.expiry = expiry;
        thread.wait.status = STATUS_SUCCESS;
        thread.state = State::Waiting;
        let serves = thread.queue.is_some();
        if self.trace.is_enabled() {
            self.note_block(tid);
        }
        self.enqueue_waits(tid);
        if serves {
            self.deactivate_queue_thread(tid)?;
        }
        self.leave_processor();
        Ok(Begun::Blocked)
    }

    /// The same for a wait for ever for one object, in a run and of a thread without anything special.
    #[inline(never)]
    fn block_plainly(&mut self, tid: Tid, id: ObjId, request: &WaitRequest) {
        let thread = &mut *self.threads[tid as usize];
        thread.wait.request = *request;
        thread.wait.expiry = None;
        thread.wait.status = STATUS_SUCCESS;
        thread.state = State::Waiting;
        self.enqueue_wait(Waiter { thread: tid, slot: 0 }, id);
        self.leave_processor();
    }

    /// The status of a wait that is to end here though nothing ends it: a fault.
    fn injected_end(&mut self, request: &WaitRequest) -> Option<NTSTATUS> {
        let fault = self.config.failing?;
        let (can_fail, status) = match fault.kind {
            FaultKind::Timeout => (request.timeout != Timeout::Never && request.expired == STATUS_TIMEOUT, STATUS_TIMEOUT),
            FaultKind::Alert => (request.alertable, STATUS_ALERTED),
            FaultKind::UserApc => (request.user_mode, STATUS_USER_APC),
            FaultKind::Allocation | FaultKind::Thread | FaultKind::Object => return None,
        };
        self.failing += u64::from(can_fail);
        (can_fail && self.failing == fault.n).then_some(status)
    }

    /// Blocks the running thread for something that is not a dispatcher object, and keeps its own list of who waits.
    /// A kernel APC may end the wait early: whoever parks looks again when it goes on.
    pub(crate) fn park(&mut self, on: ObjId, reason: &'static str) -> Check<()> {
        let tid = self.this_thread();
        self.check_blocking(tid)?;
        let thread = &mut self.threads[tid as usize];
        thread.wait.objects.clear();
        thread.wait.parked_on = Some(on);
        thread.wait.expiry = None;
        thread.wait.status = STATUS_SUCCESS;
        thread.wait.request = WaitRequest { reason, ..WaitRequest::FOR_EVER };
        thread.state = State::Waiting;
        if self.trace.is_enabled() {
            self.note_block(tid);
        }
        if self.threads[tid as usize].queue.is_some() {
            self.deactivate_queue_thread(tid)?;
        }
        self.leave_processor();
        Ok(())
    }

    /// Records that a thread blocks, and on what: for a fast mutex that is the mutex, not the event in it.
    #[inline(never)]
    fn note_block(&mut self, tid: Tid) {
        let wait = &self.threads[tid as usize].wait;
        let count = wait.objects.len().max(usize::from(wait.parked_on.is_some_and(|id| id != SYSTEM))) as u64;
        let first = wait.parked_on.filter(|&id| id != SYSTEM).or(wait.objects.first().copied());
        let mutex = first.and_then(|id| self.fast_mutex_of_event(id));
        let number = mutex.or(first).map_or(0, |id| self.objects[id].number);
        self.note(Operation::Block, number, count);
    }

    /// Lets a thread go on that is parked on `on`. One that runs an APC instead looks again by itself.
    pub(crate) fn unpark(&mut self, tid: Tid, on: ObjId) {
        let thread = &self.threads[tid as usize];
        if thread.state == State::Waiting && thread.wait.parked_on == Some(on) {
            if on == SYSTEM {
                self.order_ended();
                self.order_end_seen(tid);
            } else if matches!(self.objects[on].kind, Kind::Rundown(_)) {
                self.order_published(on);
                self.order_learned(on, tid);
            }
            self.end_wait(tid, STATUS_SUCCESS, 0);
        }
    }

    /// Puts the thread at the tail of the wait list of each object that it waits on.
    #[inline]
    fn enqueue_waits(&mut self, tid: Tid) {
        // Nearly all waits are for one.
        if let [id] = self.threads[tid as usize].wait.objects[..] {
            return self.enqueue_wait(Waiter { thread: tid, slot: 0 }, id);
        }
        let objects = std::mem::take(&mut self.threads[tid as usize].wait.objects);
        for (slot, &id) in objects.iter().enumerate() {
            self.objects[id].of_several = true;
            self.enqueue_wait(Waiter { thread: tid, slot: slot as u16 }, id);
        }
        self.threads[tid as usize].wait.objects = objects;
    }

    /// Puts a waiter at the tail of an object's list, with its true KWAIT_BLOCK.
    #[inline(always)]
    fn enqueue_wait(&mut self, waiter: Waiter, id: ObjId) {
        let (thread, object) = (&mut *self.threads[waiter.thread as usize], &self.objects[id]);
        let block = thread.wait_block(waiter.slot);
        let mut value = layout::WAIT_BLOCK;
        value.WaitType = if thread.wait.request.all { ksync_sys::WaitAll } else { ksync_sys::WaitAny } as u8;
        value.WaitKey = waiter.slot;
        value.Thread = thread.address() as *mut _;
        value.Object = object.address as *mut _;
        // SAFETY: `wait_block` gave a block that is writable while its thread waits.
        unsafe { block.write(value) };
        self.link_last(id, waiter);
    }

    /// The list entry of a wait block, or the head of the object's list for none.
    #[inline]
    pub(super) fn list_entry(&mut self, id: ObjId, waiter: Option<Waiter>) -> *mut LIST_ENTRY {
        match waiter {
            None => self.objects[id].wait_list_head(),
            Some(waiter) => {
                let block = self.threads[waiter.thread as usize].wait_block(waiter.slot);
                // SAFETY: a field address within a block that is alive while its thread waits.
                unsafe { &raw mut (*block).WaitListEntry }
            }
        }
    }

    /// Links a wait block behind all others in the true list. The list is only ever written from here: the
    /// engine's own wait list is the one it trusts.
    #[inline(always)]
    fn link_last(&mut self, id: ObjId, waiter: Waiter) {
        let entry = self.list_entry(id, Some(waiter));
        let object = &mut self.objects[id];
        let head = object.wait_list_head();
        let previous = object.waiters.back().copied();
        object.waiters.push_back(waiter);
        let before = if previous.is_some() { self.list_entry(id, previous) } else { head };
        // SAFETY: all three are entries of live wait blocks or the head in the live object.
        unsafe {
            entry.write(LIST_ENTRY { Flink: head, Blink: before });
        }
        // SAFETY: as above.
        unsafe { (*before).Flink = entry };
        // SAFETY: as above.
        unsafe { (*head).Blink = entry };
    }

    /// Makes two entries neighbours in the true list.
    fn connect(before: *mut LIST_ENTRY, after: *mut LIST_ENTRY) {
        // SAFETY: both are entries of live wait blocks or the head in the live object.
        unsafe { (*before).Flink = after };
        // SAFETY: as above.
        unsafe { (*after).Blink = before };
    }

    /// Takes a waiter off an object's list, if it is there.
    #[inline]
    fn leave_list(&mut self, id: ObjId, wanted: Waiter) {
        let object = &mut self.objects[id];
        if object.waiters.front() != Some(&wanted) || object.waiters.len() > 1 {
            return self.leave_long_list(id, wanted);
        }
        object.waiters.clear();
        let head = object.wait_list_head();
        Self::connect(head, head);
    }

    #[inline(never)]
    fn leave_long_list(&mut self, id: ObjId, wanted: Waiter) {
        if let Some(position) = self.objects[id].waiters.iter().position(|waiter| *waiter == wanted) {
            self.unlink_waiter(id, position);
        }
    }

    /// Takes the waiter at `position` off an object's list.
    fn unlink_waiter(&mut self, id: ObjId, position: usize) {
        let waiters = &mut self.objects[id].waiters;
        let previous = position.checked_sub(1).map(|index| waiters[index]);
        let next = waiters.get(position + 1).copied();
        if position == 0 {
            waiters.pop_front();
        } else {
            waiters.remove(position);
        }
        let (before, after) = (self.list_entry(id, previous), self.list_entry(id, next));
        Self::connect(before, after);
    }

    /// Moves the first waiter, which tested its other objects in vain, behind the others, as the dispatcher does (rule 13).
    fn requeue_first_waiter(&mut self, id: ObjId) {
        let waiter = self.objects[id].waiters[0];
        self.unlink_waiter(id, 0);
        self.link_last(id, waiter);
    }

    /// Satisfies a wait at once if its objects allow it. The status, if so.
    #[inline]
    fn satisfy_now(&mut self, tid: Tid, all: bool) -> Check<Option<NTSTATUS>> {
        let objects = std::mem::take(&mut self.threads[tid as usize].wait.objects);
        let result = self.satisfy_from(tid, &objects, all);
        self.threads[tid as usize].wait.objects = objects;
        result
    }

    fn satisfy_from(&mut self, tid: Tid, objects: &[ObjId], all: bool) -> Check<Option<NTSTATUS>> {
        if all {
            if objects.is_empty() || !objects.iter().all(|&id| self.is_signaled_for(id, tid)) {
                return Ok(None);
            }
            return self.consume_all(tid, objects).map(Some);
        }
        for (index, &id) in objects.iter().enumerate() {
            if self.is_signaled_for(id, tid) {
                let abandoned = self.consume(id, tid)?;
                return Ok(Some(wait_status(index, abandoned)));
            }
        }
        Ok(None)
    }

    /// A wait with a zero timeout in a DPC: it acts for nobody, so that it cannot take a mutex.
    pub(crate) fn poll_in_dpc(&mut self, objects: &[ObjId], request: WaitRequest) -> Check<Begun> {
        for &id in objects {
            if matches!(self.objects[id].kind, Kind::Mutant(_)) {
                return Err(Violation::boxed(
                    codes::ATTEMPTED_SWITCH_FROM_DPC,
                    [0, self.objects[id].address as u64, 0, 0],
                    "a DPC routine tried to take a mutex, which would belong to the thread that it interrupted",
                ));
            }
        }
        let status = self.satisfy_from(NOBODY, objects, request.all)?;
        Ok(Begun::Done(status.unwrap_or(request.expired)))
    }

    /// Consumes all objects of a WaitAll at once.
    fn consume_all(&mut self, tid: Tid, objects: &[ObjId]) -> Check<NTSTATUS> {
        let mut status = STATUS_SUCCESS;
        for &id in objects {
            if self.races.enabled && tid != NOBODY {
                // Also after what has signaled the others, before the last.
                self.races.learns(Actor::thread(tid), self.objects[id].address);
            }
            if self.consume(id, tid)? {
                status = STATUS_ABANDONED_WAIT_0;
            }
        }
        Ok(status)
    }

    /// True when a wait of `tid` on the object would be satisfied.
    #[inline]
    pub(crate) fn is_signaled_for(&self, id: ObjId, tid: Tid) -> bool {
        let object = &self.objects[id];
        if object.signal_state() > 0 {
            return true;
        }
        matches!(&object.kind, Kind::Mutant(state) if state.owner == Some(tid))
    }

    /// What a satisfied wait does to the object. True when it was an abandoned mutant.
    #[inline(always)]
    fn consume(&mut self, id: ObjId, tid: Tid) -> Check<bool> {
        if tid != NOBODY {
            self.order_learned(id, tid);
        }
        let object = &mut self.objects[id];
        match &mut object.kind {
            Kind::Event { notification: false } => object.set_signal_state(0),
            Kind::Semaphore => {
                object.set_signal_state(object.signal_state() - 1);
                self.note_semaphore_taken(id, tid);
            }
            Kind::Timer(timer) if !timer.notification => object.set_signal_state(0),
            Kind::ExTimer(timer) if !timer.notification => object.set_signal_state(0),
            Kind::Mutant(_) => return self.acquire_mutant(id, tid),
            _ => {}
        }
        Ok(false)
    }

    /// Serves the waiters of an object after it became signaled.
    #[inline]
    pub(crate) fn satisfy_waiters(&mut self, id: ObjId, increment: i32) -> Check<()> {
        if self.objects[id].waiters.is_empty() {
            return Ok(());
        }
        self.serve_waiters(id, increment)
    }

    fn serve_waiters(&mut self, id: ObjId, increment: i32) -> Check<()> {
        // Each waiter is looked at once: it leaves the list, or it moves to the tail and is not looked at again. The next one
        // is always the first.
        for _ in 0..self.objects[id].waiters.len() {
            if self.objects[id].signal_state() <= 0 {
                break;
            }
            let Some(waiter) = self.objects[id].waiters.front().copied() else { break };
            let tid = waiter.thread;
            if self.threads[tid as usize].wait.request.all {
                let objects = std::mem::take(&mut self.threads[tid as usize].wait.objects);
                let there = objects.iter().try_for_each(|&object| self.check_live(object));
                let satisfied = objects.iter().all(|&object| self.is_signaled_for(object, tid));
                let status = match there {
                    Err(fault) => Some(Err(fault)),
                    Ok(()) if satisfied => Some(self.consume_all(tid, &objects)),
                    Ok(()) => None,
                };
                self.threads[tid as usize].wait.objects = objects;
                match status {
                    Some(status) => self.end_wait(tid, status?, increment),
                    None => self.requeue_first_waiter(id),
                }
            } else {
                let abandoned = self.consume(id, tid)?;
                self.end_wait(tid, wait_status(waiter.slot as usize, abandoned), increment);
            }
        }
        Ok(())
    }

    #[inline(never)]
    fn leave_all_lists(&mut self, tid: Tid) {
        for slot in 0..self.threads[tid as usize].wait.objects.len() {
            let id = self.threads[tid as usize].wait.objects[slot];
            self.leave_list(id, Waiter { thread: tid, slot: slot as u16 });
        }
    }

    /// Ends the wait of a blocked thread: it leaves all lists, and is ready with `status`.
    pub(crate) fn end_wait(&mut self, tid: Tid, status: NTSTATUS, increment: i32) {
        if let [id] = self.threads[tid as usize].wait.objects[..] {
            self.leave_list(id, Waiter { thread: tid, slot: 0 });
        } else {
            self.leave_all_lists(tid);
        }
        let thread = &mut *self.threads[tid as usize];
        thread.wait.status = status;
        thread.wait.parked_on = None;
        let (object, serves) = (thread.object, thread.queue.is_some());
        if let Some(expiry) = thread.wait.expiry.take() {
            self.timers.remove(expiry, Target::Wait(tid));
        }
        if self.records {
            self.record(Operation::EndWait, self.objects[object].number, status as u32 as u64);
        } else {
            self.trace.count();
        }
        if serves && !self.waited_for_entry(tid) {
            self.reactivate_queue_thread(tid);
        }
        self.boost(tid, increment);
        self.make_ready_now(tid);
    }

    /// True when the wait was KeRemoveQueue's, and not one of a thread that serves a queue and blocked elsewhere.
    fn waited_for_entry(&self, tid: Tid) -> bool {
        let wait = &self.threads[tid as usize].wait;
        wait.objects.first().is_some_and(|&id| matches!(self.objects[id].kind, Kind::Queue(_)))
    }

    /// The timeout of a blocked thread's wait has expired.
    pub(crate) fn wait_expired(&mut self, tid: Tid) -> Check<()> {
        self.check_waited(tid)?;
        let thread = &mut self.threads[tid as usize];
        thread.wait.expiry = None;
        let status = thread.wait.request.expired;
        self.end_wait(tid, status, 0);
        Ok(())
    }

    /// What ends an alertable or user-mode wait early (rule 17).
    fn check_alertability(&mut self, tid: Tid, alertable: bool, user_mode: bool) -> Option<NTSTATUS> {
        let thread = &mut self.threads[tid as usize];
        let mode = usize::from(user_mode);
        if alertable {
            if std::mem::take(&mut thread.apc.alerted[mode]) {
                return Some(STATUS_ALERTED);
            }
            if user_mode && !thread.apc.user.is_empty() {
                thread.apc.user_pending = true;
                return Some(STATUS_USER_APC);
            }
            if std::mem::take(&mut thread.apc.alerted[0]) {
                return Some(STATUS_ALERTED);
            }
        } else if user_mode && (thread.apc.user_pending || thread.terminating) {
            return Some(STATUS_USER_APC);
        }
        None
    }

    /// Breaks the wait of a thread so that it runs a kernel APC, and then waits again (rule 18).
    pub(crate) fn interrupt_wait(&mut self, tid: Tid) -> Check<()> {
        self.check_waited(tid)?;
        self.end_wait(tid, STATUS_KERNEL_APC, 0);
        Ok(())
    }
}

/// STATUS_WAIT_0 or STATUS_ABANDONED_WAIT_0, plus the index.
#[inline]
pub(super) fn wait_status(index: usize, abandoned: bool) -> NTSTATUS {
    let base = if abandoned { STATUS_ABANDONED_WAIT_0 } else { STATUS_SUCCESS };
    base + index as NTSTATUS
}
