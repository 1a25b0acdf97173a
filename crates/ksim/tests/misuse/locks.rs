//! Spin locks, fast mutexes, levels.

use crate::{address, expected, misuse};
use ksync_sys::*;
use std::ptr::null_mut;
use test_support::*;

#[test]
fn recursive_spin_lock() {
    let lock = Place::<KSPIN_LOCK>::zeroed();
    let expected = expected!(recursive_spin_lock, 0xf, [address(lock.ptr())], "KeAcquireSpinLockRaiseToDpc", 2);
    misuse(&expected, || {
        raw!(lock.ptr().write(0));
        raw!(KeAcquireSpinLockRaiseToDpc(lock.ptr()));
        raw!(KeAcquireSpinLockRaiseToDpc(lock.ptr()));
    });
}

#[test]
fn recursive_queued_spin_lock() {
    let lock = Place::<KSPIN_LOCK>::zeroed();
    let expected = expected!(recursive_queued_spin_lock, 0xf, [address(lock.ptr())], "KeAcquireInStackQueuedSpinLock", 2);
    misuse(&expected, || {
        raw!(lock.ptr().write(0));
        let (one, two) = (QueueHandle::new(), QueueHandle::new());
        raw!(KeAcquireInStackQueuedSpinLock(lock.ptr(), one.ptr()));
        raw!(KeAcquireInStackQueuedSpinLock(lock.ptr(), two.ptr()));
    });
}

#[test]
fn spin_lock_that_is_not_held_released() {
    let lock = Place::<KSPIN_LOCK>::zeroed();
    let expected = expected!(spin_lock_that_is_not_held_released, 0x10, [address(lock.ptr())], "KeReleaseSpinLock", 2);
    misuse(&expected, || {
        raise(DISPATCH_LEVEL);
        raw!(KeReleaseSpinLock(lock.ptr(), PASSIVE_LEVEL));
    });
}

#[test]
fn spin_lock_of_another_processor_released() {
    let lock = Place::<KSPIN_LOCK>::zeroed();
    let outcome = ksim::Machine::new().processors(2).run(|| {
        let held = std::cell::Cell::new(false);
        let thread = spawn(|| {
            raw!(KeSetSystemAffinityThreadEx(2));
            raw!(KeAcquireSpinLockRaiseToDpc(lock.ptr()));
            held.set(true);
            loop {
                raw!(KeStallExecutionProcessor(1));
            }
        });
        raw!(KeSetSystemAffinityThreadEx(1));
        while !held.get() {
            raw!(KeStallExecutionProcessor(1));
        }
        raise(DISPATCH_LEVEL);
        raw!(KeReleaseSpinLockFromDpcLevel(lock.ptr()));
        thread.join();
    });
    let stop = outcome.expect_bug_check(0x10);
    assert_eq!((stop.parameters[0], stop.processor), (lock.ptr() as u64, 0));
}

#[test]
fn wrong_old_level() {
    let lock = Place::<KSPIN_LOCK>::zeroed();
    let expected =
        expected!(wrong_old_level, 0xc4, [Some(0x2_0015), Some(2), Some(0), address(lock.ptr())], "KeReleaseSpinLock", 2);
    misuse(&expected, || {
        raw!(lock.ptr().write(0));
        raw!(KeAcquireSpinLockRaiseToDpc(lock.ptr()));
        raw!(KeReleaseSpinLock(lock.ptr(), DISPATCH_LEVEL));
    });
}

#[test]
fn spin_lock_released_below_dispatch_level() {
    let lock = Place::<KSPIN_LOCK>::zeroed();
    let expected = expected!(
        spin_lock_released_below_dispatch_level,
        0xc4,
        [Some(0x32), Some(1), address(lock.ptr())],
        "KeReleaseSpinLockFromDpcLevel",
        1
    );
    misuse(&expected, || {
        raw!(lock.ptr().write(0));
        raw!(KeAcquireSpinLockRaiseToDpc(lock.ptr()));
        lower(APC_LEVEL);
        raw!(KeReleaseSpinLockFromDpcLevel(lock.ptr()));
    });
}

#[test]
fn at_dpc_level_too_low() {
    let expected = expected!(at_dpc_level_too_low, 0xc4, [Some(0x40), Some(1)], "KeAcquireSpinLockAtDpcLevel", 1);
    misuse(&expected, || {
        raise(APC_LEVEL);
        raw!(KeAcquireSpinLockAtDpcLevel(SpinLock::new().ptr()));
    });
    let expected = expected!(at_dpc_level_too_low, 0xc4, [Some(0x40), Some(0)], "KeAcquireInStackQueuedSpinLockAtDpcLevel", 0);
    misuse(&expected, || {
        raw!(KeAcquireInStackQueuedSpinLockAtDpcLevel(SpinLock::new().ptr(), QueueHandle::new().ptr()));
    });
}

