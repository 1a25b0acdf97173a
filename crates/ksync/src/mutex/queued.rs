//! In-stack queued spin locks.
//!
//! [`InStackQueueLocked`] is over a spin lock whose waiters stand in a queue: first come, first served, and each turns on a word of its own rather than all on one. Choose
//! it over [`SpinLocked`](super::SpinLocked) where many processors contend.
//!
//! 1. An acquirer brings its place in the queue along, a [`LockedQueueHandle`]. The kernel links it while the lock is held or waited for, so it must not move or go away. It
//!    is therefore pinned, and one that goes while its guard was forgotten releases the lock first.
//! 2. [`with`](PinnedLocked::with) does without a handle, and is the way to go where it fits.
//! 3. A lock is used either so or as a plain spin lock, never both ways. The type sees to that.
//!
//! Over [`KLOCK_QUEUE_HANDLE`](ksync_sys::KLOCK_QUEUE_HANDLE), [`wdm.h`](https://learn.microsoft.com/windows-hardware/drivers/kernel/queued-spin-locks). All
//! versions of Windows have it.

use core::cell::{Cell, UnsafeCell};
use core::fmt;
use core::marker::{PhantomData, PhantomPinned};
use core::mem::MaybeUninit;
use core::pin::{Pin, pin};
use core::ptr::NonNull;

use ksync_sys as sys;

use super::backend::{Backend, ConstInit, Owner, SendOnly};
use super::guard::LockedGuard;
use super::locked::{Locked, PinnedLocked};
use super::placement::Inline;
use crate::error::{NtError, Result};
use crate::irql::{self, AtMost, Dispatch, First, Irql, Raised, StaticLevel};

/// Data under an in-stack queued spin lock.
///
/// The lock is a word beside the data: nothing is allocated, and it can be a static.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`; raises to `DISPATCH_LEVEL` while the lock is held, and returns to the caller's level.
///
/// # Examples
/// ```
/// use core::pin::pin;
/// use ksync::mutex::{InStackQueueLocked, LockedQueueHandle};
///
/// # ksim::Machine::new().run(|| {
/// let counter = InStackQueueLocked::new(0u32).unwrap();
/// for _ in 0..1000 {
///     let mut handle = pin!(LockedQueueHandle::new());
///     if let Ok(mut guard) = counter.lock(&mut handle) {
///         *guard += 1;
///     }
/// }
/// counter.with(|count| *count += 1).unwrap();
/// assert_eq!(counter.into_inner(), 1001);
/// # }).expect_clean();
/// ```
pub type InStackQueueLocked<T> = Locked<T, InStackQueue>;

/// Data under an in-stack queued spin lock, in place. See [`InStackQueueLocked`].
pub type PinnedInStackQueueLocked<T> = PinnedLocked<T, InStackQueue>;

/// The guard of [`InStackQueueLocked`].
pub type InStackQueueLockedGuard<'a, T> = LockedGuard<'a, T, InStackQueue>;

/// The [backend](Backend) of [`InStackQueueLocked`].
#[derive(Debug)]
pub enum InStackQueue {}

/// An in-stack queued spin lock and its owner.
#[derive(Debug)]
pub struct InStackQueueState {
    lock: UnsafeCell<sys::KSPIN_LOCK>,
    owner: Owner,
}

/// Which pair of routines an acquisition is of, if it raised the level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pair {
    /// The ordinary one.
    Ordinary,
    /// The one for threaded DPCs.
    ForDpc,
}

/// A place in the queue of an [`InStackQueueLocked`], to be pinned on the stack: `pin!(LockedQueueHandle::new())`.
///
/// One handle serves one acquisition at a time, of locks that outlive it. It can be used again after the guard is dropped. If the guard was forgotten, dropping
/// the handle releases the lock.
///
/// # Invariants
/// While `held` names a lock, the kernel's part is linked to that lock by an acquisition of `pair` on this thread.
pub struct LockedQueueHandle<'lock> {
    /// The kernel's part, written by an acquisition.
    place: UnsafeCell<MaybeUninit<sys::KLOCK_QUEUE_HANDLE>>,
    /// The lock that is held with this handle.
    held: Cell<Option<NonNull<InStackQueueState>>>,
    /// How it was acquired.
    pair: Cell<Pair>,
    /// What that did to the level.
    raised: Cell<Raised>,
    _lock: PhantomData<&'lock InStackQueueState>,
    _pinned: PhantomPinned,
    _not_send: PhantomData<*mut ()>,
}

