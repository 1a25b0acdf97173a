//! Runs a driver's image: `cargo run --release --package ksim --example image -- [--explore SCHEDULES] FILE.sys`.
//!
//! Loads it, unloads it, and prints what it printed; with `--explore`, under so many schedules, until one fails.

use ksim::image::Image;
use ksim::{Machine, explore};
use std::env;
use std::process::ExitCode;

/// How many processors there are, as in the samples' hosted runs.
const PROCESSORS: u8 = 4;

fn load_and_unload(name: &str, image: &Image) {
    match ksim::load_image(name, image) {
        Ok(driver) => driver.unload(),
        Err(status) => panic!("DriverEntry failed with {status:#010x}"),
    }
}

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let (mut schedules, mut path) = (None, None);
    while let Some(argument) = arguments.next() {
        if argument == "--explore" {
            schedules = arguments.next().and_then(|number| number.parse().ok());
        } else {
            path = Some(argument);
        }
    }
    let Some(path) = path else {
        eprintln!("usage: image [--explore SCHEDULES] FILE.sys");
        return ExitCode::FAILURE;
    };
    let name = std::path::Path::new(&path).file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let image = match Image::open(&path) {
        Ok(image) => image,
        Err(error) => {
            eprintln!("{path}: {error}");
            return ExitCode::FAILURE;
        }
    };
    for import in image.imports().filter(|import| !import.available) {
        println!("# this kernel lacks {}!{}", import.library, import.name);
    }
    if let Some(schedules) = schedules {
        let exploration = explore().processors(PROCESSORS).schedules(schedules).check(|| load_and_unload(&name, &image));
        println!("# {} schedules", exploration.executions());
        let Some(failure) = exploration.failure() else { return ExitCode::SUCCESS };
        println!("{failure}");
        return ExitCode::FAILURE;
    }
    let outcome = Machine::new().processors(PROCESSORS).echo(true).run(|| load_and_unload(&name, &image));
    if !outcome.is_completed() || !outcome.left().is_empty() {
        eprintln!("{outcome}");
        return ExitCode::FAILURE;
    }
    let statistics = outcome.statistics();
    println!("# virtual time {:?}, {} switches", statistics.virtual_time, statistics.switches);
    ExitCode::SUCCESS
}
