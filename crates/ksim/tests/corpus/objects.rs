//! Mistakes with objects, handles, references, rundown protection, queues.

use crate::{Case, Caught, always, sometimes, with};
use ksim::RuleId;
use ksync_sys::*;
use std::ptr::{null, null_mut};
use test_support::*;

unsafe extern "system-unwind" fn nothing(_context: PVOID) {}

fn start_thread() -> HANDLE {
    let mut handle = null_mut();
    let status = raw!(PsCreateSystemThread(&mut handle, 0, null(), null_mut(), null_mut(), Some(nothing), null_mut()));
    assert_eq!(status, STATUS_SUCCESS);
    handle
}

fn reference(handle: HANDLE) -> PVOID {
    let mut object = null_mut();
    let status = raw!(ObReferenceObjectByHandle(handle, 0, null_mut(), KernelMode, &mut object, null_mut()));
    assert_eq!(status, STATUS_SUCCESS);
    object
}

fn reference_leak(wrong: bool) {
    let handle = start_thread();
    let object = reference(handle);
    raw!(ZwClose(handle));
    wait(object);
    if !wrong {
        raw!(ObfDereferenceObject(object));
    }
}

fn reference_leak_of_each_poll(wrong: bool) {
    let handle = start_thread();
    // A poll of the thread's end that takes a reference each time.
    for _ in 0..3 {
        let object = reference(handle);
        poll(object);
        if !wrong {
            raw!(ObfDereferenceObject(object));
        }
    }
    raw!(ZwClose(handle));
}

fn double_dereference(wrong: bool) {
    let handle = start_thread();
    let object = reference(handle);
    raw!(ZwClose(handle));
    wait(object);
    raw!(ObfDereferenceObject(object));
    if wrong {
        raw!(ObfDereferenceObject(object));
    }
}

fn double_close(wrong: bool) {
    let handle = start_thread();
    raw!(ZwClose(handle));
    if wrong {
        raw!(ZwClose(handle));
    }
}

fn handle_used_after_its_close(wrong: bool) {
    let handle = start_thread();
    let use_it = || {
        let mut object = null_mut();
        let status = raw!(ObReferenceObjectByHandle(handle, 0, null_mut(), KernelMode, &mut object, null_mut()));
        if status == STATUS_SUCCESS {
            raw!(ObfDereferenceObject(object));
        }
    };
    if wrong {
        raw!(ZwClose(handle));
        use_it();
    } else {
        use_it();
        raw!(ZwClose(handle));
    }
}

fn handle_never_closed(wrong: bool) {
    let handle = start_thread();
    if !wrong {
        raw!(ZwClose(handle));
    }
}

fn handle_closed_in_a_dpc(wrong: bool) {
    let handle = start_thread();
    let dpc = Dpc::new(|| {
        if wrong {
            raw!(ZwClose(handle));
        }
    });
    dpc.queue();
    flush_dpcs();
    if !wrong {
        raw!(ZwClose(handle));
    }
}

fn null_handle(wrong: bool) {
    let handle = start_thread();
    let used = if wrong { null_mut() } else { handle };
    let mut object = null_mut();
    let status = raw!(ObReferenceObjectByHandle(used, 0, null_mut(), KernelMode, &mut object, null_mut()));
    if status == STATUS_SUCCESS {
        raw!(ObfDereferenceObject(object));
    }
    raw!(ZwClose(handle));
}

fn rundown_released_twice(wrong: bool) {
    let rundown = Place::<EX_RUNDOWN_REF>::zeroed();
    raw!(ExInitializeRundownProtection(rundown.ptr()));
    raw!(ExAcquireRundownProtection(rundown.ptr()));
    raw!(ExReleaseRundownProtection(rundown.ptr()));
    if wrong {
        raw!(ExReleaseRundownProtection(rundown.ptr()));
    }
    raw!(ExWaitForRundownProtectionRelease(rundown.ptr()));
}

fn rundown_released_though_it_was_not_granted(wrong: bool) {
    let rundown = Place::<EX_RUNDOWN_REF>::zeroed();
    raw!(ExInitializeRundownProtection(rundown.ptr()));
    let user = spawn(|| {
        let granted = raw!(ExAcquireRundownProtection(rundown.ptr())) != 0;
        if wrong || granted {
            raw!(ExReleaseRundownProtection(rundown.ptr()));
        }
    });
    raw!(ExWaitForRundownProtectionRelease(rundown.ptr()));
    user.join();
}

