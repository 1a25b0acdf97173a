//! `cargo ksim replay`.

use super::run::print_outcome;
use super::{shows_sites, write_files};
use crate::arguments::ReplayArguments;
use crate::output::{Exit, Failure, print};
use crate::program::Program;
use anyhow::Context;

pub(crate) fn run(arguments: &ReplayArguments) -> Result<Exit, Failure> {
    let program = Program::open(&arguments.program, true)?;
    let machine = arguments.machine.machine().record_sites(shows_sites(&arguments.output));
    let machine = machine.echo(!arguments.output.json);
    let exploration = ksim::explore()
        .machine(machine)
        .program_name(program.name())
        .replay(&arguments.token, || program.run())
        .context("the token cannot be replayed")
        .map_err(Failure::usage)?;
    let Some(failure) = exploration.failure() else {
        match exploration.allowed().next() {
            Some((rule, _)) => {
                print(&format_args!("The schedule was run, and ends early, at a breach of rule {}, which is off.", rule.name))
            }
            None => print(&"The schedule was run, and does not fail."),
        }
        return Ok(Exit::Clean);
    };
    write_files(&arguments.output, &failure.outcome)?;
    if arguments.output.json {
        print(&format_args!("{:#}", failure.outcome.report().to_json()));
    } else {
        print_outcome(&failure.outcome);
    }
    Ok(Exit::Found)
}
