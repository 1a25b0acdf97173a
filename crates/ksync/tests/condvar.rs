//! Condition variables: what is promised under every lock and many schedules. The classic uses are in `mutex_condvar.rs`.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use core::time::Duration;
use ksim::Machine;
use ksync::NtError;
use ksync::dpc::{Dpc, Processor};
use ksync::error::Result;
use ksync::irql::{self, Irql};
use ksync::mutex::{
    Backend, Blocking, Condvar, Fast, FastLocked, Guarded, KMutex, Locked, Mutex, Push, Resource, Sharing, SpinLocked,
};
use ksync::region;
use ksync::time::{InterruptTime, Timeout};
use std::sync::Arc;
use test_support::threads::{crowd, sleep, threads};

const SEEDS: u64 = 60;

fn on_machine(code: impl FnOnce() -> Result) {
    Machine::new().processors(2).run(|| code().unwrap()).expect_clean();
}

fn on_seeds(code: impl Fn()) {
    for seed in 0..SEEDS {
        Machine::new().processors(4).seed(seed).run(&code).expect_clean();
    }
}

/// Instantiates a test for each lock under which one may wait.
macro_rules! for_each_lock {
    ($($test:ident)*) => {$(
        mod $test {
            #[test] fn fast() { super::$test::<super::Fast>() }
            #[test] fn guarded() { super::$test::<super::Guarded>() }
            #[test] fn resource() { super::$test::<super::Resource>() }
            #[test] fn push() { super::$test::<super::Push>() }
            #[test] fn kmutex() { super::$test::<super::Mutex>() }
        }
    )*};
}

for_each_lock! {
    every_wait_meets_its_notification a_stopped_machine_ends_waits the_lock_is_free_while_one_waits
    notifications_are_counted_right regions_are_left_while_one_waits
}

/// Threads hand a turn round. Each change is notified to all, so that one that is lost stops everything.
fn every_wait_meets_its_notification<L: Blocking>()
where
    <L as Backend>::Sharing: Sharing<usize>,
{
    on_seeds(|| {
        let (turn, changed) = (Locked::<usize, L>::new(0).unwrap(), Condvar::new());
        crowd(4, |thread| {
            for _ in 0..5 {
                let mut guard = turn.lock().unwrap();
                changed.wait_while(&mut guard, |turn| *turn % 4 != thread).unwrap();
                *guard += 1;
                changed.notify_all().unwrap();
            }
        });
        assert_eq!(turn.into_inner(), 20);
    });
}

/// A machine that stops takes its waiting threads apart, which must neither hang nor touch what is gone.
fn a_stopped_machine_ends_waits<L: Blocking>()
where
    <L as Backend>::Sharing: Sharing<usize>,
{
    for seed in 0..10 {
        let outcome = Machine::new().processors(2).seed(seed).run(|| {
            let (lock, never) = (Locked::<usize, L>::new(0).unwrap(), Condvar::new());
            crowd(3, |_| {
                let mut guard = lock.lock().unwrap();
                *guard += 1;
                let _ = never.wait(&mut guard);
            });
        });
        assert!(outcome.deadlock().is_some(), "{outcome:?}");
    }
}

fn the_lock_is_free_while_one_waits<L: Blocking>()
where
    <L as Backend>::Sharing: Sharing<usize>,
{
    on_seeds(|| {
        let (lock, changed) = (Locked::<usize, L>::new(0).unwrap(), Condvar::new());
        let inside = AtomicU32::new(0);
        threads([
            Box::new(|| {
                let mut guard = lock.lock().unwrap();
                changed.wait(&mut guard).unwrap();
                // The notifier holds the lock when it notifies, and until it is done.
                assert_eq!(inside.load(Ordering::Relaxed), 0);
                assert_eq!(*guard, 7);
                assert!(lock.is_locked());
            }) as Box<dyn FnOnce()>,
            Box::new(|| {
                sleep(20);
                let mut guard = lock.try_lock().unwrap();
                inside.store(1, Ordering::Relaxed);
                assert_eq!(changed.notify_one(), Ok(true));
                *guard = 7;
                sleep(20);
                inside.store(0, Ordering::Relaxed);
            }),
        ]);
        assert!(!lock.is_locked());
    });
}

