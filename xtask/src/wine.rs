//! `cargo xtask wine`: the driver's binary on a kernel that nobody here wrote.
//!
//! The `.sys` file is loaded and unloaded under the ntoskrnl of Wine, in a prefix of its own that is made anew for each
//! run and removed when all went well (it takes 700 MB), and what it prints is [compared](crate::transcript) with the hosted run of the same source. Steps that need a
//! routine which Wine lacks say so themselves; they are listed with their reason.
//!
//! A driver that has a `client.c` beside its source is also used by that program, between loading and unloading, which says by its exit code whether all was well.
//!
//! A kernel that hangs is expected here: every command has a limit, and the prefix's server is killed at the end, whatever
//! the end.

use std::collections::HashMap;
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::driver::{self, Driver};
use crate::image::{self, WineExports};
use crate::process;
use crate::transcript::Transcript;
use crate::workspace::Workspace;

/// How long Wine may take to make its prefix, and to do things that do not concern the driver.
const WINE_LIMIT: Duration = Duration::from_secs(180);

/// How long the hosted run may take: its time is virtual, so it takes no time to speak of.
const HOSTED_LIMIT: Duration = Duration::from_secs(120);

/// What programs that use drivers are built with.
const CLIENT_COMPILER: &str = "x86_64-w64-mingw32-gcc";

/// How many lines of each log are shown when something fails.
const LOG_LINES_SHOWN: usize = 80;

/// What precedes the text of a `DbgPrint` in Wine's log, after the thread's number.
const DEBUG_PRINT: &str = ":warn:debugstr:vDbgPrintExWithPrefix ";

/// What a run must keep to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The fewest steps that must print the same lines.
    pub(crate) at_least: usize,
    /// The longest that loading, and unloading, may take.
    pub(crate) timeout: Duration,
}

/// Builds the driver, runs it hosted and under Wine, and compares.
pub(crate) fn run(workspace: &Workspace, name: &str, limits: Limits) -> Result<()> {
    Programs::find()?;
    let driver = driver::build(workspace, name)?;
    let hosted = hosted_transcript(workspace, name)?;
    let wine = transcript(workspace, name, &driver, limits.timeout)?;
    let comparison = hosted.compare(&wine);
    println!("\nWine against the hosted run, step by step:\n{comparison}");
    let (equal, skipped, failures) = (comparison.equal(), comparison.skipped(), comparison.failures());
    println!("{} steps: {equal} equal, {skipped} that Wine cannot run, {failures} wrong", hosted.len());
    println!("RESULT wine.{name}.equal {equal} steps");
    println!("RESULT wine.{name}.skipped {skipped} steps");
    ensure!(failures == 0, "{failures} steps do not come out under Wine as they do hosted");
    ensure!(
        equal >= limits.at_least,
        "only {equal} steps were compared and equal; at least {} must be (--at-least)",
        limits.at_least
    );
    Ok(())
}

/// Loads and unloads the driver under Wine.
pub(crate) fn transcript(workspace: &Workspace, name: &str, driver: &Driver, timeout: Duration) -> Result<Transcript> {
    let programs = Programs::find()?;
    println!("\nloading {name}.sys under {}", programs.version()?);
    let prefix = Prefix::make(programs, workspace.target().join("wine").join(name))?;
    prefix.note_missing_routines(driver)?;
    let client = prefix.build_client(workspace, name)?;
    prefix.load_and_unload(name, &driver.path, client.as_deref(), timeout)?;
    prefix.kill()?;
    let printed = debug_prints(&prefix.written("driver.log"));
    for line in &printed {
        println!("  | {line}");
    }
    prefix.clear()?;
    Transcript::parse(printed.iter().map(String::as_str)).context("in what the driver printed under Wine")
}

