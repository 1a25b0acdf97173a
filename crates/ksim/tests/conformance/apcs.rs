//! APCs and regions: rules 21 to 26.

use ksim::{Machine, OsProfile};
use ksync_sys::*;
use std::cell::Cell;
use test_support::*;

fn apcs_disabled() -> bool {
    raw!(KeAreApcsDisabled()) != 0
}

fn all_apcs_disabled() -> bool {
    raw!(KeAreAllApcsDisabled()) != 0
}

/// What runs of a normal and a special APC that the running thread queues to itself where `enter` has been called, then after `leave`.
fn held_back(enter: impl Fn(), leave: impl Fn()) -> (Vec<String>, Vec<String>) {
    let log = Log::default();
    leave_start_region();
    let normal = Apc::normal(current_thread(), || log.push("normal"));
    let special = Apc::special(current_thread(), || log.push("special"));
    enter();
    normal.insert();
    special.insert();
    let inside = log.take();
    leave();
    let after = log.take();
    enter_start_region();
    (inside, after)
}

#[test]
fn rule_21_critical_region_holds_back_normal_kernel_apcs() {
    run(|| {
        let (inside, after) = held_back(|| raw!(KeEnterCriticalRegion()), || raw!(KeLeaveCriticalRegion()));
        assert_eq!((inside, after), (vec!["special".to_owned()], vec!["normal".to_owned()]));
    });
}

#[test]
fn rule_21_guarded_region_holds_back_all() {
    run(|| {
        let (inside, after) = held_back(|| raw!(KeEnterGuardedRegion()), || raw!(KeLeaveGuardedRegion()));
        assert_eq!((inside, after), (vec![], vec!["special".to_owned(), "normal".to_owned()]));
    });
}

#[test]
fn rule_21_apc_level_holds_back_all() {
    run(|| {
        let old = Cell::new(0);
        for level in [APC_LEVEL, DISPATCH_LEVEL] {
            let (inside, after) = held_back(|| old.set(raise(level)), || lower(old.get()));
            assert_eq!((inside, after), (vec![], vec!["special".to_owned(), "normal".to_owned()]));
        }
    });
}

#[test]
fn rule_21_locks_hold_back_as_their_regions_do() {
    run(|| {
        let (mutex, fast) = (Mutex::new(), FastMutex::new());
        let (inside, after) = held_back(|| assert_eq!(wait(mutex.object()), 0), || assert_eq!(mutex.release(), 0));
        assert_eq!((inside, after), (vec!["special".to_owned()], vec!["normal".to_owned()]));
        let (inside, after) = held_back(|| fast.acquire(), || fast.release());
        assert_eq!((inside, after), (vec![], vec!["special".to_owned(), "normal".to_owned()]));
    });
    for profile in [OsProfile::Windows7, OsProfile::Windows11] {
        Machine::new()
            .profile(profile)
            .run(|| {
                let guarded = GuardedMutex::new();
                let (inside, after) = held_back(|| guarded.acquire(), || guarded.release());
                assert_eq!((inside, after), (vec![], vec!["special".to_owned(), "normal".to_owned()]));
            })
            .expect_clean();
    }
}

#[test]
fn rule_21_other_threads_queue_apcs_too() {
    explore(|| {
        let (go, log) = (Event::synchronization(), Log::default());
        let thread = spawn(|| {
            leave_start_region();
            raw!(KeEnterCriticalRegion());
            wait(go.object());
            log.push("left");
            raw!(KeLeaveCriticalRegion());
            log.push("after");
            enter_start_region();
        });
        settle();
        let normal = Apc::normal(thread.object(), || log.push("normal"));
        let special = Apc::special(thread.object(), || log.push("special"));
        normal.insert();
        special.insert();
        settle();
        go.set();
        thread.join();
        assert_eq!(log.take(), ["special", "left", "normal", "after"]);
    });
}

#[test]
fn rule_22_regions_nest_and_the_outermost_delivers_at_once() {
    run(|| {
        leave_start_region();
        let ran = Cell::new(false);
        let apc = Apc::normal(current_thread(), || ran.set(true));
        for _ in 0..100 {
            raw!(KeEnterCriticalRegion());
            raw!(KeEnterGuardedRegion());
        }
        apc.insert();
        for left in 1..=100 {
            raw!(KeLeaveGuardedRegion());
            assert!(!ran.get());
            raw!(KeLeaveCriticalRegion());
            assert_eq!(ran.get(), left == 100);
        }
        enter_start_region();
    });
}

#[test]
fn rule_22_leaving_at_apc_level_delivers_when_the_level_falls() {
    run(|| {
        leave_start_region();
        let ran = Cell::new(false);
        let apc = Apc::normal(current_thread(), || {
            assert_eq!(irql(), PASSIVE_LEVEL);
            ran.set(true);
        });
        raw!(KeEnterCriticalRegion());
        apc.insert();
        let old = raise(APC_LEVEL);
        raw!(KeLeaveCriticalRegion());
        assert!(!ran.get());
        lower(old);
        assert!(ran.get());
        enter_start_region();
    });
}

