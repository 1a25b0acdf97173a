//! Boxes whose memory is an entry of a list.

use core::fmt;
use core::marker::PhantomData;
use core::mem::{ManuallyDrop, MaybeUninit};
use core::ops::{Deref, DerefMut};
use core::pin::Pin;
use core::ptr::{self, NonNull};

use super::LookasideAlloc;
use crate::init::{InPlaceWrite, Init, PinInit};

/// A value in an entry of a [`Lookaside`](super::Lookaside) list. The entry returns to the list when the box is dropped.
///
/// # Invariants
/// The pointer is to a value in an entry of the list that is out, and that is nobody else's.
///
/// # IRQL
/// Dropped at `<= DISPATCH_LEVEL` if the entry is nonpaged, at `<= APC_LEVEL` if it is paged; the value itself may ask for less. A box that is dropped above is
/// leaked, value and all, and reported to the debugger.
///
/// # Examples
/// ```
/// use ksync::lookaside::{Lookaside, LookasideBox};
///
/// # ksim::Machine::new().run(|| {
/// let words = Lookaside::<String>::new().unwrap();
/// let mut word = words.alloc(String::from("look")).unwrap();
/// word.push_str("aside");
/// assert_eq!(LookasideBox::into_inner(word), "lookaside");
/// # }).expect_clean();
/// ```
pub struct LookasideBox<'a, T> {
    entry: NonNull<T>,
    list: &'a LookasideAlloc,
    _owns: PhantomData<T>,
}

// SAFETY: the box owns its value and shares it with nobody, so sending the box sends the value. Entries can be given back from every thread.
unsafe impl<T: Send> Send for LookasideBox<'_, T> {}
// SAFETY: a shared box gives out shared references to the value and nothing else.
unsafe impl<T: Sync> Sync for LookasideBox<'_, T> {}
// The value does not move when the box does.
impl<T> Unpin for LookasideBox<'_, T> {}

impl<'a, T> LookasideBox<'a, T> {
    /// Takes an entry.
    ///
    /// # Safety
    /// The pointer is to a value in an entry of the list that is out, and that is nobody else's.
    pub(super) unsafe fn from_entry(entry: NonNull<T>, list: &'a LookasideAlloc) -> Self {
        // INVARIANT: by the caller's contract.
        Self { entry, list, _owns: PhantomData }
    }

    /// Moves the value out and gives the entry back.
    ///
    /// # IRQL
    /// That of dropping the box; above it the entry is leaked.
    ///
    /// # Examples
    /// ```
    /// use ksync::lookaside::{Lookaside, LookasideBox};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let list = Lookaside::<u8>::new().unwrap();
    /// assert_eq!(LookasideBox::into_inner(list.alloc(1).unwrap()), 1);
    /// # }).expect_clean();
    /// ```
    #[must_use]
    pub fn into_inner(this: Self) -> T {
        let this = ManuallyDrop::new(this);
        // SAFETY: by the type's invariant the value is there; it is read once, because the box is not used any more.
        let value = unsafe { this.entry.read() };
        // SAFETY: by the type's invariant the entry is one of the list's, and now nobody uses it any more.
        unsafe { this.list.free(this.entry.cast()) };
        value
    }

    /// Pins the value. It stays where it is until it is dropped, whatever happens to the box.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::lookaside::{Lookaside, LookasideBox};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let list = Lookaside::<u8>::new().unwrap();
    /// let pinned = LookasideBox::into_pin(list.alloc(1).unwrap());
    /// assert_eq!(*pinned, 1);
    /// # }).expect_clean();
    /// ```
    #[must_use]
    pub fn into_pin(this: Self) -> Pin<Self> {
        // SAFETY: the value lies in an entry, which moving the box does not move. A pinned box gives no way to move it out. If the box is forgotten the entry stays out for
        // ever, even when the list is dropped.
        unsafe { Pin::new_unchecked(this) }
    }

    /// Gives the box up for its pointer. [`Lookaside::from_raw`](super::Lookaside::from_raw) takes it back.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::lookaside::{Lookaside, LookasideBox};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let list = Lookaside::<u8>::new().unwrap();
    /// let pointer = LookasideBox::into_raw(list.alloc(1).unwrap());
    /// // SAFETY: the pointer is that of a box of this list, and is taken back once.
    /// assert_eq!(*unsafe { list.from_raw(pointer) }, 1);
    /// # }).expect_clean();
    /// ```
    #[must_use = "the value is leaked unless the pointer is taken back"]
    pub fn into_raw(this: Self) -> *mut T {
        ManuallyDrop::new(this).entry.as_ptr()
    }

