//! Bitmaps: `RTL_BITMAP`.

use super::memory::{Load, load, load_all, store, store_all};
use crate::exports::{ANY, image_exports};
use ksync_sys::{BOOLEAN, ULONG};

/// RTL_BITMAP.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    size: ULONG,
    words: *mut ULONG,
}

impl Load for Header {
    fn load_from(place: *const Self) -> Self {
        let words = load(place.cast::<usize>().wrapping_add(1)) as *mut ULONG;
        Self { size: load(place.cast::<ULONG>()), words }
    }
}

/// A bitmap: its place, and its words as they were read.
#[derive(Debug)]
pub(super) struct Bitmap {
    pub(super) size: ULONG,
    place: *mut ULONG,
    words: Vec<ULONG>,
}

/// What routines return that find nothing.
const NOTHING: ULONG = ULONG::MAX;

/// Reads a bitmap.
pub(super) fn read(bitmap: *const Header) -> Bitmap {
    let Header { size, words: place } = load(bitmap);
    Bitmap { size, place, words: load_all(place.cast_const(), size.div_ceil(32) as usize) }
}

impl Bitmap {
    pub(super) fn get(&self, index: ULONG) -> bool {
        self.words[index as usize / 32] >> (index % 32) & 1 != 0
    }

    fn fill(&mut self, start: ULONG, count: ULONG, value: bool) {
        let end = start.saturating_add(count).min(self.size);
        if start >= end {
            return;
        }
        for index in start..end {
            let (word, mask) = (&mut self.words[index as usize / 32], 1 << (index % 32));
            *word = if value { *word | mask } else { *word & !mask };
        }
        let (first, last) = (start as usize / 32, (end - 1) as usize / 32);
        // SAFETY: these are words of the driver's bitmap.
        unsafe { store_all(self.place.wrapping_add(first), &self.words[first..=last]) };
    }

    fn all(&self, start: ULONG, count: ULONG, value: bool) -> bool {
        let end = start.checked_add(count).filter(|&end| end <= self.size && count != 0);
        end.is_some_and(|end| (start..end).all(|index| self.get(index) == value))
    }

    fn count(&self, value: bool) -> ULONG {
        (0..self.size).filter(|&index| self.get(index) == value).count() as ULONG
    }

    /// The first run of so many bits from a hint on, or else from the beginning.
    fn find(&self, count: ULONG, hint: ULONG, value: bool) -> ULONG {
        let hint = if hint < self.size { hint } else { 0 };
        if count == 0 {
            return hint & !7;
        }
        let search = |from: ULONG| {
            let mut run = 0;
            (from..self.size).find_map(|index| {
                run = if self.get(index) == value { run + 1 } else { 0 };
                (run == count).then(|| index + 1 - count)
            })
        };
        search(hint).or_else(|| search(0)).unwrap_or(NOTHING)
    }
}

