//! A writer of small PE32+ files, and the machine code in them.

/// Machine code and data of an image, assembled along with the test: the code's pages, then from the label `data` on the data's,
/// which begin with the import address table.
macro_rules! code {
    ($name:ident: $($line:literal)*) => { code! { @ $name [$($line,)*] } };
    (@ $name:ident [$($line:expr,)*]) => {
        mod $name {
            std::arch::global_asm!(
                ".pushsection .rodata.images, \"a\"",
                ".p2align 12",
                // Who refers to them may be compiled into another unit.
                concat!(".globl image_", stringify!($name), ", image_", stringify!($name), "_data, image_", stringify!($name), "_end"),
                concat!(".hidden image_", stringify!($name), ", image_", stringify!($name), "_data, image_", stringify!($name), "_end"),
                concat!("image_", stringify!($name), ":"),
                $($line,)*
                ".p2align 12",
                concat!("image_", stringify!($name), "_end:"),
                ".popsection",
            );
            unsafe extern "C" {
                #[link_name = concat!("image_", stringify!($name))]
                static BEGIN: u8;
                #[link_name = concat!("image_", stringify!($name), "_data")]
                static DATA: u8;
                #[link_name = concat!("image_", stringify!($name), "_end")]
                static END: u8;
            }

            pub(super) fn text() -> &'static [u8] {
                let (begin, data) = (&raw const BEGIN, &raw const DATA);
                // SAFETY: the labels stand in this order in one section.
                unsafe { std::slice::from_raw_parts(begin, data.addr() - begin.addr()) }
            }

            pub(super) fn data() -> &'static [u8] {
                let (data, end) = (&raw const DATA, &raw const END);
                // SAFETY: as above.
                unsafe { std::slice::from_raw_parts(data, end.addr() - data.addr()) }
            }
        }
    };
}
pub(crate) use code;

const PAGE: u32 = 0x1000;
const READ: u32 = 0x4000_0000;
const WRITE: u32 = 0x8000_0000;
const EXECUTE: u32 = 0x2000_0000;

/// A section to be written.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) flags: u32,
}

/// A file to be written.
#[derive(Clone, Debug)]
pub(crate) struct Pe {
    pub(crate) machine: u16,
    pub(crate) subsystem: u16,
    pub(crate) base: u64,
    pub(crate) entry: u32,
    /// Code at 0x1000, data behind it, and more.
    pub(crate) sections: Vec<Section>,
    /// By library: the names, whose slots stand in a row from `table` on, ended by an empty one.
    pub(crate) imports: Vec<(&'static str, Vec<&'static str>)>,
    /// Where the address table is.
    pub(crate) table: u32,
    pub(crate) relocations: Vec<u32>,
    /// The function table's place and size.
    pub(crate) functions: (u32, u32),
}

impl Pe {
    /// An image of code and data, whose entry is the code's first byte.
    pub(crate) fn new(text: &[u8], data: &[u8], names: &[&'static str]) -> Self {
        let table = PAGE + text.len() as u32;
        Self {
            machine: 0x8664,
            subsystem: 1,
            base: 0x1_4000_0000,
            entry: PAGE,
            sections: vec![
                Section { name: ".text", bytes: text.to_vec(), flags: READ | EXECUTE | 0x20 },
                Section { name: ".data", bytes: data.to_vec(), flags: READ | WRITE | 0x40 },
            ],
            imports: vec![("ntoskrnl.exe", names.to_vec())],
            table,
            relocations: Vec::new(),
            functions: (0, 0),
        }
    }

    /// The import directory, as it stands at `at`.
    fn import_bytes(&self, at: u32) -> Vec<u8> {
        let mut bytes = vec![0; 20 * (self.imports.len() + 1)];
        let mut slot = self.table;
        for (index, (library, names)) in self.imports.iter().enumerate() {
            let library_at = at + bytes.len() as u32;
            bytes.extend(library.bytes().chain([0]));
            let mut lookup = Vec::new();
            for name in names {
                bytes.resize(bytes.len().next_multiple_of(2), 0);
                lookup.push(u64::from(at + bytes.len() as u32));
                bytes.extend([0, 0]);
                bytes.extend(name.bytes().chain([0]));
            }
            lookup.push(0);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            let lookup_at = at + bytes.len() as u32;
            bytes.extend(lookup.iter().flat_map(|value| value.to_le_bytes()));
            for (field, value) in [(0, lookup_at), (12, library_at), (16, slot)] {
                bytes[index * 20 + field..][..4].copy_from_slice(&value.to_le_bytes());
            }
            slot += names.len() as u32 * 8 + 8;
        }
        bytes
    }

    fn relocation_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for page in self.relocations.chunk_by(|one, other| one / PAGE == other / PAGE) {
            let entries: Vec<u16> = page.iter().map(|at| 10 << 12 | (at % PAGE) as u16).collect();
            let padded = entries.len().next_multiple_of(2);
            bytes.extend((page[0] / PAGE * PAGE).to_le_bytes());
            bytes.extend((8 + padded as u32 * 2).to_le_bytes());
            bytes.extend(entries.iter().flat_map(|entry| entry.to_le_bytes()));
            bytes.resize(bytes.len() + (padded - entries.len()) * 2, 0);
        }
        bytes
    }

