//! Defects of the peers that no other test covers: the numbers are those of `docs/defects.md`.

use core::cell::Cell;
use core::time::Duration;
use std::rc::Rc;
use std::sync::Arc;

use ksim::Machine;
use ksync::error::Result;
use ksync::irql::{self, Irql};
use ksync::mutex::*;
use ksync::thread;
use ksync::{NtError, NtStatus};
use static_assertions::{assert_impl_all, assert_not_impl_any};

/// What is to be aligned to 128 bytes, which pool does not do by itself.
#[repr(align(128))]
struct Aligned(u8);

fn on_machine(code: impl FnOnce() -> Result) {
    Machine::new().processors(2).run(|| code().unwrap()).expect_clean();
}

/// An error made of 0 panicked, and codes that inform became errors.
#[test]
fn ksync_57_success_and_information_are_no_errors() {
    // STATUS_SUCCESS, STATUS_USER_APC, STATUS_ALERTED, STATUS_TIMEOUT, STATUS_PENDING, and the first informational code.
    for status in [0, 0xC0, 0x101, 0x102, 0x103, 0x4000_0000] {
        assert_eq!(NtError::from_status(status), None);
        assert!(NtStatus(status).is_success());
        assert_eq!(NtStatus(status).ok(), Ok(NtStatus(status)));
    }
    for status in [0x8000_0005_u32, 0xC000_0001, u32::MAX] {
        let status = status.cast_signed();
        let error = NtError::from_status(status).unwrap();
        assert_eq!(error.status(), NtStatus(status));
        assert_eq!(NtStatus(status).ok(), Err(error));
    }
}

/// A spin lock could only be tried at `DISPATCH_LEVEL`; and no level was too high.
#[test]
fn ksync_44_a_spin_lock_can_be_tried_at_each_level_up_to_dispatch() {
    on_machine(|| {
        let lock = SpinLocked::const_new(1);
        for level in [Irql::PASSIVE, Irql::APC, Irql::DISPATCH] {
            irql::with_raised(level, || {
                {
                    let guard = lock.try_lock();
                    assert!(guard.is_ok());
                    assert_eq!(irql::current(), Irql::DISPATCH);
                    assert_eq!(lock.try_lock().map(drop), Err(NtError::LOCK_NOT_GRANTED));
                }
                assert_eq!(irql::current(), level);
            })?;
        }
        // SAFETY: the level is above the present one, and taken back below.
        let old = unsafe { ksync::sys::KfRaiseIrql(3) };
        let results = [lock.lock().map(drop), lock.try_lock().map(drop)];
        // SAFETY: as above.
        unsafe { ksync::sys::KeLowerIrql(old) };
        assert_eq!(results, [Err(NtError::IRQL_TOO_HIGH); 2]);
        Ok(())
    });
}

/// The data of a lock lay wherever the pool's alignment put it.
#[test]
fn ksync_46_wdk_mutex_10_data_is_aligned() {
    fn check<L: Exclusive>() -> Result {
        for _ in 0..8 {
            let lock = Locked::<_, L>::new(Aligned(1))?;
            {
                let guard = lock.lock()?;
                assert_eq!((&raw const *guard).addr() % align_of::<Aligned>(), 0);
                assert_eq!(guard.0, 1);
            }
        }
        Ok(())
    }
    on_machine(|| {
        check::<Fast>()?;
        check::<Guarded>()?;
        check::<Resource>()?;
        check::<Mutex>()?;
        check::<Spin>()?;
        check::<Push>()?;
        let lock = InStackQueueLocked::new(Aligned(1))?;
        lock.with(|value| assert_eq!((&raw const *value).addr() % 128, 0))
    });
}

/// A lock's `default` dropped data that there was not. There is none: making a lock can fail.
#[test]
fn ksync_8_values_that_zero_is_not_valid_for() {
    assert_not_impl_any!(FastLocked<Arc<u32>>: Default);
    assert_not_impl_any!(SpinLocked<Arc<u32>>: Default);
    assert_not_impl_any!(ResourceLocked<Arc<u32>>: Default);
    assert_not_impl_any!(InStackQueueLocked<Arc<u32>>: Default);
    on_machine(|| {
        let value = Arc::new(7);
        assert_eq!(**FastLocked::new(value.clone())?.lock()?, 7);
        assert_eq!(**SpinLocked::new(value.clone())?.lock()?, 7);
        assert_eq!(**ResourceLocked::new(value.clone())?.lock()?, 7);
        assert_eq!(Arc::strong_count(&value), 1);
        Ok(())
    });
}

