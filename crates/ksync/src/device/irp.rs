//! Requests, as a driver has them: each is completed exactly once.

use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;

use ksync_sys as sys;

use crate::error::{NtError, NtStatus, Result};
use crate::irql::{self, Irql};

/// What a dispatch routine comes to: the one request that it was given was completed, kept, or passed on.
///
/// There is no other way to make one than to do that, and the lifetime ties it to that request: a routine cannot return another one's.
#[must_use = "it is what the routine returns"]
#[derive(Debug)]
pub struct Disposition<'i> {
    status: NtStatus,
    _request: Brand<'i>,
}

/// Makes a lifetime neither longer nor shorter.
pub(super) type Brand<'i> = PhantomData<fn(&'i ()) -> &'i ()>;

impl Disposition<'_> {
    pub(super) const fn new(status: NtStatus) -> Self {
        Self { status, _request: PhantomData }
    }

    /// The status that the dispatch routine returns.
    #[must_use]
    pub const fn status(&self) -> NtStatus {
        self.status
    }
}

/// A request (IRP) that a dispatch routine was given.
///
/// The routine [completes](Self::complete) it, or makes it [pending](Self::pend) and completes it later, from any thread. One that is dropped is completed as
/// `STATUS_UNSUCCESSFUL`; only a panic comes to that, because the routine has nothing to return then.
///
/// # IRQL
/// Used, completed and dropped at `<= DISPATCH_LEVEL`, and not under a spin lock: the completion routines of drivers above are called.
#[doc(alias = "IRP")]
pub struct Irp<'i> {
    irp: PendingIrp,
    _request: Brand<'i>,
    /// A request that is not pending stays in the thread of its dispatch routine.
    _thread: PhantomData<*const ()>,
}

impl<'i> Irp<'i> {
    /// The request behind a pointer.
    ///
    /// # Safety
    /// The caller owns the request, and does not use it otherwise any more. The lifetime is that of one call of a dispatch routine.
    pub(super) unsafe fn from_raw(irp: *mut sys::IRP) -> Self {
        // SAFETY: by this function's contract.
        Self { irp: unsafe { PendingIrp::from_raw(irp) }, _request: PhantomData, _thread: PhantomData }
    }

    /// Completes the request.
    ///
    /// `information` is mostly the number of bytes that were written, which must not be more than the output buffer has: it is cut to that. Requests other than opens, reads, writes, control codes and questions
    /// about files and volumes have no output here, and are completed with 0.
    ///
    /// A status that would promise what cannot be given here is replaced by `STATUS_UNSUCCESSFUL`: success, for a question whose answer is in memory that is not shown here, as many of plug and play are;
    /// `STATUS_REPARSE`; and `STATUS_PENDING`.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`. Above it the request stays pending for ever, which is reported.
    ///
    /// Wraps [`IofCompleteRequest`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iocompleterequest).
    #[doc(alias = "IoCompleteRequest")]
    #[doc(alias = "IofCompleteRequest")]
    pub fn complete(self, status: NtStatus, information: usize) -> Disposition<'i> {
        Disposition::new(self.irp.finish(status, information))
    }

    /// Completes the request with a result: its number of bytes, or its error.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    pub fn complete_with(self, result: Result<usize>) -> Disposition<'i> {
        match result {
            Ok(information) => self.complete(NtStatus::SUCCESS, information),
            Err(error) => self.complete(error.status(), 0),
        }
    }

    /// Makes the request pending: the routine returns `STATUS_PENDING`, and the request is completed later, or sooner.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// Wraps [`IoMarkIrpPending`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iomarkirppending).
    #[doc(alias = "IoMarkIrpPending")]
    pub fn pend(self) -> (PendingIrp, Disposition<'i>) {
        // SAFETY: the request is owned.
        unsafe { sys::IoMarkIrpPending(self.irp.as_raw()) };
        (self.irp, Disposition::new(NtStatus(sys::STATUS_PENDING)))
    }

    /// See [`PendingIrp::output`].
    #[must_use]
    pub fn output(&mut self) -> &mut [u8] {
        self.irp.output()
    }

    /// Copies bytes to the beginning of the output. See [`PendingIrp::write_output`].
    ///
    /// # Errors
    /// Those of [`PendingIrp::write_output`].
    pub fn write_output(&mut self, bytes: &[u8]) -> Result<usize> {
        self.irp.write_output(bytes)
    }

    /// Passes the request on to the device that this one is [attached](super::Device::attach) to, which completes it. If it is attached to none, the
    /// request is completed as `STATUS_INVALID_DEVICE_REQUEST`. One that has no room for the drivers below is completed as [`NtError::INVALID_DEVICE_STATE`]: it was sent before the device was attached to
    /// them, or by way of a device that was attached to this one before that.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`. Above it the request stays pending for ever, which is reported.
    ///
    /// Wraps [`IofCallDriver`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iocalldriver).
    #[doc(alias = "IoSkipCurrentIrpStackLocation")]
    #[doc(alias = "IofCallDriver")]
    pub fn forward(self) -> Disposition<'i> {
        if let Some(status) = self.irp.leak_if_too_high() {
            core::mem::forget(self);
            return Disposition::new(status);
        }
        let lower = super::shared::lower_of(self.irp.device());
        if lower.is_null() {
            return self.complete(NtStatus(sys::STATUS_INVALID_DEVICE_REQUEST), 0);
        }
        // SAFETY: the request is owned.
        let left = unsafe { (*self.irp.as_raw()).CurrentLocation };
        // SAFETY: the lower device is referenced for as long as a dispatch routine of this one runs.
        if left < unsafe { (*lower).StackSize } {
            return self.complete(NtError::INVALID_DEVICE_STATE.status(), 0);
        }
        let _device = self.irp.take_reference();
        let irp = self.irp.into_raw().as_ptr();
        // SAFETY: the request was owned, and is passed on.
        unsafe { sys::IoSkipCurrentIrpStackLocation(irp) };
        // SAFETY: as above. The request is given up here.
        Disposition::new(NtStatus(unsafe { sys::IofCallDriver(lower, irp) }))
    }
}

