//! Fast and guarded mutexes: rules 27 and 28.

use ksim::{Machine, OsProfile};
use ksync_sys::*;
use std::cell::Cell;
use test_support::*;

/// Several threads in a critical section; every one must be alone in it.
fn excludes(acquire: impl Fn(), release: impl Fn()) {
    let (inside, count) = (Cell::new(0), Cell::new(0));
    let other = Event::notification();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            spawn(|| {
                for _ in 0..10 {
                    acquire();
                    inside.set(inside.get() + 1);
                    other.state();
                    assert_eq!(inside.get(), 1);
                    count.set(count.get() + 1);
                    inside.set(0);
                    release();
                }
            })
        })
        .collect();
    join_all(threads);
    assert_eq!(count.get(), 40);
}

#[test]
fn rule_27_fast_mutex_raises_and_restores() {
    run(|| {
        let mutex = FastMutex::new();
        assert_eq!(mutex.read().Count, 1);
        for level in [PASSIVE_LEVEL, APC_LEVEL] {
            at(level, || {
                mutex.acquire();
                assert_eq!(irql(), APC_LEVEL);
                let structure = mutex.read();
                assert_eq!((structure.OldIrql, structure.Owner), (u32::from(level), current_thread()));
                assert!(structure.Count <= 0);
                mutex.release();
                assert_eq!(irql(), level);
                assert_eq!((mutex.read().Count, mutex.read().Owner.is_null()), (1, true));
            });
        }
    });
}

#[test]
fn rule_27_fast_mutex_excludes() {
    explore(|| {
        let mutex = FastMutex::new();
        excludes(|| mutex.acquire(), || mutex.release());
    });
}

#[test]
fn rule_27_try_fails_when_held_also_by_the_caller() {
    explore(|| {
        let (mutex, go) = (FastMutex::new(), Event::notification());
        let other = spawn(|| {
            wait(go.object());
            assert!(!mutex.try_acquire());
            assert_eq!(irql(), PASSIVE_LEVEL);
        });
        assert!(mutex.try_acquire());
        assert_eq!(irql(), APC_LEVEL);
        assert!(!mutex.try_acquire());
        assert_eq!(irql(), APC_LEVEL);
        go.set();
        wait(other.object());
        mutex.release();
        assert_eq!(irql(), PASSIVE_LEVEL);
        other.join();
    });
}

#[test]
fn rule_27_recursion_is_a_deadlock() {
    let place = Place::<FAST_MUTEX>::zeroed();
    let stop = crash(0xc4, || {
        raw!(ExInitializeFastMutex(place.ptr()));
        raw!(ExAcquireFastMutex(place.ptr()));
        raw!(ExAcquireFastMutex(place.ptr()));
    });
    assert_eq!(stop.parameters[..2], [0x1000, place.object() as u64]);
}

#[test]
fn rule_27_unsafe_forms_change_nothing() {
    explore(|| {
        let mutex = FastMutex::new();
        let acquire = || raw!(ExAcquireFastMutexUnsafe(mutex.ptr()));
        let release = || raw!(ExReleaseFastMutexUnsafe(mutex.ptr()));
        // The page allows APC_LEVEL or a critical region, Driver Verifier only the level: the page wins. A system thread starts
        // in a critical region.
        acquire();
        assert_eq!(irql(), PASSIVE_LEVEL);
        release();
        at(APC_LEVEL, || {
            acquire();
            assert_eq!(irql(), APC_LEVEL);
            release();
        });
        excludes(acquire, release);
    });
}

#[test]
fn rule_27_unsafe_forms_need_apcs_off() {
    let acquire = crash(0xc4, || {
        leave_start_region();
        raw!(ExAcquireFastMutexUnsafe(FastMutex::new().ptr()));
    });
    let release = crash(0xc4, || {
        let mutex = FastMutex::new();
        raw!(ExAcquireFastMutexUnsafe(mutex.ptr()));
        leave_start_region();
        raw!(ExReleaseFastMutexUnsafe(mutex.ptr()));
    });
    assert_eq!((acquire.parameters[0], release.parameters[0]), (0x39, 0x3a));
}

#[test]
fn rule_27_release_at_another_level_is_a_bug_check() {
    let stop = crash(0xc4, || {
        let mutex = FastMutex::new();
        mutex.acquire();
        lower(PASSIVE_LEVEL);
        mutex.release();
    });
    assert_eq!(stop.parameters[..2], [0x34, 0]);
    let stop = crash(0xc4, || {
        raise(DISPATCH_LEVEL);
        FastMutex::new().acquire();
    });
    // Driver Verifier names the acquire 0x33; rule IrqlExApcLte1 has the same condition.
    assert_eq!(stop.parameters[..3], [0x2_0005, 2, 1]);
}

#[test]
fn rule_28_guarded_mutex_by_profile() {
    let inside = |profile: OsProfile| {
        let seen = Cell::new((0, false, false));
        let outcome = Machine::new().profile(profile).run(|| {
            leave_start_region();
            let mutex = GuardedMutex::new();
            mutex.acquire();
            seen.set((irql(), raw!(KeAreApcsDisabled()) != 0, raw!(KeAreAllApcsDisabled()) != 0));
            mutex.release();
            assert_eq!((irql(), raw!(KeAreApcsDisabled()), raw!(KeAreAllApcsDisabled())), (PASSIVE_LEVEL, FALSE, FALSE));
            enter_start_region();
        });
        outcome.expect_clean();
        seen.get()
    };
    assert_eq!(inside(OsProfile::Windows7), (PASSIVE_LEVEL, true, true));
    // A fast mutex: APC_LEVEL, which KeAreApcsDisabled does not look at.
    for profile in [OsProfile::Windows8, OsProfile::Windows10, OsProfile::Windows11] {
        assert_eq!(inside(profile), (APC_LEVEL, false, true));
    }
}

#[test]
fn rule_28_guarded_mutex_excludes_and_is_not_recursive() {
    for profile in [OsProfile::Windows7, OsProfile::Windows11] {
        for seed in 0..10 {
            Machine::new()
                .processors(2)
                .seed(seed)
                .profile(profile)
                .run(|| {
                    let mutex = GuardedMutex::new();
                    excludes(|| mutex.acquire(), || mutex.release());
                    let try_acquire = || raw!(KeTryToAcquireGuardedMutex(mutex.ptr())) != 0;
                    assert!(try_acquire());
                    assert!(!try_acquire());
                    mutex.release();
                    assert_eq!(irql(), PASSIVE_LEVEL);
                    raw!(KeEnterGuardedRegion());
                    raw!(KeAcquireGuardedMutexUnsafe(mutex.ptr()));
                    raw!(KeReleaseGuardedMutexUnsafe(mutex.ptr()));
                    raw!(KeLeaveGuardedRegion());
                })
                .expect_clean();
        }
        let outcome = Machine::new().profile(profile).run(|| {
            let mutex = GuardedMutex::new();
            mutex.acquire();
            mutex.acquire();
        });
        assert_eq!(outcome.expect_bug_check(0xc4).parameters[0], 0x1000);
    }
}
