//! `cargo xtask driver`: a native `.sys` without Windows and without the WDK.
//!
//! The driver's library is built as a `cdylib` for `x86_64-pc-windows-gnu`, linked by mingw-w64's GCC with the native
//! subsystem and `DriverEntry` as its entry point, and the image is then [checked](crate::image). The same source and
//! tools give the same bytes. The linker's map is put beside the image, as `<name>.map`.
//!
//! `core` and `alloc` for that target come from the first of these that is there:
//!
//! 1. the target as rustup installs it;
//! 2. the standard library's source, compiled along with the driver (`-Zbuild-std`): of the toolchain in use, where
//!    its `rust-src` component is installed; otherwise of Debian's `rustc-web` with `rust-web-src`.
//!
//! The second needs `RUSTC_BOOTSTRAP=1`, which is set for that one build and for nothing else.

mod native;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::image::{self, Image};
use crate::process;
use crate::workspace::Workspace;

/// The target that drivers are built for.
const TARGET: &str = "x86_64-pc-windows-gnu";

/// The oldest compiler that the workspace accepts.
const OLDEST_RUSTC: &str = env!("CARGO_PKG_RUST_VERSION");

/// What the linker is told.
const LINK_ARGUMENTS: &[&str] = &[
    "-nostdlib",
    "-nostartfiles",
    "-Wl,--subsystem,native",
    "-Wl,--entry,DriverEntry",
    // Position independence and its table, no execution of data.
    "-Wl,--dynamicbase",
    "-Wl,--enable-reloc-section",
    "-Wl,--nxcompat",
    // Sections that the kernel can protect page by page.
    "-Wl,--section-alignment,4096",
    "-Wl,--file-alignment,512",
    // Nothing would run the fix-ups that these two leave to a C runtime's start.
    "-Wl,--disable-auto-import",
    "-Wl,--disable-runtime-pseudo-reloc",
    // The same source gives the same bytes.
    "-Wl,--no-insert-timestamp",
];

/// Makes the linker take only what is used of the compiler's own routines: it takes whole object files, so each routine
/// gets one of its own, as in the standard library's own build.
const SPLIT_BUILTINS: &str = "profile.driver.package.compiler_builtins.codegen-units=10000";

/// The libraries that rustc links for this target and that a driver must not use. Empty archives stand in for them, so
/// that a call of the C runtime or of Win32 is an error of the linker.
const EMPTY_ARCHIVES: &[&str] =
    &["mingwex", "mingw32", "user32", "kernel32", "pthread", "ssp", "ssp_nonshared", "advapi32", "ntdll"];

/// The C functions that compilers call by themselves and that every ntoskrnl.exe exports.
const KERNEL_C_FUNCTIONS: &[&str] = &["memcmp", "memcpy", "memmove", "memset", "strlen"];

/// A driver image that passed every check.
#[derive(Debug)]
pub(crate) struct Driver {
    /// The `.sys` file.
    pub(crate) path: PathBuf,
    /// What is in it.
    pub(crate) image: Image,
}

/// Builds `target/driver/<name>.sys`, checks it, and prints what it is.
pub(crate) fn build(workspace: &Workspace, name: &str) -> Result<Driver> {
    build_variant(workspace, name, None)
}

