//! The check of the order of locks: 0xC4, 0x1001.

use ksim::{BugCheck, Machine, Outcome, bug_check};
use ksync_sys::*;
use std::panic::Location;
use test_support::*;

/// Takes `second` within `first`.
fn nest(first: *mut KSPIN_LOCK, second: *mut KSPIN_LOCK) {
    // SAFETY: both locks outlive the call.
    let old = unsafe { KeAcquireSpinLockRaiseToDpc(first) };
    // SAFETY: as above.
    unsafe { KeAcquireSpinLockAtDpcLevel(second) };
    // SAFETY: it was acquired just now.
    unsafe { KeReleaseSpinLockFromDpcLevel(second) };
    // SAFETY: as above.
    unsafe { KeReleaseSpinLock(first, old) };
}

#[test]
fn two_orders_are_found_by_one_thread_that_never_deadlocks() {
    let (mut a, mut b): (KSPIN_LOCK, KSPIN_LOCK) = (0, 0);
    let (a, b) = (&raw mut a, &raw mut b);
    let outcome = Machine::new().check_lock_order(true).run(|| {
        nest(a, b);
        nest(b, a);
    });
    let bug_check = outcome.expect_bug_check(bug_check::DRIVER_VERIFIER_DETECTED_VIOLATION);
    assert_eq!(bug_check.parameters, [bug_check::verifier::LOCK_HIERARCHY, a as u64, b as u64, 0]);
}

#[test]
fn a_cycle_of_three_is_found() {
    let mut locks: [KSPIN_LOCK; 3] = [0; 3];
    let [a, b, c] = locks.each_mut().map(|lock| &raw mut *lock);
    let outcome = Machine::new().check_lock_order(true).run(|| {
        nest(a, b);
        nest(b, c);
        nest(c, a);
    });
    let bug_check = outcome.expect_bug_check(bug_check::DRIVER_VERIFIER_DETECTED_VIOLATION);
    assert_eq!(bug_check.parameters[0], bug_check::verifier::LOCK_HIERARCHY);
    assert!(bug_check.meaning.contains("some schedule deadlocks"), "{bug_check}");
}

#[test]
fn one_order_is_fine_however_often() {
    let (mut a, mut b): (KSPIN_LOCK, KSPIN_LOCK) = (0, 0);
    let (a, b) = (&raw mut a, &raw mut b);
    Machine::new().check_lock_order(true).run(|| (0..10).for_each(|_| nest(a, b))).expect_clean();
}

#[test]
fn locks_of_one_class_stand_for_each_other() {
    let mut locks: [KSPIN_LOCK; 4] = [0; 4];
    let [a1, a2, b1, b2] = locks.each_mut().map(|lock| &raw mut *lock);
    let (a_site, b_site) = (Location::caller(), here());
    let outcome = Machine::new().check_lock_order(true).run(|| {
        for (lock, site) in [(a1, a_site), (a2, a_site), (b1, b_site), (b2, b_site)] {
            ksync_sys::classify_lock(lock.addr(), size_of::<KSPIN_LOCK>(), site);
        }
        nest(a1, b1);
        nest(b2, a2);
    });
    let bug_check = outcome.expect_bug_check(bug_check::DRIVER_VERIFIER_DETECTED_VIOLATION);
    assert_eq!(bug_check.parameters[0], bug_check::verifier::LOCK_HIERARCHY);
    assert!(bug_check.meaning.contains("lock_order.rs"), "{bug_check}");
}

#[track_caller]
fn here() -> &'static Location<'static> {
    Location::caller()
}

