//! Seed 004, the chapter on the synchronization objects of WDM: its C code as a driver in Rust would have it, with this library. The same code in raw calls is in
//! `seed_004_wdm_raw.rs`.
//!
//! What is changed throughout, and why:
//! - `ASSERT(KeGetCurrentIrql() <= ..)` is gone: each call checks its level itself, and returns an error at a higher one.
//! - `KeInitialize..` is the type's constructor: no object exists that is not initialised, and it lies in nonpaged memory by its type.

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::sync::Arc;

use ksim::Machine;
use ksync::error::{NtError, Result};
use ksync::event::{Event, EventProperty};
use ksync::mutex::{KMutex, ReentrantKMutex};
use ksync::object::ThreadObject;
use ksync::thread::{self, this_thread};
use ksync::time::{InterruptTime, SystemTime, Timeout};
use ksync::timer::{Timer, TimerKind};
use ksync::wait::{Dispatchable, WaitMode, WaitOptions, WaitResult, wait_any};

fn on_machines(code: impl Fn() -> Result) {
    for seed in 0..20 {
        Machine::new().processors(2).seed(seed).run(|| code().unwrap()).expect_clean();
    }
}

/// "Kernel mutex". The mutex owns what it guards, so that it is not initialised, waited for and released, but made, locked and dropped.
#[test]
fn kernel_mutex() {
    on_machines(|| {
        let mutex = KMutex::new(1)?;
        // KeReadStateMutex: "if the return value is 0, the mutex object is occupied".
        assert!(!mutex.is_locked());
        {
            let mut guard = mutex.lock()?;
            assert!(mutex.is_locked());
            *guard += 1;
        }
        assert!(!mutex.is_locked());

        // "The kernel mutex can be obtained recursively": it is another type then, whose guards only read.
        let recursive = ReentrantKMutex::new(1)?;
        let (first, second) = (recursive.lock()?, recursive.lock()?);
        assert_eq!(*first + *second, 2);
        Ok(())
    });
}

/// "Notification timer usage event".
#[test]
fn notification_timer() {
    on_machines(|| {
        let timer = Timer::waitable(TimerKind::Notification)?;
        // "The timer is in a non-signal state, and it has not started the countdown. The thread waiting for such a timer will never be awakened."
        assert!(timer.wait_for(Duration::from_secs(1), false).timed_out());

        // KeSetTimer: "If the return value is TRUE, it indicates that the timer has been started. (.. the timer will give up the original time ..)".
        // A `Duration` is relative and cannot be anything else; no sign decides.
        let start = InterruptTime::now();
        let was_counting = timer.start(Duration::from_secs(5), Duration::ZERO)?;
        assert!(!was_counting);
        assert!(timer.start(Duration::from_secs(1), Duration::ZERO)?);

        // KeReadStateTimer.
        assert!(!timer.is_signaled()?);
        assert!(timer.wait().success());
        assert_eq!(start.elapsed(), Duration::from_secs(1));

        // "The notification Timer allows any number of waiting threads."
        assert!(timer.is_signaled()? && timer.wait().success() && timer.wait().success());

        // "If the value is positive, it indicates an absolute time".
        let date = SystemTime::now().saturating_add(Duration::from_secs(3600));
        timer.start_at(date, Duration::ZERO)?;
        assert!(timer.wait().success());
        assert!(SystemTime::now() >= date);
        Ok(())
    });
}

/// "Synchronous Timer": "it only allows one waiting thread".
#[test]
fn synchronization_timer() {
    on_machines(|| {
        let timer = Timer::waitable(TimerKind::Synchronization)?;
        timer.start(Duration::from_millis(10), Duration::ZERO)?;
        let released = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    if timer.wait_for(Duration::from_secs(1), false).success() {
                        released.fetch_add(1, Ordering::Relaxed);
                    }
                })?;
            }
            Result::<()>::Ok(())
        })?;
        assert_eq!(released.into_inner(), 1);
        Ok(())
    });
}

