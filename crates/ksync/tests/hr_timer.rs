//! High-resolution timers, on the hosted kernel.

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use ksim::{ClockMode, Machine, OsProfile};
use ksync::NtError;
use ksync::error::Result;
use ksync::event::{Event, EventProperty};
use ksync::irql::{self, Irql};
use ksync::thread::{self, Builder, this_thread};
use ksync::time::{FAR, InterruptTime, Timeout};
use ksync::timer::{HrTimer, Resolution, TimerKind};
use ksync::wait::{Dispatchable, WaitOptions, WaitResult, wait_any};
use std::sync::{Arc, Mutex};

use test_support::owned::{counting, on_machines};

const US: Duration = Duration::from_micros(1);
const MS: Duration = Duration::from_millis(1);
const LEVELS: [Irql; 3] = [Irql::PASSIVE, Irql::APC, Irql::DISPATCH];

#[test]
fn ksync_2_a_periodic_timer_runs_its_closure_each_time() {
    on_machines(|| {
        let (closure, runs, drops) = counting(US, Some(Irql::DISPATCH));
        let timer = HrTimer::new(closure)?;
        timer.start(100 * US, 250 * US)?;
        this_thread::sleep(MS)?;
        assert_eq!(runs.load(Ordering::Relaxed), 4);
        assert_eq!(drops.load(Ordering::Relaxed), 0);
        drop(timer);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        this_thread::sleep(MS)?;
        assert_eq!(runs.load(Ordering::Relaxed), 4);
        Ok(())
    });
}

#[test]
fn ksync_39_intervals_and_periods_are_as_fine_as_they_say() {
    for seed in 0..10 {
        Machine::new()
            .clock(ClockMode::DEFAULT_TICK)
            .seed(seed)
            .run(|| {
                let now = || {
                    let mut time = 0;
                    // SAFETY: the time is a local variable.
                    unsafe { ksync::sys::KeQueryInterruptTimePrecise(&raw mut time) }
                };
                let timer = HrTimer::waitable(TimerKind::Synchronization).unwrap();
                // The unit is 100 ns; below it an interval is rounded up, and never becomes "at once" or "once".
                for (period, units) in
                    [(Duration::from_nanos(1), 1), (US, 10), (500 * US, 5_000), (MS, 10_000), (1_500 * US, 15_000)]
                {
                    let start = now();
                    timer.start(period, period).unwrap();
                    for expiry in 1..=5 {
                        assert!(timer.wait().success());
                        assert_eq!(now() - start, expiry * units);
                    }
                    assert!(timer.stop().unwrap());
                }
                timer.start(Duration::ZERO, Duration::ZERO).unwrap();
                assert!(timer.wait_with(Timeout::POLL.into()).success());
                timer.start(Duration::MAX, Duration::MAX).unwrap();
                assert!(timer.wait_for(Duration::from_secs(100 * 365 * 86_400), false).timed_out());
                assert!(u64::try_from(FAR).unwrap() > now());
                assert!(timer.cancel().unwrap());
            })
            .expect_clean();
    }
}

#[test]
fn rule_56_starting_tells_whether_it_was_armed() {
    on_machines(|| {
        let (closure, runs, _) = counting(US, Some(Irql::DISPATCH));
        let timer = HrTimer::new(closure)?;
        assert!(!timer.start(5 * MS, Duration::ZERO)?);
        assert!(timer.start(6 * MS, Duration::ZERO)?);
        assert!(timer.cancel()?);
        assert!(!timer.cancel()?);
        timer.start(MS, Duration::ZERO)?;
        assert!(timer.wait().success());
        assert!(!timer.start(MS, Duration::ZERO)?);
        this_thread::sleep(5 * MS)?;
        assert_eq!(runs.load(Ordering::Relaxed), 2);
        Ok(())
    });
}

