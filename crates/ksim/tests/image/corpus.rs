//! Damaged and hostile files: an error, and nothing else.

use super::calls::hello;
use super::pe::Pe;
use ksim::image::{Image, ImageError};
use proptest::prelude::*;

/// A file with all tables.
fn whole() -> Pe {
    let mut pe = hello();
    pe.imports.push(("hal.dll", vec!["KeQueryPerformanceCounter", "KfRaiseIrql"]));
    pe.relocations = vec![0x2040, 0x2048, 0x2ff8];
    pe.functions = (0x2100, 24);
    let table = [0x1000_u32, 0x1040, 0x2200, 0x1040, 0x1060, 0x2200];
    for (index, word) in table.iter().enumerate() {
        pe.sections[1].bytes[0x100 + index * 4..][..4].copy_from_slice(&word.to_le_bytes());
    }
    pe
}

/// Looks at all that can be asked of an image that was taken.
fn examine(bytes: &[u8]) -> Result<(), ImageError> {
    let image = Image::load(bytes)?;
    let named = image.imports().filter(|import| !import.name.is_empty() && !import.library.is_empty()).count();
    assert_eq!(named, image.imports().count());
    for section in image.sections() {
        assert!(section.start as usize + section.size as usize <= image.size());
        assert!(!(section.writable && section.executable));
    }
    Ok(())
}

fn refused(pe: &Pe, why: &str) {
    refused_bytes(&pe.bytes(), why);
}

fn refused_bytes(bytes: &[u8], why: &str) {
    match examine(bytes) {
        Ok(()) => panic!("an image was taken that should be refused: {why}"),
        Err(error) => assert!(error.to_string().contains(why), "{why}: {error}"),
    }
}

#[test]
fn the_whole_file_is_sound() {
    examine(&whole().bytes()).expect("sound");
    let image = Image::load(&whole().bytes()).expect("sound");
    assert_eq!(image.imports().filter(|import| import.available).count(), 3);
    let names: Vec<_> = image.sections().map(|section| section.name).collect();
    assert_eq!(names, [".text", ".data", ".idata", ".reloc"]);
}

#[test]
fn files_of_another_kind_are_refused() {
    refused_bytes(b"", "damaged");
    refused_bytes(b"MZ", "damaged");
    refused_bytes(&[0; 4096], "damaged");
    refused(&Pe { machine: 0xaa64, ..whole() }, "machine 0xaa64");
    refused(&Pe { subsystem: 3, ..whole() }, "subsystem 3");
    let elf = std::fs::read(std::env::current_exe().expect("a path")).expect("this program");
    refused_bytes(&elf[..4096], "damaged");
    let missing = Image::open("/no/such/file.sys").expect_err("no file");
    assert!(matches!(missing, ImageError::Unreadable(_)), "{missing}");
}

#[test]
fn addresses_out_of_range_are_refused() {
    refused(&Pe { entry: 0x2000, ..whole() }, "entry point");
    refused(&Pe { entry: 0xffff_ffff, ..whole() }, "entry point");
    refused(&Pe { base: 0x1_4000_0001, ..whole() }, "base");
    refused(&Pe { base: 0xffff_ffff_ffff_f000, ..whole() }, "base");
    refused(&Pe { relocations: vec![0x10_0000], ..whole() }, "relocation");
    refused(&Pe { relocations: vec![0x2040, 0x2044], ..whole() }, "overlap");
    refused(&Pe { table: 0x4000_0000, ..whole() }, "import");
    refused(&Pe { table: 0x10, ..whole() }, "import");
    refused(&Pe { functions: (0x7fff_f000, 24), ..whole() }, "function table");
    refused(&Pe { functions: (0x2000, 0x1000), ..whole() }, "function");
}

#[test]
fn sections_that_overlap_are_refused() {
    let bytes = whole().bytes();
    // The second section's address, size, place in the file.
    let header = 0x98 + 240 + 40;
    for (at, value) in [(12, 0x1000_u32), (12, 0x1800), (12, 0xffff_f000), (8, 0x7fff_ffff), (20, 0xffff_ff00), (20, 0x10_0000)] {
        let mut bytes = bytes.clone();
        bytes[header + at..][..4].copy_from_slice(&value.to_le_bytes());
        refused_bytes(&bytes, "section .data");
    }
}

#[test]
fn tables_without_an_end_are_refused() {
    let pe = whole();
    let bytes = pe.bytes();
    // The import directory's last, empty entry names the first library again, and its lookup table the directory itself.
    let image = Image::load(&bytes).expect("sound");
    let imports = image.sections().find(|section| section.name == ".idata").expect("imports").start;
    let raw = bytes.windows(12).position(|window| window == b"ntoskrnl.exe").expect("the library's name") as u32;
    let directory = raw - 60;
    let mut endless = bytes.clone();
    let copy: Vec<u8> = endless[directory as usize..][..20].to_vec();
    endless[directory as usize + 40..][..20].copy_from_slice(&copy);
    assert!(examine(&endless).is_err());
    let mut circular = bytes;
    circular[directory as usize..][..4].copy_from_slice(&imports.to_le_bytes());
    assert!(examine(&circular).is_err());
}

#[test]
fn a_file_that_ends_anywhere_is_an_error() {
    let bytes = whole().bytes();
    for length in 0..bytes.len() {
        // What is missing at the end may be padding alone.
        let _ = examine(&bytes[..length]);
    }
    assert!(examine(&bytes[..0x400]).is_err());
}

#[test]
fn every_byte_may_be_anything() {
    let bytes = whole().bytes();
    let image = Image::load(&bytes).expect("sound");
    assert!(image.size() >= 0x5000);
    // Headers, tables, and the ends of the sections between them.
    for at in (0..0x400).chain(0x1400..bytes.len()) {
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff, bytes[at] ^ 0x10, bytes[at].wrapping_add(1)] {
            let mut changed = bytes.clone();
            changed[at] = value;
            let _ = examine(&changed);
        }
    }
}

#[test]
fn every_word_may_be_anything() {
    let bytes = whole().bytes();
    for at in (0..0x400).chain(0x2400..bytes.len()).step_by(4).filter(|at| at + 4 <= bytes.len()) {
        for value in [0, 1, 0xfff, 0x1000, 0x7fff_ffff, 0x8000_0000, 0xffff_f000, 0xffff_ffff] {
            let mut changed = bytes.clone();
            changed[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
            let _ = examine(&changed);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn many_bytes_may_be_anything(changes in prop::collection::vec((0_usize..0x3000, any::<u8>()), 1..40), cut in any::<Option<u16>>()) {
        let mut bytes = whole().bytes();
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(usize::from(cut));
        }
        let _ = examine(&bytes);
    }
}
