//! Resources, push locks, rundown protection, reader-writer spin locks, threaded DPCs, calls on all processors: rules 29 to 31, 37, 47, 48.

use ksim::{Machine, bug_check};
use ksync_sys::*;
use std::cell::{Cell, RefCell};
use test_support::*;

/// A resource, deleted at the end of its life.
struct Resource(Place<ERESOURCE>);

impl Resource {
    fn new() -> Self {
        let resource = Self(Place::zeroed());
        raw!(ExInitializeResourceLite(resource.0.ptr()));
        resource
    }

    fn ptr(&self) -> *mut ERESOURCE {
        self.0.ptr()
    }

    fn exclusive(&self, wait: bool) -> bool {
        raw!(ExAcquireResourceExclusiveLite(self.ptr(), wait.into())) != 0
    }

    fn shared(&self, wait: bool) -> bool {
        raw!(ExAcquireResourceSharedLite(self.ptr(), wait.into())) != 0
    }

    fn release(&self) {
        raw!(ExReleaseResourceLite(self.ptr()));
    }

    fn owned(&self) -> (bool, u32) {
        (raw!(ExIsResourceAcquiredExclusiveLite(self.ptr())) != 0, raw!(ExIsResourceAcquiredSharedLite(self.ptr())))
    }

    fn waiters(&self) -> (u32, u32) {
        (raw!(ExGetExclusiveWaiterCount(self.ptr())), raw!(ExGetSharedWaiterCount(self.ptr())))
    }

    fn delete(&self) {
        raw!(ExDeleteResourceLite(self.ptr()));
    }
}

#[test]
fn rule_29_exclusive_recurses_and_counts() {
    run(|| {
        let resource = Resource::new();
        assert!(resource.exclusive(false) && resource.exclusive(false));
        // A shared acquisition of the exclusive owner is granted as exclusive.
        assert!(resource.shared(false));
        assert_eq!(resource.owned(), (true, 3));
        for left in [2, 1, 0] {
            resource.release();
            assert_eq!(resource.owned(), (left > 0, left));
        }
        resource.delete();
    });
}

#[test]
fn rule_29_shared_owners_share_and_exclude_exclusive() {
    explore(|| {
        let resource = Resource::new();
        assert!(resource.shared(true));
        let other = spawn(|| {
            assert!(resource.shared(false));
            assert!(!resource.exclusive(false));
            resource.release();
        });
        other.join();
        resource.release();
        resource.delete();
    });
}

#[test]
fn rule_29_a_waiting_exclusive_holds_new_shared_back_but_not_owners() {
    explore(|| {
        let resource = Resource::new();
        assert!(resource.shared(true));
        let writer = spawn(|| {
            assert!(resource.exclusive(true));
            resource.release();
        });
        settle();
        assert_eq!(resource.waiters(), (1, 0));
        let newcomer = spawn(|| {
            assert!(!resource.shared(false));
            // StarveExclusive passes the waiting one; WaitForExclusive does not.
            assert_ne!(raw!(ExAcquireSharedStarveExclusive(resource.ptr(), FALSE)), 0);
            resource.release();
            assert_eq!(raw!(ExAcquireSharedWaitForExclusive(resource.ptr(), FALSE)), 0);
        });
        newcomer.join();
        // An owner recurses even so; but not by the form that waits for exclusive ones.
        assert!(resource.shared(false));
        resource.release();
        assert_eq!(raw!(ExAcquireSharedWaitForExclusive(resource.ptr(), FALSE)), 0);
        resource.release();
        writer.join();
        resource.delete();
    });
}

