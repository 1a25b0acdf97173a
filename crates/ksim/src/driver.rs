//! Loading and unloading drivers.

use crate::engine::driver::DriverMemory;
use crate::exports::io::irp::invalid_request;
use crate::image::host::MappingId;
use crate::image::{self, Image};
use crate::machine::{Call, current};
use ksync_sys::{
    DRIVER_INITIALIZE, DRIVER_OBJECT, NTSTATUS, PVOID, STATUS_INSUFFICIENT_RESOURCES, STATUS_NOT_SUPPORTED, STATUS_SUCCESS,
    UNICODE_STRING,
};
use std::fmt;
use std::sync::Arc;

/// A driver that a machine has loaded.
///
/// Its devices are used with [`open_device`](crate::open_device), from any simulated thread.
///
/// Dropping it leaves the driver loaded, as at a system shutdown.
pub struct LoadedDriver {
    memory: Arc<DriverMemory>,
    index: u16,
    image: Option<MappingId>,
}

impl fmt::Debug for LoadedDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedDriver").field("index", &self.index).finish_non_exhaustive()
    }
}

/// Loads a driver: calls its `DriverEntry` in the running thread.
///
/// What the driver creates from now on, and what its threads and DPCs create, is known to be its own. When the entry has succeeded, the
/// devices that it has created can be opened.
///
/// # Errors
/// The status of an entry that failed. The driver is then unloaded, and must have left nothing behind.
///
/// # Bug checks
/// Those of [`LoadedDriver::unload`], if the entry failed and left something behind.
///
/// # Panics
/// If no machine runs on this thread.
///
/// # Examples
/// ```
/// use ksim::Machine;
/// use ksync_sys::{DRIVER_OBJECT, NTSTATUS, STATUS_SUCCESS, UNICODE_STRING};
///
/// unsafe extern "system-unwind" fn entry(driver: *mut DRIVER_OBJECT, _path: *mut UNICODE_STRING) -> NTSTATUS {
///     // The system passes the driver's own object.
///     unsafe { (*driver).DriverUnload = Some(unload) };
///     STATUS_SUCCESS
/// }
///
/// unsafe extern "system-unwind" fn unload(_driver: *mut DRIVER_OBJECT) {}
///
/// let outcome = Machine::new().run(|| {
///     let driver = ksim::load_driver("sample", entry).expect("the entry succeeds");
///     driver.unload();
/// });
/// outcome.expect_clean();
/// ```
pub fn load_driver(name: &str, entry: DRIVER_INITIALIZE) -> Result<LoadedDriver, NTSTATUS> {
    let call = Call { cell: current("load_driver"), export: None };
    start(call, name, entry, None)
}

/// Loads a driver's image: maps it, binds its imports, and calls its `DriverEntry` in the running thread.
///
/// From then on it is a driver like any other. Its `INIT` sections are gone when `DriverEntry` has returned.
///
/// # Errors
/// As [`load_driver`]; `STATUS_INSUFFICIENT_RESOURCES`, if the host has no memory for it, and `STATUS_NOT_SUPPORTED`, if
/// [it does not run images](Image::check_host).
///
/// # Bug checks
/// As [`load_driver`], and those of the driver's own faults.
///
/// # Panics
/// If no machine runs on this thread.
pub fn load_image(name: &str, image: &Image) -> Result<LoadedDriver, NTSTATUS> {
    let call = Call { cell: current("load_image"), export: None };
    let mapped = call.cell.images.map(call, image, name).map_err(|error| match error.kind() {
        std::io::ErrorKind::Unsupported => STATUS_NOT_SUPPORTED,
        _ => STATUS_INSUFFICIENT_RESOURCES,
    })?;
    let (_, _, entry) = call.cell.images.place(mapped);
    // SAFETY: the image's entry point is of this type, but for the convention, which every call of driver code minds.
    let entry: DRIVER_INITIALIZE = unsafe { std::mem::transmute(entry) };
    let driver = start(call, name, entry, Some(mapped));
    match driver {
        Ok(_) => call.cell.images.discard_init(mapped),
        Err(_) => call.cell.images.unload(mapped),
    }
    driver
}

