//! Runs the driver on the hosted kernel: `cargo run --release --example workers`.

use ksim::Machine;
use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = Machine::new().processors(4).echo(true).run(|| match ksim::load_driver("workers", workers::DriverEntry) {
        Ok(driver) => driver.unload(),
        Err(status) => panic!("DriverEntry failed with {status:#010x}"),
    });
    if !outcome.is_completed() || !outcome.left().is_empty() {
        eprintln!("{outcome}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