#[test]
fn queued_after_ordinary_use() {
    let expected = expected!(queued_after_ordinary_use, 0xc4, [Some(0x1008)], "KeAcquireInStackQueuedSpinLock", 2);
    misuse(&expected, || {
        let lock = allocate(8).cast();
        let old = raw!(KeAcquireSpinLockRaiseToDpc(lock));
        raw!(KeReleaseSpinLock(lock, old));
        raw!(KeAcquireInStackQueuedSpinLock(lock, QueueHandle::new().ptr()));
    });
}

#[test]
fn ordinary_lock_tried_while_held_as_a_queued_one() {
    let lock = Place::<KSPIN_LOCK>::zeroed();
    let expected = expected!(
        ordinary_lock_tried_while_held_as_a_queued_one,
        0xc4,
        [Some(0x1008), address(lock.ptr())],
        "KeTryToAcquireSpinLockAtDpcLevel",
        2
    );
    misuse(&expected, || {
        raw!(lock.ptr().write(0));
        let handle = QueueHandle::new();
        raw!(KeAcquireInStackQueuedSpinLock(lock.ptr(), handle.ptr()));
        raw!(KeTryToAcquireSpinLockAtDpcLevel(lock.ptr()));
    });
}

#[test]
fn queued_lock_released_as_an_ordinary_one() {
    let lock = Place::<KSPIN_LOCK>::zeroed();
    let expected =
        expected!(queued_lock_released_as_an_ordinary_one, 0xc4, [Some(0x1009), address(lock.ptr())], "KeReleaseSpinLock", 2);
    misuse(&expected, || {
        raw!(lock.ptr().write(0));
        let handle = QueueHandle::new();
        raw!(KeAcquireInStackQueuedSpinLock(lock.ptr(), handle.ptr()));
        raw!(KeReleaseSpinLock(lock.ptr(), PASSIVE_LEVEL));
    });
}

#[test]
fn uninitialised_spin_lock() {
    let lock = Place::<KSPIN_LOCK>::zeroed();
    raw!(lock.ptr().write(0xcdcd));
    let expected =
        expected!(uninitialised_spin_lock, 0xc4, [Some(0x1002), address(lock.ptr())], "KeAcquireSpinLockRaiseToDpc", 2);
    misuse(&expected, || {
        raw!(KeAcquireSpinLockRaiseToDpc(lock.ptr()));
    });
}

#[test]
fn thread_ends_with_a_spin_lock() {
    let lock = Place::<KSPIN_LOCK>::zeroed();
    let expected =
        expected!(thread_ends_with_a_spin_lock, 0xc4, [Some(0x100a), address(lock.ptr())], "PsTerminateSystemThread", 0);
    misuse(&expected, || {
        raw!(lock.ptr().write(0));
        raise(DISPATCH_LEVEL);
        raw!(KeAcquireSpinLockAtDpcLevel(lock.ptr()));
        lower(PASSIVE_LEVEL);
        raw!(PsTerminateSystemThread(0));
    });
}

#[test]
fn recursive_fast_mutex() {
    let mutex = Place::<FAST_MUTEX>::zeroed();
    let expected = expected!(recursive_fast_mutex, 0xc4, [Some(0x1000), address(mutex.ptr())], "ExAcquireFastMutex", 1);
    misuse(&expected, || {
        raw!(ExInitializeFastMutex(mutex.ptr()));
        raw!(ExAcquireFastMutex(mutex.ptr()));
        raw!(ExAcquireFastMutex(mutex.ptr()));
    });
}

#[test]
fn fast_mutex_that_is_not_held_released() {
    let mutex = Place::<FAST_MUTEX>::zeroed();
    let expected =
        expected!(fast_mutex_that_is_not_held_released, 0xc4, [Some(0x1007), address(mutex.ptr())], "ExReleaseFastMutex", 1);
    misuse(&expected, || {
        raw!(ExInitializeFastMutex(mutex.ptr()));
        raise(APC_LEVEL);
        raw!(ExReleaseFastMutex(mutex.ptr()));
    });
}

#[test]
fn fast_mutex_of_another_thread_released() {
    let mutex = Place::<FAST_MUTEX>::zeroed();
    let expected =
        expected!(fast_mutex_of_another_thread_released, 0xc4, [Some(0x1004), address(mutex.ptr())], "ExReleaseFastMutex", 1);
    misuse(&expected, || {
        raw!(ExInitializeFastMutex(mutex.ptr()));
        let thread = spawn(|| {
            raise(APC_LEVEL);
            sleep(MS);
            raw!(ExReleaseFastMutex(mutex.ptr()));
        });
        raw!(ExAcquireFastMutex(mutex.ptr()));
        thread.join();
    });
}

#[test]
fn uninitialised_fast_mutex() {
    let mutex = Place::<FAST_MUTEX>::zeroed();
    let expected = expected!(uninitialised_fast_mutex, 0xc4, [Some(0x1002)], "ExAcquireFastMutex", 1);
    misuse(&expected, || raw!(ExAcquireFastMutex(mutex.ptr())));
}

