//! Waits: rules 13 to 19.

use ksync_sys::*;
use std::cell::Cell;
use std::ptr::null_mut;
use test_support::*;

#[test]
fn rule_13_wait_any_takes_the_lowest_index_alone() {
    run(|| {
        let semaphores: Vec<_> = (0..5).map(|_| Semaphore::new(0, 5)).collect();
        let objects: Vec<_> = semaphores.iter().map(|semaphore| semaphore.object()).collect();
        assert_eq!(wait_many(&objects, WaitAny, Some(0)), STATUS_TIMEOUT);
        for index in [4, 2, 3] {
            semaphores[index].release(1);
        }
        assert_eq!(wait_any(&objects), 2);
        let states: Vec<_> = semaphores.iter().map(Semaphore::state).collect();
        assert_eq!(states, [0, 0, 0, 1, 1]);
        assert_eq!(wait_any(&objects), 3);
        assert_eq!(wait_any(&objects), 4);
    });
}

#[test]
fn rule_13_blocked_wait_any_returns_the_index_that_woke_it() {
    explore(|| {
        let events: Vec<_> = (0..6).map(|_| Event::synchronization()).collect();
        let objects: Vec<_> = events.iter().map(|event| event.object()).collect();
        for index in 0..6 {
            let thread = spawn(|| assert_eq!(wait_any(&objects), index as i32));
            settle();
            events[index].set();
            thread.join();
            assert!(events.iter().all(|event| event.state() == 0));
            let free = |event: &Event| event.read().Header.WaitListHead.Flink == event.read().Header.WaitListHead.Blink;
            assert!(events.iter().all(free), "no list keeps a wait block");
        }
    });
}

#[test]
fn rule_13_wait_all_consumes_nothing_before_everything() {
    explore(|| {
        let (semaphore, event, mutex) = (Semaphore::new(1, 5), Event::synchronization(), Mutex::mutant(false));
        let objects = [semaphore.object(), event.object(), mutex.object()];
        assert_eq!(wait_many(&objects, WaitAll, Some(0)), STATUS_TIMEOUT);
        assert_eq!((semaphore.state(), mutex.state()), (1, 1));
        let done = Event::notification();
        let thread = spawn(|| {
            assert_eq!(wait_all(&objects), STATUS_SUCCESS);
            assert_eq!(mutex.state(), 0);
            mutex.release();
            done.set();
        });
        settle();
        assert_eq!((semaphore.state(), mutex.state()), (1, 1), "still not consumed");
        assert_eq!(poll(semaphore.object()), STATUS_SUCCESS);
        event.set();
        settle();
        assert_eq!((done.state(), event.state()), (0, 1));
        semaphore.release(1);
        thread.join();
        assert_eq!((semaphore.state(), event.state(), mutex.state()), (0, 0, 1));
    });
}

#[test]
fn rule_13_wait_all_at_the_head_does_not_block_those_behind() {
    explore(|| {
        let (event, never, log) = (Event::synchronization(), Event::notification(), Log::default());
        let all = spawn(|| {
            assert_eq!(wait_all(&[event.object(), never.object()]), STATUS_SUCCESS);
            log.push("all");
        });
        settle();
        let one = waiters(1, &log, event.object());
        event.set();
        settle();
        assert_eq!(log.take(), ["0"]);
        never.set();
        settle();
        assert_eq!(log.len(), 0);
        event.set();
        join_all(one);
        all.join();
        assert_eq!(log.take(), ["all"]);
    });
}

#[test]
fn rule_13_wait_all_may_own_a_mutex_already() {
    run(|| {
        let (mutex, event) = (Mutex::mutant(true), Event::new(SynchronizationEvent, true));
        assert_eq!(wait_all(&[mutex.object(), event.object()]), STATUS_SUCCESS);
        assert_eq!((mutex.state(), event.state()), (-1, 0));
        mutex.release();
        mutex.release();
    });
}

