//! Delayed closures, coalescable timers and the clock's resolution, on the hosted kernel.

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use ksim::{ClockMode, Machine};
use ksync::NtError;
use ksync::irql::{self, Irql};
use ksync::thread::this_thread;
use ksync::time::InterruptTime;
use ksync::timer::{Timer, TimerKind, delay_run, set_timer_resolution};
use ksync::wait::Dispatchable;
use std::sync::{Arc, Mutex};

use test_support::owned::{counting, on_machines};

const MS: Duration = Duration::from_millis(1);
const LEVELS: [Irql; 3] = [Irql::PASSIVE, Irql::APC, Irql::DISPATCH];

fn counts(counters: [&AtomicU32; 2]) -> [u32; 2] {
    counters.map(|counter| counter.load(Ordering::Relaxed))
}

#[test]
fn ksync_49_a_delayed_closure_runs_once_and_is_freed_once() {
    for level in LEVELS {
        for delay in [Duration::ZERO, Duration::from_nanos(1), 5 * MS] {
            on_machines(|| {
                let (closure, runs, drops) = counting(Duration::from_micros(5), Some(Irql::DISPATCH));
                irql::with_raised(level, || delay_run(delay, closure))?.map_err(NtError::from)?;
                if delay == 5 * MS {
                    this_thread::sleep(4 * MS)?;
                    assert_eq!(counts([&runs, &drops]), [0, 0]);
                }
                this_thread::sleep(2 * MS)?;
                ksync::driver::drain()?;
                assert_eq!(counts([&runs, &drops]), [1, 1]);
                Ok(())
            });
        }
    }
}

#[test]
fn ksync_49_an_unload_drops_what_is_still_delayed_and_waits_for_what_runs() {
    on_machines(|| {
        let all: Vec<_> = (0..6_u32)
            .map(|index| {
                let (closure, runs, drops) = counting(Duration::from_micros(5), Some(Irql::DISPATCH));
                delay_run(index * MS, closure).unwrap();
                (runs, drops)
            })
            .collect();
        this_thread::sleep(3 * MS)?;
        ksync::driver::drain()?;
        let after: Vec<_> = all.iter().map(|(runs, drops)| counts([runs, drops])).collect();
        assert!(after.iter().all(|[_, drops]| *drops == 1), "{after:?}");
        let ran: u32 = after.iter().map(|[runs, _]| runs).sum();
        assert!((3..=4).contains(&ran), "{after:?}");
        this_thread::sleep(10 * MS)?;
        assert_eq!(all.iter().map(|(runs, drops)| counts([runs, drops])).collect::<Vec<_>>(), after);
        Ok(())
    });
}

#[test]
fn a_delayed_closure_may_delay_another() {
    on_machines(|| {
        let log: Arc<Mutex<Vec<u128>>> = Arc::default();
        let start = InterruptTime::now();
        let (first, second) = (Arc::clone(&log), Arc::clone(&log));
        delay_run(2 * MS, move || {
            first.lock().unwrap().push(start.elapsed().as_millis());
            delay_run(3 * MS, move || second.lock().unwrap().push(start.elapsed().as_millis())).unwrap();
        })
        .map_err(NtError::from)?;
        this_thread::sleep(10 * MS)?;
        assert_eq!(*log.lock().unwrap(), [2, 5]);
        Ok(())
    });
}

#[test]
fn what_cannot_be_delayed_comes_back() {
    Machine::new()
        .fail_allocation(1)
        .run(|| {
            let (closure, runs, drops) = counting(Duration::from_micros(5), Some(Irql::DISPATCH));
            let failure = delay_run(MS, closure).unwrap_err();
            assert_eq!(failure.error, NtError::INSUFFICIENT_RESOURCES);
            // SAFETY: the level is restored below, and in between only an operation runs that checks it.
            let old = unsafe { ksync::sys::KfRaiseIrql(5) };
            let refused = delay_run(MS, failure.closure);
            // SAFETY: the level was raised above from this one.
            unsafe { ksync::sys::KeLowerIrql(old) };
            let failure = refused.unwrap_err();
            assert_eq!(failure.error, NtError::IRQL_TOO_HIGH);
            assert_eq!(counts([&runs, &drops]), [0, 0]);
            delay_run(MS, failure.closure).unwrap();
            this_thread::sleep(2 * MS).unwrap();
            assert_eq!(counts([&runs, &drops]), [1, 1]);
        })
        .expect_clean();
}

#[test]
fn ksync_39_a_delay_for_ever_is_not_at_once() {
    on_machines(|| {
        let (closure, runs, drops) = counting(Duration::from_micros(5), Some(Irql::DISPATCH));
        delay_run(Duration::MAX, closure).map_err(NtError::from)?;
        this_thread::sleep(Duration::from_secs(1_000_000))?;
        assert_eq!(counts([&runs, &drops]), [0, 0]);
        ksync::driver::drain()?;
        assert_eq!(counts([&runs, &drops]), [0, 1]);
        Ok(())
    });
}

