//! Nonpaged memory.
//!
//! What the kernel links to, and what is touched at `DISPATCH_LEVEL`, must lie in nonpaged pool. A [`KBox`] is a box there, and a [`KArc`] one with several owners. All allocations
//! carry the tag `ksyn`, and none is executable. For paged pool, other tags, and collections, see [`alloc`](crate::alloc).
//!
//! # Which routine allocates
//! `ExAllocatePool2` where the running system exports it (Windows 10 2004 on), and `ExAllocatePoolWithTag` otherwise. It is looked up by name rather than
//! imported, because an import that is missing keeps the whole driver from loading. `MmGetSystemRoutineAddress` may only be asked at
//! `PASSIVE_LEVEL`, so an allocation at a higher level before the first at `PASSIVE_LEVEL` takes the older routine. Both work on every system that has both.

mod arc;

use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::mem::{ManuallyDrop, MaybeUninit};
use core::ops::{Deref, DerefMut};
use core::pin::Pin;
use core::ptr::{self, NonNull};

use crate::alloc::{Pool, raw};
use crate::error::{NtError, Result};
use crate::init::{InPlaceWrite, Init, PinInit};
use crate::irql::{self, Irql};

pub use arc::KArc;

/// The tag of all pool that this library allocates: `ksyn` in a debugger, which shows the bytes in memory order.
pub const TAG: u32 = u32::from_le_bytes(*b"ksyn");

/// A value in nonpaged pool.
///
/// It owns the value and frees it when dropped, as a `Box` does. Memory that runs out is an error, and any alignment is honoured. A value of size zero
/// takes no memory.
///
/// # Invariants
/// The pointer is valid for the value and came from `allocate` with the value's layout. Nobody else uses it.
///
/// # IRQL
/// Made and dropped at `<= DISPATCH_LEVEL`; the value itself may ask for less. A box that is dropped above `DISPATCH_LEVEL`, where nothing can be freed, is
/// leaked, value and all.
///
/// # Examples
/// ```
/// use ksync::pool::KBox;
///
/// # ksim::Machine::new().run(|| {
/// let mut numbers = KBox::new([1u32, 2, 3]).unwrap();
/// numbers[0] = 10;
/// assert_eq!(numbers.into_inner(), [10, 2, 3]);
/// # }).expect_clean();
/// ```
pub struct KBox<T: ?Sized>(NonNull<T>, PhantomData<T>);

/// A value that found no memory, handed back with the reason.
///
/// # Examples
/// ```
/// use ksync::error::NtError;
/// use ksync::pool::KBox;
///
/// # ksim::Machine::new().run(|| {
/// match KBox::try_new_with(String::from("kept")) {
///     Ok(boxed) => assert_eq!(*boxed, "kept"),
///     Err(failure) => assert_eq!(failure.value, "kept"),
/// }
/// # }).expect_clean();
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NotAllocated<T> {
    /// The value.
    pub value: T,
    /// Why there was no memory for it.
    pub error: NtError,
}

impl<T> fmt::Debug for NotAllocated<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotAllocated").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for NotAllocated<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl<T> core::error::Error for NotAllocated<T> {}

impl<T> From<NotAllocated<T>> for NtError {
    fn from(failure: NotAllocated<T>) -> Self {
        failure.error
    }
}

// SAFETY: the box owns its value and shares it with nobody, so sending the box sends the value.
unsafe impl<T: ?Sized + Send> Send for KBox<T> {}
// SAFETY: a shared box gives out shared references to the value and nothing else.
unsafe impl<T: ?Sized + Sync> Sync for KBox<T> {}
// The value does not move when the box does.
impl<T: ?Sized> Unpin for KBox<T> {}

impl<T> KBox<T> {
    /// Moves a value into nonpaged pool.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::INSUFFICIENT_RESOURCES`] if there is no memory; the value is dropped. [`try_new_with`](Self::try_new_with) gives it back.
    /// - [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// # ksim::Machine::new().run(|| {
    /// let boxed = ksync::pool::KBox::new(5).unwrap();
    /// assert_eq!(*boxed, 5);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ExAllocatePool2`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exallocatepool2).
    #[doc(alias = "ExAllocatePool2")]
    #[doc(alias = "ExAllocatePoolWithTag")]
    pub fn new(value: T) -> Result<Self> {
        Ok(Self::new_uninit()?.write(value))
    }