/// `new` was said to be for any level, and was not.
#[test]
fn wdk_mutex_11_the_level_of_new_is_checked() {
    on_machine(|| {
        irql::with_raised(Irql::DISPATCH, || {
            assert!(KMutex::new(1).is_ok());
            assert!(FastLocked::new(1).is_ok());
        })?;
        // SAFETY: the level is above the present one, and taken back below.
        let old = unsafe { ksync::sys::KfRaiseIrql(3) };
        let results = [KMutex::new(1).map(drop), FastLocked::new(1).map(drop)];
        // SAFETY: as above.
        unsafe { ksync::sys::KeLowerIrql(old) };
        assert_eq!(results, [Err(NtError::IRQL_TOO_HIGH); 2]);
        Ok(())
    });
}

/// A fast mutex that its owner asked for hung the thread.
#[test]
fn wdk_mutex_16_asking_again_is_an_error() {
    on_machine(|| {
        let (fast, guarded) = (FastLocked::new(1)?, GuardLocked::new(1)?);
        let (_fast, _guarded) = (fast.lock()?, guarded.lock()?);
        assert_eq!(fast.lock().map(drop), Err(NtError::WOULD_DEADLOCK));
        assert_eq!(guarded.lock().map(drop), Err(NtError::WOULD_DEADLOCK));
        Ok(())
    });
}

/// Guards could be unlocked and lived on, so that data was reached without the lock and released twice. Here the release is the end of the guard.
#[test]
fn wdk_mutex_2_a_released_guard_is_gone() {
    on_machine(|| {
        let (mutex, fast) = (KMutex::new(0)?, FastLocked::new(0)?);
        drop(mutex.lock()?);
        drop(fast.lock()?);
        assert!(!mutex.is_locked() && !fast.is_locked());
        assert_eq!((*mutex.lock()?, *fast.lock()?), (0, 0));
        Ok(())
    });
}

/// `Send` and `Sync` of a lock followed from nothing at all.
#[test]
fn wdk_mutex_3_4_bounds_are_those_of_the_data() {
    assert_impl_all!(KMutex<Cell<u32>>: Send, Sync);
    assert_not_impl_any!(KMutex<Rc<u32>>: Send, Sync);
    assert_not_impl_any!(FastLocked<Rc<u32>>: Send, Sync);
    assert_not_impl_any!(KMutexGuard<'static, u32>: Send);
    assert_not_impl_any!(FastLockedGuard<'static, u32>: Send);
    assert_not_impl_any!(KMutexGuard<'static, Cell<u32>>: Sync);
}

/// A shared guard of the resource acquired nothing, and its drop was a bug check.
#[test]
fn ksync_6_a_shared_guard_holds_the_resource() {
    for seed in 0..20 {
        Machine::new()
            .processors(2)
            .seed(seed)
            .run(|| {
                let lock = ResourceLocked::new(1).unwrap();
                let shared = lock.lock_shared().unwrap();
                thread::scope(|scope| {
                    let other = scope.spawn(|| (lock.try_lock().map(drop), lock.try_lock_shared().map(|guard| *guard))).unwrap();
                    assert_eq!(other.join(), Ok((Err(NtError::LOCK_NOT_GRANTED), Ok(1))));
                });
                drop(shared);
                assert!(!lock.is_locked());
            })
            .expect_clean();
    }
}

/// What a lock prints was read without the lock.
#[test]
fn ksync_7_a_lock_shows_its_data_under_the_lock_only() {
    on_machine(|| {
        let lock = GuardLocked::new(vec![1])?;
        assert_eq!(format!("{lock:?}"), "[1]");
        let guard = lock.lock()?;
        thread::scope(|scope| {
            let other = scope.spawn(|| format!("{lock:?}"))?;
            assert_eq!(other.join()?, "<locked>");
            Result::<()>::Ok(())
        })?;
        drop(guard);
        Ok(())
    });
}

/// Releasing a guard that was acquired at `PASSIVE_LEVEL` left the thread at `DISPATCH_LEVEL`, where it could not sleep any more.
#[test]
fn ksync_4_5_a_thread_can_sleep_after_a_spin_lock() {
    on_machine(|| {
        let (spin, queued) = (SpinLocked::const_new(1), InStackQueueLocked::const_new(1));
        drop(spin.lock()?);
        assert_eq!(irql::current(), Irql::PASSIVE);
        {
            let mut handle = core::pin::pin!(LockedQueueHandle::new());
            drop(queued.lock(&mut handle)?);
            assert_eq!(irql::current(), Irql::PASSIVE);
        }
        thread::this_thread::sleep(Duration::from_millis(1))
    });
}
