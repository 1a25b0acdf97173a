//! Other drivers' devices.

use core::fmt;
use core::ptr;
use core::ptr::NonNull;

use ksync_sys as sys;

use super::Name;
use crate::error::{NtError, Result, check};
use crate::irql::{self, Irql};
use crate::object::FileObject;

/// A device of any driver, found by its name, with a reference to the open file that keeps it.
///
/// # IRQL
/// Dropped at `<= DISPATCH_LEVEL`; above, the reference is leaked.
///
/// # Examples
/// ```no_run
/// use ksync::device::OpenDevice;
///
/// let device = OpenDevice::open(r"\Device\Echo", 1)?;
/// let mut answer = [0; 16];
/// let length = device.device_control(0x22_2000, b"hello", &mut answer)?;
/// # Ok::<(), ksync::NtError>(())
/// ```
#[doc(alias = "IoGetDeviceObjectPointer")]
pub struct OpenDevice {
    /// # Invariants
    /// The file is referenced.
    file: FileObject,
    /// # Invariants
    /// The device is in the stack to the top of which requests for the file go.
    device: Referenced,
}

/// A reference to a device object.
///
/// A file keeps the device that was opened. It does not keep those that are attached above it, which may be detached and deleted at any time.
struct Referenced(NonNull<sys::DEVICE_OBJECT>);

impl Referenced {
    /// The device at the top of the stack that another one is in.
    ///
    /// # Safety
    /// That one is valid.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    unsafe fn top_of(device: *mut sys::DEVICE_OBJECT) -> Self {
        // SAFETY: by this function's contract. The routine references what it returns.
        let top = unsafe { sys::IoGetAttachedDeviceReference(device) };
        // SAFETY: there is always a top, if only the device itself.
        Self(unsafe { NonNull::new_unchecked(top) })
    }

    /// The device itself.
    ///
    /// # Safety
    /// It is valid.
    unsafe fn to(device: *mut sys::DEVICE_OBJECT) -> Self {
        // SAFETY: by this function's contract.
        unsafe { sys::ObfReferenceObject(device.cast()) };
        // SAFETY: as above.
        Self(unsafe { NonNull::new_unchecked(device) })
    }

    const fn as_ptr(&self) -> *mut sys::DEVICE_OBJECT {
        self.0.as_ptr()
    }
}

impl Drop for Referenced {
    fn drop(&mut self) {
        let level = irql::current();
        if level == Irql::PASSIVE {
            // SAFETY: the reference is this value's, and is given back once, here.
            unsafe { sys::ObfDereferenceObject(self.as_ptr().cast()) };
        } else if level <= Irql::DISPATCH {
            // SAFETY: as above. The object's deletion, if this was the last reference, is left to a system thread.
            unsafe { sys::ObDereferenceObjectDeferDelete(self.as_ptr().cast()) };
        }
        // Above, it is leaked. So is that to the file, which says so.
    }
}

// SAFETY: a file belongs to no thread.
unsafe impl Send for OpenDevice {}
// SAFETY: requests may be sent by several threads at once.
unsafe impl Sync for OpenDevice {}

