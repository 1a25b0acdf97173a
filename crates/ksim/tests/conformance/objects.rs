//! Events, semaphores, mutexes and other dispatcher objects: rules 1 to 12.

use ksim::Machine;
use ksync_sys::*;
use std::cell::Cell;
use test_support::*;

#[test]
fn rule_01_notification_event_satisfies_every_wait_and_stays_signaled() {
    explore(|| {
        let (event, log) = (Event::notification(), Log::default());
        let threads = waiters(5, &log, event.object());
        assert_eq!(log.len(), 0);
        assert_eq!(event.set(), 0);
        join_all(threads);
        assert_eq!(log.len(), 5);
        assert_eq!(event.state(), 1);
        assert_eq!(poll(event.object()), STATUS_SUCCESS);
        assert_eq!(event.state(), 1);
    });
}

#[test]
fn rule_01_synchronization_event_satisfies_one_wait() {
    explore(|| {
        let (event, log) = (Event::synchronization(), Log::default());
        let threads = waiters(3, &log, event.object());
        for woken in 1..=3 {
            assert_eq!(event.set(), 0);
            settle();
            assert_eq!(log.len(), woken);
            assert_eq!(event.state(), 0);
        }
        join_all(threads);
        assert_eq!(event.set(), 0);
        assert_eq!(event.set(), 1);
        assert_eq!(poll(event.object()), STATUS_SUCCESS);
        assert_eq!(poll(event.object()), STATUS_TIMEOUT);
    });
}

#[test]
fn rule_01_previous_state_is_the_stored_long() {
    run(|| {
        let event = Event::notification();
        raw!((&raw mut (*event.ptr()).Header.SignalState).write(0x1234_5678));
        assert_eq!(event.state(), 0x1234_5678);
        assert_eq!(event.set(), 0x1234_5678);
        assert_eq!(event.set(), 1);
        raw!((&raw mut (*event.ptr()).Header.SignalState).write(0x1234_5678));
        assert_eq!(event.reset(), 0x1234_5678);
        assert_eq!(event.state(), 0);
    });
}

#[test]
fn rule_01_initialised_header() {
    run(|| {
        let event = Event::new(SynchronizationEvent, true);
        let header = event.read().Header;
        assert_eq!(i32::from(header.Type), EventSynchronizationObject);
        assert_eq!(usize::from(header.Size), size_of::<KEVENT>() / 4);
        assert_eq!(header.SignalState, 1);
        let head = raw!(&raw mut (*event.ptr()).Header.WaitListHead);
        assert_eq!((header.WaitListHead.Flink, header.WaitListHead.Blink), (head, head));
    });
}

#[test]
fn rule_02_pulse_satisfies_the_waits_that_are_there() {
    explore(|| {
        let (event, log) = (Event::notification(), Log::default());
        let threads = waiters(3, &log, event.object());
        assert_eq!(event.pulse(), 0);
        join_all(threads);
        assert_eq!((log.len(), event.state()), (3, 0));
        assert_eq!(event.pulse(), 0);
        assert_eq!(poll(event.object()), STATUS_TIMEOUT);

        let (event, log) = (Event::synchronization(), Log::default());
        let threads = waiters(2, &log, event.object());
        for woken in 1..=2 {
            event.pulse();
            settle();
            assert_eq!((log.len(), event.state()), (woken, 0));
        }
        join_all(threads);
        event.set();
        assert_eq!(event.pulse(), 1);
        assert_eq!(event.state(), 0);
    });
}

