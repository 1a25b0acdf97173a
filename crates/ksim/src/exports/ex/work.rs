//! Executive work items.

use crate::exports::{TO_DISPATCH, exports};
use ksync_sys::{WORK_QUEUE_ITEM, WORK_QUEUE_TYPE};

exports! {
    [TO_DISPATCH] visible fn ExQueueWorkItem(call; WorkItem: *mut WORK_QUEUE_ITEM, QueueType: WORK_QUEUE_TYPE) {
        call.operate(|kernel| kernel.queue_executive(WorkItem, QueueType));
    }
}
