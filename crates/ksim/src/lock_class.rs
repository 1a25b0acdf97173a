//! Where locks were created: the hosted half of `ksync_sys::classify_lock`.

use crate::check::lock_order::Class;
use crate::machine::{Call, current, is_running};
use ksync_sys::KSPIN_LOCK;

/// Puts a lock into the class of those created at a place. Outside a machine there is nothing to check, and nothing happens.
///
/// # Safety
/// `File` is the address of `Length` bytes of UTF-8.
#[unsafe(no_mangle)]
#[expect(non_snake_case, reason = "it stands beside NT's routines")]
unsafe extern "system-unwind" fn KsimClassifyLock(
    Lock: usize,
    Bytes: usize,
    File: *const u8,
    Length: usize,
    Line: u32,
    Column: u32,
) {
    if !is_running() {
        return;
    }
    let call = Call { cell: current("classify_lock"), export: None };
    call.read(|kernel| {
        // SAFETY: by this function's contract.
        let file = unsafe { std::slice::from_raw_parts(File, Length) };
        let class = Class { file: String::from_utf8_lossy(file).into_owned(), line: Line, column: Column };
        kernel.lock_order.classify(Lock..Lock.saturating_add(Bytes), class);
    });
}

/// A spin lock begins at an address: the hosted half of `KeInitializeSpinLock`, which has written the word.
///
/// # Safety
/// The address is that of a spin lock.
#[unsafe(no_mangle)]
#[expect(non_snake_case, reason = "it stands beside NT's routines")]
unsafe extern "system-unwind" fn KsimInitializeSpinLock(SpinLock: *mut KSPIN_LOCK) {
    if is_running() {
        let call = Call { cell: current("KeInitializeSpinLock"), export: None };
        call.operate(|kernel| kernel.initialize_spin_lock(SpinLock));
    }
}
