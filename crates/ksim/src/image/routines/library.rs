//! More of the run-time library: runs in bitmaps, strings, dates, random numbers; and lists of memory that are locked.

use super::bitmap::{Bitmap, Header, read};
use super::counted::{Bytes, MOST, append_bytes, narrow, set_length, upper, wide};
use super::memory::{Plain, load, store, store_all, store_string};
use crate::exports::{ANY, DISPATCHER, at_most, image_exports};
use crate::image::host::{guarded, raise_bad_address};
use crate::irql::DISPATCH_LEVEL;
use ksync_sys::{
    BOOLEAN, IoCreateSymbolicLink, KPROCESSOR_MODE, LARGE_INTEGER, LONG, MDL, MDL_MAPPED_TO_SYSTEM_VA, MDL_PAGES_LOCKED,
    MmMapLockedPagesSpecifyCache, NTSTATUS, PVOID, SIZE_T, STATUS_INVALID_PARAMETER, STATUS_SUCCESS, ULONG, UNICODE_STRING,
    USHORT,
};

const STATUS_NAME_TOO_LONG: NTSTATUS = 0xc000_0106_u32 as i32;
const PAGE: usize = 4096;
/// The size of a page's number in a list.
const PAGE_NUMBER: usize = 8;

/// RTL_BITMAP_RUN.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Run {
    start: ULONG,
    bits: ULONG,
}

impl Bitmap {
    /// All runs of clear bits, in order.
    fn clear_runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for index in (0..self.size).filter(|&index| !self.get(index)) {
            match runs.last_mut() {
                Some(run) if run.start + run.bits == index => run.bits += 1,
                _ => runs.push(Run { start: index, bits: 1 }),
            }
        }
        runs
    }
}

/// Gives the driver where a run begins, and returns how long it is; without one that is where the search began, and 0.
fn give_run(place: *mut ULONG, run: Option<Run>, from: ULONG) -> ULONG {
    let run = run.unwrap_or(Run { start: from, bits: 0 });
    // SAFETY: the driver passes a valid pointer.
    unsafe { store(place, run.start) };
    run.bits
}

fn next_run(bitmap: &Bitmap, from: ULONG) -> Option<Run> {
    let run = bitmap.clear_runs().into_iter().find(|run| run.start + run.bits > from)?;
    let start = run.start.max(from);
    Some(Run { start, bits: run.start + run.bits - start })
}

// SAFETY: two numbers.
unsafe impl Plain for Run {}

/// TIME_FIELDS.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct TimeFields {
    year: i16,
    month: i16,
    day: i16,
    hour: i16,
    minute: i16,
    second: i16,
    milliseconds: i16,
    weekday: i16,
}

// SAFETY: eight numbers.
unsafe impl Plain for TimeFields {}

const MILLISECOND: i64 = 10_000;
const DAY: i64 = 86_400_000;
/// From 1600-03-01, where the calendar's cycle of 400 years is counted from, to 1601-01-01: days.
const MARCH: i64 = 306;
const CYCLE: i64 = 146_097;

fn fields(time: i64) -> TimeFields {
    let milliseconds = time / MILLISECOND;
    let (days, rest) = (milliseconds / DAY, milliseconds % DAY);
    let since = days + MARCH;
    let (cycle, of_cycle) = (since / CYCLE, since % CYCLE);
    let year = (of_cycle - of_cycle / 1460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * year + year / 4 - year / 100);
    // Months are counted from March.
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    TimeFields {
        year: (1600 + cycle * 400 + year + i64::from(month <= 2)) as i16,
        month: month as i16,
        day: day as i16,
        hour: (rest / 3_600_000) as i16,
        minute: (rest / 60_000 % 60) as i16,
        second: (rest / 1000 % 60) as i16,
        milliseconds: (rest % 1000) as i16,
        // 1601-01-01 was a Monday.
        weekday: ((days + 1) % 7) as i16,
    }
}

