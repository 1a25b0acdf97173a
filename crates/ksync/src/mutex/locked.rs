//! Data and the lock that guards it.

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomPinned;
use core::ops::Deref;
use core::panic::Location;

use ksync_sys as sys;

use super::backend::{Backend, ConstInit, Exclusive, Shared, Sharing};
use super::guard::{LockedGuard, SharedGuard};
use super::placement::{Inline, InlineSlot, Placement, Slot};
use super::report;
use crate::error::{NtError, Result};
use crate::init::{PinInit, pin_init_from_closure};

/// Data and the lock that guards it, in place.
///
/// This is the form to put into a larger structure, such as a device extension, by [`pin_init`](Self::pin_init); locks that are one word can also be made
/// at compile time by [`const_new`](Self::const_new). [`Locked`] is the form that can be moved, and has all the methods of this one.
///
/// # Dropping
/// A lock that is held when it is dropped (its guard was forgotten) is reported through `DbgPrint`. If the kernel links to the held lock, as to a `KMUTEX` that another thread
/// owns, its memory cannot be given back, and the system is stopped with bug check [`DROPPED_WHILE_HELD`](super::DROPPED_WHILE_HELD). [`Locked`] leaks
/// the memory instead.
#[repr(C)]
pub struct PinnedLocked<T: ?Sized, L: Backend> {
    state: UnsafeCell<L::State>,
    _pinned: PhantomPinned,
    data: UnsafeCell<T>,
}

// SAFETY: a lock that nobody uses can be used from any thread, and the data goes with it. (A state that may not move is kept by its being pinned.)
unsafe impl<T: ?Sized + Send, L: Backend> Send for PinnedLocked<T, L> {}
// SAFETY: the backend lets threads use the lock at once, and gives the data to one of them, or to several at once if its `Sharing` says so; the
// bound asks of the data what that takes.
unsafe impl<T: ?Sized, L: Backend> Sync for PinnedLocked<T, L> where L::Sharing: Sharing<T> {}

impl<T, L: Backend> PinnedLocked<T, L> {
    /// Returns an initialiser of a free lock with this data.
    ///
    /// # IRQL
    /// That of the lock's initialisation; `<= DISPATCH_LEVEL` for all locks.
    ///
    /// # Errors
    /// The initialiser fails if the lock's initialisation does. The data is then dropped.
    ///
    /// # Examples
    /// See [`init`](crate::init).
    #[track_caller]
    pub fn pin_init(value: T) -> impl PinInit<Self, NtError> {
        // Locks that are created here are of one class, for the hosted kernel's check of the order of locks.
        let site = Location::caller();
        let make = move |slot: *mut Self| {
            // SAFETY: the slot is valid for writes.
            unsafe { Self::init_at(slot, value) }?;
            // SAFETY: as above.
            let state = unsafe { &raw const (*slot).state };
            sys::classify_lock(state.addr(), size_of::<L::State>(), site);
            Ok(())
        };
        // SAFETY: the closure initialises the lock on success, and leaves nothing to drop on failure.
        unsafe { pin_init_from_closure(make) }
    }

    /// Makes a free lock with this data.
    ///
    /// # Errors
    /// Those of the lock's initialisation. Nothing is left in the slot then, and the data is dropped.
    ///
    /// # Safety
    /// The slot is valid for writes. Unless the lock can be moved, it stays there.
    pub(super) unsafe fn init_at(slot: *mut Self, value: T) -> Result {
        // SAFETY: by this function's contract.
        let state = unsafe { &raw mut (*slot).state }.cast::<L::State>();
        // SAFETY: as above; an `UnsafeCell` has the layout of what is in it.
        unsafe { L::init(state) }?;
        // SAFETY: as above.
        let data = unsafe { &raw mut (*slot).data }.cast::<T>();
        // SAFETY: as above.
        unsafe { data.write(value) };
        Ok(())
    }
}

impl<T, L: ConstInit> PinnedLocked<T, L> {
    /// Makes a free lock at compile time.
    ///
    /// # Examples
    /// ```
    /// use ksync::mutex::PinnedSpinLocked;
    ///
    /// static COUNT: PinnedSpinLocked<u32> = PinnedSpinLocked::const_new(0);
    ///
    /// # ksim::Machine::new().run(|| {
    /// *COUNT.lock().unwrap() += 1;
    /// # }).expect_clean();
    /// ```
    #[must_use]
    pub const fn const_new(value: T) -> Self {
        Self { state: UnsafeCell::new(L::FREE), _pinned: PhantomPinned, data: UnsafeCell::new(value) }
    }
}