// There is no `DerefMut`: it would let the request inside be swapped for another.
impl core::ops::Deref for Irp<'_> {
    type Target = PendingIrp;

    #[inline]
    fn deref(&self) -> &PendingIrp {
        &self.irp
    }
}

impl fmt::Debug for Irp<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.irp, f)
    }
}

/// A request that is pending: it belongs to no thread, and is completed exactly once. One that is dropped is completed as `STATUS_UNSUCCESSFUL`.
///
/// # IRQL
/// As for [`Irp`].
#[doc(alias = "IRP")]
pub struct PendingIrp {
    /// # Invariants
    /// The request is owned, and its current stack location is that of a device of this library.
    irp: NonNull<sys::IRP>,
}

// SAFETY: a request belongs to no thread.
unsafe impl Send for PendingIrp {}
// SAFETY: a shared reference offers reads of what only the owner changes.
unsafe impl Sync for PendingIrp {}

impl PendingIrp {
    /// The request behind a pointer.
    ///
    /// # Safety
    /// The caller owns the request, and does not use it otherwise any more.
    pub(super) const unsafe fn from_raw(irp: *mut sys::IRP) -> Self {
        // SAFETY: by this function's contract it is a request, and so not null.
        Self { irp: unsafe { NonNull::new_unchecked(irp) } }
    }

    /// Gives the request up for its pointer.
    pub(super) fn into_raw(self) -> NonNull<sys::IRP> {
        ManuallyDrop::new(self).irp
    }

    /// The request, for routines that this library does not wrap. It stays owned: it must not be completed, passed on or freed through this pointer.
    #[must_use]
    pub fn as_raw(&self) -> *mut sys::IRP {
        self.irp.as_ptr()
    }

    /// The request's stack location.
    fn location(&self) -> sys::IO_STACK_LOCATION {
        // SAFETY: by the type's invariant the request is owned.
        let location = unsafe { sys::IoGetCurrentIrpStackLocation(self.as_raw()) };
        // SAFETY: by the type's invariant there is one.
        unsafe { location.read() }
    }

    /// The major function: `IRP_MJ_...`.
    #[must_use]
    pub fn major_function(&self) -> u8 {
        self.location().MajorFunction
    }

    /// Tells whether the request comes from user mode, so that what it says must not be trusted.
    #[must_use]
    pub fn is_from_user(&self) -> bool {
        // SAFETY: by the type's invariant the request is owned.
        unsafe { (*self.as_raw()).RequestorMode != sys::KernelMode }
    }

    /// The open file that the request is for, by its address; 0 if there is none.
    #[must_use]
    pub fn file(&self) -> usize {
        self.location().FileObject.addr()
    }

