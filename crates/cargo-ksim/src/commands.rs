//! The commands, one a file.

pub(crate) mod explore;
pub(crate) mod imports;
pub(crate) mod replay;
pub(crate) mod rules;
pub(crate) mod run;

use crate::arguments::OutputArguments;
use crate::output::Failure;
use anyhow::Context;
use ksim::Outcome;

/// Writes the files that show a run, where they are asked for.
fn write_files(output: &OutputArguments, outcome: &Outcome) -> Result<(), Failure> {
    if let Some(file) = &output.report {
        outcome.write_timeline(file).with_context(|| format!("cannot write {}", file.display())).map_err(Failure::usage)?;
    }
    if let Some(file) = &output.trace {
        outcome.write_trace_events(file).with_context(|| format!("cannot write {}", file.display())).map_err(Failure::usage)?;
    }
    Ok(())
}

/// Whether anything will be shown that source lines are for.
fn shows_sites(output: &OutputArguments) -> bool {
    output.report.is_some() || output.trace.is_some()
}
