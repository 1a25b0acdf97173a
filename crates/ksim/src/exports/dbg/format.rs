//! The kernel's `printf` formats.
//!
//! Of the C runtime: `d i u x X o c s p e f g E G` with flags, width, precision and the sizes `h l ll I64 I32 I z j t w`.
//! Of the kernel: `%wZ` and `%Z` (counted strings), `%ws`, `%S`, `%ls`, `%C`, `%lc`.

use ksync_sys::UNICODE_STRING;
use std::ffi::{CStr, c_char};
use std::fmt::Write;

/// Where the values come from.
pub(crate) trait Arguments {
    /// The next integer or pointer, as its 8-byte slot.
    fn integer(&mut self) -> u64;
    /// The next double.
    fn double(&mut self) -> f64;
}

#[derive(Clone, Copy, Default)]
struct Specification {
    left: bool,
    plus: bool,
    space: bool,
    alternate: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
    size: Size,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Size {
    Char,
    Short,
    #[default]
    Int,
    Long,
    Wide,
    Quad,
}

/// Formats.
///
/// # Safety
/// `format` is null or ends in a zero, and the arguments are what it asks for: pointers among them are null or valid.
pub(crate) unsafe fn format(format: *const c_char, arguments: &mut dyn Arguments) -> String {
    if format.is_null() {
        return String::new();
    }
    // SAFETY: by this function's contract.
    let text = unsafe { CStr::from_ptr(format) }.to_string_lossy();
    // SAFETY: by this function's contract.
    unsafe { format_text(&text, false, arguments) }
}

/// Formats. `wide` is for the functions whose own strings are wide: `%s` and `%c` are then wide too, and `%S` and `%C` narrow.
///
/// # Safety
/// The arguments are what the text asks for: pointers among them are null or valid.
pub(crate) unsafe fn format_text(text: &str, wide: bool, arguments: &mut dyn Arguments) -> String {
    let mut output = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(percent) = rest.find('%') {
        output.push_str(&rest[..percent]);
        rest = &rest[percent + 1..];
        let (specification, after) = parse(rest, arguments);
        let mut characters = after.chars();
        let Some(conversion) = characters.next() else {
            output.push('%');
            return output;
        };
        rest = characters.as_str();
        let conversion = match conversion {
            's' if wide => 'S',
            'S' if wide => 's',
            'c' if wide => 'C',
            'C' if wide => 'c',
            other => other,
        };
        // SAFETY: by this function's contract.
        unsafe { convert(&mut output, conversion, specification, arguments) };
    }
    output.push_str(rest);
    output
}

/// Parses what stands between the percent sign and the conversion.
fn parse<'a>(mut text: &'a str, arguments: &mut dyn Arguments) -> (Specification, &'a str) {
    let mut specification = Specification::default();
    loop {
        match text.as_bytes().first() {
            Some(b'-') => specification.left = true,
            Some(b'+') => specification.plus = true,
            Some(b' ') => specification.space = true,
            Some(b'#') => specification.alternate = true,
            Some(b'0') => specification.zero = true,
            _ => break,
        }
        text = &text[1..];
    }
    let (width, after) = number(text, arguments);
    text = after;
    if let Some(width) = width {
        specification.left |= width < 0;
        specification.width = usize::try_from(width.unsigned_abs()).unwrap_or(0).min(4096);
    }
    if let Some(after) = text.strip_prefix('.') {
        let (precision, after) = number(after, arguments);
        text = after;
        specification.precision = usize::try_from(precision.unwrap_or(0)).ok().map(|precision| precision.min(4096));
    }
    const SIZES: [(&str, Size); 11] = [
        ("I64", Size::Quad),
        ("I32", Size::Int),
        ("I", Size::Quad),
        ("ll", Size::Quad),
        ("l", Size::Long),
        ("hh", Size::Char),
        ("h", Size::Short),
        ("w", Size::Wide),
        ("z", Size::Quad),
        ("j", Size::Quad),
        ("t", Size::Quad),
    ];
    for (prefix, size) in SIZES {
        if let Some(after) = text.strip_prefix(prefix) {
            specification.size = size;
            text = after;
            break;
        }
    }
    (specification, text)
}

