//! The project's own commands: build a driver, run it under Wine, run what CI runs.
//!
//! `cargo xtask --help` lists them. Measurements are printed twice: in a table for people, and as one line per
//! figure for machines, `RESULT name value unit`.

mod bench;
mod browser;
mod ci;
mod driver;
mod fuzz;
mod image;
mod process;
mod suite;
mod timeline;
mod transcript;
mod transcripts;
mod wine;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Builds drivers, runs them under Wine, and runs what CI runs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build `target/driver/<NAME>.sys` from `drivers/<NAME>` and check the image.
    Driver {
        /// The package's name, which is also its folder's.
        name: String,
    },
    /// Load and unload the driver under Wine's ntoskrnl and compare what it prints with the hosted run.
    Wine {
        /// The package's name, which is also its folder's.
        name: String,
        /// How many steps must print the same lines, at the least.
        #[arg(long, value_name = "STEPS", default_value_t = 5)]
        at_least: usize,
        /// Seconds that the driver may take to load, and again to unload.
        #[arg(long, value_name = "SECONDS", default_value_t = 120)]
        timeout: u64,
    },
    /// Write timelines of runs and try them in Chromium.
    Timeline {
        /// Put pictures of them there, in light and dark.
        #[arg(long, value_name = "FOLDER")]
        pictures: Option<PathBuf>,
    },
    /// Compare what the sample drivers print hosted, loaded as images, and under Wine.
    Transcripts {
        /// The drivers; all of them when none is named.
        names: Vec<String>,
        /// Leave Wine out.
        #[arg(long)]
        without_wine: bool,
    },
    /// Count what the library costs.
    Bench {
        /// What to count.
        #[command(subcommand)]
        bench: bench::Bench,
    },
    /// Fuzz the reader of images with libFuzzer, which needs a C++ compiler.
    Fuzz {
        /// For so long.
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        seconds: u64,
    },
    /// Run the tests of Wine's ntoskrnl.exe, as drivers, on the hosted kernel. Their source is Debian's.
    Suite {
        /// Take Wine's source from there.
        #[arg(long, value_name = "FOLDER")]
        source: Option<PathBuf>,
    },
    /// Everything that CI runs, in order. Stops at the first failure.
    Ci {
        /// Run these phases alone.
        #[arg(value_enum, value_name = "PHASE")]
        phases: Vec<ci::Phase>,
    },
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("  caused by: {cause}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let workspace = Workspace::find()?;
    match Arguments::parse().command {
        Command::Driver { name } => driver::build(&workspace, &name).map(drop),
        Command::Wine { name, at_least, timeout } => {
            let limits = wine::Limits { at_least, timeout: Duration::from_secs(timeout) };
            wine::run(&workspace, &name, limits)
        }
        Command::Timeline { pictures } => timeline::run(&workspace, pictures.as_deref()),
        Command::Transcripts { names, without_wine } => {
            let lanes = if without_wine { transcripts::Lanes::Hosted } else { transcripts::Lanes::All };
            transcripts::run(&workspace, &names, lanes)
        }
        Command::Bench { bench } => bench::run(&workspace, bench),
        Command::Fuzz { seconds } => fuzz::run(&workspace, seconds),
        Command::Suite { source } => suite::run(&workspace, source.as_deref()),
        Command::Ci { phases } => ci::run(&workspace, &phases),
    }
}