impl OpenDevice {
    /// Opens a device by its name, with access rights such as [`FILE_READ_DATA`](sys::FILE_READ_DATA).
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::IRQL_TOO_HIGH`] above `PASSIVE_LEVEL`.
    /// - [`NtError::WOULD_DEADLOCK`] where special kernel APCs are held back, without which a file cannot be opened: in a guarded region.
    /// - [`NtError::INVALID_PARAMETER`] for a name that is too long.
    /// - [`NtError::INSUFFICIENT_RESOURCES`] if there is no memory.
    /// - Whatever the system or the device's driver says.
    ///
    /// Wraps [`IoGetDeviceObjectPointer`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iogetdeviceobjectpointer).
    #[doc(alias = "IoGetDeviceObjectPointer")]
    pub fn open(name: &str, access: u32) -> Result<Self> {
        check_apcs()?;
        let name = Name::new(name)?;
        let mut string = name.string();
        let (mut file, mut device) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the string is valid during the call, and the results are local variables; the level was checked.
        check(unsafe { sys::IoGetDeviceObjectPointer(&raw mut string, access, &raw mut file, &raw mut device) })?;
        let file = NonNull::new(file).ok_or(NtError::UNSUCCESSFUL)?;
        // INVARIANT: the routine has referenced the file. The device, which is the top of the stack, is not referenced.
        // SAFETY: as above: the reference is ours.
        let file = unsafe { FileObject::from_raw(file) };
        // SAFETY: the file is referenced; the field never changes.
        let opened = unsafe { (*file.as_raw()).DeviceObject };
        // SAFETY: as above.
        let is_on_volume = !unsafe { (*file.as_raw()).Vpb }.is_null();
        // The file of a volume is the file system's, whose stack is another than that of the device.
        let device = if is_on_volume { device } else { opened };
        // SAFETY: the file keeps the device that was opened, and its volume the file system's.
        Ok(Self { file, device: unsafe { Referenced::to(device) } })
    }

    /// The file object by which the device is open.
    ///
    /// # Examples
    /// ```no_run
    /// # fn example() -> ksync::error::Result {
    /// let device = ksync::device::OpenDevice::open(r"\Device\Beep", ksync::sys::FILE_READ_DATA)?;
    /// let file = device.file().clone();
    /// drop(device); // the file keeps what is behind it
    /// # drop(file);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn file(&self) -> &FileObject {
        &self.file
    }

    /// The device.
    pub(super) const fn device(&self) -> *mut sys::DEVICE_OBJECT {
        self.device.as_ptr()
    }

    /// Sends a device control request and waits for its end. Returns how many bytes of the output the driver has written, as it says.
    ///
    /// The request is the kernel's own: the device's driver checks no rights, and believes what it is told, such as pointers in the input. So what a user has passed is not passed on unseen.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::IRQL_TOO_HIGH`] above `PASSIVE_LEVEL`.
    /// - [`NtError::WOULD_DEADLOCK`] where special kernel APCs are held back, one of which ends the request: in a guarded region.
    /// - [`NtError::INVALID_PARAMETER`] for a buffer of 4 GiB or more.
    /// - [`NtError::INSUFFICIENT_RESOURCES`] if there is no memory.
    /// - Whatever the driver says.
    ///
    /// Wraps [`IoBuildDeviceIoControlRequest`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iobuilddeviceiocontrolrequest).
    #[doc(alias = "IoBuildDeviceIoControlRequest")]
    pub fn device_control(&self, code: u32, input: &[u8], output: &mut [u8]) -> Result<usize> {
        check_apcs()?;
        let length = |bytes: usize| u32::try_from(bytes).map_err(|_| NtError::INVALID_PARAMETER);
        let (input_length, output_length) = (length(input.len())?, length(output.len())?);
        // SAFETY: the device is referenced; the level was checked.
        let device = unsafe { Referenced::top_of(self.device.as_ptr()) };
        let mut event = core::mem::MaybeUninit::<sys::KEVENT>::uninit();
        let event = event.as_mut_ptr();
        // SAFETY: the event lies on the stack of a thread that stays in the kernel, and is not used when this returns.
        unsafe { sys::KeInitializeEvent(event, sys::NotificationEvent, sys::FALSE) };
        let mut block = sys::IO_STATUS_BLOCK { u: sys::IO_STATUS_BLOCK_0 { Status: 0 }, Information: 0 };
        // SAFETY: the device is referenced. Buffers, event and status block are valid until the request has ended, which is waited for below.
        let irp = unsafe {
            sys::IoBuildDeviceIoControlRequest(
                code,
                device.as_ptr(),
                input.as_ptr().cast_mut().cast(),
                input_length,
                output.as_mut_ptr().cast(),
                output_length,
                sys::FALSE,
                event,
                &raw mut block,
            )
        };
        if irp.is_null() {
            return Err(NtError::INSUFFICIENT_RESOURCES);
        }
        // SAFETY: the request is fresh.
        let location = unsafe { sys::IoGetNextIrpStackLocation(irp) };
        // SAFETY: as above, and it has a location.
        unsafe { (*location).FileObject = self.file.as_raw() };
        // SAFETY: the request is given up to the driver here.
        let mut status = unsafe { sys::IofCallDriver(device.as_ptr(), irp) };
        if status == sys::STATUS_PENDING {
            // SAFETY: a field of the event.
            let state = unsafe { &raw const (*event).Header.SignalState };
            // Once, in NT. The hosted kernel lets no wait last while a panic unwinds, and the request is not to outlive what it writes to.
            loop {
                // SAFETY: the event is initialised; the level is one to wait at.
                unsafe { sys::KeWaitForSingleObject(event.cast(), sys::Executive, sys::KernelMode, sys::FALSE, ptr::null()) };
                // SAFETY: the event is initialised, and its state may change until it has been seen to be set.
                if unsafe { state.read_volatile() } != 0 {
                    break;
                }
            }
            // SAFETY: the I/O manager has written the block before it set the event, as an integer.
            status = unsafe { block.u.Status };
        }
        check(status)?;
        Ok(block.Information)
    }
}

impl fmt::Debug for OpenDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenDevice").finish_non_exhaustive()
    }
}

/// Checks that special kernel APCs, which end requests, reach this thread, and that it is at `PASSIVE_LEVEL`.
fn check_apcs() -> Result {
    irql::require_at_most(Irql::PASSIVE)?;
    if crate::region::all_apcs_disabled() { Err(NtError::WOULD_DEADLOCK) } else { Ok(()) }
}
