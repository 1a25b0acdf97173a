//! Routines that hosted drivers have from elsewhere, or that give an image something else than them.

use crate::exports::mm::is_exported;
use crate::exports::rtl::text_of;
use crate::exports::{PASSIVE, image_exports};
use crate::image::host::stub_of;
use ksync_sys::{PVOID, UNICODE_STRING};
use std::ptr::null_mut;

image_exports! {
    [PASSIVE] silent fn MmGetSystemRoutineAddress(call; SystemRoutineName: *const UNICODE_STRING) -> PVOID {
        // SAFETY: the driver passes a valid counted string.
        let name = unsafe { text_of(SystemRoutineName) };
        // An image calls routines by its own convention.
        let found = if is_exported(call, &name) { stub_of(&name) } else { None };
        found.map_or(null_mut(), |address| address as PVOID)
    }
}