#[test]
fn rule_22_leaving_too_often_is_a_bug_check() {
    // A free build lets the counter become 1; Driver Verifier reports it.
    let critical = crash(0xc4, || {
        raw!(KeLeaveCriticalRegion());
        raw!(KeLeaveCriticalRegion());
    });
    let guarded = crash(0xc4, || raw!(KeLeaveGuardedRegion()));
    assert_eq!((critical.parameters[0], guarded.parameters[0]), (0x3e, 0x3e));
    assert_eq!(critical.routine, Some("KeLeaveCriticalRegion"));
    assert_eq!(guarded.routine, Some("KeLeaveGuardedRegion"));
}

#[test]
fn rule_22_thread_that_ends_inside_a_region_is_a_bug_check() {
    let critical = crash(0x20, || raw!(KeEnterCriticalRegion()));
    assert_eq!(critical.parameters[1..3], [0xfffe, 0]);
    let guarded = crash(0x20, || raw!(KeEnterGuardedRegion()));
    assert_eq!(guarded.parameters[1..3], [0xffff, 0]);
    let left = crash(0x20, || raw!(KeLeaveCriticalRegion()));
    assert_eq!(left.parameters[1..3], [0, 0]);
    let raised = crash(0x20, || {
        raise(APC_LEVEL);
    });
    assert_eq!(raised.parameters[2], 1);
    for stop in [critical, guarded, left, raised] {
        assert_eq!(stop.name, "KERNEL_APC_PENDING_DURING_EXIT");
    }
}

#[test]
fn rule_23_what_the_questions_look_at() {
    run(|| {
        let answers = || (apcs_disabled(), all_apcs_disabled());
        assert_eq!(answers(), (true, false), "a system thread starts inside a critical region");
        leave_start_region();
        assert_eq!(answers(), (false, false));
        assert_eq!(at(APC_LEVEL, answers), (false, true));
        assert_eq!(at(DISPATCH_LEVEL, answers), (false, true));
        raw!(KeEnterCriticalRegion());
        assert_eq!(answers(), (true, false));
        raw!(KeLeaveCriticalRegion());
        raw!(KeEnterGuardedRegion());
        assert_eq!(answers(), (true, true));
        raw!(KeLeaveGuardedRegion());
        enter_start_region();
    });
}

#[test]
fn rule_24_regions_are_at_or_below_apc_level() {
    run(|| {
        at(APC_LEVEL, || {
            raw!(KeEnterCriticalRegion());
            raw!(KeLeaveCriticalRegion());
        })
    });
    let enter = crash(0xc4, || {
        raise(DISPATCH_LEVEL);
        raw!(KeEnterCriticalRegion());
    });
    let leave = crash(0xc4, || {
        raise(DISPATCH_LEVEL);
        raw!(KeLeaveCriticalRegion());
    });
    assert_eq!((enter.parameters[0], leave.parameters[0]), (0x11a, 0x11b));
    assert_eq!((enter.parameters[1], leave.parameters[1]), (2, 2));
}

#[test]
fn rule_25_special_apcs_come_before_normal_ones() {
    run(|| {
        leave_start_region();
        let log = Log::default();
        let me = current_thread();
        let apcs: Vec<_> = (0..3)
            .flat_map(|index| {
                let log = &log;
                [
                    Apc::normal(me, move || log.push(format!("normal {index}"))),
                    Apc::special(me, move || log.push(format!("special {index}"))),
                ]
            })
            .collect();
        at(APC_LEVEL, || {
            for apc in &apcs {
                assert!(apc.insert());
                assert!(!apc.insert(), "it is queued already");
            }
        });
        assert_eq!(log.take(), ["special 0", "special 1", "special 2", "normal 0", "normal 1", "normal 2"]);
        enter_start_region();
    });
}

#[test]
fn rule_25_one_normal_apc_is_in_progress_at_a_time() {
    run(|| {
        leave_start_region();
        let log = Log::default();
        let me = current_thread();
        let second = Apc::normal(me, || log.push("second"));
        let special = Apc::special(me, || log.push("special"));
        let first = Apc::normal(me, || {
            log.push("first");
            second.insert();
            special.insert();
            // The routine may wait; the second one still does not run.
            sleep(MS);
            log.push("first ends");
        });
        first.insert();
        assert_eq!(log.take(), ["first", "special", "first ends", "second"]);
        enter_start_region();
    });
}

#[test]
fn rule_25_levels_of_the_routines() {
    run(|| {
        leave_start_region();
        let log = Log::default();
        let kernel = || log.push(format!("kernel {}", irql()));
        let apc = Apc::new(
            current_thread(),
            KernelMode,
            Box::new(|_| kernel()),
            Some(Box::new(|| log.push(format!("normal {}", irql())))),
        );
        apc.insert();
        assert_eq!(log.take(), ["kernel 1", "normal 0"]);
        let cancelled = Apc::new(
            current_thread(),
            KernelMode,
            Box::new(|normal| {
                *normal = None;
                kernel();
            }),
            Some(Box::new(|| log.push("cancelled"))),
        );
        cancelled.insert();
        assert_eq!(log.take(), ["kernel 1"]);
        enter_start_region();
    });
}

