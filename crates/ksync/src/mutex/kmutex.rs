//! Kernel mutexes.
//!
//! [`KMutex`] is over `KMUTEX`, the mutex that is a dispatcher object: the one lock that can be waited for with a limit in time, and whose wait an alert can break off. It costs
//! several times what a [`FastLocked`](super::FastLocked) does.
//!
//! 1. `KMUTEX` lets its owner take it again, which would make two `&mut` to the data. Here that is an error. [`ReentrantKMutex`](super::ReentrantKMutex) lets the owner in again
//!    and gives out `&T`.
//! 2. While it is held, normal kernel APCs are held back; special ones run, so that I/O completes.
//! 3. A thread that ends while it owns one (its guard was forgotten) stops the system: bug check `THREAD_TERMINATE_HELD_MUTEX`.
//!
//! Over [`KMUTEX`](ksync_sys::KMUTEX), [`wdm.h`](https://learn.microsoft.com/windows-hardware/drivers/kernel/introduction-to-mutex-objects). All versions of
//! Windows have it.

use core::cell::UnsafeCell;
use core::ptr;

use ksync_sys as sys;

use super::backend::{Backend, Blocking, Exclusive, Owner, SendOnly, current_thread};
use super::guard::LockedGuard;
use super::locked::{Locked, PinnedLocked};
use super::placement::Boxed;
use super::report;
use crate::error::{NtError, Result};
use crate::irql::{self, Irql};
use crate::pool::{KBox, NotAllocated};
use crate::time::Timeout;

/// Data under a kernel mutex, in a form that can be moved.
///
/// # IRQL
/// `<= APC_LEVEL`; acquiring and releasing leave the level alone. Normal kernel APCs are held back while the mutex is held.
///
/// # Examples
/// ```
/// use ksync::mutex::KMutex;
///
/// # ksim::Machine::new().run(|| {
/// let mtx = KMutex::new(0u32).unwrap();
/// let lock = mtx.lock().unwrap();
/// // If T implements Display, you do not need to dereference the lock to print.
/// assert_eq!(format!("The value is: {}", lock), "The value is: 0");
/// # drop(lock); }).expect_clean();
/// ```
pub type KMutex<T> = Locked<T, Mutex>;

/// Data under a kernel mutex, in place. See [`KMutex`].
pub type PinnedKMutex<T> = PinnedLocked<T, Mutex>;

/// The guard of [`KMutex`].
pub type KMutexGuard<'a, T> = LockedGuard<'a, T, Mutex>;

/// The [backend](Backend) of [`KMutex`].
#[derive(Debug)]
pub enum Mutex {}

/// A kernel mutex and its owner.
#[derive(Debug)]
pub struct MutexState {
    mutex: UnsafeCell<sys::KMUTEX>,
    owner: Owner,
}

/// How a kernel mutex was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MutexFound {
    abandoned: bool,
}

impl MutexState {
    /// Initialises a free mutex.
    ///
    /// # Safety
    /// As [`Backend::init`].
    pub(super) unsafe fn init(state: *mut Self) -> Result {
        irql::require_at_most(Irql::DISPATCH)?;
        // SAFETY: the pointer is valid for writes; the mutex is at the beginning of what it points to.
        let mutex = unsafe { &raw mut (*state).mutex }.cast::<sys::KMUTEX>();
        // SAFETY: the memory is nonpaged and valid for writes, and stays where it is. IRQL: any.
        unsafe { sys::KeInitializeMutex(mutex, 0) };
        // SAFETY: the pointer is valid for writes.
        let owner = unsafe { &raw mut (*state).owner };
        // SAFETY: as above.
        unsafe { owner.write(Owner::nobody()) };
        Ok(())
    }

    /// Tells whether the current thread owns the mutex.
    #[inline]
    pub(super) fn is_mine(&self) -> bool {
        self.owner.is(current_thread())
    }

    /// Tells whether anybody owns the mutex.
    #[inline]
    pub(super) fn is_owned(&self) -> bool {
        self.owner.is_somebody()
    }

    /// Waits for the mutex, which the current thread may own, and takes it.
    ///
    /// The caller is at `<= APC_LEVEL`.
    #[inline]
    pub(super) fn acquire(&self, timeout: Timeout, alertable: bool) -> Result<MutexFound> {
        let timeout = timeout.to_raw();
        let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: the mutex is initialised, and borrowed throughout the wait; the timeout is null or a local variable. IRQL: the caller's.
        let status = unsafe {
            sys::KeWaitForSingleObject(self.mutex.get().cast(), sys::Executive, sys::KernelMode, alertable.into(), timeout)
        };
        let abandoned = match status {
            sys::STATUS_SUCCESS => false,
            sys::STATUS_ABANDONED => true,
            sys::STATUS_TIMEOUT => return Err(NtError::TIMEOUT),
            sys::STATUS_ALERTED | sys::STATUS_USER_APC => return Err(NtError::CANCELLED),
            status => return Err(NtError::from_status(status).unwrap_or(NtError::UNSUCCESSFUL)),
        };
        self.owner.set(current_thread());
        Ok(MutexFound { abandoned })
    }

