//! Timers and the clock: rules 50 to 55 and 57.

use ksim::{ClockMode, Machine};
use ksync_sys::*;
use std::cell::{Cell, RefCell};
use std::ptr::null_mut;
use test_support::*;

#[test]
fn rule_50_set_and_expire() {
    explore(|| {
        let (timer, start) = (Timer::notification(), now());
        assert!(!timer.state());
        assert!(!timer.set(-5 * MS));
        assert!(!timer.state());
        assert_eq!(wait(timer.object()), STATUS_SUCCESS);
        assert_eq!((now(), timer.state()), (start + 5 * MS, true));
        assert!(!timer.set(-5 * MS), "it had expired");
        assert!(!timer.state(), "setting makes it not signaled");
        assert!(timer.set(-7 * MS), "it was in the queue");
        wait(timer.object());
        assert_eq!(now(), start + 12 * MS);
        let absolute = system_time() + 3 * MS;
        timer.set(absolute);
        wait(timer.object());
        assert_eq!(system_time(), absolute);
    });
}

#[test]
fn rule_50_the_header_of_a_timer_has_no_size() {
    run(|| {
        let timer = Timer::notification();
        let header = raw!(timer.object().cast::<DISPATCHER_HEADER>().read());
        assert_eq!((header.Type, header.Size, header.SignalState), (TimerNotificationObject as u8, 0, 0));
    });
}

#[test]
fn rule_50_setting_again_cancels_the_old_dpc() {
    explore(|| {
        let (timer, log) = (Timer::notification(), Log::default());
        let (old, new) = (Dpc::new(|| log.push("old")), Dpc::new(|| log.push("new")));
        timer.set_with(-5 * MS, 0, old.ptr());
        timer.set_with(-9 * MS, 0, new.ptr());
        sleep(20 * MS);
        flush_dpcs();
        assert_eq!(log.take(), ["new"]);
    });
}

#[test]
fn rule_50_past_due_time_expires_in_the_call() {
    explore(|| {
        let (timer, ran) = (Timer::notification(), Cell::new(0));
        let dpc = Dpc::new(|| ran.set(ran.get() + 1));
        for due in [0, 1, system_time()] {
            assert!(!timer.set_with(due, 0, dpc.ptr()));
            assert!(timer.state());
        }
        flush_dpcs();
        assert_eq!(ran.get(), 3);
    });
}

#[test]
fn rule_50_arguments_of_the_dpc_are_the_system_time() {
    explore(|| {
        let (timer, seen) = (Timer::notification(), Cell::new(0));
        let dpc = Dpc::with_arguments(|_, low, high| seen.set((high as i64) << 32 | low as i64));
        let due = system_time() + 5 * MS;
        timer.set_with(-5 * MS, 0, dpc.ptr());
        wait(timer.object());
        flush_dpcs();
        assert_eq!(seen.get(), due);
    });
}

#[test]
fn rule_50_units() {
    run(|| {
        let (timer, times) = (Timer::synchronization(), RefCell::new(vec![]));
        let start = now();
        timer.set_with(-30_000, 2, null_mut());
        for _ in 0..4 {
            wait(timer.object());
            times.borrow_mut().push(now() - start);
        }
        timer.cancel();
        assert_eq!(*times.borrow(), [3 * MS, 5 * MS, 7 * MS, 9 * MS]);
    });
}

#[test]
fn rule_51_cancel() {
    explore(|| {
        let (timer, ran) = (Timer::notification(), Cell::new(0));
        let dpc = Dpc::new(|| ran.set(ran.get() + 1));
        assert!(!timer.cancel());
        timer.set_with(-5 * MS, 0, dpc.ptr());
        assert!(timer.cancel());
        assert!(!timer.cancel());
        sleep(10 * MS);
        assert_eq!((ran.get(), timer.state()), (0, false));
        timer.set_with(-5 * MS, 0, dpc.ptr());
        sleep(10 * MS);
        assert!(!timer.cancel(), "its DPC has been queued");
        assert_eq!(ran.get(), 1);
        assert!(timer.state(), "cancelling does not clear it");
        timer.set_with(-MS, 1, dpc.ptr());
        sleep(10 * MS);
        assert!(timer.cancel(), "a periodic one is always in the queue");
        flush_dpcs();
        let ran_so_far = ran.get();
        sleep(10 * MS);
        assert_eq!(ran.get(), ran_so_far);
    });
}

#[test]
fn rule_51_a_queued_dpc_survives_the_cancel() {
    run(|| {
        let (timer, ran) = (Timer::notification(), Cell::new(0));
        let dpc = Dpc::new(|| ran.set(ran.get() + 1));
        at(DISPATCH_LEVEL, || {
            timer.set_with(0, 0, dpc.ptr());
            assert!(!timer.cancel());
        });
        assert_eq!(ran.get(), 1);
    });
}

