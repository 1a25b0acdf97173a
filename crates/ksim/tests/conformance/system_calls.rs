//! System calls, user APCs and alerts: what rules 17 to 25 say of threads that come from user mode.

use ksim::{ApcKind, ProcessorMode};
use ksync_sys::*;
use std::cell::Cell;
use std::rc::Rc;
use test_support::*;

/// Sleeps as a user's thread, and tells how that ended.
fn user_sleep(alertable: bool, time: i64) -> NTSTATUS {
    let interval = -time;
    raw!(KeDelayExecutionThread(UserMode, alertable.into(), &interval))
}

#[test]
fn rule_17_alerts_come_from_other_threads_too() {
    explore(|| {
        let event = Event::notification();
        let id = Rc::new(Cell::new(0));
        let seen = Rc::clone(&id);
        let thread = spawn(|| {
            seen.set(own_id());
            assert_eq!(wait_mode(event.object(), UserMode, true, None), STATUS_ALERTED);
            assert_eq!(wait_mode(event.object(), KernelMode, true, None), STATUS_ALERTED);
            // A user-mode alert does not end a wait in kernel mode.
            assert_eq!(wait_mode(event.object(), KernelMode, true, Some(-SECOND)), STATUS_TIMEOUT);
            assert_eq!(wait_mode(event.object(), UserMode, true, None), STATUS_ALERTED);
        });
        settle();
        assert!(!ksim::alert_thread(id.get(), ProcessorMode::User));
        settle();
        assert!(!ksim::alert_thread(id.get(), ProcessorMode::Kernel));
        settle();
        assert!(!ksim::alert_thread(id.get(), ProcessorMode::User));
        assert!(ksim::alert_thread(id.get(), ProcessorMode::User), "it is alerted already");
        thread.join();
    });
}

#[test]
fn rule_17_termination_ends_waits_in_user_mode() {
    explore(|| {
        let event = Event::notification();
        let ids = Rc::new(Cell::new((0, 0)));
        let (mine, others) = (Rc::clone(&ids), Rc::clone(&ids));
        let user = spawn(|| {
            mine.set((own_id(), mine.get().1));
            // (F, User): for termination only; and from then on no such wait blocks.
            assert_eq!(wait_mode(event.object(), UserMode, false, None), STATUS_USER_APC);
            assert_eq!(wait_mode(event.object(), UserMode, false, None), STATUS_USER_APC);
            assert_eq!(raw!(PsIsThreadTerminating(current_thread().cast())), TRUE);
        });
        let kernel = spawn(|| {
            others.set((others.get().0, own_id()));
            // (F, Kernel): never.
            assert_eq!(wait_mode(event.object(), KernelMode, false, Some(-SECOND)), STATUS_TIMEOUT);
        });
        settle();
        ksim::request_termination(ids.get().0);
        ksim::request_termination(ids.get().1);
        join_all([user, kernel]);
    });
}

#[test]
fn rule_21_user_apcs_run_at_the_return_to_user_mode() {
    explore(|| {
        let log = Log::default();
        let queue = |name: &'static str| {
            let log = log.clone();
            assert!(ksim::queue_apc(own_id(), ApcKind::User, move || log.push(format!("{name} at {}", irql()))));
        };
        ksim::system_call(|| {
            queue("first");
            queue("second");
            assert_eq!(user_sleep(false, MS), STATUS_SUCCESS, "not alertable");
        });
        assert_eq!(log.len(), 0, "no wait looked for them");
        ksim::system_call(|| {
            assert_eq!(user_sleep(true, SECOND), STATUS_USER_APC);
            assert_eq!(log.len(), 0);
            // They are on their way, so that no wait in user mode blocks.
            assert_eq!(user_sleep(false, SECOND), STATUS_USER_APC);
        });
        assert_eq!(log.take(), ["first at 0", "second at 0"]);
        ksim::system_call(|| assert_eq!(user_sleep(true, MS), STATUS_SUCCESS));
    });
}

#[test]
fn rule_21_a_system_call_enters_no_region() {
    run(|| {
        let disabled = || raw!(KeAreApcsDisabled()) != 0;
        let ran = Rc::new(Cell::new(false));
        let seen = Rc::clone(&ran);
        assert!(disabled(), "a system thread starts in a region");
        assert!(ksim::queue_apc(own_id(), ApcKind::NormalKernel, move || seen.set(true)));
        assert!(!ran.get());
        ksim::system_call(|| assert!(!disabled() && ran.get()));
        assert!(disabled());
    });
}