    /// The device that the request is for.
    #[must_use]
    pub fn device(&self) -> &super::DeviceObject {
        // SAFETY: the device of a request is valid while the request is on its way: the file keeps it, or the request does.
        unsafe { super::DeviceObject::from_raw(self.location().DeviceObject) }
    }

    /// Tells whether somebody has cancelled the request.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        // SAFETY: by the type's invariant the request is owned.
        unsafe { is_cancelled(self.as_raw()) }
    }

    /// The parameters of a device control request.
    fn control(&self) -> Option<sys::IO_PARAMETERS_DEVICE_IO_CONTROL> {
        let location = self.location();
        if !matches!(location.MajorFunction, sys::IRP_MJ_DEVICE_CONTROL | sys::IRP_MJ_INTERNAL_DEVICE_CONTROL) {
            return None;
        }
        // SAFETY: these are the parameters of such requests.
        Some(unsafe { location.Parameters.DeviceIoControl })
    }

    /// The control code of a device control request.
    #[doc(alias = "IoControlCode")]
    #[must_use]
    pub fn control_code(&self) -> Option<u32> {
        self.control().map(|control| control.IoControlCode)
    }

    /// The lengths of the input and output buffers in bytes, and whether they go through a system buffer. There is none where both are empty.
    fn lengths(&self) -> (usize, usize, bool) {
        let location = self.location();
        // CAST: from 32 to 64 bits.
        let (input, output) = match location.MajorFunction {
            sys::IRP_MJ_DEVICE_CONTROL | sys::IRP_MJ_INTERNAL_DEVICE_CONTROL => {
                // SAFETY: these are the parameters of such requests.
                let control = unsafe { location.Parameters.DeviceIoControl };
                if control.IoControlCode == 0 {
                    // No control code: a storage driver's `IRP_MJ_SCSI`, which has the number of an internal one, and other parameters.
                    return (0, 0, false);
                }
                let (input, output) = (control.InputBufferLength as usize, control.OutputBufferLength as usize);
                match sys::METHOD_FROM_CTL_CODE(control.IoControlCode) {
                    sys::METHOD_NEITHER => return (0, 0, false),
                    sys::METHOD_BUFFERED => (input, output),
                    _ => (input, 0),
                }
            }
            // SAFETY: these are the parameters of such requests.
            sys::IRP_MJ_READ => (0, unsafe { location.Parameters.Read.Length } as usize),
            // SAFETY: as above.
            sys::IRP_MJ_WRITE => (unsafe { location.Parameters.Write.Length } as usize, 0),
            sys::IRP_MJ_QUERY_INFORMATION | codes::IRP_MJ_QUERY_VOLUME_INFORMATION => {
                // SAFETY: the length is the first of their parameters, as it is of a read's.
                (0, unsafe { location.Parameters.Read.Length } as usize)
            }
            _ => return (0, 0, false),
        };
        (input, output, !self.system_buffer().is_null() || (input == 0 && output == 0))
    }

    /// The system buffer, or null.
    fn system_buffer(&self) -> *mut u8 {
        if self.flags() & sys::IRP_ASSOCIATED_IRP != 0 {
            // It is a part of another request, and points to that.
            return core::ptr::null_mut();
        }
        // SAFETY: by the type's invariant the request is owned.
        let associated = unsafe { (*self.as_raw()).AssociatedIrp };
        // SAFETY: the union's members are pointers and an integer; a request that is no part of another and that no driver has split holds a pointer or null.
        unsafe { associated.SystemBuffer }.cast()
    }

    /// What the sender passes, where it comes in a system buffer: with a buffered or direct control code, or a write.
    /// Empty otherwise.
    #[must_use]
    pub fn input(&self) -> &[u8] {
        let (input, _, buffered) = self.lengths();
        if !buffered || input == 0 {
            return &[];
        }
        // SAFETY: the I/O manager has made the system buffer, which is as long as the input at least, and has copied the input there. Nobody else writes it while the request is
        // owned and this borrows it.
        unsafe { core::slice::from_raw_parts(self.system_buffer(), input) }
    }

    /// Clears the part of a system buffer that no input was copied to, unless that was done before.
    ///
    /// The request has one, and the lengths are those of [`lengths`](Self::lengths).
    fn clear(&self, input: usize, output: usize) {
        let cleared = cleared(self.as_raw());
        // SAFETY: the field is one of those that the driver which owns the request uses as it likes.
        if output > input && unsafe { cleared.read() }.is_null() {
            // SAFETY: the system buffer is as long as the output at least, and is lent to nobody now.
            unsafe { self.system_buffer().wrapping_add(input).write_bytes(0, output - input) };
        }
        // SAFETY: as above.
        unsafe { cleared.write(cleared.cast()) };
    }

    /// Where to write what the sender is to get, if that goes through a system buffer: with a buffered control code, a read, or a question about a file or a volume. Empty otherwise.
    ///
    /// It is the memory that the input is in. What lies behind the input is zeroed the first time, so that no memory of the system's reaches the sender.
    ///
    /// # Examples
    /// See [`Device`](super::Device).
    #[must_use]
    pub fn output(&mut self) -> &mut [u8] {
        let (input, output, buffered) = self.lengths();
        if !buffered || output == 0 {
            return &mut [];
        }
        self.clear(input, output);
        // SAFETY: the system buffer is as long as the output at least, and all of it is initialised. Nobody else uses it while the request is owned and this borrows it.
        unsafe { core::slice::from_raw_parts_mut(self.system_buffer(), output) }
    }

    /// Copies bytes to the beginning of the output, buffered or direct, and returns how many there are.
    ///
    /// # Errors
    /// Nothing was copied, and the error is
    /// - [`NtError::BUFFER_TOO_SMALL`] if the output buffer is too short;
    /// - [`NtError::INSUFFICIENT_RESOURCES`] if a direct buffer cannot be mapped;
    /// - [`NtError::NOT_SUPPORTED`] if the buffer is passed in another way.
    pub fn write_output(&mut self, bytes: &[u8]) -> Result<usize> {
        let (_, _, buffered) = self.lengths();
        // SAFETY: by the type's invariant the request is owned.
        let mdl = unsafe { (*self.as_raw()).MdlAddress };
        let method = self.control_code().map(sys::METHOD_FROM_CTL_CODE);
        if method == Some(sys::METHOD_IN_DIRECT) {
            // Its list is for reading: the pages are not locked for writing.
            return Err(NtError::NOT_SUPPORTED);
        }
        let direct = method == Some(sys::METHOD_OUT_DIRECT);
        if direct && !mdl.is_null() {
            // SAFETY: the list is that of the request's output buffer.
            let length = unsafe { sys::MmGetMdlByteCount(mdl) } as usize;
            if bytes.len() > length {
                return Err(NtError::BUFFER_TOO_SMALL);
            }
            /// `NormalPagePriority`, and not executable.
            const PRIORITY: u32 = 16 | 0x4000_0000;
            // SAFETY: as above; its pages are locked.
            let memory = unsafe { sys::MmGetSystemAddressForMdlSafe(mdl, PRIORITY) };
            if memory.is_null() {
                return Err(NtError::INSUFFICIENT_RESOURCES);
            }
            // SAFETY: the memory is mapped and so long. User mode may write it at the same time, so that no reference to it is made.
            unsafe { memory.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
            return Ok(bytes.len());
        }
        if !buffered && !bytes.is_empty() {
            return Err(NtError::NOT_SUPPORTED);
        }
        let output = self.output();
        let Some(place) = output.get_mut(..bytes.len()) else { return Err(NtError::BUFFER_TOO_SMALL) };
        place.copy_from_slice(bytes);
        Ok(bytes.len())
    }

    /// Completes the request. See [`Irp::complete`] for what is done about a number and a status that do not fit it.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`. Above it the request stays pending for ever, which is reported.
    ///
    /// Wraps [`IofCompleteRequest`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iocompleterequest).
    #[doc(alias = "IoCompleteRequest")]
    pub fn complete(self, status: NtStatus, information: usize) {
        self.finish(status, information);
    }

    /// Completes the request with a result: its number of bytes, or its error.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    pub fn complete_with(self, result: Result<usize>) {
        match result {
            Ok(information) => self.complete(NtStatus::SUCCESS, information),
            Err(error) => self.complete(error.status(), 0),
        }
    }

    /// Completes the request, and returns the status that it was completed with.
    fn finish(self, status: NtStatus, information: usize) -> NtStatus {
        if let Some(pending) = self.leak_if_too_high() {
            core::mem::forget(self);
            return pending;
        }
        let status = if self.may_end_with(status) { status } else { NtError::UNSUCCESSFUL.status() };
        let (input, output, buffered) = self.lengths();
        let information = if buffered && output > 0 {
            // The I/O manager copies so many bytes of the system buffer to the user. What the driver has not written are none of the kernel's secrets. Who asks about a file from within the kernel reads
            // the buffer itself, and may read more.
            if information > input || self.is_question() {
                self.clear(input, output);
            }
            information.min(output)
        } else if self.shows_buffers() && !self.copies_output() {
            self.most().map_or(information, |most| information.min(most))
        } else {
            // The system would copy so many bytes from where nothing was written, or take the number for a pointer.
            0
        };
        let _device = self.take_reference();
        let irp = self.into_raw().as_ptr();
        let block = sys::IO_STATUS_BLOCK { u: sys::IO_STATUS_BLOCK_0 { Status: status.0 }, Information: information };
        // SAFETY: by the type's invariant the request was owned.
        unsafe { (*irp).IoStatus = block };
        // SAFETY: as above. It is given up here.
        unsafe { sys::IofCompleteRequest(irp, 0) };
        status
    }

    /// Takes the reference to the device out of the request, before that goes.
    fn take_reference(&self) -> Option<Kept> {
        let place = reference(self.as_raw());
        // SAFETY: the field is one of those that the driver which owns the request uses as it likes. It was written when the request came.
        let device = unsafe { place.replace(core::ptr::null_mut()) };
        // INVARIANT: a pointer that is not null is a reference, which is not the request's any more.
        NonNull::new(device).map(Kept)
    }

    /// Tells whether the request can be completed with a status. Some would make the system look for what is not there.
    fn may_end_with(&self, status: NtStatus) -> bool {
        let location = self.location();
        match status.0 {
            // A request is not completed as one that is still pending; -1 is none of the statuses.
            sys::STATUS_PENDING | -1 => false,
            // An open that is to go on elsewhere: by a name in the file object, or by a buffer in the request.
            sys::STATUS_REPARSE | codes::STATUS_REPARSE_OBJECT => false,
            // An error is an answer to everything.
            status if status.cast_unsigned() >> 30 == 3 => true,
            // Anything else says that there is an answer, which the sender of these finds in memory that is not shown here.
            _ => match location.MajorFunction {
                codes::IRP_MJ_QUERY_EA
                | codes::IRP_MJ_DIRECTORY_CONTROL
                | codes::IRP_MJ_QUERY_SECURITY
                | codes::IRP_MJ_QUERY_QUOTA
                | sys::IRP_MJ_SYSTEM_CONTROL => false,
                sys::IRP_MJ_PNP => matches!(
                    location.MinorFunction,
                    0..=codes::IRP_MN_CANCEL_STOP_DEVICE
                        | codes::IRP_MN_EJECT
                        | codes::IRP_MN_SET_LOCK
                        | codes::IRP_MN_DEVICE_USAGE_NOTIFICATION
                        | codes::IRP_MN_SURPRISE_REMOVAL
                ),
                _ => true,
            },
        }
    }

    /// How many bytes can have been read or written, if the request says so and they do not go through a system buffer. Its sender may look for as many as it is told: the memory manager does, of the pages
    /// that it has read.
    fn most(&self) -> Option<usize> {
        let location = self.location();
        let length = match location.MajorFunction {
            // SAFETY: these are the parameters of such requests.
            sys::IRP_MJ_READ => unsafe { location.Parameters.Read.Length },
            // SAFETY: as above.
            sys::IRP_MJ_WRITE => unsafe { location.Parameters.Write.Length },
            _ => return None,
        };
        // CAST: from 32 to 64 bits.
        Some(length as usize)
    }

    /// Tells whether the request asks about a file or a volume.
    fn is_question(&self) -> bool {
        matches!(self.major_function(), sys::IRP_MJ_QUERY_INFORMATION | codes::IRP_MJ_QUERY_VOLUME_INFORMATION)
    }

    /// Tells whether the buffers of such requests are shown here, or there are none and the number says what an open has done.
    fn shows_buffers(&self) -> bool {
        matches!(
            self.major_function(),
            sys::IRP_MJ_CREATE
                | sys::IRP_MJ_READ
                | sys::IRP_MJ_WRITE
                | sys::IRP_MJ_DEVICE_CONTROL
                | sys::IRP_MJ_INTERNAL_DEVICE_CONTROL
        )
    }

    /// Tells whether the I/O manager copies the system buffer to the user.
    fn copies_output(&self) -> bool {
        self.flags() & sys::IRP_INPUT_OPERATION != 0
    }

    fn flags(&self) -> u32 {
        // SAFETY: by the type's invariant the request is owned.
        unsafe { (*self.as_raw()).Flags }
    }

    /// Above `DISPATCH_LEVEL`, where a request can be neither completed nor passed on, says so, and marks it pending. The caller forgets it, and returns the status.
    fn leak_if_too_high(&self) -> Option<NtStatus> {
        if irql::current() <= Irql::DISPATCH {
            return None;
        }
        crate::println!("ksync: a request was given up above DISPATCH_LEVEL and is leaked");
        // SAFETY: by the type's invariant the request is owned.
        unsafe { sys::IoMarkIrpPending(self.as_raw()) };
        Some(NtStatus(sys::STATUS_PENDING))
    }
}

