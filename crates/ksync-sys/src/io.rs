//! I/O requests, open files, memory descriptor lists and cancel-safe queues.

use crate::{
    ACCESS_MASK, ACCESS_STATE, BOOLEAN, CCHAR, CHAR, CSHORT, DEVICE_OBJECT, EPROCESS, ETHREAD, KAPC, KDEVICE_QUEUE_ENTRY, KEVENT,
    KIRQL, KPROCESSOR_MODE, KSPIN_LOCK, LARGE_INTEGER, LIST_ENTRY, LONG, NTSTATUS, PVOID, UCHAR, ULONG, ULONG_PTR,
    UNICODE_STRING, USHORT, VPB,
};

opaque! {
    /// What a driver may not change of a file's sections.
    struct SECTION_OBJECT_POINTERS;
    /// The quality of service for impersonation.
    struct SECURITY_QUALITY_OF_SERVICE;
    /// The extension of an I/O request, from Windows 8 on.
    struct IRP_EXTENSION;
}

/// Open a file or device.
pub const IRP_MJ_CREATE: UCHAR = 0x00;
/// Create a named pipe.
pub const IRP_MJ_CREATE_NAMED_PIPE: UCHAR = 0x01;
/// The last reference to an open file is gone.
pub const IRP_MJ_CLOSE: UCHAR = 0x02;
/// Read.
pub const IRP_MJ_READ: UCHAR = 0x03;
/// Write.
pub const IRP_MJ_WRITE: UCHAR = 0x04;
/// Query a file's information.
pub const IRP_MJ_QUERY_INFORMATION: UCHAR = 0x05;
/// Set a file's information.
pub const IRP_MJ_SET_INFORMATION: UCHAR = 0x06;
/// Flush buffers.
pub const IRP_MJ_FLUSH_BUFFERS: UCHAR = 0x09;
/// A file system control request.
pub const IRP_MJ_FILE_SYSTEM_CONTROL: UCHAR = 0x0D;
/// A device control request.
pub const IRP_MJ_DEVICE_CONTROL: UCHAR = 0x0E;
/// A device control request from another driver.
pub const IRP_MJ_INTERNAL_DEVICE_CONTROL: UCHAR = 0x0F;
/// The system shuts down.
pub const IRP_MJ_SHUTDOWN: UCHAR = 0x10;
/// The last handle to an open file is closed.
pub const IRP_MJ_CLEANUP: UCHAR = 0x12;
/// Power management.
pub const IRP_MJ_POWER: UCHAR = 0x16;
/// Windows Management Instrumentation.
pub const IRP_MJ_SYSTEM_CONTROL: UCHAR = 0x17;
/// Plug and play.
pub const IRP_MJ_PNP: UCHAR = 0x1B;

/// In [`IRP::Type`]: the structure is an I/O request.
pub const IO_TYPE_IRP: CSHORT = 6;
/// In [`FILE_OBJECT::Type`]: the structure is an open file.
pub const IO_TYPE_FILE: CSHORT = 5;

/// In [`IRP::Flags`]: the request was made by a routine that waits.
pub const IRP_SYNCHRONOUS_API: ULONG = 0x4;
/// In [`IRP::Flags`]: the request is a part of another, to which it points where others have their system buffer.
pub const IRP_ASSOCIATED_IRP: ULONG = 0x8;
/// In [`IRP::Flags`]: the data are in the system buffer.
pub const IRP_BUFFERED_IO: ULONG = 0x10;
/// In [`IRP::Flags`]: the system buffer is freed at completion.
pub const IRP_DEALLOCATE_BUFFER: ULONG = 0x20;
/// In [`IRP::Flags`]: the system buffer is copied to the user's at completion.
pub const IRP_INPUT_OPERATION: ULONG = 0x40;
/// In [`IRP::Flags`]: an open.
pub const IRP_CREATE_OPERATION: ULONG = 0x80;
/// In [`IRP::Flags`]: a read.
pub const IRP_READ_OPERATION: ULONG = 0x100;
/// In [`IRP::Flags`]: a write.
pub const IRP_WRITE_OPERATION: ULONG = 0x200;
/// In [`IRP::Flags`]: a close.
pub const IRP_CLOSE_OPERATION: ULONG = 0x400;
/// In [`IRP::Flags`]: whoever sent the request completes it, if it did not become pending.
pub const IRP_DEFER_IO_COMPLETION: ULONG = 0x800;