#[test]
fn rule_02_thread_inside_a_kernel_apc_misses_the_pulse() {
    explore(|| {
        let (event, inside, leave) = (Event::notification(), Event::synchronization(), Event::synchronization());
        let log = Log::default();
        let thread = spawn(|| {
            assert_eq!(wait(event.object()), STATUS_SUCCESS);
            log.push("woken");
        });
        settle();
        let apc = Apc::special(thread.object(), || {
            inside.set();
            assert_eq!(wait(leave.object()), STATUS_SUCCESS);
        });
        assert!(apc.insert());
        assert_eq!(wait(inside.object()), STATUS_SUCCESS);
        event.pulse();
        leave.set();
        settle();
        assert_eq!(log.len(), 0, "the pulse came while the thread was not in its wait");
        event.pulse();
        thread.join();
        assert_eq!(log.len(), 1);
    });
}

#[test]
fn rule_03_wait_next_keeps_the_level_raised_until_the_wait() {
    run(|| {
        let (one, two) = (Event::synchronization(), Event::new(NotificationEvent, true));
        let semaphore = Semaphore::new(0, 10);
        let mutex = Mutex::new();
        let check = |before: KIRQL, release: &dyn Fn()| {
            let old = raise(before);
            release();
            assert_eq!(irql(), DISPATCH_LEVEL);
            assert_eq!(wait(two.object()), STATUS_SUCCESS);
            assert_eq!(irql(), before);
            lower(old);
        };
        for level in [PASSIVE_LEVEL, APC_LEVEL] {
            check(level, &|| assert_eq!(raw!(KeSetEvent(one.ptr(), 0, TRUE)), 0));
            check(level, &|| assert_eq!(raw!(KePulseEvent(one.ptr(), 0, TRUE)), 1));
            wait(mutex.object());
            check(level, &|| assert_eq!(raw!(KeReleaseMutex(mutex.ptr(), TRUE)), 0));
        }
        check(PASSIVE_LEVEL, &|| assert_eq!(raw!(KeReleaseSemaphore(semaphore.ptr(), 0, 1, TRUE)), 0));
    });
}

#[test]
fn rule_03_the_wait_that_follows_may_block_or_name_several_objects() {
    explore(|| {
        let (ping, pong) = (Event::synchronization(), Event::synchronization());
        let thread = spawn(|| {
            for _ in 0..5 {
                assert_eq!(wait(ping.object()), STATUS_SUCCESS);
                pong.set();
            }
        });
        for turn in 0..5 {
            raw!(KeSetEvent(ping.ptr(), 0, TRUE));
            let status = if turn % 2 == 0 { wait(pong.object()) } else { wait_any(&[thread.object(), pong.object()]) };
            assert_eq!((status, irql()), (turn % 2, PASSIVE_LEVEL));
        }
        thread.join();
    });
}

#[test]
fn rule_03_the_pair_is_atomic_on_one_processor_only() {
    let missed = |processors: u8, seed: u64| {
        let missed = Cell::new(false);
        let outcome = Machine::new().processors(processors).seed(seed).run(|| {
            let (go, pulsed) = (Event::synchronization(), Event::synchronization());
            let thread = spawn(|| {
                wait(go.object());
                pulsed.pulse();
            });
            settle();
            raw!(KeSetEvent(go.ptr(), 0, TRUE));
            missed.set(wait_until(pulsed.object(), -MS) == STATUS_TIMEOUT);
            thread.join();
        });
        outcome.expect_clean();
        missed.get()
    };
    assert!((0..40).all(|seed| !missed(1, seed)));
    let on_two: Vec<_> = (0..40).map(|seed| missed(2, seed)).collect();
    assert!(on_two.contains(&true) && on_two.contains(&false), "{on_two:?}");
}

