//! Reader-writer spin locks.
//!
//! [`SpinRwLocked`] is over `EX_SPIN_LOCK`: a spin lock for one writer or many readers. Choose it over [`SpinLocked`](super::SpinLocked) where reads at `DISPATCH_LEVEL` are many and writes few. Waiting writers
//! keep new readers out.
//!
//! 1. The level to return to belongs to the acquisition, so it is kept in the guard.
//! 2. A processor that takes the lock that it holds would turn for ever. This lock notes its writer, so that it is an error. Readers are not noted: nobody may read again under a read, nor write.
//! 3. A reader can become the writer, if it is the only one: [`SharedGuard::try_upgrade`].
//!
//! Over [`EX_SPIN_LOCK`](ksync_sys::EX_SPIN_LOCK), [`wdm.h`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquirespinlockexclusive). Windows 8 is the first that has all of
//! it.

use core::cell::UnsafeCell;

use ksync_sys as sys;

use super::backend::{Backend, ConstInit, Exclusive, Owner, SendAndSync, Shared, current_thread};
use super::guard::{LockedGuard, SharedGuard};
use super::locked::{Locked, PinnedLocked};
use super::placement::Inline;
use crate::error::{NtError, Result};
use crate::irql::{self, First, Irql, Raised};

/// Data under a reader-writer spin lock.
///
/// The lock is a word beside the data: nothing is allocated, and it can be a static.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`; raises to `DISPATCH_LEVEL` while the lock is held, and returns to the caller's level.
///
/// # Examples
/// ```
/// use ksync::mutex::{SharedGuard, SpinRwLocked};
///
/// static TABLE: SpinRwLocked<[u32; 2]> = SpinRwLocked::const_new([1, 2]);
///
/// # ksim::Machine::new().run(|| {
/// let table = TABLE.lock_shared().unwrap();
/// assert_eq!(table[1], 2);
/// let mut table = SharedGuard::try_upgrade(table).unwrap();
/// table[1] = 5;
/// # drop(table); }).expect_clean();
/// ```
pub type SpinRwLocked<T> = Locked<T, SpinRw>;

/// Data under a reader-writer spin lock, in place. See [`SpinRwLocked`].
pub type PinnedSpinRwLocked<T> = PinnedLocked<T, SpinRw>;

/// The exclusive guard of [`SpinRwLocked`].
pub type SpinRwLockedGuard<'a, T> = LockedGuard<'a, T, SpinRw>;

/// The shared guard of [`SpinRwLocked`].
pub type SpinRwSharedGuard<'a, T> = SharedGuard<'a, T, SpinRw>;

/// The [backend](Backend) of [`SpinRwLocked`].
#[derive(Debug)]
pub enum SpinRw {}

/// A reader-writer spin lock and its writer.
#[derive(Debug)]
// The word first, so that the lock's address is the word's.
#[repr(C)]
pub struct SpinRwState {
    lock: UnsafeCell<sys::EX_SPIN_LOCK>,
    owner: Owner,
}

/// The present level, if it admits an acquisition.
#[inline]
fn level() -> Result<Irql> {
    let level = irql::current();
    if level > Irql::DISPATCH { Err(NtError::IRQL_TOO_HIGH) } else { Ok(level) }
}

/// Raises to `DISPATCH_LEVEL` from a level that [`level`] returned.
#[inline]
fn raise(level: Irql) {
    if level < Irql::DISPATCH {
        // SAFETY: the level is below.
        unsafe { sys::KfRaiseIrql(sys::DISPATCH_LEVEL) };
    }
}

/// What an acquisition after [`raise`] did to the level.
#[inline]
fn raised(level: Irql) -> Raised {
    let thread = current_thread();
    if level < Irql::DISPATCH { Raised::Apart(First::new(level, thread)) } else { Raised::inside(thread) }
}

/// The bits of the word that count readers, on all systems.
const READERS: i32 = (1 << 30) - 1;

/// How many readers there may be, far below what can be counted. So many have no processors: their guards were forgotten.
const MOST_READERS: i32 = 1 << 28;

impl SpinRwState {
    /// The lock's word.
    #[inline]
    pub(super) fn word(&self) -> *mut sys::EX_SPIN_LOCK {
        self.lock.get()
    }

