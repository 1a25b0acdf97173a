//! One pair of calls on a spin lock, through the library.
#![no_std]

use ksync::irql::{Irql, Passive};
use ksync::mutex::SpinLocked;

/// The level is known at compile time.
#[unsafe(no_mangle)]
pub extern "system" fn spin_pair_token(lock: &SpinLocked<u32>, passive: &mut Irql<Passive>) {
    *lock.lock_at(passive) += 1;
}

/// The level and the holder are checked.
#[unsafe(no_mangle)]
pub extern "system" fn spin_pair_checked(lock: &SpinLocked<u32>) {
    if let Ok(mut count) = lock.lock() {
        *count += 1;
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
