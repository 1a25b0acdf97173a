//! The library's functions as C++ calls them, and the header that it knows them by.

use ksim::Machine;
use ksync::sys::{STATUS_INVALID_PARAMETER, STATUS_SUCCESS};
use lookaside_ffi::{context_number, create_context, free_lookaside, init_lookaside, remove_context};
use std::path::Path;
use std::ptr::null_mut;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Hosted, the library's list is one static for all machines: the tests take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

const TAG: u32 = u32::from_le_bytes(*b"ksla");

#[test]
fn contexts_come_and_go() {
    let _turn = turn();
    let outcome = Machine::new().run(|| {
        assert_eq!(init_lookaside(TAG), STATUS_SUCCESS);
        let mut contexts = [null_mut(); 4];
        for (number, context) in contexts.iter_mut().enumerate() {
            // SAFETY: the pointer is to a pointer.
            assert_eq!(unsafe { create_context(number as u64, context) }, STATUS_SUCCESS);
        }
        // Contexts are out.
        assert!(free_lookaside() < STATUS_SUCCESS);
        for (number, context) in contexts.into_iter().enumerate() {
            // SAFETY: the context is out.
            assert_eq!(unsafe { context_number(context) }, number as u64);
            // SAFETY: as above, and it is removed once.
            unsafe { remove_context(context) };
        }
        assert_eq!(free_lookaside(), STATUS_SUCCESS);
        assert_eq!(free_lookaside(), STATUS_SUCCESS);
    });
    outcome.expect_clean();
}

#[test]
fn a_list_that_cannot_grow_says_so() {
    let _turn = turn();
    let outcome = Machine::new().fail_allocation(2).run(|| {
        assert_eq!(init_lookaside(TAG), STATUS_SUCCESS);
        // SAFETY: null is allowed.
        assert_eq!(unsafe { create_context(1, null_mut()) }, STATUS_INVALID_PARAMETER);
        let mut context = null_mut();
        // SAFETY: the pointer is to a pointer.
        let status = unsafe { create_context(1, &raw mut context) };
        assert!(status < STATUS_SUCCESS);
        assert!(context.is_null());
        // SAFETY: null is allowed.
        unsafe { remove_context(context) };
        assert_eq!(free_lookaside(), STATUS_SUCCESS);
    });
    outcome.expect_clean();
}

/// With `KSYNC_BLESS` set the header is made again.
#[test]
fn the_header_is_that_of_the_source() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml")).expect("the configuration is sound");
    let bindings = cbindgen::Builder::new()
        .with_config(config)
        .with_src(folder.join("src/lib.rs"))
        .generate()
        .expect("the source has bindings");
    let mut made = Vec::new();
    bindings.write(&mut made);
    let path = folder.join("lookaside_ffi.h");
    if std::env::var_os("KSYNC_BLESS").is_some() {
        std::fs::write(&path, &made).expect("the header can be written");
    }
    let kept = std::fs::read(&path).expect("the header is there");
    assert_eq!(String::from_utf8_lossy(&kept), String::from_utf8_lossy(&made), "run the test with KSYNC_BLESS=1");
}
