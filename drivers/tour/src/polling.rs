//! The polling thread of the WDM chapter: a kill event and a synchronization timer of 500 ms.

use crate::Step;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use ksync::error::Result;
use ksync::event::{Event, EventProperty};
use ksync::thread;
use ksync::timer::{Timer, TimerKind};
use ksync::wait::{Dispatchable, WaitOptions, wait_any};

pub(crate) const STEPS: &[Step] = &[
    Step { name: "polling thread", needs: &[], run: polling_thread },
    Step { name: "thread exit", needs: &[], run: thread_exit },
];

const POLLING_INTERVAL: Duration = Duration::from_millis(500);
const POLLS: u32 = 10;

/// Polls until it is killed. Returns how often it polled.
fn poll(kill: &Event, polled: &AtomicU32, enough: &Event) -> Result<u32> {
    let timer = Timer::waitable(TimerKind::Synchronization)?;
    timer.start(Duration::ZERO, POLLING_INTERVAL)?;
    loop {
        let which = wait_any(&[kill, &*timer], WaitOptions::new()).ok()?;
        if which == 0 {
            break;
        }
        // Here a driver looks at its device.
        if polled.fetch_add(1, Ordering::SeqCst) + 1 == POLLS {
            enough.set()?;
        }
    }
    timer.cancel()?;
    Ok(polled.load(Ordering::SeqCst))
}

fn polling_thread() -> Result {
    let kill = Event::new(EventProperty::Notification, false)?;
    let enough = Event::new(EventProperty::Notification, false)?;
    let polled = AtomicU32::new(0);
    let polls = thread::scope(|scope| {
        let poller = scope.spawn(|| poll(&kill, &polled, &enough))?;
        enough.wait().ok()?;
        kill.set()?;
        poller.join()?
    })?;
    ksync::println!("polled {polls} times, then killed");
    Ok(())
}

/// A wait with a zero timeout tells whether a thread has ended.
fn thread_exit() -> Result {
    let go = Event::new(EventProperty::Notification, false)?;
    thread::scope(|scope| {
        let thread = scope.spawn(|| go.wait().ok())?;
        let running = thread.thread().wait_for(Duration::ZERO, false);
        ksync::println!("ended before it was told to: {}", running.success());
        go.set()?;
        thread.thread().wait().ok()?;
        let ended = thread.thread().wait_for(Duration::ZERO, false);
        ksync::println!("ended after that: {}", ended.success());
        thread.join()??;
        Ok(())
    })
}
