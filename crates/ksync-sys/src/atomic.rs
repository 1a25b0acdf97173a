//! Atomics that the hosted kernel sees.
//!
//! In a driver these are `core`'s own types. Hosted they have the same operations, each of which is a scheduling point of the machine that runs, so that a search of schedules
//! searches their orders too; outside a machine they are plain.

#[cfg(all(windows, not(feature = "hosted")))]
pub use core::sync::atomic::{
    AtomicBool, AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicIsize, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64,
    AtomicUsize, Ordering, compiler_fence, fence,
};

#[cfg(not(all(windows, not(feature = "hosted"))))]
mod hosted;
#[cfg(not(all(windows, not(feature = "hosted"))))]
pub use hosted::*;

#[cfg(not(all(windows, not(feature = "hosted"))))]
use core::ffi::c_void;
use core::panic::Location;

/// Tells the hosted kernel of a plain access to these `bytes`, which nothing but the program's synchronization orders. In a driver this does nothing, and leaves no
/// code behind.
#[cfg(all(windows, not(feature = "hosted")))]
#[inline(always)]
pub fn plain_access(_address: usize, _bytes: usize, _writes: bool, _site: &'static Location<'static>) {}

/// Tells the hosted kernel of a plain access to these `bytes`, which nothing but the program's synchronization orders. In a driver this does nothing, and leaves no
/// code behind.
///
/// # Panics
/// If another context has accessed them, one of the two writes, and nothing orders the two: a data race.
#[cfg(not(all(windows, not(feature = "hosted"))))]
#[track_caller]
pub fn plain_access(address: usize, bytes: usize, writes: bool, site: &'static Location<'static>) {
    unsafe extern "system-unwind" {
        /// Checks a plain access. Where it races with another, that one's place, and otherwise null.
        fn KsimPlainAccess(Address: usize, Bytes: usize, Writes: bool, Site: *const c_void) -> *const c_void;
    }
    // SAFETY: the routine may be called anywhere.
    let other = unsafe { KsimPlainAccess(address, bytes, writes, core::ptr::from_ref(site).cast()) };
    // SAFETY: it gives back null, or a place that it was given in an earlier call.
    if let Some(other) = unsafe { other.cast::<Location<'static>>().as_ref() } {
        let what = if writes { "write" } else { "read" };
        panic!(
            "data race: nothing orders this {what} and the access at {other} by another thread or DPC, and one of the two writes"
        );
    }
}