#[test]
fn fast_mutexes_and_spin_locks_are_in_one_order() {
    let outcome = Machine::new().check_lock_order(true).run(|| {
        let mut mutexes: Vec<FAST_MUTEX> = Vec::with_capacity(2);
        let a = mutexes.as_mut_ptr();
        let b = a.wrapping_add(1);
        for mutex in [a, b] {
            // SAFETY: the vector has room for two, which do not move.
            unsafe { ksync_sys::ExInitializeFastMutex(mutex) };
        }
        let nest = |first, second| {
            // SAFETY: both are initialised.
            unsafe { ksync_sys::ExAcquireFastMutex(first) };
            // SAFETY: as above.
            unsafe { ksync_sys::ExAcquireFastMutex(second) };
            // SAFETY: it was acquired just now.
            unsafe { ksync_sys::ExReleaseFastMutex(second) };
            // SAFETY: as above.
            unsafe { ksync_sys::ExReleaseFastMutex(first) };
        };
        nest(a, b);
        // An attempt that does not wait gives no order.
        // SAFETY: both are initialised.
        unsafe { ksync_sys::ExAcquireFastMutex(b) };
        // SAFETY: as above.
        assert_ne!(unsafe { ksync_sys::ExTryToAcquireFastMutex(a) }, FALSE);
        // SAFETY: it was acquired just now.
        unsafe { ksync_sys::ExReleaseFastMutex(a) };
        // SAFETY: as above.
        unsafe { ksync_sys::ExReleaseFastMutex(b) };
        nest(b, a);
    });
    let bug_check = outcome.expect_bug_check(bug_check::DRIVER_VERIFIER_DETECTED_VIOLATION);
    assert_eq!(bug_check.routine, Some("ExAcquireFastMutex"));
}

/// A lock of some kind, as what comes to a deadlock sees it.
trait Lock {
    fn acquire(&self);
    fn release(&self);
}

impl Lock for FastMutex {
    fn acquire(&self) {
        raw!(KeEnterGuardedRegion());
        raw!(ExAcquireFastMutexUnsafe(self.ptr()));
    }

    fn release(&self) {
        raw!(ExReleaseFastMutexUnsafe(self.ptr()));
        raw!(KeLeaveGuardedRegion());
    }
}

impl Lock for Mutex {
    fn acquire(&self) {
        wait(self.object());
    }

    fn release(&self) {
        raw!(KeReleaseMutex(self.ptr(), FALSE));
    }
}

/// A push lock or a resource, and whether it is taken exclusively.
struct PushLock<'a>(&'a Place<EX_PUSH_LOCK>, bool);
struct Resource<'a>(&'a Place<ERESOURCE>, bool);

impl Lock for PushLock<'_> {
    fn acquire(&self) {
        raw!(KeEnterCriticalRegion());
        if self.1 {
            raw!(ExAcquirePushLockExclusiveEx(self.0.ptr(), 0));
        } else {
            raw!(ExAcquirePushLockSharedEx(self.0.ptr(), 0));
        }
    }

    fn release(&self) {
        if self.1 {
            raw!(ExReleasePushLockExclusiveEx(self.0.ptr(), 0));
        } else {
            raw!(ExReleasePushLockSharedEx(self.0.ptr(), 0));
        }
        raw!(KeLeaveCriticalRegion());
    }
}

impl Lock for Resource<'_> {
    fn acquire(&self) {
        raw!(KeEnterCriticalRegion());
        if self.1 {
            raw!(ExAcquireResourceExclusiveLite(self.0.ptr(), TRUE));
        } else {
            raw!(ExAcquireResourceSharedLite(self.0.ptr(), TRUE));
        }
    }

    fn release(&self) {
        raw!(ExReleaseResourceLite(self.0.ptr()));
        raw!(KeLeaveCriticalRegion());
    }
}

fn within(first: &dyn Lock, second: &dyn Lock) {
    first.acquire();
    second.acquire();
    second.release();
    first.release();
}

/// Two threads that take the locks in both orders, one after the other by their delays alone, so that this run has no deadlock.
fn both_orders(a: (&dyn Lock, &dyn Lock), b: (&dyn Lock, &dyn Lock)) {
    let one = spawn(move || within(a.0, a.1));
    let two = spawn(move || {
        sleep(MS);
        within(b.0, b.1);
    });
    join_all([one, two]);
}

