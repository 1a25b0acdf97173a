//! The variadic routines: the kernel's printing, and the formatting of its C runtime.
//!
//! A variadic call passes its arguments as every other does, in a row of 8-byte slots, and a `va_list` is a pointer into such a row.
//! A double is in its slot as bits.

use super::memory::{Plain, load, store as store_one};
use crate::engine::Kernel;
use crate::exports::dbg::format::{Arguments, format, format_text};
use crate::exports::dbg::print_text;
use crate::machine::Call;
use std::ffi::c_char;

/// A row of arguments.
struct Slots(*const u64);

impl Arguments for Slots {
    fn integer(&mut self) -> u64 {
        let value = load(self.0);
        self.0 = self.0.wrapping_add(1);
        value
    }

    fn double(&mut self) -> f64 {
        f64::from_bits(self.integer())
    }
}

/// The arguments of a call, by number.
#[derive(Clone, Copy)]
pub(super) struct Row(*const u64);

impl Row {
    /// The row that an adapter is passed.
    pub(super) fn new(arguments: *const u64) -> Self {
        Self(arguments)
    }

    pub(super) fn get(self, index: usize) -> u64 {
        // SAFETY: the driver's call has put its arguments there.
        unsafe { self.0.wrapping_add(index).read() }
    }

    /// The arguments from one on.
    fn rest(self, index: usize) -> Slots {
        Slots(self.0.wrapping_add(index))
    }

    /// The list that an argument points to.
    fn list(self, index: usize) -> Slots {
        Slots(self.get(index) as *const u64)
    }
}

/// The text of a format string and its arguments.
///
/// # Safety
/// The driver's: the string ends in a zero, and the arguments are what it asks for.
unsafe fn text(string: u64, wide: bool, mut arguments: Slots) -> String {
    if !wide {
        // SAFETY: by this function's contract.
        return unsafe { format(string as *const c_char, &mut arguments) };
    }
    let units = super::strings::units(string as *const u16);
    // SAFETY: as above.
    unsafe { format_text(&String::from_utf16_lossy(&units), true, &mut arguments) }
}

fn print(call: Call, prefix: u64, string: u64, arguments: Slots) -> u64 {
    // SAFETY: the driver vouches for what it prints.
    let mut text = unsafe { text(string, false, arguments) };
    if prefix != 0 {
        // SAFETY: as above.
        let prefix = unsafe { std::ffi::CStr::from_ptr(prefix as *const c_char) };
        text.insert_str(0, &prefix.to_string_lossy());
    }
    call.read(|kernel: &mut Kernel| print_text(kernel, &text));
    0
}

/// What a formatting function does with text that does not fit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Full {
    /// As much as fits, without a zero if it just fits, and -1.
    Cut,
    /// As much as fits with a zero, and -1.
    CutAndEnd,
}

/// Writes a text to a buffer of `size` units.
fn store<U: Plain + From<u8>>(buffer: *mut U, size: usize, units: &[U], full: Full) -> u64 {
    let zero = U::from(0);
    let fits = match full {
        Full::Cut => units.len() <= size,
        Full::CutAndEnd => units.len() < size,
    };
    let kept = match full {
        Full::Cut => units.len().min(size),
        Full::CutAndEnd => units.len().min(size.saturating_sub(1)),
    };
    if !buffer.is_null() {
        for (index, unit) in units[..kept].iter().enumerate() {
            // SAFETY: the driver vouches for a buffer of that size.
            unsafe { store_one(buffer.wrapping_add(index), *unit) };
        }
        if kept < size {
            // SAFETY: as above.
            unsafe { store_one(buffer.wrapping_add(kept), zero) };
        }
    }
    if fits { units.len() as u64 } else { u64::from(u32::MAX) }
}

fn store_text(buffer: u64, size: usize, text: &str, wide: bool, full: Full) -> u64 {
    if wide {
        let units: Vec<u16> = text.encode_utf16().collect();
        store(buffer as *mut u16, size, &units, full)
    } else {
        store(buffer as *mut u8, size, text.as_bytes(), full)
    }
}

