//! EX_TIMER and the clock's tick: rules 53, 56 and 57.

use ksim::{ClockMode, Machine};
use ksync_sys::*;
use std::cell::{Cell, RefCell};
use std::ptr::null_mut;
use test_support::*;

const US: i64 = 10;
const TICK: i64 = 156_250;

type Callback<'a> = Box<dyn Fn(*mut EX_TIMER) + 'a>;

/// A timer of the system's whose callback runs a closure.
struct ExTimer<'a> {
    timer: *mut EX_TIMER,
    _callback: Box<Callback<'a>>,
}

unsafe extern "system-unwind" fn callback(timer: *mut EX_TIMER, context: PVOID) {
    // SAFETY: the context is the closure of a live `ExTimer`.
    let callback = unsafe { &*context.cast::<Callback<'_>>() };
    callback(timer);
}

unsafe extern "system-unwind" fn count_deletion(context: PVOID) {
    // SAFETY: the tests pass a cell that outlives the timer.
    let count = unsafe { &*context.cast::<Cell<u32>>() };
    count.set(count.get() + 1);
}

impl<'a> ExTimer<'a> {
    fn new(attributes: ULONG, callback: impl Fn(*mut EX_TIMER) + 'a) -> Self {
        let closure: Box<Callback<'a>> = Box::new(Box::new(callback));
        let context = (&raw const *closure).cast_mut().cast();
        let timer = raw!(ExAllocateTimer(Some(self::callback), context, attributes));
        assert!(!timer.is_null());
        Self { timer, _callback: closure }
    }

    fn waitable(attributes: ULONG) -> ExTimer<'static> {
        let timer = raw!(ExAllocateTimer(None, null_mut(), attributes));
        assert!(!timer.is_null());
        ExTimer { timer, _callback: Box::new(Box::new(|_| {})) }
    }

    fn object(&self) -> PVOID {
        self.timer.cast()
    }

    fn set(&self, due: i64, period: i64) -> bool {
        raw!(ExSetTimer(self.timer, due, period, null_mut())) != 0
    }

    fn set_with_tolerance(&self, due: i64, period: i64, tolerance: i64) -> bool {
        let mut parameters = EXT_SET_PARAMETERS { Version: 9, Reserved: 9, NoWakeTolerance: 9 };
        raw!(ExInitializeSetTimerParameters(&mut parameters));
        parameters.NoWakeTolerance = tolerance;
        raw!(ExSetTimer(self.timer, due, period, &mut parameters)) != 0
    }

    fn cancel(&self) -> bool {
        raw!(ExCancelTimer(self.timer, null_mut())) != 0
    }

    /// Cancels and waits.
    fn delete(&self) -> bool {
        raw!(ExDeleteTimer(self.timer, TRUE, TRUE, null_mut())) != 0
    }

    fn delete_then_count(&self, cancel: bool, count: &Cell<u32>) -> bool {
        let mut parameters =
            EXT_DELETE_PARAMETERS { Version: 9, Reserved: 9, DeleteCallback: Some(count_deletion), DeleteContext: null_mut() };
        raw!(ExInitializeDeleteTimerParameters(&mut parameters));
        parameters.DeleteCallback = Some(count_deletion);
        parameters.DeleteContext = (&raw const *count).cast_mut().cast();
        raw!(ExDeleteTimer(self.timer, cancel.into(), FALSE, &mut parameters)) != 0
    }
}

#[test]
fn rule_56_the_callback_runs_at_dispatch_level_at_each_expiry() {
    explore(|| {
        let (ran, start) = (RefCell::new(vec![]), now());
        let timer = ExTimer::new(EX_TIMER_HIGH_RESOLUTION, |_| {
            assert_eq!(irql(), DISPATCH_LEVEL);
            ran.borrow_mut().push(now() - start);
        });
        assert!(!timer.set(-100 * US, 250 * US), "it was not pending");
        sleep(1_000 * US);
        assert!(timer.delete(), "it was pending");
        assert_eq!(*ran.borrow(), [100 * US, 350 * US, 600 * US, 850 * US]);
    });
}

