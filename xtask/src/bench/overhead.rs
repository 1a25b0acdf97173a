//! `cargo xtask bench overhead`: instructions that the library adds to NT's routines.
//!
//! `crates/ksync/benches/overhead` runs each operation once, raw and through the library, under callgrind, which counts what is executed between the entry of a marking function and its end. So one
//! figure is one call, exact, and the same in every run. `docs/overhead.md` says how the figures are to be read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::callgrind::Part;
use crate::process;
use crate::workspace::Workspace;

/// The function that marks what is counted.
const MARKER: &str = "overhead_region";

/// How long it may take, the build included.
const LIMIT: Duration = Duration::from_secs(900);

/// The routine that reads the level. In a driver it is one instruction and no call.
const READ_LEVEL: &str = "KeGetCurrentIrql";

/// The routine that reads the current thread.
const READ_THREAD: &str = "KeGetCurrentThread";

/// How many instructions NT's own routine has that reads the current thread: a load and a return.
const READ_THREAD_IN_NT: i64 = 2;

/// What the tiers with a token may add, and no other routine.
const MOST_WITH_TOKEN: i64 = 2;

/// What the tier that checks may add, besides reading the level.
const MOST_CHECKED: i64 = 12;

/// What the library adds to one operation.
#[derive(Debug)]
struct Added {
    /// Library minus raw, all that is executed hosted.
    hosted: i64,
    /// Instructions of the library's own minus the caller's own in the raw form, calls included.
    own: i64,
    /// Reads of the level.
    levels: i64,
    /// Instructions that these take hosted, calls included.
    level_cost: i64,
    /// Reads of the current thread.
    threads: i64,
    /// NT routines that the library calls beside those of the raw form (and `-` those that it does not call).
    routines: Vec<String>,
}

impl Added {
    fn new(raw: &Part, library: &Part) -> Result<Self> {
        let [raw_own, library_own] = [raw.own(), library.own()].map(signed);
        let (level, thread) = (library.calls(READ_LEVEL), library.calls(READ_THREAD));
        ensure!(raw.calls(READ_LEVEL).count == 0 && raw.calls(READ_THREAD).count == 0, "the raw form reads the level");
        let names: BTreeSet<_> = raw.routines.keys().chain(library.routines.keys()).collect();
        let mut routines = Vec::new();
        for name in names.into_iter().filter(|name| ![READ_LEVEL, READ_THREAD].contains(&name.as_str())) {
            match signed(library.calls(name).count) - signed(raw.calls(name).count) {
                0 => (),
                1 => routines.push(format!("+{name}")),
                -1 => routines.push(format!("-{name}")),
                more => routines.push(format!("{more:+} {name}")),
            }
        }
        Ok(Self {
            hosted: signed(library.total) - signed(raw.total),
            own: library_own - raw_own,
            levels: signed(level.count),
            level_cost: signed(level.instructions + level.count),
            threads: signed(thread.count),
            routines,
        })
    }

    /// What is added in a driver, besides the reads of the level: there these are an instruction in the place of a call, and the thread is read by a routine of a few.
    fn in_driver(&self) -> i64 {
        self.own - self.levels + READ_THREAD_IN_NT * self.threads
    }

