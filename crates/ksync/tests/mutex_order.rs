//! Guards that hold the processor at `DISPATCH_LEVEL`, dropped in any order, between others that run: the level stays until the last is gone.

use core::pin::pin;
use ksim::Machine;
use ksync::irql::{self, Irql};
use ksync::mutex::{InStackQueueLocked, LockedQueueHandle, SpinLocked, SpinRwLocked};
use std::any::Any;
use test_support::threads::{crowd, scheduling_point};

const SEEDS: u64 = 50;

/// All orders of four.
fn orders() -> Vec<[usize; 4]> {
    let mut orders = Vec::new();
    for n in 0..256_usize {
        let order = [n & 3, n >> 2 & 3, n >> 4 & 3, n >> 6 & 3];
        if (0..4).all(|i| order.contains(&i)) {
            orders.push(order);
        }
    }
    orders
}

/// Four kinds of lock, taken in one order and released in another, by four threads on three processors.
#[test]
fn locks_of_all_kinds_are_released_in_any_order() {
    let orders = orders();
    assert_eq!(orders.len(), 24);
    for seed in 0..SEEDS {
        let orders = &orders;
        Machine::new()
            .processors(3)
            .seed(seed)
            .run(|| {
                let (plain, tried) = (SpinLocked::const_new(0_u32), SpinLocked::const_new(0_u32));
                let (queued, shared) = (InStackQueueLocked::const_new(0_u32), SpinRwLocked::const_new(0_u32));
                crowd(4, |thread| {
                    for (i, order) in orders.iter().enumerate() {
                        let mut handle = pin!(LockedQueueHandle::new());
                        // The outermost lock keeps the threads apart, so that the order of acquisition is always the same.
                        let mut first = plain.lock().unwrap();
                        *first += 1;
                        let mut second = queued.lock(&mut handle).unwrap();
                        *second += 1;
                        let mut third = shared.lock().unwrap();
                        *third += 1;
                        let mut fourth =
                            if thread % 2 == 0 { tried.lock() } else { tried.try_lock().or_else(|_| tried.lock()) }.unwrap();
                        *fourth += 1;
                        let (mut first, mut second, mut third, mut fourth) =
                            (Some(first), Some(second), Some(third), Some(fourth));
                        for (gone, &which) in order.iter().enumerate() {
                            assert_eq!(irql::current(), Irql::DISPATCH, "{gone} of {order:?} are gone");
                            match which {
                                0 => drop(first.take()),
                                1 => drop(second.take()),
                                2 => drop(third.take()),
                                _ => drop(fourth.take()),
                            }
                            scheduling_point();
                        }
                        assert_eq!(irql::current(), Irql::PASSIVE, "{i}: {order:?}");
                    }
                });
                assert_eq!([plain.into_inner(), queued.into_inner(), shared.into_inner(), tried.into_inner()], [96; 4]);
            })
            .expect_clean();
    }
}

/// A level that was raised by itself is one of them.
#[test]
fn a_raised_level_too() {
    for order in orders() {
        Machine::new()
            .run(|| {
                let (one, two) = (SpinLocked::const_new(()), SpinLocked::const_new(()));
                for level_first in [true, false] {
                    let mut guards: Vec<Option<Box<dyn Any>>> = Vec::new();
                    if level_first {
                        guards.push(Some(leak(irql::raise(Irql::DISPATCH).unwrap())));
                    }
                    guards.push(Some(leak(one.lock().unwrap())));
                    guards.push(Some(leak(irql::raise(Irql::DISPATCH).unwrap())));
                    guards.push(Some(leak(two.lock_at_dpc_level().unwrap())));
                    if !level_first {
                        guards.push(Some(leak(irql::raise(Irql::DISPATCH).unwrap())));
                    }
                    for which in order {
                        assert_eq!(irql::current(), Irql::DISPATCH);
                        guards[which] = None;
                    }
                    assert_eq!(irql::current(), Irql::PASSIVE, "{order:?}");
                    assert!(!one.is_locked() && !two.is_locked());
                }
            })
            .expect_clean();
    }
}

/// A guard as a value of no lifetime, which the test keeps within its lock's.
fn leak<'a, G: 'a>(guard: G) -> Box<dyn Any> {
    struct Kept(Option<Box<dyn FnOnce()>>);
    impl Drop for Kept {
        fn drop(&mut self) {
            if let Some(release) = self.0.take() {
                release();
            }
        }
    }
    let release: Box<dyn FnOnce() + 'a> = Box::new(move || drop(guard));
    // SAFETY: the test drops all guards before the locks.
    let release = unsafe { core::mem::transmute::<Box<dyn FnOnce() + 'a>, Box<dyn FnOnce() + 'static>>(release) };
    Box::new(Kept(Some(release)))
}

/// Forgetting a guard made inside leaves the thread at its level, and no other trace: the next first guard begins anew.
#[test]
fn a_forgotten_guard_leaves_no_trace_in_later_ones() {
    Machine::new()
        .run(|| {
            let (one, two) = (SpinLocked::const_new(1), SpinLocked::const_new(2));
            let first = one.lock().unwrap();
            core::mem::forget(two.lock().unwrap());
            drop(first);
            assert_eq!(irql::current(), Irql::DISPATCH);
            // SAFETY: this is what undoes the forgetting: the lock is held, at the level that it is held at, and the level before was PASSIVE_LEVEL.
            unsafe { ksync::sys::KeReleaseSpinLockFromDpcLevel(core::ptr::from_ref(&two).cast_mut().cast()) };
            // SAFETY: as above.
            unsafe { ksync::sys::KeLowerIrql(ksync::sys::PASSIVE_LEVEL) };
            drop(one.lock().unwrap());
            assert_eq!(irql::current(), Irql::PASSIVE);
        })
        .expect_clean();
}
