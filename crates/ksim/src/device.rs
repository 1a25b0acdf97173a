//! Using a driver's devices: what a process does with `CreateFile`, `DeviceIoControl` and `CloseHandle`.
//!
//! A test opens a device by name and sends it requests, from any simulated thread:
//! ```
//! use ksim::{Machine, Requestor, open_device};
//! use ksync_sys::*;
//!
//! // A driver that answers a control code with its own input, upside down.
//! unsafe extern "system-unwind" fn entry(driver: *mut DRIVER_OBJECT, _path: *mut UNICODE_STRING) -> NTSTATUS {
//!     let mut name: Vec<u16> = r"\Device\Echo".encode_utf16().collect();
//!     let bytes = (name.len() * 2) as u16;
//!     let mut name = UNICODE_STRING { Length: bytes, MaximumLength: bytes, Buffer: name.as_mut_ptr() };
//!     let mut device = std::ptr::null_mut();
//!     unsafe {
//!         (*driver).DriverUnload = Some(unload);
//!         (*driver).MajorFunction[usize::from(IRP_MJ_CREATE)] = Some(succeed);
//!         (*driver).MajorFunction[usize::from(IRP_MJ_DEVICE_CONTROL)] = Some(control);
//!         IoCreateDevice(driver, 0, &mut name, FILE_DEVICE_UNKNOWN, 0, FALSE, &mut device)
//!     }
//! }
//!
//! unsafe extern "system-unwind" fn unload(driver: *mut DRIVER_OBJECT) {
//!     unsafe { IoDeleteDevice((*driver).DeviceObject) };
//! }
//!
//! unsafe extern "system-unwind" fn succeed(_device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS {
//!     unsafe { (*irp).IoStatus.u.Status = STATUS_SUCCESS };
//!     unsafe { IoCompleteRequest(irp, 0) };
//!     STATUS_SUCCESS
//! }
//!
//! unsafe extern "system-unwind" fn control(_device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS {
//!     unsafe {
//!         let location = IoGetCurrentIrpStackLocation(irp);
//!         let length = (*location).Parameters.DeviceIoControl.InputBufferLength as usize;
//!         let buffer = (*irp).AssociatedIrp.SystemBuffer.cast::<u8>();
//!         std::slice::from_raw_parts_mut(buffer, length).reverse();
//!         (*irp).IoStatus.Information = length;
//!         succeed(std::ptr::null_mut(), irp)
//!     }
//! }
//!
//! Machine::new().run(|| {
//!     let driver = ksim::load_driver("echo", entry).unwrap();
//!     let device = open_device(r"\Device\Echo", Requestor::User).unwrap();
//!     let code = CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS);
//!     let result = device.device_control(code, b"abc", 3);
//!     assert_eq!((result.status, &result.output[..]), (STATUS_SUCCESS, &b"cba"[..]));
//!     device.close();
//!     driver.unload();
//! }).expect_clean();
//! ```
//!
//! Requests that the driver keeps are sent with the `begin_` methods, and waited for or cancelled afterwards.

use crate::engine::io::request::{Completed, Operation};
use crate::engine::object::ObjId;
use crate::exports::io::{cancel, file};
use crate::irql::PASSIVE_LEVEL;
use crate::machine::{Call, current, is_running};
use crate::schedule::Footprint;
use ksync_sys::{FILE_READ_DATA, FILE_WRITE_DATA, NTSTATUS, STATUS_SUCCESS};

/// In whose name a device is used: the `RequestorMode` of its requests.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Requestor {
    /// A driver or the system.
    Kernel,
    /// A process.
    #[default]
    User,
}

/// How a request ended.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct IoResult {
    /// The request's final status.
    pub status: NTSTATUS,
    /// `IoStatus.Information`: mostly a number of bytes.
    pub information: usize,
    /// What the driver gave back. With buffered transfer so many bytes as it said, and none after an error; otherwise the whole output buffer.
    pub output: Vec<u8>,
}

