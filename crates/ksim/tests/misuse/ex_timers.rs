//! EX_TIMER.

use crate::{expected, misuse};
use ksync_sys::*;
use std::cell::Cell;
use std::ptr::{null, null_mut};
use test_support::*;

thread_local! {
    /// What the callback does.
    static CALLBACK: Cell<fn(*mut EX_TIMER)> = const { Cell::new(|_| {}) };
}

unsafe extern "system-unwind" fn callback(timer: *mut EX_TIMER, _context: PVOID) {
    CALLBACK.get()(timer);
}

/// Macros, so that the call is the test's.
macro_rules! allocate_timer {
    ($attributes:expr) => {
        raw!(ExAllocateTimer(Some(callback), null_mut(), $attributes))
    };
}

macro_rules! set {
    ($timer:expr, $due:expr, $period:expr) => {{
        let timer = $timer;
        raw!(ExSetTimer(timer, $due, $period, null_mut()))
    }};
}

#[test]
fn ex_timer_freed_as_pool() {
    let expected = expected!(ex_timer_freed_as_pool, 0xc7, [Some(0)], "ExFreePool", 0);
    misuse(&expected, || {
        let timer = allocate_timer!(EX_TIMER_HIGH_RESOLUTION);
        raw!(ExFreePool(timer.cast()));
    });
}

#[test]
fn ex_timer_deleted_twice() {
    let expected = expected!(ex_timer_deleted_twice, 0xc4, [Some(0x1002)], "ExDeleteTimer", 0);
    misuse(&expected, || {
        let timer = allocate_timer!(0);
        raw!(ExDeleteTimer(timer, TRUE, TRUE, null_mut()));
        raw!(ExDeleteTimer(timer, TRUE, TRUE, null_mut()));
    });
}

#[test]
fn ex_timer_deleted_again_while_its_deletion_is_under_way() {
    let expected = expected!(ex_timer_deleted_again_while_its_deletion_is_under_way, 0xc7, [Some(0)], "ExDeleteTimer", 0);
    misuse(&expected, || {
        let timer = allocate_timer!(0);
        set!(timer, -MS, 0);
        raw!(ExDeleteTimer(timer, FALSE, FALSE, null_mut()));
        raw!(ExDeleteTimer(timer, TRUE, FALSE, null_mut()));
    });
}

#[test]
fn deleted_ex_timer_set() {
    let expected = expected!(deleted_ex_timer_set, 0xc4, [Some(0x1002)], "ExSetTimer", 0);
    misuse(&expected, || {
        let timer = allocate_timer!(0);
        raw!(ExDeleteTimer(timer, TRUE, TRUE, null_mut()));
        set!(timer, -MS, 0);
    });
}

#[test]
fn deleted_ex_timer_waited_on() {
    let expected = expected!(deleted_ex_timer_waited_on, 0xc4, [Some(0x1002)], "KeWaitForSingleObject", 0);
    misuse(&expected, || {
        let timer = allocate_timer!(0);
        raw!(ExDeleteTimer(timer, TRUE, TRUE, null_mut()));
        raw!(KeWaitForSingleObject(timer.cast(), Executive, KernelMode, FALSE, null()));
    });
}

#[test]
fn ex_timer_deleted_under_a_waiter() {
    let expected = expected!(ex_timer_deleted_under_a_waiter, 0xc4, [Some(0x100b)], "ExDeleteTimer", 0);
    misuse(&expected, || {
        let timer = allocate_timer!(0);
        let _waiter = spawn(move || {
            wait(timer.cast());
        });
        settle();
        raw!(ExDeleteTimer(timer, TRUE, TRUE, null_mut()));
    });
}

#[test]
fn ex_timer_waited_for_at_dispatch_level() {
    let expected = expected!(ex_timer_waited_for_at_dispatch_level, 0xa, [None, Some(2)], "ExDeleteTimer", 2);
    misuse(&expected, || {
        let timer = allocate_timer!(0);
        raise(DISPATCH_LEVEL);
        raw!(ExDeleteTimer(timer, TRUE, TRUE, null_mut()));
    });
}

#[test]
fn ex_timer_waited_for_in_its_callback() {
    let expected = expected!(ex_timer_waited_for_in_its_callback, 0xa, [None, Some(2)], "ExDeleteTimer", 2);
    misuse(&crate::Expected { in_dpc: true, ..expected }, || {
        CALLBACK.set(|timer| {
            raw!(ExDeleteTimer(timer, TRUE, TRUE, null_mut()));
        });
        set!(allocate_timer!(0), -MS, 0);
        sleep(SECOND);
    });
}

#[test]
fn callback_waits() {
    let expected = expected!(callback_waits, 0xb8, [], "KeWaitForSingleObject", 2);
    misuse(&crate::Expected { in_dpc: true, ..expected }, || {
        CALLBACK.set(|timer| {
            raw!(KeWaitForSingleObject(timer.cast(), Executive, KernelMode, FALSE, null()));
        });
        set!(allocate_timer!(0), -MS, 0);
        sleep(SECOND);
    });
}

#[test]
fn ex_timer_with_attributes_that_exclude_each_other() {
    let both = EX_TIMER_HIGH_RESOLUTION | EX_TIMER_NO_WAKE;
    for attributes in [both, 1, 2, 16] {
        let expected = expected!(
            ex_timer_with_attributes_that_exclude_each_other,
            0xc4,
            [Some(0x6b73_0005), Some(attributes.into())],
            "ExAllocateTimer",
            0
        );
        misuse(&expected, || {
            allocate_timer!(attributes);
        });
    }
}

#[test]
fn ex_timer_with_parameters_that_are_not_initialised() {
    let expected =
        expected!(ex_timer_with_parameters_that_are_not_initialised, 0xc4, [Some(0x6b73_0005), Some(5)], "ExSetTimer", 0);
    misuse(&expected, || {
        let timer = allocate_timer!(0);
        let mut parameters = EXT_SET_PARAMETERS { Version: 5, Reserved: 0, NoWakeTolerance: 0 };
        raw!(ExSetTimer(timer, -MS, 0, &mut parameters));
    });
}

#[test]
fn ex_timer_with_a_negative_period() {
    let expected = expected!(ex_timer_with_a_negative_period, 0xc4, [Some(0x6b73_0005), Some(-1_i64 as u64)], "ExSetTimer", 0);
    misuse(&expected, || {
        set!(allocate_timer!(0), -MS, -1);
    });
}

#[test]
fn ktimer_routine_for_an_ex_timer() {
    let expected = expected!(ktimer_routine_for_an_ex_timer, 0xc4, [Some(0x1002)], "KeCancelTimer", 0);
    misuse(&expected, || {
        let timer = allocate_timer!(0);
        raw!(KeCancelTimer(timer.cast()));
    });
}
