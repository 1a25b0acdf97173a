//! Pool as a memory allocator: for collections, for one's own boxes, and for the whole driver.
//!
//! | | for |
//! |---|---|
//! | [`NonPaged`], [`Paged`] | collections that take an allocator, such as `allocator_api2`'s `Box` and `Vec` |
//! | [`PoolAlloc`] | `#[global_allocator]`, after which Rust's own `alloc` crate works in a driver |
//! | [`KBox`](crate::pool::KBox) | one value in nonpaged pool, with no other crate |
//! | [`lookaside`](crate::lookaside) | many values of one size |
//!
//! All of them honour any alignment. The pool aligns to 16 bytes; for more, a larger block is taken and cut to measure.
//!
//! # Levels
//! Nonpaged pool can be allocated and freed at `<= DISPATCH_LEVEL`, paged pool at `<= APC_LEVEL`. An allocation above its level fails like one that finds no
//! memory. A release above its level cannot fail: the memory is leaked, and reported to the debugger.
//!
//! Paged memory may itself be touched at `<= APC_LEVEL` only. This library cannot check each access: what lies in paged pool is for code that runs below `DISPATCH_LEVEL`.
//! Locks, cells and the like raise the level while they touch themselves, so they do not belong there either. Memory that is not there when it is touched at `DISPATCH_LEVEL` is the bug check `IRQL_NOT_LESS_OR_EQUAL`.
//!
//! # When memory runs out
//! The methods that can fail without ending the driver are those that return a `Result`: `Box::try_new_in`, `Vec::try_reserve` and the like. The others
//! (`Box::new_in`, `Vec::push` beyond the capacity) call Rust's allocation error handler, which in a driver means a bug check.
//!
//! # Features
//! - `alloc` turns on the collections of `allocator_api2`, and re-exports them here as `boxed`, `vec` and `collections`. They link Rust's `alloc` crate, which needs a `#[global_allocator]`
//!   in the driver, even if nothing uses it: [`PoolAlloc`] is one.
//! - `nightly` implements the unstable trait `core::alloc::Allocator` as well, which Rust's own `Box` and `Vec` take. It needs a nightly compiler.

pub(crate) mod forward;
pub(crate) mod memory;
pub(crate) mod raw;
pub(crate) mod report;

use core::alloc::{GlobalAlloc, Layout};
use core::fmt;
use core::ptr::{self, NonNull};

use ksync_sys as sys;

use crate::irql::Irql;
use crate::pool::TAG as DEFAULT_TAG;
use forward::implement_allocator;
use memory::Memory;

#[cfg(feature = "alloc")]
pub use allocator_api2::{boxed, collections, vec};

pub use allocator_api2::alloc::{AllocError, Allocator};

/// Which pool memory comes from.
///
/// # Examples
/// ```
/// use ksync::alloc::Pool;
/// use ksync::irql::Irql;
///
/// assert_eq!(Pool::Paged.highest_irql(), Irql::APC);
/// assert_eq!(Pool::NonPaged.pool_type(), ksync::sys::NonPagedPoolNx);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[doc(alias = "POOL_TYPE")]
pub enum Pool {
    /// Memory that is always there, and is not executable: `NonPagedPoolNx`.
    NonPaged,
    /// Memory that can be paged out, and is touched below `DISPATCH_LEVEL` only: `PagedPool`.
    Paged,
}

impl Pool {
    /// The highest level at which this pool can be allocated and freed.
    ///
    /// # IRQL
    /// Any.
    #[must_use]
    #[inline]
    pub const fn highest_irql(self) -> Irql {
        match self {
            Self::NonPaged => Irql::DISPATCH,
            Self::Paged => Irql::APC,
        }
    }

    /// NT's number for it.
    ///
    /// # IRQL
    /// Any.
    #[must_use]
    #[inline]
    pub const fn pool_type(self) -> sys::POOL_TYPE {
        match self {
            Self::NonPaged => sys::NonPagedPoolNx,
            Self::Paged => sys::PagedPool,
        }
    }

    /// What `ExAllocatePool2` calls it.
    pub(crate) const fn flags(self) -> sys::POOL_FLAGS {
        match self {
            Self::NonPaged => sys::POOL_FLAG_NON_PAGED,
            Self::Paged => sys::POOL_FLAG_PAGED,
        }
    }
}

/// Makes a pool tag from its four characters, in the order in which a debugger shows them.
///
/// # IRQL
/// Any; usually run by the compiler.
///
/// # Examples
/// ```
/// use ksync::alloc::tag;
///
/// assert_eq!(tag(b"ksyn"), ksync::pool::TAG);
/// ```
#[must_use]
pub const fn tag(text: &[u8; 4]) -> u32 {
    u32::from_le_bytes(*text)
}

