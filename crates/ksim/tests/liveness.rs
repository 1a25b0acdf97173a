//! Objects in plain memory that goes away while the kernel still knows them.

use ksim::{Machine, RuleId};
use ksync_sys::*;
use std::cell::Cell;
use std::hint::black_box;
use std::ptr::null_mut;
use test_support::*;

const ON_STACK: u64 = 0x6b73_0004;

unsafe extern "system-unwind" fn nothing(_: *mut KDPC, _: PVOID, _: PVOID, _: PVOID) {}

/// Memory for an object that is neither pool nor a stack's.
fn memory<T>() -> *mut T {
    // SAFETY: the structures of the kernel are plain data.
    Box::into_raw(Box::new(unsafe { std::mem::zeroed::<T>() }))
}

/// Writes over an object, as who has the memory next.
fn overwrite<T>(object: *mut T, byte: u8) {
    raw!(object.cast::<u8>().write_bytes(byte, size_of::<T>()));
}

/// Gives what came from [`memory`] back.
fn release<T>(object: *mut T) {
    // SAFETY: it came from a box, and the test uses it no more.
    drop(unsafe { Box::from_raw(object) });
}

/// Runs `function` with so much stack above its frame that what is called afterwards does not get there.
#[inline(never)]
fn far_below(function: impl FnOnce()) {
    let space = black_box([0_u8; 8 * 1024]);
    function();
    black_box(space);
}

#[inline(never)]
fn timer_on_the_stack(dpc: *mut KDPC) {
    // SAFETY: the structure is plain data.
    let mut timer: KTIMER = unsafe { std::mem::zeroed() };
    raw!(KeInitializeTimer(&raw mut timer));
    raw!(KeSetTimer(&raw mut timer, -SECOND, dpc));
    black_box(&raw mut timer);
}

#[inline(never)]
fn event_on_the_stack(place: &Cell<*mut KEVENT>) {
    // SAFETY: the structure is plain data.
    let mut event: KEVENT = unsafe { std::mem::zeroed() };
    raw!(KeInitializeEvent(&raw mut event, NotificationEvent, FALSE));
    place.set(black_box(&raw mut event));
}

#[test]
fn an_armed_timer_that_was_dropped() {
    for byte in [None, Some(0), Some(0xdd)] {
        let outcome = Machine::new().run(|| {
            let timer = memory::<KTIMER>();
            raw!(KeInitializeTimer(timer));
            raw!(KeSetTimer(timer, -SECOND, null_mut()));
            match byte {
                None => release(timer),
                Some(byte) => overwrite(timer, byte),
            }
            sleep(2 * SECOND);
        });
        let report = outcome.report().to_string();
        let stop = outcome.expect_bug_check(0xc4);
        assert_eq!(stop.parameters[0], 0x15, "{report}");
        assert!(stop.meaning.contains("which is armed, was freed or overwritten"), "{report}");
    }
}

#[test]
fn it_is_found_at_the_end_of_the_run_too() {
    let outcome = Machine::new().run(|| {
        let timer = memory::<KTIMER>();
        raw!(KeInitializeTimer(timer));
        raw!(KeSetTimer(timer, -SECOND, null_mut()));
        overwrite(timer, 1);
    });
    assert_eq!(outcome.expect_bug_check(0xc4).parameters[0], 0x15);
}

#[test]
fn a_timer_that_was_initialised_while_it_was_armed_is_as_it_was() {
    let outcome = Machine::new().run(|| {
        let timer = Timer::notification();
        timer.set(-SECOND);
        raw!(KeInitializeTimer(timer.ptr()));
        wait(timer.object());
    });
    outcome.expect_clean();
}

#[test]
fn a_queued_dpc_that_was_dropped() {
    for byte in [None, Some(0), Some(0xdd)] {
        let outcome = Machine::new().run(|| {
            let dpc = memory::<KDPC>();
            raw!(KeInitializeDpc(dpc, Some(nothing), null_mut()));
            at(DISPATCH_LEVEL, || {
                raw!(KeInsertQueueDpc(dpc, null_mut(), null_mut()));
                match byte {
                    None => release(dpc),
                    Some(byte) => overwrite(dpc, byte),
                }
            });
        });
        let report = outcome.report().to_string();
        let stop = outcome.expect_bug_check(0xc7);
        assert_eq!(stop.parameters[0], 1, "{report}");
        assert!(stop.meaning.contains("which is queued, was freed or overwritten"), "{report}");
    }
}

#[test]
fn a_timers_dpc_that_was_dropped() {
    let outcome = Machine::new().run(|| {
        let (timer, dpc) = (Timer::notification(), memory::<KDPC>());
        raw!(KeInitializeDpc(dpc, Some(nothing), null_mut()));
        timer.set_with(-SECOND, 0, dpc);
        overwrite(dpc, 0);
        sleep(2 * SECOND);
    });
    let stop = outcome.expect_bug_check(0xc4);
    assert_eq!(stop.parameters[0], 0x1002);
    assert!(stop.meaning.contains("whose memory was freed or overwritten"), "{}", stop.meaning);
}

#[test]
fn objects_of_calls() {
    let uses: [fn(*mut KEVENT); 4] = [
        |event| _ = raw!(KeSetEvent(event, 0, FALSE)),
        |event| _ = raw!(KeResetEvent(event)),
        |event| _ = wait(event.cast()),
        |event| _ = wait_until(event.cast(), -SECOND),
    ];
    for uses in uses {
        for records in [false, true] {
            let outcome = Machine::new().record_trace(records).run(|| {
                let event = memory::<KEVENT>();
                raw!(KeInitializeEvent(event, NotificationEvent, TRUE));
                overwrite(event, 0xdd);
                uses(event);
            });
            let stop = outcome.expect_bug_check(0xc4);
            assert_eq!(stop.parameters[0], 0x1002);
            assert!(stop.meaning.contains("event #"), "{}", stop.meaning);
        }
    }
}