impl<T: ?Sized, L: Backend> PinnedLocked<T, L> {
    /// The lock's state, for the backend.
    #[inline]
    pub(super) fn state(&self) -> *mut L::State {
        self.state.get()
    }

    /// The data, for a guard.
    #[inline]
    pub(super) const fn data_ptr(&self) -> *mut T {
        self.data.get()
    }

    /// Lends the data out without locking, to a caller that has the lock to itself.
    #[inline]
    pub(super) fn data_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }

    /// Lends the data out without locking: having the lock by `&mut` proves that nobody else has it.
    ///
    /// # Examples
    /// ```
    /// use core::pin::pin;
    /// use ksync::mutex::PinnedSpinLocked;
    ///
    /// let mut lock = pin!(PinnedSpinLocked::const_new(1));
    /// *lock.as_mut().get_mut_pinned() += 1;
    /// assert_eq!(*lock.as_mut().get_mut_pinned(), 2);
    /// ```
    pub fn get_mut_pinned(self: core::pin::Pin<&mut Self>) -> &mut T {
        // SAFETY: the lock is not moved; the data is not pinned by its lock's being so, since no method ever pins it.
        unsafe { self.get_unchecked_mut() }.data_mut()
    }

    /// Tells whether someone holds the lock just now. The answer may be old by the time it is seen: good for reports and assertions only.
    ///
    /// # IRQL
    /// Any.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        // SAFETY: the state is valid as long as the lock is.
        unsafe { L::is_locked(self.state()) }
    }

    /// Takes the lock out of the kernel's lists, if it is not held and the level allows it. Returns whether it did.
    ///
    /// If so, the lock is not used any more.
    pub(super) fn retire(&mut self) -> bool {
        if self.is_locked() {
            report::held(L::NAME, core::ptr::from_mut(self).cast());
            return false;
        }
        // SAFETY: the state is valid, and the caller's alone because the reference is exclusive.
        unsafe { L::deinit(self.state()) }.is_ok()
    }
}

impl<T: ?Sized, L: Exclusive> PinnedLocked<T, L> {
    /// Acquires the lock, waiting or spinning as long as it takes.
    ///
    /// # IRQL
    /// `<= APC_LEVEL` for locks that wait, `<= DISPATCH_LEVEL` for locks that spin: see [the table](super#which-lock).
    ///
    /// # Errors
    /// - [`NtError::IRQL_TOO_HIGH`] at a higher level. Nothing has happened.
    /// - [`NtError::WOULD_DEADLOCK`] if the caller holds the lock already.
    ///
    /// # Examples
    /// ```
    /// use ksync::error::NtError;
    /// use ksync::mutex::FastLocked;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let lock = FastLocked::new(1).unwrap();
    /// let mut guard = lock.lock().unwrap();
    /// *guard += 1;
    /// assert_eq!(lock.lock().unwrap_err(), NtError::WOULD_DEADLOCK);
    /// drop(guard);
    /// assert_eq!(*lock.lock().unwrap(), 2);
    /// # }).expect_clean();
    /// ```
    #[inline]
    pub fn lock(&self) -> Result<LockedGuard<'_, T, L>> {
        // SAFETY: the state is valid as long as the lock is, which the guard borrows.
        let state = unsafe { L::lock(self.state()) }?;
        // SAFETY: the lock was acquired with this guard state.
        Ok(unsafe { LockedGuard::new(self, state) })
    }

    /// Acquires the lock if that takes no waiting.
    ///
    /// # IRQL
    /// As [`lock`](Self::lock).
    ///
    /// # Errors
    /// - [`NtError::LOCK_NOT_GRANTED`] if someone holds it, the caller included.
    /// - [`NtError::IRQL_TOO_HIGH`] as for [`lock`](Self::lock).
    ///
    /// # Examples
    /// ```
    /// use ksync::error::NtError;
    /// use ksync::mutex::FastLocked;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let lock = FastLocked::new(()).unwrap();
    /// let guard = lock.try_lock().unwrap();
    /// assert_eq!(lock.try_lock().unwrap_err(), NtError::LOCK_NOT_GRANTED);
    /// # drop(guard) }).expect_clean();
    /// ```
    #[inline]
    pub fn try_lock(&self) -> Result<LockedGuard<'_, T, L>> {
        // SAFETY: the state is valid as long as the lock is, which the guard borrows.
        let state = unsafe { L::try_lock(self.state()) }?;
        // SAFETY: the lock was acquired with this guard state.
        Ok(unsafe { LockedGuard::new(self, state) })
    }

    /// Runs a closure with the data, under the lock.
    ///
    /// What the closure borrows cannot outlive it, so locks that are taken inside are released before this one: levels come back in order.
    ///
    /// # IRQL
    /// As [`lock`](Self::lock).
    ///
    /// # Errors
    /// As [`lock`](Self::lock). The closure has not run then.
    ///
    /// # Examples
    /// ```
    /// use ksync::mutex::SpinLocked;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let lock = SpinLocked::new(1).unwrap();
    /// let before = lock.with(|count| std::mem::replace(count, 5)).unwrap();
    /// assert_eq!((before, lock.into_inner()), (1, 5));
    /// # }).expect_clean();
    /// ```
    #[inline]
    pub fn with<R>(&self, run: impl FnOnce(&mut T) -> R) -> Result<R> {
        Ok(run(&mut *self.lock()?))
    }
}

