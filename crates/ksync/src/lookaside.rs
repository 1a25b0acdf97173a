//! Lookaside lists: memory for many values of one size, allocated and freed in a few instructions.
//!
//! A lookaside list keeps blocks that were freed, its *entries*, and hands them out again without asking the pool. It grows and shrinks with the use that is made of it.
//! - [`LookasideAlloc`] is the list as an allocator, for collections and for C code.
//! - [`Lookaside<T>`](Lookaside) makes boxes of one type, which go back to the list when they are dropped. Prefer it in Rust code.
//!
//! The kernel's object is a [`LOOKASIDE_LIST_EX`](ksync_sys::LOOKASIDE_LIST_EX). The system links all of them, so it lies in a box of nonpaged pool, aligned to 16 bytes,
//! for as long as it is initialised, and a [`LookasideAlloc`] can be moved and can be a static. There is no lock around it: the list is lock-free, and so is what is added here.
//!
//! # States
//! ```text
//!                init                        alloc: one more entry is out
//!   absent ─────────────────▶ ready ◀───────────────────────────────────┐
//!     ▲                       │   │                                     │
//!     └───────────────────────┘   └─────────────────────────────────────┘
//!       destroy, if no entry is out          free: one less is out
//! ```
//! One word holds the state and counts the entries that are out, together with the calls that are in progress. Every operation enters by it, in any order and from any
//! processor: what comes at the wrong time is an error and touches no list. In particular
//! - `destroy` refuses while entries are out, and says how many: the memory of an entry stays valid until it is given back. A second `destroy` does nothing;
//! - an entry that is out keeps the list alive, so that it can always be given back;
//! - *dropping* a list with entries out (whose owners must have been forgotten) deletes the list and leaks the entries, and reports how many to the debugger.
//!
//! # Levels
//! Entries of nonpaged pool are allocated and freed at `<= DISPATCH_LEVEL`, those of paged pool at `<= APC_LEVEL`. An allocation above that is an error. What is freed above it is
//! leaked, and reported to the debugger.
//!
//! # Since
//! Windows Vista: the routines for lists of this kind. Allocating and freeing are inlined, as in the WDK's headers before Windows 11 22H2, and use the exports of interlocked lists, which are older.
//! Wine 8 does not have them. They are imported only by a driver that initialises a list.
//!
//! # In hosted tests
//! A static is one for all of a process, and a list is of the machine that it was initialised on. A test with a list in a static runs one machine at a time, and destroys the list before
//! that machine ends. A list that is a value (a field of the driver's state, say) asks for no such care.
//!
//! # Examples
//! ```
//! use ksync::alloc::Pool;
//! use ksync::lookaside::LookasideAlloc;
//! use allocator_api2::boxed::Box;
//!
//! static LIST: LookasideAlloc = LookasideAlloc::default();
//!
//! # ksim::Machine::new().run(|| {
//! // When the driver starts:
//! LIST.init(size_of::<u64>(), Pool::NonPaged, None, None, None, None).unwrap();
//!
//! let number = Box::try_new_in(10_u64, &LIST).unwrap();
//! assert_eq!((*number, LIST.entries()), (10, 1));
//! drop(number);
//!
//! // When it is unloaded:
//! LIST.destroy().unwrap();
//! # }).expect_clean();
//! ```

mod boxed;
mod error;
mod list;
mod routines;
mod state;
mod typed;

use core::alloc::Layout;
use core::fmt;
use core::mem::ManuallyDrop;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use ksync_sys as sys;

use crate::alloc::forward::implement_allocator;
use crate::alloc::memory::Memory;
use crate::alloc::{self, Pool, report};
use crate::irql;
use crate::pool::{KBox, TAG};

pub use boxed::LookasideBox;
pub use error::LookasideError;
pub use list::Statistics;
use list::{List, Settings};
pub use routines::{AllocateFn, FreeFn};
use state::{Close, Hold, State, Unit};
pub use typed::Lookaside;

