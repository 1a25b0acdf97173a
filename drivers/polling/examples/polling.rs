//! Runs the polling driver for ten seconds on the hosted kernel: `cargo run --release --example polling`.

use ksim::Machine;
use ksync::thread::this_thread;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let outcome = Machine::new().processors(4).echo(true).run(|| match ksim::load_driver("polling", polling::DriverEntry) {
        Ok(driver) => {
            // Virtual time: it passes at once.
            if let Err(error) = this_thread::sleep(Duration::from_secs(10)) {
                panic!("the sleep failed: {error}");
            }
            driver.unload();
        }
        Err(status) => panic!("DriverEntry failed with {status:#010x}"),
    });
    if !outcome.is_completed() || !outcome.left().is_empty() {
        eprintln!("{outcome}");
        return ExitCode::FAILURE;
    }
    let statistics = outcome.statistics();
    println!("# virtual time {:?}, {} switches", statistics.virtual_time, statistics.switches);
    ExitCode::SUCCESS
}
