//! Spin locks.
//!
//! [`SpinLocked`] is over `KSPIN_LOCK`: the lock for what is touched at `DISPATCH_LEVEL`, such as by DPCs and timers. It raises the level to
//! `DISPATCH_LEVEL`, so that nothing else runs on this processor, and turns until the other processors are out. Hold it for microseconds; nothing may wait, and no paged memory may be touched, meanwhile.
//!
//! 1. The level to return to belongs to the acquisition, not to the lock, so it is kept in the guard.
//! 2. Where many processors contend, [`InStackQueueLocked`](super::InStackQueueLocked) is fair and kinder to the caches.
//! 3. A processor that takes the lock that it holds would turn for ever. This lock notes its owner, so that it is an error.
//!
//! Over [`KSPIN_LOCK`](ksync_sys::KSPIN_LOCK), [`wdm.h`](https://learn.microsoft.com/windows-hardware/drivers/kernel/introduction-to-spin-locks). All
//! versions of Windows have it.

use core::cell::UnsafeCell;

use ksync_sys as sys;

use super::backend::{Backend, ConstInit, Exclusive, Owner, SendOnly, current_thread};
use super::guard::LockedGuard;
use super::locked::{Locked, PinnedLocked};
use super::placement::Inline;
use crate::error::{NtError, Result};
use crate::irql::{self, First, Irql, Raised};

/// Data under a spin lock.
///
/// The lock is a word beside the data: nothing is allocated, and it can be a static.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`; raises to `DISPATCH_LEVEL` while the lock is held, and returns to the caller's level.
///
/// # Examples
/// ```
/// use ksync::irql::{self, Irql};
/// use ksync::mutex::SpinLocked;
///
/// static COUNT: SpinLocked<u32> = SpinLocked::const_new(0);
///
/// # ksim::Machine::new().run(|| {
/// let mut count = COUNT.lock().unwrap();
/// *count += 1;
/// assert_eq!(irql::current(), Irql::DISPATCH);
/// drop(count);
/// assert_eq!(irql::current(), Irql::PASSIVE);
/// # }).expect_clean();
/// ```
pub type SpinLocked<T> = Locked<T, Spin>;

/// Data under a spin lock, in place. See [`SpinLocked`].
pub type PinnedSpinLocked<T> = PinnedLocked<T, Spin>;

/// The guard of [`SpinLocked`].
pub type SpinLockedGuard<'a, T> = LockedGuard<'a, T, Spin>;

/// The [backend](Backend) of [`SpinLocked`].
#[derive(Debug)]
pub enum Spin {}

/// A spin lock and its owner.
#[derive(Debug)]
pub struct SpinState {
    lock: UnsafeCell<sys::KSPIN_LOCK>,
    owner: Owner,
}

impl SpinState {
    /// The lock's word.
    #[inline]
    pub(super) fn word(&self) -> *mut sys::KSPIN_LOCK {
        self.lock.get()
    }
}

// SAFETY: clause by clause:
// 1, 2: the spin lock excludes and orders. Recursion is refused by the owner's word.
// 3, 4: level and owner are checked before anything is done, and a level that was raised in vain is lowered.
// 5: the level before is in the guard state.
// 6: the lock is a word that points nowhere.
// 7: the word stands for nothing but itself, so it can be moved.
// 8: nothing here unwinds but the kernel's own routines.
unsafe impl Backend for Spin {
    type State = SpinState;
    type GuardState = Raised;
    type Placement = Inline;
    type Sharing = SendOnly;

    const NAME: &'static str = "SpinLocked";

    unsafe fn init(state: *mut SpinState) -> Result {
        // The constant is what `KeInitializeSpinLock` writes.
        // SAFETY: the pointer is valid for writes.
        unsafe { state.write(Self::FREE) };
        Ok(())
    }

    #[inline]
    unsafe fn unlock(state: *mut SpinState, raised: Raised) {
        // SAFETY: the state is valid, and all of its fields can be shared.
        let state = unsafe { &*state };
        state.owner.clear();
        let lock = state.lock.get();
        raised.release(
            // SAFETY: the lock is held by the routine that this one undoes, and the level is `DISPATCH_LEVEL`.
            |old| unsafe { sys::KeReleaseSpinLock(lock, old) },
            // SAFETY: the lock is held, and the level is `DISPATCH_LEVEL` or above.
            || unsafe { sys::KeReleaseSpinLockFromDpcLevel(lock) },
        );
    }

