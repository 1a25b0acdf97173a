//! Source lines of an image, from the DWARF that compilers such as GCC, Clang and rustc put into its file.
//!
//! Nothing but a report depends on it: what is damaged is left out. It is read when the first place is asked for.

use gimli::{AttributeValue, Dwarf, EndianSlice, LittleEndian, Unit};
use object::read::pe::PeFile64;
use object::{Object, ObjectSection};
use std::collections::HashMap;

/// More rows than the lines of any driver.
const MOST_ROWS: usize = 1 << 22;
/// The sections that lines are read from.
const SECTIONS: [&str; 12] = [
    ".debug_abbrev",
    ".debug_addr",
    ".debug_info",
    ".debug_line",
    ".debug_line_str",
    ".debug_str",
    ".debug_str_offsets",
    ".debug_types",
    ".debug_rnglists",
    ".debug_ranges",
    ".debug_loc",
    ".debug_loclists",
];

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// What a file has of DWARF, unread.
#[derive(Debug, Default)]
pub(super) struct DebugData {
    sections: Vec<(&'static str, Vec<u8>)>,
    base: u64,
}

/// A run of code that is from one line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Row {
    /// Where it begins, relative to the image.
    start: u32,
    /// The place of the file's name, or none where code of no line begins.
    file: Option<u32>,
    line: u32,
}

/// The lines of an image, in order of address.
#[derive(Debug, Default)]
pub(super) struct Lines {
    rows: Vec<Row>,
    files: Vec<String>,
}

impl DebugData {
    pub(super) fn of(pe: &PeFile64<'_>, base: u64) -> Self {
        let mut sections = Vec::new();
        for name in SECTIONS {
            if let Some(bytes) = pe.section_by_name(name).and_then(|section| section.data().ok()) {
                sections.push((name, bytes.to_vec()));
            }
        }
        Self { sections, base }
    }

    /// All lines.
    pub(super) fn read(&self) -> Lines {
        let mut lines = Lines::default();
        if !self.sections.is_empty() {
            // What was read before something damaged stays.
            let _ = self.read_into(&mut lines);
        }
        // The end of a run at one address is before the beginning of the next there.
        lines.rows.sort_by_key(|row| (row.start, row.file.is_some()));
        lines
    }

    fn read_into(&self, lines: &mut Lines) -> Result<(), gimli::Error> {
        let dwarf = Dwarf::load(|id| {
            let section = self.sections.iter().find(|(name, _)| *name == id.name());
            Ok::<_, gimli::Error>(EndianSlice::new(section.map_or(&[], |(_, bytes)| bytes), LittleEndian))
        })?;
        let mut known = HashMap::new();
        let mut units = dwarf.units();
        while let Some(header) = units.next()? {
            let unit = dwarf.unit(header)?;
            self.read_unit(&dwarf, &unit, lines, &mut known)?;
        }
        Ok(())
    }

    fn read_unit(
        &self,
        dwarf: &Dwarf<Slice<'_>>,
        unit: &Unit<Slice<'_>>,
        lines: &mut Lines,
        known: &mut HashMap<String, u32>,
    ) -> Result<(), gimli::Error> {
        let Some(program) = unit.line_program.clone() else { return Ok(()) };
        let mut files = HashMap::new();
        let mut rows = program.rows();
        while let Some((header, row)) = rows.next_row()? {
            if lines.rows.len() == MOST_ROWS {
                return Ok(());
            }
            let at = row.address().checked_sub(self.base).and_then(|at| u32::try_from(at).ok());
            let Some(start) = at.filter(|&at| at != 0) else { continue };
            if row.end_sequence() {
                lines.rows.push(Row { start, file: None, line: 0 });
                continue;
            }
            // Code that belongs to no line goes with the one before it.
            let Some(line) = row.line().and_then(|line| u32::try_from(line.get()).ok()) else { continue };
            let file = *files.entry(row.file_index()).or_insert_with(|| {
                let path = row.file(header).map(|file| path(dwarf, unit, header, file)).unwrap_or_default();
                // The same file may be named by many units.
                *known.entry(path.clone()).or_insert_with(|| {
                    lines.files.push(path);
                    lines.files.len() as u32 - 1
                })
            });
            lines.rows.push(Row { start, file: Some(file), line });
        }
        Ok(())
    }
}

/// A source file's path.
fn path(
    dwarf: &Dwarf<Slice<'_>>,
    unit: &Unit<Slice<'_>>,
    header: &gimli::LineProgramHeader<Slice<'_>>,
    file: &gimli::FileEntry<Slice<'_>>,
) -> String {
    let text = |value: AttributeValue<Slice<'_>>| {
        dwarf.attr_string(unit, value).map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let compiled_in = unit.comp_dir.map(|directory| directory.to_string_lossy().into_owned()).unwrap_or_default();
    let directory = file.directory(header).map(text).unwrap_or_default();
    join(&join(&compiled_in, &directory), &text(file.path_name()))
}

/// A path within a directory, unless it is a full one.
fn join(directory: &str, path: &str) -> String {
    let is_full = path.starts_with(['/', '\\']) || path.as_bytes().get(1) == Some(&b':');
    if is_full || directory.is_empty() {
        return path.to_owned();
    }
    if path.is_empty() {
        return directory.to_owned();
    }
    format!("{}/{path}", directory.trim_end_matches('/'))
}

impl Lines {
    /// The file and line that a byte of code is from.
    pub(super) fn find(&self, rva: u32) -> Option<(&str, u32)> {
        let after = self.rows.partition_point(|row| row.start <= rva);
        let row = self.rows[..after].last()?;
        Some((self.files.get(row.file? as usize)?, row.line))
    }
}
