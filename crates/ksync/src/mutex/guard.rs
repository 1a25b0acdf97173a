//! The guards of locked data.

use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use super::backend::{Backend, Blocking, Shared};
use super::locked::PinnedLocked;
use crate::irql::{self, Irql};

/// Exclusive access to locked data. The lock is released when this is dropped.
///
/// It cannot leave its thread, because the lock has to be released where it was acquired.
///
/// # Invariants
/// The lock is held by the acquisition that `state` is of.
#[must_use = "the lock is released as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct LockedGuard<'a, T: ?Sized, L: Backend> {
    lock: &'a PinnedLocked<T, L>,
    state: L::GuardState,
    _not_send: PhantomData<*mut ()>,
}

// SAFETY: a shared guard gives out shared references to the data and nothing else; its other fields are not reached through it.
unsafe impl<T: ?Sized + Sync, L: Backend> Sync for LockedGuard<'_, T, L> {}

impl<'a, T: ?Sized, L: Backend> LockedGuard<'a, T, L> {
    /// Makes the guard of an acquisition.
    ///
    /// # Safety
    /// The lock was acquired with this guard state, which is for this guard alone to give back.
    #[inline]
    pub(super) unsafe fn new(lock: &'a PinnedLocked<T, L>, state: L::GuardState) -> Self {
        // INVARIANT: as the caller promises.
        Self { lock, state, _not_send: PhantomData }
    }

    /// Gives the guard up without a release.
    #[inline]
    pub(super) fn into_parts(guard: Self) -> (&'a PinnedLocked<T, L>, L::GuardState) {
        let guard = ManuallyDrop::new(guard);
        (guard.lock, guard.state)
    }

    /// What the acquisition left for the release.
    #[inline]
    pub(super) fn state_of(guard: &Self) -> L::GuardState {
        guard.state
    }

    /// Narrows the guard to a part of the data.
    ///
    /// This is an associated function, called `LockedGuard::map(guard, ..)`, so that it does not hide a method of the data.
    ///
    /// # Examples
    /// ```
    /// use ksync::mutex::{FastLocked, LockedGuard};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let pair = FastLocked::new((1, 2)).unwrap();
    /// let mut second = LockedGuard::map(pair.lock().unwrap(), |pair| &mut pair.1);
    /// *second = 5;
    /// drop(second);
    /// assert_eq!(pair.into_inner(), (1, 5));
    /// # }).expect_clean();
    /// ```
    pub fn map<U: ?Sized>(mut guard: Self, narrow: impl FnOnce(&mut T) -> &mut U) -> MappedLockedGuard<'a, U, L> {
        let data = NonNull::from(narrow(&mut guard));
        // INVARIANT: the acquisition is handed over, and the data is a part of what it guards.
        MappedLockedGuard { lock: guard.lock.state(), state: ManuallyDrop::new(guard).state, data, _borrow: PhantomData }
    }

    /// Narrows the guard to a part of the data that may not be there.
    ///
    /// # Errors
    /// The guard, if the closure returns `None`.
    pub fn filter_map<U: ?Sized>(
        mut guard: Self,
        narrow: impl FnOnce(&mut T) -> Option<&mut U>,
    ) -> Result<MappedLockedGuard<'a, U, L>, Self> {
        match narrow(&mut guard).map(NonNull::from) {
            // INVARIANT: the acquisition is handed over, and the data is a part of what it guards.
            Some(data) => Ok(MappedLockedGuard {
                lock: guard.lock.state(),
                state: ManuallyDrop::new(guard).state,
                data,
                _borrow: PhantomData,
            }),
            None => Err(guard),
        }
    }
}

impl<'a, T: ?Sized, L: Blocking> LockedGuard<'a, T, L> {
    /// Releases the lock until what this returns is dropped. The caller is at `<= APC_LEVEL`.
    pub(super) fn unlock<'b>(guard: &'b mut Self) -> Unlocked<'b, 'a, T, L> {
        // SAFETY: by the type's invariant the lock is held by this acquisition. `Unlocked` borrows the guard, so that it is not used, and acquires
        // the lock again before the borrow ends, which makes the invariant true again.
        unsafe { L::unlock(guard.lock.state(), guard.state) };
        Unlocked(guard)
    }

    /// Runs a closure without the lock, and acquires it again.
    ///
    /// Others can change the data meanwhile. This is an associated function, called `LockedGuard::unlocked(&mut guard, ..)`.
    ///
    /// A closure that leaves the level higher than it was, or that forgets a guard of this very lock, is a deadlock.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`](crate::NtError::IRQL_TOO_HIGH) at a higher level. The closure has not run then.
    ///
    /// # Examples
    /// ```
    /// use ksync::mutex::{FastLocked, LockedGuard};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let lock = FastLocked::new(1).unwrap();
    /// let mut guard = lock.lock().unwrap();
    /// LockedGuard::unlocked(&mut guard, || *lock.lock().unwrap() = 2).unwrap();
    /// assert_eq!(*guard, 2);
    /// # drop(guard); }).expect_clean();
    /// ```
    pub fn unlocked<R>(guard: &mut Self, run: impl FnOnce() -> R) -> crate::error::Result<R> {
        irql::require_at_most(Irql::APC)?;
        let _unlocked = Self::unlock(guard);
        Ok(run())
    }
}

