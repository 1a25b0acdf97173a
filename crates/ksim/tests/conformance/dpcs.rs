//! DPCs: rules 41 to 46, 48 and 49.

use ksim::Machine;
use ksync_sys::*;
use std::cell::{Cell, RefCell};
use test_support::*;

#[test]
fn rule_41_queued_from_passive_level_it_runs_before_the_call_returns() {
    explore(|| {
        let ran = Cell::new(0);
        let dpc = Dpc::with_arguments(|_, argument1, argument2| {
            assert_eq!((irql(), argument1, argument2), (DISPATCH_LEVEL, 11, 22));
            ran.set(ran.get() + 1);
        });
        for level in [PASSIVE_LEVEL, APC_LEVEL] {
            ran.set(0);
            at(level, || {
                assert!(dpc.queue_with(11, 22));
                assert_eq!(ran.get(), 1);
            });
        }
    });
}

#[test]
fn rule_41_queued_at_dispatch_level_it_runs_when_the_level_falls() {
    run(|| {
        let arguments = Cell::new((0, 0));
        let dpc = Dpc::with_arguments(|_, argument1, argument2| arguments.set((argument1, argument2)));
        for level in [DISPATCH_LEVEL, 5, HIGH_LEVEL] {
            arguments.set((0, 0));
            let old = raise(level);
            assert!(dpc.queue_with(1, 2));
            assert!(!dpc.queue_with(3, 4), "it is queued");
            assert_eq!(arguments.get(), (0, 0));
            lower(old);
            assert_eq!(arguments.get(), (1, 2), "the first call's arguments stay");
        }
    });
}

#[test]
fn rule_41_lock_release_lets_it_run() {
    run(|| {
        let (ran, lock) = (Cell::new(false), SpinLock::new());
        let dpc = Dpc::new(|| ran.set(true));
        lock.with(|| {
            dpc.queue();
            assert!(!ran.get());
        });
        assert!(ran.get());
    });
}

#[test]
fn rule_42_may_be_queued_again_from_its_routine() {
    run(|| {
        let ran = Cell::new(0);
        let dpc = Dpc::with_arguments(|dpc, _, _| {
            ran.set(ran.get() + 1);
            if ran.get() < 5 {
                assert_eq!(raw!(KeInsertQueueDpc(dpc, std::ptr::null_mut(), std::ptr::null_mut())), TRUE);
            }
        });
        dpc.queue();
        assert_eq!(ran.get(), 5);
    });
}

#[test]
fn rule_42_one_dpc_may_run_on_two_processors_at_once() {
    let both = |seed: u64| {
        let seen = Cell::new(false);
        let outcome = Machine::new().processors(2).seed(seed).run(|| {
            let inside = Cell::new(0);
            let dpc = Dpc::new(|| {
                inside.set(inside.get() + 1);
                for _ in 0..20 {
                    raw!(KeStallExecutionProcessor(1));
                    seen.set(seen.get() || inside.get() == 2);
                }
                inside.set(inside.get() - 1);
            });
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    spawn(|| {
                        dpc.queue();
                    })
                })
                .collect();
            join_all(threads);
            flush_dpcs();
        });
        outcome.expect_clean();
        seen.get()
    };
    assert!((0..40).any(both));
}

#[test]
fn rule_43_high_goes_to_the_head_and_others_to_the_tail() {
    run(|| {
        let log = Log::default();
        let importances = [MediumImportance, LowImportance, MediumHighImportance, HighImportance, HighImportance];
        let dpcs: Vec<_> = importances
            .into_iter()
            .enumerate()
            .map(|(index, importance)| {
                let log = &log;
                Dpc::new(move || log.push(index)).importance(importance)
            })
            .collect();
        at(DISPATCH_LEVEL, || {
            for dpc in &dpcs {
                dpc.queue();
            }
        });
        assert_eq!(log.take(), ["4", "3", "0", "1", "2"]);
    });
}

#[test]
fn rule_43_low_waits_here_for_company_or_idleness() {
    run(|| {
        let ran = Cell::new(0);
        let dpcs: Vec<_> = (0..6).map(|_| Dpc::new(|| ran.set(ran.get() + 1)).importance(LowImportance)).collect();
        dpcs[0].queue();
        assert_eq!(ran.get(), 0);
        sleep(MS);
        assert_eq!(ran.get(), 1, "an idle processor drains its queue");
        // The depth that asks for an interrupt is ReactOS' figure; Windows does not document its own.
        for dpc in &dpcs[..4] {
            dpc.queue();
        }
        assert_eq!(ran.get(), 1);
        dpcs[4].queue();
        assert_eq!(ran.get(), 6);
        // Any other DPC takes them along.
        dpcs[0].queue();
        let medium = Dpc::new(|| {});
        medium.queue();
        assert_eq!(ran.get(), 7);
    });
}

