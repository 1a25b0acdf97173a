//! Timers, on the hosted kernel.

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use ksim::Machine;
use ksync::NtError;
use ksync::init::stack_try_pin_init;
use ksync::irql::{self, Irql};
use ksync::thread::{self, Builder, this_thread};
use ksync::time::{InterruptTime, SystemTime, Timeout};
use ksync::timer::{PinnedTimer, Timer, TimerKind};
use ksync::wait::{Dispatchable, WaitOptions, WaitResult};
use std::sync::{Arc, Mutex};

use test_support::owned::{counting, on_machines, on_seeds};

const MS: Duration = Duration::from_millis(1);

#[test]
fn ksync_2_a_periodic_timer_runs_its_closure_each_time() {
    for threaded in [false, true] {
        on_machines(|| {
            let (closure, runs, drops) = counting(Duration::from_micros(5), None);
            let timer = Arc::new(Timer::new(closure, threaded)?);
            timer.start(Duration::ZERO, Duration::from_secs(5))?;
            this_thread::sleep(Duration::from_secs(21))?;
            assert_eq!(runs.load(Ordering::Relaxed), 5);
            assert_eq!(drops.load(Ordering::Relaxed), 0);
            drop(timer);
            assert_eq!(drops.load(Ordering::Relaxed), 1);
            this_thread::sleep(Duration::from_secs(21))?;
            assert_eq!(runs.load(Ordering::Relaxed), 5);
            Ok(())
        });
    }
}

#[test]
fn ksync_13_an_armed_timer_is_cancelled_when_it_is_dropped_at_any_level() {
    for level in [Irql::PASSIVE, Irql::APC, Irql::DISPATCH] {
        for threaded in [false, true] {
            on_machines(|| {
                let (closure, runs, drops) = counting(Duration::from_micros(5), None);
                let timer = Timer::new(closure, threaded)?;
                timer.start(10 * MS, MS)?;
                // An expiry is due on another processor just now.
                this_thread::sleep(10 * MS)?;
                irql::with_raised(level, || drop(timer))?;
                let before = runs.load(Ordering::Relaxed);
                ksync::driver::drain()?;
                assert_eq!(drops.load(Ordering::Relaxed), 1);
                let now = runs.load(Ordering::Relaxed);
                assert!(now == before || level != Irql::PASSIVE);
                this_thread::sleep(10 * MS)?;
                assert_eq!(runs.load(Ordering::Relaxed), now);
                Ok(())
            });
        }
    }
}

#[test]
fn a_timer_is_dropped_while_its_closure_runs_on_another_processor() {
    for level in [Irql::PASSIVE, Irql::APC, Irql::DISPATCH] {
        on_seeds(|| {
            let (closure, _, drops) = counting(Duration::from_micros(5), None);
            let (runs, running) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
            let (all, now) = (runs.clone(), running.clone());
            let slow = move || {
                now.fetch_add(1, Ordering::Relaxed);
                closure();
                // Longer than the period, but not for ever, or nothing else would get the processor.
                if all.fetch_add(1, Ordering::Relaxed) < 4 {
                    for _ in 0..6 {
                        this_thread::stall(MS / 2);
                    }
                }
                closure();
                now.fetch_sub(1, Ordering::Relaxed);
            };
            let timer = Timer::new(slow, false)?;
            // A timer expires on the processor that armed it.
            let armed = Builder::new().affinity(0b010).spawn(move || timer.start(MS, MS).map(|_| timer))?;
            let timer = armed.join()??;
            let dropping = Builder::new().affinity(0b001).spawn(move || {
                while running.load(Ordering::Relaxed) == 0 {
                    this_thread::stall(MS / 10);
                }
                irql::with_raised(level, || drop(timer)).unwrap();
                running.load(Ordering::Relaxed)
            })?;
            let still_running = dropping.join()?;
            assert!(still_running == 0 || level != Irql::PASSIVE);
            ksync::driver::drain()?;
            assert_eq!(drops.load(Ordering::Relaxed), 1);
            Ok(())
        });
    }
}

