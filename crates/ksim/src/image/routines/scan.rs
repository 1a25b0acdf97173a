//! `sscanf_s` and its like: values read from a text by a format.

use super::format::Row;
use super::memory::{Plain, store, store_all};
use super::strings::{units, units_up_to};
use crate::machine::Call;

/// What the functions return for a text that ends before the first value.
const END: u64 = 0xffff_ffff;

/// The size of what an argument points to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Size {
    Byte,
    Short,
    Long,
    Quad,
}

/// A position in a text.
struct Text {
    units: Vec<u16>,
    at: usize,
}

fn is_space(unit: u16) -> bool {
    unit == 32 || (9..=13).contains(&unit)
}

impl Text {
    fn peek(&self) -> Option<u16> {
        self.units.get(self.at).copied()
    }

    fn skip_spaces(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.at += 1;
        }
    }

    /// Takes units that are in a set, so many at the most.
    fn take(&mut self, most: usize, mut wanted: impl FnMut(u16) -> bool) -> Vec<u16> {
        let rest = &self.units[self.at..];
        let taken: Vec<u16> = rest.iter().copied().take(most).take_while(|&unit| wanted(unit)).collect();
        self.at += taken.len();
        taken
    }

    /// A number in a base, 0 for one that its prefix tells.
    fn number(&mut self, base: u32, most: usize) -> Option<u64> {
        let begin = self.at;
        let mut left = most;
        let mut sign = None;
        if let Some(unit @ (0x2b | 0x2d)) = self.peek()
            && left > 0
        {
            (sign, self.at, left) = (Some(unit), self.at + 1, left - 1);
        }
        let prefixed = self.peek() == Some(0x30) && matches!(self.units.get(self.at + 1), Some(0x78 | 0x58)) && left > 2;
        let base = match base {
            0 if prefixed => 16,
            0 if self.peek() == Some(0x30) => 8,
            0 => 10,
            base => base,
        };
        if base == 16 && prefixed {
            (self.at, left) = (self.at + 2, left - 2);
        }
        let digit = |unit: u16| char::from_u32(u32::from(unit)).and_then(|character| character.to_digit(base));
        let digits = self.take(left, |unit| digit(unit).is_some());
        if digits.is_empty() {
            self.at = begin;
            return None;
        }
        let value = digits
            .into_iter()
            .filter_map(digit)
            .fold(0_u64, |value, digit| value.wrapping_mul(u64::from(base)).wrapping_add(u64::from(digit)));
        Some(if sign == Some(0x2d) { value.wrapping_neg() } else { value })
    }
}

/// Writes a number where the driver wants it.
fn give(place: u64, value: u64, size: Size) {
    match size {
        // SAFETY: the driver passes a pointer for each value that its format asks for; here and below.
        Size::Byte => unsafe { store(place as *mut u8, value as u8) },
        // SAFETY: as above.
        Size::Short => unsafe { store(place as *mut u16, value as u16) },
        // SAFETY: as above.
        Size::Long => unsafe { store(place as *mut u32, value as u32) },
        // SAFETY: as above.
        Size::Quad => unsafe { store(place as *mut u64, value) },
    }
}

/// Writes text where the driver wants it, if there is room.
fn give_text<U: Plain + From<u8>>(place: u64, room: usize, text: &[U], zero: bool) -> bool {
    let place = place as *mut U;
    if text.len() + usize::from(zero) > room {
        if room > 0 {
            // SAFETY: as above; there is so much room.
            unsafe { store(place, U::from(0)) };
        }
        return false;
    }
    // SAFETY: as above.
    unsafe { store_all(place, text) };
    if zero {
        // SAFETY: as above.
        unsafe { store(place.wrapping_add(text.len()), U::from(0)) };
    }
    true
}

/// The units that a set in brackets has, and whether it is all others that are meant. Returns how long the set is.
fn set(format: &[u16]) -> (Vec<u16>, bool, usize) {
    let mut at = 0;
    let others = format.first() == Some(&u16::from(b'^'));
    if others {
        at += 1;
    }
    let mut units = Vec::new();
    let begin = at;
    while let Some(&unit) = format.get(at) {
        if unit == u16::from(b']') && at > begin {
            break;
        }
        match format.get(at + 1..at + 3) {
            Some(&[dash, last]) if dash == u16::from(b'-') && last != u16::from(b']') && last >= unit => {
                units.extend(unit..=last);
                at += 3;
            }
            _ => {
                units.push(unit);
                at += 1;
            }
        }
    }
    (units, others, at + 1)
}

