//! Interlocked singly linked lists, which lookaside lists are made of.
//!
//! The list is in the true structure, as drivers' inlined code reads its depth: the depth in the low 16 bits of the first word with a
//! sequence number above, the first entry's address in the second.

use super::lookaside;
use crate::engine::{Check, Fault, Kernel};
use crate::exports::{ANY, exports};
use crate::report::bug_check::Violation;
use ksync_sys::{SLIST_ENTRY, SLIST_HEADER, STATUS_DATATYPE_MISALIGNMENT, USHORT};

const DEPTH: u64 = 0xffff;
const SEQUENCE: u64 = 0x1_0000;
/// What heads and entries are aligned to.
const ALIGNMENT: usize = 16;
/// The words that the pool fills memory with.
const NEVER_WRITTEN: u64 = 0xcdcd_cdcd_cdcd_cdcd;
const FREED: u64 = 0xdddd_dddd_dddd_dddd;

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

/// The list's head must be one.
fn check_head(kernel: &mut Kernel, head: *mut SLIST_HEADER) -> Check<()> {
    if !(head as usize).is_multiple_of(ALIGNMENT) {
        return Err(misaligned("head"));
    }
    // SAFETY: the caller passes memory for a list head.
    let region = unsafe { (*head).Region };
    // No address of an entry, but what the pool fills memory with that is freed, or not written yet.
    if region == NEVER_WRITTEN || region == FREED {
        kernel.object_at(head)?;
    }
    Ok(())
}

/// As [`check_head`], and the entries of a paged lookaside list must not be touched above APC_LEVEL.
fn check_list(kernel: &mut Kernel, head: *mut SLIST_HEADER, routine: &str) -> Check<()> {
    check_head(kernel, head)?;
    lookaside::check_level(kernel, head as usize, routine)
}

/// NT raises this exception, too.
#[cold]
fn misaligned(what: &str) -> Fault {
    Violation::raised(
        STATUS_DATATYPE_MISALIGNMENT,
        format!("the {what} of an interlocked list is not aligned to {ALIGNMENT} bytes"),
    )
}

exports! {
    [ANY] silent fn InitializeSListHead(call; SListHead: *mut SLIST_HEADER) {
        call.check_null(SListHead);
        if !(SListHead as usize).is_multiple_of(ALIGNMENT) {
            call.fail(misaligned("head"));
        }
        // SAFETY: the caller passes memory for a list head.
        unsafe { SListHead.write(SLIST_HEADER { Alignment: 0, Region: 0 }) };
    }

    [ANY] visible(access ListHead) fn ExpInterlockedPopEntrySList(call; ListHead: *mut SLIST_HEADER) -> *mut SLIST_ENTRY {
        call.check_null(ListHead);
        call.operate(|kernel| {
            check_list(kernel, ListHead, "ExpInterlockedPopEntrySList")?;
            // SAFETY: the caller passes an initialised list.
            let entry = unsafe { first(ListHead) };
            if !entry.is_null() {
                lookaside::give_out(kernel, ListHead as usize, entry as usize);
                // SAFETY: an entry is valid while it is in a list.
                let next = unsafe { (*entry).Next };
                // SAFETY: the caller passes an initialised list.
                unsafe { replace(ListHead, next, |depth| depth.wrapping_sub(1)) };
            }
            Ok(entry)
        })
    }

    [ANY] visible(access ListHead) fn ExpInterlockedPushEntrySList(
        call; ListHead: *mut SLIST_HEADER, ListEntry: *mut SLIST_ENTRY
    ) -> *mut SLIST_ENTRY {
        call.check_null(ListHead);
        call.operate(|kernel| {
            check_list(kernel, ListHead, "ExpInterlockedPushEntrySList")?;
            if !(ListEntry as usize).is_multiple_of(ALIGNMENT) {
                return Err(misaligned("entry"));
            }
            // SAFETY: the caller passes an initialised list.
            let entry = unsafe { first(ListHead) };
            lookaside::check_entry(kernel, ListHead as usize, ListEntry as usize, entry)?;
            // SAFETY: the caller passes memory for an entry.
            unsafe { (*ListEntry).Next = entry };
            // SAFETY: the caller passes an initialised list.
            unsafe { replace(ListHead, ListEntry, |depth| depth + 1) };
            lookaside::keep(kernel, ListHead as usize, ListEntry as usize, entry as usize);
            Ok(entry)
        })
    }

    [ANY] visible(access ListHead) fn ExpInterlockedFlushSList(call; ListHead: *mut SLIST_HEADER) -> *mut SLIST_ENTRY {
        call.check_null(ListHead);
        call.operate(|kernel| {
            check_list(kernel, ListHead, "ExpInterlockedFlushSList")?;
            // SAFETY: the caller passes an initialised list.
            let entry = unsafe { first(ListHead) };
            // SAFETY: as above.
            unsafe { replace(ListHead, std::ptr::null_mut(), |_| 0) };
            lookaside::give_out_all(kernel, entry);
            Ok(entry)
        })
    }

    [ANY] visible(read SListHead) fn ExQueryDepthSList(call; SListHead: *mut SLIST_HEADER) -> USHORT {
        call.check_null(SListHead);
        // The depth alone may be asked for at every level.
        call.operate(|kernel| {
            check_head(kernel, SListHead)?;
            // SAFETY: the caller passes an initialised list.
            Ok((unsafe { (*SListHead).Alignment } & DEPTH) as USHORT)
        })
    }
}
