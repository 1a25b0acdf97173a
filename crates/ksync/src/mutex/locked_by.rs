//! Data that a lock kept elsewhere guards.
//!
//! A structure with many parts is often guarded by one lock: a device's lock guards the fields of its requests. [`LockedBy`] is such a part. It is opened by the data that the lock guards, which only a
//! holder of the lock has.

use core::cell::UnsafeCell;
use core::fmt;

use super::backend::Backend;
use super::locked::PinnedLocked;
use crate::error::{NtError, Result};

/// Data that the lock of some `U`, kept elsewhere, guards.
///
/// The lock must stay where it is, or this can no longer be opened: take one that is in place, in a static, or boxed.
///
/// # Invariants
/// `owner` is the address of the data in a lock. The data here is reached only through a borrow of what lies at that address, as shared or exclusive as that.
///
/// # Examples
/// ```
/// use ksync::mutex::{FastLocked, LockedBy};
///
/// struct Device { open_files: u32 }
///
/// # ksim::Machine::new().run(|| {
/// let device = FastLocked::new(Device { open_files: 0 }).unwrap();
/// let position = LockedBy::new(&device, 0u64);
///
/// let mut guard = device.lock().unwrap();
/// guard.open_files += 1;
/// *position.access_mut(&mut guard).unwrap() += 512;
/// assert_eq!(*position.access(&guard).unwrap(), 512);
///
/// let other = FastLocked::new(Device { open_files: 0 }).unwrap();
/// assert!(position.access_mut(&mut other.lock().unwrap()).is_err());
/// # drop(guard); }).expect_clean();
/// ```
pub struct LockedBy<T: ?Sized, U> {
    owner: *const U,
    data: UnsafeCell<T>,
}

// SAFETY: the data goes along; the address is only compared.
unsafe impl<T: ?Sized + Send, U> Send for LockedBy<T, U> {}
// SAFETY: sharing this gives out the data to who has the `U`: exclusively to one thread at a time, for which `Send` is enough, or shared, for which
// `access` asks for `Sync`.
unsafe impl<T: ?Sized + Send, U> Sync for LockedBy<T, U> {}

impl<T, U> LockedBy<T, U> {
    /// Puts data under a lock.
    ///
    /// What the lock guards must have a size, because its address is what opens this. Otherwise it does not compile.
    ///
    /// ```compile_fail
    /// # use ksync::mutex::{LockedBy, SpinLocked};
    /// let lock = SpinLocked::const_new(());
    /// let part = LockedBy::new(&lock, 0u32);
    /// ```
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// Two statics, one lock:
    /// ```
    /// use ksync::mutex::{LockedBy, PinnedSpinLocked};
    ///
    /// static OPEN: PinnedSpinLocked<u32> = PinnedSpinLocked::const_new(0);
    /// static EVER_OPENED: LockedBy<u64, u32> = LockedBy::new(&OPEN, 0);
    ///
    /// # ksim::Machine::new().run(|| {
    /// let mut open = OPEN.lock().unwrap();
    /// *open += 1;
    /// *EVER_OPENED.access_mut(&mut open).unwrap() += 1;
    /// assert_eq!(*EVER_OPENED.access(&open).unwrap(), 1);
    /// # drop(open); }).expect_clean();
    /// ```
    pub const fn new<L: Backend>(lock: &PinnedLocked<U, L>, data: T) -> Self {
        const { assert!(size_of::<U>() > 0, "data without size has no address of its own, so it cannot open what its lock guards") };
        Self { owner: lock.data_ptr(), data: UnsafeCell::new(data) }
    }

    /// Takes the data out: having it by value proves that nobody else has it.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::mutex::{LockedBy, SpinLocked};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let lock = SpinLocked::const_new(0);
    /// assert_eq!(LockedBy::new(&lock, 5).into_inner(), 5);
    /// # }).expect_clean();
    /// ```
    pub fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

impl<T: ?Sized, U> LockedBy<T, U> {
    /// Reads the data, with what its lock guards.
    ///
    /// A lock that several can hold for reading opens this for all of them, hence the bound.
    ///
    /// # IRQL
    /// Any: that of the holder of the lock.
    ///
    /// # Errors
    /// [`NtError::INVALID_PARAMETER`] if that is what another lock guards.
    ///
    /// # Examples
    /// See [the type](Self).
    pub fn access<'a>(&'a self, owner: &'a U) -> Result<&'a T>
    where
        T: Sync,
    {
        self.check(owner)?;
        // SAFETY: the caller has the owner's `U` shared for this long, so that nobody has it exclusively: there is one place of this type at an address, because
        // the type has a size. By the type's invariant nobody has the data exclusively then.
        Ok(unsafe { &*self.data.get() })
    }

    /// Changes the data, with what its lock guards.
    ///
    /// # IRQL
    /// Any: that of the holder of the lock.
    ///
    /// # Errors
    /// [`NtError::INVALID_PARAMETER`] if that is what another lock guards.
    ///
    /// # Examples
    /// See [the type](Self).
    pub fn access_mut<'a>(&'a self, owner: &'a mut U) -> Result<&'a mut T> {
        self.check(owner)?;
        // SAFETY: the caller has the owner's `U` exclusively for this long, so that by the type's invariant nobody else has the data.
        Ok(unsafe { &mut *self.data.get() })
    }

    /// Lends the data out: having it by `&mut` proves that nobody else has it.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::mutex::{LockedBy, SpinLocked};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let lock = SpinLocked::const_new(0);
    /// let mut part = LockedBy::new(&lock, 5);
    /// *part.get_mut() += 1;
    /// assert_eq!(part.into_inner(), 6);
    /// # }).expect_clean();
    /// ```
    pub fn get_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }

    /// Checks that something is what the lock guards.
    fn check(&self, owner: &U) -> Result {
        if core::ptr::eq(self.owner, owner) { Ok(()) } else { Err(NtError::INVALID_PARAMETER) }
    }
}

impl<T: ?Sized, U> fmt::Debug for LockedBy<T, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockedBy").field("owner", &self.owner).finish_non_exhaustive()
    }
}
