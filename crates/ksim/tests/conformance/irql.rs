//! Levels: rules 58 and 59.

use ksync_sys::*;
use test_support::*;

#[test]
fn rule_58_raise_and_lower() {
    run(|| {
        assert_eq!(irql(), PASSIVE_LEVEL);
        assert_eq!(raise(PASSIVE_LEVEL), PASSIVE_LEVEL);
        assert_eq!(raise(APC_LEVEL), PASSIVE_LEVEL);
        assert_eq!(raise(DISPATCH_LEVEL), APC_LEVEL);
        assert_eq!(raise(HIGH_LEVEL), DISPATCH_LEVEL);
        for level in [DISPATCH_LEVEL, APC_LEVEL, PASSIVE_LEVEL, PASSIVE_LEVEL] {
            lower(level);
            assert_eq!(irql(), level);
        }
        assert_eq!(raw!(KeRaiseIrqlToDpcLevel()), PASSIVE_LEVEL);
        let mut old = 0;
        raw!(KeRaiseIrql(12, &mut old));
        assert_eq!((old, irql()), (DISPATCH_LEVEL, 12));
        lower(DISPATCH_LEVEL);
        lower(PASSIVE_LEVEL);
    });
}

#[test]
fn rule_58_raise_down_and_lower_up_are_bug_checks() {
    // Free builds let both pass; the pages call them fatal, and Driver Verifier reports them.
    let raised = crash(0xc4, || {
        raise(DISPATCH_LEVEL);
        raise(APC_LEVEL);
    });
    assert_eq!(raised.parameters[..3], [0x30, 2, 1]);
    let lowered = crash(0xc4, || lower(DISPATCH_LEVEL));
    assert_eq!(lowered.parameters[..3], [0x31, 0, 2]);
    let beyond = crash(0xc4, || {
        raise(16);
    });
    assert_eq!(beyond.parameters[..3], [0x30, 0, 16]);
}

#[test]
fn rule_59_lower_gets_the_value_of_the_last_raise() {
    let stop = crash(0xc4, || {
        raise(APC_LEVEL);
        raise(DISPATCH_LEVEL);
        lower(PASSIVE_LEVEL);
    });
    assert_eq!(stop.parameters[..3], [0x31, 2, 0]);
}

#[test]
fn rule_59_each_thread_has_its_own_raises() {
    explore(|| {
        let event = Event::notification();
        let threads: Vec<_> = (0..3)
            .map(|_| {
                spawn(|| {
                    let old = raise(APC_LEVEL);
                    wait(event.object());
                    assert_eq!(irql(), APC_LEVEL);
                    lower(old);
                    assert_eq!(irql(), PASSIVE_LEVEL);
                })
            })
            .collect();
        let old = raise(APC_LEVEL);
        settle();
        event.set();
        lower(old);
        join_all(threads);
    });
}
