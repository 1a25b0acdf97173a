//! Images made by hand: a sound one, and one per rule that breaks it.

use super::*;

const HEADERS: usize = 0x40;
const OPTIONAL: usize = HEADERS + BEFORE_OPTIONAL_HEADER;
const DIRECTORIES: usize = OPTIONAL + 112;
const SECTIONS: usize = OPTIONAL + 240;
const SECTION_SIZE: usize = 40;

/// Where the import section is, in the file and in memory.
const IDATA: (usize, u32) = (0x600, 0x2000);
const LIBRARY_NAME: usize = IDATA.0 + 0x80;

const TEXT_FLAGS: u32 = 0x6000_0020;
const DATA_FLAGS: u32 = 0xc000_0040;
const RELOC_FLAGS: u32 = 0x4200_0040;

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn put16(bytes: &mut [u8], at: usize, value: u16) {
    put(bytes, at, &value.to_le_bytes());
}

fn put32(bytes: &mut [u8], at: usize, value: u32) {
    put(bytes, at, &value.to_le_bytes());
}

/// A directory that is there, whatever it holds.
fn put_directory(bytes: &mut [u8], index: usize) {
    put32(bytes, DIRECTORIES + index * 8, IDATA.1);
    put32(bytes, DIRECTORIES + index * 8 + 4, 32);
}

/// The smallest sound driver: a section of code, one of imports, one of relocations.
fn sound() -> Vec<u8> {
    let mut b = vec![0; 0xa00];
    put(&mut b, 0, b"MZ");
    put32(&mut b, 0x3c, HEADERS as u32);
    put(&mut b, HEADERS, b"PE\0\0");
    put16(&mut b, HEADERS + 4, 0x8664);
    put16(&mut b, HEADERS + 6, 3);
    put16(&mut b, HEADERS + 20, 240);
    put16(&mut b, HEADERS + 22, 0x2022);
    put16(&mut b, OPTIONAL, 0x20b);
    put32(&mut b, OPTIONAL + 16, 0x1000);
    put32(&mut b, OPTIONAL + 32, PAGE);
    put32(&mut b, OPTIONAL + 36, 0x200);
    put32(&mut b, OPTIONAL + 56, 0x4000);
    put32(&mut b, OPTIONAL + 60, 0x400);
    put16(&mut b, OPTIONAL + 68, 1);
    put16(&mut b, OPTIONAL + 70, 0x160);
    put32(&mut b, OPTIONAL + 108, 16);
    put32(&mut b, DIRECTORIES + 8, IDATA.1);
    put32(&mut b, DIRECTORIES + 12, 0x100);
    put32(&mut b, DIRECTORIES + 5 * 8, 0x3000);
    put32(&mut b, DIRECTORIES + 5 * 8 + 4, 12);
    for (index, (name, address, file, flags)) in [
        (&b".text"[..], 0x1000, 0x400, TEXT_FLAGS),
        (b".idata", IDATA.1, IDATA.0 as u32, DATA_FLAGS),
        (b".reloc", 0x3000, 0x800, RELOC_FLAGS),
    ]
    .into_iter()
    .enumerate()
    {
        let at = SECTIONS + index * SECTION_SIZE;
        put(&mut b, at, name);
        put32(&mut b, at + 8, 0x200);
        put32(&mut b, at + 12, address);
        put32(&mut b, at + 16, 0x200);
        put32(&mut b, at + 20, file);
        put32(&mut b, at + 36, flags);
    }
    // One descriptor, its two tables of one routine, and the names.
    put32(&mut b, IDATA.0, IDATA.1 + 0x40);
    put32(&mut b, IDATA.0 + 12, IDATA.1 + 0x80);
    put32(&mut b, IDATA.0 + 16, IDATA.1 + 0x60);
    put32(&mut b, IDATA.0 + 0x40, IDATA.1 + 0xa0);
    put32(&mut b, IDATA.0 + 0x60, IDATA.1 + 0xa0);
    put(&mut b, LIBRARY_NAME, b"ntoskrnl.exe\0");
    put(&mut b, IDATA.0 + 0xa2, b"KeSetEvent\0");
    // One block with one 64-bit relocation, and the filler.
    put32(&mut b, 0x800, 0x1000);
    put32(&mut b, 0x804, 12);
    put16(&mut b, 0x808, 0xa008);
    set_checksum(&mut b).unwrap();
    b
}

/// What is wrong with the sound image once `break_it` changed it.
fn violations(break_it: impl FnOnce(&mut [u8])) -> String {
    let mut bytes = sound();
    break_it(&mut bytes);
    set_checksum(&mut bytes).unwrap();
    Image::parse(&bytes).unwrap().violations().join("\n")
}

#[track_caller]
fn assert_found(words: &str, break_it: impl FnOnce(&mut [u8])) {
    let found = violations(break_it);
    assert!(found.contains(words) && found.lines().count() == 1, "looked for {words:?} alone, found:\n{found}");
}

