//! Events, semaphores, condition variables, barriers, rundown protection.

use super::{exhaust, sample};
use core::cell::Cell;
use core::sync::atomic::{AtomicU32, Ordering};
use ksync::event::{Event, EventProperty};
use ksync::handle::ObjectHandle;
use ksync::mutex::{Barrier, CacheAwareRundown, Condvar, FastLocked, Rundown};
use ksync::object::EventObject;
use ksync::semaphore::Semaphore;
use ksync::wait::{Dispatchable, WaitOptions, WaitResult, wait_all, wait_any};
use test_support::threads::crowd;

/// A value is handed over by an event.
fn hand_over(threads: usize) {
    let event = Event::new(EventProperty::Notification, false).unwrap();
    let value = AtomicU32::new(0);
    crowd(threads, |thread| {
        if thread == 0 {
            value.store(1, Ordering::Relaxed);
            event.set().unwrap();
        } else {
            assert!(event.wait().success());
            assert_eq!(value.load(Ordering::Relaxed), 1);
        }
    });
}

#[test]
fn event_exhaustively() {
    assert!(exhaust(4, || hand_over(3)).is_exhausted());
}

#[test]
fn event_portfolio() {
    sample(7, || hand_over(6));
}

/// So many are inside at most.
fn limit(threads: usize, most: u32, turns: u32) {
    let semaphore = Semaphore::new(most, most).unwrap();
    let inside = Cell::new(0);
    crowd(threads, |_| {
        for _ in 0..turns {
            assert!(semaphore.wait().success());
            inside.set(inside.get() + 1);
            assert!(inside.get() <= most);
            ksync::thread::this_thread::pause().unwrap();
            inside.set(inside.get() - 1);
            semaphore.release(1).unwrap();
        }
    });
    assert_eq!(semaphore.count().unwrap(), most);
}

/// Each signal of a synchronization event releases one.
fn turns(threads: usize) {
    let (event, inside) = (Event::new(EventProperty::Synchronization, true).unwrap(), Cell::new(0));
    crowd(threads, |_| {
        assert!(event.wait().success());
        inside.set(inside.get() + 1);
        assert_eq!(inside.get(), 1);
        ksync::thread::this_thread::pause().unwrap();
        inside.set(inside.get() - 1);
        event.set().unwrap();
    });
}

#[test]
fn synchronization_event_exhaustively() {
    assert!(exhaust(3, || turns(2)).is_exhausted());
}

#[test]
fn synchronization_event_portfolio() {
    sample(6, || turns(5));
}

/// Who waits for any of two takes one and leaves the other; who waits for all takes both or none.
fn several(threads: usize) {
    let (first, second) = (Semaphore::new(1, 1).unwrap(), Semaphore::new(1, 1).unwrap());
    crowd(threads, |thread| {
        if thread % 2 == 0 {
            let WaitResult::Signaled(which) = wait_any(&[&first, &second], WaitOptions::new()) else {
                panic!("an end of the wait")
            };
            [&first, &second][which].release(1).unwrap();
        } else {
            assert!(wait_all(&[&first, &second], WaitOptions::new()).success());
            assert_eq!((first.count().unwrap(), second.count().unwrap()), (0, 0));
            first.release(1).unwrap();
            second.release(1).unwrap();
        }
    });
    assert_eq!((first.count().unwrap(), second.count().unwrap()), (1, 1));
}

#[test]
fn waits_for_several_exhaustively() {
    assert!(exhaust(3, || several(2)).is_exhausted());
}

#[test]
fn waits_for_several_portfolio() {
    sample(6, || several(5));
}

#[test]
fn semaphore_exhaustively() {
    assert!(exhaust(4, || limit(3, 1, 1)).is_exhausted());
    assert!(exhaust(3, || limit(2, 2, 1)).is_exhausted());
}

#[test]
fn semaphore_portfolio() {
    sample(6, || limit(5, 2, 3));
}