/// "Periodic Timer", and "Cancels a periodic timer".
#[test]
fn periodic_timer() {
    on_machines(|| {
        let expired = Arc::new(AtomicU32::new(0));
        let timer = {
            let expired = expired.clone();
            Timer::new(
                move || {
                    expired.fetch_add(1, Ordering::Relaxed);
                },
                false,
            )?
        };
        // "You should specify the duetime as the relative time of the same period as the periodic interval parameter".
        timer.start(Duration::from_millis(100), Duration::from_millis(100))?;
        this_thread::sleep(Duration::from_millis(550))?;
        // "Before the timer object is out of the defined range, you must call KeCancelTimer": it does so when it is dropped, and flushes the DPC as well, which
        // the chapter cannot. Nothing runs afterwards: the closure, and what it owns, is gone.
        drop(timer);
        assert_eq!(Arc::try_unwrap(expired).unwrap().into_inner(), 5);
        Ok(())
    });
}

const POLLING_INTERVAL: Duration = Duration::from_millis(500);

/// The chapter's device extension, as far as it is shown.
struct DeviceExtension {
    ev_kill: Event,
    /// The device, as it were: when it was polled.
    polls: ksync::mutex::FastLocked<Vec<InterruptTime>>,
}

// `VOID PollingThreadRoutine(PDEVICE_EXTENSION pdx)`: errors are returned to who joins the thread.
fn polling_thread_routine(pdx: &DeviceExtension) -> Result {
    let timer = Timer::waitable(TimerKind::Synchronization)?; // <--1

    // It needs not be asserted that there are no more than THREAD_WAIT_OBJECTS: for up to 64 there are wait blocks.
    let pollevents: [&dyn Dispatchable; 2] = [&pdx.ev_kill, &timer]; // <--2

    timer.start(Duration::ZERO, POLLING_INTERVAL)?; // <--3
    loop {
        // The chapter's arguments (no timeout, kernel mode, not alertable) are the defaults.
        match wait_any(&pollevents, WaitOptions::new()) {
            // <--4
            WaitResult::Signaled(0) => break,
            // The chapter takes any other status for the timer's, errors too.
            result => result.ok()?,
        };
        // <device needs attention>: <do something>  <--5
        pdx.polls.lock()?.push(InterruptTime::now());
    }
    timer.cancel()?;
    // PsTerminateSystemThread is called where the closure returns: nothing of it would be dropped otherwise.
    Ok(())
}

#[test]
fn polling_thread() {
    on_machines(|| {
        let pdx = Arc::new(DeviceExtension {
            ev_kill: Event::new(EventProperty::Notification, false)?,
            polls: ksync::mutex::FastLocked::new(Vec::new())?,
        });
        let start = InterruptTime::now();
        let thread = {
            let pdx = pdx.clone();
            thread::spawn(move || polling_thread_routine(&pdx))?
        };
        this_thread::sleep(Duration::from_millis(4750))?;
        pdx.ev_kill.set()?;
        thread.join()??;
        // "The timer immediately enters the signal state. Then triggered every 500 milliseconds."
        let polls: Vec<_> = pdx.polls.lock()?.iter().map(|poll| poll.since(start)).collect();
        let expected: Vec<_> = (0..10).map(|poll| POLLING_INTERVAL * poll).collect();
        assert_eq!(polls.len(), expected.len());
        for (poll, expected) in polls.into_iter().zip(expected) {
            assert!(poll.abs_diff(expected) < Duration::from_millis(1), "{poll:?} instead of {expected:?}");
        }
        Ok(())
    });
}

/// "Timing Functions": `KeDelayExecutionThread` and `KeStallExecutionProcessor`.
#[test]
fn delay_and_stall() {
    on_machines(|| {
        let start = InterruptTime::now();
        this_thread::sleep(Duration::from_millis(20))?;
        assert!(start.elapsed() >= Duration::from_millis(20));

        let start = InterruptTime::now_precise();
        this_thread::stall(Duration::from_micros(50));
        assert!(InterruptTime::now_precise().since(start) >= Duration::from_micros(50));
        // "At any IRQL level", unlike the other.
        let raised = ksync::irql::raise(ksync::irql::Irql::DISPATCH)?;
        this_thread::stall(Duration::from_micros(50));
        assert_eq!(this_thread::sleep(Duration::from_millis(1)), Err(NtError::IRQL_TOO_HIGH));
        drop(raised);
        Ok(())
    });
}