/// A lookaside list as an allocator.
///
/// It serves each layout that fits into an entry with one entry, and refuses all others. What an entry holds can grow and shrink within it, where it is; beyond, growing is an error.
/// So a `Vec` on a lookaside list has one entry at most, and `Vec::try_reserve_exact` says when it is full (`try_reserve` asks for more than it is told to).
///
/// # Invariants
/// - While the state is ready, the pointer is to an initialised list in its box, which this owns. Each entry that is out is counted in the state.
/// - Otherwise the pointer is null, but for who is changing the state.
///
/// # IRQL
/// Allocates and frees at `<= DISPATCH_LEVEL` from nonpaged pool, at `<= APC_LEVEL` from paged pool. Dropped at the same; above it the list is leaked.
///
/// # Examples
/// What does not fit is refused:
/// ```
/// use allocator_api2::boxed::Box;
/// use ksync::alloc::Pool;
/// use ksync::lookaside::LookasideAlloc;
///
/// # ksim::Machine::new().run(|| {
/// let list = LookasideAlloc::default();
/// assert!(Box::try_new_in(1_u64, &list).is_err()); // not initialised
/// list.init(16, Pool::NonPaged, None, None, None, None).unwrap();
/// assert!(Box::try_new_in([1_u64, 2], &list).is_ok());
/// assert!(Box::try_new_in([1_u64, 2, 3], &list).is_err());
/// # }).expect_clean();
/// ```
#[doc(alias = "LOOKASIDE_LIST_EX")]
pub struct LookasideAlloc {
    state: State,
    list: AtomicPtr<List>,
    /// Entries that were freed at too high a level, and leaked.
    lost: AtomicU32,
}

impl LookasideAlloc {
    /// A list that is not initialised. It allocates nothing until [`init`](Self::init).
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::lookaside::LookasideAlloc;
    ///
    /// static LIST: LookasideAlloc = LookasideAlloc::default();
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert!(LIST.alloc().is_err());
    /// # }).expect_clean();
    /// ```
    #[must_use]
    pub const fn default() -> Self {
        Self { state: State::new(), list: AtomicPtr::new(ptr::null_mut()), lost: AtomicU32::new(0) }
    }

    /// Initialises the list, for entries of a size.
    ///
    /// Sizes below that of a pointer are rounded up to it. Without a tag, entries carry [`pool::TAG`](crate::pool::TAG). `flags` are the
    /// kernel's; of the two that it has, the one that makes a failed allocation raise an exception is refused, because nothing in Rust could catch it. Without functions, entries come from
    /// the pool and return to it; with them, `alloc_fn` is called where the list is empty, and `free_fn` where it is full.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`, for both pools.
    ///
    /// # Errors
    /// The list is as it was before, and the error is
    /// - [`LookasideError::AlreadyInitialized`], or [`LookasideError::Busy`] if it is being initialised or destroyed just now;
    /// - [`LookasideError::InvalidSize`], [`InvalidTag`](LookasideError::InvalidTag), [`InvalidFlags`](LookasideError::InvalidFlags) or [`RaiseOnFail`](LookasideError::RaiseOnFail) for
    ///   an argument;
    /// - [`LookasideError::NoMemory`] if there is no pool for the list;
    /// - [`LookasideError::IrqlTooHigh`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::alloc::{Pool, tag};
    /// use ksync::lookaside::{LookasideAlloc, LookasideError};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let list = LookasideAlloc::default();
    /// list.init(64, Pool::Paged, Some(tag(b"Ctx ")), None, None, None).unwrap();
    /// assert_eq!(list.init(64, Pool::Paged, None, None, None, None), Err(LookasideError::AlreadyInitialized));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ExInitializeLookasideListEx`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exinitializelookasidelistex).
    #[doc(alias = "ExInitializeLookasideListEx")]
    pub fn init(
        &self,
        size: usize,
        pool: Pool,
        tag: Option<u32>,
        flags: Option<u32>,
        alloc_fn: Option<AllocateFn>,
        free_fn: Option<FreeFn>,
    ) -> Result<(), LookasideError> {
        let (tag, flags) = (tag.unwrap_or(TAG), flags.unwrap_or(0));
        let size = size.max(size_of::<*mut ()>());
        if u32::try_from(size).is_err() {
            return Err(LookasideError::InvalidSize(size));
        }
        if !alloc::is_valid_tag(tag) {
            return Err(LookasideError::InvalidTag(tag));
        }
        match flags {
            0 | sys::EX_LOOKASIDE_LIST_EX_FLAGS_FAIL_NO_RAISE => {}
            _ if flags & sys::EX_LOOKASIDE_LIST_EX_FLAGS_RAISE_ON_FAIL != 0 => return Err(LookasideError::RaiseOnFail),
            _ => return Err(LookasideError::InvalidFlags(flags)),
        }
        let opening = self.state.open()?;
        let list = List::new(&Settings { size, pool, tag, flags, alloc_fn, free_fn })?;
        self.list.store(KBox::into_raw(list), Ordering::Relaxed);
        // INVARIANT: the pointer is to an initialised list. No entry is out.
        opening.into_ready();
        Ok(())
    }