/// A queue of one place: nothing is lost, and nobody waits for ever.
fn bounded_queue(items: u32) {
    let (place, changed) = (FastLocked::new(None::<u32>).unwrap(), Condvar::new());
    crowd(2, |thread| {
        for item in 0..items {
            let mut place = place.lock().unwrap();
            if thread == 0 {
                changed.wait_while(&mut place, |place| place.is_some()).unwrap();
                *place = Some(item);
            } else {
                changed.wait_while(&mut place, |place| place.is_none()).unwrap();
                assert_eq!(place.take(), Some(item));
            }
            changed.notify_all().unwrap();
        }
    });
}

#[test]
fn condvar_exhaustively() {
    assert!(exhaust(3, || bounded_queue(1)).is_exhausted());
}

#[test]
fn condvar_portfolio() {
    sample(3, || bounded_queue(6));
}

/// Nobody leaves a round before all have come.
fn rounds(threads: u32, rounds: u32) {
    let (barrier, arrived, leaders) = (Barrier::new(threads), AtomicU32::new(0), AtomicU32::new(0));
    crowd(threads as usize, |_| {
        for round in 1..=rounds {
            arrived.fetch_add(1, Ordering::Relaxed);
            let leads = barrier.wait().unwrap().is_leader();
            assert!(arrived.load(Ordering::Relaxed) >= round * threads);
            leaders.fetch_add(leads.into(), Ordering::Relaxed);
        }
    });
    assert_eq!(leaders.into_inner(), rounds);
}

#[test]
fn barrier_exhaustively() {
    assert!(exhaust(3, || rounds(2, 1)).is_exhausted());
}

#[test]
fn barrier_portfolio() {
    sample(5, || rounds(4, 3));
}

/// No user after the end.
fn end<G>(users: usize, wait: impl Fn(), acquire: impl Fn() -> Option<G>) {
    let gone = Cell::new(false);
    crowd(users + 1, |thread| {
        if thread == 0 {
            wait();
            gone.set(true);
        } else if let Some(guard) = acquire() {
            assert!(!gone.get());
            drop(guard);
        }
    });
    assert!(gone.get());
}

fn run_down(users: usize) {
    let rundown = Rundown::new();
    end(users, || rundown.wait().unwrap(), || rundown.acquire().ok());
}

fn run_down_cache_aware(users: usize) {
    let rundown = CacheAwareRundown::new().unwrap();
    end(users, || rundown.wait().unwrap(), || rundown.acquire().ok());
}

#[test]
fn rundown_exhaustively() {
    assert!(exhaust(3, || run_down(1)).is_exhausted());
    assert!(exhaust(4, || run_down(2)).is_exhausted());
}

#[test]
fn rundown_portfolio() {
    sample(6, || run_down(5));
}

#[test]
fn cache_aware_rundown_exhaustively() {
    assert!(exhaust(3, || run_down_cache_aware(1)).is_exhausted());
    assert!(exhaust(4, || run_down_cache_aware(2)).is_exhausted());
}

#[test]
fn cache_aware_rundown_portfolio() {
    sample(6, || run_down_cache_aware(5));
}

/// An object stays while there is a reference to it, whoever closes the handle meanwhile.
fn by_handle(threads: usize) {
    let handle = ObjectHandle::create_event(None, EventProperty::Notification, false).unwrap();
    let event: EventObject = handle.to_object().unwrap();
    let handle = Cell::new(Some(handle));
    crowd(threads, |thread| {
        if thread == 0 {
            handle.take().unwrap().close().unwrap();
            event.set().unwrap();
        } else {
            let mine = event.clone();
            assert!(mine.wait().success());
        }
    });
}

#[test]
fn objects_by_handle_exhaustively() {
    assert!(exhaust(3, || by_handle(2)).is_exhausted());
}

#[test]
fn objects_by_handle_portfolio() {
    sample(6, || by_handle(5));
}
