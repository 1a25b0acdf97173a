//! Bitmaps: `RTL_BITMAP`.

use crate::exports::{ANY, image_exports};
use ksync_sys::{BOOLEAN, ULONG};

/// RTL_BITMAP.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Bitmap {
    pub(super) size: ULONG,
    words: *mut ULONG,
}

/// What routines return that find nothing.
const NOTHING: ULONG = ULONG::MAX;

/// A valid bitmap's structure.
///
/// # Safety
/// `bitmap` points to one.
pub(super) unsafe fn read(bitmap: *const Bitmap) -> Bitmap {
    // SAFETY: by this function's contract.
    unsafe { bitmap.read() }
}

impl Bitmap {
    pub(super) fn get(self, index: ULONG) -> bool {
        // SAFETY: the driver's bitmap has a bit for each index below its size, which all callers keep to.
        unsafe { *self.words.wrapping_add(index as usize / 32) >> (index % 32) & 1 != 0 }
    }

    fn set(self, index: ULONG, value: bool) {
        let word = self.words.wrapping_add(index as usize / 32);
        // SAFETY: as in `get`.
        let bits = unsafe { word.read() };
        let mask = 1 << (index % 32);
        // SAFETY: as in `get`.
        unsafe { word.write(if value { bits | mask } else { bits & !mask }) };
    }

    fn fill(self, start: ULONG, count: ULONG, value: bool) {
        for index in start..start.saturating_add(count).min(self.size) {
            self.set(index, value);
        }
    }

    fn all(self, start: ULONG, count: ULONG, value: bool) -> bool {
        let end = start.checked_add(count).filter(|&end| end <= self.size && count != 0);
        end.is_some_and(|end| (start..end).all(|index| self.get(index) == value))
    }

    fn count(self, value: bool) -> ULONG {
        (0..self.size).filter(|&index| self.get(index) == value).count() as ULONG
    }

    /// The first run of so many bits from a hint on, or else from the beginning.
    fn find(self, count: ULONG, hint: ULONG, value: bool) -> ULONG {
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
    [ANY] silent fn RtlInitializeBitMap(_call; BitMapHeader: *mut Bitmap, BitMapBuffer: *mut ULONG, SizeOfBitMap: ULONG) {
        // SAFETY: the driver passes memory for a bitmap.
        unsafe { BitMapHeader.write(Bitmap { size: SizeOfBitMap, words: BitMapBuffer }) };
    }

    [ANY] silent fn RtlSetBit(_call; BitMapHeader: *mut Bitmap, BitNumber: ULONG) {
        // SAFETY: the driver passes a valid bitmap; here and below.
        unsafe { read(BitMapHeader) }.fill(BitNumber, 1, true);
    }

    [ANY] silent fn RtlClearBit(_call; BitMapHeader: *mut Bitmap, BitNumber: ULONG) {
        // SAFETY: as above.
        unsafe { read(BitMapHeader) }.fill(BitNumber, 1, false);
    }

    [ANY] silent fn RtlTestBit(_call; BitMapHeader: *const Bitmap, BitNumber: ULONG) -> BOOLEAN {
        // SAFETY: as above.
        BOOLEAN::from(unsafe { read(BitMapHeader) }.all(BitNumber, 1, true))
    }

    [ANY] silent fn RtlSetBits(_call; BitMapHeader: *mut Bitmap, StartingIndex: ULONG, NumberToSet: ULONG) {
        // SAFETY: as above.
        unsafe { read(BitMapHeader) }.fill(StartingIndex, NumberToSet, true);
    }

    [ANY] silent fn RtlClearBits(_call; BitMapHeader: *mut Bitmap, StartingIndex: ULONG, NumberToClear: ULONG) {
        // SAFETY: as above.
        unsafe { read(BitMapHeader) }.fill(StartingIndex, NumberToClear, false);
    }

    [ANY] silent fn RtlSetAllBits(_call; BitMapHeader: *mut Bitmap) {
        // SAFETY: as above.
        unsafe { read(BitMapHeader) }.fill(0, ULONG::MAX, true);
    }

    [ANY] silent fn RtlClearAllBits(_call; BitMapHeader: *mut Bitmap) {
        // SAFETY: as above.
        unsafe { read(BitMapHeader) }.fill(0, ULONG::MAX, false);
    }

    [ANY] silent fn RtlAreBitsSet(_call; BitMapHeader: *const Bitmap, StartingIndex: ULONG, Length: ULONG) -> BOOLEAN {
        // SAFETY: as above.
        BOOLEAN::from(unsafe { read(BitMapHeader) }.all(StartingIndex, Length, true))
    }

    [ANY] silent fn RtlAreBitsClear(_call; BitMapHeader: *const Bitmap, StartingIndex: ULONG, Length: ULONG) -> BOOLEAN {
        // SAFETY: as above.
        BOOLEAN::from(unsafe { read(BitMapHeader) }.all(StartingIndex, Length, false))
    }

    [ANY] silent fn RtlNumberOfSetBits(_call; BitMapHeader: *const Bitmap) -> ULONG {
        // SAFETY: as above.
        unsafe { read(BitMapHeader) }.count(true)
    }

    [ANY] silent fn RtlNumberOfClearBits(_call; BitMapHeader: *const Bitmap) -> ULONG {
        // SAFETY: as above.
        unsafe { read(BitMapHeader) }.count(false)
    }

    [ANY] silent fn RtlFindClearBits(_call; BitMapHeader: *const Bitmap, NumberToFind: ULONG, HintIndex: ULONG) -> ULONG {
        // SAFETY: as above.
        unsafe { read(BitMapHeader) }.find(NumberToFind, HintIndex, false)
    }

    [ANY] silent fn RtlFindSetBits(_call; BitMapHeader: *const Bitmap, NumberToFind: ULONG, HintIndex: ULONG) -> ULONG {
        // SAFETY: as above.
        unsafe { read(BitMapHeader) }.find(NumberToFind, HintIndex, true)
    }

    [ANY] silent fn RtlFindClearBitsAndSet(_call; BitMapHeader: *mut Bitmap, NumberToFind: ULONG, HintIndex: ULONG) -> ULONG {
        // SAFETY: as above.
        let bitmap = unsafe { read(BitMapHeader) };
        let found = bitmap.find(NumberToFind, HintIndex, false);
        if found != NOTHING {
            bitmap.fill(found, NumberToFind, true);
        }
        found
    }

    [ANY] silent fn RtlFindSetBitsAndClear(_call; BitMapHeader: *mut Bitmap, NumberToFind: ULONG, HintIndex: ULONG) -> ULONG {
        // SAFETY: as above.
        let bitmap = unsafe { read(BitMapHeader) };
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
        let bitmap = Bitmap { size: 40, words: words.as_mut_ptr() };
        bitmap.fill(0, 3, true);
        bitmap.fill(30, 10, true);
        assert_eq!(bitmap.count(true), 13);
        assert_eq!(bitmap.find(4, 0, false), 3);
        assert_eq!(bitmap.find(4, 28, false), 3);
        assert_eq!(bitmap.find(28, 0, false), NOTHING);
        assert_eq!(bitmap.find(10, 0, true), 30);
        assert!(bitmap.all(30, 10, true));
        assert!(!bitmap.all(30, 11, true));
        assert!(!bitmap.all(0, 0, true));
    }
}
