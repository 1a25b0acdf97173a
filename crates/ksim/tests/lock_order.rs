//! The check of the order of locks: 0xC4, 0x1001.

use ksim::{Machine, bug_check};
use ksync_sys::{
    FALSE, FAST_MUTEX, KSPIN_LOCK, KeAcquireSpinLockAtDpcLevel, KeAcquireSpinLockRaiseToDpc, KeReleaseSpinLock,
    KeReleaseSpinLockFromDpcLevel,
};
use std::panic::Location;

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
fn it_is_off_by_default() {
    let (mut a, mut b): (KSPIN_LOCK, KSPIN_LOCK) = (0, 0);
    let (a, b) = (&raw mut a, &raw mut b);
    let outcome = Machine::new().run(|| {
        nest(a, b);
        nest(b, a);
    });
    outcome.expect_clean();
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