#[test]
fn rule_53_kinds() {
    on_machines(|| {
        for resolution in [Resolution::High, Resolution::Tick, Resolution::NoWake] {
            let notification = HrTimer::waitable_with_resolution(resolution, TimerKind::Notification)?;
            notification.start(US, Duration::ZERO)?;
            assert!(notification.wait().success());
            assert!(notification.wait_with(Timeout::POLL.into()).success());
            let synchronization = HrTimer::waitable_with_resolution(resolution, TimerKind::Synchronization)?;
            synchronization.start(US, Duration::ZERO)?;
            assert!(synchronization.wait().success());
            assert!(synchronization.wait_with(Timeout::POLL.into()).timed_out());
        }
        Ok(())
    });
}

#[test]
fn ksync_50_a_timer_is_started_shared_and_waited_on_by_threads() {
    on_machines(|| {
        let timer = HrTimer::waitable(TimerKind::Synchronization)?;
        let expiries = thread::scope(|scope| {
            let waiters: Vec<_> =
                (0..3).map(|_| scope.spawn(|| timer.wait_with(WaitOptions::new()).success()).unwrap()).collect();
            timer.start(100 * US, 100 * US).unwrap();
            waiters.into_iter().map(|waiter| waiter.join().unwrap()).filter(|success| *success).count()
        });
        assert_eq!(expiries, 3);
        let kill = Event::new(EventProperty::Notification, true)?;
        assert_eq!(wait_any(&[&timer, &kill], WaitOptions::new()), WaitResult::Signaled(1));
        Ok(())
    });
}

#[test]
fn no_wake_timers_are_late_within_their_tolerance() {
    let mut late = 0;
    for seed in 0..40 {
        let outcome = Machine::new().seed(seed).run(|| {
            let timer = HrTimer::waitable_with_resolution(Resolution::NoWake, TimerKind::Notification).unwrap();
            let start = InterruptTime::now();
            timer.start_tolerant(10 * MS, Duration::ZERO, 5 * MS).unwrap();
            assert!(timer.wait().success());
            assert!((10 * MS..=15 * MS).contains(&start.elapsed()));
            if start.elapsed() > 10 * MS {
                ksync::println!("late");
            }
            timer.start_tolerant(10 * MS, Duration::ZERO, Duration::MAX).unwrap();
            assert!(timer.wait().success());
            timer.start(10 * MS, Duration::ZERO).unwrap();
            let start = InterruptTime::now();
            assert!(timer.wait().success());
            assert_eq!(start.elapsed(), 10 * MS);
            let other = HrTimer::waitable(TimerKind::Notification).unwrap();
            assert_eq!(other.start_tolerant(MS, MS, MS), Err(NtError::INVALID_PARAMETER));
        });
        late += outcome.debug_output().len();
        outcome.expect_clean();
    }
    assert!(late > 10, "{late}");
}

#[test]
fn ksync_14_and_48_an_armed_timer_is_dropped_at_any_level() {
    for level in LEVELS {
        on_machines(|| {
            let (closure, runs, drops) = counting(US, Some(Irql::DISPATCH));
            let timer = HrTimer::new(closure)?;
            timer.start(100 * US, 50 * US)?;
            // An expiry is due on another processor just now.
            this_thread::sleep(100 * US)?;
            irql::with_raised(level, || drop(timer))?;
            if level < Irql::DISPATCH {
                assert_eq!(drops.load(Ordering::Relaxed), 1, "the drop waited");
            }
            ksync::driver::drain()?;
            assert_eq!(drops.load(Ordering::Relaxed), 1);
            let now = runs.load(Ordering::Relaxed);
            this_thread::sleep(MS)?;
            assert_eq!(runs.load(Ordering::Relaxed), now);
            // One that waits for nobody, and one that was never started.
            let waitable = HrTimer::waitable(TimerKind::Notification)?;
            waitable.start(US, US)?;
            let (closure, _, drops) = counting(US, Some(Irql::DISPATCH));
            let idle = HrTimer::new(closure)?;
            irql::with_raised(level, || drop((waitable, idle)))?;
            assert_eq!(drops.load(Ordering::Relaxed), 1);
            Ok(())
        });
    }
}

