//! Kernel mutexes: time limits, alerts, recursion, taking the data out.

use core::cell::Cell;
use core::time::Duration;
use ksim::Machine;
use ksync::NtError;
use ksync::error::Result;
use ksync::irql::{self, Irql};
use ksync::mutex::{KMutex, KMutexGuard, PinnedKMutex, ReentrantKMutex};
use ksync::pool::KBox;
use ksync::region;
use ksync::time::{InterruptTime, Timeout};
use test_support::threads::{crowd, sleep, threads};

fn on_machine(code: impl FnOnce() -> Result) {
    Machine::new().processors(2).run(|| code().unwrap()).expect_clean();
}

#[test]
fn the_example_of_seed_002() {
    on_machine(|| {
        let mtx = KMutex::new(0u32).unwrap();
        let lock = mtx.lock().unwrap();
        // If T implements display, you do not need to dereference the lock to print.
        assert_eq!(format!("The value is: {}", lock), "The value is: 0");
        assert!(!KMutexGuard::was_abandoned(&lock));
        Ok(())
    });
}

/// Defect wdk-mutex 1: one thread must not have two guards.
#[test]
fn recursion_is_an_error_in_every_form() {
    on_machine(|| {
        let lock = KMutex::new(0)?;
        let guard = lock.lock()?;
        assert_eq!(lock.lock().map(drop), Err(NtError::WOULD_DEADLOCK));
        assert_eq!(lock.lock_for(Duration::from_secs(1)).map(drop), Err(NtError::WOULD_DEADLOCK));
        assert_eq!(lock.lock_alertable(Timeout::NEVER).map(drop), Err(NtError::WOULD_DEADLOCK));
        assert_eq!(lock.try_lock().map(drop), Err(NtError::LOCK_NOT_GRANTED));
        drop(guard);
        drop(lock.lock()?);
        Ok(())
    });
}

#[test]
fn limits_in_time_are_kept() {
    on_machine(|| {
        let lock = KMutex::new(0)?;
        threads::<'_>([
            Box::new(|| {
                let guard = lock.lock().unwrap();
                sleep(100);
                drop(guard);
            }) as Box<dyn FnOnce()>,
            Box::new(|| {
                sleep(10);
                let before = InterruptTime::now();
                assert_eq!(lock.lock_for(Duration::from_millis(20)).map(drop), Err(NtError::TIMEOUT));
                assert!(before.elapsed() >= Duration::from_millis(20));
                assert_eq!(lock.try_lock().map(drop), Err(NtError::LOCK_NOT_GRANTED));
                drop(lock.lock_for(Duration::from_secs(10)).unwrap());
                assert!(before.elapsed() >= Duration::from_millis(85));
            }),
        ]);
        Ok(())
    });
}

#[test]
fn an_alert_breaks_an_alertable_wait_off() {
    on_machine(|| {
        let lock = KMutex::new(0)?;
        let guard = lock.lock()?;
        threads::<'_>([Box::new(|| {
            // SAFETY: the thread is the current one.
            let thread = unsafe { ksync::sys::KeGetCurrentThread() };
            // SAFETY: as above.
            unsafe { ksync::sys::KeAlertThread(thread, ksync::sys::KernelMode) };
            assert_eq!(lock.lock_for(Duration::from_millis(1)).map(drop), Err(NtError::TIMEOUT));
            assert_eq!(lock.lock_alertable(Timeout::NEVER).map(drop), Err(NtError::CANCELLED));
        }) as Box<dyn FnOnce()>]);
        drop(guard);
        Ok(())
    });
}

/// Rule 10: normal kernel APCs are held back while a mutex is held, and only then.
#[test]
fn rule_10_apcs_are_held_back_while_it_is_held() {
    on_machine(|| {
        let lock = KMutex::new(0)?;
        // SAFETY: a system thread starts in the region (rule 26), at PASSIVE_LEVEL.
        unsafe { ksync::sys::KeLeaveCriticalRegion() };
        assert!(!region::apcs_disabled());
        let guard = lock.lock()?;
        assert!(region::apcs_disabled());
        assert!(!region::all_apcs_disabled());
        drop(guard);
        assert!(!region::apcs_disabled());
        // SAFETY: the thread is at PASSIVE_LEVEL.
        unsafe { ksync::sys::KeEnterCriticalRegion() };
        Ok(())
    });
}

#[test]
fn data_is_taken_out_without_anything_unsafe() {
    on_machine(|| {
        let value = std::rc::Rc::new(5);
        assert_eq!(*KMutex::new(value.clone())?.to_owned(), 5);
        let boxed: KBox<_> = KMutex::new(value.clone())?.to_owned_box().map_err(NtError::from)?;
        assert_eq!(std::rc::Rc::strong_count(&value), 2);
        drop(boxed);
        assert_eq!(std::rc::Rc::strong_count(&value), 1);
        Ok(())
    });
}

