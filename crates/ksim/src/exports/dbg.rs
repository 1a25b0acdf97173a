//! Debug output: `DbgPrint`, `DbgPrintEx`.
//!
//! C-variadic functions cannot be defined in stable Rust: `dbg.c` defines the two and hands their arguments over here one
//! by one.

use crate::engine::Kernel;
use crate::machine::{Call, is_running};
use crate::report::trace::Operation;
use std::ffi::{c_char, c_void};

pub(crate) mod format;

use super::{ANY, Export, Table};

/// The exports of this file, which a C file defines.
pub(crate) static TABLE: Table = Table {
    exports: &[Export { name: "DbgPrint", irql: ANY, visible: false }, Export { name: "DbgPrintEx", irql: ANY, visible: false }],
    address: |name| match name {
        "DbgPrint" => Some(ksync_sys::DbgPrint as *mut c_void),
        "DbgPrintEx" => Some(ksync_sys::DbgPrintEx as *mut c_void),
        _ => None,
    },
    // Images have their own, in `image::routines`.
    adapter: |_| None,
};

unsafe extern "C" {
    fn ksim_next_integer(arguments: *mut c_void) -> u64;
    fn ksim_next_double(arguments: *mut c_void) -> f64;
}

/// The arguments of a C-variadic call.
struct Arguments(*mut c_void);

impl format::Arguments for Arguments {
    fn integer(&mut self) -> u64 {
        // SAFETY: the pointer is the va_list of the call that is being formatted.
        unsafe { ksim_next_integer(self.0) }
    }

    fn double(&mut self) -> f64 {
        // SAFETY: as above.
        unsafe { ksim_next_double(self.0) }
    }
}

/// What both routines do, called from `dbg.c`.
///
/// # Safety
/// `format` ends in a zero, and `arguments` is a va_list of what it asks for.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn ksim_debug_print(routine: u32, format: *const c_char, arguments: *mut c_void) -> i32 {
    let export = &TABLE.exports[(routine as usize).min(1)];
    // SAFETY: by this function's contract.
    let text = unsafe { format::format(format, &mut Arguments(arguments)) };
    if !is_running() {
        // Outside a machine there is nobody to capture it, and nothing to check.
        print!("{text}");
        return 0;
    }
    let call = Call::enter(export, None);
    call.read(|kernel| print_text(kernel, &text));
    0
}

/// Adds to the captured output, which is kept by lines.
pub(crate) fn print_text(kernel: &mut Kernel, text: &str) {
    kernel.record(Operation::DebugPrint, 0, text.len() as u64);
    kernel.trace.set_printed(text);
    if kernel.config.echo {
        print!("{text}");
    }
    kernel.debug_partial.push_str(text);
    while let Some(end) = kernel.debug_partial.find('\n') {
        let rest = kernel.debug_partial.split_off(end + 1);
        let mut line = std::mem::replace(&mut kernel.debug_partial, rest);
        line.truncate(line.trim_end_matches(['\n', '\r']).len());
        kernel.debug_output.push(line);
    }
}
