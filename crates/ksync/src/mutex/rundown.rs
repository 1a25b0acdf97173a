//! Rundown protection.
//!
//! A [`Rundown`] counts the users of something until someone wants it gone: from then on no new user gets in, and [`wait`](Rundown::wait) returns when the last one is out. It is what an unload or a
//! surprise removal needs. [`CacheAwareRundown`] counts on each processor apart, for users that come and go all the time on all of them.
//!
//! Over [`EX_RUNDOWN_REF`](ksync_sys::EX_RUNDOWN_REF), [`wdm.h`](https://learn.microsoft.com/windows-hardware/drivers/kernel/run-down-protection). All
//! versions of Windows have it.

use core::cell::UnsafeCell;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, Ordering};

use ksync_sys as sys;

use crate::error::{NtError, Result};
use crate::irql::{self, Irql};
use crate::pool;

/// How far the rundown has got.
///
/// NT leaves it to the caller that only one thread waits, and that nobody begins anew before the wait is over. This word sees to both.
struct Phase(AtomicU8);

impl Phase {
    /// Users come and go.
    const OPEN: u8 = 0;
    /// A thread waits for the last user, or makes the protection open again.
    const BUSY: u8 = 1;
    /// The last user is out.
    const DONE: u8 = 2;

    const fn new() -> Self {
        Self(AtomicU8::new(Self::OPEN))
    }

    /// Runs down, by a closure that waits for the last user.
    fn wait(&self, wait: impl FnOnce()) -> Result {
        irql::require_at_most(Irql::APC)?;
        match self.0.compare_exchange(Self::OPEN, Self::BUSY, Ordering::Acquire, Ordering::Acquire) {
            Ok(_) => {
                wait();
                self.0.store(Self::DONE, Ordering::Release);
                Ok(())
            }
            Err(Self::DONE) => Ok(()),
            Err(_) => Err(NtError::DELETE_PENDING),
        }
    }

    /// Begins anew, by a closure that resets the counter.
    fn reopen(&self, reset: impl FnOnce()) -> Result {
        irql::require_at_most(Irql::DISPATCH)?;
        match self.0.compare_exchange(Self::DONE, Self::BUSY, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => {
                reset();
                self.0.store(Self::OPEN, Ordering::Release);
                Ok(())
            }
            Err(_) => Err(NtError::INVALID_DEVICE_STATE),
        }
    }
}

impl fmt::Debug for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.load(Ordering::Relaxed) {
            Self::OPEN => "open",
            Self::BUSY => "running down",
            _ => "run down",
        })
    }
}

/// Rundown protection: users of something, and the end of it.
///
/// It is a word: nothing is allocated, and it can be a static.
///
/// # Examples
/// ```
/// use ksync::error::NtError;
/// use ksync::mutex::Rundown;
///
/// static DEVICE: Rundown = Rundown::new();
///
/// # ksim::Machine::new().run(|| {
/// let user = DEVICE.acquire().unwrap();
/// drop(user);
/// DEVICE.wait().unwrap();
/// assert_eq!(DEVICE.acquire().unwrap_err(), NtError::DELETE_PENDING);
/// DEVICE.reinit().unwrap();
/// assert!(DEVICE.acquire().is_ok());
/// # }).expect_clean();
/// ```
pub struct Rundown {
    count: UnsafeCell<sys::EX_RUNDOWN_REF>,
    phase: Phase,
}

// SAFETY: the counter is used by routines that are made for several threads, and by one at a time where they are not: see `Phase`.
unsafe impl Send for Rundown {}
// SAFETY: as above.
unsafe impl Sync for Rundown {}

impl Rundown {
    /// Makes protection without users.
    ///
    /// # IRQL
    /// Any.
    #[must_use]
    pub const fn new() -> Self {
        // Zero is what `ExInitializeRundownProtection` writes.
        Self { count: UnsafeCell::new(sys::EX_RUNDOWN_REF { Count: 0 }), phase: Phase::new() }
    }