#[test]
fn rule_56_setting_tells_whether_it_cancelled_a_pending_one() {
    explore(|| {
        let ran = Cell::new(0);
        let timer = ExTimer::new(0, |_| ran.set(ran.get() + 1));
        assert!(!timer.cancel());
        assert!(!timer.set(-5 * MS, 0));
        assert!(timer.set(-7 * MS, 0));
        sleep(6 * MS);
        assert_eq!(ran.get(), 0);
        assert!(timer.cancel());
        assert!(!timer.cancel());
        sleep(5 * MS);
        assert_eq!(ran.get(), 0);
        timer.set(-MS, 0);
        sleep(2 * MS);
        assert!(!timer.set(system_time() + MS, 0), "it had expired");
        sleep(2 * MS);
        assert_eq!(ran.get(), 2);
        timer.set(0, 0);
        sleep(1);
        assert_eq!(ran.get(), 3, "what is past expires at once");
        assert!(!timer.delete());
    });
}

#[test]
fn rule_53_and_56_both_kinds_can_be_waited_on() {
    explore(|| {
        let notification = ExTimer::waitable(EX_TIMER_NOTIFICATION | EX_TIMER_HIGH_RESOLUTION);
        let synchronization = ExTimer::waitable(EX_TIMER_HIGH_RESOLUTION);
        let released = |timer: &ExTimer<'_>| {
            let count = Cell::new(0);
            let threads: Vec<_> = (0..3)
                .map(|_| {
                    spawn(|| {
                        if wait_until(timer.object(), -MS) == STATUS_SUCCESS {
                            count.set(count.get() + 1);
                        }
                    })
                })
                .collect();
            settle();
            timer.set(-50 * US, 0);
            join_all(threads);
            count.get()
        };
        assert_eq!(released(&notification), 3);
        assert_eq!(released(&synchronization), 1);
        assert_eq!(poll(notification.object()), STATUS_SUCCESS);
        assert_eq!(poll(synchronization.object()), STATUS_TIMEOUT);
        notification.set(-MS, 0);
        assert_eq!(poll(notification.object()), STATUS_TIMEOUT, "setting clears it");
        assert!(notification.delete());
        assert!(!synchronization.delete());
    });
}

#[test]
fn rule_56_deletion_waits_for_a_running_callback() {
    let seen = (0..60).any(|seed| {
        let while_running = Cell::new(false);
        Machine::new()
            .processors(2)
            .seed(seed)
            .run(|| {
                let (begun, ended) = (Cell::new(0), Cell::new(0));
                let timer = ExTimer::new(EX_TIMER_HIGH_RESOLUTION, |_| {
                    begun.set(begun.get() + 1);
                    for _ in 0..5 {
                        raw!(KeStallExecutionProcessor(1));
                    }
                    ended.set(ended.get() + 1);
                });
                // A timer expires on the processor that set it.
                spawn(|| {
                    raw!(KeSetSystemAffinityThreadEx(0b10));
                    timer.set(-5 * US, 100 * US);
                })
                .join();
                raw!(KeSetSystemAffinityThreadEx(0b01));
                while begun.get() == 0 {
                    raw!(KeStallExecutionProcessor(1));
                }
                while_running.set(begun.get() > ended.get());
                timer.delete();
                assert_eq!(begun.get(), ended.get());
            })
            .expect_clean();
        while_running.get()
    });
    assert!(seen);
}

#[test]
fn rule_56_a_deleted_timer_cannot_be_set_by_its_callback() {
    explore_on(&[2, 4], || {
        let (kept_going, count) = (Cell::new(0), Cell::new(0));
        let timer = ExTimer::new(EX_TIMER_HIGH_RESOLUTION, |timer| {
            count.set(count.get() + 1);
            raw!(KeStallExecutionProcessor(1));
            // A callback that sets its timer for ever: the deletion disables the timer.
            if raw!(ExSetTimer(timer, -10 * US, 0, null_mut())) != 0 {
                kept_going.set(kept_going.get() + 1);
            }
        });
        timer.set(-10 * US, 0);
        sleep(MS);
        timer.delete();
        let ran = count.get();
        assert!(ran > 10);
        sleep(MS);
        assert_eq!(count.get(), ran);
        assert_eq!(kept_going.get(), 0, "it was never pending in its own callback");
    });
}

