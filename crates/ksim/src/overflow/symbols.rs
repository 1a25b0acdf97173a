//! Which function an address of the program is in, found without memory and without locks: who asks may be in the midst of either.
//!
//! The program's file has the names. It is mapped when somebody asks first, and stays.

use std::cell::Cell;
use std::fmt::Write;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Whose a function is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    /// The driver's, or a library's of its own.
    Driver,
    /// The allocator's, which nothing may be left in the midst of.
    Allocator,
    /// The kernel's, the language's, the host's, or not known.
    Other,
}

/// A function.
#[derive(Clone, Copy)]
pub(super) struct Function {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) owner: Owner,
}

/// Crates whose functions may be in the midst of something.
const OTHERS: [&str; 24] = [
    "addr2line",
    "alloc",
    "backtrace",
    "cargo_ksim",
    "compiler_builtins",
    "core",
    "corosensei",
    "gimli",
    "hashbrown",
    "iced_x86",
    "ksim",
    "ksync_sys",
    "libc",
    "memchr",
    "miniz_oxide",
    "object",
    "panic_abort",
    "panic_unwind",
    "proc_macro",
    "rustc_demangle",
    "std",
    "std_detect",
    "test",
    "unwind",
];

/// Parts of the names of an allocator's functions.
const ALLOCATORS: [&str; 6] = ["__rust_alloc", "__rust_dealloc", "__rust_realloc", "__rdl_", "__rg_", "GlobalAlloc>"];

/// Text in memory of its own. What there is no room for is left out.
pub(super) struct Text {
    bytes: [u8; 512],
    len: usize,
}

impl Text {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; 512], len: 0 }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(self.bytes()).unwrap_or("")
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for character in text.chars() {
            let Some(place) = self.bytes.get_mut(self.len..self.len + character.len_utf8()) else { break };
            character.encode_utf8(place);
            self.len += character.len_utf8();
        }
        Ok(())
    }
}

/// A symbol of the program's file.
#[repr(C)]
#[derive(Clone, Copy)]
struct Symbol {
    name: u32,
    info: u8,
    _other: u8,
    _section: u16,
    value: u64,
    size: u64,
}

/// The program's symbols, and where it was loaded.
#[derive(Clone, Copy)]
struct Table {
    symbols: &'static [Symbol],
    names: &'static [u8],
    bias: u64,
    code: (u64, u64),
}

/// How many functions are kept.
const KEPT: usize = 32;

thread_local! {
    static FOUND: [Cell<Option<Function>>; KEPT] = const { [const { Cell::new(None) }; KEPT] };
    static NEXT: Cell<usize> = const { Cell::new(0) };
}

/// The function at an address.
pub(super) fn find(address: u64) -> Option<Function> {
    let kept = FOUND.with(|found| found.iter().filter_map(Cell::get).find(|one| (one.start..one.end).contains(&address)));
    if kept.is_some() {
        return kept;
    }
    let (start, end, name) = look_up(address)?;
    let mut text = Text::new();
    write_name(&mut text, name);
    let function = Function { start, end, owner: owner(text.as_str()) };
    let next = NEXT.replace((NEXT.get() + 1) % KEPT);
    FOUND.with(|found| found[next].set(Some(function)));
    Some(function)
}

/// Writes the name of the function at an address, as far as it is known.
pub(super) fn describe(to: &mut Text, address: u64) {
    match look_up(address) {
        Some((.., name)) => write_name(to, name),
        None => {
            // Text is never full in vain: what does not fit is left out.
            let _written = write!(to, "{address:#x}, outside of the program");
        }
    }
}

/// The routine of NT's that an address is in, if it is in one.
pub(super) fn export(address: u64) -> Option<&'static str> {
    let (.., name) = look_up(address)?;
    std::str::from_utf8(name).ok().filter(|name| crate::exports::is_export(name))
}