    /// Gives the value up for as long as the list is borrowed. The entry never returns to the list.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::lookaside::{Lookaside, LookasideBox};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let list = Lookaside::<u8>::new().unwrap();
    /// let number: *mut u8 = LookasideBox::leak(list.alloc(1).unwrap());
    /// assert_eq!(list.entries(), 1);
    /// // SAFETY: the pointer is that of a leaked box of this list, and is taken back once.
    /// drop(unsafe { list.from_raw(number) });
    /// # }).expect_clean();
    /// ```
    #[must_use = "use `core::mem::forget` if the value is not needed"]
    pub fn leak(this: Self) -> &'a mut T
    where
        T: 'a,
    {
        // SAFETY: by the type's invariant the value is valid and nobody else's; the entry is never given back, so it stays so.
        unsafe { ManuallyDrop::new(this).entry.as_mut() }
    }
}

impl<'a, T> LookasideBox<'a, MaybeUninit<T>> {
    /// Writes the value.
    ///
    /// # IRQL
    /// That of the memory.
    ///
    /// # Examples
    /// ```
    /// use ksync::lookaside::Lookaside;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let list = Lookaside::<u8>::new().unwrap();
    /// assert_eq!(*list.alloc_uninit().unwrap().write(1), 1);
    /// # }).expect_clean();
    /// ```
    #[must_use]
    pub fn write(mut self, value: T) -> LookasideBox<'a, T> {
        MaybeUninit::write(&mut self, value);
        // SAFETY: the value was written just now.
        unsafe { self.assume_init() }
    }

    /// Declares that the value is written.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Safety
    /// It is.
    ///
    /// # Examples
    /// ```
    /// use ksync::lookaside::Lookaside;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let list = Lookaside::<[u8; 100]>::new().unwrap();
    /// let mut memory = list.alloc_uninit().unwrap();
    /// // SAFETY: the memory is that of 100 bytes.
    /// unsafe { memory.as_mut_ptr().write_bytes(7, 1) };
    /// // SAFETY: all of them were written.
    /// assert_eq!(*unsafe { memory.assume_init() }, [7; 100]);
    /// # }).expect_clean();
    /// ```
    #[must_use]
    pub unsafe fn assume_init(self) -> LookasideBox<'a, T> {
        let this = ManuallyDrop::new(self);
        // INVARIANT: both types have one layout, and the caller vouches for the value.
        LookasideBox { entry: this.entry.cast(), list: this.list, _owns: PhantomData }
    }
}

impl<'a, T> InPlaceWrite<T> for LookasideBox<'a, MaybeUninit<T>> {
    type Initialized = LookasideBox<'a, T>;

    fn write_init<E>(mut self, init: impl Init<T, E>) -> Result<Self::Initialized, E> {
        let slot = self.as_mut_ptr();
        // SAFETY: the slot is the box's own memory, valid for writes and at its final address; when this fails the box is dropped without a value.
        unsafe { init.__init(slot) }?;
        // SAFETY: the initialiser succeeded, so the value is there.
        Ok(unsafe { self.assume_init() })
    }

    fn write_pin_init<E>(mut self, init: impl PinInit<T, E>) -> Result<Pin<Self::Initialized>, E> {
        let slot = self.as_mut_ptr();
        // SAFETY: as above; the value is pinned at once.
        unsafe { init.__pinned_init(slot) }?;
        // SAFETY: the initialiser succeeded, so the value is there.
        Ok(LookasideBox::into_pin(unsafe { self.assume_init() }))
    }
}

impl<'a, T> From<LookasideBox<'a, T>> for Pin<LookasideBox<'a, T>> {
    fn from(boxed: LookasideBox<'a, T>) -> Self {
        LookasideBox::into_pin(boxed)
    }
}

impl<T> Deref for LookasideBox<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: by the type's invariant the pointer is valid, and while the box is borrowed nobody has it mutably.
        unsafe { self.entry.as_ref() }
    }
}

impl<T> DerefMut for LookasideBox<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: by the type's invariant the pointer is valid and nobody else uses it.
        unsafe { self.entry.as_mut() }
    }
}

impl<T> AsRef<T> for LookasideBox<'_, T> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T> AsMut<T> for LookasideBox<'_, T> {
    fn as_mut(&mut self) -> &mut T {
        self
    }
}

impl<T: fmt::Debug> fmt::Debug for LookasideBox<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: fmt::Display> fmt::Display for LookasideBox<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

impl<T> Drop for LookasideBox<'_, T> {
    fn drop(&mut self) {
        /// Gives the entry back even if the destructor unwinds, which it can do hosted.
        struct Entry<'a>(NonNull<u8>, &'a LookasideAlloc);
        impl Drop for Entry<'_> {
            fn drop(&mut self) {
                // SAFETY: by the box's invariant the entry is one of the list's. The box is being dropped, so nobody uses it any more.
                unsafe { self.1.free(self.0) };
            }
        }
        let _entry = Entry(self.entry.cast(), self.list);
        // SAFETY: by the type's invariant the entry is out, until the end of this function.
        if !unsafe { self.list.can_free() } {
            // IRQL: nothing can be freed here, and a destructor may free, so all of it stays. Giving the entry back only reports that.
            return;
        }
        // SAFETY: by the type's invariant the value is valid and the box's own; the box is being dropped, so it is dropped once.
        unsafe { ptr::drop_in_place(self.entry.as_ptr()) };
    }
}