/// In [`IO_STACK_LOCATION::Control`]: the request has become pending.
pub const SL_PENDING_RETURNED: UCHAR = 0x01;
/// In [`IO_STACK_LOCATION::Control`]: a driver below failed the request.
pub const SL_ERROR_RETURNED: UCHAR = 0x02;
/// In [`IO_STACK_LOCATION::Control`]: call the completion routine of a cancelled request.
pub const SL_INVOKE_ON_CANCEL: UCHAR = 0x20;
/// In [`IO_STACK_LOCATION::Control`]: call the completion routine after success.
pub const SL_INVOKE_ON_SUCCESS: UCHAR = 0x40;
/// In [`IO_STACK_LOCATION::Control`]: call the completion routine after an error.
pub const SL_INVOKE_ON_ERROR: UCHAR = 0x80;

/// In [`DEVICE_OBJECT::Flags`]: reads and writes go through a system buffer.
pub const DO_BUFFERED_IO: ULONG = 0x4;
/// In [`DEVICE_OBJECT::Flags`]: only one handle may be open.
pub const DO_EXCLUSIVE: ULONG = 0x8;
/// In [`DEVICE_OBJECT::Flags`]: reads and writes get a memory descriptor list.
pub const DO_DIRECT_IO: ULONG = 0x10;

/// In [`FILE_OBJECT::Flags`]: the file is open.
pub const FO_FILE_OPEN: ULONG = 0x1;
/// In [`FILE_OBJECT::Flags`]: requests wait.
pub const FO_SYNCHRONOUS_IO: ULONG = 0x2;
/// In [`FILE_OBJECT::Flags`]: the device was opened directly, by its own name.
pub const FO_DIRECT_DEVICE_OPEN: ULONG = 0x800;
/// In [`FILE_OBJECT::Flags`]: the last handle is closed.
pub const FO_CLEANUP_COMPLETE: ULONG = 0x4000;
/// In [`FILE_OBJECT::Flags`]: there has been a handle.
pub const FO_HANDLE_CREATED: ULONG = 0x4_0000;

/// The control code's buffers go through a system buffer.
pub const METHOD_BUFFERED: ULONG = 0;
/// The output buffer comes as a memory descriptor list, to be read.
pub const METHOD_IN_DIRECT: ULONG = 1;
/// The output buffer comes as a memory descriptor list, to be written.
pub const METHOD_OUT_DIRECT: ULONG = 2;
/// Both buffers come as the user's addresses.
pub const METHOD_NEITHER: ULONG = 3;
/// The control code needs no particular access.
pub const FILE_ANY_ACCESS: ULONG = 0;
/// The control code, or the open, needs the right to read.
pub const FILE_READ_DATA: ULONG = 1;
/// The control code, or the open, needs the right to write.
pub const FILE_WRITE_DATA: ULONG = 2;
/// The right to read attributes, which is what `IoGetDeviceObjectPointer` is mostly called with.
pub const FILE_READ_ATTRIBUTES: ULONG = 0x80;

/// In [`MDL::MdlFlags`]: the memory is mapped into system space.
pub const MDL_MAPPED_TO_SYSTEM_VA: CSHORT = 0x1;
/// In [`MDL::MdlFlags`]: the pages are locked.
pub const MDL_PAGES_LOCKED: CSHORT = 0x2;
/// In [`MDL::MdlFlags`]: the memory is nonpaged pool.
pub const MDL_SOURCE_IS_NONPAGED_POOL: CSHORT = 0x4;

