//! Regions, APCs, the end of threads.

use crate::{address, expected, misuse};
use ksim::{End, Machine, RuleId};
use ksync_sys::*;
use test_support::*;

#[test]
fn critical_region_left_too_often() {
    let expected = expected!(critical_region_left_too_often, 0xc4, [Some(0x3e), Some(1)], "KeLeaveCriticalRegion", 0);
    misuse(&expected, || {
        raw!(KeLeaveCriticalRegion());
        raw!(KeLeaveCriticalRegion());
    });
}

/// Rule CriticalRegions looks at who entered, and not at the counter, which a mutex or the region that a thread starts in changes as well.
#[test]
fn critical_region_of_another_left() {
    let wrong = || {
        let mutex = Mutex::new();
        wait(mutex.object());
        raw!(KeEnterCriticalRegion());
        raw!(KeLeaveCriticalRegion());
        raw!(KeLeaveCriticalRegion());
        raw!(KeEnterCriticalRegion());
        mutex.release();
    };
    let on = Machine::new().check_rule(RuleId::CriticalRegions, true);
    let outcome = on.run(wrong);
    let End::BugCheck(stop) = outcome.end() else { panic!("{outcome}") };
    assert_eq!((stop.parameters[0], stop.routine), (0x4_0003, Some("KeLeaveCriticalRegion")));
    assert_eq!(stop.rule().map(|rule| rule.name), Some("CriticalRegions"));
    let off = Machine::new().run(wrong);
    assert!(matches!(off.end(), End::Completed), "the rule is off by default: {off}");
    let balanced = Machine::new().check_rule(RuleId::CriticalRegions, true).run(|| {
        raw!(KeEnterCriticalRegion());
        raw!(KeEnterCriticalRegion());
        raw!(KeLeaveCriticalRegion());
        raw!(KeLeaveCriticalRegion());
    });
    assert!(matches!(balanced.end(), End::Completed), "{balanced}");
}

#[test]
fn guarded_region_left_too_often() {
    let expected = expected!(guarded_region_left_too_often, 0xc4, [Some(0x3e), Some(1)], "KeLeaveGuardedRegion", 0);
    misuse(&expected, || raw!(KeLeaveGuardedRegion()));
}

#[test]
fn region_entered_at_dispatch_level() {
    let expected = expected!(region_entered_at_dispatch_level, 0xc4, [Some(0x11a), Some(2)], "KeEnterCriticalRegion", 2);
    misuse(&expected, || {
        raise(DISPATCH_LEVEL);
        raw!(KeEnterCriticalRegion());
    });
    let expected = expected!(region_entered_at_dispatch_level, 0xc4, [Some(0x2_0010), Some(2)], "KeEnterGuardedRegion", 2);
    misuse(&expected, || {
        raise(DISPATCH_LEVEL);
        raw!(KeEnterGuardedRegion());
    });
}

#[test]
fn thread_ends_in_a_region() {
    let expected = expected!(thread_ends_in_a_region, 0x20, [Some(0), Some(0xfffe), Some(0)], "PsTerminateSystemThread", 0);
    misuse(&expected, || {
        raw!(KeEnterCriticalRegion());
        raw!(PsTerminateSystemThread(0));
    });
}

#[test]
fn thread_ends_with_a_mutex() {
    let mutex = Place::<KMUTANT>::zeroed();
    let expected = expected!(thread_ends_with_a_mutex, 0x4000_008a, [None, address(mutex.ptr())], "PsTerminateSystemThread", 0);
    misuse(&expected, || {
        raw!(KeInitializeMutex(mutex.ptr(), 0));
        wait(mutex.object());
        raw!(PsTerminateSystemThread(0));
    });
}

#[test]
fn thread_returns_at_a_raised_level() {
    let outcome = ksim::Machine::new().run(|| {
        raise(DISPATCH_LEVEL);
    });
    let stop = outcome.expect_bug_check(0x20);
    assert_eq!((stop.parameters[2], stop.irql, stop.routine), (2, 2, None));
}

#[test]
fn apc_that_changes_the_level() {
    let outcome = ksim::Machine::new().run(|| {
        let apc = Apc::special(current_thread(), || lower(PASSIVE_LEVEL));
        apc.insert();
    });
    let stop = outcome.expect_bug_check(0xc8);
    assert_eq!(stop.parameters[0], 1 << 8);
}
