//! Lookaside lists.

#[cfg(target_arch = "aarch64")]
use crate::{FAST_MUTEX, KSPIN_LOCK};
use crate::{LIST_ENTRY, POOL_TYPE, PVOID, SIZE_T, SLIST_HEADER, ULONG, USHORT};

/// Allocates for a classic lookaside list.
pub type ALLOCATE_FUNCTION = unsafe extern "system-unwind" fn(PoolType: POOL_TYPE, NumberOfBytes: SIZE_T, Tag: ULONG) -> PVOID;
/// An [`ALLOCATE_FUNCTION`], or null for the pool.
pub type PALLOCATE_FUNCTION = Option<ALLOCATE_FUNCTION>;
/// Frees for a classic lookaside list.
pub type FREE_FUNCTION = unsafe extern "system-unwind" fn(Buffer: PVOID);
/// A [`FREE_FUNCTION`], or null for the pool.
pub type PFREE_FUNCTION = Option<FREE_FUNCTION>;
/// Allocates for a [`LOOKASIDE_LIST_EX`].
pub type ALLOCATE_FUNCTION_EX = unsafe extern "system-unwind" fn(
    PoolType: POOL_TYPE,
    NumberOfBytes: SIZE_T,
    Tag: ULONG,
    Lookaside: *mut LOOKASIDE_LIST_EX,
) -> PVOID;
/// An [`ALLOCATE_FUNCTION_EX`], or null for the pool.
pub type PALLOCATE_FUNCTION_EX = Option<ALLOCATE_FUNCTION_EX>;
/// Frees for a [`LOOKASIDE_LIST_EX`].
pub type FREE_FUNCTION_EX = unsafe extern "system-unwind" fn(Buffer: PVOID, Lookaside: *mut LOOKASIDE_LIST_EX);
/// A [`FREE_FUNCTION_EX`], or null for the pool.
pub type PFREE_FUNCTION_EX = Option<FREE_FUNCTION_EX>;

/// Where a list gets entries; which member counts depends on the kind of list.
#[repr(C)]
#[derive(Clone, Copy)]
pub union LOOKASIDE_ALLOCATE {
    /// Of a [`LOOKASIDE_LIST_EX`].
    pub AllocateEx: PALLOCATE_FUNCTION_EX,
    /// Of a classic list.
    pub Allocate: PALLOCATE_FUNCTION,
}

impl core::fmt::Debug for LOOKASIDE_ALLOCATE {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("LOOKASIDE_ALLOCATE(..)")
    }
}

/// Where a list returns entries to; which member counts depends on the kind of list.
#[repr(C)]
#[derive(Clone, Copy)]
pub union LOOKASIDE_FREE {
    /// Of a [`LOOKASIDE_LIST_EX`].
    pub FreeEx: PFREE_FUNCTION_EX,
    /// Of a classic list.
    pub Free: PFREE_FUNCTION,
}

impl core::fmt::Debug for LOOKASIDE_FREE {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("LOOKASIDE_FREE(..)")
    }
}

/// What every lookaside list holds.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct GENERAL_LOOKASIDE_POOL {
    /// The entries kept for reuse.
    pub ListHead: SLIST_HEADER,
    /// How many entries to keep; the system adjusts it.
    pub Depth: USHORT,
    /// The bound of that.
    pub MaximumDepth: USHORT,
    /// How many entries were asked for.
    pub TotalAllocates: ULONG,
    /// How many of them were not at hand (in some lists of the system: were).
    pub AllocateMisses: ULONG,
    /// How many entries were given back.
    pub TotalFrees: ULONG,
    /// How many of them were not kept (in some lists of the system: were).
    pub FreeMisses: ULONG,
    /// The pool that entries come from.
    pub Type: POOL_TYPE,
    /// The tag of entries.
    pub Tag: ULONG,
    /// The size of an entry in bytes.
    pub Size: ULONG,
    /// Where new entries come from.
    pub Allocate: LOOKASIDE_ALLOCATE,
    /// Where entries beyond the depth go.
    pub Free: LOOKASIDE_FREE,
    /// The entry in the system's list of lookaside lists.
    pub ListEntry: LIST_ENTRY,
    /// [`TotalAllocates`](Self::TotalAllocates) when the depth was last adjusted.
    pub LastTotalAllocates: ULONG,
    /// [`AllocateMisses`](Self::AllocateMisses) when the depth was last adjusted.
    pub LastAllocateMisses: ULONG,
    /// Unused.
    pub Future: [ULONG; 2],
}

/// What the classic lists hold: the same, aligned to a cache line.
#[repr(C)]
#[cfg_attr(target_arch = "aarch64", repr(align(128)))]
#[cfg_attr(not(target_arch = "aarch64"), repr(align(64)))]
#[derive(Clone, Copy, Debug)]
pub struct GENERAL_LOOKASIDE {
    /// C repeats the fields here.
    pub P: GENERAL_LOOKASIDE_POOL,
}

/// A lookaside list of the newer kind, for paged or nonpaged entries.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LOOKASIDE_LIST_EX {
    /// All of it.
    pub L: GENERAL_LOOKASIDE_POOL,
}

/// A classic lookaside list for nonpaged entries.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NPAGED_LOOKASIDE_LIST {
    /// The list.
    pub L: GENERAL_LOOKASIDE,
    /// Unused; not on x86-64.
    #[cfg(target_arch = "aarch64")]
    pub Lock__ObsoleteButDoNotDelete: KSPIN_LOCK,
}

/// A classic lookaside list for paged entries.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PAGED_LOOKASIDE_LIST {
    /// The list.
    pub L: GENERAL_LOOKASIDE,
    /// Unused; not on x86-64.
    #[cfg(target_arch = "aarch64")]
    pub Lock__ObsoleteButDoNotDelete: FAST_MUTEX,
}

/// Raise an exception instead of returning null.
pub const EX_LOOKASIDE_LIST_EX_FLAGS_RAISE_ON_FAIL: ULONG = 1;
/// Return null on failure although the pool type says to raise.
pub const EX_LOOKASIDE_LIST_EX_FLAGS_FAIL_NO_RAISE: ULONG = 2;

layout! {
    GENERAL_LOOKASIDE_POOL: 96, ListHead @ 0, Depth @ 16, MaximumDepth @ 18, TotalAllocates @ 20, AllocateMisses @ 24, TotalFrees @ 28,
        FreeMisses @ 32, Type @ 36, Tag @ 40, Size @ 44, Allocate @ 48, Free @ 56, ListEntry @ 64, LastTotalAllocates @ 80,
        LastAllocateMisses @ 84, Future @ 88;
    LOOKASIDE_LIST_EX: 96, L @ 0;
    GENERAL_LOOKASIDE: 128;
}

#[cfg(not(target_arch = "aarch64"))]
layout! {
    NPAGED_LOOKASIDE_LIST: 128;
    PAGED_LOOKASIDE_LIST: 128;
}

#[cfg(target_arch = "aarch64")]
layout! {
    NPAGED_LOOKASIDE_LIST: 256, Lock__ObsoleteButDoNotDelete @ 128;
    PAGED_LOOKASIDE_LIST: 256, Lock__ObsoleteButDoNotDelete @ 128;
}

const _: () = assert!(align_of::<LOOKASIDE_LIST_EX>() == 16, "the alignment of LOOKASIDE_LIST_EX");