    /// Destroys the list, and frees the entries that it keeps. A list that is not initialised stays so.
    ///
    /// It can be initialised again.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL` for nonpaged entries, `<= APC_LEVEL` for paged ones.
    ///
    /// # Errors
    /// The list stays usable, and the error is
    /// - [`LookasideError::EntriesOut`] with the number of entries that were not given back, those included that are being allocated just now;
    /// - [`LookasideError::Busy`] if it is being initialised, destroyed, flushed or looked at just now;
    /// - [`LookasideError::IrqlTooHigh`] above these levels.
    ///
    /// # Examples
    /// ```
    /// use allocator_api2::boxed::Box;
    /// use ksync::alloc::Pool;
    /// use ksync::lookaside::{LookasideAlloc, LookasideError};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let list = LookasideAlloc::default();
    /// list.init(8, Pool::NonPaged, None, None, None, None).unwrap();
    /// let number = Box::try_new_in(1_u64, &list).unwrap();
    /// assert_eq!(list.destroy(), Err(LookasideError::EntriesOut(1)));
    /// drop(number);
    /// assert_eq!(list.destroy(), Ok(()));
    /// assert_eq!(list.destroy(), Ok(()));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ExDeleteLookasideListEx`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exdeletelookasidelistex).
    #[doc(alias = "ExDeleteLookasideListEx")]
    pub fn destroy(&self) -> Result<(), LookasideError> {
        let closing = match self.state.close()? {
            Close::Absent => return Ok(()),
            Close::Closing(closing) => closing,
        };
        let pointer = self.list.load(Ordering::Relaxed);
        // SAFETY: by the type's invariant the pointer is to a list in its box; who changes the state has it alone.
        let list = unsafe { KBox::from_raw(pointer) };
        if irql::current() > list.pool().highest_irql() {
            // The box is still the field's.
            let _ = KBox::into_raw(list);
            closing.into_ready();
            return Err(LookasideError::IrqlTooHigh);
        }
        self.list.store(ptr::null_mut(), Ordering::Relaxed);
        // SAFETY: no entry is out and no call is in progress, or the state could not have been closed. The level was checked.
        unsafe { List::delete(list) };
        drop(closing);
        Ok(())
    }

    /// Allocates an entry. Its contents are uninitialised.
    ///
    /// It is as large as the list was initialised for, and aligned to 16 bytes. [`free`](Self::free) gives it back.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL` for nonpaged entries, `<= APC_LEVEL` for paged ones.
    ///
    /// # Errors
    /// - [`LookasideError::Uninitialized`], or [`LookasideError::Busy`] if the list is being initialised or destroyed just now.
    /// - [`LookasideError::NoMemory`].
    /// - [`LookasideError::IrqlTooHigh`] above these levels.
    ///
    /// # Examples
    /// ```
    /// use ksync::alloc::Pool;
    /// use ksync::lookaside::LookasideAlloc;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let list = LookasideAlloc::default();
    /// list.init(32, Pool::NonPaged, None, None, None, None).unwrap();
    /// let entry = list.alloc().unwrap();
    /// // SAFETY: the entry is of this list and is not used any more.
    /// unsafe { list.free(entry) };
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ExAllocateFromLookasideListEx`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exallocatefromlookasidelistex).
    #[doc(alias = "ExAllocateFromLookasideListEx")]
    pub fn alloc(&self) -> Result<NonNull<u8>, LookasideError> {
        self.take(Layout::new::<()>())
    }

    /// Gives an entry back.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL` for nonpaged entries, `<= APC_LEVEL` for paged ones. Above, the entry is leaked, and reported to the debugger.
    ///
    /// # Safety
    /// The entry came from [`alloc`](Self::alloc) of this list, is given back once, and nobody uses it any more.
    ///
    /// # Examples
    /// See [`alloc`](Self::alloc).
    ///
    /// Wraps [`ExFreeToLookasideListEx`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exfreetolookasidelistex).
    #[doc(alias = "ExFreeToLookasideListEx")]
    pub unsafe fn free(&self, entry: NonNull<u8>) {
        // SAFETY: the entry is out, as the caller vouches, and so is counted. It is given up here.
        let hold = unsafe { self.state.resume(Unit::Entry) };
        let list = self.list(&hold);
        if !report::can_free(list.pool(), entry) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // SAFETY: the entry came from the list, as the caller vouches, and the level was checked.
        unsafe { list.put(entry) };
    }

