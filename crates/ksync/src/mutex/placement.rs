//! Where a lock that can be moved keeps what must not move.

use core::fmt;
use core::mem::{ManuallyDrop, MaybeUninit};
use core::ops::Deref;
use core::pin::Pin;
use core::ptr;

use super::backend::Backend;
use super::locked::PinnedLocked;
use crate::error::Result;
use crate::irql::{self, Irql};
use crate::pool::KBox;

mod sealed {
    /// Keeps [`Placement`](super::Placement) to the two that there are.
    pub trait Sealed {}
    impl Sealed for super::Inline {}
    impl Sealed for super::Boxed {}
}

/// Where a [`Locked`](super::Locked) keeps its lock and data: [`Inline`] or [`Boxed`].
pub trait Placement: sealed::Sealed + Sized {
    /// What a [`Locked`](super::Locked) consists of.
    type Slot<T, L: Backend<Placement = Self>>: Slot<T, L>;
}

/// A [`Locked`](super::Locked)'s only field.
#[doc(hidden)]
pub trait Slot<T, L: Backend>: Sized + Deref<Target = PinnedLocked<T, L>> {
    /// Makes one.
    ///
    /// # Errors
    /// Those of the lock's initialisation, and [`NtError::INSUFFICIENT_RESOURCES`](crate::NtError::INSUFFICIENT_RESOURCES).
    #[track_caller]
    fn make(value: T) -> Result<Self>;
    /// Lends the data out.
    fn get_mut(&mut self) -> &mut T;
    /// Gives the memory back, and the lock with it, but not what the data owns.
    ///
    /// # Safety
    /// The data was copied out, or is to be forgotten.
    unsafe fn free_without_data(self);
}

/// The lock is a word that can be moved while nobody uses it, and lies beside the data with no allocation.
#[derive(Debug)]
pub enum Inline {}

/// The lock is linked into the kernel's lists, and lies with the data in a box of nonpaged pool.
#[derive(Debug)]
pub enum Boxed {}

impl Placement for Inline {
    type Slot<T, L: Backend<Placement = Self>> = InlineSlot<T, L>;
}

impl Placement for Boxed {
    type Slot<T, L: Backend<Placement = Self>> = BoxedSlot<T, L>;
}

/// The slot of [`Inline`].
///
/// # Invariants
/// The state is one as [`Backend::init`] makes it.
#[repr(transparent)]
#[doc(hidden)]
pub struct InlineSlot<T, L: Backend<Placement = Inline>>(pub(super) PinnedLocked<T, L>);

impl<T, L: Backend<Placement = Inline>> Deref for InlineSlot<T, L> {
    type Target = PinnedLocked<T, L>;

    #[inline]
    fn deref(&self) -> &PinnedLocked<T, L> {
        &self.0
    }
}

impl<T, L: Backend<Placement = Inline>> Slot<T, L> for InlineSlot<T, L> {
    fn make(value: T) -> Result<Self> {
        let mut slot = MaybeUninit::<PinnedLocked<T, L>>::uninit();
        // SAFETY: the memory is valid for writes. It moves below, which the placement `Inline` allows for states that nobody uses.
        unsafe { PinnedLocked::init_at(slot.as_mut_ptr(), value) }?;
        // SAFETY: the initialiser succeeded, so that the value is there.
        Ok(Self(unsafe { slot.assume_init() }))
    }

    fn get_mut(&mut self) -> &mut T {
        self.0.data_mut()
    }

    unsafe fn free_without_data(self) {
        ManuallyDrop::new(self).0.retire();
    }
}

/// The slot of [`Boxed`].
#[doc(hidden)]
pub struct BoxedSlot<T, L: Backend<Placement = Boxed>>(ManuallyDrop<Pin<KBox<PinnedLocked<T, L>>>>);

impl<T, L: Backend<Placement = Boxed>> BoxedSlot<T, L> {
    /// The lock and its data, for a caller that has them to itself and does not move the lock.
    fn contents(&mut self) -> &mut PinnedLocked<T, L> {
        // SAFETY: no caller moves the lock out of the reference.
        unsafe { self.0.as_mut().get_unchecked_mut() }
    }

    /// Turns the box into mere memory.
    ///
    /// # Safety
    /// The lock is retired, so that nothing pinned is left. The slot is not used any more, not even dropped.
    unsafe fn take_memory(&mut self) -> KBox<MaybeUninit<PinnedLocked<T, L>>> {
        // SAFETY: the caller does not use the slot any more.
        let boxed = unsafe { ManuallyDrop::take(&mut self.0) };
        // SAFETY: what had to stay in place was the lock, which is retired.
        let boxed = unsafe { Pin::into_inner_unchecked(boxed) };
        // SAFETY: the pointer is that of a box just given up, and uninitialised memory has the layout of what it is for.
        unsafe { KBox::from_raw(KBox::into_raw(boxed).cast()) }
    }
}

impl<T, L: Backend<Placement = Boxed>> Deref for BoxedSlot<T, L> {
    type Target = PinnedLocked<T, L>;

    #[inline]
    fn deref(&self) -> &PinnedLocked<T, L> {
        &self.0
    }
}

impl<T, L: Backend<Placement = Boxed>> Slot<T, L> for BoxedSlot<T, L> {
    #[track_caller]
    fn make(value: T) -> Result<Self> {
        Ok(Self(ManuallyDrop::new(KBox::pin_init(PinnedLocked::pin_init(value))?)))
    }

    fn get_mut(&mut self) -> &mut T {
        self.contents().data_mut()
    }

    unsafe fn free_without_data(self) {
        let mut this = ManuallyDrop::new(self);
        if this.contents().retire() {
            // SAFETY: the lock is retired, the caller does without the data, and the slot is not used any more.
            drop(unsafe { this.take_memory() });
        }
    }
}

impl<T, L: Backend<Placement = Boxed>> Drop for BoxedSlot<T, L> {
    /// Frees the box, unless the lock is held or cannot be retired at this level: then all of it stays.
    fn drop(&mut self) {
        if irql::current() > Irql::DISPATCH || !self.contents().retire() {
            return;
        }
        let data = self.contents().data_ptr();
        // Frees the memory even if the data's destructor unwinds, which it can do hosted.
        // SAFETY: the lock is retired, and the slot is not used any more, being dropped; the data is dropped below, before its memory.
        let _memory = unsafe { self.take_memory() };
        // SAFETY: the data is valid and the slot's own, and it is dropped once.
        unsafe { ptr::drop_in_place(data) };
    }
}

impl<T, L: Backend<Placement = Inline>> fmt::Debug for InlineSlot<T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InlineSlot").finish_non_exhaustive()
    }
}

impl<T, L: Backend<Placement = Boxed>> fmt::Debug for BoxedSlot<T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxedSlot").finish_non_exhaustive()
    }
}
