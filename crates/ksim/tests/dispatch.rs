//! Which thread runs where and when: priorities, preemption, affinity, quanta, DPCs and the clock.

use ksim::{ClockMode, Machine};
use ksync_sys::*;
use std::cell::{Cell, RefCell};
use std::ptr::null_mut;
use test_support::*;

#[test]
fn highest_priority_runs_first() {
    for seed in 0..20 {
        Machine::new()
            .seed(seed)
            .run(|| {
                let log = Log::default();
                let old = set_own_priority(31);
                assert_eq!(old, 8);
                let threads: Vec<_> = [5, 12, 8, 30, 1, 16]
                    .into_iter()
                    .map(|priority| {
                        let log = &log;
                        let thread = spawn(move || log.push(priority));
                        assert_eq!(thread.set_priority(priority), 8);
                        assert_eq!(thread.priority(), priority);
                        thread
                    })
                    .collect();
                assert_eq!(log.len(), 0, "nothing outranks us");
                set_own_priority(8);
                join_all(threads);
                assert_eq!(log.take(), ["30", "16", "12", "8", "5", "1"]);
            })
            .expect_clean();
    }
}

#[test]
fn raising_a_priority_preempts_at_once() {
    for seed in 0..20 {
        Machine::new()
            .seed(seed)
            .run(|| {
                let log = Log::default();
                let old = set_own_priority(10);
                let thread = spawn(|| log.push("other"));
                assert_eq!(log.len(), 0);
                thread.set_priority(11);
                log.push("first");
                thread.join();
                assert_eq!(log.take(), ["other", "first"]);
                set_own_priority(old);
            })
            .expect_clean();
    }
}

#[test]
fn lowering_the_own_priority_lets_others_in() {
    run(|| {
        let log = Log::default();
        set_own_priority(10);
        let thread = spawn(|| log.push("other"));
        log.push("before");
        set_own_priority(7);
        log.push("after");
        thread.join();
        assert_eq!(log.take(), ["before", "other", "after"]);
    });
}

#[test]
fn nothing_preempts_at_dispatch_level() {
    for seed in 0..20 {
        Machine::new()
            .seed(seed)
            .run(|| {
                let log = Log::default();
                let event = Event::synchronization();
                let thread = spawn(|| {
                    set_own_priority(20);
                    wait(event.object());
                    log.push("other");
                });
                settle();
                let old = raise(DISPATCH_LEVEL);
                event.set();
                for _ in 0..20 {
                    raw!(KeStallExecutionProcessor(1));
                }
                log.push("first");
                lower(old);
                log.push("second");
                thread.join();
                assert_eq!(log.take(), ["first", "other", "second"]);
            })
            .expect_clean();
    }
}

#[test]
fn spin_lock_holder_is_not_preempted() {
    run(|| {
        let (lock, log, event) = (SpinLock::new(), Log::default(), Event::synchronization());
        let thread = spawn(|| {
            set_own_priority(20);
            wait(event.object());
            lock.with(|| log.push("other"));
        });
        settle();
        lock.with(|| {
            event.set();
            log.push("holder");
        });
        thread.join();
        assert_eq!(log.take(), ["holder", "other"]);
    });
}

#[test]
fn preempted_thread_is_first_of_its_priority_again() {
    run(|| {
        let (log, event) = (Log::default(), Event::synchronization());
        let high = spawn(|| {
            set_own_priority(20);
            wait(event.object());
            log.push("high");
        });
        settle();
        set_own_priority(15);
        let peer = spawn(|| log.push("peer"));
        peer.set_priority(14);
        event.set();
        log.push("main");
        peer.join();
        high.join();
        assert_eq!(log.take(), ["high", "main", "peer"]);
        set_own_priority(8);
    });
}

#[test]
fn threads_of_one_priority_share_a_processor() {
    // Neither thread blocks: only the end of its quantum lets the other run.
    for seed in 0..10 {
        Machine::new()
            .seed(seed)
            .run(|| {
                let flags = [Cell::new(false), Cell::new(false)];
                let threads: Vec<_> = (0..2)
                    .map(|index| {
                        let flags = &flags;
                        spawn(move || {
                            flags[index].set(true);
                            while !flags[1 - index].get() {
                                raw!(KeStallExecutionProcessor(1));
                            }
                        })
                    })
                    .collect();
                join_all(threads);
            })
            .expect_clean();
    }
}

