//! Source lines, from the DWARF in an image.

use super::calls::lacking;
use super::pe::{Pe, Section};
use super::run;
use ksim::Machine;
use ksim::image::Image;

/// A unit with a line table, and nothing else.
const ABBREVIATIONS: [u8; 14] = [
    1, 0x11, 0, // a compile unit without children
    0x03, 0x08, // its name, a string
    0x1b, 0x08, // the directory that it was compiled in, a string
    0x10, 0x17, // where its lines are
    0, 0, // no more
    0, 0, 0,
];

fn unit() -> Vec<u8> {
    let mut unit = 4_u16.to_le_bytes().to_vec();
    unit.extend(0_u32.to_le_bytes());
    unit.push(8);
    unit.push(1);
    unit.extend(b"driver.c\0/project\0");
    unit.extend(0_u32.to_le_bytes());
    with_length(unit)
}

fn with_length(bytes: Vec<u8>) -> Vec<u8> {
    [&(bytes.len() as u32).to_le_bytes()[..], &bytes].concat()
}

/// Lines 7 and 8 of a file in a folder of the project.
fn lines(base: u64) -> Vec<u8> {
    let mut rest = vec![1, 1, 1, 0xfb, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1];
    rest.extend(b"source\0\0");
    rest.extend(b"driver.c\0\x01\0\0\0");
    let mut table = 4_u16.to_le_bytes().to_vec();
    table.extend((rest.len() as u32).to_le_bytes());
    table.extend(rest);
    // The address, six lines on, a row; four bytes and a line on, a row; six bytes on, the end.
    table.extend([0, 9, 2]);
    table.extend((base + 0x1000).to_le_bytes());
    table.extend([3, 6, 1, 2, 4, 3, 1, 1, 2, 6, 0, 1, 1]);
    with_length(table)
}

pub(super) fn with_lines() -> Pe {
    let mut pe = lacking(&["KeDoNothingAtAll"]);
    let discardable = 0x4200_0040;
    let lines = lines(pe.base);
    for (name, bytes) in [(".debug_abbrev", ABBREVIATIONS.to_vec()), (".debug_info", unit()), (".debug_line", lines)] {
        pe.sections.push(Section { name, bytes, flags: discardable });
    }
    pe
}

#[test]
fn places_have_their_lines() {
    let image = Image::load(&with_lines().bytes()).expect("sound");
    assert_eq!(image.source_line(0x0fff), None);
    assert_eq!(image.source_line(0x1003), Some(("/project/source/driver.c", 7)));
    assert_eq!(image.source_line(0x1004), Some(("/project/source/driver.c", 8)));
    assert_eq!(image.source_line(0x100a), None);
}

#[test]
fn reports_show_lines() {
    let outcome = run(&Machine::new(), &with_lines());
    let site = outcome.bug_check().expect("a bug check").call_site().expect("a site").clone();
    assert_eq!((site.file.as_deref(), site.line), (Some("/project/source/driver.c"), Some(8)));
    assert!(outcome.report().to_string().contains("/project/source/driver.c:8"), "{}", outcome.report());
}

#[test]
fn damaged_lines_are_left_out() {
    let whole = with_lines();
    for section in 2..5 {
        for at in 0..whole.sections[section].bytes.len() {
            for value in [0, 0x7f, 0xff] {
                let mut pe = whole.clone();
                pe.sections[section].bytes[at] = value;
                let image = Image::load(&pe.bytes()).expect("nothing depends on them");
                let _ = image.source_line(0x1004);
            }
        }
    }
}
