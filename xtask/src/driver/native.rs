//! Drivers in C and C++, with the headers that mingw-w64 has of the DDK.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{LINK_ARGUMENTS, MingwTools};
use crate::process;
use crate::workspace::Workspace;

/// How drivers are compiled: for a kernel, without the language's runtime.
const COMPILE: &[&str] = &["-O2", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-fno-builtin", "-fno-ident", "-mno-red-zone"];

/// What C++ has that needs a runtime.
const WITHOUT_RUNTIME: &[&str] =
    &["-std=gnu++17", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics", "-Wno-multichar", "-Wno-unknown-pragmas"];

/// What is built.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) workspace: &'a Workspace,
    /// The driver's folder.
    pub(super) name: &'a str,
    /// What the files are called.
    pub(super) output: &'a str,
    /// A macro to define.
    pub(super) define: Option<&'a str>,
    pub(super) runtime: &'a Path,
    pub(super) map: &'a Path,
    /// The static library in Rust.
    pub(super) rust: Option<&'a Path>,
}

/// Compiles and links. Returns the image.
pub(super) fn link(tools: &MingwTools, job: &Job<'_>) -> Result<PathBuf> {
    let folder = job.workspace.root().join("drivers").join(job.name);
    let build = job.workspace.target().join("driver").join("native");
    fs::create_dir_all(&build).with_context(|| format!("cannot make {}", build.display()))?;
    let cpp = folder.join("driver.cpp");
    let (compiler, source, language) = match (&tools.gpp, cpp.is_file()) {
        (Some(gpp), true) => (gpp, cpp, WITHOUT_RUNTIME),
        _ => (&tools.gcc, folder.join("driver.c"), &["-std=gnu11"][..]),
    };

    let object = build.join(format!("{}.o", job.output));
    let mut compile = Command::new(compiler);
    compile.args(COMPILE).args(language).arg("-isystem").arg(ddk(compiler)?).arg("-I").arg(&folder);
    compile.args(job.define.map(|name| format!("-D{name}")));
    // The same source gives the same bytes wherever it stands.
    compile.arg(format!("-ffile-prefix-map={}=/ksync", job.workspace.root().display()));
    process::run(compile.arg("-c").arg(&source).arg("-o").arg(&object)).context("the driver does not compile")?;

    let image = build.join(format!("{}.sys", job.output));
    let mut link = Command::new(compiler);
    link.args(LINK_ARGUMENTS).arg(&object).args(job.rust).arg("-L").arg(job.runtime);
    // The runtime's few routines, and what the kernel exports, with what C's headers take from it.
    link.args(["-lgcc_eh", "-lntoskrnl", "-lhal", "-lmsvcrt", "-s"]).arg(format!("-Wl,-Map,{}", job.map.display()));
    process::run(link.arg("-o").arg(&image)).context("the driver does not link")?;
    ensure!(image.is_file(), "the linker made no {}", image.display());
    Ok(image)
}

/// The DDK's headers.
fn ddk(compiler: &Path) -> Result<PathBuf> {
    let header = process::output(Command::new(compiler).arg("-print-sysroot")).unwrap_or_default();
    let places = [header.trim(), "/usr/x86_64-w64-mingw32"];
    let found = places.iter().map(|place| Path::new(place).join("include/ddk")).find(|folder| folder.join("wdm.h").is_file());
    found.context(
        "mingw-w64's DDK headers were not found\non Debian: apt-get install --no-install-recommends mingw-w64-x86-64-dev",
    )
}