#[test]
fn rule_14_numbers_of_objects() {
    run(|| {
        let events: Vec<_> = (0..64).map(|_| Event::new(NotificationEvent, true)).collect();
        let objects: Vec<_> = events.iter().map(|event| event.object()).collect();
        for count in [1, 2, 3, 4, 63, 64] {
            assert_eq!(wait_all(&objects[..count]), STATUS_SUCCESS);
        }
        for event in &events[..63] {
            event.reset();
        }
        assert_eq!(wait_any(&objects), 63);
    });
    for (count, blocks) in [(4, false), (65, true), (65, false), (u32::MAX, true)] {
        let stop = crash(0xc, || {
            let event = Event::notification();
            let objects = [event.object(); 65];
            let place = Place::<[KWAIT_BLOCK; 65]>::zeroed();
            let blocks = if blocks { place.ptr().cast() } else { null_mut() };
            let timeout = 0;
            raw!(KeWaitForMultipleObjects(count, objects.as_ptr(), WaitAny, Executive, KernelMode, FALSE, &timeout, blocks));
        });
        assert_eq!(stop.name, "MAXIMUM_WAIT_OBJECTS_EXCEEDED");
    }
}

/// In a user-mode wait the stack may be paged out, unless the thread has asked that it is not.
#[test]
fn rule_14_user_mode_waits_have_nothing_on_the_stack() {
    fn wait_on(on_stack: bool, blocks_on_stack: bool) {
        let mut event_on_stack = std::mem::MaybeUninit::<KEVENT>::uninit();
        raw!(KeInitializeEvent(event_on_stack.as_mut_ptr(), NotificationEvent, TRUE));
        let mut blocks = [const { std::mem::MaybeUninit::<KWAIT_BLOCK>::uninit() }; 4];
        let (event, place) = (Event::notification(), Place::<[KWAIT_BLOCK; 4]>::zeroed());
        let object = if on_stack { event_on_stack.as_mut_ptr().cast() } else { event.object() };
        let blocks = if blocks_on_stack { blocks.as_mut_ptr().cast() } else { place.ptr().cast() };
        event.set();
        let objects = [event.object(), event.object(), event.object(), object];
        raw!(KeWaitForMultipleObjects(4, objects.as_ptr(), WaitAny, Executive, UserMode, FALSE, std::ptr::null(), blocks));
    }
    run(|| wait_on(false, false));
    for (object, blocks) in [(true, false), (false, true)] {
        let outcome = ksim::Machine::new().run(|| wait_on(object, blocks));
        let stop = outcome.expect_bug_check(0xc4);
        assert_eq!(stop.parameters[0], 0x123, "{stop}");
    }
    run(|| {
        assert_eq!(raw!(KeSetKernelStackSwapEnable(FALSE)), TRUE);
        wait_on(true, true);
        // It is the thread's own.
        spawn(|| assert_eq!(raw!(KeSetKernelStackSwapEnable(TRUE)), TRUE)).join();
        assert_eq!(raw!(KeSetKernelStackSwapEnable(TRUE)), FALSE);
    });
}

#[test]
fn rule_15_timeouts() {
    explore(|| {
        let event = Event::notification();
        let start = now();
        assert_eq!(wait_until(event.object(), 0), STATUS_TIMEOUT);
        assert_eq!(now(), start);
        assert_eq!(wait_until(event.object(), -5 * MS), STATUS_TIMEOUT);
        assert_eq!(now(), start + 5 * MS);
        let absolute = system_time() + 7 * MS;
        assert_eq!(wait_until(event.object(), absolute), STATUS_TIMEOUT);
        assert_eq!(system_time(), absolute);
        assert_eq!(wait_until(event.object(), 1), STATUS_TIMEOUT, "an absolute time in the past");
        assert_eq!(wait_many(&[event.object()], WaitAll, Some(-MS)), STATUS_TIMEOUT);
        assert_eq!(now(), start + 13 * MS);
        event.set();
        assert_eq!(wait_until(event.object(), -MS), STATUS_SUCCESS);
        assert_eq!(wait_until(event.object(), i64::MIN), STATUS_SUCCESS);
        event.reset();
        let thread = spawn(|| assert_eq!(wait_until(event.object(), i64::MIN), STATUS_SUCCESS));
        settle();
        event.set();
        thread.join();
    });
}