/// Runs the example of the same name, which is the driver on the hosted kernel.
pub(crate) fn hosted_transcript(workspace: &Workspace, name: &str) -> Result<Transcript> {
    println!("\nthe hosted run of {name}:");
    // As the README has it: the same features, so that nothing is built twice.
    let example = ["--release", "--example", name];
    process::run(workspace.cargo().arg("build").args(example)).context("the hosted run does not build")?;
    let text =
        process::tee(workspace.cargo().args(["run", "--quiet"]).args(example), HOSTED_LIMIT).context("the hosted run failed")?;
    let transcript = Transcript::parse(text.lines()).context("in what the hosted run printed")?;
    ensure!(transcript.len() != 0, "the hosted run printed no `[step] <name>` line: there is nothing to compare with");
    Ok(transcript)
}

/// Where Wine is.
#[derive(Debug)]
struct Programs {
    wine: PathBuf,
    server: PathBuf,
}

impl Programs {
    fn find() -> Result<Self> {
        let find = |variable: &str, names: &[&str], places: &[&str]| {
            let chosen = env::var_os(variable).map(PathBuf::from);
            let on_path = names.iter().flat_map(process::on_path);
            let elsewhere = places.iter().map(PathBuf::from).filter(|path| path.is_file());
            chosen.into_iter().chain(on_path).chain(elsewhere).next()
        };
        let wine = find("WINE", &["wine64", "wine"], &["/usr/lib/wine/wine64"]);
        let server =
            find("WINESERVER", &["wineserver64", "wineserver"], &["/usr/lib/wine/wineserver64", "/usr/lib/wine/wineserver"]);
        match (wine, server) {
            (Some(wine), Some(server)) => Ok(Self { wine, server }),
            (wine, _) => bail!(
                "{} was not found on this machine\non Debian: apt-get install --no-install-recommends wine64",
                if wine.is_none() { "64-bit Wine" } else { "Wine's wineserver" }
            ),
        }
    }

    fn version(&self) -> Result<String> {
        let version = process::output(Command::new(&self.wine).arg("--version"))?;
        Ok(version.trim().to_owned())
    }
}

/// A Wine installation of one run's own: a registry, a drive C, and a server.
#[derive(Debug)]
struct Prefix {
    programs: Programs,
    /// Holds everything of the run.
    folder: PathBuf,
}

impl Prefix {
    /// Makes the prefix anew.
    fn make(programs: Programs, folder: PathBuf) -> Result<Self> {
        let prefix = Self { programs, folder };
        // A run that was interrupted leaves its server behind, which holds on to the folder.
        if prefix.root().exists() {
            prefix.kill().context("cannot stop the server of the run before")?;
        }
        match fs::remove_dir_all(&prefix.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", prefix.folder.display()));
            }
            _ => {}
        }
        for folder in [prefix.root(), prefix.home()] {
            fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        // Now and then a process of Wine's finds the one address taken that it shares a page at, and the boot fails.
        let boot = || prefix.wine("boot", "", WINE_LIMIT, &["wineboot", "-i"]);
        boot().or_else(|_| boot()).context("Wine cannot make a prefix")?;
        // Wine hands its first program's error output on to the drivers. So the boot's server must not
        // be the one that loads the driver.
        prefix.kill()?;
        Ok(prefix)
    }

    fn root(&self) -> PathBuf {
        self.folder.join("prefix")
    }

    fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    /// What was written to a file of the run's: nothing, if it did not come to that.
    fn written(&self, file: &str) -> String {
        fs::read(self.folder.join(file)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Shows the end of what a step wrote.
    fn show_logs(&self, step: &str) {
        for file in [format!("{step}.out"), format!("{step}.log")] {
            let lines = without_repetition(&self.written(&file));
            if !lines.is_empty() {
                let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
                println!("\nthe end of {}:\n{}", self.folder.join(file).display(), shown.join("\n"));
            }
        }
    }

    /// A command in this prefix, kept away from the person's home, display and settings.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        for variable in ["DISPLAY", "WAYLAND_DISPLAY", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"] {
            command.env_remove(variable);
        }
        command
            .env("WINEPREFIX", self.root())
            .env("WINEARCH", "win64")
            .env("WINEDLLOVERRIDES", "mscoree,mshtml,winemenubuilder.exe,winedbg.exe=d")
            .env("HOME", self.home())
            .current_dir(&self.folder)
            .stdin(Stdio::null());
        command
    }

