//! `cargo xtask bench`: what the library costs, counted rather than timed where that can be.

mod callgrind;
mod code;
mod image;
mod overhead;
mod versus;

use anyhow::Result;
use clap::Subcommand;

use crate::workspace::Workspace;

/// What can be counted.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Bench {
    /// The instructions that the library adds to NT's routines, by callgrind on the hosted kernel.
    Overhead,
    /// The machine code of one pair of calls on a spin lock in a driver, beside that of C.
    Code,
    /// The search of `ksim` beside those of shuttle and loom, on like programs. It takes some minutes.
    Versus {
        /// The parts that are measured: counter2, counter3, pingpong, exhaust, philosophers4, philosophers6, abba100, order100, two_cores. All, if none is named.
        parts: Vec<String>,
    },
    /// What it costs to run a driver's image on the hosted kernel: calls, reads of CR8, loading.
    Image,
}

/// Counts the overhead where callgrind is there, and otherwise says that it is not.
pub(crate) fn overhead_if_possible(workspace: &Workspace) -> Result<()> {
    if overhead::is_possible() {
        return overhead::run(workspace);
    }
    println!("valgrind was not found: the overhead is not counted");
    Ok(())
}

/// Runs one of them.
pub(crate) fn run(workspace: &Workspace, bench: Bench) -> Result<()> {
    match bench {
        Bench::Overhead => overhead::run(workspace),
        Bench::Code => code::run(workspace),
        Bench::Versus { parts } => versus::run(workspace, &parts),
        Bench::Image => image::run(workspace),
    }
}
