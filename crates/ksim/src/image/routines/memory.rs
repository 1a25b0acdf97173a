//! Memory, as compilers and headers ask for it. A bad address is an exception that the driver may handle.

use crate::exports::{ANY, image_exports};
use crate::image::host::guarded;
use crate::image::host::raise_bad_address;
use crate::machine::{Call, current};
use ksync_sys::{LONG, LONGLONG, PVOID, SIZE_T, UCHAR, ULONG, ULONGLONG, UNICODE_STRING, USHORT};

/// What any bytes are one of.
///
/// # Safety
/// The type has no padding, and no invalid values.
pub(super) unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($type:ty)*) => {$(
        // SAFETY: numbers and pointers may be anything.
        unsafe impl Plain for $type {}
    )*};
}

plain! { UCHAR USHORT ULONG ULONGLONG LONG LONGLONG SIZE_T i16 }

/// A driver named a bad address: an exception in the driver.
fn raise(bad: guarded::BadAddress) -> ! {
    raise_bad_address(Call { cell: current("a routine of an image"), export: None }, bad)
}

/// What can be read from a driver's memory.
pub(super) trait Load: Sized {
    fn load_from(place: *const Self) -> Self;
}

impl<T: Plain> Load for T {
    fn load_from(place: *const Self) -> Self {
        let mut value = std::mem::MaybeUninit::<T>::uninit();
        // SAFETY: what is written is this function's own.
        match unsafe { guarded::copy(value.as_mut_ptr().cast(), place.cast(), size_of::<T>()) } {
            // SAFETY: the bytes are there, and any are a value.
            Ok(()) => unsafe { value.assume_init() },
            Err(bad) => raise(bad),
        }
    }
}

impl Load for UNICODE_STRING {
    fn load_from(place: *const Self) -> Self {
        let [length, maximum] = [0, 1].map(|index| load(place.cast::<USHORT>().wrapping_add(index)));
        let buffer = load(place.cast::<usize>().wrapping_add(1)) as *mut u16;
        Self { Length: length, MaximumLength: maximum, Buffer: buffer }
    }
}

/// Reads what a driver names. A null pointer, or another bad one, is an exception in the driver.
pub(super) fn load<T: Load>(from: *const T) -> T {
    T::load_from(from)
}

/// Writes a string's fields, as [`store`]: what is between them stays.
///
/// # Safety
/// As for [`store`].
pub(super) unsafe fn store_string(to: *mut UNICODE_STRING, string: UNICODE_STRING) {
    // SAFETY: by this function's contract; here and below.
    unsafe { store_all(to.cast::<USHORT>(), &[string.Length, string.MaximumLength]) };
    // SAFETY: as above.
    unsafe { store(to.cast::<usize>().wrapping_add(1), string.Buffer.addr()) };
}

/// Reads so many values in a row, as [`load`].
pub(super) fn load_all<T: Plain>(from: *const T, count: usize) -> Vec<T> {
    /// A count that is nonsense comes to memory that is not there before it comes to an allocation of that size.
    const AT_ONCE: usize = 4096;
    let mut values = Vec::<T>::new();
    while values.len() < count {
        let (done, part) = (values.len(), AT_ONCE.min(count - values.len()));
        values.reserve(part);
        let place = values.spare_capacity_mut().as_mut_ptr();
        // SAFETY: the vector has room for them.
        if let Err(bad) = unsafe { guarded::copy(place.cast(), from.wrapping_add(done).cast(), part * size_of::<T>()) } {
            drop(values);
            raise(bad);
        }
        // SAFETY: the bytes are there, and any are values.
        unsafe { values.set_len(done + part) };
    }
    values
}

/// Writes where a driver says. A null pointer, or another bad one, is an exception in the driver.
///
/// # Safety
/// Where the memory exists, it is the driver's to change.
pub(super) unsafe fn store<T: Plain>(to: *mut T, value: T) {
    // SAFETY: by this function's contract.
    unsafe { store_all(to, &[value]) };
}

/// Writes values in a row, as [`store`].
///
/// # Safety
/// As for [`store`].
pub(super) unsafe fn store_all<T: Plain>(to: *mut T, values: &[T]) {
    // SAFETY: by this function's contract.
    if let Err(bad) = unsafe { guarded::copy(to.cast(), values.as_ptr().cast(), size_of_val(values)) } {
        raise(bad);
    }
}

