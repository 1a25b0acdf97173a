//! A plain cell whose accesses are checked for data races, hosted.

use core::cell::UnsafeCell;
use core::panic::Location;

use ksync_sys as sys;

/// A value that threads share, and that nothing but the program's own synchronization protects.
///
/// In a driver this is a plain cell, and costs nothing. Hosted, `ksim` checks each access: of two accesses by different threads or DPCs, one of which writes, one must come before
/// the other by what the program does (a lock, an event, an atomic with acquire and release, the start or the end of a thread). Where that is not so, in any schedule, the
/// access panics, and says where the other is. It does not take the schedule in which things go wrong.
///
/// For data behind one of the library's locks there is [`Locked`](crate::mutex::Locked), which needs no `unsafe` at all.
///
/// # Examples
/// ```
/// use core::sync::atomic::Ordering;
/// use ksync::sync::{RaceCell, atomic::AtomicBool};
///
/// static VALUE: RaceCell<u32> = RaceCell::new(0);
/// static READY: AtomicBool = AtomicBool::new(false);
///
/// # ksim::Machine::new().processors(2).run(|| {
/// let maker = ksync::thread::spawn(|| {
///     // SAFETY: nobody reads the value before it is ready.
///     unsafe { VALUE.set(7) };
///     READY.store(true, Ordering::Release);
/// }).unwrap();
/// while !READY.load(Ordering::Acquire) {}
/// // SAFETY: it is ready, and nobody writes it any more.
/// assert_eq!(unsafe { VALUE.get() }, 7);
/// maker.join().unwrap();
/// # }).expect_clean();
/// ```
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct RaceCell<T: ?Sized>(UnsafeCell<T>);

// SAFETY: every access by a shared reference is `unsafe`, and its caller vouches that none races with it. The value may be accessed, and dropped, on any thread.
unsafe impl<T: ?Sized + Send> Sync for RaceCell<T> {}

impl<T> RaceCell<T> {
    /// A cell with a value.
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// The value.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.0.into_inner()
    }

    /// A copy of the value.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Safety
    /// No other thread or DPC writes the value meanwhile: something orders this and any write. There is no exclusive reference to the value.
    ///
    /// # Panics
    /// Hosted, if nothing does.
    #[inline]
    #[must_use]
    #[track_caller]
    pub unsafe fn get(&self) -> T
    where
        T: Copy,
    {
        self.check(false);
        // SAFETY: by this function's contract nobody writes it meanwhile.
        unsafe { self.0.get().read() }
    }

    /// Writes the value. The old one is dropped.
    ///
    /// # IRQL
    /// Any, as far as the old value's drop goes.
    ///
    /// # Safety
    /// No other thread or DPC reads or writes the value meanwhile: something orders this and any other access. There is no reference to the value.
    ///
    /// # Panics
    /// Hosted, if nothing orders them.
    #[inline]
    #[track_caller]
    pub unsafe fn set(&self, value: T) {
        self.check(true);
        // SAFETY: by this function's contract nobody else uses it.
        unsafe { *self.0.get() = value };
    }
}

impl<T: ?Sized> RaceCell<T> {
    /// The value, of which there can be no other user.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }

    /// The address of the value. What is done by it is not checked.
    #[must_use]
    pub const fn as_ptr(&self) -> *mut T {
        self.0.get()
    }

    /// Lets `code` read the value. The check is made at its beginning.
    ///
    /// # Safety
    /// No other thread or DPC writes the value as long as `code` runs, nor uses it at all if `T` is not [`Sync`]. There is no exclusive reference to the value, and `code` does not write it through the cell.
    ///
    /// # Panics
    /// Hosted, if nothing orders this and another's write.
    #[inline]
    #[track_caller]
    pub unsafe fn with<R>(&self, code: impl FnOnce(&T) -> R) -> R {
        self.check(false);
        // SAFETY: by this function's contract nobody writes it meanwhile.
        code(unsafe { &*self.0.get() })
    }

    /// Lets `code` change the value. The check is made at its beginning.
    ///
    /// # Safety
    /// No other thread or DPC reads or writes the value as long as `code` runs, and `code` does not use the cell. There is no other reference to the value.
    ///
    /// # Panics
    /// Hosted, if nothing orders this and another's access.
    #[inline]
    #[track_caller]
    pub unsafe fn with_mut<R>(&self, code: impl FnOnce(&mut T) -> R) -> R {
        self.check(true);
        // SAFETY: by this function's contract nobody else uses it meanwhile.
        code(unsafe { &mut *self.0.get() })
    }

    #[inline]
    #[track_caller]
    fn check(&self, writes: bool) {
        sys::atomic::plain_access(self.0.get().cast::<u8>().addr(), size_of_val(self), writes, Location::caller());
    }
}
