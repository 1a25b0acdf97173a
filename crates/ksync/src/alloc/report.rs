//! What the allocators tell the debugger.

use core::ffi::CStr;
use core::ptr::NonNull;

use ksync_sys as sys;

use super::Pool;
use crate::irql::{self, Irql};

/// The format of [`leaked`].
const LEAKED: &CStr = c"ksync: %p cannot be freed at IRQL %u and is leaked\n";

/// Tells whether memory of a pool can be freed at the present level, and if not, reports that it is leaked.
#[inline]
pub(crate) fn can_free(pool: Pool, memory: NonNull<u8>) -> bool {
    let level = irql::current();
    let can = level <= pool.highest_irql();
    if !can {
        leaked(memory.as_ptr().cast(), level);
    }
    can
}

/// Reports memory that is leaked because of the level.
#[cold]
pub(crate) fn leaked(memory: *const (), level: Irql) {
    if level > Irql::DISPATCH {
        return;
    }
    // SAFETY: the format asks for a pointer and an unsigned integer, which is what it gets. IRQL: the routine takes more than `DISPATCH_LEVEL`.
    unsafe { sys::DbgPrint(LEAKED.as_ptr().cast(), memory, u32::from(level.get())) };
}
