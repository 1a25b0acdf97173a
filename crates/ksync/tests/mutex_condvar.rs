//! Condition variables, barriers, and data whose lock is kept elsewhere.

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use ksim::Machine;
use ksync::NtError;
use ksync::error::Result;
use ksync::irql::{self, Irql};
use ksync::mutex::{
    Backend, Barrier, Blocking, Condvar, Fast, FastLocked, Guarded, KMutex, Locked, LockedBy, LockedGuard, Mutex, Sharing,
};
use ksync::time::{InterruptTime, SystemTime, Timeout};
use std::collections::VecDeque;
use test_support::threads::{crowd, sleep, threads};

const SEEDS: u64 = 50;

fn on_machine(code: impl FnOnce() -> Result) {
    Machine::new().processors(2).run(|| code().unwrap()).expect_clean();
}

/// A bounded buffer of two places, two producers and two consumers: the classic that a lost wake-up brings to a halt.
fn bounded_buffer<L: Blocking>()
where
    <L as Backend>::Sharing: Sharing<VecDeque<u32>>,
{
    for seed in 0..SEEDS {
        Machine::new()
            .processors(3)
            .seed(seed)
            .run(|| {
                let buffer = Locked::<VecDeque<u32>, L>::new(VecDeque::new()).unwrap();
                let (not_full, not_empty, sum) = (Condvar::new(), Condvar::new(), AtomicU32::new(0));
                crowd(4, |thread| {
                    for i in 0..10 {
                        let mut guard = buffer.lock().unwrap();
                        if thread % 2 == 0 {
                            not_full.wait_while(&mut guard, |buffer| buffer.len() == 2).unwrap();
                            guard.push_back(i);
                            not_empty.notify_one().unwrap();
                        } else {
                            not_empty.wait_while(&mut guard, |buffer| buffer.is_empty()).unwrap();
                            let value = guard.pop_front().unwrap();
                            drop(guard);
                            not_full.notify_one().unwrap();
                            sum.fetch_add(value, Ordering::Relaxed);
                        }
                    }
                });
                assert_eq!(sum.into_inner(), 90);
            })
            .expect_clean();
    }
}

#[test]
fn bounded_buffer_fast() {
    bounded_buffer::<Fast>();
}

#[test]
fn bounded_buffer_guarded() {
    bounded_buffer::<Guarded>();
}

#[test]
fn bounded_buffer_resource() {
    bounded_buffer::<ksync::mutex::Resource>();
}

#[test]
fn bounded_buffer_push() {
    bounded_buffer::<ksync::mutex::Push>();
}

#[test]
fn bounded_buffer_kmutex() {
    bounded_buffer::<Mutex>();
}

#[test]
fn waiters_are_woken_in_order() {
    for seed in 0..SEEDS {
        Machine::new()
            .seed(seed)
            .run(|| {
                let (order, turn) = (FastLocked::new(Vec::new()).unwrap(), Condvar::new());
                threads((0..4).map(|i| {
                    let (order, turn) = (&order, &turn);
                    Box::new(move || {
                        if i == 3 {
                            sleep(100);
                            while turn.notify_one().unwrap() {
                                sleep(10);
                            }
                            return;
                        }
                        sleep(10 * (1 + i));
                        let mut guard = order.lock().unwrap();
                        turn.wait(&mut guard).unwrap();
                        guard.push(i);
                    }) as Box<dyn FnOnce()>
                }));
                assert_eq!(order.into_inner(), [0, 1, 2]);
            })
            .expect_clean();
    }
}

#[test]
fn all_are_woken_at_once() {
    on_machine(|| {
        let (lock, go) = (KMutex::new(0)?, Condvar::new());
        crowd(5, |thread| {
            if thread == 4 {
                sleep(50);
                go.notify_all().unwrap();
                return;
            }
            let mut guard = lock.lock().unwrap();
            go.wait(&mut guard).unwrap();
            *guard += 1;
        });
        assert_eq!(lock.into_inner(), 4);
        Ok(())
    });
}

#[test]
fn a_limit_in_time_is_kept_and_the_lock_is_held_again() {
    on_machine(|| {
        let (lock, never) = (FastLocked::new(0)?, Condvar::new());
        let mut guard = lock.lock()?;
        let before = InterruptTime::now();
        assert_eq!(never.wait_for(&mut guard, Duration::from_millis(30)), Err(NtError::TIMEOUT));
        assert!(before.elapsed() >= Duration::from_millis(30));
        assert!(lock.is_locked());
        *guard += 1;
        let limit = Timeout::at(SystemTime::now().saturating_add(Duration::from_millis(30)));
        assert_eq!(never.wait_while_for(&mut guard, limit, |_| true), Err(NtError::TIMEOUT));
        assert_eq!(never.wait_while_for(&mut guard, Timeout::POLL, |_| false), Ok(()));
        drop(guard);
        assert!(!never.notify_one()?, "nobody is in line any more");
        assert_eq!(lock.into_inner(), 1);
        Ok(())
    });
}

