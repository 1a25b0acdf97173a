//! [`LazyLock`]: made on first use, waited for.

use core::cell::UnsafeCell;
use core::fmt;
use core::ops::{Deref, DerefMut};

use super::once_lock::OnceLock;
use crate::error::{NtError, Result};

/// A value that is made when it is first asked for, once. Whoever asks while another makes it sleeps until it is there.
///
/// It is `std`'s `LazyLock`, with an error where that would hang. See [the table](super#what-happens-when).
///
/// # Bug checks
/// [`force`](Self::force) returns an error where the value cannot be had. A dereference cannot, so it stops the system with [`DEREFERENCED_IN_VAIN`](super::DEREFERENCED_IN_VAIN) instead. Dereference
/// where the value is known to be there or the level to be `<= APC_LEVEL`, and force elsewhere; an entry routine can force what DPCs will use.
///
/// # Examples
/// ```
/// use ksync::irql::{self, Irql};
/// use ksync::lazy::LazyLock;
/// use ksync::NtError;
///
/// static GREETING: LazyLock<String> = LazyLock::new(|| String::from("hello"));
///
/// # ksim::Machine::new().run(|| {
/// irql::with_raised(Irql::DISPATCH, || assert_eq!(LazyLock::force(&GREETING), Err(NtError::IRQL_TOO_HIGH))).unwrap();
/// assert_eq!(GREETING.len(), 5);
/// irql::with_raised(Irql::DISPATCH, || assert_eq!(GREETING.len(), 5)).unwrap();
/// # }).expect_clean();
/// ```
pub struct LazyLock<T, F = fn() -> T> {
    value: OnceLock<T>,
    /// The initialiser, until it is run. It is touched only by the initialiser of `value`, and by who has the cell to himself.
    init: UnsafeCell<Option<F>>,
}

// SAFETY: the value is shared as a `OnceLock` shares it. The closure is used by one thread, whichever that is, so that sharing the cell sends it.
unsafe impl<T: Send + Sync, F: Send> Sync for LazyLock<T, F> {}

impl<T, F: FnOnce() -> T> LazyLock<T, F> {
    /// Makes a cell whose value the closure will make.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::lazy::LazyLock;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let name = String::from("Ada");
    /// let greeting = LazyLock::new(move || name + "!");
    /// assert_eq!(*greeting, "Ada!");
    /// # }).expect_clean();
    /// ```
    #[must_use]
    pub const fn new(init: F) -> Self {
        Self { value: OnceLock::new(), init: UnsafeCell::new(Some(init)) }
    }

    /// The value, which is made if it is not there yet. If another thread is making it, this waits.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`; any if there is a value. The closure runs at the caller's level.
    ///
    /// # Errors
    /// - [`NtError::IRQL_TOO_HIGH`] above `APC_LEVEL` if there is no value, whether or not another is making it.
    /// - [`NtError::WOULD_DEADLOCK`] if this very thread is making it: in the closure.
    /// - [`NtError::INVALID_DEVICE_STATE`] if the closure has panicked, or the value was [taken out](Self::take_unchecked).
    ///
    /// # Examples
    /// See [the type](Self).
    #[inline]
    pub fn force(this: &Self) -> Result<&T> {
        this.value.get_or_try_init(|| {
            // SAFETY: `value` runs one initialiser at a time, and the reference ends before the closure is called.
            let init = unsafe { &mut *this.init.get() }.take();
            init.map(|init| init()).ok_or(NtError::INVALID_DEVICE_STATE)
        })
    }

    /// The value, which is made if it is not there yet, to a caller that has the cell to itself.
    ///
    /// # IRQL
    /// As [`force`](Self::force).
    ///
    /// # Errors
    /// As [`force`](Self::force).
    ///
    /// # Examples
    /// ```
    /// use ksync::lazy::LazyLock;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let mut count = LazyLock::new(|| 1);
    /// *LazyLock::force_mut(&mut count).unwrap() += 1;
    /// assert_eq!(*count, 2);
    /// # }).expect_clean();
    /// ```
    pub fn force_mut(this: &mut Self) -> Result<&mut T> {
        Self::force(this)?;
        this.value.get_mut().ok_or(NtError::INVALID_DEVICE_STATE)
    }
}

