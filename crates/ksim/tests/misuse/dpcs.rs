//! DPCs and timers.

use crate::{Expected, address, expected, misuse};
use ksync_sys::*;
use std::ptr::null_mut;
use test_support::*;

fn in_dpc(code: u32, parameters: [Option<u64>; 4], irql: u8) -> Expected {
    Expected { test: "", code, parameters, routine: None, irql, in_dpc: true }
}

#[test]
fn dpc_returns_with_a_spin_lock() {
    let lock = Place::<KSPIN_LOCK>::zeroed();
    misuse(&in_dpc(0xc4, [Some(0x4_000a), address(lock.ptr()), None, None], 2), || {
        raw!(lock.ptr().write(0));
        let dpc = Dpc::new(|| raw!(KeAcquireSpinLockAtDpcLevel(lock.ptr())));
        dpc.queue();
        flush_dpcs();
    });
}

#[test]
fn dpc_returns_with_a_queued_spin_lock() {
    misuse(&in_dpc(0xc4, [Some(0x4_0007), None, None, None], 2), || {
        let (lock, handle) = (SpinLock::new(), QueueHandle::new());
        let dpc = Dpc::new(|| raw!(KeAcquireInStackQueuedSpinLockAtDpcLevel(lock.ptr(), handle.ptr())));
        dpc.queue();
        flush_dpcs();
    });
}

#[test]
fn dpc_returns_at_another_level() {
    for level in [5, HIGH_LEVEL] {
        let changed = u64::from(level) << 16 | 2 << 8;
        misuse(&in_dpc(0xc8, [Some(changed), None, None, None], level), || {
            let dpc = Dpc::new(|| {
                raise(level);
            });
            dpc.queue();
            flush_dpcs();
        });
    }
}

#[test]
fn dpc_lowers_its_level() {
    misuse(&in_dpc(0xc8, [Some(2 << 8), None, None, None], 0), || {
        let dpc = Dpc::new(|| lower(PASSIVE_LEVEL));
        dpc.queue();
        flush_dpcs();
    });
}

#[test]
fn dpc_changes_the_disable_count() {
    let outcome = ksim::Machine::new().run(|| {
        let dpc = Dpc::new(|| {
            lower(APC_LEVEL);
            raw!(KeEnterCriticalRegion());
            raise(DISPATCH_LEVEL);
        });
        dpc.queue();
    });
    let stop = outcome.expect_bug_check(0xc7);
    assert_eq!((stop.parameters[0], stop.parameters[2], stop.parameters[3]), (4, 0xffff, 0xfffe));
}

#[test]
fn timers_dpc_changes_the_disable_count() {
    let outcome = ksim::Machine::new().run(|| {
        let dpc = Dpc::new(|| {
            lower(APC_LEVEL);
            raw!(KeEnterCriticalRegion());
            raise(DISPATCH_LEVEL);
        });
        let timer = Timer::notification();
        timer.set_with(0, 0, dpc.ptr());
    });
    let stop = outcome.expect_bug_check(0xc7);
    assert_eq!((stop.parameters[0], stop.parameters[2], stop.parameters[3]), (5, 0xffff, 0xfffe));
}

#[test]
fn dpc_for_a_processor_that_does_not_exist() {
    let expected = expected!(dpc_for_a_processor_that_does_not_exist, 0xc7, [Some(3), None, Some(60)], "KeInsertQueueDpc", 0);
    misuse(&expected, || {
        let dpc = Dpc::new(|| {}).on(60);
        raw!(KeInsertQueueDpc(dpc.ptr(), null_mut(), null_mut()));
    });
}

#[test]
fn queued_dpc_initialised_again() {
    let expected = expected!(queued_dpc_initialised_again, 0xc7, [Some(1)], "KeInitializeDpc", 2);
    misuse(&expected, || {
        let dpc = Dpc::new(|| {});
        raise(DISPATCH_LEVEL);
        dpc.queue();
        raw!(KeInitializeDpc(dpc.ptr(), None, null_mut()));
    });
}

#[test]
fn uninitialised_dpc() {
    let place = Place::<KDPC>::zeroed();
    let expected = expected!(uninitialised_dpc, 0xc4, [Some(0x1002), address(place.ptr())], "KeInsertQueueDpc", 0);
    misuse(&expected, || {
        raw!(KeInsertQueueDpc(place.ptr(), null_mut(), null_mut()));
    });
}

#[test]
fn timer_with_an_uninitialised_dpc() {
    let place = Place::<KDPC>::zeroed();
    let expected = expected!(timer_with_an_uninitialised_dpc, 0xc4, [Some(0x1002), address(place.ptr())], "KeSetTimer", 0);
    misuse(&expected, || {
        let timer = Timer::notification();
        raw!(KeSetTimer(timer.ptr(), -1, place.ptr()));
    });
}

#[test]
fn flush_at_dispatch_level() {
    let expected = expected!(flush_at_dispatch_level, 0xa, [None, Some(2)], "KeFlushQueuedDpcs", 2);
    misuse(&expected, || {
        raise(DISPATCH_LEVEL);
        raw!(KeFlushQueuedDpcs());
    });
}

#[test]
fn signal_done_below_dispatch_level() {
    let expected = expected!(signal_done_below_dispatch_level, 0x9, [None, Some(0)], "KeSignalCallDpcDone", 0);
    misuse(&expected, || raw!(KeSignalCallDpcDone(null_mut())));
}

#[test]
fn mutex_released_in_a_dpc() {
    let status = STATUS_MUTANT_NOT_OWNED as u32;
    let expected =
        Expected { in_dpc: true, ..expected!(mutex_released_in_a_dpc, 0x1e, [Some(status.into())], "KeReleaseMutex", 2) };
    misuse(&expected, || {
        let mutex = Mutex::new();
        wait(mutex.object());
        let dpc = Dpc::new(|| {
            raw!(KeReleaseMutex(mutex.ptr(), FALSE));
        });
        dpc.queue();
        flush_dpcs();
    });
}
