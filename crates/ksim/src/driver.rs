//! Loading and unloading drivers.

use crate::engine::layout;
use crate::machine::{Call, current};
use ksync_sys::{DRIVER_INITIALIZE, DRIVER_OBJECT, NTSTATUS, STATUS_SUCCESS, UNICODE_STRING};
use std::ptr::null_mut;

/// A driver that a machine has loaded.
///
/// Dropping it leaves the driver loaded, as at a system shutdown.
#[derive(Debug)]
pub struct LoadedDriver {
    object: Box<DRIVER_OBJECT>,
    index: u16,
}

/// Loads a driver: calls its `DriverEntry` in the running thread.
///
/// What the driver creates from now on, and what its threads and DPCs create, is known to be its own.
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
/// # Example
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
    let path: Vec<u16> = format!("\\Registry\\Machine\\System\\CurrentControlSet\\Services\\{name}").encode_utf16().collect();
    let bytes = u16::try_from(path.len() * 2).unwrap_or(u16::MAX - 1);
    let mut path_string = UNICODE_STRING { Length: bytes, MaximumLength: bytes, Buffer: path.as_ptr().cast_mut() };
    let mut object = Box::new(layout::driver_object());
    let (index, before, entered) = call.operate(|kernel| {
        let index = kernel.add_driver(name);
        Ok((index, kernel.act_for(Some(index)), kernel.enter_routine()))
    });
    // SAFETY: the driver's author vouched for the entry; both arguments are alive throughout.
    let status = unsafe { entry(&raw mut *object, &raw mut path_string) };
    call.operate(|kernel| {
        kernel.act_for(before);
        kernel.check_return(entered, "DriverEntry", entry as usize as u64)
    });
    if status < STATUS_SUCCESS {
        call.operate(|kernel| kernel.check_unload(index));
        return Err(status);
    }
    Ok(LoadedDriver { object, index })
}

impl LoadedDriver {
    /// The driver's object.
    #[must_use]
    pub fn object(&self) -> &DRIVER_OBJECT {
        &self.object
    }

    /// Unloads the driver: calls its `DriverUnload` in the running thread, and checks that nothing of it is left.
    ///
    /// # Bug checks
    /// 0xC7 for a timer that is armed or a DPC that is queued, 0xCE for a thread that has not ended, 0xC4/0x62 for pool that was
    /// not freed (rule 62).
    ///
    /// # Panics
    /// If the driver has no `DriverUnload`: such a driver cannot be unloaded.
    pub fn unload(mut self) {
        let call = Call { cell: current("LoadedDriver::unload"), export: None };
        let unload = self.object.DriverUnload.expect("the driver has no DriverUnload, so that it cannot be unloaded");
        let index = self.index;
        let (before, entered) = call.operate(|kernel| Ok((kernel.act_for(Some(index)), kernel.enter_routine())));
        // SAFETY: the driver set the routine for this object.
        unsafe { unload(&raw mut *self.object) };
        call.operate(|kernel| {
            kernel.act_for(before);
            kernel.check_return(entered, "DriverUnload", unload as usize as u64)?;
            kernel.check_unload(index)
        });
        self.object.DriverUnload = None;
        self.object.DriverStart = null_mut();
    }
}
