//! Printing to the kernel debugger.

use core::ffi::c_char;
use core::fmt::{self, Write};

use ksync_sys as sys;

/// How many bytes go to the debugger in one call. `DbgPrint` cuts what is longer than 512 bytes.
const CAPACITY: usize = 256;

/// Collects formatted text and hands it to `DbgPrint` in pieces.
struct Printer {
    /// Text of `length` bytes; the last byte is kept for the terminating zero.
    buffer: [u8; CAPACITY],
    length: usize,
}

impl Printer {
    /// Hands the collected text over.
    fn flush(&mut self) {
        if self.length == 0 {
            return;
        }
        self.buffer[self.length] = 0;
        let text: *const c_char = self.buffer.as_ptr().cast();
        // SAFETY: the format asks for one string, and the buffer holds one that ends in a zero.
        unsafe { sys::DbgPrint(c"%s".as_ptr().cast(), text) };
        self.length = 0;
    }
}

impl Write for Printer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            // A zero would end the string.
            let character = if character == '\0' { '\u{FFFD}' } else { character };
            let bytes = character.len_utf8();
            if self.length + bytes >= CAPACITY {
                self.flush();
            }
            character.encode_utf8(&mut self.buffer[self.length..]);
            self.length += bytes;
            // A line is printed in one piece where it fits, so that lines of several processors do not mix.
            if character == '\n' {
                self.flush();
            }
        }
        Ok(())
    }
}

/// Prints formatted text: what [`print!`](crate::print) and [`println!`](crate::println) come to.
#[doc(hidden)]
pub fn _print(arguments: fmt::Arguments<'_>) {
    let mut printer = Printer { buffer: [0; CAPACITY], length: 0 };
    // What a `Display` of the caller's fails with is the caller's own; what it wrote until then is printed.
    let _ = printer.write_fmt(arguments);
    printer.flush();
}

/// Prints to the kernel debugger, like `std`'s `print!`.
///
/// Nothing is allocated: the text goes through a small buffer on the stack. A long line goes out in several pieces. A zero byte is printed as
/// U+FFFD. `DbgPrint` takes bytes; what is not ASCII shows as its UTF-8.
///
/// # IRQL
/// `<= DISPATCH_LEVEL` to be safe: `DbgPrint` itself works at any level below the interprocessor interrupt's.
///
/// # Examples
/// ```
/// # let outcome = ksim::Machine::new().run(|| {
/// ksync::print!("{} and ", 1);
/// ksync::println!("{}", 2);
/// # });
/// # assert_eq!(outcome.debug_output(), ["1 and 2"]);
/// ```
///
/// Wraps [`DbgPrint`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-dbgprint).
#[doc(alias = "DbgPrint")]
#[macro_export]
macro_rules! print {
    ($($argument:tt)*) => {
        $crate::print::_print(::core::format_args!($($argument)*))
    };
}

/// Prints a line to the kernel debugger, like `std`'s `println!`.
///
/// See [`print!`](crate::print).
///
/// # Examples
/// ```
/// # let outcome = ksim::Machine::new().run(|| {
/// ksync::println!("the answer is {}", 42);
/// # });
/// # assert_eq!(outcome.debug_output(), ["the answer is 42"]);
/// ```
#[doc(alias = "DbgPrint")]
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($argument:tt)*) => {
        // Nested, so that inline arguments such as `{x}` keep working.
        $crate::print::_print(::core::format_args!("{}\n", ::core::format_args!($($argument)*)))
    };
}