/// The time of a date, if there is such a date.
fn time_of(fields: TimeFields) -> Option<i64> {
    let part = |value: i16, below: i16| (0..below).contains(&value).then_some(i64::from(value));
    let (hour, minute) = (part(fields.hour, 24)?, part(fields.minute, 60)?);
    let (second, milliseconds) = (part(fields.second, 60)?, part(fields.milliseconds, 1000)?);
    if fields.year < 1601 || !(1..=12).contains(&fields.month) || !(1..=31).contains(&fields.day) {
        return None;
    }
    let year = i64::from(fields.year) - i64::from(fields.month <= 2) - 1600;
    let month = i64::from((fields.month + 9) % 12);
    let of_year = (153 * month + 2) / 5 + i64::from(fields.day) - 1;
    let of_cycle = year % 400 * 365 + year % 400 / 4 - year % 400 / 100 + of_year;
    let days = year / 400 * CYCLE + of_cycle - MARCH;
    let time = (days * DAY + ((hour * 60 + minute) * 60 + second) * 1000 + milliseconds) * MILLISECOND;
    // A day that its month does not have comes back as another.
    (self::fields(time).day == fields.day).then_some(time)
}

/// How many pages a buffer touches.
fn pages(address: usize, bytes: usize) -> usize {
    (address % PAGE + bytes).div_ceil(PAGE)
}

