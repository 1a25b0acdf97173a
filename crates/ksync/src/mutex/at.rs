//! Locks whose level is checked at compile time.
//!
//! [`lock_at`](PinnedLocked::lock_at) takes the token of the level that the caller runs at. It compiles only where the lock admits that level, so nothing is checked at run
//! time and nothing can fail: the acquisition is NT's routine and no more. The guard borrows the token until it is dropped. Its [`split`](LevelGuard::split) lends out, beside the data, the token of the
//! level that the lock is held at, for what is taken inside; and that borrow makes it a compile error to release the outer lock first.

use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

use ksync_sys as sys;

use super::backend::Backend;
use super::fast::Fast;
use super::guarded::Guarded;
use super::locked::PinnedLocked;
use super::push::Push;
use super::spin::Spin;
use super::spin_rw::SpinRw;
use crate::irql::{Apc, AtMost, Dispatch, Irql, StaticLevel};

/// A lock that can be acquired where the level is known at compile time.
///
/// Locks that NT lets their holder take again are not among these: refusing that takes a check at run time. (A spin lock of a uniprocessor kernel would let its holder in
/// too, but 64-bit Windows has multiprocessor kernels only, whatever the number of processors.)
///
/// # Safety
/// As for [`Backend`], whose clauses speak of the acquisitions here too, except that levels are not checked and that a recursive acquisition never returns.
pub unsafe trait LockAt: Backend {
    /// The highest level at which the lock is acquired.
    type Highest: StaticLevel;

    /// The level at which it is held when it was acquired at another.
    type Held<At: StaticLevel>: StaticLevel;

    /// Acquires the lock, and returns the level before if that was changed.
    ///
    /// # Safety
    /// The state is valid and stays so until the release.
    unsafe fn acquire_at<At: StaticLevel>(state: *mut Self::State) -> Irql;

    /// Releases the lock, and returns to the level before.
    ///
    /// # Safety
    /// The state is valid and held by an acquisition at the same static level that returned `old`, on the same thread.
    unsafe fn release_at<At: StaticLevel>(state: *mut Self::State, old: Irql);
}

// SAFETY: the pairs of routines are those of `Backend`'s implementation; what they raise they return to.
unsafe impl LockAt for Spin {
    type Highest = Dispatch;
    type Held<At: StaticLevel> = Dispatch;

    #[inline]
    unsafe fn acquire_at<At: StaticLevel>(state: *mut Self::State) -> Irql {
        // SAFETY: the state is valid, and all of its fields can be shared.
        let lock = unsafe { &*state }.word();
        if At::LEVEL == Irql::DISPATCH {
            // SAFETY: the lock is initialised. IRQL: the token's.
            unsafe { sys::KeAcquireSpinLockAtDpcLevel(lock) };
            return Irql::DISPATCH;
        }
        // SAFETY: as above.
        Irql::new(unsafe { sys::KeAcquireSpinLockRaiseToDpc(lock) })
    }

    #[inline]
    unsafe fn release_at<At: StaticLevel>(state: *mut Self::State, old: Irql) {
        // SAFETY: the state is valid, and all of its fields can be shared.
        let lock = unsafe { &*state }.word();
        if At::LEVEL == Irql::DISPATCH {
            // SAFETY: the lock is held by the routine that this one undoes. IRQL: the token's.
            unsafe { sys::KeReleaseSpinLockFromDpcLevel(lock) };
        } else {
            // SAFETY: as above.
            unsafe { sys::KeReleaseSpinLock(lock, old.get()) };
        }
    }
}

// SAFETY: the pairs of routines are those of `Backend`'s implementation; what they raise they return to.
unsafe impl LockAt for SpinRw {
    type Highest = Dispatch;
    type Held<At: StaticLevel> = Dispatch;

    #[inline]
    unsafe fn acquire_at<At: StaticLevel>(state: *mut Self::State) -> Irql {
        // SAFETY: the state is valid, and all of its fields can be shared.
        let lock = unsafe { &*state }.word();
        if At::LEVEL == Irql::DISPATCH {
            // SAFETY: the lock is initialised. IRQL: the token's.
            unsafe { sys::ExAcquireSpinLockExclusiveAtDpcLevel(lock) };
            return Irql::DISPATCH;
        }
        // SAFETY: as above.
        Irql::new(unsafe { sys::ExAcquireSpinLockExclusive(lock) })
    }

    #[inline]
    unsafe fn release_at<At: StaticLevel>(state: *mut Self::State, old: Irql) {
        // SAFETY: the state is valid, and all of its fields can be shared.
        let lock = unsafe { &*state }.word();
        if At::LEVEL == Irql::DISPATCH {
            // SAFETY: the lock is held by the routine that this one undoes. IRQL: the token's.
            unsafe { sys::ExReleaseSpinLockExclusiveFromDpcLevel(lock) };
        } else {
            // SAFETY: as above.
            unsafe { sys::ExReleaseSpinLockExclusive(lock, old.get()) };
        }
    }
}

