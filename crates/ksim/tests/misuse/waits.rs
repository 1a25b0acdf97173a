//! Waits.

use crate::{Expected, address, expected, misuse};
use ksim::{Machine, RuleId};
use ksync_sys::*;
use std::ptr::{null, null_mut};
use test_support::*;

#[test]
fn wait_at_dispatch_level_for_ever() {
    let event = Place::<KEVENT>::zeroed();
    let expected = expected!(
        wait_at_dispatch_level_for_ever,
        0xc4,
        [Some(0x121), Some(2), address(event.ptr())],
        "KeWaitForSingleObject",
        2
    );
    misuse(&expected, || {
        raw!(KeInitializeEvent(event.ptr(), NotificationEvent, TRUE));
        raise(DISPATCH_LEVEL);
        raw!(KeWaitForSingleObject(event.object(), Executive, KernelMode, FALSE, null()));
    });
}

#[test]
fn wait_at_dispatch_level_for_a_time() {
    let expected = expected!(wait_at_dispatch_level_for_a_time, 0xc4, [Some(0x122), Some(2)], "KeWaitForMultipleObjects", 2);
    misuse(&expected, || {
        let event = Event::notification();
        let (objects, timeout) = ([event.object()], -1);
        raise(DISPATCH_LEVEL);
        raw!(KeWaitForMultipleObjects(1, objects.as_ptr(), WaitAny, Executive, KernelMode, FALSE, &timeout, null_mut()));
    });
}

#[test]
fn poll_above_dispatch_level() {
    let event = Place::<KEVENT>::zeroed();
    let expected =
        expected!(poll_above_dispatch_level, 0xc4, [Some(0x120), Some(12), address(event.ptr())], "KeWaitForSingleObject", 12);
    misuse(&expected, || {
        raw!(KeInitializeEvent(event.ptr(), NotificationEvent, TRUE));
        raise(12);
        let timeout = 0;
        raw!(KeWaitForSingleObject(event.object(), Executive, KernelMode, FALSE, &timeout));
    });
}

#[test]
fn wait_under_a_spin_lock() {
    let expected = expected!(wait_under_a_spin_lock, 0xc4, [Some(0x121), Some(2)], "KeWaitForSingleObject", 2);
    misuse(&expected, || {
        let (event, lock) = (Event::notification(), SpinLock::new());
        lock.acquire();
        raw!(KeWaitForSingleObject(event.object(), Executive, KernelMode, FALSE, null()));
    });
}

#[test]
fn delay_at_dispatch_level() {
    let expected = expected!(delay_at_dispatch_level, 0xc4, [Some(0x2_000f), Some(2), Some(1)], "KeDelayExecutionThread", 2);
    misuse(&expected, || {
        raise(DISPATCH_LEVEL);
        let interval = -1;
        raw!(KeDelayExecutionThread(KernelMode, FALSE, &interval));
    });
}

#[test]
fn wait_in_a_dpc() {
    let expected = Expected { in_dpc: true, ..expected!(wait_in_a_dpc, 0xb8, [], "KeWaitForSingleObject", 2) };
    misuse(&expected, || {
        let event = Event::notification();
        let dpc = Dpc::new(|| {
            raw!(KeWaitForSingleObject(event.object(), Executive, KernelMode, FALSE, null()));
        });
        dpc.queue();
        flush_dpcs();
    });
}

#[test]
fn mutex_polled_in_a_dpc() {
    let expected = Expected { in_dpc: true, ..expected!(mutex_polled_in_a_dpc, 0xb8, [], "KeWaitForSingleObject", 2) };
    misuse(&expected, || {
        let mutex = Mutex::new();
        let dpc = Dpc::new(|| {
            let timeout = 0;
            raw!(KeWaitForSingleObject(mutex.object(), Executive, KernelMode, FALSE, &timeout));
        });
        dpc.queue();
        flush_dpcs();
    });
}

#[test]
fn too_many_objects() {
    let expected = expected!(too_many_objects, 0xc, [], "KeWaitForMultipleObjects", 0);
    misuse(&expected, || {
        let event = Event::notification();
        let (objects, blocks) = ([event.object(); 65], Place::<[KWAIT_BLOCK; 65]>::zeroed());
        raw!(KeWaitForMultipleObjects(65, objects.as_ptr(), WaitAny, Executive, KernelMode, FALSE, null(), blocks.ptr().cast()));
    });
}

#[test]
fn four_objects_without_wait_blocks() {
    let expected = expected!(four_objects_without_wait_blocks, 0xc, [], "KeWaitForMultipleObjects", 0);
    misuse(&expected, || {
        let event = Event::new(NotificationEvent, true);
        let objects = [event.object(); 4];
        raw!(KeWaitForMultipleObjects(4, objects.as_ptr(), WaitAny, Executive, KernelMode, FALSE, null(), null_mut()));
    });
}

#[test]
fn over_release_of_a_semaphore() {
    let status = STATUS_SEMAPHORE_LIMIT_EXCEEDED as u32;
    let expected = expected!(over_release_of_a_semaphore, 0x7e, [Some(status.into())], "KeReleaseSemaphore", 0);
    misuse(&expected, || {
        let semaphore = Semaphore::new(1, 2);
        raw!(KeReleaseSemaphore(semaphore.ptr(), 0, 2, FALSE));
    });
}

