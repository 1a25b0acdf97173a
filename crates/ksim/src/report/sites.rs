//! Where driver code called from: the frames of a stack, kept as they are and given names only for a report.

use super::bug_check::CallSite;
use crate::engine::context::running_stack;
use crate::image::{MachineImages, Place};
use crate::machine::images_of_this_thread;
use rustc_hash::FxHashMap;
use std::ffi::c_void;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// How many frames of a stack are kept. The innermost few are the hosted kernel's own.
const FRAMES: usize = 48;

/// A place that driver code called from, within one run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SiteId(NonZeroU32);

impl SiteId {
    /// Its place among the sites of the run, from 1.
    pub(crate) fn number(self) -> u32 {
        self.0.get()
    }
}

/// The return addresses of a stack, innermost first.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Frames {
    host: Box<[usize]>,
    /// Those of an image, which the host's unwinder does not know.
    image: Box<[Place]>,
}

impl Frames {
    /// The stack of who calls. It costs about a microsecond a frame. The machine's loop, which is on no context's stack, has nothing to show: its callers are the
    /// host's.
    #[inline(never)]
    pub(crate) fn capture() -> Self {
        let mut frames = Vec::new();
        if running_stack().is_some() {
            frames.reserve(FRAMES);
            backtrace::trace(|frame| {
                frames.push(frame.ip().addr());
                frames.len() < FRAMES
            });
        }
        let image = images_of_this_thread().map(MachineImages::places).unwrap_or_default().into_boxed_slice();
        Self { host: frames.into_boxed_slice(), image }
    }

    /// The stack of who calls, where that is very deep: both of its ends, of the context that runs alone. `interrupted` is the address
    /// of an instruction that is not one to return to.
    #[cold]
    pub(crate) fn capture_ends(interrupted: usize) -> Self {
        const END: usize = FRAMES / 2;
        let stack = running_stack().unwrap_or_default();
        let mut frames = Vec::with_capacity(FRAMES);
        let mut entered = false;
        backtrace::trace(|frame| {
            let inside = stack.contains(&frame.sp().addr());
            if entered && !inside {
                return false;
            }
            entered |= inside;
            if frames.len() == FRAMES {
                // The last of the inner ones stay, and of the others as many as there is room for.
                frames.remove(END);
            }
            let address = frame.ip().addr();
            frames.push(address + usize::from(address == interrupted));
            true
        });
        // Hosted code that an image has called is what to show.
        let places = images_of_this_thread().filter(|_| interrupted == 0).map(MachineImages::places);
        Self { host: frames.into_boxed_slice(), image: places.unwrap_or_default().into_boxed_slice() }
    }

    /// A stack of which only the frames of an image are known.
    pub(crate) fn of_image(places: Vec<Place>) -> Self {
        Self { host: Box::default(), image: places.into_boxed_slice() }
    }

    /// The frames of driver code, innermost first. Those of `ksync` count as driver code only where there is nothing else.
    pub(crate) fn resolve(&self) -> Vec<CallSite> {
        if !self.image.is_empty() {
            return self.image.iter().map(Place::call_site).collect();
        }
        let (mut sites, mut library) = (Vec::new(), Vec::new());
        let mut over = false;
        for &address in &self.host {
            backtrace::resolve(address as *mut c_void, |symbol| {
                let Some(name) = symbol.name() else { return };
                let function = format!("{name:#}");
                let file = symbol.filename().map(|path| path.display().to_string());
                // Optimised code has no names of modules for what is inlined.
                over |= function.contains("corosensei") || file.as_deref().is_some_and(|file| file.contains("/corosensei-"));
                if !over && !is_internal(&function) && !file.as_deref().is_some_and(is_internal_file) {
                    let is_library = is_library(&function, file.as_deref());
                    let file = symbol.filename().map(|path| in_workspace(path).display().to_string());
                    let site = CallSite { function, file, line: symbol.lineno(), library: None, of_library: is_library };
                    if is_library {
                        library.push(site);
                    } else {
                        // The outermost frame of the library below the first of the driver is what the driver called.
                        let called =
                            library.last().filter(|_| sites.is_empty()).map(|called: &CallSite| routine(&called.function));
                        sites.push(CallSite { library: called, ..site });
                    }
                }
            });
            if over {
                break;
            }
        }
        if sites.is_empty() { library } else { sites }
    }
}

/// A path as it is in its workspace, where every machine has the same one.
pub(crate) fn in_workspace(path: &Path) -> &Path {
    let in_root = roots().iter().find_map(|root| path.strip_prefix(root).ok());
    // A library from elsewhere, by its package.
    let in_package = || beside().filter(|_| path.is_absolute()).and_then(|(before, _)| path.strip_prefix(before).ok());
    in_root.or_else(in_package).unwrap_or(path)
}

