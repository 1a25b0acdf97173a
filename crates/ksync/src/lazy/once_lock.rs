//! [`OnceLock`]: written once, waited for.

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::mem::MaybeUninit;

use super::once::Once;
use crate::error::{NtError, Result};
use crate::irql::Irql;

/// A cell that is written to once. Whoever needs the value while another makes it sleeps until it is there.
///
/// It is `std`'s `OnceLock`, with an error where that would hang: a DPC or the initialiser itself cannot wait for the initialiser. See [the table](super#what-happens-when).
///
/// # Invariants
/// If `once` is complete, there is a value.
///
/// # Examples
/// A value that the entry routine finds out, and everyone reads:
/// ```
/// use ksync::irql::{self, Irql};
/// use ksync::lazy::OnceLock;
/// use ksync::NtError;
///
/// static BUILD: OnceLock<u32> = OnceLock::new();
///
/// # ksim::Machine::new().run(|| {
/// irql::with_raised(Irql::DISPATCH, || {
///     assert_eq!(BUILD.get(), None);
///     assert_eq!(BUILD.get_or_init(|| 1), Err(NtError::IRQL_TOO_HIGH));
/// }).unwrap();
/// assert_eq!(BUILD.get_or_init(|| 22631), Ok(&22631));
/// irql::with_raised(Irql::DISPATCH, || assert_eq!(BUILD.get_or_init(|| 1), Ok(&22631))).unwrap();
/// # }).expect_clean();
/// ```
pub struct OnceLock<T> {
    once: Once,
    value: UnsafeCell<MaybeUninit<T>>,
    _owns: PhantomData<T>,
}

// SAFETY: sending the cell sends the value.
unsafe impl<T: Send> Send for OnceLock<T> {}
// SAFETY: through a shared cell one thread can put a value in that another takes out or drops, which sends it, and all of them read it.
unsafe impl<T: Send + Sync> Sync for OnceLock<T> {}

/// A value that was not stored, handed back with the reason.
///
/// # Examples
/// ```
/// use ksync::NtError;
/// use ksync::lazy::OnceLock;
///
/// # ksim::Machine::new().run(|| {
/// let cell = OnceLock::from("first");
/// let refused = cell.set("second").unwrap_err();
/// assert_eq!((refused.value, refused.error), ("second", NtError::INVALID_DEVICE_STATE));
/// # }).expect_clean();
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NotSet<T> {
    /// The value.
    pub value: T,
    /// Why it was not stored.
    pub error: NtError,
}

impl<T> fmt::Debug for NotSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotSet").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for NotSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl<T> core::error::Error for NotSet<T> {}

impl<T> From<NotSet<T>> for NtError {
    fn from(refused: NotSet<T>) -> Self {
        refused.error
    }
}

