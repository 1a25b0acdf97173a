//! Executive work items.

use crate::exports::{DISPATCHER, exports};
use ksync_sys::{WORK_QUEUE_ITEM, WORK_QUEUE_TYPE};

exports! {
    [DISPATCHER] visible fn ExQueueWorkItem(call; WorkItem: *mut WORK_QUEUE_ITEM, QueueType: WORK_QUEUE_TYPE) {
        call.operate(|kernel| kernel.queue_executive(WorkItem, QueueType));
    }
}
