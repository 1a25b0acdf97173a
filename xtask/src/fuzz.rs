//! Fuzzing the reader of images with the stable compiler: libFuzzer, with the coverage that LLVM's own pass counts.
//!
//! `fuzz` is a workspace of its own, since all of it is built with instrumentation.

use std::process::Command;

use anyhow::{Context, Result};

use crate::process;
use crate::workspace::Workspace;

/// What `cargo fuzz` passes to a nightly compiler, as far as a stable one takes it: all but the sanitizer.
const FLAGS: &str = "--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                     -Cllvm-args=-sanitizer-coverage-trace-compares";

/// The largest file that is tried: what small drivers have, with their symbols.
const LONGEST: u32 = 200_000;
/// One file is read in far less than so many seconds.
const SLOWEST: u32 = 10;

/// Builds the target, fills its corpus with the small drivers of the tests, and lets it search for a time.
pub(crate) fn run(workspace: &Workspace, seconds: u64) -> Result<()> {
    let folder = workspace.root().join("fuzz");
    let corpus = folder.join("corpus/image");
    std::fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
    let mut samples = workspace.cargo();
    samples.args(["run", "--quiet", "--release", "--package", "cargo-ksim", "--example", "samples", "--"]).arg(&corpus);
    process::run(&mut samples)?;
    let host = process::output(Command::new("rustc").args(["--print", "host-tuple"]))?;
    let (host, built) = (host.trim(), workspace.target().join("fuzz"));
    let mut build = workspace.cargo();
    // With a target named, build scripts and macros are not instrumented.
    build.current_dir(&folder).args(["build", "--release", "--target", host, "--target-dir"]).arg(&built);
    build.env("RUSTFLAGS", FLAGS);
    process::run(&mut build)?;
    let target = built.join(host).join("release/image");
    let mut fuzz = Command::new(target);
    fuzz.current_dir(&folder).arg("corpus/image").args([
        format!("-max_total_time={seconds}"),
        format!("-max_len={LONGEST}"),
        format!("-timeout={SLOWEST}"),
        "-rss_limit_mb=4096".to_owned(),
        "-print_final_stats=1".to_owned(),
    ]);
    process::run(&mut fuzz)
}
