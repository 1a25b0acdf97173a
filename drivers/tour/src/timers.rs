//! A periodic timer with its DPC, one that is finer than the clock's ticks, and a closure that runs once after a delay.

use crate::Step;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use ksync::error::Result;
use ksync::event::{Event, EventProperty};
use ksync::timer::{HrTimer, Timer, TimerKind, delay_run};
use ksync::wait::Dispatchable;

pub(crate) const STEPS: &[Step] = &[
    Step { name: "periodic timer", needs: &[], run: periodic_timer },
    Step {
        name: "high-resolution timer",
        needs: &["ExAllocateTimer", "ExSetTimer", "ExDeleteTimer"],
        run: high_resolution_timer,
    },
    Step { name: "delayed closure", needs: &[], run: delayed_closure },
];

const EXPIRIES: u32 = 5;

/// What the DPC and the tour share. A callback outlives the function that made it, so that what it uses is its own or static.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// The timer's DPC counts five expiries, and wakes the tour at the fifth; the tour cancels the timer.
fn periodic_timer() -> Result {
    COUNT.store(0, Ordering::SeqCst);
    let timer = Timer::new(
        || {
            COUNT.fetch_add(1, Ordering::SeqCst);
        },
        false,
    )?;
    let done = Event::new(EventProperty::Notification, false)?;
    timer.start(Duration::from_millis(10), Duration::from_millis(10))?;
    while COUNT.load(Ordering::SeqCst) < EXPIRIES {
        // Nobody sets this event: the wait is a sleep that polls the count.
        let _ = done.wait_for(Duration::from_millis(5), false);
    }
    let was_armed = timer.cancel()?;
    ksync::println!("the DPC counted at least {EXPIRIES} expiries");
    ksync::println!("the timer was armed when it was cancelled: {was_armed}");
    drop(timer);
    let after = COUNT.load(Ordering::SeqCst);
    let _ = done.wait_for(Duration::from_millis(50), false);
    ksync::println!("expiries after the timer was dropped: {}", COUNT.load(Ordering::SeqCst) - after);
    Ok(())
}

/// A period of a quarter of a millisecond, which no ordinary timer has.
fn high_resolution_timer() -> Result {
    let period = Duration::from_micros(250);
    let timer = HrTimer::waitable(TimerKind::Synchronization)?;
    timer.start(period, period)?;
    for _ in 0..EXPIRIES {
        timer.wait().ok()?;
    }
    ksync::println!("waited for {EXPIRIES} expiries, {} us apart", period.as_micros());
    ksync::println!("the timer was armed when it was stopped: {}", timer.stop()?);
    Ok(())
}

/// It says itself that it is done; its memory is gone then.
fn delayed_closure() -> Result {
    COUNT.store(0, Ordering::SeqCst);
    delay_run(Duration::from_millis(20), || COUNT.store(1, Ordering::SeqCst))?;
    let never = Event::new(EventProperty::Notification, false)?;
    while COUNT.load(Ordering::SeqCst) == 0 {
        let _ = never.wait_for(Duration::from_millis(5), false);
    }
    ksync::println!("it ran");
    Ok(())
}
