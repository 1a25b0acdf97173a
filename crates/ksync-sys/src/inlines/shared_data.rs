//! The page that the kernel shares with user mode, which the clock's routines read.
#![cfg(all(windows, not(feature = "hosted")))]

use crate::{LARGE_INTEGER, ULONGLONG};

/// Where the page lies, on all 64-bit Windows.
const KI_USER_SHARED_DATA: usize = 0xFFFF_F780_0000_0000;
/// The interrupt time: a 64-bit number, then its high half again.
const INTERRUPT_TIME: usize = KI_USER_SHARED_DATA + 0x08;
/// The system time: a 64-bit number that is not aligned, then its high half again.
const SYSTEM_TIME: usize = KI_USER_SHARED_DATA + 0x14;
/// The number of clock ticks: a 64-bit number.
const TICK_COUNT: usize = KI_USER_SHARED_DATA + 0x320;

/// Reads a 64-bit number of the page as a whole.
///
/// A plain load, because Wine emulates those, but not instructions that have a memory operand beside other work.
///
/// # Safety
/// The caller is in kernel mode, and `address` is that of a 64-bit number of the page.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn read(address: usize) -> ULONGLONG {
    let value;
    // SAFETY: the page is always mapped. No number of it crosses a cache line, so the load is atomic even where the number
    // is not aligned.
    unsafe {
        core::arch::asm!("mov {}, [{}]", out(reg) value, in(reg) address, options(nostack, preserves_flags, readonly));
    }
    value
}

/// Reads a 64-bit number of the page as a whole.
///
/// # Safety
/// The caller is in kernel mode, and `address` is that of an aligned 64-bit number of the page.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
unsafe fn read(address: usize) -> ULONGLONG {
    let pointer = core::ptr::with_exposed_provenance::<ULONGLONG>(address);
    // SAFETY: the page is always mapped, and the number is aligned by the caller's contract.
    unsafe { pointer.read_volatile() }
}

/// Reads the system time.
///
/// # Safety
/// The caller is in kernel mode.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn system_time() -> LARGE_INTEGER {
    // SAFETY: by the caller's contract.
    unsafe { read(SYSTEM_TIME) }.cast_signed()
}

/// Reads the system time in halves. The kernel writes the second copy of the high half first and the first one last.
///
/// # Safety
/// The caller is in kernel mode.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
unsafe fn system_time() -> LARGE_INTEGER {
    use core::sync::atomic::{Ordering, fence};
    let low = core::ptr::with_exposed_provenance::<u32>(SYSTEM_TIME);
    let high = low.wrapping_add(1).cast::<i32>();
    let copy = high.wrapping_add(1);
    loop {
        // SAFETY: the page is always mapped.
        let high = unsafe { high.read_volatile() };
        fence(Ordering::Acquire);
        // SAFETY: as above.
        let low = unsafe { low.read_volatile() };
        fence(Ordering::Acquire);
        // SAFETY: as above.
        if high == unsafe { copy.read_volatile() } {
            return (LARGE_INTEGER::from(high) << 32) | LARGE_INTEGER::from(low);
        }
        core::hint::spin_loop();
    }
}

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
    // SAFETY: it is an aligned number of the page; kernel mode by the caller's contract.
    unsafe { read(INTERRUPT_TIME) }
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
    // SAFETY: by the caller's contract.
    let time = unsafe { system_time() };
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
    // SAFETY: it is an aligned number of the page; kernel mode by the caller's contract.
    let ticks = unsafe { read(TICK_COUNT) };
    // SAFETY: by the caller's contract.
    unsafe { CurrentCount.write(ticks.cast_signed()) }
}

/// The type of the routine `KeQueryTickCount`.
pub type KeQueryTickCount = unsafe extern "system" fn(CurrentCount: *mut LARGE_INTEGER);
