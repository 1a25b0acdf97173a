//! Exceptions.

use crate::exports::{at_most, exports};
use crate::irql::APC_LEVEL;
use crate::report::bug_check::Violation;
use ksync_sys::NTSTATUS;

exports! {
    [at_most(APC_LEVEL).rule(0x2_0008)] silent fn ExRaiseStatus(call; Status: NTSTATUS) -> ! {
        call.fail(Violation::raised(Status, "ExRaiseStatus was called".to_owned()))
    }
}