/// How a request ended.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IO_STATUS_BLOCK {
    /// The status, or a pointer.
    pub u: IO_STATUS_BLOCK_0,
    /// Depends on the request; mostly the number of bytes.
    pub Information: ULONG_PTR,
}

/// The first field of an [`IO_STATUS_BLOCK`], which has no name in C.
#[repr(C)]
#[derive(Clone, Copy)]
pub union IO_STATUS_BLOCK_0 {
    /// The status.
    pub Status: NTSTATUS,
    /// A pointer.
    pub Pointer: PVOID,
}

/// Describes a buffer by its pages, whose numbers follow the structure.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MDL {
    /// The next of a chain.
    pub Next: *mut MDL,
    /// The size of this structure and the page numbers in bytes.
    pub Size: CSHORT,
    /// `MDL_...` flags.
    pub MdlFlags: CSHORT,
    /// The process that the buffer belongs to.
    pub Process: *mut EPROCESS,
    /// Where the buffer is mapped in system space.
    pub MappedSystemVa: PVOID,
    /// The address of the buffer's first page.
    pub StartVa: PVOID,
    /// The length in bytes.
    pub ByteCount: ULONG,
    /// Where in its first page the buffer begins.
    pub ByteOffset: ULONG,
}

/// A dispatch, start, or completion routine's APC in user mode.
pub type IO_APC_ROUTINE =
    unsafe extern "system-unwind" fn(ApcContext: PVOID, IoStatusBlock: *mut IO_STATUS_BLOCK, Reserved: ULONG);
/// An [`IO_APC_ROUTINE`], or null.
pub type PIO_APC_ROUTINE = Option<IO_APC_ROUTINE>;
/// Called when a request that a driver sent down is completed. What it returns says whether the completion goes on.
pub type IO_COMPLETION_ROUTINE =
    unsafe extern "system-unwind" fn(DeviceObject: *mut DEVICE_OBJECT, Irp: *mut IRP, Context: PVOID) -> NTSTATUS;
/// An [`IO_COMPLETION_ROUTINE`], or null.
pub type PIO_COMPLETION_ROUTINE = Option<IO_COMPLETION_ROUTINE>;
/// Called with the cancel spin lock held, which it releases, when a request is cancelled.
pub type DRIVER_CANCEL = unsafe extern "system-unwind" fn(DeviceObject: *mut DEVICE_OBJECT, Irp: *mut IRP);
/// A [`DRIVER_CANCEL`], or null.
pub type PDRIVER_CANCEL = Option<DRIVER_CANCEL>;

/// A completion routine returns it for the completion to go on.
pub const STATUS_CONTINUE_COMPLETION: NTSTATUS = 0;

/// What a request is associated with.
#[repr(C)]
#[derive(Clone, Copy)]
pub union IRP_ASSOCIATED {
    /// The request that this one is a part of.
    pub MasterIrp: *mut IRP,
    /// How many parts a master request has.
    pub IrpCount: LONG,
    /// The system's copy of the user's buffer.
    pub SystemBuffer: PVOID,
}

/// What is called in user mode after an asynchronous request.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IRP_ASYNCHRONOUS {
    /// The routine.
    pub UserApcRoutine: PIO_APC_ROUTINE,
    /// Its context.
    pub UserApcContext: PVOID,
}

/// What asynchronous requests and opens have in the same place.
#[repr(C)]
#[derive(Clone, Copy)]
pub union IRP_OVERLAY {
    /// Of an asynchronous request.
    pub AsynchronousParameters: IRP_ASYNCHRONOUS,
    /// Of an open.
    pub AllocationSize: LARGE_INTEGER,
}

/// What the owner of a request may use as it likes.
#[repr(C)]
#[derive(Clone, Copy)]
pub union IRP_DRIVER_CONTEXT {
    /// The entry in a device queue.
    pub DeviceQueueEntry: KDEVICE_QUEUE_ENTRY,
    /// Four pointers.
    pub DriverContext: [PVOID; 4],
}

