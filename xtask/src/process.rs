//! Running other programs: errors that name the command, and limits on the time it may take.

use std::env;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a running program is looked at.
const POLL: Duration = Duration::from_millis(10);

/// How long a program's output may lag behind its end.
const DRAIN: Duration = Duration::from_secs(5);

/// The command as one would type it.
pub(crate) fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| quoted(&word.to_string_lossy())).collect();
    words.join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { format!("'{word}'") }
}

/// Runs a command to its end. It shares this program's terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", describe(command)))?;
    succeeded(command, status)
}

/// Runs a command to its end and returns what it wrote to its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{}`", describe(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}):\n{}", describe(command), output.status, said.trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command, passes its standard output on line by line, and returns it. The command is killed at `limit`.
pub(crate) fn tee(command: &mut Command, limit: Duration) -> Result<String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", describe(command)))?;
    let pipe = child.stdout.take().context("the child has no output pipe")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(|line| line.ok()) {
            let line = String::from_utf8_lossy(&line).into_owned();
            // A write to a closed terminal must not lose the transcript.
            let _ = writeln!(std::io::stdout(), "{line}");
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let status = wait(&mut child, limit).with_context(|| format!("`{}`", describe(command)))?;
    let mut text = String::new();
    while let Ok(line) = lines.recv_timeout(DRAIN) {
        text.push_str(&line);
        text.push('\n');
    }
    succeeded(command, status)?;
    Ok(text)
}

/// Runs a command that is killed at `limit`. Where its output goes is the caller's choice.
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> Result<()> {
    let mut child = command.spawn().with_context(|| format!("cannot start `{}`", describe(command)))?;
    let status = wait(&mut child, limit).with_context(|| format!("`{}`", describe(command)))?;
    succeeded(command, status)
}

fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for it")? {
            return Ok(status);
        }
        if start.elapsed() >= limit {
            child.kill().context("cannot kill it")?;
            child.wait().context("cannot wait for it")?;
            bail!("hung: it had not ended after {} s and was killed", limit.as_secs());
        }
        thread::sleep(POLL);
    }
}

fn succeeded(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`{}` failed ({status})", describe(command));
    }
    Ok(())
}

/// Every program of this name on `PATH`, in order.
pub(crate) fn on_path(name: impl AsRef<OsStr>) -> impl Iterator<Item = PathBuf> {
    let folders: Vec<_> = env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
    let mut file = name.as_ref().to_owned();
    file.push(env::consts::EXE_SUFFIX);
    folders.into_iter().map(move |folder: PathBuf| folder.join(&file)).filter(|path| path.is_file())
}