    /// Moves a value into nonpaged pool, or gives it back.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// As [`new`](Self::new), with the value.
    pub fn try_new_with(value: T) -> Result<Self, NotAllocated<T>> {
        match Self::new_uninit() {
            Ok(memory) => Ok(memory.write(value)),
            Err(error) => Err(NotAllocated { value, error }),
        }
    }

    /// Allocates memory for a value that is written later. It is zero.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn new_uninit() -> Result<KBox<MaybeUninit<T>>> {
        // INVARIANT: the memory has the layout of `T`, which is that of `MaybeUninit<T>`, and nobody else has the pointer.
        Ok(KBox(allocate(Layout::new::<T>())?.cast(), PhantomData))
    }

    /// Makes a value in nonpaged pool at its final address.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`, and what the initialiser asks for.
    ///
    /// # Errors
    /// As [`new`](Self::new), and those of the initialiser. Nothing is left allocated then.
    ///
    /// # Examples
    /// ```
    /// use ksync::mutex::PinnedFastLocked;
    /// use ksync::pool::KBox;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let counter = KBox::pin_init(PinnedFastLocked::pin_init(1)).unwrap();
    /// *counter.lock().unwrap() += 1;
    /// assert_eq!(*counter.lock().unwrap(), 2);
    /// # }).expect_clean();
    /// ```
    pub fn pin_init<E>(init: impl PinInit<T, E>) -> Result<Pin<Self>>
    where
        NtError: From<E>,
    {
        Self::new_uninit()?.write_pin_init(init).map_err(NtError::from)
    }

    /// Makes a value in nonpaged pool without moving it there.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`, and what the initialiser asks for.
    ///
    /// # Errors
    /// As [`new`](Self::new), and those of the initialiser. Nothing is left allocated then.
    pub fn init<E>(init: impl Init<T, E>) -> Result<Self>
    where
        NtError: From<E>,
    {
        Self::new_uninit()?.write_init(init).map_err(NtError::from)
    }

    /// Moves the value out and frees the memory.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; above it the memory is leaked.
    #[must_use]
    pub fn into_inner(self) -> T {
        let memory = self.into_uninit_raw();
        // SAFETY: by the type's invariant the pointer is valid for a value, which is read once: what is dropped below has no value.
        let value = unsafe { memory.as_ptr().cast::<T>().read() };
        // INVARIANT: the memory came from a box, with the same layout.
        drop(KBox(memory, PhantomData));
        value
    }

    /// Gives the memory up, still counting the value in it as a value.
    fn into_uninit_raw(self) -> NonNull<MaybeUninit<T>> {
        ManuallyDrop::new(self).0.cast()
    }
}

impl<T> KBox<MaybeUninit<T>> {
    /// Writes the value.
    pub fn write(mut self, value: T) -> KBox<T> {
        MaybeUninit::write(&mut self, value);
        // SAFETY: the value was written just now.
        unsafe { self.assume_init() }
    }

    /// Declares that the value is written.
    ///
    /// # Safety
    /// It is.
    #[must_use]
    pub unsafe fn assume_init(self) -> KBox<T> {
        // INVARIANT: both types have one layout, and the caller vouches for the value.
        KBox(ManuallyDrop::new(self).0.cast(), PhantomData)
    }
}

impl<T> InPlaceWrite<T> for KBox<MaybeUninit<T>> {
    type Initialized = KBox<T>;

    fn write_init<E>(mut self, init: impl Init<T, E>) -> Result<KBox<T>, E> {
        let slot = self.as_mut_ptr();
        // SAFETY: the slot is the box's own memory, valid for writes and at its final address; when this fails the box is dropped without a value.
        unsafe { init.__init(slot) }?;
        // SAFETY: the initialiser succeeded, so the value is there.
        Ok(unsafe { self.assume_init() })
    }

    fn write_pin_init<E>(mut self, init: impl PinInit<T, E>) -> Result<Pin<KBox<T>>, E> {
        let slot = self.as_mut_ptr();
        // SAFETY: as above; the value is pinned at once, and a box's memory stays where it is until the value is dropped.
        unsafe { init.__pinned_init(slot) }?;
        // SAFETY: the initialiser succeeded, so the value is there.
        Ok(unsafe { self.assume_init() }.into_pin())
    }
}