#[test]
fn rule_15_system_time_moves_absolute_timeouts_only() {
    explore(|| {
        let (event, log) = (Event::notification(), Log::default());
        let (start, system) = (now(), system_time());
        let relative = spawn(|| {
            assert_eq!(wait_until(event.object(), -10 * MS), STATUS_TIMEOUT);
            log.push(format!("relative {}", (now() - start) / MS));
        });
        let absolute = spawn(|| {
            assert_eq!(wait_until(event.object(), system + SECOND), STATUS_TIMEOUT);
            log.push(format!("absolute {}", (now() - start) / MS));
        });
        let late = spawn(|| {
            assert_eq!(wait_until(event.object(), system + 20 * MS), STATUS_TIMEOUT);
            log.push(format!("late {}", (now() - start) / MS));
        });
        sleep(2 * MS);
        ksim::set_system_time(system);
        sleep(3 * MS);
        ksim::set_system_time(system + SECOND);
        join_all([relative, absolute]);
        late.join();
        let mut log = log.take();
        log.sort();
        assert_eq!(log, ["absolute 5", "late 5", "relative 10"]);
    });
}

#[test]
fn rule_15_delay_returns_success() {
    explore(|| {
        let start = now();
        assert_eq!(sleep(3 * MS), STATUS_SUCCESS);
        assert_eq!(now(), start + 3 * MS);
        assert_eq!(sleep(0), STATUS_SUCCESS);
        let until = system_time() + MS;
        assert_eq!(raw!(KeDelayExecutionThread(KernelMode, FALSE, &until)), STATUS_SUCCESS);
        assert_eq!(system_time(), until);
    });
}

#[test]
fn rule_15_resumption_after_an_apc_keeps_the_deadline() {
    explore(|| {
        let (event, start) = (Event::notification(), now());
        let ran = Cell::new(0);
        let ends = |status: NTSTATUS| {
            assert_eq!(status, STATUS_TIMEOUT);
            assert_eq!(now() - start, 10 * MS);
        };
        let single = spawn(|| ends(wait_until(event.object(), -10 * MS)));
        let many = spawn(|| ends(wait_many(&[event.object(), current_thread()], WaitAny, Some(-10 * MS))));
        let delay = spawn(|| {
            assert_eq!(sleep(10 * MS), STATUS_SUCCESS);
            assert_eq!(now() - start, 10 * MS);
        });
        settle();
        let threads = [single, many, delay];
        let apcs: Vec<_> = threads
            .iter()
            .map(|thread| {
                Apc::special(thread.object(), || {
                    ran.set(ran.get() + 1);
                    sleep(2 * MS);
                })
            })
            .collect();
        sleep(4 * MS);
        for apc in &apcs {
            assert!(apc.insert());
        }
        join_all(threads);
        assert_eq!(ran.get(), 3);
    });
}

#[test]
fn rule_16_polls_may_be_at_dispatch_level_and_in_dpcs() {
    run(|| {
        let (event, semaphore) = (Event::new(SynchronizationEvent, true), Semaphore::new(2, 2));
        at(DISPATCH_LEVEL, || {
            assert_eq!(poll(event.object()), STATUS_SUCCESS);
            assert_eq!(poll(event.object()), STATUS_TIMEOUT);
            assert_eq!(wait_many(&[event.object(), semaphore.object()], WaitAny, Some(0)), 1);
        });
        let dpc = Dpc::new(|| {
            assert_eq!(poll(semaphore.object()), STATUS_SUCCESS);
            assert_eq!(poll(semaphore.object()), STATUS_TIMEOUT);
            assert_eq!(wait_many(&[event.object(), semaphore.object()], WaitAll, Some(0)), STATUS_TIMEOUT);
        });
        dpc.queue();
        flush_dpcs();
        assert_eq!(semaphore.state(), 0);
    });
}