#[test]
fn rule_04_waiters_are_served_first_come_first_served() {
    explore(|| {
        let log = Log::default();
        let event = Event::synchronization();
        let threads = waiters(6, &log, event.object());
        for _ in 0..6 {
            event.set();
            settle();
        }
        join_all(threads);
        let semaphore = Semaphore::new(0, 10);
        let threads = waiters(6, &log, semaphore.object());
        for _ in 0..6 {
            semaphore.release(1);
            settle();
        }
        join_all(threads);
        let mutex = Mutex::mutant(true);
        let threads: Vec<_> = (0..6)
            .map(|index| {
                let (mutex, log) = (&mutex, &log);
                let thread = spawn(move || {
                    wait(mutex.object());
                    log.push(index);
                    mutex.release();
                });
                settle();
                thread
            })
            .collect();
        mutex.release();
        join_all(threads);
        let log = log.take();
        assert_eq!(log[..6], ["0", "1", "2", "3", "4", "5"]);
        assert_eq!(log[6..12], log[..6]);
        assert_eq!(log[12..], log[..6]);
    });
}

#[test]
fn rule_04_the_true_wait_list_is_in_order() {
    run(|| {
        let (event, log) = (Event::synchronization(), Log::default());
        let threads = waiters(4, &log, event.object());
        let head = raw!(&raw mut (*event.ptr()).Header.WaitListHead);
        let (mut forward, mut backward) = (vec![], vec![]);
        let mut entry = raw!((*head).Flink);
        while entry != head {
            let block = entry.cast::<KWAIT_BLOCK>();
            forward.push(raw!((*block).Thread) as PVOID);
            assert_eq!(raw!((*block).Object), event.object());
            assert_eq!(i32::from(raw!((*block).WaitType)), WaitAny);
            entry = raw!((*entry).Flink);
        }
        let mut entry = raw!((*head).Blink);
        while entry != head {
            backward.insert(0, raw!((*entry.cast::<KWAIT_BLOCK>()).Thread) as PVOID);
            entry = raw!((*entry).Blink);
        }
        let expected: Vec<_> = threads.iter().map(Thread::object).collect();
        assert_eq!(forward, expected);
        assert_eq!(backward, expected);
        for _ in 0..4 {
            event.set();
            settle();
        }
        assert_eq!(raw!((*head).Flink), head);
        assert_eq!(raw!((*head).Blink), head);
        join_all(threads);
    });
}

#[test]
fn rule_04_wait_broken_by_a_kernel_apc_goes_to_the_tail() {
    explore(|| {
        let (event, log) = (Event::synchronization(), Log::default());
        let threads = waiters(3, &log, event.object());
        let apc = Apc::special(threads[0].object(), || log.push("apc"));
        apc.insert();
        settle();
        for _ in 0..3 {
            event.set();
            settle();
        }
        join_all(threads);
        assert_eq!(log.take(), ["apc", "1", "2", "0"]);
    });
}

#[test]
fn rule_04_queue_serves_threads_last_in_first_out_and_entries_first_in_first_out() {
    explore(|| {
        let (queue, log) = (Queue::new(8), Log::default());
        let entries: Vec<Place<LIST_ENTRY>> = (0..3).map(|_| Place::zeroed()).collect();
        let threads: Vec<_> = (0..3)
            .map(|index| {
                let (queue, log, entries) = (&queue, &log, &entries);
                let thread = spawn(move || {
                    let entry = queue.remove();
                    let number = entries.iter().position(|known| known.ptr() == entry).expect("an entry of ours");
                    log.push(format!("thread {index} entry {number}"));
                });
                settle();
                thread
            })
            .collect();
        for entry in &entries {
            queue.insert(entry);
            settle();
        }
        join_all(threads);
        assert_eq!(log.take(), ["thread 2 entry 0", "thread 1 entry 1", "thread 0 entry 2"]);
        for entry in &entries {
            queue.insert(entry);
        }
        for entry in &entries {
            assert_eq!(queue.remove(), entry.ptr());
        }
    });
}

