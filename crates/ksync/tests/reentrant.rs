//! `ReentrantKMutex`: depth, order of release, other threads, alerts, what is forgotten. The simple uses are in `kmutex.rs`.

use core::cell::{Cell, RefCell};
use core::mem;
use core::ptr;
use core::time::Duration;
use ksim::Machine;
use ksync::NtError;
use ksync::error::Result;
use ksync::irql::{self, Irql};
use ksync::mutex::{PinnedReentrantKMutex, ReentrantGuard, ReentrantKMutex};
use ksync::pool::KBox;
use ksync::region;
use ksync::sys::KMUTEX;
use ksync::time::Timeout;
use static_assertions::{assert_impl_all, assert_not_impl_any};
use std::rc::Rc;
use test_support::threads::{crowd, scheduling_point, sleep, threads};

const SEEDS: u64 = 60;

// One thread at a time has the data, so that `Send` is what it takes; and the guard, which gives out `&T`, is shared as `&T` is.
assert_impl_all!(ReentrantKMutex<RefCell<u8>>: Send, Sync, Unpin);
assert_not_impl_any!(ReentrantKMutex<Rc<u8>>: Send, Sync);
assert_impl_all!(ReentrantGuard<'static, u8>: Sync);
assert_not_impl_any!(ReentrantGuard<'static, RefCell<u8>>: Send, Sync);

fn on_machine(code: impl FnOnce() -> Result) {
    Machine::new().processors(2).run(|| code().unwrap()).expect_clean();
}

/// A call chain that comes back to its beginning, to several depths, with the guards dropped in several orders.
#[test]
fn depth_and_order() {
    for seed in 0..SEEDS {
        Machine::new()
            .processors(4)
            .seed(seed)
            .run(|| {
                let lock = ReentrantKMutex::new(Cell::new(0u32)).unwrap();
                crowd(4, |thread| {
                    for round in 0..3 {
                        let before = {
                            let mut guards = vec![lock.lock().unwrap()];
                            let before = guards[0].get();
                            while guards.len() < 2 + thread {
                                guards.push(lock.try_lock().unwrap());
                                scheduling_point();
                            }
                            guards[0].set(before + 1);
                            // From the middle, then from the front, then from the back.
                            drop(guards.remove(guards.len() / 2));
                            if round == 1 {
                                guards.reverse();
                            }
                            while let Some(guard) = guards.pop() {
                                assert_eq!(guard.get(), before + 1, "another thread got in");
                                sleep((round == 0).into());
                                drop(guard);
                            }
                            before
                        };
                        assert!(before < 12);
                    }
                });
                assert_eq!(lock.into_inner().get(), 12);
            })
            .expect_clean();
    }
}

/// APCs are held back from the first acquisition to the last release.
#[test]
fn apcs_are_held_back_to_the_last_release() {
    on_machine(|| {
        // SAFETY: a system thread starts in the region (rule 26), at PASSIVE_LEVEL.
        unsafe { ksync::sys::KeLeaveCriticalRegion() };
        let lock = ReentrantKMutex::new(0)?;
        let outer = lock.lock()?;
        let inner = lock.lock()?;
        drop(outer);
        assert!(region::apcs_disabled());
        drop(inner);
        assert!(!region::apcs_disabled());
        // SAFETY: the thread is at PASSIVE_LEVEL.
        unsafe { ksync::sys::KeEnterCriticalRegion() };
        Ok(())
    });
}

#[test]
fn an_alert_breaks_an_alertable_wait_off() {
    on_machine(|| {
        let lock = ReentrantKMutex::new(0)?;
        let guard = lock.lock()?;
        threads([Box::new(|| {
            // SAFETY: the thread is the current one.
            let thread = unsafe { ksync::sys::KeGetCurrentThread() };
            // SAFETY: as above.
            unsafe { ksync::sys::KeAlertThread(thread, ksync::sys::KernelMode) };
            assert_eq!(lock.lock_for(Duration::from_millis(1)).map(drop), Err(NtError::TIMEOUT));
            assert_eq!(lock.lock_alertable(Timeout::NEVER).map(drop), Err(NtError::CANCELLED));
            assert_eq!(lock.lock_alertable(Duration::from_millis(1)).map(drop), Err(NtError::TIMEOUT));
        }) as Box<dyn FnOnce()>]);
        assert_eq!(*lock.lock_alertable(Timeout::NEVER)?, 0);
        drop(guard);
        Ok(())
    });
}

/// A guard that is dropped where the mutex cannot be released leaves it held once more, and says so.
#[test]
fn a_guard_dropped_at_dispatch_level_stays_held() {
    let outcome = Machine::new().run(|| {
        let lock = ReentrantKMutex::new(0).unwrap();
        let outer = lock.lock().unwrap();
        let inner = lock.lock().unwrap();
        irql::with_raised(Irql::DISPATCH, || drop(inner)).unwrap();
        drop(outer);
        assert!(lock.is_locked());
        // It is this thread's, which takes itself out when the mutex goes.
        mem::forget(lock);
    });
    assert!(outcome.debug_output().iter().any(|line| line.contains("could not be released")), "{outcome:?}");
    // The thread ends with the mutex held, which NT does not take (rule 11).
    outcome.expect_bug_check(0x4000_008A);
}

/// In place, a mutex that this thread owns several times, having forgotten the guards, is released as often when it is dropped.
#[test]
fn forgotten_guards_are_undone_when_it_is_dropped_in_place() {
    let outcome = Machine::new().run(|| {
        let lock = KBox::pin_init(PinnedReentrantKMutex::pin_init(0)).unwrap();
        for _ in 0..5 {
            mem::forget(lock.lock().unwrap());
        }
        drop(lock);
    });
    assert!(outcome.debug_output().iter().any(|line| line.contains("was dropped while it was held")), "{outcome:?}");
    outcome.expect_clean();
}

/// The kernel's mutex in a lock that this thread holds: its owner's address tells where it lies.
fn mutex_of<T>(lock: &PinnedReentrantKMutex<T>) -> *mut KMUTEX {
    // SAFETY: the routine reads a word of the processor's.
    let me = unsafe { ksync::sys::KeGetCurrentThread() };
    let start = ptr::from_ref(lock).cast_mut().cast::<KMUTEX>();
    for mutex in [start, start.wrapping_byte_add(8)] {
        // SAFETY: the lock consists of a mutex and a word, in whichever order, and the data.
        if unsafe { (*mutex).OwnerThread } == me {
            return mutex;
        }
    }
    panic!("the lock is not held");
}

/// NT raises an exception when a mutex is taken once too often. Here that is an error before it comes to it.
#[test]
fn the_limit_of_depth_is_an_error() {
    on_machine(|| {
        let lock = ReentrantKMutex::new(0)?;
        let guard = lock.lock()?;
        let mutex = mutex_of(&lock);
        // Taking it two thousand million times takes too long, so the count is set.
        for (state, at_limit) in [(i32::MIN, true), (i32::MIN + 1, true), (i32::MIN + 2, true), (i32::MIN + 3, false)] {
            // SAFETY: the mutex is there, and only its owner, who this is, changes the count.
            unsafe { (*mutex).Header.SignalState = state };
            if at_limit {
                assert_eq!(lock.lock().map(drop), Err(NtError::MUTANT_LIMIT_EXCEEDED));
                assert_eq!(lock.try_lock().map(drop), Err(NtError::MUTANT_LIMIT_EXCEEDED));
                assert_eq!(lock.lock_alertable(Timeout::NEVER).map(drop), Err(NtError::MUTANT_LIMIT_EXCEEDED));
            } else {
                assert_eq!(lock.lock().map(drop), Ok(()));
            }
            // SAFETY: as above.
            assert_eq!(unsafe { (*mutex).Header.SignalState }, state);
        }
        // SAFETY: as above; it is owned once again.
        unsafe { (*mutex).Header.SignalState = 0 };
        drop(guard);
        assert!(!lock.is_locked());
        Ok(())
    });
}
