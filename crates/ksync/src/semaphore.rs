//! Semaphores: a count of something that threads take one of, and wait for when there is none.
//!
//! A semaphore is signaled while its count is above zero. A wait that it satisfies counts down by one, and
//! [`release`](PinnedSemaphore::release) counts up, to a limit at most.
//!
//! The kernel's object is a [`KSEMAPHORE`](ksync_sys::KSEMAPHORE). [`Semaphore`] keeps it in a box of nonpaged pool and can be moved; [`PinnedSemaphore`] is the object
//! itself, to be placed inside a larger structure, and has the operations.
//!
//! # Releasing too much
//! `KeReleaseSemaphore` raises an exception when the limit would be exceeded, which nothing in Rust can catch: it would be a bug check. Here it is an error. To make
//! that certain with several releasers at once, releases are serialised by a spin lock beside the kernel's object: under it the count is read, and only then released. Waits
//! can only make the count smaller meanwhile, so the kernel never sees a release that exceeds the limit.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::fmt;
use core::marker::PhantomPinned;
use core::mem::MaybeUninit;
use core::ops::Deref;
use core::pin::Pin;
use core::sync::atomic::{AtomicI32, Ordering};

use ksync_sys as sys;

use crate::error::{NtError, Result};
use crate::init::{PinInit, pin_init_from_closure};
use crate::irql::{self, Irql};
use crate::pool::KBox;
use crate::wait::{Dispatchable, sealed};

/// A semaphore in its own box of nonpaged pool. It has the operations of [`PinnedSemaphore`].
///
/// # Examples
/// ```
/// use ksync::semaphore::Semaphore;
/// use ksync::thread;
/// use ksync::wait::Dispatchable;
///
/// # ksim::Machine::new().processors(2).run(|| {
/// let items = Semaphore::new(0, 10).unwrap();
/// thread::scope(|scope| {
///     let consumer = scope.spawn(|| (0..3).filter(|_| items.wait().success()).count()).unwrap();
///     for _ in 0..3 {
///         items.release(1).unwrap();
///     }
///     assert_eq!(consumer.join(), Ok(3));
/// });
/// # }).expect_clean();
/// ```
pub struct Semaphore(Pin<KBox<PinnedSemaphore>>);

impl Semaphore {
    /// Makes a semaphore with a count and the limit to it.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::INVALID_PARAMETER`] if the limit is zero or above [`i32::MAX`], or the count is above the limit.
    /// - [`NtError::INSUFFICIENT_RESOURCES`] if there is no pool.
    /// - [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::semaphore::Semaphore;
    /// use ksync::NtError;
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(Semaphore::new(1, 2).unwrap().count(), Ok(1));
    /// assert_eq!(Semaphore::new(3, 2).unwrap_err(), NtError::INVALID_PARAMETER);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeInitializeSemaphore`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializesemaphore).
    #[doc(alias = "KeInitializeSemaphore")]
    pub fn new(count: u32, limit: u32) -> Result<Self> {
        Ok(Self(KBox::pin_init(PinnedSemaphore::pin_init(count, limit))?))
    }
}

impl Deref for Semaphore {
    type Target = PinnedSemaphore;