    /// Notes that the current thread is about to give the mutex up.
    #[inline]
    pub(super) fn clear_owner(&self) {
        self.owner.clear();
    }

    /// Releases the mutex once.
    ///
    /// # Safety
    /// The current thread owns it, and, if this is its last release, said so by [`clear_owner`](Self::clear_owner). The level is at most `APC_LEVEL`.
    #[inline]
    pub(super) unsafe fn release(&self) {
        // SAFETY: the current thread owns the mutex, so that no exception is raised. IRQL: the caller's, and below `DISPATCH_LEVEL` as at the acquisition.
        unsafe { sys::KeReleaseMutex(self.mutex.get(), sys::FALSE) };
    }

    /// Releases the mutex once, and notes so if that was the last time.
    ///
    /// # Safety
    /// The current thread owns it. The level is at most `APC_LEVEL`.
    pub(super) unsafe fn release_once(&self) {
        if self.owner_count() == 1 {
            self.clear_owner();
        }
        // SAFETY: the current thread owns the mutex, and said so if this is the last release. IRQL: the caller's.
        unsafe { self.release() };
    }

    /// Tells whether the current thread, which owns the mutex, owns it so often that NT would raise an exception at the next time.
    pub(super) fn is_at_limit(&self) -> bool {
        self.owner_count() >= i32::MAX.unsigned_abs()
    }

    /// Makes sure that no thread's list of mutexes points here.
    ///
    /// # Errors
    /// If a thread owns the mutex and it is not the current one, or the level does not admit a release.
    pub(super) fn disown(&self) -> Result {
        while self.owner_count() > 0 {
            if !self.is_mine() {
                return Err(NtError::INVALID_DEVICE_STATE);
            }
            irql::require_at_most(Irql::APC)?;
            // SAFETY: the current thread owns the mutex. IRQL: checked.
            unsafe { self.release_once() };
        }
        Ok(())
    }

    /// How often its owner, who asks, has the mutex; or anyone, if nobody uses it.
    fn owner_count(&self) -> u32 {
        let mutex = self.mutex.get();
        // SAFETY: the mutex is initialised.
        let state = unsafe { &raw const (*mutex).Header.SignalState };
        // SAFETY: as above; while a thread owns it nobody else writes the field, and nobody does while nobody uses it.
        let state = unsafe { state.read() };
        // The state is 1 when free, 0 when owned once, -1 when owned twice.
        1_i32.saturating_sub(state).unsigned_abs()
    }
}

// SAFETY: clause by clause:
// 1, 2: the mutex excludes other threads and orders. Recursion is refused by the owner's word.
// 3, 4: level and owner are checked before anything is done, and a wait that ends early takes nothing.
// 5: the guard state is the acquisition's own; the level is not touched, and the APC counter is a counter.
// 6: the owner's thread object points to the mutex while it is held; `deinit` fails then.
// 7: boxed or pinned.
// 8: nothing here unwinds but the kernel's own routines. `KeReleaseMutex` would raise for a thread that does not own the mutex.
unsafe impl Backend for Mutex {
    type State = MutexState;
    type GuardState = MutexFound;
    type Placement = Boxed;
    type Sharing = SendOnly;

    const NAME: &'static str = "KMutex";

    unsafe fn init(state: *mut MutexState) -> Result {
        // SAFETY: by this function's own contract.
        unsafe { MutexState::init(state) }
    }

    #[inline]
    unsafe fn unlock(state: *mut MutexState, _: MutexFound) {
        if irql::require_at_most(Irql::APC).is_err() {
            report::not_released(Self::NAME, state.cast());
            return;
        }
        // SAFETY: the state is valid, and all of its fields can be shared.
        let state = unsafe { &*state };
        state.clear_owner();
        // SAFETY: the current thread owns the mutex, once. IRQL: checked.
        unsafe { state.release() };
    }

    #[inline]
    unsafe fn is_locked(state: *const MutexState) -> bool {
        // SAFETY: the state is valid, and all of its fields can be shared.
        unsafe { &*state }.is_owned()
    }

    unsafe fn deinit(state: *mut MutexState) -> Result {
        // SAFETY: the state is valid, and all of its fields can be shared.
        unsafe { &*state }.disown()
    }
}

// SAFETY: as above.
unsafe impl Exclusive for Mutex {
    #[inline]
    unsafe fn lock(state: *mut MutexState) -> Result<MutexFound> {
        // SAFETY: by this function's own contract.
        unsafe { lock_within(state, Timeout::NEVER, false) }
    }

    #[inline]
    unsafe fn try_lock(state: *mut MutexState) -> Result<MutexFound> {
        // SAFETY: by this function's own contract.
        match unsafe { lock_within(state, Timeout::POLL, false) } {
            Err(NtError::TIMEOUT | NtError::WOULD_DEADLOCK) => Err(NtError::LOCK_NOT_GRANTED),
            result => result,
        }
    }
}

