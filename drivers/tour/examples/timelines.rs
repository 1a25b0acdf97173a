//! Writes timelines to look at: `cargo run --release --example timelines -- FOLDER`.
//!
//! Each is one HTML file. `bug-check`, `deadlock` and `clean` are a few hundred steps; `tour` is the whole tour; `long` has more than 100,000 steps.
//! Beside each is the trace-event file of the same run, for <https://ui.perfetto.dev>.

use ksim::{Machine, Outcome};
use ksync::error::Result;
use ksync::event::{Event, EventProperty};
use ksync::mutex::{FastLocked, ResourceLocked, SpinLocked};
use ksync::thread;
use ksync::timer::Timer;
use ksync::wait::Dispatchable;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What the timer's DPC does.
fn count_tick() {
    static TICKS: AtomicU32 = AtomicU32::new(0);
    TICKS.fetch_add(1, Ordering::SeqCst);
}

/// A queue that two producers fill and a consumer empties, with a timer's DPC that counts beside them.
fn work(rounds: u32) -> Result {
    let queue = SpinLocked::new(0_u32)?;
    let log = FastLocked::new(Vec::new())?;
    let settings = ResourceLocked::new(3_u32)?;
    let filled = Event::new(EventProperty::Synchronization, false)?;
    let timer = Timer::new(count_tick, false)?;
    timer.start(Duration::from_millis(2), Duration::from_millis(2))?;
    thread::scope(|scope| -> Result {
        for producer in 0..2_u64 {
            let (queue, log, settings, filled) = (&queue, &log, &settings, &filled);
            scope.spawn(move || -> Result {
                for round in 0..rounds {
                    let step = *settings.lock_shared()?;
                    queue.with(|queue| *queue += step)?;
                    filled.set()?;
                    log.lock()?.push(round);
                    thread::this_thread::sleep(Duration::from_micros(700 + 400 * producer))?;
                }
                Ok(())
            })?;
        }
        for round in 0..rounds {
            let _ = filled.wait_for(Duration::from_millis(1), false);
            queue.with(|queue| *queue = queue.saturating_sub(5))?;
            if round % 8 == 0 {
                *settings.lock()? += 1;
            }
        }
        Ok(())
    })?;
    timer.cancel()?;
    Ok(())
}

/// Two threads take two locks, each the other one first.
fn opposite_orders() -> Result {
    let (first, second) = (FastLocked::new(0_u32)?, FastLocked::new(0_u32)?);
    let barrier = Event::new(EventProperty::Notification, false)?;
    thread::scope(|scope| -> Result {
        scope.spawn(|| -> Result {
            let held = first.lock()?;
            barrier.wait().ok()?;
            *second.lock()? += *held;
            Ok(())
        })?;
        scope.spawn(|| -> Result {
            let held = second.lock()?;
            barrier.wait().ok()?;
            *first.lock()? += *held;
            Ok(())
        })?;
        thread::this_thread::sleep(Duration::from_millis(1))?;
        barrier.set()?;
        Ok(())
    })
}

/// Work, and then a routine that is called at a level that it is not for.
fn too_high() -> Result {
    work(6)?;
    let counter = SpinLocked::new(0_u32)?;
    thread::scope(|scope| -> Result {
        scope.spawn(|| -> Result {
            let _held = counter.lock()?;
            // SAFETY: none: it is what this timeline is to show. The hosted kernel stops the machine at the call.
            unsafe { ksync_sys::KeEnterCriticalRegion() };
            Ok(())
        })?;
        Ok(())
    })
}

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: timelines FOLDER");
        return ExitCode::FAILURE;
    };
    let machine = || Machine::new().processors(3).seed(7).record_sites(true);
    let check = |worked: Result| worked.expect("memory suffices");
    let tour = || match ksim::load_driver("tour", tour::DriverEntry) {
        Ok(driver) => driver.unload(),
        Err(status) => panic!("DriverEntry failed with {status:#010x}"),
    };
    let outcomes = [
        ("clean", machine().run(|| check(work(12)))),
        ("deadlock", machine().check_lock_order(false).run(|| check(opposite_orders()))),
        ("bug-check", machine().run(|| check(too_high()))),
        ("tour", machine().run(tour)),
        ("long", machine().record_sites(false).run(|| check(work(4_000)))),
    ];
    for (name, outcome) in &outcomes {
        if let Err(error) = write(&folder, name, outcome) {
            eprintln!("cannot write {name} to {}: {error}", folder.display());
            return ExitCode::FAILURE;
        }
        println!("{name}: {} steps, {}", outcome.trace_len(), outcome.to_string().lines().next().unwrap_or_default());
    }
    ExitCode::SUCCESS
}

fn write(folder: &Path, name: &str, outcome: &Outcome) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    outcome.write_timeline(folder.join(format!("{name}.html")))?;
    outcome.write_trace_events(folder.join(format!("{name}.json")))
}