    /// Runs a Windows program. What it says goes to `<step>.out`, and what Wine and the drivers write meanwhile to
    /// `<step>.log`. Files, because drivers outlive the program that loads them: the end of a pipe would not come.
    fn wine(&self, step: &str, channels: &str, limit: Duration, arguments: &[&str]) -> Result<()> {
        let open = |kind: &str| {
            let path = self.folder.join(step).with_extension(kind);
            File::options().create(true).append(true).open(&path).with_context(|| format!("cannot open {}", path.display()))
        };
        let mut command = self.command(&self.programs.wine);
        command.env("WINEDEBUG", channels).args(arguments).stdout(open("out")?).stderr(open("log")?);
        let start = Instant::now();
        let outcome = process::run_within(&mut command, limit).inspect_err(|_| self.show_logs(step));
        println!("  {:>5.1} s  {}", start.elapsed().as_secs_f64(), arguments.join(" "));
        outcome
    }

    /// Says which of the driver's imports Wine's kernel does not have. Wine loads such a driver and stops it at the call.
    fn note_missing_routines(&self, driver: &Driver) -> Result<()> {
        let path = self.root().join("drive_c/windows/system32/ntoskrnl.exe");
        let kernel = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let wine = WineExports::parse(&kernel).context("in Wine's ntoskrnl.exe")?;
        let note = |what: &str, which: &dyn Fn(&str) -> bool| {
            let routines: Vec<_> = driver.image.imports().filter(|routine| which(routine)).collect();
            if !routines.is_empty() {
                println!("{what}:");
                for line in image::wrapped(&routines, 96) {
                    println!("    {line}");
                }
            }
        };
        note("imports that this Wine does not export; a call ends the run", &|routine| !wine.names.contains(routine));
        note("imports that this Wine exports and does not implement; a call ends the run", &|routine| {
            wine.stubs.contains(routine)
        });
        Ok(())
    }

    /// Builds the program that uses the driver, if it has one, on the prefix's drive C. Returns its name there.
    fn build_client(&self, workspace: &Workspace, name: &str) -> Result<Option<String>> {
        let source = workspace.root().join("drivers").join(name).join("client.c");
        if !source.is_file() {
            return Ok(None);
        }
        let file = format!("{name}-client.exe");
        let mut compiler = Command::new(CLIENT_COMPILER);
        compiler.args(["-O1", "-Wall", "-Werror", "-o"]).arg(self.root().join("drive_c").join(&file)).arg(&source);
        process::run(&mut compiler).with_context(|| format!("cannot build {}", source.display()))?;
        Ok(Some(format!(r"C:\{file}")))
    }

    /// Starts the driver as a service, has the program use it, if there is one, and stops it again.
    fn load_and_unload(&self, name: &str, driver: &Path, client: Option<&str>, limit: Duration) -> Result<()> {
        let file = format!("{name}.sys");
        let drivers = self.root().join("drive_c/windows/system32/drivers");
        fs::copy(driver, drivers.join(&file)).with_context(|| format!("cannot copy {file} to {}", drivers.display()))?;
        let path = format!(r"C:\windows\system32\drivers\{file}");
        let create = ["sc", "create", name, "type=", "kernel", "start=", "demand", "binPath=", &path];
        self.wine("service", "", WINE_LIMIT, &create).context("the service cannot be made")?;
        // Wine's service manager gives up after ten seconds by itself; it is our limit that counts. It reads this when it
        // starts, which is after the next `kill`.
        let patience = (limit + WINE_LIMIT).as_millis().to_string();
        let control = r"HKLM\System\CurrentControlSet\Control";
        let set = ["reg", "add", control, "/v", "ServicesPipeTimeout", "/t", "REG_SZ", "/d", &patience, "/f"];
        self.wine("service", "", WINE_LIMIT, &set).context("the service manager's patience cannot be set")?;
        // The server that made the service keeps the log of that command: see `make`.
        self.kill()?;

        let debug = "+debugstr";
        if let Some(client) = client {
            // One command, because drivers do not outlive the last program.
            let commands = format!("net start {name} && {client} && net stop {name}");
            return self.wine("driver", debug, limit, &["cmd", "/c", &commands]).context("the driver does not serve its client");
        }
        self.wine("driver", debug, limit, &["net", "start", name]).context("the driver does not load")?;
        self.wine("driver", debug, limit, &["net", "stop", name]).context("the driver does not unload")
    }

