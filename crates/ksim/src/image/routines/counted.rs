//! Counted strings: `Rtl...String`.

use super::memory::{load, load_all, store, store_all, store_string};
use crate::engine::pool::PoolRequest;
use crate::exports::{ANY, PASSIVE, image_exports};
use crate::machine::Call;
use ksync_sys::{
    BOOLEAN, LONG, NTSTATUS, STATUS_BUFFER_OVERFLOW, STATUS_BUFFER_TOO_SMALL, STATUS_INVALID_PARAMETER, STATUS_NO_MEMORY,
    STATUS_SUCCESS, ULONG, UNICODE_STRING, USHORT, WCHAR,
};
use std::ptr::null_mut;

/// The tag of buffers that these routines allocate.
const TAG: ULONG = u32::from_le_bytes(*b"Strg");
/// The most bytes of a counted string: an even number below 64 Ki.
pub(super) const MOST: usize = 0xfffe;

/// STRING and its like: a UNICODE_STRING of bytes.
pub(super) type Bytes = UNICODE_STRING;

/// The units of a string.
pub(super) fn wide(string: *const UNICODE_STRING) -> Vec<u16> {
    let string = load(string);
    if string.Buffer.is_null() { Vec::new() } else { load_all(string.Buffer.cast_const(), usize::from(string.Length) / 2) }
}

/// The bytes of a string.
pub(super) fn narrow(string: *const Bytes) -> Vec<u8> {
    let string = load(string);
    if string.Buffer.is_null() { Vec::new() } else { load_all(string.Buffer.cast_const().cast(), usize::from(string.Length)) }
}

/// Says how long a string is.
///
/// # Safety
/// The driver passes a string, or a bad address.
pub(super) unsafe fn set_length(string: *mut UNICODE_STRING, bytes: usize) {
    const _: () = assert!(std::mem::offset_of!(UNICODE_STRING, Length) == 0);
    // SAFETY: by this function's contract.
    unsafe { store(string.cast::<USHORT>(), bytes as USHORT) };
}

/// Appends bytes, and never a zero.
pub(super) fn append_bytes(string: *mut Bytes, bytes: &[u8]) -> NTSTATUS {
    let to = load(string.cast_const());
    let (length, maximum) = (usize::from(to.Length), usize::from(to.MaximumLength));
    if length + bytes.len() > maximum {
        return STATUS_BUFFER_TOO_SMALL;
    }
    // SAFETY: there is so much room, or the driver's string has a bad address.
    unsafe { store_all(to.Buffer.cast::<u8>().wrapping_add(length), bytes) };
    // SAFETY: the driver passes a string, or a bad address.
    unsafe { set_length(string, length + bytes.len()) };
    STATUS_SUCCESS
}

pub(super) fn upper(unit: u16) -> u16 {
    let mut upper = char::from_u32(u32::from(unit)).map(char::to_uppercase).into_iter().flatten();
    match (upper.next(), upper.next()) {
        // A unit stays a unit.
        (Some(one), None) => u16::try_from(u32::from(one)).unwrap_or(unit),
        _ => unit,
    }
}

pub(super) fn lower(unit: u16) -> u16 {
    let mut lower = char::from_u32(u32::from(unit)).map(char::to_lowercase).into_iter().flatten();
    match (lower.next(), lower.next()) {
        (Some(one), None) => u16::try_from(u32::from(one)).unwrap_or(unit),
        _ => unit,
    }
}

/// NT's comparison: the difference of the first units that differ, or of the lengths.
fn compare<U: Copy + Into<i32>>(one: &[U], other: &[U], fold: impl Fn(U) -> U) -> LONG {
    for (left, right) in one.iter().zip(other) {
        let (left, right): (i32, i32) = (fold(*left).into(), fold(*right).into());
        if left != right {
            return left - right;
        }
    }
    one.len() as LONG - other.len() as LONG
}

fn compare_wide(one: *const UNICODE_STRING, other: *const UNICODE_STRING, insensitive: BOOLEAN) -> LONG {
    let (one, other) = (wide(one), wide(other));
    if insensitive == 0 { compare(&one, &other, |unit| unit) } else { compare(&one, &other, upper) }
}

