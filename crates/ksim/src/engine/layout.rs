//! The true structures as NT's initialisation routines leave them.

use ksync_sys::{
    CCHAR, DEVICE_OBJECT, DISPATCHER_HEADER, DRIVER_OBJECT, ETHREAD, FILE_OBJECT, IO_PARAMETERS, IO_STACK_LOCATION,
    IO_STATUS_BLOCK, IO_STATUS_BLOCK_0, IRP, IRP_ASSOCIATED, IRP_TAIL_OVERLAY, KAPC, KDEVICE_QUEUE, KDPC, KLOCK_QUEUE_HANDLE,
    KMUTANT, KPROCESSOR_MODE, KQUEUE, KSPIN_LOCK, KSPIN_LOCK_QUEUE, KTHREAD, KWAIT_BLOCK, LIST_ENTRY, MDL, NTSTATUS,
    PDRIVER_CANCEL, PKDEFERRED_ROUTINE, PKKERNEL_ROUTINE, PKNORMAL_ROUTINE, PKRUNDOWN_ROUTINE, PVOID, SINGLE_LIST_ENTRY,
    UNICODE_STRING,
};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A list entry that is in no list.
const UNLINKED: LIST_ENTRY = LIST_ENTRY { Flink: null_mut(), Blink: null_mut() };

/// A wait block that no wait uses.
pub(crate) const WAIT_BLOCK: KWAIT_BLOCK = KWAIT_BLOCK {
    WaitListEntry: UNLINKED,
    WaitType: 0,
    BlockState: 0,
    WaitKey: 0,
    SpareLong: 0,
    Thread: null_mut(),
    Object: null_mut(),
    SparePtr: null_mut(),
};

/// The header of an object without waiters. `head` is the address of its own wait list head.
pub(crate) fn header(object_type: i32, bytes: usize, signal_state: i32, head: *mut LIST_ENTRY) -> DISPATCHER_HEADER {
    DISPATCHER_HEADER {
        Type: object_type as u8,
        Signalling: 0,
        Size: (bytes / 4) as u8,
        Inserted: 0,
        SignalState: signal_state,
        WaitListHead: LIST_ENTRY { Flink: head, Blink: head },
    }
}

/// A DPC that is not queued.
pub(crate) fn dpc(routine: PKDEFERRED_ROUTINE, context: PVOID, threaded: bool) -> KDPC {
    KDPC {
        Type: if threaded { ksync_sys::ThreadedDpcObject } else { ksync_sys::DpcObject } as u8,
        Importance: ksync_sys::MediumImportance as u8,
        Number: 0,
        DpcListEntry: SINGLE_LIST_ENTRY { Next: null_mut() },
        ProcessorHistory: 0,
        DeferredRoutine: routine,
        DeferredContext: context,
        SystemArgument1: null_mut(),
        SystemArgument2: null_mut(),
        DpcData: null_mut(),
    }
}

/// What makes an APC.
pub(crate) struct ApcParts {
    pub(crate) thread: *mut KTHREAD,
    pub(crate) environment: i32,
    pub(crate) kernel: PKKERNEL_ROUTINE,
    pub(crate) rundown: PKRUNDOWN_ROUTINE,
    pub(crate) normal: PKNORMAL_ROUTINE,
    pub(crate) mode: KPROCESSOR_MODE,
    pub(crate) context: PVOID,
}

/// An APC that is not queued.
pub(crate) fn apc(parts: ApcParts) -> KAPC {
    // A special APC has no normal routine, and is always kernel mode.
    let special = parts.normal.is_none();
    KAPC {
        Type: ksync_sys::ApcObject as u8,
        AllFlags: 0,
        Size: size_of::<KAPC>() as u8,
        SpareByte1: 0,
        SpareLong0: 0,
        Thread: parts.thread,
        ApcListEntry: UNLINKED,
        KernelRoutine: parts.kernel,
        RundownRoutine: parts.rundown,
        NormalRoutine: parts.normal,
        NormalContext: if special { null_mut() } else { parts.context },
        SystemArgument1: null_mut(),
        SystemArgument2: null_mut(),
        ApcStateIndex: parts.environment as CCHAR,
        ApcMode: if special { ksync_sys::KernelMode } else { parts.mode },
        Inserted: 0,
    }
}