#[track_caller]
fn expect_cycle(outcome: Outcome) -> BugCheck {
    let bug_check = outcome.expect_bug_check(bug_check::DRIVER_VERIFIER_DETECTED_VIOLATION);
    assert_eq!(bug_check.parameters[0], bug_check::verifier::LOCK_HIERARCHY, "{bug_check}");
    bug_check
}

#[test]
fn both_orders_of_two_threads_are_found_though_they_never_meet() {
    let outcome = Machine::new().run(|| {
        let (a, b) = (Mutex::new(), FastMutex::new());
        both_orders((&a, &b), (&b, &a));
    });
    let bug_check = expect_cycle(outcome);
    // Both threads are named, and both places.
    assert_eq!(bug_check.related.len(), 2, "{bug_check}");
    assert!(bug_check.meaning.contains("mutex #"), "{bug_check}");
    for related in &bug_check.related {
        assert!(related.what.contains("asked for"), "{bug_check}");
        assert!(!related.call_sites.is_empty(), "{bug_check}");
    }
}

#[test]
fn all_acquisitions_are_told_where_sites_are_recorded() {
    let outcome = Machine::new().record_sites(true).run(|| {
        let (a, b) = (Mutex::new(), FastMutex::new());
        both_orders((&a, &b), (&b, &a));
    });
    let bug_check = expect_cycle(outcome);
    assert_eq!(bug_check.related.len(), 4, "{bug_check}");
    assert!(bug_check.related.iter().all(|related| !related.call_sites.is_empty()), "{bug_check}");
}

#[test]
fn push_locks_are_in_the_order() {
    let outcome = Machine::new().run(|| {
        let (a, b) = (Place::zeroed(), Mutex::new());
        raw!(ExInitializePushLock(a.ptr()));
        let shared = PushLock(&a, false);
        let exclusive = PushLock(&a, true);
        both_orders((&shared, &b), (&b, &exclusive));
    });
    expect_cycle(outcome);
}

fn with_resources(code: impl FnOnce(&Place<ERESOURCE>, &Place<ERESOURCE>)) {
    let (a, b) = (Place::zeroed(), Place::zeroed());
    raw!(ExInitializeResourceLite(a.ptr()));
    raw!(ExInitializeResourceLite(b.ptr()));
    code(&a, &b);
    raw!(ExDeleteResourceLite(a.ptr()));
    raw!(ExDeleteResourceLite(b.ptr()));
}

#[test]
fn resources_are_in_the_order() {
    let outcome = Machine::new().run(|| {
        with_resources(|a, b| {
            both_orders((&Resource(a, true), &Resource(b, true)), (&Resource(b, true), &Resource(a, true)));
        });
    });
    expect_cycle(outcome);
}

#[test]
fn owners_that_share_do_not_wait_for_each_other() {
    let outcome = Machine::new().run(|| {
        with_resources(|a, b| {
            both_orders((&Resource(a, false), &Resource(b, false)), (&Resource(b, false), &Resource(a, false)));
        });
    });
    outcome.expect_clean();
}

/// Both orders of a mutex and a resource that is shared in both, and what a third thread does meanwhile.
fn shared_in_both_orders(first: &dyn Lock, second: &dyn Lock, meanwhile: impl FnOnce(&Event)) {
    let (mutex, between) = (Mutex::new(), Event::notification());
    let one = spawn(|| {
        Lock::acquire(&mutex);
        first.acquire();
        first.release();
        Lock::release(&mutex);
        between.set();
        sleep(10 * MS);
    });
    let two = spawn(|| {
        sleep(MS);
        second.acquire();
        Lock::acquire(&mutex);
        Lock::release(&mutex);
        second.release();
    });
    let three = spawn(|| {
        sleep(2 * MS);
        meanwhile(&between);
    });
    join_all([one, two, three]);
}

