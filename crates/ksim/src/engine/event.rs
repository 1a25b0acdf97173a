//! Events.

use super::kernel::{Check, Kernel};
use super::object::{Kind, ObjId};
use crate::report::trace::Operation;
use ksync_sys::KEVENT;

impl Kernel {
    /// Registers an event.
    ///
    /// # Safety
    /// `event` points to writable memory of a KEVENT.
    pub(crate) unsafe fn initialize_event(&mut self, event: *mut KEVENT, notification: bool, signaled: bool) -> Check<ObjId> {
        let object_type = if notification { ksync_sys::EventNotificationObject } else { ksync_sys::EventSynchronizationObject };
        let kind = Kind::Event { notification };
        // SAFETY: by this function's contract.
        unsafe { self.initialize_dispatcher(event.cast(), object_type, size_of::<KEVENT>(), i32::from(signaled), kind) }
    }

    /// The event at `pointer`.
    #[inline]
    pub(crate) fn event_at(&mut self, pointer: *const KEVENT) -> Check<ObjId> {
        self.object_of_kind(pointer, "event", |kind| matches!(kind, Kind::Event { .. }))
    }

    /// Sets an event and serves its waiters. Returns the previous state as it was stored (rule 1).
    #[inline]
    pub(crate) fn set_event(&mut self, id: ObjId, increment: i32) -> Check<i32> {
        self.order_published(id);
        self.set_event_of_lock(id, increment)
    }

    /// Sets an event that is part of a lock: the order in which a lock is had is no order that a check could rely on.
    #[inline]
    pub(crate) fn set_event_of_lock(&mut self, id: ObjId, increment: i32) -> Check<i32> {
        let object = &self.objects[id];
        let previous = object.signal_state();
        let number = object.number;
        object.set_signal_state(1);
        self.record(Operation::SetEvent, number, previous as u32 as u64);
        self.satisfy_waiters(id, increment)?;
        Ok(previous)
    }

    /// Satisfies the waits that are there now and leaves the event not signaled (rule 2).
    pub(crate) fn pulse_event(&mut self, id: ObjId, increment: i32) -> Check<i32> {
        let previous = self.objects[id].signal_state();
        let number = self.objects[id].number;
        self.record(Operation::PulseEvent, number, previous as u32 as u64);
        self.order_published(id);
        self.objects[id].set_signal_state(1);
        self.satisfy_waiters(id, increment)?;
        self.objects[id].set_signal_state(0);
        Ok(previous)
    }

    /// Clears an event. Returns the previous state.
    pub(crate) fn reset_event(&mut self, id: ObjId) -> i32 {
        let object = &self.objects[id];
        let previous = object.signal_state();
        let number = object.number;
        object.set_signal_state(0);
        self.record(Operation::ResetEvent, number, previous as u32 as u64);
        previous
    }

    /// Reads the signal state of any dispatcher object.
    pub(crate) fn read_state(&mut self, id: ObjId) -> i32 {
        let state = self.objects[id].signal_state();
        let number = self.objects[id].number;
        self.record(Operation::ReadState, number, state as u32 as u64);
        self.has_polled(self.objects[id].address, state);
        state
    }
}