/// A guard whose lock is released for now. Dropping this acquires the lock again.
///
/// Forgetting this would leave a guard without a lock, so it is for this crate only.
pub(super) struct Unlocked<'b, 'a, T: ?Sized, L: Blocking>(&'b mut LockedGuard<'a, T, L>);

impl<T: ?Sized, L: Blocking> Drop for Unlocked<'_, '_, T, L> {
    fn drop(&mut self) {
        loop {
            // The lock was acquired at this level before, so the first attempt succeeds. One that does not leaves no choice but to go on: without the lock there
            // is nothing to return to.
            // SAFETY: the state is valid as long as the lock is, which the guard borrows.
            if let Ok(state) = unsafe { L::lock(self.0.lock.state()) } {
                // INVARIANT: the lock is held by the acquisition that this state is of.
                self.0.state = state;
                return;
            }
            core::hint::spin_loop();
        }
    }
}

impl<T: ?Sized, L: Backend> Deref for LockedGuard<'_, T, L> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the lock is held exclusively, so that the data is this guard's, and the guard is borrowed shared.
        unsafe { &*self.lock.data_ptr() }
    }
}

impl<T: ?Sized, L: Backend> DerefMut for LockedGuard<'_, T, L> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lock is held exclusively, so that the data is this guard's, and the guard is borrowed exclusively.
        unsafe { &mut *self.lock.data_ptr() }
    }
}

impl<T: ?Sized, L: Backend> Drop for LockedGuard<'_, T, L> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: by the type's invariant the lock is held by this acquisition, which is released once, here; the guard has not left its thread.
        unsafe { L::unlock(self.lock.state(), self.state) };
    }
}

impl<T: ?Sized + fmt::Debug, L: Backend> fmt::Debug for LockedGuard<'_, T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: ?Sized + fmt::Display, L: Backend> fmt::Display for LockedGuard<'_, T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

/// Exclusive access to a part of locked data, from [`LockedGuard::map`].
///
/// # Invariants
/// The lock is held by the acquisition that `state` is of, and `data` is valid and covered by it.
#[must_use = "the lock is released as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct MappedLockedGuard<'a, T: ?Sized, L: Backend> {
    lock: *mut L::State,
    state: L::GuardState,
    data: NonNull<T>,
    _borrow: PhantomData<&'a mut T>,
}

// SAFETY: a shared guard gives out shared references to the data and nothing else; its other fields are not reached through it.
unsafe impl<T: ?Sized + Sync, L: Backend> Sync for MappedLockedGuard<'_, T, L> {}

impl<'a, T: ?Sized, L: Backend> MappedLockedGuard<'a, T, L> {
    /// Narrows the guard further. See [`LockedGuard::map`].
    pub fn map<U: ?Sized>(mut guard: Self, narrow: impl FnOnce(&mut T) -> &mut U) -> MappedLockedGuard<'a, U, L> {
        let data = NonNull::from(narrow(&mut guard));
        let guard = ManuallyDrop::new(guard);
        // INVARIANT: the acquisition is handed over, and the data is a part of what it guards.
        MappedLockedGuard { lock: guard.lock, state: guard.state, data, _borrow: PhantomData }
    }
}

impl<T: ?Sized, L: Backend> Deref for MappedLockedGuard<'_, T, L> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: by the type's invariant the data is this guard's, which is borrowed shared.
        unsafe { self.data.as_ref() }
    }
}

impl<T: ?Sized, L: Backend> DerefMut for MappedLockedGuard<'_, T, L> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: by the type's invariant the data is this guard's, which is borrowed exclusively.
        unsafe { self.data.as_mut() }
    }
}