/// Fills bytes with zeros, as [`store`].
///
/// # Safety
/// As for [`store`].
pub(super) unsafe fn clear(to: *mut u8, bytes: usize) {
    // SAFETY: by this function's contract.
    if let Err(bad) = unsafe { guarded::fill(to, 0, bytes) } {
        raise(bad);
    }
}

fn copied(call: Call, to: PVOID, from: PVOID, bytes: SIZE_T) {
    // SAFETY: the driver vouches for what it writes.
    if let Err(bad) = unsafe { guarded::copy(to.cast(), from.cast(), bytes) } {
        raise_bad_address(call, bad);
    }
}

fn filled(call: Call, to: PVOID, value: u8, bytes: SIZE_T) {
    // SAFETY: the driver vouches for what it writes.
    if let Err(bad) = unsafe { guarded::fill(to.cast(), value, bytes) } {
        raise_bad_address(call, bad);
    }
}

/// How many bytes are equal, and the pair that is not.
fn equal(call: Call, one: PVOID, other: PVOID, bytes: SIZE_T) -> (SIZE_T, u8, u8) {
    const CHUNK: usize = 256;
    let (mut left, mut right) = ([0_u8; CHUNK], [0_u8; CHUNK]);
    let mut done = 0;
    while done < bytes {
        let size = CHUNK.min(bytes - done);
        copied(call, left.as_mut_ptr().cast(), one.wrapping_byte_add(done), size);
        copied(call, right.as_mut_ptr().cast(), other.wrapping_byte_add(done), size);
        if let Some(at) = (0..size).find(|&at| left[at] != right[at]) {
            return (done + at, left[at], right[at]);
        }
        done += size;
    }
    (bytes, 0, 0)
}

image_exports! {
    [ANY] silent fn memcpy(call; Destination: PVOID, Source: PVOID, Length: SIZE_T) -> PVOID {
        copied(call, Destination, Source, Length);
        Destination
    }

    [ANY] silent fn memmove(call; Destination: PVOID, Source: PVOID, Length: SIZE_T) -> PVOID {
        copied(call, Destination, Source, Length);
        Destination
    }

    [ANY] silent fn memset(call; Destination: PVOID, Value: i32, Length: SIZE_T) -> PVOID {
        filled(call, Destination, Value as u8, Length);
        Destination
    }

    [ANY] silent fn memcmp(call; One: PVOID, Other: PVOID, Length: SIZE_T) -> i32 {
        let (_, one, other) = equal(call, One, Other, Length);
        i32::from(one) - i32::from(other)
    }

    [ANY] silent fn RtlCopyMemory(call; Destination: PVOID, Source: PVOID, Length: SIZE_T) {
        copied(call, Destination, Source, Length);
    }

    [ANY] silent fn RtlCopyMemoryNonTemporal(call; Destination: PVOID, Source: PVOID, Length: SIZE_T) {
        copied(call, Destination, Source, Length);
    }

    [ANY] silent fn RtlMoveMemory(call; Destination: PVOID, Source: PVOID, Length: SIZE_T) {
        copied(call, Destination, Source, Length);
    }

    [ANY] silent fn RtlFillMemory(call; Destination: PVOID, Length: SIZE_T, Fill: u8) {
        filled(call, Destination, Fill, Length);
    }

    [ANY] silent fn RtlZeroMemory(call; Destination: PVOID, Length: SIZE_T) {
        filled(call, Destination, 0, Length);
    }

    [ANY] silent fn RtlCompareMemory(call; Source1: PVOID, Source2: PVOID, Length: SIZE_T) -> SIZE_T {
        equal(call, Source1, Source2, Length).0
    }

    [ANY] silent fn RtlCompareMemoryUlong(call; Source: PVOID, Length: SIZE_T, Pattern: ULONG) -> SIZE_T {
        let mut same = 0;
        while same + 4 <= Length {
            let mut word = [0_u8; 4];
            copied(call, word.as_mut_ptr().cast(), Source.wrapping_byte_add(same), 4);
            if u32::from_le_bytes(word) != Pattern {
                break;
            }
            same += 4;
        }
        same
    }
}