/// Builds the driver, or, for one in C, a variant of it with a macro defined: `<name>-<macro>.sys`.
pub(crate) fn build_variant(workspace: &Workspace, name: &str, variant: Option<&str>) -> Result<Driver> {
    workspace.require_driver(name)?;
    let source = Source::of(workspace, name);
    let tools = MingwTools::find();
    let standard_library = StandardLibrary::find();
    let lacks_rust = source.has_rust() && standard_library.is_none();
    let Some(tools) = tools.filter(|tools| !lacks_rust && (source != Source::Cpp || tools.gpp.is_some())) else {
        bail!(missing(MingwTools::find().is_none_or(|tools| tools.gpp.is_none()), lacks_rust));
    };
    let name = &variant.map_or_else(|| name.to_owned(), |variant| format!("{name}-{}", variant.to_lowercase().replace('_', "-")));
    match &standard_library {
        Some(library) if source.has_rust() => println!("building {name}.sys with {}", library.describe()),
        _ => println!("building {name}.sys"),
    }

    let folder = workspace.target().join("driver");
    let runtime = folder.join("runtime");
    tools.make_runtime(&runtime).context("cannot make the libraries that the driver links with")?;
    let map = folder.join(format!("{name}.map"));
    let build_folder = folder.join("build");
    let built = match (&source, &standard_library) {
        (Source::Rust, Some(library)) => compile(workspace, name, &tools, library, &runtime, &map, &build_folder, "cdylib")?,
        (Source::Cpp, Some(library)) => {
            let rust = compile(workspace, name, &tools, library, &runtime, &map, &build_folder, "staticlib")?;
            let job =
                native::Job { workspace, name, output: name, define: None, runtime: &runtime, map: &map, rust: Some(&rust) };
            native::link(&tools, &job)?
        }
        _ => {
            let own = variant.map_or(name.as_str(), |_| source_name(name, variant));
            let job =
                native::Job { workspace, name: own, output: name, define: variant, runtime: &runtime, map: &map, rust: None };
            native::link(&tools, &job)?
        }
    };

    let path = folder.join(format!("{name}.sys"));
    let mut bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    image::set_checksum(&mut bytes).with_context(|| format!("{} is not a driver image", built.display()))?;
    let image = Image::parse(&bytes).with_context(|| format!("{} is not a driver image", built.display()))?;
    // The file appears only when it is sound: what is loaded was checked.
    remove_if_there(&path)?;
    println!("\n{image}");
    let violations = image.violations();
    ensure!(violations.is_empty(), "{name}.sys is not fit to load:\n  - {}", violations.join("\n  - "));
    fs::write(&path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;

    println!("{}: sound", path.display());
    println!("RESULT driver.{name}.size {} bytes", bytes.len());
    println!("RESULT driver.{name}.imports {} routines", image.imports().count());
    Ok(Driver { path, image })
}

/// The driver's name, without the variant.
fn source_name<'a>(name: &'a str, variant: Option<&str>) -> &'a str {
    variant.map_or(name, |variant| &name[..name.len() - variant.len() - 1])
}

/// What a driver is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Rust,
    C,
    /// C++ over a static library in Rust.
    Cpp,
}

impl Source {
    fn of(workspace: &Workspace, name: &str) -> Self {
        let folder = workspace.root().join("drivers").join(name);
        match (folder.join("Cargo.toml").is_file(), folder.join("driver.cpp").is_file()) {
            (true, true) => Self::Cpp,
            (true, false) => Self::Rust,
            (false, _) => Self::C,
        }
    }

    fn has_rust(self) -> bool {
        self != Self::C
    }
}

