//! Devices: what a driver is used through.
//!
//! A driver implements [`Dispatch`] for the state of its device and [creates](DeviceBuilder::create) the device in its entry. From then on its routines are called with
//! requests, by several threads at once. A request is completed [exactly once](Irp): in the routine, or later, from any thread; those that wait are best kept in an [`IrpQueue`], from which they can be
//! cancelled.
//!
//! # Examples
//! ```
//! use ksync::device::{Device, DeviceBuilder, Dispatch, Disposition, Irp};
//! use ksync::driver::{DriverObject, UnicodeStr};
//! use ksync::error::{NtStatus, Result};
//!
//! struct Echo;
//!
//! impl Dispatch for Echo {
//!     fn device_control<'i>(&self, mut irp: Irp<'i>) -> Disposition<'i> {
//!         let length = irp.input().len().min(irp.output().len());
//!         irp.output()[..length].make_ascii_uppercase();
//!         irp.complete(NtStatus::SUCCESS, length)
//!     }
//! }
//!
//! fn entry(driver: &DriverObject, _registry_path: &UnicodeStr) -> Result<Device<Echo>> {
//!     DeviceBuilder::new().name(r"\Device\Echo").link(r"\??\Echo").create(driver, Echo)
//! }
//!
//! ksync::driver_entry!(entry);
//!
//! # fn main() {
//! # ksim::Machine::new().run(|| {
//! // In a test:
//! let driver = ksim::load_driver("echo", DriverEntry).unwrap();
//! let device = ksim::open_device(r"\\.\Echo", ksim::Requestor::User).unwrap();
//! assert_eq!(device.device_control(0x22_2000, b"hello", 5).output, b"HELLO");
//! device.close();
//! driver.unload();
//! # }).expect_clean();
//! # }
//! ```
//!
//! # How a device goes
//! Dropping the [`Device`] deletes its link and name and the device itself, once. The system frees the device when nobody has it open any more; until then requests to it fail, but for those that close it.
//! The state is dropped when no routine runs any more.
//!
//! A device that is [attached](Device::attach) to another is not kept by those who have that open. NT has no way to tell whether a request is on its way to such a device, so that its drop, or the work item that
//! does this for one at a raised level, waits for a second after it has detached it; and [`drain`](crate::driver::drain), which unloading a driver includes, waits for the routines that run for such devices.
//!
//! # What a driver must not do besides
//! All major functions of the driver are routed here. A device that the driver has made otherwise answers no requests but closes.

mod irp;
mod open;
mod queue;
pub(crate) mod shared;

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ptr;
use core::time::Duration;

use ksync_sys as sys;

use crate::driver::DriverObject;
use crate::error::{NtError, NtStatus, Result, check};
use crate::irql::{self, Irql};
use crate::pool::KBox;
use crate::thread::this_thread;
use crate::work_item::{WorkItem, WorkTarget, sealed};

pub use irp::{Disposition, Irp, PendingIrp};
pub use open::OpenDevice;
pub use queue::IrpQueue;
pub(crate) use shared::drain;
use shared::{Shared, SharedRef};

/// The routines of a device, called by several threads at once, at `PASSIVE_LEVEL` for requests from user mode and up to `DISPATCH_LEVEL` for those from other drivers.
///
/// A routine keeps the level and the regions as it found them.
pub trait Dispatch: Send + Sync + 'static {
    /// The device is opened. By default that succeeds.
    #[doc(alias = "IRP_MJ_CREATE")]
    fn create<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
        irp.complete(NtStatus::SUCCESS, 0)
    }

    /// The last handle to an open file is closed: what waits for it is to be [cancelled](IrpQueue::cancel_for_file). By default that succeeds.
    #[doc(alias = "IRP_MJ_CLEANUP")]
    fn cleanup<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
        irp.complete(NtStatus::SUCCESS, 0)
    }

    /// The last reference to an open file is gone, and no request for it is on its way. By default that succeeds.
    #[doc(alias = "IRP_MJ_CLOSE")]
    fn close<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
        irp.complete(NtStatus::SUCCESS, 0)
    }

    /// A read. By default it is an invalid request.
    #[doc(alias = "IRP_MJ_READ")]
    fn read<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
        self.other(irp)
    }

    /// A write. By default it is an invalid request.
    #[doc(alias = "IRP_MJ_WRITE")]
    fn write<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
        self.other(irp)
    }

    /// A device control request, see [`PendingIrp::control_code`]. By default it is an invalid request.
    #[doc(alias = "IRP_MJ_DEVICE_CONTROL")]
    fn device_control<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
        self.other(irp)
    }

    /// Any other request, plug and play included. By default it is an invalid request.
    fn other<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
        irp.complete(NtStatus(sys::STATUS_INVALID_DEVICE_REQUEST), 0)
    }
}

