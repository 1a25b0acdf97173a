//! Values that are made once, and values that are found by name.

use crate::Step;
use ksync::error::Result;
use ksync::grt::Grt;
use ksync::lazy::{LazyLock, OnceLock};
use ksync::sync::atomic::{AtomicU32, Ordering};
use ksync::thread;

pub(crate) const STEPS: &[Step] =
    &[Step { name: "made once", needs: &[], run: made_once }, Step { name: "found by name", needs: &[], run: found_by_name }];

const THREADS: usize = 4;

/// Several threads ask for a value; one of them makes it, and the others wait for it. They are counted by an atomic that searches of schedules see.
fn made_once() -> Result {
    let made = AtomicU32::new(0);
    let make = || {
        made.fetch_add(1, Ordering::SeqCst);
        42_u32
    };
    let once = OnceLock::new();
    let lazy = LazyLock::new(make);
    thread::scope(|scope| -> Result {
        let mut threads = [const { None }; THREADS];
        for slot in &mut threads {
            *slot = Some(scope.spawn(|| -> Result<u32> { Ok(*once.get_or_init(make)? + *LazyLock::force(&lazy)?) })?);
        }
        for thread in threads.into_iter().flatten() {
            ksync::println!("a thread sees {}", thread.join()??);
        }
        Ok(())
    })?;
    ksync::println!("two values, made {} times", made.load(Ordering::SeqCst));
    Ok(())
}

/// Threads that share nothing but a name.
fn found_by_name() -> Result {
    Grt::init()?;
    let counted = count_by_name();
    Grt::destroy()?;
    ksync::println!("the value under the name is: {}", counted?);
    ksync::println!("the name is gone with the registry: {}", Grt::get_kmutex::<u32>("counter").is_err());
    Ok(())
}

fn count_by_name() -> Result<u32> {
    Grt::register_kmutex("counter", 0_u32)?;
    thread::scope(|scope| -> Result {
        let mut threads = [const { None }; THREADS];
        for slot in &mut threads {
            *slot = Some(scope.spawn(|| -> Result {
                let counter = Grt::get_kmutex::<u32>("counter")?;
                *counter.lock()? += 1;
                Ok(())
            })?);
        }
        threads.into_iter().flatten().try_for_each(|thread| thread.join()?)
    })?;
    let counter = Grt::get_kmutex::<u32>("counter")?;
    let value = *counter.lock()?;
    Ok(value)
}
