//! The run-time library: `Rtl...`.

use crate::exports::{ANY, PASSIVE, exports};
use ksync_sys::{NTSTATUS, RTL_OSVERSIONINFOW, STATUS_SUCCESS, UNICODE_STRING, WCHAR};

/// A counted string as text. What is no text is replaced.
///
/// # Safety
/// `string` is null or points to a valid counted string.
pub(super) unsafe fn text_of(string: *const UNICODE_STRING) -> String {
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

exports! {
    [ANY] silent fn RtlInitUnicodeString(call; DestinationString: *mut UNICODE_STRING, SourceString: *const WCHAR) {
        let _ = call;
        let mut units = 0_u16;
        if !SourceString.is_null() {
            // SAFETY: the caller passes a string that ends in a zero.
            while unsafe { *SourceString.wrapping_add(usize::from(units)) } != 0 && units < u16::MAX / 2 - 1 {
                units += 1;
            }
        }
        let maximum = if SourceString.is_null() { 0 } else { units * 2 + 2 };
        let string = UNICODE_STRING { Length: units * 2, MaximumLength: maximum, Buffer: SourceString.cast_mut() };
        // SAFETY: the caller passes a valid pointer.
        unsafe { DestinationString.write(string) };
    }

    [PASSIVE] silent fn RtlGetVersion(call; lpVersionInformation: *mut RTL_OSVERSIONINFOW) -> NTSTATUS {
        let (major, minor, build) = call.read(|kernel| kernel.config.profile).version();
        let information = lpVersionInformation;
        // SAFETY: the caller passes a valid pointer.
        unsafe { (*information).dwMajorVersion = major };
        // SAFETY: as above.
        unsafe { (*information).dwMinorVersion = minor };
        // SAFETY: as above.
        unsafe { (*information).dwBuildNumber = build };
        STATUS_SUCCESS
    }
}
