//! Seed 003, win-lookaside: both of its examples, run.
//!
//! What is changed throughout, and why:
//! - `#![no_std]` and `#![feature(allocator_api)]` are gone: a test has `std`, and the allocator trait is `allocator-api2`'s, on stable Rust. So is `Box`. With the feature `nightly`
//!   of `ksync` and a nightly compiler, `alloc::boxed::Box` takes the list just as well.
//! - `use win_lookaside::LookasideAlloc` is `use ksync::lookaside::LookasideAlloc`, and `#[macro_use] extern crate win_lookaside` is gone: there is no macro.
//! - `windows_sys`' `NonPagedPool as i32` is `Pool::NonPaged`: an integer can be any pool, or none. The seed's pool is executable; this one is not.
//! - `init` takes six arguments here; the seed's examples pass five to a function that takes six, and do not compile. The missing one is the first of the two functions.
//! - `u32` for a size is `usize`, which `size_of` returns.

use allocator_api2::boxed::Box;
use ksim::Machine;
use ksync::alloc::Pool;
use ksync::lookaside::LookasideAlloc;
use ksync::sys::{DRIVER_OBJECT, NTSTATUS, STATUS_INSUFFICIENT_RESOURCES, STATUS_SUCCESS, UNICODE_STRING};

/// The example "Rust drivers".
mod rust_driver {
    use super::*;

    fn example() {
        // Init Lookaside List allocator with default values.
        // It is not `mut`: `init` and `destroy` take `&self`, so that a list can be a static.
        let allocator = LookasideAlloc::default();

        // Init Lookaside List with fixed-size to hold a u32.
        // Properly handle possible errors: the seed unwraps an error without `Debug`, which does not compile.
        allocator.init(core::mem::size_of::<u32>(), Pool::NonPaged, None, None, None, None).unwrap();

        // Allocate from Lookaside & Free to it on Drop.
        {
            // The literal has its type: the seed's is an `i32` in a list of `u32`, which happens to fit.
            let Ok(ctx) = Box::try_new_in(10_u32, &allocator) else {
                return; // AllocError
            };
            // The seed does not look at it.
            assert_eq!(*ctx, 10);
        }

        // Destroy Lookaside List Allocator.
        // It says here whether it could: not while a box is out.
        allocator.destroy().unwrap();

        // The seed's list is deleted once more when it is dropped (defect 3). This one is not.
    }

    #[test]
    fn runs() {
        Machine::new().run(example).expect_clean();
    }
}

/// The thin FFI layer of the example "C++ drivers".
mod ffi {
    use super::*;
    use ksync::error::NtError;

    // Not `static mut`: the list has all the interior mutability that it needs, and safe code cannot misuse it.
    pub(super) static LOOKASIDE: LookasideAlloc = LookasideAlloc::default();

    // The seed's `Context` is empty, "but it can be something more complex". It has a field here, because a box of nothing takes no memory, from no allocator.
    pub(super) struct Context {
        pub(super) number: u64,
    }

    // The functions are `pub(super)`, because no other crate sees a test's; their symbols are as public as the seed's.
    // `#[no_mangle]` is `#[unsafe(no_mangle)]` in Rust 2024. The function needs not be `unsafe`: it asks nothing of its caller.
    #[unsafe(no_mangle)]
    pub(super) extern "C" fn init_lookaside(tag: u32) -> NTSTATUS {
        // `?` in a function that returns an NTSTATUS does not compile; errors convert to one. The seed's paged pool is kept: the functions below are for `<= APC_LEVEL` then.
        match LOOKASIDE.init(core::mem::size_of::<Context>(), Pool::Paged, Some(tag), None, None, None) {
            Ok(()) => STATUS_SUCCESS,
            Err(error) => NtError::from(error).status().0,
        }
    }

    // The seed returns a `FfiResult<()>` that is not defined, and in it NTSTATUS values. The function is `unsafe`, because it writes through the pointer.
    #[unsafe(no_mangle)]
    pub(super) unsafe extern "C" fn create_context(context: *mut *mut Context) -> NTSTATUS {
        let Ok(ctx) = Box::try_new_in(Context { number: 3 }, &LOOKASIDE) else {
            return STATUS_INSUFFICIENT_RESOURCES;
        };
        // SAFETY: the caller passes a pointer to a pointer.
        unsafe { *context = Box::into_raw(ctx) };
        STATUS_SUCCESS
    }

