//! Objects of the object manager and the I/O manager, executive timers, work items.

use crate::{
    BOOLEAN, CCHAR, CSHORT, IRP, KDEVICE_QUEUE, KDEVICE_QUEUE_ENTRY, KDPC, KEVENT, LIST_ENTRY, LONG, LONGLONG, NTSTATUS, PVOID,
    ULONG, UNICODE_STRING, USHORT,
};

opaque! {
    /// A thread, as the kernel proper sees it: the beginning of an [`ETHREAD`]. It begins with a dispatcher header and can be waited on.
    struct KTHREAD;
    /// A thread. A pointer to it is a pointer to its [`KTHREAD`].
    struct ETHREAD;
    /// A process, as the kernel proper sees it: the beginning of an [`EPROCESS`]. It begins with a dispatcher header and can be waited on.
    struct KPROCESS;
    /// A process. A pointer to it is a pointer to its [`KPROCESS`].
    struct EPROCESS;
    /// The type of objects of one kind.
    struct OBJECT_TYPE;
    /// A callback object: routines of drivers that are called when something happens.
    struct CALLBACK_OBJECT;
    /// The state of an access check.
    struct ACCESS_STATE;
    /// A volume parameter block.
    struct VPB;
    /// A connected interrupt.
    struct KINTERRUPT;
    /// A device's I/O timer.
    struct IO_TIMER;
    /// The I/O manager's own part of a device object.
    struct DEVOBJ_EXTENSION;
    /// The table of fast I/O routines.
    struct FAST_IO_DISPATCH;
    /// An executive timer.
    struct EX_TIMER;
    /// A work item of a device.
    struct IO_WORKITEM;
}

/// The routine of a system thread.
pub type KSTART_ROUTINE = unsafe extern "system-unwind" fn(StartContext: PVOID);
/// A routine that is registered with a callback object. The first parameter is what it was registered with, the others are the caller's.
pub type CALLBACK_FUNCTION = unsafe extern "system-unwind" fn(CallbackContext: PVOID, Argument1: PVOID, Argument2: PVOID);
/// A [`KSTART_ROUTINE`], or null.
pub type PKSTART_ROUTINE = Option<KSTART_ROUTINE>;

/// A driver's entry point.
pub type DRIVER_INITIALIZE =
    unsafe extern "system-unwind" fn(DriverObject: *mut DRIVER_OBJECT, RegistryPath: *mut UNICODE_STRING) -> NTSTATUS;
/// A [`DRIVER_INITIALIZE`], or null.
pub type PDRIVER_INITIALIZE = Option<DRIVER_INITIALIZE>;
/// A driver's unload routine.
pub type DRIVER_UNLOAD = unsafe extern "system-unwind" fn(DriverObject: *mut DRIVER_OBJECT);
/// A [`DRIVER_UNLOAD`], or null.
pub type PDRIVER_UNLOAD = Option<DRIVER_UNLOAD>;
/// A driver's interrupt service routine: true if the interrupt was its device's.
pub type KSERVICE_ROUTINE = unsafe extern "system-unwind" fn(Interrupt: *mut KINTERRUPT, ServiceContext: PVOID) -> BOOLEAN;
/// A [`KSERVICE_ROUTINE`], or null.
pub type PKSERVICE_ROUTINE = Option<KSERVICE_ROUTINE>;
/// A routine that runs while an interrupt's service routine does not.
pub type KSYNCHRONIZE_ROUTINE = unsafe extern "system-unwind" fn(SynchronizeContext: PVOID) -> BOOLEAN;
/// A [`KSYNCHRONIZE_ROUTINE`], or null.
pub type PKSYNCHRONIZE_ROUTINE = Option<KSYNCHRONIZE_ROUTINE>;
/// How a device asks for an interrupt.
pub type KINTERRUPT_MODE = i32;
/// It asks until it is served.
pub const LevelSensitive: KINTERRUPT_MODE = 0;
/// It asks once.
pub const Latched: KINTERRUPT_MODE = 1;
/// A device's timer routine, which is called about once a second at `DISPATCH_LEVEL` while the timer is started.
pub type IO_TIMER_ROUTINE = unsafe extern "system-unwind" fn(DeviceObject: *mut DEVICE_OBJECT, Context: PVOID);
/// An [`IO_TIMER_ROUTINE`], or null.
pub type PIO_TIMER_ROUTINE = Option<IO_TIMER_ROUTINE>;
/// A driver's routine that starts an I/O request.
pub type DRIVER_STARTIO = unsafe extern "system-unwind" fn(DeviceObject: *mut DEVICE_OBJECT, Irp: *mut IRP);
/// A [`DRIVER_STARTIO`], or null.
pub type PDRIVER_STARTIO = Option<DRIVER_STARTIO>;
/// A driver's routine for one major function code.
pub type DRIVER_DISPATCH = unsafe extern "system-unwind" fn(DeviceObject: *mut DEVICE_OBJECT, Irp: *mut IRP) -> NTSTATUS;
/// A [`DRIVER_DISPATCH`], or null.
pub type PDRIVER_DISPATCH = Option<DRIVER_DISPATCH>;
/// A driver's routine for a new physical device.
pub type DRIVER_ADD_DEVICE =
    unsafe extern "system-unwind" fn(DriverObject: *mut DRIVER_OBJECT, PhysicalDeviceObject: *mut DEVICE_OBJECT) -> NTSTATUS;