#[test]
fn ksync_48_a_timer_is_dropped_while_its_closure_runs_on_another_processor() {
    for level in LEVELS {
        let mut overlapped = 0;
        for seed in 0..60 {
            let outcome = Machine::new().processors(3).seed(seed).run(|| {
                let test = || -> Result {
                    let (closure, _, drops) = counting(US, Some(Irql::DISPATCH));
                    let (all, running) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
                    let now = running.clone();
                    let slow = move || {
                        now.fetch_add(1, Ordering::Relaxed);
                        closure();
                        if all.fetch_add(1, Ordering::Relaxed) < 4 {
                            for _ in 0..6 {
                                this_thread::stall(50 * US);
                            }
                        }
                        closure();
                        now.fetch_sub(1, Ordering::Relaxed);
                    };
                    let timer = HrTimer::new(slow)?;
                    // A timer expires on the processor that armed it.
                    let armed = Builder::new().affinity(0b010).spawn(move || timer.start(100 * US, 100 * US).map(|_| timer))?;
                    let timer = armed.join()??;
                    let dropping = Builder::new().affinity(0b001).spawn(move || {
                        while running.load(Ordering::Relaxed) == 0 {
                            this_thread::stall(10 * US);
                        }
                        irql::with_raised(level, || drop(timer)).unwrap();
                        running.load(Ordering::Relaxed)
                    })?;
                    let still_running = dropping.join()?;
                    assert!(still_running == 0 || level == Irql::DISPATCH);
                    if still_running != 0 {
                        ksync::println!("overlap");
                    }
                    ksync::driver::drain()?;
                    assert_eq!(drops.load(Ordering::Relaxed), 1);
                    Ok(())
                };
                test().unwrap();
            });
            overlapped += outcome.debug_output().len();
            outcome.expect_clean();
        }
        assert_eq!(overlapped > 0, level == Irql::DISPATCH, "{overlapped} at {level:?}");
    }
}

#[test]
fn ksync_48_a_timer_may_drop_its_own_handle() {
    on_machines(|| {
        let slot: Arc<Mutex<Option<HrTimer>>> = Arc::default();
        let (closure, runs, drops) = counting(US, Some(Irql::DISPATCH));
        let own = Arc::downgrade(&slot);
        let timer = HrTimer::new(move || {
            let handle = own.upgrade().unwrap().lock().unwrap().take();
            drop(handle);
            closure();
        })?;
        // The handle is in the slot before the timer may expire.
        let raised = irql::raise(Irql::DISPATCH)?;
        timer.start(10 * US, 10 * US)?;
        *slot.lock().unwrap() = Some(timer);
        drop(raised);
        this_thread::sleep(MS)?;
        ksync::driver::drain()?;
        assert_eq!((runs.load(Ordering::Relaxed), drops.load(Ordering::Relaxed)), (1, 1));
        Ok(())
    });
}

#[test]
fn a_timer_dropped_in_a_threaded_dpc_is_not_waited_for() {
    on_machines(|| {
        let (closure, _, drops) = counting(US, Some(Irql::DISPATCH));
        let timer = HrTimer::new(closure)?;
        timer.start(10 * US, 10 * US)?;
        let slot = Mutex::new(Some(timer));
        let dpc = ksync::dpc::ThreadedDpc::new(move || drop(slot.lock().unwrap().take()))?;
        dpc.enqueue()?;
        dpc.flush()?;
        ksync::driver::drain()?;
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        Ok(())
    });
}

#[test]
fn ksync_47_every_allocation_may_fail() {
    // The timer's block, then the system's timer.
    for failing in 1..=2 {
        Machine::new()
            .fail_allocation(failing)
            .run(|| {
                let (closure, _, drops) = counting(US, Some(Irql::DISPATCH));
                assert_eq!(HrTimer::new(closure).unwrap_err(), NtError::INSUFFICIENT_RESOURCES);
                assert_eq!(drops.load(Ordering::Relaxed), 1);
                let timer = HrTimer::waitable(TimerKind::Notification).unwrap();
                timer.start(US, Duration::ZERO).unwrap();
                assert!(timer.wait().success());
            })
            .expect_clean();
    }
    // Nothing is allocated when a timer goes, whatever the level.
    Machine::new()
        .fail_allocation(3)
        .run(|| {
            let timer = HrTimer::new(|| ()).unwrap();
            timer.start(US, US).unwrap();
            irql::with_raised(Irql::DISPATCH, || drop(timer)).unwrap();
            ksync::driver::drain().unwrap();
        })
        .expect_clean();
}