/// The name under which an earlier library had [`LockedQueueHandle`].
#[deprecated = "it is spelt `LockedQueueHandle`"]
pub type LockedQuueHandle<'lock> = LockedQueueHandle<'lock>;

impl LockedQueueHandle<'_> {
    /// Makes a handle that is in no queue.
    ///
    /// # IRQL
    /// Any.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            place: UnsafeCell::new(MaybeUninit::uninit()),
            held: Cell::new(None),
            pair: Cell::new(Pair::Ordinary),
            raised: Cell::new(Raised::Not),
            _lock: PhantomData,
            _pinned: PhantomPinned,
            _not_send: PhantomData,
        }
    }

    /// The kernel's part.
    #[inline]
    fn place(&self) -> *mut sys::KLOCK_QUEUE_HANDLE {
        self.place.get().cast()
    }

    /// Releases the lock that is held with this handle, if there is one.
    #[inline]
    fn release(&self) {
        let Some(state) = self.held.take() else { return };
        // SAFETY: by the type's invariant the handle holds this lock, whose memory outlives it (`'lock`).
        unsafe { state.as_ref() }.owner.clear();
        let place = self.place();
        // The place keeps the level before, so that it need not be said.
        self.raised.get().release(
            |_| match self.pair.get() {
                // SAFETY: by the type's invariant the place is linked by the routine that this one undoes. The level is `DISPATCH_LEVEL`.
                Pair::ForDpc => unsafe { sys::KeReleaseInStackQueuedSpinLockForDpc(place) },
                // SAFETY: as above.
                Pair::Ordinary => unsafe { sys::KeReleaseInStackQueuedSpinLock(place) },
            },
            // SAFETY: by the type's invariant the place is linked. The level is `DISPATCH_LEVEL` or above.
            || unsafe { sys::KeReleaseInStackQueuedSpinLockFromDpcLevel(place) },
        );
    }
}

impl Default for LockedQueueHandle<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for LockedQueueHandle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockedQueueHandle").field("held", &self.held.get()).finish_non_exhaustive()
    }
}

impl Drop for LockedQueueHandle<'_> {
    /// Releases the lock if its guard was forgotten: the place must not go while the kernel links it.
    fn drop(&mut self) {
        self.release();
    }
}

// SAFETY: clause by clause:
// 1, 2: the spin lock excludes and orders. Recursion is refused by the owner's word.
// 3, 4: level, owner and handle are checked before anything is done.
// 5: the level before is in the handle.
// 6: the lock points to the handle while it is held; a handle that goes releases it first, and being pinned it does go before its memory does.
// 7: a free lock's word stands for nothing but itself, so it can be moved; a held one is borrowed as long as its handle lives.
// 8: nothing here unwinds but the kernel's own routines.
unsafe impl Backend for InStackQueue {
    type State = InStackQueueState;
    type GuardState = NonNull<LockedQueueHandle<'static>>;
    type Placement = Inline;
    type Sharing = SendOnly;

    const NAME: &'static str = "InStackQueueLocked";

    unsafe fn init(state: *mut InStackQueueState) -> Result {
        // The constant is what `KeInitializeSpinLock` writes.
        // SAFETY: the pointer is valid for writes.
        unsafe { state.write(Self::FREE) };
        Ok(())
    }

    #[inline]
    unsafe fn unlock(_: *mut InStackQueueState, handle: NonNull<LockedQueueHandle<'static>>) {
        // SAFETY: the handle is borrowed by the guard whose state this is.
        unsafe { handle.as_ref() }.release();
    }

    #[inline]
    unsafe fn is_locked(state: *const InStackQueueState) -> bool {
        // SAFETY: the state is valid, and all of its fields can be shared.
        let state = unsafe { &*state };
        let word = state.lock.get();
        // An acquisition by a token does not note its owner, so the word is asked too. Others may change it meanwhile; the read is volatile because of that.
        // SAFETY: the word is valid.
        state.owner.is_somebody() || unsafe { word.read_volatile() } != 0
    }
}