#[test]
fn rule_16_waits_that_block_are_below_dispatch_level() {
    let event = Place::<KEVENT>::zeroed();
    let at_level = |level: KIRQL, timeout: Option<i64>| {
        crash(0xc4, || {
            raw!(KeInitializeEvent(event.ptr(), NotificationEvent, FALSE));
            raise(level);
            wait_mode(event.object(), KernelMode, false, timeout);
        })
    };
    assert_eq!(at_level(DISPATCH_LEVEL, None).parameters[..3], [0x121, 2, event.object() as u64]);
    assert_eq!(at_level(DISPATCH_LEVEL, Some(-1)).parameters[..3], [0x122, 2, event.object() as u64]);
    assert_eq!(at_level(3, Some(0)).parameters[..3], [0x120, 3, event.object() as u64]);
    assert_eq!(at_level(HIGH_LEVEL, None).parameters[..3], [0x120, 15, event.object() as u64]);
    let in_dpc = crash(0xb8, || {
        let event = Event::notification();
        let dpc = Dpc::new(|| {
            wait(event.object());
        });
        dpc.queue();
    });
    assert!(in_dpc.in_dpc);
}

#[test]
fn rule_16_waits_may_be_at_apc_level() {
    explore(|| {
        let event = Event::synchronization();
        let thread = spawn(|| {
            let old = raise(APC_LEVEL);
            assert_eq!(wait(event.object()), STATUS_SUCCESS);
            assert_eq!(irql(), APC_LEVEL);
            assert_eq!(wait_until(event.object(), -MS), STATUS_TIMEOUT);
            assert_eq!(irql(), APC_LEVEL);
            lower(old);
        });
        settle();
        event.set();
        thread.join();
    });
}

#[test]
fn rule_17_alertability_in_its_order() {
    run(|| {
        let event = Event::synchronization();
        let me = current_thread();
        let alert = |mode| assert_eq!(raw!(KeAlertThread(me.cast(), mode)), FALSE);
        let poll = |mode, alertable| wait_mode(event.object(), mode, alertable, Some(0));
        // Alerted in the wait's own mode.
        alert(KernelMode);
        assert_eq!(poll(KernelMode, false), STATUS_TIMEOUT);
        assert_eq!(poll(UserMode, false), STATUS_TIMEOUT);
        assert_eq!(poll(KernelMode, true), STATUS_ALERTED);
        assert_eq!(poll(KernelMode, true), STATUS_TIMEOUT, "an alert is taken once");
        // A kernel-mode alert ends user-mode waits too, not the other way round.
        alert(KernelMode);
        assert_eq!(poll(UserMode, true), STATUS_ALERTED);
        alert(UserMode);
        assert_eq!(raw!(KeAlertThread(me.cast(), UserMode)), TRUE);
        assert_eq!(poll(KernelMode, true), STATUS_TIMEOUT);
        assert_eq!(poll(UserMode, true), STATUS_ALERTED);
        // The object comes before the alert.
        alert(KernelMode);
        event.set();
        assert_eq!(poll(KernelMode, true), STATUS_SUCCESS);
        assert_eq!(poll(KernelMode, true), STATUS_ALERTED);
        // Alerted in the mode, then user APCs, then alerted in kernel mode.
        let apc = Apc::user(me);
        alert(UserMode);
        alert(KernelMode);
        apc.insert();
        assert_eq!(poll(KernelMode, false), STATUS_TIMEOUT);
        assert_eq!(poll(UserMode, true), STATUS_ALERTED);
        assert_eq!(poll(UserMode, true), STATUS_USER_APC);
        assert_eq!(poll(KernelMode, true), STATUS_ALERTED);
        assert_eq!(raw!(KeRemoveQueueApc(apc.ptr())), TRUE);
    });
}

