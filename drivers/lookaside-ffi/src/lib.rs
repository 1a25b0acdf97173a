//! Contexts from a lookaside list, for a driver in C++.
//!
//! The driver (`driver.cpp`) links this crate as a static library, and sees it through `lookaside_ffi.h`.
//! `cargo xtask driver lookaside-ffi` builds both into one `.sys`.
#![no_std]

use core::ptr::NonNull;
use ksync::alloc::Pool;
use ksync::error::NtError;
use ksync::lookaside::LookasideAlloc;
use ksync::sys::{STATUS_INSUFFICIENT_RESOURCES, STATUS_INVALID_PARAMETER, STATUS_SUCCESS};

/// The list that all contexts come from.
static CONTEXTS: LookasideAlloc = LookasideAlloc::default();

/// What the driver keeps for each of its clients. In C++ it is opaque.
#[derive(Debug)]
pub struct Context {
    number: u64,
}

/// Makes the list, whose entries have this tag in the pool. Returns an NTSTATUS.
#[unsafe(no_mangle)]
pub extern "C" fn init_lookaside(tag: u32) -> i32 {
    match CONTEXTS.init(size_of::<Context>(), Pool::NonPaged, Some(tag), None, None, None) {
        Ok(()) => STATUS_SUCCESS,
        Err(error) => NtError::from(error).status().0,
    }
}

/// Makes a context with a number, and stores a pointer to it. Returns an NTSTATUS; on failure the pointer is null.
///
/// # Safety
/// `context` is null or points to where a pointer may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn create_context(number: u64, context: *mut *mut Context) -> i32 {
    if context.is_null() {
        return STATUS_INVALID_PARAMETER;
    }
    let (made, status) = match CONTEXTS.alloc() {
        Ok(entry) => {
            let made = entry.cast::<Context>().as_ptr();
            // SAFETY: the list's entries have a context's size, and are aligned to 16; this one is nobody else's.
            unsafe { made.write(Context { number }) };
            (made, STATUS_SUCCESS)
        }
        Err(_) => (core::ptr::null_mut(), STATUS_INSUFFICIENT_RESOURCES),
    };
    // SAFETY: by this function's contract.
    unsafe { context.write(made) };
    status
}

/// The number of a context.
///
/// # Safety
/// `context` came from `create_context`, and was not removed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn context_number(context: *const Context) -> u64 {
    // SAFETY: by this function's contract.
    unsafe { (*context).number }
}

/// Removes a context. Null is nothing.
///
/// # Safety
/// `context` is null, or came from `create_context` and was not removed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn remove_context(context: *mut Context) {
    if let Some(entry) = NonNull::new(context) {
        // SAFETY: by this function's contract the entry is out, and is given back once. A context has nothing to drop.
        unsafe { CONTEXTS.free(entry.cast()) };
    }
}

/// Deletes the list. Returns an NTSTATUS: contexts that are out keep it. Called again it does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn free_lookaside() -> i32 {
    match CONTEXTS.destroy() {
        Ok(()) => STATUS_SUCCESS,
        Err(error) => NtError::from(error).status().0,
    }
}

/// Stops the system: code that has panicked cannot go on.
#[cfg(all(windows, panic = "abort"))]
#[panic_handler]
fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    ksync::driver::panic(info)
}

/// Wanted by the linker where floating point is used.
#[cfg(all(windows, panic = "abort"))]
#[unsafe(export_name = "_fltused")]
#[used]
pub static FLOATING_POINT_USED: i32 = 0x9875;

/// Hosted, the process' own allocator serves Rust's `alloc`.
#[cfg(all(windows, panic = "abort"))]
#[global_allocator]
static ALLOCATOR: ksync::alloc::PoolAlloc = ksync::alloc::PoolAlloc::new();
