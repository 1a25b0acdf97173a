//! Memory, as compilers and headers ask for it. A bad address is an exception that the driver may handle.

use crate::exports::{ANY, image_exports};
use crate::image::host::guarded;
use crate::image::host::raise_bad_address;
use crate::machine::Call;
use ksync_sys::{PVOID, SIZE_T, ULONG};

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
