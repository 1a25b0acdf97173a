//! KQUEUE: kernel queues with a limit on active threads (rule 20).

use super::kernel::{Check, Kernel};
use super::layout;
use super::object::{Kind, ObjId};
use super::thread::Tid;
use super::wait::{Begun, WaitRequest};
use crate::report::bug_check::{Violation, codes};
use crate::report::trace::Operation;
use ksync_sys::{KQUEUE, LIST_ENTRY, STATUS_ABANDONED};
use std::collections::VecDeque;

/// A queue's state beside its header. `SignalState` counts the entries.
#[derive(Debug)]
pub(crate) struct QueueState {
    pub(crate) entries: VecDeque<usize>,
    pub(crate) maximum: u32,
    /// Threads that removed an entry and have neither come back nor blocked elsewhere.
    pub(crate) active: u32,
}

impl Kernel {
    /// Registers a queue.
    ///
    /// # Safety
    /// `queue` points to writable memory of a KQUEUE.
    pub(crate) unsafe fn initialize_queue(&mut self, queue: *mut KQUEUE, count: u32) -> Check<()> {
        let maximum = if count == 0 { u32::from(self.config.processors) } else { count };
        let state = QueueState { entries: VecDeque::new(), maximum, active: 0 };
        // SAFETY: by the caller's contract.
        unsafe {
            self.initialize_dispatcher(
                queue.cast(),
                ksync_sys::QueueObject,
                size_of::<KQUEUE>(),
                0,
                Kind::Queue(Box::new(state)),
            )?;
        }
        let id = self.queue_at(queue)?;
        self.forget_queue(id);
        // SAFETY: by the caller's contract.
        unsafe { layout::write_queue_tail(queue, maximum) };
        Ok(())
    }

    /// The queue at `pointer`.
    pub(crate) fn queue_at(&mut self, pointer: *const KQUEUE) -> Check<ObjId> {
        self.object_of_kind(pointer, "queue", |kind| matches!(kind, Kind::Queue(_)))
    }

    fn queue_state(&mut self, id: ObjId) -> &mut QueueState {
        match &mut self.objects[id].kind {
            Kind::Queue(state) => state,
            _ => unreachable!("the caller found a queue here"),
        }
    }

    /// Adds an entry at the tail or the head. Returns how many there were.
    pub(crate) fn insert_queue(&mut self, id: ObjId, entry: *mut LIST_ENTRY, head: bool) -> Check<i32> {
        let previous = self.objects[id].signal_state();
        let number = self.objects[id].number;
        self.record(Operation::InsertQueue, number, previous as u32 as u64);
        self.order_published(id);
        let state = self.queue_state(id);
        if state.entries.contains(&(entry as usize)) {
            return Err(Violation::boxed(
                codes::INVALID_WORK_QUEUE_ITEM,
                [0, entry as u64, self.objects[id].address as u64, 0],
                "an entry was inserted into a queue that it is in already",
            ));
        }
        if head {
            state.entries.push_front(entry as usize);
        } else {
            state.entries.push_back(entry as usize);
        }
        // A queued entry has links that are not null, and a removed one has a null Flink (rule 20, bug check 0x96).
        // SAFETY: the caller of KeInsertQueue passes a valid entry.
        unsafe { entry.write(LIST_ENTRY { Flink: entry, Blink: entry }) };
        let count = state.entries.len() as i32;
        self.objects[id].set_signal_state(count);
        self.serve_queue(id)?;
        Ok(previous)
    }

    /// Hands entries to waiting threads, the last that came first, while the limit on active threads allows.
    pub(crate) fn serve_queue(&mut self, id: ObjId) -> Check<()> {
        loop {
            let state = self.queue_state(id);
            if state.entries.is_empty() || state.active >= state.maximum {
                return Ok(());
            }
            let Some(waiter) = self.objects[id].waiters.back().copied() else { return Ok(()) };
            self.take_queue_entry(id, waiter.thread);
            self.end_wait(waiter.thread, 0, 0);
        }
    }

