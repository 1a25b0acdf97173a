//! Critical and guarded regions (rules 21 to 24).

use crate::exports::{at_most, exports};
use crate::irql::{APC_LEVEL, DISPATCH_LEVEL};
use crate::report::bug_check::codes::verifier;
use ksync_sys::BOOLEAN;

exports! {
    [at_most(APC_LEVEL).rule(verifier::ENTER_CRITICAL_REGION)] silent fn KeEnterCriticalRegion(call) {
        call.operate(|kernel| kernel.enter_critical_region());
    }

    [at_most(APC_LEVEL).rule(verifier::LEAVE_CRITICAL_REGION)] silent fn KeLeaveCriticalRegion(call) {
        call.operate(|kernel| kernel.leave_critical_region());
    }

    [at_most(APC_LEVEL).rule(0x2_0010)] silent fn KeEnterGuardedRegion(call) {
        call.operate(|kernel| kernel.enter_guarded_region());
    }

    [at_most(APC_LEVEL).rule(0x2_0010)] silent fn KeLeaveGuardedRegion(call) {
        call.operate(|kernel| kernel.leave_guarded_region());
    }

    // The verifier's rule says APC_LEVEL, the routines' pages DISPATCH_LEVEL; the pages win.
    [at_most(DISPATCH_LEVEL)] silent fn KeAreApcsDisabled(call) -> BOOLEAN {
        BOOLEAN::from(call.read(|kernel| {
            kernel.current_thread().is_some_and(|tid| kernel.thread(tid).apc.normal_disabled())
        }))
    }

    [at_most(DISPATCH_LEVEL)] silent fn KeAreAllApcsDisabled(call) -> BOOLEAN {
        BOOLEAN::from(call.read(|kernel| {
            kernel.irql() >= APC_LEVEL
                || kernel.current_thread().is_some_and(|tid| kernel.thread(tid).apc.special_disable != 0)
        }))
    }
}