/// A request's links while it is on its way.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IRP_TAIL_OVERLAY {
    /// For the driver that owns the request.
    pub Context: IRP_DRIVER_CONTEXT,
    /// The thread whose request it is.
    pub Thread: *mut ETHREAD,
    /// An auxiliary buffer.
    pub AuxiliaryBuffer: *mut CHAR,
    /// For the driver that owns the request.
    pub ListEntry: LIST_ENTRY,
    /// The location of the driver that has the request.
    pub CurrentStackLocation: *mut IO_STACK_LOCATION,
    /// The file that the request is for.
    pub OriginalFileObject: *mut FILE_OBJECT,
}

/// A request's links, while it is on its way and afterwards.
#[repr(C)]
#[derive(Clone, Copy)]
pub union IRP_TAIL {
    /// While it is on its way.
    pub Overlay: IRP_TAIL_OVERLAY,
    /// While it is being completed.
    pub Apc: KAPC,
    /// The key of a completion port.
    pub CompletionKey: PVOID,
}

/// An I/O request. Its stack locations follow it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IRP {
    /// [`IO_TYPE_IRP`].
    pub Type: CSHORT,
    /// The size of this structure and its stack locations in bytes.
    pub Size: USHORT,
    /// The buffer of direct I/O.
    pub MdlAddress: *mut MDL,
    /// `IRP_...` flags.
    pub Flags: ULONG,
    /// What the request is associated with: mostly a system buffer.
    pub AssociatedIrp: IRP_ASSOCIATED,
    /// The entry in the list of the thread's requests.
    pub ThreadListEntry: LIST_ENTRY,
    /// How the request ended. The driver that completes it fills it in.
    pub IoStatus: IO_STATUS_BLOCK,
    /// Whose request it is.
    pub RequestorMode: KPROCESSOR_MODE,
    /// A lower driver has marked the request pending; for completion routines.
    pub PendingReturned: BOOLEAN,
    /// How many stack locations there are.
    pub StackCount: CHAR,
    /// The current one, counted from 1; one more than there are means "none yet".
    pub CurrentLocation: CHAR,
    /// The request has been cancelled, or is to be.
    pub Cancel: BOOLEAN,
    /// The level to return to when the cancel spin lock is released by the cancel routine.
    pub CancelIrql: KIRQL,
    /// The APC environment of the thread.
    pub ApcEnvironment: CCHAR,
    /// How the request was allocated.
    pub AllocationFlags: UCHAR,
    /// Where the status goes.
    pub UserIosb: *mut IO_STATUS_BLOCK,
    /// The event that is set at the end.
    pub UserEvent: *mut KEVENT,
    /// What asynchronous requests and opens have in the same place.
    pub Overlay: IRP_OVERLAY,
    /// The cancel routine: [`IoSetCancelRoutine`](crate::IoSetCancelRoutine) sets it.
    pub CancelRoutine: PDRIVER_CANCEL,
    /// The user's output buffer.
    pub UserBuffer: PVOID,
    /// The links.
    pub Tail: IRP_TAIL,
}

/// Who opens, and what for.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IO_SECURITY_CONTEXT {
    /// The quality of service for impersonation.
    pub SecurityQos: *mut SECURITY_QUALITY_OF_SERVICE,
    /// The state of the access check.
    pub AccessState: *mut ACCESS_STATE,
    /// The rights that are asked for.
    pub DesiredAccess: ACCESS_MASK,
    /// The options of the open.
    pub FullCreateOptions: ULONG,
}

/// The parameters of [`IRP_MJ_CREATE`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IO_PARAMETERS_CREATE {
    /// Who opens, and what for.
    pub SecurityContext: *mut IO_SECURITY_CONTEXT,
    /// Options in the low 24 bits, the disposition above.
    pub Options: ULONG,
    /// Alignment.
    pub Padding1: ULONG,
    /// The attributes of a new file.
    pub FileAttributes: USHORT,
    /// What others may do meanwhile.
    pub ShareAccess: USHORT,
    /// Alignment.
    pub Padding2: ULONG,
    /// The length of the extended attributes in bytes.
    pub EaLength: ULONG,
    /// Alignment.
    pub Padding3: ULONG,
}

