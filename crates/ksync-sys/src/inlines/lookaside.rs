//! Interlocked singly linked lists by their documented names, and the fast paths of lookaside lists.

use crate::{
    ExQueryDepthSList, ExpInterlockedFlushSList, ExpInterlockedPopEntrySList, ExpInterlockedPushEntrySList,
    GENERAL_LOOKASIDE_POOL, LOOKASIDE_LIST_EX, NPAGED_LOOKASIDE_LIST, PAGED_LOOKASIDE_LIST, PVOID, SIZE_T, SLIST_ENTRY,
    SLIST_HEADER, ULONG, USHORT,
};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

/// Takes the first entry; null if there is none.
///
/// # IRQL
/// Any level, if the entries are nonpaged.
///
/// # Safety
/// As for every routine.
#[inline]
pub unsafe fn InterlockedPopEntrySList(ListHead: *mut SLIST_HEADER) -> *mut SLIST_ENTRY {
    // SAFETY: by the caller's contract.
    unsafe { ExpInterlockedPopEntrySList(ListHead) }
}

/// Puts an entry first and returns the one that was.
///
/// # IRQL
/// Any level, if the entries are nonpaged.
///
/// # Safety
/// As for every routine.
#[inline]
pub unsafe fn InterlockedPushEntrySList(ListHead: *mut SLIST_HEADER, ListEntry: *mut SLIST_ENTRY) -> *mut SLIST_ENTRY {
    // SAFETY: by the caller's contract.
    unsafe { ExpInterlockedPushEntrySList(ListHead, ListEntry) }
}

/// Takes all entries.
///
/// # IRQL
/// Any level, if the entries are nonpaged.
///
/// # Safety
/// As for every routine.
#[inline]
pub unsafe fn InterlockedFlushSList(ListHead: *mut SLIST_HEADER) -> *mut SLIST_ENTRY {
    // SAFETY: by the caller's contract.
    unsafe { ExpInterlockedFlushSList(ListHead) }
}