    /// The aim for the row, if there is one.
    fn aim(name: &str) -> Option<i64> {
        match name.rsplit('.').next() {
            Some("at" | "with_at") => Some(MOST_WITH_TOKEN),
            Some("pair" | "with" | "set") => Some(MOST_CHECKED),
            _ => None,
        }
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Whether callgrind is there.
pub(crate) fn is_possible() -> bool {
    process::on_path("valgrind").next().is_some()
}

/// Runs the program under callgrind and prints what it found. Fails if a tier with a token adds more than it may.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let valgrind = process::on_path("valgrind").next().context("valgrind was not found (on Debian: apt-get install valgrind)")?;
    let folder = workspace.target().join("overhead");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    // The program's environment lies on its stack; without it, a machine's runs are alike.
    let mut runner = vec!["env".to_owned(), "-i".to_owned(), valgrind.display().to_string()];
    runner.extend(["--tool=callgrind", "--quiet", "--collect-atstart=no"].map(str::to_owned));
    runner.extend(["--compress-strings=no", "--compress-pos=no"].map(str::to_owned));
    runner.push(format!("--toggle-collect={MARKER}"));
    runner.push(format!("--dump-after={MARKER}"));
    runner.push(format!("--callgrind-out-file={}", folder.join("part").display()));
    let mut bench = workspace.cargo();
    bench
        .args(["bench", "--quiet", "--profile", "release", "--package", "ksync", "--bench", "overhead"])
        .args(["--config", &format!("target.'cfg(all())'.runner={runner:?}")])
        .stdin(std::process::Stdio::null());
    let log = folder.join("log");
    let file = fs::File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
    process::run_within(bench.stdout(file), LIMIT)?;

    let text = fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let parts = read_parts(&text, &folder)?;
    print_table(&parts)?;
    text.lines().filter(|line| line.starts_with("RESULT ")).for_each(|line| println!("{line}"));
    Ok(())
}

/// The parts in the order of the rows: name, raw, library.
fn read_parts(log: &str, folder: &Path) -> Result<Vec<(String, Part, Part)>> {
    let exports: BTreeSet<String> = log.lines().filter_map(|line| line.strip_prefix("export ")).map(str::to_owned).collect();
    let mut rows = Vec::new();
    let mut raws = BTreeMap::new();
    for (index, line) in log.lines().filter_map(|line| line.strip_prefix("counted ")).enumerate() {
        let path = folder.join(format!("part.{}", index + 1));
        let text = fs::read_to_string(&path).with_context(|| format!("callgrind wrote no {}", path.display()))?;
        let part = Part::parse(&text, MARKER, &exports).with_context(|| format!("cannot read {}", path.display()))?;
        match line.split_once(' ') {
            // First uses fill the hosted kernel's tables.
            Some((_, "warm-up")) => (),
            Some((name, "raw")) => drop(raws.insert(name.to_owned(), part)),
            Some((name, "library")) => {
                let raw = raws.remove(name).with_context(|| format!("{name} was not counted raw"))?;
                rows.push((name.to_owned(), raw, part));
            }
            _ => bail!("what was counted is not said: `{line}`"),
        }
    }
    ensure!(!rows.is_empty(), "nothing was counted");
    Ok(rows)
}

fn print_table(rows: &[(String, Part, Part)]) -> Result<()> {
    println!("instructions of one operation, hosted; in the last columns as in a driver\n");
    println!(
        "{:<22} {:>6} {:>8} {:>6} {:>6} {:>7} {:>7} {:>10} {:>5}  other routines",
        "operation", "raw", "library", "added", "own", "levels", "threads", "in driver", "aim"
    );
    let (mut results, mut above) = (Vec::new(), Vec::new());
    for (name, raw, library) in rows {
        let added = Added::new(raw, library).with_context(|| name.clone())?;
        let aim = Added::aim(name);
        let missed = aim.is_some_and(|aim| added.in_driver() > aim || !added.routines.is_empty());
        if missed && aim == Some(MOST_WITH_TOKEN) {
            above.push(name.as_str());
        }
        let aim = aim.map_or_else(String::new, |aim| format!("{}{aim}", if missed { "> " } else { "" }));
        println!(
            "{name:<22} {:>6} {:>8} {:>+6} {:>+6} {:>7} {:>7} {:>+10} {aim:>5}  {}",
            raw.total,
            library.total,
            added.hosted,
            added.own,
            added.levels,
            added.threads,
            added.in_driver(),
            added.routines.join(" ")
        );
        results.push(format!("RESULT overhead.{name} {} instructions", added.hosted));
        results.push(format!("RESULT overhead.{name}.raw {} instructions", raw.total));
        results.push(format!("RESULT overhead.{name}.library {} instructions", library.total));
        results.push(format!("RESULT overhead.{name}.irql {} instructions", added.level_cost));
        results.push(format!("RESULT overhead.{name}.in_driver {} instructions", added.in_driver()));
    }
    println!();
    results.iter().for_each(|line| println!("{line}"));
    ensure!(above.is_empty(), "the tiers with a token add more than {MOST_WITH_TOKEN} instructions: {}", above.join(", "));
    Ok(())
}