#[test]
fn rule_25_changed_level_is_a_bug_check() {
    let stop = crash(0xc8, || {
        let apc = Apc::special(current_thread(), || {
            raise(DISPATCH_LEVEL);
        });
        apc.insert();
    });
    assert_eq!(stop.parameters[0], 2 << 16 | 1 << 8);
}

#[test]
fn rule_25_ended_thread_takes_no_apcs() {
    explore(|| {
        let thread = spawn(|| {});
        wait(thread.object());
        let apc = Apc::special(thread.object(), || panic!("an ended thread runs nothing"));
        assert!(!apc.insert());
        thread.join();
    });
}

#[test]
fn rule_25_removed_apc_does_not_run() {
    run(|| {
        let apc = Apc::special(current_thread(), || panic!("it was removed"));
        at(APC_LEVEL, || {
            assert!(apc.insert());
            assert_eq!(raw!(KeRemoveQueueApc(apc.ptr())), TRUE);
            assert_eq!(raw!(KeRemoveQueueApc(apc.ptr())), FALSE);
        });
    });
}

#[test]
fn rule_25_apc_may_be_queued_again_from_its_routine() {
    run(|| {
        let runs = Cell::new(0);
        let slot: Cell<*mut KAPC> = Cell::new(std::ptr::null_mut());
        let apc = Apc::special(current_thread(), || {
            runs.set(runs.get() + 1);
            if runs.get() < 3 {
                assert_eq!(raw!(KeInsertQueueApc(slot.get(), std::ptr::null_mut(), std::ptr::null_mut(), 0)), TRUE);
            }
        });
        slot.set(apc.ptr());
        apc.insert();
        assert_eq!(runs.get(), 3);
    });
}

#[test]
fn rule_25_waiting_thread_is_woken_where_its_wait_began_at_passive_level_only() {
    explore(|| {
        let (event, log) = (Event::notification(), Log::default());
        let waiter = |name: &'static str, enter: fn(), leave: fn()| {
            let (event, log) = (&event, &log);
            let thread = spawn(move || {
                enter();
                wait(event.object());
                log.push(format!("{name} woken"));
                leave();
                log.push(format!("{name} left"));
            });
            settle();
            thread
        };
        let threads = [
            waiter("passive", || {}, || {}),
            waiter("raised", || assert_eq!(raise(APC_LEVEL), 0), || lower(PASSIVE_LEVEL)),
            waiter("guarded", || raw!(KeEnterGuardedRegion()), || raw!(KeLeaveGuardedRegion())),
        ];
        let names = ["passive", "raised", "guarded"];
        let apcs: Vec<_> = threads
            .iter()
            .zip(names)
            .map(|(thread, name)| {
                let log = &log;
                Apc::special(thread.object(), move || log.push(format!("{name} apc")))
            })
            .collect();
        for apc in &apcs {
            apc.insert();
        }
        settle();
        assert_eq!(log.take(), ["passive apc"]);
        event.set();
        join_all(threads);
        let log = log.take();
        for name in ["raised", "guarded"] {
            let of_it: Vec<_> = log.iter().filter(|line| line.starts_with(name)).collect();
            assert_eq!(of_it, [&format!("{name} woken"), &format!("{name} apc"), &format!("{name} left")]);
        }
    });
}

#[test]
fn rule_26_system_threads_start_at_passive_level_in_a_critical_region() {
    explore(|| {
        let thread = spawn(|| {
            assert_eq!((irql(), apcs_disabled(), all_apcs_disabled()), (PASSIVE_LEVEL, true, false));
            assert_eq!(own_priority(), 8);
        });
        thread.join();
    });
}

#[test]
fn rule_26_thread_ends_by_itself_with_its_status() {
    explore(|| {
        let go = Event::notification();
        let thread = spawn(|| {
            wait(go.object());
            raw!(PsTerminateSystemThread(0x1234));
            unreachable!("it does not return");
        });
        assert_eq!(raw!(PsGetThreadExitStatus(thread.object().cast())), STATUS_PENDING);
        go.set();
        wait(thread.object());
        assert_eq!(raw!(PsGetThreadExitStatus(thread.object().cast())), 0x1234);
        thread.join();
    });
}

#[test]
fn rule_26_machine_runs_until_all_its_threads_have_ended() {
    let ended = Cell::new(false);
    let outcome = Machine::new().run(|| {
        let thread = spawn(|| {
            sleep(SECOND);
            ended.set(true);
        });
        raw!(ObfDereferenceObject(thread.object()));
    });
    outcome.expect_clean();
    assert!(ended.get());
}