fn write_name(to: &mut Text, name: &[u8]) {
    // Text is never full in vain, as above.
    let _written = write!(to, "{:#}", backtrace::SymbolName::new(name));
}

/// Whose the function of a name is.
fn owner(name: &str) -> Owner {
    if ALLOCATORS.iter().any(|part| name.contains(part)) {
        return Owner::Allocator;
    }
    match crate_of(name) {
        Some(first) if !OTHERS.contains(&first) => Owner::Driver,
        _ => Owner::Other,
    }
}

/// The crate that a function of the language is of. A function of a trait is of the crate of the type that it is for, or of the trait's where that may be any type.
fn crate_of(name: &str) -> Option<&str> {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    let mut rest = name;
    loop {
        rest = rest.trim_start_matches(|character: char| !is_word(character));
        let end = rest.find(|character: char| !is_word(character)).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        if word.is_empty() {
            return None;
        }
        if behind.starts_with("::") {
            return Some(word);
        }
        rest = behind;
    }
}

/// The bounds and the name of the function at an address.
fn look_up(address: u64) -> Option<(u64, u64, &'static [u8])> {
    const FUNCTION: u8 = 2;
    let table = table()?;
    if !(table.code.0..table.code.1).contains(&address) {
        return None;
    }
    let place = address - table.bias;
    let symbol =
        table.symbols.iter().find(|symbol| place.wrapping_sub(symbol.value) < symbol.size && symbol.info & 0xf == FUNCTION)?;
    let name = table.names.get(symbol.name as usize..)?;
    let length = name.iter().position(|&byte| byte == 0)?;
    let start = symbol.value + table.bias;
    Some((start, start + symbol.size, &name[..length]))
}

/// The program's file, once it is mapped, and its length, which is stored first.
static FILE: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static LENGTH: AtomicUsize = AtomicUsize::new(0);

/// The program's file.
fn file() -> Option<&'static [u8]> {
    let mut memory = FILE.load(Ordering::Acquire);
    if memory.is_null() {
        memory = map_file()?;
    }
    // SAFETY: the mapping stays, of a program's file, which cannot be written while it runs. It has this length, which is the same whoever mapped it.
    Some(unsafe { std::slice::from_raw_parts(memory, LENGTH.load(Ordering::Relaxed)) })
}

/// Maps it.
fn map_file() -> Option<*mut u8> {
    // SAFETY: the path ends with a null byte.
    let descriptor = unsafe { libc::open(c"/proc/self/exe".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if descriptor < 0 {
        return None;
    }
    // SAFETY: zero is valid for all of the structure.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the call writes the structure.
    let known = unsafe { libc::fstat(descriptor, &raw mut status) } == 0;
    let length = if known { usize::try_from(status.st_size).unwrap_or(0) } else { 0 };
    // SAFETY: a fresh mapping touches nothing that exists. One of no bytes is an error of the call.
    let mapped = unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_PRIVATE, descriptor, 0) };
    // SAFETY: the descriptor is this function's.
    unsafe { libc::close(descriptor) };
    if mapped == libc::MAP_FAILED {
        return None;
    }
    LENGTH.store(length, Ordering::Relaxed);
    let memory: *mut u8 = mapped.cast();
    match FILE.compare_exchange(std::ptr::null_mut(), memory, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Some(memory),
        Err(other) => {
            // SAFETY: another thread was first, and nobody knows this one.
            unsafe { libc::munmap(mapped, length) };
            Some(other)
        }
    }
}

/// A number at a place in a file.
fn number<const N: usize>(file: &[u8], at: usize) -> Option<u64> {
    let mut bytes = [0; 8];
    bytes[..N].copy_from_slice(file.get(at..at.checked_add(N)?)?);
    Some(u64::from_le_bytes(bytes))
}