#[test]
fn owners_that_share_wait_behind_one_who_does_not() {
    let outcome = Machine::new().run(|| {
        with_resources(|resource, _| {
            let (shared, exclusive) = (Resource(resource, false), Resource(resource, true));
            shared_in_both_orders(&shared, &shared, |_| {
                exclusive.acquire();
                exclusive.release();
            });
        });
    });
    let bug_check = expect_cycle(outcome);
    assert_eq!(bug_check.related.len(), 3, "{bug_check}");
    assert!(bug_check.related[2].what.contains("exclusively"), "{bug_check}");
    let push_locks = Machine::new().run(|| {
        let lock = Place::zeroed();
        raw!(ExInitializePushLock(lock.ptr()));
        let (shared, exclusive) = (PushLock(&lock, false), PushLock(&lock, true));
        shared_in_both_orders(&shared, &shared, |_| {
            exclusive.acquire();
            exclusive.release();
        });
    });
    expect_cycle(push_locks);
}

/// Shared acquisition past those who wait to own a resource exclusively.
struct Ahead<'a>(&'a Place<ERESOURCE>);

impl Lock for Ahead<'_> {
    fn acquire(&self) {
        raw!(KeEnterCriticalRegion());
        raw!(ExAcquireSharedStarveExclusive(self.0.ptr(), TRUE));
    }

    fn release(&self) {
        Resource(self.0, false).release();
    }
}

#[test]
fn exclusive_owners_that_cannot_come_between_are_none() {
    let clean = |code: fn(&Place<ERESOURCE>)| {
        Machine::new().run(|| with_resources(|resource, _| code(resource))).expect_clean();
    };
    // Who goes past them does not wait behind them.
    clean(|resource| {
        shared_in_both_orders(&Ahead(resource), &Resource(resource, false), |_| {
            Resource(resource, true).acquire();
            Resource(resource, true).release();
        });
    });
    // Nor does anybody behind one who asks for it where a further lock keeps them apart,
    clean(|resource| {
        let (gate, mutex, shared) = (FastMutex::new(), Mutex::new(), Resource(resource, false));
        let one = spawn(|| {
            Lock::acquire(&gate);
            within(&mutex, &shared);
            Lock::release(&gate);
        });
        let two = spawn(|| {
            sleep(MS);
            within(&shared, &mutex);
        });
        let three = spawn(|| {
            sleep(2 * MS);
            within(&gate, &Resource(resource, true));
        });
        join_all([one, two, three]);
    });
    // or after one of them is through,
    clean(|resource| {
        let shared = Resource(resource, false);
        shared_in_both_orders(&shared, &shared, |between| {
            wait(between.object());
            Resource(resource, true).acquire();
            Resource(resource, true).release();
        });
    });
    // or does not wait for it.
    clean(|resource| {
        let shared = Resource(resource, false);
        shared_in_both_orders(&shared, &shared, |_| {
            raw!(KeEnterCriticalRegion());
            if raw!(ExAcquireResourceExclusiveLite(resource.ptr(), FALSE)) != 0 {
                raw!(ExReleaseResourceLite(resource.ptr()));
            }
            raw!(KeLeaveCriticalRegion());
        });
    });
}

/// Rundown protection, as what is acquired and as what is waited for.
struct Protection<'a>(&'a Place<EX_RUNDOWN_REF>);
struct Rundown<'a>(&'a Place<EX_RUNDOWN_REF>);

impl Lock for Protection<'_> {
    fn acquire(&self) {
        assert_ne!(raw!(ExAcquireRundownProtection(self.0.ptr())), 0);
    }

    fn release(&self) {
        raw!(ExReleaseRundownProtection(self.0.ptr()));
    }
}

impl Lock for Rundown<'_> {
    fn acquire(&self) {
        raw!(ExWaitForRundownProtectionRelease(self.0.ptr()));
    }

    fn release(&self) {}
}

