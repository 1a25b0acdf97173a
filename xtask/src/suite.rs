//! The tests of Wine's ntoskrnl.exe, which its authors hold against Windows, as drivers on the hosted kernel.
//!
//! Their source is not part of this project: it is fetched from Debian's archive, or named. `xtask/suite` has what they report with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::process;
use crate::workspace::Workspace;

/// What is run. The others need files, registry keys, other images or a controlling program; and `test_completion` reads behind its requests.
const TESTS: &[(&str, &[&str])] = &[
    ("test_affinity()", &[]),
    ("test_call_driver(lower_device)", &[]),
    ("test_cancel_irp(lower_device)", &[]),
    ("test_critical_region(TRUE)", &[]),
    ("test_dpc()", &[]),
    ("test_init_funcs()", &[]),
    ("test_IoAttachDeviceToDeviceStack()", &[]),
    ("test_lookaside_list()", &[]),
    ("test_lookup_thread()", &[]),
    ("test_mdl_map()", &[]),
    // Device queues at PASSIVE_LEVEL, which Driver Verifier would report.
    ("test_queue()", &["--allow", "IrqlDispatch"]),
    ("test_resource()", &[]),
    ("test_stack_callout()", &[]),
    ("test_stack_limits()", &[]),
    ("test_sync()", &[]),
    ("test_version()", &[]),
];

const COMPILER: &str = "x86_64-w64-mingw32-gcc";
/// Where Debian keeps the keys of its archive.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Builds each test as a driver, and runs it.
pub(crate) fn run(workspace: &Workspace, source: Option<&Path>) -> Result<()> {
    let folder = folder(workspace)?;
    let source = match source {
        Some(source) => source.to_path_buf(),
        None => fetched(&folder)?,
    };
    let mut build = workspace.cargo();
    process::run(build.args(["build", "--release", "--package", "cargo-ksim"]))?;
    let ksim = workspace.target().join("release/cargo-ksim");
    let mut total = 0;
    for &(test, options) in TESTS {
        let image = compiled(workspace, &source, &folder, test)?;
        let text = printed(Command::new(&ksim).arg("run").arg(&image).args(options))?;
        let passed = verdict(&text).with_context(|| format!("`{test}`:\n{text}"))?;
        println!("  {test:<36} {passed:>4} checks");
        total += passed;
    }
    println!("RESULT suite.checks {total}");
    Ok(())
}

/// The same, with Debian's source; or a word that it cannot be had, which is no failure of this project's.
pub(crate) fn run_if_possible(workspace: &Workspace) -> Result<()> {
    match fetched(&folder(workspace)?) {
        Ok(source) => run(workspace, Some(&source)),
        Err(error) => {
            println!("NOT RUN: the source of the tests cannot be had: {error:#}");
            Ok(())
        }
    }
}

fn folder(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.target().join("suite");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// Debian's source of Wine.
fn fetched(folder: &Path) -> Result<PathBuf> {
    if let Some(source) = unpacked(folder)? {
        return Ok(source);
    }
    let release = fs::read_to_string("/etc/os-release").context("this is no Debian: name a source with --source")?;
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let codename = codename.context("this release of Debian has no name: name a source with --source")?;
    let list = folder.join("sources.list");
    fs::write(&list, format!("deb-src [signed-by={KEYRING}] http://deb.debian.org/debian {codename} main\n"))?;
    for part in ["state/lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(folder.join(part))?;
    }
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.current_dir(folder).arg("--quiet=2").arg("-o").arg(format!("Dir::Etc::sourcelist={}", list.display()));
        apt.args(["-o", "Dir::Etc::sourceparts=-"]);
        apt.arg("-o").arg(format!("Dir::State={}", folder.join("state").display()));
        apt.arg("-o").arg(format!("Dir::Cache={}", folder.join("cache").display()));
        apt
    };
    process::run(apt().arg("update"))?;
    process::run(apt().args(["source", "--download-only", "--tar-only", "wine"]))?;
    let archive = entries(folder)?.into_iter().find(|path| path.to_string_lossy().ends_with(".orig.tar.xz"));
    let archive = archive.context("apt-get has left no archive")?;
    let mut tar = Command::new("tar");
    tar.current_dir(folder).args(["--extract", "--xz", "--wildcards", "--file"]).arg(&archive);
    process::run(tar.args(["*/dlls/ntoskrnl.exe/tests/*", "*/include/*"]))?;
    unpacked(folder)?.context("the archive has no tests")
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = folder.read_dir().with_context(|| format!("cannot list {}", folder.display()))?;
    Ok(entries.filter_map(|entry| entry.ok()).map(|entry| entry.path()).collect())
}