/// Defect wdk-mutex 13: when there is no memory for the box, the data is not lost.
#[test]
fn a_box_that_cannot_be_had_gives_the_mutex_back() {
    for n in 0..4 {
        Machine::new()
            .fail_allocation(n)
            .run(|| {
                let Ok(mutex) = KMutex::new(String::from("kept")) else { return };
                match mutex.to_owned_box() {
                    Ok(boxed) => assert_eq!(*boxed, "kept"),
                    Err(failure) => {
                        assert_eq!(failure.error, NtError::INSUFFICIENT_RESOURCES);
                        assert_eq!(*failure.value.lock().unwrap(), "kept");
                    }
                }
            })
            .expect_clean();
    }
}

/// A guard that is dropped where KMUTEX cannot be released leaves it held, and says so; nothing is raised.
#[test]
fn a_guard_dropped_at_dispatch_level_stays_held() {
    let outcome = Machine::new().run(|| {
        let lock = KMutex::new(0).unwrap();
        let guard = lock.lock().unwrap();
        irql::with_raised(Irql::DISPATCH, || drop(guard)).unwrap();
        assert!(lock.is_locked());
        core::mem::forget(lock);
    });
    assert!(outcome.debug_output().iter().any(|line| line.contains("could not be released")), "{outcome:?}");
    // The thread ends with the mutex held, which NT does not take (rule 11).
    outcome.expect_bug_check(0x4000_008A);
}

/// In place, a mutex whose guard was forgotten on this very thread is released when it is dropped: the thread's list must not point to it.
#[test]
fn an_owned_mutex_in_place_is_disowned() {
    let outcome = Machine::new().run(|| {
        let lock = KBox::pin_init(PinnedKMutex::pin_init(0)).unwrap();
        core::mem::forget(lock.lock().unwrap());
        drop(lock);
    });
    assert!(outcome.debug_output().iter().any(|line| line.contains("was dropped while it was held")), "{outcome:?}");
    outcome.expect_clean();
}

/// And if another thread owns it, the system is stopped rather than its lists corrupted.
#[test]
fn a_mutex_in_place_that_another_thread_owns_stops_the_system() {
    let outcome = Machine::new().run(|| {
        let lock = KBox::pin_init(PinnedKMutex::pin_init(0)).unwrap();
        let address = &raw const *lock as usize;
        let event = ksync::event::Event::new(ksync::event::EventProperty::Notification, false).unwrap();
        threads::<'_>([
            Box::new(|| {
                core::mem::forget(lock.lock().unwrap());
                let _ = ksync::wait::Dispatchable::wait(&event);
            }) as Box<dyn FnOnce()>,
            Box::new(|| {
                sleep(10);
                // SAFETY: the lock is dropped here, in place, and not used after.
                unsafe { core::ptr::drop_in_place(address as *mut PinnedKMutex<i32>) };
            }),
        ]);
    });
    outcome.expect_bug_check(ksync::mutex::DROPPED_WHILE_HELD);
}

#[test]
fn a_reentrant_mutex_lets_its_owner_in() {
    for seed in 0..50 {
        Machine::new()
            .processors(3)
            .seed(seed)
            .run(|| {
                let lock = ReentrantKMutex::new((Cell::new(0), Cell::new(0))).unwrap();
                crowd(3, |_| {
                    for _ in 0..10 {
                        let outer = lock.lock().unwrap();
                        let seen = outer.0.get();
                        let inner = lock.try_lock().unwrap();
                        let third = lock.lock_for(Duration::from_secs(1)).unwrap();
                        drop(outer);
                        assert!(lock.is_locked());
                        sleep(1);
                        inner.0.set(seen + 1);
                        drop(inner);
                        third.1.set(third.1.get() + 1);
                    }
                });
                assert_eq!(format!("{lock:?}"), "(Cell { value: 30 }, Cell { value: 30 })");
                assert!(!lock.is_locked());
                assert_eq!(lock.into_inner(), (Cell::new(30), Cell::new(30)));
            })
            .expect_clean();
    }
}

#[test]
fn a_reentrant_mutex_keeps_others_out() {
    on_machine(|| {
        let lock = ReentrantKMutex::new(Cell::new(0))?;
        let one = lock.lock()?;
        let two = lock.lock()?;
        threads::<'_>([Box::new(|| {
            assert_eq!(lock.try_lock().map(drop), Err(NtError::LOCK_NOT_GRANTED));
            assert_eq!(lock.lock_for(Duration::from_millis(1)).map(drop), Err(NtError::TIMEOUT));
            assert_eq!(format!("{lock:?}"), "<locked>");
        }) as Box<dyn FnOnce()>]);
        drop(one);
        drop(two);
        threads::<'_>([Box::new(|| drop(lock.try_lock().unwrap())) as Box<dyn FnOnce()>]);
        let too_high = irql::with_raised(Irql::DISPATCH, || lock.lock().map(drop))?;
        assert_eq!(too_high, Err(NtError::IRQL_TOO_HIGH));
        Ok(())
    });
}