/// The parameters of [`IRP_MJ_READ`] and [`IRP_MJ_WRITE`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IO_PARAMETERS_READ_WRITE {
    /// The length in bytes.
    pub Length: ULONG,
    /// Alignment.
    pub Padding1: ULONG,
    /// The key of a byte range lock.
    pub Key: ULONG,
    /// Flags.
    pub Flags: ULONG,
    /// Where in the file.
    pub ByteOffset: LARGE_INTEGER,
}

/// The parameters of [`IRP_MJ_DEVICE_CONTROL`] and [`IRP_MJ_INTERNAL_DEVICE_CONTROL`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IO_PARAMETERS_DEVICE_IO_CONTROL {
    /// The length of the output buffer in bytes.
    pub OutputBufferLength: ULONG,
    /// Alignment.
    pub Padding1: ULONG,
    /// The length of the input buffer in bytes.
    pub InputBufferLength: ULONG,
    /// Alignment.
    pub Padding2: ULONG,
    /// The control code.
    pub IoControlCode: ULONG,
    /// Alignment.
    pub Padding3: ULONG,
    /// The user's input buffer, where the control code's method is [`METHOD_NEITHER`].
    pub Type3InputBuffer: PVOID,
}

/// The parameters of a request for a driver, by its function. Those that are missing here can be read as [`Others`](Self::Others).
#[repr(C)]
#[derive(Clone, Copy)]
pub union IO_PARAMETERS {
    /// Of [`IRP_MJ_CREATE`].
    pub Create: IO_PARAMETERS_CREATE,
    /// Of [`IRP_MJ_READ`].
    pub Read: IO_PARAMETERS_READ_WRITE,
    /// Of [`IRP_MJ_WRITE`].
    pub Write: IO_PARAMETERS_READ_WRITE,
    /// Of [`IRP_MJ_DEVICE_CONTROL`] and [`IRP_MJ_INTERNAL_DEVICE_CONTROL`].
    pub DeviceIoControl: IO_PARAMETERS_DEVICE_IO_CONTROL,
    /// Four pointers: `Argument1` to `Argument4`.
    pub Others: [PVOID; 4],
}

/// One driver's part of a request.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IO_STACK_LOCATION {
    /// `IRP_MJ_...`.
    pub MajorFunction: UCHAR,
    /// Depends on the major function.
    pub MinorFunction: UCHAR,
    /// `SL_...` flags of the major function.
    pub Flags: UCHAR,
    /// `SL_...` flags of the I/O manager.
    pub Control: UCHAR,
    /// The parameters, by the major function.
    pub Parameters: IO_PARAMETERS,
    /// The device that the request is for.
    pub DeviceObject: *mut DEVICE_OBJECT,
    /// The open file.
    pub FileObject: *mut FILE_OBJECT,
    /// The completion routine of the driver above.
    pub CompletionRoutine: PIO_COMPLETION_ROUTINE,
    /// Its context.
    pub Context: PVOID,
}

/// The completion port of a file.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IO_COMPLETION_CONTEXT {
    /// The port.
    pub Port: PVOID,
    /// The file's key.
    pub Key: PVOID,
}

