//! What all locks have in common: exclusion under many schedules, errors instead of hangs and bug checks, guards in any order, and
//! locks that are dropped while held.

use ksim::{Machine, OsProfile};
use ksync::NtError;
use ksync::error::Result;
use ksync::irql::{self, Irql};
use ksync::mutex::{Backend, Exclusive, FastLocked, GuardLocked, KMutex, Locked, LockedGuard, MappedLockedGuard, SpinLocked};
use ksync::region;
use test_support::threads::{crowd, sleep};

/// How many schedules each search looks at.
const SEEDS: u64 = 50;

/// What the table of tests below asks of a lock.
trait Kind: Exclusive {
    /// Whether it waits rather than spins.
    const WAITS: bool;
    /// Whether a held lock that is dropped lies in a box, which is leaked.
    const BOXED: bool;
}

impl Kind for ksync::mutex::Fast {
    const WAITS: bool = true;
    const BOXED: bool = true;
}
impl Kind for ksync::mutex::Guarded {
    const WAITS: bool = true;
    const BOXED: bool = true;
}
impl Kind for ksync::mutex::Mutex {
    const WAITS: bool = true;
    const BOXED: bool = true;
}
impl Kind for ksync::mutex::Spin {
    const WAITS: bool = false;
    const BOXED: bool = false;
}

impl Kind for ksync::mutex::Resource {
    const WAITS: bool = true;
    const BOXED: bool = true;
}
impl Kind for ksync::mutex::Push {
    const WAITS: bool = true;
    const BOXED: bool = false;
}
impl Kind for ksync::mutex::SpinRw {
    const WAITS: bool = false;
    const BOXED: bool = false;
}

/// Runs a test on one processor, cleanly.
fn on_machine(code: impl FnOnce() -> Result) {
    Machine::new().run(|| outside_regions(|| code().unwrap())).expect_clean();
}

/// Runs code outside of the critical region that system threads start in (rule 26), so that one left over shows.
fn outside_regions(code: impl FnOnce()) {
    // SAFETY: the thread is in the region, at PASSIVE_LEVEL.
    unsafe { ksync::sys::KeLeaveCriticalRegion() };
    assert!(!region::apcs_disabled());
    code();
    assert!(!region::apcs_disabled());
    // SAFETY: the thread is at PASSIVE_LEVEL, as its end would tell otherwise.
    unsafe { ksync::sys::KeEnterCriticalRegion() };
}