/// A device object.
///
/// The system makes one for each device, and shares it with the driver.
#[doc(alias = "DEVICE_OBJECT")]
#[repr(transparent)]
pub struct DeviceObject(UnsafeCell<sys::DEVICE_OBJECT>);

// SAFETY: nothing of the object is read here but its address.
unsafe impl Sync for DeviceObject {}

impl DeviceObject {
    /// The object behind a pointer.
    ///
    /// # Safety
    /// The pointer is to a device object that stays valid for `'a`.
    #[must_use]
    pub unsafe fn from_raw<'a>(device: *mut sys::DEVICE_OBJECT) -> &'a Self {
        // SAFETY: by this function's contract. The type is transparent and has interior mutability, so that the system may go on changing the object.
        unsafe { &*device.cast() }
    }

    /// The pointer, for routines that this library does not wrap. The device must not be deleted through it.
    #[must_use]
    pub fn as_raw(&self) -> *mut sys::DEVICE_OBJECT {
        self.0.get()
    }
}

impl fmt::Debug for DeviceObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceObject").finish_non_exhaustive()
    }
}

impl sealed::Sealed for DeviceObject {
    fn raw(&self) -> sealed::Raw {
        sealed::Raw::Device(self.as_raw())
    }
}

impl WorkTarget for DeviceObject {}

/// How a device is made.
///
/// By default it has no name, is of no standard kind ([`FILE_DEVICE_UNKNOWN`](sys::FILE_DEVICE_UNKNOWN)), may be opened by several at once, and names below it are checked like its own
/// ([`FILE_DEVICE_SECURE_OPEN`](sys::FILE_DEVICE_SECURE_OPEN)).
#[derive(Clone, Copy, Debug)]
#[must_use = "a device is made by create"]
pub struct DeviceBuilder<'a> {
    name: Option<&'a str>,
    link: Option<&'a str>,
    device_type: u32,
    characteristics: u32,
    exclusive: bool,
}