#[test]
fn semaphore_released_by_nothing() {
    misuse(&expected!(semaphore_released_by_nothing, 0xc4, [Some(0x6b73_0005)], "KeReleaseSemaphore", 0), || {
        raw!(KeReleaseSemaphore(Semaphore::new(1, 2).ptr(), 0, 0, FALSE));
    });
}

/// Who waits in vain for a signal may give it himself; only who had taken a lock gives it back.
#[test]
fn semaphores_that_are_no_locks_are_released_after_waits_in_vain() {
    let machine = || Machine::new().check_rule(RuleId::WaitStatus, true);
    let outcome = machine().run(|| {
        let signal = Semaphore::new(0, 1);
        if wait_until(signal.object(), -1000 * MS) == STATUS_TIMEOUT {
            signal.release(1);
        }
        // This one is full at first, and given by others than those who took it.
        let baton = Semaphore::new(1, 1);
        wait(baton.object());
        spawn(|| {
            baton.release(1);
        })
        .join();
        wait(baton.object());
        if poll(baton.object()) == STATUS_TIMEOUT {
            baton.release(1);
        }
        // This one is a lock, and owned.
        let lock = Semaphore::new(1, 1);
        wait(lock.object());
        if poll(lock.object()) == STATUS_TIMEOUT {
            lock.release(1);
        }
    });
    outcome.expect_clean();
}

#[test]
fn semaphore_released_with_wait_above_passive_level() {
    let expected = expected!(
        semaphore_released_with_wait_above_passive_level,
        0xc4,
        [Some(0x2_0011), Some(1), Some(0)],
        "KeReleaseSemaphore",
        1
    );
    misuse(&expected, || {
        let semaphore = Semaphore::new(1, 2);
        raise(APC_LEVEL);
        raw!(KeReleaseSemaphore(semaphore.ptr(), 0, 1, TRUE));
    });
}

#[test]
fn mutex_released_with_wait_at_dispatch_level() {
    let expected =
        expected!(mutex_released_with_wait_at_dispatch_level, 0xc4, [Some(0x2_0011), Some(2), Some(1)], "KeReleaseMutex", 2);
    misuse(&expected, || {
        let mutex = Mutex::new();
        raise(DISPATCH_LEVEL);
        poll(mutex.object());
        raw!(KeReleaseMutex(mutex.ptr(), TRUE));
    });
}

#[test]
fn event_set_with_wait_at_dispatch_level() {
    let expected = expected!(event_set_with_wait_at_dispatch_level, 0xc4, [Some(0x2_0016), Some(2), Some(1)], "KeSetEvent", 2);
    misuse(&expected, || {
        let event = Event::notification();
        raise(DISPATCH_LEVEL);
        raw!(KeSetEvent(event.ptr(), 0, TRUE));
    });
}

#[test]
fn event_set_with_wait_and_no_wait_after() {
    let expected = expected!(event_set_with_wait_and_no_wait_after, 0xc4, [Some(0x2_001f), Some(2)], "ZwClose", 2);
    misuse(&expected, || {
        let event = Event::notification();
        raw!(KeSetEvent(event.ptr(), 0, TRUE));
        raw!(ZwClose(null_mut()));
    });
}

#[test]
fn event_set_above_dispatch_level() {
    let expected = expected!(event_set_above_dispatch_level, 0xc4, [Some(0x2_0016), Some(3), Some(2)], "KeSetEvent", 3);
    misuse(&expected, || {
        let event = Event::notification();
        raise(3);
        raw!(KeSetEvent(event.ptr(), 0, FALSE));
    });
}

#[test]
fn mutex_of_another_thread_released() {
    let status = STATUS_MUTANT_NOT_OWNED as u32;
    let expected = expected!(mutex_of_another_thread_released, 0x7e, [Some(status.into())], "KeReleaseMutex", 0);
    misuse(&expected, || {
        let mutex = Mutex::new();
        wait(mutex.object());
        spawn(|| {
            raw!(KeReleaseMutex(mutex.ptr(), FALSE));
        })
        .join();
    });
}

#[test]
fn free_mutex_released() {
    let status = STATUS_MUTANT_NOT_OWNED as u32;
    let expected = expected!(free_mutex_released, 0x7e, [Some(status.into())], "KeReleaseMutex", 0);
    misuse(&expected, || {
        let mutex = Mutex::new();
        raw!(KeReleaseMutex(mutex.ptr(), FALSE));
    });
}

#[test]
fn negative_semaphore() {
    let status = STATUS_INVALID_PARAMETER as u32;
    let expected = expected!(negative_semaphore, 0x7e, [Some(status.into())], "KeInitializeSemaphore", 0);
    misuse(&expected, || {
        let place = Place::<KSEMAPHORE>::zeroed();
        raw!(KeInitializeSemaphore(place.ptr(), -1, 1));
    });
}

#[test]
fn queue_entry_inserted_twice() {
    let entry = Place::<LIST_ENTRY>::zeroed();
    let expected = expected!(queue_entry_inserted_twice, 0x96, [None, address(entry.ptr())], "KeInsertQueue", 0);
    misuse(&expected, || {
        let queue = Queue::new(1);
        queue.insert(&entry);
        raw!(KeInsertQueue(queue.ptr(), entry.ptr()));
    });
}
