//! Four threads count to 100 each, under each lock.

use crate::Step;
use core::pin::pin;
use ksync::error::Result;
use ksync::mutex::{
    FastLocked, GuardLocked, InStackQueueLocked, KMutex, LockedQueueHandle, PushLocked, ResourceLocked, SpinLocked, SpinRwLocked,
};
use ksync::thread;

const THREADS: u32 = 4;
const INCREMENTS: u32 = 100;

pub(crate) const STEPS: &[Step] = &[
    Step { name: "fast mutex", needs: &[], run: fast_mutex },
    Step { name: "guarded mutex", needs: &["KeAcquireGuardedMutexUnsafe"], run: guarded_mutex },
    Step { name: "resource", needs: &[], run: resource },
    Step { name: "spin lock", needs: &[], run: spin_lock },
    Step { name: "static spin lock", needs: &[], run: static_spin_lock },
    Step { name: "queued spin lock", needs: &[], run: queued_spin_lock },
    Step { name: "push lock", needs: &["ExAcquirePushLockExclusiveEx"], run: push_lock },
    Step { name: "reader-writer spin lock", needs: &["ExAcquireSpinLockExclusive"], run: spin_rw_lock },
    Step { name: "mutex", needs: &[], run: mutex },
];

/// Runs `increment` as often as it takes on several threads at once.
fn count(increment: impl Fn() -> Result + Sync) -> Result {
    let increment = &increment;
    thread::scope(|scope| {
        let mut threads = [const { None }; THREADS as usize];
        for slot in &mut threads {
            *slot = Some(scope.spawn(move || (0..INCREMENTS).try_for_each(|_| increment()))?);
        }
        threads.into_iter().flatten().try_for_each(|thread| thread.join()?)
    })
}

fn fast_mutex() -> Result {
    let counter = FastLocked::new(0_u32)?;
    count(|| {
        *counter.lock()? += 1;
        Ok(())
    })?;
    ksync::println!("the final value of shared counter is: {}", *counter.lock()?);
    Ok(())
}

fn guarded_mutex() -> Result {
    let counter = GuardLocked::new(0_u32)?;
    count(|| {
        *counter.lock()? += 1;
        Ok(())
    })?;
    ksync::println!("the final value of shared counter is: {}", *counter.lock()?);
    Ok(())
}

fn spin_lock() -> Result {
    let counter = SpinLocked::new(0_u32)?;
    count(|| counter.with(|counter| *counter += 1))?;
    ksync::println!("the final value of shared counter is: {}", *counter.lock()?);
    Ok(())
}

static COUNTER: SpinLocked<u32> = SpinLocked::const_new(0);

fn static_spin_lock() -> Result {
    *COUNTER.lock()? = 0;
    count(|| COUNTER.with(|counter| *counter += 1))?;
    ksync::println!("the final value of shared counter is: {}", *COUNTER.lock()?);
    Ok(())
}

fn mutex() -> Result {
    let counter = KMutex::new(0_u32)?;
    count(|| {
        *counter.lock()? += 1;
        Ok(())
    })?;
    ksync::println!("the final value of shared counter is: {}", counter.lock()?);
    ksync::println!("the mutex gives back what it held: {}", counter.to_owned());
    Ok(())
}

fn resource() -> Result {
    let counter = ResourceLocked::new(0_u32)?;
    count(|| {
        *counter.lock()? += 1;
        Ok(())
    })?;
    ksync::println!("the final value of shared counter is: {}", *counter.lock_shared()?);
    Ok(())
}

fn queued_spin_lock() -> Result {
    let counter = InStackQueueLocked::new(0_u32)?;
    count(|| {
        let mut handle = pin!(LockedQueueHandle::new());
        *counter.lock(&mut handle)? += 1;
        Ok(())
    })?;
    ksync::println!("the final value of shared counter is: {}", counter.with(|counter| *counter)?);
    Ok(())
}

static PUSHED: PushLocked<u32> = PushLocked::const_new(0);

fn push_lock() -> Result {
    *PUSHED.lock()? = 0;
    count(|| {
        *PUSHED.lock()? += 1;
        Ok(())
    })?;
    ksync::println!("the final value of shared counter is: {}", *PUSHED.lock_shared()?);
    Ok(())
}

fn spin_rw_lock() -> Result {
    let counter = SpinRwLocked::new(0_u32)?;
    count(|| counter.with(|counter| *counter += 1))?;
    ksync::println!("the final value of shared counter is: {}", counter.with_shared(|counter| *counter)?);
    Ok(())
}