/// Adds one to a statistic. Like C's `+= 1`, it may lose an update to another processor.
///
/// # Safety
/// `counter` is valid.
#[inline]
unsafe fn count(counter: *mut ULONG) {
    // SAFETY: the counters of a lookaside list are aligned, valid, and written in this way only.
    let counter = unsafe { AtomicU32::from_ptr(counter) };
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// Takes a kept entry, or null.
///
/// # Safety
/// `list` is initialised.
#[inline]
unsafe fn allocate(list: *mut GENERAL_LOOKASIDE_POOL) -> PVOID {
    // SAFETY: the field lies in the list.
    let allocates = unsafe { &raw mut (*list).TotalAllocates };
    // SAFETY: it is a counter of the list.
    unsafe { count(allocates) };
    // SAFETY: the field lies in the list.
    let head = unsafe { &raw mut (*list).ListHead };
    // SAFETY: the list is initialised.
    let entry = unsafe { ExpInterlockedPopEntrySList(head) };
    if entry.is_null() {
        // SAFETY: the field lies in the list.
        let misses = unsafe { &raw mut (*list).AllocateMisses };
        // SAFETY: it is a counter of the list.
        unsafe { count(misses) };
    }
    entry.cast()
}

/// Keeps an entry; false if there are enough.
///
/// # Safety
/// `list` is initialised, and `entry` came from it and is the caller's.
#[inline]
unsafe fn free(list: *mut GENERAL_LOOKASIDE_POOL, entry: PVOID) -> bool {
    // SAFETY: the field lies in the list.
    let frees = unsafe { &raw mut (*list).TotalFrees };
    // SAFETY: it is a counter of the list.
    unsafe { count(frees) };
    // SAFETY: the field lies in the list.
    let head = unsafe { &raw mut (*list).ListHead };
    // SAFETY: the field lies in the list.
    let depth: *mut USHORT = unsafe { &raw mut (*list).Depth };
    // SAFETY: the field is aligned and valid; the system adjusts it from other processors.
    let depth = unsafe { AtomicU16::from_ptr(depth) }.load(Ordering::Relaxed);
    // SAFETY: the list is initialised.
    let kept = unsafe { ExQueryDepthSList(head) };
    if kept >= depth {
        // SAFETY: the field lies in the list.
        let misses = unsafe { &raw mut (*list).FreeMisses };
        // SAFETY: it is a counter of the list.
        unsafe { count(misses) };
        return false;
    }
    // SAFETY: the entry is the caller's to give back, and at least as large and aligned as a list entry.
    unsafe { ExpInterlockedPushEntrySList(head, entry.cast()) };
    true
}

/// Allocates from a list's own routine, or returns null if it has none, which an initialised list always has.
///
/// # Safety
/// `list` is initialised, as a classic list.
#[inline]
unsafe fn allocate_more(list: *mut GENERAL_LOOKASIDE_POOL) -> PVOID {
    // SAFETY: the list is initialised.
    let routine = unsafe { (*list).Allocate };
    // SAFETY: a classic list has the classic routine.
    let Some(routine) = (unsafe { routine.Allocate }) else {
        return null_mut();
    };
    // SAFETY: the list is initialised.
    let pool = unsafe { (*list).Type };
    // SAFETY: the list is initialised.
    let size = unsafe { (*list).Size } as SIZE_T;
    // SAFETY: the list is initialised.
    let tag = unsafe { (*list).Tag };
    // SAFETY: the arguments are the list's own.
    unsafe { routine(pool, size, tag) }
}

/// Frees with a list's own routine.
///
/// # Safety
/// `list` is initialised, as a classic list, and `entry` came from it.
#[inline]
unsafe fn free_for_good(list: *mut GENERAL_LOOKASIDE_POOL, entry: PVOID) {
    // SAFETY: the list is initialised.
    let routine = unsafe { (*list).Free };
    // SAFETY: a classic list has the classic routine.
    if let Some(routine) = unsafe { routine.Free } {
        // SAFETY: the entry came from the list's own routine.
        unsafe { routine(entry) }
    }
}

/// Allocates an entry of a lookaside list; null if there is no memory.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Safety
/// As for every routine.
#[inline]
pub unsafe fn ExAllocateFromNPagedLookasideList(Lookaside: *mut NPAGED_LOOKASIDE_LIST) -> PVOID {
    // SAFETY: the field lies in the list.
    let list = unsafe { &raw mut (*Lookaside).L.P };
    // SAFETY: by the caller's contract.
    let entry = unsafe { allocate(list) };
    if !entry.is_null() {
        return entry;
    }
    // SAFETY: by the caller's contract.
    unsafe { allocate_more(list) }
}

/// Gives an entry back to a lookaside list.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Safety
/// As for every routine; the entry came from this list.
#[inline]
pub unsafe fn ExFreeToNPagedLookasideList(Lookaside: *mut NPAGED_LOOKASIDE_LIST, Entry: PVOID) {
    // SAFETY: the field lies in the list.
    let list = unsafe { &raw mut (*Lookaside).L.P };
    // SAFETY: by the caller's contract.
    let kept = unsafe { free(list, Entry) };
    if !kept {
        // SAFETY: by the caller's contract.
        unsafe { free_for_good(list, Entry) }
    }
}

/// Allocates an entry of a lookaside list for paged entries; null if there is no memory.
///
/// # IRQL
/// `<= APC_LEVEL`.
///
/// # Safety
/// As for every routine.
#[inline]
pub unsafe fn ExAllocateFromPagedLookasideList(Lookaside: *mut PAGED_LOOKASIDE_LIST) -> PVOID {
    // SAFETY: the field lies in the list.
    let list = unsafe { &raw mut (*Lookaside).L.P };
    // SAFETY: by the caller's contract.
    let entry = unsafe { allocate(list) };
    if !entry.is_null() {
        return entry;
    }
    // SAFETY: by the caller's contract.
    unsafe { allocate_more(list) }
}

/// Gives an entry back to a lookaside list for paged entries.
///
/// # IRQL
/// `<= APC_LEVEL`.
///
/// # Safety
/// As for every routine; the entry came from this list.
#[inline]
pub unsafe fn ExFreeToPagedLookasideList(Lookaside: *mut PAGED_LOOKASIDE_LIST, Entry: PVOID) {
    // SAFETY: the field lies in the list.
    let list = unsafe { &raw mut (*Lookaside).L.P };
    // SAFETY: by the caller's contract.
    let kept = unsafe { free(list, Entry) };
    if !kept {
        // SAFETY: by the caller's contract.
        unsafe { free_for_good(list, Entry) }
    }
}

/// Allocates an entry of a lookaside list; null if there is no memory.
///
/// # IRQL
/// `<= DISPATCH_LEVEL` for nonpaged entries, else `<= APC_LEVEL`.
///
/// # Safety
/// As for every routine.
#[inline]
pub unsafe fn ExAllocateFromLookasideListEx(Lookaside: *mut LOOKASIDE_LIST_EX) -> PVOID {
    // SAFETY: the field lies in the list.
    let list = unsafe { &raw mut (*Lookaside).L };
    // SAFETY: by the caller's contract.
    let entry = unsafe { allocate(list) };
    if !entry.is_null() {
        return entry;
    }
    // SAFETY: the list is initialised.
    let routine = unsafe { (*list).Allocate };
    // SAFETY: a list of this kind has the routine of this kind.
    let Some(routine) = (unsafe { routine.AllocateEx }) else {
        return null_mut();
    };
    // SAFETY: the list is initialised.
    let pool = unsafe { (*list).Type };
    // SAFETY: the list is initialised.
    let size = unsafe { (*list).Size } as SIZE_T;
    // SAFETY: the list is initialised.
    let tag = unsafe { (*list).Tag };
    // SAFETY: the arguments are the list's own.
    unsafe { routine(pool, size, tag, Lookaside) }
}

/// Gives an entry back to a lookaside list.
///
/// # IRQL
/// `<= DISPATCH_LEVEL` for nonpaged entries, else `<= APC_LEVEL`.
///
/// # Safety
/// As for every routine; the entry came from this list.
#[inline]
pub unsafe fn ExFreeToLookasideListEx(Lookaside: *mut LOOKASIDE_LIST_EX, Entry: PVOID) {
    // SAFETY: the field lies in the list.
    let list = unsafe { &raw mut (*Lookaside).L };
    // SAFETY: by the caller's contract.
    let kept = unsafe { free(list, Entry) };
    if kept {
        return;
    }
    // SAFETY: the list is initialised.
    let routine = unsafe { (*list).Free };
    // SAFETY: a list of this kind has the routine of this kind.
    if let Some(routine) = unsafe { routine.FreeEx } {
        // SAFETY: the entry came from the list's own routine.
        unsafe { routine(Entry, Lookaside) }
    }
}