/// A reference to a device that was a request's.
///
/// # Invariants
/// The reference is this value's. The level is `DISPATCH_LEVEL` or below.
struct Kept(NonNull<sys::DEVICE_OBJECT>);

impl Drop for Kept {
    fn drop(&mut self) {
        // With the last reference the device goes, and with that the driver may, whose code this is: so that is left to a system thread at all levels.
        // SAFETY: by the type's invariant.
        unsafe { sys::ObDereferenceObjectDeferDelete(self.0.as_ptr().cast()) };
    }
}

/// What `ksync-sys` does not name.
mod codes {
    pub(super) const STATUS_REPARSE_OBJECT: i32 = 0x118;
    pub(super) const IRP_MJ_QUERY_EA: u8 = 0x07;
    pub(super) const IRP_MJ_QUERY_VOLUME_INFORMATION: u8 = 0x0A;
    pub(super) const IRP_MJ_DIRECTORY_CONTROL: u8 = 0x0C;
    pub(super) const IRP_MJ_QUERY_SECURITY: u8 = 0x14;
    pub(super) const IRP_MJ_QUERY_QUOTA: u8 = 0x19;
    /// The last of those that start, stop and remove a device, which are answered by a status alone, as are the following.
    pub(super) const IRP_MN_CANCEL_STOP_DEVICE: u8 = 0x06;
    pub(super) const IRP_MN_EJECT: u8 = 0x11;
    pub(super) const IRP_MN_SET_LOCK: u8 = 0x12;
    pub(super) const IRP_MN_DEVICE_USAGE_NOTIFICATION: u8 = 0x16;
    pub(super) const IRP_MN_SURPRISE_REMOVAL: u8 = 0x17;
}

