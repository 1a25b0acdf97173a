//! Device queues.

use crate::*;

routines! {
    /// Initialises a device queue.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializedevicequeue)
    fn KeInitializeDeviceQueue(DeviceQueue: *mut KDEVICE_QUEUE);

    /// Queues an entry if the device is busy, and tells whether it did. Otherwise the device is busy from now on.
    ///
    /// # IRQL
    /// `DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinsertdevicequeue)
    fn KeInsertDeviceQueue(DeviceQueue: *mut KDEVICE_QUEUE, DeviceQueueEntry: *mut KDEVICE_QUEUE_ENTRY) -> BOOLEAN;

    /// Queues an entry in order of its key if the device is busy, and tells whether it did.
    ///
    /// # IRQL
    /// `DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinsertbykeydevicequeue)
    fn KeInsertByKeyDeviceQueue(DeviceQueue: *mut KDEVICE_QUEUE, DeviceQueueEntry: *mut KDEVICE_QUEUE_ENTRY, SortKey: ULONG) -> BOOLEAN;

    /// Takes the first entry out; null if there is none, and the device is not busy any more.
    ///
    /// # IRQL
    /// `DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keremovedevicequeue)
    fn KeRemoveDeviceQueue(DeviceQueue: *mut KDEVICE_QUEUE) -> *mut KDEVICE_QUEUE_ENTRY;

    /// Takes the first entry out whose key is not less, or else the very first; null as for `KeRemoveDeviceQueue`.
    ///
    /// # IRQL
    /// `DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keremovebykeydevicequeue)
    fn KeRemoveByKeyDeviceQueue(DeviceQueue: *mut KDEVICE_QUEUE, SortKey: ULONG) -> *mut KDEVICE_QUEUE_ENTRY;

    /// Does as `KeRemoveByKeyDeviceQueue` if the device is busy; null otherwise.
    ///
    /// # IRQL
    /// `DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keremovebykeydevicequeueifbusy)
    fn KeRemoveByKeyDeviceQueueIfBusy(DeviceQueue: *mut KDEVICE_QUEUE, SortKey: ULONG) -> *mut KDEVICE_QUEUE_ENTRY;

    /// Takes an entry out, and tells whether it was in.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keremoveentrydevicequeue)
    fn KeRemoveEntryDeviceQueue(DeviceQueue: *mut KDEVICE_QUEUE, DeviceQueueEntry: *mut KDEVICE_QUEUE_ENTRY) -> BOOLEAN;
}
