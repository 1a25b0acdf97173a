//! Locks between threads and DPCs: those that spin exclude both, those that wait refuse a DPC.

use core::pin::pin;
use ksim::Machine;
use ksync::NtError;
use ksync::dpc::run_once_per_core;
use ksync::irql::{Dispatch, Irql};
use ksync::mutex::{
    Barrier, FastLocked, GuardLocked, InStackQueueLocked, KMutex, LockedQueueHandle, PushLocked, ResourceLocked, Rundown,
    SpinLocked, SpinRwLocked,
};
use test_support::threads::{crowd, scheduling_point};

const SEEDS: u64 = 50;

/// Threads count on, and now and then one of them has every processor count in a DPC.
fn count(seed: u64, increment: impl Fn(bool) + Copy + Sync) {
    Machine::new()
        .processors(3)
        .seed(seed)
        .run(|| {
            crowd(3, |thread| {
                for i in 0..12 {
                    increment(false);
                    if i % 4 == thread {
                        run_once_per_core(|| increment(true)).unwrap();
                    }
                }
            });
        })
        .expect_clean();
}

/// 3 threads by 12, and 3 processors for each of 3 times in 3 threads.
const TOTAL: u32 = 36 + 27;

#[test]
fn spin_locks() {
    for seed in 0..SEEDS {
        let lock = SpinLocked::const_new(0);
        count(seed, |in_dpc| {
            let mut guard = if in_dpc { lock.lock_at_dpc_level().unwrap() } else { lock.lock().unwrap() };
            let seen = *guard;
            scheduling_point();
            *guard = seen + 1;
        });
        assert_eq!(lock.into_inner(), TOTAL);
    }
}

#[test]
fn spin_locks_by_token() {
    for seed in 0..SEEDS {
        let lock = SpinLocked::const_new(0);
        count(seed, |in_dpc| {
            if in_dpc {
                let mut dispatch = Irql::<Dispatch>::claim().unwrap();
                return lock.with_at(&mut dispatch, |count, _| *count += 1);
            }
            let mut guard = lock.lock().unwrap();
            let seen = *guard;
            scheduling_point();
            *guard = seen + 1;
        });
        assert_eq!(lock.into_inner(), TOTAL);
    }
}

#[test]
fn reader_writer_spin_locks() {
    for seed in 0..SEEDS {
        let lock = SpinRwLocked::const_new(0);
        count(seed, |_| {
            drop(lock.lock_shared().unwrap());
            let mut guard = lock.lock().unwrap();
            let seen = *guard;
            scheduling_point();
            *guard = seen + 1;
        });
        assert_eq!(lock.into_inner(), TOTAL);
    }
}

#[test]
fn queued_spin_locks() {
    for seed in 0..SEEDS {
        let lock = InStackQueueLocked::const_new(0);
        count(seed, |in_dpc| {
            let mut handle = pin!(LockedQueueHandle::new());
            let mut guard = if in_dpc { lock.lock_at_dpc_level(&mut handle) } else { lock.lock(&mut handle) }.unwrap();
            let seen = *guard;
            scheduling_point();
            *guard = seen + 1;
        });
        assert_eq!(lock.into_inner(), TOTAL);
    }
}

#[test]
fn locks_that_wait_refuse_a_dpc() {
    Machine::new()
        .processors(2)
        .run(|| {
            let (fast, guarded, mutex) = (FastLocked::new(0).unwrap(), GuardLocked::new(0).unwrap(), KMutex::new(0).unwrap());
            let (resource, push) = (ResourceLocked::new(0).unwrap(), PushLocked::const_new(0));
            let (barrier, rundown) = (Barrier::new(1), Rundown::new());
            run_once_per_core(|| {
                let results = [
                    fast.lock().map(drop),
                    fast.try_lock().map(drop),
                    guarded.lock().map(drop),
                    guarded.try_lock().map(drop),
                    mutex.lock().map(drop),
                    mutex.try_lock().map(drop),
                    resource.lock().map(drop),
                    resource.try_lock().map(drop),
                    resource.lock_shared().map(drop),
                    push.lock().map(drop),
                    push.try_lock().map(drop),
                    push.lock_shared().map(drop),
                    barrier.wait().map(drop),
                    rundown.wait(),
                ];
                assert!(results.iter().all(|&result| result == Err(NtError::IRQL_TOO_HIGH)), "{results:?}");
                assert_eq!(format!("{fast:?} {mutex:?} {resource:?}"), "<locked> <locked> <locked>");
                drop(rundown.acquire().unwrap());
            })
            .unwrap();
        })
        .expect_clean();
}
