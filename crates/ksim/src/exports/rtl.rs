//! The run-time library: `Rtl...`.

use crate::engine::run_once;
use crate::exports::{ANY, BLOCKING, PASSIVE, exports};
use crate::image::call_through;
use crate::machine::Call;
use ksync_sys::{
    NTSTATUS, PRTL_RUN_ONCE_INIT_FN, PVOID, RTL_OSVERSIONINFOW, RTL_RUN_ONCE, RTL_RUN_ONCE_ASYNC, RTL_RUN_ONCE_CHECK_ONLY,
    RTL_RUN_ONCE_INIT_FAILED, STATUS_INVALID_PARAMETER, STATUS_INVALID_PARAMETER_2, STATUS_INVALID_PARAMETER_3, STATUS_PENDING,
    STATUS_SUCCESS, STATUS_UNSUCCESSFUL, ULONG, UNICODE_STRING, WCHAR,
};

/// A counted string as text. What is no text is replaced.
///
/// # Safety
/// `string` is null or points to a valid counted string.
pub(crate) unsafe fn text_of(string: *const UNICODE_STRING) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: by this function's contract.
    let string = unsafe { string.read() };
    if string.Buffer.is_null() {
        return String::new();
    }
    // SAFETY: by this function's contract the buffer holds `Length` bytes.
    let units = unsafe { std::slice::from_raw_parts(string.Buffer, usize::from(string.Length) / 2) };
    String::from_utf16_lossy(units)
}

fn word(once: *mut RTL_RUN_ONCE) -> usize {
    // SAFETY: the callers pass valid run-once blocks.
    unsafe { (*once).Ptr as usize }
}

fn set_word(once: *mut RTL_RUN_ONCE, word: usize) {
    // SAFETY: the callers pass valid run-once blocks.
    unsafe { (*once).Ptr = word as PVOID };
}

/// Begins an initialisation, finds it done, or waits for who is at it.
fn begin(call: Call, once: *mut RTL_RUN_ONCE, flags: ULONG, context: *mut PVOID) -> NTSTATUS {
    call.check_pointer(once);
    let (check_only, asynchronous) = (flags & RTL_RUN_ONCE_CHECK_ONLY != 0, flags & RTL_RUN_ONCE_ASYNC != 0);
    if flags & !(RTL_RUN_ONCE_CHECK_ONLY | RTL_RUN_ONCE_ASYNC) != 0 || (check_only && asynchronous) {
        return STATUS_INVALID_PARAMETER_2;
    }
    loop {
        let word = call.read(|_| word(once));
        let begun = match word & run_once::STATE {
            run_once::COMPLETE => {
                if !context.is_null() {
                    // SAFETY: the caller passes null or a valid pointer.
                    unsafe { *context = (word & !run_once::STATE) as PVOID };
                }
                return STATUS_SUCCESS;
            }
            _ if check_only => return STATUS_UNSUCCESSFUL,
            run_once::FRESH => {
                if asynchronous {
                    run_once::ASYNCHRONOUS
                } else {
                    run_once::SYNCHRONOUS
                }
            }
            run_once::ASYNCHRONOUS if asynchronous => return STATUS_PENDING,
            run_once::SYNCHRONOUS if !asynchronous && !call.is_dying() => {
                call.operate(|kernel| kernel.wait_for_run_once(once as usize));
                continue;
            }
            _ => return STATUS_INVALID_PARAMETER,
        };
        call.read(|_| set_word(once, begun));
        return STATUS_PENDING;
    }
}

