//! `cargo xtask bench image`: what a driver's image costs on the hosted kernel, and that it stays within bounds.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process;
use crate::workspace::Workspace;

/// How long the bench may take, building included.
const LIMIT: Duration = Duration::from_secs(1200);

/// The figures, and the most that each may be.
const BOUNDS: [(&str, f64); 4] =
    [("image.call.ratio", 2.0), ("image.cr8", 50.0), ("image.cr8.write", 500.0), ("image.load", 1000.0)];

/// Runs the bench and looks at its figures.
pub(super) fn run(workspace: &Workspace) -> Result<()> {
    let mut bench = workspace.cargo();
    let text = process::tee(bench.args(["bench", "--package", "ksim", "--bench", "image"]), LIMIT)?;
    for (name, most) in BOUNDS {
        let prefix = format!("RESULT {name} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&prefix)).with_context(|| format!("there is no {name}"))?;
        let value: f64 = line.split(' ').next().unwrap_or_default().parse().with_context(|| format!("{name} is `{line}`"))?;
        ensure!(value <= most, "{name} is {line}, and may be {most} at the most");
    }
    Ok(())
}
