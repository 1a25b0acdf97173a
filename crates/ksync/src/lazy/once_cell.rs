//! [`OnceCell`]: written once, never waited for.

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU8, Ordering};

use crate::irql::{self, Irql};

/// In [`OnceCell::state`]: there is no value.
const EMPTY: u8 = 0;
/// In [`OnceCell::state`]: a processor moves a value in, at `HIGH_LEVEL`.
const WRITING: u8 = 1;
/// In [`OnceCell::state`]: there is a value.
const FULL: u8 = 2;

/// A cell that is written to once, from any level, and never waits.
///
/// It has the methods of `std`'s cell of this name, and unlike that one it can be shared by threads: who wants a value that is not there makes one himself, even if others do the same, and the first value that is ready stays. See
/// [the table](super#what-happens-when) and [what "never waits" means](super#what-never-waits-means). The cell must lie in nonpaged memory.
///
/// # Invariants
/// In `FULL` there is a value, and what was written of it is visible to who reads the state with `Acquire`. In `WRITING` one processor writes the value, and nothing interrupts it.
///
/// # Examples
/// ```
/// use ksync::irql::{self, Irql};
/// use ksync::lazy::OnceCell;
///
/// static ANSWER: OnceCell<u32> = OnceCell::new();
///
/// # ksim::Machine::new().run(|| {
/// irql::with_raised(Irql::DISPATCH, || assert_eq!(*ANSWER.get_or_init(|| 42), 42)).unwrap();
/// assert_eq!(ANSWER.set(1), Err(1));
/// # }).expect_clean();
/// ```
pub struct OnceCell<T> {
    state: AtomicU8,
    value: UnsafeCell<MaybeUninit<T>>,
    _owns: PhantomData<T>,
}

// SAFETY: sending the cell sends the value.
unsafe impl<T: Send> Send for OnceCell<T> {}
// SAFETY: through a shared cell one thread can put a value in that another takes out or drops, which sends it, and all of them read it. Writing is claimed by an atomic operation, and
// reading begins after the write was published.
unsafe impl<T: Send + Sync> Sync for OnceCell<T> {}

