//! Cells: initialised once or by the first, waited for or never, under many schedules.

#[path = "lazy/failures.rs"]
mod failures;
#[path = "lazy/levels.rs"]
mod levels;
#[path = "lazy/values.rs"]
mod values;
#[path = "lazy/waiting.rs"]
mod waiting;

use core::cell::Cell;
use core::ffi::c_void;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::{Arc, MutexGuard};

use ksim::Machine;
use ksync::NtError;
use ksync::dpc::Dpc;
use ksync::error::Result;
use ksync::irql::{self, Irql};
use ksync::lazy::{self, LazyCell, LazyLock, OnceCell, OnceLock};
use ksync::sys;
use ksync::thread::{self, this_thread};
use static_assertions::{assert_impl_all, assert_not_impl_any};

/// How many schedules each search looks at.
const SEEDS: u64 = 100;

/// Runs a test on one processor, cleanly.
fn on_machine(code: impl FnOnce() -> Result) {
    Machine::new().run(|| code().unwrap()).expect_clean();
}

/// Runs a test on four processors under many schedules, cleanly.
fn on_machines(code: impl Fn(u64)) {
    for seed in 0..SEEDS {
        Machine::new().processors(4).seed(seed).run(|| code(seed)).expect_clean();
    }
}

/// As `on_machines`, for tests that gather something.
fn on_machines_mut(mut code: impl FnMut(u64)) {
    for seed in 0..SEEDS {
        Machine::new().processors(4).seed(seed).run(|| code(seed)).expect_clean();
    }
}

/// Runs one body in several threads.
fn crowd(count: usize, body: impl Fn(usize) + Sync) {
    let body = &body;
    thread::scope(|scope| {
        for i in 0..count {
            let _ = scope.spawn(move || body(i)).unwrap();
        }
    });
}

/// Gives others a chance to come in between, of both kinds.
fn dawdle(i: usize) {
    if i.is_multiple_of(2) {
        this_thread::sleep(Duration::from_micros(10)).unwrap();
    } else {
        irql::with_raised(Irql::DISPATCH, || ()).unwrap();
    }
}

fn sleep(milliseconds: u64) {
    this_thread::sleep(Duration::from_millis(milliseconds)).unwrap();
}

/// Runs code at a level that guards do not raise to.
fn at_level<R>(level: u8, code: impl FnOnce() -> R) -> R {
    // SAFETY: the level is above the present one, and taken back below.
    let old = unsafe { sys::KfRaiseIrql(level) };
    let result = code();
    // SAFETY: as above.
    unsafe { sys::KeLowerIrql(old) };
    result
}

/// A value that counts its drops.
#[derive(Debug)]
struct Counted<'a>(&'a AtomicU32);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