// SAFETY: a spin lock of zero is free.
unsafe impl ConstInit for InStackQueue {
    const FREE: InStackQueueState = InStackQueueState { lock: UnsafeCell::new(0), owner: Owner::nobody() };
}

impl<T: ?Sized> PinnedLocked<T, InStackQueue> {
    /// Acquires the lock, spinning in the queue as long as it takes.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; returns at `DISPATCH_LEVEL`, and dropping the guard returns to the caller's level.
    ///
    /// # Errors
    /// - [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`. Nothing has happened.
    /// - [`NtError::WOULD_DEADLOCK`] if the caller holds the lock already.
    /// - [`NtError::INVALID_DEVICE_STATE`] if the handle holds a lock, whose guard was forgotten.
    ///
    /// # Examples
    /// See [`InStackQueueLocked`].
    ///
    /// Wraps [`KeAcquireInStackQueuedSpinLock`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keacquireinstackqueuedspinlock).
    #[doc(alias = "KeAcquireInStackQueuedSpinLock")]
    #[inline]
    pub fn lock<'a, 'lock>(
        &'lock self,
        handle: &'a mut Pin<&mut LockedQueueHandle<'lock>>,
    ) -> Result<LockedGuard<'a, T, InStackQueue>> {
        self.acquire(handle, Pair::Ordinary)
    }

    /// Acquires the lock in a DPC, where the level is `DISPATCH_LEVEL` already.
    ///
    /// # IRQL
    /// `DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// As [`lock`](Self::lock), and [`NtError::IRQL_TOO_LOW`] at a lower level.
    ///
    /// Wraps [`KeAcquireInStackQueuedSpinLockAtDpcLevel`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keacquireinstackqueuedspinlockatdpclevel).
    #[doc(alias = "KeAcquireInStackQueuedSpinLockAtDpcLevel")]
    #[inline]
    pub fn lock_at_dpc_level<'a, 'lock>(
        &'lock self,
        handle: &'a mut Pin<&mut LockedQueueHandle<'lock>>,
    ) -> Result<LockedGuard<'a, T, InStackQueue>> {
        irql::require_dispatch()?;
        self.acquire(handle, Pair::Ordinary)
    }

    /// Acquires the lock in a threaded DPC, which runs at `PASSIVE_LEVEL` or at `DISPATCH_LEVEL`, as the system is set up.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// As [`lock`](Self::lock).
    ///
    /// Wraps [`KeAcquireInStackQueuedSpinLockForDpc`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keacquireinstackqueuedspinlockfordpc).
    #[doc(alias = "KeAcquireInStackQueuedSpinLockForDpc")]
    #[inline]
    pub fn lock_for_dpc<'a, 'lock>(
        &'lock self,
        handle: &'a mut Pin<&mut LockedQueueHandle<'lock>>,
    ) -> Result<LockedGuard<'a, T, InStackQueue>> {
        self.acquire(handle, Pair::ForDpc)
    }

    /// Runs a closure with the data, under the lock. The place in the queue is in this call's own frame.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; the closure runs at `DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// As [`lock`](Self::lock). The closure has not run then.
    ///
    /// # Examples
    /// See [`InStackQueueLocked`].
    #[inline]
    pub fn with<R>(&self, run: impl FnOnce(&mut T) -> R) -> Result<R> {
        let mut handle = pin!(LockedQueueHandle::new());
        let mut guard = self.lock(&mut handle)?;
        let result = run(&mut guard);
        drop(guard);
        Ok(result)
    }

    /// Runs a closure under the lock, with the data and with the token of the level that the lock is held at, from a level that is known at compile time.
    ///
    /// Nothing is checked at run time. A holder that asks again waits for itself.
    ///
    /// # IRQL
    /// That of the token, which the compiler checks against the lock's.
    ///
    /// # Examples
    /// ```
    /// use ksync::irql::{Irql, Passive};
    /// use ksync::mutex::InStackQueueLocked;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let lock = InStackQueueLocked::const_new(1);
    /// let mut passive = Irql::<Passive>::claim().unwrap();
    /// lock.with_at(&mut passive, |value, _dispatch| *value += 1);
    /// assert_eq!(lock.into_inner(), 2);
    /// # }).expect_clean();
    /// ```
    #[inline]
    pub fn with_at<At: AtMost<Dispatch>, R>(&self, at: &mut Irql<At>, run: impl FnOnce(&mut T, &mut Irql<Dispatch>) -> R) -> R {
        /// Releases the lock, also when the closure unwinds, which it can do hosted.
        struct Release<At>(*mut sys::KLOCK_QUEUE_HANDLE, PhantomData<At>)
        where
            At: StaticLevel;
        impl<At: StaticLevel> Drop for Release<At> {
            #[inline]
            fn drop(&mut self) {
                if At::LEVEL == Irql::DISPATCH {
                    // SAFETY: the place is linked by the routine that this one undoes. IRQL: the token's.
                    unsafe { sys::KeReleaseInStackQueuedSpinLockFromDpcLevel(self.0) };
                } else {
                    // SAFETY: as above.
                    unsafe { sys::KeReleaseInStackQueuedSpinLock(self.0) };
                }
            }
        }
        let _ = at;
        // SAFETY: the state is valid as long as the lock is, and all of its fields can be shared.
        let lock = unsafe { &*self.state() }.lock.get();
        let mut place = MaybeUninit::uninit();
        let place = place.as_mut_ptr();
        if At::LEVEL == Irql::DISPATCH {
            // SAFETY: the lock is initialised; the place is in no queue, is a local variable that is only used by its pointer, and leaves the queue before this call
            // ends. IRQL: the token's.
            unsafe { sys::KeAcquireInStackQueuedSpinLockAtDpcLevel(lock, place) };
        } else {
            // SAFETY: as above.
            unsafe { sys::KeAcquireInStackQueuedSpinLock(lock, place) };
        }
        let _release = Release::<At>(place, PhantomData);
        // SAFETY: the lock is held, so that the data is this call's alone.
        run(unsafe { &mut *self.data_ptr() }, &mut Irql::made())
    }

    /// Acquires the lock by one pair of routines.
    #[inline]
    fn acquire<'a, 'lock>(
        &'lock self,
        handle: &'a mut Pin<&mut LockedQueueHandle<'lock>>,
        pair: Pair,
    ) -> Result<LockedGuard<'a, T, InStackQueue>> {
        let level = irql::current();
        if level > Irql::DISPATCH {
            return Err(NtError::IRQL_TOO_HIGH);
        }
        let handle: &'a LockedQueueHandle<'lock> = handle;
        if handle.held.get().is_some() {
            return Err(NtError::INVALID_DEVICE_STATE);
        }
        // SAFETY: the state is valid as long as the lock is, and all of its fields can be shared.
        let state: &'lock InStackQueueState = unsafe { &*self.state() };
        let thread = state.owner.refuse_recursion()?;
        let (lock, place) = (state.lock.get(), handle.place());
        let raised = if level == Irql::DISPATCH {
            // SAFETY: the lock is initialised and not held by this processor; the place is in no queue, is pinned, and leaves the queue before its
            // memory goes. IRQL: checked.
            unsafe { sys::KeAcquireInStackQueuedSpinLockAtDpcLevel(lock, place) };
            Raised::inside(thread)
        } else {
            match pair {
                // SAFETY: as above.
                Pair::Ordinary => unsafe { sys::KeAcquireInStackQueuedSpinLock(lock, place) },
                // SAFETY: as above.
                Pair::ForDpc => unsafe { sys::KeAcquireInStackQueuedSpinLockForDpc(lock, place) },
            }
            Raised::Together(First::new(level, thread))
        };
        state.owner.set(thread);
        // INVARIANT: the place is linked by this acquisition.
        handle.pair.set(pair);
        handle.raised.set(raised);
        handle.held.set(Some(NonNull::from(state)));
        // SAFETY: the lock was acquired, and is released through this handle, which the guard borrows.
        Ok(unsafe { LockedGuard::new(self, NonNull::from(handle).cast()) })
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for PinnedLocked<T, InStackQueue> {
    /// Shows the data, or `<locked>` if someone holds the lock just now.
    ///
    /// A queue cannot be tried, so someone who comes between the look and the acquisition is waited for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_locked()
            && let Ok(result) = self.with(|data| fmt::Debug::fmt(data, f))
        {
            return result;
        }
        f.write_str("<locked>")
    }
}