#[test]
fn rule_52_periodic_timers_rearm_at_expiry() {
    explore(|| {
        let (timer, start) = (Timer::synchronization(), now());
        let times = RefCell::new(vec![]);
        let dpc = Dpc::new(|| times.borrow_mut().push((now() - start) / MS));
        timer.set_with(-10 * MS, 10, dpc.ptr());
        sleep(55 * MS);
        assert!(timer.cancel());
        flush_dpcs();
        assert_eq!(*times.borrow(), [10, 20, 30, 40, 50]);
    });
}

#[test]
fn rule_52_a_periodic_timers_dpc_must_not_free_it() {
    // It is armed again when its DPC runs. That of a one-shot timer may free it.
    let freed_by_its_dpc = |period: i32| {
        Machine::new().run(|| {
            let timer: *mut KTIMER = allocate(size_of::<KTIMER>()).cast();
            raw!(KeInitializeTimer(timer));
            let dpc = Dpc::new(|| free(timer.cast()));
            raw!(KeSetTimerEx(timer, -MS, period, dpc.ptr()));
            sleep(5 * MS);
            flush_dpcs();
        })
    };
    freed_by_its_dpc(0).expect_clean();
    assert_eq!(freed_by_its_dpc(1).expect_bug_check(0xc4).parameters[0], 0x15);
}

#[test]
fn rule_52_period_goes_on_after_a_past_due_time() {
    run(|| {
        let (timer, start) = (Timer::synchronization(), now());
        timer.set_with(0, 4, null_mut());
        for count in 0..4 {
            wait(timer.object());
            assert_eq!(now() - start, count * 4 * MS);
        }
        assert!(timer.cancel());
    });
}

#[test]
fn rule_53_notification_and_synchronization_timers() {
    explore(|| {
        let log = Log::default();
        let release = |timer: &Timer| {
            let threads: Vec<_> = (0..3)
                .map(|_| {
                    spawn(|| {
                        if wait_until(timer.object(), -10 * MS) == STATUS_SUCCESS {
                            log.push("released");
                        }
                    })
                })
                .collect();
            settle();
            timer.set(-MS);
            join_all(threads);
            log.take().len()
        };
        let (notification, synchronization) = (Timer::notification(), Timer::synchronization());
        assert_eq!(release(&notification), 3);
        assert!(notification.state());
        assert_eq!(release(&synchronization), 1);
        assert!(!synchronization.state());
        synchronization.set(0);
        assert_eq!(poll(synchronization.object()), STATUS_SUCCESS);
        assert_eq!(poll(synchronization.object()), STATUS_TIMEOUT);
    });
}

#[test]
fn rule_54_coalescable_timers_expire_within_their_tolerance() {
    let delay = |seed: u64, tolerable: u32| {
        let delay = Cell::new(-1);
        let outcome = Machine::new().seed(seed).run(|| {
            let (timer, start) = (Timer::notification(), now());
            raw!(KeSetCoalescableTimer(timer.ptr(), -10 * MS, 0, tolerable, null_mut()));
            wait(timer.object());
            delay.set(now() - start - 10 * MS);
        });
        outcome.expect_clean();
        delay.get()
    };
    let seen: Vec<_> = (0..40).map(|seed| delay(seed, 8)).collect();
    assert!(seen.iter().all(|delay| (0..=8 * MS).contains(delay)), "{seen:?}");
    assert!(seen.contains(&0) && seen.contains(&(8 * MS)), "{seen:?}");
    assert!((0..10).all(|seed| delay(seed, 0) == 0));
}

#[test]
fn rule_54_each_period_of_a_coalescable_timer_is_within_its_tolerance() {
    let mut seen = [false; 2];
    for seed in 0..40 {
        let outcome = Machine::new().seed(seed).run(|| {
            let (timer, start) = (Timer::synchronization(), now());
            raw!(KeSetCoalescableTimer(timer.ptr(), -10 * MS, 20, 8, null_mut()));
            for expiry in 0..5 {
                wait(timer.object());
                let late = now() - start - 10 * MS - expiry * 20 * MS;
                assert!((0..=8 * MS).contains(&late), "{late}");
                raw!(DbgPrint(if late == 0 { c"in time\n" } else { c"late\n" }.as_ptr()));
            }
            // One that is set again goes by what it is set to.
            assert!(timer.set(-MS));
            let start = now();
            wait(timer.object());
            assert_eq!(now() - start, MS);
        });
        for line in outcome.debug_output() {
            seen[usize::from(line == "late")] = true;
        }
        outcome.expect_clean();
    }
    assert_eq!(seen, [true; 2]);
}

