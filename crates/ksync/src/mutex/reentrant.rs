//! Kernel mutexes that their owner may take again.
//!
//! [`ReentrantKMutex`] is over `KMUTEX` as NT means it: the owner gets in any number of times, and the mutex is free when it has released as often. Since several guards of
//! one thread live at once, they give out `&T` only; data that is changed under it is in a `Cell` or `RefCell`.
//!
//! Choose it for call chains that come back to their beginning. Everything else is served by [`KMutex`](super::KMutex), whose guard gives out `&mut T`.
//!
//! Over [`KMUTEX`](ksync_sys::KMUTEX), [`wdm.h`](https://learn.microsoft.com/windows-hardware/drivers/kernel/introduction-to-mutex-objects). All versions of
//! Windows have it.

use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;

use super::backend::{Backend, SendOnly};
use super::kmutex::{MutexFound, MutexState};
use super::locked::{Locked, PinnedLocked};
use super::placement::Boxed;
use super::report;
use crate::error::{NtError, Result};
use crate::irql::{self, Irql};
use crate::time::Timeout;

/// Data under a kernel mutex that its owner may take again, in a form that can be moved.
///
/// # IRQL
/// `<= APC_LEVEL`; acquiring and releasing leave the level alone. Normal kernel APCs are held back while the mutex is held.
///
/// # Examples
/// ```
/// use core::cell::Cell;
/// use ksync::mutex::ReentrantKMutex;
///
/// # ksim::Machine::new().run(|| {
/// let depth = ReentrantKMutex::new(Cell::new(0)).unwrap();
/// let outer = depth.lock().unwrap();
/// outer.set(1);
/// let inner = depth.lock().unwrap();
/// inner.set(inner.get() + 1);
/// drop(outer); // Any order will do.
/// assert_eq!(inner.get(), 2);
/// # drop(inner); }).expect_clean();
/// ```
pub type ReentrantKMutex<T> = Locked<T, ReentrantMutex>;

/// Data under a kernel mutex that its owner may take again, in place. See [`ReentrantKMutex`].
pub type PinnedReentrantKMutex<T> = PinnedLocked<T, ReentrantMutex>;

/// The [backend](Backend) of [`ReentrantKMutex`].
#[derive(Debug)]
pub enum ReentrantMutex {}

// SAFETY: clause by clause:
// 1, 2: the mutex excludes other threads and orders. A thread does get in again, and so its guards, which are no `LockedGuard`s, give out shared references only, to one
//    thread at a time.
// 3 to 8: as for `Mutex`, whose state this is.
unsafe impl Backend for ReentrantMutex {
    type State = MutexState;
    type GuardState = MutexFound;
    type Placement = Boxed;
    type Sharing = SendOnly;

    const NAME: &'static str = "ReentrantKMutex";

    unsafe fn init(state: *mut MutexState) -> Result {
        // SAFETY: by this function's own contract.
        unsafe { MutexState::init(state) }
    }

    unsafe fn unlock(state: *mut MutexState, _: MutexFound) {
        if irql::require_at_most(Irql::APC).is_err() {
            report::not_released(Self::NAME, state.cast());
            return;
        }
        // SAFETY: the state is valid, and all of its fields can be shared.
        let state = unsafe { &*state };
        // SAFETY: the current thread owns the mutex. IRQL: checked.
        unsafe { state.release_once() };
    }

    unsafe fn is_locked(state: *const MutexState) -> bool {
        // SAFETY: the state is valid, and all of its fields can be shared.
        unsafe { &*state }.is_owned()
    }

    unsafe fn deinit(state: *mut MutexState) -> Result {
        // SAFETY: the state is valid, and all of its fields can be shared.
        unsafe { &*state }.disown()
    }
}