/// What a section has.
fn section(file: &'static [u8], header: usize) -> Option<&'static [u8]> {
    let start = usize::try_from(number::<8>(file, header + 24)?).ok()?;
    let length = usize::try_from(number::<8>(file, header + 32)?).ok()?;
    file.get(start..start.checked_add(length)?)
}

/// The table, which is looked for again each time: there is nowhere to keep it that another thread could not be about to write.
fn table() -> Option<Table> {
    const PROGRAM_HEADERS: u64 = 6;
    const LOADED: u64 = 1;
    const EXECUTABLE: u64 = 1;
    const SYMBOLS: u64 = 2;
    let file = file()?;
    // SAFETY: the call only looks a value up.
    let headers = unsafe { libc::getauxval(libc::AT_PHDR) };
    let first = usize::try_from(number::<8>(file, 32)?).ok()?;
    let count = number::<2>(file, 56)? as usize;
    let header = |index: usize| first + index * 56;
    let with_kind = |kind: u64| move |&index: &usize| number::<4>(file, header(index)) == Some(kind);
    // A program that may be loaded anywhere says where it has its headers.
    let bias = match (0..count).find(with_kind(PROGRAM_HEADERS)) {
        Some(index) => headers.wrapping_sub(number::<8>(file, header(index) + 16)?),
        None => 0,
    };
    let mut code = (u64::MAX, 0);
    for index in (0..count).filter(with_kind(LOADED)) {
        if number::<4>(file, header(index) + 4)? & EXECUTABLE != 0 {
            let start = number::<8>(file, header(index) + 16)?.wrapping_add(bias);
            code = (code.0.min(start), code.1.max(start.wrapping_add(number::<8>(file, header(index) + 40)?)));
        }
    }
    let first = usize::try_from(number::<8>(file, 40)?).ok()?;
    let count = number::<2>(file, 60)? as usize;
    let header = |index: usize| first + index * 64;
    let symbols = (0..count).map(header).find(|&at| number::<4>(file, at + 4) == Some(SYMBOLS))?;
    let names = section(file, header(number::<4>(file, symbols + 40)? as usize))?;
    let bytes = section(file, symbols)?;
    // SAFETY: any bytes are a symbol.
    let (before, symbols, _) = unsafe { bytes.align_to::<Symbol>() };
    before.is_empty().then_some(Table { symbols, names, bias, code })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_its_crates() {
        for (name, expected) in [
            ("driver::queue::push", Owner::Driver),
            ("<driver::Node as core::fmt::Debug>::fmt", Owner::Driver),
            ("<&driver::Node as core::fmt::Debug>::fmt", Owner::Driver),
            ("<&T as core::fmt::Debug>::fmt", Owner::Other),
            ("<[T] as core::fmt::Debug>::fmt", Owner::Other),
            ("<alloc::vec::Vec<T> as driver::Trait>::run", Owner::Other),
            ("core::ptr::drop_in_place<driver::Node>", Owner::Other),
            ("std::io::stdio::_print", Owner::Other),
            ("ksim::engine::kernel::Kernel::perform", Owner::Other),
            ("KeSetEvent", Owner::Other),
            ("malloc", Owner::Other),
            ("__rust_try", Owner::Other),
            ("__rustc::__rust_alloc", Owner::Allocator),
            ("<driver::Counting as core::alloc::global::GlobalAlloc>::alloc", Owner::Allocator),
        ] {
            assert_eq!(owner(name), expected, "{name}");
        }
    }

    #[test]
    fn functions_of_this_program_are_found() {
        let address = a_function_is_its_crates as *const () as u64;
        let (start, end, name) = look_up(address).expect("this program has its symbols");
        assert!(start == address && end > address, "{start:#x}..{end:#x}");
        assert!(name.windows(24).any(|part| part == b"a_function_is_its_crates"));
        assert!(find(address + 1).is_some_and(|function| function.owner == Owner::Other && function.start == start));
        assert!(look_up(libc::malloc as *const () as u64).is_none());
    }
}
