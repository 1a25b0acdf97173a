//! An image in memory: relocated, bound, and protected section by section.

use super::arena::{Access, Block};
use super::entry::{CallFrame, Entry, STUB, stub};
use super::patch::Trampolines;
use super::variables::Variables;
use crate::image::file::{File, PAGE, Section};
use crate::image::{Module, Place};
use crate::machine::{Call, current};
use crate::report::bug_check::{Violation, codes};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, OnceLock};

/// The number that the loader of this kernel puts into every security cookie. NT's is random, and a run must not be.
const COOKIE: u64 = 0x0000_6b73_696d_c00c;

/// The stubs of everything that the hosted kernel exports, for all images of the process.
pub(crate) struct Stubs {
    _block: Block,
    by_name: FxHashMap<&'static str, usize>,
}

static STUBS: OnceLock<Stubs> = OnceLock::new();

/// The stubs, made at the first use.
fn stubs() -> io::Result<&'static Stubs> {
    if let Some(stubs) = STUBS.get() {
        return Ok(stubs);
    }
    let made = Stubs::new()?;
    Ok(STUBS.get_or_init(|| made))
}

/// The address that images know an export by, once one was loaded.
pub(crate) fn stub_of(name: &str) -> Option<usize> {
    STUBS.get()?.by_name.get(name).copied()
}

impl Stubs {
    fn new() -> io::Result<Self> {
        let mut exports: FxHashMap<&'static str, super::entry::Adapter> = FxHashMap::default();
        for (name, adapter) in crate::exports::all_adapters() {
            exports.insert(name, adapter);
        }
        let mut exports: Vec<_> = exports.into_iter().collect();
        exports.sort_unstable_by_key(|(name, _)| *name);
        let block = Block::new((exports.len() * STUB).next_multiple_of(PAGE as usize))?;
        block.protect(0, (exports.len() * STUB).next_multiple_of(PAGE as usize), Access::Write)?;
        let mut by_name = FxHashMap::default();
        for (index, (name, adapter)) in exports.iter().enumerate() {
            // The process keeps the entries, as it keeps the stubs.
            let entry: &'static Entry = Box::leak(Box::new(Entry { adapter: *adapter, name: (*name).to_owned() }));
            let address = block.start() + index * STUB;
            // SAFETY: the block was made large enough, and writable, and nobody else knows it yet.
            unsafe { (address as *mut [u8; STUB]).write(stub(entry)) };
            by_name.insert(*name, address);
        }
        block.protect(0, (exports.len() * STUB).next_multiple_of(PAGE as usize), Access::Execute)?;
        Ok(Self { _block: block, by_name })
    }
}

/// Called in place of a routine that this kernel does not have.
unsafe extern "C" fn missing(frame: *mut CallFrame, _arguments: *const u64) -> u64 {
    let call = Call { cell: current("an import of an image"), export: None };
    call.cell.images.frame.set(frame);
    // SAFETY: the stub has made the frame for this call.
    let frame = unsafe { &*frame };
    let name = frame.entry().map_or("a routine", |entry| &entry.name);
    let meaning = match name.split_once("!#") {
        // NT's ordinals differ from build to build, so that there are none to be true to.
        Some((library, ordinal)) => {
            format!("the driver called ordinal {ordinal} of {library}: this kernel has routines by name only")
        }
        None => format!("the driver called {name}, which this kernel does not have"),
    };
    call.fail(Violation::boxed_owned(codes::DRIVER_ENTRYPOINT_NOT_FOUND, [frame.return_address(), 0, 0, 0], meaning))
}

/// What a section allows.
fn access_of(section: &Section) -> Access {
    match (section.executable, section.writable) {
        (true, _) => Access::Execute,
        (false, true) => Access::Write,
        (false, false) => Access::Read,
    }
}

/// Why part of an image is not there any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Gone {
    /// It was for `DriverEntry` alone.
    Discarded,
    /// The driver was unloaded.
    Unloaded,
}

/// An image in memory.
pub(crate) struct Mapping {
    pub(crate) file: Arc<File>,
    module: Arc<Module>,
    block: Block,
    /// The entries of imports that this kernel lacks.
    #[expect(clippy::vec_box, reason = "the stubs point to the entries, which must not move")]
    _missing: Vec<Box<Entry>>,
    pub(crate) trampolines: Trampolines,
    init_discarded: bool,
    unloaded: bool,
    /// All of it is pageable, whatever its sections say.
    all_pageable: bool,
    /// How often the driver has locked a section, by the place where that begins.
    locked: BTreeMap<u32, u32>,
}

