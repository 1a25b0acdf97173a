//! Doubly and singly linked lists.
//!
//! As in the WDK since Windows 8, an operation that finds a list's links inconsistent stops the machine.

use crate::{BOOLEAN, KeBugCheckEx, LIST_ENTRY, SINGLE_LIST_ENTRY};

/// The bug check for damaged lists, among others: `KERNEL_SECURITY_CHECK_FAILURE`.
const KERNEL_SECURITY_CHECK_FAILURE: u32 = 0x139;
/// Its first parameter for a damaged list.
const FAST_FAIL_CORRUPT_LIST_ENTRY: usize = 3;

/// Stops the machine for a damaged list.
#[cold]
#[inline(never)]
fn fatal_list_entry_error(entry: *const LIST_ENTRY) -> ! {
    // SAFETY: a bug check can be asked for at any time.
    unsafe { KeBugCheckEx(KERNEL_SECURITY_CHECK_FAILURE, FAST_FAIL_CORRUPT_LIST_ENTRY, entry.addr(), 0, 0) }
}

/// Stops the machine unless both neighbours of an entry point back to it.
///
/// # Safety
/// `Entry` is an entry of a list, or a list head.
#[inline]
pub unsafe fn RtlpCheckListEntry(Entry: *mut LIST_ENTRY) {
    // SAFETY: by the caller's contract.
    let next = unsafe { (*Entry).Flink };
    // SAFETY: by the caller's contract.
    let previous = unsafe { (*Entry).Blink };
    // SAFETY: neighbours are valid as long as the entry is in the list.
    let back = unsafe { (*next).Blink };
    // SAFETY: as above.
    let forth = unsafe { (*previous).Flink };
    if back != Entry || forth != Entry {
        fatal_list_entry_error(Entry);
    }
}

/// Makes an empty list.
///
/// # Safety
/// `ListHead` is written, and stays in place as long as the list is used.
#[inline]
pub unsafe fn InitializeListHead(ListHead: *mut LIST_ENTRY) {
    // SAFETY: by the caller's contract.
    unsafe { (*ListHead).Flink = ListHead };
    // SAFETY: by the caller's contract.
    unsafe { (*ListHead).Blink = ListHead }
}

/// Tells whether the list is empty.
///
/// # Safety
/// `ListHead` is a list head.
#[inline]
#[must_use]
pub unsafe fn IsListEmpty(ListHead: *const LIST_ENTRY) -> BOOLEAN {
    // SAFETY: by the caller's contract.
    let first = unsafe { (*ListHead).Flink };
    BOOLEAN::from(core::ptr::eq(first, ListHead))
}

/// Links an entry between two neighbours.
///
/// # Safety
/// `previous` and `next` are neighbours in a list; `entry` is in none.
#[inline]
unsafe fn link(entry: *mut LIST_ENTRY, previous: *mut LIST_ENTRY, next: *mut LIST_ENTRY) {
    // SAFETY: by the caller's contract.
    unsafe { (*entry).Flink = next };
    // SAFETY: by the caller's contract.
    unsafe { (*entry).Blink = previous };
    // SAFETY: by the caller's contract.
    unsafe { (*next).Blink = entry };
    // SAFETY: by the caller's contract.
    unsafe { (*previous).Flink = entry };
}

/// Links two entries with each other.
///
/// # Safety
/// Both are entries of one list.
#[inline]
unsafe fn join(previous: *mut LIST_ENTRY, next: *mut LIST_ENTRY) {
    // SAFETY: by the caller's contract.
    unsafe { (*previous).Flink = next };
    // SAFETY: by the caller's contract.
    unsafe { (*next).Blink = previous };
}

/// Puts an entry first.
///
/// # Safety
/// `ListHead` is a list head; `Entry` is in no list and stays in place while it is in this one.
#[inline]
pub unsafe fn InsertHeadList(ListHead: *mut LIST_ENTRY, Entry: *mut LIST_ENTRY) {
    // SAFETY: by the caller's contract.
    unsafe { RtlpCheckListEntry(ListHead) };
    // SAFETY: by the caller's contract.
    let next = unsafe { (*ListHead).Flink };
    // SAFETY: head and first entry are neighbours.
    unsafe { link(Entry, ListHead, next) }
}