#[test]
fn a_timer_dropped_at_dispatch_level_is_freed_without_a_drain() {
    on_machines(|| {
        let (closure, _, drops) = counting(Duration::from_micros(5), None);
        let timer = Timer::new(closure, false)?;
        timer.start(Duration::ZERO, MS)?;
        irql::with_raised(Irql::DISPATCH, || drop(timer))?;
        this_thread::sleep(Duration::from_secs(1))?;
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        Ok(())
    });
}

#[test]
fn a_timer_that_can_be_freed_neither_now_nor_later_is_leaked_and_reported() {
    // The timer's own block, then the DPCs that would free it.
    let outcome = Machine::new().fail_allocation(2).run(|| {
        let timer = Timer::new(|| (), false).unwrap();
        timer.start(MS, MS).unwrap();
        irql::with_raised(Irql::DISPATCH, || drop(timer)).unwrap();
        ksync::driver::drain().unwrap();
    });
    assert!(outcome.is_completed());
    assert_eq!(outcome.left().pool.len(), 1);
    assert!(outcome.left().timers.is_empty());
    assert!(outcome.debug_output()[0].contains("leaked"));
}

#[test]
fn a_timer_may_drop_its_own_handle() {
    for threaded in [false, true] {
        on_machines(|| {
            let slot: Arc<Mutex<Option<Timer>>> = Arc::default();
            let (closure, runs, drops) = counting(Duration::from_micros(5), None);
            let own = Arc::downgrade(&slot);
            let timer = Timer::new(
                move || {
                    let handle = own.upgrade().unwrap().lock().unwrap().take();
                    drop(handle);
                    closure();
                },
                threaded,
            )?;
            timer.start(MS, MS)?;
            *slot.lock().unwrap() = Some(timer);
            this_thread::sleep(10 * MS)?;
            ksync::driver::drain()?;
            assert_eq!((runs.load(Ordering::Relaxed), drops.load(Ordering::Relaxed)), (1, 1));
            Ok(())
        });
    }
}

#[test]
fn ksync_47_no_memory_is_an_error_and_leaks_nothing() {
    Machine::new()
        .fail_allocation(1)
        .run(|| {
            let (closure, _, drops) = counting(Duration::from_micros(5), None);
            assert_eq!(Timer::new(closure, false).unwrap_err(), NtError::INSUFFICIENT_RESOURCES);
            assert_eq!(drops.load(Ordering::Relaxed), 1);
            assert!(Timer::waitable(TimerKind::Notification).is_ok());
        })
        .expect_clean();
}

#[test]
fn forgotten_timers_are_disarmed_by_a_drain() {
    let outcome = Machine::new().run(|| {
        let timer = Timer::new(|| (), false).unwrap();
        timer.start(MS, MS).unwrap();
        std::mem::forget(timer);
        ksync::driver::drain().unwrap();
    });
    assert!(outcome.is_completed());
    assert!(outcome.left().timers.is_empty());
    assert_eq!(outcome.left().pool.len(), 1);
}

#[test]
fn ksync_39_periods_and_due_times_neither_wrap_nor_vanish() {
    on_machines(|| {
        let timer = Timer::waitable(TimerKind::Notification)?;
        for wrong in [
            Duration::from_nanos(1),
            Duration::from_micros(500),
            Duration::from_micros(1_500),
            Duration::from_millis(1 << 31),
            Duration::MAX,
        ] {
            assert_eq!(timer.start(MS, wrong), Err(NtError::INVALID_PARAMETER));
        }
        assert!(!timer.cancel()?);
        timer.start(Duration::MAX, Duration::ZERO)?;
        assert!(timer.wait_for(Duration::from_secs(100 * 365 * 86_400), false).timed_out());
        assert!(timer.start(Duration::from_micros(500), Duration::ZERO)?);
        let before = InterruptTime::now();
        assert!(timer.wait().success());
        assert_eq!(before.elapsed(), Duration::from_micros(500));
        timer.start(Duration::from_nanos(1), Duration::ZERO)?;
        assert!(!timer.is_signaled()?);
        assert!(timer.wait().success());
        Ok(())
    });
}

