//! Interlocked lists and counters that older headers import, callback objects, stacks, floating point, time zones.

use crate::exports::{ANY, DISPATCHER, at_most, image_exports};
use crate::image::call_through;
use crate::image::host::guarded;
use crate::irql::{APC_LEVEL, DISPATCH_LEVEL, SYNCH_LEVEL};
use crate::machine::Call;
use ksync_sys::{
    BOOLEAN, ERESOURCE, ExSetResourceOwnerPointer, ExpInterlockedFlushSList, ExpInterlockedPopEntrySList,
    ExpInterlockedPushEntrySList, KIRQL, KSPIN_LOCK, KfRaiseIrql, LARGE_INTEGER, LIST_ENTRY, NTSTATUS, PVOID, SINGLE_LIST_ENTRY,
    SIZE_T, SLIST_ENTRY, SLIST_HEADER, STATUS_SUCCESS, ULONG,
};
use std::ptr::null_mut;

/// Links an entry between two neighbours.
///
/// # Safety
/// All three are valid, and the neighbours are neighbours.
unsafe fn link(before: *mut LIST_ENTRY, entry: *mut LIST_ENTRY, after: *mut LIST_ENTRY) {
    // SAFETY: by this function's contract; here and below.
    unsafe { entry.write(LIST_ENTRY { Flink: after, Blink: before }) };
    // SAFETY: as above.
    unsafe { (*before).Flink = entry };
    // SAFETY: as above.
    unsafe { (*after).Blink = entry };
}

/// Adds to what is at an address, and returns what was there.
fn add<T: Copy>(call: Call, addend: *mut T, sum: impl FnOnce(T) -> T) -> T {
    call.check_pointer(addend);
    call.operate(|_| {
        // SAFETY: the driver passes a valid pointer, and nobody else runs meanwhile.
        let before = unsafe { addend.read() };
        // SAFETY: as above.
        unsafe { addend.write(sum(before)) };
        Ok(before)
    })
}

/// The driver's routine of `KeExpandKernelStackAndCallout`.
type Callout = unsafe extern "system-unwind" fn(PVOID);

fn on_large_stack(routine: Option<Callout>, parameter: PVOID) -> NTSTATUS {
    // Every stack here is larger than the largest that NT would expand to.
    if let Some(routine) = routine {
        // SAFETY: the driver vouches for its routine.
        unsafe { call_through(routine, (parameter,), || {}) };
    }
    STATUS_SUCCESS
}

