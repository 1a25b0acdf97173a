//! What a driver's file says: PE32+, checked before anything of it is used.
//!
//! A file comes from anywhere. Every offset, size and address in it is checked here, once, so that what maps and runs the image
//! can rely on them: a damaged file is an error and nothing else.

use super::lines::{DebugData, Lines};
use object::LittleEndian as LE;
use object::pe;
use object::read::coff::CoffHeader;
use object::read::pe::{ExportTarget, ImageOptionalHeader, PeFile64};
use std::fmt;
use std::sync::OnceLock;

/// A page.
pub(crate) const PAGE: u32 = 4096;
/// The largest image that is taken. Windows' own limit for a driver is of the same order.
const LARGEST: u32 = 256 << 20;
/// More names than any driver imports.
const MOST_IMPORTS: usize = 1 << 16;
/// The linker's value of a security cookie, which the loader replaces.
const DEFAULT_COOKIE: u64 = 0x0000_2b99_2ddf_a232;

/// Why a file is not a driver image that can be run.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ImageError {
    /// The file could not be read.
    Unreadable(String),
    /// It is not a PE32+ file, or a table in it is damaged.
    Malformed(String),
    /// It is one, but not for the native subsystem on x86-64, or of a kind that is not supported.
    Unsupported(String),
    /// Images run on x86-64 Linux only.
    Host,
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "the image cannot be read: {why}"),
            Self::Malformed(why) => write!(f, "the image is damaged: {why}"),
            Self::Unsupported(why) => write!(f, "the image cannot be run: {why}"),
            Self::Host => write!(f, "images run on x86-64 Linux only"),
        }
    }
}

impl std::error::Error for ImageError {}

fn malformed<T>(why: impl fmt::Display) -> Result<T, ImageError> {
    Err(ImageError::Malformed(why.to_string()))
}

fn unsupported<T>(why: impl fmt::Display) -> Result<T, ImageError> {
    Err(ImageError::Unsupported(why.to_string()))
}

/// A section.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) name: String,
    /// Where it begins, relative to the image.
    pub(crate) start: u32,
    /// Its size in memory, a multiple of a page.
    pub(crate) size: u32,
    pub(crate) writable: bool,
    pub(crate) executable: bool,
    /// Gone once `DriverEntry` has returned.
    pub(crate) discardable: bool,
    /// Its pages may be out, so that nothing in it may be touched at DISPATCH_LEVEL or above.
    pub(crate) pageable: bool,
}

impl Section {
    pub(crate) fn contains(&self, rva: u32) -> bool {
        rva.wrapping_sub(self.start) < self.size
    }
}

/// A slot of the import address table.
#[derive(Clone, Debug)]
pub(crate) struct ImportSlot {
    pub(crate) library: String,
    /// The name, or `#` and the ordinal.
    pub(crate) name: String,
    /// Where the address goes, relative to the image.
    pub(crate) slot: u32,
}

/// A function that the unwinder knows: an entry of `.pdata`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RuntimeFunction {
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) unwind: u32,
    /// Where the entry itself is, relative to the image.
    pub(crate) entry: u32,
}

/// A file that was checked, laid out as it will be in memory.
#[derive(Debug)]
pub(crate) struct File {
    /// The image as it is in memory before relocation. A multiple of a page.
    pub(crate) layout: Vec<u8>,
    /// The address that it was linked for.
    pub(crate) base: u64,
    pub(crate) entry: u32,
    /// Bytes of headers, a multiple of a page.
    pub(crate) headers: u32,
    /// In order of address.
    pub(crate) sections: Vec<Section>,
    /// The 8-byte words that hold addresses.
    pub(crate) relocations: Vec<u32>,
    pub(crate) imports: Vec<ImportSlot>,
    /// In order of address.
    pub(crate) functions: Vec<RuntimeFunction>,
    /// Symbols of functions, in order of address.
    pub(crate) symbols: Vec<(u32, String)>,
    /// Whether the time stamp counter may be read somewhere, once that was looked for.
    pub(crate) reads_time_stamps: OnceLock<bool>,
    /// What there is to find source lines by, and the lines once somebody has asked for one.
    debug_data: DebugData,
    lines: OnceLock<Lines>,
    /// The word that the compiler's stack checks compare with, if it has its linker's value.
    pub(crate) cookie: Option<u32>,
}