#[test]
fn rule_43_another_processor_is_interrupted_for_medium_high_and_high_only() {
    for (importance, at_once) in
        [(LowImportance, false), (MediumImportance, false), (MediumHighImportance, true), (HighImportance, true)]
    {
        for seed in 0..10 {
            Machine::new()
                .processors(2)
                .seed(seed)
                .run(|| {
                    let (ran_on, started, stop) = (Cell::new(None), Cell::new(false), Cell::new(false));
                    let busy = spawn(|| {
                        raw!(KeSetSystemAffinityThreadEx(2));
                        started.set(true);
                        while !stop.get() {
                            raw!(KeStallExecutionProcessor(1));
                        }
                        // A wait makes its processor idle.
                        sleep(MS);
                    });
                    raw!(KeSetSystemAffinityThreadEx(1));
                    while !started.get() {
                        raw!(KeStallExecutionProcessor(1));
                    }
                    let dpc = Dpc::new(|| ran_on.set(Some(processor()))).importance(importance).on(1);
                    dpc.queue();
                    for _ in 0..200 {
                        raw!(KeStallExecutionProcessor(1));
                    }
                    assert_eq!(ran_on.get(), at_once.then_some(1), "importance {importance}");
                    stop.set(true);
                    busy.join();
                    flush_dpcs();
                    assert_eq!(ran_on.get(), Some(1));
                })
                .expect_clean();
        }
    }
}

#[test]
fn rule_44_changes_after_queueing_are_for_the_next_time() {
    for seed in 0..10 {
        Machine::new()
            .processors(2)
            .seed(seed)
            .run(|| {
                let ran_on = RefCell::new(vec![]);
                let dpc = Dpc::new(|| ran_on.borrow_mut().push(processor())).on(1);
                let old = raise(DISPATCH_LEVEL);
                dpc.queue();
                raw!(KeSetTargetProcessorDpc(dpc.ptr(), 0));
                lower(old);
                flush_dpcs();
                dpc.queue();
                flush_dpcs();
                assert_eq!(*ran_on.borrow(), [1, 0]);
            })
            .expect_clean();
    }
    run(|| {
        let log = Log::default();
        let (one, two) = (Dpc::new(|| log.push(1)), Dpc::new(|| log.push(2)));
        at(DISPATCH_LEVEL, || {
            one.queue();
            two.queue();
            raw!(KeSetImportanceDpc(two.ptr(), HighImportance));
        });
        assert_eq!(log.take(), ["1", "2"]);
    });
}

#[test]
fn rule_44_ex_form_refuses_a_bad_processor() {
    Machine::new()
        .processors(2)
        .run(|| {
            let ran_on = Cell::new(9);
            let dpc = Dpc::new(|| ran_on.set(processor()));
            let target = |group, number| {
                let mut number = PROCESSOR_NUMBER { Group: group, Number: number, Reserved: 0 };
                raw!(KeSetTargetProcessorDpcEx(dpc.ptr(), &mut number))
            };
            assert_eq!(target(0, 2), STATUS_INVALID_PARAMETER);
            assert_eq!(target(1, 0), STATUS_INVALID_PARAMETER);
            assert_eq!(target(0, 1), STATUS_SUCCESS);
            dpc.queue();
            flush_dpcs();
            assert_eq!(ran_on.get(), 1);
        })
        .expect_clean();
}

#[test]
fn rule_45_removed_dpc_had_not_started() {
    explore(|| {
        let ran = Cell::new(false);
        let dpc = Dpc::new(|| ran.set(true));
        assert!(!dpc.remove());
        at(DISPATCH_LEVEL, || {
            dpc.queue();
            if dpc.remove() {
                assert!(!ran.get());
                assert!(!dpc.remove());
            }
        });
    });
    run(|| {
        let dpc = Dpc::new(|| panic!("it was removed"));
        at(DISPATCH_LEVEL, || {
            dpc.queue();
            assert!(dpc.remove());
        });
        flush_dpcs();
    });
}

#[test]
fn rule_45_remove_does_not_wait_for_a_running_one() {
    let seen = (0..40).any(|seed| {
        let while_running = Cell::new(false);
        let outcome = Machine::new().processors(2).seed(seed).run(|| {
            let running = Cell::new(false);
            let dpc = Dpc::new(|| {
                running.set(true);
                for _ in 0..20 {
                    raw!(KeStallExecutionProcessor(1));
                }
                running.set(false);
            })
            .on(1)
            .importance(HighImportance);
            dpc.queue();
            for _ in 0..10 {
                assert!(!dpc.remove() || !running.get());
                while_running.set(while_running.get() || running.get());
            }
            flush_dpcs();
        });
        outcome.expect_clean();
        while_running.get()
    });
    assert!(seen);
}

