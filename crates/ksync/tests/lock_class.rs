//! Locks are of the class of the place that creates them: `ksim` finds two orders of two classes in one run that never deadlocks.

use ksim::{Machine, bug_check};
use ksync::mutex::{FastLocked, GuardLocked};

fn account() -> FastLocked<u32> {
    FastLocked::new(0).unwrap()
}

#[test]
fn orders_of_classes_are_checked() {
    let outcome = Machine::new().check_lock_order(true).run(|| {
        let log = GuardLocked::new(()).unwrap();
        let (first, second) = (account(), account());
        {
            let _account = first.lock().unwrap();
            let _log = log.lock().unwrap();
        }
        // Another account, but of the same class.
        let _log = log.lock().unwrap();
        let _account = second.lock().unwrap();
    });
    let bug_check = outcome.expect_bug_check(bug_check::DRIVER_VERIFIER_DETECTED_VIOLATION);
    assert_eq!(bug_check.parameters[0], bug_check::verifier::LOCK_HIERARCHY);
    assert!(bug_check.meaning.contains("lock_class.rs:7"), "{bug_check}");
}

#[test]
fn one_order_of_classes_is_fine() {
    let outcome = Machine::new().check_lock_order(true).run(|| {
        let log = GuardLocked::new(()).unwrap();
        for _ in 0..3 {
            let account = account();
            let _account = account.lock().unwrap();
            let _log = log.lock().unwrap();
        }
    });
    outcome.expect_clean();
}