/// Ends an initialisation.
fn complete(call: Call, once: *mut RTL_RUN_ONCE, flags: ULONG, context: PVOID) -> NTSTATUS {
    call.check_pointer(once);
    let (asynchronous, failed) = (flags & RTL_RUN_ONCE_ASYNC != 0, flags & RTL_RUN_ONCE_INIT_FAILED != 0);
    if flags & !(RTL_RUN_ONCE_ASYNC | RTL_RUN_ONCE_INIT_FAILED) != 0 || (asynchronous && failed) {
        return STATUS_INVALID_PARAMETER_2;
    }
    if context as usize & run_once::STATE != 0 || (failed && !context.is_null()) {
        return STATUS_INVALID_PARAMETER_3;
    }
    let expected = if asynchronous { run_once::ASYNCHRONOUS } else { run_once::SYNCHRONOUS };
    call.operate(|kernel| {
        if word(once) & run_once::STATE != expected {
            return Ok(STATUS_UNSUCCESSFUL);
        }
        set_word(once, if failed { run_once::FRESH } else { context as usize | run_once::COMPLETE });
        kernel.run_once_ended(once as usize);
        Ok(STATUS_SUCCESS)
    })
}

exports! {
    [ANY] silent fn RtlInitUnicodeString(call; DestinationString: *mut UNICODE_STRING, SourceString: *const WCHAR) {
        let _ = call;
        let mut units = 0_u16;
        if !SourceString.is_null() {
            // SAFETY: the caller passes a string that ends in a zero.
            while unsafe { SourceString.wrapping_add(usize::from(units)).read_unaligned() } != 0 && units < u16::MAX / 2 - 1 {
                units += 1;
            }
        }
        let maximum = if SourceString.is_null() { 0 } else { units * 2 + 2 };
        let string = UNICODE_STRING { Length: units * 2, MaximumLength: maximum, Buffer: SourceString.cast_mut() };
        // SAFETY: the caller passes a valid pointer.
        unsafe { DestinationString.write(string) };
    }

    [ANY] silent fn RtlRunOnceInitialize(call; RunOnce: *mut RTL_RUN_ONCE) {
        // SAFETY: the caller passes memory for a run-once block.
        call.read(|_| unsafe { RunOnce.write(RTL_RUN_ONCE { Ptr: std::ptr::null_mut() }) });
    }

    [BLOCKING] visible(access RunOnce) fn RtlRunOnceBeginInitialize(
        call; RunOnce: *mut RTL_RUN_ONCE, Flags: ULONG, Context: *mut PVOID
    ) -> NTSTATUS {
        begin(call, RunOnce, Flags, Context)
    }

    [BLOCKING] visible(access RunOnce) fn RtlRunOnceComplete(call; RunOnce: *mut RTL_RUN_ONCE, Flags: ULONG, Context: PVOID) -> NTSTATUS {
        complete(call, RunOnce, Flags, Context)
    }

    [BLOCKING] visible(access RunOnce) fn RtlRunOnceExecuteOnce(
        call; RunOnce: *mut RTL_RUN_ONCE, InitFn: PRTL_RUN_ONCE_INIT_FN, Parameter: PVOID, Context: *mut PVOID
    ) -> NTSTATUS {
        let status = begin(call, RunOnce, 0, Context);
        let (STATUS_PENDING, Some(initialize)) = (status, InitFn) else { return status };
        let mut own = std::ptr::null_mut();
        let result = if Context.is_null() { &raw mut own } else { Context };
        // SAFETY: the caller vouched for the routine and its parameter.
        if unsafe { call_through(initialize, (RunOnce, Parameter, result), || {}) } == 0 {
            complete(call, RunOnce, RTL_RUN_ONCE_INIT_FAILED, std::ptr::null_mut());
            return STATUS_UNSUCCESSFUL;
        }
        // SAFETY: null was replaced above.
        complete(call, RunOnce, 0, unsafe { *result })
    }

    [PASSIVE] silent fn RtlGetVersion(call; lpVersionInformation: *mut RTL_OSVERSIONINFOW) -> NTSTATUS {
        let (major, minor, build) = call.read(|kernel| kernel.config.profile).version();
        let information = lpVersionInformation;
        call.check_pointer(information);
        // SAFETY: the caller passes a valid pointer.
        unsafe { (*information).dwMajorVersion = major };
        // SAFETY: as above.
        unsafe { (*information).dwMinorVersion = minor };
        // SAFETY: as above.
        unsafe { (*information).dwBuildNumber = build };
        STATUS_SUCCESS
    }
}
