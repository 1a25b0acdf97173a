//! Waits, on the hosted kernel.

use core::time::Duration;
use ksim::Machine;
use ksync::NtError;
use ksync::error::Result;
use ksync::event::{Event, EventProperty};
use ksync::irql::{self, Irql};
use ksync::semaphore::Semaphore;
use ksync::thread::{self, this_thread};
use ksync::time::{InterruptTime, SystemTime, Timeout};
use ksync::wait::{self, Dispatchable, MAXIMUM_WAIT_OBJECTS, WaitMode, WaitOptions, WaitResult};

fn on_machine(code: impl FnOnce() -> Result) {
    Machine::new().run(|| code().unwrap()).expect_clean();
}

fn events(count: usize, signaled: bool) -> Vec<Event> {
    (0..count).map(|_| Event::new(EventProperty::Synchronization, signaled).unwrap()).collect()
}

fn as_dispatchable(events: &[Event]) -> Vec<&dyn Dispatchable> {
    events.iter().map(|event| event as &dyn Dispatchable).collect()
}

#[test]
fn rule_13_wait_any_takes_the_lowest_index_and_no_other() {
    for count in [1, 2, 3, 4, 16, 17, 63, 64] {
        on_machine(|| {
            let events = events(count, false);
            let objects = as_dispatchable(&events);
            assert!(wait::wait_any(&objects, Timeout::POLL.into()).timed_out());
            let last = count - 1;
            events[last].set()?;
            events[last / 2].set()?;
            assert_eq!(wait::wait_any(&objects, WaitOptions::new()), WaitResult::Signaled(last / 2));
            if last != last / 2 {
                assert!(events[last].is_signaled()?);
                assert_eq!(wait::wait_any(&objects, WaitOptions::new()), WaitResult::Signaled(last));
            }
            assert!(events.iter().all(|event| event.is_signaled() == Ok(false)));
            Ok(())
        });
    }
}

#[test]
fn rule_13_wait_all_takes_all_or_nothing() {
    for count in [1, 3, 4, 17, 64] {
        on_machine(|| {
            let events = events(count, true);
            let objects = as_dispatchable(&events);
            events[count / 2].clear()?;
            assert!(wait::wait_all(&objects, Timeout::POLL.into()).timed_out());
            let left = events.iter().filter(|event| event.is_signaled() == Ok(true)).count();
            assert_eq!(left, count - 1);
            events[count / 2].set()?;
            assert_eq!(wait::wait_all(&objects, WaitOptions::new()), WaitResult::Signaled(0));
            assert!(events.iter().all(|event| event.is_signaled() == Ok(false)));
            Ok(())
        });
    }
}

#[test]
fn rule_14_too_many_or_no_objects_are_an_error() {
    on_machine(|| {
        let events = events(MAXIMUM_WAIT_OBJECTS + 1, true);
        let objects = as_dispatchable(&events);
        let refused = WaitResult::Failed(NtError::INVALID_PARAMETER);
        for mode in [WaitMode::Kernel, WaitMode::User] {
            let options = WaitOptions::new().mode(mode);
            assert_eq!(wait::wait_any(&objects, options), refused);
            assert_eq!(wait::wait_all(&objects, options), refused);
            assert_eq!(wait::wait_any(&[], options), refused);
            assert_eq!(wait::wait_all(&[], options), refused);
        }
        assert!(events.iter().all(|event| event.is_signaled() == Ok(true)));
        Ok(())
    });
}

#[test]
fn an_object_named_twice_is_an_error_for_all_and_fine_for_any() {
    on_machine(|| {
        let semaphore = Semaphore::new(1, 2)?;
        let objects: [&dyn Dispatchable; 2] = [&semaphore, &semaphore];
        assert_eq!(wait::wait_all(&objects, WaitOptions::new()), WaitResult::Failed(NtError::INVALID_PARAMETER));
        assert_eq!(semaphore.count()?, 1);
        assert_eq!(wait::wait_any(&objects, WaitOptions::new()), WaitResult::Signaled(0));
        assert_eq!(semaphore.count()?, 0);
        Ok(())
    });
}

#[test]
fn user_mode_waits_for_many_need_no_pool() {
    on_machine(|| {
        let events = events(8, false);
        let objects = as_dispatchable(&events);
        events[5].set()?;
        let options = WaitOptions::new().mode(WaitMode::User);
        assert_eq!(wait::wait_any(&objects, options), WaitResult::Signaled(5));
        let options = options.timeout(Timeout::after(Duration::from_millis(1))).alertable(true);
        assert_eq!(wait::wait_any(&objects, options), WaitResult::TimedOut);
        Ok(())
    });
    // What the wait needs lies on the stack, which stays in memory.
    Machine::new()
        .fail_allocation(9)
        .run(|| {
            let events = events(8, true);
            let options = WaitOptions::new().mode(WaitMode::User);
            assert_eq!(wait::wait_any(&as_dispatchable(&events), options), WaitResult::Signaled(0));
            assert_eq!(Event::new(EventProperty::Notification, false).map(drop), Err(NtError::INSUFFICIENT_RESOURCES));
        })
        .expect_clean();
}