fn compare_narrow(one: *const Bytes, other: *const Bytes, insensitive: BOOLEAN) -> LONG {
    let (one, other) = (narrow(one), narrow(other));
    if insensitive == 0 { compare(&one, &other, |unit| unit) } else { compare(&one, &other, |unit| unit.to_ascii_uppercase()) }
}

/// Appends units, and a zero if there is room.
fn append(to: *mut UNICODE_STRING, units: &[u16]) -> NTSTATUS {
    let string = load(to.cast_const());
    let (length, maximum) = (usize::from(string.Length), usize::from(string.MaximumLength));
    let end = length + units.len() * 2;
    if end > maximum {
        return STATUS_BUFFER_TOO_SMALL;
    }
    let place = string.Buffer.wrapping_add(length / 2);
    // SAFETY: the string has room for them.
    unsafe { store_all(place, units) };
    if end + 2 <= maximum {
        // SAFETY: as above.
        unsafe { store(place.wrapping_add(units.len()), 0) };
    }
    // SAFETY: the driver passes a valid string.
    unsafe { set_length(to, end) };
    STATUS_SUCCESS
}

/// A buffer for a string, or the driver's own.
fn buffer(call: Call, to: *mut UNICODE_STRING, bytes: usize, allocate: BOOLEAN) -> Result<(), NTSTATUS> {
    if bytes > MOST {
        return Err(STATUS_INVALID_PARAMETER);
    }
    if allocate == 0 {
        let maximum = load(to.cast_const()).MaximumLength;
        return if bytes <= usize::from(maximum) { Ok(()) } else { Err(STATUS_BUFFER_OVERFLOW) };
    }
    let request = PoolRequest { size: bytes, tag: TAG, paged: true, zeroed: false };
    let memory = call.operate(|kernel| kernel.allocate_pool(request));
    if memory.is_null() {
        return Err(STATUS_NO_MEMORY);
    }
    let string = UNICODE_STRING { Length: 0, MaximumLength: bytes as USHORT, Buffer: memory.cast() };
    // SAFETY: as above.
    unsafe { store_string(to, string) };
    Ok(())
}

fn free(call: Call, string: *mut UNICODE_STRING) {
    let memory = load(string.cast_const()).Buffer;
    if !memory.is_null() {
        call.operate(|kernel| kernel.free_pool(memory as usize, 0));
        // SAFETY: as above.
        unsafe { store_string(string, UNICODE_STRING { Length: 0, MaximumLength: 0, Buffer: null_mut() }) };
    }
}

/// Digits of a number in one of the bases that NT knows.
pub(super) fn digits(mut value: u64, base: ULONG) -> Option<Vec<u16>> {
    let base = match base {
        0 => 10,
        2 | 8 | 10 | 16 => base,
        _ => return None,
    };
    let mut digits = Vec::new();
    loop {
        digits.push(char::from_digit((value % u64::from(base)) as u32, base)?.to_ascii_uppercase() as u16);
        value /= u64::from(base);
        if value == 0 {
            digits.reverse();
            return Some(digits);
        }
    }
}

/// The number that a text begins with, as C writes numbers.
pub(super) fn number(units: &[u16], base: ULONG) -> Option<ULONG> {
    let text = String::from_utf16_lossy(units);
    let text = text.trim_start_matches(|character| character <= ' ');
    let (negative, text) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (base, text) = match (base, text.get(..2)) {
        (0, Some("0x")) => (16, &text[2..]),
        (0, Some("0o")) => (8, &text[2..]),
        (0, Some("0b")) => (2, &text[2..]),
        (0, _) => (10, text),
        (2 | 8 | 10 | 16, _) => (base, text),
        _ => return None,
    };
    let value = text
        .chars()
        .map_while(|digit| digit.to_digit(base))
        .fold(0_u32, |value, digit| value.wrapping_mul(base).wrapping_add(digit));
    Some(if negative { value.wrapping_neg() } else { value })
}