impl<T: ?Sized, L: Shared> PinnedLocked<T, L> {
    /// Acquires the lock for reading, beside other readers, waiting or spinning as long as it takes.
    ///
    /// # IRQL
    /// As [`lock`](Self::lock).
    ///
    /// # Errors
    /// As [`lock`](Self::lock), and [`NtError::MUTANT_LIMIT_EXCEEDED`] if there are 2²⁸ readers, nearly all of whose guards were forgotten: NT could not count one more.
    ///
    /// # Examples
    /// ```
    /// use ksync::mutex::ResourceLocked;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let lock = ResourceLocked::new(5).unwrap();
    /// let one = lock.lock_shared().unwrap();
    /// let two = lock.lock_shared().unwrap();
    /// assert_eq!(*one + *two, 10);
    /// # drop(one); drop(two); }).expect_clean();
    /// ```
    #[inline]
    pub fn lock_shared(&self) -> Result<SharedGuard<'_, T, L>> {
        // SAFETY: the state is valid as long as the lock is, which the guard borrows.
        let state = unsafe { L::lock_shared(self.state()) }?;
        // SAFETY: the lock was acquired shared, with this guard state.
        Ok(unsafe { SharedGuard::new(self, state) })
    }

    /// Acquires the lock for reading if that takes no waiting.
    ///
    /// # IRQL
    /// As [`lock`](Self::lock).
    ///
    /// # Errors
    /// As [`try_lock`](Self::try_lock).
    #[inline]
    pub fn try_lock_shared(&self) -> Result<SharedGuard<'_, T, L>> {
        // SAFETY: the state is valid as long as the lock is, which the guard borrows.
        let state = unsafe { L::try_lock_shared(self.state()) }?;
        // SAFETY: the lock was acquired shared, with this guard state.
        Ok(unsafe { SharedGuard::new(self, state) })
    }

    /// Runs a closure with the data, under the lock, beside other readers.
    ///
    /// # IRQL
    /// As [`lock`](Self::lock).
    ///
    /// # Errors
    /// As [`lock`](Self::lock). The closure has not run then.
    #[inline]
    pub fn with_shared<R>(&self, run: impl FnOnce(&T) -> R) -> Result<R> {
        Ok(run(&*self.lock_shared()?))
    }
}

impl<T: ?Sized, L: Backend> Drop for PinnedLocked<T, L> {
    fn drop(&mut self) {
        if self.is_locked() {
            report::held(L::NAME, core::ptr::from_mut(self).cast());
        }
        // SAFETY: the state is valid, and nobody else's because the lock is being dropped.
        if let Err(error) = unsafe { L::deinit(self.state()) } {
            let lock = core::ptr::from_mut(self).cast::<()>().addr();
            // SAFETY: the routine stops the system. That is the best that is left: the owner of this memory gives it back on return, and the kernel
            // would go on writing to it.
            unsafe { sys::KeBugCheckEx(super::DROPPED_WHILE_HELD, lock, error.status().0 as usize, 0, 0) };
        }
    }
}

impl<T: ?Sized + fmt::Debug, L: Exclusive> fmt::Debug for PinnedLocked<T, L> {
    /// Shows the data, or `<locked>` where the lock cannot be had without waiting.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_lock() {
            Ok(guard) => fmt::Debug::fmt(&*guard, f),
            Err(_) => f.write_str("<locked>"),
        }
    }
}