impl<T> OnceCell<T> {
    /// Makes an empty cell.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::lazy::OnceCell;
    ///
    /// static CELL: OnceCell<u32> = OnceCell::new();
    /// assert_eq!(CELL.get(), None);
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self { state: AtomicU8::new(EMPTY), value: UnsafeCell::new(MaybeUninit::uninit()), _owns: PhantomData }
    }

    /// The value, if it is there.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::lazy::OnceCell;
    ///
    /// assert_eq!(OnceCell::from(5).get(), Some(&5));
    /// ```
    #[inline]
    #[must_use]
    pub fn get(&self) -> Option<&T> {
        if self.state.load(Ordering::Acquire) != FULL {
            return None;
        }
        // SAFETY: what is in the cell is only read once it is full.
        let value = unsafe { &*self.value.get() };
        // SAFETY: by the type's invariant there is a value.
        Some(unsafe { value.assume_init_ref() })
    }

    /// The value, if it is there, to a caller that has the cell to itself.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::lazy::OnceCell;
    ///
    /// let mut cell = OnceCell::from(5);
    /// *cell.get_mut().unwrap() += 1;
    /// assert_eq!(cell.into_inner(), Some(6));
    /// ```
    #[inline]
    #[must_use]
    pub fn get_mut(&mut self) -> Option<&mut T> {
        // SAFETY: by the type's invariant there is a value.
        (*self.state.get_mut() == FULL).then(|| unsafe { self.value.get_mut().assume_init_mut() })
    }

    /// Stores a value in an empty cell.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Errors
    /// The value, if there is one already, or another processor stores one just now.
    ///
    /// # Examples
    /// ```
    /// use ksync::lazy::OnceCell;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let cell = OnceCell::new();
    /// assert_eq!(cell.set(1), Ok(()));
    /// assert_eq!(cell.set(2), Err(2));
    /// assert_eq!(cell.get(), Some(&1));
    /// # }).expect_clean();
    /// ```
    pub fn set(&self, value: T) -> Result<(), T> {
        if self.state.load(Ordering::Relaxed) != EMPTY {
            return Err(value);
        }
        // Nothing interrupts this processor between the claim and the publication.
        let _raised = irql::raise_again(Irql::HIGH);
        if self.state.compare_exchange(EMPTY, WRITING, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return Err(value);
        }
        let slot = self.value.get().cast::<T>();
        // SAFETY: the claim is this call's, so nobody else writes, and nobody reads before the cell is full. There is no value in it to be dropped.
        unsafe { slot.write(value) };
        // INVARIANT: the value was written just now.
        self.state.store(FULL, Ordering::Release);
        Ok(())
    }

    /// Stores a value in an empty cell, and returns the value that the cell then has.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Errors
    /// The value that is there already, and the one that was not stored.
    ///
    /// # Examples
    /// ```
    /// use ksync::lazy::OnceCell;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let cell = OnceCell::new();
    /// assert_eq!(cell.try_insert(1), Ok(&1));
    /// assert_eq!(cell.try_insert(2), Err((&1, 2)));
    /// # }).expect_clean();
    /// ```
    pub fn try_insert(&self, value: T) -> Result<&T, (&T, T)> {
        match self.set(value) {
            Ok(()) => Ok(self.get_soon()),
            Err(value) => Err((self.get_soon(), value)),
        }
    }

    /// The value of a cell that is not empty.
    #[inline]
    fn get_soon(&self) -> &T {
        loop {
            if let Some(value) = self.get() {
                return value;
            }
            // By the type's invariant another processor writes the value, and nothing interrupts it.
            core::hint::spin_loop();
        }
    }

    /// The value, which is made by `init` if there is none.
    ///
    /// Others may be making one at the same time, as may `init` itself. The first that is ready stays, and is what all of them get; the others are dropped.
    ///
    /// # IRQL
    /// Any. The initialiser runs, and a value that came too late is dropped, at the caller's level.
    ///
    /// # Examples
    /// ```
    /// use ksync::lazy::OnceCell;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let cell = OnceCell::new();
    /// assert_eq!(*cell.get_or_init(|| 5), 5);
    /// assert_eq!(*cell.get_or_init(|| 6), 5);
    /// # }).expect_clean();
    /// ```
    #[inline]
    pub fn get_or_init(&self, init: impl FnOnce() -> T) -> &T {
        match self.get_or_try_init(|| Ok::<T, core::convert::Infallible>(init())) {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }

    /// The value, which is made by `init` if there is none. If that fails the cell stays as it is.
    ///
    /// # IRQL
    /// As [`get_or_init`](Self::get_or_init).
    ///
    /// # Errors
    /// That of the initialiser, even if another has stored a value meanwhile.
    ///
    /// # Examples
    /// ```
    /// use ksync::NtError;
    /// use ksync::lazy::OnceCell;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let cell = OnceCell::new();
    /// assert_eq!(cell.get_or_try_init(|| Err(NtError::UNSUCCESSFUL)), Err(NtError::UNSUCCESSFUL));
    /// assert_eq!(cell.get_or_try_init(|| Ok::<_, NtError>(5)), Ok(&5));
    /// # }).expect_clean();
    /// ```
    #[inline]
    pub fn get_or_try_init<E>(&self, init: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        match self.get() {
            Some(value) => Ok(value),
            None => self.initialise(init),
        }
    }

    /// Makes a value and stores it, if none is there then.
    #[cold]
    fn initialise<E>(&self, init: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        Ok(self.try_insert(init()?).unwrap_or_else(|(first, _)| first))
    }

    /// The value, which is made by `init` if there is none, to a caller that has the cell to itself.
    ///
    /// # IRQL
    /// Any. The initialiser runs at the caller's level.
    ///
    /// # Examples
    /// ```
    /// use ksync::lazy::OnceCell;
    ///
    /// let mut cell = OnceCell::new();
    /// *cell.get_mut_or_init(|| 5) += 1;
    /// assert_eq!(cell.get(), Some(&6));
    /// ```
    pub fn get_mut_or_init(&mut self, init: impl FnOnce() -> T) -> &mut T {
        if *self.state.get_mut() != FULL {
            self.value.get_mut().write(init());
            // INVARIANT: the value was written just now.
            *self.state.get_mut() = FULL;
        }
        // SAFETY: by the type's invariant there is a value.
        unsafe { self.value.get_mut().assume_init_mut() }
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
    /// use ksync::lazy::OnceCell;
    ///
    /// let mut cell = OnceCell::from(5);
    /// assert_eq!(cell.take(), Some(5));
    /// assert_eq!(cell.take(), None);
    /// ```
    ///
    /// ```compile_fail,E0596
    /// let cell = ksync::lazy::OnceCell::from(String::from("in use"));
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
    /// ```
    /// use ksync::lazy::OnceCell;
    ///
    /// static NAME: OnceCell<String> = OnceCell::new();
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(NAME.get_or_init(|| String::from("Ada")), "Ada");
    /// // SAFETY: nothing uses the cell any more.
    /// assert_eq!(unsafe { NAME.take_unchecked() }.as_deref(), Some("Ada"));
    /// assert_eq!(NAME.get(), None);
    /// # }).expect_clean();
    /// ```
    #[must_use = "the value is dropped when this is"]
    pub unsafe fn take_unchecked(&self) -> Option<T> {
        if self.state.load(Ordering::Acquire) != FULL {
            return None;
        }
        // SAFETY: by the type's invariant there is a value, which the caller has to himself, and which is read once, since the cell is empty from now on.
        let value = unsafe { self.value.get().cast::<T>().read() };
        self.state.store(EMPTY, Ordering::Release);
        Some(value)
    }

    /// Consumes the cell and returns the value, if there is one.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::lazy::OnceCell;
    ///
    /// assert_eq!(OnceCell::from(5).into_inner(), Some(5));
    /// assert_eq!(OnceCell::<u32>::new().into_inner(), None);
    /// ```
    #[must_use]
    pub fn into_inner(mut self) -> Option<T> {
        self.take()
    }
}

impl<T> Default for OnceCell<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> From<T> for OnceCell<T> {
    /// Makes a cell with a value.
    fn from(value: T) -> Self {
        // INVARIANT: there is a value.
        Self { state: AtomicU8::new(FULL), value: UnsafeCell::new(MaybeUninit::new(value)), _owns: PhantomData }
    }
}

impl<T: Clone> Clone for OnceCell<T> {
    /// Makes a cell with a copy of the value, if there is one.
    fn clone(&self) -> Self {
        self.get().map_or_else(Self::new, |value| Self::from(value.clone()))
    }
}

impl<T: PartialEq> PartialEq for OnceCell<T> {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl<T: Eq> Eq for OnceCell<T> {}

impl<T: fmt::Debug> fmt::Debug for OnceCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::fmt_cell("OnceCell", self.get(), f)
    }
}

impl<T> Drop for OnceCell<T> {
    fn drop(&mut self) {
        if *self.state.get_mut() == FULL {
            // SAFETY: by the type's invariant there is a value; the cell is being dropped, so it is dropped once.
            unsafe { self.value.get_mut().assume_init_drop() };
        }
    }
}