    /// Checks that readers can be counted. One too many would make the lock look free, with readers that still read.
    #[inline]
    fn check_readers(&self) -> Result {
        // Others may change the word meanwhile; the read is volatile because of that. They are few beside those that can be counted still.
        // SAFETY: the word is valid.
        let word = unsafe { self.word().read_volatile() };
        if word & READERS < MOST_READERS { Ok(()) } else { Err(NtError::MUTANT_LIMIT_EXCEEDED) }
    }
}

// SAFETY: clause by clause:
// 1, 2: the spin lock excludes and orders. Recursion of the writer is refused by the owner's word, and of a reader it never returns, or is another reader. Their number does not overflow.
// 3, 4: level and owner are checked before anything is done, and a level that was raised in vain is lowered.
// 5: the level before is in the guard state.
// 6: the lock is a word that points nowhere.
// 7: the word stands for nothing but itself, so it can be moved.
// 8: nothing here unwinds but the kernel's own routines.
unsafe impl Backend for SpinRw {
    type State = SpinRwState;
    type GuardState = Raised;
    type Placement = Inline;
    type Sharing = SendAndSync;

    const NAME: &'static str = "SpinRwLocked";

    unsafe fn init(state: *mut SpinRwState) -> Result {
        // SAFETY: the pointer is valid for writes. An `EX_SPIN_LOCK` of zero is free.
        unsafe { state.write(Self::FREE) };
        Ok(())
    }

    #[inline]
    unsafe fn unlock(state: *mut SpinRwState, raised: Raised) {
        // SAFETY: the state is valid, and all of its fields can be shared.
        let state = unsafe { &*state };
        state.owner.clear();
        let lock = state.lock.get();
        raised.release(
            // SAFETY: the lock is held exclusively by the routine that this one undoes, and the level is `DISPATCH_LEVEL`.
            |old| unsafe { sys::ExReleaseSpinLockExclusive(lock, old) },
            // SAFETY: the lock is held exclusively, and the level is `DISPATCH_LEVEL` or above.
            || unsafe { sys::ExReleaseSpinLockExclusiveFromDpcLevel(lock) },
        );
    }

    #[inline]
    unsafe fn is_locked(state: *const SpinRwState) -> bool {
        // SAFETY: the state is valid, and all of its fields can be shared.
        let word = unsafe { &*state }.lock.get();
        // Others may change the word meanwhile; the read is volatile because of that.
        // SAFETY: the word is valid.
        (unsafe { word.read_volatile() }) != 0
    }
}

// SAFETY: as above.
unsafe impl Exclusive for SpinRw {
    #[inline]
    unsafe fn lock(state: *mut SpinRwState) -> Result<Raised> {
        let level = level()?;
        // SAFETY: the state is valid, and all of its fields can be shared.
        let state = unsafe { &*state };
        let thread = state.owner.refuse_recursion()?;
        let raised = if level == Irql::DISPATCH {
            // SAFETY: the lock is initialised. IRQL: checked.
            unsafe { sys::ExAcquireSpinLockExclusiveAtDpcLevel(state.lock.get()) };
            Raised::inside(thread)
        } else {
            // SAFETY: as above.
            let old = unsafe { sys::ExAcquireSpinLockExclusive(state.lock.get()) };
            Raised::Together(First::new(Irql::new(old), thread))
        };
        state.owner.set(thread);
        Ok(raised)
    }

    #[inline]
    unsafe fn try_lock(state: *mut SpinRwState) -> Result<Raised> {
        let level = level()?;
        // SAFETY: the state is valid, and all of its fields can be shared.
        let state = unsafe { &*state };
        raise(level);
        // SAFETY: the lock is initialised. IRQL: raised.
        if unsafe { sys::ExTryAcquireSpinLockExclusiveAtDpcLevel(state.lock.get()) } == 0 {
            irql::restore(Irql::DISPATCH, level);
            return Err(NtError::LOCK_NOT_GRANTED);
        }
        state.owner.set(current_thread());
        Ok(raised(level))
    }
}

// SAFETY: as above; readers are many, and exclude a writer.
unsafe impl Shared for SpinRw {
    type SharedState = Raised;

    #[inline]
    unsafe fn lock_shared(state: *mut SpinRwState) -> Result<Raised> {
        let level = level()?;
        // SAFETY: the state is valid, and all of its fields can be shared.
        let state = unsafe { &*state };
        let thread = state.owner.refuse_recursion()?;
        state.check_readers()?;
        if level == Irql::DISPATCH {
            // SAFETY: the lock is initialised. IRQL: checked.
            unsafe { sys::ExAcquireSpinLockSharedAtDpcLevel(state.lock.get()) };
            Ok(Raised::inside(thread))
        } else {
            // SAFETY: as above.
            let old = unsafe { sys::ExAcquireSpinLockShared(state.lock.get()) };
            Ok(Raised::Together(First::new(Irql::new(old), thread)))
        }
    }

