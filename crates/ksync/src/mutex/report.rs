//! What the locks tell the debugger.

use core::ffi::CStr;

use ksync_sys as sys;

use crate::irql::{self, Irql};

/// The format of [`held`].
const HELD: &CStr = c"ksync: %.*s %p was dropped while it was held\n";
/// The format of [`not_released`].
const NOT_RELEASED: &CStr = c"ksync: %.*s %p could not be released at IRQL %u and stays held\n";

/// Reports that a lock is dropped while someone who forgot a guard holds it.
#[cold]
pub(super) fn held(name: &str, lock: *const ()) {
    if irql::current() > Irql::DISPATCH {
        return;
    }
    // SAFETY: the format asks for a length and text of that length at most, and a pointer, which is what it gets.
    unsafe { sys::DbgPrint(HELD.as_ptr().cast(), length(name), name.as_ptr(), lock) };
}

/// Reports that a guard is dropped where its lock cannot be released.
#[cold]
pub(super) fn not_released(name: &str, lock: *const ()) {
    let level = irql::current();
    if level > Irql::DISPATCH {
        return;
    }
    // SAFETY: the format asks for a length and text of that length at most, a pointer and an unsigned integer, which is what it gets.
    unsafe { sys::DbgPrint(NOT_RELEASED.as_ptr().cast(), length(name), name.as_ptr(), lock, u32::from(level.get())) };
}

/// A name's length as C counts.
fn length(name: &str) -> i32 {
    i32::try_from(name.len()).unwrap_or(i32::MAX)
}