impl<T> OnceLock<T> {
    /// Makes an empty cell.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::lazy::OnceLock;
    ///
    /// static CELL: OnceLock<u32> = OnceLock::new();
    /// assert_eq!(CELL.get(), None);
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        // INVARIANT: nothing is complete.
        Self { once: Once::new(), value: UnsafeCell::new(MaybeUninit::uninit()), _owns: PhantomData }
    }

    /// The value, if it is there. This never waits.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::lazy::OnceLock;
    ///
    /// assert_eq!(OnceLock::from(5).get(), Some(&5));
    /// ```
    #[inline]
    #[must_use]
    pub fn get(&self) -> Option<&T> {
        // SAFETY: complete, as was asked.
        self.once.is_complete().then(|| unsafe { self.get_unchecked() })
    }

    /// The value.
    ///
    /// # Safety
    /// `once` is complete, and the caller has seen that with `Acquire`.
    #[inline]
    unsafe fn get_unchecked(&self) -> &T {
        // SAFETY: what is in the cell is only read once it is complete.
        let value = unsafe { &*self.value.get() };
        // SAFETY: by the type's invariant there is a value.
        unsafe { value.assume_init_ref() }
    }

    /// The value, if it is there, to a caller that has the cell to itself.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::lazy::OnceLock;
    ///
    /// let mut cell = OnceLock::from(5);
    /// *cell.get_mut().unwrap() += 1;
    /// assert_eq!(cell.into_inner(), Some(6));
    /// ```
    #[inline]
    #[must_use]
    pub fn get_mut(&mut self) -> Option<&mut T> {
        // SAFETY: by the type's invariant there is a value.
        self.once.is_complete_mut().then(|| unsafe { self.value.get_mut().assume_init_mut() })
    }

    /// Stores a value in an empty cell. If another thread is initialising it, this waits for the outcome.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`. So a DPC can store what threads [`wait`](Self::wait) for.
    ///
    /// # Errors
    /// The value comes back with
    /// - [`NtError::INVALID_DEVICE_STATE`] if there is a value already;
    /// - [`NtError::IRQL_TOO_HIGH`] above `APC_LEVEL` if another initialises the cell just then, and above `DISPATCH_LEVEL`;
    /// - [`NtError::WOULD_DEADLOCK`] if this very thread initialises it.
    ///
    /// # Examples
    /// ```
    /// use ksync::lazy::OnceLock;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let cell = OnceLock::new();
    /// assert_eq!(cell.set(1), Ok(()));
    /// assert_eq!(cell.set(2).unwrap_err().value, 2);
    /// assert_eq!(cell.get(), Some(&1));
    /// # }).expect_clean();
    /// ```
    pub fn set(&self, value: T) -> Result<(), NotSet<T>> {
        let mut value = Some(value);
        let result = self.once.call(Irql::DISPATCH, || {
            if let Some(value) = value.take() {
                self.write(value);
            }
            Ok(())
        });
        let Some(value) = value else { return Ok(()) };
        Err(NotSet { value, error: result.err().unwrap_or(NtError::INVALID_DEVICE_STATE) })
    }

    /// The value, which is made by `init` if there is none. If another thread is making it, this waits for the outcome.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`; any if there is a value. The initialiser runs at the caller's level.
    ///
    /// # Errors
    /// The initialiser has not run then.
    /// - [`NtError::IRQL_TOO_HIGH`] above `APC_LEVEL` if there is no value, whether or not another is making it.
    /// - [`NtError::WOULD_DEADLOCK`] if this very thread is making it: in the initialiser.
    ///
    /// # Examples
    /// ```
    /// use ksync::NtError;
    /// use ksync::lazy::OnceLock;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let cell = OnceLock::new();
    /// let value = cell.get_or_init(|| {
    ///     assert_eq!(cell.get_or_init(|| 1), Err(NtError::WOULD_DEADLOCK));
    ///     2
    /// });
    /// assert_eq!(value, Ok(&2));
    /// # }).expect_clean();
    /// ```
    #[inline]
    pub fn get_or_init(&self, init: impl FnOnce() -> T) -> Result<&T> {
        self.get_or_try_init(|| Ok(init()))
    }

    /// The value, which is made by `init` if there is none. If that fails the cell stays empty, and one of those who wait runs its own initialiser.
    ///
    /// # IRQL
    /// As [`get_or_init`](Self::get_or_init).
    ///
    /// # Errors
    /// That of the initialiser, and those of [`get_or_init`](Self::get_or_init).
    ///
    /// # Examples
    /// A lock in a static, which takes memory and so may fail:
    /// ```
    /// use ksync::error::Result;
    /// use ksync::lazy::OnceLock;
    /// use ksync::mutex::FastLocked;
    ///
    /// static NAMES: OnceLock<FastLocked<u32>> = OnceLock::new();
    ///
    /// fn names() -> Result<&'static FastLocked<u32>> {
    ///     NAMES.get_or_try_init(|| FastLocked::new(0))
    /// }
    ///
    /// # ksim::Machine::new().run(|| {
    /// *names().unwrap().lock().unwrap() += 1;
    /// // In the unload routine. SAFETY: nothing of the driver runs any more.
    /// drop(unsafe { NAMES.take_unchecked() });
    /// # }).expect_clean();
    /// ```
    #[inline]
    pub fn get_or_try_init<E: From<NtError>>(&self, init: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        if let Some(value) = self.get() {
            return Ok(value);
        }
        self.once.call(Irql::APC, || {
            self.write(init()?);
            Ok::<(), E>(())
        })?;
        // SAFETY: `call` returns without an error when the cell is complete.
        Ok(unsafe { self.get_unchecked() })
    }

    /// Writes the value. This is for initialisers that `once` runs, and is the last thing that they do.
    #[inline]
    fn write(&self, value: T) {
        let slot = self.value.get().cast::<T>();
        // SAFETY: `once` runs one initialiser at a time and none after one that succeeded, and nobody reads the slot before. There is no value in it to be dropped.
        unsafe { slot.write(value) };
    }

    /// Waits until there is a value, without making one.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`; any if there is a value.
    ///
    /// # Errors
    /// - [`NtError::IRQL_TOO_HIGH`] above `APC_LEVEL` if there is none.
    /// - [`NtError::WOULD_DEADLOCK`] in the initialiser.
    ///
    /// # Examples
    /// ```
    /// use ksync::lazy::OnceLock;
    /// use ksync::thread;
    ///
    /// # ksim::Machine::new().processors(2).run(|| {
    /// let cell = OnceLock::new();
    /// thread::scope(|scope| {
    ///     let waiter = scope.spawn(|| cell.wait().copied()).unwrap();
    ///     cell.set(5).unwrap();
    ///     assert_eq!(waiter.join(), Ok(Ok(5)));
    /// });
    /// # }).expect_clean();
    /// ```
    #[inline]
    pub fn wait(&self) -> Result<&T> {
        if !self.once.is_complete() {
            self.once.wait()?;
        }
        // SAFETY: the cell is complete, as was found or waited for.
        Ok(unsafe { self.get_unchecked() })
    }

    /// Takes the value out and leaves the cell empty.
    ///
    /// There is no such thing for a shared cell, whose value others may be using. See [`take_unchecked`](Self::take_unchecked).
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::lazy::OnceLock;
    ///
    /// let mut cell = OnceLock::from(5);
    /// assert_eq!(cell.take(), Some(5));
    /// assert_eq!(cell.take(), None);
    /// ```
    ///
    /// ```compile_fail,E0596
    /// let cell = ksync::lazy::OnceLock::from(String::from("in use"));
    /// let used = cell.get();
    /// cell.take(); // not through a shared reference
    /// # let _ = used;
    /// ```
    pub fn take(&mut self) -> Option<T> {
        // SAFETY: an exclusive reference proves that nobody uses the cell or the value.
        unsafe { self.take_unchecked() }
    }

    /// Takes the value out of a cell that nobody uses any more, such as a static in the unload routine, and leaves it empty.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Safety
    /// No reference to the value is used any more, and nobody uses the cell while this runs.
    ///
    /// # Examples
    /// See [`get_or_try_init`](Self::get_or_try_init).
    #[must_use = "the value is dropped when this is"]
    pub unsafe fn take_unchecked(&self) -> Option<T> {
        if !self.once.reset() {
            return None;
        }
        // SAFETY: by the type's invariant there was a value, which the caller has to himself, and which is read once, since the cell is not complete any more.
        Some(unsafe { self.value.get().cast::<T>().read() })
    }

    /// Consumes the cell and returns the value, if there is one.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::lazy::OnceLock;
    ///
    /// assert_eq!(OnceLock::from(5).into_inner(), Some(5));
    /// assert_eq!(OnceLock::<u32>::new().into_inner(), None);
    /// ```
    #[must_use]
    pub fn into_inner(mut self) -> Option<T> {
        self.take()
    }
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> From<T> for OnceLock<T> {
    /// Makes a cell with a value.
    fn from(value: T) -> Self {
        let mut cell = Self::new();
        cell.value.get_mut().write(value);
        cell.once = Once::completed();
        cell
    }
}

impl<T: Clone> Clone for OnceLock<T> {
    /// Makes a cell with a copy of the value, if there is one.
    fn clone(&self) -> Self {
        self.get().map_or_else(Self::new, |value| Self::from(value.clone()))
    }
}

impl<T: PartialEq> PartialEq for OnceLock<T> {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl<T: Eq> Eq for OnceLock<T> {}

impl<T: fmt::Debug> fmt::Debug for OnceLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::fmt_cell("OnceLock", self.get(), f)
    }
}

impl<T> Drop for OnceLock<T> {
    fn drop(&mut self) {
        if self.once.is_complete_mut() {
            // SAFETY: by the type's invariant there is a value; the cell is being dropped, so it is dropped once.
            unsafe { self.value.get_mut().assume_init_drop() };
        }
    }
}
