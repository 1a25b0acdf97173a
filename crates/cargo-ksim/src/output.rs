//! What is written where: results to standard output, complaints to standard error, and the exit code.

use anstyle::{AnsiColor, Style};
use std::fmt;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// How the program ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// Nothing was found.
    Clean = 0,
    /// Something was found.
    Found = 1,
    /// The command line is wrong, or a file cannot be written.
    Usage = 2,
    /// The driver cannot be loaded.
    NotLoadable = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why nothing could be done.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) error: anyhow::Error,
}

impl Failure {
    /// A mistake in the command line.
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { exit: Exit::Usage, error: error.into() }
    }

    /// A driver that cannot be loaded.
    pub(crate) fn not_loadable(error: impl Into<anyhow::Error>) -> Self {
        Self { exit: Exit::NotLoadable, error: error.into() }
    }
}

/// Says what is wrong.
pub(crate) fn complain(error: &anyhow::Error) {
    let style = if wants_color(&std::io::stderr()) { AnsiColor::Red.on_default().bold() } else { Style::new() };
    eprintln!("{style}error:{style:#} {error:#}");
}

/// Whether colours are wanted there: on a terminal, where `NO_COLOR` is not set.
pub(crate) fn wants_color(stream: &impl IsTerminal) -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && stream.is_terminal()
}

/// Prints to standard output. A reader that has seen enough and closed the pipe is no error.
pub(crate) fn print(text: &dyn fmt::Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}
