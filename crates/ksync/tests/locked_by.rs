//! Data whose lock is kept elsewhere: only its own lock opens it, wherever things are moved.

use core::cell::Cell;
use core::mem;
use ksim::Machine;
use ksync::NtError;
use ksync::error::Result;
use ksync::init::{PinInit, pin_data, try_pin_init};
use ksync::mutex::{FastLocked, LockedBy, LockedGuard, PinnedFastLocked, PushLocked, ResourceLocked, SharedGuard, SpinLocked};
use ksync::pool::KBox;
use static_assertions::{assert_impl_all, assert_not_impl_any};
use std::rc::Rc;
use std::sync::MutexGuard;
use test_support::threads::crowd;

const SEEDS: u64 = 60;

// The data is given out exclusively to one thread at a time, so that `Send` is what it takes; the owner is only compared.
assert_impl_all!(LockedBy<Cell<u8>, Rc<u8>>: Send, Sync);
assert_not_impl_any!(LockedBy<Rc<u8>, u8>: Send, Sync);
assert_not_impl_any!(LockedBy<MutexGuard<'static, ()>, u8>: Send, Sync);

fn on_machine(code: impl FnOnce() -> Result) {
    Machine::new().processors(2).run(|| code().unwrap()).expect_clean();
}

#[test]
fn another_lock_does_not_open_it() {
    on_machine(|| {
        let locks = [FastLocked::new(0u8)?, FastLocked::new(0u8)?];
        let parts = locks.each_ref().map(|lock| LockedBy::new(lock, 0));
        for (i, lock) in locks.iter().enumerate() {
            for (j, part) in parts.iter().enumerate() {
                let mut guard = lock.lock()?;
                assert_eq!(part.access_mut(&mut guard).is_ok(), i == j);
                assert_eq!(part.access(&guard).is_ok(), i == j);
            }
        }
        Ok(())
    });
}

/// A copy of what the lock guards is not what the lock guards.
#[test]
fn a_copy_does_not_open_it() {
    on_machine(|| {
        let lock = FastLocked::new(5u64)?;
        let part = LockedBy::new(&lock, 0);
        let mut copy = *lock.lock()?;
        assert_eq!(part.access_mut(&mut copy), Err(NtError::INVALID_PARAMETER));
        Ok(())
    });
}

/// A boxed lock stays where it is when it is moved; one that lies in line does not, and then nothing opens the part any more.
#[test]
fn moving_the_lock() {
    on_machine(|| {
        let boxed = FastLocked::new(0u64)?;
        let part = LockedBy::new(&boxed, 1);
        let moved = Box::new(boxed);
        assert_eq!(part.access(&*moved.lock()?), Ok(&1));

        let inline = Box::new(SpinLocked::const_new(0u64));
        let part = LockedBy::new(&inline, 1);
        let mut place = Box::new(SpinLocked::const_new(9u64));
        let before = mem::replace(&mut *place, *inline);
        assert_eq!(before.into_inner(), 9);
        assert_eq!(part.access(&*place.lock()?), Err(NtError::INVALID_PARAMETER));
        assert_eq!(part.into_inner(), 1);
        Ok(())
    });
}

/// What the lock guards may be swapped for something else: the place counts, and one has it exclusively.
#[test]
fn the_place_counts_and_not_the_value() {
    on_machine(|| {
        let lock = FastLocked::new(String::from("a"))?;
        let part = LockedBy::new(&lock, 1);
        let mut guard = lock.lock()?;
        *guard = String::from("b");
        *part.access_mut(&mut guard)? += 1;
        assert_eq!(part.access(&guard), Ok(&2));
        // A part of it lies at the same address, but is of another type, so that it is not even accepted.
        let (narrowed, _): (&mut String, _) = (&mut guard, ());
        assert_eq!(part.access(narrowed), Ok(&2));
        Ok(())
    });
}

/// A guard that is narrowed does not open it, unless to the whole.
#[test]
fn narrowed_guards() {
    on_machine(|| {
        let lock = FastLocked::new((0u8, 1u8))?;
        let part = LockedBy::new(&lock, 1);
        let mut whole = LockedGuard::map(lock.lock()?, |pair| pair);
        *part.access_mut(&mut whole)? += 1;
        assert_eq!(part.access(&whole), Ok(&2));
        Ok(())
    });
}

/// Readers read the part too, several at once; a writer is alone with it.
#[test]
fn readers_share_it() {
    for seed in 0..SEEDS {
        Machine::new()
            .processors(4)
            .seed(seed)
            .run(|| {
                let (push, resource) = (PushLocked::const_new(0u32), ResourceLocked::new(0u32).unwrap());
                let (a, b) = (LockedBy::new(&push, 0u32), LockedBy::new(&resource, 0u32));
                crowd(4, |thread| {
                    for _ in 0..5 {
                        if thread < 2 {
                            let mut guard = push.lock().unwrap();
                            *guard += 1;
                            *a.access_mut(&mut guard).unwrap() += 1;
                            drop(guard);
                            let mut guard = resource.lock().unwrap();
                            *guard += 1;
                            *b.access_mut(&mut guard).unwrap() += 1;
                        } else {
                            let guard = push.lock_shared().unwrap();
                            assert_eq!(a.access(&guard).unwrap(), &*guard);
                            drop(guard);
                            let guard = SharedGuard::map(resource.lock_shared().unwrap(), |data| data);
                            assert_eq!(b.access(&guard).unwrap(), &*guard);
                        }
                    }
                });
                assert_eq!((a.into_inner(), b.into_inner()), (10, 10));
            })
            .expect_clean();
    }
}

/// The way it is meant: parts with the requests, the lock with the device.
#[test]
fn requests_under_the_devices_lock() {
    #[pin_data]
    struct Device {
        #[pin]
        lock: PinnedFastLocked<u32>,
    }
    struct Request {
        state: LockedBy<u32, u32>,
    }
    impl Device {
        fn new() -> impl PinInit<Self, NtError> {
            try_pin_init!(Self { lock <- PinnedFastLocked::pin_init(0) }? NtError)
        }
    }
    for seed in 0..SEEDS {
        Machine::new()
            .processors(4)
            .seed(seed)
            .run(|| {
                let device = KBox::pin_init(Device::new()).unwrap();
                let requests = [(); 3].map(|()| Request { state: LockedBy::new(&device.lock, 0) });
                crowd(3, |thread| {
                    for i in 0..10 {
                        let mut guard = device.lock.lock().unwrap();
                        *guard += 1;
                        *requests[(thread + i) % 3].state.access_mut(&mut guard).unwrap() += 1;
                    }
                });
                let total: u32 = requests.into_iter().map(|request| request.state.into_inner()).sum();
                assert_eq!(total, 30);
                assert_eq!(*device.lock.lock().unwrap(), 30);
            })
            .expect_clean();
    }
}

/// Data without a size of its own, and what Debug shows: never the data, which is under the lock.
#[test]
fn unsized_data_and_debug() {
    on_machine(|| {
        let lock = FastLocked::new(0u8)?;
        let part: Box<LockedBy<[u8], u8>> = Box::new(LockedBy::new(&lock, [1, 2, 3]));
        part.access_mut(&mut *lock.lock()?)?[0] = 77;
        assert_eq!(part.access(&*lock.lock()?)?, [77, 2, 3]);
        assert!(!format!("{part:?}").contains("77"));
        Ok(())
    });
}
