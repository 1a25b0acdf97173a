//! [`LazyCell`]: made on first use, never waited for.

use core::fmt;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicUsize, Ordering};

use super::once::current_thread;
use super::once_cell::OnceCell;
use crate::error::{NtError, Result};
use crate::irql;

/// A value that is made when it is first asked for, from any level, and never waited for.
///
/// It has the methods of `std`'s cell of this name, and unlike that one it can be shared by threads. Who asks while another makes the value makes one himself: hence the closure is an `Fn`, which may run several times, and on several processors at
/// once. The first value that is ready stays. See [the table](super#what-happens-when) and [what "never waits" means](super#what-never-waits-means). The cell must lie in nonpaged memory.
///
/// # Bug checks
/// A closure that dereferences its own cell would never end. That is found out and stops the system with [`DEREFERENCED_IN_VAIN`](super::DEREFERENCED_IN_VAIN); [`force`](Self::force) returns an error. A
/// dereference elsewhere cannot fail.
///
/// # Examples
/// ```
/// use ksync::irql::{self, Irql};
/// use ksync::lazy::LazyCell;
///
/// static MASKS: LazyCell<[u64; 4]> = LazyCell::new(|| core::array::from_fn(|i| 1 << i));
///
/// # ksim::Machine::new().run(|| {
/// irql::with_raised(Irql::DISPATCH, || assert_eq!(MASKS[3], 8)).unwrap();
/// # }).expect_clean();
/// ```
pub struct LazyCell<T, F = fn() -> T> {
    value: OnceCell<T>,
    entered: Entered,
    init: F,
}

impl<T, F: Fn() -> T> LazyCell<T, F> {
    /// Makes a cell whose value the closure will make.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::lazy::LazyCell;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let name = String::from("Ada");
    /// let greeting = LazyCell::new(|| name.clone() + "!");
    /// assert_eq!(*greeting, "Ada!");
    /// # }).expect_clean();
    /// ```
    #[must_use]
    pub const fn new(init: F) -> Self {
        Self { value: OnceCell::new(), entered: Entered::new(), init }
    }

    /// The value, which is made if it is not there yet.
    ///
    /// # IRQL
    /// Any. The closure runs, and a value that came too late is dropped, at the caller's level.
    ///
    /// # Errors
    /// [`NtError::WOULD_DEADLOCK`] in the closure: what runs it on this thread at this level is the caller himself. (A kernel APC that interrupts the closure on its own thread and at its own level cannot be told from
    /// it, and gets the error too.)
    ///
    /// # Examples
    /// ```
    /// use ksync::lazy::LazyCell;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let value = LazyCell::new(|| 5);
    /// assert_eq!(LazyCell::force(&value), Ok(&5));
    /// # }).expect_clean();
    /// ```
    #[inline]
    pub fn force(this: &Self) -> Result<&T> {
        match this.value.get() {
            Some(value) => Ok(value),
            None => Self::make(this),
        }
    }

    /// Runs the closure.
    #[cold]
    fn make(this: &Self) -> Result<&T> {
        let _visit = this.entered.enter()?;
        Ok(this.value.get_or_init(&this.init))
    }

    /// The value, which is made if it is not there yet, to a caller that has the cell to itself.
    ///
    /// # IRQL
    /// Any. The closure runs at the caller's level.
    ///
    /// # Examples
    /// ```
    /// use ksync::lazy::LazyCell;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let mut count = LazyCell::new(|| 1);
    /// *LazyCell::force_mut(&mut count) += 1;
    /// assert_eq!(*count, 2);
    /// # }).expect_clean();
    /// ```
    pub fn force_mut(this: &mut Self) -> &mut T {
        // Nobody else can reach the cell, the closure included.
        this.value.get_mut_or_init(&this.init)
    }
}