image_exports! {
    [ANY] silent fn RtlFindNextForwardRunClear(
        _call; BitMapHeader: *const Header, FromIndex: ULONG, StartingRunIndex: *mut ULONG
    ) -> ULONG {
        give_run(StartingRunIndex, next_run(&read(BitMapHeader), FromIndex), FromIndex)
    }

    [ANY] silent fn RtlFindFirstRunClear(_call; BitMapHeader: *const Header, StartingIndex: *mut ULONG) -> ULONG {
        give_run(StartingIndex, next_run(&read(BitMapHeader), 0), 0)
    }

    [ANY] silent fn RtlFindLastBackwardRunClear(
        _call; BitMapHeader: *const Header, FromIndex: ULONG, StartingRunIndex: *mut ULONG
    ) -> ULONG {
        let runs = read(BitMapHeader).clear_runs();
        let run = runs.into_iter().rfind(|run| run.start <= FromIndex);
        let run = run.map(|run| Run { start: run.start, bits: run.bits.min(FromIndex - run.start + 1) });
        give_run(StartingRunIndex, run, FromIndex)
    }

    [ANY] silent fn RtlFindLongestRunClear(_call; BitMapHeader: *const Header, StartingIndex: *mut ULONG) -> ULONG {
        let runs = read(BitMapHeader).clear_runs();
        // The first of those that are equally long.
        give_run(StartingIndex, runs.into_iter().rev().max_by_key(|run| run.bits), 0)
    }

    [ANY] silent fn RtlFindClearRuns(
        _call; BitMapHeader: *const Header, RunArray: *mut Run, SizeOfRunArray: ULONG, LocateLongestRuns: BOOLEAN
    ) -> ULONG {
        let mut runs = read(BitMapHeader).clear_runs();
        if LocateLongestRuns != 0 {
            runs.sort_by_key(|run| std::cmp::Reverse(run.bits));
        }
        runs.truncate(SizeOfRunArray as usize);
        for (index, run) in runs.iter().enumerate() {
            // SAFETY: the driver passes room for so many.
            unsafe { store(RunArray.wrapping_add(index), *run) };
        }
        runs.len() as ULONG
    }

    [ANY] silent fn RtlFindLeastSignificantBit(_call; Set: u64) -> i8 {
        if Set == 0 { -1 } else { Set.trailing_zeros() as i8 }
    }

    [ANY] silent fn RtlFindMostSignificantBit(_call; Set: u64) -> i8 {
        if Set == 0 { -1 } else { Set.ilog2() as i8 }
    }

    [ANY] silent fn RtlNumberOfSetBitsUlongPtr(_call; Target: usize) -> ULONG {
        Target.count_ones()
    }

    [ANY] silent fn RtlCopyString(_call; DestinationString: *mut Bytes, SourceString: *const Bytes) {
        let source = if SourceString.is_null() { Vec::new() } else { narrow(SourceString) };
        let to = load(DestinationString.cast_const());
        let length = source.len().min(usize::from(to.MaximumLength));
        // SAFETY: there is so much room.
        unsafe { store_all(to.Buffer.cast::<u8>(), &source[..length]) };
        // SAFETY: the driver passes a valid string; here and below.
        unsafe { set_length(DestinationString, length) };
    }

    [ANY] silent fn RtlAppendAsciizToString(_call; Destination: *mut Bytes, Source: *const u8) -> NTSTATUS {
        if Source.is_null() {
            return STATUS_SUCCESS;
        }
        append_bytes(Destination, &super::strings::units(Source))
    }

    [ANY] silent fn RtlPrefixString(_call; String1: *const Bytes, String2: *const Bytes, CaseInSensitive: BOOLEAN) -> BOOLEAN {
        let prefix = narrow(String1);
        let whole = narrow(String2);
        let same = |one: &u8, other: &u8| one == other || CaseInSensitive != 0 && one.eq_ignore_ascii_case(other);
        BOOLEAN::from(prefix.len() <= whole.len() && prefix.iter().zip(&whole).all(|(one, other)| same(one, other)))
    }

    [ANY] silent fn RtlUpperChar(_call; Character: u8) -> u8 {
        Character.to_ascii_uppercase()
    }

    [ANY] silent fn RtlInitUnicodeStringEx(_call; DestinationString: *mut UNICODE_STRING, SourceString: *const u16) -> NTSTATUS {
        let bytes = if SourceString.is_null() {
            0
        } else {
            super::strings::units(SourceString).len() * 2
        };
        if bytes + 2 > MOST {
            return STATUS_NAME_TOO_LONG;
        }
        let maximum = if SourceString.is_null() { 0 } else { bytes + 2 };
        let string =
            UNICODE_STRING { Length: bytes as USHORT, MaximumLength: maximum as USHORT, Buffer: SourceString.cast_mut() };
        // SAFETY: the driver passes a valid pointer.
        unsafe { store_string(DestinationString, string) };
        STATUS_SUCCESS
    }

    [ANY] silent fn RtlHashUnicodeString(
        _call; String: *const UNICODE_STRING, CaseInSensitive: BOOLEAN, HashAlgorithm: ULONG, HashValue: *mut ULONG
    ) -> NTSTATUS {
        // The default, and the one that there is: HASH_STRING_ALGORITHM_X65599.
        if HashAlgorithm > 1 || String.is_null() || HashValue.is_null() {
            return STATUS_INVALID_PARAMETER;
        }
        let units = wide(String);
        let fold = |unit: u16| if CaseInSensitive == 0 { unit } else { upper(unit) };
        let hash = units.iter().fold(0_u32, |hash, &unit| hash.wrapping_mul(65_599).wrapping_add(u32::from(fold(unit))));
        // SAFETY: the driver passes a valid pointer.
        unsafe { store(HashValue, hash) };
        STATUS_SUCCESS
    }

    [ANY] silent fn RtlTimeToTimeFields(_call; Time: *const LARGE_INTEGER, TimeFields: *mut TimeFields) {
        let time = load(Time);
        // SAFETY: as above.
        unsafe { store(TimeFields, fields(time)) };
    }

    [ANY] silent fn RtlTimeFieldsToTime(_call; TimeFields: *const TimeFields, Time: *mut LARGE_INTEGER) -> BOOLEAN {
        let Some(time) = time_of(load(TimeFields)) else { return 0 };
        // SAFETY: as above.
        unsafe { store(Time, time) };
        1
    }

    [ANY] silent fn RtlRandomEx(_call; Seed: *mut ULONG) -> ULONG {
        // A Lehmer generator, as the page says: the multiplier and the step of RtlUniform.
        let seed = u64::from(load(Seed.cast_const()));
        let next = ((seed * 0x7fff_ffed + 0x7fff_ffc3) % 0x7fff_ffff) as ULONG;
        // SAFETY: as above.
        unsafe { store(Seed, next) };
        next
    }

    [at_most(0)] silent fn IoCreateUnprotectedSymbolicLink(
        _call; SymbolicLinkName: *const UNICODE_STRING, DeviceName: *const UNICODE_STRING
    ) -> NTSTATUS {
        // SAFETY: the same routine: nobody is kept from a link here.
        unsafe { IoCreateSymbolicLink(SymbolicLinkName.cast_mut(), DeviceName.cast_mut()) }
    }

    [ANY] silent fn MmSizeOfMdl(_call; Base: PVOID, Length: SIZE_T) -> SIZE_T {
        size_of::<MDL>() + pages(Base as usize, Length) * PAGE_NUMBER
    }

    [at_most(DISPATCH_LEVEL)] silent fn MmProbeAndLockPages(
        call; MemoryDescriptorList: *mut MDL, _AccessMode: KPROCESSOR_MODE, Operation: LONG
    ) {
        call.operate(|kernel| kernel.check_allocated(MemoryDescriptorList as usize));
        // SAFETY: the list is allocated.
        let mdl = unsafe { MemoryDescriptorList.read() };
        let start = mdl.StartVa as usize + mdl.ByteOffset as usize;
        let end = start + mdl.ByteCount as usize;
        let mut at = start;
        while at < end {
            let mut byte = 0_u8;
            // SAFETY: what is read goes to this function's own memory.
            let read = unsafe { guarded::copy(&raw mut byte, at as *const u8, 1) };
            // SAFETY: the byte is written as it was.
            let write = || unsafe { guarded::copy(at as *mut u8, &raw const byte, 1) };
            // IoReadAccess is 0: the others write.
            if let Err(bad) = read.and_then(|()| if Operation == 0 { Ok(()) } else { write() }) {
                raise_bad_address(call, bad);
            }
            at = (at & !(PAGE - 1)) + PAGE;
        }
        // SAFETY: as above.
        unsafe { (*MemoryDescriptorList).MdlFlags |= MDL_PAGES_LOCKED };
    }

    [DISPATCHER] silent fn MmUnlockPages(call; MemoryDescriptorList: *mut MDL) {
        call.operate(|kernel| kernel.check_allocated(MemoryDescriptorList as usize));
        // SAFETY: as above.
        unsafe { (*MemoryDescriptorList).MdlFlags &= !(MDL_PAGES_LOCKED | MDL_MAPPED_TO_SYSTEM_VA) };
    }

    [DISPATCHER] silent fn MmMapLockedPages(_call; MemoryDescriptorList: *mut MDL, AccessMode: KPROCESSOR_MODE) -> PVOID {
        // SAFETY: the same routine, which fails by a bug check here, as nothing fails.
        unsafe { MmMapLockedPagesSpecifyCache(MemoryDescriptorList, AccessMode, 1, std::ptr::null_mut(), 1, 16) }
    }

    [DISPATCHER] silent fn MmUnmapLockedPages(call; _BaseAddress: PVOID, MemoryDescriptorList: *mut MDL) {
        call.operate(|kernel| kernel.check_allocated(MemoryDescriptorList as usize));
        // SAFETY: as above.
        unsafe { (*MemoryDescriptorList).MdlFlags &= !MDL_MAPPED_TO_SYSTEM_VA };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_the_calendars() {
        let date = |year, month, day| TimeFields { year, month, day, hour: 1, minute: 2, second: 3, milliseconds: 4, weekday: 0 };
        // 1970-01-01 in 100 ns units since 1601, a Thursday.
        let unix = 116_444_736_000_000_000;
        assert_eq!((fields(unix).year, fields(unix).month, fields(unix).day, fields(unix).weekday), (1970, 1, 1, 4));
        assert_eq!(time_of(date(1970, 1, 1)), Some(unix + (3_723_004) * MILLISECOND));
        for (year, month, day) in [(1601, 1, 1), (1900, 2, 28), (2000, 2, 29), (2024, 2, 29), (2026, 12, 31), (2100, 3, 1)] {
            let there = fields(time_of(date(year, month, day)).expect("a date"));
            assert_eq!((there.year, there.month, there.day, there.milliseconds), (year, month, day, 4));
        }
        for (year, month, day) in [(1900, 2, 29), (2023, 2, 29), (2024, 4, 31), (1600, 1, 1), (2024, 13, 1), (2024, 1, 0)] {
            assert_eq!(time_of(date(year, month, day)), None, "{year}-{month}-{day}");
        }
        for day in 0..200_000_i64 {
            let time = day * DAY * MILLISECOND;
            assert_eq!(time_of(fields(time)), Some(time));
        }
    }
}