    #[inline]
    unsafe fn try_lock_shared(state: *mut SpinRwState) -> Result<Raised> {
        let level = level()?;
        // SAFETY: the state is valid, and all of its fields can be shared.
        let state = unsafe { &*state };
        state.check_readers()?;
        raise(level);
        // SAFETY: the lock is initialised. IRQL: raised.
        if unsafe { sys::ExTryAcquireSpinLockSharedAtDpcLevel(state.lock.get()) } == 0 {
            irql::restore(Irql::DISPATCH, level);
            return Err(NtError::LOCK_NOT_GRANTED);
        }
        Ok(raised(level))
    }

    #[inline]
    unsafe fn unlock_shared(state: *mut SpinRwState, raised: Raised) {
        // SAFETY: the state is valid, and all of its fields can be shared.
        let lock = unsafe { &*state }.lock.get();
        raised.release(
            // SAFETY: the lock is held shared by the routine that this one undoes, and the level is `DISPATCH_LEVEL`.
            |old| unsafe { sys::ExReleaseSpinLockShared(lock, old) },
            // SAFETY: the lock is held shared, and the level is `DISPATCH_LEVEL` or above.
            || unsafe { sys::ExReleaseSpinLockSharedFromDpcLevel(lock) },
        );
    }
}

// SAFETY: an `EX_SPIN_LOCK` of zero is free.
unsafe impl ConstInit for SpinRw {
    const FREE: SpinRwState = SpinRwState { lock: UnsafeCell::new(0), owner: Owner::nobody() };
}

impl<'a, T: ?Sized> SharedGuard<'a, T, SpinRw> {
    /// Turns shared access into exclusive, if nobody else reads.
    ///
    /// Nobody writes in between, so what was read is still true.
    ///
    /// # IRQL
    /// That of the guard, `DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// The guard, if there are other readers, or a writer waits.
    ///
    /// # Examples
    /// See [`SpinRwLocked`].
    ///
    /// Wraps [`ExTryConvertSharedSpinLockExclusive`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-extryconvertsharedspinlockexclusive).
    #[doc(alias = "ExTryConvertSharedSpinLockExclusive")]
    pub fn try_upgrade(guard: Self) -> Result<LockedGuard<'a, T, SpinRw>, Self> {
        // SAFETY: the state is valid as long as the lock is, and all of its fields can be shared.
        let state = unsafe { &*Self::lock_of(&guard).state() };
        let raised = irql::raise_again(Irql::DISPATCH);
        // SAFETY: the lock is held shared by this guard. IRQL: raised.
        if unsafe { sys::ExTryConvertSharedSpinLockExclusive(state.lock.get()) } == 0 {
            return Err(guard);
        }
        drop(raised);
        state.owner.set(current_thread());
        let (lock, raised) = Self::into_parts(guard);
        // SAFETY: the lock is held exclusively now, with the level before that the shared acquisition found.
        Ok(unsafe { LockedGuard::new(lock, raised) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_that_cannot_be_counted_are_refused() {
        let test = || -> Result {
            let lock = SpinRwLocked::const_new(());
            // SAFETY: the state is valid as long as the lock is, and all of its fields can be shared.
            let word = unsafe { &*lock.state() }.word();
            for readers in [MOST_READERS, READERS, i32::MIN | MOST_READERS] {
                // As if so many guards had been forgotten.
                // SAFETY: the word is valid, and nobody else uses it.
                unsafe { word.write(readers) };
                assert_eq!(lock.lock_shared().map(drop), Err(NtError::MUTANT_LIMIT_EXCEEDED));
                assert_eq!(lock.try_lock_shared().map(drop), Err(NtError::MUTANT_LIMIT_EXCEEDED));
            }
            assert_eq!(irql::current(), Irql::PASSIVE);
            // SAFETY: as above.
            unsafe { word.write(0) };
            drop(lock.lock_shared()?);
            Ok(())
        };
        ksim::Machine::new().run(|| assert_eq!(test(), Ok(()))).expect_clean();
    }
}
