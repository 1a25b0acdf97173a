//! Fast mutexes.
//!
//! [`FastLocked`] is over `FAST_MUTEX`: the cheapest lock that waits. Choose it unless there is a reason for another.
//!
//! 1. `ExAcquireFastMutex` raises to `APC_LEVEL` and keeps the level before in the mutex, so two of them that are released out of order leave the thread at the wrong
//!    level. This lock enters a guarded region instead, which is a counter and can be left in any order, and uses the `Unsafe` form, which leaves the level alone.
//! 2. So the level inside is the caller's, and no APC of any kind is delivered: I/O that completes by APC does not finish while the lock is held.
//! 3. NT does not notice that the owner takes the mutex again, and hangs. This lock notes its owner, so that it is an error.
//!
//! Over [`FAST_MUTEX`](ksync_sys::FAST_MUTEX), [`wdm.h`](https://learn.microsoft.com/windows-hardware/drivers/kernel/fast-mutexes-and-guarded-mutexes). All
//! versions of Windows have it.

use core::cell::UnsafeCell;

use ksync_sys as sys;

use super::backend::{Backend, Blocking, Exclusive, Owner, SendOnly};
use super::guard::LockedGuard;
use super::locked::{Locked, PinnedLocked};
use super::placement::Boxed;
use super::report;
use crate::error::{NtError, Result};
use crate::irql::{self, Irql};

/// Data under a fast mutex, in a form that can be moved.
///
/// # IRQL
/// `<= APC_LEVEL`; acquiring and releasing leave the level alone. APCs are held back while the lock is held.
///
/// # Examples
/// Guards can be dropped in any order:
/// ```
/// use ksync::irql::{self, Irql};
/// use ksync::mutex::FastLocked;
/// use ksync::region;
///
/// # ksim::Machine::new().run(|| {
/// let (a, b) = (FastLocked::new(1).unwrap(), FastLocked::new(2).unwrap());
/// let (a, b) = (a.lock().unwrap(), b.lock().unwrap());
/// drop(a);
/// assert!(region::all_apcs_disabled());
/// drop(b);
/// assert!(!region::all_apcs_disabled());
/// assert_eq!(irql::current(), Irql::PASSIVE);
/// # }).expect_clean();
/// ```
pub type FastLocked<T> = Locked<T, Fast>;

/// Data under a fast mutex, in place. See [`FastLocked`].
pub type PinnedFastLocked<T> = PinnedLocked<T, Fast>;

/// The guard of [`FastLocked`].
pub type FastLockedGuard<'a, T> = LockedGuard<'a, T, Fast>;

/// The [backend](Backend) of [`FastLocked`].
#[derive(Debug)]
pub enum Fast {}

/// A fast mutex and its owner.
#[derive(Debug)]
pub struct FastState {
    mutex: UnsafeCell<sys::FAST_MUTEX>,
    owner: Owner,
}

impl FastState {
    /// The mutex.
    #[inline]
    pub(super) fn mutex(&self) -> *mut sys::FAST_MUTEX {
        self.mutex.get()
    }

    /// Tells whether anybody holds the mutex, by its count: an acquisition by a token does not note its owner.
    fn is_held(&self) -> bool {
        let mutex = self.mutex.get();
        // SAFETY: the mutex is initialised.
        let count = unsafe { &raw const (*mutex).Count };
        // Others may change the count meanwhile; the read is volatile because of that.
        // SAFETY: as above.
        (unsafe { count.read_volatile() }) != 1
    }
}

// SAFETY: clause by clause:
// 1, 2: the fast mutex excludes and orders. Recursion is refused by the owner's word.
// 3, 4: levels and owner are checked before anything is done, and a region that was entered in vain is left.
// 5: there is no guard state; regions are counters.
// 6: a mutex that is held points to nobody who waits for it except while they borrow the lock, and its owner's thread object does not point to it.
// 7: boxed or pinned.
// 8: nothing here unwinds but the kernel's own routines.
unsafe impl Backend for Fast {
    type State = FastState;
    type GuardState = ();
    type Placement = Boxed;
    type Sharing = SendOnly;

    const NAME: &'static str = "FastLocked";

    unsafe fn init(state: *mut FastState) -> Result {
        irql::require_at_most(Irql::DISPATCH)?;
        // SAFETY: the pointer is valid for writes; the mutex is at the beginning of what it points to.
        let mutex = unsafe { &raw mut (*state).mutex }.cast::<sys::FAST_MUTEX>();
        // SAFETY: the memory is nonpaged and valid for writes, and stays where it is. IRQL: checked.
        unsafe { sys::ExInitializeFastMutex(mutex) };
        // SAFETY: the pointer is valid for writes.
        let owner = unsafe { &raw mut (*state).owner };
        // SAFETY: as above.
        unsafe { owner.write(Owner::nobody()) };
        Ok(())
    }

    #[inline]
    unsafe fn unlock(state: *mut FastState, (): ()) {
        if irql::require_at_most(Irql::APC).is_err() {
            report::not_released(Self::NAME, state.cast());
            return;
        }
        // SAFETY: the state is valid, and all of its fields can be shared.
        let state = unsafe { &*state };
        state.owner.clear();
        // SAFETY: the current thread owns the mutex and is in the guarded region that it entered before. IRQL: checked.
        unsafe { sys::ExReleaseFastMutexUnsafe(state.mutex.get()) };
        // SAFETY: the region was entered at the acquisition. IRQL: checked.
        unsafe { sys::KeLeaveGuardedRegion() };
    }

    #[inline]
    unsafe fn is_locked(state: *const FastState) -> bool {
        // SAFETY: the state is valid, and all of its fields can be shared.
        unsafe { &*state }.is_held()
    }
}

// SAFETY: as above.
unsafe impl Exclusive for Fast {
    #[inline]
    unsafe fn lock(state: *mut FastState) -> Result {
        irql::require_at_most(Irql::APC)?;
        // SAFETY: the state is valid, and all of its fields can be shared.
        let state = unsafe { &*state };
        let thread = state.owner.refuse_recursion()?;
        // SAFETY: IRQL: checked.
        unsafe { sys::KeEnterGuardedRegion() };
        // SAFETY: the mutex is initialised, the current thread does not own it, and APCs are held back. IRQL: checked.
        unsafe { sys::ExAcquireFastMutexUnsafe(state.mutex.get()) };
        state.owner.set(thread);
        Ok(())
    }

    #[inline]
    unsafe fn try_lock(state: *mut FastState) -> Result {
        let level = irql::current();
        if level > Irql::APC {
            return Err(NtError::IRQL_TOO_HIGH);
        }
        // SAFETY: the state is valid, and all of its fields can be shared.
        let state = unsafe { &*state };
        // SAFETY: IRQL: checked.
        unsafe { sys::KeEnterGuardedRegion() };
        // There is no `Unsafe` form of this routine, so the level that it raises is taken back; the region does its work.
        // SAFETY: the mutex is initialised. IRQL: checked.
        if unsafe { sys::ExTryToAcquireFastMutex(state.mutex.get()) } == sys::FALSE {
            // SAFETY: the region was entered above. IRQL: unchanged.
            unsafe { sys::KeLeaveGuardedRegion() };
            return Err(NtError::LOCK_NOT_GRANTED);
        }
        irql::restore(Irql::APC, level);
        state.owner.set(super::backend::current_thread());
        Ok(())
    }
}

// SAFETY: a fast mutex is acquired at levels at which waiting is legal, and leaves the level alone; regions do not forbid waiting.
unsafe impl Blocking for Fast {}
