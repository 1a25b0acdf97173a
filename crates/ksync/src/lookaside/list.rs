//! The kernel's list, in its place.

use core::alloc::Layout;
use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::mem::{ManuallyDrop, MaybeUninit};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use ksync_sys as sys;

use super::{AllocateFn, FreeFn, LookasideError};
use crate::alloc::Pool;
use crate::alloc::raw::NATURAL_ALIGN;
use crate::irql::{self, Irql};
use crate::pool::KBox;

/// What a list is made with. All of it has been checked.
pub(super) struct Settings {
    pub(super) size: usize,
    pub(super) pool: Pool,
    pub(super) tag: u32,
    pub(super) flags: u32,
    pub(super) alloc_fn: Option<AllocateFn>,
    pub(super) free_fn: Option<FreeFn>,
}

/// A list of the kernel's.
///
/// # Invariants
/// The list is initialised, with entries of `size` bytes of `pool`, and stays in its box until it is [deleted](Self::delete).
pub(super) struct List {
    list: UnsafeCell<MaybeUninit<sys::LOOKASIDE_LIST_EX>>,
    size: usize,
    pool: Pool,
}

// SAFETY: a list belongs to no thread.
unsafe impl Send for List {}
// SAFETY: the kernel's routines on lookaside lists are atomic with respect to each other, and the other fields never change.
unsafe impl Sync for List {}

impl List {
    /// Makes a list.
    ///
    /// # Errors
    /// [`LookasideError::NoMemory`], [`LookasideError::IrqlTooHigh`], and what the kernel says.
    pub(super) fn new(settings: &Settings) -> Result<KBox<Self>, LookasideError> {
        let &Settings { size, pool, tag, flags, alloc_fn, free_fn } = settings;
        let memory = KBox::<Self>::new_uninit()?;
        let list = memory.write(Self { list: UnsafeCell::new(MaybeUninit::uninit()), size, pool });
        let (alloc_fn, free_fn) = (alloc_fn.map(AllocateFn::get), free_fn.map(FreeFn::get));
        // SAFETY: the memory is nonpaged, aligned to 16 bytes, and stays where it is until the list is deleted. The size, the tag and the flags are valid, the functions
        // are as their types vouch, and `new_uninit` has checked for a level of at most `DISPATCH_LEVEL`.
        let status =
            unsafe { sys::ExInitializeLookasideListEx(list.raw(), alloc_fn, free_fn, pool.pool_type(), flags, size, tag, 0) };
        crate::error::check(status)?;
        // INVARIANT: the list is initialised.
        Ok(list)
    }

    /// Deletes the list and frees its memory.
    ///
    /// # Safety
    /// Nobody uses the list any more. The level is one at which its entries can be freed.
    pub(super) unsafe fn delete(list: KBox<Self>) {
        // While the list is not deleted its memory must not be freed, not even if a function of the driver's unwinds, which it can do hosted.
        let list = ManuallyDrop::new(list);
        // SAFETY: by the type's invariant the list is initialised; by the caller's contract it is not used any more, and the level is right.
        unsafe { sys::ExDeleteLookasideListEx(list.raw()) };
        drop(ManuallyDrop::into_inner(list));
    }

    /// The kernel's object.
    #[inline]
    fn raw(&self) -> *mut sys::LOOKASIDE_LIST_EX {
        self.list.get().cast()
    }

    /// The pool that entries come from.
    #[inline]
    pub(super) fn pool(&self) -> Pool {
        self.pool
    }

    /// The size of an entry.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Tells whether an entry serves for this layout.
    #[inline]
    pub(super) fn fits(&self, layout: Layout) -> bool {
        layout.size() <= self.size && layout.align() <= NATURAL_ALIGN
    }

    /// Takes an entry, or `None` if there is no memory.
    ///
    /// # Safety
    /// The level is one at which entries can be allocated.
    #[inline]
    pub(super) unsafe fn take(&self) -> Option<NonNull<u8>> {
        // SAFETY: by the type's invariant the list is initialised; the level is right by the caller's contract.
        NonNull::new(unsafe { sys::ExAllocateFromLookasideListEx(self.raw()) }.cast())
    }

