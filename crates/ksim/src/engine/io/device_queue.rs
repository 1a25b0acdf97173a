//! Device queues.

use crate::engine::kernel::{Check, Kernel};
use crate::engine::layout;
use crate::engine::object::{Kind, ObjId};
use crate::report::bug_check::{Violation, codes};
use ksync_sys::{KDEVICE_QUEUE, KDEVICE_QUEUE_ENTRY};
use std::ptr::null_mut;

/// A device queue's state beside its structure.
#[derive(Debug, Default)]
pub(crate) struct DeviceQueueState {
    /// The entries, first first.
    pub(crate) entries: Vec<usize>,
    pub(crate) busy: bool,
}

impl Kernel {
    /// Registers a device queue.
    pub(crate) fn initialize_device_queue(&mut self, queue: *mut KDEVICE_QUEUE) -> Check<()> {
        if (queue as usize) < 0x1_0000 {
            // Says why.
            self.object_at(queue.cast_const())?;
        }
        // SAFETY: the caller of the export passes memory for a device queue.
        unsafe { layout::write_device_queue(queue) };
        self.objects.register(queue as usize, Kind::DeviceQueue(Box::default()));
        Ok(())
    }

    fn device_queue_at(&mut self, queue: *mut KDEVICE_QUEUE) -> Check<ObjId> {
        self.object_of_kind(queue.cast_const(), "device queue", |kind| matches!(kind, Kind::DeviceQueue(_)))
    }

    fn device_queue_state(&mut self, id: ObjId) -> &mut DeviceQueueState {
        match &mut self.objects[id].kind {
            Kind::DeviceQueue(state) => state,
            _ => unreachable!("the caller found a device queue here"),
        }
    }

    /// Queues an entry if the device is busy, behind the others or in order of its key. False if the device was not, and is busy now.
    pub(crate) fn insert_device_queue(
        &mut self,
        queue: *mut KDEVICE_QUEUE,
        entry: *mut KDEVICE_QUEUE_ENTRY,
        key: Option<u32>,
    ) -> Check<bool> {
        let id = self.device_queue_at(queue)?;
        // SAFETY: the caller of the export passes a valid entry, and so were those in the queue when they were inserted.
        let key_of = |entry: usize| unsafe { (*(entry as *const KDEVICE_QUEUE_ENTRY)).SortKey };
        let state = self.device_queue_state(id);
        if state.entries.contains(&(entry as usize)) {
            return Err(Violation::boxed(
                codes::INVALID_WORK_QUEUE_ITEM,
                [entry as u64, queue as u64, 0, 0],
                "an entry was inserted into a device queue that it is in already",
            ));
        }
        let busy = std::mem::replace(&mut state.busy, true);
        if busy {
            let position = key.and_then(|key| state.entries.iter().position(|&other| key_of(other) > key));
            state.entries.insert(position.unwrap_or(state.entries.len()), entry as usize);
        }
        if let Some(key) = key {
            // SAFETY: as above.
            unsafe { (*entry).SortKey = key };
        }
        // SAFETY: as above.
        unsafe { (*entry).Inserted = u8::from(busy) };
        self.link_device_queue(id);
        Ok(busy)
    }

    /// Takes an entry out: the first, or the first whose key is not less than `key`, if there is one. None if the device is not busy any more.
    pub(crate) fn remove_device_queue(&mut self, queue: *mut KDEVICE_QUEUE, key: Option<u32>) -> Check<*mut KDEVICE_QUEUE_ENTRY> {
        let id = self.device_queue_at(queue)?;
        // SAFETY: entries stay valid while they are in a queue.
        let key_of = |entry: usize| unsafe { (*(entry as *const KDEVICE_QUEUE_ENTRY)).SortKey };
        let state = self.device_queue_state(id);
        if state.entries.is_empty() {
            state.busy = false;
            self.link_device_queue(id);
            return Ok(null_mut());
        }
        let position = key.and_then(|key| state.entries.iter().position(|&other| key_of(other) >= key)).unwrap_or(0);
        let entry = state.entries.remove(position) as *mut KDEVICE_QUEUE_ENTRY;
        // SAFETY: as above.
        unsafe { (*entry).Inserted = 0 };
        self.link_device_queue(id);
        Ok(entry)
    }

    /// True while the device is busy.
    pub(crate) fn device_queue_is_busy(&mut self, queue: *mut KDEVICE_QUEUE) -> Check<bool> {
        let id = self.device_queue_at(queue)?;
        Ok(self.device_queue_state(id).busy)
    }

    /// Takes a certain entry out. True if it was in.
    pub(crate) fn remove_device_queue_entry(
        &mut self,
        queue: *mut KDEVICE_QUEUE,
        entry: *mut KDEVICE_QUEUE_ENTRY,
    ) -> Check<bool> {
        let id = self.device_queue_at(queue)?;
        let state = self.device_queue_state(id);
        let position = state.entries.iter().position(|&other| other == entry as usize);
        if let Some(position) = position {
            state.entries.remove(position);
            // SAFETY: entries stay valid while they are in a queue.
            unsafe { (*entry).Inserted = 0 };
            self.link_device_queue(id);
        }
        Ok(position.is_some())
    }

    /// Writes the true list.
    fn link_device_queue(&mut self, id: ObjId) {
        let queue = self.objects[id].address as *mut KDEVICE_QUEUE;
        let state = self.device_queue_state(id);
        // SAFETY: a registered queue's memory is valid, and so are the entries in it.
        unsafe { layout::link_device_queue(queue, &state.entries, state.busy) };
    }
}
