//! DPCs that run once and free themselves.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr;

use ksync_sys as sys;

use super::{Importance, Processor};
use crate::driver::image::Image;
use crate::error::{NtError, Result, check};
use crate::pool::{KBox, NotAllocated};

/// A closure that could not be queued to run once, with the reason.
///
/// # Examples
/// ```
/// use ksync::dpc::{self, Processor};
/// use ksync::NtError;
///
/// # ksim::Machine::new().run(|| {
/// let text = String::from("kept");
/// let failure = dpc::run_once_on(Processor { group: 9, number: 0 }, move || drop(text)).unwrap_err();
/// assert_eq!(failure.error, NtError::INVALID_PARAMETER);
/// (failure.closure)();
/// # }).expect_clean();
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NotQueued<F> {
    /// The reason.
    pub error: NtError,
    /// The closure.
    pub closure: F,
}

impl<F> fmt::Debug for NotQueued<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotQueued").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<F> fmt::Display for NotQueued<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl<F> core::error::Error for NotQueued<F> {}

impl<F> From<NotQueued<F>> for NtError {
    fn from(failure: NotQueued<F>) -> Self {
        failure.error
    }
}

/// Runs a closure once, at `DISPATCH_LEVEL`, on the processor that this is called on.
///
/// The closure and its DPC are freed once: when the closure has run. The driver's unload waits for it.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`. Below `DISPATCH_LEVEL` the closure has run when this returns, unless the thread was moved to another processor meanwhile.
///
/// # Errors
/// The closure comes back with
/// - [`NtError::INSUFFICIENT_RESOURCES`] if there is no pool;
/// - [`NtError::DELETE_PENDING`] while the driver is being unloaded;
/// - [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
///
/// # Examples
/// ```
/// use ksync::dpc;
/// use ksync::irql::{self, Irql};
///
/// # ksim::Machine::new().run(|| {
/// let text = String::from("moved");
/// dpc::run_once(move || {
///     assert_eq!(irql::current(), Irql::DISPATCH);
///     drop(text);
/// }).unwrap();
/// # }).expect_clean();
/// ```
///
/// Wraps [`KeInsertQueueDpc`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinsertqueuedpc).
#[doc(alias = "KeInsertQueueDpc")]
pub fn run_once<F>(closure: F) -> Result<(), NotQueued<F>>
where
    F: FnOnce() + Send + 'static,
{
    queue(closure, None)
}

/// Runs a closure once, at `DISPATCH_LEVEL`, on a processor of one's choice, which is interrupted for it.
///
/// The closure and its DPC are freed once: when the closure has run. The driver's unload waits for it. This does not wait; a closure for every processor, which is waited
/// for, is what [`run_once_per_core`](super::run_once_per_core) runs.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Errors
/// Those of [`run_once`], and [`NtError::INVALID_PARAMETER`] if there is no such processor. The closure comes back.
///
/// # Examples
/// ```
/// use ksync::dpc::{self, Processor};
///
/// # ksim::Machine::new().groups(&[1, 1]).run(|| {
/// let other = Processor { group: 1, number: 0 };
/// dpc::run_once_on(other, move || assert_eq!(Processor::current(), other)).unwrap();
/// # }).expect_clean();
/// ```
///
/// Wraps [`KeSetTargetProcessorDpcEx`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kesettargetprocessordpcex) and
/// [`KeInsertQueueDpc`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinsertqueuedpc). First Windows: 7.
#[doc(alias = "KeSetTargetProcessorDpcEx")]
pub fn run_once_on<F>(processor: Processor, closure: F) -> Result<(), NotQueued<F>>
where
    F: FnOnce() + Send + 'static,
{
    queue(closure, Some(processor))
}

/// A DPC and the closure that it runs once, as they are allocated.
struct Block<F> {
    dpc: UnsafeCell<MaybeUninit<sys::KDPC>>,
    closure: F,
}

/// Allocates a DPC and queues it.
fn queue<F>(closure: F, processor: Option<Processor>) -> Result<(), NotQueued<F>>
where
    F: FnOnce() + Send + 'static,
{
    if let Err(error) = Image::this().check_open() {
        return Err(NotQueued { error, closure });
    }
    let block = match KBox::try_new_with(Block { dpc: UnsafeCell::new(MaybeUninit::uninit()), closure }) {
        Ok(block) => block,
        Err(NotAllocated { value, error }) => return Err(NotQueued { error, closure: value.closure }),
    };
    let block = KBox::into_raw(block);
    // SAFETY: the block was allocated just now; the place is only pointed to.
    let dpc = unsafe { &raw mut (*block).dpc }.cast::<sys::KDPC>();
    // SAFETY: the DPC lies in nonpaged pool, in which it stays until its routine frees it.
    unsafe { sys::KeInitializeDpc(dpc, Some(routine::<F>), block.cast()) };
    if let Some(processor) = processor {
        let mut number = processor.raw();
        // SAFETY: the DPC was initialised just now, and the number is a local variable.
        let status = unsafe { sys::KeSetTargetProcessorDpcEx(dpc, &raw mut number) };
        if let Err(error) = check(status) {
            // SAFETY: the block came from `into_raw`, and its DPC was not queued.
            let block = unsafe { KBox::from_raw(block) };
            return Err(NotQueued { error, closure: block.into_inner().closure });
        }
        // SAFETY: the DPC was initialised above.
        unsafe { sys::KeSetImportanceDpc(dpc, Importance::MediumHigh.raw()) };
    }
    // A DPC that was never queued before is queued now; and may have run, and be gone, when the routine returns.
    // SAFETY: the DPC is initialised and in its place until its routine runs.
    unsafe { sys::KeInsertQueueDpc(dpc, ptr::null_mut(), ptr::null_mut()) };
    Ok(())
}

/// The kernel's way into a closure that runs once.
///
/// # Safety
/// The context is a `Block<F>` from [`KBox::into_raw`], whose DPC runs for the first time.
unsafe extern "system-unwind" fn routine<F: FnOnce()>(
    _dpc: *mut sys::KDPC,
    context: *mut c_void,
    _argument1: *mut c_void,
    _argument2: *mut c_void,
) {
    // SAFETY: by this function's contract. The DPC was queued once and is taken off its queue, so that nobody else uses the block.
    let block = unsafe { KBox::from_raw(context.cast::<Block<F>>()) };
    (block.into_inner().closure)();
}
