//! Guarded mutexes.
//!
//! [`GuardLocked`] is over `KGUARDED_MUTEX`: a lock that waits, and that holds all APCs back while it is held.
//!
//! Choose it for what other drivers or C code lock as a guarded mutex. Otherwise there is no reason to prefer it to a [`FastLocked`](super::FastLocked), which here does the same:
//! 1. Before Windows 8 a guarded mutex entered a guarded region and left the level alone. From Windows 8 on it *is* a fast mutex, which raises to `APC_LEVEL` and keeps the level before
//!    inside, with the fast mutex's trouble with order. So this lock enters the region itself and uses the `Unsafe` forms, and is the same on all systems.
//! 2. NT does not notice that the owner takes the mutex again, and hangs. This lock notes its owner, so that it is an error.
//! 3. Wine 8's kernel does not export the routines that acquire one.
//!
//! Over [`KGUARDED_MUTEX`](ksync_sys::KGUARDED_MUTEX), [`wdm.h`](https://learn.microsoft.com/windows-hardware/drivers/kernel/fast-mutexes-and-guarded-mutexes). All
//! versions of Windows since Vista have it.

use core::cell::UnsafeCell;

use ksync_sys as sys;

use super::backend::{Backend, Blocking, Exclusive, Owner, SendOnly};
use super::guard::LockedGuard;
use super::locked::{Locked, PinnedLocked};
use super::placement::Boxed;
use super::report;
use crate::error::{NtError, Result};
use crate::irql::{self, Irql};

/// Data under a guarded mutex, in a form that can be moved.
///
/// # IRQL
/// `<= APC_LEVEL`; acquiring and releasing leave the level alone. APCs are held back while the lock is held.
///
/// # Examples
/// ```
/// use ksync::mutex::GuardLocked;
/// use ksync::region;
///
/// # ksim::Machine::new().run(|| {
/// let lock = GuardLocked::new(0u32).unwrap();
/// lock.with(|count| {
///     assert!(region::all_apcs_disabled());
///     *count += 1;
/// }).unwrap();
/// assert_eq!(format!("{lock:?}"), "1");
/// # }).expect_clean();
/// ```
pub type GuardLocked<T> = Locked<T, Guarded>;

/// Data under a guarded mutex, in place. See [`GuardLocked`].
pub type PinnedGuardLocked<T> = PinnedLocked<T, Guarded>;

/// The guard of [`GuardLocked`].
pub type GuardLockedGuard<'a, T> = LockedGuard<'a, T, Guarded>;

/// The [backend](Backend) of [`GuardLocked`].
#[derive(Debug)]
pub enum Guarded {}

/// A guarded mutex and its owner.
#[derive(Debug)]
pub struct GuardedState {
    mutex: UnsafeCell<sys::KGUARDED_MUTEX>,
    owner: Owner,
}

/// In `OldIrql`: no routine wrote a level there. See [`GuardedState::took_level`].
const UNTOUCHED: u32 = u32::MAX;

impl GuardedState {
    /// Tells whether the routine that just acquired the mutex raised the level (Windows 8 on) rather than entered a region (before).
    ///
    /// In the first case it wrote the level before to `OldIrql`, all four bytes of it. In the second the field's upper half is for the region's
    /// counter and nobody writes the lower half.
    fn took_level(&self) -> bool {
        let mutex = self.mutex.get();
        // SAFETY: the state is valid.
        let field = unsafe { &raw mut (*mutex).OldIrql };
        // SAFETY: the current thread owns the mutex, and only its owner uses the field.
        let level = unsafe { field.read() };
        // SAFETY: as above.
        unsafe { field.write(UNTOUCHED) };
        level & 0xFFFF != UNTOUCHED & 0xFFFF
    }
}

