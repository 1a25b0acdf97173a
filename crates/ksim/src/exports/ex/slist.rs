//! Interlocked singly linked lists, which lookaside lists are made of.
//!
//! The list is in the true structure, as drivers' inlined code reads its depth: the depth in the low 16 bits of the first word with a
//! sequence number above, the first entry's address in the second.

use crate::engine::Kernel;
use crate::exports::{ANY, exports};
use ksync_sys::{SLIST_ENTRY, SLIST_HEADER, USHORT};

const DEPTH: u64 = 0xffff;
const SEQUENCE: u64 = 0x1_0000;

/// The first entry of a list.
///
/// # Safety
/// `head` points to an initialised list.
unsafe fn first(head: *mut SLIST_HEADER) -> *mut SLIST_ENTRY {
    // SAFETY: by this function's contract.
    let region = unsafe { (*head).Region };
    (region & !0xf) as *mut SLIST_ENTRY
}

/// Replaces the first entry, and the depth.
///
/// # Safety
/// `head` points to an initialised list.
unsafe fn replace(head: *mut SLIST_HEADER, entry: *mut SLIST_ENTRY, depth: impl FnOnce(u64) -> u64) {
    // SAFETY: by this function's contract.
    let word = unsafe { (*head).Alignment };
    let next = (word & !DEPTH).wrapping_add(SEQUENCE) | (depth(word & DEPTH) & DEPTH);
    // SAFETY: as above.
    unsafe { (*head).Alignment = next };
    // SAFETY: as above.
    unsafe { (*head).Region = entry as u64 };
}

exports! {
    [ANY] silent fn InitializeSListHead(call; SListHead: *mut SLIST_HEADER) {
        let _ = call;
        // SAFETY: the caller passes memory for a list head.
        unsafe { SListHead.write(SLIST_HEADER { Alignment: 0, Region: 0 }) };
    }

    [ANY] visible fn ExpInterlockedPopEntrySList(call; ListHead: *mut SLIST_HEADER) -> *mut SLIST_ENTRY {
        call.read(|_: &mut Kernel| {
            // SAFETY: the caller passes an initialised list.
            let entry = unsafe { first(ListHead) };
            if !entry.is_null() {
                // SAFETY: an entry is valid while it is in a list.
                let next = unsafe { (*entry).Next };
                // SAFETY: the caller passes an initialised list.
                unsafe { replace(ListHead, next, |depth| depth.wrapping_sub(1)) };
            }
            entry
        })
    }

    [ANY] visible fn ExpInterlockedPushEntrySList(
        call; ListHead: *mut SLIST_HEADER, ListEntry: *mut SLIST_ENTRY
    ) -> *mut SLIST_ENTRY {
        call.read(|_: &mut Kernel| {
            // SAFETY: the caller passes an initialised list.
            let entry = unsafe { first(ListHead) };
            // SAFETY: the caller passes memory for an entry.
            unsafe { (*ListEntry).Next = entry };
            // SAFETY: the caller passes an initialised list.
            unsafe { replace(ListHead, ListEntry, |depth| depth + 1) };
            entry
        })
    }

    [ANY] visible fn ExpInterlockedFlushSList(call; ListHead: *mut SLIST_HEADER) -> *mut SLIST_ENTRY {
        call.read(|_: &mut Kernel| {
            // SAFETY: the caller passes an initialised list.
            let entry = unsafe { first(ListHead) };
            // SAFETY: as above.
            unsafe { replace(ListHead, std::ptr::null_mut(), |_| 0) };
            entry
        })
    }

    [ANY] visible fn ExQueryDepthSList(call; SListHead: *mut SLIST_HEADER) -> USHORT {
        // SAFETY: the caller passes an initialised list.
        call.read(|_: &mut Kernel| unsafe { (*SListHead).Alignment } & DEPTH) as USHORT
    }
}
