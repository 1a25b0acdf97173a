//! The rest of the C runtime that the kernel exports: classes of characters, numbers as text, searching and sorting, checked copies.

use super::memory::{Plain, clear, load, load_all, store, store_all};
use crate::exports::{ANY, image_exports};
use crate::image::call_through;
use crate::report::bug_check::{Violation, codes};
use ksync_sys::{PVOID, SIZE_T};
use std::ptr::{null, null_mut};

/// `errno_t` values of the checked functions.
const EINVAL: i32 = 22;
const ERANGE: i32 = 34;
/// The count that means "as much as there is room for".
const TRUNCATE: SIZE_T = SIZE_T::MAX;

/// Compares two elements: negative, 0 or positive.
type Compare = unsafe extern "system-unwind" fn(*const u8, *const u8) -> i32;

/// The number at the beginning of a text, as `atoi` reads it. What is too large wraps, which the standard leaves open.
fn number(units: &[u16]) -> i32 {
    let is_space = |unit: u16| unit == 32 || (9..=13).contains(&unit);
    let mut rest = units.iter().copied().skip_while(|&unit| is_space(unit)).peekable();
    let negative = rest.peek() == Some(&u16::from(b'-'));
    if negative || rest.peek() == Some(&u16::from(b'+')) {
        rest.next();
    }
    let digits = rest.map_while(|unit| char::from_u32(u32::from(unit))?.to_digit(10));
    let value = digits.fold(0_i32, |value, digit| value.wrapping_mul(10).wrapping_add(digit as i32));
    if negative { value.wrapping_neg() } else { value }
}

/// The number at the beginning of a text in a base, 0 for one that its prefix tells, and how many units it takes. What is too large is the largest.
fn unsigned(units: &[u16], base: i32) -> (u32, usize) {
    let is_space = |unit: u16| unit == 32 || (9..=13).contains(&unit);
    let byte = |at: usize| units.get(at).and_then(|&unit| u8::try_from(unit).ok()).unwrap_or(0);
    let mut at = units.iter().take_while(|&&unit| is_space(unit)).count();
    let negative = byte(at) == b'-';
    at += usize::from(matches!(byte(at), b'-' | b'+'));
    let prefixed = byte(at) == b'0' && matches!(byte(at + 1), b'x' | b'X') && byte(at + 2).is_ascii_hexdigit();
    let base = match base {
        0 if prefixed => 16,
        0 if byte(at) == b'0' => 8,
        0 => 10,
        2..=36 => base as u32,
        _ => return (0, 0),
    };
    at += if base == 16 && prefixed { 2 } else { 0 };
    let begin = at;
    let mut value = 0_u64;
    while let Some(digit) = char::from(byte(at)).to_digit(base) {
        value = (value * u64::from(base) + u64::from(digit)).min(u64::from(u32::MAX) + 1);
        at += 1;
    }
    if at == begin {
        return (0, 0);
    }
    let value = u32::try_from(value).map_or(u32::MAX, |value| if negative { value.wrapping_neg() } else { value });
    (value, at)
}

/// Gives the driver converted text, with a zero if there is room for one. Returns how long it is.
fn convert<U: Plain + From<u8>>(to: *mut U, text: &mut Vec<U>, most: SIZE_T) -> SIZE_T {
    let length = text.len();
    if to.is_null() {
        return length;
    }
    text.push(U::from(0));
    text.truncate(most);
    // SAFETY: the driver passes so much room.
    unsafe { store_all(to, text) };
    length.min(most)
}

/// The digits of a number. Only decimal numbers have a sign.
fn digits(value: i32, radix: i32) -> Vec<u8> {
    let radix = if (2..=36).contains(&radix) { radix as u32 } else { 10 };
    let negative = radix == 10 && value < 0;
    let mut rest = if negative { value.unsigned_abs() } else { value as u32 };
    let mut text = Vec::new();
    loop {
        text.push(char::from_digit(rest % radix, radix).map_or(b'?', |digit| digit as u8));
        rest /= radix;
        if rest == 0 {
            break;
        }
    }
    if negative {
        text.push(b'-');
    }
    text.reverse();
    text
}

/// The place of an element.
fn element(base: *mut u8, size: SIZE_T, index: SIZE_T) -> *mut u8 {
    base.wrapping_add(index.wrapping_mul(size))
}

