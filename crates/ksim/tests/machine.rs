//! The machine itself: how runs end, what they report, that one does not disturb the next.

use ksim::{End, Machine, OsProfile, Outcome};
use ksync_sys::*;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{null, null_mut};
use test_support::*;

/// A run that is fine whatever ran before.
fn check_that_machines_work() {
    let outcome = Machine::new().processors(2).run(|| {
        let event = Event::synchronization();
        let thread = spawn(|| {
            wait(event.object());
            free(allocate(100));
        });
        sleep(MS);
        event.set();
        thread.join();
    });
    outcome.expect_clean();
}

fn panic_message(code: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(code)).expect_err("it panics");
    payload.downcast_ref::<String>().cloned().or_else(|| payload.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap()
}

#[test]
fn completed() {
    let ran = Cell::new(false);
    let outcome = Machine::new().seed(7).run(|| ran.set(true));
    assert!(ran.get() && outcome.is_completed());
    assert!(matches!(outcome.end(), End::Completed));
    assert!(outcome.bug_check().is_none() && outcome.panic().is_none() && outcome.deadlock().is_none());
    assert_eq!((outcome.seed(), outcome.to_string().as_str()), (7, "completed (seed 7)"));
}

#[test]
fn main_may_borrow_and_return_through_what_it_borrows() {
    let mut values = vec![1];
    Machine::new().run(|| values.push(2)).expect_clean();
    assert_eq!(values, [1, 2]);
}

#[test]
fn one_machine_runs_many_times() {
    let machine = Machine::new().processors(3).seed(5);
    let traces: Vec<_> = (0..3).map(|_| machine.run(|| free(allocate(8))).expect_clean().trace()).collect();
    assert!(traces.iter().all(|trace| *trace == traces[0]));
}

#[test]
fn bug_check_as_a_value() {
    let outcome = Machine::new().run(|| raw!(KeBugCheckEx(0xe2, 1, 2, 3, 4)));
    let stop = outcome.bug_check().expect("a bug check");
    assert_eq!((stop.code, stop.name, stop.parameters), (0xe2, "MANUALLY_INITIATED_CRASH", [1, 2, 3, 4]));
    assert!(matches!(outcome.end(), End::BugCheck(_)));
    let report = outcome.to_string();
    assert!(report.contains("STOP 0xe2 MANUALLY_INITIATED_CRASH (0x1, 0x2, 0x3, 0x4)"), "{report}");
    assert!(report.contains("in KeBugCheckEx"), "{report}");
}

#[test]
fn nothing_runs_after_a_bug_check() {
    struct Guard<'a>(&'a Cell<bool>);
    impl Drop for Guard<'_> {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    for seed in 0..20 {
        let (after, crashed) = (Cell::new(false), Cell::new(false));
        let outcome = Machine::new().processors(4).seed(seed).run(|| {
            let _guard = Guard(&after);
            let check = || after.set(after.get() || crashed.get());
            let dpc = Dpc::new(check);
            let timer = Timer::notification();
            timer.set_with(-1, 1, dpc.ptr());
            for _ in 0..5 {
                let _running = spawn(|| {
                    loop {
                        raw!(KeStallExecutionProcessor(1));
                        check();
                    }
                });
            }
            raw!(KeStallExecutionProcessor(10));
            crashed.set(true);
            raw!(KeBugCheck(0xe2));
        });
        outcome.expect_bug_check(0xe2);
        assert!(!after.get());
    }
    check_that_machines_work();
}

#[test]
fn panic_in_the_first_thread() {
    let outcome = Machine::new().run(|| panic!("number {}", 7));
    let panic = outcome.panic().expect("a panic");
    assert_eq!(panic.message, "number 7");
    assert!(panic.location.as_ref().is_some_and(|location| location.contains("machine.rs:")), "{panic:?}");
    assert!(panic.thread.is_some() && !panic.in_dpc && panic.processor == 0);
    assert!(outcome.to_string().contains("driver panic: number 7"));
    check_that_machines_work();
}