/// The directories that paths are told from: the workspace, or the package where there is none.
pub(super) fn roots() -> &'static [PathBuf] {
    static ROOTS: OnceLock<Vec<PathBuf>> = OnceLock::new();
    ROOTS.get_or_init(|| {
        // Cargo says to what it runs where the package is. The current directory may be any other.
        let current = std::env::current_dir().ok();
        let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let directories: Vec<_> = current.into_iter().chain(package).collect();
        let with_lock = |directory: &&Path| directory.join("Cargo.lock").exists();
        let workspaces = directories.iter().filter_map(|directory| directory.ancestors().filter(with_lock).last());
        workspaces.map(Path::to_path_buf).chain(directories.iter().cloned()).collect()
    })
}

/// The type and the name of a routine, without modules, parameters and closures.
fn routine(function: &str) -> String {
    let name = function.split("::{{closure}}").next().unwrap_or(function);
    let (mut plain, mut depth) = (String::new(), 0_usize);
    // What a trait's routine is of comes before `as`, and is what to name.
    let name = match name.strip_prefix('<').and_then(|name| name.split_once(" as ")) {
        Some((of, rest)) => format!("{of}::{}", rest.rsplit("::").next().unwrap_or(rest)),
        None => name.to_owned(),
    };
    for character in name.chars() {
        match character {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            _ if depth == 0 => plain.push(character),
            _ => {}
        }
    }
    let parts: Vec<_> = plain.split("::").filter(|part| !part.is_empty()).collect();
    // A module says less than a type.
    let of_type = parts.iter().rev().nth(1).is_some_and(|part| part.starts_with(char::is_uppercase));
    parts[parts.len().saturating_sub(1 + usize::from(of_type))..].join("::")
}

/// True for a function that is not a driver's: the hosted kernel's, an inline of NT's headers, or the language's.
fn is_internal(function: &str) -> bool {
    const PREFIXES: [&str; 12] = [
        "ksim::",
        "<ksim::",
        // What runs images from the command line.
        "cargo_ksim::",
        "ksync_sys::",
        "backtrace::",
        "core::",
        "<core::",
        "std::",
        "<std::",
        "alloc::",
        "<alloc::",
        "__rust",
    ];
    PREFIXES.iter().any(|prefix| function.starts_with(prefix)) || crate::exports::is_export(function)
}

/// The same by its source file: of a function that was inlined, line tables give the name without its modules.
fn is_internal_file(file: &str) -> bool {
    // This file's path, as the compiler was given it.
    let own = file!().strip_suffix("report/sites.rs").unwrap_or(file!());
    file.contains(own) || file.contains("/rustc/") || file.contains("/backtrace-")
}

/// True for a function of `ksync`: what it does is done for the driver, whose own line is the one to show.
fn is_library(function: &str, file: Option<&str>) -> bool {
    function.starts_with("ksync::") || function.starts_with("<ksync::") || file.is_some_and(is_library_file)
}

/// The same by its source file.
fn is_library_file(file: &str) -> bool {
    let Some((before, after)) = beside() else { return false };
    ["ksync", "ksync-sys"].iter().any(|name| file.contains(&format!("{before}{name}{after}")))
}

/// What is before and behind the name of this crate in the paths of its files: those of `ksync` lie beside them, in a workspace, in a registry and among what Cargo fetched.
fn beside() -> Option<(&'static str, &'static str)> {
    file!().strip_suffix("report/sites.rs")?.rsplit_once("ksim")
}

/// The places of a run, each once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sites {
    /// With their names, once somebody has asked for them.
    frames: Vec<(Frames, OnceLock<Vec<CallSite>>)>,
    ids: FxHashMap<Frames, SiteId>,
}

impl Sites {
    /// True when no stack has a number.
    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The number of a stack.
    pub(crate) fn enter(&mut self, frames: Frames) -> SiteId {
        if let Some(&id) = self.ids.get(&frames) {
            return id;
        }
        let id = SiteId(NonZeroU32::MIN.saturating_add(self.frames.len() as u32));
        self.frames.push((frames.clone(), OnceLock::new()));
        self.ids.insert(frames, id);
        id
    }

    /// The driver code of a place, innermost first.
    pub(crate) fn resolve(&self, id: SiteId) -> Vec<CallSite> {
        let known = self.frames.get(id.0.get() as usize - 1);
        known.map(|(frames, sites)| sites.get_or_init(|| frames.resolve()).clone()).unwrap_or_default()
    }
}