impl Default for DeviceBuilder<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> DeviceBuilder<'a> {
    /// The defaults.
    pub const fn new() -> Self {
        Self {
            name: None,
            link: None,
            device_type: sys::FILE_DEVICE_UNKNOWN,
            characteristics: sys::FILE_DEVICE_SECURE_OPEN,
            exclusive: false,
        }
    }

    /// The name, such as `\Device\Beep`: at most [`NAME_UNITS`] UTF-16 units.
    pub const fn name(mut self, name: &'a str) -> Self {
        self.name = Some(name);
        self
    }

    /// A symbolic link to the device, such as `\??\Beep`, which processes open as `\\.\Beep`. Only a device with a name has one.
    #[doc(alias = "IoCreateSymbolicLink")]
    pub const fn link(mut self, link: &'a str) -> Self {
        self.link = Some(link);
        self
    }

    /// The kind of device: `FILE_DEVICE_...`.
    pub const fn device_type(mut self, device_type: u32) -> Self {
        self.device_type = device_type;
        self
    }

    /// The characteristics: `FILE_...`, in place of the default.
    pub const fn characteristics(mut self, characteristics: u32) -> Self {
        self.characteristics = characteristics;
        self
    }

    /// Whether only one handle may be open at a time.
    pub const fn exclusive(mut self, exclusive: bool) -> Self {
        self.exclusive = exclusive;
        self
    }

    /// Creates the device, ready to be opened when the driver's entry has succeeded, or at once if that is over.
    ///
    /// Reads and writes are buffered.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// Nothing was made, the state was dropped, and the error is
    /// - [`NtError::INSUFFICIENT_RESOURCES`] if there is no memory;
    /// - [`NtError::OBJECT_NAME_COLLISION`] if the name, or the link, is taken;
    /// - [`NtError::INVALID_PARAMETER`] for a name that is too long, and for a link without a name;
    /// - [`NtError::IRQL_TOO_HIGH`] above `PASSIVE_LEVEL`;
    /// - whatever else the system says of the name.
    ///
    /// Wraps [`IoCreateDevice`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iocreatedevice).
    #[doc(alias = "IoCreateDevice")]
    pub fn create<T: Dispatch>(self, driver: &DriverObject, state: T) -> Result<Device<T>> {
        irql::require_at_most(Irql::PASSIVE)?;
        if self.link.is_some() && self.name.is_none() {
            return Err(NtError::INVALID_PARAMETER);
        }
        let name = self.name.map(Name::new).transpose()?;
        let link = self.link.map(Name::new).transpose()?;
        let shared = Shared::new(state, link)?;
        let object = create_object(&self, driver, name.as_deref())?;
        // From here on the drop of this undoes it all.
        let mut device = Device { object, deletion: None, shared, _state: PhantomData };
        shared::register(object, device.shared.clone());
        shared::route(driver);
        let deletion = Deletion { object, shared: device.shared.clone() };
        device.deletion = Some(WorkItem::new(device.object(), move || deletion.run())?);
        if let (Some(name), Some(link)) = (&name, device.shared.link()) {
            let (mut link, mut name) = (link.string(), name.string());
            // SAFETY: both strings are valid during the call; the level was checked.
            check(unsafe { sys::IoCreateSymbolicLink(&raw mut link, &raw mut name) })?;
            device.shared.set_linked();
        }
        // SAFETY: the device is this driver's, and cannot be opened yet.
        unsafe { (*object).Flags |= sys::DO_BUFFERED_IO };
        // SAFETY: as above. During the driver's entry the I/O manager clears the flag by itself, which does no harm.
        unsafe { (*object).Flags &= !sys::DO_DEVICE_INITIALIZING };
        Ok(device)
    }
}

/// Makes the system's object, which cannot be opened yet. The level was checked.
fn create_object(builder: &DeviceBuilder<'_>, driver: &DriverObject, name: Option<&Name>) -> Result<*mut sys::DEVICE_OBJECT> {
    let mut string = name.map(Name::string);
    let name = string.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
    let mut device = ptr::null_mut();
    let exclusive = sys::BOOLEAN::from(builder.exclusive);
    let (kind, characteristics) = (builder.device_type, builder.characteristics);
    // SAFETY: the driver object and the string are valid during the call; the result is a local variable.
    let status = unsafe { sys::IoCreateDevice(driver.as_raw(), 0, name, kind, characteristics, exclusive, &raw mut device) };
    check(status)?;
    Ok(device)
}

/// How many UTF-16 units a device's name, or a link's, may have.
pub const NAME_UNITS: usize = 256;

/// A name as the system wants it.
#[derive(Debug)]
pub(crate) struct Name {
    units: [u16; NAME_UNITS],
    length: usize,
}

impl Name {
    /// Encodes a name, in a box of its own: it is large for a kernel's stack.
    pub(crate) fn new(name: &str) -> Result<KBox<Self>> {
        let mut encoded = KBox::new_uninit()?.write(Self { units: [0; NAME_UNITS], length: 0 });
        for unit in name.encode_utf16() {
            let length = encoded.length;
            *encoded.units.get_mut(length).ok_or(NtError::INVALID_PARAMETER)? = unit;
            encoded.length = length + 1;
        }
        Ok(encoded)
    }