#[test]
fn a_sound_image_passes() {
    let image = Image::parse(&sound()).unwrap();
    assert_eq!(image.violations(), Vec::<String>::new());
    assert_eq!(image.imports().collect::<Vec<_>>(), ["KeSetEvent"]);
    let table = image.to_string();
    for part in [".text", "r-x", "rw-", "1 relocations", "1 routines of ntoskrnl.exe", "KeSetEvent"] {
        assert!(table.contains(part), "{part} is not in:\n{table}");
    }
}

#[test]
fn each_rule_is_checked() {
    assert_found("not x86-64", |b| put16(b, HEADERS + 4, 0xaa64));
    assert_found("subsystem is 3", |b| put16(b, OPTIONAL + 68, 3));
    assert_found("aligned to 512", |b| put32(b, OPTIONAL + 32, 512));
    assert_found("no relocation table", |b| put32(b, DIRECTORIES + 5 * 8 + 4, 0));
    assert_found("no relocation table", |b| put16(b, HEADERS + 22, 0x2023));
    assert_found("no relocation table", |b| put16(b, 0x808, 0));
    assert_found("NX_COMPAT", |b| put16(b, OPTIONAL + 70, 0x60));
    assert_found("DYNAMIC_BASE", |b| put16(b, OPTIONAL + 70, 0x120));
    assert_found("no entry point", |b| put32(b, OPTIONAL + 16, 0));
    assert_found("not in an executable section", |b| put32(b, OPTIONAL + 16, 0x2000));
    assert_found("not in an executable section", |b| put32(b, OPTIONAL + 16, 0x9000));
    assert_found(".text is both writable and executable", |b| put32(b, SECTIONS + 36, TEXT_FLAGS | 0x8000_0000));
    assert_found("starts at 0x3200", |b| {
        put32(b, SECTIONS + 2 * SECTION_SIZE + 12, 0x3200);
        put32(b, DIRECTORIES + 5 * 8, 0x3200);
    });
    assert_found("imports from msvcrt.dll", |b| put(b, LIBRARY_NAME, b"msvcrt.dll\0"));
    assert_found("by ordinal (#7)", |b| put(b, IDATA.0 + 0x40, &0x8000_0000_0000_0007_u64.to_le_bytes()));
    assert_found("nothing is imported", |b| put32(b, DIRECTORIES + 8, 0));
    assert_found("thread-local storage", |b| put_directory(b, 9));
    assert_found("delay-loaded", |b| put_directory(b, 13));
}

#[test]
fn a_wrong_checksum_is_found_and_set_right() {
    let mut bytes = sound();
    bytes[0x400] ^= 1;
    let found = Image::parse(&bytes).unwrap().violations();
    assert!(found.len() == 1 && found[0].starts_with("the checksum is"), "{found:?}");
    set_checksum(&mut bytes).unwrap();
    assert!(Image::parse(&bytes).unwrap().violations().is_empty());
}

#[test]
fn the_checksum_is_the_one_that_windows_computes() {
    // Words add up with the carry brought round, then comes the length.
    assert_eq!(checksum(&[0xff, 0xff, 0x02, 0x00], 100), 2 + 4);
    assert_eq!(checksum(&[0x01, 0x00, 0x05], 100), 1 + 5 + 3);
    assert_eq!(checksum(&[1, 0, 9, 9, 9, 9, 1, 0], 2), 2 + 8);
}

#[test]
fn other_files_are_refused() {
    assert!(Image::parse(b"\x7fELF").is_err());
    assert!(Image::parse(&sound()[..0x100]).is_err());
    assert!(set_checksum(&mut []).is_err());
}

#[test]
fn stubs_of_wine_are_told_from_routines() {
    let mut b = sound();
    let (file, memory) = (IDATA.0 + 0x100, IDATA.1 + 0x100);
    put32(&mut b, DIRECTORIES, memory);
    put32(&mut b, DIRECTORIES + 4, 0x100);
    // Two exports: tables of addresses, names and ordinals, then the names.
    for (at, value) in [(16, 1), (20, 2), (24, 2), (28, memory + 40), (32, memory + 48), (36, memory + 56)] {
        put32(&mut b, file + at, value);
    }
    for (at, value) in [(40, 0x1000), (44, 0x1020), (48, memory + 64), (52, memory + 80)] {
        put32(&mut b, file + at, value);
    }
    put16(&mut b, file + 58, 1);
    put(&mut b, file + 64, b"KeReal\0");
    put(&mut b, file + 80, b"KeStub\0");
    // The same code twice. The first loads another's name.
    for at in [0, 0x20] {
        put(&mut b, 0x400 + at, &[0x48, 0x83, 0xec, 0x28, 0x48, 0x8d, 0x0d, 0, 0, 0, 0, 0x48, 0x8d, 0x15, 0, 0, 0, 0, 0xe8]);
        put32(&mut b, 0x400 + at + 14, memory + 80 - (0x1000 + at as u32 + 18));
    }
    let exports = WineExports::parse(&b).unwrap();
    assert_eq!(Vec::from_iter(&exports.names), ["KeReal", "KeStub"]);
    assert_eq!(Vec::from_iter(&exports.stubs), ["KeStub"]);
}

#[test]
fn words_wrap() {
    assert_eq!(wrapped(&["a", "bb", "ccc"], 4), ["a bb", "ccc"]);
    assert_eq!(wrapped::<&str>(&[], 4), Vec::<String>::new());
}