/// Tells whether the pool takes a tag: four printable ASCII characters, a letter or digit among them, and not `BIG`.
///
/// The system and Driver Verifier check for what this excludes with bug check `0xC2`.
///
/// # IRQL
/// Any; usually run by the compiler.
///
/// # Examples
/// ```
/// use ksync::alloc::{is_valid_tag, tag};
///
/// assert!(is_valid_tag(tag(b"Tour")));
/// assert!(!is_valid_tag(0) && !is_valid_tag(tag(b"BIG ")) && !is_valid_tag(tag(b"****")));
/// ```
#[must_use]
pub const fn is_valid_tag(tag: u32) -> bool {
    let text = tag.to_le_bytes();
    let (mut has_alphanumeric, mut i) = (false, 0);
    while i < text.len() {
        if !matches!(text[i], b' '..=b'~') {
            return false;
        }
        has_alphanumeric |= text[i].is_ascii_alphanumeric();
        i += 1;
    }
    has_alphanumeric && !matches!(&text, b"BIG ")
}

mod sealed {
    /// Keeps [`PoolAllocator`](super::PoolAllocator) to the two that there are.
    pub trait Sealed {}
    impl<const TAG: u32> Sealed for super::NonPaged<TAG> {}
    impl<const TAG: u32> Sealed for super::Paged<TAG> {}
}

/// What [`NonPaged`] and [`Paged`] have in common. There are no others.
pub trait PoolAllocator: Allocator + Copy + Default + Send + Sync + 'static + sealed::Sealed {
    /// The pool that its memory comes from.
    const POOL: Pool;
    /// The tag that its memory carries.
    const TAG: u32;
}

/// Nonpaged pool as an allocator.
///
/// It takes no room in a collection, because the tag is part of the type. A tag that the pool would refuse does not compile.
///
/// # IRQL
/// Allocates and frees at `<= DISPATCH_LEVEL`. Above it, allocations fail and releases leak; see [the module](self#levels).
///
/// # Examples
/// ```
/// use allocator_api2::boxed::Box;
/// use allocator_api2::vec::Vec;
/// use ksync::alloc::{NonPaged, tag};
///
/// # ksim::Machine::new().run(|| {
/// let number = Box::try_new_in(5, NonPaged::new()).unwrap();
/// let mut numbers = Vec::new_in(NonPaged::<{ tag(b"Tour") }>::tagged());
/// numbers.try_reserve(1).unwrap();
/// numbers.push(*number);
/// assert_eq!(numbers[..], [5]);
/// # }).expect_clean();
/// ```
///
/// A tag that the pool would refuse:
/// ```compile_fail
/// # use ksync::alloc::{NonPaged, tag};
/// let allocator = NonPaged::<{ tag(b"BIG ") }>::tagged();
/// ```
///
/// Wraps [`ExAllocatePool2`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exallocatepool2).
#[doc(alias = "ExAllocatePool2")]
#[doc(alias = "ExAllocatePoolWithTag")]
#[doc(alias = "ExFreePoolWithTag")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NonPaged<const TAG: u32 = DEFAULT_TAG>(());

/// Paged pool as an allocator.
///
/// It takes no room in a collection, because the tag is part of the type. A tag that the pool would refuse does not compile.
///
/// # IRQL
/// Allocates and frees at `<= APC_LEVEL`, at which the memory may be touched, too. Above it, allocations fail and releases leak; see [the module](self#levels).
///
/// # Examples
/// ```
/// use allocator_api2::vec::Vec;
/// use ksync::alloc::Paged;
/// use ksync::irql::{self, Irql};
///
/// # ksim::Machine::new().run(|| {
/// let mut numbers = Vec::new_in(Paged::new());
/// numbers.try_reserve(100).unwrap();
/// numbers.extend(0..100);
///
/// // There is no paged memory at DISPATCH_LEVEL, and no bug check either.
/// let mut none = Vec::<u8, _>::new_in(Paged::new());
/// irql::with_raised(Irql::DISPATCH, || assert!(none.try_reserve(1).is_err())).unwrap();
/// # }).expect_clean();
/// ```
///
/// Wraps [`ExAllocatePool2`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exallocatepool2).
#[doc(alias = "ExAllocatePool2")]
#[doc(alias = "ExAllocatePoolWithTag")]
#[doc(alias = "ExFreePoolWithTag")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Paged<const TAG: u32 = DEFAULT_TAG>(());

