//! Remove locks (rule 32).

use crate::engine::kernel::{Check, Kernel};
use crate::engine::object::{Kind, ObjId};
use crate::report::bug_check::{Violation, codes};
use crate::report::trace::Operation;
use ksync_sys::{
    IO_REMOVE_LOCK, IO_REMOVE_LOCK_COMMON_BLOCK, IO_REMOVE_LOCK_DBG_BLOCK, KEVENT, NTSTATUS, STATUS_DELETE_PENDING,
    STATUS_SUCCESS,
};

/// A remove lock's state beside its structure.
#[derive(Debug, Default)]
pub(crate) struct RemoveLockState {
    /// The tags of its users, oldest first.
    pub(crate) users: Vec<usize>,
    removed: bool,
    size: u32,
}

/// The sizes that drivers pass: those of the structure in a free and in a checked driver.
const SIZES: [u32; 2] = {
    let common = size_of::<IO_REMOVE_LOCK>();
    [common as u32, (common + size_of::<IO_REMOVE_LOCK_DBG_BLOCK>()) as u32]
};

impl Kernel {
    /// Registers a remove lock.
    pub(crate) fn initialize_remove_lock(&mut self, lock: *mut IO_REMOVE_LOCK, size: u32) -> Check<()> {
        check_size(lock, size)?;
        if let Some(id) = self.objects.find(lock as usize)
            && matches!(&self.objects[id].kind, Kind::RemoveLock(state) if !state.users.is_empty())
        {
            return Err(Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::REINITIALIZED_OBJECT, lock as u64, 0, 0],
                "a remove lock was initialised again while it was in use",
            ));
        }
        let event = remove_event(lock);
        // SAFETY: the caller of the export passes memory of that size.
        unsafe {
            self.initialize_dispatcher(
                event.cast(),
                ksync_sys::EventSynchronizationObject,
                size_of::<KEVENT>(),
                0,
                Kind::Event { notification: false },
            )?;
        }
        let common = common(lock);
        // SAFETY: as above.
        unsafe { (*common).Removed = 0 };
        // SAFETY: as above.
        unsafe { (*common).IoCount = 1 };
        self.objects.register(lock as usize, Kind::RemoveLock(Box::new(RemoveLockState { size, ..Default::default() })));
        Ok(())
    }

    fn remove_lock_at(&mut self, lock: *mut IO_REMOVE_LOCK, size: u32) -> Check<ObjId> {
        let id = self.object_of_kind(lock, "remove lock", |kind| matches!(kind, Kind::RemoveLock(_)))?;
        if self.remove_lock_state(id).size != size {
            check_size(lock, 0)?;
        }
        Ok(id)
    }

    fn remove_lock_state(&mut self, id: ObjId) -> &mut RemoveLockState {
        match &mut self.objects[id].kind {
            Kind::RemoveLock(state) => state,
            _ => unreachable!("the caller found a remove lock here"),
        }
    }

    /// Adds a user, or says that the device is being removed.
    pub(crate) fn acquire_remove_lock(&mut self, lock: *mut IO_REMOVE_LOCK, tag: usize, size: u32) -> Check<NTSTATUS> {
        let id = self.remove_lock_at(lock, size)?;
        let number = self.objects[id].number;
        let state = self.remove_lock_state(id);
        let removed = state.removed;
        if !removed {
            state.users.push(tag);
            self.uses += 1;
            let common = common(lock);
            // SAFETY: a registered lock's memory is valid.
            unsafe { (*common).IoCount += 1 };
        }
        self.record(Operation::AcquireRemoveLock, number, u64::from(!removed));
        Ok(if removed { STATUS_DELETE_PENDING } else { STATUS_SUCCESS })
    }

    /// Takes a user away. The last one wakes who removes the device.
    pub(crate) fn release_remove_lock(&mut self, lock: *mut IO_REMOVE_LOCK, tag: usize, size: u32) -> Check<()> {
        let id = self.remove_lock_at(lock, size)?;
        let number = self.objects[id].number;
        let state = self.remove_lock_state(id);
        let Some(position) = state.users.iter().rposition(|&user| user == tag) else {
            let meaning = if state.users.is_empty() {
                "a remove lock was released that nobody had acquired"
            } else {
                "a remove lock was released with a tag that it was not acquired with"
            };
            return Err(Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::REMOVE_LOCK, lock as u64, tag as u64, 0],
                meaning,
            ));
        };
        state.users.remove(position);
        self.uses = self.uses.saturating_sub(1);
        self.record(Operation::ReleaseRemoveLock, number, 0);
        self.drop_use(lock)
    }

    /// One use less, of a user or of the device itself.
    fn drop_use(&mut self, lock: *mut IO_REMOVE_LOCK) -> Check<()> {
        let common = common(lock);
        // SAFETY: a registered lock's memory is valid.
        let count = unsafe { (*common).IoCount } - 1;
        // SAFETY: as above.
        unsafe { (*common).IoCount = count };
        if count == 0 {
            let event = self.event_at(remove_event(lock))?;
            self.set_event(event, 0)?;
        }
        Ok(())
    }

    /// No user is admitted any more; the caller's use and the device's own are gone. True if others are left to be waited for.
    pub(crate) fn begin_removal(&mut self, lock: *mut IO_REMOVE_LOCK, tag: usize, size: u32) -> Check<bool> {
        let id = self.remove_lock_at(lock, size)?;
        self.remove_lock_state(id).removed = true;
        let common = common(lock);
        // SAFETY: a registered lock's memory is valid.
        unsafe { (*common).Removed = 1 };
        self.release_remove_lock(lock, tag, size)?;
        self.drop_use(lock)?;
        Ok(!self.remove_lock_state(id).users.is_empty())
    }
}

fn check_size(lock: *mut IO_REMOVE_LOCK, size: u32) -> Check<()> {
    if SIZES.contains(&size) {
        return Ok(());
    }
    Err(Violation::boxed(
        codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
        [codes::verifier::UNINITIALIZED_OBJECT, lock as u64, u64::from(size), 0],
        "a remove lock routine was told another size than that of the lock",
    ))
}

fn common(lock: *mut IO_REMOVE_LOCK) -> *mut IO_REMOVE_LOCK_COMMON_BLOCK {
    // The lock begins with it.
    lock.cast()
}

/// The event that the last user sets.
pub(crate) fn remove_event(lock: *mut IO_REMOVE_LOCK) -> *mut KEVENT {
    lock.wrapping_byte_add(std::mem::offset_of!(IO_REMOVE_LOCK_COMMON_BLOCK, RemoveEvent)).cast()
}