    /// The string, which is valid as long as `self`.
    pub(crate) fn string(&self) -> sys::UNICODE_STRING {
        // CAST: at most 512.
        let bytes = (self.length * 2) as u16;
        sys::UNICODE_STRING { Length: bytes, MaximumLength: bytes, Buffer: self.units.as_ptr().cast_mut() }
    }
}

/// A device of a driver's, with the state that its routines share.
///
/// # IRQL
/// Dropped at `<= DISPATCH_LEVEL`. At `PASSIVE_LEVEL` the device is deleted there and then; at a higher level a worker thread does it, which the driver's unload
/// [waits](crate::driver::drain) for. The state is dropped where the last routine ends, or there. Above `DISPATCH_LEVEL` the device is leaked.
///
/// # Examples
/// A request that waits in a queue, for a thread, or for its cancellation:
/// ```
/// use core::time::Duration;
/// use ksync::device::{Device, DeviceBuilder, Dispatch, Disposition, Irp, IrpQueue};
/// use ksync::driver::{DriverObject, UnicodeStr};
/// use ksync::error::Result;
///
/// struct Waiting {
///     queue: IrpQueue,
/// }
///
/// impl Dispatch for Waiting {
///     fn device_control<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
///         self.queue.insert(irp)
///     }
///
///     fn cleanup<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
///         self.queue.cancel_for_file(irp.file());
///         irp.complete_with(Ok(0))
///     }
///
///     fn write<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
///         if let Some(mut waiting) = self.queue.pop() {
///             let written = waiting.write_output(irp.input());
///             waiting.complete_with(written);
///         }
///         irp.complete_with(Ok(0))
///     }
/// }
///
/// fn entry(driver: &DriverObject, _registry_path: &UnicodeStr) -> Result<Device<Waiting>> {
///     DeviceBuilder::new().name(r"\Device\Waiting").create(driver, Waiting { queue: IrpQueue::new()? })
/// }
///
/// ksync::driver_entry!(entry);
///
/// # fn main() {
/// # ksim::Machine::new().run(|| {
/// let driver = ksim::load_driver("waiting", DriverEntry).unwrap();
/// let device = ksim::open_device(r"\Device\Waiting", ksim::Requestor::User).unwrap();
/// let (first, second) = (device.begin_device_control(0x22_2000, b"", 8), device.begin_device_control(0x22_2000, b"", 8));
/// assert!(second.cancel());
/// assert!(device.write(b"hello").is_success());
/// assert_eq!(first.wait().output, b"hello");
/// assert_eq!(second.wait().status, ksync::NtError::CANCELLED.status().0);
/// device.close();
/// driver.unload();
/// # }).expect_clean();
/// # }
/// ```
#[doc(alias = "DEVICE_OBJECT")]
pub struct Device<T: Dispatch> {
    /// # Invariants
    /// The device was created by this, and is deleted by its drop alone.
    object: *mut sys::DEVICE_OBJECT,
    /// Deletes the device where this cannot. It goes before the state, which it keeps.
    deletion: Option<WorkItem>,
    /// # Invariants
    /// The state is a `T`.
    shared: SharedRef,
    _state: PhantomData<T>,
}

// SAFETY: a device belongs to no thread, and its state is `Send`, as `Dispatch` asks.
unsafe impl<T: Dispatch> Send for Device<T> {}
// SAFETY: a shared device gives out shared references to its state, which is `Sync`, as `Dispatch` asks.
unsafe impl<T: Dispatch> Sync for Device<T> {}

impl<T: Dispatch> Device<T> {
    /// The state.
    #[must_use]
    pub fn state(&self) -> &T {
        // SAFETY: by the type's invariant.
        unsafe { self.shared.state() }
    }

    /// The device object.
    #[must_use]
    pub fn object(&self) -> &DeviceObject {
        // SAFETY: by the type's invariant the device is not deleted before this is dropped.
        unsafe { DeviceObject::from_raw(self.object) }
    }