/// Writes what a mutex has behind its header.
///
/// # Safety
/// `mutex` points to writable memory of a KMUTANT.
pub(crate) unsafe fn write_mutant_tail(mutex: *mut KMUTANT, kernel: bool) {
    // SAFETY: by this function's contract.
    unsafe { (*mutex).MutantListEntry = UNLINKED };
    // SAFETY: as above.
    unsafe { (*mutex).OwnerThread = null_mut() };
    // SAFETY: as above.
    unsafe { (*mutex).Abandoned = 0 };
    // SAFETY: as above.
    unsafe { (*mutex).ApcDisable = u8::from(kernel) };
}

/// Writes what a queue has behind its header.
///
/// # Safety
/// `queue` points to writable memory of a KQUEUE.
pub(crate) unsafe fn write_queue_tail(queue: *mut KQUEUE, maximum: u32) {
    // SAFETY: by this function's contract.
    let entries = unsafe { &raw mut (*queue).EntryListHead };
    // SAFETY: as above.
    unsafe { entries.write(LIST_ENTRY { Flink: entries, Blink: entries }) };
    // SAFETY: as above.
    let threads = unsafe { &raw mut (*queue).ThreadListHead };
    // SAFETY: as above.
    unsafe { threads.write(LIST_ENTRY { Flink: threads, Blink: threads }) };
    // SAFETY: as above.
    unsafe { (*queue).CurrentCount = 0 };
    // SAFETY: as above.
    unsafe { (*queue).MaximumCount = maximum };
}

/// A queue handle of an acquisition.
pub(crate) fn lock_queue_handle(lock: *mut KSPIN_LOCK, old_irql: u8) -> KLOCK_QUEUE_HANDLE {
    KLOCK_QUEUE_HANDLE { LockQueue: KSPIN_LOCK_QUEUE { Next: null_mut(), Lock: lock }, OldIrql: old_irql }
}

/// The object of a driver that has no devices and no routines yet.
pub(crate) fn driver_object() -> DRIVER_OBJECT {
    // SAFETY: the structure is plain data: integers, raw pointers, and optional function pointers, for all of which zero is valid.
    let mut object: DRIVER_OBJECT = unsafe { std::mem::zeroed() };
    object.Type = 4;
    object.Size = size_of::<DRIVER_OBJECT>() as i16;
    object
}

/// Writes a device that is fresh and zeroed.
///
/// # Safety
/// `device` points to writable memory of a device object, which stays where it is.
pub(crate) unsafe fn write_device(
    device: *mut DEVICE_OBJECT,
    driver: *mut DRIVER_OBJECT,
    size: u16,
    extension: PVOID,
    flags: u32,
    characteristics: u32,
    device_type: u32,
) {
    // SAFETY: the structure is plain data, for all of which zero is valid.
    let mut value: DEVICE_OBJECT = unsafe { std::mem::zeroed() };
    value.Type = 3;
    value.Size = size;
    value.DriverObject = driver;
    value.Flags = flags;
    value.Characteristics = characteristics;
    value.DeviceExtension = extension;
    value.DeviceType = device_type;
    value.StackSize = 1;
    // SAFETY: by this function's contract.
    unsafe { device.write(value) };
    // SAFETY: as above.
    let queue = unsafe { &raw mut (*device).DeviceQueue };
    // SAFETY: as above.
    unsafe { write_device_queue(queue) };
}

/// Writes an empty device queue.
///
/// # Safety
/// `queue` points to writable memory of a device queue, which stays where it is.
pub(crate) unsafe fn write_device_queue(queue: *mut KDEVICE_QUEUE) {
    // SAFETY: by this function's contract.
    let head = unsafe { &raw mut (*queue).DeviceListHead };
    let value = KDEVICE_QUEUE {
        Type: ksync_sys::DeviceQueueObject as i16,
        Size: size_of::<KDEVICE_QUEUE>() as i16,
        DeviceListHead: LIST_ENTRY { Flink: head, Blink: head },
        Lock: 0,
        Busy: 0,
        Hint: [0; 7],
    };
    // SAFETY: as above.
    unsafe { queue.write(value) };
}