impl<T: ?Sized, L: Backend> Drop for MappedLockedGuard<'_, T, L> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: by the type's invariant the lock is held by this acquisition, which is released once, here; the guard has not left its thread.
        unsafe { L::unlock(self.lock, self.state) };
    }
}

impl<T: ?Sized + fmt::Debug, L: Backend> fmt::Debug for MappedLockedGuard<'_, T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: ?Sized + fmt::Display, L: Backend> fmt::Display for MappedLockedGuard<'_, T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

/// Access to locked data for reading, beside other readers. The lock is released when this is dropped.
///
/// It cannot leave its thread, because the lock has to be released where it was acquired.
///
/// # Invariants
/// The lock is held by the shared acquisition that `state` is of.
#[must_use = "the lock is released as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct SharedGuard<'a, T: ?Sized, L: Shared> {
    lock: &'a PinnedLocked<T, L>,
    state: L::SharedState,
    _not_send: PhantomData<*mut ()>,
}

// SAFETY: a shared guard gives out shared references to the data and nothing else; its other fields are not reached through it.
unsafe impl<T: ?Sized + Sync, L: Shared> Sync for SharedGuard<'_, T, L> {}

impl<'a, T: ?Sized, L: Shared> SharedGuard<'a, T, L> {
    /// Makes the guard of a shared acquisition.
    ///
    /// # Safety
    /// The lock was acquired shared with this guard state, which is for this guard alone to give back.
    #[inline]
    pub(super) unsafe fn new(lock: &'a PinnedLocked<T, L>, state: L::SharedState) -> Self {
        // INVARIANT: as the caller promises.
        Self { lock, state, _not_send: PhantomData }
    }

    /// Gives the guard up without a release.
    #[inline]
    pub(super) fn into_parts(guard: Self) -> (&'a PinnedLocked<T, L>, L::SharedState) {
        let guard = ManuallyDrop::new(guard);
        (guard.lock, guard.state)
    }

    /// The lock.
    #[inline]
    pub(super) fn lock_of(guard: &Self) -> &'a PinnedLocked<T, L> {
        guard.lock
    }

    /// Narrows the guard to a part of the data. See [`LockedGuard::map`].
    pub fn map<U: ?Sized>(guard: Self, narrow: impl FnOnce(&T) -> &U) -> MappedSharedGuard<'a, U, L> {
        let data = NonNull::from(narrow(&guard));
        // INVARIANT: the acquisition is handed over, and the data is a part of what it guards.
        MappedSharedGuard { lock: guard.lock.state(), state: ManuallyDrop::new(guard).state, data, _borrow: PhantomData }
    }
}

impl<T: ?Sized, L: Shared> Deref for SharedGuard<'_, T, L> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the lock is held shared, so that nobody has the data exclusively.
        unsafe { &*self.lock.data_ptr() }
    }
}

impl<T: ?Sized, L: Shared> Drop for SharedGuard<'_, T, L> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: by the type's invariant the lock is held by this shared acquisition, which is released once, here; the guard has not left its thread.
        unsafe { L::unlock_shared(self.lock.state(), self.state) };
    }
}

impl<T: ?Sized + fmt::Debug, L: Shared> fmt::Debug for SharedGuard<'_, T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: ?Sized + fmt::Display, L: Shared> fmt::Display for SharedGuard<'_, T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

/// Access to a part of locked data for reading, from [`SharedGuard::map`].
///
/// # Invariants
/// The lock is held by the shared acquisition that `state` is of, and `data` is valid and covered by it.
#[must_use = "the lock is released as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct MappedSharedGuard<'a, T: ?Sized, L: Shared> {
    lock: *mut L::State,
    state: L::SharedState,
    data: NonNull<T>,
    _borrow: PhantomData<&'a T>,
}

// SAFETY: a shared guard gives out shared references to the data and nothing else; its other fields are not reached through it.
unsafe impl<T: ?Sized + Sync, L: Shared> Sync for MappedSharedGuard<'_, T, L> {}

impl<T: ?Sized, L: Shared> Deref for MappedSharedGuard<'_, T, L> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: by the type's invariant the data is valid, and nobody has it exclusively.
        unsafe { self.data.as_ref() }
    }
}

impl<T: ?Sized, L: Shared> Drop for MappedSharedGuard<'_, T, L> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: by the type's invariant the lock is held by this shared acquisition, which is released once, here; the guard has not left its thread.
        unsafe { L::unlock_shared(self.lock, self.state) };
    }
}

impl<T: ?Sized + fmt::Debug, L: Shared> fmt::Debug for MappedSharedGuard<'_, T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