#[test]
fn rule_22_a_system_call_leaves_no_region_and_no_level_behind() {
    let critical = crash(0x1, || ksim::system_call(|| raw!(KeEnterCriticalRegion())));
    assert_eq!((critical.name, critical.parameters[2..].to_vec()), ("APC_INDEX_MISMATCH", vec![0xffff, 0]));
    let guarded = crash(0x1, || ksim::system_call(|| raw!(KeEnterGuardedRegion())));
    assert_eq!(guarded.parameters[2], 0xffff_0000);
    let mutex = Place::<KMUTANT>::zeroed();
    crash(0x1, || {
        raw!(KeInitializeMutex(mutex.ptr(), 0));
        ksim::system_call(|| wait(mutex.object()));
    });
    let raised = crash(0x4a, || {
        ksim::system_call(|| raise(APC_LEVEL));
    });
    assert_eq!((raised.name, raised.parameters[1]), ("IRQL_GT_ZERO_AT_SYSTEM_SERVICE", 1));
}

#[test]
fn rule_25_kernel_apcs_interrupt_a_user_apc() {
    run(|| {
        let log = Log::default();
        let inside = log.clone();
        ksim::queue_apc(own_id(), ApcKind::User, move || {
            inside.push("user");
            for kind in [ApcKind::NormalKernel, ApcKind::SpecialKernel] {
                let log = inside.clone();
                ksim::queue_apc(own_id(), kind, move || log.push(format!("{kind:?} at {}", irql())));
            }
            inside.push("user ends");
        });
        ksim::system_call(|| assert_eq!(user_sleep(true, SECOND), STATUS_USER_APC));
        assert_eq!(log.take(), ["user", "NormalKernel at 0", "SpecialKernel at 1", "user ends"]);
    });
}

#[test]
fn rule_25_an_ending_thread_runs_its_user_apcs_down() {
    /// Tells when it is dropped.
    struct Told(Log);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.push("dropped");
        }
    }
    explore(|| {
        let log = Log::default();
        let ids = Cell::new(0);
        let thread = spawn(|| {
            ids.set(own_id());
            sleep(SECOND);
        });
        settle();
        for _ in 0..2 {
            let told = Told(log.clone());
            assert!(ksim::queue_apc(ids.get(), ApcKind::User, move || told.0.push("ran")));
        }
        wait(thread.object());
        assert_eq!(log.take(), ["dropped", "dropped"]);
        let told = Told(log.clone());
        assert!(!ksim::queue_apc(ids.get(), ApcKind::SpecialKernel, move || told.0.push("ran")));
        assert_eq!(log.take(), ["dropped"]);
        thread.join();
    });
}

#[test]
fn rule_25_an_ending_thread_runs_its_kernel_apcs() {
    explore(|| {
        let log = Log::default();
        let ran = log.clone();
        // A system thread runs in a critical region, which ends with it.
        spawn(|| {
            ksim::queue_apc(own_id(), ApcKind::NormalKernel, move || ran.push(irql()));
            assert_eq!(log.len(), 0);
        })
        .join();
        assert_eq!(log.take(), ["0"]);
    });
    // One that it has entered itself does not.
    let critical = crash(0x20, || {
        raw!(KeEnterCriticalRegion());
        ksim::queue_apc(own_id(), ApcKind::NormalKernel, || panic!("it is held back"));
    });
    assert_ne!(critical.parameters[0], 0);
    assert_eq!(critical.parameters[1..3], [0xfffe, 0]);
    let guarded = crash(0x20, || {
        raw!(KeEnterGuardedRegion());
        ksim::queue_apc(own_id(), ApcKind::SpecialKernel, || panic!("it is held back"));
    });
    assert_ne!(guarded.parameters[0], 0);
}

#[test]
fn rule_18_special_apcs_run_in_waits_of_other_threads() {
    explore(|| {
        let (event, ids, log) = (Event::synchronization(), Cell::new(0), Log::default());
        let thread = spawn(|| {
            ids.set(own_id());
            assert_eq!(wait_until(event.object(), -SECOND), STATUS_SUCCESS);
        });
        settle();
        for _ in 0..3 {
            let log = log.clone();
            let id = ids.get();
            assert!(ksim::queue_apc(id, ApcKind::SpecialKernel, move || {
                assert_eq!((own_id(), irql()), (id, APC_LEVEL));
                log.push("apc");
            }));
            settle();
        }
        assert_eq!(log.len(), 3);
        event.set();
        thread.join();
    });
}

#[test]
fn an_exception_in_a_system_call_has_a_bug_check_of_its_own() {
    let status = STATUS_INSUFFICIENT_RESOURCES;
    let check = crash(0x3b, move || ksim::system_call(|| raw!(ExRaiseStatus(status))));
    assert_eq!(check.parameters[0], u64::from(status.cast_unsigned()));
    let check = crash(0x7e, move || raw!(ExRaiseStatus(status)));
    assert_eq!(check.parameters[0], u64::from(status.cast_unsigned()));
}