/// Nonpaged pool as the global allocator: [`NonPaged`] under the name that says so.
///
/// With it in a driver, `Box`, `Vec`, `String`, `format!` and everything else in Rust's `alloc` crate works, at `<= DISPATCH_LEVEL`.
///
/// # Examples
/// ```
/// use ksync::alloc::PoolAlloc;
///
/// // Drivers abort on panic. Hosted, the process keeps its own allocator.
/// #[cfg_attr(panic = "abort", global_allocator)]
/// static ALLOCATOR: PoolAlloc = PoolAlloc::new();
/// # // What it does:
/// # use std::alloc::{GlobalAlloc, Layout};
/// # ksim::Machine::new().run(|| {
/// # let layout = Layout::from_size_align(100, 64).unwrap();
/// # let memory = unsafe { ALLOCATOR.alloc(layout) };
/// # assert!(!memory.is_null() && memory.addr() % 64 == 0);
/// # unsafe { ALLOCATOR.dealloc(memory, layout) };
/// # }).expect_clean();
/// ```
pub type PoolAlloc<const TAG: u32 = DEFAULT_TAG> = NonPaged<TAG>;

impl NonPaged {
    /// The allocator whose memory carries the tag of this library.
    ///
    /// # IRQL
    /// Any.
    #[must_use]
    #[inline]
    pub const fn new() -> Self {
        Self::tagged()
    }
}

impl<const TAG: u32> NonPaged<TAG> {
    /// The allocator whose memory carries the tag of the type.
    ///
    /// # IRQL
    /// Any.
    #[must_use]
    #[inline]
    pub const fn tagged() -> Self {
        const { assert!(is_valid_tag(TAG), "the pool takes no such tag") };
        Self(())
    }
}

impl Paged {
    /// The allocator whose memory carries the tag of this library.
    ///
    /// # IRQL
    /// Any.
    #[must_use]
    #[inline]
    pub const fn new() -> Self {
        Self::tagged()
    }
}

impl<const TAG: u32> Paged<TAG> {
    /// The allocator whose memory carries the tag of the type.
    ///
    /// # IRQL
    /// Any.
    #[must_use]
    #[inline]
    pub const fn tagged() -> Self {
        const { assert!(is_valid_tag(TAG), "the pool takes no such tag") };
        Self(())
    }
}

impl<const TAG: u32> PoolAllocator for NonPaged<TAG> {
    const POOL: Pool = Pool::NonPaged;
    const TAG: u32 = TAG;
}

impl<const TAG: u32> PoolAllocator for Paged<TAG> {
    const POOL: Pool = Pool::Paged;
    const TAG: u32 = TAG;
}

impl<const TAG: u32> Default for NonPaged<TAG> {
    fn default() -> Self {
        Self::tagged()
    }
}

impl<const TAG: u32> Default for Paged<TAG> {
    fn default() -> Self {
        Self::tagged()
    }
}

impl<const TAG: u32> fmt::Debug for NonPaged<TAG> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NonPaged({})", TagText(TAG))
    }
}

impl<const TAG: u32> fmt::Debug for Paged<TAG> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Paged({})", TagText(TAG))
    }
}

/// Prints a tag as its characters.
pub(crate) struct TagText(pub(crate) u32);

impl fmt::Display for TagText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0.to_le_bytes().escape_ascii())
    }
}

// SAFETY: memory comes from the pool, which serves each layout with a block of its own that stays until it is freed. All values of one type are one allocator.
unsafe impl<A: PoolAllocator> Memory for A {
    fn obtain(&self, layout: Layout, zeroed: bool) -> Option<NonNull<u8>> {
        raw::allocate(A::POOL, A::TAG, layout, zeroed).ok()
    }

    unsafe fn give_back(&self, memory: NonNull<u8>, layout: Layout) {
        if layout.size() != 0 && !report::can_free(A::POOL, memory) {
            return;
        }
        // SAFETY: the memory came from `obtain`, which allocates with this tag, and with this layout or, by `resize_in_place`, with one of
        // which the same beginning is found. The level was checked.
        unsafe { raw::free(A::TAG, memory, layout) };
    }

    unsafe fn resize_in_place(&self, memory: NonNull<u8>, old: Layout, new: Layout) -> bool {
        raw::can_stay(memory, old, new)
    }
}

implement_allocator!([const TAG: u32] NonPaged<TAG>);
implement_allocator!([const TAG: u32] Paged<TAG>);

// SAFETY: the methods do what `Memory` asks of them, which is what a global allocator needs; none of them unwinds, or allocates by the global allocator.
unsafe impl<const TAG: u32> GlobalAlloc for NonPaged<TAG> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.obtain(layout, false).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.obtain(layout, true).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if let Some(memory) = NonNull::new(memory) {
            // SAFETY: by the caller's contract the memory is one of this allocator's, with this layout.
            unsafe { self.give_back(memory, layout) };
        }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let (Some(memory), Ok(new)) = (NonNull::new(memory), Layout::from_size_align(new_size, layout.align())) else {
            return ptr::null_mut();
        };
        // SAFETY: by the caller's contract the memory is one of this allocator's, with this layout.
        unsafe { memory::resize(self, memory, layout, new, false) }.map_or(ptr::null_mut(), NonNull::as_ptr)
    }
}