    #[inline]
    unsafe fn is_locked(state: *const SpinState) -> bool {
        // SAFETY: the state is valid, and all of its fields can be shared.
        let state = unsafe { &*state };
        // An acquisition by a token does not note its owner, and the word of a uniprocessor kernel stays zero; so both are asked. Others may change
        // the word meanwhile; the read is volatile because of that.
        // SAFETY: the word is valid.
        state.owner.is_somebody() || unsafe { state.word().read_volatile() } != 0
    }
}

// SAFETY: as above.
unsafe impl Exclusive for Spin {
    #[inline]
    unsafe fn lock(state: *mut SpinState) -> Result<Raised> {
        let level = irql::current();
        if level > Irql::DISPATCH {
            return Err(NtError::IRQL_TOO_HIGH);
        }
        // SAFETY: the state is valid, and all of its fields can be shared.
        let state = unsafe { &*state };
        let thread = state.owner.refuse_recursion()?;
        let raised = if level == Irql::DISPATCH {
            // SAFETY: the lock is initialised and not held by this processor. IRQL: checked.
            unsafe { sys::KeAcquireSpinLockAtDpcLevel(state.lock.get()) };
            Raised::inside(thread)
        } else {
            // SAFETY: as above.
            let old = unsafe { sys::KeAcquireSpinLockRaiseToDpc(state.lock.get()) };
            Raised::Together(First::new(Irql::new(old), thread))
        };
        state.owner.set(thread);
        Ok(raised)
    }

    #[inline]
    unsafe fn try_lock(state: *mut SpinState) -> Result<Raised> {
        let level = irql::current();
        if level > Irql::DISPATCH {
            return Err(NtError::IRQL_TOO_HIGH);
        }
        // SAFETY: the state is valid, and all of its fields can be shared.
        let state = unsafe { &*state };
        if level < Irql::DISPATCH {
            // SAFETY: the level is below.
            unsafe { sys::KfRaiseIrql(sys::DISPATCH_LEVEL) };
        }
        // SAFETY: the lock is initialised. IRQL: raised.
        if unsafe { sys::KeTryToAcquireSpinLockAtDpcLevel(state.lock.get()) } == sys::FALSE {
            irql::restore(Irql::DISPATCH, level);
            return Err(NtError::LOCK_NOT_GRANTED);
        }
        // A uniprocessor kernel grants the lock to whoever is at `DISPATCH_LEVEL`, even to its holder: its spin locks are nothing but that level.
        let thread = current_thread();
        if state.owner.is(thread) {
            irql::restore(Irql::DISPATCH, level);
            return Err(NtError::LOCK_NOT_GRANTED);
        }
        state.owner.set(thread);
        Ok(if level < Irql::DISPATCH { Raised::Apart(First::new(level, thread)) } else { Raised::inside(thread) })
    }
}

// SAFETY: a spin lock of zero is free.
unsafe impl ConstInit for Spin {
    const FREE: SpinState = SpinState { lock: UnsafeCell::new(0), owner: Owner::nobody() };
}

impl<T: ?Sized> PinnedLocked<T, Spin> {
    /// Acquires the lock in a DPC, where the level is `DISPATCH_LEVEL` already.
    ///
    /// # IRQL
    /// `DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// As [`lock`](Self::lock), and [`NtError::IRQL_TOO_LOW`] at a lower level.
    ///
    /// # Examples
    /// ```
    /// use ksync::error::NtError;
    /// use ksync::irql::{self, Irql};
    /// use ksync::mutex::SpinLocked;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let lock = SpinLocked::const_new(1);
    /// assert_eq!(lock.lock_at_dpc_level().unwrap_err(), NtError::IRQL_TOO_LOW);
    /// irql::with_raised(Irql::DISPATCH, || *lock.lock_at_dpc_level().unwrap() += 1).unwrap();
    /// assert_eq!(lock.into_inner(), 2);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeAcquireSpinLockAtDpcLevel`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keacquirespinlockatdpclevel).
    #[doc(alias = "KeAcquireSpinLockAtDpcLevel")]
    #[inline]
    pub fn lock_at_dpc_level(&self) -> Result<LockedGuard<'_, T, Spin>> {
        irql::require_dispatch()?;
        // SAFETY: the state is valid as long as the lock is, and all of its fields can be shared.
        let state = unsafe { &*self.state() };
        let thread = state.owner.refuse_recursion()?;
        // SAFETY: the lock is initialised and not held by this processor. IRQL: checked.
        unsafe { sys::KeAcquireSpinLockAtDpcLevel(state.lock.get()) };
        state.owner.set(thread);
        // SAFETY: the lock was acquired without a change of level.
        Ok(unsafe { LockedGuard::new(self, Raised::inside(thread)) })
    }
}