/// Defines routines with as many arguments as the driver passes.
macro_rules! variadic {
    ($(fn $name:ident($call:ident, $row:ident) $body:block)*) => {
        mod adapters {
            use super::*;
            $(
                pub(super) unsafe extern "C" fn $name(frame: *mut $crate::image::CallFrame, arguments: *const u64) -> u64 {
                    static EXPORT: $crate::exports::Export =
                        $crate::exports::Export { name: stringify!($name), irql: $crate::exports::ANY, visible: false };
                    let body = || {
                        let $call = Call::enter(&EXPORT, None);
                        let $row = $crate::image::routines::format::Row::new(arguments);
                        $body
                    };
                    // SAFETY: the stub of an import has made the frame.
                    unsafe { $crate::image::boundary(frame, body) }
                }
            )*
        }

        /// The exports of this file.
        pub(crate) static TABLE: $crate::exports::Table = $crate::exports::Table {
            exports: &[$($crate::exports::Export { name: stringify!($name), irql: $crate::exports::ANY, visible: false }),*],
            address: |_| None,
            adapter: |name| match name {
                $(stringify!($name) => Some(adapters::$name as $crate::image::Adapter),)*
                _ => None,
            },
        };
    };
}
pub(super) use variadic;

/// As large as a buffer can be whose size is not told.
const UNTOLD: usize = isize::MAX as usize;

/// Formats into a buffer: who, where, how large, the format, and the arguments.
fn formatted(buffer: u64, size: usize, string: u64, wide: bool, arguments: Slots, full: Full) -> u64 {
    // SAFETY: the driver vouches for what it formats.
    let text = unsafe { text(string, wide, arguments) };
    store_text(buffer, size, &text, wide, full)
}

variadic! {
    fn DbgPrint(call, row) { print(call, 0, row.get(0), row.rest(1)) }
    fn DbgPrintEx(call, row) { print(call, 0, row.get(2), row.rest(3)) }
    fn vDbgPrintEx(call, row) { print(call, 0, row.get(2), row.list(3)) }
    fn vDbgPrintExWithPrefix(call, row) { print(call, row.get(0), row.get(3), row.list(4)) }
    fn sprintf(_call, row) { formatted(row.get(0), UNTOLD, row.get(1), false, row.rest(2), Full::CutAndEnd) }
    fn vsprintf(_call, row) { formatted(row.get(0), UNTOLD, row.get(1), false, row.list(2), Full::CutAndEnd) }
    fn swprintf(_call, row) { formatted(row.get(0), UNTOLD, row.get(1), true, row.rest(2), Full::CutAndEnd) }
    fn vswprintf(_call, row) { formatted(row.get(0), UNTOLD, row.get(1), true, row.list(2), Full::CutAndEnd) }
    fn _snprintf(_call, row) { formatted(row.get(0), row.get(1) as usize, row.get(2), false, row.rest(3), Full::Cut) }
    fn _vsnprintf(_call, row) { formatted(row.get(0), row.get(1) as usize, row.get(2), false, row.list(3), Full::Cut) }
    fn _snwprintf(_call, row) { formatted(row.get(0), row.get(1) as usize, row.get(2), true, row.rest(3), Full::Cut) }
    fn _vsnwprintf(_call, row) { formatted(row.get(0), row.get(1) as usize, row.get(2), true, row.list(3), Full::Cut) }
    fn sprintf_s(_call, row) { formatted(row.get(0), row.get(1) as usize, row.get(2), false, row.rest(3), Full::CutAndEnd) }
    fn vsprintf_s(_call, row) { formatted(row.get(0), row.get(1) as usize, row.get(2), false, row.list(3), Full::CutAndEnd) }
    fn swprintf_s(_call, row) { formatted(row.get(0), row.get(1) as usize, row.get(2), true, row.rest(3), Full::CutAndEnd) }
    fn _swprintf(_call, row) { formatted(row.get(0), UNTOLD, row.get(1), true, row.rest(2), Full::CutAndEnd) }
    fn _vswprintf(_call, row) { formatted(row.get(0), UNTOLD, row.get(1), true, row.list(2), Full::CutAndEnd) }
    fn vswprintf_s(_call, row) { formatted(row.get(0), row.get(1) as usize, row.get(2), true, row.list(3), Full::CutAndEnd) }
    fn _snprintf_s(_call, row) {
        let size = (row.get(1) as usize).min((row.get(2) as usize).saturating_add(1));
        formatted(row.get(0), size, row.get(3), false, row.rest(4), Full::CutAndEnd)
    }
    fn _vsnprintf_s(_call, row) {
        let size = (row.get(1) as usize).min((row.get(2) as usize).saturating_add(1));
        formatted(row.get(0), size, row.get(3), false, row.list(4), Full::CutAndEnd)
    }
    fn _snwprintf_s(_call, row) {
        let size = (row.get(1) as usize).min((row.get(2) as usize).saturating_add(1));
        formatted(row.get(0), size, row.get(3), true, row.rest(4), Full::CutAndEnd)
    }
    fn _vsnwprintf_s(_call, row) {
        let size = (row.get(1) as usize).min((row.get(2) as usize).saturating_add(1));
        formatted(row.get(0), size, row.get(3), true, row.list(4), Full::CutAndEnd)
    }
}