#[test]
fn rule_46_flush_returns_when_all_that_were_queued_are_done() {
    explore_on(&[1, 2, 4], || {
        let done = Cell::new(0);
        let count = raw!(KeQueryActiveProcessorCount(std::ptr::null_mut())) as u8;
        let dpcs: Vec<_> = (0..12u8)
            .map(|index| {
                let done = &done;
                Dpc::new(move || {
                    for _ in 0..5 {
                        raw!(KeStallExecutionProcessor(1));
                    }
                    done.set(done.get() + 1);
                })
                .on(index % count)
                .importance(if index % 3 == 0 { LowImportance } else { MediumImportance })
            })
            .collect();
        for dpc in &dpcs {
            dpc.queue();
        }
        flush_dpcs();
        assert_eq!(done.get(), 12);
        flush_dpcs();
    });
}

#[test]
fn rule_46_several_threads_may_flush() {
    explore_on(&[2, 4], || {
        let done = Cell::new(0);
        let threads: Vec<_> = (0..3u8)
            .map(|index| {
                let done = &done;
                spawn(move || {
                    let finished = Cell::new(false);
                    let dpc = Dpc::new(|| {
                        raw!(KeStallExecutionProcessor(1));
                        finished.set(true);
                    })
                    .on(index % 2);
                    dpc.queue();
                    flush_dpcs();
                    assert!(finished.get());
                    done.set(done.get() + 1);
                })
            })
            .collect();
        join_all(threads);
        assert_eq!(done.get(), 3);
    });
}

struct Generic {
    ran_on: RefCell<Vec<u32>>,
    winners: Cell<u32>,
    inside: Cell<u32>,
    words: RefCell<Vec<u32>>,
    totals: RefCell<Vec<u32>>,
}

unsafe extern "system-unwind" fn generic(_dpc: *mut KDPC, context: PVOID, argument1: PVOID, argument2: PVOID) {
    // SAFETY: the context is the `Generic` of the test that called.
    let state = unsafe { &*context.cast::<Generic>() };
    assert_eq!(irql(), DISPATCH_LEVEL);
    state.ran_on.borrow_mut().push(processor());
    state.inside.set(state.inside.get() + 1);
    for _ in 0..2 {
        state.words.borrow_mut().push(raw!(argument2.cast::<u32>().read()) & 0x8000_0000);
        // DEFERRED_REVERSE_BARRIER: behind those that have yet to arrive is how many there are in all.
        state.totals.borrow_mut().push(raw!(argument2.cast::<u32>().add(1).read()));
        if raw!(KeSignalCallDpcSynchronize(argument2)) != 0 {
            state.winners.set(state.winners.get() + 1);
        }
        assert_eq!(state.inside.get() as usize, state.ran_on.borrow().len(), "all have arrived");
    }
    raw!(KeSignalCallDpcDone(argument1));
}

#[test]
fn rule_48_generic_call_runs_on_every_processor() {
    for processors in [1, 2, 4, 16] {
        for seed in 0..8 {
            Machine::new()
                .processors(processors)
                .seed(seed)
                .run(|| {
                    let state = Generic {
                        ran_on: RefCell::default(),
                        winners: Cell::new(0),
                        inside: Cell::new(0),
                        words: RefCell::default(),
                        totals: RefCell::default(),
                    };
                    raw!(KeGenericCallDpc(Some(generic), (&raw const state).cast_mut().cast()));
                    let mut ran_on = state.ran_on.take();
                    ran_on.sort_unstable();
                    assert_eq!(ran_on, (0..u32::from(processors)).collect::<Vec<_>>());
                    assert_eq!(state.winners.get(), 2, "one a phase");
                    let toggled = state.words.take().iter().filter(|word| **word != 0).count();
                    assert_eq!(toggled, usize::from(processors), "the top bit toggles from phase to phase");
                    assert!(state.totals.take().iter().all(|&total| total == u32::from(processors)));
                })
                .expect_clean();
        }
    }
}