#[test]
fn rule_29_last_exclusive_release_admits_all_shared_first() {
    explore(|| {
        let resource = Resource::new();
        let order = RefCell::new(Vec::new());
        assert!(resource.exclusive(true));
        let writer = spawn(|| {
            assert!(resource.exclusive(true));
            order.borrow_mut().push('x');
            resource.release();
        });
        settle();
        let readers: Vec<_> = (0..3)
            .map(|_| {
                spawn(|| {
                    assert!(resource.shared(true));
                    order.borrow_mut().push('s');
                    sleep(MS);
                    resource.release();
                })
            })
            .collect();
        settle();
        assert_eq!(resource.waiters(), (1, 3));
        resource.release();
        join_all(readers);
        writer.join();
        assert_eq!(order.take(), ['s', 's', 's', 'x']);
        resource.delete();
    });
}

#[test]
fn rule_29_conversion_admits_waiting_shared_and_keeps_the_count() {
    explore(|| {
        let resource = Resource::new();
        assert!(resource.exclusive(true) && resource.exclusive(true));
        let reader = spawn(|| {
            assert!(resource.shared(true));
            resource.release();
        });
        settle();
        raw!(ExConvertExclusiveToSharedLite(resource.ptr()));
        assert_eq!(resource.owned(), (false, 2));
        reader.join();
        resource.release();
        resource.release();
        resource.delete();
    });
}

#[test]
fn rule_29_misuse_of_resources() {
    let misuse = |code: u32, parameters: &[u64], act: fn(&Resource)| {
        let outcome = Machine::new().run(|| {
            let resource = Resource::new();
            act(&resource);
        });
        let bug_check = outcome.expect_bug_check(code);
        assert!(parameters.iter().zip(bug_check.parameters).all(|(expected, found)| *expected == found), "{bug_check}");
    };
    let verifier = bug_check::DRIVER_VERIFIER_DETECTED_VIOLATION;
    misuse(bug_check::RESOURCE_NOT_OWNED, &[], |resource| resource.release());
    misuse(bug_check::ERESOURCE_INVALID_RELEASE, &[], |resource| {
        resource.exclusive(true);
        raw!(ExReleaseResourceForThreadLite(resource.ptr(), 0x1233));
    });
    misuse(verifier, &[bug_check::verifier::SELF_DEADLOCK], |resource| {
        resource.shared(true);
        resource.exclusive(true);
    });
    misuse(verifier, &[0x37], |resource| {
        // The thread starts inside a critical region; outside it normal kernel APCs are on.
        raw!(KeLeaveCriticalRegion());
        resource.exclusive(true);
    });
    misuse(verifier, &[0x38], |resource| {
        resource.exclusive(true);
        raw!(KeLeaveCriticalRegion());
        resource.release();
    });
    misuse(verifier, &[bug_check::verifier::RESOURCE_REINITIALIZED], |resource| {
        raw!(ExInitializeResourceLite(resource.ptr()));
    });
    misuse(verifier, &[bug_check::verifier::RESOURCE_UNINITIALIZED], |resource| {
        resource.delete();
        resource.delete();
    });
    misuse(verifier, &[bug_check::verifier::DELETED_WHILE_OWNED], |resource| {
        resource.exclusive(true);
        resource.delete();
    });
    misuse(verifier, &[0x2_0007], |resource| {
        raise(DISPATCH_LEVEL);
        resource.exclusive(true);
    });
    misuse(verifier, &[bug_check::verifier::FREED_ACTIVE_RESOURCE], |_| {
        let pool: *mut ERESOURCE = raw!(ExAllocatePool2(POOL_FLAG_NON_PAGED, 104, u32::from_le_bytes(*b"Test"))).cast();
        raw!(ExInitializeResourceLite(pool));
        raw!(ExFreePool(pool.cast()));
    });
}

#[test]
fn rule_29_two_upgrades_deadlock_only_by_waiting() {
    explore(|| {
        let resource = Resource::new();
        assert!(resource.shared(true));
        let other = spawn(|| {
            assert!(resource.shared(true));
            sleep(MS);
            assert!(!resource.exclusive(false));
            resource.release();
        });
        settle();
        assert!(!resource.exclusive(false));
        resource.release();
        other.join();
        resource.delete();
    });
}

