//! Dispatcher objects and waits: rules 1 to 20.

use crate::common::*;
use ksim::Machine;
use ksync_sys::*;
use std::cell::Cell;
use std::ptr::null_mut;

/// Starts threads that wait on an object one after another, so that they are in its list in this order.
fn waiters(count: usize, log: &Log, object: PVOID) -> Vec<Thread> {
    (0..count)
        .map(|index| {
            let thread = spawn(move || {
                assert_eq!(wait(object), STATUS_SUCCESS);
                log.push(index);
            });
            settle();
            thread
        })
        .collect()
}

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
                        seen.set(own_priority());
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
        assert_eq!(semaphore.release(0), 2);
    });
}

#[test]
fn rule_06_release_past_the_limit_raises() {
    // Nobody can catch the exception, so that the count that stays is that of a machine that has stopped.
    let limit_exceeded = STATUS_SEMAPHORE_LIMIT_EXCEEDED as u32 as u64;
    for (count, limit, adjustment) in [(0, 1, 2), (1, 1, 1), (i32::MAX, i32::MAX, 1), (5, i32::MAX, i32::MAX), (1, 2, -1)] {
        let place = Place::<KSEMAPHORE>::zeroed();
        let stop = crash(0x1e, || {
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
    let free = crash(0x1e, || {
        Mutex::new().release();
    });
    assert_eq!(free.parameters[0], not_owned);
    let others = crash(0x1e, || {
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
    let stop = crash(0x1e, || {
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
    let stop = crash(0x1e, || {
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
    let at_dispatch = crash(0x1e, || {
        let mutex = Mutex::new();
        at(DISPATCH_LEVEL, || poll(mutex.object()));
        mutex.release();
    });
    let below = crash(0x1e, || {
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

#[test]
fn rule_20_remove_returns_an_entry_or_a_status() {
    explore(|| {
        let queue = Queue::new(0);
        let status = |entry: *mut LIST_ENTRY| entry as usize as i32;
        assert_eq!(status(queue.remove_within(0)), STATUS_TIMEOUT);
        let start = now();
        assert_eq!(status(queue.remove_within(3 * MS)), STATUS_TIMEOUT);
        assert_eq!(now() - start, 3 * MS);
        let (one, two) = (Place::zeroed(), Place::zeroed());
        assert_eq!(queue.insert(&one), 0);
        assert_eq!(raw!(KeInsertHeadQueue(queue.ptr(), two.ptr())), 1);
        assert_eq!(raw!(KeReadStateQueue(queue.ptr())), 2);
        assert_eq!(queue.remove_within(0), two.ptr());
        assert_eq!(queue.remove(), one.ptr());
        assert_eq!(raw!(KeReadStateQueue(queue.ptr())), 0);
    });
}

#[test]
fn rule_20_at_most_so_many_threads_are_active() {
    explore_on(&[4], || {
        let (queue, busy, log) = (Queue::new(2), Event::notification(), Log::default());
        let entries: Vec<Place<LIST_ENTRY>> = (0..4).map(|_| Place::zeroed()).collect();
        for entry in &entries {
            queue.insert(entry);
        }
        let active = Cell::new(0);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                spawn(|| {
                    queue.remove();
                    active.set(active.get() + 1);
                    assert!(active.get() <= 2);
                    for _ in 0..20 {
                        raw!(KeStallExecutionProcessor(1));
                    }
                    active.set(active.get() - 1);
                    log.push("served");
                    // A thread that blocks elsewhere lets another in.
                    wait(busy.object());
                })
            })
            .collect();
        sleep(SECOND);
        assert_eq!(log.len(), 4);
        busy.set();
        join_all(threads);
    });
}

#[test]
fn rule_20_zero_is_the_number_of_processors() {
    for processors in [1, 4] {
        Machine::new()
            .processors(processors)
            .run(|| assert_eq!(Queue::new(0).read().MaximumCount, u32::from(processors)))
            .expect_clean();
    }
}

#[test]
fn rule_20_rundown_abandons_waits_and_returns_the_entries() {
    explore(|| {
        let queue = Queue::new(4);
        let threads: Vec<_> = (0..3).map(|_| spawn(|| assert_eq!(queue.remove() as usize as i32, STATUS_ABANDONED))).collect();
        settle();
        assert!(raw!(KeRundownQueue(queue.ptr())).is_null());
        join_all(threads);
        let queue = Queue::new(4);
        let (one, two) = (Place::zeroed(), Place::zeroed());
        queue.insert(&one);
        queue.insert(&two);
        let first = raw!(KeRundownQueue(queue.ptr()));
        assert_eq!(first, one.ptr());
        assert_eq!(raw!((*first).Flink), two.ptr());
        assert_eq!(two.read().Flink, one.ptr());
    });
}

#[test]
fn rule_20_kernel_apc_interrupts_a_remove() {
    explore(|| {
        let (queue, entry, inner) = (Queue::new(1), Place::zeroed(), Event::notification());
        let thread = spawn(|| assert_eq!(queue.remove(), entry.ptr()));
        settle();
        let apc = Apc::special(thread.object(), || assert_eq!(wait_until(inner.object(), -MS), STATUS_TIMEOUT));
        apc.insert();
        sleep(2 * MS);
        queue.insert(&entry);
        thread.join();
    });
}

#[test]
fn rule_20_entry_inserted_twice_is_a_bug_check() {
    let entry = Place::<LIST_ENTRY>::zeroed();
    let stop = crash(0x96, || {
        let queue = Queue::new(1);
        queue.insert(&entry);
        queue.insert(&entry);
    });
    assert_eq!(stop.parameters[1], entry.object() as u64);
}