#[test]
fn rule_48_generic_calls_take_turns() {
    explore_on(&[2, 4], || {
        let threads: Vec<_> = (0..3)
            .map(|_| {
                spawn(|| {
                    let state = Generic {
                        ran_on: RefCell::default(),
                        winners: Cell::new(0),
                        inside: Cell::new(0),
                        words: RefCell::default(),
                        totals: RefCell::default(),
                    };
                    raw!(KeGenericCallDpc(Some(generic), (&raw const state).cast_mut().cast()));
                    assert_eq!(state.winners.get(), 2);
                })
            })
            .collect();
        join_all(threads);
    });
}

#[test]
fn rule_49_what_a_routine_must_not_do() {
    let changed = crash(0xc7, || {
        let dpc = Dpc::new(enter_region_below_dispatch_level);
        dpc.queue();
    });
    assert_eq!(changed.parameters[0], 4);
    let changed = crash(0xc7, || {
        let (timer, dpc) = (Timer::notification(), Dpc::new(enter_region_below_dispatch_level));
        timer.set_with(0, 0, dpc.ptr());
    });
    assert_eq!(changed.parameters[0], 5, "by a timer's DPC");
    crash(0xb8, || {
        let event = Event::notification();
        let dpc = Dpc::new(|| {
            wait(event.object());
        });
        dpc.queue();
    });
    let nowhere = crash(0xc7, || {
        let dpc = Dpc::new(|| {}).on(5);
        dpc.queue();
    });
    assert_eq!((nowhere.parameters[0], nowhere.parameters[2], nowhere.parameters[3]), (3, 5, 1));
    let freed = crash(0xc7, || {
        let memory = allocate(64);
        raw!(KeInitializeDpc(memory.cast(), None, std::ptr::null_mut()));
        raise(DISPATCH_LEVEL);
        raw!(KeInsertQueueDpc(memory.cast(), std::ptr::null_mut(), std::ptr::null_mut()));
        free(memory);
    });
    assert_eq!(freed.parameters[0], 1);
}

/// Regions cannot be entered at DISPATCH_LEVEL: a routine that does it anyhow has to lower the level first.
fn enter_region_below_dispatch_level() {
    lower(APC_LEVEL);
    raw!(KeEnterCriticalRegion());
    raise(DISPATCH_LEVEL);
}

#[test]
fn a_dpc_that_is_taken_back_does_not_run_any_more() {
    for threaded in [false, true] {
        for level in [PASSIVE_LEVEL, APC_LEVEL, DISPATCH_LEVEL] {
            let waited = Cell::new(0);
            for seed in 0..40 {
                let outcome = Machine::new().processors(2).seed(seed).run(|| {
                    let (runs, gone) = (Cell::new(false), Cell::new(false));
                    let routine = || {
                        runs.set(true);
                        for _ in 0..4 {
                            now();
                            assert!(!gone.get());
                        }
                        runs.set(false);
                    };
                    let dpc = if threaded { Dpc::threaded(routine) } else { Dpc::new(routine) }.on(1);
                    // A thread that waits must not keep the routine from its own processor.
                    raw!(KeSetSystemAffinityThreadEx(1));
                    dpc.queue();
                    now();
                    at(level, || {
                        waited.set(waited.get() + u32::from(runs.get()));
                        let removed = raw!(KeRemoveQueueDpcEx(dpc.ptr(), TRUE)) != 0;
                        gone.set(true);
                        assert!(!runs.get());
                        assert!(!removed || !runs.get());
                        assert_eq!(irql(), level);
                    });
                    assert_eq!(raw!(KeRemoveQueueDpcEx(dpc.ptr(), FALSE)), FALSE);
                });
                outcome.expect_clean();
            }
            assert_ne!(waited.get(), 0, "some schedule finds the routine at work");
        }
    }
}

#[test]
fn a_dpc_is_waited_for_at_dispatch_level_at_most_and_not_by_itself() {
    run(|| {
        let dpc = Dpc::new(|| ());
        at(DISPATCH_LEVEL, || {
            assert!(dpc.queue());
            assert_eq!(at(HIGH_LEVEL, || raw!(KeRemoveQueueDpcEx(dpc.ptr(), FALSE))), TRUE);
        });
    });
    let stop = crash(0xa, || {
        let dpc = Dpc::new(|| ());
        at(3, || raw!(KeRemoveQueueDpcEx(dpc.ptr(), TRUE)));
    });
    assert_eq!((stop.routine, stop.parameters[1]), (Some("KeRemoveQueueDpcEx"), 3), "{stop}");
    let outcome = Machine::new().run(|| {
        let dpc = Dpc::with_arguments(|dpc, _, _| {
            raw!(KeRemoveQueueDpcEx(dpc, TRUE));
        });
        dpc.queue();
    });
    assert!(outcome.deadlock().is_some(), "{outcome}");
}
