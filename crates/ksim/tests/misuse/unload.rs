//! Drivers that are unloaded too early.

use ksim::{BugCheck, Machine, load_driver};
use ksync_sys::*;
use std::cell::Cell;
use std::ptr::{null, null_mut};
use test_support::*;

thread_local! {
    /// What the sample driver's entry does.
    static ENTRY: Cell<fn()> = const { Cell::new(|| {}) };
    /// What its unload routine does.
    static UNLOAD: Cell<fn()> = const { Cell::new(|| {}) };
}

unsafe extern "system-unwind" fn entry(driver: *mut DRIVER_OBJECT, path: *mut UNICODE_STRING) -> NTSTATUS {
    assert!(!path.is_null());
    raw!((&raw mut (*driver).DriverUnload).write(Some(unload)));
    ENTRY.get()();
    STATUS_SUCCESS
}

unsafe extern "system-unwind" fn unload(_driver: *mut DRIVER_OBJECT) {
    UNLOAD.get()();
}

unsafe extern "system-unwind" fn failing(_driver: *mut DRIVER_OBJECT, _path: *mut UNICODE_STRING) -> NTSTATUS {
    ENTRY.get()();
    STATUS_UNSUCCESSFUL
}

fn load_and_unload(on_entry: fn(), on_unload: fn()) -> ksim::Outcome {
    ENTRY.set(on_entry);
    UNLOAD.set(on_unload);
    Machine::new().processors(2).run(|| {
        let driver = load_driver("sample", entry).expect("the entry succeeds");
        driver.unload();
    })
}

#[track_caller]
fn crash_at_unload(code: u32, on_entry: fn()) -> BugCheck {
    let stop = load_and_unload(on_entry, || {}).expect_bug_check(code);
    assert!(stop.meaning.contains("sample"), "{stop}");
    stop
}

#[test]
fn driver_that_cleans_up() {
    load_and_unload(
        || {
            free(allocate(10));
            let thread = spawn(|| {
                sleep(MS);
            });
            thread.join();
        },
        || free(allocate(10)),
    )
    .expect_clean();
}

#[test]
fn driver_with_an_armed_timer() {
    let stop = crash_at_unload(0xc7, || {
        let timer = Box::leak(Box::new(Timer::notification()));
        timer.set(-SECOND);
    });
    assert_eq!(stop.parameters[0], 0);
}

#[test]
fn driver_with_rundown_protection_acquired() {
    let stop = crash_at_unload(0xce, || {
        let rundown = Box::leak(Box::new(Place::<EX_RUNDOWN_REF>::zeroed()));
        raw!(ExInitializeRundownProtection(rundown.ptr()));
        raw!(ExAcquireRundownProtection(rundown.ptr()));
    });
    assert!(stop.meaning.contains("rundown reference"), "{stop}");
}

unsafe extern "system-unwind" fn callback(_timer: *mut EX_TIMER, _context: PVOID) {}

#[test]
fn driver_with_a_pending_ex_timer() {
    let stop = crash_at_unload(0xc7, || {
        let timer = raw!(ExAllocateTimer(Some(callback), null_mut(), EX_TIMER_HIGH_RESOLUTION));
        raw!(ExSetTimer(timer, -SECOND, SECOND, null_mut()));
    });
    assert_eq!(stop.parameters[0], 0);
    assert!(stop.meaning.contains("EX_TIMER"), "{stop}");
}

#[test]
fn driver_that_leaves_an_ex_timer() {
    let stop = crash_at_unload(0xc4, || {
        let timer = raw!(ExAllocateTimer(None, null_mut(), 0));
        raw!(ExSetTimer(timer, -SECOND, 0, null_mut()));
        raw!(ExCancelTimer(timer, null_mut()));
    });
    assert_eq!((stop.parameters[0], stop.parameters[2]), (0x62, 1));
    assert!(stop.meaning.contains("ExTm"), "{stop}");
}

#[test]
fn driver_with_a_queued_dpc() {
    let outcome = {
        ENTRY.set(|| {});
        UNLOAD.set(|| {
            let dpc = Box::leak(Box::new(Dpc::new(|| {}).importance(LowImportance)));
            dpc.queue();
        });
        Machine::new().run(|| load_driver("sample", entry).expect("the entry succeeds").unload())
    };
    // The routine goes, with the image.
    let parameters = outcome.expect_bug_check(0xc7).parameters;
    assert!(parameters[0] == 2 && parameters[1] != 0, "{parameters:x?}");
}

#[test]
fn driver_with_a_short_clock_tick() {
    let stop = crash_at_unload(0xce, || {
        raw!(ExSetTimerResolution(10_000, TRUE));
        raw!(ExSetTimerResolution(20_000, TRUE));
        raw!(ExSetTimerResolution(0, FALSE));
    });
    assert!(stop.meaning.contains("clock tick"), "{stop}");
    assert_eq!(stop.related.len(), 1, "{stop}");
    let ask = || {
        raw!(ExSetTimerResolution(10_000, TRUE));
    };
    let take_back = || {
        raw!(ExSetTimerResolution(0, FALSE));
    };
    load_and_unload(ask, take_back).expect_clean();
    // Code of no driver leaves it to the outcome.
    let outcome = Machine::new().run(ask);
    assert_eq!(outcome.left().tick_requests, 1);
    assert!(outcome.to_string().contains("1 requests for a shorter clock tick"), "{outcome}");
}

#[test]
fn driver_with_a_running_thread() {
    let stop = crash_at_unload(0xce, || {
        let thread = spawn(|| {
            sleep(SECOND);
        });
        raw!(ObfDereferenceObject(thread.object()));
    });
    assert_eq!(stop.name, "DRIVER_UNLOADED_WITHOUT_CANCELLING_PENDING_OPERATIONS");
}

#[test]
fn driver_with_pool_left() {
    let stop = crash_at_unload(0xc4, || {
        allocate(100);
        allocate(50);
    });
    assert_eq!((stop.parameters[0], stop.parameters[2], stop.parameters[3]), (0x62, 2, 150));
}

#[test]
fn driver_whose_thread_leaves_pool() {
    let stop = crash_at_unload(0xc4, || {
        spawn(|| {
            allocate(7);
        })
        .join();
    });
    assert_eq!((stop.parameters[0], stop.parameters[3]), (0x62, 7));
}

#[test]
fn entry_that_fails_and_leaves_pool() {
    ENTRY.set(|| {
        allocate(9);
    });
    let outcome = Machine::new().run(|| {
        let status = load_driver("sample", failing).expect_err("the entry fails");
        unreachable!("{status}");
    });
    assert_eq!(outcome.expect_bug_check(0xc4).parameters[0], 0x62);
    ENTRY.set(|| {});
    Machine::new().run(|| assert_eq!(load_driver("sample", failing).err(), Some(STATUS_UNSUCCESSFUL))).expect_clean();
}

#[test]
fn others_are_not_blamed() {
    ENTRY.set(|| {});
    UNLOAD.set(|| {});
    let outcome = Machine::new().run(|| {
        let timer = Timer::notification();
        timer.set(-SECOND);
        let memory = allocate(5);
        let mut handle = null_mut();
        unsafe extern "system-unwind" fn body(_context: PVOID) {
            sleep(SECOND);
        }
        raw!(PsCreateSystemThread(&mut handle, 0, null(), null_mut(), null_mut(), Some(body), null_mut()));
        raw!(ZwClose(handle));
        load_driver("sample", entry).expect("the entry succeeds").unload();
        free(memory);
        timer.cancel();
    });
    outcome.expect_clean();
}
