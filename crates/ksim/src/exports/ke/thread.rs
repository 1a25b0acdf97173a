//! The current thread, and priorities.

use crate::engine::thread::{LOW_REALTIME_PRIORITY, ThreadObject};
use crate::exports::{ANY, DISPATCHER, PASSIVE, exports};
use crate::report::bug_check::{Violation, codes};
use ksync_sys::{BOOLEAN, KPRIORITY, KTHREAD, LONG};

exports! {
    [ANY] silent fn KeGetCurrentThread(call) -> *mut KTHREAD {
        call.read(|kernel| match kernel.current_thread() {
            Some(tid) => kernel.thread(tid).address() as *mut KTHREAD,
            // In a DPC on an idle processor: the idle thread, which has a pointer and nothing else.
            None => (&raw mut **kernel.processor().idle_thread.get_or_insert_with(ThreadObject::boxed)).cast(),
        })
    }

    [PASSIVE] visible(set_priority Thread) fn KeSetPriorityThread(call; Thread: *mut KTHREAD, Priority: KPRIORITY) -> KPRIORITY {
        call.operate(|kernel| {
            let tid = kernel.thread_at(Thread)?;
            match u8::try_from(Priority) {
                Ok(priority) if (1..=31).contains(&priority) => Ok(KPRIORITY::from(kernel.set_priority(tid, priority))),
                _ => Err(Violation::boxed_owned(
                    codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                    [codes::verifier::BAD_ARGUMENT, Priority as u64, 0, 0],
                    format!("a thread's priority is 1 to 31, not {Priority}"),
                )),
            }
        })
    }

    [DISPATCHER] silent fn KeSetKernelStackSwapEnable(call; Enable: BOOLEAN) -> BOOLEAN {
        BOOLEAN::from(call.read(|kernel| {
            // In a DPC on an idle processor there is no thread whose stack could go.
            kernel.current_thread().is_none_or(|tid| std::mem::replace(&mut kernel.thread(tid).stack_swap, Enable != 0))
        }))
    }

    [DISPATCHER] visible(query_priority Thread) fn KeQueryPriorityThread(call; Thread: *mut KTHREAD) -> KPRIORITY {
        call.operate(|kernel| {
            let tid = kernel.thread_at(Thread)?;
            Ok(KPRIORITY::from(kernel.thread(tid).priority))
        })
    }

    [DISPATCHER] visible(set_priority Thread) fn KeSetBasePriorityThread(call; Thread: *mut KTHREAD, Increment: LONG) -> LONG {
        call.operate(|kernel| {
            let tid = kernel.thread_at(Thread)?;
            let base = i32::from(kernel.thread(tid).base_priority);
            let process = i32::from(crate::engine::thread::NORMAL_PRIORITY);
            let realtime = base >= i32::from(LOW_REALTIME_PRIORITY);
            let (low, high) = if realtime { (16, 31) } else { (1, 15) };
            let priority = process.saturating_add(Increment).clamp(low, high);
            kernel.set_priority(tid, priority as u8);
            Ok(base - process)
        })
    }
}
