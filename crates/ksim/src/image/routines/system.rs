//! Routines that hosted drivers have from elsewhere, or that give an image something else than them.

use crate::exports::io::irp::{call_driver, complete};
use crate::exports::mm::is_exported;
use crate::exports::rtl::text_of;
use crate::exports::{BLOCKING, DISPATCHER, PASSIVE, image_exports};
use crate::image::host::stub_of;
use crate::machine::Call;
use crate::report::bug_check::{Violation, codes};
use ksync_sys::{CCHAR, DEVICE_OBJECT, IRP, NTSTATUS, PVOID, UNICODE_STRING};
use std::ptr::null_mut;

/// The address of a variable that the kernel exports.
fn variable(call: Call, name: &str) -> Option<usize> {
    call.cell.images.state_mut()?.variables.address(name)
}

/// Locks a section of an image into memory, or lets go of it.
fn lock_section(call: Call, address: u64, lock: bool) -> u64 {
    let mut state = call.cell.images.state_mut();
    let mapping = state.as_mut().and_then(|state| state.mappings.iter_mut().find(|mapping| mapping.contains(address)));
    let section = mapping.and_then(|mapping| mapping.lock(address, lock));
    drop(state);
    section.unwrap_or_else(|| {
        let what = if lock { "lock" } else { "unlock" };
        call.fail(Violation::boxed_owned(
            codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [0, address, u64::from(lock), 0],
            format!("a driver wanted to {what} a section at {address:#x}, where it has none, or none that it has locked"),
        ))
    })
}

/// Makes all of an image pageable, or what its sections say.
fn page_driver(call: Call, address: u64, all: bool) -> u64 {
    let images = &call.cell.images;
    images.checks_paging.set(true);
    let mut state = images.state_mut();
    let mapping = state.as_mut().and_then(|state| state.mappings.iter_mut().find(|mapping| mapping.contains(address)));
    mapping.map_or(0, |mapping| mapping.set_all_pageable(all))
}

image_exports! {
    // The handle of a section is where it begins.
    [BLOCKING] silent fn MmLockPagableDataSection(call; AddressWithinSection: u64) -> u64 {
        lock_section(call, AddressWithinSection, true)
    }

    [BLOCKING] silent fn MmLockPagableImageSection(call; AddressWithinSection: u64) -> u64 {
        lock_section(call, AddressWithinSection, true)
    }

    [BLOCKING] silent fn MmPageEntireDriver(call; AddressWithinSection: u64) -> u64 {
        page_driver(call, AddressWithinSection, true)
    }

    [BLOCKING] silent fn MmResetDriverPaging(call; AddressWithinSection: u64) {
        page_driver(call, AddressWithinSection, false);
    }

    [BLOCKING] silent fn MmLockPagableSectionByHandle(call; ImageSectionHandle: u64) {
        lock_section(call, ImageSectionHandle, true);
    }

    [BLOCKING] silent fn MmUnlockPagableImageSection(call; ImageSectionHandle: u64) {
        lock_section(call, ImageSectionHandle, false);
    }

    [PASSIVE] silent fn MmGetSystemRoutineAddress(call; SystemRoutineName: *const UNICODE_STRING) -> PVOID {
        // SAFETY: the driver passes a valid counted string.
        let name = unsafe { text_of(SystemRoutineName) };
        // An image calls routines by its own convention.
        let found = if is_exported(call, &name) { stub_of(&name) } else { None };
        found.or_else(|| variable(call, &name)).map_or(null_mut(), |address| address as PVOID)
    }

    // Older headers import these; newer ones make them of the routines with an f.
    [DISPATCHER] visible fn IoCallDriver(call; DeviceObject: *mut DEVICE_OBJECT, Irp: *mut IRP) -> NTSTATUS {
        call_driver(call, DeviceObject, Irp)
    }

    [DISPATCHER] visible fn IoCompleteRequest(call; Irp: *mut IRP, PriorityBoost: CCHAR) {
        complete(call, Irp, i32::from(PriorityBoost));
    }
}