#[test]
fn panic_in_another_thread() {
    for seed in 0..10 {
        let outcome = Machine::new().processors(2).seed(seed).run(|| {
            spawn(|| panic!("in a thread")).join();
            unreachable!("nothing runs after a panic");
        });
        assert_eq!(outcome.panic().expect("a panic").message, "in a thread");
    }
    check_that_machines_work();
}

#[test]
fn panic_in_a_dpc() {
    for seed in 0..10 {
        let outcome = Machine::new().processors(2).seed(seed).run(|| {
            let dpc = Dpc::new(|| panic!("in a DPC"));
            dpc.queue();
            flush_dpcs();
            unreachable!("nothing runs after a panic");
        });
        let panic = outcome.panic().expect("a panic");
        assert_eq!((panic.message.as_str(), panic.in_dpc), ("in a DPC", true));
    }
    check_that_machines_work();
}

#[test]
fn panic_in_a_timer_dpc_on_an_idle_processor() {
    let outcome = Machine::new().run(|| {
        let dpc = Dpc::new(|| panic!("in a timer's DPC"));
        let timer = Timer::notification();
        timer.set_with(-SECOND, 0, dpc.ptr());
        sleep(2 * SECOND);
    });
    let panic = outcome.panic().expect("a panic");
    assert!(panic.in_dpc);
    assert_eq!((panic.thread, panic.message.as_str()), (None, "in a timer's DPC"));
    check_that_machines_work();
}

#[test]
fn panic_in_an_apc() {
    let outcome = Machine::new().run(|| {
        let apc = Apc::special(current_thread(), || panic!("in an APC"));
        apc.insert();
    });
    assert_eq!(outcome.panic().expect("a panic").message, "in an APC");
    check_that_machines_work();
}

#[test]
fn panic_with_another_payload() {
    let outcome = Machine::new().run(|| std::panic::panic_any(5));
    assert!(outcome.panic().is_some());
    check_that_machines_work();
}

#[test]
fn panic_while_holding_everything() {
    struct Everything<'a> {
        spin: &'a SpinLock,
        fast: &'a FastMutex,
        mutex: &'a Mutex,
        dropped: &'a Cell<bool>,
        old: KIRQL,
    }
    impl Drop for Everything<'_> {
        fn drop(&mut self) {
            // What drops do: releases, waits, frees, flushes. None of them may panic again or wait for ever.
            self.spin.release(self.old);
            self.fast.release();
            self.mutex.release();
            wait(Event::notification().object());
            self.fast.acquire();
            self.fast.release();
            sleep(SECOND);
            let queue = Queue::new(1);
            queue.remove_within(MS);
            raw!(KeEnterCriticalRegion());
            raw!(KeLeaveCriticalRegion());
            flush_dpcs();
            free(allocate(10));
            raw!(KeLowerIrql(PASSIVE_LEVEL));
            let timer = Timer::notification();
            timer.set(-1);
            timer.cancel();
            self.dropped.set(true);
        }
    }
    for processors in [1, 4] {
        let dropped = Cell::new(false);
        let outcome = Machine::new().processors(processors).run(|| {
            let (spin, fast, mutex) = (SpinLock::new(), FastMutex::new(), Mutex::new());
            wait(mutex.object());
            fast.acquire();
            let old = spin.acquire();
            let _everything = Everything { spin: &spin, fast: &fast, mutex: &mutex, dropped: &dropped, old };
            panic!("with everything held");
        });
        assert_eq!(outcome.panic().expect("a panic").message, "with everything held");
        assert!(dropped.get());
        check_that_machines_work();
    }
}

