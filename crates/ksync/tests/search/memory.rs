//! Memory that several contexts take and give back: lookaside lists, shared boxes, named values, data whose lock is elsewhere.

use super::{exhaust, sample};
use core::sync::atomic::{AtomicU32, Ordering};
use ksync::NtError;
use ksync::alloc::Pool;
use ksync::grt::Registry;
use ksync::lookaside::{Lookaside, LookasideAlloc, LookasideError};
use ksync::mutex::{FastLocked, KMutex, LockedBy};
use ksync::pool::KArc;
use std::sync::Arc;
use test_support::threads::crowd;

/// Counts its drops.
#[derive(Debug)]
struct Counted(Arc<AtomicU32>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// No entry is given to two at a time.
fn entries(threads: usize, turns: usize) {
    let list = Lookaside::<(usize, usize)>::new().unwrap();
    crowd(threads, |thread| {
        for turn in 0..turns {
            let entry = list.alloc((thread, turn)).unwrap();
            ksync::thread::this_thread::pause().unwrap();
            assert_eq!(*entry, (thread, turn));
        }
    });
}

#[test]
fn lookaside_exhaustively() {
    assert!(exhaust(3, || entries(2, 1)).is_exhausted());
}

#[test]
fn lookaside_portfolio() {
    sample(5, || entries(4, 4));
}

/// A list that several make and end: an end is refused while an entry is out, and what is allocated is whole.
fn ends_of_a_list(threads: usize) {
    let (list, made) = (LookasideAlloc::default(), AtomicU32::new(0));
    crowd(threads, |_| {
        if list.init(64, Pool::NonPaged, None, None, None, None).is_ok() {
            made.fetch_add(1, Ordering::Relaxed);
        }
        if let Ok(entry) = list.alloc() {
            // SAFETY: the entry is this thread's, and 64 bytes long.
            unsafe { entry.as_ptr().write_bytes(0xaa, 64) };
            // SAFETY: it came from this list, which is not destroyed while an entry is out.
            unsafe { list.free(entry) };
        }
        if let Err(error) = list.destroy() {
            assert!(matches!(error, LookasideError::EntriesOut(_) | LookasideError::Busy), "{error:?}");
        }
    });
    assert!(made.into_inner() >= 1);
    assert_eq!(list.destroy(), Ok(()));
    assert_eq!(list.alloc().unwrap_err(), LookasideError::Uninitialized);
}

#[test]
fn lookaside_s_ends_exhaustively() {
    assert!(exhaust(3, || ends_of_a_list(2)).is_exhausted());
}

#[test]
fn lookaside_s_ends_portfolio() {
    sample(5, || ends_of_a_list(4));
}

/// The value goes with the last of the shares, once.
fn shares(threads: usize) {
    let drops = Arc::new(AtomicU32::new(0));
    let first = KArc::new(Counted(Arc::clone(&drops))).unwrap();
    let handles: Vec<_> = (0..threads)
        .map(|_| {
            let share = first.clone();
            ksync::thread::spawn(move || {
                let another = share.clone();
                drop(share);
                assert_eq!(another.0.load(Ordering::Relaxed), 0);
            })
            .unwrap()
        })
        .collect();
    drop(first);
    handles.into_iter().for_each(|handle| handle.join().unwrap());
    assert_eq!(drops.load(Ordering::Relaxed), 1);
}

#[test]
fn shared_boxes_exhaustively() {
    assert!(exhaust(3, || shares(2)).is_exhausted());
}

#[test]
fn shared_boxes_portfolio() {
    sample(6, || shares(5));
}

/// A name that is got while others remove it gives the value or says that there is none; the end waits for what is out, and every value is dropped once.
fn names(threads: usize) {
    let (registry, drops) = (Registry::new(), Arc::new(AtomicU32::new(0)));
    registry.register("value", Counted(Arc::clone(&drops))).unwrap();
    crowd(threads, |thread| match thread {
        0 => registry.destroy().unwrap(),
        1 => match registry.get::<Counted>("value") {
            Ok(handle) => assert_eq!(handle.0.load(Ordering::Relaxed), 0, "dropped under a handle"),
            Err(error) => assert!([NtError::NOT_FOUND, NtError::DELETE_PENDING, NtError::INVALID_DEVICE_STATE].contains(&error)),
        },
        2 => _ = registry.unregister("value"),
        _ => _ = registry.get::<Counted>("value"),
    });
    assert_eq!(drops.load(Ordering::Relaxed), 1);
}

#[test]
fn registry_exhaustively() {
    assert!(exhaust(3, || names(2)).is_exhausted());
}

#[test]
fn registry_portfolio() {
    sample(6, || names(5));
}

/// Of those that register one name, one succeeds, and all get its value.
fn one_name(threads: usize) {
    let (registry, wins) = (Registry::new(), AtomicU32::new(0));
    crowd(threads, |thread| {
        let won = registry.register_checked("counter", KMutex::new((thread, 0_u32)).unwrap()).is_ok();
        wins.fetch_add(won.into(), Ordering::Relaxed);
        let counter = registry.get::<KMutex<(usize, u32)>>("counter").unwrap();
        counter.lock().unwrap().1 += 1;
    });
    assert_eq!(wins.into_inner(), 1);
    let counter = registry.get::<KMutex<(usize, u32)>>("counter").unwrap();
    assert_eq!(counter.lock().unwrap().1, threads as u32);
    drop(counter);
    registry.destroy().unwrap();
}

#[test]
fn one_name_exhaustively() {
    assert!(exhaust(3, || one_name(2)).is_exhausted());
}

#[test]
fn one_name_portfolio() {
    sample(5, || one_name(4));
}

/// Data that another's lock protects is one thread's at a time.
fn parts(threads: usize, turns: u32) {
    let lock = FastLocked::new(0_u32).unwrap();
    let part = LockedBy::new(&lock, 0_u32);
    crowd(threads, |_| {
        for _ in 0..turns {
            let mut whole = lock.lock().unwrap();
            *part.access_mut(&mut whole).unwrap() += 1;
            *whole += 1;
            assert_eq!(part.access(&whole), Ok(&*whole));
        }
    });
    assert_eq!((part.into_inner(), lock.into_inner()), (threads as u32 * turns, threads as u32 * turns));
}

#[test]
fn locked_by_exhaustively() {
    let exploration = exhaust(3, || parts(2, 2));
    assert!(exploration.is_exhausted());
    assert_eq!(exploration.executions(), 6, "one for each order of acquisition");
}

#[test]
fn locked_by_portfolio() {
    sample(5, || parts(4, 3));
}