    /// Gives the first entry to a thread, which is active from now on.
    pub(crate) fn take_queue_entry(&mut self, id: ObjId, tid: Tid) {
        let state = self.queue_state(id);
        let Some(entry) = state.entries.pop_front() else { return };
        state.active += 1;
        let count = state.entries.len() as i32;
        self.order_learned(id, tid);
        self.objects[id].set_signal_state(count);
        let thread = self.thread(tid);
        thread.queue = Some(id);
        thread.wait.entry = entry as *mut LIST_ENTRY;
        let entry = entry as *mut LIST_ENTRY;
        // SAFETY: an entry stays valid while it is in the queue, by the contract of KeInsertQueue.
        unsafe { (*entry).Flink = std::ptr::null_mut() };
    }

    /// Takes entries for a thread that has got one already: it counts as one thread that is active, whatever it took.
    pub(crate) fn take_more_queue_entries(&mut self, id: ObjId, most: usize) -> Vec<*mut LIST_ENTRY> {
        let state = self.queue_state(id);
        let count = state.entries.len().min(most);
        let taken: Vec<_> = state.entries.drain(..count).map(|entry| entry as *mut LIST_ENTRY).collect();
        let left = state.entries.len() as i32;
        self.objects[id].set_signal_state(left);
        for &entry in &taken {
            // SAFETY: an entry stays valid while it is in the queue, by the contract of KeInsertQueue.
            unsafe { (*entry).Flink = std::ptr::null_mut() };
        }
        taken
    }

    /// The queue that a thread serves, unless something else has taken its place in memory that no check watches.
    fn served_queue(&mut self, tid: Tid) -> Option<ObjId> {
        let id = self.threads[tid as usize].queue?;
        if !matches!(self.objects[id].kind, Kind::Queue(_)) {
            self.thread(tid).queue = None;
        }
        self.threads[tid as usize].queue
    }

    /// The thread is no longer active for the queue that it served: it came back, blocked elsewhere or ended.
    pub(crate) fn deactivate_queue_thread(&mut self, tid: Tid) -> Check<()> {
        let Some(id) = self.served_queue(tid) else { return Ok(()) };
        let state = self.queue_state(id);
        state.active = state.active.saturating_sub(1);
        self.serve_queue(id)
    }

    /// The thread runs again after it had blocked elsewhere.
    pub(crate) fn reactivate_queue_thread(&mut self, tid: Tid) {
        if let Some(id) = self.served_queue(tid) {
            self.queue_state(id).active += 1;
        }
    }

    /// No thread serves the queue any more: it is gone, new, or run down.
    pub(crate) fn forget_queue(&mut self, id: ObjId) {
        for thread in &mut self.threads {
            if thread.queue == Some(id) {
                thread.queue = None;
            }
        }
    }

    /// Begins KeRemoveQueue for the running thread.
    pub(crate) fn begin_remove_queue(&mut self, id: ObjId, request: WaitRequest) -> Check<Begun> {
        let tid = self.this_thread();
        if self.threads[tid as usize].queue.is_some() {
            self.deactivate_queue_thread(tid)?;
            self.thread(tid).queue = None;
        }
        let thread = self.thread(tid);
        thread.wait.entry = std::ptr::null_mut();
        thread.wait.objects.clear();
        let state = self.queue_state(id);
        if !state.entries.is_empty() && state.active < state.maximum {
            self.take_queue_entry(id, tid);
            return Ok(Begun::Done(0));
        }
        self.block_on_queue(id, request)
    }

    /// Removes all entries and wakes the waiting threads with STATUS_ABANDONED. Returns the entries, first first.
    pub(crate) fn rundown_queue(&mut self, id: ObjId) -> Vec<usize> {
        let state = self.queue_state(id);
        state.active = 0;
        let entries = std::mem::take(&mut state.entries);
        self.forget_queue(id);
        self.objects[id].set_signal_state(0);
        while let Some(waiter) = self.objects[id].waiters.front().copied() {
            self.end_wait(waiter.thread, STATUS_ABANDONED, 0);
        }
        entries.into()
    }
}