impl<T: ?Sized> KBox<T> {
    /// Gives the box up for its pointer. [`from_raw`](Self::from_raw) takes it back.
    #[must_use = "the value is leaked unless the pointer is taken back"]
    pub fn into_raw(self) -> *mut T {
        ManuallyDrop::new(self).0.as_ptr()
    }

    /// Takes a pointer of [`into_raw`](Self::into_raw) back.
    ///
    /// # Safety
    /// The pointer came from `into_raw`, of a `KBox<T>` or of a `KBox<U>` where `U` was unsized to `T` since. It is taken back once, and nobody else uses the value.
    #[must_use]
    pub unsafe fn from_raw(pointer: *mut T) -> Self {
        // SAFETY: pointers of `into_raw` are never null.
        // INVARIANT: the caller vouches for where the pointer came from.
        Self(unsafe { NonNull::new_unchecked(pointer) }, PhantomData)
    }

    /// Gives the value up for ever.
    #[must_use = "use `core::mem::forget` if the value is not needed"]
    pub fn leak<'a>(boxed: Self) -> &'a mut T
    where
        T: 'a,
    {
        // SAFETY: by the type's invariant the pointer is valid and nobody else uses it; it is never freed.
        unsafe { &mut *boxed.into_raw() }
    }

    /// Pins the value. It stays where it is until it is dropped, whatever happens to the box.
    #[must_use]
    #[inline]
    pub fn into_pin(self) -> Pin<Self> {
        // SAFETY: the value lies in pool, which moving the box does not move; a pinned box gives no way to move it out.
        unsafe { Pin::new_unchecked(self) }
    }
}

impl<T: ?Sized> From<KBox<T>> for Pin<KBox<T>> {
    fn from(boxed: KBox<T>) -> Self {
        boxed.into_pin()
    }
}

impl<T: ?Sized> Deref for KBox<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: by the type's invariant the pointer is valid, and while the box is borrowed nobody has it mutably.
        unsafe { self.0.as_ref() }
    }
}

impl<T: ?Sized> DerefMut for KBox<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: by the type's invariant the pointer is valid and nobody else uses it.
        unsafe { self.0.as_mut() }
    }
}

impl<T: ?Sized> AsRef<T> for KBox<T> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: ?Sized> AsMut<T> for KBox<T> {
    fn as_mut(&mut self) -> &mut T {
        self
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for KBox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for KBox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

impl<T: ?Sized> Drop for KBox<T> {
    fn drop(&mut self) {
        if irql::current() > Irql::DISPATCH {
            // IRQL: nothing can be freed here, and a destructor may free, so all of it stays.
            return;
        }
        let layout = Layout::for_value::<T>(self);
        /// Frees the memory even if the destructor unwinds, which it can do hosted.
        struct Memory(NonNull<u8>, Layout);
        impl Drop for Memory {
            fn drop(&mut self) {
                // SAFETY: by the box's invariant the memory came from `allocate` with this layout. The box is being dropped, so nobody uses it any more.
                unsafe { free(self.0, self.1) };
            }
        }
        let _memory = Memory(self.0.cast(), layout);
        // SAFETY: by the type's invariant the value is valid and the box's own; the box is being dropped, so it is dropped once.
        unsafe { ptr::drop_in_place(self.0.as_ptr()) };
    }
}

/// Allocates nonpaged memory and zeroes it.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Errors
/// - [`NtError::INSUFFICIENT_RESOURCES`] if there is none.
/// - [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
pub(crate) fn allocate(layout: Layout) -> Result<NonNull<u8>> {
    raw::allocate(Pool::NonPaged, TAG, layout, true)
}

/// Frees what [`allocate`] returned.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Safety
/// The memory came from `allocate` with the same layout, and nobody uses it any more. The level is not too high.
pub(crate) unsafe fn free(memory: NonNull<u8>, layout: Layout) {
    // SAFETY: by the caller's contract; `allocate` uses this tag.
    unsafe { raw::free(TAG, memory, layout) };
}