#[test]
fn panic_while_another_thread_holds_a_lock_that_the_drop_wants() {
    struct Wants<'a>(&'a SpinLock, &'a FastMutex);
    impl Drop for Wants<'_> {
        fn drop(&mut self) {
            self.1.acquire();
            self.0.acquire();
        }
    }
    let outcome = Machine::new().processors(2).run(|| {
        let (spin, fast, held) = (SpinLock::new(), FastMutex::new(), Event::notification());
        let thread = spawn(|| {
            fast.acquire();
            spin.acquire();
            held.set();
            loop {
                raw!(KeStallExecutionProcessor(1));
            }
        });
        wait(held.object());
        let _wants = Wants(&spin, &fast);
        assert_eq!(poll(thread.object()), STATUS_SUCCESS, "it panics here");
    });
    assert!(outcome.panic().expect("a panic").message.contains("it panics here"));
    check_that_machines_work();
}

#[test]
fn panic_that_the_code_catches_is_still_a_panic() {
    for in_dpc in [false, true] {
        let outcome = Machine::new().processors(2).run(|| {
            let code = || {
                let caught = catch_unwind(|| panic!("caught"));
                assert!(caught.is_err());
            };
            if in_dpc {
                let dpc = Dpc::new(code);
                dpc.queue();
                flush_dpcs();
            } else {
                code();
            }
        });
        assert_eq!(outcome.panic().expect("a panic").message, "caught");
        check_that_machines_work();
    }
}

#[test]
fn drop_that_loops_until_something_happens_ends() {
    struct Loops<'a>(&'a Event);
    impl Drop for Loops<'_> {
        fn drop(&mut self) {
            while self.0.state() == 0 {
                sleep(MS);
            }
        }
    }
    let outcome = Machine::new().run(|| {
        let event = Event::notification();
        let _loops = Loops(&event);
        panic!("before a loop");
    });
    assert_eq!(outcome.panic().expect("a panic").message, "before a loop");
    check_that_machines_work();
}

#[test]
fn deadlock_of_mutexes() {
    for seed in 0..10 {
        let outcome = Machine::new().processors(2).seed(seed).check_lock_order(false).run(|| {
            let (a, b, both) = (Mutex::new(), Mutex::new(), Semaphore::new(0, 2));
            let ready = Event::notification();
            let lock_in_order = |first: &Mutex, second: &Mutex| {
                wait(first.object());
                both.release(1);
                wait(ready.object());
                wait(second.object());
            };
            let one = spawn(|| lock_in_order(&a, &b));
            let two = spawn(|| lock_in_order(&b, &a));
            wait(both.object());
            wait(both.object());
            ready.set();
            join_all([one, two]);
        });
        let graph = outcome.deadlock().expect("a deadlock");
        assert_eq!(graph.threads.len(), 3);
        assert_eq!(graph.cycle.len(), 2, "{outcome}");
        for number in &graph.cycle {
            let thread = graph.threads.iter().find(|thread| thread.thread == *number).expect("it is in the graph");
            assert!(thread.objects[0].starts_with("mutex #"), "{outcome}");
            assert!(graph.cycle.contains(&thread.owners[0]), "{outcome}");
        }
        let main = &graph.threads[0];
        assert!(main.objects[0].starts_with("thread #"), "{outcome}");
        assert!(outcome.to_string().contains("cycle: #"), "{outcome}");
    }
    check_that_machines_work();
}

#[test]
fn deadlock_of_fast_mutexes() {
    let outcome = Machine::new().check_lock_order(false).run(|| {
        let (a, b) = (FastMutex::new(), FastMutex::new());
        let both = |first: &FastMutex, second: &FastMutex| {
            first.acquire();
            sleep(MS);
            second.acquire();
        };
        let one = spawn(|| both(&a, &b));
        let two = spawn(|| both(&b, &a));
        join_all([one, two]);
    });
    let graph = outcome.deadlock().expect("a deadlock");
    assert_eq!(graph.cycle.len(), 2, "{outcome}");
    let in_cycle = |thread: &&ksim::WaitingThread| graph.cycle.contains(&thread.thread);
    assert!(graph.threads.iter().filter(in_cycle).all(|thread| thread.reason == "fast mutex"), "{outcome}");
    check_that_machines_work();
}

