//! Work items, devices and remove locks.

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