fn with_rundown(code: impl FnOnce(&Place<EX_RUNDOWN_REF>, &Mutex)) -> Outcome {
    Machine::new().run(|| {
        let (rundown, mutex) = (Place::zeroed(), Mutex::new());
        raw!(ExInitializeRundownProtection(rundown.ptr()));
        code(&rundown, &mutex);
    })
}

#[test]
fn who_waits_for_a_rundown_waits_for_who_is_protected() {
    let outcome = with_rundown(|rundown, mutex| both_orders((&Protection(rundown), mutex), (mutex, &Rundown(rundown))));
    let bug_check = expect_cycle(outcome);
    assert_eq!(bug_check.routine, Some("ExWaitForRundownProtectionRelease"));
    // What follows a rundown does not meet what it has waited for.
    with_rundown(|rundown, mutex| {
        let other = Mutex::new();
        let one = spawn(|| {
            Protection(rundown).acquire();
            within(&other, mutex);
            Protection(rundown).release();
        });
        let two = spawn(|| {
            sleep(MS);
            Rundown(rundown).acquire();
            within(mutex, &other);
        });
        join_all([one, two]);
    })
    .expect_clean();
    // What another releases is nobody's.
    with_rundown(|rundown, mutex| {
        let one = spawn(|| {
            Protection(rundown).acquire();
            spawn(|| Protection(rundown).release()).join();
            Lock::acquire(mutex);
            Lock::release(mutex);
        });
        let two = spawn(|| {
            sleep(MS);
            within(mutex, &Rundown(rundown));
        });
        join_all([one, two]);
    })
    .expect_clean();
}

#[test]
fn a_resource_that_was_released_is_not_in_the_order() {
    let outcome = Machine::new().run(|| {
        with_resources(|a, b| {
            let (first, second) = (Resource(a, true), Resource(b, true));
            let one = spawn(|| within(&first, &second));
            let two = spawn(|| {
                sleep(MS);
                second.acquire();
                second.release();
                first.acquire();
                first.release();
            });
            join_all([one, two]);
        });
    });
    outcome.expect_clean();
}

#[test]
fn one_thread_alone_does_not_deadlock() {
    let outcome = Machine::new().run(|| {
        let (a, b) = (Mutex::new(), Mutex::new());
        within(&a, &b);
        within(&b, &a);
    });
    outcome.expect_clean();
}

#[test]
fn what_was_before_a_thread_began_or_after_it_ended_does_not_meet_it() {
    let outcome = Machine::new().run(|| {
        let (a, b) = (Mutex::new(), FastMutex::new());
        within(&a, &b);
        spawn(|| within(&b, &a)).join();
        within(&a, &b);
    });
    outcome.expect_clean();
}

#[test]
fn what_an_event_orders_does_not_meet() {
    let outcome = Machine::new().run(|| {
        let (a, b, event) = (Mutex::new(), FastMutex::new(), Event::notification());
        let one = spawn(|| {
            within(&a, &b);
            event.set();
        });
        let two = spawn(|| {
            wait(event.object());
            within(&b, &a);
        });
        join_all([one, two]);
    });
    outcome.expect_clean();
}

#[test]
fn what_a_queued_dpc_orders_does_not_meet() {
    let outcome = Machine::new().processors(2).run(|| {
        let (a, b) = (SpinLock::new(), SpinLock::new());
        let dpc = Dpc::new(|| nest(b.ptr(), a.ptr()));
        nest(a.ptr(), b.ptr());
        dpc.queue();
        flush_dpcs();
        nest(a.ptr(), b.ptr());
    });
    outcome.expect_clean();
}

#[test]
fn a_dpc_and_a_thread_that_can_meet_are_found() {
    let outcome = Machine::new().processors(2).run(|| {
        let (a, b) = (SpinLock::new(), SpinLock::new());
        let dpc = Dpc::new(|| nest(b.ptr(), a.ptr()));
        dpc.queue();
        nest(a.ptr(), b.ptr());
        flush_dpcs();
    });
    expect_cycle(outcome);
}

