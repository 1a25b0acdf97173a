//! Where things are in the source tree.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The workspace that this program belongs to.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// Finds the workspace: from `cargo run`'s environment, or from where this program was compiled.
    pub(crate) fn find() -> Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
        let root = manifest.parent().context("the xtask package is not inside a workspace")?.to_path_buf();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => env::current_dir().context("cannot read the current folder")?.join(folder),
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// The folder that holds everything.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where build output goes: `target`, or what `CARGO_TARGET_DIR` says.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Checks that `drivers/<name>` is there.
    pub(crate) fn require_driver(&self, name: &str) -> Result<()> {
        let drivers = self.root.join("drivers");
        if !name.is_empty() && is_driver(&drivers.join(name)) {
            return Ok(());
        }
        let known = self.drivers()?;
        bail!("there is no driver `{name}` (drivers/ has: {})", known.join(", "))
    }

    /// The names of the sample drivers, in order.
    pub(crate) fn drivers(&self) -> Result<Vec<String>> {
        let drivers = self.root.join("drivers");
        let mut known: Vec<String> = drivers
            .read_dir()
            .with_context(|| format!("cannot list {}", drivers.display()))?
            .filter_map(|entry| entry.ok())
            .filter(|entry| is_driver(&entry.path()))
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        known.sort();
        Ok(known)
    }

    /// A `cargo` command, the one that runs this program, started at the root.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root);
        command
    }
}

/// True for the folder of a driver: a package, or a source in C.
fn is_driver(folder: &Path) -> bool {
    folder.join("Cargo.toml").is_file() || folder.join("driver.c").is_file()
}
