//! A closure that runs on every processor at once.

use core::ffi::c_void;

use ksync_sys as sys;

use crate::driver::image::Image;
use crate::error::{NtError, Result};
use crate::irql::{self, Irql};

/// Runs a closure once on every processor, at `DISPATCH_LEVEL`, on all of them at the same time, and returns when all are done.
///
/// # IRQL
/// `PASSIVE_LEVEL`.
///
/// # Errors
/// - [`NtError::IRQL_TOO_HIGH`] above `PASSIVE_LEVEL`; the closure was not run.
/// - [`NtError::WOULD_DEADLOCK`] in the closure of a threaded DPC.
///
/// # Examples
/// ```
/// use core::sync::atomic::{AtomicU32, Ordering};
/// use ksync::dpc;
///
/// # ksim::Machine::new().processors(4).run(|| {
/// let seen = AtomicU32::new(0);
/// dpc::run_once_per_core(|| {
///     seen.fetch_or(1 << dpc::Processor::current().number, Ordering::Relaxed);
/// }).unwrap();
/// assert_eq!(seen.into_inner(), 0b1111);
/// # }).expect_clean();
/// ```
///
/// Wraps `KeGenericCallDpc`, which Microsoft does not document; all Windows from Server 2003 on, and Wine, export it.
#[doc(alias = "KeGenericCallDpc")]
#[doc(alias = "KeSignalCallDpcDone")]
pub fn run_once_per_core<F: Fn() + Sync>(closure: F) -> Result {
    /// Runs the closure on one processor.
    ///
    /// # Safety
    /// The context is an `F` that is alive until the last processor has signalled that it is done.
    unsafe extern "system-unwind" fn on_core<F: Fn()>(
        _dpc: *mut sys::KDPC,
        context: *mut c_void,
        done: *mut c_void,
        _synchronize: *mut c_void,
    ) {
        // SAFETY: by this function's contract; all processors use the closure shared.
        let closure = unsafe { &*context.cast::<F>() };
        closure();
        // SAFETY: the argument is the one that the kernel passed for this, and it is signalled once. The closure is not used any more.
        unsafe { sys::KeSignalCallDpcDone(done) };
    }
    irql::require_at_most(Irql::PASSIVE)?;
    if Image::this().in_threaded_dpc() {
        return Err(NtError::WOULD_DEADLOCK);
    }
    let context = (&raw const closure).cast_mut().cast();
    // SAFETY: the closure is `Sync`, and alive until this returns, which is after all processors have signalled that they are done. The level was checked.
    unsafe { sys::KeGenericCallDpc(Some(on_core::<F>), context) };
    Ok(())
}
