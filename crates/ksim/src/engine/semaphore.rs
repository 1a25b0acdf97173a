//! Semaphores.

use super::kernel::{Check, Kernel};
use super::object::{Kind, ObjId};
use crate::report::bug_check::{Violation, codes};
use crate::report::trace::Operation;
use ksync_sys::{KSEMAPHORE, STATUS_SEMAPHORE_LIMIT_EXCEEDED};

impl Kernel {
    /// Registers a semaphore.
    ///
    /// # Safety
    /// `semaphore` points to writable memory of a KSEMAPHORE.
    pub(crate) unsafe fn initialize_semaphore(&mut self, semaphore: *mut KSEMAPHORE, count: i32, limit: i32) -> Check<()> {
        let (object_type, size) = (ksync_sys::SemaphoreObject, size_of::<KSEMAPHORE>());
        // SAFETY: by this function's contract.
        unsafe { self.initialize_dispatcher(semaphore.cast(), object_type, size, count, Kind::Semaphore)? };
        // SAFETY: as above.
        unsafe { (*semaphore).Limit = limit };
        let id = self.semaphore_at(semaphore)?;
        self.note_semaphore(id, count == limit);
        Ok(())
    }

    /// The semaphore at `pointer`.
    pub(crate) fn semaphore_at(&mut self, pointer: *const KSEMAPHORE) -> Check<ObjId> {
        self.object_of_kind(pointer, "semaphore", |kind| matches!(kind, Kind::Semaphore))
    }

    /// Adds to a semaphore and serves as many waits as that allows. Returns the previous count. Past the limit it
    /// raises and leaves the count as it was (rule 6).
    pub(crate) fn release_semaphore(&mut self, id: ObjId, increment: i32, adjustment: i32) -> Check<i32> {
        if adjustment == 0 {
            return Err(Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::BAD_ARGUMENT, self.objects[id].address as u64, 0, 0],
                "a semaphore was released by 0: the adjustment must be positive",
            ));
        }
        self.check_release_after_wait(id, adjustment)?;
        let object = &self.objects[id];
        let previous = object.signal_state();
        let number = object.number;
        let memory = object.address as *const KSEMAPHORE;
        // SAFETY: a registered semaphore's memory is valid.
        let limit = unsafe { (*memory).Limit };
        match previous.checked_add(adjustment) {
            Some(count) if count <= limit && count >= previous => object.set_signal_state(count),
            _ => {
                return Err(Violation::raised(
                    STATUS_SEMAPHORE_LIMIT_EXCEEDED,
                    format!("semaphore #{number}: {previous} + {adjustment} is not between {previous} and the limit {limit}"),
                ));
            }
        }
        self.record(Operation::ReleaseSemaphore, number, adjustment as u32 as u64);
        self.order_published(id);
        self.satisfy_waiters(id, increment)?;
        Ok(previous)
    }
}