/// An open file or device.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FILE_OBJECT {
    /// [`IO_TYPE_FILE`].
    pub Type: CSHORT,
    /// The size of this structure in bytes.
    pub Size: CSHORT,
    /// The device that was opened.
    pub DeviceObject: *mut DEVICE_OBJECT,
    /// The volume.
    pub Vpb: *mut VPB,
    /// The driver's own.
    pub FsContext: PVOID,
    /// The driver's own.
    pub FsContext2: PVOID,
    /// The memory manager's.
    pub SectionObjectPointer: *mut SECTION_OBJECT_POINTERS,
    /// The cache manager's.
    pub PrivateCacheMap: PVOID,
    /// The status of the last request.
    pub FinalStatus: NTSTATUS,
    /// The file that this one was opened relative to.
    pub RelatedFileObject: *mut FILE_OBJECT,
    /// There has been a byte range lock.
    pub LockOperation: BOOLEAN,
    /// The file is to be deleted.
    pub DeletePending: BOOLEAN,
    /// The file may be read.
    pub ReadAccess: BOOLEAN,
    /// The file may be written.
    pub WriteAccess: BOOLEAN,
    /// The file may be deleted.
    pub DeleteAccess: BOOLEAN,
    /// Others may read.
    pub SharedRead: BOOLEAN,
    /// Others may write.
    pub SharedWrite: BOOLEAN,
    /// Others may delete.
    pub SharedDelete: BOOLEAN,
    /// `FO_...` flags.
    pub Flags: ULONG,
    /// The name below the device.
    pub FileName: UNICODE_STRING,
    /// Where synchronous requests go on.
    pub CurrentByteOffset: LARGE_INTEGER,
    /// How many wait for the file.
    pub Waiters: ULONG,
    /// The file is in use.
    pub Busy: ULONG,
    /// The last lock.
    pub LastLock: PVOID,
    /// Guards synchronous requests.
    pub Lock: KEVENT,
    /// Set when a request is done.
    pub Event: KEVENT,
    /// The completion port, or null.
    pub CompletionContext: *mut IO_COMPLETION_CONTEXT,
    /// Guards the list of requests.
    pub IrpListLock: KSPIN_LOCK,
    /// The requests.
    pub IrpList: LIST_ENTRY,
    /// The I/O manager's own.
    pub FileObjectExtension: PVOID,
}

/// Inserts a request into a cancel-safe queue.
pub type IO_CSQ_INSERT_IRP = unsafe extern "system-unwind" fn(Csq: *mut IO_CSQ, Irp: *mut IRP);
/// Inserts a request into a cancel-safe queue, or says why not.
pub type IO_CSQ_INSERT_IRP_EX =
    unsafe extern "system-unwind" fn(Csq: *mut IO_CSQ, Irp: *mut IRP, InsertContext: PVOID) -> NTSTATUS;
/// Removes a request from a cancel-safe queue.
pub type IO_CSQ_REMOVE_IRP = unsafe extern "system-unwind" fn(Csq: *mut IO_CSQ, Irp: *mut IRP);
/// The request after another one, or the first, that matches; null if there is none.
pub type IO_CSQ_PEEK_NEXT_IRP = unsafe extern "system-unwind" fn(Csq: *mut IO_CSQ, Irp: *mut IRP, PeekContext: PVOID) -> *mut IRP;
/// Locks a cancel-safe queue.
pub type IO_CSQ_ACQUIRE_LOCK = unsafe extern "system-unwind" fn(Csq: *mut IO_CSQ, Irql: *mut KIRQL);
/// Unlocks a cancel-safe queue.
pub type IO_CSQ_RELEASE_LOCK = unsafe extern "system-unwind" fn(Csq: *mut IO_CSQ, Irql: KIRQL);
/// Completes a request that was cancelled.
pub type IO_CSQ_COMPLETE_CANCELED_IRP = unsafe extern "system-unwind" fn(Csq: *mut IO_CSQ, Irp: *mut IRP);

/// A cancel-safe queue: the driver keeps the requests, the I/O manager sees to cancellation.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IO_CSQ {
    /// The kind of structure.
    pub Type: ULONG,
    /// Inserts; an [`IO_CSQ_INSERT_IRP_EX`] in a queue of `IoCsqInitializeEx`.
    pub CsqInsertIrp: Option<IO_CSQ_INSERT_IRP>,
    /// Removes.
    pub CsqRemoveIrp: Option<IO_CSQ_REMOVE_IRP>,
    /// Finds.
    pub CsqPeekNextIrp: Option<IO_CSQ_PEEK_NEXT_IRP>,
    /// Locks.
    pub CsqAcquireLock: Option<IO_CSQ_ACQUIRE_LOCK>,
    /// Unlocks.
    pub CsqReleaseLock: Option<IO_CSQ_RELEASE_LOCK>,
    /// Completes what was cancelled.
    pub CsqCompleteCanceledIrp: Option<IO_CSQ_COMPLETE_CANCELED_IRP>,
    /// The I/O manager's own.
    pub ReservePointer: PVOID,
}