fn round_up(value: u32, to: u32) -> Option<u32> {
    Some(value.checked_add(to - 1)? & !(to - 1))
}

impl File {
    /// Checks a file and lays it out.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let pe = match PeFile64::parse(bytes) {
            Ok(pe) => pe,
            Err(error) => return malformed(error),
        };
        let headers = pe.nt_headers();
        let optional = &headers.optional_header;
        if headers.file_header.machine.get(LE) != pe::IMAGE_FILE_MACHINE_AMD64 {
            return unsupported(format_args!("it is for machine {:#x}, not x86-64", headers.file_header.machine.get(LE).0));
        }
        if optional.subsystem() != pe::IMAGE_SUBSYSTEM_NATIVE {
            return unsupported(format_args!("it is for subsystem {}, not the native one", optional.subsystem().0));
        }
        if optional.section_alignment() != PAGE {
            return unsupported(format_args!(
                "its sections are aligned to {} bytes, not to a page",
                optional.section_alignment()
            ));
        }
        let base = optional.image_base();
        let Some(size) = round_up(optional.size_of_image(), PAGE).filter(|size| (PAGE..=LARGEST).contains(size)) else {
            return malformed(format_args!("its size of {} bytes is out of range", optional.size_of_image()));
        };
        if !base.is_multiple_of(0x1_0000) || base.checked_add(u64::from(size)).is_none() {
            return malformed(format_args!("its base {base:#x} is no image base"));
        }
        let header_bytes = optional.size_of_headers();
        let header_pages = match round_up(header_bytes, PAGE) {
            Some(pages) if pages <= size && header_bytes as usize <= bytes.len() && header_bytes != 0 => pages,
            _ => return malformed(format_args!("its headers of {header_bytes} bytes are out of range")),
        };
        let mut layout = vec![0; size as usize];
        layout[..header_bytes as usize].copy_from_slice(&bytes[..header_bytes as usize]);
        let sections = lay_out(&pe, bytes, &mut layout, header_pages)?;
        let entry = optional.address_of_entry_point();
        if !sections.iter().any(|section| section.executable && section.contains(entry)) {
            return malformed(format_args!("its entry point {entry:#x} is not in code"));
        }
        let mut file = Self {
            layout,
            base,
            entry,
            headers: header_pages,
            sections,
            relocations: Vec::new(),
            imports: Vec::new(),
            functions: Vec::new(),
            symbols: Vec::new(),
            cookie: None,
            debug_data: DebugData::of(&pe, base),
            reads_time_stamps: OnceLock::new(),
            lines: OnceLock::new(),
        };
        file.relocations = file.read_relocations(&pe, headers.file_header.characteristics.get(LE).0)?;
        file.imports = file.read_imports(&pe)?;
        file.functions = file.read_functions(&pe)?;
        file.cookie = file.read_cookie(&pe)?;
        file.symbols = read_symbols(&pe, base, size);
        Ok(file)
    }

    /// The bytes of a table that the headers point to.
    fn directory(&self, pe: &PeFile64<'_>, index: usize, what: &str) -> Result<Option<(u32, &[u8])>, ImageError> {
        let Some(directory) = pe.data_directory(index) else { return Ok(None) };
        let (start, size) = (directory.virtual_address.get(LE), directory.size.get(LE));
        if start == 0 || size == 0 {
            return Ok(None);
        }
        match self.slice(start, size) {
            Some(bytes) => Ok(Some((start, bytes))),
            None => malformed(format_args!("its {what} at {start:#x} are out of range")),
        }
    }

    /// Bytes of the image before relocation.
    pub(crate) fn slice(&self, start: u32, size: u32) -> Option<&[u8]> {
        self.layout.get(start as usize..(start as usize).checked_add(size as usize)?)
    }

    /// A 4-byte word of the image before relocation.
    pub(crate) fn word(&self, at: u32) -> Option<u32> {
        let bytes = self.slice(at, 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    fn quad(&self, at: u32) -> Option<u64> {
        let bytes = self.slice(at, 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    /// The section that a byte is in.
    pub(crate) fn section_at(&self, rva: u32) -> Option<&Section> {
        self.sections.iter().find(|section| section.contains(rva))
    }

    /// True for a byte of code.
    pub(crate) fn is_code(&self, rva: u32) -> bool {
        self.section_at(rva).is_some_and(|section| section.executable)
    }

    /// True when so many bytes lie within one section.
    fn in_section(&self, rva: u32, bytes: u32) -> bool {
        self.section_at(rva).is_some_and(|section| section.size - (rva - section.start) >= bytes)
    }

    fn read_relocations(&self, pe: &PeFile64<'_>, characteristics: u16) -> Result<Vec<u32>, ImageError> {
        let table = self.directory(pe, pe::IMAGE_DIRECTORY_ENTRY_BASERELOC, "relocations")?;
        let Some((_, mut rest)) = table else {
            if characteristics & pe::IMAGE_FILE_RELOCS_STRIPPED.0 != 0 {
                return unsupported("it has no relocations, and its own base belongs to the host");
            }
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        while rest.len() >= 8 {
            let page = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]);
            let bytes = u32::from_le_bytes([rest[4], rest[5], rest[6], rest[7]]) as usize;
            if page == 0 && bytes == 0 {
                break;
            }
            if bytes < 8 || bytes > rest.len() {
                return malformed(format_args!("a block of relocations for {page:#x} has {bytes} bytes"));
            }
            for entry in rest[8..bytes].chunks_exact(2) {
                let entry = u16::from_le_bytes([entry[0], entry[1]]);
                match pe::BaseRelocationType(entry >> 12) {
                    pe::IMAGE_REL_BASED_ABSOLUTE => {}
                    pe::IMAGE_REL_BASED_DIR64 => {
                        let target = page.checked_add(u32::from(entry & 0xfff));
                        let Some(target) = target.filter(|&target| self.in_section(target, 8)) else {
                            return malformed(format_args!("a relocation near {page:#x} is not in a section"));
                        };
                        found.push(target);
                    }
                    kind => return unsupported(format_args!("it has a relocation of kind {}", kind.0)),
                }
            }
            rest = &rest[bytes..];
        }
        // A word is relocated once, also where a table names it twice.
        found.sort_unstable();
        found.dedup();
        if let Some(pair) = found.windows(2).find(|pair| pair[1] - pair[0] < 8) {
            return malformed(format_args!("the relocations at {:#x} and {:#x} overlap", pair[0], pair[1]));
        }
        Ok(found)
    }

    fn read_imports(&self, pe: &PeFile64<'_>) -> Result<Vec<ImportSlot>, ImageError> {
        let Some((start, _)) = self.directory(pe, pe::IMAGE_DIRECTORY_ENTRY_IMPORT, "imports")? else {
            return Ok(Vec::new());
        };
        let lost = || ImageError::Malformed("an import is out of range".to_owned());
        let mut imports = Vec::new();
        let mut at = start;
        loop {
            let field = |index: u32| at.checked_add(index * 4).and_then(|at| self.word(at)).ok_or_else(lost);
            let (lookup, name, first) = (field(0)?, field(3)?, field(4)?);
            if name == 0 && first == 0 {
                return Ok(imports);
            }
            let library = self.text(name).ok_or_else(lost)?;
            // A linker may leave the lookup table out; the address table then has the same contents.
            let mut lookup = if lookup == 0 { first } else { lookup };
            let mut slot = first;
            loop {
                let value = self.quad(lookup).ok_or_else(lost)?;
                if value == 0 {
                    break;
                }
                let name = if value >> 63 != 0 {
                    format!("#{}", value as u16)
                } else {
                    // A hint of 2 bytes stands before the name.
                    let name = u32::try_from(value).ok().and_then(|at| at.checked_add(2)).ok_or_else(lost)?;
                    self.text(name).ok_or_else(lost)?
                };
                if !self.in_section(slot, 8) || imports.len() == MOST_IMPORTS {
                    return Err(lost());
                }
                imports.push(ImportSlot { library: library.clone(), name, slot });
                lookup = lookup.checked_add(8).ok_or_else(lost)?;
                slot = slot.checked_add(8).ok_or_else(lost)?;
            }
            at = at.checked_add(20).ok_or_else(lost)?;
        }
    }

    /// A zero-terminated string of printable characters, of a length that names have.
    fn text(&self, at: u32) -> Option<String> {
        let bytes = self.layout.get(at as usize..)?;
        let length = bytes.iter().take(512).position(|&byte| byte == 0)?;
        let bytes = &bytes[..length];
        (length != 0 && bytes.iter().all(u8::is_ascii_graphic)).then(|| String::from_utf8_lossy(bytes).into_owned())
    }

    fn read_functions(&self, pe: &PeFile64<'_>) -> Result<Vec<RuntimeFunction>, ImageError> {
        let Some((start, table)) = self.directory(pe, pe::IMAGE_DIRECTORY_ENTRY_EXCEPTION, "function table")? else {
            return Ok(Vec::new());
        };
        let mut functions = Vec::new();
        for (index, entry) in table.chunks_exact(12).enumerate() {
            let field = |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
            let function = RuntimeFunction { start: field(0), end: field(4), unwind: field(8), entry: start + index as u32 * 12 };
            if function.start == 0 && function.end == 0 {
                continue;
            }
            let size = function.end.checked_sub(function.start).filter(|&size| size != 0);
            if !size.is_some_and(|size| self.in_section(function.start, size)) || function.unwind as usize >= self.layout.len() {
                return malformed(format_args!("the function table's entry {index} is out of range"));
            }
            functions.push(function);
        }
        functions.sort_by_key(|function| function.start);
        if let Some(pair) = functions.windows(2).find(|pair| pair[1].start < pair[0].end) {
            return malformed(format_args!("two functions overlap at {:#x}", pair[1].start));
        }
        Ok(functions)
    }

    fn read_cookie(&self, pe: &PeFile64<'_>) -> Result<Option<u32>, ImageError> {
        // The offset of the cookie's address in the load configuration.
        const COOKIE: u32 = 0x58;
        let Some((start, table)) = self.directory(pe, pe::IMAGE_DIRECTORY_ENTRY_LOAD_CONFIG, "load configuration")? else {
            return Ok(None);
        };
        if table.len() < COOKIE as usize + 8 {
            return Ok(None);
        }
        let address = start.checked_add(COOKIE).and_then(|at| self.quad(at)).unwrap_or(0);
        if address == 0 {
            return Ok(None);
        }
        let at = address.checked_sub(self.base).and_then(|at| u32::try_from(at).ok());
        match at.filter(|&at| self.in_section(at, 8) && self.section_at(at).is_some_and(|section| section.writable)) {
            Some(at) => Ok((self.quad(at) == Some(DEFAULT_COOKIE)).then_some(at)),
            None => malformed(format_args!("its security cookie at {address:#x} is not in writable data")),
        }
    }

    /// The function that a byte of code belongs to.
    pub(crate) fn function_at(&self, rva: u32) -> Option<RuntimeFunction> {
        let after = self.functions.partition_point(|function| function.start <= rva);
        let function = self.functions[..after].last()?;
        (rva < function.end).then_some(*function)
    }

    /// The source file and line of a byte of code, if the file has that.
    pub(crate) fn line_at(&self, rva: u32) -> Option<(&str, u32)> {
        self.lines.get_or_init(|| self.debug_data.read()).find(rva)
    }

    /// The last symbol at or before a byte of code, and how far behind it the byte is.
    pub(crate) fn symbol_at(&self, rva: u32) -> Option<(&str, u32)> {
        let after = self.symbols.partition_point(|(start, _)| *start <= rva);
        let (start, name) = self.symbols[..after].last()?;
        Some((name, rva - start))
    }
}

/// Copies the sections to where they belong.
fn lay_out(pe: &PeFile64<'_>, bytes: &[u8], layout: &mut [u8], headers: u32) -> Result<Vec<Section>, ImageError> {
    let mut sections: Vec<Section> = Vec::new();
    let mut free = headers;
    let strings = pe.nt_headers().file_header.symbols(bytes).map(|table| table.strings()).unwrap_or_default();
    for header in pe.section_table().iter() {
        let name = header.name(strings).unwrap_or(header.raw_name());
        let name = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
        let start = header.virtual_address.get(LE);
        let raw_size = header.size_of_raw_data.get(LE);
        let virtual_size = header.virtual_size.get(LE);
        let memory = if virtual_size == 0 { raw_size } else { virtual_size };
        let Some(size) = round_up(memory, PAGE) else {
            return malformed(format_args!("the size of section {name} is out of range"));
        };
        if size == 0 {
            continue;
        }
        let end = start.checked_add(size).filter(|&end| end as usize <= layout.len());
        let (true, true, Some(end)) = (start.is_multiple_of(PAGE), start >= free, end) else {
            return malformed(format_args!("section {name} at {start:#x} with {size:#x} bytes overlaps, or is out of range"));
        };
        free = end;
        let raw_start = header.pointer_to_raw_data.get(LE) as usize;
        let copied = raw_size.min(memory) as usize;
        if copied != 0 && raw_start != 0 {
            let Some(contents) = raw_start.checked_add(copied).and_then(|raw_end| bytes.get(raw_start..raw_end)) else {
                return malformed(format_args!("the contents of section {name} are not in the file"));
            };
            layout[start as usize..][..copied].copy_from_slice(contents);
        }
        let characteristics = header.characteristics.get(LE).0;
        let executable = characteristics & pe::IMAGE_SCN_MEM_EXECUTE.0 != 0;
        sections.push(Section {
            start,
            size,
            // Nothing is writable and executable at once: what asks for both is code.
            writable: characteristics & pe::IMAGE_SCN_MEM_WRITE.0 != 0 && !executable,
            executable,
            discardable: characteristics & pe::IMAGE_SCN_MEM_DISCARDABLE.0 != 0,
            pageable: name.starts_with("PAGE") && characteristics & pe::IMAGE_SCN_MEM_NOT_PAGED.0 == 0,
            name,
        });
    }
    Ok(sections)
}

/// Names of code: exports and the symbol table. What is damaged there is left out, for nothing depends on it.
fn read_symbols(pe: &PeFile64<'_>, base: u64, size: u32) -> Vec<(u32, String)> {
    use object::{Object, ObjectSymbol, SymbolKind};
    let relative = |address: u64| address.checked_sub(base).and_then(|at| u32::try_from(at).ok()).filter(|&at| at < size);
    let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut symbols = Vec::new();
    if let Ok(Some(Ok(exports))) = pe.export_table().map(|table| table.map(|table| table.exports())) {
        for export in exports {
            if let (ExportTarget::Address(at), Some(bytes)) = (export.target, export.name) {
                symbols.push((at, name(bytes)));
            }
        }
    }
    for symbol in pe.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
        if let (Some(at), Ok(bytes)) = (relative(symbol.address()), symbol.name_bytes())
            && !bytes.is_empty()
            && !bytes.starts_with(b".")
        {
            symbols.push((at, name(bytes)));
        }
    }
    symbols.sort();
    symbols.dedup_by_key(|(at, _)| *at);
    symbols
}