// SAFETY: the pairs of routines are those of `Backend`'s implementation; the level is not changed.
unsafe impl LockAt for Fast {
    type Highest = Apc;
    type Held<At: StaticLevel> = At;

    #[inline]
    unsafe fn acquire_at<At: StaticLevel>(state: *mut Self::State) -> Irql {
        // SAFETY: the state is valid, and all of its fields can be shared.
        let mutex = unsafe { &*state }.mutex();
        // SAFETY: IRQL: the token's.
        unsafe { sys::KeEnterGuardedRegion() };
        // SAFETY: the mutex is initialised, and APCs are held back. IRQL: the token's.
        unsafe { sys::ExAcquireFastMutexUnsafe(mutex) };
        At::LEVEL
    }

    #[inline]
    unsafe fn release_at<At: StaticLevel>(state: *mut Self::State, _: Irql) {
        // SAFETY: the state is valid, and all of its fields can be shared.
        let mutex = unsafe { &*state }.mutex();
        // SAFETY: the current thread owns the mutex and is in the region. IRQL: the token's.
        unsafe { sys::ExReleaseFastMutexUnsafe(mutex) };
        // SAFETY: the region was entered at the acquisition. IRQL: the token's.
        unsafe { sys::KeLeaveGuardedRegion() };
    }
}

// SAFETY: the pairs of routines are those of `Backend`'s implementation; the level is not changed.
unsafe impl LockAt for Guarded {
    type Highest = Apc;
    type Held<At: StaticLevel> = At;

    #[inline]
    unsafe fn acquire_at<At: StaticLevel>(state: *mut Self::State) -> Irql {
        // SAFETY: the state is valid, and all of its fields can be shared.
        let mutex = unsafe { &*state }.mutex();
        // SAFETY: IRQL: the token's.
        unsafe { sys::KeEnterGuardedRegion() };
        // SAFETY: the mutex is initialised, and APCs are held back. IRQL: the token's.
        unsafe { sys::KeAcquireGuardedMutexUnsafe(mutex) };
        At::LEVEL
    }

    #[inline]
    unsafe fn release_at<At: StaticLevel>(state: *mut Self::State, _: Irql) {
        // SAFETY: the state is valid, and all of its fields can be shared.
        let mutex = unsafe { &*state }.mutex();
        // SAFETY: the current thread owns the mutex and is in the region. IRQL: the token's.
        unsafe { sys::KeReleaseGuardedMutexUnsafe(mutex) };
        // SAFETY: the region was entered at the acquisition. IRQL: the token's.
        unsafe { sys::KeLeaveGuardedRegion() };
    }
}

// SAFETY: the pairs of routines are those of `Backend`'s implementation; the level is not changed.
unsafe impl LockAt for Push {
    type Highest = Apc;
    type Held<At: StaticLevel> = At;

    #[inline]
    unsafe fn acquire_at<At: StaticLevel>(state: *mut Self::State) -> Irql {
        // SAFETY: the state is valid, and all of its fields can be shared.
        let lock = unsafe { &*state }.word();
        // SAFETY: IRQL: the token's.
        unsafe { sys::KeEnterCriticalRegion() };
        // SAFETY: the lock is initialised, and normal kernel APCs are held back. IRQL: the token's.
        unsafe { sys::ExAcquirePushLockExclusiveEx(lock, sys::EX_DEFAULT_PUSH_LOCK_FLAGS) };
        At::LEVEL
    }

    #[inline]
    unsafe fn release_at<At: StaticLevel>(state: *mut Self::State, _: Irql) {
        // SAFETY: the state is valid, and all of its fields can be shared.
        let lock = unsafe { &*state }.word();
        // SAFETY: the current thread holds the lock exclusively and is in the region. IRQL: the token's.
        unsafe { sys::ExReleasePushLockExclusiveEx(lock, sys::EX_DEFAULT_PUSH_LOCK_FLAGS) };
        // SAFETY: the region was entered at the acquisition. IRQL: the token's.
        unsafe { sys::KeLeaveCriticalRegion() };
    }
}