#[test]
fn thread_ends_with_a_fast_mutex() {
    let mutex = Place::<FAST_MUTEX>::zeroed();
    let expected =
        expected!(thread_ends_with_a_fast_mutex, 0xc4, [Some(0x100a), address(mutex.ptr())], "PsTerminateSystemThread", 0);
    misuse(&expected, || {
        raw!(ExInitializeFastMutex(mutex.ptr()));
        raw!(ExAcquireFastMutexUnsafe(mutex.ptr()));
        raw!(PsTerminateSystemThread(0));
    });
}

#[test]
fn raise_to_a_lower_level() {
    let expected = expected!(raise_to_a_lower_level, 0xc4, [Some(0x30), Some(2), Some(0)], "KfRaiseIrql", 2);
    misuse(&expected, || {
        raise(DISPATCH_LEVEL);
        raw!(KfRaiseIrql(PASSIVE_LEVEL));
    });
}

#[test]
fn lower_to_a_higher_level() {
    let expected = expected!(lower_to_a_higher_level, 0xc4, [Some(0x31), Some(0), Some(1)], "KeLowerIrql", 0);
    misuse(&expected, || raw!(KeLowerIrql(APC_LEVEL)));
}

#[test]
fn levels_lowered_out_of_order() {
    let expected = expected!(levels_lowered_out_of_order, 0xc4, [Some(0x31), Some(3), Some(0)], "KeLowerIrql", 3);
    misuse(&expected, || {
        raw!(KfRaiseIrql(DISPATCH_LEVEL));
        raw!(KfRaiseIrql(3));
        raw!(KeLowerIrql(PASSIVE_LEVEL));
    });
}

#[test]
fn dispatcher_routines_above_dispatch_level() {
    let expected =
        |routine| expected!(dispatcher_routines_above_dispatch_level, 0xc4, [Some(0x2_0011), Some(5), Some(2)], routine, 5);
    misuse(&expected("KeResetEvent"), || {
        raise(5);
        raw!(KeResetEvent(Event::notification().ptr()));
    });
    misuse(&expected("KeReleaseMutex"), || {
        raise(5);
        raw!(KeReleaseMutex(Mutex::new().ptr(), FALSE));
    });
    misuse(&expected("KeCancelTimer"), || {
        let timer = Timer::notification();
        raise(5);
        raw!(KeCancelTimer(timer.ptr()));
    });
    misuse(&expected("KeAcquireSpinLockRaiseToDpc"), || {
        raise(5);
        raw!(KeAcquireSpinLockRaiseToDpc(SpinLock::new().ptr()));
    });
}

/// What is no dispatcher object has another rule, or none.
#[test]
fn io_routines_above_dispatch_level() {
    let expected = |routine| expected!(io_routines_above_dispatch_level, 0xc4, [Some(0x2_0022), Some(5), Some(2)], routine, 5);
    misuse(&expected("IoFreeMdl"), || {
        raise(5);
        raw!(IoFreeMdl(null_mut()));
    });
    misuse(&expected("IoAllocateIrp"), || {
        raise(5);
        raw!(IoAllocateIrp(1, FALSE));
    });
    misuse(&expected("IoAllocateWorkItem"), || {
        raise(5);
        raw!(IoAllocateWorkItem(null_mut()));
    });
    misuse(&expected("IoAcquireCancelSpinLock"), || {
        raise(5);
        let mut old = 0;
        raw!(IoAcquireCancelSpinLock(&raw mut old));
    });
    let expected = expected!(io_routines_above_dispatch_level, 0xa, [None, Some(5)], "ExQueueWorkItem", 5);
    misuse(&expected, || {
        raise(5);
        raw!(ExQueueWorkItem(null_mut(), DelayedWorkQueue));
    });
}

#[test]
fn queue_handle_out_of_turn() {
    let routine = "KeAcquireInStackQueuedSpinLockAtDpcLevel";
    misuse(&expected!(queue_handle_out_of_turn, 0xc4, [Some(0x4_0006)], routine, 2), || {
        let (first, second, handle) = (SpinLock::new(), SpinLock::new(), QueueHandle::new());
        handle.acquire(&first);
        raw!(KeAcquireInStackQueuedSpinLockAtDpcLevel(second.ptr(), handle.ptr()));
    });
    let expected = expected!(queue_handle_out_of_turn, 0xc4, [Some(0x4_0006)], "KeReleaseInStackQueuedSpinLock", 2);
    misuse(&expected, || {
        let (lock, handle) = (SpinLock::new(), QueueHandle::new());
        raise(DISPATCH_LEVEL);
        raw!(KeAcquireInStackQueuedSpinLock(lock.ptr(), handle.ptr()));
        raw!(KeReleaseInStackQueuedSpinLock(handle.ptr()));
        raw!(KeReleaseInStackQueuedSpinLock(handle.ptr()));
    });
}
