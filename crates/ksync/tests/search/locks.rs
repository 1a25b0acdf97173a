//! Locks that one context has at a time, and locks with readers.

use super::{exhaust, sample};
use core::cell::Cell;
use core::pin::pin;
use core::sync::atomic::{AtomicU32, Ordering};
use ksync::NtError;
use ksync::irql::{Irql, Passive};
use ksync::mutex::{
    Exclusive, FastLocked, InStackQueueLocked, KMutex, Locked, LockedQueueHandle, ReentrantKMutex, Shared, Sharing, SpinLocked,
};
use test_support::threads::crowd;

type Pair = (u32, u32);

/// Makes tests for each lock from functions that are generic over it.
macro_rules! tests {
    ($($name:ident: $lock:ident, $test:ident;)*) => {$(
        mod $name {
            #[test]
            fn exhaustively() {
                let exploration = super::exhaust(3, || super::$test::<ksync::mutex::$lock>(2, 1));
                assert!(exploration.is_exhausted(), "{exploration}");
            }
            #[test]
            fn portfolio() {
                super::sample(5, || super::$test::<ksync::mutex::$lock>(4, 3));
            }
        }
    )*};
}

tests! {
    fast: Fast, counts;
    guarded: Guarded, counts;
    spin: Spin, counts;
    resource: Resource, counts;
    push: Push, counts;
    spin_rw: SpinRw, counts;
    kmutex: Mutex, counts;
    tries_fast: Fast, tries;
    tries_guarded: Guarded, tries;
    tries_spin: Spin, tries;
    tries_kmutex: Mutex, tries;
    readers_of_resource: Resource, reads;
    readers_of_push: Push, reads;
    readers_of_spin_rw: SpinRw, reads;
}

/// Nothing is lost.
fn counts<L: Exclusive>(threads: usize, turns: u32)
where
    L::Sharing: Sharing<Pair>,
{
    let lock = Locked::<Pair, L>::new((0, 0)).unwrap();
    crowd(threads, |_| {
        for _ in 0..turns {
            let mut pair = lock.lock().unwrap();
            pair.0 += 1;
            pair.1 += 1;
        }
    });
    let count = threads as u32 * turns;
    assert_eq!(lock.into_inner(), (count, count));
}

/// A try has the lock or says that it has not.
fn tries<L: Exclusive>(threads: usize, turns: u32)
where
    L::Sharing: Sharing<Pair>,
{
    let (lock, granted) = (Locked::<Pair, L>::new((0, 0)).unwrap(), AtomicU32::new(0));
    crowd(threads, |_| {
        for _ in 0..turns {
            match lock.try_lock() {
                Ok(mut pair) => {
                    pair.0 += 1;
                    pair.1 += 1;
                    granted.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => assert_eq!(error, NtError::LOCK_NOT_GRANTED),
            }
        }
    });
    let granted = granted.into_inner();
    assert!(granted > 0);
    assert_eq!(lock.into_inner(), (granted, granted));
}

/// Readers see whole writes.
fn reads<L: Shared>(threads: usize, turns: u32)
where
    L::Sharing: Sharing<Pair>,
{
    let lock = Locked::<Pair, L>::new((0, 0)).unwrap();
    crowd(threads, |thread| {
        for _ in 0..turns {
            if thread % 2 == 0 {
                let mut pair = lock.lock().unwrap();
                pair.0 += 1;
                pair.1 += 1;
            } else {
                let pair = lock.lock_shared().unwrap();
                assert_eq!(pair.0, pair.1);
            }
        }
    });
}

/// As `counts`, for the lock whose guards need a handle.
fn counts_with_handles(threads: usize, turns: u32) {
    let lock = InStackQueueLocked::new(0_u32).unwrap();
    crowd(threads, |_| {
        for _ in 0..turns {
            let mut handle = pin!(LockedQueueHandle::new());
            *lock.lock(&mut handle).unwrap() += 1;
        }
    });
    assert_eq!(lock.into_inner(), threads as u32 * turns);
}

#[test]
fn queued_exhaustively() {
    let exploration = exhaust(3, || counts_with_handles(2, 2));
    assert!(exploration.is_exhausted());
    assert_eq!(exploration.executions(), 6, "one for each order of acquisition");
}

#[test]
fn queued_portfolio() {
    sample(5, || counts_with_handles(4, 3));
}

/// The owner comes in again, and nobody else does before it has gone out as often.
fn recursion(threads: usize, depth: usize) {
    let lock = ReentrantKMutex::new(Cell::new(0)).unwrap();
    crowd(threads, |_| {
        let mut guards = Vec::new();
        for inside in 0..depth {
            let guard = if inside % 2 == 0 { lock.lock() } else { lock.try_lock() };
            guards.push(guard.unwrap());
        }
        let before = guards[0].get();
        while let Some(guard) = guards.pop() {
            assert_eq!(guard.get(), before);
            if guards.is_empty() {
                guard.set(before + 1);
            }
        }
    });
    assert_eq!(lock.lock().unwrap().get(), threads);
}

#[test]
fn reentrant_kmutex_exhaustively() {
    assert!(exhaust(3, || recursion(2, 2)).is_exhausted());
}

#[test]
fn reentrant_kmutex_portfolio() {
    sample(5, || recursion(4, 3));
}

/// A lock that is waited for until a time is had or not, and in the end free.
fn timed(threads: usize) {
    let (lock, had) = (KMutex::new(0_u32).unwrap(), AtomicU32::new(0));
    crowd(threads, |_| match lock.lock_for(core::time::Duration::from_millis(1)) {
        Ok(mut count) => {
            *count += 1;
            had.fetch_add(1, Ordering::Relaxed);
            ksync::thread::this_thread::pause().unwrap();
        }
        Err(error) => assert_eq!(error, NtError::TIMEOUT),
    });
    let had = had.into_inner();
    assert!(had > 0);
    assert_eq!(*lock.try_lock().unwrap(), had);
}

#[test]
fn timed_kmutex_exhaustively() {
    assert!(exhaust(3, || timed(2)).is_exhausted());
}

#[test]
fn timed_kmutex_portfolio() {
    sample(5, || timed(4));
}

/// Locks within each other at levels that the compiler knows: one that waits, and within it two that do not.
fn counts_at_levels(threads: u32, turns: u32) {
    let (outer, middle, inner) = (FastLocked::new(0u32).unwrap(), SpinLocked::const_new(0u32), SpinLocked::const_new(0u32));
    crowd(threads as usize, |_| {
        for _ in 0..turns {
            let mut passive = Irql::<Passive>::claim().unwrap();
            outer.with_at(&mut passive, |outer, apc| {
                let mut middle = middle.lock_at(apc);
                let (middle, dispatch) = middle.split();
                let mut inner = inner.lock_at(dispatch);
                *inner += 1;
                *middle += 1;
                *outer += 1;
                assert_eq!((*outer, *middle), (*inner, *inner));
            });
        }
    });
    assert_eq!(inner.into_inner(), threads * turns);
}

#[test]
fn locks_at_levels_exhaustively() {
    assert!(exhaust(3, || counts_at_levels(2, 1)).is_exhausted());
}

#[test]
fn locks_at_levels_portfolio() {
    sample(5, || counts_at_levels(4, 3));
}