    /// Removes the installation, which is large, and keeps the logs. Nothing runs in it any more.
    fn clear(&self) -> Result<()> {
        for folder in [self.root(), self.home()] {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        Ok(())
    }

    /// Ends everything that runs in this prefix.
    fn kill(&self) -> Result<()> {
        // `-k` fails where no server runs, which is as good.
        let server = |argument: &str| {
            let mut command = self.command(&self.programs.server);
            command.arg(argument).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let start = Instant::now();
        drop(process::run_within(&mut server("-k"), WINE_LIMIT));
        let outcome = process::run_within(&mut server("-w"), WINE_LIMIT).context("Wine's server does not end");
        println!("  {:>5.1} s  the end of Wine's server", start.elapsed().as_secs_f64());
        outcome
    }
}

impl Drop for Prefix {
    fn drop(&mut self) {
        if self.root().exists() {
            drop(self.kill());
        }
    }
}

/// The lines of a log, each but once, where it was first. Wine repeats itself: a routine that is a stub says so at each call.
fn without_repetition(log: &str) -> Vec<String> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let mut lines = Vec::new();
    for line in log.lines() {
        let count = counts.entry(line).or_default();
        *count += 1;
        if *count == 1 {
            lines.push(line);
        }
    }
    let with_count = |line: &str| match counts[line] {
        1 => line.to_owned(),
        count => format!("{line}  ({count} times)"),
    };
    lines.into_iter().map(with_count).collect()
}

/// The lines that drivers printed, out of Wine's log.
///
/// Wine makes a line of each print, whether or not it ends with a line's end, and a line of each line in it. Every one has
/// the mark, and the component and level after it: `00000000:00000001: text`.
fn debug_prints(log: &str) -> Vec<String> {
    let prints = log.lines().filter_map(|line| line.split_once(DEBUG_PRINT));
    let texts = prints.filter(|(thread, _)| is_hexadecimal(thread)).map(|(_, text)| without_level(text));
    texts.map(str::to_owned).collect()
}

fn without_level(text: &str) -> &str {
    match text.split_at_checked("00000000:00000001:".len()) {
        Some((level, rest)) if level.split_terminator(':').all(is_hexadecimal) => rest.strip_prefix(' ').unwrap_or(rest),
        _ => text,
    }
}

fn is_hexadecimal(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: &str = "012c:warn:debugstr:vDbgPrintExWithPrefix 00000000:00000001: ";

    #[test]
    fn prints_are_found_among_the_noise() {
        let log = format!(
            "0044:err:systray:initialize_systray no tray\n{P}[step] event\n012c:fixme:ntoskrnl:Ke stub\nwine: noise\n\
             012c:warn:debugstr:OutputDebugStringA \"user mode\"\n{P}done: 1\n"
        );
        assert_eq!(debug_prints(&log), ["[step] event", "done: 1"]);
    }

    #[test]
    fn a_log_is_shown_without_repetition() {
        assert_eq!(without_repetition("a\nb\na\nc\na\n"), ["a  (3 times)", "b", "c"]);
    }

    #[test]
    fn text_that_looks_like_a_mark_stays() {
        let text = "00000000:00000001: e";
        assert_eq!(debug_prints(&format!("{P}count: 400\n{P}\n{P}{text}\n")), ["count: 400", "", text]);
    }
}