fn rundown_completed_without_a_wait(wrong: bool) {
    let rundown = Place::<EX_RUNDOWN_REF>::zeroed();
    raw!(ExInitializeRundownProtection(rundown.ptr()));
    if !wrong {
        raw!(ExWaitForRundownProtectionRelease(rundown.ptr()));
    }
    raw!(ExRundownCompleted(rundown.ptr()));
}

fn rundown_that_waits_for_itself(wrong: bool) {
    let rundown = Place::<EX_RUNDOWN_REF>::zeroed();
    raw!(ExInitializeRundownProtection(rundown.ptr()));
    raw!(ExAcquireRundownProtection(rundown.ptr()));
    if !wrong {
        raw!(ExReleaseRundownProtection(rundown.ptr()));
    }
    raw!(ExWaitForRundownProtectionRelease(rundown.ptr()));
}

fn rundown_freed_while_acquired(wrong: bool) {
    let rundown = allocate(64).cast::<EX_RUNDOWN_REF>();
    raw!(ExInitializeRundownProtection(rundown));
    raw!(ExAcquireRundownProtection(rundown));
    if !wrong {
        raw!(ExReleaseRundownProtection(rundown));
    }
    free(rundown.cast());
}

fn rundown_freed_while_waited_for(wrong: bool) {
    let rundown = allocate(64).cast::<EX_RUNDOWN_REF>();
    raw!(ExInitializeRundownProtection(rundown));
    raw!(ExAcquireRundownProtection(rundown));
    let waiter = spawn(|| raw!(ExWaitForRundownProtectionRelease(rundown)));
    if !wrong {
        raw!(ExReleaseRundownProtection(rundown));
        waiter.join();
    }
    free(rundown.cast());
}

fn rundown_never_released(wrong: bool) {
    let rundown = Place::<EX_RUNDOWN_REF>::zeroed();
    raw!(ExInitializeRundownProtection(rundown.ptr()));
    raw!(ExAcquireRundownProtection(rundown.ptr()));
    if !wrong {
        raw!(ExReleaseRundownProtection(rundown.ptr()));
    }
}

fn remove_lock_never_released(wrong: bool) {
    let lock = Place::<IO_REMOVE_LOCK>::zeroed();
    raw!(IoInitializeRemoveLock(lock.ptr(), 0, 0, 0));
    raw!(IoAcquireRemoveLock(lock.ptr(), null_mut()));
    if !wrong {
        raw!(IoReleaseRemoveLock(lock.ptr(), null_mut()));
    }
}

fn queue_freed_with_an_entry(wrong: bool) {
    let (queue, entry) = (allocate(size_of::<KQUEUE>()).cast::<KQUEUE>(), Place::<LIST_ENTRY>::zeroed());
    raw!(KeInitializeQueue(queue, 0));
    raw!(KeInsertQueue(queue, entry.ptr()));
    if !wrong {
        raw!(KeRemoveQueue(queue, KernelMode, null_mut()));
    }
    free(queue.cast());
}

unsafe extern "system-unwind" fn works(_context: PVOID) {}

fn work_item_queued_twice(wrong: bool) {
    let item = Place::<WORK_QUEUE_ITEM>::zeroed();
    raw!(ExInitializeWorkItem(item.ptr(), Some(works), null_mut()));
    let level = raise(DISPATCH_LEVEL);
    raw!(ExQueueWorkItem(item.ptr(), DelayedWorkQueue));
    if wrong {
        raw!(ExQueueWorkItem(item.ptr(), DelayedWorkQueue));
    }
    lower(level);
    sleep(MS);
}

fn entry_queued_twice(wrong: bool) {
    let (queue, entry) = (Queue::new(0), Place::<LIST_ENTRY>::zeroed());
    queue.insert(&entry);
    if wrong {
        queue.insert(&entry);
    }
    queue.remove();
}

fn initialisation_never_completed(wrong: bool) {
    let once = Place::<RTL_RUN_ONCE>::zeroed();
    let use_it = || {
        let mut context = null_mut();
        let status = raw!(RtlRunOnceBeginInitialize(once.ptr(), 0, &mut context));
        // The first comes here, fails, and returns without a word.
        if status == STATUS_PENDING && !wrong {
            raw!(RtlRunOnceComplete(once.ptr(), RTL_RUN_ONCE_INIT_FAILED, null_mut()));
        }
    };
    join_all([spawn(use_it), spawn(use_it)]);
}