#[test]
fn lower_priority_starves_while_a_higher_one_spins() {
    let outcome = Machine::new().step_limit(50_000).run(|| {
        let flag = Cell::new(false);
        set_own_priority(12);
        let thread = spawn(|| flag.set(true));
        while !flag.get() {
            raw!(KeStallExecutionProcessor(1));
        }
        thread.join();
    });
    assert!(matches!(outcome.end(), ksim::End::StepLimit(_)), "{outcome}");
}

#[test]
fn boost_decays_with_the_quanta() {
    let outcome = Machine::new().run(|| {
        let (event, peer_ran) = (Event::synchronization(), Cell::new(false));
        let boosted = spawn(|| {
            wait(event.object());
            assert_eq!(own_priority(), 12);
            // It spins until the peer of its base priority has run, which takes as many quanta as it was boosted by.
            while !peer_ran.get() {
                raw!(KeStallExecutionProcessor(1));
            }
            assert_eq!(own_priority(), 8);
        });
        settle();
        let peer = spawn(|| peer_ran.set(true));
        event.set_boosting(4);
        join_all([boosted, peer]);
    });
    outcome.expect_clean();
}

#[test]
fn yield_lets_a_peer_run() {
    run(|| {
        assert_eq!(raw!(ZwYieldExecution()), STATUS_NO_YIELD_PERFORMED);
        let ran = Cell::new(false);
        let thread = spawn(|| ran.set(true));
        if !ran.get() {
            assert_eq!(raw!(ZwYieldExecution()), STATUS_SUCCESS);
        }
        assert!(ran.get());
        thread.join();
    });
}

#[test]
fn base_priority() {
    run(|| {
        let me: *mut KTHREAD = current_thread().cast();
        assert_eq!(raw!(KeSetBasePriorityThread(me, 2)), 0);
        assert_eq!(own_priority(), 10);
        assert_eq!(raw!(KeSetBasePriorityThread(me, 100)), 2);
        assert_eq!(own_priority(), 15);
        assert_eq!(raw!(KeSetBasePriorityThread(me, -100)), 7);
        assert_eq!(own_priority(), 1);
        raw!(KeSetBasePriorityThread(me, 0));
        assert_eq!(own_priority(), 8);
    });
}

#[test]
fn affinity_moves_and_keeps_threads() {
    for seed in 0..20 {
        Machine::new()
            .processors(4)
            .seed(seed)
            .run(|| {
                let event = Event::notification();
                let threads: Vec<_> = (0..8)
                    .map(|index: u32| {
                        let event = &event;
                        spawn(move || {
                            let wanted = index % 4;
                            assert_eq!(raw!(KeSetSystemAffinityThreadEx(1 << wanted)), 0);
                            for turn in 0..5 {
                                assert_eq!(processor(), wanted);
                                if turn == 2 {
                                    wait(event.object());
                                }
                                raw!(KeStallExecutionProcessor(1));
                            }
                            assert_eq!(raw!(KeSetSystemAffinityThreadEx(0b11)), 1 << wanted);
                            assert!(processor() < 2);
                            raw!(KeRevertToUserAffinityThreadEx(0));
                        })
                    })
                    .collect();
                sleep(MS);
                event.set();
                join_all(threads);
            })
            .expect_clean();
    }
}

#[test]
fn affinity_to_no_processor_changes_nothing() {
    Machine::new()
        .processors(2)
        .run(|| {
            raw!(KeSetSystemAffinityThreadEx(0b10));
            assert_eq!(processor(), 1);
            assert_eq!(raw!(KeSetSystemAffinityThreadEx(0b1100)), 0);
            assert_eq!(processor(), 1);
            let group = GROUP_AFFINITY { Mask: 1, Group: 0, Reserved: [0; 3] };
            let mut before = group;
            raw!(KeSetSystemGroupAffinityThread(&group, &mut before));
            assert_eq!((processor(), before.Mask), (0, 0b10));
            raw!(KeRevertToUserGroupAffinityThread(&before));
            assert_eq!(processor(), 1);
            raw!(KeRevertToUserAffinityThreadEx(0));
        })
        .expect_clean();
}

