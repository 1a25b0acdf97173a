//! Atomics, and cells that they order.

use super::{exhaust, sample};
use core::sync::atomic::Ordering;
use ksim::explore;
use ksim::explore::Strategy;
use ksync::event::{Event, EventProperty};
use ksync::sync::RaceCell;
use ksync::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32};
use ksync::wait::{WaitOptions, wait_all};
use std::collections::BTreeSet;
use std::sync::Mutex as HostMutex;
use test_support::threads::crowd;

/// No addition is lost, and each sees another value.
fn count(threads: usize) {
    let (counter, seen) = (AtomicU32::new(0), HostMutex::new(BTreeSet::new()));
    crowd(threads, |_| {
        let before = counter.fetch_add(1, Ordering::Relaxed);
        assert!(seen.lock().unwrap().insert(before));
    });
    assert_eq!(counter.load(Ordering::Relaxed) as usize, threads);
}

/// A value is made, then published, and who sees that sees the value.
fn publish(readers: usize) {
    let (value, ready) = (RaceCell::new(0), AtomicBool::new(false));
    crowd(readers + 1, |thread| {
        if thread == 0 {
            // SAFETY: nobody reads the value before it is ready.
            unsafe { value.set(7) };
            ready.store(true, Ordering::Release);
        } else if ready.load(Ordering::Acquire) {
            // SAFETY: it is ready, and nobody writes it any more.
            assert_eq!(unsafe { value.get() }, 7);
        }
    });
}

/// One turns a loop until another has published.
fn wait(readers: usize) {
    let (value, ready) = (RaceCell::new(0), AtomicBool::new(false));
    crowd(readers + 1, |thread| {
        if thread == 0 {
            // SAFETY: as in `publish`.
            unsafe { value.set(7) };
            ready.store(true, Ordering::Release);
            return;
        }
        while !ready.load(Ordering::Acquire) {
            core::hint::spin_loop();
        }
        // SAFETY: as in `publish`.
        assert_eq!(unsafe { value.get() }, 7);
    });
}

#[test]
fn counters_exhaustively() {
    assert_eq!(exhaust(3, || count(2)).executions(), 2);
    assert_eq!(exhaust(4, || count(3)).executions(), 6);
}

#[test]
fn counters_portfolio() {
    sample(6, || count(5));
}

#[test]
fn published_values_exhaustively() {
    assert!(exhaust(3, || publish(1)).is_exhausted());
    assert!(exhaust(4, || publish(2)).is_exhausted());
    assert!(exhaust(3, || wait(1)).is_exhausted());
}

#[test]
fn published_values_portfolio() {
    sample(6, || publish(4));
    sample(6, || wait(4));
}

/// A load and a store are no addition: all that can come of it is seen.
#[test]
fn lost_additions_exhaustively() {
    let seen = HostMutex::new(BTreeSet::new());
    let exploration = exhaust(3, || {
        let counter = AtomicU32::new(0);
        crowd(2, |_| {
            let before = counter.load(Ordering::Relaxed);
            counter.store(before + 1, Ordering::Relaxed);
        });
        seen.lock().unwrap().insert(counter.load(Ordering::Relaxed));
    });
    assert!(exploration.is_exhausted());
    assert_eq!(seen.into_inner().unwrap().into_iter().collect::<Vec<_>>(), [1, 2]);
}

/// Without an order, the cell says so.
#[test]
fn cells_that_nothing_orders_are_found() {
    for strategy in [Strategy::Exhaustive, Strategy::Portfolio] {
        let exploration = explore().processors(3).strategy(strategy).check(|| {
            let (value, ready) = (RaceCell::new(0), AtomicBool::new(false));
            crowd(2, |thread| {
                if thread == 0 {
                    // SAFETY: none: the order is too weak, which is found.
                    unsafe { value.set(7) };
                    ready.store(true, Ordering::Relaxed);
                } else if ready.load(Ordering::Relaxed) {
                    // SAFETY: none, as above.
                    let _ = unsafe { value.get() };
                }
            });
        });
        assert!(exploration.expect_failure().outcome.panic().is_some(), "{strategy:?}");
    }
}