    // `unsafe` for the same reason.
    #[unsafe(no_mangle)]
    pub(super) unsafe extern "C" fn remove_context(context: *mut Context) {
        // SAFETY: the caller passes what `create_context` gave it, and passes it once.
        let _ctx = unsafe { Box::from_raw_in(context, &LOOKASIDE) };
    }

    // It returns a status, where the seed returns nothing: contexts may be out. Called twice it does no harm.
    #[unsafe(no_mangle)]
    pub(super) extern "C" fn free_lookaside() -> NTSTATUS {
        match LOOKASIDE.destroy() {
            Ok(()) => STATUS_SUCCESS,
            Err(error) => NtError::from(error).status().0,
        }
    }
}

/// The C++ driver, in Rust: it knows the layer above by its symbols only, as the linker would give them to C++.
mod cpp_driver {
    use super::*;
    use core::ffi::c_void;
    use core::ptr::null_mut;

    // For C++ the context is opaque.
    #[expect(non_camel_case_types, reason = "the seed's name")]
    type PRUST_CTX = *mut c_void;

    unsafe extern "C" {
        safe fn init_lookaside(tag: u32) -> NTSTATUS;
        fn create_context(context: *mut PRUST_CTX) -> NTSTATUS;
        fn remove_context(context: PRUST_CTX);
        safe fn free_lookaside() -> NTSTATUS;
    }

    // `#define LOOKASIDE_TAG 'aabb'`: C++ puts the last character into the lowest byte.
    const LOOKASIDE_TAG: u32 = u32::from_be_bytes(*b"aabb");

    pub(super) unsafe extern "system-unwind" fn driver_entry(
        driver_object: *mut DRIVER_OBJECT,
        _: *mut UNICODE_STRING,
    ) -> NTSTATUS {
        let mut contexts: [PRUST_CTX; 4] = [null_mut(); 4];

        // SAFETY: the system passes the driver's own object.
        unsafe { (*driver_object).DriverUnload = Some(driver_unload) };

        // The seed has "no error handling"; a test has.
        assert_eq!(init_lookaside(LOOKASIDE_TAG), STATUS_SUCCESS);

        for context in &mut contexts {
            // SAFETY: the pointer is to a pointer.
            assert_eq!(unsafe { create_context(context) }, STATUS_SUCCESS);
        }

        // Contexts are out, so the list stays.
        assert_ne!(free_lookaside(), STATUS_SUCCESS);

        let [context1, context2, context3, context4] = contexts;
        for context in [context1, context3, context4, context2] {
            // SAFETY: the context is one of the four, and is removed once.
            unsafe { remove_context(context) };
        }
        // The seed's function ends without a value.
        STATUS_SUCCESS
    }

    unsafe extern "system-unwind" fn driver_unload(_: *mut DRIVER_OBJECT) {
        // "We can inspect the lookaside list's state before `free_lookaside`": the figures are those that the seed shows. It had rounded its empty context up to 8 bytes.
        let figures = ffi::LOOKASIDE.statistics().unwrap();
        assert_eq!(ffi::LOOKASIDE.entry_size(), Some(8));
        assert_eq!((figures.allocate_misses, figures.free_misses), (4, 0));
        assert_eq!((figures.allocates, figures.frees), (4, 4));
        assert_eq!((figures.allocate_hits(), figures.free_hits()), (0, 4)); // 0% and 100%
        assert_eq!(figures.depth, 4);

        assert_eq!(free_lookaside(), STATUS_SUCCESS);
        assert_eq!(free_lookaside(), STATUS_SUCCESS);
    }
}

#[test]
fn the_cpp_driver_loads_runs_and_unloads() {
    Machine::new()
        .run(|| {
            let driver = ksim::load_driver("lookaside", cpp_driver::driver_entry).unwrap();
            driver.unload();
        })
        .expect_clean();
}

/// What the C++ driver holds is what the layer made.
#[test]
fn a_context_reads_back() {
    Machine::new()
        .run(|| {
            let list = LookasideAlloc::default();
            list.init(core::mem::size_of::<ffi::Context>(), Pool::NonPaged, None, None, None, None).unwrap();
            let context = Box::try_new_in(ffi::Context { number: 3 }, &list).unwrap();
            assert_eq!(context.number, 3);
        })
        .expect_clean();
}
