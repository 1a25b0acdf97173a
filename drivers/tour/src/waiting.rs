//! What is made of waits: conditions, barriers, rundown, all of several objects; the clocks; pool.

use crate::Step;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use ksync::NtError;
use ksync::alloc::NonPaged;
use ksync::alloc::vec::Vec;
use ksync::error::Result;
use ksync::event::{EventProperty, PinnedEvent};
use ksync::init::stack_try_pin_init;
use ksync::mutex::{Barrier, Condvar, FastLocked, Rundown};
use ksync::semaphore::Semaphore;
use ksync::thread::{self, this_thread};
use ksync::time::{InterruptTime, SystemTime, Timeout};
use ksync::wait::{WaitOptions, WaitResult, wait_all};

pub(crate) const STEPS: &[Step] = &[
    Step { name: "condition variable", needs: &[], run: condition },
    Step { name: "barrier", needs: &[], run: barrier },
    // Of the routines that it calls, Wine exports stubs that end the driver. It lacks those of the other form altogether, which came with the same Windows.
    Step { name: "rundown protection", needs: &["ExAcquireRundownProtectionCacheAware"], run: rundown },
    Step { name: "all of several objects", needs: &[], run: all },
    Step { name: "clocks", needs: &[], run: clocks },
    Step { name: "pool", needs: &[], run: pool },
];

fn condition() -> Result {
    let (ready, changed) = (FastLocked::new(0_u32)?, Condvar::new());
    let seen = thread::scope(|scope| {
        let waiter = scope.spawn(|| -> Result<u32> {
            let mut guard = ready.lock()?;
            changed.wait_while(&mut guard, |ready| *ready < 3)?;
            Ok(*guard)
        })?;
        for _ in 0..3 {
            *ready.lock()? += 1;
            changed.notify_one()?;
        }
        waiter.join()?
    })?;
    ksync::println!("the waiter saw {seen}");
    Ok(())
}

fn barrier() -> Result {
    const THREADS: u32 = 3;
    let (barrier, arrived, leaders) = (Barrier::new(THREADS), AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| -> Result {
        let mut threads = [const { None }; THREADS as usize];
        for place in &mut threads {
            *place = Some(scope.spawn(|| -> Result<u32> {
                arrived.fetch_add(1, Ordering::SeqCst);
                if barrier.wait()?.is_leader() {
                    leaders.fetch_add(1, Ordering::SeqCst);
                }
                Ok(arrived.load(Ordering::SeqCst))
            })?);
        }
        for thread in threads.into_iter().flatten() {
            ksync::println!("behind the barrier {} had arrived", thread.join()??);
        }
        Ok(())
    })?;
    ksync::println!("leaders: {}", leaders.into_inner());
    Ok(())
}

fn rundown() -> Result {
    let device = Rundown::new();
    drop(device.acquire()?);
    device.wait()?;
    ksync::println!("nobody gets in any more: {}", device.acquire().is_err_and(|error| error == NtError::DELETE_PENDING));
    Ok(())
}

/// One of the objects has a block of pool of its own, the other lies on the stack.
fn all() -> Result {
    stack_try_pin_init!(let event = PinnedEvent::pin_init(EventProperty::Synchronization, true));
    let event = event?.into_ref().get_ref();
    let semaphore = Semaphore::new(0, 2)?;
    let poll = WaitOptions::from(Timeout::POLL);
    ksync::println!("one of them is not enough: {}", wait_all(&[event, &semaphore], poll).timed_out());
    semaphore.release(2)?;
    ksync::println!("both are: {}", wait_all(&[event, &semaphore], poll).success());
    ksync::println!("both were taken: {}", wait_all(&[event, &semaphore], poll) == WaitResult::TimedOut);
    Ok(())
}

fn clocks() -> Result {
    let (start, date) = (InterruptTime::now(), SystemTime::now());
    this_thread::sleep(Duration::from_millis(50))?;
    ksync::println!("one clock went on: {}", start.elapsed() >= Duration::from_millis(30));
    ksync::println!("so did the other: {}", SystemTime::now() > date);
    Ok(())
}

fn pool() -> Result {
    let mut numbers = Vec::new_in(NonPaged::<{ ksync::alloc::tag(b"Tour") }>::tagged());
    numbers.try_reserve(100).map_err(|_| NtError::INSUFFICIENT_RESOURCES)?;
    numbers.extend(0..100_u32);
    ksync::println!("the sum of {} numbers in pool: {}", numbers.len(), numbers.iter().sum::<u32>());
    Ok(())
}