    /// Frees the entries that the list keeps.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL` for nonpaged entries, `<= APC_LEVEL` for paged ones.
    ///
    /// # Errors
    /// - [`LookasideError::Uninitialized`], or [`LookasideError::Busy`] if the list is being initialised or destroyed just now.
    /// - [`LookasideError::IrqlTooHigh`] above these levels.
    ///
    /// # Examples
    /// ```
    /// use allocator_api2::boxed::Box;
    /// use ksync::alloc::Pool;
    /// use ksync::lookaside::LookasideAlloc;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let list = LookasideAlloc::default();
    /// list.init(8, Pool::NonPaged, None, None, None, None).unwrap();
    /// drop(Box::try_new_in(1_u64, &list).unwrap());
    /// assert_eq!(list.statistics().unwrap().kept, 1);
    /// list.flush().unwrap();
    /// assert_eq!(list.statistics().unwrap().kept, 0);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ExFlushLookasideListEx`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exflushlookasidelistex).
    #[doc(alias = "ExFlushLookasideListEx")]
    pub fn flush(&self) -> Result<(), LookasideError> {
        let hold = self.state.enter(Unit::Visitor)?;
        let list = self.list(&hold);
        if irql::current() > list.pool().highest_irql() {
            return Err(LookasideError::IrqlTooHigh);
        }
        // SAFETY: the level was checked.
        unsafe { list.flush() };
        Ok(())
    }

    /// The list's figures. Other processors may have changed them when the caller looks.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Errors
    /// [`LookasideError::Uninitialized`], or [`LookasideError::Busy`] if the list is being initialised or destroyed just now.
    ///
    /// # Examples
    /// ```
    /// use allocator_api2::boxed::Box;
    /// use ksync::alloc::Pool;
    /// use ksync::lookaside::LookasideAlloc;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let list = LookasideAlloc::default();
    /// list.init(8, Pool::NonPaged, None, None, None, None).unwrap();
    /// for n in 0..3_u64 {
    ///     drop(Box::try_new_in(n, &list).unwrap());
    /// }
    /// let figures = list.statistics().unwrap();
    /// assert_eq!((figures.allocates, figures.allocate_misses, figures.allocate_hits()), (3, 1, 2));
    /// # }).expect_clean();
    /// ```
    #[doc(alias = "TotalAllocates")]
    #[doc(alias = "AllocateMisses")]
    pub fn statistics(&self) -> Result<Statistics, LookasideError> {
        let hold = self.state.enter(Unit::Visitor)?;
        Ok(self.list(&hold).statistics(self.entries(), self.lost.load(Ordering::Relaxed)))
    }

    /// How many entries are out, those included that are being allocated just now.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::alloc::Pool;
    /// use ksync::lookaside::LookasideAlloc;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let list = LookasideAlloc::default();
    /// list.init(8, Pool::NonPaged, None, None, None, None).unwrap();
    /// assert_eq!(list.entries(), 0);
    /// # }).expect_clean();
    /// ```
    #[must_use]
    pub fn entries(&self) -> u32 {
        self.state.entries()
    }

    /// The size of an entry; `None` if the list is not initialised.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::alloc::Pool;
    /// use ksync::lookaside::LookasideAlloc;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let list = LookasideAlloc::default();
    /// assert_eq!(list.entry_size(), None);
    /// list.init(40, Pool::NonPaged, None, None, None, None).unwrap();
    /// assert_eq!(list.entry_size(), Some(40));
    /// # }).expect_clean();
    /// ```
    #[must_use]
    pub fn entry_size(&self) -> Option<usize> {
        let hold = self.state.enter(Unit::Visitor).ok()?;
        Some(self.list(&hold).size())
    }

