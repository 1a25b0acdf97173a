//! Values in nonpaged pool that several owners share.

use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering, fence};

use crate::error::Result;
use crate::irql::{self, Irql};
use crate::pool::KBox;

/// A value in nonpaged pool with several owners, the last of which frees it: what a driver, its threads and its callbacks share.
///
/// It is what `Arc` is, and memory that runs out is an error.
///
/// # IRQL
/// Made and dropped at `<= DISPATCH_LEVEL`; the value itself may ask for less where the last owner drops it. An owner that is dropped above `DISPATCH_LEVEL`, where nothing can be freed, is
/// forgotten, so that the value is leaked.
///
/// # Invariants
/// The pointer is that of a box whose count is the number of owners, of which this is one.
///
/// # Examples
/// ```
/// use ksync::event::{Event, EventProperty};
/// use ksync::pool::KArc;
/// use ksync::thread;
/// use ksync::wait::Dispatchable;
///
/// # ksim::Machine::new().run(|| {
/// let kill = KArc::new(Event::new(EventProperty::Notification, false).unwrap()).unwrap();
/// let thread = thread::spawn({
///     let kill = kill.clone();
///     move || kill.wait().success()
/// }).unwrap();
/// kill.set().unwrap();
/// assert_eq!(thread.join(), Ok(true));
/// # }).expect_clean();
/// ```
pub struct KArc<T> {
    shared: NonNull<Shared<T>>,
    _owned: PhantomData<Shared<T>>,
}

/// A value with the number of its owners.
struct Shared<T> {
    owners: AtomicUsize,
    value: T,
}

// SAFETY: owners in several threads have shared references to the value, and any of them may be the one that drops it.
unsafe impl<T: Send + Sync> Send for KArc<T> {}
// SAFETY: as above: a shared owner can be cloned.
unsafe impl<T: Send + Sync> Sync for KArc<T> {}
// The value does not move when an owner does.
impl<T> Unpin for KArc<T> {}

impl<T> KArc<T> {
    /// Moves a value into nonpaged pool.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Those of [`KBox::new`]; the value is dropped.
    ///
    /// # Examples
    /// ```
    /// use ksync::pool::KArc;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let one = KArc::new(5).unwrap();
    /// let two = one.clone();
    /// drop(one);
    /// assert_eq!(*two, 5);
    /// # }).expect_clean();
    /// ```
    pub fn new(value: T) -> Result<Self> {
        let shared = KBox::into_raw(KBox::new(Shared { owners: AtomicUsize::new(1), value })?);
        // SAFETY: pointers of boxes are never null.
        let shared = unsafe { NonNull::new_unchecked(shared) };
        // INVARIANT: the box was made with one owner.
        Ok(Self { shared, _owned: PhantomData })
    }

    /// Tells whether two owners own the same value.
    ///
    /// # Examples
    /// ```
    /// use ksync::pool::KArc;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let one = KArc::new(5).unwrap();
    /// assert!(KArc::ptr_eq(&one, &one.clone()));
    /// assert!(!KArc::ptr_eq(&one, &KArc::new(5).unwrap()));
    /// # }).expect_clean();
    /// ```
    #[must_use]
    pub fn ptr_eq(one: &Self, other: &Self) -> bool {
        one.shared == other.shared
    }

    fn shared(&self) -> &Shared<T> {
        // SAFETY: by the type's invariant the box is alive while `self` is, and is used shared.
        unsafe { self.shared.as_ref() }
    }
}

impl<T> Clone for KArc<T> {
    /// Makes another owner.
    ///
    /// # IRQL
    /// Any level.
    fn clone(&self) -> Self {
        // An owner takes no less than a billionth of a second to make, so that 64 bits last for centuries.
        self.shared().owners.fetch_add(1, Ordering::Relaxed);
        // INVARIANT: the new owner was counted.
        Self { shared: self.shared, _owned: PhantomData }
    }
}

impl<T> Deref for KArc<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.shared().value
    }
}

impl<T> AsRef<T> for KArc<T> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: fmt::Debug> fmt::Debug for KArc<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: fmt::Display> fmt::Display for KArc<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

impl<T> Drop for KArc<T> {
    fn drop(&mut self) {
        if irql::current() > Irql::DISPATCH {
            crate::println!("ksync: a shared value was dropped above DISPATCH_LEVEL and is leaked");
            return;
        }
        // What the other owners did with the value happens before the last one frees it.
        if self.shared().owners.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        fence(Ordering::Acquire);
        // SAFETY: the box was given up for this pointer when it was made, and this was its last owner.
        drop(unsafe { KBox::from_raw(self.shared.as_ptr()) });
    }
}
