//! Events, on the hosted kernel.

use ksim::Machine;
use ksync::NtError;
use ksync::error::Result;
use ksync::event::{Event, EventProperty, PinnedEvent};
use ksync::init::stack_try_pin_init;
use ksync::irql::{self, Irql};
use ksync::time::Timeout;
use ksync::wait::{Dispatchable, WaitOptions, WaitResult};

fn on_machine(code: impl FnOnce() -> Result) {
    Machine::new().run(|| code().unwrap()).expect_clean();
}

#[test]
fn rule_1_notification_stays_signaled_and_synchronization_is_taken() {
    on_machine(|| {
        let notification = Event::new(EventProperty::Notification, true)?;
        assert!(notification.wait().success());
        assert!(notification.wait().success());
        let synchronization = Event::new(EventProperty::Synchronization, true)?;
        assert!(synchronization.wait().success());
        assert!(synchronization.wait_with(Timeout::POLL.into()).timed_out());
        Ok(())
    });
}

#[test]
fn states_before_are_told() {
    on_machine(|| {
        let event = Event::new(EventProperty::Notification, false)?;
        assert!(!event.set()?);
        assert!(event.set()?);
        assert!(event.is_signaled()?);
        assert!(event.reset()?);
        assert!(!event.reset()?);
        assert!(!event.pulse()?);
        assert!(!event.is_signaled()?);
        event.set()?;
        event.clear()?;
        assert!(!event.is_signaled()?);
        Ok(())
    });
}

#[test]
fn pinned_on_the_stack() {
    on_machine(|| {
        stack_try_pin_init!(let event = PinnedEvent::pin_init(EventProperty::Synchronization, true));
        let event = event?.into_ref().get_ref();
        assert!(event.wait().success());
        assert!(!event.set()?);
        Ok(())
    });
}

#[test]
fn every_operation_is_an_error_above_dispatch_level() {
    on_machine(|| {
        let event = Event::new(EventProperty::Notification, false)?;
        // SAFETY: the level is restored below, and in between only operations run that check it.
        let old = unsafe { ksync::sys::KfRaiseIrql(5) };
        let results = [
            event.set().map(drop),
            event.reset().map(drop),
            event.clear(),
            event.pulse().map(drop),
            event.is_signaled().map(drop),
            event.wait_with(Timeout::POLL.into()).ok().map(drop),
            Event::new(EventProperty::Notification, false).map(drop),
        ];
        // SAFETY: the level was raised above from this one.
        unsafe { ksync::sys::KeLowerIrql(old) };
        assert_eq!(results, [Err(NtError::IRQL_TOO_HIGH); 7]);
        assert!(!event.is_signaled()?);
        Ok(())
    });
}

#[test]
fn ksync_40_a_wait_at_dispatch_level_is_an_error_and_does_nothing() {
    on_machine(|| {
        let event = Event::new(EventProperty::Synchronization, true)?;
        irql::with_raised(Irql::DISPATCH, || {
            assert_eq!(event.wait(), WaitResult::Failed(NtError::IRQL_TOO_HIGH));
            assert_eq!(event.wait_for(core::time::Duration::from_nanos(1), false), WaitResult::Failed(NtError::IRQL_TOO_HIGH));
            assert!(event.wait_with(Timeout::POLL.into()).success());
            assert!(event.wait_with(Timeout::POLL.into()).timed_out());
            event.set().unwrap();
        })?;
        assert_eq!(event.wait_with(WaitOptions::new()), WaitResult::Signaled(0));
        Ok(())
    });
}

#[test]
fn no_pool_is_an_error() {
    Machine::new()
        .fail_allocation(2)
        .run(|| {
            let kept = Event::new(EventProperty::Notification, false).unwrap();
            assert_eq!(Event::new(EventProperty::Notification, false).unwrap_err(), NtError::INSUFFICIENT_RESOURCES);
            drop(kept);
        })
        .expect_clean();
}
