//! `cargo xtask bench code`: the machine code of one pair of calls on a spin lock, as a driver has it, beside the same in C.
//!
//! The Rust is compiled as a driver is: same target, same profile, same standard library. It is not linked, so that what is shown is the compiler's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::driver::StandardLibrary;
use crate::process;
use crate::workspace::Workspace;

/// The functions, and how they are called in the results.
const FUNCTIONS: [(&str, &str); 3] = [("spin_pair_c", "c"), ("spin_pair_token", "rust"), ("spin_pair_checked", "rust.checked")];

/// The target that drivers are built for.
const TARGET: &str = "x86_64-pc-windows-gnu";

/// Compiles both and prints the listings and the lengths.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let folder = workspace.target().join("code");
    fs::create_dir_all(folder.join("src")).with_context(|| format!("cannot make {}", folder.display()))?;
    let objects = [compile_c(&folder)?, compile_rust(workspace, &folder)?];
    let mut results = Vec::new();
    for (function, name) in FUNCTIONS {
        let mut listing = Vec::new();
        for object in &objects {
            let mut objdump = Command::new("x86_64-w64-mingw32-objdump");
            objdump.args(["--disassemble", "--reloc", "--demangle", "--no-addresses"]).arg(format!("--disassemble={function}"));
            listing.extend(instructions(&process::output(objdump.arg(object))?, function));
        }
        ensure!(!listing.is_empty(), "the compiler made no {function}");
        println!("{function}:");
        listing.iter().for_each(|(_, text)| println!("    {text}"));
        let length: usize = listing.iter().map(|(bytes, _)| bytes).sum();
        let count = listing.iter().filter(|(bytes, _)| *bytes != 0).count();
        println!("    ; {length} bytes, {count} instructions\n");
        results.push(format!("RESULT code.spin.{name} {length} bytes"));
        results.push(format!("RESULT code.spin.{name}.count {count} instructions"));
    }
    results.iter().for_each(|line| println!("{line}"));
    Ok(())
}

fn compile_c(folder: &Path) -> Result<PathBuf> {
    let (source, object) = (folder.join("spin.c"), folder.join("spin.o"));
    write(&source, include_str!("code/spin.c"))?;
    let mut gcc = Command::new("x86_64-w64-mingw32-gcc");
    process::output(gcc.args(["-O2", "-c"]).arg(&source).arg("-o").arg(&object))?;
    Ok(object)
}

/// Builds a package outside the workspace, with its lock file and its profile for drivers.
fn compile_rust(workspace: &Workspace, folder: &Path) -> Result<PathBuf> {
    let standard_library =
        StandardLibrary::find().context("no compiler for drivers was found; `cargo xtask driver` says what is missing")?;
    let manifest = folder.join("Cargo.toml");
    let ksync = workspace.root().join("crates/ksync");
    let text = format!(
        "[package]\nname = \"spin\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[lib]\ncrate-type = [\"staticlib\"]\n\n[dependencies]\nksync = {{ path = {ksync:?} }}\n\n[profile.driver]\ninherits = \"release\"\npanic = \"abort\"\nopt-level = 3\nlto = \"fat\"\ncodegen-units = 1\ndebug = \"none\"\n\n[workspace]\n"
    );
    write(&manifest, &text)?;
    write(&folder.join("src/lib.rs"), include_str!("code/spin.rs"))?;
    let lock = workspace.root().join("Cargo.lock");
    fs::copy(&lock, folder.join("Cargo.lock")).with_context(|| format!("cannot copy {}", lock.display()))?;

    let mut cargo = workspace.cargo();
    for variable in ["RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(variable);
    }
    cargo.args(["build", "--quiet", "--profile", "driver", "--target", TARGET, "--manifest-path"]).arg(&manifest);
    cargo.arg("--target-dir").arg(folder.join("build"));
    if let StandardLibrary::Source { rustc, .. } = &standard_library {
        cargo.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
        cargo.args(["-Zbuild-std=core,alloc,compiler_builtins", "-Zbuild-std-features=compiler-builtins-mem"]);
    }
    process::run(&mut cargo)?;
    Ok(folder.join("build").join(TARGET).join("driver/libspin.a"))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The instructions of one function in a listing, each with its length, without what fills up behind the last. Relocations have no length.
fn instructions(listing: &str, function: &str) -> Vec<(usize, String)> {
    let head = format!("<{function}>:");
    let lines = listing.lines().skip_while(|line| !line.ends_with(&head)).skip(1).take_while(|line| !line.trim().is_empty());
    let mut instructions: Vec<(usize, String)> = Vec::new();
    for line in lines {
        let mut columns = line.trim_start().split('\t');
        let bytes = columns.next().unwrap_or_default().split_whitespace();
        let is_byte = |text: &str| text.len() == 2 && text.chars().all(|digit| digit.is_ascii_hexdigit());
        let length = bytes.filter(|text| is_byte(text)).count();
        let text = columns.collect::<Vec<_>>().join(" ").trim().to_owned();
        match instructions.last_mut() {
            // A long instruction's bytes go on in the next line.
            Some(last) if text.is_empty() => last.0 += length,
            _ if line.contains("IMAGE_REL") || line.contains("R_X86_64") => {
                // Those of functions that are left out come first.
                let has_address = |text: &str| text.starts_with("call") || text.starts_with("jmp") || text.contains("(%rip)");
                if let Some((_, last)) = instructions.last_mut().filter(|(_, text)| has_address(text) && !text.contains(';')) {
                    let symbol = line.split_whitespace().last().unwrap_or_default();
                    last.push_str(&format!("    ; {symbol}"));
                }
            }
            _ => instructions.push((length, text)),
        }
    }
    while instructions.last().is_some_and(|(_, text)| ["nop", "int3", "xchg %ax,%ax"].iter().any(|fill| text.starts_with(fill))) {
        instructions.pop();
    }
    instructions
}