fn event_used_as_a_semaphore(wrong: bool) {
    let (event, semaphore) = (Event::notification(), Semaphore::new(0, 1));
    let object = if wrong { event.ptr().cast() } else { semaphore.ptr() };
    raw!(KeReleaseSemaphore(object, 0, 1, FALSE));
}

fn moved_event(wrong: bool) {
    let (event, copy) = (Event::notification(), Place::<KEVENT>::zeroed());
    raw!(copy.ptr().write(event.read()));
    raw!(KeSetEvent(if wrong { copy.ptr() } else { event.ptr() }, 0, FALSE));
}

pub(crate) const CASES: &[Case] = &[
    always("reference_leak", "A reference to a thread is never dropped.", Caught::Left, reference_leak),
    always(
        "reference_leak_of_each_poll",
        "Each poll of a thread's end keeps a reference.",
        Caught::Left,
        reference_leak_of_each_poll,
    ),
    always("double_dereference", "A reference is dropped twice.", Caught::By("Reference"), double_dereference),
    with(
        |machine| machine.check_rule(RuleId::ClosedHandle, true),
        always(
            "double_close",
            "A handle is closed twice (a rule that is off by default).",
            Caught::By("ClosedHandle"),
            double_close,
        ),
    ),
    always("handle_used_after_its_close", "A closed handle is referenced.", Caught::By("BadHandle"), handle_used_after_its_close),
    always("handle_never_closed", "A handle is never closed.", Caught::Left, handle_never_closed),
    always("handle_closed_in_a_dpc", "A handle is closed in a DPC.", Caught::By("IrqlZwPassive"), handle_closed_in_a_dpc),
    always("null_handle", "A null handle is referenced.", Caught::By("NullHandle"), null_handle),
    always("rundown_released_twice", "Rundown protection is released twice.", Caught::By("NotAcquired"), rundown_released_twice),
    sometimes(
        "rundown_released_though_it_was_not_granted",
        "Nobody looks at whether rundown protection was granted.",
        Caught::By("NotAcquired"),
        100,
        rundown_released_though_it_was_not_granted,
    ),
    always(
        "rundown_completed_without_a_wait",
        "Rundown is completed without a wait.",
        Caught::By("Reinitialized"),
        rundown_completed_without_a_wait,
    ),
    always(
        "rundown_that_waits_for_itself",
        "A thread waits for the rundown of what it protects itself.",
        Caught::Deadlock,
        rundown_that_waits_for_itself,
    ),
    always(
        "rundown_freed_while_acquired",
        "Pool is freed that holds rundown protection which somebody has acquired.",
        Caught::By("DeletedWhileOwned"),
        rundown_freed_while_acquired,
    ),
    always(
        "rundown_freed_while_waited_for",
        "Pool is freed that holds rundown protection whose rundown a thread waits for.",
        Caught::By("DeletedWhileOwned"),
        rundown_freed_while_waited_for,
    ),
    always("rundown_never_released", "Rundown protection is never released.", Caught::Left, rundown_never_released),
    always("remove_lock_never_released", "A remove lock is never released.", Caught::Left, remove_lock_never_released),
    always(
        "queue_freed_with_an_entry",
        "A queue is freed with an entry in it.",
        Caught::By("DeletedWhileOwned"),
        queue_freed_with_an_entry,
    ),
    always("work_item_queued_twice", "A work item is queued that is queued.", Caught::By("WorkItem"), work_item_queued_twice),
    always(
        "entry_queued_twice",
        "An entry is inserted into a queue that it is in.",
        Caught::By("QueueEntry"),
        entry_queued_twice,
    ),
    always(
        "initialisation_never_completed",
        "A one-time initialisation is begun and not completed.",
        Caught::Deadlock,
        initialisation_never_completed,
    ),
    always(
        "event_used_as_a_semaphore",
        "An event is released as a semaphore.",
        Caught::By("Uninitialized"),
        event_used_as_a_semaphore,
    ),
    always("moved_event", "An event is copied, and the copy is set.", Caught::By("Uninitialized"), moved_event),
];