/// Tells whether somebody has cancelled a request.
///
/// # Safety
/// The request is valid.
pub(super) unsafe fn is_cancelled(irp: *mut sys::IRP) -> bool {
    // SAFETY: by this function's contract; the address of a field is taken.
    let cancel = unsafe { &raw const (*irp).Cancel };
    // SAFETY: as above. Others set the field: it is read once, as one byte.
    unsafe { cancel.read_volatile() != 0 }
}

/// Where a request keeps a reference to its device, if the file that it is for does not keep that: another of those pointers. Null is none.
pub(super) fn reference(irp: *mut sys::IRP) -> *mut *mut sys::DEVICE_OBJECT {
    irp.wrapping_byte_add(core::mem::offset_of!(sys::IRP, Tail)).cast::<*mut sys::DEVICE_OBJECT>().wrapping_add(2)
}

/// Where a request keeps whether its output has been cleared: the last of the pointers that are its driver's. Null is "no".
pub(super) fn cleared(irp: *mut sys::IRP) -> *mut *mut core::ffi::c_void {
    irp.wrapping_byte_add(core::mem::offset_of!(sys::IRP, Tail)).cast::<*mut core::ffi::c_void>().wrapping_add(3)
}

impl fmt::Debug for PendingIrp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Irp").field("major_function", &self.major_function()).finish_non_exhaustive()
    }
}

impl Drop for PendingIrp {
    fn drop(&mut self) {
        // SAFETY: the value is going away, and is not used any more.
        let irp = unsafe { Self::from_raw(self.as_raw()) };
        irp.finish(NtError::UNSUCCESSFUL.status(), 0);
    }
}
