//! Reads a driver image and checks what Windows, and a careful author, expect of one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Context, Result, ensure};
use object::LittleEndian as LE;
use object::pe;
use object::read::pe::{ExportTarget, ImageNtHeaders, ImageOptionalHeader, Import, PeFile64};

#[cfg(test)]
mod tests;

/// The one library that a driver may import from.
const KERNEL: &str = "ntoskrnl.exe";

/// The size of a page, which is what the kernel protects.
const PAGE: u32 = 4096;

/// Where the optional header holds the checksum.
const CHECKSUM_IN_OPTIONAL_HEADER: usize = 64;

/// The size of the signature and the file header, which precede the optional header.
const BEFORE_OPTIONAL_HEADER: usize = 24;

/// What the checks look at in an image.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    size: usize,
    machine: u16,
    characteristics: u16,
    subsystem: u16,
    dll_characteristics: u16,
    section_alignment: u32,
    entry_point: u32,
    checksum: u32,
    right_checksum: u32,
    relocations: usize,
    thread_local_storage: bool,
    delayed_imports: bool,
    sections: Vec<Section>,
    imports: BTreeMap<String, Vec<String>>,
}

/// One section.
#[derive(Debug, Clone)]
struct Section {
    name: String,
    address: u32,
    size: u32,
    on_disk: u32,
    flags: u32,
}

impl Section {
    fn has(&self, flag: pe::SectionFlags) -> bool {
        self.flags & flag.0 != 0
    }

    fn is_writable(&self) -> bool {
        self.has(pe::IMAGE_SCN_MEM_WRITE)
    }

    fn is_executable(&self) -> bool {
        self.has(pe::IMAGE_SCN_MEM_EXECUTE)
    }

    fn contains(&self, address: u32) -> bool {
        self.address <= address && address - self.address < self.size
    }

    fn access(&self) -> String {
        let letter = |on: bool, letter: char| if on { letter } else { '-' };
        let readable = self.has(pe::IMAGE_SCN_MEM_READ);
        [letter(readable, 'r'), letter(self.is_writable(), 'w'), letter(self.is_executable(), 'x')].iter().collect()
    }
}

impl Image {
    /// Reads a 64-bit PE image.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let file = PeFile64::parse(bytes).context("not a 64-bit PE image")?;
        let headers = file.nt_headers();
        let (header, optional) = (headers.file_header(), headers.optional_header());
        let directory = |index| file.data_directory(index).is_some_and(|directory| directory.size.get(LE) != 0);

