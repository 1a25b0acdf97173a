//! `cargo ksim`: runs a driver's `.sys` file on the hosted kernel, searches its schedules, repeats a failure, and shows a run as a timeline.
//!
//! `cargo ksim --help` and `docs/command-line.md` say how. The exit code is 0 for a clean run, 1 if something was found, 2 for a mistake in the command line, and 3 for a driver
//! that cannot be loaded.

mod arguments;
mod commands;
mod output;
mod program;

use arguments::{Arguments, Command};
use clap::{CommandFactory, Parser};
use output::{Exit, Failure};
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse_from(words(std::env::args_os())) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    let exit = match run(&arguments) {
        Ok(exit) => exit,
        Err(Failure { exit, error }) => {
            output::complain(&error);
            exit
        }
    };
    exit.into()
}

fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    match &arguments.command {
        Command::Run(run) => commands::run::run(run),
        Command::Explore(explore) => commands::explore::run(explore),
        Command::Replay(replay) => commands::replay::run(replay),
        Command::Imports(imports) => commands::imports::run(imports),
        Command::Rules(rules) => commands::rules::run(rules),
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Arguments::command(), "cargo-ksim", &mut std::io::stdout());
            Ok(Exit::Clean)
        }
    }
}

/// The command line without what cargo adds: it starts `cargo-ksim ksim ...`.
fn words(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<_> = words.collect();
    if words.get(1).is_some_and(|word| word == "ksim") {
        words.remove(1);
    }
    words
}
