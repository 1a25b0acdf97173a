//! Memory: `Mm...`.

use crate::config::OsProfile;
use crate::exports::{PASSIVE, exports};
use crate::machine::Call;
use ksync_sys::{PVOID, UNICODE_STRING};
use std::ptr::null_mut;

exports! {
    [PASSIVE] silent fn MmGetSystemRoutineAddress(call; SystemRoutineName: *const UNICODE_STRING) -> PVOID {
        // SAFETY: the caller passes a valid counted string.
        let name = unsafe { super::rtl::text_of(SystemRoutineName) };
        let routine = if is_exported(call, &name) { super::address_of(&name) } else { null_mut() };
        if !routine.is_null() { routine } else { super::variable(&name).map_or(null_mut(), |address| address as PVOID) }
    }
}

/// What the profile's Windows does not export is not found, as there.
pub(crate) fn is_exported(call: Call, name: &str) -> bool {
    let since = match name {
        "ExAllocatePool2" => OsProfile::Windows10_2004,
        // Windows 8.1 has them, which no profile is for.
        "ExAllocateTimer" | "ExSetTimer" | "ExCancelTimer" | "ExDeleteTimer" | "ExQueryTimerResolution" => OsProfile::Windows10,
        _ => OsProfile::Windows7,
    };
    call.read(|kernel| kernel.config.profile) >= since
}