#[test]
fn rule_56_a_deletion_that_does_not_wait_tells_when_it_is_over() {
    explore(|| {
        let (ran, deleted) = (Cell::new(0), Cell::new(0));
        let timer = || {
            ExTimer::new(0, |_| {
                assert_eq!(deleted.get(), 0);
                ran.set(ran.get() + 1);
            })
        };
        // Pending and cancelled: at once. Never set: the same.
        let idle = timer();
        assert!(!idle.delete_then_count(true, &deleted));
        assert_eq!(deleted.take(), 1);
        let pending = timer();
        pending.set(-MS, 0);
        assert!(pending.delete_then_count(true, &deleted));
        assert_eq!((deleted.take(), ran.get()), (1, 0));
        // Pending and not cancelled: after the expiry, of which a periodic timer has one more.
        let pending = timer();
        pending.set(-MS, MS);
        assert!(!pending.delete_then_count(false, &deleted), "TRUE is for what was cancelled");
        assert_eq!(deleted.get(), 0);
        sleep(5 * MS);
        assert_eq!((deleted.take(), ran.take()), (1, 1));
        // The same for one without a callback.
        let waitable = ExTimer::waitable(0);
        waitable.set(-MS, MS);
        waitable.delete_then_count(false, &deleted);
        assert_eq!(deleted.get(), 0);
        sleep(5 * MS);
        assert_eq!(deleted.get(), 1);
    });
}

#[test]
fn rule_56_a_callback_deletes_its_own_timer() {
    explore(|| {
        let (ran, deleted) = (Cell::new(0), Cell::new(0));
        let timer = ExTimer::new(EX_TIMER_HIGH_RESOLUTION, |timer| {
            ran.set(ran.get() + 1);
            let mut parameters = EXT_DELETE_PARAMETERS {
                Version: 0,
                Reserved: 0,
                DeleteCallback: Some(count_deletion),
                DeleteContext: null_mut(),
            };
            parameters.DeleteContext = (&raw const deleted).cast_mut().cast();
            assert_eq!(raw!(ExDeleteTimer(timer, TRUE, FALSE, &mut parameters)), TRUE, "the next expiry was pending");
            assert_eq!(deleted.get(), 0, "the timer is there as long as its callback runs");
        });
        timer.set(-10 * US, 10 * US);
        sleep(MS);
        assert_eq!((ran.get(), deleted.get()), (1, 1));
    });
}

#[test]
fn rule_56_the_callback_is_guaranteed_once_signaled() {
    // At DISPATCH_LEVEL the callback waits for the level to fall, whatever becomes of the timer meanwhile.
    run(|| {
        let ran = Cell::new(0);
        let timer = ExTimer::new(0, |_| ran.set(ran.get() + 1));
        at(DISPATCH_LEVEL, || {
            timer.set(0, 0);
            assert_eq!(poll(timer.object()), STATUS_SUCCESS);
            assert!(!timer.cancel());
            timer.set(0, 0);
            assert_eq!(ran.get(), 0);
        });
        assert_eq!(ran.get(), 2);
        timer.delete();
    });
}

#[test]
fn rule_56_no_more_than_one_expiry_a_tick() {
    for seed in 0..10 {
        Machine::new()
            .clock(ClockMode::DEFAULT_TICK)
            .seed(seed)
            .run(|| {
                let (coarse, fine) = (Cell::new(0), Cell::new(0));
                let ordinary = ExTimer::new(0, |_| coarse.set(coarse.get() + 1));
                let precise = ExTimer::new(EX_TIMER_HIGH_RESOLUTION, |_| fine.set(fine.get() + 1));
                ordinary.set(-MS, MS);
                precise.set(-MS, MS);
                sleep(10 * TICK);
                ordinary.cancel();
                precise.cancel();
                assert!((9..=10).contains(&coarse.get()), "{}", coarse.get());
                assert!((155..=157).contains(&fine.get()), "{}", fine.get());
                ordinary.delete();
                precise.delete();
            })
            .expect_clean();
    }
}

#[test]
fn rule_57_high_resolution_timers_expire_between_ticks() {
    for seed in 0..10 {
        Machine::new()
            .clock(ClockMode::DEFAULT_TICK)
            .seed(seed)
            .run(|| {
                let precise_now = || {
                    let mut time = 0;
                    raw!(KeQueryInterruptTimePrecise(&mut time));
                    time as i64
                };
                let timer = ExTimer::waitable(EX_TIMER_HIGH_RESOLUTION);
                for delay in [1, 5 * US, 500 * US, MS, 20 * MS] {
                    let start = precise_now();
                    timer.set(-delay, 0);
                    wait(timer.object());
                    assert_eq!(precise_now() - start, delay);
                }
                timer.delete();
                // Multiples of a period do not drift, though each expiry comes with a tick.
                let ordinary = ExTimer::waitable(0);
                let start = now();
                ordinary.set(-20 * MS, 20 * MS);
                for ticks in [2, 3, 4, 6, 7] {
                    wait(ordinary.object());
                    let due = (now() - start) / TICK;
                    assert!((ticks..=ticks + 1).contains(&due), "{due}");
                }
                ordinary.delete();
            })
            .expect_clean();
    }
}