impl<T: ?Sized, L: LockAt> PinnedLocked<T, L> {
    /// Acquires the lock at a level that is known at compile time.
    ///
    /// Nothing is checked at run time. A holder that asks again waits for itself.
    ///
    /// # IRQL
    /// That of the token, which the compiler checks against the lock's.
    ///
    /// # Examples
    /// ```
    /// use ksync::irql::{Irql, Passive};
    /// use ksync::mutex::SpinLocked;
    ///
    /// static FROM: SpinLocked<u32> = SpinLocked::const_new(5);
    /// static TO: SpinLocked<u32> = SpinLocked::const_new(0);
    ///
    /// # ksim::Machine::new().run(|| {
    /// let mut passive = Irql::<Passive>::claim().unwrap();
    /// let mut from = FROM.lock_at(&mut passive);
    /// let (from_value, dispatch) = from.split();
    /// let mut to = TO.lock_at(dispatch); // At `DISPATCH_LEVEL` already: the level is not touched.
    /// core::mem::swap(from_value, &mut *to);
    /// drop(to);
    /// drop(from);
    /// assert_eq!(*TO.lock_at(&mut passive), 5);
    /// # }).expect_clean();
    /// ```
    ///
    /// A lock that waits is not for a spin lock's holder:
    /// ```compile_fail
    /// # use ksync::irql::{Irql, Passive};
    /// # use ksync::mutex::{FastLocked, SpinLocked};
    /// # fn wrong(spin: &SpinLocked<u32>, fast: &FastLocked<u32>, passive: &mut Irql<Passive>) {
    /// let mut guard = spin.lock_at(passive);
    /// let (_, dispatch) = guard.split();
    /// fast.lock_at(dispatch);
    /// # }
    /// ```
    #[inline]
    pub fn lock_at<'a, At: AtMost<L::Highest>>(&'a self, at: &'a mut Irql<At>) -> LevelGuard<'a, T, L, At> {
        let _ = at;
        // SAFETY: the state is valid as long as the lock is, which the guard borrows.
        let old = unsafe { L::acquire_at::<At>(self.state()) };
        // INVARIANT: the lock was acquired just now.
        LevelGuard { lock: self, old, held: Irql::made(), _at: PhantomData }
    }
}

impl<T: ?Sized, L: LockAt> PinnedLocked<T, L> {
    /// Runs a closure under the lock, with the data and with the token of the level that the lock is held at.
    ///
    /// # IRQL
    /// That of the token, which the compiler checks against the lock's.
    ///
    /// # Examples
    /// ```
    /// use ksync::irql::{Irql, Passive};
    /// use ksync::mutex::{InStackQueueLocked, SpinLocked};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let (one, two) = (SpinLocked::const_new(1), InStackQueueLocked::const_new(2));
    /// let mut passive = Irql::<Passive>::claim().unwrap();
    /// let sum = one.with_at(&mut passive, |one, dispatch| two.with_at(dispatch, |two, _| *one + *two));
    /// assert_eq!(sum, 3);
    /// # }).expect_clean();
    /// ```
    #[inline]
    pub fn with_at<At: AtMost<L::Highest>, R>(
        &self,
        at: &mut Irql<At>,
        run: impl FnOnce(&mut T, &mut Irql<L::Held<At>>) -> R,
    ) -> R {
        let mut guard = self.lock_at(at);
        let (data, held) = guard.split();
        run(data, held)
    }
}

/// Exclusive access to locked data, acquired at a level that is known at compile time. The lock is released when this is dropped.
///
/// It cannot leave its thread.
///
/// # Invariants
/// The lock is held by the acquisition at `At` that returned `old`.
#[must_use = "the lock is released as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct LevelGuard<'a, T: ?Sized, L: LockAt, At: StaticLevel> {
    lock: &'a PinnedLocked<T, L>,
    old: Irql,
    held: Irql<L::Held<At>>,
    _at: PhantomData<&'a mut Irql<At>>,
}

// SAFETY: a shared guard gives out shared references to the data and nothing else; its other fields are not reached through it.
unsafe impl<T: ?Sized + Sync, L: LockAt, At: StaticLevel> Sync for LevelGuard<'_, T, L, At> {}

impl<T: ?Sized, L: LockAt, At: StaticLevel> LevelGuard<'_, T, L, At> {
    /// Lends out the data and the token of the level that the lock is held at.
    ///
    /// What borrows the token ends before the lock is released.
    ///
    /// # Examples
    /// See [`PinnedLocked::lock_at`].
    #[inline]
    pub fn split(&mut self) -> (&mut T, &mut Irql<L::Held<At>>) {
        // SAFETY: the lock is held exclusively, so that the data is this guard's, and the guard is borrowed exclusively.
        (unsafe { &mut *self.lock.data_ptr() }, &mut self.held)
    }
}

impl<T: ?Sized, L: LockAt, At: StaticLevel> Deref for LevelGuard<'_, T, L, At> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the lock is held exclusively, so that the data is this guard's, and the guard is borrowed shared.
        unsafe { &*self.lock.data_ptr() }
    }
}

impl<T: ?Sized, L: LockAt, At: StaticLevel> DerefMut for LevelGuard<'_, T, L, At> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.split().0
    }
}

impl<T: ?Sized, L: LockAt, At: StaticLevel> Drop for LevelGuard<'_, T, L, At> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: by the type's invariant the lock is held by this acquisition, which is released once, here; the guard has not left its thread.
        unsafe { L::release_at::<At>(self.lock.state(), self.old) };
    }
}

impl<T: ?Sized + fmt::Debug, L: LockAt, At: StaticLevel> fmt::Debug for LevelGuard<'_, T, L, At> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: ?Sized + fmt::Display, L: LockAt, At: StaticLevel> fmt::Display for LevelGuard<'_, T, L, At> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}
