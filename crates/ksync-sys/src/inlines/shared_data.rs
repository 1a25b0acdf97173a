//! The page that the kernel shares with user mode, which the clock's routines read.
#![cfg(all(windows, not(feature = "hosted")))]

use crate::{LARGE_INTEGER, LONG, ULONG, ULONGLONG};
use core::ptr::with_exposed_provenance;
use core::sync::atomic::{Ordering, fence};

/// Where the page lies, on all 64-bit Windows.
const KI_USER_SHARED_DATA: usize = 0xFFFF_F780_0000_0000;
/// The interrupt time, as a 64-bit number that is aligned.
const INTERRUPT_TIME: *const ULONGLONG = with_exposed_provenance(KI_USER_SHARED_DATA + 0x08);
/// The low half of the system time, which is not aligned as a whole.
const SYSTEM_TIME_LOW: *const ULONG = with_exposed_provenance(KI_USER_SHARED_DATA + 0x14);
/// The high half, which is written after the low one.
const SYSTEM_TIME_HIGH1: *const LONG = with_exposed_provenance(KI_USER_SHARED_DATA + 0x18);
/// The high half again, which is written before the low one.
const SYSTEM_TIME_HIGH2: *const LONG = with_exposed_provenance(KI_USER_SHARED_DATA + 0x1C);
/// The number of clock ticks, as a 64-bit number that is aligned.
const TICK_COUNT: *const ULONGLONG = with_exposed_provenance(KI_USER_SHARED_DATA + 0x320);

/// Returns the interrupt time in 100 ns, as of the last clock tick.
///
/// # IRQL
/// Any level.
///
/// # Safety
/// As for every routine: the caller is in kernel mode.
#[inline]
#[must_use]
pub unsafe extern "system" fn KeQueryInterruptTime() -> ULONGLONG {
    // SAFETY: the page is always mapped, and the number is aligned and therefore read as a whole.
    unsafe { INTERRUPT_TIME.read_volatile() }
}

/// The type of the routine `KeQueryInterruptTime`.
pub type KeQueryInterruptTime = unsafe extern "system" fn() -> ULONGLONG;

/// Writes the system time in 100 ns since 1601, as of the last clock tick.
///
/// # IRQL
/// Any level.
///
/// # Safety
/// As for every routine: the caller is in kernel mode; `CurrentTime` is written.
#[inline]
pub unsafe extern "system" fn KeQuerySystemTime(CurrentTime: *mut LARGE_INTEGER) {
    let time = loop {
        // SAFETY: the page is always mapped.
        let high = unsafe { SYSTEM_TIME_HIGH1.read_volatile() };
        fence(Ordering::Acquire);
        // SAFETY: as above.
        let low = unsafe { SYSTEM_TIME_LOW.read_volatile() };
        fence(Ordering::Acquire);
        // SAFETY: as above.
        let again = unsafe { SYSTEM_TIME_HIGH2.read_volatile() };
        if high == again {
            break (LARGE_INTEGER::from(high) << 32) | LARGE_INTEGER::from(low);
        }
        core::hint::spin_loop();
    };
    // SAFETY: by the caller's contract.
    unsafe { CurrentTime.write(time) }
}

/// The type of the routine `KeQuerySystemTime`.
pub type KeQuerySystemTime = unsafe extern "system" fn(CurrentTime: *mut LARGE_INTEGER);

/// Writes the number of clock ticks since the start.
///
/// # IRQL
/// Any level.
///
/// # Safety
/// As for every routine: the caller is in kernel mode; `CurrentCount` is written.
#[inline]
pub unsafe extern "system" fn KeQueryTickCount(CurrentCount: *mut LARGE_INTEGER) {
    // SAFETY: the page is always mapped, and the number is aligned and therefore read as a whole.
    let ticks = unsafe { TICK_COUNT.read_volatile() };
    // SAFETY: by the caller's contract.
    unsafe { CurrentCount.write(ticks.cast_signed()) }
}

/// The type of the routine `KeQueryTickCount`.
pub type KeQueryTickCount = unsafe extern "system" fn(CurrentCount: *mut LARGE_INTEGER);
