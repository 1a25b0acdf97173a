//! The C runtime's strings.

use super::memory::{Plain, load_all, store, store_all};
use crate::exports::{ANY, image_exports};
use ksync_sys::SIZE_T;
use std::cmp::Ordering;
use std::ptr::null;

/// The units of a string up to its zero.
pub(super) fn units<U: Plain + PartialEq + From<u8>>(string: *const U) -> Vec<U> {
    units_up_to(string, usize::MAX)
}

/// The units of a string up to its zero, or so many.
pub(super) fn units_up_to<U: Plain + PartialEq + From<u8>>(string: *const U, most: usize) -> Vec<U> {
    /// A part that begins in one is read at once: what is behind a string may not be there.
    const CHUNK: usize = 256;
    let mut units = Vec::new();
    while units.len() < most {
        let at = string.wrapping_add(units.len());
        let room = (CHUNK - at.addr() % CHUNK) / size_of::<U>();
        let part = load_all(at, room.max(1).min(most - units.len()));
        match part.iter().position(|unit| *unit == U::from(0)) {
            Some(end) => {
                units.extend_from_slice(&part[..end]);
                break;
            }
            None => units.extend(part),
        }
    }
    units
}

fn sign(ordering: Ordering) -> i32 {
    ordering as i32
}

fn lower_narrow(unit: &u8) -> u8 {
    unit.to_ascii_lowercase()
}

pub(super) fn lower_wide(unit: &u16) -> u16 {
    u8::try_from(*unit).map_or(*unit, |unit| u16::from(unit.to_ascii_lowercase()))
}

pub(super) fn upper_wide(unit: &u16) -> u16 {
    u8::try_from(*unit).map_or(*unit, |unit| u16::from(unit.to_ascii_uppercase()))
}

fn compare<U: Ord>(one: &[U], other: &[U]) -> i32 {
    sign(one.cmp(other))
}

fn compare_lower<U>(one: &[U], other: &[U], lower: impl Fn(&U) -> U) -> i32
where
    U: Ord,
{
    sign(one.iter().map(&lower).cmp(other.iter().map(&lower)))
}

/// Appends units, and a zero.
///
/// # Safety
/// There is room for them.
pub(super) unsafe fn write<U: Plain + From<u8>>(to: *mut U, units: &[U]) {
    // SAFETY: by this function's contract.
    unsafe { store_all(to, units) };
    // SAFETY: as above.
    unsafe { store(to.wrapping_add(units.len()), U::from(0)) };
}

/// Writes exactly so many units: what there is, and zeros.
///
/// # Safety
/// There is room for them.
unsafe fn write_padded<U: Plain + From<u8>>(to: *mut U, units: &[U], count: usize) {
    // SAFETY: by this function's contract.
    unsafe { store_all(to, units) };
    for index in units.len()..count {
        // SAFETY: as above.
        unsafe { store(to.wrapping_add(index), U::from(0)) };
    }
}

fn find<U: Copy + PartialEq>(string: *const U, units: &[U], unit: U, zero: U, last: bool) -> *const U {
    if unit == zero {
        return string.wrapping_add(units.len());
    }
    let at = if last { units.iter().rposition(|&other| other == unit) } else { units.iter().position(|&other| other == unit) };
    at.map_or(null(), |at| string.wrapping_add(at))
}

fn find_string<U: PartialEq>(string: *const U, units: &[U], wanted: &[U]) -> *const U {
    if wanted.is_empty() {
        return string;
    }
    units.windows(wanted.len()).position(|window| window == wanted).map_or(null(), |at| string.wrapping_add(at))
}