/// Writes the list of a device queue.
///
/// # Safety
/// The queue and its entries are valid.
pub(crate) unsafe fn link_device_queue(queue: *mut KDEVICE_QUEUE, entries: &[usize], busy: bool) {
    // SAFETY: by this function's contract.
    let head = unsafe { &raw mut (*queue).DeviceListHead };
    // An entry begins with its links.
    let mut ring: Vec<*mut LIST_ENTRY> = vec![head];
    ring.extend(entries.iter().map(|&entry| entry as *mut LIST_ENTRY));
    for (index, &link) in ring.iter().enumerate() {
        let next = ring[(index + 1) % ring.len()];
        let previous = ring[(index + ring.len() - 1) % ring.len()];
        // SAFETY: as above.
        unsafe { link.write(LIST_ENTRY { Flink: next, Blink: previous }) };
    }
    // SAFETY: as above.
    unsafe { (*queue).Busy = u8::from(busy) };
}

/// Writes a file object that is fresh. Its events are left to be initialised.
///
/// # Safety
/// `file` points to writable memory of a file object.
pub(crate) unsafe fn write_file(file: *mut FILE_OBJECT, device: *mut DEVICE_OBJECT, name: UNICODE_STRING, access: u32) {
    const DELETE: u32 = ksync_sys::DELETE;
    // SAFETY: the structure is plain data, for all of which zero is valid.
    let mut value: FILE_OBJECT = unsafe { std::mem::zeroed() };
    value.Type = ksync_sys::IO_TYPE_FILE;
    value.Size = size_of::<FILE_OBJECT>() as i16;
    value.DeviceObject = device;
    value.FileName = name;
    value.ReadAccess = u8::from(access & ksync_sys::FILE_READ_DATA != 0);
    value.WriteAccess = u8::from(access & ksync_sys::FILE_WRITE_DATA != 0);
    value.DeleteAccess = u8::from(access & DELETE != 0);
    (value.SharedRead, value.SharedWrite, value.SharedDelete) = (1, 1, 1);
    // SAFETY: by this function's contract.
    unsafe { file.write(value) };
    // SAFETY: as above.
    let list = unsafe { &raw mut (*file).IrpList };
    // SAFETY: as above.
    unsafe { list.write(LIST_ENTRY { Flink: list, Blink: list }) };
}

/// The first stack location of a request, which is that of the lowest driver.
pub(crate) fn first_location(irp: *mut IRP) -> *mut IO_STACK_LOCATION {
    irp.wrapping_add(1).cast()
}

/// The overlay of a request's tail.
fn overlay(irp: *mut IRP) -> *mut IRP_TAIL_OVERLAY {
    irp.wrapping_byte_add(std::mem::offset_of!(IRP, Tail)).cast()
}

/// Sets the current stack location of a request.
///
/// # Safety
/// The request is valid.
pub(crate) unsafe fn set_current_location(irp: *mut IRP, location: *mut IO_STACK_LOCATION) {
    let overlay = overlay(irp);
    // SAFETY: by this function's contract.
    unsafe { (*overlay).CurrentStackLocation = location };
}

/// The thread of a request, or null.
///
/// # Safety
/// The request is valid.
pub(crate) unsafe fn irp_thread(irp: *mut IRP) -> *mut KTHREAD {
    let overlay = overlay(irp);
    // SAFETY: by this function's contract.
    unsafe { (*overlay).Thread.cast() }
}

/// The APC of a request that is being completed.
pub(crate) fn irp_apc(irp: *mut IRP) -> *mut KAPC {
    irp.wrapping_byte_add(std::mem::offset_of!(IRP, Tail)).cast()
}

/// Writes a request that no driver has.
///
/// # Safety
/// `irp` points to writable memory of a request with so many stack locations.
pub(crate) unsafe fn write_irp(irp: *mut IRP, locations: i8) {
    let bytes = usize::from(ksync_sys::IoSizeOfIrp(locations));
    // SAFETY: by this function's contract.
    unsafe { irp.cast::<u8>().write_bytes(0, bytes) };
    // SAFETY: as above.
    unsafe { (*irp).Type = ksync_sys::IO_TYPE_IRP };
    // SAFETY: as above.
    unsafe { (*irp).Size = bytes as u16 };
    // SAFETY: as above.
    unsafe { (*irp).StackCount = locations };
    // SAFETY: as above.
    unsafe { (*irp).CurrentLocation = locations + 1 };
    // SAFETY: as above.
    let list = unsafe { &raw mut (*irp).ThreadListEntry };
    // SAFETY: as above.
    unsafe { list.write(LIST_ENTRY { Flink: list, Blink: list }) };
    let current = first_location(irp).wrapping_add(locations as usize);
    // SAFETY: as above.
    unsafe { set_current_location(irp, current) };
}

