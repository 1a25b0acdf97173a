//! I/O requests: their stack locations, their cancel routine, control codes, device DPCs.

use core::mem::transmute;
use core::ptr::null_mut;

use crate::atomic::{AtomicPtr, Ordering};
use crate::*;

/// Makes a control code.
///
/// # Examples
/// ```
/// use ksync_sys::{CTL_CODE, FILE_ANY_ACCESS, FILE_DEVICE_UNKNOWN, METHOD_BUFFERED};
/// assert_eq!(CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS), 0x22_2000);
/// ```
#[inline]
#[must_use]
pub const fn CTL_CODE(DeviceType: ULONG, Function: ULONG, Method: ULONG, Access: ULONG) -> ULONG {
    DeviceType << 16 | Access << 14 | Function << 2 | Method
}

/// Returns how a control code's buffers are passed: `METHOD_...`.
#[inline]
#[must_use]
pub const fn METHOD_FROM_CTL_CODE(ctrlCode: ULONG) -> ULONG {
    ctrlCode & 3
}

/// Returns the type of device that a control code is for.
#[inline]
#[must_use]
pub const fn DEVICE_TYPE_FROM_CTL_CODE(ctrlCode: ULONG) -> ULONG {
    ctrlCode >> 16
}

/// Returns the size of a request with so many stack locations in bytes.
#[inline]
#[must_use]
pub const fn IoSizeOfIrp(StackSize: CCHAR) -> USHORT {
    // CAST: at most 208 + 127 * 72. A negative size is none.
    let locations = if StackSize < 0 { 0 } else { StackSize as usize };
    (size_of::<IRP>() + locations * size_of::<IO_STACK_LOCATION>()) as USHORT
}

/// The field of a request that points to the current stack location.
///
/// # Safety
/// The request is valid.
#[inline]
unsafe fn current(irp: *mut IRP) -> *mut *mut IO_STACK_LOCATION {
    // SAFETY: by this function's contract; a field's address is taken, and nothing read.
    let tail = unsafe { &raw mut (*irp).Tail };
    // SAFETY: the overlay begins where the union begins, and its fields lie in it.
    unsafe { &raw mut (*tail.cast::<IRP_TAIL_OVERLAY>()).CurrentStackLocation }
}

/// Returns the stack location of the driver that has the request.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Safety
/// The caller owns the request.
#[inline]
#[must_use]
pub unsafe fn IoGetCurrentIrpStackLocation(Irp: *mut IRP) -> *mut IO_STACK_LOCATION {
    // SAFETY: by the caller's contract.
    let field = unsafe { current(Irp) };
    // SAFETY: by the caller's contract.
    unsafe { field.read() }
}

/// Returns the stack location of the next lower driver.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Safety
/// The caller owns the request, which has a further stack location.
#[inline]
#[must_use]
pub unsafe fn IoGetNextIrpStackLocation(Irp: *mut IRP) -> *mut IO_STACK_LOCATION {
    // SAFETY: by the caller's contract.
    unsafe { IoGetCurrentIrpStackLocation(Irp) }.wrapping_sub(1)
}

/// Makes the next stack location the current one, for the driver that allocated the request.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Safety
/// The caller owns the request, which has a further stack location.
#[inline]
pub unsafe fn IoSetNextIrpStackLocation(Irp: *mut IRP) {
    // SAFETY: by the caller's contract.
    unsafe { (*Irp).CurrentLocation -= 1 };
    // SAFETY: by the caller's contract.
    let next = unsafe { IoGetNextIrpStackLocation(Irp) };
    // SAFETY: by the caller's contract.
    let field = unsafe { current(Irp) };
    // SAFETY: by the caller's contract.
    unsafe { field.write(next) }
}

/// Lets the next lower driver use the caller's own stack location.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Safety
/// The caller owns the request, has set no completion routine, and passes the request on.
#[inline]
pub unsafe fn IoSkipCurrentIrpStackLocation(Irp: *mut IRP) {
    // SAFETY: by the caller's contract.
    unsafe { (*Irp).CurrentLocation += 1 };
    // SAFETY: by the caller's contract.
    let previous = unsafe { IoGetCurrentIrpStackLocation(Irp) }.wrapping_add(1);
    // SAFETY: by the caller's contract.
    let field = unsafe { current(Irp) };
    // SAFETY: by the caller's contract.
    unsafe { field.write(previous) }
}

/// Copies the caller's stack location to the next lower driver's, without the completion routine.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Safety
/// The caller owns the request, which has a further stack location.
#[inline]
pub unsafe fn IoCopyCurrentIrpStackLocationToNext(Irp: *mut IRP) {
    // SAFETY: by the caller's contract.
    let own = unsafe { IoGetCurrentIrpStackLocation(Irp) };
    // SAFETY: by the caller's contract.
    let next = unsafe { IoGetNextIrpStackLocation(Irp) };
    // SAFETY: both locations are in the request.
    let mut copy = unsafe { own.read() };
    // SAFETY: as above.
    copy.CompletionRoutine = unsafe { (*next).CompletionRoutine };
    // SAFETY: as above.
    copy.Context = unsafe { (*next).Context };
    copy.Control = 0;
    // SAFETY: as above.
    unsafe { next.write(copy) }
}

/// Marks a request pending. The dispatch routine then returns `STATUS_PENDING`.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Safety
/// The caller owns the request.
#[inline]
pub unsafe fn IoMarkIrpPending(Irp: *mut IRP) {
    // SAFETY: by the caller's contract.
    let location = unsafe { IoGetCurrentIrpStackLocation(Irp) };
    // SAFETY: the location is in the request.
    unsafe { (*location).Control |= SL_PENDING_RETURNED }
}