#[test]
fn an_event_that_a_thread_waits_for() {
    let outcome = Machine::new().run(|| {
        let event = memory::<KEVENT>();
        raw!(KeInitializeEvent(event, NotificationEvent, FALSE));
        let waits = spawn(|| _ = wait_until(event.cast(), -SECOND));
        sleep(MS);
        overwrite(event, 0);
        waits.join();
    });
    let stop = outcome.expect_bug_check(0xc4);
    assert_eq!(stop.parameters[0], 0x100b);
    assert!(stop.meaning.contains("which has waiters, was freed or overwritten"), "{}", stop.meaning);
}

#[test]
fn an_event_that_a_thread_is_alerted_from() {
    let outcome = Machine::new().run(|| {
        let event = memory::<KEVENT>();
        raw!(KeInitializeEvent(event, NotificationEvent, FALSE));
        let thread = Cell::new(null_mut());
        let waits = spawn(|| {
            thread.set(current_thread());
            wait_mode(event.cast(), KernelMode, true, None);
        });
        sleep(MS);
        overwrite(event, 0);
        raw!(KeAlertThread(thread.get().cast(), KernelMode));
        waits.join();
    });
    let report = outcome.report().to_string();
    let stop = outcome.expect_bug_check(0xc4);
    assert_eq!((stop.parameters[0], stop.routine), (0x100b, Some("KeAlertThread")), "{report}");
}

#[test]
fn an_event_of_a_wait_for_all() {
    let outcome = Machine::new().run(|| {
        let event = memory::<KEVENT>();
        raw!(KeInitializeEvent(event, NotificationEvent, TRUE));
        let other = Event::notification();
        let waits = spawn(|| _ = wait_all(&[event.cast(), other.object()]));
        sleep(MS);
        overwrite(event, 0xdd);
        other.set();
        waits.join();
    });
    let report = outcome.report().to_string();
    let stop = outcome.expect_bug_check(0xc4);
    assert_eq!((stop.parameters[0], stop.routine), (0x100b, Some("KeSetEvent")), "{report}");
}

#[test]
fn a_timer_of_a_function_that_has_returned() {
    let outcome = Machine::new().run(|| {
        far_below(|| timer_on_the_stack(null_mut()));
        sleep(2 * SECOND);
    });
    let report = outcome.report().to_string();
    let stop = outcome.expect_bug_check(0xc4);
    assert_eq!(stop.parameters[0], ON_STACK, "{report}");
    let words = "is armed, on the stack of a function that has returned, in thread #2";
    assert!(stop.meaning.starts_with("timer #") && stop.meaning.ends_with(words), "{report}");
    // Where the kernel's own frames lie over it, it is one or the other.
    let outcome = Machine::new().run(|| {
        timer_on_the_stack(null_mut());
        sleep(2 * SECOND);
    });
    let stop = outcome.expect_bug_check(0xc4);
    assert!(matches!(stop.parameters[0], ON_STACK | 0x15), "{:x?}", stop.parameters);
}

#[test]
fn an_event_of_a_function_that_has_returned() {
    for seed in 0..10 {
        let outcome = Machine::new().processors(2).seed(seed).run(|| {
            let place = Cell::new(null_mut());
            let ready = Event::notification();
            let thread = spawn(|| {
                far_below(|| event_on_the_stack(&place));
                ready.set();
                sleep(SECOND);
            });
            wait(ready.object());
            raw!(KeSetEvent(place.get(), 0, FALSE));
            thread.join();
        });
        let report = outcome.report().to_string();
        let stop = outcome.expect_bug_check(0xc4);
        assert_eq!((stop.parameters[0], stop.routine), (ON_STACK, Some("KeSetEvent")), "{report}");
        assert!(stop.meaning.contains("was used, on the stack of a function that has returned, in thread #"), "{report}");
    }
    let wrong = || {
        let place = Cell::new(null_mut());
        far_below(|| event_on_the_stack(&place));
        spawn(|| _ = raw!(KeSetEvent(place.get(), 0, FALSE))).join();
    };
    assert_eq!(Machine::new().run(wrong).expect_bug_check(0xc4).parameters[0], ON_STACK);
    Machine::new().check_rule(RuleId::StackObjectInUse, false).run(wrong).expect_clean();
}

#[test]
fn what_is_on_a_stack_and_in_use_is_there() {
    #[inline(never)]
    fn deep(depth: u32, event: PVOID) {
        let own = Event::synchronization();
        let timer = Timer::notification();
        timer.set(-MS);
        let thread = spawn(|| {
            own.set();
            wait(event);
        });
        wait(own.object());
        wait(timer.object());
        if depth > 0 {
            deep(depth - 1, event);
        }
        raw!(KeSetEvent(event.cast(), 0, FALSE));
        thread.join();
    }
    for seed in 0..20 {
        let outcome = Machine::new().processors(2).seed(seed).run(|| {
            // SAFETY: the structure is plain data.
            let mut event: KEVENT = unsafe { std::mem::zeroed() };
            raw!(KeInitializeEvent(&raw mut event, NotificationEvent, FALSE));
            deep(5, (&raw mut event).cast());
        });
        outcome.expect_clean();
    }
}