#[test]
fn deadlock_of_spin_locks() {
    for processors in [2, 4] {
        let outcome = Machine::new().processors(processors).check_lock_order(false).run(|| {
            let (a, b, arrived) = (SpinLock::new(), SpinLock::new(), Cell::new(0));
            let both = |first: &SpinLock, second: &SpinLock| {
                first.acquire();
                arrived.set(arrived.get() + 1);
                while arrived.get() < 2 {
                    raw!(KeStallExecutionProcessor(1));
                }
                second.acquire();
            };
            let thread = spawn(|| both(&a, &b));
            both(&b, &a);
            thread.join();
        });
        let graph = outcome.deadlock().expect("a deadlock");
        assert_eq!(graph.cycle.len(), 2, "{outcome}");
        assert!(graph.threads.iter().all(|thread| thread.objects[0].starts_with("spin lock #")), "{outcome}");
        check_that_machines_work();
    }
}

#[test]
fn deadlock_of_a_thread_alone() {
    let outcome = Machine::new().run(|| {
        wait(Event::notification().object());
    });
    let graph = outcome.deadlock().expect("a deadlock");
    assert_eq!((graph.threads.len(), graph.cycle.len()), (1, 0));
    assert!(graph.threads[0].objects[0].starts_with("event #"));
    let outcome = Machine::new().run(|| {
        wait(current_thread());
    });
    assert_eq!(outcome.deadlock().expect("a deadlock").cycle.len(), 1, "it waits for itself: {outcome}");
    check_that_machines_work();
}

#[test]
fn deadlock_although_some_thread_has_ended() {
    let outcome = Machine::new().processors(3).run(|| {
        let event = Event::notification();
        let threads: Vec<_> = (0..3).map(|_| spawn(|| assert_eq!(wait(event.object()), 0))).collect();
        let ended = spawn(|| {});
        wait(ended.object());
        join_all(threads);
    });
    assert_eq!(outcome.deadlock().expect("a deadlock").threads.len(), 4);
}

#[test]
fn step_limit() {
    let outcome = Machine::new().step_limit(10_000).run(|| {
        loop {
            raw!(KeStallExecutionProcessor(1));
        }
    });
    assert!(matches!(outcome.end(), End::StepLimit(10_000)), "{outcome}");
    // A machine that is idle but for a timer does not go on for ever either.
    let outcome = Machine::new().step_limit(10_000).run(|| {
        let timer = Timer::notification();
        timer.set_with(-1, 1, null_mut());
        wait(Event::notification().object());
    });
    assert!(matches!(outcome.end(), End::StepLimit(10_000)), "{outcome}");
    // Nor does one whose DPC queues itself.
    let outcome = Machine::new().step_limit(10_000).run(|| {
        let dpc = Dpc::with_arguments(|dpc, _, _| {
            raw!(KeInsertQueueDpc(dpc, null_mut(), null_mut()));
        });
        dpc.queue();
    });
    assert!(matches!(outcome.end(), End::StepLimit(10_000)), "{outcome}");
    check_that_machines_work();
}

/// Makes so many calls at DISPATCH_LEVEL, the last of which leaves it.
fn calls_at_dispatch_level(calls: u64) {
    at(DISPATCH_LEVEL, || (1..calls).for_each(|_| assert_eq!(irql(), DISPATCH_LEVEL)));
}

