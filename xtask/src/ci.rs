//! `cargo xtask ci`: what a change must pass, in order.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::bench;
use crate::driver;
use crate::process;
use crate::suite;
use crate::timeline;
use crate::transcripts;
use crate::wine;
use crate::workspace::Workspace;

/// The drivers that CI builds and runs, and how many of the steps of each Wine must print as the hosted run does.
const DRIVERS: &[(&str, usize)] = &[("tour", 10), ("polling", 6), ("workers", 3)];

/// The one in C.
const C_DRIVER: &str = "c-sample";

/// How long a driver may take to load under Wine, and to unload.
const WINE_TIMEOUT: Duration = Duration::from_secs(120);

/// How long the benches may take in their quick mode.
const BENCH_LIMIT: Duration = Duration::from_secs(600);

/// How long an example may take, which runs in virtual time.
const EXAMPLE_LIMIT: Duration = Duration::from_secs(300);

/// One thing that CI runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Phase {
    /// The source is formatted.
    Fmt,
    /// No lint fires, in any target.
    Clippy,
    /// The documentation builds without a warning.
    Doc,
    /// Every test and every documented example passes.
    Test,
    /// The sample drivers run on the hosted kernel.
    Example,
    /// The sample drivers build as `.sys` files and the images are sound.
    Driver,
    /// Each sample's `.sys`, loaded by the hosted kernel, prints what its hosted run prints.
    Images,
    /// The `.sys` files print under Wine what the hosted runs print.
    Wine,
    /// The tests of Wine's ntoskrnl.exe pass on the hosted kernel, if Debian's archive can be reached.
    Suite,
    /// The timelines of runs work in a browser.
    Timeline,
    /// The benches run and print their figures.
    Bench,
}

impl Phase {
    fn run(self, workspace: &Workspace) -> Result<()> {
        let cargo = |arguments: &[&str]| {
            let mut command = workspace.cargo();
            command.args(arguments);
            command
        };
        match self {
            Self::Fmt => process::run(&mut cargo(&["fmt", "--all", "--check"])),
            Self::Clippy => process::run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])),
            Self::Doc => {
                let mut doc = cargo(&["doc", "--workspace", "--no-deps"]);
                process::run(doc.env("RUSTDOCFLAGS", "-D warnings"))
            }
            Self::Test => process::run(&mut cargo(&["test", "--workspace"])),
            Self::Example => DRIVERS.iter().try_for_each(|(name, _)| {
                let text = process::tee(&mut cargo(&["run", "--release", "--example", name]), EXAMPLE_LIMIT)?;
                ensure!(text.lines().any(|line| line.starts_with("[step] ")), "the example `{name}` printed no step");
                Ok(())
            }),
            Self::Driver => DRIVERS.iter().try_for_each(|(name, _)| driver::build(workspace, name).map(drop)),
            Self::Images => transcripts::run(workspace, &[], transcripts::Lanes::Hosted),
            Self::Wine => {
                DRIVERS.iter().try_for_each(|&(name, at_least)| {
                    let limits = wine::Limits { at_least, timeout: WINE_TIMEOUT };
                    wine::run(workspace, name, limits)
                })?;
                transcripts::run(workspace, &[C_DRIVER.to_owned()], transcripts::Lanes::All)
            }
            Self::Suite => suite::run_if_possible(workspace),
            Self::Timeline => timeline::run(workspace, None),
            Self::Bench => bench(workspace),
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("no phase is hidden");
        f.write_str(value.get_name())
    }
}

/// Runs the benches so that they only just measure. Figures to rely on come from `cargo bench` by itself.
fn bench(workspace: &Workspace) -> Result<()> {
    let mut bench = workspace.cargo();
    bench.args(["bench", "--package", "ksim", "--", "--quick"]);
    let text = process::tee(&mut bench, BENCH_LIMIT)?;
    let figures = text.lines().filter(|line| line.starts_with("RESULT ")).count();
    ensure!(figures != 0, "the benches printed no `RESULT name value unit` line");
    bench::overhead_if_possible(workspace)
}

/// Runs the phases, all of them when none is named, until one fails. Prints what each took.
pub(crate) fn run(workspace: &Workspace, phases: &[Phase]) -> Result<()> {
    let phases = if phases.is_empty() { Phase::value_variants() } else { phases };
    let start = Instant::now();
    let mut taken = Vec::new();
    let mut failure = None;
    for &phase in phases {
        println!("\n=== {phase} ===");
        let begin = Instant::now();
        let outcome = phase.run(workspace).with_context(|| format!("the phase `{phase}` failed"));
        taken.push((phase, begin.elapsed()));
        if let Err(error) = outcome {
            failure = Some(error);
            break;
        }
    }

    println!("\n=== what it took ===");
    for (index, (phase, time)) in taken.iter().enumerate() {
        let verdict = if failure.is_some() && index + 1 == taken.len() { "FAILED" } else { "passed" };
        println!("  {:<8} {verdict}  {:>7.1} s", phase.to_string(), time.as_secs_f64());
    }
    for phase in &phases[taken.len()..] {
        println!("  {:<8} not run", phase.to_string());
    }
    println!("  {:<8}         {:>7.1} s", "total", start.elapsed().as_secs_f64());
    for (phase, time) in &taken {
        println!("RESULT ci.{phase} {:.1} s", time.as_secs_f64());
    }
    println!("RESULT ci.total {:.1} s", start.elapsed().as_secs_f64());
    match failure {
        Some(error) => bail!(error),
        None => Ok(()),
    }
}