impl IoResult {
    fn failed(status: NTSTATUS) -> Self {
        Self { status, information: 0, output: Vec::new() }
    }

    /// Tells whether the status means success or information.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.status >= STATUS_SUCCESS
    }
}

impl From<Completed> for IoResult {
    fn from(completed: Completed) -> Self {
        Self { status: completed.status, information: completed.information, output: completed.output }
    }
}

/// Opens a device by its name, or by a symbolic link to it, for reading and writing.
///
/// Names are those of the object manager, such as `\Device\Beep` or `\??\Beep`, without regard to case; `\\.\Beep` is understood as a process means it. What
/// follows the device's name goes to the driver, as `FILE_OBJECT.FileName`.
///
/// The driver sees `IRP_MJ_CREATE`.
///
/// # IRQL
/// `PASSIVE_LEVEL`.
///
/// # Errors
/// The status: `STATUS_OBJECT_NAME_NOT_FOUND` for a name that leads nowhere, `STATUS_NO_SUCH_DEVICE` for a device that is still being initialised or whose driver
/// is being unloaded, `STATUS_ACCESS_DENIED` for an exclusive device that is open, or whatever the driver completed the request with.
///
/// # Panics
/// If no machine runs on this thread.
pub fn open_device(name: &str, requestor: Requestor) -> Result<DeviceHandle, NTSTATUS> {
    let call = call("open_device");
    require_passive(call, "open_device");
    let native = name.strip_prefix(r"\\.\").map(|rest| format!(r"\??\{rest}"));
    let name = native.as_deref().unwrap_or(name);
    let file = file::open(call, name, FILE_READ_DATA | FILE_WRITE_DATA, requestor == Requestor::User)?;
    let number = call.read(|kernel| kernel.objects[file].number);
    Ok(DeviceHandle { file, number, open: true })
}

/// An open device. Dropping it closes it, in a thread at `PASSIVE_LEVEL`.
#[derive(Debug)]
#[must_use = "a device is closed when its handle is dropped"]
pub struct DeviceHandle {
    file: ObjId,
    number: u32,
    open: bool,
}

impl DeviceHandle {
    fn call(&self, what: &str) -> Call {
        let call = call(what);
        let same = call.read(|kernel| kernel.objects.iter().any(|(id, object)| id == self.file && object.number == self.number));
        assert!(same, "{what}: the handle belongs to another machine");
        call
    }

    /// Sends a device control request and waits for its end.
    ///
    /// `input` is the input buffer, `output_length` the length of the output buffer in bytes. How the driver gets them depends on the control code's
    /// transfer method: buffered through a system buffer, direct as a memory descriptor list, or neither as plain addresses.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Bug checks
    /// Those of a driver that breaks the rules of requests: 0x44 for one that completes a request twice, 0xC9 for one that neither completes it nor keeps it, and so on.
    ///
    /// # Panics
    /// If no machine runs on this thread, or another one than the handle's.
    #[must_use]
    pub fn device_control(&self, code: u32, input: &[u8], output_length: usize) -> IoResult {
        self.perform(Operation::DeviceControl { code, input: input.to_vec(), output_length })
    }

    /// Reads up to so many bytes, at offset 0.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Panics
    /// If no machine runs on this thread, or another one than the handle's.
    #[must_use]
    pub fn read(&self, length: usize) -> IoResult {
        self.perform(Operation::Read { length })
    }

    /// Writes, at offset 0.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Panics
    /// If no machine runs on this thread, or another one than the handle's.
    #[must_use]
    pub fn write(&self, data: &[u8]) -> IoResult {
        self.perform(Operation::Write { data: data.to_vec() })
    }

    /// Sends a device control request, and does not wait for its end.
    ///
    /// ```no_run
    /// # let device = ksim::open_device("", ksim::Requestor::User).unwrap();
    /// let request = device.begin_device_control(0x22_2000, b"wait for it", 0);
    /// assert!(!request.is_done());
    /// request.cancel();
    /// assert_eq!(request.wait().status, ksync_sys::STATUS_CANCELLED);
    /// ```
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Panics
    /// If no machine runs on this thread, or another one than the handle's.
    pub fn begin_device_control(&self, code: u32, input: &[u8], output_length: usize) -> DeviceRequest {
        self.begin(Operation::DeviceControl { code, input: input.to_vec(), output_length })
    }

    /// Sends a read request, and does not wait for its end.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Panics
    /// If no machine runs on this thread, or another one than the handle's.
    pub fn begin_read(&self, length: usize) -> DeviceRequest {
        self.begin(Operation::Read { length })
    }

    /// Sends a write request, and does not wait for its end.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Panics
    /// If no machine runs on this thread, or another one than the handle's.
    pub fn begin_write(&self, data: &[u8]) -> DeviceRequest {
        self.begin(Operation::Write { data: data.to_vec() })
    }

    fn begin(&self, operation: Operation) -> DeviceRequest {
        let call = self.call("a request");
        require_passive(call, "a request");
        DeviceRequest { state: file::send(call, self.file, operation) }
    }

    fn perform(&self, operation: Operation) -> IoResult {
        self.begin(operation).wait()
    }

    /// Closes the device: the driver sees `IRP_MJ_CLEANUP`, and `IRP_MJ_CLOSE` when no request is on its way any more.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Panics
    /// If no machine runs on this thread, or another one than the handle's.
    pub fn close(mut self) {
        self.open = false;
        file::close_handle(self.call("DeviceHandle::close"), self.file);
    }
}

impl Drop for DeviceHandle {
    fn drop(&mut self) {
        if !self.open || !is_running() {
            return;
        }
        let call = self.call("DeviceHandle::drop");
        let may = call.read(|kernel| kernel.irql() == PASSIVE_LEVEL && !kernel.in_dpc());
        if may && !call.is_dying() {
            file::close_handle(call, self.file);
        }
    }
}

/// A request that has been sent. Dropping it leaves the request on its way, and takes no note of its end.
#[derive(Debug)]
#[must_use = "a request is waited for or cancelled through this"]
pub struct DeviceRequest {
    /// Its number, or why it could not be sent.
    state: Result<u32, NTSTATUS>,
}

impl DeviceRequest {
    /// Tells whether the request has ended.
    ///
    /// # Panics
    /// If no machine runs on this thread.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state.map_or(true, |id| call("DeviceRequest::is_done").read(|kernel| kernel.request_is_done(id)))
    }

    /// Cancels the request: sets its cancel bit and calls its cancel routine, as `CancelIoEx` does. Tells whether there was a cancel routine.
    /// The request still ends when the driver completes it.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Panics
    /// If no machine runs on this thread.
    pub fn cancel(&self) -> bool {
        let call = call("DeviceRequest::cancel");
        let Ok(id) = self.state else { return false };
        // As IoCancelIrp.
        call.again(Footprint::UNKNOWN);
        let irp = call.read(|kernel| kernel.irp_of_request(id));
        irp.is_some_and(|irp| cancel::cancel(call, irp) != 0)
    }

    /// Waits until the request has ended.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Panics
    /// If no machine runs on this thread.
    #[must_use]
    pub fn wait(mut self) -> IoResult {
        match std::mem::replace(&mut self.state, Err(STATUS_SUCCESS)) {
            Ok(id) => file::wait(call("DeviceRequest::wait"), id).into(),
            Err(status) => IoResult::failed(status),
        }
    }
}

impl Drop for DeviceRequest {
    fn drop(&mut self) {
        if let Ok(id) = self.state
            && is_running()
        {
            call("DeviceRequest::drop").read(|kernel| kernel.abandon_request(id));
        }
    }
}

/// Whoever uses a device comes from user mode, or behaves so.
fn require_passive(call: Call, what: &str) {
    let irql = call.read(|kernel| kernel.irql());
    assert!(irql == PASSIVE_LEVEL, "{what}: devices are used at PASSIVE_LEVEL, and this is IRQL {irql}");
}

fn call(what: &str) -> Call {
    Call { cell: current(what), export: None }
}