#[test]
fn threads_use_all_processors() {
    for processors in [2, 5, 64] {
        let used = RefCell::new(vec![0_u32; usize::from(processors)]);
        for seed in 0..10 {
            let outcome = Machine::new().processors(processors).seed(seed).run(|| {
                let event = Event::notification();
                let threads: Vec<_> = (0..processors)
                    .map(|_| {
                        spawn(|| {
                            wait(event.object());
                            used.borrow_mut()[processor() as usize] += 1;
                            raw!(KeStallExecutionProcessor(1));
                        })
                    })
                    .collect();
                settle();
                event.set();
                join_all(threads);
            });
            outcome.expect_clean();
        }
        // The main thread stays on its processor until it waits.
        assert!(used.borrow()[1..].iter().all(|&count| count > 0), "{used:?}");
    }
}

#[test]
fn thread_that_ends_wakes_one_that_outranks_it() {
    explore(|| {
        let log = Log::default();
        set_own_priority(12);
        let low = spawn(|| log.push("low"));
        low.set_priority(3);
        let never = spawn(|| log.push("lower"));
        never.set_priority(2);
        low.join();
        log.push("main");
        never.join();
        let log = log.take();
        assert_eq!(log.len(), 3);
        assert!(log[0] == "low" || log[0] == "lower");
        set_own_priority(8);
    });
}

#[test]
fn thread_that_waits_lets_in_one_that_outranks_it() {
    // A queue's thread that blocks elsewhere wakes another one, of a higher priority.
    explore(|| {
        let (queue, event, log) = (Queue::new(1), Event::notification(), Log::default());
        let entries: [Place<LIST_ENTRY>; 2] = [Place::zeroed(), Place::zeroed()];
        let server = |priority: i32| {
            let (queue, event, log) = (&queue, &event, &log);
            let thread = spawn(move || {
                set_own_priority(priority);
                queue.remove();
                log.push(priority);
                wait(event.object());
                log.push("woken");
            });
            settle();
            thread
        };
        let threads = [server(20), server(5)];
        for entry in &entries {
            queue.insert(entry);
        }
        settle();
        assert_eq!(log.take(), ["5", "20"]);
        event.set();
        join_all(threads);
    });
}

#[test]
fn release_that_wakes_one_that_outranks_keeps_the_levels_apart() {
    // The woken thread takes over within the release, which has a level to restore or to leave raised.
    run(|| {
        let (mutex, log) = (FastMutex::new(), Log::default());
        let high = spawn(|| {
            sleep(MS);
            mutex.acquire();
            assert_eq!(irql(), APC_LEVEL);
            log.push("high");
            mutex.release();
            assert_eq!(irql(), PASSIVE_LEVEL);
        });
        high.set_priority(20);
        mutex.acquire();
        sleep(2 * MS);
        mutex.release();
        assert_eq!(irql(), PASSIVE_LEVEL);
        assert_eq!(log.take(), ["high"]);
        high.join();
    });
    run(|| {
        let (event, other, log) = (Event::synchronization(), Event::new(NotificationEvent, true), Log::default());
        let high = spawn(|| {
            wait(event.object());
            assert_eq!(irql(), PASSIVE_LEVEL);
            log.push("high");
        });
        high.set_priority(20);
        raw!(KeSetEvent(event.ptr(), 0, TRUE));
        assert_eq!((irql(), log.len()), (DISPATCH_LEVEL, 0));
        wait(other.object());
        assert_eq!((irql(), log.len()), (PASSIVE_LEVEL, 1));
        high.join();
    });
}

