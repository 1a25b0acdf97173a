//! The same seed gives the same bytes, whatever else runs and ran.

use ksim::schedule::{Decision, Pct, Policy};
use ksim::{ClockMode, Machine};
use ksync_sys::*;
use std::cell::Cell;
use std::rc::Rc;
use test_support::*;

/// A program that does something of everything, with races.
fn program() {
    let (event, semaphore, mutex) = (Event::synchronization(), Semaphore::new(0, 1000), Mutex::new());
    let (spin, fast, queued) = (SpinLock::new(), FastMutex::new(), SpinLock::new());
    let (expiries, count) = (Cell::new(0), Cell::new(0));
    let dpc = Dpc::new(|| {
        expiries.set(expiries.get() + 1);
        raw!(KeReleaseSemaphore(semaphore.ptr(), 1, 1, FALSE));
    });
    let timer = Timer::synchronization();
    timer.set_with(-MS, 1, dpc.ptr());
    let threads: Vec<_> = (0..6_usize)
        .map(|index| {
            let (event, semaphore, mutex) = (&event, &semaphore, &mutex);
            let (spin, fast, queued, count) = (&spin, &fast, &queued, &count);
            spawn(move || {
                for turn in 0..6 {
                    match (index + turn) % 6 {
                        0 => {
                            wait(mutex.object());
                            count.set(count.get() + 1);
                            mutex.release();
                        }
                        1 => spin.with(|| count.set(count.get() + 1)),
                        2 => {
                            fast.acquire();
                            event.set();
                            fast.release();
                        }
                        3 => {
                            let handle = QueueHandle::new();
                            handle.acquire(queued);
                            handle.release();
                            wait_until(event.object(), -MS / 2);
                        }
                        4 => {
                            wait_any(&[semaphore.object(), event.object()]);
                            sleep(index as i64 * 100);
                        }
                        _ => {
                            let memory = allocate(64 + index);
                            raw!(KeInitializeEvent(memory.cast(), NotificationEvent, TRUE));
                            wait(memory);
                            free(memory);
                            let own = Dpc::new(|| {});
                            own.queue();
                            flush_dpcs();
                        }
                    }
                }
                raw!(DbgPrint(c"thread %d ends after %d\n".as_ptr(), index as i32, count.get()));
            })
        })
        .collect();
    join_all(threads);
    timer.cancel();
    flush_dpcs();
}

fn machine(processors: u8, seed: u64) -> Machine {
    Machine::new().processors(processors).seed(seed)
}

fn bytes(machine: &Machine) -> (Vec<u8>, Vec<String>, ksim::Statistics) {
    let outcome = machine.run(program).expect_clean();
    (outcome.trace(), outcome.debug_output().to_vec(), outcome.statistics())
}

/// Something else, to disturb what is pooled and reused from run to run.
fn disturb(seed: u64) {
    let outcome = machine(1 + (seed % 7) as u8, seed).run(|| {
        let blocks: Vec<_> = (0..seed % 50).map(|size| allocate(8 + size as usize * 24)).collect();
        let threads: Vec<_> = (0..seed % 20).map(|_| spawn(|| drop(Event::notification()))).collect();
        join_all(threads);
        blocks.into_iter().rev().for_each(free);
        if seed.is_multiple_of(3) {
            // All that a machine can have under way when it stops.
            let (timer, never, lock) = (Timer::synchronization(), Event::notification(), SpinLock::new());
            let dpc = Dpc::new(|| {});
            timer.set_with(-MS, 3, dpc.ptr());
            let _waiting: Vec<_> = (0..3).map(|_| spawn(|| _ = wait_until(never.object(), -1000 * MS))).collect();
            let _owning = spawn(|| {
                wait(Mutex::new().object());
                raw!(KeEnterGuardedRegion());
                sleep(1000 * MS);
            });
            sleep(2 * MS);
            raw!(KeSetSystemAffinityThreadEx(1));
            lock.acquire();
            dpc.queue();
            raw!(KeBugCheck(0xe2));
        }
        assert!(seed % 3 != 1, "a panic");
    });
    assert_eq!(outcome.is_completed(), seed % 3 == 2);
}

#[test]
fn same_seed_same_bytes() {
    for processors in [1, 2, 3, 8, 64] {
        for seed in 0..6 {
            let machine = machine(processors, seed);
            assert!(bytes(&machine) == bytes(&machine), "{processors} processors, seed {seed}");
        }
    }
}

#[test]
fn with_other_runs_in_between() {
    let machine = machine(4, 3);
    let first = bytes(&machine);
    let mut kept = Vec::new();
    for seed in 0..30 {
        disturb(seed);
        kept.push(vec![0_u8; 100 + seed as usize * 40]);
        assert!(bytes(&machine) == first, "after {seed}");
    }
}

#[test]
fn one_machine_and_four_side_by_side() {
    let traces = || (0..5).map(|seed| bytes(&machine(4, seed))).collect::<Vec<_>>();
    let alone = traces();
    let threads: Vec<_> = (0..4)
        .map(|index| {
            std::thread::spawn(move || {
                disturb(index);
                traces()
            })
        })
        .collect();
    for thread in threads {
        assert!(thread.join().expect("no panic outside machines") == alone);
    }
}

#[test]
fn every_number_of_processors() {
    for processors in 1..=64 {
        let machine = machine(processors, 1);
        assert!(bytes(&machine) == bytes(&machine), "{processors} processors");
    }
}

#[test]
fn different_seeds_differ() {
    for processors in [1, 2, 4] {
        let mut traces: Vec<_> = (0..20).map(|seed| bytes(&machine(processors, seed)).0).collect();
        traces.sort();
        traces.dedup();
        assert!(traces.len() > 15, "{} different traces of 20 on {processors} processors", traces.len());
    }
}