fn push_exclusive(lock: &Place<EX_PUSH_LOCK>) {
    raw!(ExAcquirePushLockExclusiveEx(lock.ptr(), 0));
}

fn push_shared(lock: &Place<EX_PUSH_LOCK>) {
    raw!(ExAcquirePushLockSharedEx(lock.ptr(), 0));
}

#[test]
fn rule_30_push_locks_exclude_and_share() {
    explore(|| {
        let lock = Place::<EX_PUSH_LOCK>::zeroed();
        let (readers, writers, most) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let threads: Vec<_> = (0..4)
            .map(|index| {
                let (lock, readers, writers, most) = (&lock, &readers, &writers, &most);
                spawn(move || {
                    for round in 0..5 {
                        if (index + round) % 2 == 0 {
                            push_exclusive(lock);
                            writers.set(writers.get() + 1);
                            sleep(MS);
                            assert_eq!((readers.get(), writers.get()), (0, 1));
                            writers.set(0);
                            raw!(ExReleasePushLockExclusiveEx(lock.ptr(), 0));
                        } else {
                            push_shared(lock);
                            readers.set(readers.get() + 1);
                            most.set(most.get().max(readers.get()));
                            sleep(MS);
                            assert_eq!(writers.get(), 0);
                            readers.set(readers.get() - 1);
                            raw!(ExReleasePushLockSharedEx(lock.ptr(), 0));
                        }
                    }
                })
            })
            .collect();
        join_all(threads);
        assert!(most.get() >= 1);
        assert_eq!(lock.read(), 0);
    });
}

#[test]
fn rule_30_a_waiting_exclusive_holds_new_shared_back() {
    explore(|| {
        let lock = Place::<EX_PUSH_LOCK>::zeroed();
        push_shared(&lock);
        let writer = spawn(|| {
            push_exclusive(&lock);
            raw!(ExReleasePushLockExclusiveEx(lock.ptr(), 0));
        });
        settle();
        let late = spawn(|| assert_eq!(raw!(ExTryAcquirePushLockSharedEx(lock.ptr(), 0)), FALSE));
        late.join();
        raw!(ExReleasePushLockSharedEx(lock.ptr(), 0));
        writer.join();
    });
}

#[test]
fn rule_30_misuse_of_push_locks() {
    let misuse = |code: u32, first: Option<u64>, act: fn(&Place<EX_PUSH_LOCK>)| {
        let outcome = Machine::new().run(|| act(&Place::zeroed()));
        let bug_check = outcome.expect_bug_check(code);
        assert!(first.is_none_or(|first| bug_check.parameters[0] == first), "{bug_check}");
    };
    let verifier = bug_check::DRIVER_VERIFIER_DETECTED_VIOLATION;
    misuse(verifier, Some(0xea), |lock| {
        raw!(KeLeaveCriticalRegion());
        push_exclusive(lock);
    });
    misuse(verifier, Some(0xeb), |lock| {
        push_exclusive(lock);
        raw!(KeLeaveCriticalRegion());
        raw!(ExReleasePushLockExclusiveEx(lock.ptr(), 0));
    });
    misuse(verifier, Some(bug_check::verifier::SELF_DEADLOCK), |lock| {
        push_exclusive(lock);
        push_exclusive(lock);
    });
    misuse(bug_check::INVALID_PUSH_LOCK_FLAGS, Some(0x40), |lock| {
        raw!(ExAcquirePushLockSharedEx(lock.ptr(), 0x40));
    });
    misuse(bug_check::KERNEL_LOCK_ENTRY_LEAKED_ON_THREAD_TERMINATION, None, push_exclusive);
    misuse(bug_check::KERNEL_AUTO_BOOST_INVALID_LOCK_RELEASE, None, |lock| {
        push_exclusive(lock);
        spawn(|| raw!(ExReleasePushLockExclusiveEx(lock.ptr(), 0))).join();
    });
}