#[test]
fn calls_at_dispatch_level_are_limited() {
    let machine = || Machine::new().dispatch_call_limit(100);
    // As often as one likes, and in DPCs too, where each has returned below.
    let outcome = machine().processors(2).run(|| {
        (0..10).for_each(|_| calls_at_dispatch_level(100));
        let ran = Cell::new(0);
        let dpc = Dpc::new(|| {
            (0..90).for_each(|_| assert_eq!(irql(), DISPATCH_LEVEL));
            ran.set(ran.get() + 1);
        })
        .on(1);
        while ran.get() < 5 {
            dpc.queue();
            flush_dpcs();
        }
    });
    outcome.expect_clean();
    let stop = machine().run(|| calls_at_dispatch_level(101)).expect_bug_check(0x133);
    assert_eq!((stop.parameters, stop.irql), ([1, 101, 100, 0], DISPATCH_LEVEL));
    // What a level above does not end it, and DPCs that follow each other count together.
    let stop = machine().run(|| {
        at(DISPATCH_LEVEL, || {
            calls_at_high_level(60);
            calls_at_high_level(60);
        });
    });
    assert_eq!(stop.expect_bug_check(0x133).parameters[1], 101);
    let stop = machine().run(|| {
        let dpcs: Vec<_> = (0..2).map(|_| Dpc::new(|| (0..60).for_each(|_| assert_eq!(irql(), DISPATCH_LEVEL)))).collect();
        at(DISPATCH_LEVEL, || dpcs.iter().for_each(|dpc| assert!(dpc.queue())));
        flush_dpcs();
    });
    assert!(stop.expect_bug_check(0x133).in_dpc);
    let tolerant = machine().check_rule(ksim::RuleId::DispatchTooLong, false);
    tolerant.run(|| calls_at_dispatch_level(1_000)).expect_clean();
}

fn calls_at_high_level(calls: u64) {
    at(HIGH_LEVEL, || (0..calls).for_each(|_| assert_eq!(irql(), HIGH_LEVEL)));
}

#[test]
fn a_loop_at_dispatch_level_ends_by_itself() {
    // Nothing else is looked at there: the step limit does not count what nobody can see.
    let stop = Machine::new().run(|| {
        raise(DISPATCH_LEVEL);
        while irql() == DISPATCH_LEVEL {}
    });
    assert_eq!(stop.expect_bug_check(0x133).parameters[1..3], [1_000_001, 1_000_000]);
}

#[test]
fn loop_that_only_looks_at_the_clock_ends() {
    let outcome = Machine::new().run(|| {
        let start = now();
        while now() < start + 10 * MS {}
    });
    outcome.expect_clean();
}

#[test]
fn nested_run_panics() {
    let outcome = Machine::new().run(|| {
        let _ = Machine::new().run(|| {});
    });
    let message = &outcome.panic().expect("a panic").message;
    assert!(message.contains("cannot be nested"), "{message}");
    check_that_machines_work();
}

#[test]
fn export_outside_a_machine_panics() {
    let message = panic_message(|| {
        raw!(KeGetCurrentIrql());
    });
    assert!(message.contains("KeGetCurrentIrql") && message.contains("outside a simulated machine"), "{message}");
    let message = panic_message(|| ksim::set_system_time(0));
    assert!(message.contains("set_system_time"), "{message}");
    check_that_machines_work();
    // And again after a machine has run on this OS thread.
    let message = panic_message(|| {
        Event::notification();
    });
    assert!(message.contains("KeInitializeEvent"), "{message}");
    check_that_machines_work();
}

#[test]
fn processor_counts_are_checked() {
    for bad in [0, 65, 255] {
        let message = panic_message(|| drop(Machine::new().processors(bad)));
        assert!(message.contains("1 to 64"), "{message}");
    }
    for good in [1, 63, 64] {
        let outcome = Machine::new().processors(good).run(|| {
            let mut mask = 0;
            assert_eq!(raw!(KeQueryActiveProcessorCount(&mut mask)), u32::from(good));
            assert_eq!(mask.count_ones(), u32::from(good));
        });
        outcome.expect_clean();
    }
}