/// Sets how a request ends.
///
/// # Safety
/// The request is valid.
pub(crate) unsafe fn set_status(irp: *mut IRP, status: NTSTATUS, information: usize) {
    let value = IO_STATUS_BLOCK { u: IO_STATUS_BLOCK_0 { Status: status }, Information: information };
    // SAFETY: by this function's contract.
    unsafe { (*irp).IoStatus = value };
}

/// What a request is filled with before it is sent.
pub(crate) struct IrpFields {
    pub(crate) flags: u32,
    pub(crate) mode: KPROCESSOR_MODE,
    pub(crate) system_buffer: usize,
    pub(crate) mdl: usize,
    pub(crate) user_buffer: usize,
    pub(crate) thread: usize,
    pub(crate) file: *mut FILE_OBJECT,
    pub(crate) major: u8,
    pub(crate) parameters: IO_PARAMETERS,
}

/// Fills a request in, and the location of the driver that it is sent to first.
///
/// # Safety
/// The request is valid, fresh, and has a stack location.
pub(crate) unsafe fn fill_irp(irp: *mut IRP, fields: &IrpFields) {
    // SAFETY: by this function's contract.
    unsafe { (*irp).Flags = fields.flags };
    // SAFETY: as above.
    unsafe { (*irp).RequestorMode = fields.mode };
    // SAFETY: as above.
    unsafe { (*irp).AssociatedIrp = IRP_ASSOCIATED { SystemBuffer: fields.system_buffer as PVOID } };
    // SAFETY: as above.
    unsafe { (*irp).MdlAddress = fields.mdl as *mut MDL };
    // SAFETY: as above.
    unsafe { (*irp).UserBuffer = fields.user_buffer as PVOID };
    let overlay = overlay(irp);
    // SAFETY: as above.
    unsafe { (*overlay).Thread = fields.thread as *mut ETHREAD };
    // SAFETY: as above.
    unsafe { (*overlay).OriginalFileObject = fields.file };
    // SAFETY: as above.
    let next = unsafe { ksync_sys::IoGetNextIrpStackLocation(irp) };
    // SAFETY: as above.
    unsafe { (*next).MajorFunction = fields.major };
    // SAFETY: as above.
    unsafe { (*next).FileObject = fields.file };
    // SAFETY: as above.
    unsafe { (*next).Parameters = fields.parameters };
}

/// Clears what a stack location held, but for its major function and its parameters' place, when the request has left it.
pub(crate) fn clear_location(location: &mut IO_STACK_LOCATION) {
    location.MinorFunction = 0;
    location.Flags = 0;
    location.Control = 0;
    location.Parameters = IO_PARAMETERS { Others: [null_mut(); 4] };
    location.FileObject = null_mut();
    location.CompletionRoutine = None;
    location.Context = null_mut();
}

/// What `IoSetCancelRoutine` does, where it is a part of an operation: by itself it is a point.
///
/// # Safety
/// The request is valid.
pub(crate) unsafe fn exchange_cancel_routine(irp: *mut IRP, routine: PDRIVER_CANCEL) -> PDRIVER_CANCEL {
    // SAFETY: by this function's contract.
    let field: *mut PDRIVER_CANCEL = unsafe { &raw mut (*irp).CancelRoutine };
    // SAFETY: an optional function pointer is a pointer that may be null; the field is only ever changed atomically while others look.
    let word = unsafe { AtomicPtr::<()>::from_ptr(field.cast()) };
    let old = word.swap(routine.map_or(null_mut(), |routine| routine as *mut ()), Ordering::SeqCst);
    // SAFETY: the field holds a function pointer of this type, or null.
    unsafe { std::mem::transmute::<*mut (), PDRIVER_CANCEL>(old) }
}