#[test]
fn rule_31_rundown_waits_for_the_last_release_and_refuses_from_its_beginning() {
    explore(|| {
        let reference = Place::<EX_RUNDOWN_REF>::zeroed();
        let released = Cell::new(0);
        raw!(ExInitializeRundownProtection(reference.ptr()));
        let holders: Vec<_> = (0..3)
            .map(|_| {
                spawn(|| {
                    if raw!(ExAcquireRundownProtection(reference.ptr())) == FALSE {
                        return;
                    }
                    sleep(MS);
                    released.set(released.get() + 1);
                    raw!(ExReleaseRundownProtection(reference.ptr()));
                })
            })
            .collect();
        settle();
        raw!(ExWaitForRundownProtectionRelease(reference.ptr()));
        let at_the_end = released.get();
        assert_eq!(raw!(ExAcquireRundownProtection(reference.ptr())), FALSE);
        // It has no effect on what is run down already.
        raw!(ExWaitForRundownProtectionRelease(reference.ptr()));
        join_all(holders);
        assert_eq!(released.get(), at_the_end);
        raw!(ExReInitializeRundownProtection(reference.ptr()));
        assert_ne!(raw!(ExAcquireRundownProtectionEx(reference.ptr(), 2)), FALSE);
        raw!(ExReleaseRundownProtectionEx(reference.ptr(), 2));
    });
}

#[test]
fn rule_31_reinitialisation_needs_a_wait_and_release_an_acquisition() {
    let verifier = bug_check::DRIVER_VERIFIER_DETECTED_VIOLATION;
    let outcome = Machine::new().run(|| {
        let reference = Place::<EX_RUNDOWN_REF>::zeroed();
        raw!(ExReInitializeRundownProtection(reference.ptr()));
    });
    assert_eq!(outcome.expect_bug_check(verifier).parameters[0], bug_check::verifier::REINITIALIZED_OBJECT);
    let outcome = Machine::new().run(|| {
        let reference = Place::<EX_RUNDOWN_REF>::zeroed();
        raw!(ExReleaseRundownProtection(reference.ptr()));
    });
    assert_eq!(outcome.expect_bug_check(verifier).parameters[0], bug_check::verifier::NOT_ACQUIRED);
}

#[test]
fn rule_31_the_cache_aware_form_is_the_same() {
    run(|| {
        let reference = raw!(ExAllocateCacheAwareRundownProtection(NonPagedPoolNx, u32::from_le_bytes(*b"Test")));
        assert_ne!(raw!(ExAcquireRundownProtectionCacheAware(reference)), FALSE);
        raw!(ExReleaseRundownProtectionCacheAware(reference));
        raw!(ExWaitForRundownProtectionReleaseCacheAware(reference));
        assert_eq!(raw!(ExAcquireRundownProtectionCacheAware(reference)), FALSE);
        raw!(ExFreeCacheAwareRundownProtection(reference));
    });
}

#[test]
fn rule_37_readers_share_writers_exclude_and_the_sole_reader_converts() {
    run(|| {
        let lock = Place::<EX_SPIN_LOCK>::zeroed();
        let old = raw!(ExAcquireSpinLockShared(lock.ptr()));
        assert_eq!((old, irql(), lock.read()), (PASSIVE_LEVEL, DISPATCH_LEVEL, 1));
        assert_ne!(raw!(ExTryConvertSharedSpinLockExclusive(lock.ptr())), 0);
        assert_eq!(lock.read(), i32::MIN);
        raw!(ExReleaseSpinLockExclusive(lock.ptr(), old));
        assert_eq!((irql(), lock.read()), (PASSIVE_LEVEL, 0));
    });
}

