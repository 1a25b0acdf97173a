//! Open files: what a device is used through.

use crate::engine::kernel::{Check, Kernel};
use crate::engine::layout;
use crate::engine::ob::Type;
use crate::engine::object::{Kind, ObjId};
use ksync_sys::{FILE_OBJECT, FO_CLEANUP_COMPLETE, FO_FILE_OPEN, FO_HANDLE_CREATED, UNICODE_STRING};

/// The tag of open files, as in NT.
const TAG: u32 = u32::from_le_bytes(*b"File");
/// The tag of their names.
const NAME_TAG: u32 = u32::from_le_bytes(*b"IoNm");

/// An open file's state beside its structure.
#[derive(Debug)]
pub(crate) struct FileState {
    pub(crate) device: ObjId,
    name: usize,
    pub(crate) user_mode: bool,
    /// The open has succeeded, so that the driver is told of the end.
    opened: bool,
}

impl Kernel {
    /// The file at `pointer`.
    pub(crate) fn file_at(&mut self, pointer: *const FILE_OBJECT) -> Check<ObjId> {
        self.object_of_kind(pointer, "file", |kind| matches!(kind, Kind::File(_)))
    }

    pub(crate) fn file_state(&self, id: ObjId) -> &FileState {
        match &self.objects[id].kind {
            Kind::File(state) => state,
            _ => unreachable!("the caller found a file here"),
        }
    }

    /// The true structure of a file.
    pub(crate) fn file_memory(&self, id: ObjId) -> *mut FILE_OBJECT {
        self.objects[id].address as *mut FILE_OBJECT
    }

    /// Makes a file object for an open. `name` is what is left of the name behind the device's. None if there is no memory.
    pub(crate) fn create_file(&mut self, device: ObjId, name: &str, access: u32, user_mode: bool) -> Check<Option<ObjId>> {
        let file: *mut FILE_OBJECT = self.allocate_system(size_of::<FILE_OBJECT>(), TAG, None).cast();
        if file.is_null() {
            return Ok(None);
        }
        let units: Vec<u16> = name.encode_utf16().collect();
        let bytes = size_of_val(units.as_slice());
        let mut buffer: *mut u16 = std::ptr::null_mut();
        if bytes > 0 {
            buffer = self.allocate_system(bytes, NAME_TAG, None).cast();
            if buffer.is_null() {
                self.release_system(file as usize)?;
                return Ok(None);
            }
            // SAFETY: the block is fresh and so large.
            unsafe { buffer.copy_from_nonoverlapping(units.as_ptr(), units.len()) };
        }
        let length = u16::try_from(bytes).unwrap_or(u16::MAX - 1);
        let file_name = UNICODE_STRING { Length: length, MaximumLength: length, Buffer: buffer };
        // SAFETY: the memory was allocated just now for a file object.
        unsafe { layout::write_file(file, self.device_memory(device), file_name, access) };
        let state = FileState { device, name: buffer as usize, user_mode, opened: false };
        let id = self.objects.register(file as usize, Kind::File(Box::new(state)));
        self.register_file_events(file)?;
        self.ob.add_object(id, Type::File);
        // Its one reference is that of whoever opens.
        self.ob.drop_own(id);
        Ok(Some(id))
    }

    /// The events in a file object are ordinary events.
    fn register_file_events(&mut self, file: *mut FILE_OBJECT) -> Check<()> {
        // SAFETY: the file's memory is valid.
        let lock = unsafe { &raw mut (*file).Lock };
        // SAFETY: as above.
        let event = unsafe { &raw mut (*file).Event };
        for (event, notification, state) in [(lock, false, 1), (event, true, 0)] {
            let kind = if notification { ksync_sys::EventNotificationObject } else { ksync_sys::EventSynchronizationObject };
            // SAFETY: as above.
            unsafe {
                self.initialize_dispatcher(
                    event.cast(),
                    kind,
                    size_of::<ksync_sys::KEVENT>(),
                    state,
                    Kind::Event { notification },
                )?;
            }
        }
        Ok(())
    }

    /// The open has succeeded.
    pub(crate) fn file_opened(&mut self, id: ObjId) {
        if let Kind::File(state) = &mut self.objects[id].kind {
            state.opened = true;
        }
        let file = self.file_memory(id);
        // SAFETY: a registered file's memory is valid.
        unsafe { (*file).Flags |= FO_FILE_OPEN | FO_HANDLE_CREATED };
    }

    /// The driver has been told that the last handle is closed.
    pub(crate) fn file_cleaned_up(&mut self, id: ObjId) {
        let file = self.file_memory(id);
        // SAFETY: a registered file's memory is valid.
        unsafe { (*file).Flags |= FO_CLEANUP_COMPLETE };
    }

    /// Drops a reference to a file. True when it was the last, and the driver is to be told.
    pub(crate) fn dereference_file(&mut self, id: ObjId) -> Check<bool> {
        Ok(self.dereference_object(id, 1)? == 0 && self.file_state(id).opened)
    }

    /// Frees a file that nobody references, after the driver was told.
    pub(crate) fn free_file(&mut self, id: ObjId) -> Check<()> {
        let state = self.file_state(id);
        let (device, name) = (state.device, state.name);
        let address = self.objects[id].address;
        self.objects.remove(id);
        self.ob.remove_object(id);
        if name != 0 {
            self.release_system(name)?;
        }
        self.release_system(address)?;
        self.end_open(device)
    }
}
