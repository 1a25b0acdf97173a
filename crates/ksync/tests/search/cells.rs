//! Cells that are made once, and names.

use super::{exhaust, sample};
use core::sync::atomic::{AtomicU32, Ordering};
use ksync::lazy::{LazyLock, OnceLock};
use test_support::threads::crowd;

/// One initialiser, and all see its value.
fn once(threads: usize) {
    let (cell, runs) = (OnceLock::new(), AtomicU32::new(0));
    crowd(threads, |thread| {
        let value = cell.get_or_init(|| {
            runs.fetch_add(1, Ordering::Relaxed);
            thread
        });
        assert_eq!(Ok(cell.get().unwrap()), value);
    });
    assert_eq!(runs.into_inner(), 1);
}

/// The same of a cell with its closure.
fn lazily(threads: usize) {
    let runs = AtomicU32::new(0);
    let cell = LazyLock::new(|| runs.fetch_add(1, Ordering::Relaxed));
    crowd(threads, |_| assert_eq!(LazyLock::force(&cell), Ok(&0)));
    drop(cell);
    assert_eq!(runs.into_inner(), 1);
}

#[test]
fn once_lock_exhaustively() {
    assert!(exhaust(3, || once(2)).is_exhausted());
}

#[test]
fn once_lock_portfolio() {
    sample(6, || once(5));
}

#[test]
fn lazy_lock_exhaustively() {
    assert!(exhaust(3, || lazily(2)).is_exhausted());
}

#[test]
fn lazy_lock_portfolio() {
    sample(6, || lazily(5));
}