#[test]
fn rule_53_kinds() {
    on_machines(|| {
        let notification = Timer::waitable(TimerKind::Notification)?;
        notification.start(MS, Duration::ZERO)?;
        assert!(notification.wait().success());
        assert!(notification.wait().success());
        let synchronization = Timer::waitable(TimerKind::Synchronization)?;
        synchronization.start(MS, Duration::ZERO)?;
        assert!(synchronization.wait().success());
        assert!(synchronization.wait_with(Timeout::POLL.into()).timed_out());
        Ok(())
    });
}

#[test]
fn rule_50_starting_cancels_and_clears() {
    on_machines(|| {
        let (closure, runs, _) = counting(Duration::from_micros(5), None);
        let timer = Timer::with_kind(TimerKind::Notification, closure, false)?;
        assert!(!timer.start(MS, Duration::ZERO)?);
        assert!(timer.start(2 * MS, Duration::ZERO)?);
        assert!(timer.wait().success());
        assert!(!timer.start(MS, Duration::ZERO)?);
        assert!(!timer.is_signaled()?);
        assert!(timer.cancel()?);
        assert!(!timer.cancel()?);
        this_thread::sleep(10 * MS)?;
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        Ok(())
    });
}

#[test]
fn rule_15_dates_move_with_the_system_time() {
    on_machines(|| {
        let hour = Duration::from_secs(3600);
        let timer = Timer::waitable(TimerKind::Notification)?;
        timer.start_at(SystemTime::now().saturating_add(hour), Duration::ZERO)?;
        assert!(timer.wait_for(MS, false).timed_out());
        ksim::set_system_time(SystemTime::now().saturating_add(hour).ticks());
        assert!(timer.wait_for(MS, false).success());
        timer.start_at(SystemTime::EPOCH, Duration::ZERO)?;
        assert!(timer.is_signaled()?);
        Ok(())
    });
}

#[test]
fn in_place_timers_are_cancelled_when_they_go() {
    on_machines(|| {
        {
            stack_try_pin_init!(let timer = PinnedTimer::pin_init(TimerKind::Synchronization));
            let timer = timer?.into_ref().get_ref();
            timer.start(MS, MS)?;
            for _ in 0..3 {
                assert_eq!(timer.wait(), WaitResult::Signaled(0));
            }
        }
        // The machine reports timers that are armed.
        this_thread::sleep(10 * MS)
    });
}

#[test]
fn levels_are_checked() {
    on_machines(|| {
        let timer = Timer::new(|| (), false)?;
        // SAFETY: the level is restored below, and in between only operations run that check it.
        let old = unsafe { ksync::sys::KfRaiseIrql(5) };
        let results = [
            timer.start(MS, MS).map(drop),
            timer.start_at(SystemTime::EPOCH, MS).map(drop),
            timer.cancel().map(drop),
            timer.is_signaled().map(drop),
            Timer::new(|| (), false).map(drop),
            Timer::waitable(TimerKind::Notification).map(drop),
        ];
        // SAFETY: the level was raised above from this one.
        unsafe { ksync::sys::KeLowerIrql(old) };
        assert_eq!(results, [Err(NtError::IRQL_TOO_HIGH); 6]);
        irql::with_raised(Irql::DISPATCH, || {
            assert_eq!(timer.start(MS, MS), Ok(false));
            assert_eq!(timer.cancel(), Ok(true));
            drop(Timer::new(|| (), false).unwrap());
        })
    });
}

#[test]
fn ksync_50_a_timer_is_shared_by_threads() {
    on_machines(|| {
        let timer = Timer::waitable(TimerKind::Synchronization)?;
        let expiries = thread::scope(|scope| {
            let waiters: Vec<_> =
                (0..3).map(|_| scope.spawn(|| timer.wait_with(WaitOptions::new()).success()).unwrap()).collect();
            timer.start(MS, MS).unwrap();
            waiters.into_iter().filter(|_| true).map(|waiter| waiter.join().unwrap()).filter(|success| *success).count()
        });
        assert_eq!(expiries, 3);
        Ok(())
    });
}