#[test]
fn rule_05_woken_thread_is_boosted() {
    for (increment, expected) in [(0, 8), (1, 9), (2, 10), (6, 14), (7, 15), (8, 15), (100, 15)] {
        for seed in 0..5 {
            Machine::new()
                .seed(seed)
                .run(|| {
                    let (event, seen) = (Event::synchronization(), Cell::new(0));
                    let thread = spawn(|| {
                        wait(event.object());
                        // Before its quantum can end, which takes from the boost.
                        seen.set(at(DISPATCH_LEVEL, own_priority));
                    });
                    settle();
                    event.set_boosting(increment);
                    thread.join();
                    assert_eq!(seen.get(), expected, "increment {increment}");
                })
                .expect_clean();
        }
    }
}

#[test]
fn rule_05_realtime_threads_are_not_boosted() {
    run(|| {
        let (event, seen) = (Event::synchronization(), Cell::new(0));
        let thread = spawn(|| {
            set_own_priority(20);
            wait(event.object());
            seen.set(own_priority());
        });
        settle();
        event.set_boosting(5);
        thread.join();
        assert_eq!(seen.get(), 20);
    });
}

#[test]
fn rule_05_boosted_thread_preempts_the_setter() {
    let order = |increment: i32, seed: u64| {
        let log = Log::default();
        let outcome = Machine::new().seed(seed).run(|| {
            let event = Event::synchronization();
            let thread = spawn(|| {
                wait(event.object());
                log.push("woken");
            });
            settle();
            event.set_boosting(increment);
            log.push("setter");
            thread.join();
        });
        outcome.expect_clean();
        log.take()
    };
    for seed in 0..40 {
        assert_eq!(order(1, seed), ["woken", "setter"]);
    }
    // Without an increment either may run first; an explicit yield lets us see the other order.
    assert!((0..40).any(|seed| order(0, seed) == ["setter", "woken"]));
}

#[test]
fn rule_05_no_preemption_at_dispatch_level() {
    run(|| {
        let (event, log) = (Event::synchronization(), Log::default());
        let thread = spawn(|| {
            wait(event.object());
            log.push("woken");
        });
        settle();
        at(DISPATCH_LEVEL, || {
            event.set_boosting(7);
            log.push("setter");
        });
        log.push("lowered");
        thread.join();
        assert_eq!(log.take(), ["setter", "woken", "lowered"]);
    });
}

#[test]
fn rule_06_semaphore_counts() {
    explore(|| {
        let semaphore = Semaphore::new(1, 5);
        assert_eq!(semaphore.read().Limit, 5);
        assert_eq!(semaphore.release(2), 1);
        assert_eq!(semaphore.state(), 3);
        for _ in 0..3 {
            assert_eq!(poll(semaphore.object()), STATUS_SUCCESS);
        }
        assert_eq!(poll(semaphore.object()), STATUS_TIMEOUT);
        let log = Log::default();
        let threads = waiters(4, &log, semaphore.object());
        assert_eq!(semaphore.release(3), 0);
        settle();
        assert_eq!((log.len(), semaphore.state()), (3, 0));
        assert_eq!(semaphore.release(3), 0);
        join_all(threads);
        assert_eq!((log.len(), semaphore.state()), (4, 2));
    });
}

#[test]
fn rule_06_release_past_the_limit_raises() {
    // Nobody can catch the exception, so that the count that stays is that of a machine that has stopped.
    let limit_exceeded = STATUS_SEMAPHORE_LIMIT_EXCEEDED as u32 as u64;
    for (count, limit, adjustment) in [(0, 1, 2), (1, 1, 1), (i32::MAX, i32::MAX, 1), (5, i32::MAX, i32::MAX), (1, 2, -1)] {
        let place = Place::<KSEMAPHORE>::zeroed();
        let stop = crash(0x7e, || {
            raw!(KeInitializeSemaphore(place.ptr(), count, limit));
            raw!(KeReleaseSemaphore(place.ptr(), 0, adjustment, FALSE));
        });
        assert_eq!(stop.parameters[0], limit_exceeded);
        assert_eq!(place.read().Header.SignalState, count);
    }
}

