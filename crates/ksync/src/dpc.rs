//! Deferred procedure calls: code that runs at `DISPATCH_LEVEL` soon, on this processor or another.
//!
//! A [`Dpc`] owns a closure and can be queued from any level, an interrupt's included. A [`ThreadedDpc`] runs at `PASSIVE_LEVEL` where the system admits
//! it, and still must not wait. [`run_once_per_core`] runs a closure on every processor and waits for all of them.
//!
//! # Vocabulary
//! ```text
//!          enqueue               the processor takes it off its queue
//! idle -------------> queued ------------------------------------------> running --> idle
//!        cancel, true <--'                     enqueue again: queued, while it still runs
//! ```
//! A DPC is taken off the queue *before* its routine runs. It can therefore be queued again meanwhile, and run on two processors at once: closures are
//! `Fn` and `Sync`.
//!
//! # Who frees it
//! The closure and the kernel's object lie in one block of nonpaged pool, which counts its users: the handle, and each time that it is queued until the routine is done. The last
//! one frees it. So a handle may be dropped at any level up to `DISPATCH_LEVEL`, in the closure too. At `PASSIVE_LEVEL` a drop also waits until the routine no longer runs.

mod once;
mod per_core;
mod pinned;
mod processor;

use core::ops::Deref;
use core::ptr;
use core::sync::atomic::Ordering;
use core::time::Duration;

use ksync_sys as sys;

use crate::driver::image::Image;
use crate::error::Result;
use crate::irql::{self, Dispatch, Irql};
use crate::thread::this_thread;

pub use once::{NotQueued, run_once, run_once_on};
pub use per_core::run_once_per_core;
use pinned::Owner;
pub use pinned::PinnedDpc;
pub use processor::Processor;

/// Where in its queue a DPC goes, and how soon the queue is drained.
#[doc(alias = "KDPC_IMPORTANCE")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Importance {
    /// At the end; the processor may take its time.
    Low,
    /// At the end; at once on this processor, and in time on another.
    #[default]
    Medium,
    /// At the end, and at once on another processor too.
    MediumHigh,
    /// At the beginning, and at once.
    High,
}

impl Importance {
    /// NT's number.
    const fn raw(self) -> sys::KDPC_IMPORTANCE {
        match self {
            Self::Low => sys::LowImportance,
            Self::Medium => sys::MediumImportance,
            Self::MediumHigh => sys::MediumHighImportance,
            Self::High => sys::HighImportance,
        }
    }
}

/// A DPC whose closure runs at `DISPATCH_LEVEL`. It has the operations of [`PinnedDpc`].
///
/// # IRQL
/// Made and dropped at `<= DISPATCH_LEVEL`. At `PASSIVE_LEVEL` a drop waits until the closure no longer runs, and drops what it owns there and then; at a
/// higher level that is left to the routine if it still runs, so that what the closure owns must bear being dropped at `DISPATCH_LEVEL`. Above
/// `DISPATCH_LEVEL` the closure is leaked.
///
/// # Examples
/// ```
/// use core::sync::atomic::{AtomicU32, Ordering};
/// use ksync::dpc::Dpc;
/// use std::sync::Arc;
///
/// # ksim::Machine::new().run(|| {
/// let runs = Arc::new(AtomicU32::new(0));
/// let counter = runs.clone();
/// let dpc = Dpc::new(move || {
///     counter.fetch_add(1, Ordering::Relaxed);
/// }).unwrap();
/// dpc.enqueue().unwrap();
/// dpc.flush().unwrap();
/// dpc.enqueue().unwrap();
/// dpc.flush().unwrap();
/// assert_eq!(runs.load(Ordering::Relaxed), 2);
/// # drop(dpc); drop(runs);
/// # }).expect_clean();
/// ```
#[doc(alias = "KDPC")]
#[derive(Debug)]
pub struct Dpc(Owner);