#[test]
fn queue_thread_that_comes_back_wakes_one_that_outranks_it() {
    explore(|| {
        let (queue, log) = (Queue::new(1), Log::default());
        let entries: Vec<Place<LIST_ENTRY>> = (0..6).map(|_| Place::zeroed()).collect();
        let threads: Vec<_> = [5, 20, 12]
            .into_iter()
            .map(|priority| {
                let (queue, log) = (&queue, &log);
                let thread = spawn(move || {
                    set_own_priority(priority);
                    for _ in 0..2 {
                        queue.remove();
                        log.push(priority);
                        sleep(MS);
                    }
                });
                settle();
                thread
            })
            .collect();
        for entry in &entries {
            queue.insert(entry);
        }
        join_all(threads);
        assert_eq!(log.len(), 6);
    });
}

#[test]
fn lowering_a_thread_that_runs_elsewhere_lets_others_in() {
    for seed in 0..20 {
        Machine::new()
            .processors(2)
            .seed(seed)
            .run(|| {
                set_own_priority(20);
                let (running, done) = (Cell::new(false), Cell::new(false));
                let hog = spawn(|| {
                    set_own_priority(15);
                    running.set(true);
                    while !done.get() {
                        raw!(KeStallExecutionProcessor(1));
                    }
                });
                while !running.get() {
                    raw!(KeStallExecutionProcessor(1));
                }
                let other = spawn(|| done.set(true));
                for _ in 0..50 {
                    raw!(KeStallExecutionProcessor(1));
                }
                assert!(!done.get());
                hog.set_priority(4);
                for _ in 0..200 {
                    raw!(KeStallExecutionProcessor(1));
                }
                assert!(done.get());
                set_own_priority(8);
                join_all([hog, other]);
            })
            .expect_clean();
    }
}

#[test]
fn freed_processor_takes_the_ready_thread_it_may_run() {
    for seed in 0..20 {
        Machine::new()
            .processors(2)
            .seed(seed)
            .run(|| {
                // The high-priority thread may run on processor 1 only, which is busy at DISPATCH_LEVEL.
                let (busy, stop, log) = (Cell::new(false), Cell::new(false), Log::default());
                let holder = spawn(|| {
                    raw!(KeSetSystemAffinityThreadEx(2));
                    at(DISPATCH_LEVEL, || {
                        busy.set(true);
                        while !stop.get() {
                            raw!(KeStallExecutionProcessor(1));
                        }
                    });
                    log.push("holder");
                });
                raw!(KeSetSystemAffinityThreadEx(1));
                while !busy.get() {
                    raw!(KeStallExecutionProcessor(1));
                }
                let pinned = spawn(|| {
                    set_own_priority(20);
                    raw!(KeSetSystemAffinityThreadEx(2));
                    assert_eq!(processor(), 1);
                    log.push("pinned");
                });
                for _ in 0..100 {
                    raw!(KeStallExecutionProcessor(1));
                }
                stop.set(true);
                join_all([holder, pinned]);
                assert_eq!(log.take(), ["pinned", "holder"]);
            })
            .expect_clean();
    }
}

#[test]
fn woken_thread_takes_an_idle_processor() {
    let overlapped = (0..30).any(|seed| {
        let (overlapped, inside) = (Cell::new(false), Cell::new(0));
        let outcome = Machine::new().processors(2).seed(seed).run(|| {
            let work = || {
                inside.set(inside.get() + 1);
                for _ in 0..10 {
                    raw!(KeStallExecutionProcessor(1));
                    overlapped.set(overlapped.get() || inside.get() == 2);
                }
                inside.set(inside.get() - 1);
            };
            join_all([spawn(work), spawn(work)]);
        });
        outcome.expect_clean();
        overlapped.get()
    });
    assert!(overlapped);
}

#[test]
fn dpcs_interrupt_threads_not_other_dpcs() {
    for seed in 0..20 {
        Machine::new()
            .seed(seed)
            .run(|| {
                let log = Log::default();
                let second = Dpc::new(|| log.push("second")).importance(HighImportance);
                let first = Dpc::new(|| {
                    log.push("first");
                    second.queue();
                    raw!(KeStallExecutionProcessor(1));
                    log.push("first ends");
                });
                first.queue();
                log.push("thread");
                assert_eq!(log.take(), ["first", "first ends", "second", "thread"]);
            })
            .expect_clean();
    }
}

