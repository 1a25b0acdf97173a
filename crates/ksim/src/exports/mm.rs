//! Memory: `Mm...`.

use crate::config::OsProfile;
use crate::exports::{PASSIVE, exports};
use ksync_sys::{PVOID, UNICODE_STRING};

exports! {
    [PASSIVE] silent fn MmGetSystemRoutineAddress(call; SystemRoutineName: *const UNICODE_STRING) -> PVOID {
        // SAFETY: the caller passes a valid counted string.
        let name = unsafe { super::rtl::text_of(SystemRoutineName) };
        let profile = call.read(|kernel| kernel.config.profile);
        // What the profile's Windows does not export is not found, as there.
        let since = match name.as_str() {
            "ExAllocatePool2" => OsProfile::Windows10_2004,
            // Windows 8.1 has them, which no profile is for.
            "ExAllocateTimer" | "ExSetTimer" | "ExCancelTimer" | "ExDeleteTimer" | "ExQueryTimerResolution" => OsProfile::Windows10,
            _ => OsProfile::Windows7,
        };
        if profile < since { std::ptr::null_mut() } else { super::address_of(&name) }
    }
}
