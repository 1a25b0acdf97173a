//! Bug checks.

use crate::exports::{ANY, exports};
use crate::report::bug_check::Violation;
use ksync_sys::{ULONG, ULONG_PTR};

exports! {
    [ANY] silent fn KeBugCheckEx(
        call; BugCheckCode: ULONG, BugCheckParameter1: ULONG_PTR, BugCheckParameter2: ULONG_PTR, BugCheckParameter3: ULONG_PTR,
        BugCheckParameter4: ULONG_PTR
    ) -> ! {
        let parameters = [BugCheckParameter1, BugCheckParameter2, BugCheckParameter3, BugCheckParameter4];
        call.fail(Violation::boxed(BugCheckCode, parameters.map(|value| value as u64), "the driver asked for this bug check"))
    }

    [ANY] silent fn KeBugCheck(call; BugCheckCode: ULONG) -> ! {
        call.fail(Violation::boxed(BugCheckCode, [0; 4], "the driver asked for this bug check"))
    }
}
