//! More counted strings: made, compared, and converted between encodings; identifiers and times as numbers and text.

use super::counted::{Bytes, MOST, append_bytes, digits, narrow, set_length, upper, wide};
use super::memory::{load, load_all, store, store_all, store_string};
use super::strings::units;
use crate::engine::pool::PoolRequest;
use crate::exports::{ANY, PASSIVE, image_exports};
use crate::machine::Call;
use ksync_sys::{
    BOOLEAN, LARGE_INTEGER, LONG, NTSTATUS, PVOID, SIZE_T, STATUS_BUFFER_OVERFLOW, STATUS_BUFFER_TOO_SMALL,
    STATUS_INVALID_PARAMETER, STATUS_NO_MEMORY, STATUS_SUCCESS, ULONG, UNICODE_STRING, USHORT, WCHAR,
};

const TAG: ULONG = u32::from_le_bytes(*b"Strg");
const STATUS_SOME_NOT_MAPPED: NTSTATUS = 0x107;
/// What stands for a character that an encoding does not have.
const UNKNOWN: u8 = b'?';
/// 100 ns units.
const SECOND: i64 = 10_000_000;
/// From 1601 to 1970 and to 1980, in seconds.
const TO_1970: i64 = 11_644_473_600;
const TO_1980: i64 = 11_960_006_400;

/// The bytes of units in the machine's code page, which is Latin-1.
fn to_bytes(units: &[u16]) -> Vec<u8> {
    units.iter().map(|&unit| u8::try_from(unit).unwrap_or(UNKNOWN)).collect()
}

fn to_units(bytes: &[u8]) -> Vec<u16> {
    bytes.iter().map(|&byte| u16::from(byte)).collect()
}

/// A fresh string with its own buffer, which has a zero behind the units.
fn allocated(call: Call, to: *mut UNICODE_STRING, units: &[u16], zero: bool) -> NTSTATUS {
    let bytes = units.len() * 2;
    if bytes + 2 > MOST {
        return STATUS_INVALID_PARAMETER;
    }
    let size = bytes + if zero { 2 } else { 0 };
    let request = PoolRequest { size: size.max(2), tag: TAG, paged: true, zeroed: true };
    let memory = call.operate(|kernel| kernel.allocate_pool(request)).cast::<u16>();
    if memory.is_null() {
        return STATUS_NO_MEMORY;
    }
    // SAFETY: the block has room for them.
    unsafe { store_all(memory, units) };
    let string = UNICODE_STRING { Length: bytes as USHORT, MaximumLength: size as USHORT, Buffer: memory };
    // SAFETY: the driver passes memory for a string.
    unsafe { store_string(to, string) };
    STATUS_SUCCESS
}

/// Puts units into a string with a buffer of the driver's.
fn put(to: *mut UNICODE_STRING, units: &[u16]) -> NTSTATUS {
    let string = load(to.cast_const());
    let bytes = units.len() * 2;
    if bytes > usize::from(string.MaximumLength) {
        return STATUS_BUFFER_OVERFLOW;
    }
    // SAFETY: the string has room for them; here and below.
    unsafe { store_all(string.Buffer, units) };
    if bytes + 2 <= usize::from(string.MaximumLength) {
        // SAFETY: as above.
        unsafe { store(string.Buffer.wrapping_add(units.len()), 0) };
    }
    // SAFETY: as above.
    unsafe { set_length(to, bytes) };
    STATUS_SUCCESS
}

/// Writes what fits of some values, and how many bytes that is.
fn give<T: super::memory::Plain>(to: *mut T, room: ULONG, result: *mut ULONG, values: &[T]) -> bool {
    let kept = values.len().min(room as usize / size_of::<T>());
    // SAFETY: the driver passes so much room, and null or a valid pointer.
    unsafe { store_all(to, &values[..kept]) };
    if !result.is_null() {
        // SAFETY: as above.
        unsafe { store(result, (kept * size_of::<T>()) as ULONG) };
    }
    kept == values.len()
}

/// A GUID as text, in braces.
fn guid_text(guid: &[u8]) -> String {
    let number = |range: std::ops::Range<usize>| guid[range].iter().rev().map(|byte| format!("{byte:02X}")).collect::<String>();
    let tail = guid[10..].iter().map(|byte| format!("{byte:02X}")).collect::<String>();
    format!("{{{}-{}-{}-{:02X}{:02X}-{tail}}}", number(0..4), number(4..6), number(6..8), guid[8], guid[9])
}