#[test]
fn rule_07_mutex_states_and_previous_states() {
    explore(|| {
        let mutex = Mutex::new();
        assert_eq!(mutex.state(), 1);
        for depth in 0..10 {
            assert_eq!(wait(mutex.object()), STATUS_SUCCESS);
            assert_eq!(mutex.state(), -depth);
            assert_eq!(mutex.read().OwnerThread as PVOID, current_thread());
        }
        for previous in -9..=0 {
            assert_eq!(mutex.release(), previous);
        }
        assert_eq!(mutex.state(), 1);
        assert!(mutex.read().OwnerThread.is_null());
    });
}

#[test]
fn rule_07_mutex_excludes() {
    explore(|| {
        let (mutex, inside) = (Mutex::new(), Cell::new(0));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                spawn(|| {
                    for _ in 0..10 {
                        wait(mutex.object());
                        inside.set(inside.get() + 1);
                        irql();
                        assert_eq!(poll(current_thread()), STATUS_TIMEOUT);
                        assert_eq!(inside.get(), 1);
                        inside.set(0);
                        mutex.release();
                    }
                })
            })
            .collect();
        join_all(threads);
        assert_eq!(mutex.state(), 1);
    });
}

#[test]
fn rule_08_release_by_another_thread_raises() {
    // The DDI page writes STATUS_MUTEX_NOT_OWNED; the status that systems raise is STATUS_MUTANT_NOT_OWNED.
    let not_owned = STATUS_MUTANT_NOT_OWNED as u32 as u64;
    let free = crash(0x7e, || {
        Mutex::new().release();
    });
    assert_eq!(free.parameters[0], not_owned);
    let others = crash(0x7e, || {
        let mutex = Mutex::new();
        wait(mutex.object());
        spawn(|| {
            mutex.release();
        })
        .join();
    });
    assert_eq!(others.parameters[0], not_owned);
}

#[test]
fn rule_08_release_of_an_abandoned_mutant_raises_abandoned() {
    let stop = crash(0x7e, || {
        let mutant = Mutex::mutant(false);
        spawn(|| {
            wait(mutant.object());
        })
        .join();
        mutant.release();
    });
    assert_eq!(stop.parameters[0], STATUS_ABANDONED as u32 as u64);
}

#[test]
fn rule_08_recursion_beyond_the_last_state_raises_from_the_wait() {
    let last = Cell::new(0);
    let stop = crash(0x7e, || {
        let mutex = Mutex::new();
        wait(mutex.object());
        raw!((&raw mut (*mutex.ptr()).Header.SignalState).write(i32::MIN + 1));
        wait(mutex.object());
        last.set(mutex.state());
        wait(mutex.object());
    });
    assert_eq!(last.get(), i32::MIN);
    assert_eq!(stop.parameters[0], STATUS_MUTANT_LIMIT_EXCEEDED as u32 as u64);
    assert_eq!(stop.routine, Some("KeWaitForSingleObject"));
}

#[test]
fn rule_09_mutex_is_released_at_the_kind_of_level_it_was_acquired_at() {
    run(|| {
        let mutex = Mutex::new();
        let old = raise(DISPATCH_LEVEL);
        assert_eq!(poll(mutex.object()), STATUS_SUCCESS);
        assert_eq!(mutex.release(), 0);
        lower(old);
    });
    let at_dispatch = crash(0x7e, || {
        let mutex = Mutex::new();
        at(DISPATCH_LEVEL, || poll(mutex.object()));
        mutex.release();
    });
    let below = crash(0x7e, || {
        let mutex = Mutex::new();
        wait(mutex.object());
        at(DISPATCH_LEVEL, || mutex.release());
    });
    for stop in [at_dispatch, below] {
        assert_eq!(stop.parameters[0], STATUS_MUTANT_NOT_OWNED as u32 as u64);
    }
}