#[test]
fn leaks_are_reported() {
    let outcome = Machine::new().run(|| {
        allocate(100);
        raw!(ExAllocatePool2(POOL_FLAG_NON_PAGED, 23, u32::from_le_bytes(*b"Leak")));
        let mut handle = null_mut();
        raw!(ObOpenObjectByPointer(current_thread(), OBJ_KERNEL_HANDLE, null_mut(), 0, null_mut(), KernelMode, &mut handle));
        let thread = spawn(|| {});
        wait(thread.object());
        Box::leak(Box::new(Timer::notification())).set(-SECOND);
    });
    assert!(outcome.is_completed(), "{outcome}");
    let left = outcome.left();
    assert_eq!((left.pool.len(), left.pool_bytes()), (2, 123));
    assert_eq!((left.pool[1].tag.as_str(), left.pool[1].size), ("Leak", 23));
    assert_eq!((left.timers.len(), left.handles, left.references), (1, 1, 1));
    assert!(!left.is_empty());
    let report = outcome.to_string();
    for part in [
        "123 bytes of pool",
        "1 armed timers",
        "1 handles",
        "1 references",
        "'Leak'",
        "a handle to thread #",
        "a reference to thread #",
    ] {
        assert!(report.contains(part), "{part}: {report}");
    }
    let message = panic_message(|| drop(outcome.expect_clean()));
    assert!(message.contains("'Leak'"), "{message}");
    let first: Outcome = Machine::new().run(|| free(allocate(10)));
    assert!(first.left().is_empty());
}

#[test]
fn expectations_show_the_report() {
    let message = panic_message(|| drop(Machine::new().run(|| panic!("boom")).expect_clean()));
    assert!(message.contains("boom"), "{message}");
    let message = panic_message(|| drop(Machine::new().run(|| {}).expect_bug_check(0xc4)));
    assert!(message.contains("0xc4") && message.contains("completed"), "{message}");
}

#[test]
fn allocations_fail_on_request() {
    for nth in 1..=3 {
        let failed = RefCell::new(vec![]);
        let outcome = Machine::new().fail_allocation(nth).run(|| {
            for _ in 0..3 {
                let memory = allocate(16);
                failed.borrow_mut().push(memory.is_null());
                if !memory.is_null() {
                    free(memory);
                }
            }
        });
        outcome.expect_clean();
        let expected: Vec<_> = (1..=3).map(|index| index == nth).collect();
        assert_eq!(failed.take(), expected);
    }
    // The making of a thread allocates too.
    let outcome = Machine::new().fail_allocation(1).run(|| {
        let mut handle = null_mut();
        unsafe extern "system-unwind" fn body(_context: PVOID) {}
        let status = raw!(PsCreateSystemThread(&mut handle, 0, null(), null_mut(), null_mut(), Some(body), null_mut()));
        assert_eq!(status, STATUS_INSUFFICIENT_RESOURCES);
    });
    outcome.expect_clean();
}

#[test]
fn pool_has_a_limit() {
    let outcome = Machine::new().pool_limit(100).run(|| {
        let first = allocate(60);
        assert!(!first.is_null());
        assert!(allocate(41).is_null());
        let second = allocate(40);
        assert!(!second.is_null());
        free(first);
        free(second);
        free(allocate(100));
    });
    outcome.expect_clean();
}

#[test]
fn profiles_differ() {
    let finds = |profile: OsProfile, name: &str| {
        let found = Cell::new(false);
        let version = Cell::new((0, 0, 0));
        let outcome = Machine::new().profile(profile).run(|| {
            let units: Vec<u16> = name.encode_utf16().chain([0]).collect();
            let mut string = UNICODE_STRING { Length: 0, MaximumLength: 0, Buffer: null_mut() };
            raw!(RtlInitUnicodeString(&mut string, units.as_ptr()));
            found.set(!raw!(MmGetSystemRoutineAddress(&string)).is_null());
            let information = Place::<RTL_OSVERSIONINFOW>::zeroed();
            assert_eq!(raw!(RtlGetVersion(information.ptr())), STATUS_SUCCESS);
            let information = information.read();
            version.set((information.dwMajorVersion, information.dwMinorVersion, information.dwBuildNumber));
        });
        outcome.expect_clean();
        assert_eq!(version.get(), profile.version());
        found.get()
    };
    assert!(!finds(OsProfile::Windows7, "ExAllocatePool2"));
    assert!(!finds(OsProfile::Windows10, "ExAllocatePool2"));
    assert!(finds(OsProfile::Windows10_2004, "ExAllocatePool2"));
    assert!(finds(OsProfile::Windows11, "ExAllocatePool2"));
    assert!(finds(OsProfile::Windows7, "KeSetEvent"));
    assert!(finds(OsProfile::Windows7, "PsThreadType"), "a variable is an export too");
    assert!(!finds(OsProfile::Windows11, "KeNoSuchRoutine"));
}