#[test]
fn rule_56_a_no_wake_timer_is_late_within_its_tolerance() {
    let delay = |seed: u64, tolerance: i64, attributes: ULONG| {
        let delay = Cell::new(-1);
        Machine::new()
            .seed(seed)
            .run(|| {
                let (timer, start) = (ExTimer::waitable(attributes), now());
                timer.set_with_tolerance(-10 * MS, 0, tolerance);
                wait(timer.object());
                delay.set(now() - start - 10 * MS);
                timer.delete();
            })
            .expect_clean();
        delay.get()
    };
    let seen: Vec<_> = (0..40).map(|seed| delay(seed, 8 * MS, EX_TIMER_NO_WAKE)).collect();
    assert!(seen.iter().all(|delay| (0..=8 * MS).contains(delay)), "{seen:?}");
    assert!(seen.contains(&0) && seen.contains(&(8 * MS)), "{seen:?}");
    assert!((0..40).any(|seed| delay(seed, EX_TIMER_UNLIMITED_TOLERANCE, EX_TIMER_NO_WAKE) > SECOND));
    assert!((0..10).all(|seed| delay(seed, 0, EX_TIMER_NO_WAKE) == 0));
    assert!((0..10).all(|seed| delay(seed, 8 * MS, 0) == 0), "others have no tolerance");
}

#[test]
fn no_memory_is_a_null_pointer() {
    Machine::new()
        .fail_allocation(1)
        .run(|| {
            assert!(raw!(ExAllocateTimer(None, null_mut(), 0)).is_null());
            ExTimer::waitable(0).delete();
        })
        .expect_clean();
}

#[test]
fn a_timer_that_is_not_deleted_is_left_behind() {
    let outcome = Machine::new().run(|| {
        let timer = ExTimer::waitable(0);
        timer.set(-SECOND, SECOND);
    });
    assert_eq!(outcome.left().pool[0].tag, "ExTm");
    assert_eq!(outcome.left().timers.len(), 1);
}

#[test]
fn rule_57_the_tick_can_be_made_shorter_and_is_put_back() {
    let resolution = || {
        let [mut longest, mut shortest, mut present] = [0; 3];
        raw!(ExQueryTimerResolution(&mut longest, &mut shortest, &mut present));
        assert_eq!((longest, shortest), (156_250, 5_000));
        present
    };
    for seed in 0..10 {
        Machine::new()
            .clock(ClockMode::DEFAULT_TICK)
            .seed(seed)
            .run(|| {
                let timer = Timer::notification();
                let sleep_of = |delay: i64| {
                    let start = now();
                    timer.set(-delay);
                    wait(timer.object());
                    now() - start
                };
                assert_eq!(resolution(), 156_250);
                assert_eq!(sleep_of(MS), TICK);
                assert_eq!(raw!(ExSetTimerResolution(10_000, TRUE)), 10_000);
                assert_eq!(sleep_of(MS), MS);
                assert_eq!(sleep_of(7 * MS), 7 * MS);
                // The shortest that is asked for holds, and nothing below the shortest there is.
                assert_eq!(raw!(ExSetTimerResolution(100_000, TRUE)), 10_000);
                assert_eq!(raw!(ExSetTimerResolution(1, TRUE)), 5_000);
                assert_eq!(sleep_of(500 * US), 500 * US);
                assert_eq!(resolution(), 5_000);
                // It holds until all are taken back.
                assert_eq!(raw!(ExSetTimerResolution(0, FALSE)), 5_000);
                assert_eq!(raw!(ExSetTimerResolution(0, FALSE)), 5_000);
                let before = now();
                assert_eq!(raw!(ExSetTimerResolution(0, FALSE)), 156_250);
                assert_eq!(now(), before, "the time that software reads does not go back");
                assert_eq!(sleep_of(MS), TICK);
                assert_eq!(raw!(KeQueryTimeIncrement()), 156_250);
            })
            .expect_clean();
    }
}