        let sections = file.section_table().iter().map(|section| Section {
            name: String::from_utf8_lossy(section.raw_name()).into_owned(),
            address: section.virtual_address.get(LE),
            size: section.virtual_size.get(LE),
            on_disk: section.size_of_raw_data.get(LE),
            flags: section.characteristics.get(LE).0,
        });
        Ok(Self {
            size: bytes.len(),
            machine: header.machine.get(LE).0,
            characteristics: header.characteristics.get(LE).0,
            subsystem: optional.subsystem().0,
            dll_characteristics: optional.dll_characteristics().0,
            section_alignment: optional.section_alignment(),
            entry_point: optional.address_of_entry_point(),
            checksum: optional.check_sum(),
            right_checksum: checksum(bytes, checksum_offset(bytes)?),
            relocations: count_relocations(&file, bytes).context("its relocations cannot be read")?,
            thread_local_storage: directory(pe::IMAGE_DIRECTORY_ENTRY_TLS),
            delayed_imports: directory(pe::IMAGE_DIRECTORY_ENTRY_DELAY_IMPORT),
            sections: sections.collect(),
            imports: read_imports(&file).context("its imports cannot be read")?,
        })
    }

    /// The routines that the image imports, of all libraries.
    pub(crate) fn imports(&self) -> impl Iterator<Item = &str> {
        self.imports.values().flatten().map(String::as_str)
    }

    /// Everything that makes the image unfit, in words. Empty for a sound one.
    pub(crate) fn violations(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut require = |sound: bool, text: String| {
            if !sound {
                found.push(text);
            }
        };

        require(
            self.machine == pe::IMAGE_FILE_MACHINE_AMD64.0,
            format!("the machine is {:#06x}, not x86-64 ({:#06x})", self.machine, pe::IMAGE_FILE_MACHINE_AMD64.0),
        );
        require(
            self.subsystem == pe::IMAGE_SUBSYSTEM_NATIVE.0,
            format!("the subsystem is {}, not native ({})", self.subsystem, pe::IMAGE_SUBSYSTEM_NATIVE.0),
        );
        require(
            self.section_alignment == PAGE,
            format!("sections are aligned to {} bytes, not to {PAGE}", self.section_alignment),
        );
        require(
            self.characteristics & pe::IMAGE_FILE_RELOCS_STRIPPED.0 == 0 && self.relocations != 0,
            "there is no relocation table: the image cannot be loaded where it is put".to_owned(),
        );
        for (flag, name) in
            [(pe::IMAGE_DLLCHARACTERISTICS_DYNAMIC_BASE, "DYNAMIC_BASE"), (pe::IMAGE_DLLCHARACTERISTICS_NX_COMPAT, "NX_COMPAT")]
        {
            require(self.dll_characteristics & flag.0 != 0, format!("the flag {name} is not set"));
        }
        require(!self.thread_local_storage, "it has thread-local storage, which the kernel does not set up".to_owned());
        require(!self.delayed_imports, "it has delay-loaded imports, which the kernel does not resolve".to_owned());
        require(
            self.checksum == self.right_checksum,
            format!("the checksum is {:#x}, and should be {:#x}", self.checksum, self.right_checksum),
        );

        require(self.entry_point != 0, "there is no entry point".to_owned());
        let entry = self.sections.iter().find(|section| section.contains(self.entry_point));
        require(
            self.entry_point == 0 || entry.is_some_and(Section::is_executable),
            format!("the entry point {:#x} is not in an executable section", self.entry_point),
        );
        for section in &self.sections {
            let name = &section.name;
            require(
                !(section.is_writable() && section.is_executable()),
                format!("the section {name} is both writable and executable"),
            );
            require(
                section.address.is_multiple_of(PAGE),
                format!("the section {name} starts at {:#x}, which is no page", section.address),
            );
        }

        require(!self.imports.is_empty(), format!("nothing is imported, not even from {KERNEL}"));
        for (library, routines) in &self.imports {
            require(
                library.eq_ignore_ascii_case(KERNEL),
                format!("it imports from {library}, not only from {KERNEL}: {}", routines.join(", ")),
            );
            for ordinal in routines.iter().filter(|name| name.starts_with('#')) {
                require(false, format!("{library} is imported from by ordinal ({ordinal})"));
            }
        }
        found
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {:<12} {:>10}  {:>8}  {:>8}  access", "section", "address", "size", "on disk")?;
        for section in &self.sections {
            let Section { name, address, size, on_disk, .. } = section;
            writeln!(f, "  {name:<12} {address:>#10x}  {size:>8}  {on_disk:>8}  {}", section.access())?;
        }
        writeln!(f, "  {:<12} {} bytes, {} relocations", "file", self.size, self.relocations)?;
        writeln!(f, "  {:<12} {:#x}", "entry point", self.entry_point)?;
        writeln!(f, "  {:<12} {:#x}", "checksum", self.checksum)?;
        for (library, routines) in &self.imports {
            writeln!(f, "  {:<12} {} routines of {library}", "imports", routines.len())?;
            for line in wrapped(routines, 96) {
                writeln!(f, "  {:<12}   {line}", "")?;
            }
        }
        Ok(())
    }
}