/// The bytes of a GUID whose text that is.
fn guid_of(text: &str) -> Option<[u8; 16]> {
    let parts: Vec<_> = text.strip_prefix('{')?.strip_suffix('}')?.split('-').collect();
    if parts.iter().map(|part| part.len()).ne([8, 4, 4, 4, 12]) || !text.is_ascii() {
        return None;
    }
    let hex = parts.concat();
    let mut guid = [0; 16];
    for (index, byte) in guid.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[index * 2..index * 2 + 2], 16).ok()?;
    }
    guid[..4].reverse();
    guid[4..6].reverse();
    guid[6..8].reverse();
    Some(guid)
}

/// Seconds since a year, as they fit 32 bits.
fn seconds(time: *const LARGE_INTEGER, from_1601: i64, to: *mut ULONG) -> BOOLEAN {
    match ULONG::try_from(load(time) / SECOND - from_1601) {
        Ok(seconds) => {
            // SAFETY: the driver passes a valid pointer.
            unsafe { store(to, seconds) };
            1
        }
        Err(_) => 0,
    }
}

image_exports! {
    [ANY] silent fn RtlAppendStringToString(_call; Destination: *mut Bytes, Source: *const Bytes) -> NTSTATUS {
        append_bytes(Destination, &narrow(Source))
    }

    [PASSIVE] silent fn RtlCreateUnicodeString(call; DestinationString: *mut UNICODE_STRING, SourceString: *const WCHAR) -> BOOLEAN {
        BOOLEAN::from(allocated(call, DestinationString, &units(SourceString), true) == STATUS_SUCCESS)
    }

    [PASSIVE] silent fn RtlDuplicateUnicodeString(
        call; Flags: ULONG, StringIn: *const UNICODE_STRING, StringOut: *mut UNICODE_STRING
    ) -> NTSTATUS {
        const NULL_TERMINATE: ULONG = 1;
        const ALLOCATE_NULL_STRING: ULONG = 2;
        if Flags & !(NULL_TERMINATE | ALLOCATE_NULL_STRING) != 0 || Flags == ALLOCATE_NULL_STRING {
            return STATUS_INVALID_PARAMETER;
        }
        let units = wide(StringIn);
        if units.is_empty() && Flags & ALLOCATE_NULL_STRING == 0 {
            let empty = UNICODE_STRING { Length: 0, MaximumLength: 0, Buffer: std::ptr::null_mut() };
            // SAFETY: the driver passes memory for a string.
            unsafe { store_string(StringOut, empty) };
            return STATUS_SUCCESS;
        }
        allocated(call, StringOut, &units, Flags & NULL_TERMINATE != 0)
    }

    [ANY] silent fn RtlInitAnsiStringEx(_call; DestinationString: *mut Bytes, SourceString: *const u8) -> NTSTATUS {
        let length = if SourceString.is_null() { 0 } else { units(SourceString).len() };
        if length + 1 > MOST {
            return 0xc000_0106_u32 as NTSTATUS;
        }
        let maximum = if SourceString.is_null() { 0 } else { length + 1 };
        let string = Bytes { Length: length as USHORT, MaximumLength: maximum as USHORT, Buffer: SourceString.cast_mut().cast() };
        // SAFETY: the driver passes memory for a string.
        unsafe { store_string(DestinationString, string) };
        STATUS_SUCCESS
    }

    [PASSIVE] silent fn RtlCompareUnicodeStrings(
        _call; String1: *const WCHAR, String1Length: SIZE_T, String2: *const WCHAR, String2Length: SIZE_T, CaseInSensitive: BOOLEAN
    ) -> LONG {
        let fold = |unit: &u16| if CaseInSensitive == 0 { *unit } else { upper(*unit) };
        let (one, other) = (load_all(String1, String1Length), load_all(String2, String2Length));
        let differs = one.iter().map(fold).zip(other.iter().map(fold)).find(|(left, right)| left != right);
        differs.map_or(one.len() as LONG - other.len() as LONG, |(left, right)| LONG::from(left) - LONG::from(right))
    }

    [ANY] silent fn RtlUpperString(_call; DestinationString: *mut Bytes, SourceString: *const Bytes) {
        let source: Vec<u8> = narrow(SourceString).iter().map(u8::to_ascii_uppercase).collect();
        let to = load(DestinationString.cast_const());
        let length = source.len().min(usize::from(to.MaximumLength));
        // SAFETY: there is so much room; here and below.
        unsafe { store_all(to.Buffer.cast::<u8>(), &source[..length]) };
        // SAFETY: as above.
        unsafe { set_length(DestinationString, length) };
    }

    [PASSIVE] silent fn RtlDowncaseUnicodeString(
        call; DestinationString: *mut UNICODE_STRING, SourceString: *const UNICODE_STRING, AllocateDestinationString: BOOLEAN
    ) -> NTSTATUS {
        let units: Vec<u16> = wide(SourceString).into_iter().map(super::counted::lower).collect();
        if AllocateDestinationString != 0 {
            return allocated(call, DestinationString, &units, false);
        }
        put(DestinationString, &units)
    }

    [ANY] silent fn RtlAnsiCharToUnicodeChar(_call; SourceCharacter: *mut *const u8) -> WCHAR {
        let place = SourceCharacter.cast::<usize>();
        let at = load(place.cast_const()) as *const u8;
        // SAFETY: the driver passes a pointer to its pointer.
        unsafe { store(place, at.wrapping_add(1).addr()) };
        WCHAR::from(load(at))
    }

    [PASSIVE] silent fn RtlCharToInteger(_call; String: *const u8, Base: ULONG, Value: *mut ULONG) -> NTSTATUS {
        let Some(number) = super::counted::number(&to_units(&units(String)), Base) else { return STATUS_INVALID_PARAMETER };
        // SAFETY: the driver passes a valid pointer.
        unsafe { store(Value, number) };
        STATUS_SUCCESS
    }

    [PASSIVE] silent fn RtlInt64ToUnicodeString(_call; Value: u64, Base: ULONG, String: *mut UNICODE_STRING) -> NTSTATUS {
        digits(Value, Base).map_or(STATUS_INVALID_PARAMETER, |digits| put(String, &digits))
    }

    [PASSIVE] silent fn RtlStringFromGUID(call; Guid: *const u8, GuidString: *mut UNICODE_STRING) -> NTSTATUS {
        let text: Vec<u16> = guid_text(&load_all(Guid, 16)).encode_utf16().collect();
        allocated(call, GuidString, &text, true)
    }

    [PASSIVE] silent fn RtlGUIDFromString(_call; GuidString: *const UNICODE_STRING, Guid: *mut u8) -> NTSTATUS {
        let Some(guid) = guid_of(&String::from_utf16_lossy(&wide(GuidString))) else { return STATUS_INVALID_PARAMETER };
        // SAFETY: the driver passes memory for one.
        unsafe { store_all(Guid, &guid) };
        STATUS_SUCCESS
    }

    // The sizes are of the converted text with its zero.
    [ANY] silent fn RtlxUnicodeStringToAnsiSize(_call; UnicodeString: *const UNICODE_STRING) -> ULONG {
        ULONG::from(load(UnicodeString).Length) / 2 + 1
    }

    [ANY] silent fn RtlUnicodeStringToAnsiSize(_call; UnicodeString: *const UNICODE_STRING) -> ULONG {
        ULONG::from(load(UnicodeString).Length) / 2 + 1
    }

    [ANY] silent fn RtlxAnsiStringToUnicodeSize(_call; AnsiString: *const Bytes) -> ULONG {
        ULONG::from(load(AnsiString).Length) * 2 + 2
    }

    [ANY] silent fn RtlAnsiStringToUnicodeSize(_call; AnsiString: *const Bytes) -> ULONG {
        ULONG::from(load(AnsiString).Length) * 2 + 2
    }

    [PASSIVE] silent fn RtlUnicodeToMultiByteN(
        _call; MultiByteString: *mut u8, MaxBytes: ULONG, ResultSize: *mut ULONG, UnicodeString: *const WCHAR, BytesInUnicode: ULONG
    ) -> NTSTATUS {
        give(MultiByteString, MaxBytes, ResultSize, &to_bytes(&load_all(UnicodeString, BytesInUnicode as usize / 2)));
        STATUS_SUCCESS
    }

    [PASSIVE] silent fn RtlMultiByteToUnicodeN(
        _call; UnicodeString: *mut WCHAR, MaxBytes: ULONG, ResultSize: *mut ULONG, MultiByteString: *const u8, BytesInMulti: ULONG
    ) -> NTSTATUS {
        give(UnicodeString, MaxBytes, ResultSize, &to_units(&load_all(MultiByteString, BytesInMulti as usize)));
        STATUS_SUCCESS
    }

    [PASSIVE] silent fn RtlUnicodeToMultiByteSize(_call; Size: *mut ULONG, _UnicodeString: *const WCHAR, BytesInUnicode: ULONG) -> NTSTATUS {
        // SAFETY: the driver passes a valid pointer.
        unsafe { store(Size, BytesInUnicode / 2) };
        STATUS_SUCCESS
    }

    [PASSIVE] silent fn RtlMultiByteToUnicodeSize(_call; Size: *mut ULONG, _MultiByteString: *const u8, BytesInMulti: ULONG) -> NTSTATUS {
        // SAFETY: the driver passes a valid pointer.
        unsafe { store(Size, BytesInMulti * 2) };
        STATUS_SUCCESS
    }

    [PASSIVE] silent fn RtlUnicodeToUTF8N(
        _call; Utf8String: *mut u8, MaxBytes: ULONG, ResultSize: *mut ULONG, UnicodeString: *const WCHAR, BytesInUnicode: ULONG
    ) -> NTSTATUS {
        let units = load_all(UnicodeString, BytesInUnicode as usize / 2);
        let whole = String::from_utf16(&units).is_ok();
        let text = String::from_utf16_lossy(&units);
        if Utf8String.is_null() {
            // SAFETY: the driver passes a valid pointer, as it asks for the size alone.
            unsafe { store(ResultSize, text.len() as ULONG) };
        } else {
            // A character that does not fit is left out whole.
            let kept = (0..=text.len().min(MaxBytes as usize)).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
            give(Utf8String, MaxBytes, ResultSize, &text.as_bytes()[..kept]);
            if kept < text.len() {
                return STATUS_BUFFER_TOO_SMALL;
            }
        }
        if whole { STATUS_SUCCESS } else { STATUS_SOME_NOT_MAPPED }
    }

    [PASSIVE] silent fn RtlUTF8ToUnicodeN(
        _call; UnicodeString: *mut WCHAR, MaxBytes: ULONG, ResultSize: *mut ULONG, Utf8String: *const u8, BytesInUtf8: ULONG
    ) -> NTSTATUS {
        let bytes = load_all(Utf8String, BytesInUtf8 as usize);
        let whole = std::str::from_utf8(&bytes).is_ok();
        let units: Vec<u16> = String::from_utf8_lossy(&bytes).encode_utf16().collect();
        if UnicodeString.is_null() {
            // SAFETY: as above.
            unsafe { store(ResultSize, (units.len() * 2) as ULONG) };
        } else if !give(UnicodeString, MaxBytes, ResultSize, &units) {
            return STATUS_BUFFER_TOO_SMALL;
        }
        if whole { STATUS_SUCCESS } else { STATUS_SOME_NOT_MAPPED }
    }

    [PASSIVE] silent fn RtlValidateUnicodeString(_call; Flags: ULONG, String: *const UNICODE_STRING) -> NTSTATUS {
        if Flags != 0 {
            return STATUS_INVALID_PARAMETER;
        }
        if String.is_null() {
            return STATUS_SUCCESS;
        }
        let string = load(String);
        let whole = string.Length.is_multiple_of(2) && string.MaximumLength.is_multiple_of(2);
        let without = string.Buffer.is_null() && (string.Length != 0 || string.MaximumLength != 0);
        if !whole || without || string.Length > string.MaximumLength { STATUS_INVALID_PARAMETER } else { STATUS_SUCCESS }
    }

    [ANY] silent fn RtlTimeToSecondsSince1970(_call; Time: *const LARGE_INTEGER, ElapsedSeconds: *mut ULONG) -> BOOLEAN {
        seconds(Time, TO_1970, ElapsedSeconds)
    }

    [ANY] silent fn RtlTimeToSecondsSince1980(_call; Time: *const LARGE_INTEGER, ElapsedSeconds: *mut ULONG) -> BOOLEAN {
        seconds(Time, TO_1980, ElapsedSeconds)
    }

    [ANY] silent fn RtlSecondsSince1970ToTime(_call; ElapsedSeconds: ULONG, Time: *mut LARGE_INTEGER) {
        // SAFETY: the driver passes a valid pointer; here and below.
        unsafe { store(Time, (i64::from(ElapsedSeconds) + TO_1970) * SECOND) };
    }

    [ANY] silent fn RtlSecondsSince1980ToTime(_call; ElapsedSeconds: ULONG, Time: *mut LARGE_INTEGER) {
        // SAFETY: as above.
        unsafe { store(Time, (i64::from(ElapsedSeconds) + TO_1980) * SECOND) };
    }

    // The caches of a processor are not simulated.
    [ANY] silent fn RtlPrefetchMemoryNonTemporal(_call; _Source: PVOID, _Length: SIZE_T) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guids_are_written_and_read() {
        let guid: Vec<u8> = (1..=16).collect();
        let text = guid_text(&guid);
        assert_eq!(text, "{04030201-0605-0807-090A-0B0C0D0E0F10}");
        assert_eq!(guid_of(&text).map(Vec::from), Some(guid));
        assert_eq!(guid_of("{04030201-0605-0807-090A-0B0C0D0E0F1}"), None);
        assert_eq!(guid_of("{0403020x-0605-0807-090A-0B0C0D0E0F10}"), None);
    }
}
