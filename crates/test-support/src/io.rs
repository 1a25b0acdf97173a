//! A driver whose dispatch routines are the test's closures.

use super::*;
use ksim::{DeviceHandle, LoadedDriver, Requestor, load_driver, open_device};
use std::collections::HashMap;

type Handler = Rc<dyn Fn(*mut DEVICE_OBJECT, *mut IRP) -> NTSTATUS>;

thread_local! {
    /// By driver object and major function.
    static HANDLERS: RefCell<HashMap<(usize, u8), Handler>> = RefCell::new(HashMap::new());
    /// The driver that is being loaded: its name, its extension's size.
    static LOADING: RefCell<(String, u32)> = const { RefCell::new((String::new(), 0)) };
}

/// A counted string, with its text.
pub struct Text {
    _units: Vec<u16>,
    string: UNICODE_STRING,
}

impl Text {
    pub fn new(text: &str) -> Self {
        let mut units: Vec<u16> = text.encode_utf16().collect();
        let bytes = (units.len() * 2) as u16;
        let string = UNICODE_STRING { Length: bytes, MaximumLength: bytes, Buffer: units.as_mut_ptr() };
        Self { _units: units, string }
    }

    pub fn ptr(&mut self) -> *mut UNICODE_STRING {
        &raw mut self.string
    }
}

/// A control code with a transfer method.
pub const fn control_code(method: ULONG) -> ULONG {
    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, method, FILE_ANY_ACCESS)
}

pub const BUFFERED: ULONG = control_code(METHOD_BUFFERED);

/// The current stack location of a request.
pub fn location(irp: *mut IRP) -> IO_STACK_LOCATION {
    raw!(*IoGetCurrentIrpStackLocation(irp))
}

/// Completes a request.
pub fn complete(irp: *mut IRP, status: NTSTATUS, information: usize) -> NTSTATUS {
    raw!((*irp).IoStatus.u.Status = status);
    raw!((*irp).IoStatus.Information = information);
    raw!(IofCompleteRequest(irp, 0));
    status
}

pub fn succeed(irp: *mut IRP) -> NTSTATUS {
    complete(irp, STATUS_SUCCESS, 0)
}

unsafe extern "system-unwind" fn dispatch(device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS {
    let key = (raw!((*device).DriverObject) as usize, location(irp).MajorFunction);
    match HANDLERS.with_borrow(|handlers| handlers.get(&key).cloned()) {
        Some(handler) => handler(device, irp),
        None => succeed(irp),
    }
}

pub unsafe extern "system-unwind" fn entry(driver: *mut DRIVER_OBJECT, _path: *mut UNICODE_STRING) -> NTSTATUS {
    // Those of a driver of an earlier machine, whose object was here.
    HANDLERS.with_borrow_mut(|handlers| handlers.retain(|(object, _), _| *object != driver as usize));
    raw!((*driver).DriverUnload = Some(unload));
    raw!((*driver).MajorFunction = [Some(dispatch); 28]);
    let (name, extension) = LOADING.take();
    let mut device = null_mut();
    let mut text = Text::new(&format!(r"\Device\{name}"));
    let status = raw!(IoCreateDevice(driver, extension, text.ptr(), FILE_DEVICE_UNKNOWN, 0, FALSE, &mut device));
    if status < 0 {
        return status;
    }
    let mut link = Text::new(&format!(r"\??\{name}"));
    let status = raw!(IoCreateSymbolicLink(link.ptr(), text.ptr()));
    if status < 0 {
        raw!(IoDeleteDevice(device));
    }
    status
}

unsafe extern "system-unwind" fn unload(driver: *mut DRIVER_OBJECT) {
    let name = raw!((*driver).DriverName);
    let units = raw!(std::slice::from_raw_parts(name.Buffer, usize::from(name.Length) / 2));
    let name = String::from_utf16_lossy(units).replace(r"\Driver\", r"\??\");
    raw!(IoDeleteSymbolicLink(Text::new(&name).ptr()));
    loop {
        let device = raw!((*driver).DeviceObject);
        if device.is_null() {
            return;
        }
        raw!(IoDeleteDevice(device));
        if raw!((*driver).DeviceObject) == device {
            // Still in use: it goes by itself.
            return;
        }
    }
}

/// A loaded driver with a device, and a link to it, of its own name.
pub struct Sample {
    pub driver: LoadedDriver,
    name: String,
}

impl Sample {
    pub fn load(name: &str) -> Self {
        Self::try_load(name, 0).expect("the driver loads")
    }

    pub fn try_load(name: &str, extension: u32) -> Result<Self, NTSTATUS> {
        LOADING.set((name.to_owned(), extension));
        Ok(Self { driver: load_driver(name, entry)?, name: name.to_owned() })
    }

    /// Sets the routine of a major function.
    pub fn on(&self, major: u8, handler: impl Fn(*mut DEVICE_OBJECT, *mut IRP) -> NTSTATUS + 'static) {
        let key = (raw!((*self.device()).DriverObject) as usize, major);
        HANDLERS.with_borrow_mut(|handlers| handlers.insert(key, Rc::new(handler)));
    }

    /// The driver's latest device.
    pub fn device(&self) -> *mut DEVICE_OBJECT {
        self.driver.object().DeviceObject
    }

    pub fn open(&self) -> DeviceHandle {
        open_device(&format!(r"\??\{}", self.name), Requestor::User).expect("the device opens")
    }

    pub fn unload(self) {
        self.driver.unload();
    }
}