#[test]
fn rule_51_and_54_a_coalescable_timer_is_cancelled_while_it_is_late() {
    for seed in 0..20 {
        Machine::new()
            .seed(seed)
            .run(|| {
                let (timer, ran) = (Timer::notification(), Cell::new(0));
                let dpc = Dpc::new(|| ran.set(ran.get() + 1));
                raw!(KeSetCoalescableTimer(timer.ptr(), -10 * MS, 0, 8, dpc.ptr()));
                sleep(10 * MS);
                let cancelled = timer.cancel();
                flush_dpcs();
                sleep(20 * MS);
                assert_eq!(ran.get(), u32::from(!cancelled));
            })
            .expect_clean();
    }
}

#[test]
fn rule_55_initialising_an_armed_timer_does_not_stop_it() {
    explore(|| {
        let (timer, ran) = (Timer::notification(), Cell::new(0));
        let dpc = Dpc::new(|| ran.set(ran.get() + 1));
        timer.set_with(-5 * MS, 0, dpc.ptr());
        raw!(KeInitializeTimerEx(timer.ptr(), NotificationTimer));
        assert!(!timer.state());
        sleep(10 * MS);
        flush_dpcs();
        assert_eq!((ran.get(), timer.state()), (1, true));
    });
}

#[test]
fn rule_57_two_clocks() {
    explore(|| {
        let (interrupt, system) = (now(), system_time());
        sleep(SECOND);
        assert_eq!((now() - interrupt, system_time() - system), (SECOND, SECOND));
        ksim::set_system_time(system - SECOND);
        assert_eq!((now() - interrupt, system_time() - system), (SECOND, -SECOND));
        sleep(SECOND);
        assert_eq!((now() - interrupt, system_time() - system), (2 * SECOND, 0));
    });
}

#[test]
fn rule_57_setting_the_system_time_expires_absolute_timers() {
    explore(|| {
        let (timer, start) = (Timer::notification(), now());
        timer.set(system_time() + 100 * SECOND);
        let relative = Timer::notification();
        relative.set(-100 * SECOND);
        ksim::set_system_time(system_time() + 200 * SECOND);
        assert_eq!(poll(timer.object()), STATUS_SUCCESS);
        assert_eq!(now(), start);
        assert_eq!(poll(relative.object()), STATUS_TIMEOUT);
        wait(relative.object());
        assert_eq!(now() - start, 100 * SECOND);
    });
}

#[test]
fn rule_57_tick_clock_rounds_up_to_ticks() {
    const TICK: i64 = 156_250;
    for seed in 0..10 {
        Machine::new()
            .seed(seed)
            .processors(2)
            .clock(ClockMode::DEFAULT_TICK)
            .run(|| {
                assert_eq!(raw!(KeQueryTimeIncrement()), 156_250);
                let timer = Timer::notification();
                for (delay, ticks) in [(1, 1), (MS, 1), (TICK, 1), (TICK + 1, 2), (10 * TICK, 10), (20 * MS, 2)] {
                    let start = now();
                    assert_eq!(start % TICK, 0);
                    timer.set(-delay);
                    wait(timer.object());
                    assert_eq!(now() - start, ticks * TICK, "delay {delay}");
                    let start = now();
                    sleep(delay);
                    assert_eq!(now() - start, ticks * TICK, "delay {delay}");
                }
                let start = now();
                raw!(KeStallExecutionProcessor(1));
                let mut precise = 0;
                assert_eq!(now(), start);
                raw!(KeQueryInterruptTimePrecise(&mut precise));
                assert_eq!(precise as i64, start + 10);
                let mut unbiased = 0;
                assert_eq!(raw!(KeQueryUnbiasedInterruptTimePrecise(&mut unbiased)), precise);
                assert_eq!(unbiased, precise);
                let mut ticks = 0;
                raw!(KeQueryTickCount(&mut ticks));
                assert_eq!(ticks, start / TICK);
            })
            .expect_clean();
    }
}

#[test]
fn rule_57_timers_of_one_moment_expire_in_order_of_insertion() {
    run(|| {
        let log = Log::default();
        let timers: Vec<_> = (0..5).map(|_| Timer::notification()).collect();
        let dpcs: Vec<_> = (0..5)
            .map(|index| {
                let log = &log;
                Dpc::new(move || log.push(index))
            })
            .collect();
        let absolute = system_time() + 5 * MS;
        for (index, (timer, dpc)) in timers.iter().zip(&dpcs).enumerate() {
            timer.set_with(if index % 2 == 0 { -5 * MS } else { absolute }, 0, dpc.ptr());
        }
        sleep(10 * MS);
        assert_eq!(log.take(), ["0", "1", "2", "3", "4"]);
    });
}

#[test]
fn rule_57_expiry_waits_until_the_level_falls() {
    run(|| {
        let (timer, ran) = (Timer::notification(), Cell::new(false));
        let dpc = Dpc::new(|| ran.set(true));
        timer.set_with(-MS, 0, dpc.ptr());
        at(DISPATCH_LEVEL, || {
            raw!(KeStallExecutionProcessor(5_000));
            assert!(!ran.get());
        });
        assert!(ran.get());
    });
}