image_exports! {
    [ANY] silent fn RtlInitString(_call; DestinationString: *mut Bytes, SourceString: *const u8) {
        let length = if SourceString.is_null() {
            0
        } else {
            super::strings::units(SourceString).len().min(MOST - 1)
        };
        let maximum = if SourceString.is_null() { 0 } else { length + 1 };
        let string = Bytes { Length: length as USHORT, MaximumLength: maximum as USHORT, Buffer: SourceString.cast_mut().cast() };
        // SAFETY: the driver passes a valid pointer.
        unsafe { store_string(DestinationString, string) };
    }

    [ANY] silent fn RtlInitAnsiString(_call; DestinationString: *mut Bytes, SourceString: *const u8) {
        // SAFETY: the same routine by another name.
        unsafe { RtlInitString(DestinationString, SourceString) };
    }

    [ANY] silent fn RtlCopyUnicodeString(_call; DestinationString: *mut UNICODE_STRING, SourceString: *const UNICODE_STRING) {
        // SAFETY: the driver passes valid strings.
        unsafe { set_length(DestinationString, 0) };
        if SourceString.is_null() {
            return;
        }
        let (units, maximum) = (wide(SourceString), load(DestinationString.cast_const()).MaximumLength);
        append(DestinationString, &units[..units.len().min(usize::from(maximum) / 2)]);
    }

    [ANY] silent fn RtlAppendUnicodeStringToString(
        _call; Destination: *mut UNICODE_STRING, Source: *const UNICODE_STRING
    ) -> NTSTATUS {
        append(Destination, &wide(Source))
    }

    [ANY] silent fn RtlAppendUnicodeToString(_call; Destination: *mut UNICODE_STRING, Source: *const WCHAR) -> NTSTATUS {
        if Source.is_null() {
            return STATUS_SUCCESS;
        }
        append(Destination, &super::strings::units(Source))
    }

    [PASSIVE] silent fn RtlCompareUnicodeString(
        _call; String1: *const UNICODE_STRING, String2: *const UNICODE_STRING, CaseInSensitive: BOOLEAN
    ) -> LONG {
        compare_wide(String1, String2, CaseInSensitive)
    }

    [PASSIVE] silent fn RtlEqualUnicodeString(
        _call; String1: *const UNICODE_STRING, String2: *const UNICODE_STRING, CaseInSensitive: BOOLEAN
    ) -> BOOLEAN {
        BOOLEAN::from(compare_wide(String1, String2, CaseInSensitive) == 0)
    }

    [PASSIVE] silent fn RtlPrefixUnicodeString(
        _call; String1: *const UNICODE_STRING, String2: *const UNICODE_STRING, CaseInSensitive: BOOLEAN
    ) -> BOOLEAN {
        let prefix = wide(String1);
        let whole = wide(String2);
        let Some(begin) = whole.get(..prefix.len()) else { return 0 };
        let fold = |unit: &u16| if CaseInSensitive == 0 { *unit } else { upper(*unit) };
        BOOLEAN::from(prefix.iter().map(fold).eq(begin.iter().map(fold)))
    }

    [PASSIVE] silent fn RtlCompareString(_call; String1: *const Bytes, String2: *const Bytes, CaseInSensitive: BOOLEAN) -> LONG {
        compare_narrow(String1, String2, CaseInSensitive)
    }

    [PASSIVE] silent fn RtlEqualString(_call; String1: *const Bytes, String2: *const Bytes, CaseInSensitive: BOOLEAN) -> BOOLEAN {
        BOOLEAN::from(compare_narrow(String1, String2, CaseInSensitive) == 0)
    }

    [PASSIVE] silent fn RtlUpcaseUnicodeChar(_call; SourceCharacter: WCHAR) -> WCHAR {
        upper(SourceCharacter)
    }

    [PASSIVE] silent fn RtlDowncaseUnicodeChar(_call; SourceCharacter: WCHAR) -> WCHAR {
        lower(SourceCharacter)
    }

    [PASSIVE] silent fn RtlUpcaseUnicodeString(
        call; DestinationString: *mut UNICODE_STRING, SourceString: *const UNICODE_STRING, AllocateDestinationString: BOOLEAN
    ) -> NTSTATUS {
        let units: Vec<u16> = wide(SourceString).iter().map(|unit| upper(*unit)).collect();
        if let Err(status) = buffer(call, DestinationString, units.len() * 2, AllocateDestinationString) {
            return status;
        }
        // SAFETY: as above.
        unsafe { set_length(DestinationString, 0) };
        append(DestinationString, &units)
    }

    [PASSIVE] silent fn RtlAnsiStringToUnicodeString(
        call; DestinationString: *mut UNICODE_STRING, SourceString: *const Bytes, AllocateDestinationString: BOOLEAN
    ) -> NTSTATUS {
        let units: Vec<u16> = narrow(SourceString).iter().map(|byte| u16::from(*byte)).collect();
        if let Err(status) = buffer(call, DestinationString, units.len() * 2 + 2, AllocateDestinationString) {
            return status;
        }
        // SAFETY: as above.
        unsafe { set_length(DestinationString, 0) };
        append(DestinationString, &units)
    }

    [PASSIVE] silent fn RtlUnicodeStringToAnsiString(
        call; DestinationString: *mut Bytes, SourceString: *const UNICODE_STRING, AllocateDestinationString: BOOLEAN
    ) -> NTSTATUS {
        let bytes: Vec<u8> = wide(SourceString).iter().map(|unit| u8::try_from(*unit).unwrap_or(b'?')).collect();
        if let Err(status) = buffer(call, DestinationString, bytes.len() + 1, AllocateDestinationString) {
            return status;
        }
        let place: *mut u8 = load(DestinationString.cast_const()).Buffer.cast();
        // SAFETY: there is room for them, and for a zero.
        unsafe { store_all(place, &bytes) };
        // SAFETY: as above.
        unsafe { store(place.wrapping_add(bytes.len()), 0) };
        // SAFETY: as above.
        unsafe { set_length(DestinationString, bytes.len()) };
        STATUS_SUCCESS
    }

    [PASSIVE] silent fn RtlFreeUnicodeString(call; UnicodeString: *mut UNICODE_STRING) {
        free(call, UnicodeString);
    }

    [PASSIVE] silent fn RtlFreeAnsiString(call; AnsiString: *mut Bytes) {
        free(call, AnsiString);
    }

    [PASSIVE] silent fn RtlIntegerToUnicodeString(_call; Value: ULONG, Base: ULONG, String: *mut UNICODE_STRING) -> NTSTATUS {
        let Some(digits) = digits(Value.into(), Base) else { return STATUS_INVALID_PARAMETER };
        let maximum = load(String.cast_const()).MaximumLength;
        if digits.len() * 2 > usize::from(maximum) {
            return STATUS_BUFFER_OVERFLOW;
        }
        // SAFETY: as above.
        unsafe { set_length(String, 0) };
        append(String, &digits)
    }

    [PASSIVE] silent fn RtlUnicodeStringToInteger(
        _call; String: *const UNICODE_STRING, Base: ULONG, Value: *mut ULONG
    ) -> NTSTATUS {
        let Some(number) = number(&wide(String), Base) else { return STATUS_INVALID_PARAMETER };
        // SAFETY: the driver passes a valid pointer.
        unsafe { store(Value, number) };
        STATUS_SUCCESS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(text: &str) -> Vec<u16> {
        text.encode_utf16().collect()
    }

    #[test]
    fn numbers_are_written_and_read_in_nts_bases() {
        assert_eq!(digits(0, 0), Some(units("0")));
        assert_eq!(digits(0xbeef, 16), Some(units("BEEF")));
        assert_eq!(digits(5, 2), Some(units("101")));
        assert_eq!(digits(5, 3), None);
        assert_eq!(number(&units("  -12rest"), 10), Some(12_u32.wrapping_neg()));
        assert_eq!(number(&units("0x1F"), 0), Some(31));
        assert_eq!(number(&units("0b101"), 0), Some(5));
        assert_eq!(number(&units(""), 0), Some(0));
        assert_eq!(number(&units("1"), 7), None);
    }

    #[test]
    fn strings_compare_as_nt_does() {
        assert_eq!(compare(&units("ab"), &units("abc"), |unit| unit), -1);
        assert_eq!(compare(&units("a"), &units("B"), |unit| unit), i32::from(b'a') - i32::from(b'B'));
        assert_eq!(compare(&units("straße"), &units("STRAßE"), upper), 0);
        assert_eq!((upper(0xe9), lower(0xc9)), (0xc9, 0xe9));
    }
}