impl<T, F> LazyCell<T, F> {
    /// The value, if it is there. This makes nothing.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::lazy::LazyCell;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let value = LazyCell::new(|| 5);
    /// assert_eq!(LazyCell::get(&value), None);
    /// assert_eq!(*value, 5);
    /// assert_eq!(LazyCell::get(&value), Some(&5));
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
    /// use ksync::lazy::LazyCell;
    ///
    /// let mut value = LazyCell::new(|| 5);
    /// assert_eq!(LazyCell::get_mut(&mut value), None);
    /// ```
    #[inline]
    #[must_use]
    pub fn get_mut(this: &mut Self) -> Option<&mut T> {
        this.value.get_mut()
    }

    /// Takes the value out of a cell that nobody uses any more, such as a static in the unload routine. The next that asks makes another.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Safety
    /// No reference to the value is used any more, and nobody uses the cell while this runs.
    ///
    /// # Examples
    /// ```
    /// use ksync::lazy::LazyCell;
    ///
    /// static NAMES: LazyCell<Vec<&str>> = LazyCell::new(|| vec!["Ada"]);
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(NAMES.len(), 1);
    /// // In the unload routine. SAFETY: nothing of the driver runs any more.
    /// drop(unsafe { LazyCell::take_unchecked(&NAMES) });
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
    /// The closure, if there is no value.
    ///
    /// # Examples
    /// ```
    /// use ksync::lazy::LazyCell;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let value = LazyCell::new(|| 5);
    /// assert_eq!(*value, 5);
    /// assert_eq!(LazyCell::into_inner(value).ok(), Some(5));
    /// # }).expect_clean();
    /// ```
    pub fn into_inner(this: Self) -> Result<T, F> {
        this.value.into_inner().ok_or(this.init)
    }
}

impl<T, F: Fn() -> T> Deref for LazyCell<T, F> {
    type Target = T;

    /// [Forces](Self::force) the value.
    ///
    /// # Bug checks
    /// [`DEREFERENCED_IN_VAIN`](super::DEREFERENCED_IN_VAIN) in the closure itself.
    #[inline]
    fn deref(&self) -> &T {
        match Self::force(self) {
            Ok(value) => value,
            Err(error) => super::dereferenced_in_vain(self, error),
        }
    }
}

impl<T, F: Fn() -> T> DerefMut for LazyCell<T, F> {
    /// [Forces](Self::force_mut) the value.
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        Self::force_mut(self)
    }
}

impl<T: Default> Default for LazyCell<T> {
    /// A cell whose value is made by `T::default`.
    fn default() -> Self {
        Self::new(T::default)
    }
}

impl<T: fmt::Debug, F> fmt::Debug for LazyCell<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::fmt_cell("LazyCell", Self::get(self), f)
    }
}

/// How many runs of a closure at once are noted. Those beyond are not: a closure that forces its own cell is found out by the others.
const NOTED: usize = 4;

/// Who runs the closure just now, so that one that would run itself for ever is found out.
///
/// A run is noted as its thread and level, in one word. Only the run itself reads its own word there: what interrupts it on its thread does so at a higher level.
/// Nothing else rests on this, hence `Relaxed` everywhere.
#[derive(Debug)]
struct Entered {
    /// Zero where no run is noted.
    runs: [AtomicUsize; NOTED],
}

/// A run of the closure. It ends when this is dropped.
struct Visit<'a>(Option<&'a AtomicUsize>);

impl Entered {
    /// Nobody.
    const fn new() -> Self {
        Self { runs: [const { AtomicUsize::new(0) }; NOTED] }
    }

    /// Begins a run.
    ///
    /// # Errors
    /// [`NtError::WOULD_DEADLOCK`] if one of this thread at this level has begun already.
    fn enter(&self) -> Result<Visit<'_>> {
        // Levels take four bits. The four that an address loses are all ones in the kernel.
        let this = current_thread().addr() << 4 | usize::from(irql::current().get() & 0xF);
        if self.runs.iter().any(|run| run.load(Ordering::Relaxed) == this) {
            return Err(NtError::WOULD_DEADLOCK);
        }
        let free = |run: &&AtomicUsize| run.compare_exchange(0, this, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        Ok(Visit(self.runs.iter().find(free)))
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        if let Some(run) = self.0 {
            run.store(0, Ordering::Relaxed);
        }
    }
}