/// Words in lines of at most `width` characters.
pub(crate) fn wrapped<S: AsRef<str>>(words: &[S], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words.iter().map(AsRef::as_ref) {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// What Wine's kernel exports.
#[derive(Debug, Default)]
pub(crate) struct WineExports {
    /// Everything that has a name, stubs too.
    pub(crate) names: BTreeSet<String>,
    /// The exports that only say that they are not implemented, and abort. A driver that asks
    /// `MmGetSystemRoutineAddress` for one gets it.
    pub(crate) stubs: BTreeSet<String>,
}

impl WineExports {
    /// Reads Wine's `ntoskrnl.exe`.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let file = PeFile64::parse(bytes).context("not a 64-bit PE image")?;
        let mut all = Self::default();
        let Some(table) = file.export_table()? else { return Ok(all) };
        for export in table.exports()? {
            let Some(name) = export.name else { continue };
            let text = String::from_utf8_lossy(name).into_owned();
            if let ExportTarget::Address(address) = export.target
                && is_wine_stub(&file, bytes, address, name)
            {
                all.stubs.insert(text.clone());
            }
            all.names.insert(text);
        }
        Ok(all)
    }
}

/// Whether the code at an address is the one that Wine's build generates for a routine that it does not have:
/// `sub rsp, 40; lea rcx, library; lea rdx, name; call abort`.
fn is_wine_stub(file: &PeFile64<'_>, bytes: &[u8], address: u32, name: &[u8]) -> bool {
    const PROLOGUE: &[u8] = &[0x48, 0x83, 0xec, 0x28];
    const LOAD_LIBRARY: &[u8] = &[0x48, 0x8d, 0x0d];
    const LOAD_NAME: &[u8] = &[0x48, 0x8d, 0x15];
    const CALL: u8 = 0xe8;

    let sections = file.section_table();
    let Some(code) = sections.pe_data_at(bytes, address) else { return false };
    let Some(code) = code.get(..19) else { return false };
    // Each of the two loads is followed by its displacement of four bytes.
    let generated = code[..4] == *PROLOGUE && code[4..7] == *LOAD_LIBRARY && code[11..14] == *LOAD_NAME && code[18] == CALL;
    if !generated {
        return false;
    }
    let displacement = i32::from_le_bytes([code[14], code[15], code[16], code[17]]);
    // Relative to the end of the instruction.
    let target = address.wrapping_add(18).wrapping_add_signed(displacement);
    let text = sections.pe_data_at(bytes, target).unwrap_or_default();
    text.strip_prefix(name).is_some_and(|rest| rest.first() == Some(&0))
}

/// Writes the checksum that Windows compares before it loads a driver.
pub(crate) fn set_checksum(bytes: &mut [u8]) -> Result<()> {
    let offset = checksum_offset(bytes)?;
    let sum = checksum(bytes, offset);
    let field = bytes.get_mut(offset..offset + 4).context("the headers are cut short")?;
    field.copy_from_slice(&sum.to_le_bytes());
    Ok(())
}

fn checksum_offset(bytes: &[u8]) -> Result<usize> {
    let file = PeFile64::parse(bytes).context("not a 64-bit PE image")?;
    let headers = usize::try_from(file.dos_header().nt_headers_offset()).context("the headers are out of reach")?;
    let offset = headers + BEFORE_OPTIONAL_HEADER + CHECKSUM_IN_OPTIONAL_HEADER;
    ensure!(offset + 4 <= bytes.len(), "the headers are cut short");
    Ok(offset)
}

/// The one's complement sum of the file's 16-bit words, without the field at `skip` that holds it, plus the file's
/// length.
fn checksum(bytes: &[u8], skip: usize) -> u32 {
    let mut sum: u32 = 0;
    for (index, word) in bytes.chunks(2).enumerate() {
        let at = index * 2;
        if at == skip || at == skip + 2 {
            continue;
        }
        let word = u16::from_le_bytes([word[0], word.get(1).copied().unwrap_or(0)]);
        sum += u32::from(word);
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // CAST: an image of 4 GiB is none, and the field has 32 bits.
    sum.wrapping_add(bytes.len() as u32)
}

fn count_relocations(file: &PeFile64<'_>, bytes: &[u8]) -> Result<usize> {
    let mut count = 0;
    if let Some(mut blocks) = file.data_directories().relocation_blocks(bytes, &file.section_table())? {
        while let Some(block) = blocks.next()? {
            count += block.filter(|relocation| relocation.typ != pe::IMAGE_REL_BASED_ABSOLUTE).count();
        }
    }
    Ok(count)
}

/// Every library and what is imported from it, sorted. An import by ordinal reads `#7`.
fn read_imports(file: &PeFile64<'_>) -> Result<BTreeMap<String, Vec<String>>> {
    let mut imports: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let Some(table) = file.import_table()? else { return Ok(imports) };
    let mut descriptors = table.descriptors()?;
    while let Some(descriptor) = descriptors.next()? {
        let library = String::from_utf8_lossy(table.name(descriptor.name.get(LE))?).into_owned();
        let routines = imports.entry(library).or_default();
        // Some linkers leave the first table out and name the routines in the second.
        let first = descriptor.original_first_thunk.get(LE);
        let address = if first == 0 { descriptor.first_thunk.get(LE) } else { first };
        let mut thunks = table.thunks(address)?;
        while let Some(thunk) = thunks.next::<pe::ImageNtHeaders64>()? {
            routines.push(match table.import::<pe::ImageNtHeaders64>(thunk)? {
                Import::Name(_, name) => String::from_utf8_lossy(name).into_owned(),
                Import::Ordinal(ordinal) => format!("#{ordinal}"),
            });
        }
    }
    for routines in imports.values_mut() {
        routines.sort();
        routines.dedup();
    }
    Ok(imports)
}
