//! In-stack queued spin locks: exclusion, order, handles that outlive their guards, levels.

use core::pin::pin;
use ksim::Machine;
use ksync::NtError;
use ksync::error::Result;
use ksync::irql::{self, Irql};
use ksync::mutex::{InStackQueueLocked, LockedGuard, LockedQueueHandle, SpinLocked};
use test_support::threads::crowd;

fn on_machine(code: impl FnOnce() -> Result) {
    Machine::new().run(|| code().unwrap()).expect_clean();
}

#[test]
fn four_threads_count_to_400() {
    for seed in 0..50 {
        Machine::new()
            .processors(4)
            .seed(seed)
            .run(|| {
                let counter = InStackQueueLocked::new(0u32).unwrap();
                crowd(4, |thread| {
                    for i in 0..100 {
                        if (i + thread) % 3 == 0 {
                            counter.with(|count| *count += 1).unwrap();
                            continue;
                        }
                        let mut handle = pin!(LockedQueueHandle::new());
                        let mut guard = counter.lock(&mut handle).unwrap();
                        let seen = *guard;
                        test_support::threads::scheduling_point();
                        *guard = seen + 1;
                    }
                });
                assert_eq!(format!("{counter:?}"), "400");
                assert_eq!(counter.into_inner(), 400);
            })
            .expect_clean();
    }
}

#[test]
fn a_handle_serves_again_and_levels_come_back() {
    on_machine(|| {
        let lock = InStackQueueLocked::const_new(1);
        let mut handle = pin!(LockedQueueHandle::new());
        for level in [Irql::PASSIVE, Irql::APC, Irql::DISPATCH] {
            irql::with_raised(level, || {
                let mut guard = lock.lock(&mut handle).unwrap();
                assert_eq!(irql::current(), Irql::DISPATCH);
                *guard += 1;
                drop(guard);
                assert_eq!(irql::current(), level);
                drop(lock.lock_for_dpc(&mut handle).unwrap());
                assert_eq!(irql::current(), level);
                let expected = if level == Irql::DISPATCH { Ok(()) } else { Err(NtError::IRQL_TOO_LOW) };
                assert_eq!(lock.lock_at_dpc_level(&mut handle).map(drop), expected);
                assert_eq!(irql::current(), level);
            })?;
        }
        assert_eq!(*lock.lock(&mut handle)?, 4);
        Ok(())
    });
}

#[test]
fn misuse_is_an_error() {
    on_machine(|| {
        let (lock, other) = (InStackQueueLocked::const_new(1), InStackQueueLocked::const_new(2));
        let mut handle = pin!(LockedQueueHandle::new());
        let mut second = pin!(LockedQueueHandle::new());
        let guard = lock.lock(&mut handle)?;
        assert_eq!(lock.lock(&mut second).map(drop), Err(NtError::WOULD_DEADLOCK));
        assert_eq!(lock.with(|_| ()), Err(NtError::WOULD_DEADLOCK));
        assert_eq!(format!("{lock:?}"), "<locked>");
        assert_eq!(*other.lock(&mut second)?, 2);
        drop(guard);
        // SAFETY: the level is above the present one, and taken back below.
        let old = unsafe { ksync::sys::KfRaiseIrql(3) };
        let results = [lock.lock(&mut handle).map(drop), lock.with(|_| ()), lock.lock_for_dpc(&mut second).map(drop)];
        // SAFETY: as above.
        unsafe { ksync::sys::KeLowerIrql(old) };
        assert_eq!(results, [Err(NtError::IRQL_TOO_HIGH); 3]);
        Ok(())
    });
}

/// Defect ksync 12: the guard is forgotten, and the handle, which the kernel links, goes. It releases the lock first.
#[test]
fn a_handle_whose_guard_was_forgotten_releases() {
    on_machine(|| {
        let lock = InStackQueueLocked::const_new(1);
        {
            let mut handle = pin!(LockedQueueHandle::new());
            core::mem::forget(lock.lock(&mut handle)?);
            assert_eq!(lock.lock(&mut handle).map(drop), Err(NtError::INVALID_DEVICE_STATE));
            assert_eq!(irql::current(), Irql::DISPATCH);
        }
        assert_eq!(irql::current(), Irql::PASSIVE);
        assert!(!lock.is_locked());
        assert_eq!(lock.with(|value| *value)?, 1);
        Ok(())
    });
}

#[test]
fn guards_go_in_any_order_with_other_spin_locks_too() {
    on_machine(|| {
        let (queued, plain) = (InStackQueueLocked::const_new(1), SpinLocked::const_new(2));
        for first in [true, false] {
            let mut handle = pin!(LockedQueueHandle::new());
            let (a, b) = (queued.lock(&mut handle)?, plain.lock()?);
            if first {
                drop(a);
                drop(b);
            } else {
                drop(b);
                drop(a);
            }
            assert_eq!(irql::current(), Irql::PASSIVE);
            let mut handle = pin!(LockedQueueHandle::new());
            let b = plain.lock()?;
            let a = queued.lock(&mut handle)?;
            if first {
                drop(a);
                drop(b);
            } else {
                drop(b);
                drop(a);
            }
            assert_eq!(irql::current(), Irql::PASSIVE);
        }
        Ok(())
    });
}

#[test]
fn a_panic_under_with_releases() {
    on_machine(|| {
        let lock = InStackQueueLocked::const_new(1);
        let result =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lock.with(|_| std::panic::resume_unwind(Box::new(())))));
        assert!(result.is_err());
        assert!(!lock.is_locked());
        assert_eq!(irql::current(), Irql::PASSIVE);
        Ok(())
    });
}

#[test]
fn a_part_can_be_guarded() {
    on_machine(|| {
        let lock = InStackQueueLocked::const_new((1, 2));
        {
            let mut handle = pin!(LockedQueueHandle::new());
            let mut part = LockedGuard::map(lock.lock(&mut handle)?, |pair| &mut pair.1);
            *part = 5;
        }
        assert_eq!(lock.into_inner(), (1, 5));
        Ok(())
    });
}

#[test]
#[expect(deprecated, reason = "the seed's misspelt name is kept")]
fn the_seeds_spelling_works() {
    on_machine(|| {
        let lock = InStackQueueLocked::new(0u32)?;
        let mut handle = pin!(ksync::mutex::LockedQuueHandle::new());
        if let Ok(mut guard) = lock.lock(&mut handle) {
            *guard += 1;
        }
        Ok(())
    });
}