#[test]
fn failed_runs_are_the_same_too() {
    let run = |seed: u64| {
        let outcome = machine(4, seed).run(|| {
            let lock = SpinLock::new();
            let _running: Vec<_> = (0..4)
                .map(|_| {
                    spawn(|| {
                        for _ in 0..10 {
                            lock.with(|| {});
                        }
                        lock.acquire();
                    })
                })
                .collect();
            sleep(MS);
            lock.acquire();
            lock.acquire();
        });
        let report = (outcome.trace(), outcome.bug_check().map(|stop| (stop.code, stop.thread, stop.processor)));
        assert!(!outcome.is_completed());
        report
    };
    for seed in 0..20 {
        assert!(run(seed) == run(seed), "seed {seed}");
    }
}

#[test]
fn deadlocks_are_the_same_too() {
    let run = |seed: u64| {
        machine(3, seed)
            .check_lock_order(false)
            .run(|| {
                let mutexes: Vec<_> = (0..3).map(|_| Mutex::new()).collect();
                let threads: Vec<_> = (0..3)
                    .map(|index| {
                        let mutexes = &mutexes;
                        spawn(move || {
                            wait(mutexes[index].object());
                            sleep(MS);
                            wait(mutexes[(index + 1) % 3].object());
                        })
                    })
                    .collect();
                join_all(threads);
            })
            .to_string()
    };
    for seed in 0..10 {
        let report = run(seed);
        assert!(report.contains("cycle"), "{report}");
        assert_eq!(report, run(seed));
    }
}

#[test]
fn clock_modes_are_deterministic() {
    for clock in [ClockMode::Exact, ClockMode::DEFAULT_TICK, ClockMode::Tick(5_000)] {
        let machine = machine(4, 9).clock(clock);
        assert!(bytes(&machine) == bytes(&machine), "{clock:?}");
    }
}

#[test]
fn trace_has_no_addresses() {
    let trace = String::from_utf8(machine(2, 0).run(program).expect_clean().trace()).expect("the trace is text");
    let pointer = |word: &str| word.len() > 14 && word.starts_with("0x") && word != "0xffffffffffffffff";
    for line in trace.lines() {
        // Relative times are negative, and look like large numbers.
        let last = line.split(' ').next_back().unwrap_or_default();
        assert!(!pointer(last) || last.starts_with("0xffffffffff"), "{line}");
    }
    assert!(trace.lines().count() > 100);
}

#[test]
fn a_program_that_does_the_same_each_time_is_run_twice() {
    for seed in 0..5 {
        let machine = Machine::new().processors(3).seed(seed);
        assert_eq!(machine.run_twice(program).trace(), machine.run(program).trace());
    }
}

#[test]
#[should_panic(expected = "not deterministic: line")]
fn a_program_that_does_something_else_is_noticed() {
    let runs = Cell::new(0);
    let _ = Machine::new().run_twice(|| {
        runs.set(runs.get() + 1);
        let event = Event::notification();
        if runs.get() == 2 {
            event.set();
        }
    });
}

#[test]
#[should_panic(expected = "not deterministic: one run ended")]
fn a_program_that_ends_otherwise_is_noticed() {
    let runs = Cell::new(0);
    let _ = Machine::new().run_twice(|| {
        runs.set(runs.get() + 1);
        panic!("run {}", runs.get());
    });
}

/// A policy that counts what it is asked, and may want to be asked everything.
#[derive(Debug)]
struct Counting<P> {
    policy: P,
    asked: Rc<Cell<u64>>,
    repeats: bool,
}

impl<P: Policy> Policy for Counting<P> {
    fn choose(&mut self, decision: &Decision<'_>) -> u32 {
        self.asked.set(self.asked.get() + 1);
        let choice = self.policy.choose(decision);
        if !self.repeats {
            decision.repeat(0);
        }
        choice
    }
}

#[test]
fn a_policy_need_not_be_asked_what_it_would_repeat() {
    let mut asked = [0; 2];
    for (seed, depth) in (0..200).zip([1, 2, 3, 20].into_iter().cycle()) {
        let mut run = |repeats: bool| {
            let count = Rc::new(Cell::new(0));
            let policy = Counting { policy: Pct::new(seed, depth, 400), asked: Rc::clone(&count), repeats };
            let machine = machine(1 + (seed % 8) as u8, 0);
            let outcome = machine.run_with_policy(Box::new(policy), program).expect_clean();
            asked[usize::from(repeats)] += count.get();
            (outcome.trace(), outcome.statistics())
        };
        let (with, without) = (run(true), run(false));
        assert!(with == without, "seed {seed}, depth {depth}");
    }
    let [all, fewer] = asked;
    assert!(fewer * 4 < all * 3, "asked {fewer} times, without repeats {all}");
}

#[test]
fn a_context_that_goes_on_for_very_long_is_repeated_no_longer() {
    let run = |repeats: bool| {
        let count = Rc::new(Cell::new(0));
        let policy = Counting { policy: Pct::new(1, 1, 1), asked: Rc::clone(&count), repeats };
        let outcome = machine(3, 0).run_with_policy(Box::new(policy), || {
            let (done, lock) = (Event::notification(), Mutex::new());
            let busy: Vec<_> = (0..2)
                .map(|_| {
                    spawn(|| {
                        while raw!(KeReadStateEvent(done.ptr())) == 0 {
                            wait(lock.object());
                            lock.release();
                        }
                    })
                })
                .collect();
            done.set();
            join_all(busy);
        });
        (outcome.expect_clean().trace(), count.get())
    };
    let ((with, fewer), (without, all)) = (run(true), run(false));
    assert!(with == without);
    assert!(all > 4_000 && fewer * 10 < all, "asked {fewer} times, without repeats {all}");
}