/// A [`DRIVER_ADD_DEVICE`], or null.
pub type PDRIVER_ADD_DEVICE = Option<DRIVER_ADD_DEVICE>;

/// The greatest major function code.
pub const IRP_MJ_MAXIMUM_FUNCTION: usize = 0x1B;

/// The part of a driver object that plug and play needs.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DRIVER_EXTENSION {
    /// The driver object.
    pub DriverObject: *mut DRIVER_OBJECT,
    /// Called for a new physical device.
    pub AddDevice: PDRIVER_ADD_DEVICE,
    /// How often the reinitialisation routine was called.
    pub Count: ULONG,
    /// The name of the driver's key under `Services`.
    pub ServiceKeyName: UNICODE_STRING,
}

/// A loaded driver.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DRIVER_OBJECT {
    /// 4, the kind of object.
    pub Type: CSHORT,
    /// The size of this structure in bytes.
    pub Size: CSHORT,
    /// The first of the driver's devices.
    pub DeviceObject: *mut DEVICE_OBJECT,
    /// `DRVO_...` flags.
    pub Flags: ULONG,
    /// Where the image is.
    pub DriverStart: PVOID,
    /// The size of the image in bytes.
    pub DriverSize: ULONG,
    /// The loader's entry for the image.
    pub DriverSection: PVOID,
    /// The plug and play part.
    pub DriverExtension: *mut DRIVER_EXTENSION,
    /// The object's name.
    pub DriverName: UNICODE_STRING,
    /// The path of the hardware description in the registry.
    pub HardwareDatabase: *mut UNICODE_STRING,
    /// The fast I/O routines, or null.
    pub FastIoDispatch: *mut FAST_IO_DISPATCH,
    /// The entry point.
    pub DriverInit: PDRIVER_INITIALIZE,
    /// Starts an I/O request.
    pub DriverStartIo: PDRIVER_STARTIO,
    /// Called before the image goes away; null when the driver cannot be unloaded.
    pub DriverUnload: PDRIVER_UNLOAD,
    /// A routine for each major function code.
    pub MajorFunction: [PDRIVER_DISPATCH; IRP_MJ_MAXIMUM_FUNCTION + 1],
}

/// What a device waits with for an adapter or a controller.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WAIT_CONTEXT_BLOCK {
    /// The entry in the wait queue.
    pub WaitQueueEntry: KDEVICE_QUEUE_ENTRY,
    /// Called when the wait is over.
    pub DeviceRoutine: PVOID,
    /// What it is given as context.
    pub DeviceContext: PVOID,
    /// How many map registers are wanted.
    pub NumberOfMapRegisters: ULONG,
    /// The device.
    pub DeviceObject: PVOID,
    /// The request at hand.
    pub CurrentIrp: PVOID,
    /// The DPC to chain buffers with.
    pub BufferChainingDpc: *mut KDPC,
}

/// What a device object is queued with.
#[repr(C)]
#[derive(Clone, Copy)]
pub union DEVICE_OBJECT_QUEUE {
    /// The entry in a list.
    pub ListEntry: LIST_ENTRY,
    /// The wait for an adapter.
    pub Wcb: WAIT_CONTEXT_BLOCK,
}

impl core::fmt::Debug for DEVICE_OBJECT_QUEUE {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("DEVICE_OBJECT_QUEUE(..)")
    }
}

