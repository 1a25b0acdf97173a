//! A tour of ksync: each primitive at work, once, in one driver.
//!
//! `DriverEntry` runs the tour and prints what happens; `DriverUnload` drains. The same source runs hosted
//! (`cargo run --release --example tour`) and as a native `.sys` (`cargo xtask driver tour`).
//!
//! The transcript is made to be compared: each step begins with `[step] name`, a step that the running system cannot do prints
//! `[skip] name: why`, and a line that begins with `# ` differs from run to run.
#![no_std]

mod devices;
mod hand_off;
mod levels;
mod locks;
mod memory;
mod polling;
mod processors;
mod references;
mod shared;
mod system;
mod timers;
mod waiting;

use ksync::driver::{DriverObject, UnicodeStr};
use ksync::error::Result;

/// One step: its name, the routines that it needs beyond those that every system has, and what it does.
struct Step<R = fn() -> Result> {
    name: &'static str,
    needs: &'static [&'static str],
    run: R,
}

impl<R> Step<R> {
    /// Takes the step by `run`, or says why not.
    fn take(&self, run: impl FnOnce(&R) -> Result) -> Result {
        if let Some(missing) = self.needs.iter().find(|routine| !system::exports(routine)) {
            ksync::println!("[skip] {}: the system does not export {missing}", self.name);
            return Ok(());
        }
        ksync::println!("[step] {}", self.name);
        run(&self.run).inspect_err(|error| ksync::println!("failed: {error}"))
    }
}

const STEPS: &[&[Step]] = &[
    levels::STEPS,
    locks::STEPS,
    hand_off::STEPS,
    timers::STEPS,
    processors::STEPS,
    polling::STEPS,
    references::STEPS,
    waiting::STEPS,
    shared::STEPS,
    memory::STEPS,
];

/// What the driver keeps until it is unloaded: nothing, as each step cleans up behind itself.
#[derive(Debug)]
pub struct Tour;

/// Runs the tour.
///
/// # Errors
/// The error of the first step that fails.
pub fn entry(driver: &DriverObject, _registry_path: &UnicodeStr<'_>) -> Result<Tour> {
    for step in STEPS.iter().copied().flatten() {
        step.take(|run| run())?;
    }
    for step in devices::STEPS {
        step.take(|run| run(driver))?;
    }
    ksync::println!("[step] end");
    ksync::println!("the tour is over");
    Ok(Tour)
}

ksync::driver_entry!(entry);

/// Hosted, the process' own allocator serves Rust's `alloc`.
#[cfg(all(windows, panic = "abort"))]
#[global_allocator]
static ALLOCATOR: ksync::alloc::PoolAlloc = ksync::alloc::PoolAlloc::new();
