//! Locks with readers: exclusion of writers under many schedules, conversions, recursion, queries; and rundown protection.

use core::sync::atomic::{AtomicU32, Ordering};
use ksim::Machine;
use ksync::NtError;
use ksync::error::Result;
use ksync::irql::{self, Irql};
use ksync::mutex::{
    CacheAwareRundown, Locked, LockedGuard, Push, PushLocked, Resource, ResourceLocked, Rundown, Shared, SharedGuard, Sharing,
    SpinRw, SpinRwLocked,
};
use ksync::region;
use test_support::threads::{crowd, scheduling_point, sleep, threads};

const SEEDS: u64 = 50;

fn on_machine(code: impl FnOnce() -> Result) {
    Machine::new()
        .processors(2)
        .run(|| {
            // Out of the critical region that system threads start in (rule 26), so that one left over shows.
            // SAFETY: the thread is in the region, at PASSIVE_LEVEL.
            unsafe { ksync::sys::KeLeaveCriticalRegion() };
            code().unwrap();
            assert!(!region::apcs_disabled());
            // SAFETY: the thread is at PASSIVE_LEVEL.
            unsafe { ksync::sys::KeEnterCriticalRegion() };
        })
        .expect_clean();
}

macro_rules! for_each_lock {
    ($($test:ident)*) => {
        mod resource { $(#[test] fn $test() { super::$test::<ksync::mutex::Resource>() })* }
        mod push { $(#[test] fn $test() { super::$test::<ksync::mutex::Push>() })* }
        mod spin_rw { $(#[test] fn $test() { super::$test::<ksync::mutex::SpinRw>() })* }
    };
}

for_each_lock! {
    readers_see_whole_writes
    readers_are_many
    levels_and_regions_come_back
    a_part_can_be_guarded
    too_high_a_level_is_an_error
}

/// Writers change two numbers with a pause between; readers never see one changed and the other not.
fn readers_see_whole_writes<L: Shared>()
where
    L::Sharing: Sharing<(u32, u32)>,
{
    for seed in 0..SEEDS {
        Machine::new()
            .processors(4)
            .seed(seed)
            .run(|| {
                let pair = Locked::<(u32, u32), L>::new((0, 0)).unwrap();
                crowd(4, |thread| {
                    for i in 0..30 {
                        if thread < 2 {
                            let mut pair = pair.lock().unwrap();
                            pair.0 += 1;
                            scheduling_point();
                            pair.1 += 1;
                        } else if i % 2 == 0 {
                            let pair = pair.lock_shared().unwrap();
                            let first = pair.0;
                            scheduling_point();
                            assert_eq!(first, pair.1);
                        } else if let Ok(pair) = pair.try_lock_shared() {
                            let first = pair.0;
                            scheduling_point();
                            assert_eq!(first, pair.1);
                        }
                    }
                });
                assert_eq!(pair.into_inner(), (60, 60));
            })
            .expect_clean();
    }
}

/// Under some schedule all readers are in at once.
fn readers_are_many<L: Shared>()
where
    L::Sharing: Sharing<u32>,
{
    let mut most = 0;
    for seed in 0..SEEDS {
        Machine::new()
            .processors(3)
            .seed(seed)
            .run(|| {
                let lock = Locked::<u32, L>::new(0).unwrap();
                let (inside, highest) = (AtomicU32::new(0), AtomicU32::new(0));
                crowd(3, |_| {
                    for _ in 0..10 {
                        let guard = lock.lock_shared().unwrap();
                        highest.fetch_max(inside.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                        scheduling_point();
                        inside.fetch_sub(1, Ordering::Relaxed);
                        drop(guard);
                    }
                });
                most = most.max(highest.into_inner());
            })
            .expect_clean();
    }
    assert_eq!(most, 3);
}

fn levels_and_regions_come_back<L: Shared>() {
    on_machine(|| {
        let lock = Locked::<u32, L>::new(1)?;
        for level in [Irql::PASSIVE, Irql::APC] {
            irql::with_raised(level, || {
                drop(lock.lock_shared().unwrap());
                assert_eq!(irql::current(), level);
                if let Ok(guard) = lock.try_lock_shared() {
                    drop(guard);
                }
                assert_eq!(irql::current(), level);
                lock.with_shared(|value| assert_eq!(*value, 1)).unwrap();
                assert_eq!(irql::current(), level);
                assert!(!region::apcs_disabled());
            })?;
        }
        Ok(())
    });
}

fn a_part_can_be_guarded<L: Shared>() {
    on_machine(|| {
        let lock = Locked::<(u32, u32), L>::new((1, 2))?;
        let part = SharedGuard::map(lock.lock_shared()?, |pair| &pair.1);
        assert_eq!(format!("{:?}", *part), "2");
        assert!(lock.is_locked());
        drop(part);
        assert!(!lock.is_locked());
        assert_eq!(format!("{:?} {lock:?}", lock.lock_shared()?), "(1, 2) <locked>");
        Ok(())
    });
}

fn too_high_a_level_is_an_error<L: Shared>() {
    on_machine(|| {
        let lock = Locked::<u32, L>::new(1)?;
        // SAFETY: the level is above the present one, and taken back below.
        let old = unsafe { ksync::sys::KfRaiseIrql(3) };
        let results = [lock.lock_shared().map(drop), lock.try_lock_shared().map(drop)];
        // SAFETY: as above.
        unsafe { ksync::sys::KeLowerIrql(old) };
        assert_eq!(results, [Err(NtError::IRQL_TOO_HIGH); 2]);
        Ok(())
    });
}

/// Defect ksync 6: shared access acquires.
#[test]
fn a_shared_guard_keeps_writers_out() {
    fn check<L: Shared>()
    where
        L::Sharing: Sharing<u32>,
    {
        on_machine(|| {
            let lock = Locked::<u32, L>::new(1)?;
            let guard = lock.lock_shared()?;
            assert!(lock.is_locked());
            assert_eq!(lock.try_lock().map(drop), Err(NtError::LOCK_NOT_GRANTED));
            drop(guard);
            drop(lock.try_lock()?);
            Ok(())
        });
    }
    check::<Resource>();
    check::<Push>();
    check::<SpinRw>();
}

/// A holder never gets a second access that would alias the first.
#[test]
fn recursion_of_resources() {
    on_machine(|| {
        let lock = ResourceLocked::new(1)?;
        let exclusive = lock.lock()?;
        assert!(lock.is_acquired_exclusive());
        assert_eq!(lock.acquired_count(), 1);
        for result in [lock.lock_shared(), lock.lock_shared_starve_exclusive(), lock.lock_shared_wait_for_exclusive()] {
            assert_eq!(result.map(drop), Err(NtError::WOULD_DEADLOCK));
        }
        for result in [lock.try_lock_shared(), lock.try_lock_shared_starve_exclusive(), lock.try_lock_shared_wait_for_exclusive()]
        {
            assert_eq!(result.map(drop), Err(NtError::LOCK_NOT_GRANTED));
        }
        drop(exclusive);
        let (one, two) = (lock.lock_shared()?, lock.lock_shared()?);
        assert_eq!(lock.acquired_count(), 2);
        assert!(!lock.is_acquired_exclusive());
        assert_eq!(lock.lock().map(drop), Err(NtError::WOULD_DEADLOCK));
        assert_eq!(lock.try_lock().map(drop), Err(NtError::LOCK_NOT_GRANTED));
        assert_eq!(lock.lock_shared_wait_for_exclusive().map(drop), Err(NtError::WOULD_DEADLOCK));
        drop(lock.lock_shared_starve_exclusive()?);
        drop(one);
        drop(two);
        assert_eq!(lock.acquired_count(), 0);
        Ok(())
    });
}

#[test]
fn recursion_of_writers() {
    on_machine(|| {
        let lock = PushLocked::const_new(1);
        let guard = lock.lock()?;
        assert_eq!(lock.lock_shared().map(drop), Err(NtError::WOULD_DEADLOCK));
        drop(guard);
        let lock = SpinRwLocked::const_new(1);
        let guard = lock.lock()?;
        assert_eq!(lock.lock_shared().map(drop), Err(NtError::WOULD_DEADLOCK));
        drop(guard);
        Ok(())
    });
}

/// Rule 29: a writer that waits keeps ordinary readers out, and those that starve it go first.
#[test]
fn rule_29_ways_to_read() {
    on_machine(|| {
        let lock = ResourceLocked::new(0)?;
        threads::<'_>([
            Box::new(|| {
                let guard = lock.lock_shared().unwrap();
                sleep(100);
                assert_eq!(lock.exclusive_waiters(), 1);
                assert_eq!(lock.shared_waiters(), 1);
                drop(guard);
            }) as Box<dyn FnOnce()>,
            Box::new(|| {
                sleep(10);
                *lock.lock().unwrap() = 1;
            }),
            Box::new(|| {
                sleep(20);
                assert_eq!(lock.try_lock_shared().map(drop), Err(NtError::LOCK_NOT_GRANTED));
                assert_eq!(lock.try_lock_shared_wait_for_exclusive().map(drop), Err(NtError::LOCK_NOT_GRANTED));
                drop(lock.try_lock_shared_starve_exclusive().unwrap());
                drop(lock.lock_shared_starve_exclusive().unwrap());
                assert_eq!(*lock.lock_shared().unwrap(), 1);
            }),
        ]);
        Ok(())
    });
}

/// Rule 29: a conversion lets the readers in that wait, and nobody writes in between.
#[test]
fn rule_29_exclusive_becomes_shared() {
    for seed in 0..SEEDS {
        Machine::new()
            .processors(3)
            .seed(seed)
            .run(|| {
                let lock = ResourceLocked::new(0).unwrap();
                crowd(3, |thread| {
                    for i in 0..10 {
                        let mut guard = lock.lock().unwrap();
                        let mine = 10 * thread + i;
                        *guard = mine;
                        let shared = LockedGuard::downgrade(guard).unwrap();
                        scheduling_point();
                        assert_eq!(*shared, mine);
                        drop(lock.lock_shared().unwrap());
                        drop(shared);
                    }
                });
            })
            .expect_clean();
    }
}

#[test]
fn a_conversion_at_dispatch_level_gives_the_guard_back() {
    on_machine(|| {
        let lock = ResourceLocked::new(0)?;
        let guard = lock.lock()?;
        let guard = irql::with_raised(Irql::DISPATCH, || LockedGuard::downgrade(guard).map(drop).unwrap_err())?;
        assert!(lock.is_acquired_exclusive());
        drop(guard);
        Ok(())
    });
}

/// Defect ksync 43: a resource that is dropped where it cannot be deleted is leaked, not freed.
#[test]
fn a_resource_dropped_at_dispatch_level_is_leaked() {
    let outcome = Machine::new().run(|| {
        let lock = ResourceLocked::new(0).unwrap();
        irql::with_raised(Irql::DISPATCH, || drop(lock)).unwrap();
    });
    assert!(outcome.is_completed(), "{outcome:?}");
    assert!(outcome.left().pool_bytes() >= 104);
}

/// Rule 37: only the sole reader becomes the writer.
#[test]
fn rule_37_the_sole_reader_becomes_the_writer() {
    on_machine(|| {
        let lock = SpinRwLocked::const_new(1);
        let guard = lock.lock_shared()?;
        let mut guard = SharedGuard::try_upgrade(guard).unwrap();
        *guard += 1;
        assert_eq!(lock.lock().map(drop), Err(NtError::WOULD_DEADLOCK));
        drop(guard);
        assert_eq!(irql::current(), Irql::PASSIVE);
        let guard = lock.try_lock_shared()?;
        drop(SharedGuard::try_upgrade(guard).unwrap());
        assert_eq!(irql::current(), Irql::PASSIVE);
        irql::with_raised(Irql::DISPATCH, || drop(SharedGuard::try_upgrade(lock.lock_shared().unwrap()).unwrap()))?;
        assert_eq!(lock.into_inner(), 2);
        Ok(())
    });
    for seed in 0..SEEDS {
        Machine::new()
            .processors(3)
            .seed(seed)
            .run(|| {
                let lock = SpinRwLocked::new(0).unwrap();
                crowd(3, |_| {
                    for _ in 0..20 {
                        let guard = lock.lock_shared().unwrap();
                        let seen = *guard;
                        scheduling_point();
                        match SharedGuard::try_upgrade(guard) {
                            Ok(mut exclusive) => {
                                assert_eq!(*exclusive, seen, "nobody wrote in between");
                                *exclusive += 1;
                            }
                            // Another reader is in, which may want the same: give way.
                            Err(shared) => {
                                drop(shared);
                                *lock.lock().unwrap() += 1;
                            }
                        }
                    }
                });
                assert_eq!(lock.into_inner(), 60);
            })
            .expect_clean();
    }
}

/// Rule 31: users come and go until the wait begins; it returns when the last is gone, and then nobody gets in.
#[test]
fn rule_31_rundown() {
    for seed in 0..SEEDS {
        Machine::new()
            .processors(3)
            .seed(seed)
            .run(|| {
                let (plain, aware) = (Rundown::new(), CacheAwareRundown::new().unwrap());
                let gone = AtomicU32::new(0);
                crowd(4, |thread| {
                    if thread == 3 {
                        sleep(3);
                        plain.wait().unwrap();
                        aware.wait().unwrap();
                        gone.store(1, Ordering::Relaxed);
                        assert_eq!(plain.wait(), Ok(()), "a second wait returns at once");
                        return;
                    }
                    loop {
                        let (Ok(one), Ok(two)) = (plain.acquire(), aware.acquire()) else { break };
                        assert_eq!(gone.load(Ordering::Relaxed), 0);
                        sleep(1);
                        assert_eq!(gone.load(Ordering::Relaxed), 0);
                        drop(one);
                        drop(two);
                    }
                });
                assert_eq!(plain.acquire().map(drop), Err(NtError::DELETE_PENDING));
                plain.reinit().unwrap();
                aware.reinit().unwrap();
                assert_eq!(plain.reinit(), Err(NtError::INVALID_DEVICE_STATE));
                drop(plain.acquire().unwrap());
                drop(aware.acquire().unwrap());
            })
            .expect_clean();
    }
}

/// NT asks that one thread waits; a second is refused rather than let into the same wait.
#[test]
fn a_second_waiter_is_refused() {
    on_machine(|| {
        let rundown = Rundown::new();
        threads::<'_>([
            Box::new(|| {
                let user = rundown.acquire().unwrap();
                sleep(50);
                drop(user);
            }) as Box<dyn FnOnce()>,
            Box::new(|| {
                sleep(10);
                rundown.wait().unwrap();
            }),
            Box::new(|| {
                sleep(20);
                assert_eq!(rundown.wait(), Err(NtError::DELETE_PENDING));
                assert_eq!(rundown.reinit(), Err(NtError::INVALID_DEVICE_STATE));
                assert_eq!(format!("{rundown:?}"), "Rundown(running down)");
            }),
        ]);
        let too_high = irql::with_raised(Irql::DISPATCH, || rundown.wait())?;
        assert_eq!(too_high, Err(NtError::IRQL_TOO_HIGH));
        Ok(())
    });
}

#[test]
#[expect(deprecated, reason = "the seed's misspelt name is kept")]
fn the_seeds_spelling_works() {
    on_machine(|| {
        let shared_counter = ksync::mutex::ResouceLocked::new(0u32).unwrap();
        if let Ok(mut counter) = shared_counter.lock() {
            *counter += 1;
        }
        Ok(())
    });
}