/// A device.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug)]
pub struct DEVICE_OBJECT {
    /// 3, the kind of object.
    pub Type: CSHORT,
    /// The size of this structure and of the device extension in bytes.
    pub Size: USHORT,
    /// How many have the device open.
    pub ReferenceCount: LONG,
    /// The driver.
    pub DriverObject: *mut DRIVER_OBJECT,
    /// The driver's next device.
    pub NextDevice: *mut DEVICE_OBJECT,
    /// The device that is attached above this one.
    pub AttachedDevice: *mut DEVICE_OBJECT,
    /// The request at hand.
    pub CurrentIrp: *mut IRP,
    /// The device's timer.
    pub Timer: *mut IO_TIMER,
    /// `DO_...` flags.
    pub Flags: ULONG,
    /// `FILE_...` characteristics.
    pub Characteristics: ULONG,
    /// The volume parameter block.
    pub Vpb: *mut VPB,
    /// The driver's own part, as large as `IoCreateDevice` was told.
    pub DeviceExtension: PVOID,
    /// A `FILE_DEVICE_...` type.
    pub DeviceType: ULONG,
    /// How many stack locations a request needs.
    pub StackSize: CCHAR,
    /// What the device is queued with.
    pub Queue: DEVICE_OBJECT_QUEUE,
    /// How buffers must be aligned, minus one.
    pub AlignmentRequirement: ULONG,
    /// The requests that wait.
    pub DeviceQueue: KDEVICE_QUEUE,
    /// The DPC of `IoRequestDpc`.
    pub Dpc: KDPC,
    /// How many threads are active.
    pub ActiveThreadCount: ULONG,
    /// The security descriptor.
    pub SecurityDescriptor: PVOID,
    /// Guards the device.
    pub DeviceLock: KEVENT,
    /// The sector size in bytes.
    pub SectorSize: USHORT,
    /// Unused.
    pub Spare1: USHORT,
    /// The I/O manager's part.
    pub DeviceObjectExtension: *mut DEVOBJ_EXTENSION,
    /// Unused.
    pub Reserved: PVOID,
}

/// In [`DEVICE_OBJECT::Flags`]: the driver has not finished initialising the device.
pub const DO_DEVICE_INITIALIZING: ULONG = 0x80;
/// A device of no standard kind.
pub const FILE_DEVICE_UNKNOWN: ULONG = 0x22;
/// Opens of names below the device are checked against the device's descriptor too.
pub const FILE_DEVICE_SECURE_OPEN: ULONG = 0x100;

/// Called when an executive timer expires, at `DISPATCH_LEVEL`.
pub type EXT_CALLBACK = unsafe extern "system-unwind" fn(Timer: *mut EX_TIMER, Context: PVOID);
/// An [`EXT_CALLBACK`], or null.
pub type PEXT_CALLBACK = Option<EXT_CALLBACK>;
/// Called when an executive timer is gone.
pub type EXT_DELETE_CALLBACK = unsafe extern "system-unwind" fn(Context: PVOID);
/// An [`EXT_DELETE_CALLBACK`], or null.
pub type PEXT_DELETE_CALLBACK = Option<EXT_DELETE_CALLBACK>;

/// How an executive timer is set. `ExInitializeSetTimerParameters` initialises it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct EXT_SET_PARAMETERS {
    /// Zero.
    pub Version: ULONG,
    /// Zero.
    pub Reserved: ULONG,
    /// How late a no-wake timer may be in 100 ns, or [`EX_TIMER_UNLIMITED_TOLERANCE`].
    pub NoWakeTolerance: LONGLONG,
}

/// How an executive timer is deleted. `ExInitializeDeleteTimerParameters` initialises it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct EXT_DELETE_PARAMETERS {
    /// Zero.
    pub Version: ULONG,
    /// Zero.
    pub Reserved: ULONG,
    /// Called when the timer is gone, or null.
    pub DeleteCallback: PEXT_DELETE_CALLBACK,
    /// What it is given as context.
    pub DeleteContext: PVOID,
}

/// A high-resolution timer.
pub const EX_TIMER_HIGH_RESOLUTION: ULONG = 4;
/// A timer that does not wake a sleeping processor.
pub const EX_TIMER_NO_WAKE: ULONG = 8;
/// A notification timer: it releases every waiter.
pub const EX_TIMER_NOTIFICATION: ULONG = 1 << 31;
/// As late as it likes.
pub const EX_TIMER_UNLIMITED_TOLERANCE: LONGLONG = -1;