/// Runs cargo and returns the path of the library it made.
#[expect(clippy::too_many_arguments, reason = "they are what one build is made of")]
fn compile(
    workspace: &Workspace,
    name: &str,
    tools: &MingwTools,
    standard_library: &StandardLibrary,
    runtime: &Path,
    map: &Path,
    target_dir: &Path,
    crate_type: &str,
) -> Result<PathBuf> {
    let mut cargo = workspace.cargo();
    // Flags of the person's own machine (`-C target-cpu=native`, say) are for programs, not for a kernel.
    for variable in ["RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(variable);
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", remapped_paths(workspace, standard_library).join("\u{1f}"));
    cargo
        .env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER", &tools.gcc)
        .args(["rustc", "--package", name, "--lib", "--crate-type", crate_type])
        .args(["--profile", "driver", "--target", TARGET])
        .arg("--target-dir")
        .arg(target_dir);
    if let StandardLibrary::Source { rustc, .. } = standard_library {
        cargo
            .env("RUSTC", rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .args(["--config", SPLIT_BUILTINS])
            .arg("-Zbuild-std=core,alloc,compiler_builtins")
            .arg("-Zbuild-std-features=compiler-builtins-mem");
    }
    cargo.arg("--");
    for argument in LINK_ARGUMENTS {
        cargo.arg(format!("-Clink-arg={argument}"));
    }
    // The symbols hold paths of the machine and of the moment, so they stay out; the linker's map has the names.
    cargo.arg("-Cstrip=symbols").arg(format!("-Clink-arg=-Wl,-Map,{}", map.display()));
    cargo.arg(format!("-Clink-arg=-L{}", runtime.display()));

    let stem = name.replace('-', "_");
    let file = if crate_type == "staticlib" { format!("lib{stem}.a") } else { format!("{stem}.dll") };
    let library = target_dir.join(TARGET).join("driver").join(file);
    process::run(&mut cargo).context("the driver does not build")?;
    ensure!(library.is_file(), "cargo made no {}", library.display());
    Ok(library)
}

/// Flags that keep this machine's paths out of the image, where a panic's location would name them.
fn remapped_paths(workspace: &Workspace, standard_library: &StandardLibrary) -> Vec<String> {
    let home = env::home_dir().map(|home| home.join(".cargo"));
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from).or(home);
    let sysroot = match standard_library {
        StandardLibrary::Source { sysroot, .. } => Some(sysroot.join("lib/rustlib/src/rust")),
        StandardLibrary::Compiled { .. } => None,
    };
    [(cargo_home, "/cargo"), (sysroot, "/rust"), (Some(workspace.root().to_path_buf()), "/ksync")]
        .into_iter()
        .filter_map(|(from, to)| Some(format!("--remap-path-prefix={}={to}", from?.display())))
        .collect()
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn missing(tools: bool, standard_library: bool) -> String {
    let mut text = String::from("a driver cannot be built on this machine yet:");
    let mut packages = Vec::new();
    if tools {
        text.push_str("\n  - mingw-w64's gcc, g++, ar and dlltool for x86-64 were not found");
        packages.extend(["gcc-mingw-w64-x86-64", "g++-mingw-w64-x86-64"]);
    }
    if standard_library {
        text.push_str(&format!("\n  - there is neither `core` for {TARGET}, nor a rustc of {OLDEST_RUSTC} or later"));
        text.push_str(" with the standard library's source");
        packages.extend(["rustc-web", "rust-web-src"]);
    }
    text.push_str(&format!("\non Debian: apt-get install --no-install-recommends {}", packages.join(" ")));
    if standard_library {
        text.push_str(&format!("\nwith rustup: rustup target add {TARGET}"));
    }
    text
}

/// The programs that link a driver.
#[derive(Debug)]
struct MingwTools {
    gcc: PathBuf,
    /// For drivers in C++.
    gpp: Option<PathBuf>,
    ar: PathBuf,
    dlltool: PathBuf,
}

impl MingwTools {
    fn find() -> Option<Self> {
        let tool = |name| process::on_path(format!("x86_64-w64-mingw32-{name}")).next();
        Some(Self { gcc: tool("gcc")?, gpp: tool("g++"), ar: tool("ar")?, dlltool: tool("dlltool")? })
    }

    /// Fills a folder with the libraries that take the place of the C runtime.
    fn make_runtime(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let write = |file: &str, text: &str| {
            let path = folder.join(file);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        for library in EMPTY_ARCHIVES {
            write(&format!("lib{library}.a"), "!<arch>\n")?;
        }

        write("ntoskrnl.def", &format!("LIBRARY ntoskrnl.exe\nEXPORTS\n{}\n", KERNEL_C_FUNCTIONS.join("\n")))?;
        let mut dlltool = Command::new(&self.dlltool);
        dlltool.args(["-d", "ntoskrnl.def", "-l", "libmsvcrt.a"]);
        process::output(dlltool.current_dir(folder))?;

        write("runtime.c", include_str!("driver/runtime.c"))?;
        let mut gcc = Command::new(&self.gcc);
        gcc.args(["-O2", "-ffreestanding", "-c", "runtime.c", "-o", "runtime.o"]);
        process::output(gcc.current_dir(folder))?;
        remove_if_there(&folder.join("libgcc_eh.a"))?;
        let mut ar = Command::new(&self.ar);
        ar.args(["rcsD", "libgcc_eh.a", "runtime.o"]);
        process::output(ar.current_dir(folder))?;
        Ok(())
    }
}

/// Where `core` and `alloc` for the driver come from.
#[derive(Debug)]
pub(crate) enum StandardLibrary {
    /// Compiled, in the toolchain in use.
    Compiled { version: String },
    /// From source, by this compiler.
    Source { rustc: PathBuf, sysroot: PathBuf, version: String },
}

impl StandardLibrary {
    pub(crate) fn find() -> Option<Self> {
        let own = PathBuf::from(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        if let Some(compiler) = Compiler::probe(&own) {
            if compiler.has_target() {
                return Some(Self::Compiled { version: compiler.version });
            }
            if compiler.has_source() {
                return Some(compiler.into_source());
            }
        }
        let candidates = process::on_path("rustc").chain([PathBuf::from("/usr/bin/rustc")]).chain(debian_rustc());
        let mut seen = BTreeSet::new();
        candidates
            .filter(|path| seen.insert(path.clone()))
            .filter_map(|path| Compiler::probe(&path))
            .find(|compiler| compiler.is_new_enough() && compiler.has_source())
            .map(Compiler::into_source)
    }

    fn describe(&self) -> String {
        match self {
            Self::Compiled { version } => format!("{version} and its {TARGET} target"),
            Self::Source { rustc, version, .. } => format!("{version} ({}), core and alloc from source", rustc.display()),
        }
    }
}

/// The compilers that Debian's package put on the disk.
fn debian_rustc() -> Vec<PathBuf> {
    let files = process::output(Command::new("dpkg").args(["-L", "rustc-web"])).unwrap_or_default();
    files.lines().filter(|file| file.ends_with("/bin/rustc")).map(PathBuf::from).collect()
}

/// A rustc and what is installed beside it.
#[derive(Debug)]
struct Compiler {
    path: PathBuf,
    version: String,
    sysroot: PathBuf,
}

impl Compiler {
    fn probe(path: &Path) -> Option<Self> {
        let version = process::output(Command::new(path).arg("--version")).ok()?;
        let sysroot = process::output(Command::new(path).args(["--print", "sysroot"])).ok()?;
        Some(Self {
            path: path.to_path_buf(),
            version: version.split_whitespace().take(2).collect::<Vec<_>>().join(" "),
            sysroot: PathBuf::from(sysroot.trim()),
        })
    }

    fn into_source(self) -> StandardLibrary {
        StandardLibrary::Source { rustc: self.path, sysroot: self.sysroot, version: self.version }
    }

    fn has_target(&self) -> bool {
        let folder = self.sysroot.join("lib/rustlib").join(TARGET).join("lib");
        folder.read_dir().is_ok_and(|mut files| {
            files.any(|file| file.is_ok_and(|file| file.file_name().to_string_lossy().starts_with("libcore-")))
        })
    }

    fn has_source(&self) -> bool {
        self.sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file()
    }

    fn is_new_enough(&self) -> bool {
        let number = self.version.split_whitespace().nth(1).unwrap_or_default();
        release(number) >= release(OLDEST_RUSTC)
    }
}

/// The first two numbers of a version.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(['.', '-']).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_compare_as_numbers() {
        assert!(release("1.100.0-nightly") > release("1.96.0"));
        assert_eq!(release("1.95"), release("1.95.0"));
        assert!(release("rustc") < release("1.0"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let text = missing(true, true);
        for package in ["gcc-mingw-w64-x86-64", "rustc-web", "rust-web-src", "rustup target add"] {
            assert!(text.contains(package), "{text}");
        }
        assert!(!missing(true, false).contains("rustc-web"));
        assert!(!missing(false, true).contains("gcc-mingw"));
    }
}
