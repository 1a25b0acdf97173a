//! `cargo xtask bench`: what the library costs, counted rather than timed.

mod callgrind;
mod overhead;

use anyhow::Result;
use clap::Subcommand;

use crate::workspace::Workspace;

/// What can be counted.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum Bench {
    /// The instructions that the library adds to NT's routines, by callgrind on the hosted kernel.
    Overhead,
}

/// Runs one of them.
pub(crate) fn run(workspace: &Workspace, bench: Bench) -> Result<()> {
    match bench {
        Bench::Overhead => overhead::run(workspace),
    }
}