/// Sorts in place: a heap, which needs no memory and whose calls of the driver's function are in the same order everywhere.
///
/// # Safety
/// The elements are there, and the driver vouches for its function.
unsafe fn sort(base: *mut u8, count: SIZE_T, size: SIZE_T, compare: Compare) {
    let less = |one: SIZE_T, other: SIZE_T| {
        let (one, other) = (element(base, size, one), element(base, size, other));
        // SAFETY: by this function's contract.
        (unsafe { call_through(compare, (one.cast_const(), other.cast_const()), || {}) }) < 0
    };
    let sift = |mut root: SIZE_T, end: SIZE_T| {
        loop {
            let mut child = root * 2 + 1;
            if child >= end {
                return;
            }
            if child + 1 < end && less(child, child + 1) {
                child += 1;
            }
            if !less(root, child) {
                return;
            }
            // SAFETY: both are elements, and different ones.
            unsafe { std::ptr::swap_nonoverlapping(element(base, size, root), element(base, size, child), size) };
            root = child;
        }
    };
    for root in (0..count / 2).rev() {
        sift(root, count);
    }
    for end in (1..count).rev() {
        // SAFETY: as above.
        unsafe { std::ptr::swap_nonoverlapping(base, element(base, size, end), size) };
        sift(0, end);
    }
}

/// A checked copy of memory.
///
/// # Safety
/// The driver vouches for what it passes.
unsafe fn copy_checked(to: *mut u8, room: SIZE_T, from: *const u8, bytes: SIZE_T) -> i32 {
    if bytes == 0 {
        return 0;
    }
    if to.is_null() || from.is_null() || room < bytes {
        if !to.is_null() {
            // SAFETY: by this function's contract there is so much room.
            unsafe { clear(to, room) };
        }
        return if to.is_null() || from.is_null() { EINVAL } else { ERANGE };
    }
    // SAFETY: as above.
    unsafe { store_all(to, &load_all(from, bytes)) };
    0
}

fn is(character: i32, class: impl Fn(&u8) -> bool) -> i32 {
    i32::from(u8::try_from(character).is_ok_and(|byte| class(&byte)))
}