    /// The file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut sections = self.sections.clone();
        let after = |sections: &[Section]| {
            sections.iter().fold(PAGE, |at, section| at + (section.bytes.len() as u32).next_multiple_of(PAGE))
        };
        let imports_at = after(&sections);
        let imports = self.import_bytes(imports_at);
        let imports_size = imports.len() as u32;
        sections.push(Section { name: ".idata", bytes: imports, flags: READ | 0x40 });
        let relocations_at = after(&sections);
        let relocations = self.relocation_bytes();
        let relocations_size = relocations.len() as u32;
        if relocations_size != 0 {
            sections.push(Section { name: ".reloc", bytes: relocations, flags: READ | 0x0200_0040 });
        }

        let mut file = vec![0; 0x400];
        let put = |file: &mut Vec<u8>, at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(&mut file, 0, b"MZ");
        put(&mut file, 0x3c, &0x80_u32.to_le_bytes());
        put(&mut file, 0x80, b"PE\0\0");
        put(&mut file, 0x84, &self.machine.to_le_bytes());
        put(&mut file, 0x86, &(sections.len() as u16).to_le_bytes());
        put(&mut file, 0x94, &240_u16.to_le_bytes());
        put(&mut file, 0x96, &0x22_u16.to_le_bytes());
        let optional = 0x98;
        put(&mut file, optional, &0x20b_u16.to_le_bytes());
        put(&mut file, optional + 16, &self.entry.to_le_bytes());
        put(&mut file, optional + 24, &self.base.to_le_bytes());
        put(&mut file, optional + 32, &PAGE.to_le_bytes());
        put(&mut file, optional + 36, &0x200_u32.to_le_bytes());
        put(&mut file, optional + 56, &after(&sections).to_le_bytes());
        put(&mut file, optional + 60, &0x400_u32.to_le_bytes());
        put(&mut file, optional + 68, &self.subsystem.to_le_bytes());
        put(&mut file, optional + 108, &16_u32.to_le_bytes());
        let directories = optional + 112;
        let directory =
            [(1, imports_at, imports_size), (3, self.functions.0, self.functions.1), (5, relocations_at, relocations_size)];
        for (index, at, size) in directory {
            if size != 0 {
                put(&mut file, directories + index * 8, &at.to_le_bytes());
                put(&mut file, directories + index * 8 + 4, &size.to_le_bytes());
            }
        }
        // Names of more than 8 bytes stand in a table, behind no symbols.
        let mut names = vec![0; 4];
        let mut header = directories + 16 * 8;
        let mut at = PAGE;
        for section in &sections {
            let raw = file.len() as u32;
            if section.name.len() > 8 {
                put(&mut file, header, format!("/{}", names.len()).as_bytes());
                names.extend(section.name.bytes().chain([0]));
            } else {
                put(&mut file, header, section.name.as_bytes());
            }
            put(&mut file, header + 8, &(section.bytes.len() as u32).to_le_bytes());
            put(&mut file, header + 12, &at.to_le_bytes());
            put(&mut file, header + 16, &(section.bytes.len().next_multiple_of(0x200) as u32).to_le_bytes());
            put(&mut file, header + 20, &raw.to_le_bytes());
            put(&mut file, header + 36, &section.flags.to_le_bytes());
            file.extend(&section.bytes);
            file.resize(file.len().next_multiple_of(0x200), 0);
            at += (section.bytes.len() as u32).next_multiple_of(PAGE);
            header += 40;
        }
        if names.len() > 4 {
            let (at, bytes) = (file.len() as u32, names.len() as u32);
            put(&mut file, 0x8c, &at.to_le_bytes());
            names[..4].copy_from_slice(&bytes.to_le_bytes());
            file.extend(names);
        }
        file
    }
}