    #[inline]
    fn deref(&self) -> &PinnedSemaphore {
        &self.0
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl sealed::Sealed for Semaphore {
    fn dispatcher_object(&self) -> *mut c_void {
        (**self).dispatcher_object()
    }
}

// SAFETY: as for `PinnedSemaphore`, which the box keeps in its place while it is borrowed.
unsafe impl Dispatchable for Semaphore {}

/// A semaphore in place.
///
/// # Invariants
/// - The object is initialised with `limit`, and stays where it is until it is dropped. Nobody waits on it when it is dropped, because a wait borrows it.
/// - It is released only by who holds `releasing`, and then only by so much as keeps the count within the limit.
///
/// # Examples
/// ```
/// use ksync::init::stack_try_pin_init;
/// use ksync::semaphore::PinnedSemaphore;
///
/// # ksim::Machine::new().run(|| {
/// stack_try_pin_init!(let semaphore = PinnedSemaphore::pin_init(0, 1));
/// let semaphore = semaphore.unwrap();
/// assert_eq!(semaphore.release(1), Ok(0));
/// # }).expect_clean();
/// ```
#[doc(alias = "KSEMAPHORE")]
pub struct PinnedSemaphore {
    semaphore: UnsafeCell<MaybeUninit<sys::KSEMAPHORE>>,
    /// Held while the semaphore is released.
    releasing: UnsafeCell<sys::KSPIN_LOCK>,
    limit: i32,
    _pin: PhantomPinned,
}

// SAFETY: a semaphore belongs to no thread; all that is done to it, dropping included, may be done in any.
unsafe impl Send for PinnedSemaphore {}
// SAFETY: the kernel's routines on semaphores and spin locks are atomic with respect to each other, and the limit never changes.
unsafe impl Sync for PinnedSemaphore {}

impl PinnedSemaphore {
    /// Makes a semaphore where it stays. The memory must be nonpaged.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Errors
    /// The initialiser fails with [`NtError::INVALID_PARAMETER`] if the limit is zero or above [`i32::MAX`], or the count is above the limit.
    ///
    /// # Examples
    /// ```
    /// use ksync::init::stack_try_pin_init;
    /// use ksync::semaphore::PinnedSemaphore;
    /// use ksync::NtError;
    ///
    /// # ksim::Machine::new().run(|| {
    /// stack_try_pin_init!(let none = PinnedSemaphore::pin_init(0, 0));
    /// assert_eq!(none.err(), Some(NtError::INVALID_PARAMETER));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeInitializeSemaphore`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializesemaphore).
    #[doc(alias = "KeInitializeSemaphore")]
    pub fn pin_init(count: u32, limit: u32) -> impl PinInit<Self, NtError> {
        let initialise = move |slot: *mut Self| {
            let limit = i32::try_from(limit).map_err(|_| NtError::INVALID_PARAMETER)?;
            let count = i32::try_from(count).map_err(|_| NtError::INVALID_PARAMETER)?;
            if limit == 0 || count > limit {
                return Err(NtError::INVALID_PARAMETER);
            }
            let parts = Self {
                semaphore: UnsafeCell::new(MaybeUninit::uninit()),
                releasing: UnsafeCell::new(0),
                limit,
                _pin: PhantomPinned,
            };
            // SAFETY: the slot is valid for writes, as initialisers are promised.
            unsafe { slot.write(parts) };
            // SAFETY: the slot was written just now, and is not used otherwise yet.
            let semaphore = unsafe { &*slot }.raw();
            // SAFETY: the semaphore lies in the slot, from which it will not move. The numbers are in range, as was checked.
            unsafe { sys::KeInitializeSemaphore(semaphore, count, limit) };
            Ok(())
        };
        // SAFETY: when it succeeds the closure has initialised all fields that are not of size zero; when it fails it has initialised none.
        unsafe { pin_init_from_closure(initialise) }
    }

    /// The kernel's object.
    #[inline]
    fn raw(&self) -> *mut sys::KSEMAPHORE {
        self.semaphore.get().cast()
    }

    /// Counts up, which releases as many waiters, and tells the count before.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// The count is left as it was, and the error is
    /// - [`NtError::SEMAPHORE_LIMIT_EXCEEDED`] if it would exceed the limit;
    /// - [`NtError::INVALID_PARAMETER`] for an adjustment of zero;
    /// - [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::semaphore::Semaphore;
    /// use ksync::NtError;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let semaphore = Semaphore::new(0, 2).unwrap();
    /// assert_eq!(semaphore.release(2), Ok(0));
    /// assert_eq!(semaphore.release(1), Err(NtError::SEMAPHORE_LIMIT_EXCEEDED));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeReleaseSemaphore`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereleasesemaphore).
    #[doc(alias = "KeReleaseSemaphore")]
    pub fn release(&self, adjustment: u32) -> Result<u32> {
        self.release_with_increment(adjustment, sys::IO_NO_INCREMENT)
    }

    /// Counts up as [`release`](Self::release) does, and raises the priority of threads that this wakes for a moment.
    ///
    /// An increment outside 0 to 15 counts as the nearest of these.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Those of [`release`](Self::release).
    ///
    /// # Examples
    /// ```
    /// use ksync::semaphore::Semaphore;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let semaphore = Semaphore::new(0, 2).unwrap();
    /// assert_eq!(semaphore.release_with_increment(1, ksync::sys::SEMAPHORE_INCREMENT), Ok(0));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeReleaseSemaphore`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereleasesemaphore).
    #[doc(alias = "KeReleaseSemaphore")]
    pub fn release_with_increment(&self, adjustment: u32, increment: i32) -> Result<u32> {
        irql::require_at_most(Irql::DISPATCH)?;
        if adjustment == 0 {
            return Err(NtError::INVALID_PARAMETER);
        }
        let adjustment = i32::try_from(adjustment).map_err(|_| NtError::SEMAPHORE_LIMIT_EXCEEDED)?;
        // SAFETY: the word is a spin lock for as long as `self` is, and no thread acquires it twice: nothing below calls back. The level was checked.
        let level = unsafe { sys::KeAcquireSpinLockRaiseToDpc(self.releasing.get()) };
        let count = self.read_count();
        // The count is from 0 to the limit and so is the difference.
        let fits = adjustment <= self.limit - count;
        let previous = if fits {
            // SAFETY: by the type's invariant the semaphore is initialised and in its place. The count can only have become smaller since it was read,
            // because only the holder of the lock makes it larger, so the limit is kept and nothing is raised. Without `Wait`, `DISPATCH_LEVEL` is admitted.
            unsafe { sys::KeReleaseSemaphore(self.raw(), increment.clamp(0, 15), adjustment, sys::FALSE) }
        } else {
            0
        };
        // SAFETY: the lock was acquired above, at `level`, and the level has not been changed since.
        unsafe { sys::KeReleaseSpinLock(self.releasing.get(), level) };
        if fits {
            // CAST: a count is never negative.
            Ok(previous.unsigned_abs())
        } else {
            Err(NtError::SEMAPHORE_LIMIT_EXCEEDED)
        }
    }

    /// Reads the kernel's count.
    fn read_count(&self) -> i32 {
        // SAFETY: the field lies in the semaphore.
        let state = unsafe { &raw mut (*self.raw()).Header.SignalState };
        // SAFETY: the word is aligned and valid for as long as `self` is borrowed. The kernel changes it with the processor's atomic
        // operations; here it is read as one.
        unsafe { AtomicI32::from_ptr(state) }.load(Ordering::Acquire)
    }

    /// The count, which may have changed when the caller looks at the answer.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::semaphore::Semaphore;
    /// use ksync::wait::Dispatchable;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let semaphore = Semaphore::new(2, 2).unwrap();
    /// assert!(semaphore.wait().success());
    /// assert_eq!(semaphore.count(), Ok(1));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeReadStateSemaphore`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereadstatesemaphore).
    #[doc(alias = "KeReadStateSemaphore")]
    pub fn count(&self) -> Result<u32> {
        irql::require_at_most(Irql::DISPATCH)?;
        // SAFETY: by the type's invariant the semaphore is initialised and in its place, and the level was checked.
        let count = unsafe { sys::KeReadStateSemaphore(self.raw()) };
        // CAST: a count is never negative.
        Ok(count.unsigned_abs())
    }

    /// The limit to the count.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::semaphore::Semaphore;
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(Semaphore::new(0, 2).unwrap().limit(), 2);
    /// # }).expect_clean();
    /// ```
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit.unsigned_abs()
    }
}

impl fmt::Debug for PinnedSemaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut semaphore = f.debug_struct("Semaphore");
        semaphore.field("limit", &self.limit);
        match self.count() {
            Ok(count) => semaphore.field("count", &count).finish(),
            Err(_) => semaphore.finish_non_exhaustive(),
        }
    }
}

impl sealed::Sealed for PinnedSemaphore {
    fn dispatcher_object(&self) -> *mut c_void {
        self.raw().cast()
    }
}

// SAFETY: by the type's invariant the semaphore is initialised, and it stays in its place at least while it is borrowed. A wait on a semaphore asks nothing of
// the thread.
unsafe impl Dispatchable for PinnedSemaphore {}