/// Sets what is called when the next lower driver has completed the request.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Safety
/// The caller owns the request, which has a further stack location; the routine is there when it is called.
#[inline]
pub unsafe fn IoSetCompletionRoutine(
    Irp: *mut IRP,
    CompletionRoutine: PIO_COMPLETION_ROUTINE,
    Context: PVOID,
    InvokeOnSuccess: BOOLEAN,
    InvokeOnError: BOOLEAN,
    InvokeOnCancel: BOOLEAN,
) {
    // SAFETY: by the caller's contract.
    let next = unsafe { IoGetNextIrpStackLocation(Irp) };
    let mut control = 0;
    if InvokeOnSuccess != FALSE {
        control |= SL_INVOKE_ON_SUCCESS;
    }
    if InvokeOnError != FALSE {
        control |= SL_INVOKE_ON_ERROR;
    }
    if InvokeOnCancel != FALSE {
        control |= SL_INVOKE_ON_CANCEL;
    }
    // SAFETY: the location is in the request.
    unsafe { (*next).CompletionRoutine = CompletionRoutine };
    // SAFETY: as above.
    unsafe { (*next).Context = Context };
    // SAFETY: as above.
    unsafe { (*next).Control = control }
}

/// Sets or removes the cancel routine, and returns the one before. Who gets the routine back when it removes it owns the request; who gets null
/// has lost it to the cancellation.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Safety
/// The request is valid.
#[inline]
pub unsafe fn IoSetCancelRoutine(Irp: *mut IRP, CancelRoutine: PDRIVER_CANCEL) -> PDRIVER_CANCEL {
    // SAFETY: by the caller's contract.
    let field: *mut PDRIVER_CANCEL = unsafe { &raw mut (*Irp).CancelRoutine };
    // SAFETY: an optional function pointer is a pointer that may be null, and an atomic one is as it; the field is only ever changed atomically while others look.
    let word = unsafe { &*field.cast::<AtomicPtr<()>>() };
    let new = CancelRoutine.map_or(null_mut(), |routine| routine as *mut ());
    let old = word.swap(new, Ordering::SeqCst);
    // SAFETY: the field holds a function pointer of this type, or null.
    unsafe { transmute::<*mut (), PDRIVER_CANCEL>(old) }
}

/// Sends a request to a driver: `IoCallDriver` is this.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Safety
/// As for [`IofCallDriver`](fn@crate::IofCallDriver).
#[inline]
pub unsafe fn IoCallDriver(DeviceObject: *mut DEVICE_OBJECT, Irp: *mut IRP) -> NTSTATUS {
    // SAFETY: by the caller's contract.
    unsafe { IofCallDriver(DeviceObject, Irp) }
}

/// Completes a request: `IoCompleteRequest` is this.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Safety
/// As for [`IofCompleteRequest`](fn@crate::IofCompleteRequest).
#[inline]
pub unsafe fn IoCompleteRequest(Irp: *mut IRP, PriorityBoost: CCHAR) {
    // SAFETY: by the caller's contract.
    unsafe { IofCompleteRequest(Irp, PriorityBoost) }
}

/// Initialises the DPC that is part of a device.
///
/// # IRQL
/// `PASSIVE_LEVEL`.
///
/// # Safety
/// As for every routine.
#[inline]
pub unsafe fn IoInitializeDpcRequest(DeviceObject: *mut DEVICE_OBJECT, DpcRoutine: PKDEFERRED_ROUTINE) {
    // SAFETY: by the caller's contract.
    let dpc = unsafe { &raw mut (*DeviceObject).Dpc };
    // SAFETY: by the caller's contract.
    unsafe { KeInitializeDpc(dpc, DpcRoutine, DeviceObject.cast()) }
}

/// Queues the DPC that is part of a device.
///
/// # IRQL
/// Any level.
///
/// # Safety
/// As for every routine.
#[inline]
pub unsafe fn IoRequestDpc(DeviceObject: *mut DEVICE_OBJECT, Irp: *mut IRP, Context: PVOID) {
    // SAFETY: by the caller's contract.
    let dpc = unsafe { &raw mut (*DeviceObject).Dpc };
    // SAFETY: by the caller's contract.
    unsafe { KeInsertQueueDpc(dpc, Irp.cast(), Context) };
}

/// Returns where the buffer of a memory descriptor list is in system space. It is mapped there if it is not yet; null if that fails.
///
/// `Priority` is a page priority, such as `NormalPagePriority`, 16.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Safety
/// As for every routine.
#[inline]
#[must_use]
pub unsafe fn MmGetSystemAddressForMdlSafe(Mdl: *mut MDL, Priority: ULONG) -> PVOID {
    // SAFETY: by the caller's contract.
    let flags = unsafe { (*Mdl).MdlFlags };
    if flags & (MDL_MAPPED_TO_SYSTEM_VA | MDL_SOURCE_IS_NONPAGED_POOL) != 0 {
        // SAFETY: by the caller's contract.
        return unsafe { (*Mdl).MappedSystemVa };
    }
    /// `MmCached`.
    const CACHED: i32 = 1;
    // SAFETY: by the caller's contract.
    unsafe { MmMapLockedPagesSpecifyCache(Mdl, KernelMode, CACHED, null_mut(), 0, Priority) }
}

/// Returns the length of the buffer of a memory descriptor list in bytes.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Safety
/// As for every routine.
#[inline]
#[must_use]
pub unsafe fn MmGetMdlByteCount(Mdl: *const MDL) -> ULONG {
    // SAFETY: by the caller's contract.
    unsafe { (*Mdl).ByteCount }
}
