//! Lookaside lists: the routines that newer headers import rather than inline, and those that the lists of an image have for its inlined
//! code to call.

use crate::exports::ex::lookaside::{allocate, deleted, free};
use crate::exports::{at_most, image_exports};
use crate::image::call as call_driver;
use crate::irql::{APC_LEVEL, DISPATCH_LEVEL};
use ksync_sys::{
    ExQueryDepthSList, ExpInterlockedPopEntrySList, ExpInterlockedPushEntrySList, GENERAL_LOOKASIDE_POOL, LOOKASIDE_LIST_EX,
    POOL_TYPE, PVOID, SIZE_T, ULONG,
};
use std::ptr::null_mut;

/// Adds one to a count of a list.
fn count(counter: *mut ULONG) {
    // SAFETY: the callers pass a field of an initialised list.
    let value = unsafe { counter.read() };
    // SAFETY: as above.
    unsafe { counter.write(value.wrapping_add(1)) };
}

const _: () = assert!(std::mem::offset_of!(LOOKASIDE_LIST_EX, L) == 0);

/// Takes an entry of a list, or a fresh one.
fn take(list: *mut GENERAL_LOOKASIDE_POOL, fresh: impl FnOnce(GENERAL_LOOKASIDE_POOL) -> PVOID) -> PVOID {
    // SAFETY: field addresses of an initialised list, which the driver passes; here and below.
    count(unsafe { &raw mut (*list).TotalAllocates });
    // SAFETY: as above.
    let head = unsafe { &raw mut (*list).ListHead };
    // SAFETY: as above.
    let entry = unsafe { ExpInterlockedPopEntrySList(head) };
    if !entry.is_null() {
        return entry.cast();
    }
    // SAFETY: as above.
    count(unsafe { &raw mut (*list).AllocateMisses });
    // SAFETY: as above.
    fresh(unsafe { list.read() })
}

/// Gives an entry back to a list, or away if the list is full.
fn give_back(list: *mut GENERAL_LOOKASIDE_POOL, entry: PVOID, away: impl FnOnce(GENERAL_LOOKASIDE_POOL)) {
    // SAFETY: as above.
    count(unsafe { &raw mut (*list).TotalFrees });
    // SAFETY: as above.
    let head = unsafe { &raw mut (*list).ListHead };
    // SAFETY: as above.
    let kept = unsafe { ExQueryDepthSList(head) };
    // SAFETY: as above.
    if kept < unsafe { (*list).Depth } {
        // SAFETY: the driver gives the entry back.
        unsafe { ExpInterlockedPushEntrySList(head, entry.cast()) };
        return;
    }
    // SAFETY: as above.
    count(unsafe { &raw mut (*list).FreeMisses });
    // SAFETY: as above.
    away(unsafe { list.read() });
}

image_exports! {
    [at_most(DISPATCH_LEVEL)] silent fn ExAllocateFromLookasideListEx(_call; Lookaside: *mut LOOKASIDE_LIST_EX) -> PVOID {
        take(Lookaside.cast(), |list| {
            // SAFETY: a list of this kind has a routine of this kind.
            let routine = unsafe { list.Allocate.AllocateEx };
            // SAFETY: the arguments are the list's own.
            routine.map_or(null_mut(), |routine| unsafe {
                call_driver(routine, (list.Type, list.Size as SIZE_T, list.Tag, Lookaside))
            })
        })
    }

    [at_most(DISPATCH_LEVEL)] silent fn ExFreeToLookasideListEx(_call; Lookaside: *mut LOOKASIDE_LIST_EX, Entry: PVOID) {
        give_back(Lookaside.cast(), Entry, |list| {
            // SAFETY: a list of this kind has a routine of this kind.
            if let Some(routine) = unsafe { list.Free.FreeEx } {
                // SAFETY: the entry is the list's.
                unsafe { call_driver(routine, (Entry, Lookaside)) };
            }
        });
    }

    [at_most(APC_LEVEL)] silent fn ExAllocateFromPagedLookasideList(_call; Lookaside: *mut GENERAL_LOOKASIDE_POOL) -> PVOID {
        take(Lookaside, |list| {
            // SAFETY: a list of this kind has a routine of this kind.
            let routine = unsafe { list.Allocate.Allocate };
            // SAFETY: the arguments are the list's own.
            routine.map_or(null_mut(), |routine| unsafe { call_driver(routine, (list.Type, list.Size as SIZE_T, list.Tag)) })
        })
    }

    [at_most(APC_LEVEL)] silent fn ExFreeToPagedLookasideList(_call; Lookaside: *mut GENERAL_LOOKASIDE_POOL, Entry: PVOID) {
        give_back(Lookaside, Entry, |list| {
            // SAFETY: a list of this kind has a routine of this kind.
            if let Some(routine) = unsafe { list.Free.Free } {
                // SAFETY: the entry is the list's.
                unsafe { call_driver(routine, (Entry,)) };
            }
        });
    }

    [at_most(DISPATCH_LEVEL)] silent fn KsimLookasideAllocateEx(
        _call; PoolType: POOL_TYPE, NumberOfBytes: SIZE_T, Tag: ULONG, Lookaside: *mut LOOKASIDE_LIST_EX
    ) -> PVOID {
        allocate(PoolType, NumberOfBytes, Tag, Lookaside as usize)
    }

    [at_most(DISPATCH_LEVEL)] silent fn KsimLookasideAllocate(
        _call; PoolType: POOL_TYPE, NumberOfBytes: SIZE_T, Tag: ULONG
    ) -> PVOID {
        allocate(PoolType, NumberOfBytes, Tag, 0)
    }

    [at_most(DISPATCH_LEVEL)] silent fn KsimLookasideFreeEx(_call; Entry: PVOID, Lookaside: *mut LOOKASIDE_LIST_EX) {
        free(Entry, Lookaside as usize);
    }

    [at_most(DISPATCH_LEVEL)] silent fn KsimLookasideFree(_call; Entry: PVOID) {
        free(Entry, 0);
    }

    [at_most(DISPATCH_LEVEL)] silent fn KsimLookasideDeletedAllocateEx(
        _call; _PoolType: POOL_TYPE, _NumberOfBytes: SIZE_T, _Tag: ULONG, Lookaside: usize
    ) {
        deleted(Lookaside)
    }

    [at_most(DISPATCH_LEVEL)] silent fn KsimLookasideDeletedFreeEx(_call; _Entry: PVOID, Lookaside: usize) {
        deleted(Lookaside)
    }

    [at_most(DISPATCH_LEVEL)] silent fn KsimLookasideDeleted(_call) {
        deleted(0)
    }
}
