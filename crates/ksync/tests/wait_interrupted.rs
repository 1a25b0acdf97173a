//! Waits that alerts, user APCs and the end of a thread break off, and those that nothing does, on the hosted kernel.

use core::time::Duration;
use std::cell::Cell;
use std::rc::Rc;

use ksim::{ApcKind, Machine, ProcessorMode};
use ksync::error::Result;
use ksync::event::{Event, EventProperty};
use ksync::region::{CriticalRegion, GuardedRegion};
use ksync::thread::{self, this_thread};
use ksync::time::{InterruptTime, SystemTime, Timeout};
use ksync::wait::{Dispatchable, WaitMode, WaitOptions, WaitResult, wait_all, wait_any};

/// Under many schedules on few and many processors.
fn explore(code: impl Fn() -> Result) {
    for processors in [1, 2, 4, 64] {
        for seed in 0..15 {
            Machine::new().processors(processors).seed(seed).run(|| code().unwrap()).expect_clean();
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn within(time: Duration) -> WaitOptions {
    WaitOptions::from(Timeout::after(time))
}

#[test]
fn rule_17_what_breaks_off_what() {
    // By the table of the documentation: alertable or not, for the kernel or a user.
    let kinds = [(true, WaitMode::User), (true, WaitMode::Kernel), (false, WaitMode::User), (false, WaitMode::Kernel)];
    type Disturbance = fn(usize);
    let disturbances: [(Disturbance, [WaitResult; 4]); 4] = {
        use WaitResult::{Alerted, TimedOut, UserApc};
        [
            (|id| assert!(!ksim::alert_thread(id, ProcessorMode::Kernel)), [Alerted, Alerted, TimedOut, TimedOut]),
            (|id| assert!(!ksim::alert_thread(id, ProcessorMode::User)), [Alerted, TimedOut, TimedOut, TimedOut]),
            (|id| assert!(ksim::queue_apc(id, ApcKind::User, || ())), [UserApc, TimedOut, TimedOut, TimedOut]),
            (ksim::request_termination, [UserApc, TimedOut, UserApc, TimedOut]),
        ]
    };
    for (disturb, expected) in disturbances {
        for (&(alertable, mode), expected) in kinds.iter().zip(expected) {
            let options = within(SECOND).alertable(alertable).mode(mode);
            let waits: [fn(&Event, &Event, WaitOptions) -> WaitResult; 4] = [
                |event, _, options| event.wait_with(options),
                |event, other, options| wait_any(&[event, other], options),
                |event, other, options| wait_all(&[event, other], options),
                |_, _, options| this_thread::sleep_with(options),
            ];
            for wait in waits {
                for seed in 0..3 {
                    Machine::new()
                        .processors(2)
                        .seed(seed)
                        .run(|| {
                            let event = Event::new(EventProperty::Notification, false).unwrap();
                            let other = Event::new(EventProperty::Notification, false).unwrap();
                            thread::scope(|scope| {
                                let waiter = scope.spawn(|| wait(&event, &other, options)).unwrap();
                                this_thread::sleep(SECOND / 2).unwrap();
                                disturb(waiter.thread().id().get());
                                assert_eq!(waiter.join(), Ok(expected), "{options:?}");
                            });
                        })
                        .expect_clean();
                }
            }
        }
    }
}

#[test]
fn rule_17_the_object_comes_before_the_alert() {
    explore(|| {
        let event = Event::new(EventProperty::Synchronization, true)?;
        ksim::alert_thread(this_thread::id().get(), ProcessorMode::Kernel);
        let poll = WaitOptions::from(Timeout::POLL).alertable(true);
        assert_eq!(event.wait_with(poll), WaitResult::Signaled(0));
        assert_eq!(event.wait_with(poll), WaitResult::Alerted);
        assert_eq!(event.wait_with(poll), WaitResult::TimedOut);
        Ok(())
    });
}

#[test]
fn rule_18_and_15_kernel_apcs_neither_end_nor_lengthen_a_wait() {
    explore(|| {
        let event = Event::new(EventProperty::Notification, false)?;
        let ran = Rc::new(Cell::new(0));
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let start = InterruptTime::now();
                let result = event.wait_with(within(SECOND).alertable(true));
                (result, start.elapsed())
            })?;
            for _ in 0..5 {
                this_thread::sleep(SECOND / 10)?;
                let ran = Rc::clone(&ran);
                let queued = ksim::queue_apc(waiter.thread().id().get(), ApcKind::SpecialKernel, move || {
                    this_thread::sleep(Duration::from_millis(1)).unwrap();
                    ran.set(ran.get() + 1);
                });
                assert!(queued);
            }
            assert_eq!(waiter.join(), Ok((WaitResult::TimedOut, SECOND)));
            Result::<()>::Ok(())
        })?;
        assert_eq!(ran.get(), 5);
        Ok(())
    });
}

#[test]
fn rule_21_regions_hold_back_what_they_should() {
    explore(|| {
        let ran = Rc::new(Cell::new((0, 0)));
        let queue = || {
            let id = this_thread::id().get();
            let (special, normal) = (Rc::clone(&ran), Rc::clone(&ran));
            ksim::queue_apc(id, ApcKind::SpecialKernel, move || special.set((special.get().0 + 1, special.get().1)));
            ksim::queue_apc(id, ApcKind::NormalKernel, move || normal.set((normal.get().0, normal.get().1 + 1)));
        };
        ksim::system_call(|| -> Result {
            queue();
            assert_eq!(ran.get(), (1, 1));
            let region = CriticalRegion::enter()?;
            queue();
            assert_eq!(ran.get(), (2, 1));
            let guarded = GuardedRegion::enter()?;
            queue();
            assert_eq!(ran.get(), (2, 1));
            drop(guarded);
            assert_eq!(ran.get(), (3, 1));
            drop(region);
            assert_eq!(ran.get(), (3, 3));
            Ok(())
        })
    });
}

#[test]
fn rule_15_a_sleep_until_a_date_follows_the_clock_that_is_set() {
    explore(|| {
        let date = SystemTime::now().saturating_add(SECOND * 3600);
        thread::scope(|scope| {
            let start = InterruptTime::now();
            let sleeper = scope.spawn(|| this_thread::sleep_with(Timeout::at(date).into()))?;
            this_thread::sleep(SECOND)?;
            ksim::set_system_time(date.ticks() - 20_000_000);
            assert_eq!(sleeper.join(), Ok(WaitResult::TimedOut));
            assert_eq!(start.elapsed(), SECOND * 3);
            Ok(())
        })
    });
}

#[test]
fn rule_14_sixty_four_objects_in_each_mode() {
    explore(|| {
        let events: Vec<Event> = (0..64).map(|_| Event::new(EventProperty::Synchronization, false)).collect::<Result<_>>()?;
        let objects: Vec<&dyn Dispatchable> = events.iter().map(|event| event as &dyn Dispatchable).collect();
        for mode in [WaitMode::Kernel, WaitMode::User] {
            thread::scope(|scope| {
                let events = &events;
                scope.spawn(move || events.iter().try_for_each(|event| event.set().map(drop)))?;
                assert_eq!(wait_all(&objects, within(SECOND).mode(mode)), WaitResult::Signaled(0));
                scope.spawn(move || events[63].set())?;
                assert_eq!(wait_any(&objects, within(SECOND).mode(mode)), WaitResult::Signaled(63));
                Result::<()>::Ok(())
            })?;
        }
        Ok(())
    });
}
