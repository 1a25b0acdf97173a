//! `cargo xtask transcripts`: each sample driver hosted from its source, loaded as a `.sys` by the hosted kernel, and under Wine, side by side.
//!
//! What says what is right is the hosted run, or, for a driver that has no Rust source to host, the image's.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::driver::{self, Driver};
use crate::process;
use crate::transcript::Transcript;
use crate::wine;
use crate::workspace::Workspace;

/// The program that runs images.
const IMAGE_EXAMPLE: [&str; 4] = ["--package", "ksim", "--example", "image"];

/// How long one run on the hosted kernel may take: its time is virtual.
const LIMIT: Duration = Duration::from_secs(120);

/// How many schedules the sample with a seeded bug is searched, and how many the one without.
const SCHEDULES: u32 = 200;

/// How long Wine may take to load a driver, and to unload it.
const WINE_LIMIT: Duration = Duration::from_secs(120);

/// Drivers that cannot do without a routine that Wine lacks.
const NOT_UNDER_WINE: &[(&str, &str)] = &[("lookaside-ffi", "ExInitializeLookasideListEx")];

/// What of a driver can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lanes {
    /// Hosted, and as an image.
    Hosted,
    /// Those, and under Wine.
    All,
}

/// Compares the runs of the drivers, all of them when none is named.
pub(crate) fn run(workspace: &Workspace, names: &[String], lanes: Lanes) -> Result<()> {
    let all = workspace.drivers()?;
    let names = if names.is_empty() { &all } else { names };
    // By itself, as building takes longer than a run may.
    process::run(workspace.cargo().args(["build", "--release"]).args(IMAGE_EXAMPLE))
        .context("the runner of images does not build")?;
    let mut wrong = 0;
    for name in names {
        println!("\n=== {name} ===");
        let driver = driver::build(workspace, name)?;
        wrong += compare(workspace, name, &driver, lanes)?;
    }
    ensure!(wrong == 0, "{wrong} steps do not come out alike");
    if names.iter().any(|name| name == "c-sample") && lanes == Lanes::Hosted {
        seeded_bug(workspace)?;
    }
    Ok(())
}

/// Compares one driver's runs. Returns how many steps are wrong.
fn compare(workspace: &Workspace, name: &str, driver: &Driver, lanes: Lanes) -> Result<usize> {
    println!("\nloaded as an image:");
    let image = image_transcript(workspace, &driver.path)?;
    let mut wrong = 0;
    let has_example = workspace.root().join("drivers").join(name).join("examples").join(format!("{name}.rs")).is_file();
    let (right, source) = if has_example {
        let hosted = wine::hosted_transcript(workspace, name)?;
        wrong += show(name, "image", &hosted.compare(&image), "the image against the hosted run");
        (hosted, "the hosted run")
    } else {
        println!("{name} has no source that can be hosted");
        (image, "the image")
    };
    if lanes == Lanes::All {
        match NOT_UNDER_WINE.iter().find(|(driver, _)| *driver == name) {
            Some((_, routine)) => println!("not under Wine: it lacks {routine}, which the driver cannot do without"),
            None => {
                let wine = wine::transcript(workspace, name, driver, WINE_LIMIT)?;
                wrong += show(name, "wine", &right.compare(&wine), &format!("Wine against {source}"));
            }
        }
    }
    Ok(wrong)
}

fn show(name: &str, lane: &str, comparison: &crate::transcript::Comparison, what: &str) -> usize {
    let (equal, skipped, failures) = (comparison.equal(), comparison.skipped(), comparison.failures());
    println!("\n{what}, step by step:\n{comparison}");
    println!("RESULT transcripts.{name}.{lane}.equal {equal} steps");
    println!("RESULT transcripts.{name}.{lane}.skipped {skipped} steps");
    failures
}

/// Runs an image on the hosted kernel.
fn image_transcript(workspace: &Workspace, path: &Path) -> Result<Transcript> {
    let text = run_image(workspace, path, None).context("the image does not run")?;
    Transcript::parse(text.lines()).context("in what the image printed")
}

fn run_image(workspace: &Workspace, path: &Path, schedules: Option<u32>) -> Result<String> {
    let mut run = workspace.cargo();
    run.args(["run", "--quiet", "--release"]).args(IMAGE_EXAMPLE).arg("--");
    if let Some(schedules) = schedules {
        run.arg("--explore").arg(schedules.to_string());
    }
    process::tee(run.arg(path), LIMIT)
}

/// The C sample is right under every schedule that is tried, and its variant with a bug is not.
fn seeded_bug(workspace: &Workspace) -> Result<()> {
    let right = driver::build(workspace, "c-sample")?;
    run_image(workspace, &right.path, Some(SCHEDULES)).context("the C sample fails under some schedule")?;
    let wrong = driver::build_variant(workspace, "c-sample", Some("SEEDED_BUG"))?;
    let found = run_image(workspace, &wrong.path, Some(SCHEDULES));
    ensure!(found.is_err(), "no schedule of {SCHEDULES} found the bug that is seeded in the C sample");
    println!("RESULT transcripts.c-sample.seeded_bug 1 found");
    Ok(())
}