    /// Takes an entry, if the layout fits into one.
    fn take(&self, layout: Layout) -> Result<NonNull<u8>, LookasideError> {
        let hold = self.state.enter(Unit::Entry)?;
        let list = self.list(&hold);
        if !list.fits(layout) {
            return Err(LookasideError::DoesNotFit(layout));
        }
        if irql::current() > list.pool().highest_irql() {
            return Err(LookasideError::IrqlTooHigh);
        }
        // SAFETY: the level was checked.
        let entry = unsafe { list.take() }.ok_or(LookasideError::NoMemory)?;
        // INVARIANT: the entry is out now, and stays counted.
        hold.keep();
        Ok(entry)
    }

    /// The list, for who has a hold on it.
    fn list<'a>(&'a self, _hold: &'a Hold<'_>) -> &'a List {
        let list = self.list.load(Ordering::Relaxed);
        // SAFETY: a hold is given where the state is ready, and keeps it so. By the type's invariant the pointer is to a list then.
        unsafe { &*list }
    }

    /// The list, for who has an entry of it.
    ///
    /// # Safety
    /// An entry is out that stays out for as long as the reference is used.
    unsafe fn list_of_entry(&self) -> &List {
        let list = self.list.load(Ordering::Relaxed);
        // SAFETY: by this function's contract an entry is out, and so counted, which keeps the state ready. The count was made before the caller got the entry.
        unsafe { &*list }
    }

    /// Tells whether an entry can be freed at the present level.
    ///
    /// # Safety
    /// An entry is out.
    unsafe fn can_free(&self) -> bool {
        // SAFETY: by this function's contract.
        let list = unsafe { self.list_of_entry() };
        irql::current() <= list.pool().highest_irql()
    }
}

impl Default for LookasideAlloc {
    fn default() -> Self {
        Self::default()
    }
}

impl fmt::Debug for LookasideAlloc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("LookasideAlloc");
        match self.statistics() {
            Ok(statistics) => debug.field("entry_size", &self.entry_size()).field("statistics", &statistics).finish(),
            Err(error) => debug.field("state", &error).finish(),
        }
    }
}

// SAFETY: an entry is memory of the size and alignment that `fits` compared with, and is nobody else's while it is out. While one is out the list is not
// deleted, except by dropping it, and dropping it leaves entries that are out alone. The list lies in a box, so that this can be moved; it cannot be copied.
unsafe impl Memory for LookasideAlloc {
    fn obtain(&self, layout: Layout, zeroed: bool) -> Option<NonNull<u8>> {
        if layout.size() == 0 {
            return Some(layout.dangling_ptr());
        }
        let entry = self.take(layout).ok()?;
        if zeroed {
            // SAFETY: the entry is as large as the layout, and fresh.
            unsafe { entry.write_bytes(0, layout.size()) };
        }
        Some(entry)
    }

    unsafe fn give_back(&self, memory: NonNull<u8>, layout: Layout) {
        if layout.size() != 0 {
            // SAFETY: by the caller's contract the memory came from `obtain`, which for such a layout is an entry.
            unsafe { self.free(memory) };
        }
    }

    unsafe fn resize_in_place(&self, _: NonNull<u8>, _: Layout, new: Layout) -> bool {
        // SAFETY: by the caller's contract the memory came from `obtain` for a layout with a size, so that it is an entry that is out.
        unsafe { self.list_of_entry() }.fits(new)
    }
}

implement_allocator!([] LookasideAlloc);

impl Drop for LookasideAlloc {
    /// Deletes the list. Entries that are out, and forgotten, are leaked.
    fn drop(&mut self) {
        let list = *self.list.get_mut();
        if list.is_null() {
            return;
        }
        // SAFETY: by the type's invariant a pointer that is not null is to a list in its box, and nobody else uses this any more.
        let list = ManuallyDrop::new(unsafe { KBox::from_raw(list) });
        let level = irql::current();
        if level > list.pool().highest_irql() {
            report::leaked(ptr::from_ref(&**list).cast(), level);
            return;
        }
        if self.entries() != 0 {
            list::report_entries_out(&list, self.entries());
        }
        // SAFETY: nobody uses the list any more: who has forgotten an entry cannot give it back, because that takes a reference to this. The level was checked.
        unsafe { List::delete(ManuallyDrop::into_inner(list)) };
    }
}