    /// Becomes a user, until the guard is dropped, on whichever thread.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::DELETE_PENDING`] once [`wait`](Self::wait) has begun.
    /// - [`NtError::IRQL_TOO_HIGH`] at a higher level.
    ///
    /// # Examples
    /// See [the type](Self).
    ///
    /// Wraps [`ExAcquireRundownProtection`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquirerundownprotection).
    #[doc(alias = "ExAcquireRundownProtection")]
    #[inline]
    pub fn acquire(&self) -> Result<RundownGuard<'_>> {
        irql::require_at_most(Irql::DISPATCH)?;
        // SAFETY: the counter is initialised and nonpaged. IRQL: checked.
        if unsafe { sys::ExAcquireRundownProtection(self.count.get()) } == sys::FALSE {
            return Err(NtError::DELETE_PENDING);
        }
        // INVARIANT: the acquisition succeeded.
        Ok(RundownGuard(self))
    }

    /// Keeps new users out and waits until the last one is gone. If that is so already, returns at once.
    ///
    /// A user that waits here waits for itself.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::DELETE_PENDING`] if another thread waits already.
    /// - [`NtError::IRQL_TOO_HIGH`] at a higher level.
    ///
    /// # Examples
    /// See [the type](Self).
    ///
    /// Wraps [`ExWaitForRundownProtectionRelease`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exwaitforrundownprotectionrelease).
    #[doc(alias = "ExWaitForRundownProtectionRelease")]
    pub fn wait(&self) -> Result {
        self.phase.wait(|| {
            // SAFETY: the counter is initialised, and no other thread waits. IRQL: checked by the phase.
            unsafe { sys::ExWaitForRundownProtectionRelease(self.count.get()) };
        })
    }

    /// Lets users in again after a wait.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::INVALID_DEVICE_STATE`] if it is not run down.
    /// - [`NtError::IRQL_TOO_HIGH`] at a higher level.
    ///
    /// # Examples
    /// See [the type](Self).
    ///
    /// Wraps [`ExReInitializeRundownProtection`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exreinitializerundownprotection).
    #[doc(alias = "ExReInitializeRundownProtection")]
    pub fn reinit(&self) -> Result {
        self.phase.reopen(|| {
            // SAFETY: the counter was run down, and nobody waits. IRQL: checked by the phase.
            unsafe { sys::ExReInitializeRundownProtection(self.count.get()) };
        })
    }
}

impl Default for Rundown {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Rundown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rundown").field(&self.phase).finish()
    }
}

/// A user of what a [`Rundown`] protects, until this is dropped. It may be dropped on any thread.
///
/// Forgetting it keeps [`Rundown::wait`] waiting for ever.
///
/// # Invariants
/// It stands for one successful acquisition.
#[derive(Debug)]
#[must_use = "the protection is released as soon as the guard is dropped"]
pub struct RundownGuard<'a>(&'a Rundown);

impl Drop for RundownGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        if irql::require_at_most(Irql::DISPATCH).is_ok() {
            // SAFETY: by the type's invariant there is an acquisition, which is released once. IRQL: checked.
            unsafe { sys::ExReleaseRundownProtection(self.0.count.get()) };
        }
    }
}

/// Rundown protection with a counter per processor. See [`Rundown`].
///
/// # Examples
/// ```
/// use ksync::mutex::CacheAwareRundown;
///
/// # ksim::Machine::new().processors(2).run(|| {
/// let device = CacheAwareRundown::new().unwrap();
/// drop(device.acquire().unwrap());
/// device.wait().unwrap();
/// assert!(device.acquire().is_err());
/// # }).expect_clean();
/// ```
pub struct CacheAwareRundown {
    counters: NonNull<sys::EX_RUNDOWN_REF_CACHE_AWARE>,
    phase: Phase,
}

// SAFETY: as for `Rundown`.
unsafe impl Send for CacheAwareRundown {}
// SAFETY: as for `Rundown`.
unsafe impl Sync for CacheAwareRundown {}