/// Identifies a request in a cancel-safe queue.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IO_CSQ_IRP_CONTEXT {
    /// The kind of structure.
    pub Type: ULONG,
    /// The request, or null when it has left the queue.
    pub Irp: *mut IRP,
    /// The queue.
    pub Csq: *mut IO_CSQ,
}

opaque_debug! { IO_STATUS_BLOCK_0 IRP_ASSOCIATED IRP_OVERLAY IRP_DRIVER_CONTEXT IRP_TAIL IO_PARAMETERS }

layout! {
    IO_STATUS_BLOCK: 16, u @ 0, Information @ 8;
    MDL: 48, Size @ 8, MdlFlags @ 10, Process @ 16, MappedSystemVa @ 24, StartVa @ 32, ByteCount @ 40, ByteOffset @ 44;
    IRP_TAIL_OVERLAY: 80, Thread @ 32, AuxiliaryBuffer @ 40, ListEntry @ 48, CurrentStackLocation @ 64, OriginalFileObject @ 72;
    IRP: 208, Size @ 2, MdlAddress @ 8, Flags @ 16, AssociatedIrp @ 24, ThreadListEntry @ 32, IoStatus @ 48, RequestorMode @ 64,
        PendingReturned @ 65, StackCount @ 66, CurrentLocation @ 67, Cancel @ 68, CancelIrql @ 69, ApcEnvironment @ 70,
        AllocationFlags @ 71, UserIosb @ 72, UserEvent @ 80, Overlay @ 88, CancelRoutine @ 104, UserBuffer @ 112, Tail @ 120;
    IO_SECURITY_CONTEXT: 24, AccessState @ 8, DesiredAccess @ 16, FullCreateOptions @ 20;
    IO_PARAMETERS_CREATE: 32, Options @ 8, FileAttributes @ 16, ShareAccess @ 18, EaLength @ 24;
    IO_PARAMETERS_READ_WRITE: 24, Key @ 8, Flags @ 12, ByteOffset @ 16;
    IO_PARAMETERS_DEVICE_IO_CONTROL: 32, InputBufferLength @ 8, IoControlCode @ 16, Type3InputBuffer @ 24;
    IO_PARAMETERS: 32;
    IO_STACK_LOCATION: 72, MinorFunction @ 1, Flags @ 2, Control @ 3, Parameters @ 8, DeviceObject @ 40, FileObject @ 48,
        CompletionRoutine @ 56, Context @ 64;
    IO_COMPLETION_CONTEXT: 16, Key @ 8;
    FILE_OBJECT: 216, Size @ 2, DeviceObject @ 8, Vpb @ 16, FsContext @ 24, FsContext2 @ 32, SectionObjectPointer @ 40,
        PrivateCacheMap @ 48, FinalStatus @ 56, RelatedFileObject @ 64, LockOperation @ 72, SharedDelete @ 79, Flags @ 80,
        FileName @ 88, CurrentByteOffset @ 104, Waiters @ 112, Busy @ 116, LastLock @ 120, Lock @ 128, Event @ 152,
        CompletionContext @ 176, IrpListLock @ 184, IrpList @ 192, FileObjectExtension @ 208;
    IO_CSQ: 64, CsqInsertIrp @ 8, CsqCompleteCanceledIrp @ 48, ReservePointer @ 56;
    IO_CSQ_IRP_CONTEXT: 24, Irp @ 8, Csq @ 16;
}
