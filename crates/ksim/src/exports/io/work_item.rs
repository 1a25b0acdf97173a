//! I/O work items.

use crate::engine::io::work::{ITEM_BYTES, IoRoutine, Work};
use crate::exports::{IO_DISPATCH, exports};
use crate::machine::Call;
use ksync_sys::{
    BOOLEAN, DEVICE_OBJECT, IO_WORKITEM, PIO_WORKITEM_ROUTINE, PIO_WORKITEM_ROUTINE_EX, PVOID, ULONG, WORK_QUEUE_TYPE,
};

/// Runs what a worker thread has taken off a queue.
pub(crate) fn run(call: Call, work: Work) {
    match work {
        Work::Executive { routine: Some(routine), parameter, .. } => {
            // SAFETY: the driver vouched for the routine and its parameter.
            unsafe { crate::image::call(routine, (parameter,)) };
        }
        Work::Io { routine: IoRoutine::Plain(Some(routine)), object, context, .. } => {
            // SAFETY: as above; the item keeps its device.
            unsafe { crate::image::call(routine, (object.cast(), context)) };
        }
        Work::Io { item, routine: IoRoutine::Extended(Some(routine)), object, context, .. } => {
            // SAFETY: as above.
            unsafe { crate::image::call(routine, (object, context, item as *mut IO_WORKITEM)) };
        }
        Work::Close(file) => super::file::close(call, file),
        Work::Executive { routine: None, .. } | Work::Io { .. } => {}
    }
    call.operate(|kernel| kernel.finish_work(work));
}

exports! {
    [IO_DISPATCH] silent fn IoAllocateWorkItem(call; DeviceObject: *mut DEVICE_OBJECT) -> *mut IO_WORKITEM {
        call.operate(|kernel| kernel.allocate_work_item(DeviceObject))
    }

    [IO_DISPATCH] visible fn IoFreeWorkItem(call; IoWorkItem: *mut IO_WORKITEM) {
        call.operate(|kernel| kernel.free_work_item(IoWorkItem, true));
    }

    [IO_DISPATCH] silent fn IoSizeofWorkItem(call) -> ULONG {
        let _ = call;
        ITEM_BYTES as ULONG
    }

    [IO_DISPATCH] silent fn IoInitializeWorkItem(call; IoObject: PVOID, IoWorkItem: *mut IO_WORKITEM) {
        call.operate(|kernel| kernel.initialize_work_item(IoObject, IoWorkItem));
    }

    [IO_DISPATCH] visible fn IoUninitializeWorkItem(call; IoWorkItem: *mut IO_WORKITEM) {
        call.operate(|kernel| kernel.free_work_item(IoWorkItem, false));
    }

    [IO_DISPATCH] visible fn IoQueueWorkItem(
        call; IoWorkItem: *mut IO_WORKITEM, WorkerRoutine: PIO_WORKITEM_ROUTINE, QueueType: WORK_QUEUE_TYPE, Context: PVOID
    ) {
        call.operate(|kernel| kernel.queue_io(IoWorkItem, IoRoutine::Plain(WorkerRoutine), QueueType, Context));
    }

    [IO_DISPATCH] visible fn IoTryQueueWorkItem(
        call; IoWorkItem: *mut IO_WORKITEM, WorkerRoutine: PIO_WORKITEM_ROUTINE_EX, QueueType: WORK_QUEUE_TYPE, Context: PVOID
    ) -> BOOLEAN {
        BOOLEAN::from(call.operate(|kernel| {
            if kernel.is_queued_io(IoWorkItem)? {
                return Ok(false);
            }
            kernel.queue_io(IoWorkItem, IoRoutine::Extended(WorkerRoutine), QueueType, Context)?;
            Ok(true)
        }))
    }

    [IO_DISPATCH] visible fn IoQueueWorkItemEx(
        call; IoWorkItem: *mut IO_WORKITEM, WorkerRoutine: PIO_WORKITEM_ROUTINE_EX, QueueType: WORK_QUEUE_TYPE, Context: PVOID
    ) {
        call.operate(|kernel| kernel.queue_io(IoWorkItem, IoRoutine::Extended(WorkerRoutine), QueueType, Context));
    }
}
