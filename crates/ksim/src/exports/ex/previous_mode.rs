//! Whom a thread acts for.

use crate::exports::{PASSIVE, exports};
use ksync_sys::{KPROCESSOR_MODE, KernelMode, UserMode};

exports! {
    [PASSIVE] silent fn ExGetPreviousMode(call) -> KPROCESSOR_MODE {
        if call.read(|kernel| kernel.previous_mode_is_user()) { UserMode } else { KernelMode }
    }
}