#[test]
fn a_lock_around_both_orders_keeps_them_apart() {
    let outcome = Machine::new().run(|| {
        let (gate, a, b) = (Mutex::new(), FastMutex::new(), FastMutex::new());
        let kept_apart = |first: &FastMutex, second: &FastMutex| {
            Lock::acquire(&gate);
            within(first, second);
            Lock::release(&gate);
        };
        let one = spawn(|| kept_apart(&a, &b));
        let two = spawn(|| kept_apart(&b, &a));
        join_all([one, two]);
    });
    outcome.expect_clean();
}

#[test]
fn waits_that_time_out_do_not_deadlock() {
    let outcome = Machine::new().run(|| {
        let (a, b) = (Mutex::new(), Mutex::new());
        let patient = |first: &Mutex, second: &Mutex| {
            wait(first.object());
            if wait_until(second.object(), -MS) == STATUS_SUCCESS {
                Lock::release(second);
            }
            Lock::release(first);
        };
        let one = spawn(|| patient(&a, &b));
        let two = spawn(|| patient(&b, &a));
        join_all([one, two]);
    });
    outcome.expect_clean();
}

/// Takes a lock of its own on the stack, within another or around it.
#[inline(never)]
fn with_lock_on_the_stack(other: *mut KSPIN_LOCK, around: bool) {
    let mut lock: KSPIN_LOCK = 0;
    let lock = std::hint::black_box(&raw mut lock);
    if around { nest(lock, other) } else { nest(other, lock) }
}

#[test]
fn memory_that_is_used_again_is_another_lock() {
    let outcome = Machine::new().processors(2).run(|| {
        let shared = SpinLock::new();
        // Two threads whose stacks are one after the other in the same memory.
        spawn(|| with_lock_on_the_stack(shared.ptr(), false)).join();
        let (one, two) = (Event::notification(), Event::notification());
        for around in [true, false] {
            let thread = spawn(|| {
                wait(one.object());
                with_lock_on_the_stack(shared.ptr(), around);
                two.set();
            });
            one.set();
            wait(two.object());
            thread.join();
        }
        // The same in pool.
        let both = [true, false].map(|around| {
            let shared = &shared;
            spawn(move || {
                sleep(if around { MS } else { 2 * MS });
                let memory = allocate(64);
                raw!(memory.cast::<KSPIN_LOCK>().write(0));
                if around {
                    nest(memory.cast(), shared.ptr())
                } else {
                    nest(shared.ptr(), memory.cast())
                }
                free(memory);
            })
        });
        join_all(both);
    });
    outcome.expect_clean();
}

static FIRST: SyncWord = SyncWord(std::cell::UnsafeCell::new(0));
static SECOND: SyncWord = SyncWord(std::cell::UnsafeCell::new(0));

/// A lock in a static, as drivers have them.
struct SyncWord(std::cell::UnsafeCell<KSPIN_LOCK>);

// SAFETY: one machine uses the locks, on one thread of the host.
unsafe impl Sync for SyncWord {}

#[test]
#[cfg(unix)]
fn statics_are_in_the_order_though_nobody_initialised_them() {
    let outcome = Machine::new().processors(2).run(|| {
        let one = spawn(|| nest(FIRST.0.get(), SECOND.0.get()));
        let two = spawn(|| {
            sleep(MS);
            nest(SECOND.0.get(), FIRST.0.get());
        });
        join_all([one, two]);
    });
    expect_cycle(outcome);
}

#[test]
fn a_cycle_of_four_threads_is_found_in_the_first_run() {
    for seed in 0..10 {
        let outcome = Machine::new().processors(4).seed(seed).run(|| {
            let forks: Vec<_> = (0..4).map(|_| FastMutex::new()).collect();
            let philosophers = (0..4).map(|index| {
                let (left, right) = (&forks[index], &forks[(index + 1) % 4]);
                spawn(move || within(left, right))
            });
            join_all(philosophers.collect::<Vec<_>>());
        });
        expect_cycle(outcome);
    }
}