#[test]
fn rule_17_blocked_waits() {
    explore(|| {
        let event = Event::notification();
        let started = |mode, alertable, expected: NTSTATUS| {
            let event = &event;
            let thread = spawn(move || assert_eq!(wait_mode(event.object(), mode, alertable, None), expected));
            settle();
            thread
        };
        let (kernel, user) = (started(KernelMode, true, STATUS_ALERTED), started(UserMode, true, STATUS_ALERTED));
        assert!(!kernel.alert(KernelMode));
        assert!(!user.alert(UserMode));
        join_all([kernel, user]);
        let apc_ends = started(UserMode, true, STATUS_USER_APC);
        let apc = Apc::user(apc_ends.object());
        apc.insert();
        apc_ends.join();
        // (T, Kernel) is not ended by user APCs and user-mode alerts, and a wait that is not alertable by neither.
        let (kernel, deaf) = (started(KernelMode, true, STATUS_SUCCESS), started(UserMode, false, STATUS_SUCCESS));
        let apcs = [Apc::user(kernel.object()), Apc::user(deaf.object())];
        for (thread, apc) in [&kernel, &deaf].into_iter().zip(&apcs) {
            thread.alert(UserMode);
            apc.insert();
        }
        deaf.alert(KernelMode);
        settle();
        event.set();
        join_all([kernel, deaf]);
    });
}

#[test]
fn rule_17_alertable_delay() {
    explore(|| {
        let thread = spawn(|| {
            let interval = -SECOND;
            assert_eq!(raw!(KeDelayExecutionThread(KernelMode, TRUE, &interval)), STATUS_ALERTED);
        });
        settle();
        thread.alert(KernelMode);
        thread.join();
        assert!(now() < SECOND);
    });
}

#[test]
fn rule_17_test_alert_takes_the_alert() {
    run(|| {
        let test = |mode| raw!(KeTestAlertThread(mode)) != 0;
        assert!(!test(KernelMode));
        raw!(KeAlertThread(KeGetCurrentThread(), KernelMode));
        assert!(!test(UserMode));
        assert!(test(KernelMode));
        assert!(!test(KernelMode));
    });
}

#[test]
fn rule_18_kernel_apcs_do_not_end_a_wait() {
    explore(|| {
        let (event, runs) = (Event::synchronization(), Cell::new(0));
        // The status is that of the outer wait, whatever the waits inside the APC came to.
        let thread = spawn(|| assert_eq!(wait(event.object()), STATUS_SUCCESS));
        settle();
        let inner = Event::notification();
        for round in 1..=5 {
            let apc = Apc::special(thread.object(), || {
                runs.set(runs.get() + 1);
                assert_eq!(wait_until(inner.object(), -MS), STATUS_TIMEOUT);
            });
            apc.insert();
            sleep(2 * MS);
            assert_eq!((runs.get(), poll(thread.object())), (round, STATUS_TIMEOUT));
        }
        event.set();
        thread.join();
    });
}

#[test]
fn rule_18_apc_between_the_end_of_a_wait_and_its_return() {
    explore(|| {
        let (event, inner) = (Event::synchronization(), Event::notification());
        let thread = spawn(|| assert_eq!(wait_until(event.object(), -SECOND), STATUS_SUCCESS));
        settle();
        let apc = Apc::special(thread.object(), || assert_eq!(wait_until(inner.object(), -MS), STATUS_TIMEOUT));
        at(DISPATCH_LEVEL, || {
            event.set();
            apc.insert();
        });
        thread.join();
    });
}

#[test]
fn rule_19_early_ends_are_successes() {
    for status in [STATUS_TIMEOUT, STATUS_ALERTED, STATUS_USER_APC, STATUS_ABANDONED_WAIT_0] {
        assert!(status > 0, "NT_SUCCESS");
    }
}