image_exports! {
    [ANY] silent fn RtlInitializeBitMap(_call; BitMapHeader: *mut Header, BitMapBuffer: *mut ULONG, SizeOfBitMap: ULONG) {
        // SAFETY: the driver passes memory for a bitmap.
        unsafe { store(BitMapHeader.cast::<ULONG>(), SizeOfBitMap) };
        // SAFETY: as above.
        unsafe { store(BitMapHeader.cast::<usize>().wrapping_add(1), BitMapBuffer.addr()) };
    }

    [ANY] silent fn RtlSetBit(_call; BitMapHeader: *mut Header, BitNumber: ULONG) {
        read(BitMapHeader).fill(BitNumber, 1, true);
    }

    [ANY] silent fn RtlClearBit(_call; BitMapHeader: *mut Header, BitNumber: ULONG) {
        read(BitMapHeader).fill(BitNumber, 1, false);
    }

    [ANY] silent fn RtlTestBit(_call; BitMapHeader: *const Header, BitNumber: ULONG) -> BOOLEAN {
        BOOLEAN::from(read(BitMapHeader).all(BitNumber, 1, true))
    }

    [ANY] silent fn RtlSetBits(_call; BitMapHeader: *mut Header, StartingIndex: ULONG, NumberToSet: ULONG) {
        read(BitMapHeader).fill(StartingIndex, NumberToSet, true);
    }

    [ANY] silent fn RtlClearBits(_call; BitMapHeader: *mut Header, StartingIndex: ULONG, NumberToClear: ULONG) {
        read(BitMapHeader).fill(StartingIndex, NumberToClear, false);
    }

    [ANY] silent fn RtlSetAllBits(_call; BitMapHeader: *mut Header) {
        read(BitMapHeader).fill(0, ULONG::MAX, true);
    }

    [ANY] silent fn RtlClearAllBits(_call; BitMapHeader: *mut Header) {
        read(BitMapHeader).fill(0, ULONG::MAX, false);
    }

    [ANY] silent fn RtlAreBitsSet(_call; BitMapHeader: *const Header, StartingIndex: ULONG, Length: ULONG) -> BOOLEAN {
        BOOLEAN::from(read(BitMapHeader).all(StartingIndex, Length, true))
    }

    [ANY] silent fn RtlAreBitsClear(_call; BitMapHeader: *const Header, StartingIndex: ULONG, Length: ULONG) -> BOOLEAN {
        BOOLEAN::from(read(BitMapHeader).all(StartingIndex, Length, false))
    }

    [ANY] silent fn RtlNumberOfSetBits(_call; BitMapHeader: *const Header) -> ULONG {
        read(BitMapHeader).count(true)
    }

    [ANY] silent fn RtlNumberOfClearBits(_call; BitMapHeader: *const Header) -> ULONG {
        read(BitMapHeader).count(false)
    }

    [ANY] silent fn RtlFindClearBits(_call; BitMapHeader: *const Header, NumberToFind: ULONG, HintIndex: ULONG) -> ULONG {
        read(BitMapHeader).find(NumberToFind, HintIndex, false)
    }

    [ANY] silent fn RtlFindSetBits(_call; BitMapHeader: *const Header, NumberToFind: ULONG, HintIndex: ULONG) -> ULONG {
        read(BitMapHeader).find(NumberToFind, HintIndex, true)
    }

    [ANY] silent fn RtlFindClearBitsAndSet(_call; BitMapHeader: *mut Header, NumberToFind: ULONG, HintIndex: ULONG) -> ULONG {
        let mut bitmap = read(BitMapHeader);
        let found = bitmap.find(NumberToFind, HintIndex, false);
        if found != NOTHING {
            bitmap.fill(found, NumberToFind, true);
        }
        found
    }

    [ANY] silent fn RtlFindSetBitsAndClear(_call; BitMapHeader: *mut Header, NumberToFind: ULONG, HintIndex: ULONG) -> ULONG {
        let mut bitmap = read(BitMapHeader);
        let found = bitmap.find(NumberToFind, HintIndex, true);
        if found != NOTHING {
            bitmap.fill(found, NumberToFind, false);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_from_the_hint_on_and_then_from_the_beginning() {
        let mut words = [0_u32; 2];
        let header = Header { size: 40, words: words.as_mut_ptr() };
        let mut bitmap = read(&raw const header);
        bitmap.fill(0, 3, true);
        bitmap.fill(30, 10, true);
        assert_eq!((bitmap.count(true), read(&raw const header).count(true)), (13, 13));
        assert_eq!(bitmap.find(4, 0, false), 3);
        assert_eq!(bitmap.find(4, 28, false), 3);
        assert_eq!(bitmap.find(28, 0, false), NOTHING);
        assert_eq!(bitmap.find(10, 0, true), 30);
        assert!(bitmap.all(30, 10, true));
        assert!(!bitmap.all(30, 11, true));
        assert!(!bitmap.all(0, 0, true));
    }
}