/// Reads values: how many were given, or [`END`]. `wide` is for the functions whose own strings are wide.
fn scan(text: Vec<u16>, format: &[u16], wide: bool, arguments: Row, first: usize) -> u64 {
    let mut text = Text { units: text, at: 0 };
    let mut next = first;
    let mut argument = || {
        next += 1;
        arguments.get(next - 1)
    };
    let (mut given, mut at) = (0, 0);
    let ended = |given: u64, text: &Text| if given == 0 && text.peek().is_none() { END } else { given };
    while let Some(&unit) = format.get(at) {
        at += 1;
        if is_space(unit) {
            text.skip_spaces();
            continue;
        }
        if unit != u16::from(b'%') || format.get(at) == Some(&u16::from(b'%')) {
            at += usize::from(unit == u16::from(b'%'));
            if text.peek() != Some(unit) {
                return ended(given, &text);
            }
            text.at += 1;
            continue;
        }
        let character = |at: usize| format.get(at).and_then(|&unit| u8::try_from(unit).ok()).unwrap_or(0);
        let skipped = character(at) == b'*';
        at += usize::from(skipped);
        let mut width = 0_usize;
        let mut has_width = false;
        while character(at).is_ascii_digit() {
            width = width.saturating_mul(10).saturating_add(usize::from(character(at) - b'0'));
            has_width = true;
            at += 1;
        }
        let most = if has_width { width } else { usize::MAX };
        let (mut size, mut wide_text) = (Size::Long, wide);
        loop {
            match (character(at), character(at + 1), character(at + 2)) {
                (b'h', b'h', _) => (size, at) = (Size::Byte, at + 2),
                (b'h', ..) => (size, wide_text, at) = (Size::Short, false, at + 1),
                (b'l', b'l', _) => (size, at) = (Size::Quad, at + 2),
                (b'l' | b'w', ..) => (wide_text, at) = (true, at + 1),
                (b'I', b'6', b'4') => (size, at) = (Size::Quad, at + 3),
                (b'I', b'3', b'2') => (size, at) = (Size::Long, at + 3),
                (b'I' | b'z' | b't' | b'j', ..) => (size, at) = (Size::Quad, at + 1),
                _ => break,
            }
        }
        let conversion = character(at);
        at += 1;
        if !matches!(conversion, b'c' | b'C' | b'[' | b'n') {
            text.skip_spaces();
        }
        let base = match conversion {
            b'd' | b'u' => 10,
            b'i' => 0,
            b'x' | b'X' | b'p' => 16,
            b'o' => 8,
            b'n' => {
                if !skipped {
                    give(argument(), text.at as u64, size);
                }
                continue;
            }
            b'c' | b'C' | b's' | b'S' | b'[' => {
                let wide_text = if matches!(conversion, b'C' | b'S') { !wide } else { wide_text };
                let taken = match conversion {
                    b's' | b'S' => text.take(most, |unit| !is_space(unit)),
                    b'[' => {
                        let (units, others, length) = set(&format[at.min(format.len())..]);
                        at += length;
                        text.take(most, |unit| units.contains(&unit) != others)
                    }
                    _ => text.take(if has_width { width } else { 1 }, |_| true),
                };
                let ends = !matches!(conversion, b'c' | b'C');
                let wanted = if has_width && !ends { width } else { 1 };
                if taken.len() < wanted {
                    return ended(given, &text);
                }
                if !skipped {
                    // The checked functions take the room behind each buffer.
                    let (place, room) = (argument(), argument() as u32 as usize);
                    let fits = if wide_text {
                        give_text(place, room, &taken, ends)
                    } else {
                        let bytes: Vec<u8> = taken.iter().map(|&unit| u8::try_from(unit).unwrap_or(b'?')).collect();
                        give_text(place, room, &bytes, ends)
                    };
                    if !fits {
                        return given;
                    }
                    given += 1;
                }
                continue;
            }
            _ => return given,
        };
        let Some(value) = text.number(base, most) else { return ended(given, &text) };
        if !skipped {
            give(argument(), value, if conversion == b'p' { Size::Quad } else { size });
            given += 1;
        }
    }
    given
}

fn widened(bytes: Vec<u8>) -> Vec<u16> {
    bytes.into_iter().map(u16::from).collect()
}

super::format::variadic! {
    fn sscanf_s(_call, row) {
        scan(widened(units(row.get(0) as *const u8)), &widened(units(row.get(1) as *const u8)), false, row, 2)
    }
    fn swscanf_s(_call, row) { scan(units(row.get(0) as *const u16), &units(row.get(1) as *const u16), true, row, 2) }
    fn _snscanf_s(_call, row) {
        let text = units_up_to(row.get(0) as *const u8, row.get(1) as usize);
        scan(widened(text), &widened(units(row.get(2) as *const u8)), false, row, 3)
    }
    fn _snwscanf_s(_call, row) {
        let text = units_up_to(row.get(0) as *const u16, row.get(1) as usize);
        scan(text, &units(row.get(2) as *const u16), true, row, 3)
    }
}