impl Dpc {
    /// Makes a DPC.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::INSUFFICIENT_RESOURCES`](crate::NtError::INSUFFICIENT_RESOURCES) if there is no pool. The closure is dropped.
    /// - [`NtError::IRQL_TOO_HIGH`](crate::NtError::IRQL_TOO_HIGH) above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::dpc::Dpc;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let dpc = Dpc::new(|| ksync::println!("at DISPATCH_LEVEL")).unwrap();
    /// assert_eq!(dpc.enqueue(), Ok(true));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeInitializeDpc`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializedpc).
    #[doc(alias = "KeInitializeDpc")]
    pub fn new<F>(closure: F) -> Result<Self>
    where
        F: Fn() + Send + Sync + 'static,
    {
        Self::new_with_arguments(move |_, _| closure())
    }

    /// [`new`](Self::new) for a closure that is given the two arguments of whoever [queued](PinnedDpc::enqueue_with) the DPC.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    ///
    /// # Examples
    /// ```
    /// use core::sync::atomic::{AtomicUsize, Ordering};
    /// use ksync::dpc::Dpc;
    /// use std::sync::Arc;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let sum = Arc::new(AtomicUsize::new(0));
    /// let total = sum.clone();
    /// let dpc = Dpc::new_with_arguments(move |count, size| {
    ///     total.fetch_add(count * size, Ordering::Relaxed);
    /// }).unwrap();
    /// dpc.enqueue_with(3, 14).unwrap();
    /// dpc.flush().unwrap();
    /// assert_eq!(sum.load(Ordering::Relaxed), 42);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeInitializeDpc`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializedpc).
    #[doc(alias = "KeInitializeDpc")]
    pub fn new_with_arguments<F>(closure: F) -> Result<Self>
    where
        F: Fn(usize, usize) + Send + Sync + 'static,
    {
        Ok(Self(Owner::new(closure, false)?))
    }

    /// [`new`](Self::new) for a closure that is given the token of its level, so that what it locks is checked at compile time.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    ///
    /// # Examples
    /// ```
    /// use ksync::dpc::Dpc;
    /// use ksync::mutex::{LockAt, SpinLocked};
    ///
    /// # ksim::Machine::new().run(|| {
    /// static COUNT: SpinLocked<u32> = SpinLocked::const_new(0);
    /// # *COUNT.lock().unwrap() = 0;
    /// let dpc = Dpc::new_with_irql(|dispatch| *COUNT.lock_at(dispatch) += 1).unwrap();
    /// assert_eq!(dpc.enqueue(), Ok(true));
    /// dpc.flush().unwrap();
    /// assert_eq!(*COUNT.lock().unwrap(), 1);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeInitializeDpc`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializedpc).
    #[doc(alias = "KeInitializeDpc")]
    pub fn new_with_irql<F>(closure: F) -> Result<Self>
    where
        F: Fn(&mut Irql<Dispatch>) + Send + Sync + 'static,
    {
        // IRQL: an ordinary DPC runs at `DISPATCH_LEVEL`.
        Self::new(move || closure(&mut Irql::made()))
    }
}

impl Deref for Dpc {
    type Target = PinnedDpc;

    #[inline]
    fn deref(&self) -> &PinnedDpc {
        self.0.dpc()
    }
}

/// A DPC whose closure runs at `PASSIVE_LEVEL` in a thread of the system's, or at `DISPATCH_LEVEL` where threaded DPCs are turned off. It has the operations of
/// [`PinnedDpc`].
///
/// The closure must work at both levels, and must not wait: the processor's other threaded DPCs come after it.
///
/// # IRQL
/// As for [`Dpc`]. A drop within the routine of a threaded DPC does not wait.
///
/// # Examples
/// ```
/// use ksync::dpc::ThreadedDpc;
/// use ksync::event::{Event, EventProperty};
/// use ksync::wait::Dispatchable;
/// use std::sync::Arc;
///
/// # ksim::Machine::new().run(|| {
/// let done = Arc::new(Event::new(EventProperty::Notification, false).unwrap());
/// let signal = done.clone();
/// let dpc = ThreadedDpc::new(move || {
///     signal.set().unwrap();
/// }).unwrap();
/// assert_eq!(dpc.enqueue(), Ok(true));
/// assert!(done.wait().success());
/// # }).expect_clean();
/// ```
#[doc(alias = "KDPC")]
#[derive(Debug)]
pub struct ThreadedDpc(Owner);

