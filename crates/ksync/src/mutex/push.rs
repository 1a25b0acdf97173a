//! Push locks.
//!
//! [`PushLocked`] is over `EX_PUSH_LOCK`: a lock that waits, for one writer or many readers, in one word. Choose it over [`ResourceLocked`](super::ResourceLocked) unless that one's queries are needed, and over
//! [`FastLocked`](super::FastLocked) where there are many locks, or reads outnumber writes.
//!
//! 1. The routines ask for a critical region around them, which this lock enters and leaves by itself.
//! 2. NT does not notice that a thread takes a push lock again that it holds exclusively, and hangs. This lock notes its writer, so that it is an error. Readers are not noted: a thread
//!    that reads and asks to write, or that reads again while a writer waits, waits for itself.
//! 3. A push lock of zero is free, so it can be a static and takes no allocation.
//! 4. The routines that try are exported by Windows but not declared in its headers, so they are looked up when the lock is tried, at `PASSIVE_LEVEL`; where they are not found, [`try_lock`](PinnedLocked::try_lock)
//!    returns [`NtError::NOT_SUPPORTED`].
//!
//! Over [`EX_PUSH_LOCK`](ksync_sys::EX_PUSH_LOCK), [`wdm.h`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exinitializepushlock). Windows 8 is the first that exports it.

use core::cell::UnsafeCell;

use ksync_sys as sys;

use super::backend::{Backend, Blocking, ConstInit, Exclusive, Owner, SendAndSync, Shared};
use super::guard::{LockedGuard, SharedGuard};
use super::locked::{Locked, PinnedLocked};
use super::placement::Inline;
use super::report;
use crate::error::{NtError, Result};
use crate::irql::{self, Irql};
use crate::routine::Routine;

/// Data under a push lock.
///
/// The lock is a word beside the data: nothing is allocated, and it can be a static.
///
/// # IRQL
/// `<= APC_LEVEL`; acquiring and releasing leave the level alone. Normal kernel APCs are held back while the lock is held.
///
/// # Examples
/// ```
/// use ksync::mutex::PushLocked;
///
/// static LIMITS: PushLocked<[u32; 2]> = PushLocked::const_new([1, 2]);
///
/// # ksim::Machine::new().run(|| {
/// LIMITS.lock().unwrap()[1] = 5;
/// let (one, two) = (LIMITS.lock_shared().unwrap(), LIMITS.lock_shared().unwrap());
/// assert_eq!((one[0], two[1]), (1, 5));
/// # drop(one); drop(two); }).expect_clean();
/// ```
pub type PushLocked<T> = Locked<T, Push>;

/// Data under a push lock, in place. See [`PushLocked`].
pub type PinnedPushLocked<T> = PinnedLocked<T, Push>;

/// The exclusive guard of [`PushLocked`].
pub type PushLockedGuard<'a, T> = LockedGuard<'a, T, Push>;

/// The shared guard of [`PushLocked`].
pub type PushSharedGuard<'a, T> = SharedGuard<'a, T, Push>;

/// The [backend](Backend) of [`PushLocked`].
#[derive(Debug)]
pub enum Push {}

/// A push lock and its writer.
#[derive(Debug)]
pub struct PushState {
    lock: UnsafeCell<sys::EX_PUSH_LOCK>,
    owner: Owner,
}

/// The routine that tries to acquire exclusively.
// SAFETY: the routine has this type.
static TRY_EXCLUSIVE: Routine<sys::ExTryAcquirePushLockExclusiveEx> = unsafe { Routine::new("ExTryAcquirePushLockExclusiveEx") };
/// The routine that tries to acquire shared.
// SAFETY: the routine has this type.
static TRY_SHARED: Routine<sys::ExTryAcquirePushLockSharedEx> = unsafe { Routine::new("ExTryAcquirePushLockSharedEx") };

/// Enters a critical region, which a push lock is held in.
///
/// # Errors
/// [`NtError::IRQL_TOO_HIGH`] above `APC_LEVEL`.
#[inline]
fn enter() -> Result {
    irql::require_at_most(Irql::APC)?;
    // SAFETY: IRQL: checked.
    unsafe { sys::KeEnterCriticalRegion() };
    Ok(())
}

/// Leaves the critical region.
///
/// # Safety
/// The current thread entered it, and is at `<= APC_LEVEL`.
#[inline]
unsafe fn leave() {
    // SAFETY: by this function's own contract.
    unsafe { sys::KeLeaveCriticalRegion() };
}

impl PushState {
    /// The lock's word.
    #[inline]
    pub(super) fn word(&self) -> *mut sys::EX_PUSH_LOCK {
        self.lock.get()
    }
}

// SAFETY: clause by clause:
// 1, 2: the push lock excludes and orders. Recursion of the writer is refused by the owner's word, and of a reader it never returns.
// 3, 4: level and owner are checked before anything is done, and a region that was entered in vain is left.
// 5: there is no guard state; regions are counters.
// 6: a lock that is held points to nobody, except to those who wait, who borrow the lock.
// 7: a push lock's word points to who waits only, so it can be moved while nobody does.
// 8: nothing here unwinds but the kernel's own routines.
unsafe impl Backend for Push {
    type State = PushState;
    type GuardState = ();
    type Placement = Inline;
    type Sharing = SendAndSync;