impl<T: ?Sized> PinnedLocked<T, ReentrantMutex> {
    /// Acquires the mutex, once more if the current thread owns it, and otherwise waiting as long as it takes.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::IRQL_TOO_HIGH`] at a higher level. Nothing has happened.
    /// - [`NtError::MUTANT_LIMIT_EXCEEDED`] if the owner holds it about two thousand million times, having forgotten that many guards.
    ///
    /// # Examples
    /// See [`ReentrantKMutex`].
    ///
    /// Wraps [`KeWaitForSingleObject`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject).
    #[doc(alias = "KeWaitForMutexObject")]
    pub fn lock(&self) -> Result<ReentrantGuard<'_, T>> {
        self.lock_for(Timeout::NEVER)
    }

    /// Acquires the mutex if that takes no waiting. The owner gets in.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::LOCK_NOT_GRANTED`] if another thread owns it, and as for [`lock`](Self::lock).
    ///
    /// # Examples
    /// ```
    /// use ksync::mutex::ReentrantKMutex;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let lock = ReentrantKMutex::new(5).unwrap();
    /// let outer = lock.lock().unwrap();
    /// assert_eq!(*outer, *lock.try_lock().unwrap());
    /// # drop(outer); }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeWaitForSingleObject`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject).
    pub fn try_lock(&self) -> Result<ReentrantGuard<'_, T>> {
        match self.lock_for(Timeout::POLL) {
            Err(NtError::TIMEOUT) => Err(NtError::LOCK_NOT_GRANTED),
            result => result,
        }
    }

    /// Acquires the mutex if that succeeds in time.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::TIMEOUT`] if it does not, and as for [`lock`](Self::lock).
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::mutex::ReentrantKMutex;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let lock = ReentrantKMutex::new(5).unwrap();
    /// assert_eq!(*lock.lock_for(Duration::from_millis(10)).unwrap(), 5);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeWaitForSingleObject`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject).
    #[doc(alias = "KeWaitForMutexObject")]
    pub fn lock_for(&self, timeout: impl Into<Timeout>) -> Result<ReentrantGuard<'_, T>> {
        self.lock_within(timeout.into(), false)
    }

    /// Acquires the mutex if that succeeds in time and nobody alerts the thread meanwhile.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::CANCELLED`] if the thread is alerted.
    /// - [`NtError::TIMEOUT`] if the mutex is not to be had in time, and as for [`lock`](Self::lock).
    ///
    /// # Examples
    /// ```
    /// use ksync::mutex::ReentrantKMutex;
    /// use ksync::time::Timeout;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let lock = ReentrantKMutex::new(5).unwrap();
    /// assert_eq!(*lock.lock_alertable(Timeout::NEVER).unwrap(), 5);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeWaitForSingleObject`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject).
    #[doc(alias = "KeWaitForMutexObject")]
    pub fn lock_alertable(&self, timeout: impl Into<Timeout>) -> Result<ReentrantGuard<'_, T>> {
        self.lock_within(timeout.into(), true)
    }

    /// Acquires the mutex, once more if the current thread owns it.
    fn lock_within(&self, timeout: Timeout, alertable: bool) -> Result<ReentrantGuard<'_, T>> {
        irql::require_at_most(Irql::APC)?;
        // SAFETY: the state is valid as long as the lock is, and all of its fields can be shared.
        let state = unsafe { &*self.state() };
        if state.is_mine() && state.is_at_limit() {
            return Err(NtError::MUTANT_LIMIT_EXCEEDED);
        }
        let found = state.acquire(timeout, alertable)?;
        // INVARIANT: the mutex was acquired.
        Ok(ReentrantGuard { lock: self, found, _not_send: PhantomData })
    }
}

/// Access to the data of a [`ReentrantKMutex`], beside other guards of the same thread. The mutex is released once when this is dropped.
///
/// It cannot leave its thread, which alone can release the mutex.
///
/// # Invariants
/// The current thread owns the mutex, once for this guard.
#[must_use = "the lock is released as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct ReentrantGuard<'a, T: ?Sized> {
    lock: &'a PinnedLocked<T, ReentrantMutex>,
    found: MutexFound,
    _not_send: PhantomData<*mut ()>,
}

// SAFETY: a shared guard gives out shared references to the data and nothing else.
unsafe impl<T: ?Sized + Sync> Sync for ReentrantGuard<'_, T> {}

impl<T: ?Sized> Deref for ReentrantGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the mutex is held by this thread, all of whose guards give out shared references.
        unsafe { &*self.lock.data_ptr() }
    }
}

impl<T: ?Sized> Drop for ReentrantGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: by the type's invariant the mutex is held by this acquisition, which is released once, here.
        unsafe { ReentrantMutex::unlock(self.lock.state(), self.found) };
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for ReentrantGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for ReentrantGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for PinnedLocked<T, ReentrantMutex> {
    /// Shows the data, or `<locked>` where the lock cannot be had without waiting.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_lock() {
            Ok(guard) => fmt::Debug::fmt(&*guard, f),
            Err(_) => f.write_str("<locked>"),
        }
    }
}
