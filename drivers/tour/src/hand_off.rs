//! Threads that signal each other.

use crate::Step;
use ksync::error::Result;
use ksync::event::{Event, EventProperty};
use ksync::mutex::SpinLocked;
use ksync::semaphore::Semaphore;
use ksync::thread;
use ksync::wait::Dispatchable;

pub(crate) const STEPS: &[Step] =
    &[Step { name: "event", needs: &[], run: event }, Step { name: "semaphore", needs: &[], run: semaphore }];

/// Two threads take turns by two synchronization events.
fn event() -> Result {
    const ROUNDS: u32 = 5;
    let ping = Event::new(EventProperty::Synchronization, false)?;
    let pong = Event::new(EventProperty::Synchronization, false)?;
    let rallies = thread::scope(|scope| {
        let player = scope.spawn(|| -> Result<u32> {
            let mut rallies = 0;
            for _ in 0..ROUNDS {
                ping.wait().ok()?;
                rallies += 1;
                pong.set()?;
            }
            Ok(rallies)
        })?;
        for _ in 0..ROUNDS {
            ping.set()?;
            pong.wait().ok()?;
        }
        player.join()?
    })?;
    ksync::println!("ping and pong: {rallies} rallies");
    Ok(())
}

/// A producer and a consumer with a buffer of three places.
fn semaphore() -> Result {
    const PLACES: u32 = 3;
    const ITEMS: u32 = 10;
    let free = Semaphore::new(PLACES, PLACES)?;
    let filled = Semaphore::new(0, PLACES)?;
    let buffer = SpinLocked::new([0_u32; PLACES as usize])?;
    let sum = thread::scope(|scope| {
        let consumer = scope.spawn(|| -> Result<u32> {
            let mut sum = 0;
            for index in 0..ITEMS {
                filled.wait().ok()?;
                sum += buffer.with(|buffer| buffer[(index % PLACES) as usize])?;
                free.release(1)?;
            }
            Ok(sum)
        })?;
        for item in 0..ITEMS {
            free.wait().ok()?;
            buffer.with(|buffer| buffer[(item % PLACES) as usize] = item + 1)?;
            filled.release(1)?;
        }
        consumer.join()?
    })?;
    ksync::println!("{ITEMS} items passed through {PLACES} places: the sum is {sum}");
    Ok(())
}