macro_rules! string_exports {
    ($unit:ty, $lower:ident, $length:ident, $length_up_to:ident, $compare:ident, $compare_up_to:ident, $compare_lower:ident,
     $compare_lower_up_to:ident, $copy:ident, $copy_up_to:ident, $append:ident, $append_up_to:ident, $find:ident, $find_last:ident,
     $find_string:ident; $($more:tt)*) => {
        image_exports! {
            [ANY] silent fn $length(_call; String: *const $unit) -> SIZE_T {
                units(String).len()
            }

            [ANY] silent fn $length_up_to(_call; String: *const $unit, Most: SIZE_T) -> SIZE_T {
                units_up_to(String, Most).len()
            }

            [ANY] silent fn $compare(_call; One: *const $unit, Other: *const $unit) -> i32 {
                compare(&units(One), &units(Other))
            }

            [ANY] silent fn $compare_up_to(_call; One: *const $unit, Other: *const $unit, Most: SIZE_T) -> i32 {
                compare(&units_up_to(One, Most), &units_up_to(Other, Most))
            }

            [ANY] silent fn $compare_lower(_call; One: *const $unit, Other: *const $unit) -> i32 {
                compare_lower(&units(One), &units(Other), $lower)
            }

            [ANY] silent fn $compare_lower_up_to(_call; One: *const $unit, Other: *const $unit, Most: SIZE_T) -> i32 {
                compare_lower(&units_up_to(One, Most), &units_up_to(Other, Most), $lower)
            }

            [ANY] silent fn $copy(_call; To: *mut $unit, From: *const $unit) -> *mut $unit {
                // SAFETY: the driver passes room for the string; here and below.
                unsafe { write(To, &units(From)) };
                To
            }

            [ANY] silent fn $copy_up_to(_call; To: *mut $unit, From: *const $unit, Count: SIZE_T) -> *mut $unit {
                // SAFETY: as above.
                unsafe { write_padded(To, &units_up_to(From, Count), Count) };
                To
            }

            [ANY] silent fn $append(_call; To: *mut $unit, From: *const $unit) -> *mut $unit {
                let end = To.wrapping_add(units(To).len());
                // SAFETY: as above.
                unsafe { write(end, &units(From)) };
                To
            }

            [ANY] silent fn $append_up_to(_call; To: *mut $unit, From: *const $unit, Count: SIZE_T) -> *mut $unit {
                let end = To.wrapping_add(units(To).len());
                // SAFETY: as above.
                unsafe { write(end, &units_up_to(From, Count)) };
                To
            }

            [ANY] silent fn $find(_call; String: *const $unit, Unit: $unit) -> *const $unit {
                find(String, &units(String), Unit, 0, false)
            }

            [ANY] silent fn $find_last(_call; String: *const $unit, Unit: $unit) -> *const $unit {
                find(String, &units(String), Unit, 0, true)
            }

            [ANY] silent fn $find_string(_call; String: *const $unit, Wanted: *const $unit) -> *const $unit {
                find_string(String, &units(String), &units(Wanted))
            }

            $($more)*
        }
    };
}

mod narrow {
    use super::*;

    string_exports! {
        u8, lower_narrow, strlen, strnlen, strcmp, strncmp, _stricmp, _strnicmp, strcpy, strncpy, strcat, strncat, strchr, strrchr,
        strstr;

        [ANY] silent fn tolower(_call; Character: i32) -> i32 {
            u8::try_from(Character).map_or(Character, |byte| i32::from(byte.to_ascii_lowercase()))
        }

        [ANY] silent fn toupper(_call; Character: i32) -> i32 {
            u8::try_from(Character).map_or(Character, |byte| i32::from(byte.to_ascii_uppercase()))
        }
    }
}

mod wide {
    use super::*;

    string_exports! {
        u16, lower_wide, wcslen, wcsnlen, wcscmp, wcsncmp, _wcsicmp, _wcsnicmp, wcscpy, wcsncpy, wcscat, wcsncat, wcschr, wcsrchr,
        wcsstr;

        [ANY] silent fn towlower(_call; Character: u16) -> u16 {
            lower_wide(&Character)
        }

        [ANY] silent fn towupper(_call; Character: u16) -> u16 {
            upper_wide(&Character)
        }
    }
}

pub(super) use narrow::TABLE as NARROW;
pub(super) use wide::TABLE as WIDE;
