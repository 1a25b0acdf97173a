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
        let too_old = name == "ExAllocatePool2" && profile < OsProfile::Windows10_2004;
        if too_old { std::ptr::null_mut() } else { super::address_of(&name) }
    }
}