impl<T, F> LazyLock<T, F> {
    /// The value, if it is there. This makes nothing and never waits.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::lazy::LazyLock;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let value = LazyLock::new(|| 5);
    /// assert_eq!(LazyLock::get(&value), None);
    /// assert_eq!(*value, 5);
    /// assert_eq!(LazyLock::get(&value), Some(&5));
    /// # }).expect_clean();
    /// ```
    #[inline]
    #[must_use]
    pub fn get(this: &Self) -> Option<&T> {
        this.value.get()
    }

    /// The value, if it is there, to a caller that has the cell to itself.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::lazy::LazyLock;
    ///
    /// let mut value = LazyLock::new(|| 5);
    /// assert_eq!(LazyLock::get_mut(&mut value), None);
    /// ```
    #[inline]
    #[must_use]
    pub fn get_mut(this: &mut Self) -> Option<&mut T> {
        this.value.get_mut()
    }

    /// Takes the value out of a cell that nobody uses any more, such as a static in the unload routine. There will be no other: the closure has been used up.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Safety
    /// No reference to the value is used any more, and nobody uses the cell while this runs.
    ///
    /// # Examples
    /// ```
    /// use ksync::NtError;
    /// use ksync::lazy::LazyLock;
    ///
    /// static NAMES: LazyLock<Vec<&str>> = LazyLock::new(|| vec!["Ada"]);
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(NAMES.len(), 1);
    /// // In the unload routine. SAFETY: nothing of the driver runs any more.
    /// drop(unsafe { LazyLock::take_unchecked(&NAMES) });
    /// assert_eq!(LazyLock::force(&NAMES), Err(NtError::INVALID_DEVICE_STATE));
    /// # }).expect_clean();
    /// ```
    #[must_use = "the value is dropped when this is"]
    pub unsafe fn take_unchecked(this: &Self) -> Option<T> {
        // SAFETY: by this function's own contract.
        unsafe { this.value.take_unchecked() }
    }

    /// Consumes the cell and returns the value.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Errors
    /// The closure if there is no value yet, or `None` if the closure has panicked.
    ///
    /// # Examples
    /// ```
    /// use ksync::lazy::LazyLock;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let value = LazyLock::new(|| 5);
    /// assert_eq!(*value, 5);
    /// assert_eq!(LazyLock::into_inner(value).ok(), Some(5));
    /// # }).expect_clean();
    /// ```
    pub fn into_inner(this: Self) -> Result<T, Option<F>> {
        this.value.into_inner().ok_or_else(|| this.init.into_inner())
    }
}

impl<T, F: FnOnce() -> T> Deref for LazyLock<T, F> {
    type Target = T;

    /// [Forces](Self::force) the value.
    ///
    /// # Bug checks
    /// [`DEREFERENCED_IN_VAIN`](super::DEREFERENCED_IN_VAIN) where forcing is an error.
    #[inline]
    fn deref(&self) -> &T {
        match Self::force(self) {
            Ok(value) => value,
            Err(error) => super::dereferenced_in_vain(self, error),
        }
    }
}

impl<T, F: FnOnce() -> T> DerefMut for LazyLock<T, F> {
    /// [Forces](Self::force_mut) the value.
    ///
    /// # Bug checks
    /// [`DEREFERENCED_IN_VAIN`](super::DEREFERENCED_IN_VAIN) where forcing is an error.
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        if let Err(error) = Self::force(self) {
            super::dereferenced_in_vain(self, error);
        }
        match self.value.get_mut() {
            Some(value) => value,
            None => super::dereferenced_in_vain(&self.init, NtError::INVALID_DEVICE_STATE),
        }
    }
}

impl<T: Default> Default for LazyLock<T> {
    /// A cell whose value is made by `T::default`.
    fn default() -> Self {
        Self::new(T::default)
    }
}

impl<T: fmt::Debug, F> fmt::Debug for LazyLock<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::fmt_cell("LazyLock", Self::get(self), f)
    }
}