#[test]
fn rule_16_levels_are_checked() {
    on_machine(|| {
        let events = events(5, true);
        let objects = as_dispatchable(&events);
        let too_high = WaitResult::Failed(NtError::IRQL_TOO_HIGH);
        irql::with_raised(Irql::APC, || {
            assert!(wait::wait_any(&objects[..1], WaitOptions::new()).success());
        })?;
        events[0].set()?;
        irql::with_raised(Irql::DISPATCH, || {
            assert_eq!(wait::wait_any(&objects, WaitOptions::new()), too_high);
            assert_eq!(wait::wait_all(&objects, Timeout::after(Duration::from_nanos(1)).into()), too_high);
            assert_eq!(wait::wait_all(&objects, Timeout::at(SystemTime::now()).into()), too_high);
            assert!(wait::wait_all(&objects, Timeout::POLL.into()).success());
            assert_eq!(this_thread::sleep(Duration::from_secs(1)), Err(NtError::IRQL_TOO_HIGH));
            assert_eq!(this_thread::pause(), Err(NtError::IRQL_TOO_HIGH));
        })?;
        Ok(())
    });
}

#[test]
fn ksync_39_no_interval_wraps() {
    on_machine(|| {
        let event = Event::new(EventProperty::Notification, false)?;
        // Too short to count, but not a poll, which would not move the clock.
        let before = InterruptTime::now();
        assert!(event.wait_for(Duration::from_nanos(1), false).timed_out());
        assert!(before.elapsed() >= Duration::from_nanos(100));
        // Longer than NT can count: as good as for ever, and neither a poll nor a date.
        thread::scope(|scope| {
            for interval in
                [Duration::MAX, Duration::from_secs(u64::MAX / 10_000_000 + 1), Duration::from_secs(400 * 365 * 86_400)]
            {
                let event = &event;
                let waiter = scope.spawn(move || event.wait_for(interval, false))?;
                this_thread::sleep(Duration::from_secs(100 * 365 * 86_400))?;
                assert!(!waiter.is_finished()?);
                event.set()?;
                assert_eq!(waiter.join()?, WaitResult::Signaled(0));
                event.clear()?;
            }
            Result::<()>::Ok(())
        })
    });
}

#[test]
fn rule_15_dates_move_with_the_system_time_and_intervals_do_not() {
    on_machine(|| {
        let event = Event::new(EventProperty::Notification, false)?;
        let hour = Duration::from_secs(3600);
        thread::scope(|scope| {
            let event = &event;
            let date = SystemTime::now().saturating_add(hour);
            let by_date = scope.spawn(move || event.wait_with(Timeout::at(date).into()))?;
            let by_interval = scope.spawn(move || event.wait_with(Timeout::after(hour).into()))?;
            this_thread::sleep(Duration::from_secs(1))?;
            ksim::set_system_time(SystemTime::now().saturating_add(2 * hour).ticks());
            this_thread::sleep(Duration::from_secs(1))?;
            assert!(by_date.is_finished()?);
            assert!(!by_interval.is_finished()?);
            assert!(by_date.join()?.timed_out());
            assert!(by_interval.join()?.timed_out());
            Result::<()>::Ok(())
        })
    });
}

#[test]
fn sleeping_until_a_past_date_returns_at_once() {
    on_machine(|| {
        let before = InterruptTime::now();
        this_thread::sleep_until(SystemTime::EPOCH)?;
        this_thread::sleep_until(SystemTime::now())?;
        assert!(before.elapsed() < Duration::from_millis(1));
        Ok(())
    });
}

#[test]
fn results_are_told_apart() {
    assert_eq!(WaitResult::Signaled(2).ok(), Ok(2));
    assert_eq!(WaitResult::Abandoned(1).ok(), Ok(1));
    assert_eq!(WaitResult::TimedOut.ok(), Err(NtError::TIMEOUT));
    assert_eq!(WaitResult::Alerted.ok(), Err(NtError::CANCELLED));
    assert_eq!(WaitResult::UserApc.ok(), Err(NtError::CANCELLED));
    assert_eq!(WaitResult::Failed(NtError::IRQL_TOO_HIGH).ok(), Err(NtError::IRQL_TOO_HIGH));
    assert!(WaitResult::Abandoned(0).success());
    assert!(!WaitResult::TimedOut.success());
    assert_eq!(WaitResult::Abandoned(3).index(), Some(3));
    assert_eq!(WaitResult::Alerted.index(), None);
}

#[test]
fn an_alert_breaks_off_an_alertable_wait_only() {
    on_machine(|| {
        let event = Event::new(EventProperty::Notification, false)?;
        for (alertable, expected) in [(true, WaitResult::Alerted), (false, WaitResult::TimedOut)] {
            thread::scope(|scope| {
                let waiter = scope.spawn(|| event.wait_for(Duration::from_secs(5), alertable))?;
                this_thread::sleep(Duration::from_secs(1))?;
                let thread = waiter.thread().as_raw().cast();
                // SAFETY: the handle refers to a live thread.
                unsafe { ksync::sys::KeAlertThread(thread, ksync::sys::KernelMode) };
                assert_eq!(waiter.join()?, expected);
                Result::<()>::Ok(())
            })?;
        }
        Ok(())
    });
}