impl Mapping {
    pub(super) fn new(module: Arc<Module>, variables: &Variables) -> io::Result<Self> {
        let file = module.file.clone();
        let size = file.layout.len();
        stubs()?;
        let lacks: Vec<_> =
            file.imports.iter().filter(|import| bound(&import.library, &import.name, variables).is_none()).collect();
        let stub_bytes = (lacks.len() * STUB).next_multiple_of(PAGE as usize);
        let block = Block::new(size + stub_bytes + Trampolines::BYTES)?;
        let base = block.start();
        block.protect(0, size + stub_bytes, Access::Write)?;
        // SAFETY: the block is as large and writable, and nobody else knows it yet.
        unsafe { (base as *mut u8).copy_from_nonoverlapping(file.layout.as_ptr(), size) };
        let write = |rva: u32, value: u64| {
            // SAFETY: the file's tables were checked to stay within the image.
            unsafe { ((base + rva as usize) as *mut u64).write_unaligned(value) };
        };
        let delta = (base as u64).wrapping_sub(file.base);
        for &rva in &file.relocations {
            // SAFETY: as above.
            let value = unsafe { ((base + rva as usize) as *const u64).read_unaligned() };
            write(rva, value.wrapping_add(delta));
        }
        let mut missing_entries = Vec::new();
        for import in &file.imports {
            let address = bound(&import.library, &import.name, variables).unwrap_or_else(|| {
                let entry = Box::new(Entry { adapter: missing, name: format!("{}!{}", import.library, import.name) });
                let address = base + size + missing_entries.len() * STUB;
                // SAFETY: the block has room for a stub for each of these.
                unsafe { (address as *mut [u8; STUB]).write(stub(&raw const *entry)) };
                missing_entries.push(entry);
                address
            });
            write(import.slot, address as u64);
        }
        if let Some(cookie) = file.cookie {
            write(cookie, COOKIE);
        }
        block.protect(0, size, Access::None)?;
        block.protect(0, file.headers as usize, Access::Read)?;
        for section in &file.sections {
            block.protect(section.start as usize, section.size as usize, access_of(section))?;
        }
        if stub_bytes != 0 {
            block.protect(size, stub_bytes, Access::Execute)?;
        }
        Ok(Self {
            trampolines: Trampolines::new(size + stub_bytes),
            file,
            module,
            block,
            _missing: missing_entries,
            init_discarded: false,
            unloaded: false,
            all_pageable: false,
            locked: BTreeMap::new(),
        })
    }

    pub(crate) fn base(&self) -> usize {
        self.block.start()
    }

    pub(crate) fn block(&self) -> &Block {
        &self.block
    }

    /// True for an address in the image itself, not in what was put behind it.
    pub(crate) fn contains(&self, address: u64) -> bool {
        address.wrapping_sub(self.base() as u64) < self.file.layout.len() as u64
    }

    /// Where an address is, relative to the image.
    pub(crate) fn rva(&self, address: u64) -> u32 {
        (address - self.base() as u64) as u32
    }

    pub(super) fn discard_init(&mut self) {
        self.init_discarded = true;
        for section in self.file.sections.iter().filter(|section| section.discardable) {
            // A failure leaves the section where it is, and the check of late calls out.
            let _ = self.block.protect(section.start as usize, section.size as usize, Access::None);
        }
    }

    pub(super) fn unload(&mut self) {
        self.unloaded = true;
        // As above.
        let _ = self.block.protect(0, self.file.layout.len(), Access::None);
    }

    /// True when a section's pages may be out.
    fn is_pageable(&self, section: &Section) -> bool {
        (section.pageable || self.all_pageable)
            && !self.locked.contains_key(&section.start)
            && !(self.init_discarded && section.discardable)
    }

    /// The section of a byte whose page may be out.
    pub(crate) fn pageable_at(&self, address: u64) -> Option<&Section> {
        self.file.section_at(self.rva(address)).filter(|section| self.is_pageable(section))
    }

    /// Takes the pageable sections away, or gives them back.
    pub(super) fn page(&self, out: bool) {
        if self.unloaded {
            return;
        }
        for section in self.file.sections.iter().filter(|section| self.is_pageable(section)) {
            let access = if out { Access::None } else { access_of(section) };
            // A failure leaves the section as it is: too much can be touched then, or a fault is reported that is none, and the host is out of memory.
            let _ = self.block.protect(section.start as usize, section.size as usize, access);
        }
    }

    /// The driver locks a section into memory, or unlocks it. Returns where the section begins, or none if it is not locked or has no such byte.
    pub(crate) fn lock(&mut self, address: u64, lock: bool) -> Option<u64> {
        let start = self.file.section_at(self.rva(address))?.start;
        if lock {
            *self.locked.entry(start).or_default() += 1;
        } else {
            let count = self.locked.get_mut(&start)?;
            *count -= 1;
            if *count == 0 {
                self.locked.remove(&start);
            }
        }
        Some((self.base() + start as usize) as u64)
    }

    /// The driver makes all of itself pageable, or what its sections say. Returns where it begins.
    pub(crate) fn set_all_pageable(&mut self, all: bool) -> u64 {
        self.all_pageable = all;
        self.base() as u64
    }

    /// Why a byte of the image is not there any more.
    pub(crate) fn gone(&self, address: u64) -> Option<Gone> {
        if self.unloaded {
            return Some(Gone::Unloaded);
        }
        let section = self.file.section_at(self.rva(address))?;
        (self.init_discarded && section.discardable).then_some(Gone::Discarded)
    }

    /// The name of a place, as reports have it.
    pub(crate) fn describe(&self, address: u64) -> String {
        self.module.describe(self.rva(address))
    }

    /// True for the mapping of that module.
    pub(crate) fn is(&self, module: &Arc<Module>) -> bool {
        Arc::ptr_eq(&self.module, module)
    }

    /// A place, for a report.
    pub(crate) fn place(&self, address: u64) -> Place {
        Place { module: self.module.clone(), rva: self.rva(address) }
    }
}

/// The address that an import is bound to.
fn bound(library: &str, name: &str, variables: &Variables) -> Option<usize> {
    crate::image::is_kernel(library).then(|| variables.address(name).or_else(|| stub_of(name)))?
}