/// Time runs out just when the notification comes: either happens, and the notification is never lost to a waiter that has gone.
#[test]
fn a_notification_races_with_the_limit() {
    let mut seen = [false; 2];
    for seed in 0..SEEDS {
        let mut woken = None;
        Machine::new()
            .processors(2)
            .seed(seed)
            .run(|| {
                let (lock, change) = (FastLocked::new(()).unwrap(), Condvar::new());
                let (notified, ended) = (AtomicU32::new(9), AtomicU32::new(9));
                threads::<'_>([
                    Box::new(|| {
                        let mut guard = lock.lock().unwrap();
                        let result = change.wait_for(&mut guard, Duration::from_millis(20));
                        ended.store(result.is_ok().into(), Ordering::Relaxed);
                    }) as Box<dyn FnOnce()>,
                    Box::new(|| {
                        sleep(20);
                        notified.store(change.notify_one().unwrap().into(), Ordering::Relaxed);
                    }),
                ]);
                assert_eq!(notified.load(Ordering::Relaxed), ended.load(Ordering::Relaxed));
                woken = Some(ended.into_inner());
            })
            .expect_clean();
        seen[woken.unwrap() as usize] = true;
    }
    assert!(seen[0] || seen[1]);
}

#[test]
fn too_high_a_level_is_an_error() {
    on_machine(|| {
        let (lock, never, barrier) = (FastLocked::new(0)?, Condvar::new(), Barrier::new(2));
        let mut guard = lock.lock()?;
        irql::with_raised(Irql::DISPATCH, || {
            assert_eq!(never.wait(&mut guard), Err(NtError::IRQL_TOO_HIGH));
            assert!(lock.is_locked());
            assert_eq!(barrier.wait().unwrap_err(), NtError::IRQL_TOO_HIGH);
            assert_eq!(LockedGuard::unlocked(&mut guard, || ()), Err(NtError::IRQL_TOO_HIGH));
            assert_eq!(never.notify_one(), Ok(false));
            assert_eq!(never.notify_all(), Ok(()));
        })?;
        // SAFETY: the level is above the present one, and taken back below.
        let old = unsafe { ksync::sys::KfRaiseIrql(3) };
        let result = never.notify_one();
        // SAFETY: as above.
        unsafe { ksync::sys::KeLowerIrql(old) };
        assert_eq!(result, Err(NtError::IRQL_TOO_HIGH));
        Ok(())
    });
}

/// A machine that stops while threads wait ends their stay in line.
#[test]
fn a_deadlock_is_reported() {
    let outcome = Machine::new().run(|| {
        let (lock, never) = (FastLocked::new(0).unwrap(), Condvar::new());
        let mut guard = lock.lock().unwrap();
        let _ = never.wait(&mut guard);
    });
    assert!(outcome.deadlock().is_some(), "{outcome:?}");
}

#[test]
fn a_barrier_holds_until_all_have_come() {
    for seed in 0..SEEDS {
        Machine::new()
            .processors(3)
            .seed(seed)
            .run(|| {
                let (barrier, arrived, leaders) = (Barrier::new(4), AtomicU32::new(0), AtomicU32::new(0));
                crowd(4, |_| {
                    for round in 1..=5 {
                        arrived.fetch_add(1, Ordering::Relaxed);
                        let leader = barrier.wait().unwrap().is_leader();
                        leaders.fetch_add(leader.into(), Ordering::Relaxed);
                        assert!(arrived.load(Ordering::Relaxed) >= 4 * round);
                        barrier.wait().unwrap();
                        assert_eq!(leaders.load(Ordering::Relaxed), round);
                    }
                });
            })
            .expect_clean();
    }
}

#[test]
fn nobody_waits_at_a_barrier_for_one() {
    on_machine(|| {
        assert_eq!(Barrier::new(0).wait(), Err(NtError::INVALID_PARAMETER));
        assert!(Barrier::new(1).wait()?.is_leader());
        Ok(())
    });
}

#[test]
fn data_is_opened_by_its_own_lock_only() {
    on_machine(|| {
        let (lock, other) = (FastLocked::new(1u8)?, FastLocked::new(1u8)?);
        let mut part = LockedBy::new(&lock, String::from("a"));
        part.access_mut(&mut *lock.lock()?)?.push('b');
        assert_eq!(part.access(&*lock.lock()?)?, "ab");
        assert_eq!(part.access(&*other.lock()?).err(), Some(NtError::INVALID_PARAMETER));
        assert_eq!(part.access_mut(&mut *other.lock()?).err(), Some(NtError::INVALID_PARAMETER));
        assert_eq!(part.access(&1u8).err(), Some(NtError::INVALID_PARAMETER));
        part.get_mut().push('c');
        assert_eq!(part.into_inner(), "abc");
        Ok(())
    });
}

#[test]
fn threads_share_data_that_a_lock_elsewhere_guards() {
    for seed in 0..SEEDS {
        Machine::new()
            .processors(3)
            .seed(seed)
            .run(|| {
                let lock = FastLocked::new(0u32).unwrap();
                let part = LockedBy::new(&lock, 0u32);
                crowd(3, |_| {
                    for _ in 0..20 {
                        let mut guard = lock.lock().unwrap();
                        *guard += 1;
                        let seen = *guard;
                        *part.access_mut(&mut guard).unwrap() += 1;
                        assert_eq!(*part.access(&guard).unwrap(), seen);
                    }
                });
                assert_eq!(part.into_inner(), 60);
            })
            .expect_clean();
    }
}
