//! Functions of the driver's own from which a list gets entries.

use core::fmt;

use ksync_sys as sys;

/// A function that a list calls for a new entry when it keeps none.
///
/// # Examples
/// ```
/// use core::ffi::c_void;
/// use ksync::alloc::Pool;
/// use ksync::lookaside::{AllocateFn, LookasideAlloc};
/// use ksync::sys;
///
/// unsafe extern "system-unwind" fn allocate(
///     pool: sys::POOL_TYPE,
///     size: usize,
///     tag: u32,
///     _: *mut sys::LOOKASIDE_LIST_EX,
/// ) -> *mut c_void {
///     ksync::println!("{size} bytes");
///     // SAFETY: the list passes what it was initialised with, at a level at which its pool can be allocated.
///     unsafe { sys::ExAllocatePoolWithTag(pool, size, tag) }
/// }
///
/// # let outcome = ksim::Machine::new().run(|| {
/// let list = LookasideAlloc::default();
/// // SAFETY: the function returns what it got from the pool.
/// let allocate = unsafe { AllocateFn::new(allocate) };
/// list.init(40, Pool::NonPaged, None, None, Some(allocate), None).unwrap();
/// let entry = list.alloc().unwrap();
/// // SAFETY: the entry is of this list and is not used any more.
/// unsafe { list.free(entry) };
/// # });
/// # assert_eq!(outcome.debug_output(), ["40 bytes"]);
/// # outcome.expect_clean();
/// ```
#[derive(Clone, Copy)]
#[doc(alias = "ALLOCATE_FUNCTION_EX")]
pub struct AllocateFn(sys::ALLOCATE_FUNCTION_EX);

impl AllocateFn {
    /// Vouches for a function.
    ///
    /// It is called at the level of the allocation, from any thread, and on several processors at once.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Safety
    /// Called with a pool type, a size, a tag and a list, at a level at which that pool can be allocated, the function returns null or a block of at least that size, of that pool, that
    /// `ExAllocatePoolWithTag` or `ExAllocatePool2` returned: so that every [`FreeFn`] takes it, and the system's `ExFreePool`, too. The function stays as long as a list that has it.
    ///
    /// # Examples
    /// See [`AllocateFn`].
    #[must_use]
    pub const unsafe fn new(function: sys::ALLOCATE_FUNCTION_EX) -> Self {
        Self(function)
    }

    /// The function.
    pub(super) fn get(self) -> sys::ALLOCATE_FUNCTION_EX {
        self.0
    }
}

impl fmt::Debug for AllocateFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AllocateFn").field(&(self.0 as *const ())).finish()
    }
}

/// A function that a list calls with an entry for which it has no room, or that it does not keep any longer.
///
/// # Examples
/// ```
/// use core::ffi::c_void;
/// use ksync::alloc::Pool;
/// use ksync::lookaside::{FreeFn, LookasideAlloc};
/// use ksync::sys;
///
/// unsafe extern "system-unwind" fn free(entry: *mut c_void, _: *mut sys::LOOKASIDE_LIST_EX) {
///     ksync::println!("one less");
///     // SAFETY: the list passes an entry, which is pool.
///     unsafe { sys::ExFreePool(entry) };
/// }
///
/// # let outcome = ksim::Machine::new().run(|| {
/// let list = LookasideAlloc::default();
/// // SAFETY: the function gives everything to the pool.
/// let free = unsafe { FreeFn::new(free) };
/// list.init(40, Pool::NonPaged, None, None, None, Some(free)).unwrap();
/// let entry = list.alloc().unwrap();
/// // SAFETY: the entry is of this list and is not used any more.
/// unsafe { list.free(entry) };
/// list.flush().unwrap();
/// # });
/// # assert_eq!(outcome.debug_output(), ["one less"]);
/// # outcome.expect_clean();
/// ```
#[derive(Clone, Copy)]
#[doc(alias = "FREE_FUNCTION_EX")]
pub struct FreeFn(sys::FREE_FUNCTION_EX);

impl FreeFn {
    /// Vouches for a function.
    ///
    /// It is called at the level of the release, of the flush or of the destruction, from any thread, and on several processors at once.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Safety
    /// Called with a block that `ExAllocatePoolWithTag` or `ExAllocatePool2` returned, with whatever tag, at a level at which it can be freed, the function frees it, or does with it whatever
    /// its owner may. The function stays as long as a list that has it.
    ///
    /// # Examples
    /// See [`FreeFn`].
    #[must_use]
    pub const unsafe fn new(function: sys::FREE_FUNCTION_EX) -> Self {
        Self(function)
    }

    /// The function.
    pub(super) fn get(self) -> sys::FREE_FUNCTION_EX {
        self.0
    }
}

impl fmt::Debug for FreeFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FreeFn").field(&(self.0 as *const ())).finish()
    }
}