#[test]
fn debug_output_is_kept_by_lines() {
    for echo in [false, true] {
        let outcome = Machine::new().echo(echo).run(|| {
            raw!(DbgPrint(c"one %d, ".as_ptr(), 1));
            raw!(DbgPrint(c"two %s\nthree\n".as_ptr(), c"2".as_ptr()));
            raw!(DbgPrintEx(77, 3, c"%05u|%-4x|%#llx|%c|%%\r\n".as_ptr(), 42, 0xab, 0x1_0000_0000_u64, i32::from(b'z')));
            raw!(DbgPrint(c"no end".as_ptr()));
        });
        assert_eq!(outcome.debug_output(), ["one 1, two 2", "three", "00042|ab  |0x100000000|z|%", "no end"]);
        outcome.expect_clean();
    }
}

#[test]
fn debug_output_survives_a_crash() {
    let outcome = Machine::new().run(|| {
        raw!(DbgPrint(c"before\n".as_ptr()));
        raw!(KeBugCheck(0xe2));
    });
    assert_eq!(outcome.debug_output(), ["before"]);
}

#[test]
fn statistics() {
    let outcome = Machine::new().run(|| {
        sleep(3 * SECOND);
        let dpc = Dpc::new(|| {});
        dpc.queue();
        dpc.queue();
        spawn(|| {}).join();
        free(allocate(1));
    });
    let statistics = outcome.statistics();
    assert_eq!(statistics.virtual_time.as_secs(), 3);
    assert_eq!((statistics.dpcs, statistics.threads), (2, 2));
    assert!(statistics.allocations >= 1);
    assert!(statistics.switches >= 3, "{statistics:?}");
    assert!(statistics.scheduling_points > 5, "{statistics:?}");
    assert!(outcome.trace_len() > 5);
}

#[test]
fn trace_can_be_off() {
    let run = |record: bool| Machine::new().record_trace(record).run(|| free(allocate(sleep(MS) as usize + 1)));
    assert!(!run(true).trace().is_empty());
    assert!(run(false).trace().is_empty());
    assert_eq!(run(true).statistics(), run(false).statistics());
}

#[test]
fn system_time_at_boot() {
    for time in [0, 1, 132_000_000_000_000_000] {
        Machine::new().system_time(time).run(|| assert_eq!(system_time(), time)).expect_clean();
    }
    Machine::new().system_time(-5).run(|| assert_eq!(system_time(), 0)).expect_clean();
}

#[test]
fn many_threads() {
    let outcome = Machine::new().processors(8).run(|| {
        let count = Cell::new(0);
        let threads: Vec<_> = (0..2000).map(|_| spawn(|| count.set(count.get() + 1))).collect();
        join_all(threads);
        assert_eq!(count.get(), 2000);
    });
    assert_eq!(outcome.expect_clean().statistics().threads, 2001);
}

#[test]
fn panic_on_another_os_thread_is_not_the_machines() {
    let outcome = Machine::new().run(|| {
        let result = std::thread::spawn(|| panic!("elsewhere")).join();
        assert!(result.is_err());
    });
    outcome.expect_clean();
}