/// Calls a driver's entry.
fn start(call: Call, name: &str, entry: DRIVER_INITIALIZE, image: Option<MappingId>) -> Result<LoadedDriver, NTSTATUS> {
    let path: Vec<u16> = format!("\\Registry\\Machine\\System\\CurrentControlSet\\Services\\{name}").encode_utf16().collect();
    let bytes = u16::try_from(path.len() * 2).unwrap_or(u16::MAX - 1);
    let mut path_string = UNICODE_STRING { Length: bytes, MaximumLength: bytes, Buffer: path.as_ptr().cast_mut() };
    let (index, memory, before, entered) = call.operate(|kernel| {
        let (index, memory) = kernel.add_driver(name, invalid_request);
        Ok((index, memory, kernel.act_for(Some(index)), kernel.enter_routine()))
    });
    // SAFETY: the memory is the driver's object, which others use in operations of the engine only.
    unsafe { (*memory.object()).DriverInit = Some(entry) };
    if let Some(image) = image {
        let (base, size, _) = call.cell.images.place(image);
        // SAFETY: as above.
        unsafe { (*memory.object()).DriverStart = base as PVOID };
        // SAFETY: as above.
        unsafe { (*memory.object()).DriverSize = size };
    }
    // SAFETY: the driver's author vouched for the entry; both arguments are alive throughout.
    let status = unsafe { image::call(entry, (memory.object(), &raw mut path_string)) };
    call.operate(|kernel| {
        kernel.act_for(before);
        if status >= STATUS_SUCCESS {
            kernel.finish_initialization(index);
        }
        kernel.check_return(entered, "DriverEntry", entry as usize as u64)
    });
    if status < STATUS_SUCCESS {
        release_image(call, index);
        return Err(status);
    }
    Ok(LoadedDriver { memory, index, image })
}

/// Waits for what still runs in a driver's image and ends by itself, and checks that nothing else is left.
fn release_image(call: Call, index: u16) {
    while !call.is_dying() && !call.operate(|kernel| kernel.image_is_free(index)) {}
    call.operate(|kernel| kernel.check_unload(index));
}

impl LoadedDriver {
    /// The driver's object, as it is now.
    #[must_use]
    pub fn object(&self) -> DRIVER_OBJECT {
        // SAFETY: the object is valid as long as `self`; nothing else runs while it is copied.
        unsafe { self.memory.object().read() }
    }

    /// Unloads the driver: calls its `DriverUnload` in the running thread, and checks that nothing of it is left.
    ///
    /// As in the system, the routine is not called before the last handle to the driver's devices is closed: until then this waits, and the
    /// devices cannot be opened. And the image goes when the work items are done that are queued for a device of the driver, or for its object:
    /// this waits for them too.
    ///
    /// # Bug checks
    /// 0xC7 for a timer that is armed or a DPC that is queued; 0xCE for a thread that has not ended, a work item of `ExQueueWorkItem` that is queued or
    /// runs, a device that was not deleted, or a symbolic link; 0xC4/0x62 for pool that was not freed (rule 62).
    ///
    /// # Panics
    /// If the driver has no `DriverUnload`: such a driver cannot be unloaded.
    pub fn unload(self) {
        let call = Call { cell: current("LoadedDriver::unload"), export: None };
        let unload = self.object().DriverUnload.expect("the driver has no DriverUnload, so that it cannot be unloaded");
        let index = self.index;
        while !call.is_dying() && !call.operate(|kernel| kernel.begin_unload(index)) {}
        let (before, entered) = call.operate(|kernel| Ok((kernel.act_for(Some(index)), kernel.enter_routine())));
        // SAFETY: the driver set the routine for this object.
        unsafe { image::call(unload, (self.memory.object(),)) };
        call.operate(|kernel| {
            kernel.act_for(before);
            kernel.check_return(entered, "DriverUnload", unload as usize as u64)
        });
        release_image(call, index);
        if let Some(image) = self.image {
            call.cell.images.unload(image);
        }
    }
}