/// "Kernel Thread Synchronization": waiting for a thread's end. The handle and the object behind it are what `spawn` returns.
#[test]
fn thread_object() {
    on_machines(|| {
        // `PKTHREAD thread = KeGetCurrentThread();`
        let this = ThreadObject::current();
        assert_eq!(this.id(), this_thread::id());

        let hthread = thread::spawn(|| this_thread::sleep(Duration::from_secs(1)))?;
        // ObReferenceObjectByHandle and ZwClose: a reference to the same thread, given back when it is dropped.
        let thread: ThreadObject = hthread.thread().clone();
        assert_ne!(thread, this);
        hthread.detach();
        assert!(!thread.wait_for(Duration::ZERO, false).success());
        assert!(thread.wait().success());
        // What the unload of a driver does by itself: a thread that was let go leaves a little memory, which a later one would free.
        ksync::driver::drain()
    });
}

/// "How to specify Alertable and WaitMode Parameters": "use non-disruptive wait unless you know the reason for not doing so" is the default; the others are asked for.
#[test]
fn modes_of_waiting() {
    on_machines(|| {
        let event = Event::new(EventProperty::Synchronization, false)?;
        let timeout = Timeout::after(Duration::from_millis(1));
        assert!(event.wait_with(WaitOptions::new().timeout(timeout)).timed_out());
        assert!(event.wait_with(WaitOptions::new().mode(WaitMode::User).alertable(true).timeout(timeout)).timed_out());
        Ok(())
    });
}

/// "Thread vigilance and APC": an alert and a user APC end a "vigilant" wait early, and each says which it was. Neither can be had by the public routines; a test has them from the hosted
/// kernel.
#[test]
fn alerts_and_user_apcs() {
    on_machines(|| {
        let event = Event::new(EventProperty::Synchronization, false)?;
        let vigilant = WaitOptions::new().mode(WaitMode::User).alertable(true);
        thread::scope(|scope| {
            let waiter = scope.spawn(|| (event.wait_with(vigilant), event.wait_with(vigilant), event.wait()))?;
            this_thread::sleep(Duration::from_millis(1))?;
            ksim::alert_thread(waiter.thread().id().get(), ksim::ProcessorMode::User); // NtAlertThread
            this_thread::sleep(Duration::from_millis(1))?;
            ksim::queue_apc(waiter.thread().id().get(), ksim::ApcKind::User, || ()); // QueueUserAPC
            this_thread::sleep(Duration::from_millis(1))?;
            // What is not vigilant, nothing ends early; a kernel APC ends neither: STATUS_KERNEL_APC is the system's own.
            ksim::alert_thread(waiter.thread().id().get(), ksim::ProcessorMode::Kernel);
            ksim::queue_apc(waiter.thread().id().get(), ksim::ApcKind::SpecialKernel, || ());
            this_thread::sleep(Duration::from_millis(1))?;
            event.set()?;
            assert_eq!(waiter.join(), Ok((WaitResult::Alerted, WaitResult::UserApc, WaitResult::Signaled(0))));
            Ok(())
        })
    });
}

/// "In this section, we want the timer to trigger a DPC routine".
#[test]
fn timer_with_a_dpc() {
    on_machines(|| {
        let runs = Arc::new(AtomicU32::new(0));
        let timer = {
            let runs = runs.clone();
            // The closure is the routine and its context.
            Timer::new(
                move || {
                    assert_eq!(ksync::irql::current(), ksync::irql::Irql::DISPATCH);
                    runs.fetch_add(1, Ordering::Relaxed);
                },
                false,
            )?
        };
        let was_counting = timer.start(Duration::from_millis(10), Duration::ZERO)?;
        assert!(!was_counting);
        // "You can call KeWaitXxx even if you provide dpc parameters".
        assert!(timer.wait().success());
        drop(timer);
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        Ok(())
    });
}