#[test]
fn rule_54_coalescable_timers_expire_within_their_tolerance() {
    let delays = Mutex::new(Vec::new());
    for seed in 0..40 {
        Machine::new()
            .seed(seed)
            .run(|| {
                let timer = Timer::waitable(TimerKind::Synchronization).unwrap();
                let start = InterruptTime::now();
                timer.start_coalescable(10 * MS, 20 * MS, 8 * MS).unwrap();
                // What one expiry is late by does not move those after it.
                for expiry in 0..4 {
                    assert!(timer.wait().success());
                    let due = 10 * MS + expiry * 20 * MS;
                    assert!((due..=due + 8 * MS).contains(&start.elapsed()), "{:?}", start.elapsed());
                    delays.lock().unwrap().push(start.elapsed() - due);
                }
                assert!(timer.stop().unwrap());
            })
            .expect_clean();
    }
    let delays = delays.into_inner().unwrap();
    assert!(delays.contains(&Duration::ZERO) && delays.contains(&(8 * MS)), "{delays:?}");
}

#[test]
fn coalescable_timers_are_checked_as_others_are() {
    on_machines(|| {
        let timer = Timer::waitable(TimerKind::Notification)?;
        for wrong in [Duration::from_nanos(1), Duration::from_micros(1_500), Duration::from_millis(1 << 31), Duration::MAX] {
            assert_eq!(timer.start_coalescable(MS, Duration::ZERO, wrong), Err(NtError::INVALID_PARAMETER));
            assert_eq!(timer.start_coalescable(MS, wrong, MS), Err(NtError::INVALID_PARAMETER));
        }
        assert!(!timer.stop()?);
        // Without a tolerance it is a timer like any other.
        let start = InterruptTime::now();
        assert!(!timer.start_coalescable(MS, Duration::ZERO, Duration::ZERO)?);
        assert!(timer.wait().success());
        assert_eq!(start.elapsed(), MS);
        assert!(!timer.start_coalescable(MS, MS, MS)?);
        assert!(timer.start(MS, Duration::ZERO)?);
        assert!(timer.stop()?);
        Ok(())
    });
}

#[test]
fn a_resolution_is_taken_back_once() {
    for seed in 0..20 {
        Machine::new()
            .clock(ClockMode::DEFAULT_TICK)
            .processors(2)
            .seed(seed)
            .run(|| {
                let slept = || {
                    let start = InterruptTime::now();
                    this_thread::sleep(MS).unwrap();
                    start.elapsed()
                };
                let tick = Duration::from_nanos(15_625_000);
                assert_eq!(slept(), tick);
                let coarse = set_timer_resolution(5 * MS).unwrap();
                let fine = set_timer_resolution(MS).unwrap();
                let cut = set_timer_resolution(Duration::MAX).unwrap();
                assert_eq!([coarse.tick(), fine.tick(), cut.tick()], [5 * MS, MS, MS]);
                drop(cut);
                assert_eq!(slept(), MS);
                drop(fine);
                assert_eq!(slept(), MS, "the system keeps the shortest until all requests are taken back");
                let refused = irql::with_raised(Irql::DISPATCH, || set_timer_resolution(MS).map(drop)).unwrap();
                assert_eq!(refused, Err(NtError::IRQL_TOO_HIGH));
                irql::with_raised(Irql::APC, || drop(coarse)).unwrap();
                assert_eq!(slept(), tick);
            })
            .expect_clean();
    }
}

#[test]
fn a_resolution_dropped_too_high_is_taken_back_later() {
    let too_high = || {
        let resolution = set_timer_resolution(MS).unwrap();
        irql::with_raised(Irql::DISPATCH, || drop(resolution)).unwrap();
    };
    let later: [fn(); 3] = [
        || ksync::driver::drain().unwrap(),
        || drop(set_timer_resolution(5 * MS).unwrap()),
        || irql::with_raised(Irql::APC, || drop(set_timer_resolution(5 * MS).unwrap())).unwrap(),
    ];
    for later in later {
        let outcome = Machine::new().run(|| {
            too_high();
            later();
        });
        assert!(outcome.debug_output()[0].contains("is taken back later"));
        outcome.expect_clean();
    }
    // Without any of these the system is left with it, and so by who forgets it.
    assert_eq!(Machine::new().run(too_high).left().tick_requests, 1);
    assert_eq!(Machine::new().run(|| core::mem::forget(set_timer_resolution(MS).unwrap())).left().tick_requests, 1);
}