    /// Gives an entry back.
    ///
    /// # Safety
    /// The entry came from this list, and nobody uses it any more. The level is one at which entries can be freed.
    #[inline]
    pub(super) unsafe fn put(&self, entry: NonNull<u8>) {
        // SAFETY: by the type's invariant the list is initialised; the rest is the caller's contract.
        unsafe { sys::ExFreeToLookasideListEx(self.raw(), entry.as_ptr().cast()) };
    }

    /// Frees the entries that are kept.
    ///
    /// # Safety
    /// The level is one at which entries can be freed.
    pub(super) unsafe fn flush(&self) {
        // SAFETY: by the type's invariant the list is initialised; the level is right by the caller's contract.
        unsafe { sys::ExFlushLookasideListEx(self.raw()) };
    }

    /// The figures.
    pub(super) fn statistics(&self, entries: u32, lost: u32) -> Statistics {
        let list = self.raw().cast::<sys::GENERAL_LOOKASIDE_POOL>();
        let counter = |field: *mut u32| {
            // SAFETY: the counter is aligned, and there as long as the list is. The kernel changes it with plain stores of the whole word, from any processor; here it is read as one.
            unsafe { AtomicU32::from_ptr(field) }.load(Ordering::Relaxed)
        };
        let depth = |field: *mut u16| {
            // SAFETY: as above.
            unsafe { AtomicU16::from_ptr(field) }.load(Ordering::Relaxed)
        };
        // SAFETY: the field lies in the list.
        let allocates = unsafe { &raw mut (*list).TotalAllocates };
        // SAFETY: as above.
        let allocate_misses = unsafe { &raw mut (*list).AllocateMisses };
        // SAFETY: as above.
        let frees = unsafe { &raw mut (*list).TotalFrees };
        // SAFETY: as above.
        let free_misses = unsafe { &raw mut (*list).FreeMisses };
        // SAFETY: as above.
        let present_depth = unsafe { &raw mut (*list).Depth };
        // SAFETY: as above.
        let maximum_depth = unsafe { &raw mut (*list).MaximumDepth };
        // SAFETY: as above.
        let head = unsafe { &raw mut (*list).ListHead };
        // SAFETY: the head is that of an initialised list.
        let kept = unsafe { sys::ExQueryDepthSList(head) };
        Statistics {
            entries,
            lost,
            kept,
            depth: depth(present_depth),
            maximum_depth: depth(maximum_depth),
            allocates: counter(allocates),
            allocate_misses: counter(allocate_misses),
            frees: counter(frees),
            free_misses: counter(free_misses),
        }
    }
}

/// The figures of a lookaside list.
///
/// All but the first two are the kernel's own, which on several processors may miss a few: they are counted without locking. They wrap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Statistics {
    /// Entries that are out. This is exact.
    pub entries: u32,
    /// Entries that were given back at too high a level, and leaked. This is exact.
    pub lost: u32,
    /// Entries that the list keeps for the next allocations.
    pub kept: u16,
    /// How many it would keep at most; the system adjusts it to the use that is made of the list.
    pub depth: u16,
    /// The bound of that.
    pub maximum_depth: u16,
    /// Allocations.
    pub allocates: u32,
    /// Allocations for which the list had nothing.
    pub allocate_misses: u32,
    /// Entries given back.
    pub frees: u32,
    /// Entries given back for which the list had no room.
    pub free_misses: u32,
}

impl Statistics {
    /// Allocations that the list served with an entry that it had kept.
    #[must_use]
    pub const fn allocate_hits(&self) -> u32 {
        self.allocates.wrapping_sub(self.allocate_misses)
    }

    /// Entries given back that the list kept.
    #[must_use]
    pub const fn free_hits(&self) -> u32 {
        self.frees.wrapping_sub(self.free_misses)
    }
}

/// The format of [`report_entries_out`].
const ENTRIES_OUT: &CStr = c"ksync: lookaside list %p was dropped with %u entries out, which are leaked\n";

/// Reports entries that nobody can give back any more.
#[cold]
pub(super) fn report_entries_out(list: &List, entries: u32) {
    if irql::current() > Irql::DISPATCH {
        return;
    }
    // SAFETY: the format asks for a pointer and an unsigned integer, which is what it gets. IRQL: the routine takes more than `DISPATCH_LEVEL`.
    unsafe { sys::DbgPrint(ENTRIES_OUT.as_ptr().cast(), ptr::from_ref(list), entries) };
}
