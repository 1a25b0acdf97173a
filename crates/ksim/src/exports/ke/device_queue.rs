//! KDEVICE_QUEUE.

use crate::exports::{DISPATCHER, IrqlRange, PASSIVE, exactly, exports};
use crate::irql::DISPATCH_LEVEL;
use ksync_sys::{BOOLEAN, KDEVICE_QUEUE, KDEVICE_QUEUE_ENTRY, ULONG};

/// DDI compliance rule IrqlDispatch.
pub(crate) const AT_DISPATCH: IrqlRange = exactly(DISPATCH_LEVEL).rule(0x2_0003);

exports! {
    [PASSIVE] silent fn KeInitializeDeviceQueue(call; DeviceQueue: *mut KDEVICE_QUEUE) {
        call.operate(|kernel| kernel.initialize_device_queue(DeviceQueue));
    }

    [AT_DISPATCH] visible(access DeviceQueue) fn KeInsertDeviceQueue(
        call; DeviceQueue: *mut KDEVICE_QUEUE, DeviceQueueEntry: *mut KDEVICE_QUEUE_ENTRY
    ) -> BOOLEAN {
        BOOLEAN::from(call.operate(|kernel| kernel.insert_device_queue(DeviceQueue, DeviceQueueEntry, None)))
    }

    [AT_DISPATCH] visible(access DeviceQueue) fn KeInsertByKeyDeviceQueue(
        call; DeviceQueue: *mut KDEVICE_QUEUE, DeviceQueueEntry: *mut KDEVICE_QUEUE_ENTRY, SortKey: ULONG
    ) -> BOOLEAN {
        BOOLEAN::from(call.operate(|kernel| kernel.insert_device_queue(DeviceQueue, DeviceQueueEntry, Some(SortKey))))
    }

    [AT_DISPATCH] visible(access DeviceQueue) fn KeRemoveDeviceQueue(call; DeviceQueue: *mut KDEVICE_QUEUE) -> *mut KDEVICE_QUEUE_ENTRY {
        call.operate(|kernel| kernel.remove_device_queue(DeviceQueue, None))
    }

    [AT_DISPATCH] visible(access DeviceQueue) fn KeRemoveByKeyDeviceQueue(
        call; DeviceQueue: *mut KDEVICE_QUEUE, SortKey: ULONG
    ) -> *mut KDEVICE_QUEUE_ENTRY {
        call.operate(|kernel| kernel.remove_device_queue(DeviceQueue, Some(SortKey)))
    }

    [AT_DISPATCH] visible(access DeviceQueue) fn KeRemoveByKeyDeviceQueueIfBusy(
        call; DeviceQueue: *mut KDEVICE_QUEUE, SortKey: ULONG
    ) -> *mut KDEVICE_QUEUE_ENTRY {
        call.operate(|kernel| {
            if kernel.device_queue_is_busy(DeviceQueue)? {
                kernel.remove_device_queue(DeviceQueue, Some(SortKey))
            } else {
                Ok(std::ptr::null_mut())
            }
        })
    }

    [DISPATCHER] visible(access DeviceQueue) fn KeRemoveEntryDeviceQueue(
        call; DeviceQueue: *mut KDEVICE_QUEUE, DeviceQueueEntry: *mut KDEVICE_QUEUE_ENTRY
    ) -> BOOLEAN {
        BOOLEAN::from(call.operate(|kernel| kernel.remove_device_queue_entry(DeviceQueue, DeviceQueueEntry)))
    }
}