#[test]
fn rule_37_exclusion_over_processors() {
    explore(|| {
        let lock = Place::<EX_SPIN_LOCK>::zeroed();
        let (value, copies) = (Cell::new(0), Cell::new(0));
        let threads: Vec<_> = (0..4)
            .map(|index| {
                let (lock, value, copies) = (&lock, &value, &copies);
                spawn(move || {
                    for _ in 0..5 {
                        if index % 2 == 0 {
                            let old = raw!(ExAcquireSpinLockExclusive(lock.ptr()));
                            value.set(value.get() + 1);
                            processor();
                            copies.set(value.get());
                            raw!(ExReleaseSpinLockExclusive(lock.ptr(), old));
                        } else {
                            let old = raw!(ExAcquireSpinLockShared(lock.ptr()));
                            assert_eq!(value.get(), copies.get());
                            raw!(ExReleaseSpinLockShared(lock.ptr(), old));
                        }
                    }
                })
            })
            .collect();
        join_all(threads);
        assert_eq!(value.get(), 10);
    });
}

#[test]
fn rule_37_no_recursion_even_shared() {
    let outcome = Machine::new().run(|| {
        let lock = Place::<EX_SPIN_LOCK>::zeroed();
        raw!(ExAcquireSpinLockShared(lock.ptr()));
        raw!(ExAcquireSpinLockSharedAtDpcLevel(lock.ptr()));
    });
    outcome.expect_bug_check(bug_check::SPIN_LOCK_ALREADY_OWNED);
    let outcome = Machine::new().run(|| {
        let lock = Place::<EX_SPIN_LOCK>::zeroed();
        at(DISPATCH_LEVEL, || raw!(ExReleaseSpinLockSharedFromDpcLevel(lock.ptr())));
    });
    outcome.expect_bug_check(bug_check::SPIN_LOCK_NOT_OWNED);
}

#[test]
fn rule_47_threaded_dpcs_run_at_either_level_and_before_threads() {
    for (enabled, level) in [(true, PASSIVE_LEVEL), (false, DISPATCH_LEVEL)] {
        for seed in 0..10 {
            let outcome = Machine::new().processors(2).seed(seed).threaded_dpcs(enabled).run(|| {
                let ran = Cell::new(None);
                let dpc = Dpc::threaded(|| ran.set(Some(irql())));
                assert!(dpc.queue());
                flush_dpcs();
                assert_eq!(ran.get(), Some(level));
            });
            outcome.expect_clean();
        }
    }
}

#[test]
fn rule_47_threaded_dpcs_must_not_wait() {
    let outcome = Machine::new().run(|| {
        let event = Event::notification();
        let dpc = Dpc::threaded(|| {
            wait(event.object());
        });
        dpc.queue();
        flush_dpcs();
    });
    outcome.expect_bug_check(bug_check::ATTEMPTED_SWITCH_FROM_DPC);
}

thread_local! {
    static LEADERS: Cell<u32> = const { Cell::new(0) };
    static RUNS: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

unsafe extern "system-unwind" fn on_each(_: *mut KDPC, _: PVOID, done: PVOID, barrier: PVOID) {
    assert_eq!(irql(), DISPATCH_LEVEL);
    RUNS.with_borrow_mut(|runs| runs.push(processor()));
    for _phase in 0..2 {
        if raw!(KeSignalCallDpcSynchronize(barrier)) != 0 {
            LEADERS.set(LEADERS.get() + 1);
        }
    }
    raw!(KeSignalCallDpcDone(done));
}

#[test]
fn rule_48_generic_calls_run_on_every_processor_with_one_leader_a_phase() {
    for processors in [1, 2, 7] {
        for seed in 0..10 {
            LEADERS.set(0);
            RUNS.take();
            let outcome = Machine::new()
                .processors(processors)
                .seed(seed)
                .run(|| raw!(KeGenericCallDpc(Some(on_each), std::ptr::null_mut())));
            outcome.expect_clean();
            let mut runs = RUNS.take();
            runs.sort_unstable();
            assert_eq!(runs, (0..u32::from(processors)).collect::<Vec<_>>());
            assert_eq!(LEADERS.get(), 2);
        }
    }
}