/// A lock made of one flag, around plain memory.
fn flag_lock(threads: usize, turns: u32) {
    let (taken, count) = (AtomicBool::new(false), RaceCell::new(0));
    crowd(threads, |_| {
        for _ in 0..turns {
            while taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {}
            // SAFETY: who has changed the flag is alone, or the race is reported.
            let before = unsafe { count.get() };
            // SAFETY: as above.
            unsafe { count.set(before + 1) };
            taken.store(false, Ordering::Release);
        }
    });
    // SAFETY: the threads are over.
    assert_eq!(unsafe { count.get() }, threads as u32 * turns);
}

#[test]
fn flag_lock_exhaustively() {
    assert!(exhaust(3, || flag_lock(2, 1)).is_exhausted());
}

#[test]
fn flag_lock_portfolio() {
    sample(5, || flag_lock(4, 3));
}

/// Peterson's lock, for two.
fn peterson(turns: u32) {
    let (wants, turn) = ([AtomicBool::new(false), AtomicBool::new(false)], AtomicU32::new(0));
    let count = RaceCell::new(0);
    crowd(2, |thread| {
        let other = 1 - thread;
        for _ in 0..turns {
            wants[thread].store(true, Ordering::SeqCst);
            turn.store(other as u32, Ordering::SeqCst);
            while wants[other].load(Ordering::SeqCst) && turn.load(Ordering::SeqCst) == other as u32 {}
            // SAFETY: one of the two is here at a time, or the race is reported.
            let before = unsafe { count.get() };
            // SAFETY: as above.
            unsafe { count.set(before + 1) };
            wants[thread].store(false, Ordering::SeqCst);
        }
    });
    // SAFETY: the threads are over.
    assert_eq!(unsafe { count.get() }, 2 * turns);
}

#[test]
fn peterson_exhaustively() {
    assert!(exhaust(3, || peterson(1)).is_exhausted());
}

#[test]
fn peterson_portfolio() {
    sample(3, || peterson(4));
}

/// Who comes first makes the value, and all have that one.
fn first_one_wins(threads: usize) {
    let place = AtomicPtr::new(core::ptr::null_mut());
    let values: Vec<u32> = (0..threads as u32).collect();
    let seen: Vec<AtomicPtr<u32>> = (0..threads).map(|_| AtomicPtr::default()).collect();
    crowd(threads, |thread| {
        let own = (&raw const values[thread]).cast_mut();
        let winner = match place.compare_exchange(core::ptr::null_mut(), own, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => own,
            Err(winner) => winner,
        };
        seen[thread].store(winner, Ordering::Relaxed);
    });
    let winner = place.load(Ordering::Acquire);
    assert!(!winner.is_null() && seen.iter().all(|seen| seen.load(Ordering::Relaxed) == winner));
}

#[test]
fn first_one_wins_exhaustively() {
    assert!(exhaust(4, || first_one_wins(3)).is_exhausted());
}

#[test]
fn first_one_wins_portfolio() {
    sample(7, || first_one_wins(6));
}

/// Who has waited for all of several events comes after what was done before each was set.
#[test]
fn waits_for_all_events_order_cells() {
    let exploration = exhaust(4, || {
        let events = [(); 2].map(|()| Event::new(EventProperty::Synchronization, false).unwrap());
        let cells = [RaceCell::new(0), RaceCell::new(0)];
        crowd(3, |thread| match thread {
            0 => {
                assert!(wait_all(&[&events[0], &events[1]], WaitOptions::new()).success());
                // SAFETY: both are written before the events are set, and not after.
                cells.iter().for_each(|cell| assert_eq!(unsafe { cell.get() }, 1));
            }
            other => {
                // SAFETY: nobody reads it before the event is set.
                unsafe { cells[other - 1].set(1) };
                events[other - 1].set().unwrap();
            }
        });
    });
    assert!(exploration.expect_clean().is_exhausted());
}
