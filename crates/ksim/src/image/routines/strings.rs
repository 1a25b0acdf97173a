//! The C runtime's strings.

use crate::exports::{ANY, image_exports};
use ksync_sys::SIZE_T;
use std::cmp::Ordering;
use std::ptr::null;

/// The units of a string up to its zero.
///
/// # Safety
/// The string ends in a zero, and stays as it is while the result is used.
pub(super) unsafe fn units<'a, U: Copy + PartialEq + From<u8>>(string: *const U) -> &'a [U] {
    // SAFETY: by this function's contract.
    unsafe { units_up_to(string, usize::MAX) }
}

/// The units of a string up to its zero, or so many.
///
/// # Safety
/// As for [`units`]; a string of so many units needs no zero.
pub(super) unsafe fn units_up_to<'a, U: Copy + PartialEq + From<u8>>(string: *const U, most: usize) -> &'a [U] {
    let mut length = 0;
    // SAFETY: by this function's contract, up to the zero.
    while length < most && unsafe { *string.wrapping_add(length) } != U::from(0) {
        length += 1;
    }
    // SAFETY: the units were just read.
    unsafe { std::slice::from_raw_parts(string, length) }
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
pub(super) unsafe fn write<U: Copy + From<u8>>(to: *mut U, units: &[U]) {
    for (index, unit) in units.iter().enumerate() {
        // SAFETY: by this function's contract.
        unsafe { to.wrapping_add(index).write(*unit) };
    }
    // SAFETY: as above.
    unsafe { to.wrapping_add(units.len()).write(U::from(0)) };
}

/// Writes exactly so many units: what there is, and zeros.
///
/// # Safety
/// There is room for them.
unsafe fn write_padded<U: Copy + From<u8>>(to: *mut U, units: &[U], count: usize) {
    for index in 0..count {
        // SAFETY: by this function's contract.
        unsafe { to.wrapping_add(index).write(units.get(index).copied().unwrap_or(U::from(0))) };
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
                // SAFETY: the driver passes a string that ends in a zero.
                unsafe { units(String) }.len()
            }

            [ANY] silent fn $length_up_to(_call; String: *const $unit, Most: SIZE_T) -> SIZE_T {
                // SAFETY: as above.
                unsafe { units_up_to(String, Most) }.len()
            }

            [ANY] silent fn $compare(_call; One: *const $unit, Other: *const $unit) -> i32 {
                // SAFETY: as above.
                compare(unsafe { units(One) }, unsafe { units(Other) })
            }

            [ANY] silent fn $compare_up_to(_call; One: *const $unit, Other: *const $unit, Most: SIZE_T) -> i32 {
                // SAFETY: as above.
                compare(unsafe { units_up_to(One, Most) }, unsafe { units_up_to(Other, Most) })
            }

            [ANY] silent fn $compare_lower(_call; One: *const $unit, Other: *const $unit) -> i32 {
                // SAFETY: as above.
                compare_lower(unsafe { units(One) }, unsafe { units(Other) }, $lower)
            }

            [ANY] silent fn $compare_lower_up_to(_call; One: *const $unit, Other: *const $unit, Most: SIZE_T) -> i32 {
                // SAFETY: as above.
                compare_lower(unsafe { units_up_to(One, Most) }, unsafe { units_up_to(Other, Most) }, $lower)
            }

            [ANY] silent fn $copy(_call; To: *mut $unit, From: *const $unit) -> *mut $unit {
                // SAFETY: the driver passes a string, and room for it.
                unsafe { write(To, units(From)) };
                To
            }

            [ANY] silent fn $copy_up_to(_call; To: *mut $unit, From: *const $unit, Count: SIZE_T) -> *mut $unit {
                // SAFETY: as above.
                unsafe { write_padded(To, units_up_to(From, Count), Count) };
                To
            }

            [ANY] silent fn $append(_call; To: *mut $unit, From: *const $unit) -> *mut $unit {
                // SAFETY: as above.
                let end = To.wrapping_add(unsafe { units(To) }.len());
                // SAFETY: as above.
                unsafe { write(end, units(From)) };
                To
            }

            [ANY] silent fn $append_up_to(_call; To: *mut $unit, From: *const $unit, Count: SIZE_T) -> *mut $unit {
                // SAFETY: as above.
                let end = To.wrapping_add(unsafe { units(To) }.len());
                // SAFETY: as above.
                unsafe { write(end, units_up_to(From, Count)) };
                To
            }

            [ANY] silent fn $find(_call; String: *const $unit, Unit: $unit) -> *const $unit {
                // SAFETY: the driver passes a string that ends in a zero.
                find(String, unsafe { units(String) }, Unit, 0, false)
            }

            [ANY] silent fn $find_last(_call; String: *const $unit, Unit: $unit) -> *const $unit {
                // SAFETY: as above.
                find(String, unsafe { units(String) }, Unit, 0, true)
            }

            [ANY] silent fn $find_string(_call; String: *const $unit, Wanted: *const $unit) -> *const $unit {
                // SAFETY: as above.
                find_string(String, unsafe { units(String) }, unsafe { units(Wanted) })
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