#[test]
fn rule_10_owning_a_mutex_disables_normal_kernel_apcs_once() {
    run(|| {
        leave_start_region();
        let disabled = || raw!(KeAreApcsDisabled()) != 0;
        let (mutex, second) = (Mutex::new(), Mutex::new());
        assert_eq!((mutex.read().ApcDisable, disabled()), (1, false));
        wait(mutex.object());
        assert!(disabled());
        wait(mutex.object());
        wait(second.object());
        mutex.release();
        assert!(disabled());
        mutex.release();
        assert!(disabled(), "the second mutex is still owned");
        second.release();
        assert!(!disabled());
        let mutant = Mutex::mutant(true);
        assert_eq!((mutant.read().ApcDisable, disabled()), (0, false));
        mutant.release();
        enter_start_region();
    });
}

#[test]
fn rule_10_level_of_a_mutex_is_ignored() {
    run(|| {
        let (low, high) = (Place::<KMUTANT>::zeroed(), Place::<KMUTANT>::zeroed());
        raw!(KeInitializeMutex(low.ptr(), 1));
        raw!(KeInitializeMutex(high.ptr(), 9));
        for objects in [[low.object(), high.object()], [high.object(), low.object()]] {
            for object in objects {
                assert_eq!(wait(object), STATUS_SUCCESS);
            }
            for object in objects {
                assert_eq!(raw!(KeReleaseMutex(object.cast(), FALSE)), 0);
            }
        }
    });
}

#[test]
fn rule_11_mutant_of_an_ended_thread_is_abandoned() {
    explore(|| {
        let (mutant, other, event) = (Mutex::mutant(false), Mutex::mutant(false), Event::notification());
        let owner = spawn(|| {
            wait(mutant.object());
            wait(mutant.object());
            wait(other.object());
            wait(event.object());
        });
        settle();
        let log = Log::default();
        let any = spawn(|| {
            let never = Event::notification();
            let status = wait_any(&[never.object(), mutant.object()]);
            log.push(status - STATUS_ABANDONED_WAIT_0);
            mutant.release();
        });
        settle();
        event.set();
        join_all([owner, any]);
        assert_eq!(log.take(), ["1"]);
        // The next owner is told once.
        assert_eq!(mutant.state(), 1);
        assert_eq!(poll(mutant.object()), STATUS_SUCCESS);
        mutant.release();
        assert_eq!(other.read().Abandoned & 1, 1);
        assert_eq!(wait_all(&[event.object(), other.object()]), STATUS_ABANDONED_WAIT_0);
        assert_eq!(other.read().Abandoned & 1, 0);
        other.release();
    });
}

#[test]
fn rule_11_thread_that_ends_with_a_mutex_is_a_bug_check() {
    let place = Place::<KMUTANT>::zeroed();
    let stop = crash(0x4000_008a, || {
        raw!(KeInitializeMutex(place.ptr(), 0));
        spawn(|| {
            wait(place.object());
        })
        .join();
    });
    assert_eq!(stop.parameters[1], place.object() as u64);
    assert_eq!(stop.name, "THREAD_TERMINATE_HELD_MUTEX");
}

#[test]
fn rule_12_threads_processes_and_timers_are_waitable() {
    explore(|| {
        let stay = Event::notification();
        let thread = spawn(|| {
            wait(stay.object());
        });
        assert_eq!(poll(thread.object()), STATUS_TIMEOUT);
        assert_eq!(poll(current_thread()), STATUS_TIMEOUT);
        assert_eq!(poll(raw!(PsGetCurrentProcess()).cast()), STATUS_TIMEOUT);
        stay.set();
        assert_eq!(wait(thread.object()), STATUS_SUCCESS);
        assert_eq!(wait(thread.object()), STATUS_SUCCESS, "an ended thread stays signaled");
        thread.join();
        let timer = Timer::notification();
        timer.set(-MS);
        assert_eq!(poll(timer.object()), STATUS_TIMEOUT);
        assert_eq!(wait(timer.object()), STATUS_SUCCESS);
    });
}