impl ThreadedDpc {
    /// Makes a threaded DPC.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Those of [`Dpc::new`].
    ///
    /// # Examples
    /// ```
    /// use ksync::dpc::ThreadedDpc;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let dpc = ThreadedDpc::new(|| ksync::println!("at PASSIVE_LEVEL, or not")).unwrap();
    /// assert_eq!(dpc.enqueue(), Ok(true));
    /// dpc.flush().unwrap();
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeInitializeThreadedDpc`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializethreadeddpc).
    #[doc(alias = "KeInitializeThreadedDpc")]
    pub fn new<F>(closure: F) -> Result<Self>
    where
        F: Fn() + Send + Sync + 'static,
    {
        Self::new_with_arguments(move |_, _| closure())
    }

    /// [`new`](Self::new) for a closure that is given the two arguments of whoever [queued](PinnedDpc::enqueue_with) the DPC.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Those of [`Dpc::new`].
    ///
    /// # Examples
    /// ```
    /// use ksync::dpc::ThreadedDpc;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let dpc = ThreadedDpc::new_with_arguments(|first, second| assert_eq!((first, second), (1, 2))).unwrap();
    /// dpc.enqueue_with(1, 2).unwrap();
    /// dpc.flush().unwrap();
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeInitializeThreadedDpc`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializethreadeddpc).
    #[doc(alias = "KeInitializeThreadedDpc")]
    pub fn new_with_arguments<F>(closure: F) -> Result<Self>
    where
        F: Fn(usize, usize) + Send + Sync + 'static,
    {
        Ok(Self(Owner::new(closure, true)?))
    }
}

impl Deref for ThreadedDpc {
    type Target = PinnedDpc;

    #[inline]
    fn deref(&self) -> &PinnedDpc {
        self.0.dpc()
    }
}

/// Tells whether the caller may wait for DPCs.
pub(crate) fn may_flush(image: &Image) -> bool {
    irql::current() == Irql::PASSIVE && !image.in_threaded_dpc()
}

/// Waits until all DPCs that are queued now have run.
///
/// # IRQL
/// `PASSIVE_LEVEL`, and not in a threaded DPC.
pub(crate) fn flush_all() {
    // SAFETY: the callers have checked the level.
    unsafe { sys::KeFlushQueuedDpcs() };
}

/// Waits until no DPC of an image is queued or runs. No more are queued meanwhile, because the image is closing.
///
/// # IRQL
/// As for [`flush_all`].
pub(crate) fn drain(image: &Image) {
    flush_all();
    // No page says that a flush waits for threaded DPCs too.
    while image.threaded_out.load(Ordering::Acquire) > 0 {
        let _ = this_thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until the threads in which threaded DPCs of this image ran have left its code. One that has said that it is done may be a few instructions from that, for as long as something keeps its processor.
///
/// # IRQL
/// `PASSIVE_LEVEL`.
pub(crate) fn leave_threaded(image: &Image) {
    if !image.threaded.was_used() {
        return;
    }
    let mut before = sys::GROUP_AFFINITY::default();
    let mut moved = false;
    // CAST: a count that came from a `u32`.
    for processor in (0..crate::thread::available_parallelism().get() as u32).filter_map(Processor::from_index) {
        let affinity = sys::GROUP_AFFINITY { Mask: 1 << processor.number, Group: processor.group, Reserved: [0; 3] };
        let place = if moved { ptr::null_mut() } else { &raw mut before };
        // No thread preempts one that runs a threaded DPC. So where this thread runs, none of those is on its way.
        // SAFETY: the affinity is a local variable that names an active processor, and the place is one or null. The caller is at `PASSIVE_LEVEL`.
        unsafe { sys::KeSetSystemGroupAffinityThread(&raw const affinity, place) };
        moved = true;
    }
    if moved {
        // SAFETY: the value is the one that the first of the calls above wrote. The caller is at `PASSIVE_LEVEL`.
        unsafe { sys::KeRevertToUserGroupAffinityThread(&raw const before) };
    }
}
