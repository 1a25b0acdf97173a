//! KQUEUE (rule 20).

use crate::engine::wait::WaitRequest;
use crate::exports::ke::wait::{time, wait};
use crate::exports::{ANY, BLOCKING, DISPATCHER, exports};
use crate::machine::Call;
use ksync_sys::{KPROCESSOR_MODE, KQUEUE, LARGE_INTEGER, LIST_ENTRY, LONG, NTSTATUS, STATUS_TIMEOUT, ULONG, UserMode};

/// Waits for an entry of a queue, and removes it.
pub(crate) fn remove(
    call: Call,
    queue: *mut KQUEUE,
    mode: KPROCESSOR_MODE,
    alertable: bool,
    timeout: *const LARGE_INTEGER,
    reason: &'static str,
) -> Result<*mut LIST_ENTRY, NTSTATUS> {
    let timeout = crate::exports::ke::wait::read_timeout(call, timeout);
    let request = WaitRequest {
        all: false,
        alertable,
        user_mode: mode == UserMode,
        timeout,
        expired: STATUS_TIMEOUT,
        blocks: std::ptr::null_mut(),
        reason,
    };
    let status = wait(call, |kernel| {
        let id = kernel.queue_at(queue)?;
        kernel.begin_remove_queue(id, request)
    });
    let entry = call.read(|kernel| {
        let tid = kernel.this_thread();
        std::mem::replace(&mut kernel.thread(tid).wait.entry, std::ptr::null_mut())
    });
    if entry.is_null() { Err(status) } else { Ok(entry) }
}

exports! {
    [ANY] silent fn KeInitializeQueue(call; Queue: *mut KQUEUE, Count: ULONG) {
        // SAFETY: the caller passes memory for a KQUEUE.
        call.operate(|kernel| unsafe { kernel.initialize_queue(Queue, Count) });
    }

    [DISPATCHER] visible(access Queue) fn KeInsertQueue(call; Queue: *mut KQUEUE, Entry: *mut LIST_ENTRY) -> LONG {
        call.operate(|kernel| {
            let id = kernel.queue_at(Queue)?;
            kernel.insert_queue(id, Entry, false)
        })
    }

    [DISPATCHER] visible(access Queue) fn KeInsertHeadQueue(call; Queue: *mut KQUEUE, Entry: *mut LIST_ENTRY) -> LONG {
        call.operate(|kernel| {
            let id = kernel.queue_at(Queue)?;
            kernel.insert_queue(id, Entry, true)
        })
    }

    [DISPATCHER] visible(read Queue) fn KeReadStateQueue(call; Queue: *const KQUEUE) -> LONG {
        call.operate(|kernel| {
            let id = kernel.queue_at(Queue)?;
            Ok(kernel.read_state(id))
        })
    }

    [BLOCKING] visible(remove_queue Queue, time(Timeout), WaitMode == UserMode) fn KeRemoveQueue(
        call; Queue: *mut KQUEUE, WaitMode: KPROCESSOR_MODE, Timeout: *const LARGE_INTEGER
    ) -> *mut LIST_ENTRY {
        // An entry, or the status cast to a pointer, as the routine's page says.
        remove(call, Queue, WaitMode, false, Timeout, "KeRemoveQueue").unwrap_or_else(|status| status as isize as *mut LIST_ENTRY)
    }

    [DISPATCHER] visible(access Queue) fn KeRundownQueue(call; Queue: *mut KQUEUE) -> *mut LIST_ENTRY {
        let entries = call.operate(|kernel| {
            let id = kernel.queue_at(Queue)?;
            Ok(kernel.rundown_queue(id))
        });
        // The entries come back as a circular list without a head.
        let count = entries.len();
        for (index, &entry) in entries.iter().enumerate() {
            let next = entries[(index + 1) % count] as *mut LIST_ENTRY;
            let previous = entries[(index + count - 1) % count] as *mut LIST_ENTRY;
            // SAFETY: an entry stays valid while it is in the queue, by the contract of KeInsertQueue.
            unsafe { (entry as *mut LIST_ENTRY).write(LIST_ENTRY { Flink: next, Blink: previous }) };
        }
        entries.first().map_or(std::ptr::null_mut(), |&entry| entry as *mut LIST_ENTRY)
    }
}