/// Puts an entry last.
///
/// # Safety
/// `ListHead` is a list head; `Entry` is in no list and stays in place while it is in this one.
#[inline]
pub unsafe fn InsertTailList(ListHead: *mut LIST_ENTRY, Entry: *mut LIST_ENTRY) {
    // SAFETY: by the caller's contract.
    unsafe { RtlpCheckListEntry(ListHead) };
    // SAFETY: by the caller's contract.
    let previous = unsafe { (*ListHead).Blink };
    // SAFETY: last entry and head are neighbours.
    unsafe { link(Entry, previous, ListHead) }
}

/// Takes an entry out and tells whether the list is empty now.
///
/// # Safety
/// `Entry` is an entry of a list.
#[inline]
pub unsafe fn RemoveEntryList(Entry: *mut LIST_ENTRY) -> BOOLEAN {
    // SAFETY: by the caller's contract.
    unsafe { RtlpCheckListEntry(Entry) };
    // SAFETY: by the caller's contract.
    let next = unsafe { (*Entry).Flink };
    // SAFETY: by the caller's contract.
    let previous = unsafe { (*Entry).Blink };
    // SAFETY: both are entries of the list.
    unsafe { join(previous, next) };
    BOOLEAN::from(core::ptr::eq(previous, next))
}

/// Takes the first entry out and returns it. An empty list returns its head.
///
/// # Safety
/// `ListHead` is a list head.
#[inline]
pub unsafe fn RemoveHeadList(ListHead: *mut LIST_ENTRY) -> *mut LIST_ENTRY {
    // SAFETY: by the caller's contract.
    unsafe { RtlpCheckListEntry(ListHead) };
    // SAFETY: by the caller's contract.
    let entry = unsafe { (*ListHead).Flink };
    // SAFETY: the entry is in the list, or is the head itself.
    unsafe { RemoveEntryList(entry) };
    entry
}

/// Takes the last entry out and returns it. An empty list returns its head.
///
/// # Safety
/// `ListHead` is a list head.
#[inline]
pub unsafe fn RemoveTailList(ListHead: *mut LIST_ENTRY) -> *mut LIST_ENTRY {
    // SAFETY: by the caller's contract.
    unsafe { RtlpCheckListEntry(ListHead) };
    // SAFETY: by the caller's contract.
    let entry = unsafe { (*ListHead).Blink };
    // SAFETY: the entry is in the list, or is the head itself.
    unsafe { RemoveEntryList(entry) };
    entry
}

/// Puts an entry first in a singly linked list.
///
/// # Safety
/// `ListHead` is a list head; `Entry` is in no list.
#[inline]
pub unsafe fn PushEntryList(ListHead: *mut SINGLE_LIST_ENTRY, Entry: *mut SINGLE_LIST_ENTRY) {
    // SAFETY: by the caller's contract.
    let first = unsafe { (*ListHead).Next };
    // SAFETY: by the caller's contract.
    unsafe { (*Entry).Next = first };
    // SAFETY: by the caller's contract.
    unsafe { (*ListHead).Next = Entry }
}

/// Takes the first entry out of a singly linked list and returns it, or null.
///
/// # Safety
/// `ListHead` is a list head.
#[inline]
pub unsafe fn PopEntryList(ListHead: *mut SINGLE_LIST_ENTRY) -> *mut SINGLE_LIST_ENTRY {
    // SAFETY: by the caller's contract.
    let first = unsafe { (*ListHead).Next };
    if !first.is_null() {
        // SAFETY: entries of a list are valid.
        let second = unsafe { (*first).Next };
        // SAFETY: by the caller's contract.
        unsafe { (*ListHead).Next = second };
    }
    first
}