/// A width or a precision: digits, or a star that takes an argument.
fn number<'a>(text: &'a str, arguments: &mut dyn Arguments) -> (Option<i64>, &'a str) {
    if let Some(after) = text.strip_prefix('*') {
        return (Some(i64::from(arguments.integer() as i32)), after);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    (text[..digits].parse().ok(), &text[digits..])
}

/// Formats one argument.
///
/// # Safety
/// The next argument is what the conversion asks for: a pointer is null or valid.
unsafe fn convert(output: &mut String, conversion: char, specification: Specification, arguments: &mut dyn Arguments) {
    match conversion {
        '%' => output.push('%'),
        'd' | 'i' => {
            let value = match specification.size {
                Size::Char => i64::from(arguments.integer() as i8),
                Size::Short => i64::from(arguments.integer() as i16),
                Size::Quad => arguments.integer() as i64,
                // A long is 32 bits on Windows, whatever the host has.
                Size::Int | Size::Long | Size::Wide => i64::from(arguments.integer() as i32),
            };
            let sign = match value {
                ..0 => "-",
                _ if specification.plus => "+",
                _ if specification.space => " ",
                _ => "",
            };
            integer(output, specification, sign, value.unsigned_abs().to_string(), value == 0);
        }
        'u' | 'x' | 'X' | 'o' => {
            let value = unsigned(specification.size, arguments);
            let digits = match conversion {
                'u' => value.to_string(),
                'x' => format!("{value:x}"),
                'X' => format!("{value:X}"),
                _ => format!("{value:o}"),
            };
            let prefix = match conversion {
                'x' if specification.alternate && value != 0 => "0x",
                'X' if specification.alternate && value != 0 => "0X",
                'o' if specification.alternate => "0",
                _ => "",
            };
            integer(output, specification, prefix, digits, value == 0);
        }
        'p' => pad(output, specification, &format!("{:016X}", arguments.integer())),
        'c' | 'C' => {
            let wide = (conversion == 'C') != matches!(specification.size, Size::Wide | Size::Long);
            let value = arguments.integer();
            let code = if wide { u32::from(value as u16) } else { u32::from(value as u8) };
            let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
            pad(output, specification, character.encode_utf8(&mut [0; 4]));
        }
        's' | 'S' => {
            // `%S` is the other width than `%s`; an `h` is always narrow, `l` and `w` always wide.
            let wide = match specification.size {
                Size::Short => false,
                Size::Long | Size::Wide => true,
                _ => conversion == 'S',
            };
            let pointer = arguments.integer();
            // SAFETY: by this function's contract.
            let text = unsafe { string(pointer, wide, specification.precision) };
            pad(output, specification, &text);
        }
        'Z' => {
            let pointer = arguments.integer();
            // SAFETY: by this function's contract.
            let text = unsafe { counted_string(pointer, specification.size) };
            let shown: String = text.chars().take(specification.precision.unwrap_or(usize::MAX)).collect();
            pad(output, specification, &shown);
        }
        'f' | 'F' | 'e' | 'E' | 'g' | 'G' => {
            let value = arguments.double();
            let text = double(value, conversion, specification.precision.unwrap_or(6));
            let sign = if specification.plus && value >= 0.0 { "+" } else { "" };
            pad(output, specification, &format!("{sign}{text}"));
        }
        other => {
            output.push('%');
            output.push(other);
        }
    }
}

fn unsigned(size: Size, arguments: &mut dyn Arguments) -> u64 {
    let value = arguments.integer();
    match size {
        Size::Char => u64::from(value as u8),
        Size::Short => u64::from(value as u16),
        Size::Quad => value,
        Size::Int | Size::Long | Size::Wide => u64::from(value as u32),
    }
}

/// Digits with a sign or prefix, a precision in digits, and padding.
fn integer(output: &mut String, specification: Specification, prefix: &str, mut digits: String, zero: bool) {
    if specification.precision == Some(0) && zero {
        digits.clear();
    }
    let mut zeros = specification.precision.unwrap_or(0).saturating_sub(digits.len());
    if specification.zero && !specification.left && specification.precision.is_none() {
        zeros = specification.width.saturating_sub(prefix.len() + digits.len());
    }
    pad(output, specification, &format!("{prefix}{}{digits}", "0".repeat(zeros)));
}

fn pad(output: &mut String, specification: Specification, text: &str) {
    let missing = specification.width.saturating_sub(text.chars().count());
    let fill = " ".repeat(missing);
    if specification.left {
        output.push_str(text);
        output.push_str(&fill);
    } else {
        output.push_str(&fill);
        output.push_str(text);
    }
}

/// A string of bytes or of UTF-16 units, up to a zero or to `limit` units.
///
/// # Safety
/// `pointer` is null or to such a string.
unsafe fn string(pointer: u64, wide: bool, limit: Option<usize>) -> String {
    if pointer == 0 {
        return "(null)".to_owned();
    }
    let limit = limit.unwrap_or(usize::MAX);
    if wide {
        let mut units = Vec::new();
        while units.len() < limit {
            // SAFETY: by this function's contract, up to the zero.
            let unit = unsafe { *(pointer as *const u16).wrapping_add(units.len()) };
            if unit == 0 {
                break;
            }
            units.push(unit);
        }
        return String::from_utf16_lossy(&units);
    }
    let mut bytes = Vec::new();
    while bytes.len() < limit {
        // SAFETY: by this function's contract, up to the zero.
        let byte = unsafe { *(pointer as *const u8).wrapping_add(bytes.len()) };
        if byte == 0 {
            break;
        }
        bytes.push(byte);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `%wZ` a UNICODE_STRING, `%Z` an ANSI_STRING: both are a length in bytes, a capacity and a pointer.
///
/// # Safety
/// `pointer` is null or to such a structure.
unsafe fn counted_string(pointer: u64, size: Size) -> String {
    if pointer == 0 {
        return "(null)".to_owned();
    }
    // SAFETY: by this function's contract; the two structures have one layout.
    let string = unsafe { (pointer as *const UNICODE_STRING).read() };
    if string.Buffer.is_null() {
        return String::new();
    }
    let length = usize::from(string.Length);
    if matches!(size, Size::Wide | Size::Long) {
        // SAFETY: by this function's contract.
        let units = unsafe { std::slice::from_raw_parts(string.Buffer, length / 2) };
        return String::from_utf16_lossy(units);
    }
    // SAFETY: by this function's contract.
    let bytes = unsafe { std::slice::from_raw_parts(string.Buffer.cast::<u8>(), length) };
    String::from_utf8_lossy(bytes).into_owned()
}

/// A double as C writes it.
fn double(value: f64, conversion: char, precision: usize) -> String {
    if !value.is_finite() {
        return if value.is_nan() {
            "nan".to_owned()
        } else if value > 0.0 {
            "inf".to_owned()
        } else {
            "-inf".to_owned()
        };
    }
    let text = match conversion.to_ascii_lowercase() {
        'f' => format!("{value:.precision$}"),
        'e' => exponent_form(value, precision),
        _ => {
            let significant = precision.max(1);
            let magnitude = if value == 0.0 { 0 } else { value.abs().log10().floor() as i32 };
            let plain = (-4..significant as i32).contains(&magnitude);
            let text = if plain {
                let decimals = usize::try_from(significant as i32 - 1 - magnitude).unwrap_or(0);
                format!("{value:.decimals$}")
            } else {
                exponent_form(value, significant - 1)
            };
            trim_zeros(&text)
        }
    };
    if conversion.is_ascii_uppercase() { text.to_ascii_uppercase() } else { text }
}

/// C's exponent: a sign and at least two digits.
fn exponent_form(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let mut result = mantissa.to_owned();
    let sign = if exponent < 0 { '-' } else { '+' };
    write!(result, "e{sign}{:02}", exponent.abs()).expect("writing to a String cannot fail");
    result
}

/// `%g` shows no zeros at the end of a fraction.
fn trim_zeros(text: &str) -> String {
    let (mantissa, exponent) = text.split_once('e').map_or((text, None), |(mantissa, exponent)| (mantissa, Some(exponent)));
    let mantissa = if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
    match exponent {
        Some(exponent) => format!("{mantissa}e{exponent}"),
        None => mantissa.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    struct Values(VecDeque<u64>, VecDeque<f64>);

    impl Arguments for Values {
        fn integer(&mut self) -> u64 {
            self.0.pop_front().expect("an integer")
        }

        fn double(&mut self) -> f64 {
            self.1.pop_front().expect("a double")
        }
    }

    fn check(template: &CStr, integers: &[u64], expected: &str) {
        let mut values = Values(integers.iter().copied().collect(), VecDeque::new());
        // SAFETY: the values are what the formats ask for.
        assert_eq!(unsafe { format(template.as_ptr(), &mut values) }, expected);
    }

    #[test]
    fn integers_are_as_wide_as_on_windows() {
        check(c"%d %u %ld", &[u64::MAX, u64::MAX, 0xffff_ffff_0000_0001], "-1 4294967295 1");
        check(c"%I64d %llu %hd %hhu", &[u64::MAX, u64::MAX, 0xffff, 0x1ff], "-1 18446744073709551615 -1 255");
        check(c"%08X|%-8x|%8x|%#x|%#X", &[0xbeef; 5], "0000BEEF|beef    |    beef|0xbeef|0XBEEF");
        check(c"%+d % d %.4d %05d %.0d", &[7, 7, 7, (-7_i64) as u64, 0], "+7  7 0007 -0007 ");
        check(c"%*d|%-*d|%.*d", &[5, 1, 3, 2, 2, 3], "    1|2  |03");
        check(c"%p", &[0x1234], "0000000000001234");
        check(c"100%% %y", &[], "100% %y");
        check(c"50%", &[], "50%");
    }

    #[test]
    fn strings_are_narrow_wide_and_counted() {
        let wide: Vec<u16> = "wide".encode_utf16().chain([0]).collect();
        let counted = UNICODE_STRING { Length: 4, MaximumLength: 10, Buffer: wide.as_ptr().cast_mut() };
        let narrow = c"narrow".as_ptr() as u64;
        let wide = wide.as_ptr() as u64;
        check(c"%s|%10s|%-8s|%.3s", &[narrow; 4], "narrow|    narrow|narrow  |nar");
        check(c"%ws|%S|%ls|%hs", &[wide, wide, wide, narrow], "wide|wide|wide|narrow");
        check(c"%wZ", &[(&raw const counted) as u64], "wi");
        check(c"%s %wZ", &[0, 0], "(null) (null)");
        check(c"%c%C%lc", &[u64::from(b'a'), 0xe9, 0x263a], "a\u{e9}\u{263a}");
    }

    #[test]
    fn doubles_are_as_c_writes_them() {
        let mut values = Values(VecDeque::new(), [1.5, 1.5, 0.0001, 1e10, 1234.5678, -2.0].into());
        let template = c"%f %e %g %g %.2f %G";
        // SAFETY: the values are what the format asks for.
        let text = unsafe { format(template.as_ptr(), &mut values) };
        assert_eq!(text, "1.500000 1.500000e+00 0.0001 1e+10 1234.57 -2");
    }
}