/// Some waiters give up just as others notify. As many waits succeed as notifications found someone, whoever is faster.
fn notifications_are_counted_right<L: Blocking>()
where
    <L as Backend>::Sharing: Sharing<usize>,
{
    on_seeds(|| {
        let (lock, changed) = (Locked::<usize, L>::new(0).unwrap(), Condvar::new());
        let (sent, received) = (AtomicU32::new(0), AtomicU32::new(0));
        crowd(6, |thread| {
            if thread < 4 {
                let mut guard = lock.lock().unwrap();
                match changed.wait_for(&mut guard, Duration::from_millis(20)) {
                    Ok(()) => drop(received.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => assert_eq!(error, NtError::TIMEOUT),
                }
                assert!(lock.is_locked());
            } else {
                for _ in 0..2 {
                    sleep(if thread == 4 { 20 } else { 10 });
                    sent.fetch_add(changed.notify_one().unwrap().into(), Ordering::Relaxed);
                }
            }
        });
        assert_eq!(sent.into_inner(), received.into_inner());
        assert_eq!(changed.notify_one(), Ok(false), "nobody is left in line");
    });
}

/// What a lock holds back is let go for the time of the wait, and held back again after it.
fn regions_are_left_while_one_waits<L: Blocking>()
where
    <L as Backend>::Sharing: Sharing<usize>,
{
    on_machine(|| {
        let (lock, changed) = (Locked::<usize, L>::new(0)?, Condvar::new());
        // SAFETY: a system thread starts in the region (rule 26), at PASSIVE_LEVEL.
        unsafe { ksync::sys::KeLeaveCriticalRegion() };
        let mut guard = lock.lock()?;
        let held_back = (region::apcs_disabled(), region::all_apcs_disabled());
        assert!(held_back.0 || held_back.1);
        assert_eq!(changed.wait_for(&mut guard, Duration::from_millis(1)), Err(NtError::TIMEOUT));
        assert_eq!((region::apcs_disabled(), region::all_apcs_disabled()), held_back);
        drop(guard);
        assert!(!region::apcs_disabled());
        // SAFETY: the thread is at PASSIVE_LEVEL.
        unsafe { ksync::sys::KeEnterCriticalRegion() };
        Ok(())
    });
}

#[test]
fn each_notification_wakes_one_thread() {
    on_seeds(|| {
        let (lock, changed, woken) = (FastLocked::new(0).unwrap(), Condvar::new(), AtomicU32::new(0));
        crowd(5, |thread| {
            if thread < 4 {
                let mut guard = lock.lock().unwrap();
                changed.wait(&mut guard).unwrap();
                woken.fetch_add(1, Ordering::Relaxed);
                return;
            }
            for count in 0..4 {
                sleep(20);
                assert_eq!(woken.load(Ordering::Relaxed), count);
                assert_eq!(changed.notify_one(), Ok(true));
            }
            assert_eq!(changed.notify_one(), Ok(false));
        });
        assert_eq!(woken.into_inner(), 4);
    });
}

/// A notification is for those who wait, and not for those who come later.
#[test]
fn a_notification_is_not_remembered() {
    on_machine(|| {
        let (lock, changed) = (FastLocked::new(0)?, Condvar::new());
        assert_eq!(changed.notify_one(), Ok(false));
        changed.notify_all()?;
        let mut guard = lock.lock()?;
        assert_eq!(changed.wait_for(&mut guard, Duration::from_millis(5)), Err(NtError::TIMEOUT));
        Ok(())
    });
}

/// One in the middle of the line gives up; the others keep their places.
#[test]
fn the_line_closes_up_when_one_gives_up() {
    for leaver in 0..3 {
        on_seeds(|| {
            let (order, changed) = (FastLocked::new(Vec::new()).unwrap(), Condvar::new());
            crowd(4, |thread| {
                if thread == 3 {
                    sleep(200);
                    while changed.notify_one().unwrap() {
                        sleep(10);
                    }
                    return;
                }
                sleep(10 * (1 + thread as i64));
                let timeout = if thread == leaver { Timeout::after(Duration::from_millis(50)) } else { Timeout::NEVER };
                let mut guard = order.lock().unwrap();
                match changed.wait_for(&mut guard, timeout) {
                    Ok(()) => guard.push(thread),
                    Err(_) => assert_eq!(thread, leaver),
                }
            });
            let expected: Vec<_> = (0..3).filter(|&thread| thread != leaver).collect();
            assert_eq!(order.into_inner(), expected);
        });
    }
}

/// Those that are woken for nothing do not wait longer in all than they said.
#[test]
fn the_limit_is_one_for_all_waits() {
    on_machine(|| {
        let (lock, changed, done) = (FastLocked::new(0)?, Condvar::new(), AtomicBool::new(false));
        threads([
            Box::new(|| {
                let mut guard = lock.lock().unwrap();
                let before = InterruptTime::now();
                let result = changed.wait_while_for(&mut guard, Duration::from_millis(95), |_| true);
                assert_eq!(result, Err(NtError::TIMEOUT));
                let waited = before.elapsed();
                assert!(waited >= Duration::from_millis(95) && waited < Duration::from_millis(150), "{waited:?}");
                // "For ever" stays that, and a change in time is a success.
                drop(guard);
                done.store(true, Ordering::Relaxed);
                let mut guard = lock.lock().unwrap();
                assert_eq!(changed.wait_while_for(&mut guard, Duration::MAX, |value| *value == 0), Ok(()));
            }) as Box<dyn FnOnce()>,
            Box::new(|| {
                while !done.load(Ordering::Relaxed) {
                    sleep(20);
                    changed.notify_all().unwrap();
                }
                sleep(1000);
                *lock.lock().unwrap() = 1;
                changed.notify_all().unwrap();
            }),
        ]);
        Ok(())
    });
}

/// A thread waits, and three DPCs notify: on the processor of the thread that queues them, or on a given one.
fn dpcs_notify(seed: u64, target: Option<u32>) {
    Machine::new()
        .processors(4)
        .seed(seed)
        .run(|| {
            let shared = Arc::new((Condvar::new(), AtomicU32::new(0)));
            let lock = KMutex::new(0).unwrap();
            let dpc = {
                let shared = shared.clone();
                Dpc::new(move || {
                    shared.1.fetch_add(1, Ordering::Release);
                    shared.0.notify_one().unwrap();
                })
                .unwrap()
            };
            if let Some(target) = target {
                dpc.set_target(Processor::from_index(target).unwrap()).unwrap();
            }
            threads([
                Box::new(|| {
                    let mut guard = lock.lock().unwrap();
                    // A DPC cannot take the lock, so that it may notify just before the wait: hence the limit.
                    while shared.1.load(Ordering::Acquire) < 3 {
                        let _ = shared.0.wait_for(&mut guard, Duration::from_millis(50));
                    }
                }) as Box<dyn FnOnce()>,
                Box::new(|| {
                    for _ in 0..3 {
                        sleep(10);
                        dpc.enqueue().unwrap();
                    }
                }),
            ]);
        })
        .expect_clean();
}

#[test]
fn a_dpc_may_notify() {
    for seed in 0..SEEDS {
        dpcs_notify(seed, None);
    }
}

#[test]
fn a_dpc_on_an_idle_processor_may_notify() {
    for seed in 0..SEEDS {
        dpcs_notify(seed, Some((seed % 4) as u32));
    }
}

/// The spin lock of the line is not in anybody's way: one may notify with a spin lock held, and wait at `APC_LEVEL`.
#[test]
fn levels_are_kept() {
    on_machine(|| {
        let (lock, changed, spin) = (FastLocked::new(false)?, Condvar::new(), SpinLocked::const_new(0));
        threads([
            Box::new(|| {
                irql::with_raised(Irql::APC, || {
                    let mut guard = lock.lock().unwrap();
                    changed.wait_while(&mut guard, |done| !*done).unwrap();
                    assert_eq!(irql::current(), Irql::APC);
                })
                .unwrap();
            }) as Box<dyn FnOnce()>,
            Box::new(|| {
                sleep(10);
                *lock.lock().unwrap() = true;
                let guard = spin.lock().unwrap();
                assert_eq!(changed.notify_one(), Ok(true));
                assert_eq!(irql::current(), Irql::DISPATCH);
                drop(guard);
                assert_eq!(irql::current(), Irql::PASSIVE);
            }),
        ]);
        Ok(())
    });
}

/// A static, with two locks in turn.
#[test]
fn one_serves_several_locks() {
    static CHANGED: Condvar = Condvar::new();
    on_seeds(|| {
        let (a, b) = (FastLocked::new(false).unwrap(), KMutex::new(false).unwrap());
        threads([
            Box::new(|| CHANGED.wait_while(&mut a.lock().unwrap(), |done| !*done).unwrap()) as Box<dyn FnOnce()>,
            Box::new(|| CHANGED.wait_while(&mut b.lock().unwrap(), |done| !*done).unwrap()),
            Box::new(|| {
                sleep(5);
                *a.lock().unwrap() = true;
                CHANGED.notify_all().unwrap();
                *b.lock().unwrap() = true;
                CHANGED.notify_all().unwrap();
            }),
        ]);
    });
}

/// Without a limit and with a limit of nothing: the lock is given away once, and nobody waits.
#[test]
fn a_poll_gives_the_lock_away_once() {
    on_machine(|| {
        let (lock, changed) = (FastLocked::new(0)?, Condvar::new());
        let mut guard = lock.lock()?;
        assert_eq!(changed.wait_for(&mut guard, Timeout::POLL), Err(NtError::TIMEOUT));
        let mut asked = 0;
        let result = changed.wait_while_for(&mut guard, Duration::ZERO, |_| {
            asked += 1;
            true
        });
        assert_eq!((result, asked), (Err(NtError::TIMEOUT), 2));
        Ok(())
    });
}

/// A condition that panics, which it can hosted, leaves the lock free and the line empty.
#[test]
fn a_panic_in_the_condition_frees_the_lock() {
    let outcome = Machine::new().run(|| {
        let (lock, changed) = (FastLocked::new(0).unwrap(), Condvar::new());
        let mut guard = lock.lock().unwrap();
        let _ = changed.wait_while(&mut guard, |_| panic!("the condition"));
    });
    assert!(outcome.panic().is_some(), "{outcome:?}");
}