impl GuardedState {
    /// The mutex.
    #[inline]
    pub(super) fn mutex(&self) -> *mut sys::KGUARDED_MUTEX {
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
// 1, 2: the guarded mutex excludes and orders. Recursion is refused by the owner's word.
// 3, 4: levels and owner are checked before anything is done, and a region that was entered in vain is left.
// 5: there is no guard state; regions are counters.
// 6: a mutex that is held points to nobody who waits for it except while they borrow the lock, and its owner's thread object does not point to it.
// 7: boxed or pinned.
// 8: nothing here unwinds but the kernel's own routines.
unsafe impl Backend for Guarded {
    type State = GuardedState;
    type GuardState = ();
    type Placement = Boxed;
    type Sharing = SendOnly;

    const NAME: &'static str = "GuardLocked";

    unsafe fn init(state: *mut GuardedState) -> Result {
        irql::require_at_most(Irql::DISPATCH)?;
        // SAFETY: the pointer is valid for writes; the mutex is at the beginning of what it points to.
        let mutex = unsafe { &raw mut (*state).mutex }.cast::<sys::KGUARDED_MUTEX>();
        // SAFETY: the memory is nonpaged and valid for writes, and stays where it is. IRQL: checked.
        unsafe { sys::KeInitializeGuardedMutex(mutex) };
        // SAFETY: as above.
        let level = unsafe { &raw mut (*mutex).OldIrql };
        // SAFETY: as above.
        unsafe { level.write(UNTOUCHED) };
        // SAFETY: the pointer is valid for writes.
        let owner = unsafe { &raw mut (*state).owner };
        // SAFETY: as above.
        unsafe { owner.write(Owner::nobody()) };
        Ok(())
    }

    #[inline]
    unsafe fn unlock(state: *mut GuardedState, (): ()) {
        if irql::require_at_most(Irql::APC).is_err() {
            report::not_released(Self::NAME, state.cast());
            return;
        }
        // SAFETY: the state is valid, and all of its fields can be shared.
        let state = unsafe { &*state };
        state.owner.clear();
        // SAFETY: the current thread owns the mutex and is in the guarded region that it entered before. IRQL: checked.
        unsafe { sys::KeReleaseGuardedMutexUnsafe(state.mutex.get()) };
        // SAFETY: the region was entered at the acquisition. IRQL: checked.
        unsafe { sys::KeLeaveGuardedRegion() };
    }

    #[inline]
    unsafe fn is_locked(state: *const GuardedState) -> bool {
        // SAFETY: the state is valid, and all of its fields can be shared.
        unsafe { &*state }.is_held()
    }
}

// SAFETY: as above.
unsafe impl Exclusive for Guarded {
    #[inline]
    unsafe fn lock(state: *mut GuardedState) -> Result {
        irql::require_at_most(Irql::APC)?;
        // SAFETY: the state is valid, and all of its fields can be shared.
        let state = unsafe { &*state };
        let thread = state.owner.refuse_recursion()?;
        // SAFETY: IRQL: checked.
        unsafe { sys::KeEnterGuardedRegion() };
        // SAFETY: the mutex is initialised, the current thread does not own it, and APCs are held back. IRQL: checked.
        unsafe { sys::KeAcquireGuardedMutexUnsafe(state.mutex.get()) };
        state.owner.set(thread);
        Ok(())
    }

    #[inline]
    unsafe fn try_lock(state: *mut GuardedState) -> Result {
        let level = irql::current();
        if level > Irql::APC {
            return Err(NtError::IRQL_TOO_HIGH);
        }
        // SAFETY: the state is valid, and all of its fields can be shared.
        let state = unsafe { &*state };
        // SAFETY: IRQL: checked.
        unsafe { sys::KeEnterGuardedRegion() };
        // SAFETY: the mutex is initialised. IRQL: checked.
        if unsafe { sys::KeTryToAcquireGuardedMutex(state.mutex.get()) } == sys::FALSE {
            // SAFETY: the region was entered above. IRQL: unchanged.
            unsafe { sys::KeLeaveGuardedRegion() };
            return Err(NtError::LOCK_NOT_GRANTED);
        }
        if state.took_level() {
            irql::restore(Irql::APC, level);
        } else {
            // SAFETY: the routine entered a region of its own, beside the one above. IRQL: unchanged.
            unsafe { sys::KeLeaveGuardedRegion() };
        }
        state.owner.set(super::backend::current_thread());
        Ok(())
    }
}

// SAFETY: a guarded mutex is acquired at levels at which waiting is legal, and leaves the level alone; regions do not forbid waiting.
unsafe impl Blocking for Guarded {}
