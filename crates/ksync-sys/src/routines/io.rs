//! Work items, devices, requests and remove locks.

use crate::*;

routines! {
    // Work items.

    /// Allocates a work item; null if there is no memory.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioallocateworkitem)
    fn IoAllocateWorkItem(DeviceObject: *mut DEVICE_OBJECT) -> *mut IO_WORKITEM;

    /// Frees a work item that is not queued.
    ///
    /// Its own routine may.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iofreeworkitem)
    fn IoFreeWorkItem(IoWorkItem: *mut IO_WORKITEM);

    /// Returns the size of a work item in bytes.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iosizeofworkitem)
    fn IoSizeofWorkItem() -> ULONG;

    /// Initialises a work item in the caller's memory, for a device or a driver.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioinitializeworkitem)
    fn IoInitializeWorkItem(IoObject: PVOID, IoWorkItem: *mut IO_WORKITEM);

    /// Undoes `IoInitializeWorkItem`.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iouninitializeworkitem)
    fn IoUninitializeWorkItem(IoWorkItem: *mut IO_WORKITEM);

    /// Queues a work item that is not queued.
    ///
    /// The device is referenced until the routine returns.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioqueueworkitem)
    fn IoQueueWorkItem(IoWorkItem: *mut IO_WORKITEM, WorkerRoutine: PIO_WORKITEM_ROUTINE, QueueType: WORK_QUEUE_TYPE, Context: PVOID);

    /// Queues a work item whose routine is told of the item, unless it is queued already: false then.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iotryqueueworkitem)
    fn IoTryQueueWorkItem(IoWorkItem: *mut IO_WORKITEM, WorkerRoutine: PIO_WORKITEM_ROUTINE_EX, QueueType: WORK_QUEUE_TYPE, Context: PVOID) -> BOOLEAN;

    /// Queues a work item whose routine is told of the item.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioqueueworkitemex)
    fn IoQueueWorkItemEx(IoWorkItem: *mut IO_WORKITEM, WorkerRoutine: PIO_WORKITEM_ROUTINE_EX, QueueType: WORK_QUEUE_TYPE, Context: PVOID);

    // Devices.

    /// Creates a device with a zeroed extension.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iocreatedevice)
    fn IoCreateDevice(DriverObject: *mut DRIVER_OBJECT, DeviceExtensionSize: ULONG, DeviceName: *mut UNICODE_STRING, DeviceType: ULONG, DeviceCharacteristics: ULONG, Exclusive: BOOLEAN, DeviceObject: *mut *mut DEVICE_OBJECT) -> NTSTATUS;

    /// Deletes a device once nobody references it.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iodeletedevice)
    fn IoDeleteDevice(DeviceObject: *mut DEVICE_OBJECT);

    /// Makes a symbolic link to a device.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iocreatesymboliclink)
    fn IoCreateSymbolicLink(SymbolicLinkName: *mut UNICODE_STRING, DeviceName: *mut UNICODE_STRING) -> NTSTATUS;

    /// Deletes a symbolic link.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iodeletesymboliclink)
    fn IoDeleteSymbolicLink(SymbolicLinkName: *mut UNICODE_STRING) -> NTSTATUS;

    /// Opens a device by its name, and returns the top of its stack with a reference to the file.
    ///
    /// The reference is the file's: it is dropped with `ObDereferenceObject(FileObject)`, and the device is not dereferenced.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iogetdeviceobjectpointer)
    fn IoGetDeviceObjectPointer(ObjectName: *mut UNICODE_STRING, DesiredAccess: ACCESS_MASK, FileObject: *mut *mut FILE_OBJECT, DeviceObject: *mut *mut DEVICE_OBJECT) -> NTSTATUS;

    /// Attaches a device to the top of another one's stack; null if that cannot be.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioattachdevicetodevicestack)
    fn IoAttachDeviceToDeviceStack(SourceDevice: *mut DEVICE_OBJECT, TargetDevice: *mut DEVICE_OBJECT) -> *mut DEVICE_OBJECT;

    /// Attaches a device to the top of another one's stack, and writes to which device before requests can come.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-ioattachdevicetodevicestacksafe)
    fn IoAttachDeviceToDeviceStackSafe(SourceDevice: *mut DEVICE_OBJECT, TargetDevice: *mut DEVICE_OBJECT, AttachedToDeviceObject: *mut *mut DEVICE_OBJECT) -> NTSTATUS;

    /// Detaches what is attached to a device.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iodetachdevice)
    fn IoDetachDevice(TargetDevice: *mut DEVICE_OBJECT);

    /// Returns the top of a device's stack, without a reference.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-iogetattacheddevice)
    fn IoGetAttachedDevice(DeviceObject: *mut DEVICE_OBJECT) -> *mut DEVICE_OBJECT;

    /// Returns the top of a device's stack, with a reference.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iogetattacheddevicereference)
    fn IoGetAttachedDeviceReference(DeviceObject: *mut DEVICE_OBJECT) -> *mut DEVICE_OBJECT;

    /// Returns the top of the stack of a file's device, without a reference.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iogetrelateddeviceobject)
    fn IoGetRelatedDeviceObject(FileObject: *mut FILE_OBJECT) -> *mut DEVICE_OBJECT;

    // Requests.

    /// Sends a request to a driver.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iofcalldriver)
    fn IofCallDriver(DeviceObject: *mut DEVICE_OBJECT, Irp: *mut IRP) -> NTSTATUS;

    /// Completes a request. The caller does not use it afterwards.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iofcompleterequest)
    fn IofCompleteRequest(Irp: *mut IRP, PriorityBoost: CCHAR);

    /// Allocates a request; null if there is no memory.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioallocateirp)
    fn IoAllocateIrp(StackSize: CCHAR, ChargeQuota: BOOLEAN) -> *mut IRP;

    /// Frees a request that `IoAllocateIrp` or `IoBuildAsynchronousFsdRequest` made.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iofreeirp)
    fn IoFreeIrp(Irp: *mut IRP);

    /// Makes a request of `IoAllocateIrp` ready to be sent again.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioreuseirp)
    fn IoReuseIrp(Irp: *mut IRP, Iostatus: NTSTATUS);

    /// Initialises a request in the caller's memory.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioinitializeirp)
    fn IoInitializeIrp(Irp: *mut IRP, PacketSize: USHORT, StackSize: CCHAR);

    /// Builds a device control request of the current thread; null if there is no memory.
    ///
    /// The I/O manager frees it when it is completed, and sets the event in a special kernel APC of the thread.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iobuilddeviceiocontrolrequest)
    fn IoBuildDeviceIoControlRequest(IoControlCode: ULONG, DeviceObject: *mut DEVICE_OBJECT, InputBuffer: PVOID, InputBufferLength: ULONG, OutputBuffer: PVOID, OutputBufferLength: ULONG, InternalDeviceIoControl: BOOLEAN, Event: *mut KEVENT, IoStatusBlock: *mut IO_STATUS_BLOCK) -> *mut IRP;

    /// Builds a read, write, flush, shutdown or plug and play request of the current thread; null if there is no memory.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iobuildsynchronousfsdrequest)
    fn IoBuildSynchronousFsdRequest(MajorFunction: ULONG, DeviceObject: *mut DEVICE_OBJECT, Buffer: PVOID, Length: ULONG, StartingOffset: *mut LARGE_INTEGER, Event: *mut KEVENT, IoStatusBlock: *mut IO_STATUS_BLOCK) -> *mut IRP;

    /// Builds a read, write, flush or shutdown request that the caller frees; null if there is no memory.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iobuildasynchronousfsdrequest)
    fn IoBuildAsynchronousFsdRequest(MajorFunction: ULONG, DeviceObject: *mut DEVICE_OBJECT, Buffer: PVOID, Length: ULONG, StartingOffset: *mut LARGE_INTEGER, IoStatusBlock: *mut IO_STATUS_BLOCK) -> *mut IRP;

    /// Cancels a request: sets its cancel bit and calls its cancel routine. Tells whether there was one.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iocancelirp)
    fn IoCancelIrp(Irp: *mut IRP) -> BOOLEAN;

    /// Acquires the cancel spin lock.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioacquirecancelspinlock)
    fn IoAcquireCancelSpinLock(Irql: *mut KIRQL);

    /// Releases the cancel spin lock.
    ///
    /// # IRQL
    /// `DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioreleasecancelspinlock)
    fn IoReleaseCancelSpinLock(Irql: KIRQL);

    /// Starts a request with the driver's `StartIo` routine, or queues it while the device is busy.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-iostartpacket)
    fn IoStartPacket(DeviceObject: *mut DEVICE_OBJECT, Irp: *mut IRP, Key: *mut ULONG, CancelFunction: PDRIVER_CANCEL);

    /// Starts the next request of a device's queue.
    ///
    /// # IRQL
    /// `DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-iostartnextpacket)
    fn IoStartNextPacket(DeviceObject: *mut DEVICE_OBJECT, Cancelable: BOOLEAN);

    /// Starts the next request of a device's queue whose key is not less than that one, or else the first.
    ///
    /// # IRQL
    /// `DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-iostartnextpacketbykey)
    fn IoStartNextPacketByKey(DeviceObject: *mut DEVICE_OBJECT, Cancelable: BOOLEAN, Key: ULONG);

    /// Says how a driver's `StartIo` routine is called for a device: the next time not before it has returned, and with requests that cannot be cancelled any more.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-iosetstartioattributes)
    fn IoSetStartIoAttributes(DeviceObject: *mut DEVICE_OBJECT, DeferredStartIo: BOOLEAN, NonCancelable: BOOLEAN);

    // Interrupts.

    /// Connects a service routine to an interrupt. With a spin lock, several interrupts have one lock; without, this one has its own.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioconnectinterrupt)
    fn IoConnectInterrupt(InterruptObject: *mut *mut KINTERRUPT, ServiceRoutine: PKSERVICE_ROUTINE, ServiceContext: PVOID, SpinLock: *mut KSPIN_LOCK, Vector: ULONG, Irql: KIRQL, SynchronizeIrql: KIRQL, InterruptMode: KINTERRUPT_MODE, ShareVector: BOOLEAN, ProcessorEnableMask: KAFFINITY, FloatingSave: BOOLEAN) -> NTSTATUS;

    /// Disconnects a service routine, which does not run when this has returned.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iodisconnectinterrupt)
    fn IoDisconnectInterrupt(InterruptObject: *mut KINTERRUPT);

    /// Connects a service routine to an interrupt that the driver specifies, or to that of the device's line.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioconnectinterruptex)
    fn IoConnectInterruptEx(Parameters: *mut IO_CONNECT_INTERRUPT_PARAMETERS) -> NTSTATUS;

    /// Disconnects what `IoConnectInterruptEx` connected. The service routine does not run when this has returned.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iodisconnectinterruptex)
    fn IoDisconnectInterruptEx(Parameters: *const IO_DISCONNECT_INTERRUPT_PARAMETERS);

    // Device timers.

    /// Gives a device a timer, whose routine is called about once a second while it is started. `IoDeleteDevice` frees it.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioinitializetimer)
    fn IoInitializeTimer(DeviceObject: *mut DEVICE_OBJECT, TimerRoutine: PIO_TIMER_ROUTINE, Context: PVOID) -> NTSTATUS;

    /// Starts a device's timer, unless it is started.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-iostarttimer)
    fn IoStartTimer(DeviceObject: *mut DEVICE_OBJECT);

    /// Stops a device's timer, and waits for its routine if that runs. Not for the routine itself.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-iostoptimer)
    fn IoStopTimer(DeviceObject: *mut DEVICE_OBJECT);

    // Driver object extensions.

    /// Allocates zeroed, resident memory that goes with the driver object, under a name that is an address of the driver's.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioallocatedriverobjectextension)
    fn IoAllocateDriverObjectExtension(DriverObject: *mut DRIVER_OBJECT, ClientIdentificationAddress: PVOID, DriverObjectExtensionSize: ULONG, DriverObjectExtension: *mut PVOID) -> NTSTATUS;

    /// The memory that was allocated under a name; null if there is none.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iogetdriverobjectextension)
    fn IoGetDriverObjectExtension(DriverObject: *mut DRIVER_OBJECT, ClientIdentificationAddress: PVOID) -> PVOID;

    // Cancel-safe queues.

    /// Initialises a cancel-safe queue.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iocsqinitialize)
    fn IoCsqInitialize(Csq: *mut IO_CSQ, CsqInsertIrp: Option<IO_CSQ_INSERT_IRP>, CsqRemoveIrp: Option<IO_CSQ_REMOVE_IRP>, CsqPeekNextIrp: Option<IO_CSQ_PEEK_NEXT_IRP>, CsqAcquireLock: Option<IO_CSQ_ACQUIRE_LOCK>, CsqReleaseLock: Option<IO_CSQ_RELEASE_LOCK>, CsqCompleteCanceledIrp: Option<IO_CSQ_COMPLETE_CANCELED_IRP>) -> NTSTATUS;

    /// Initialises a cancel-safe queue whose insertions may fail.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iocsqinitializeex)
    fn IoCsqInitializeEx(Csq: *mut IO_CSQ, CsqInsertIrp: Option<IO_CSQ_INSERT_IRP_EX>, CsqRemoveIrp: Option<IO_CSQ_REMOVE_IRP>, CsqPeekNextIrp: Option<IO_CSQ_PEEK_NEXT_IRP>, CsqAcquireLock: Option<IO_CSQ_ACQUIRE_LOCK>, CsqReleaseLock: Option<IO_CSQ_RELEASE_LOCK>, CsqCompleteCanceledIrp: Option<IO_CSQ_COMPLETE_CANCELED_IRP>) -> NTSTATUS;

    /// Puts a request into a cancel-safe queue and marks it pending.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iocsqinsertirp)
    fn IoCsqInsertIrp(Csq: *mut IO_CSQ, Irp: *mut IRP, Context: *mut IO_CSQ_IRP_CONTEXT);

    /// Puts a request into a cancel-safe queue and marks it pending, unless the queue's routine refuses it: its status is returned.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iocsqinsertirpex)
    fn IoCsqInsertIrpEx(Csq: *mut IO_CSQ, Irp: *mut IRP, Context: *mut IO_CSQ_IRP_CONTEXT, InsertContext: PVOID) -> NTSTATUS;

    /// Takes a request out of a cancel-safe queue; null if it was cancelled.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iocsqremoveirp)
    fn IoCsqRemoveIrp(Csq: *mut IO_CSQ, Context: *mut IO_CSQ_IRP_CONTEXT) -> *mut IRP;

    /// Takes the next request that matches out of a cancel-safe queue; null if there is none.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iocsqremovenextirp)
    fn IoCsqRemoveNextIrp(Csq: *mut IO_CSQ, PeekContext: PVOID) -> *mut IRP;

    // Memory descriptor lists.

    /// Allocates a memory descriptor list; null if there is no memory.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioallocatemdl)
    fn IoAllocateMdl(VirtualAddress: PVOID, Length: ULONG, SecondaryBuffer: BOOLEAN, ChargeQuota: BOOLEAN, Irp: *mut IRP) -> *mut MDL;

    /// Frees a memory descriptor list.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iofreemdl)
    fn IoFreeMdl(Mdl: *mut MDL);

    // Named events.

    /// Creates or opens a named notification event, with a kernel handle; null if that fails.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iocreatenotificationevent)
    fn IoCreateNotificationEvent(EventName: *mut UNICODE_STRING, EventHandle: *mut HANDLE) -> *mut KEVENT;

    /// Creates or opens a named synchronization event, with a kernel handle; null if that fails.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iocreatesynchronizationevent)
    fn IoCreateSynchronizationEvent(EventName: *mut UNICODE_STRING, EventHandle: *mut HANDLE) -> *mut KEVENT;

    // Remove locks.

    /// Initialises a remove lock.
    ///
    /// `IoInitializeRemoveLock` in C.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioinitializeremovelockex)
    fn IoInitializeRemoveLockEx(Lock: *mut IO_REMOVE_LOCK, AllocateTag: ULONG, MaxLockedMinutes: ULONG, HighWatermark: ULONG, RemlockSize: ULONG);

    /// Adds a user, or returns `STATUS_DELETE_PENDING`.
    ///
    /// `IoAcquireRemoveLock` in C.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioacquireremovelockex)
    fn IoAcquireRemoveLockEx(RemoveLock: *mut IO_REMOVE_LOCK, Tag: PVOID, File: *const CHAR, Line: ULONG, RemlockSize: ULONG) -> NTSTATUS;

    /// Takes a user away.
    ///
    /// `IoReleaseRemoveLock` in C.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioreleaseremovelockex)
    fn IoReleaseRemoveLockEx(RemoveLock: *mut IO_REMOVE_LOCK, Tag: PVOID, RemlockSize: ULONG);

    /// Takes the caller's use away, admits no more users and waits for the last one.
    ///
    /// `IoReleaseRemoveLockAndWait` in C.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioreleaseremovelockandwaitex)
    fn IoReleaseRemoveLockAndWaitEx(RemoveLock: *mut IO_REMOVE_LOCK, Tag: PVOID, RemlockSize: ULONG);

    // The current process.

    /// Returns the current process, without a reference.
    ///
    /// `PsGetCurrentProcess` in C.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iogetcurrentprocess)
    fn IoGetCurrentProcess() -> *mut EPROCESS;
}

data_exports! {
    /// The type of open files. `*IoFileObjectType` in C.
    static IoFileObjectType: *mut OBJECT_TYPE;
}