image_exports! {
    [ANY] silent fn isdigit(_call; Character: i32) -> i32 { is(Character, u8::is_ascii_digit) }
    [ANY] silent fn islower(_call; Character: i32) -> i32 { is(Character, u8::is_ascii_lowercase) }
    [ANY] silent fn isupper(_call; Character: i32) -> i32 { is(Character, u8::is_ascii_uppercase) }
    [ANY] silent fn isxdigit(_call; Character: i32) -> i32 { is(Character, u8::is_ascii_hexdigit) }
    [ANY] silent fn isprint(_call; Character: i32) -> i32 { is(Character, |byte| (b' '..=b'~').contains(byte)) }
    [ANY] silent fn isspace(_call; Character: i32) -> i32 { is(Character, |byte| matches!(byte, b' ' | 9..=13)) }

    [ANY] silent fn atoi(_call; String: *const u8) -> i32 {
        number(&super::strings::units(String).into_iter().map(u16::from).collect::<Vec<_>>())
    }

    [ANY] silent fn atol(_call; String: *const u8) -> i32 {
        number(&super::strings::units(String).into_iter().map(u16::from).collect::<Vec<_>>())
    }

    [ANY] silent fn _wtoi(_call; String: *const u16) -> i32 {
        number(&super::strings::units(String))
    }

    [ANY] silent fn _wtol(_call; String: *const u16) -> i32 {
        number(&super::strings::units(String))
    }

    [ANY] silent fn _itoa(_call; Value: i32, Buffer: *mut u8, Radix: i32) -> *mut u8 {
        for (index, digit) in digits(Value, Radix).into_iter().chain([0]).enumerate() {
            // SAFETY: the driver passes room for the digits and the zero; here and below.
            unsafe { store(Buffer.wrapping_add(index), digit) };
        }
        Buffer
    }

    [ANY] silent fn _itow(_call; Value: i32, Buffer: *mut u16, Radix: i32) -> *mut u16 {
        for (index, digit) in digits(Value, Radix).into_iter().chain([0]).enumerate() {
            // SAFETY: as above.
            unsafe { store(Buffer.wrapping_add(index), u16::from(digit)) };
        }
        Buffer
    }

    [ANY] silent fn memchr(_call; Buffer: *const u8, Character: i32, Bytes: SIZE_T) -> *const u8 {
        let found = (0..Bytes).find(|&index| load(Buffer.wrapping_add(index)) == Character as u8);
        found.map_or(null(), |index| Buffer.wrapping_add(index))
    }

    [ANY] silent fn _purecall(call) {
        call.fail(Violation::boxed(codes::DRIVER_ENTRYPOINT_NOT_FOUND, [0; 4], "the driver called a pure virtual function"));
    }

    // The machine's code page is Latin-1. Without a buffer, the length is asked for.
    [ANY] silent fn wcstombs(_call; To: *mut u8, From: *const u16, Most: SIZE_T) -> SIZE_T {
        let units = super::strings::units(From);
        let Ok(mut bytes) = units.iter().map(|&unit| u8::try_from(unit)).collect::<Result<Vec<_>, _>>() else { return SIZE_T::MAX };
        convert(To, &mut bytes, Most)
    }

    [ANY] silent fn mbstowcs(_call; To: *mut u16, From: *const u8, Most: SIZE_T) -> SIZE_T {
        let mut units: Vec<u16> = super::strings::units(From).into_iter().map(u16::from).collect();
        convert(To, &mut units, Most)
    }

    [ANY] silent fn wcstoul(_call; String: *const u16, End: *mut usize, Base: i32) -> u32 {
        let units = super::strings::units(String);
        let (value, length) = unsigned(&units, Base);
        if !End.is_null() {
            // SAFETY: the driver passes null or a valid pointer.
            unsafe { store(End, String.wrapping_add(length).addr()) };
        }
        value
    }

    [ANY] silent fn _itoa_s(_call; Value: i32, Buffer: *mut u8, Room: SIZE_T, Radix: i32) -> i32 {
        let text = digits(Value, Radix);
        if Buffer.is_null() || Room == 0 || !(2..=36).contains(&Radix) {
            return EINVAL;
        }
        if text.len() >= Room {
            // SAFETY: as above; there is so much room.
            unsafe { store(Buffer, 0) };
            return ERANGE;
        }
        // SAFETY: as above.
        unsafe { super::strings::write(Buffer, &text) };
        0
    }

    [ANY] silent fn strtok_s(_call; String: *mut u8, Delimiters: *const u8, Rest: *mut usize) -> *mut u8 {
        if Delimiters.is_null() || Rest.is_null() {
            return null_mut();
        }
        let start = if String.is_null() { load(Rest.cast_const()) as *mut u8 } else { String };
        if start.is_null() {
            return null_mut();
        }
        let (set, text) = (super::strings::units(Delimiters), super::strings::units(start.cast_const()));
        let begin = text.iter().position(|byte| !set.contains(byte)).unwrap_or(text.len());
        let end = text[begin..].iter().position(|byte| set.contains(byte)).map(|length| begin + length);
        let rest = start.wrapping_add(end.map_or(text.len(), |end| end + 1));
        if let Some(end) = end {
            // SAFETY: the string is the driver's to change; here and below.
            unsafe { store(start.wrapping_add(end), 0) };
        }
        // SAFETY: as above.
        unsafe { store(Rest, rest.addr()) };
        if begin == text.len() { null_mut() } else { start.wrapping_add(begin) }
    }

    [ANY] silent fn memcpy_s(_call; To: *mut u8, Room: SIZE_T, From: *const u8, Bytes: SIZE_T) -> i32 {
        // SAFETY: the driver vouches for what it passes; here and below.
        unsafe { copy_checked(To, Room, From, Bytes) }
    }

    [ANY] silent fn memmove_s(_call; To: *mut u8, Room: SIZE_T, From: *const u8, Bytes: SIZE_T) -> i32 {
        // SAFETY: as above.
        unsafe { copy_checked(To, Room, From, Bytes) }
    }

    [ANY] silent fn qsort(_call; Base: PVOID, Count: SIZE_T, Size: SIZE_T, Compare: Compare) {
        // SAFETY: as above.
        unsafe { sort(Base.cast(), Count, Size, Compare) };
    }

    [ANY] silent fn bsearch(_call; Key: *const u8, Base: PVOID, Count: SIZE_T, Size: SIZE_T, Compare: Compare) -> PVOID {
        let (mut low, mut high) = (0, Count);
        while low < high {
            let middle = low + (high - low) / 2;
            let at = element(Base.cast(), Size, middle);
            // SAFETY: as above.
            match unsafe { call_through(Compare, (Key, at.cast_const()), || {}) } {
                0 => return at.cast(),
                ..0 => high = middle,
                1.. => low = middle + 1,
            }
        }
        null_mut()
    }

    [ANY] silent fn srand(call; Seed: u32) {
        call.cell.images.random.set(Some(Seed));
    }

    [ANY] silent fn rand(call) -> i32 {
        // A linear congruence, of which 15 bits come out. Without a seed it begins with 1.
        let random = &call.cell.images.random;
        let next = random.get().unwrap_or(1).wrapping_mul(1_103_515_245).wrapping_add(12_345);
        random.set(Some(next));
        (next >> 16 & 0x7fff) as i32
    }
}

/// How many units there are already.
fn used<U: Plain + PartialEq + From<u8>>(to: *const U, room: SIZE_T) -> SIZE_T {
    if to.is_null() {
        return 0;
    }
    super::strings::units_up_to(to, room).len()
}