    /// Attaches the device to the top of another one's stack, so that it sees the requests for that first and may [forward](Irp::forward) them. It is detached once, when it is deleted.
    ///
    /// Opens, cleanups and closes come to the device first, too, and are to be forwarded like the rest, which the routines of [`Dispatch`] do not do by themselves: a driver below may stop the system when it gets
    /// requests for a file that it has not seen opened.
    ///
    /// How reads and writes pass their data is from then on what the device below asks for: only if that is by a system buffer, [`PendingIrp::input`] and [`PendingIrp::output`] show them.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::INVALID_DEVICE_STATE`] if the device is attached already.
    /// - [`NtError::INVALID_PARAMETER`] if the other one is this device, or in the same stack.
    /// - Whatever the system says, such as `STATUS_NO_SUCH_DEVICE` if the other one is going away.
    /// - [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// Wraps [`IoAttachDeviceToDeviceStackSafe`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-ioattachdevicetodevicestacksafe).
    #[doc(alias = "IoAttachDeviceToDeviceStack")]
    #[doc(alias = "IoDetachDevice")]
    pub fn attach(&self, target: &OpenDevice) -> Result {
        irql::require_at_most(Irql::DISPATCH)?;
        self.shared.attach(self.object, target.device())
    }
}

impl<T: Dispatch> sealed::Sealed for Device<T> {
    fn raw(&self) -> sealed::Raw {
        sealed::Raw::Device(self.object)
    }
}

impl<T: Dispatch> WorkTarget for Device<T> {}

impl<T: Dispatch> fmt::Debug for Device<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").finish_non_exhaustive()
    }
}

impl<T: Dispatch> Drop for Device<T> {
    fn drop(&mut self) {
        let level = irql::current();
        if level > Irql::DISPATCH {
            crate::println!("ksync: a device was dropped above DISPATCH_LEVEL and is leaked");
            core::mem::forget(self.deletion.take());
            core::mem::forget(self.shared.clone());
            return;
        }
        // From now on requests find no state.
        drop(shared::unregister(&self.shared));
        if level == Irql::PASSIVE {
            delete(self.object, &self.shared);
        } else if let Some(deletion) = self.deletion.take() {
            deletion.insert(crate::work_item::WorkQueue::Critical);
            deletion.detach();
        }
    }
}

/// The deletion of a device, by a worker thread.
struct Deletion {
    object: *mut sys::DEVICE_OBJECT,
    shared: SharedRef,
}

// SAFETY: a device may be deleted in any thread.
unsafe impl Send for Deletion {}
// SAFETY: it is run once, when nobody else can.
unsafe impl Sync for Deletion {}

impl Deletion {
    fn run(&self) {
        delete(self.object, &self.shared);
    }
}

/// How long a request may be on its way to a device that is detached.
const ON_THE_WAY: Duration = Duration::from_secs(1);

/// Deletes a device, its link and its place in a stack.
///
/// # IRQL
/// `PASSIVE_LEVEL`.
fn delete(object: *mut sys::DEVICE_OBJECT, shared: &SharedRef) {
    if let Some(link) = shared.take_link() {
        let mut string = link.string();
        // SAFETY: the string is valid during the call; the callers are at `PASSIVE_LEVEL`.
        let status = unsafe { sys::IoDeleteSymbolicLink(&raw mut string) };
        // The link is there, unless someone else has deleted it.
        let _ = status;
    }
    if let Some(lower) = shared.detach() {
        // SAFETY: the device is attached to this one, and is detached once, here. The lower device is referenced until the state is freed.
        unsafe { sys::IoDetachDevice(lower.as_ptr()) };
        // The I/O manager may have found the device on top of the stack just before, and be about to send it a request. It says nothing of that to anybody, so as drivers of this kind do, this gives it time.
        let _ = this_thread::sleep(ON_THE_WAY);
    }
    // SAFETY: the device is deleted once: by the drop of its `Device`, or by the work item that this queued instead.
    unsafe { sys::IoDeleteDevice(object) };
}
