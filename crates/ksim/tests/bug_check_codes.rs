//! The numbers of bug checks are NT's: those of windows-sys, which has them from Microsoft's headers.

use ksim::bug_check;
use windows_sys::Win32::System::Diagnostics::Debug as theirs;

macro_rules! same {
    ($($name:ident)*) => {[$((stringify!($name), bug_check::$name, theirs::$name)),*]};
}

#[test]
fn codes_are_those_of_windows_sys() {
    let codes = same! {
        APC_INDEX_MISMATCH IRQL_NOT_GREATER_OR_EQUAL IRQL_NOT_LESS_OR_EQUAL MAXIMUM_WAIT_OBJECTS_EXCEEDED SPIN_LOCK_ALREADY_OWNED
        SPIN_LOCK_NOT_OWNED REFERENCE_BY_POINTER KMODE_EXCEPTION_NOT_HANDLED KERNEL_APC_PENDING_DURING_EXIT
        IRQL_GT_ZERO_AT_SYSTEM_SERVICE NO_MORE_IRP_STACK_LOCATIONS MULTIPLE_IRP_COMPLETE_REQUESTS CANCEL_STATE_IN_COMPLETED_IRP
        INVALID_WORK_QUEUE_ITEM INVALID_KERNEL_HANDLE ATTEMPTED_SWITCH_FROM_DPC BAD_POOL_CALLER DRIVER_VERIFIER_DETECTED_VIOLATION
        TIMER_OR_DPC_INVALID IRQL_UNEXPECTED_VALUE DRIVER_VERIFIER_IOMANAGER_VIOLATION
        DRIVER_UNLOADED_WITHOUT_CANCELLING_PENDING_OPERATIONS DRIVER_CAUGHT_MODIFYING_FREED_POOL DPC_WATCHDOG_VIOLATION
        DRIVER_IRQL_NOT_LESS_OR_EQUAL WORKER_THREAD_RETURNED_AT_BAD_IRQL WORKER_INVALID PAGE_FAULT_IN_NONPAGED_AREA
        UNEXPECTED_KERNEL_MODE_TRAP KERNEL_SECURITY_CHECK_FAILURE MANUALLY_INITIATED_CRASH RESOURCE_NOT_OWNED
        INVALID_PUSH_LOCK_FLAGS KERNEL_LOCK_ENTRY_LEAKED_ON_THREAD_TERMINATION KERNEL_AUTO_BOOST_INVALID_LOCK_RELEASE
        ERESOURCE_INVALID_RELEASE THREAD_TERMINATE_HELD_MUTEX SYSTEM_THREAD_EXCEPTION_NOT_HANDLED SYSTEM_SERVICE_EXCEPTION
        SPECIAL_POOL_DETECTED_MEMORY_CORRUPTION PAGE_FAULT_IN_FREED_SPECIAL_POOL PAGE_FAULT_BEYOND_END_OF_ALLOCATION
        DRIVER_PAGE_FAULT_IN_FREED_SPECIAL_POOL DRIVER_PAGE_FAULT_BEYOND_END_OF_ALLOCATION
    };
    for (name, ours, theirs) in codes {
        assert_eq!(ours, theirs, "{name}");
    }
    // This one is a status that the loader stops the system with.
    let status = windows_sys::Win32::Foundation::STATUS_DRIVER_ENTRYPOINT_NOT_FOUND;
    assert_eq!(bug_check::DRIVER_ENTRYPOINT_NOT_FOUND, status.cast_unsigned());
}

/// Each code that a rule can be reported by has been compared.
#[test]
fn no_rule_has_another_code() {
    let source = include_str!("bug_check_codes.rs");
    for rule in ksim::rules() {
        let Some(code) = rule.code else { continue };
        let name = bug_check::name(code);
        assert!(source.contains(name), "{} is reported as {name} ({code:#x})", rule.name);
    }
}