/// The queue that a work item goes to.
pub type WORK_QUEUE_TYPE = i32;
/// Served by real-time threads.
pub const CriticalWorkQueue: WORK_QUEUE_TYPE = 0;
/// Served by ordinary threads; the usual choice.
pub const DelayedWorkQueue: WORK_QUEUE_TYPE = 1;
/// For the system's own use.
pub const HyperCriticalWorkQueue: WORK_QUEUE_TYPE = 2;
/// Priority 8 (Windows 8 on).
pub const NormalWorkQueue: WORK_QUEUE_TYPE = 3;
/// Priority 7 (Windows 8 on).
pub const BackgroundWorkQueue: WORK_QUEUE_TYPE = 4;
/// Priority 18 (Windows 8 on).
pub const RealTimeWorkQueue: WORK_QUEUE_TYPE = 5;
/// Priority 14 (Windows 8 on).
pub const SuperCriticalWorkQueue: WORK_QUEUE_TYPE = 6;

/// The routine of a [`WORK_QUEUE_ITEM`].
pub type WORKER_THREAD_ROUTINE = unsafe extern "system-unwind" fn(Parameter: PVOID);
/// A [`WORKER_THREAD_ROUTINE`], or null.
pub type PWORKER_THREAD_ROUTINE = Option<WORKER_THREAD_ROUTINE>;
/// The routine of an [`IO_WORKITEM`].
pub type IO_WORKITEM_ROUTINE = unsafe extern "system-unwind" fn(DeviceObject: *mut DEVICE_OBJECT, Context: PVOID);
/// An [`IO_WORKITEM_ROUTINE`], or null.
pub type PIO_WORKITEM_ROUTINE = Option<IO_WORKITEM_ROUTINE>;
/// The routine of an [`IO_WORKITEM`] that wants to know its item.
pub type IO_WORKITEM_ROUTINE_EX = unsafe extern "system-unwind" fn(IoObject: PVOID, Context: PVOID, IoWorkItem: *mut IO_WORKITEM);
/// An [`IO_WORKITEM_ROUTINE_EX`], or null.
pub type PIO_WORKITEM_ROUTINE_EX = Option<IO_WORKITEM_ROUTINE_EX>;

/// A work item that keeps nothing loaded. Prefer an [`IO_WORKITEM`], which holds its device.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WORK_QUEUE_ITEM {
    /// The entry in the queue; a null `Flink` is "not queued".
    pub List: LIST_ENTRY,
    /// The routine.
    pub WorkerRoutine: PWORKER_THREAD_ROUTINE,
    /// What it is given.
    pub Parameter: PVOID,
}

layout! {
    DRIVER_EXTENSION: 40, AddDevice @ 8, Count @ 16, ServiceKeyName @ 24;
    DRIVER_OBJECT: 336, Size @ 2, DeviceObject @ 8, Flags @ 16, DriverStart @ 24, DriverSize @ 32, DriverSection @ 40,
        DriverExtension @ 48, DriverName @ 56, HardwareDatabase @ 72, FastIoDispatch @ 80, DriverInit @ 88, DriverStartIo @ 96,
        DriverUnload @ 104, MajorFunction @ 112;
    WAIT_CONTEXT_BLOCK: 72, DeviceRoutine @ 24, BufferChainingDpc @ 64;
    DEVICE_OBJECT: 336, ReferenceCount @ 4, DriverObject @ 8, Flags @ 48, Vpb @ 56, DeviceExtension @ 64, DeviceType @ 72,
        StackSize @ 76, Queue @ 80, AlignmentRequirement @ 152, DeviceQueue @ 160, Dpc @ 200, ActiveThreadCount @ 264,
        SecurityDescriptor @ 272, DeviceLock @ 280, SectorSize @ 304, DeviceObjectExtension @ 312, Reserved @ 320;
    EXT_SET_PARAMETERS: 16, NoWakeTolerance @ 8;
    EXT_DELETE_PARAMETERS: 24, DeleteCallback @ 8, DeleteContext @ 16;
    WORK_QUEUE_ITEM: 32, WorkerRoutine @ 16, Parameter @ 24;
}