/// Makes tests for each lock from a function that is generic over it.
macro_rules! for_each_lock {
    ($($test:ident)*) => {
        mod fast { $(#[test] fn $test() { super::$test::<ksync::mutex::Fast>() })* }
        mod guarded { $(#[test] fn $test() { super::$test::<ksync::mutex::Guarded>() })* }
        mod spin { $(#[test] fn $test() { super::$test::<ksync::mutex::Spin>() })* }
        mod resource { $(#[test] fn $test() { super::$test::<ksync::mutex::Resource>() })* }
        mod push { $(#[test] fn $test() { super::$test::<ksync::mutex::Push>() })* }
        mod spin_rw { $(#[test] fn $test() { super::$test::<ksync::mutex::SpinRw>() })* }
        mod kmutex { $(#[test] fn $test() { super::$test::<ksync::mutex::Mutex>() })* }
    };
}

for_each_lock! {
    four_threads_count_to_400
    tries_exclude_too
    recursion_is_an_error
    too_high_a_level_is_an_error
    levels_and_regions_come_back
    guards_of_three_locks_go_in_any_order
    data_goes_in_and_out
    debug_never_waits
    a_part_can_be_guarded
    a_forgotten_guard_leaks_no_more_than_the_lock
    every_allocation_may_fail
    a_panic_releases
    values_are_dropped_once
}

/// Each increment is a read, a yield and a write: without exclusion some are lost under some schedule.
fn four_threads_count_to_400<L: Kind>()
where
    L::Sharing: ksync::mutex::Sharing<u32>,
{
    for seed in 0..SEEDS {
        let mut sum = 0;
        Machine::new()
            .processors(4)
            .seed(seed)
            .run(|| {
                let counter = Locked::<u32, L>::new(0).unwrap();
                crowd(4, |_| {
                    for _ in 0..100 {
                        let mut count = counter.lock().unwrap();
                        let seen = *count;
                        test_support::threads::scheduling_point();
                        *count = seen + 1;
                    }
                });
                assert_eq!(format!("{counter:?}"), "400");
                sum = counter.into_inner();
            })
            .expect_clean();
        assert_eq!(sum, 400, "seed {seed}");
    }
}

fn tries_exclude_too<L: Kind>() {
    for seed in 0..SEEDS {
        Machine::new()
            .processors(3)
            .seed(seed)
            .run(|| {
                let lock = Locked::<(u32, u32), L>::new((0, 0)).unwrap();
                let granted = core::sync::atomic::AtomicU32::new(0);
                crowd(3, |_| {
                    for _ in 0..20 {
                        match lock.try_lock() {
                            Ok(mut pair) => {
                                pair.0 += 1;
                                test_support::threads::scheduling_point();
                                pair.1 += 1;
                                granted.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
                            }
                            Err(error) => assert_eq!(error, NtError::LOCK_NOT_GRANTED),
                        }
                    }
                });
                let granted = granted.into_inner();
                assert!(granted > 0);
                assert_eq!(lock.into_inner(), (granted, granted));
            })
            .expect_clean();
    }
}

fn recursion_is_an_error<L: Kind>() {
    on_machine(|| {
        let lock = Locked::<u32, L>::new(1)?;
        let guard = lock.lock()?;
        assert_eq!(lock.lock().unwrap_err(), NtError::WOULD_DEADLOCK);
        assert_eq!(lock.try_lock().unwrap_err(), NtError::LOCK_NOT_GRANTED);
        assert!(lock.is_locked());
        drop(guard);
        assert!(!lock.is_locked());
        drop(lock.try_lock()?);
        assert_eq!(*lock.lock()?, 1);
        Ok(())
    });
}

fn too_high_a_level_is_an_error<L: Kind>() {
    on_machine(|| {
        let lock = Locked::<u32, L>::new(1)?;
        for level in [2, 3, 15] {
            // SAFETY: the level is above the present one, and taken back below.
            let old = unsafe { ksync::sys::KfRaiseIrql(level) };
            let results = [lock.lock().map(drop), lock.try_lock().map(drop)];
            // SAFETY: as above.
            unsafe { ksync::sys::KeLowerIrql(old) };
            let expected = if L::WAITS || level > 2 { Err(NtError::IRQL_TOO_HIGH) } else { Ok(()) };
            assert_eq!(results, [expected; 2], "at {level}");
        }
        assert!(!region::apcs_disabled());
        drop(lock.lock()?);
        Ok(())
    });
}

fn levels_and_regions_come_back<L: Kind>() {
    on_machine(|| {
        let lock = Locked::<u32, L>::new(1)?;
        for level in [Irql::PASSIVE, Irql::APC] {
            irql::with_raised(level, || {
                let held_at = if L::WAITS { level } else { Irql::DISPATCH };
                for guard in [lock.lock(), lock.try_lock()] {
                    // The second was refused, because the first is still there.
                    let Ok(guard) = guard else { continue };
                    assert_eq!(irql::current(), held_at);
                    drop(guard);
                    assert_eq!(irql::current(), level);
                }
                let guard = lock.try_lock().unwrap();
                assert_eq!(irql::current(), held_at);
                drop(guard);
                assert_eq!(irql::current(), level);
                assert!(!region::apcs_disabled());
            })?;
        }
        Ok(())
    });
}

/// All orders of three, of guards that came from `lock` and from `try_lock`.
fn guards_of_three_locks_go_in_any_order<L: Kind>() {
    const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for order in ORDERS {
        for tried in 0..8 {
            on_machine(|| {
                let locks = [Locked::<u32, L>::new(0)?, Locked::new(1)?, Locked::new(2)?];
                let take = |i: usize| -> Result<LockedGuard<'_, u32, L>> {
                    if tried >> i & 1 == 1 { locks[i].try_lock() } else { locks[i].lock() }
                };
                let mut guards = [Some(take(0)?), Some(take(1)?), Some(take(2)?)];
                for i in order {
                    assert!(locks[i].is_locked());
                    guards[i] = None;
                    assert!(!locks[i].is_locked());
                }
                assert_eq!(irql::current(), Irql::PASSIVE, "{order:?} {tried}");
                assert!(!region::apcs_disabled());
                for lock in &locks {
                    drop(lock.lock()?);
                }
                Ok(())
            });
        }
    }
}

fn data_goes_in_and_out<L: Kind>() {
    on_machine(|| {
        let mut lock = Locked::<Vec<u32>, L>::new(vec![1])?;
        lock.get_mut().push(2);
        lock.lock()?.push(3);
        let moved = lock;
        moved.with(|data| data.push(4))?;
        assert_eq!(moved.into_inner(), [1, 2, 3, 4]);
        Ok(())
    });
}

fn debug_never_waits<L: Kind>() {
    on_machine(|| {
        let lock = Locked::<Option<u32>, L>::new(Some(1))?;
        assert_eq!(format!("{lock:?}"), "Some(1)");
        let guard = lock.lock()?;
        assert_eq!(format!("{guard:?}"), "Some(1)");
        assert_eq!(format!("{lock:?}"), "<locked>");
        drop(guard);
        // SAFETY: the level is above the present one, and taken back below.
        let old = unsafe { ksync::sys::KfRaiseIrql(3) };
        let text = format!("{lock:?}");
        // SAFETY: as above.
        unsafe { ksync::sys::KeLowerIrql(old) };
        assert_eq!(text, "<locked>");
        Ok(())
    });
}

fn a_part_can_be_guarded<L: Kind>() {
    on_machine(|| {
        let lock = Locked::<(u32, [u32; 2]), L>::new((1, [2, 3]))?;
        let part = LockedGuard::map(lock.lock()?, |pair| &mut pair.1);
        let mut part = MappedLockedGuard::map(part, |array| &mut array[1]);
        *part += 1;
        assert!(lock.is_locked());
        assert_eq!(format!("{part} {part:?}"), "4 4");
        drop(part);
        assert!(!lock.is_locked());
        let none = LockedGuard::filter_map(lock.lock()?, |pair| pair.1.get_mut(2)).map(drop);
        let guard = none.unwrap_err();
        assert_eq!(*guard, (1, [2, 4]));
        drop(guard);
        let some = LockedGuard::filter_map(lock.lock()?, |pair| pair.1.get_mut(1)).ok();
        assert_eq!(some.as_deref(), Some(&4));
        Ok(())
    });
}

/// Defects ksync 12, models 2.3: forgetting a guard is at worst a deadlock, and the held lock is reported and not freed.
fn a_forgotten_guard_leaks_no_more_than_the_lock<L: Kind>() {
    let outcome = Machine::new().run(|| {
        let lock = Locked::<u32, L>::new(1).unwrap();
        core::mem::forget(lock.lock().unwrap());
        assert!(lock.is_locked());
        drop(lock);
    });
    let said = outcome.debug_output().iter().any(|line| line.contains("was dropped while it was held"));
    // The thread ends with a mutex held, or above PASSIVE_LEVEL, and the kernel says so; either way the report came first.
    assert!(said, "{outcome:?}");
    if L::BOXED && outcome.is_completed() {
        assert!(outcome.left().pool_bytes() > 0, "a held lock must not be freed: {outcome:?}");
    }
}

fn every_allocation_may_fail<L: Kind>() {
    for n in 0..3 {
        let outcome = Machine::new().fail_allocation(n).run(|| {
            let kept = Locked::<std::rc::Rc<u32>, L>::new(std::rc::Rc::new(1));
            match kept {
                Ok(lock) => assert_eq!(*lock.into_inner(), 1),
                Err(error) => assert_eq!(error, NtError::INSUFFICIENT_RESOURCES),
            }
        });
        outcome.expect_clean();
    }
}

/// Hosted, a panic unwinds. Guards release on the way.
fn a_panic_releases<L: Kind>() {
    on_machine(|| {
        let lock = Locked::<u32, L>::new(1)?;
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _guard = lock.lock();
            std::panic::resume_unwind(Box::new(()));
        }));
        assert!(result.is_err());
        assert!(!lock.is_locked());
        assert_eq!(irql::current(), Irql::PASSIVE);
        Ok(())
    });
}

/// Defects ksync 8, 47 and wdk-mutex 13: a value is dropped exactly once, whichever way it leaves.
fn values_are_dropped_once<L: Kind>() {
    on_machine(|| {
        let value = std::rc::Rc::new(());
        drop(Locked::<_, L>::new(value.clone())?);
        assert_eq!(std::rc::Rc::strong_count(&value), 1);
        let lock = Locked::<_, L>::new(value.clone())?;
        drop(lock.into_inner());
        assert_eq!(std::rc::Rc::strong_count(&value), 1);
        let lock = Locked::<_, L>::new(value.clone())?;
        *lock.lock()? = value.clone();
        drop(lock);
        assert_eq!(std::rc::Rc::strong_count(&value), 1);
        Ok(())
    });
}

/// Rule 28: before Windows 8 a guarded mutex is something else than a fast mutex; this lock behaves alike.
#[test]
fn guarded_mutexes_are_alike_on_all_systems() {
    for profile in [OsProfile::Windows7, OsProfile::Windows8] {
        for level in [Irql::PASSIVE, Irql::APC] {
            Machine::new()
                .profile(profile)
                .run(|| {
                    outside_regions(|| {
                        irql::with_raised(level, || {
                            let lock = GuardLocked::new(1).unwrap();
                            for _ in 0..3 {
                                let guard = lock.try_lock().unwrap();
                                assert_eq!(irql::current(), level);
                                assert!(region::all_apcs_disabled());
                                drop(guard);
                                drop(lock.lock().unwrap());
                                assert!(!region::apcs_disabled());
                            }
                        })
                        .unwrap();
                    })
                })
                .expect_clean();
        }
    }
}

/// All but the spin locks sleep: the holder may sleep too, and the others come in when it is done.
#[test]
fn holders_may_sleep() {
    fn sleepers<L: Backend + Exclusive>()
    where
        L::Sharing: ksync::mutex::Sharing<u32>,
    {
        for seed in 0..SEEDS {
            Machine::new()
                .processors(2)
                .seed(seed)
                .run(|| {
                    let lock = Locked::<u32, L>::new(0).unwrap();
                    crowd(4, |_| {
                        for _ in 0..3 {
                            let mut count = lock.lock().unwrap();
                            let seen = *count;
                            sleep(5);
                            *count = seen + 1;
                        }
                    });
                    assert_eq!(lock.into_inner(), 12);
                })
                .expect_clean();
        }
    }
    sleepers::<ksync::mutex::Fast>();
    sleepers::<ksync::mutex::Guarded>();
    sleepers::<ksync::mutex::Resource>();
    sleepers::<ksync::mutex::Push>();
    sleepers::<ksync::mutex::Mutex>();
}

/// The aliases are what the seeds call them.
#[test]
fn the_names_of_the_seeds() {
    on_machine(|| {
        assert_eq!(FastLocked::new(0u32)?.into_inner(), 0);
        assert_eq!(GuardLocked::new(0u32)?.into_inner(), 0);
        assert_eq!(SpinLocked::new(0u32)?.into_inner(), 0);
        assert_eq!(KMutex::new(0u32)?.into_inner(), 0);
        Ok(())
    });
}
