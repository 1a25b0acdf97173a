//! What a driver must not leave behind: rule 62.
//!
//! The sources name 0xC7 under Verifier for timers and DPCs, 0xCE or 0xD4 without it, later and by chance; the hosted kernel says at the unload what is left. The
//! page of KeFlushQueuedDpcs says that the system flushes DPCs itself before a driver's globals go; what the driver frees in its own unload routine goes before
//! that, so that a DPC which is still queued then, or runs, is reported.

use ksim::{BugCheck, Machine, load_driver};
use ksync_sys::*;
use std::cell::Cell;
use std::ptr::{null, null_mut};
use test_support::*;

thread_local! {
    /// What the driver does when it is loaded, and when it is unloaded.
    static ACTS: Cell<[fn(); 2]> = const { Cell::new([|| {}; 2]) };
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

unsafe extern "system-unwind" fn entry(driver: *mut DRIVER_OBJECT, _path: *mut UNICODE_STRING) -> NTSTATUS {
    raw!((&raw mut (*driver).DriverUnload).write(Some(unload)));
    ACTS.get()[0]();
    STATUS_SUCCESS
}

unsafe extern "system-unwind" fn unload(_driver: *mut DRIVER_OBJECT) {
    ACTS.get()[1]();
}

fn run_driver(seed: u64, acts: [fn(); 2]) -> ksim::Outcome {
    ACTS.set(acts);
    Machine::new().processors(2).seed(seed).run(|| load_driver("left", entry).expect("the entry succeeds").unload())
}

#[track_caller]
fn left(code: u32, on_entry: fn()) -> BugCheck {
    run_driver(0, [on_entry, || {}]).expect_bug_check(code)
}

#[test]
fn rule_62_nothing_left_is_clean() {
    for seed in 0..20 {
        let outcome = run_driver(
            seed,
            [
                || {
                    let timer = Box::leak(Box::new(Timer::notification()));
                    timer.set(-MS);
                    wait(timer.object());
                    spawn(|| {
                        sleep(MS);
                    })
                    .join();
                    free(allocate(8));
                },
                flush_dpcs,
            ],
        );
        outcome.expect_clean();
    }
}

#[test]
fn rule_62_timers() {
    let stop = left(0xc7, || {
        Box::leak(Box::new(Timer::notification())).set_with(-SECOND, 1_000, null_mut());
    });
    assert_eq!(stop.parameters[0], 0);
    let stop = left(0xc7, || {
        let timer = raw!(ExAllocateTimer(None, null_mut(), EX_TIMER_HIGH_RESOLUTION));
        raw!(ExSetTimer(timer, -SECOND, SECOND, null_mut()));
    });
    assert_eq!(stop.parameters[0], 0);
}

#[test]
fn rule_62_queued_dpcs() {
    ACTS.set([
        || {},
        || {
            Box::leak(Box::new(Dpc::new(|| {}).importance(LowImportance))).queue();
        },
    ]);
    let outcome = Machine::new().run(|| load_driver("left", entry).expect("the entry succeeds").unload());
    // The routine goes, with the image.
    let parameters = outcome.expect_bug_check(0xc7).parameters;
    assert!(parameters[0] == 2 && parameters[1] != 0, "{parameters:x?}");
}

#[test]
fn rule_62_running_dpcs() {
    let mut running = 0;
    for seed in 0..40 {
        let outcome = run_driver(
            seed,
            [
                || {},
                || {
                    RUNNING.set(false);
                    let dpc = Dpc::new(|| {
                        RUNNING.set(true);
                        for _ in 0..50 {
                            raw!(KeStallExecutionProcessor(1));
                        }
                    });
                    let dpc = Box::leak(Box::new(dpc.importance(HighImportance).on(1)));
                    raw!(KeSetSystemAffinityThreadEx(0b01));
                    dpc.queue();
                    while !RUNNING.get() {
                        raw!(KeStallExecutionProcessor(1));
                    }
                    // It does not wait for a running one (rule 45).
                    dpc.remove();
                    raw!(KeRevertToUserAffinityThreadEx(0));
                },
            ],
        );
        if !outcome.is_completed() {
            let stop = outcome.expect_bug_check(0xce);
            assert!(stop.meaning.contains("left"), "{stop}");
            running += 1;
        }
    }
    assert!(running > 0);
}

#[test]
fn rule_62_threads() {
    left(0xce, || {
        unsafe extern "system-unwind" fn body(_context: PVOID) {
            sleep(SECOND);
        }
        let mut handle = null_mut();
        raw!(PsCreateSystemThread(&mut handle, 0, null(), null_mut(), null_mut(), Some(body), null_mut()));
        raw!(ZwClose(handle));
    });
}

#[test]
fn rule_62_pool() {
    let stop = left(0xc4, || {
        allocate(100);
    });
    assert_eq!((stop.parameters[0], stop.parameters[3]), (0x62, 100));
}
