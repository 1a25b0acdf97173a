//! `cargo xtask bench versus`: the search of `ksim` beside those of shuttle and loom.
//!
//! `crates/versus` measures and prints. What the peers print about each failure that is looked for goes to standard error, and is not shown.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::process;
use crate::workspace::Workspace;

/// Builds and runs the bench.
pub(crate) fn run(workspace: &Workspace, parts: &[String]) -> Result<()> {
    process::run(workspace.cargo().args(["build", "--quiet", "--profile", "bench", "--package", "versus"]))?;
    // The profile `bench` builds where `release` does.
    let mut command = Command::new(workspace.target().join("release").join(format!("versus{}", std::env::consts::EXE_SUFFIX)));
    command.args(parts).stderr(Stdio::null());
    let described = process::describe(&command);
    let status = command.status().with_context(|| format!("{described} did not start"))?;
    ensure!(status.success(), "{described} failed ({status}): run it by hand with --verbose to see why");
    Ok(())
}
