//! Writes the small drivers of the tests and of `docs/command-line.md`: `cargo run -p cargo-ksim --example samples -- FOLDER`.

#[cfg(target_arch = "x86_64")]
#[path = "../tests/samples/mod.rs"]
mod samples;

use std::process::ExitCode;

#[cfg(target_arch = "x86_64")]
fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: samples FOLDER");
        return ExitCode::FAILURE;
    };
    match samples::write(folder.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write the drivers: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn main() -> ExitCode {
    eprintln!("the drivers are machine code of x86-64, and are assembled there");
    ExitCode::FAILURE
}