image_exports! {
    [ANY] visible fn ExInterlockedInsertHeadList(
        call; ListHead: *mut LIST_ENTRY, ListEntry: *mut LIST_ENTRY, _Lock: *mut KSPIN_LOCK
    ) -> *mut LIST_ENTRY {
        call.check_pointer(ListHead);
        call.operate(|_| {
            // SAFETY: the driver passes a valid list and entry; here and below.
            let first = unsafe { (*ListHead).Flink };
            // SAFETY: as above.
            unsafe { link(ListHead, ListEntry, first) };
            Ok(if first == ListHead { null_mut() } else { first })
        })
    }

    [ANY] visible fn ExInterlockedInsertTailList(
        call; ListHead: *mut LIST_ENTRY, ListEntry: *mut LIST_ENTRY, _Lock: *mut KSPIN_LOCK
    ) -> *mut LIST_ENTRY {
        call.check_pointer(ListHead);
        call.operate(|_| {
            // SAFETY: as above.
            let last = unsafe { (*ListHead).Blink };
            // SAFETY: as above.
            unsafe { link(last, ListEntry, ListHead) };
            Ok(if last == ListHead { null_mut() } else { last })
        })
    }

    [ANY] visible fn ExInterlockedRemoveHeadList(call; ListHead: *mut LIST_ENTRY, _Lock: *mut KSPIN_LOCK) -> *mut LIST_ENTRY {
        call.check_pointer(ListHead);
        call.operate(|_| {
            // SAFETY: as above.
            let first = unsafe { (*ListHead).Flink };
            if first == ListHead {
                return Ok(null_mut());
            }
            // SAFETY: as above.
            let second = unsafe { (*first).Flink };
            // SAFETY: as above.
            unsafe { (*ListHead).Flink = second };
            // SAFETY: as above.
            unsafe { (*second).Blink = ListHead };
            Ok(first)
        })
    }

    [ANY] visible fn ExInterlockedPushEntryList(
        call; ListHead: *mut SINGLE_LIST_ENTRY, ListEntry: *mut SINGLE_LIST_ENTRY, _Lock: *mut KSPIN_LOCK
    ) -> *mut SINGLE_LIST_ENTRY {
        call.check_pointer(ListHead);
        call.operate(|_| {
            // SAFETY: as above.
            let first = unsafe { (*ListHead).Next };
            // SAFETY: as above.
            unsafe { (*ListEntry).Next = first };
            // SAFETY: as above.
            unsafe { (*ListHead).Next = ListEntry };
            Ok(first)
        })
    }

    [ANY] visible fn ExInterlockedPopEntryList(
        call; ListHead: *mut SINGLE_LIST_ENTRY, _Lock: *mut KSPIN_LOCK
    ) -> *mut SINGLE_LIST_ENTRY {
        call.check_pointer(ListHead);
        call.operate(|_| {
            // SAFETY: as above.
            let first = unsafe { (*ListHead).Next };
            if !first.is_null() {
                // SAFETY: as above.
                let second = unsafe { (*first).Next };
                // SAFETY: as above.
                unsafe { (*ListHead).Next = second };
            }
            Ok(first)
        })
    }

    [ANY] silent fn ExInterlockedPopEntrySList(
        _call; ListHead: *mut SLIST_HEADER, _Lock: *mut KSPIN_LOCK
    ) -> *mut SLIST_ENTRY {
        // SAFETY: the same routine by its older name.
        unsafe { ExpInterlockedPopEntrySList(ListHead) }
    }

    [ANY] silent fn ExInterlockedPushEntrySList(
        _call; ListHead: *mut SLIST_HEADER, ListEntry: *mut SLIST_ENTRY, _Lock: *mut KSPIN_LOCK
    ) -> *mut SLIST_ENTRY {
        // SAFETY: as above.
        unsafe { ExpInterlockedPushEntrySList(ListHead, ListEntry) }
    }

    [ANY] silent fn ExInterlockedFlushSList(_call; ListHead: *mut SLIST_HEADER) -> *mut SLIST_ENTRY {
        // SAFETY: as above.
        unsafe { ExpInterlockedFlushSList(ListHead) }
    }

    [ANY] silent fn FirstEntrySList(_call; ListHead: *const SLIST_HEADER) -> usize {
        // The second word has the first entry's address, over four bits of the system's.
        super::memory::load(ListHead.cast::<usize>().wrapping_add(1)) & !0xf
    }

    [at_most(DISPATCH_LEVEL)] silent fn ExSetResourceOwnerPointerEx(
        _call; Resource: *mut ERESOURCE, OwnerPointer: PVOID, _Flags: ULONG
    ) {
        // SAFETY: the same routine without flags, the one of which only says that the owner is a thread.
        unsafe { ExSetResourceOwnerPointer(Resource, OwnerPointer) };
    }

    [ANY] visible fn ExInterlockedAddLargeInteger(
        call; Addend: *mut LARGE_INTEGER, Increment: LARGE_INTEGER, _Lock: *mut KSPIN_LOCK
    ) -> LARGE_INTEGER {
        add(call, Addend, |value| value.wrapping_add(Increment))
    }

    [ANY] visible fn ExInterlockedAddUlong(call; Addend: *mut ULONG, Increment: ULONG, _Lock: *mut KSPIN_LOCK) -> ULONG {
        add(call, Addend, |value| value.wrapping_add(Increment))
    }

    [at_most(SYNCH_LEVEL)] silent fn KeRaiseIrqlToSynchLevel(_call) -> KIRQL {
        // SAFETY: the routine checks the levels.
        unsafe { KfRaiseIrql(SYNCH_LEVEL) }
    }

    [ANY] silent fn IoGetStackLimits(call; LowLimit: *mut usize, HighLimit: *mut usize) {
        let stack = call.read(|kernel| kernel.driver_stack());
        // SAFETY: the driver passes valid pointers.
        unsafe { LowLimit.write(stack.start) };
        // SAFETY: as above.
        unsafe { HighLimit.write(stack.end) };
    }

    [ANY] silent fn IoGetRemainingStackSize(call) -> usize {
        let here = 0_u8;
        call.read(|kernel| (&raw const here).addr().saturating_sub(kernel.driver_stack().start))
    }

    [ANY] silent fn IoWithinStackLimits(call; RegionStart: usize, RegionSize: SIZE_T) -> ULONG {
        let stack = call.read(|kernel| kernel.driver_stack());
        let end = RegionStart.checked_add(RegionSize);
        ULONG::from(RegionStart >= stack.start && end.is_some_and(|end| end <= stack.end))
    }

    [at_most(APC_LEVEL)] silent fn KeExpandKernelStackAndCallout(
        _call; Callout: Option<Callout>, Parameter: PVOID, _Size: SIZE_T
    ) -> NTSTATUS {
        on_large_stack(Callout, Parameter)
    }

    [at_most(DISPATCH_LEVEL)] silent fn KeExpandKernelStackAndCalloutEx(
        _call; Callout: Option<Callout>, Parameter: PVOID, _Size: SIZE_T, _Wait: BOOLEAN, _Context: PVOID
    ) -> NTSTATUS {
        on_large_stack(Callout, Parameter)
    }

    // A switch of threads keeps the registers, here as on x86-64 Windows.
    [DISPATCHER] silent fn KeSaveFloatingPointState(_call; _Save: PVOID) -> NTSTATUS {
        STATUS_SUCCESS
    }

    [DISPATCHER] silent fn KeRestoreFloatingPointState(_call; _Save: PVOID) -> NTSTATUS {
        STATUS_SUCCESS
    }

    [DISPATCHER] silent fn KeSaveExtendedProcessorState(_call; _Mask: u64, _Save: PVOID) -> NTSTATUS {
        STATUS_SUCCESS
    }

    [DISPATCHER] silent fn KeRestoreExtendedProcessorState(_call; _Save: PVOID) {}

    [ANY] silent fn ExIsProcessorFeaturePresent(_call; Feature: ULONG) -> BOOLEAN {
        BOOLEAN::from(crate::image::host::FEATURES.contains(&Feature))
    }

    // The machine's time zone is UTC.
    [ANY] silent fn ExSystemTimeToLocalTime(_call; SystemTime: *const LARGE_INTEGER, LocalTime: *mut LARGE_INTEGER) {
        // SAFETY: the driver passes valid pointers.
        let time = unsafe { SystemTime.read() };
        // SAFETY: as above.
        unsafe { LocalTime.write(time) };
    }

    [ANY] silent fn ExLocalTimeToSystemTime(_call; LocalTime: *const LARGE_INTEGER, SystemTime: *mut LARGE_INTEGER) {
        // SAFETY: as above.
        let time = unsafe { LocalTime.read() };
        // SAFETY: as above.
        unsafe { SystemTime.write(time) };
    }

    [DISPATCHER] silent fn MmIsAddressValid(_call; VirtualAddress: PVOID) -> BOOLEAN {
        let mut byte = 0_u8;
        // SAFETY: what is written is this function's own.
        BOOLEAN::from(unsafe { guarded::copy(&raw mut byte, VirtualAddress.cast(), 1) }.is_ok())
    }
}
