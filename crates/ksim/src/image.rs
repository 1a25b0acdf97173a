//! Loading a driver's image: the very `.sys` file that ships, in this process, under the same checks as hosted code.
//!
//! ```no_run
//! use ksim::{Machine, image::Image};
//!
//! let image = Image::open("target/driver/tour.sys")?;
//! for import in image.imports().filter(|import| !import.available) {
//!     println!("this kernel lacks {}!{}", import.library, import.name);
//! }
//! let outcome = Machine::new().processors(2).run(|| {
//!     let driver = ksim::load_image("tour", &image).expect("DriverEntry succeeds");
//!     driver.unload();
//! });
//! outcome.expect_clean();
//! # Ok::<(), ksim::image::ImageError>(())
//! ```
//!
//! An image is machine code, so it runs on the host that has that code: x86-64, and of its systems Linux. Elsewhere an
//! image can be read and its imports listed, and loading it fails.
//!
//! What is supported, and what is not, is in `docs/images.md`.

pub(crate) mod abi;
mod file;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) mod host;
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
#[path = "image/no_host.rs"]
pub(crate) mod host;
mod lines;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod routines;

pub use file::ImageError;

use crate::report::CallSite;
use file::File;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

pub(crate) use abi::{call, call_through};
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) use host::context::Context as Registers;
pub(crate) use host::{Activity, Adapter, CallFrame, MachineImages};
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) use host::{Arguments, boundary, emergency_stack, is_in_image, not_handled, prepare_signals, refused, returned};
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) use routines::tables;

/// What only images import: on a host without images, nothing.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub(crate) fn tables() -> Vec<&'static crate::exports::Table> {
    Vec::new()
}

/// A driver's image, checked and ready to be loaded, any number of times and by several machines at once.
#[derive(Clone)]
pub struct Image {
    pub(crate) file: Arc<File>,
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image").field("size", &self.size()).field("entry", &self.file.entry).finish_non_exhaustive()
    }
}

/// A routine or variable that an image imports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Import<'a> {
    /// The image that it is imported from.
    pub library: &'a str,
    /// Its name, or `#` and its ordinal.
    pub name: &'a str,
    /// This kernel has it. A call of what it lacks is a bug check that names the routine.
    pub available: bool,
}

/// A section of an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Section<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where it begins, relative to the image.
    pub start: u32,
    /// Its size in memory in bytes.
    pub size: u32,
    /// It can be written. Nothing is writable and executable at once: a section that asks for both is executable.
    pub writable: bool,
    /// It can be executed.
    pub executable: bool,
    /// It goes away when `DriverEntry` has returned.
    pub discardable: bool,
    /// It may be paged out, and must not be used at DISPATCH_LEVEL or above.
    pub pageable: bool,
}

impl Image {
    /// Takes the bytes of a `.sys` file.
    ///
    /// # Errors
    /// [`ImageError`], if they are not those of a driver for 64-bit Windows on x86-64, or are damaged.
    pub fn load(bytes: &[u8]) -> Result<Self, ImageError> {
        Ok(Self { file: Arc::new(File::parse(bytes)?) })
    }

    /// Reads a `.sys` file.
    ///
    /// # Errors
    /// As [`load`](Self::load), and if the file cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ImageError> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|error| ImageError::Unreadable(format!("{}: {error}", path.display())))?;
        Self::load(&bytes)
    }

    /// What it imports, in the order of its tables.
    pub fn imports(&self) -> impl Iterator<Item = Import<'_>> {
        self.file.imports.iter().map(|import| Import {
            library: &import.library,
            name: &import.name,
            available: is_kernel(&import.library) && is_available(&import.name),
        })
    }

    /// Its sections, in order of address.
    pub fn sections(&self) -> impl Iterator<Item = Section<'_>> {
        self.file.sections.iter().map(|section| Section {
            name: &section.name,
            start: section.start,
            size: section.size,
            writable: section.writable,
            executable: section.executable,
            discardable: section.discardable,
            pageable: section.pageable,
        })
    }

    /// The source file and line of a byte of code, relative to the image, if the file has DWARF that says so.
    #[must_use]
    pub fn source_line(&self, at: u32) -> Option<(&str, u32)> {
        self.file.line_at(at)
    }

    /// Its size in memory in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.file.layout.len()
    }

    /// Whether images can be loaded on this host.
    ///
    /// # Errors
    /// [`ImageError::Host`], if not.
    pub fn check_host() -> Result<(), ImageError> {
        if cfg!(all(target_os = "linux", target_arch = "x86_64")) { Ok(()) } else { Err(ImageError::Host) }
    }
}

/// A routine of this kernel that is handed out as a pointer: for an image that calls, the one of that name and its convention.
pub(crate) fn for_caller<R: Copy>(call: crate::machine::Call, routine: R, name: &str) -> R {
    const { assert!(size_of::<R>() == size_of::<usize>(), "a routine is a pointer") };
    match address_for_images(name) {
        // SAFETY: a pointer to a routine is as large as an address, and the stub takes the same arguments.
        address if address != 0 && call.cell.images.in_call() => unsafe { std::mem::transmute_copy(&address) },
        _ => routine,
    }
}

/// The address that images know a routine of this kernel by, or 0.
pub(crate) fn address_for_images(name: &str) -> usize {
    host::stub_of(name).unwrap_or(0)
}

/// True for the images that this kernel takes the place of.
pub(crate) fn is_kernel(library: &str) -> bool {
    ["ntoskrnl.exe", "hal.dll"].iter().any(|name| library.eq_ignore_ascii_case(name))
}

/// True for what images can import from this kernel.
fn is_available(name: &str) -> bool {
    let exported = crate::exports::table().chain(tables().into_iter().flat_map(|table| table.exports));
    host::is_variable(name) || exported.into_iter().any(|export| export.name == name)
}

/// An image as it was loaded, for reports.
pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) file: Arc<File>,
}

impl Module {
    /// The name of a place.
    pub(crate) fn describe(&self, rva: u32) -> String {
        match self.file.symbol_at(rva) {
            Some((symbol, 0)) => format!("{}!{symbol}", self.name),
            Some((symbol, offset)) => format!("{}!{symbol}+{offset:#x}", self.name),
            None => format!("{}+{rva:#x}", self.name),
        }
    }
}

/// A place in an image.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) module: Arc<Module>,
    pub(crate) rva: u32,
}

impl Place {
    /// As reports have it.
    pub(crate) fn call_site(&self) -> CallSite {
        let line = self.module.file.line_at(self.rva);
        let file = line.map(|(file, _)| crate::report::sites::in_workspace(Path::new(file)).display().to_string());
        CallSite {
            function: self.module.describe(self.rva),
            file,
            line: line.map(|(_, line)| line),
            library: None,
            of_library: false,
        }
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.module, &other.module) && self.rva == other.rva
    }
}

impl Eq for Place {}

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.rva.hash(state);
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.module.describe(self.rva))
    }
}