/// Copies up to `count` units behind what is there already, and a zero.
///
/// # Safety
/// The driver vouches for what it passes.
unsafe fn append_checked<U: Plain + PartialEq + From<u8>>(
    to: *mut U,
    room: SIZE_T,
    used: SIZE_T,
    from: *const U,
    count: SIZE_T,
) -> i32 {
    if to.is_null() || room == 0 {
        return EINVAL;
    }
    let refuse = |why| {
        // SAFETY: by this function's contract.
        unsafe { store(to, U::from(0)) };
        why
    };
    if from.is_null() || used >= room {
        return refuse(EINVAL);
    }
    let units = super::strings::units_up_to(from, count);
    let left = room - used;
    let copied = if units.len() < left {
        &units[..]
    } else if count == TRUNCATE {
        &units[..left - 1]
    } else {
        return refuse(ERANGE);
    };
    // SAFETY: as above; there is room for the zero.
    unsafe { super::strings::write(to.wrapping_add(used), copied) };
    0
}

macro_rules! more_string_exports {
    ($unit:ty, $lower:ident, $upper:ident, $reverse:ident, $span:ident, $span_not:ident, $copy:ident, $copy_up_to:ident,
     $append:ident, $append_up_to:ident, $fold_lower:expr, $fold_upper:expr) => {
        image_exports! {
            [ANY] silent fn $lower(_call; String: *mut $unit) -> *mut $unit {
                for index in 0..units(String.cast_const()).len() {
                    let at = String.wrapping_add(index);
                    // SAFETY: as above.
                    unsafe { store(at, $fold_lower(load(at.cast_const()))) };
                }
                String
            }

            [ANY] silent fn $upper(_call; String: *mut $unit) -> *mut $unit {
                for index in 0..units(String.cast_const()).len() {
                    let at = String.wrapping_add(index);
                    // SAFETY: as above.
                    unsafe { store(at, $fold_upper(load(at.cast_const()))) };
                }
                String
            }

            [ANY] silent fn $reverse(_call; String: *mut $unit) -> *mut $unit {
                let reversed: Vec<_> = units(String.cast_const()).iter().rev().copied().collect();
                // SAFETY: as above: it is as long as the string.
                unsafe { write(String, &reversed) };
                String
            }

            [ANY] silent fn $span(_call; String: *const $unit, Set: *const $unit) -> SIZE_T {
                let set = units(Set);
                units(String).iter().take_while(|unit| set.contains(unit)).count()
            }

            [ANY] silent fn $span_not(_call; String: *const $unit, Set: *const $unit) -> SIZE_T {
                let set = units(Set);
                units(String).iter().take_while(|unit| !set.contains(unit)).count()
            }

            [ANY] silent fn $copy(_call; To: *mut $unit, Room: SIZE_T, From: *const $unit) -> i32 {
                // SAFETY: the driver vouches for what it passes; here and below.
                unsafe { append_checked(To, Room, 0, From, SIZE_T::MAX - 1) }
            }

            [ANY] silent fn $copy_up_to(_call; To: *mut $unit, Room: SIZE_T, From: *const $unit, Count: SIZE_T) -> i32 {
                // SAFETY: as above.
                unsafe { append_checked(To, Room, 0, From, Count) }
            }

            [ANY] silent fn $append(_call; To: *mut $unit, Room: SIZE_T, From: *const $unit) -> i32 {
                // SAFETY: as above.
                unsafe { append_checked(To, Room, used(To, Room), From, SIZE_T::MAX - 1) }
            }

            [ANY] silent fn $append_up_to(_call; To: *mut $unit, Room: SIZE_T, From: *const $unit, Count: SIZE_T) -> i32 {
                // SAFETY: as above.
                unsafe { append_checked(To, Room, used(To, Room), From, Count) }
            }
        }
    };
}

mod narrow {
    use super::super::strings::{units, write};
    use super::*;

    more_string_exports! {
        u8, _strlwr, _strupr, _strrev, strspn, strcspn, strcpy_s, strncpy_s, strcat_s, strncat_s,
        |unit: u8| unit.to_ascii_lowercase(), |unit: u8| unit.to_ascii_uppercase()
    }
}

mod wide {
    use super::super::strings::{lower_wide, units, upper_wide, write};
    use super::*;

    more_string_exports! {
        u16, _wcslwr, _wcsupr, _wcsrev, wcsspn, wcscspn, wcscpy_s, wcsncpy_s, wcscat_s, wcsncat_s,
        |unit: u16| lower_wide(&unit), |unit: u16| upper_wide(&unit)
    }
}

pub(super) use narrow::TABLE as NARROW;
pub(super) use wide::TABLE as WIDE;