// SAFETY: a kernel mutex is acquired at levels at which waiting is legal, and leaves the level alone.
unsafe impl Blocking for Mutex {}

/// Acquires the mutex for a thread that does not own it.
///
/// # Safety
/// As [`Exclusive::lock`].
#[inline]
unsafe fn lock_within(state: *mut MutexState, timeout: Timeout, alertable: bool) -> Result<MutexFound> {
    irql::require_at_most(Irql::APC)?;
    // SAFETY: the state is valid, and all of its fields can be shared.
    let state = unsafe { &*state };
    state.owner.refuse_recursion()?;
    state.acquire(timeout, alertable)
}

impl<T: ?Sized> PinnedLocked<T, Mutex> {
    /// Acquires the mutex if that succeeds in time.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::TIMEOUT`] if it does not.
    /// - [`NtError::IRQL_TOO_HIGH`] and [`NtError::WOULD_DEADLOCK`] as [`lock`](Self::lock).
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::error::NtError;
    /// use ksync::mutex::KMutex;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let lock = KMutex::new(5).unwrap();
    /// assert_eq!(*lock.lock_for(Duration::from_millis(10)).unwrap(), 5);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeWaitForSingleObject`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject).
    #[doc(alias = "KeWaitForMutexObject")]
    pub fn lock_for(&self, timeout: impl Into<Timeout>) -> Result<LockedGuard<'_, T, Mutex>> {
        // SAFETY: the state is valid as long as the lock is, which the guard borrows.
        let state = unsafe { lock_within(self.state(), timeout.into(), false) }?;
        // SAFETY: the lock was acquired with this guard state.
        Ok(unsafe { LockedGuard::new(self, state) })
    }

    /// Acquires the mutex if that succeeds in time and nobody alerts the thread meanwhile.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::CANCELLED`] if the thread is alerted.
    /// - [`NtError::TIMEOUT`], [`NtError::IRQL_TOO_HIGH`] and [`NtError::WOULD_DEADLOCK`] as [`lock_for`](Self::lock_for).
    ///
    /// # Examples
    /// ```
    /// use ksync::mutex::KMutex;
    /// use ksync::time::Timeout;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let lock = KMutex::new(5).unwrap();
    /// assert_eq!(*lock.lock_alertable(Timeout::NEVER).unwrap(), 5);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeWaitForSingleObject`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject).
    #[doc(alias = "KeWaitForMutexObject")]
    pub fn lock_alertable(&self, timeout: impl Into<Timeout>) -> Result<LockedGuard<'_, T, Mutex>> {
        // SAFETY: the state is valid as long as the lock is, which the guard borrows.
        let state = unsafe { lock_within(self.state(), timeout.into(), true) }?;
        // SAFETY: the lock was acquired with this guard state.
        Ok(unsafe { LockedGuard::new(self, state) })
    }
}

impl<T: ?Sized> LockedGuard<'_, T, Mutex> {
    /// Tells whether the owner before ended without a release, so that the data may be half changed.
    ///
    /// Of a `KMUTEX` NT tells this never: it stops the system when such a thread ends. It is here so that no status is lost.
    #[must_use]
    pub fn was_abandoned(guard: &Self) -> bool {
        Self::state_of(guard).abandoned
    }
}

impl<T> Locked<T, Mutex> {
    /// Consumes the mutex and returns the data.
    ///
    /// It takes the mutex by value, which proves that nobody else has it; so there is nothing unsafe about it.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`. At a higher level the mutex's memory is leaked.
    ///
    /// # Examples
    /// ```
    /// # ksim::Machine::new().run(|| {
    /// let mutex = ksync::mutex::KMutex::new(String::from("kept")).unwrap();
    /// assert_eq!(mutex.to_owned(), "kept");
    /// # }).expect_clean();
    /// ```
    pub fn to_owned(self) -> T {
        self.into_inner()
    }

    /// Consumes the mutex and returns the data in a box, without moving it over the stack.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// The mutex with the data in it, if there is no memory for the box.
    ///
    /// # Examples
    /// ```
    /// # ksim::Machine::new().run(|| {
    /// let mutex = ksync::mutex::KMutex::new([5u8; 4096]).unwrap();
    /// let data = mutex.to_owned_box().unwrap();
    /// assert_eq!(data[4095], 5);
    /// # }).expect_clean();
    /// ```
    pub fn to_owned_box(self) -> Result<KBox<T>, NotAllocated<Self>> {
        let mut memory = match KBox::<T>::new_uninit() {
            Ok(memory) => memory,
            Err(error) => return Err(NotAllocated { value: self, error }),
        };
        // SAFETY: the data is valid and the caller's alone; the box's memory has its layout and overlaps nothing.
        unsafe { ptr::copy_nonoverlapping(self.data_ptr(), memory.as_mut_ptr(), 1) };
        // SAFETY: the data was copied out and is used as the copy only from here on.
        unsafe { self.free_without_data() };
        // SAFETY: the data was copied there, and is not used as the lock's any more.
        Ok(unsafe { memory.assume_init() })
    }
}