#[test]
fn thread_readied_by_a_dpc_runs_after_it() {
    for seed in 0..20 {
        Machine::new()
            .seed(seed)
            .run(|| {
                let (log, event) = (Log::default(), Event::synchronization());
                let thread = spawn(|| {
                    set_own_priority(20);
                    wait(event.object());
                    log.push("thread");
                });
                settle();
                let dpc = Dpc::new(|| {
                    event.set();
                    raw!(KeStallExecutionProcessor(1));
                    log.push("dpc");
                });
                dpc.queue();
                log.push("main");
                thread.join();
                assert_eq!(log.take(), ["dpc", "thread", "main"]);
            })
            .expect_clean();
    }
}

#[test]
fn interrupted_thread_stays_until_the_dpc_is_over() {
    for seed in 0..20 {
        Machine::new()
            .processors(2)
            .seed(seed)
            .run(|| {
                let (event, me, in_region) = (Event::synchronization(), current_thread(), Cell::new(false));
                let high = spawn(|| {
                    set_own_priority(20);
                    raw!(KeSetSystemAffinityThreadEx(1));
                    wait(event.object());
                });
                settle();
                let dpc = Dpc::new(|| {
                    event.set();
                    for _ in 0..50 {
                        raw!(KeStallExecutionProcessor(1));
                        assert_eq!(current_thread(), me);
                        assert!(!in_region.get(), "it cannot run elsewhere meanwhile");
                    }
                });
                raw!(KeSetSystemAffinityThreadEx(1));
                raw!(KeRevertToUserAffinityThreadEx(0));
                if processor() == 0 {
                    dpc.queue();
                }
                raw!(KeEnterCriticalRegion());
                in_region.set(true);
                event.set();
                high.join();
                raw!(KeLeaveCriticalRegion());
            })
            .expect_clean();
    }
}

#[test]
fn dpc_sees_the_interrupted_thread() {
    run(|| {
        let seen = Cell::new(null_mut());
        let dpc = Dpc::new(|| seen.set(current_thread()));
        dpc.queue();
        assert_eq!(seen.get(), current_thread());
    });
}

#[test]
fn clock_jumps_when_idle_and_stands_still_otherwise() {
    run(|| {
        let start = now();
        for _ in 0..50 {
            Event::notification().set();
        }
        assert_eq!(now(), start);
        sleep(3600 * SECOND);
        assert_eq!(now() - start, 3600 * SECOND);
        raw!(KeStallExecutionProcessor(50));
        assert_eq!(now() - start, 3600 * SECOND + 500);
        let mut frequency = 0;
        let counter = raw!(KeQueryPerformanceCounter(&mut frequency));
        assert_eq!((counter, frequency), (now(), 10_000_000));
    });
}

#[test]
fn sleepers_wake_in_order_of_time() {
    for clock in [ClockMode::Exact, ClockMode::DEFAULT_TICK] {
        for processors in [1, 3] {
            Machine::new()
                .processors(processors)
                .clock(clock)
                .run(|| {
                    let log = Log::default();
                    let threads: Vec<_> = [500, 100, 300, 400, 200]
                        .into_iter()
                        .map(|milliseconds| {
                            let log = &log;
                            spawn(move || {
                                sleep(milliseconds * MS);
                                log.push(milliseconds);
                            })
                        })
                        .collect();
                    join_all(threads);
                    assert_eq!(log.take(), ["100", "200", "300", "400", "500"]);
                })
                .expect_clean();
        }
    }
}

#[test]
fn stall_lets_timers_expire_on_other_processors() {
    let outcome = Machine::new().processors(2).run(|| {
        let ran = Cell::new(false);
        let dpc = Dpc::new(|| ran.set(true));
        let timer = Timer::notification();
        timer.set_with(-10 * MS, 0, dpc.ptr());
        for _ in 0..20 {
            raw!(KeStallExecutionProcessor(1000));
        }
        assert!(ran.get());
    });
    outcome.expect_clean();
}
