//! What safe code can try against the library's objects: levels, places, destructors and callbacks that nobody would write, and that must not break anything.

#[path = "safe_code/closures.rs"]
mod closures;
#[path = "safe_code/devices.rs"]
mod devices;
#[path = "safe_code/forgotten.rs"]
mod forgotten;
#[path = "safe_code/objects.rs"]
mod objects;
#[path = "safe_code/unwinding.rs"]
mod unwinding;

use core::time::Duration;
use ksim::Machine;
use ksync::driver::DriverObject;
use ksync::error::Result;
use test_support::driver::load;

const US: Duration = Duration::from_micros(1);
const MS: Duration = Duration::from_millis(1);

/// Under several schedules, on one processor and on several.
fn explore(code: impl Fn() -> Result) {
    for processors in [1, 2, 4] {
        for threaded in [true, false] {
            for seed in 0..10 {
                // Nothing may rest on it that a flush waits for threaded DPCs too.
                let machine =
                    Machine::new().processors(processors).threaded_dpcs(threaded).flushes_threaded_dpcs(seed % 2 == 0).seed(seed);
                machine.run(|| code().unwrap()).expect_clean();
            }
        }
    }
}

/// The same in a driver's entry, so that all of it is the driver's.
fn with_driver(code: fn(&DriverObject) -> Result) {
    explore(|| {
        load(code).unwrap().unload();
        Ok(())
    });
}