/// Data and the lock that guards it, in a form that can be moved.
///
/// The aliases name the locks: [`FastLocked`](super::FastLocked), [`SpinLocked`](super::SpinLocked) and so on. All methods that acquire are those of
/// [`PinnedLocked`], to which this dereferences.
///
/// A lock that the kernel links to lies in a box of nonpaged pool with its data, and [`new`](Self::new) allocates. A lock that is a word lies here beside
/// the data, and `new` neither allocates nor fails; see [`const_new`](Self::const_new).
///
/// # Dropping
/// A lock that is held when it is dropped (its guard was forgotten) is reported through `DbgPrint`, and if it is boxed it is leaked, data and all, and never freed under a kernel that links to it. So is
/// one that is dropped at a level at which it cannot be freed.
///
/// # Examples
/// ```
/// use ksync::mutex::GuardLocked;
///
/// # ksim::Machine::new().run(|| {
/// let names = GuardLocked::new(vec!["Ada"]).unwrap();
/// names.lock().unwrap().push("Grace");
/// assert_eq!(format!("{names:?}"), r#"["Ada", "Grace"]"#);
/// assert_eq!(names.into_inner().len(), 2);
/// # }).expect_clean();
/// ```
pub struct Locked<T, L: Backend> {
    slot: <L::Placement as Placement>::Slot<T, L>,
}

// SAFETY: as for `PinnedLocked`, which is what this consists of or owns.
unsafe impl<T: Send, L: Backend> Send for Locked<T, L> {}
// SAFETY: as above.
unsafe impl<T, L: Backend> Sync for Locked<T, L> where L::Sharing: Sharing<T> {}
// What must not move is in a box, and what is not in a box may move.
impl<T, L: Backend> Unpin for Locked<T, L> {}

impl<T, L: Backend> Locked<T, L> {
    /// Makes a free lock with this data.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; any for locks that are not boxed.
    ///
    /// # Errors
    /// For locks that are boxed; for others there are none.
    /// - [`NtError::INSUFFICIENT_RESOURCES`] if there is no memory. The data is dropped.
    /// - [`NtError::IRQL_TOO_HIGH`] at a higher level.
    ///
    /// # Examples
    /// See [the type](Self).
    #[track_caller]
    pub fn new(value: T) -> Result<Self> {
        Ok(Self { slot: Slot::make(value)? })
    }

    /// Lends the data out without locking: having the lock by `&mut` proves that nobody else has it.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// # ksim::Machine::new().run(|| {
    /// let mut lock = ksync::mutex::FastLocked::new(1).unwrap();
    /// *lock.get_mut() += 1;
    /// assert_eq!(lock.into_inner(), 2);
    /// # }).expect_clean();
    /// ```
    pub fn get_mut(&mut self) -> &mut T {
        self.slot.get_mut()
    }

    /// Takes the data out and frees the lock.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; `<= APC_LEVEL` for executive resources. At a higher level the lock's memory is leaked.
    ///
    /// # Examples
    /// See [`get_mut`](Self::get_mut).
    pub fn into_inner(self) -> T {
        // SAFETY: the data is valid and the caller's alone.
        let value = unsafe { self.data_ptr().read() };
        // SAFETY: the data was read out and is used as the copy only from here on.
        unsafe { self.free_without_data() };
        value
    }

    /// Gives the memory back, and the lock with it, but not what the data owns.
    ///
    /// # Safety
    /// The data was copied out, or is to be forgotten.
    pub(super) unsafe fn free_without_data(self) {
        // SAFETY: by this function's own contract.
        unsafe { self.slot.free_without_data() };
    }
}

impl<T, L: ConstInit + Backend<Placement = Inline>> Locked<T, L> {
    /// Makes a free lock with this data at compile time.
    ///
    /// # Examples
    /// ```
    /// use ksync::mutex::SpinLocked;
    ///
    /// static COUNT: SpinLocked<u32> = SpinLocked::const_new(0);
    ///
    /// # ksim::Machine::new().run(|| {
    /// *COUNT.lock().unwrap() += 1;
    /// # }).expect_clean();
    /// ```
    #[must_use]
    pub const fn const_new(value: T) -> Self {
        // INVARIANT: the state is the constant that `ConstInit` promises to be as good as initialised.
        Self { slot: InlineSlot(PinnedLocked::const_new(value)) }
    }
}

impl<T, L: Backend> Deref for Locked<T, L> {
    type Target = PinnedLocked<T, L>;

    #[inline]
    fn deref(&self) -> &PinnedLocked<T, L> {
        &self.slot
    }
}

impl<T, L: Backend> fmt::Debug for Locked<T, L>
where
    PinnedLocked<T, L>: fmt::Debug,
{
    /// Shows the data, or `<locked>` where the lock cannot be had without waiting.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
