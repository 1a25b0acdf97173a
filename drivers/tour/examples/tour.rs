//! Runs the tour driver on the hosted kernel: `cargo run --release --example tour`.

use ksim::Machine;
use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = Machine::new().processors(4).echo(true).run(|| match ksim::load_driver("tour", tour::DriverEntry) {
        Ok(driver) => driver.unload(),
        Err(status) => panic!("DriverEntry failed with {status:#010x}"),
    });
    if !outcome.is_completed() || !outcome.left().is_empty() {
        eprintln!("{outcome}");
        return ExitCode::FAILURE;
    }
    let statistics = outcome.statistics();
    println!(
        "# virtual time {:?}, {} switches, {} scheduling points, pool left: {}",
        statistics.virtual_time,
        statistics.switches,
        statistics.scheduling_points,
        outcome.left().pool_bytes()
    );
    ExitCode::SUCCESS
}