/// A source that was unpacked before.
fn unpacked(folder: &Path) -> Result<Option<PathBuf>> {
    Ok(entries(folder)?.into_iter().find(|path| path.join("dlls/ntoskrnl.exe/tests/driver.c").is_file()))
}

/// The driver that runs a test.
fn compiled(workspace: &Workspace, source: &Path, folder: &Path, test: &str) -> Result<PathBuf> {
    let name = test.split('(').next().unwrap_or(test);
    let image = folder.join(format!("{name}.sys"));
    let harness = workspace.root().join("xtask/suite");
    // Beside the harness, so that its `utils.h` is found before the source's.
    let copy = folder.join("sources");
    fs::create_dir_all(&copy)?;
    for file in ["driver.c", "driver.h"] {
        let from = source.join("dlls/ntoskrnl.exe/tests").join(file);
        fs::copy(&from, copy.join(file)).with_context(|| format!("cannot read {}", from.display()))?;
    }
    for file in ["suite.c", "utils.h"] {
        fs::copy(harness.join(file), copy.join(file))?;
    }
    let mut compiler = Command::new(COMPILER);
    compiler.args(["-O1", "-g", "-w", "-fno-builtin", "-D__WINESRC__", "-D__WINE_USE_MSVCRT", "-D_MSVCR_VER=0"]);
    compiler.args(["-DWINE_NO_UNICODE_MACROS", "-isystem"]).arg(source.join("include"));
    compiler.arg("-isystem").arg(source.join("include/msvcrt")).arg(format!("-DSUITE_TEST={test}"));
    compiler.args(["-nostdlib", "-nostartfiles", "-Wl,--subsystem,native", "-Wl,--entry,DriverEntry", "-Wl,--dynamicbase"]);
    compiler.arg("-o").arg(&image).arg(copy.join("suite.c")).args(["-lntoskrnl", "-lhal"]);
    process::run(&mut compiler)?;
    Ok(image)
}

/// What a run prints, however it ends: a test may leave things behind.
fn printed(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{}`", process::describe(command)))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

/// How many checks have passed, if all have and the driver was unloaded.
fn verdict(text: &str) -> Result<u32> {
    let result = text.lines().find_map(|line| line.strip_prefix("suite: ")).context("the test did not end")?;
    let [passed, failed, left_out] = counts(result).context("the result cannot be read")?;
    ensure!(failed == 0 && left_out == 0 && passed > 0, "{failed} checks failed, {left_out} were left out");
    ensure!(text.lines().any(|line| line == "completed"), "the driver was not unloaded");
    Ok(passed)
}

/// The numbers in a line.
fn counts(line: &str) -> Option<[u32; 3]> {
    let numbers: Vec<u32> = line.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect();
    numbers.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_passed_in_whole_counts() {
        assert_eq!(verdict("suite: 12 passed, 0 failed, 0 left out\ncompleted\n").unwrap(), 12);
        for wrong in [
            "suite: 12 passed, 1 failed, 0 left out\ncompleted\n",
            "suite: 12 passed, 0 failed, 2 left out\ncompleted\n",
            "suite: 0 passed, 0 failed, 0 left out\ncompleted\n",
            "suite: 12 passed, 0 failed, 0 left out\n*** STOP 0xa\n",
            "completed\n",
        ] {
            assert!(verdict(wrong).is_err(), "{wrong}");
        }
    }
}
