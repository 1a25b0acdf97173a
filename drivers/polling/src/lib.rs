//! A driver for a device that cannot interrupt: a thread looks at it every 500 ms until the driver is unloaded.
//!
//! It is the polling driver of the WDM chapter on synchronization, with its kill event and its synchronization timer. The thread waits for whichever of the two comes first. The chapter's
//! code leaves the end to the reader; here the unload sets the event, waits for the *thread* (rather than for something that the thread signals while it still runs), and
//! finds the timer cancelled.
//!
//! The same source runs hosted (`cargo run --release --example polling`) and as a native `.sys` (`cargo xtask driver polling`). What it prints is made to be compared: each step begins with
//! `[step] name`, and a line that begins with `# ` differs from run to run.
#![no_std]

mod device;

use core::time::Duration;

use device::Device;
use ksync::driver::{DriverObject, UnicodeStr};
use ksync::error::{NtError, Result};
use ksync::event::{Event, EventProperty};
use ksync::pool::KArc;
use ksync::thread::{self, JoinHandle};
use ksync::time::Timeout;
use ksync::timer::{PinnedTimer, TimerKind};
use ksync::wait::{WaitOptions, wait_any};

/// The chapter's `POLLING_INTERVAL`.
const POLLING_INTERVAL: Duration = Duration::from_millis(500);

/// For how long the entry waits for the first poll, which comes at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the driver and its thread share: the chapter's device extension.
#[derive(Debug)]
struct Extension {
    kill: Event,
    first_poll: Event,
    device: Device,
}

/// What the driver keeps until it is unloaded.
#[derive(Debug)]
pub struct Poller {
    extension: KArc<Extension>,
    /// Taken when the thread is joined.
    thread: Option<JoinHandle<Result<bool>>>,
}

/// Starts the polling thread and waits for its first look at the device.
///
/// # Errors
/// There is no memory, or no thread; nothing is left behind then.
pub fn entry(_driver: &DriverObject, _registry_path: &UnicodeStr<'_>) -> Result<Poller> {
    ksync::println!("[step] start");
    let extension = KArc::new(Extension {
        kill: Event::new(EventProperty::Notification, false)?,
        first_poll: Event::new(EventProperty::Notification, false)?,
        device: Device::default(),
    })?;
    let thread = thread::spawn({
        let extension = extension.clone();
        move || poll(&extension)
    })?;
    // From here on the thread is stopped and waited for, also where this fails.
    let poller = Poller { extension, thread: Some(thread) };
    ksync::println!("a thread polls every {} ms", POLLING_INTERVAL.as_millis());

    ksync::println!("[step] first poll");
    match &poller.thread {
        // A thread that could not even begin does not poll, but ends.
        Some(thread) => {
            let options = WaitOptions::new().timeout(Timeout::after(PATIENCE));
            match wait_any(&[&poller.extension.first_poll, thread], options).ok()? {
                0 => ksync::println!("the device has been looked at"),
                _ => return Err(poller.stop().err().unwrap_or(NtError::UNSUCCESSFUL)),
            }
        }
        None => return Err(NtError::UNSUCCESSFUL),
    }
    Ok(poller)
}

/// The thread's routine: polls until it is killed. Returns whether the timer was armed when it was stopped.
fn poll(extension: &Extension) -> Result<bool> {
    // The timer is the thread's own, on its stack, as in the chapter. However this ends, it is cancelled.
    ksync::init::stack_try_pin_init!(let timer = PinnedTimer::pin_init(TimerKind::Synchronization));
    let timer = timer?.into_ref().get_ref();
    timer.start(Duration::ZERO, POLLING_INTERVAL)?;
    loop {
        // The lower index counts if both are signaled, so that a kill is not put off by a poll.
        if wait_any(&[&extension.kill, timer], WaitOptions::new()).ok()? == 0 {
            break;
        }
        if extension.device.needs_attention() {
            extension.device.serve();
        }
        extension.first_poll.set()?;
    }
    timer.stop()
}

impl Poller {
    /// Kills the thread and waits for its end. Returns what [`poll`] returned.
    fn stop(mut self) -> Result<bool> {
        self.extension.kill.set()?;
        match self.thread.take() {
            Some(thread) => thread.join()?,
            None => Err(NtError::UNSUCCESSFUL),
        }
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        ksync::println!("[step] kill");
        let killed = self.extension.kill.set();
        ksync::println!("the kill event was set before: {killed:?}");

        ksync::println!("[step] join");
        match thread.join() {
            Ok(Ok(armed)) => ksync::println!("the timer was armed when it was stopped: {armed}"),
            Ok(Err(error)) | Err(error) => ksync::println!("the thread failed: {error}"),
        }

        ksync::println!("[step] device");
        ksync::println!("# looked at {} times", self.extension.device.looks());
        ksync::println!("it is content: {}", self.extension.device.is_content());
        ksync::println!("[step] end");
        ksync::println!("the driver goes");
    }
}

ksync::driver_entry!(entry);