impl CacheAwareRundown {
    /// Makes protection without users.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::INSUFFICIENT_RESOURCES`] if there is no memory.
    /// - [`NtError::IRQL_TOO_HIGH`] at a higher level.
    ///
    /// Wraps [`ExAllocateCacheAwareRundownProtection`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exallocatecacheawarerundownprotection).
    #[doc(alias = "ExAllocateCacheAwareRundownProtection")]
    pub fn new() -> Result<Self> {
        irql::require_at_most(Irql::DISPATCH)?;
        // SAFETY: IRQL: checked.
        let counters = unsafe { sys::ExAllocateCacheAwareRundownProtection(sys::NonPagedPoolNx, pool::TAG) };
        let counters = NonNull::new(counters).ok_or(NtError::INSUFFICIENT_RESOURCES)?;
        Ok(Self { counters, phase: Phase::new() })
    }

    /// Becomes a user, until the guard is dropped. It may be dropped on another processor.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// As [`Rundown::acquire`].
    ///
    /// Wraps [`ExAcquireRundownProtectionCacheAware`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquirerundownprotectioncacheaware).
    #[doc(alias = "ExAcquireRundownProtectionCacheAware")]
    #[inline]
    pub fn acquire(&self) -> Result<CacheAwareRundownGuard<'_>> {
        irql::require_at_most(Irql::DISPATCH)?;
        // SAFETY: the counters are initialised and nonpaged. IRQL: checked.
        if unsafe { sys::ExAcquireRundownProtectionCacheAware(self.counters.as_ptr()) } == sys::FALSE {
            return Err(NtError::DELETE_PENDING);
        }
        // INVARIANT: the acquisition succeeded.
        Ok(CacheAwareRundownGuard(self))
    }

    /// Keeps new users out and waits until the last one is gone. See [`Rundown::wait`].
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// As [`Rundown::wait`].
    ///
    /// Wraps [`ExWaitForRundownProtectionReleaseCacheAware`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exwaitforrundownprotectionreleasecacheaware).
    #[doc(alias = "ExWaitForRundownProtectionReleaseCacheAware")]
    pub fn wait(&self) -> Result {
        self.phase.wait(|| {
            // SAFETY: the counters are initialised, and no other thread waits. IRQL: checked by the phase.
            unsafe { sys::ExWaitForRundownProtectionReleaseCacheAware(self.counters.as_ptr()) };
        })
    }

    /// Lets users in again after a wait. See [`Rundown::reinit`].
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// As [`Rundown::reinit`].
    ///
    /// Wraps [`ExReInitializeRundownProtectionCacheAware`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exreinitializerundownprotectioncacheaware).
    #[doc(alias = "ExReInitializeRundownProtectionCacheAware")]
    pub fn reinit(&self) -> Result {
        self.phase.reopen(|| {
            // SAFETY: the counters were run down, and nobody waits. IRQL: checked by the phase.
            unsafe { sys::ExReInitializeRundownProtectionCacheAware(self.counters.as_ptr()) };
        })
    }
}

impl Drop for CacheAwareRundown {
    /// Frees the counters; above `DISPATCH_LEVEL` they are leaked.
    fn drop(&mut self) {
        if irql::require_at_most(Irql::DISPATCH).is_ok() {
            // SAFETY: the counters were allocated by the routine that this one undoes, and guards borrow this value, so nobody uses them. IRQL: checked.
            unsafe { sys::ExFreeCacheAwareRundownProtection(self.counters.as_ptr()) };
        }
    }
}

impl fmt::Debug for CacheAwareRundown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CacheAwareRundown").field(&self.phase).finish()
    }
}

/// A user of what a [`CacheAwareRundown`] protects, until this is dropped. See [`RundownGuard`].
///
/// # Invariants
/// It stands for one successful acquisition.
#[derive(Debug)]
#[must_use = "the protection is released as soon as the guard is dropped"]
pub struct CacheAwareRundownGuard<'a>(&'a CacheAwareRundown);

impl Drop for CacheAwareRundownGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        if irql::require_at_most(Irql::DISPATCH).is_ok() {
            // SAFETY: by the type's invariant there is an acquisition, which is released once. IRQL: checked.
            unsafe { sys::ExReleaseRundownProtectionCacheAware(self.0.counters.as_ptr()) };
        }
    }
}