#[test]
fn a_system_without_them_says_so() {
    for profile in [OsProfile::Windows7, OsProfile::Windows8] {
        Machine::new()
            .profile(profile)
            .run(|| {
                let (closure, _, drops) = counting(US, Some(Irql::DISPATCH));
                assert_eq!(HrTimer::new(closure).unwrap_err(), NtError::NOT_SUPPORTED);
                assert_eq!(drops.load(Ordering::Relaxed), 1);
                assert_eq!(HrTimer::waitable(TimerKind::Notification).unwrap_err(), NtError::NOT_SUPPORTED);
                assert!(!HrTimer::is_supported());
            })
            .expect_clean();
    }
}

#[test]
fn levels_are_checked() {
    Machine::new()
        .run(|| {
            // Nobody has asked for the routines yet.
            let early = irql::with_raised(Irql::APC, || HrTimer::waitable(TimerKind::Notification).map(drop)).unwrap();
            assert_eq!(early, Err(NtError::IRQL_TOO_HIGH));
            let timer = HrTimer::new(|| ()).unwrap();
            // SAFETY: the level is restored below, and in between only operations run that check it.
            let old = unsafe { ksync::sys::KfRaiseIrql(5) };
            let results = [
                timer.start(MS, MS).map(drop),
                timer.start_tolerant(MS, MS, MS).map(drop),
                timer.cancel().map(drop),
                HrTimer::new(|| ()).map(drop),
                HrTimer::waitable(TimerKind::Notification).map(drop),
            ];
            // SAFETY: the level was raised above from this one.
            unsafe { ksync::sys::KeLowerIrql(old) };
            let too_high = Err(NtError::IRQL_TOO_HIGH);
            assert_eq!(results, [too_high, Err(NtError::INVALID_PARAMETER), too_high, too_high, too_high]);
            irql::with_raised(Irql::DISPATCH, || {
                assert_eq!(timer.start(MS, MS), Ok(false));
                assert_eq!(timer.cancel(), Ok(true));
                drop(HrTimer::new(|| ()).unwrap());
            })
            .unwrap();
        })
        .expect_clean();
}

#[test]
fn forgotten_timers_are_disarmed_by_a_drain() {
    for seed in 0..30 {
        let outcome = Machine::new().processors(2).seed(seed).run(|| {
            let (closure, runs, _) = counting(US, Some(Irql::DISPATCH));
            let timer = HrTimer::new(closure).unwrap();
            timer.start(10 * US, 10 * US).unwrap();
            std::mem::forget(timer);
            this_thread::sleep(100 * US).unwrap();
            ksync::driver::drain().unwrap();
            let now = runs.load(Ordering::Relaxed);
            this_thread::sleep(MS).unwrap();
            assert_eq!(runs.load(Ordering::Relaxed), now);
        });
        assert!(outcome.is_completed());
        assert!(outcome.left().timers.is_empty());
        assert_eq!(outcome.left().pool.len(), 2);
    }
}

#[test]
fn above_dispatch_level_a_timer_is_leaked_and_reported() {
    let outcome = Machine::new().run(|| {
        let timer = HrTimer::new(|| ()).unwrap();
        timer.start(MS, MS).unwrap();
        // SAFETY: the level is restored below.
        let old = unsafe { ksync::sys::KfRaiseIrql(5) };
        drop(timer);
        // SAFETY: the level was raised above from this one.
        unsafe { ksync::sys::KeLowerIrql(old) };
        ksync::driver::drain().unwrap();
    });
    assert!(outcome.is_completed());
    assert!(outcome.left().timers.is_empty());
    assert!(outcome.debug_output()[0].contains("leaked"));
}