    const NAME: &'static str = "PushLocked";

    unsafe fn init(state: *mut PushState) -> Result {
        // The constant is what `ExInitializePushLock` writes.
        // SAFETY: the pointer is valid for writes.
        unsafe { state.write(Self::FREE) };
        Ok(())
    }

    #[inline]
    unsafe fn unlock(state: *mut PushState, (): ()) {
        if irql::require_at_most(Irql::APC).is_err() {
            report::not_released(Self::NAME, state.cast());
            return;
        }
        // SAFETY: the state is valid, and all of its fields can be shared.
        let state = unsafe { &*state };
        state.owner.clear();
        // SAFETY: the current thread holds the lock exclusively and is in the region. IRQL: checked.
        unsafe { sys::ExReleasePushLockExclusiveEx(state.lock.get(), sys::EX_DEFAULT_PUSH_LOCK_FLAGS) };
        // SAFETY: the region was entered at the acquisition. IRQL: checked.
        unsafe { leave() };
    }

    #[inline]
    unsafe fn is_locked(state: *const PushState) -> bool {
        // SAFETY: the state is valid, and all of its fields can be shared.
        let word = unsafe { &*state }.lock.get();
        // Others may change the word meanwhile; the read is volatile because of that.
        // SAFETY: the word is valid.
        (unsafe { word.read_volatile() }) != 0
    }
}

// SAFETY: as above.
unsafe impl Exclusive for Push {
    #[inline]
    unsafe fn lock(state: *mut PushState) -> Result {
        // SAFETY: the state is valid, and all of its fields can be shared.
        let state = unsafe { &*state };
        let thread = state.owner.refuse_recursion()?;
        enter()?;
        // SAFETY: the lock is initialised, and normal kernel APCs are held back. IRQL: checked by `enter`.
        unsafe { sys::ExAcquirePushLockExclusiveEx(state.lock.get(), sys::EX_DEFAULT_PUSH_LOCK_FLAGS) };
        state.owner.set(thread);
        Ok(())
    }

    unsafe fn try_lock(state: *mut PushState) -> Result {
        // SAFETY: the state is valid, and all of its fields can be shared.
        let state = unsafe { &*state };
        irql::require_at_most(Irql::APC)?;
        let acquire = TRY_EXCLUSIVE.get().ok_or(NtError::NOT_SUPPORTED)?;
        enter()?;
        // SAFETY: the routine is the one that was named; the lock is initialised, and normal kernel APCs are held back. IRQL: checked.
        if unsafe { acquire(state.lock.get(), sys::EX_DEFAULT_PUSH_LOCK_FLAGS) } == sys::FALSE {
            // SAFETY: the region was entered above.
            unsafe { leave() };
            return Err(NtError::LOCK_NOT_GRANTED);
        }
        state.owner.set(super::backend::current_thread());
        Ok(())
    }
}

// SAFETY: as above; readers are many, and exclude a writer.
unsafe impl Shared for Push {
    type SharedState = ();

    #[inline]
    unsafe fn lock_shared(state: *mut PushState) -> Result {
        // SAFETY: the state is valid, and all of its fields can be shared.
        let state = unsafe { &*state };
        state.owner.refuse_recursion()?;
        enter()?;
        // SAFETY: the lock is initialised, and normal kernel APCs are held back. IRQL: checked by `enter`.
        unsafe { sys::ExAcquirePushLockSharedEx(state.lock.get(), sys::EX_DEFAULT_PUSH_LOCK_FLAGS) };
        Ok(())
    }

    unsafe fn try_lock_shared(state: *mut PushState) -> Result {
        // SAFETY: the state is valid, and all of its fields can be shared.
        let state = unsafe { &*state };
        irql::require_at_most(Irql::APC)?;
        let acquire = TRY_SHARED.get().ok_or(NtError::NOT_SUPPORTED)?;
        enter()?;
        // SAFETY: the routine is the one that was named; the lock is initialised, and normal kernel APCs are held back. IRQL: checked.
        if unsafe { acquire(state.lock.get(), sys::EX_DEFAULT_PUSH_LOCK_FLAGS) } == sys::FALSE {
            // SAFETY: the region was entered above.
            unsafe { leave() };
            return Err(NtError::LOCK_NOT_GRANTED);
        }
        Ok(())
    }

    #[inline]
    unsafe fn unlock_shared(state: *mut PushState, (): ()) {
        if irql::require_at_most(Irql::APC).is_err() {
            report::not_released(Self::NAME, state.cast());
            return;
        }
        // SAFETY: the state is valid, and all of its fields can be shared.
        let state = unsafe { &*state };
        // SAFETY: the current thread holds the lock shared and is in the region. IRQL: checked.
        unsafe { sys::ExReleasePushLockSharedEx(state.lock.get(), sys::EX_DEFAULT_PUSH_LOCK_FLAGS) };
        // SAFETY: the region was entered at the acquisition. IRQL: checked.
        unsafe { leave() };
    }
}

// SAFETY: a push lock of zero is free.
unsafe impl ConstInit for Push {
    const FREE: PushState = PushState { lock: UnsafeCell::new(0), owner: Owner::nobody() };
}

// SAFETY: a push lock is acquired at levels at which waiting is legal, and leaves the level alone; critical regions do not forbid waiting.
unsafe impl Blocking for Push {}
