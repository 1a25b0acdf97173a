//! Lock classes: where a lock was created, told to the hosted kernel.

use core::panic::Location;

/// Tells the hosted kernel where the lock in these `bytes` at the address `lock` was created.
///
/// Locks that were created at one place are of one class, and stand for each other in the check of the order of locks. In a driver this does nothing, and leaves
/// no code behind.
#[cfg(all(windows, not(feature = "hosted")))]
#[inline(always)]
pub fn classify_lock(_lock: usize, _bytes: usize, _site: &'static Location<'static>) {}

/// Tells the hosted kernel where the lock in these `bytes` at the address `lock` was created.
///
/// Locks that were created at one place are of one class, and stand for each other in the check of the order of locks. In a driver this does nothing, and leaves
/// no code behind.
#[cfg(not(all(windows, not(feature = "hosted"))))]
#[inline]
pub fn classify_lock(lock: usize, bytes: usize, site: &'static Location<'static>) {
    unsafe extern "system-unwind" {
        /// Puts a lock into the class of those created at a place.
        fn KsimClassifyLock(Lock: usize, Bytes: usize, File: *const u8, Length: usize, Line: u32, Column: u32);
    }
    let file = site.file();
    // SAFETY: the string is as long as is said.
    unsafe { KsimClassifyLock(lock, bytes, file.as_ptr(), file.len(), site.line(), site.column()) };
}
