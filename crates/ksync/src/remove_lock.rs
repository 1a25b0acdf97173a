//! Remove locks: users of a device that is taken away only when the last one is gone.
//!
//! A [`RemoveLock`] counts users. [`remove`](PinnedRemoveLock::remove) admits no more and waits for those that are there. It is what
//! [`Rundown`](crate::mutex::Rundown) is, in the form that drivers for devices know, and that the checked kernel can debug.

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomPinned;
use core::ops::Deref;
use core::pin::Pin;
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};

use ksync_sys as sys;

use crate::error::{NtError, Result, check};
use crate::init::{PinInit, pin_init_from_closure};
use crate::irql::{self, Irql};
use crate::pool::KBox;

/// A remove lock in its own box of nonpaged pool. It has the operations of [`PinnedRemoveLock`].
///
/// # Examples
/// ```
/// use ksync::NtError;
/// use ksync::remove_lock::RemoveLock;
///
/// # ksim::Machine::new().run(|| {
/// let lock = RemoveLock::new().unwrap();
/// {
///     let _use = lock.acquire().unwrap();
///     // The device is there.
/// }
/// lock.remove().unwrap();
/// assert_eq!(lock.acquire().err(), Some(NtError::DELETE_PENDING));
/// # }).expect_clean();
/// ```
#[doc(alias = "IO_REMOVE_LOCK")]
pub struct RemoveLock(Pin<KBox<PinnedRemoveLock>>);

impl RemoveLock {
    /// Makes a remove lock.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::INSUFFICIENT_RESOURCES`] if there is no pool.
    /// - [`NtError::IRQL_TOO_HIGH`] above `PASSIVE_LEVEL`.
    ///
    /// Wraps [`IoInitializeRemoveLock`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioinitializeremovelock).
    #[doc(alias = "IoInitializeRemoveLock")]
    pub fn new() -> Result<Self> {
        Ok(Self(KBox::pin_init(PinnedRemoveLock::pin_init())?))
    }
}

impl Deref for RemoveLock {
    type Target = PinnedRemoveLock;

    #[inline]
    fn deref(&self) -> &PinnedRemoveLock {
        &self.0
    }
}

impl fmt::Debug for RemoveLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// A remove lock in place.
#[doc(alias = "IO_REMOVE_LOCK")]
#[repr(C)]
pub struct PinnedRemoveLock {
    lock: UnsafeCell<sys::IO_REMOVE_LOCK>,
    /// Someone removes: of two, each would wait for the other.
    removing: AtomicBool,
    _pin: PhantomPinned,
}

// SAFETY: a remove lock belongs to no thread.
unsafe impl Send for PinnedRemoveLock {}
// SAFETY: the kernel's routines on remove locks are atomic with respect to each other, and nothing else here touches the object.
unsafe impl Sync for PinnedRemoveLock {}

impl PinnedRemoveLock {
    /// Makes a remove lock where it stays. The memory must be nonpaged.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`] above `PASSIVE_LEVEL`.
    ///
    /// Wraps [`IoInitializeRemoveLock`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioinitializeremovelock).
    #[doc(alias = "IoInitializeRemoveLock")]
    pub fn pin_init() -> impl PinInit<Self, NtError> {
        let init = |place: *mut Self| {
            irql::require_at_most(Irql::PASSIVE)?;
            // SAFETY: the place is the object's memory, in which it stays; the level was checked.
            unsafe { sys::IoInitializeRemoveLock(place.cast(), crate::pool::TAG, 0, 0) };
            // SAFETY: as above.
            let removing = unsafe { &raw mut (*place).removing };
            // SAFETY: as above.
            unsafe { removing.write(AtomicBool::new(false)) };
            Ok(())
        };
        // SAFETY: the closure initialises the object, or fails before it touches it.
        unsafe { pin_init_from_closure(init) }
    }

    /// The kernel's object, for routines that this library does not wrap.
    #[must_use]
    pub fn as_raw(&self) -> *mut sys::IO_REMOVE_LOCK {
        self.lock.get()
    }

    /// Adds a user, unless the device is being removed.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::DELETE_PENDING`] from the beginning of [`remove`](Self::remove) on, for ever.
    /// - [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// Wraps [`IoAcquireRemoveLock`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioacquireremovelock).
    #[doc(alias = "IoAcquireRemoveLock")]
    pub fn acquire(&self) -> Result<RemoveGuard<'_>> {
        self.enter()?;
        Ok(RemoveGuard(self))
    }

    fn enter(&self) -> Result {
        irql::require_at_most(Irql::DISPATCH)?;
        // SAFETY: the lock is initialised and in its place; the level was checked.
        check(unsafe { sys::IoAcquireRemoveLock(self.as_raw(), ptr::null_mut()) }).map(drop)
    }

    /// Admits no more users, and waits until the last one is gone. Only one caller succeeds.
    ///
    /// A caller that is itself a user waits for ever.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::DELETE_PENDING`] if the device is being removed already.
    /// - [`NtError::IRQL_TOO_HIGH`] above `PASSIVE_LEVEL`.
    ///
    /// Wraps [`IoReleaseRemoveLockAndWait`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioreleaseremovelockandwait).
    #[doc(alias = "IoReleaseRemoveLockAndWait")]
    pub fn remove(&self) -> Result {
        irql::require_at_most(Irql::PASSIVE)?;
        if self.removing.swap(true, Ordering::Relaxed) {
            return Err(NtError::DELETE_PENDING);
        }
        // Nobody else removes, so that this succeeds.
        self.enter()?;
        // SAFETY: the lock was acquired above, and this is its only removal; the level was checked.
        unsafe { sys::IoReleaseRemoveLockAndWait(self.as_raw(), ptr::null_mut()) };
        Ok(())
    }
}

impl fmt::Debug for PinnedRemoveLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoveLock").finish_non_exhaustive()
    }
}

/// A user of a [`RemoveLock`], until it is dropped, in any thread.
///
/// # IRQL
/// Dropped at `<= DISPATCH_LEVEL`. Above, the use stays, and a removal waits for ever.
#[must_use = "the device may be removed as soon as the guard is dropped"]
#[derive(Debug)]
pub struct RemoveGuard<'a>(&'a PinnedRemoveLock);

impl Drop for RemoveGuard<'_> {
    fn drop(&mut self) {
        if irql::current() > Irql::DISPATCH {
            return;
        }
        // SAFETY: the guard was made when the lock was acquired; the level was checked.
        unsafe { sys::IoReleaseRemoveLock(self.0.as_raw(), ptr::null_mut()) };
    }
}
