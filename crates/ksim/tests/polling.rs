//! Loops that poll end: whoever they wait for has its turn, also on one processor, and a loop that nothing can end is a deadlock.

use ksim::explore::Strategy;
use ksim::{End, Machine, explore};
use ksync_sys::*;
use std::cell::Cell;
use test_support::*;

/// True when the event is signaled.
fn is_set(event: &Event) -> bool {
    raw!(KeReadStateEvent(event.ptr())) != 0
}

const STRATEGIES: [Strategy; 7] = [
    Strategy::Portfolio,
    Strategy::Random,
    Strategy::Urw,
    Strategy::Pos,
    Strategy::Pct { depth: 2 },
    Strategy::RoundRobin,
    Strategy::Bounded { preemptions: 1 },
];

#[test]
fn a_loop_that_reads_the_state_of_an_event_ends() {
    for processors in [1, 2, 3] {
        for strategy in STRATEGIES {
            let machine = Machine::new().processors(processors).step_limit(20_000);
            let search = explore().machine(machine).strategy(strategy).schedules(50).progress(false);
            search
                .check(|| {
                    let (first, second) = (Event::notification(), Event::notification());
                    let one = spawn(|| {
                        while !is_set(&first) {}
                        second.set();
                    });
                    let other = spawn(|| {
                        first.set();
                        while !is_set(&second) {
                            raw!(KeStallExecutionProcessor(1));
                        }
                    });
                    join_all([one, other]);
                })
                .expect_clean();
        }
    }
}

#[test]
fn every_order_of_polls_and_a_set_is_searched() {
    let exploration = explore().processors(3).strategy(Strategy::Exhaustive).progress(false).check(|| {
        let event = Event::notification();
        let poller = spawn(|| while !is_set(&event) {});
        event.set();
        join_all([poller]);
    });
    assert!(exploration.is_exhausted(), "{exploration}");
    // The set comes before the first poll, or after one of those that are made before the loop is taken for one that waits.
    assert!((2..60).contains(&exploration.executions()), "{exploration}");
}

#[test]
fn two_loops_that_poll_the_same_do_not_multiply() {
    let exploration = explore().processors(4).strategy(Strategy::Exhaustive).progress(false).check(|| {
        let event = Event::notification();
        let pollers = [(); 2].map(|()| spawn(|| while !is_set(&event) {}));
        event.set();
        join_all(pollers);
    });
    assert!(exploration.is_exhausted() && exploration.executions() < 2_000, "{exploration}");
}

#[test]
fn a_timer_that_is_polled_expires() {
    for processors in [1, 2] {
        let outcome = Machine::new().processors(processors).step_limit(20_000).run(|| {
            let timer = Timer::notification();
            timer.set(-10 * MS);
            while raw!(KeReadStateTimer(timer.ptr())) == 0 {}
        });
        outcome.expect_clean();
    }
}

#[test]
fn a_dpc_that_ends_a_loop_runs() {
    let outcome = Machine::new().processors(1).step_limit(20_000).run(|| {
        let event = Event::notification();
        let dpc = Dpc::new(|| _ = event.set());
        let timer = Timer::notification();
        timer.set_with(-10 * MS, 0, dpc.ptr());
        while !is_set(&event) {}
    });
    outcome.expect_clean();
}

#[test]
fn a_loop_that_stalls_leaves_the_processor() {
    let outcome = Machine::new().processors(1).step_limit(20_000).run(|| {
        let done = Cell::new(false);
        let other = spawn(|| done.set(true));
        while !done.get() {
            raw!(KeStallExecutionProcessor(10));
        }
        join_all([other]);
    });
    outcome.expect_clean();
}

#[test]
fn a_loop_that_polls_under_a_lock_leaves_the_processor() {
    for processors in [1, 2] {
        let outcome = Machine::new().processors(processors).step_limit(200_000).run(|| {
            let (done, lock) = (Cell::new(0), SpinLock::new());
            let others = [(); 4].map(|()| spawn(|| lock.with(|| done.set(done.get() + 1))));
            while lock.with(|| done.get()) < 4 {}
            join_all(others);
        });
        outcome.expect_clean();
    }
}

#[test]
fn a_loop_that_nothing_ends_is_a_deadlock() {
    for processors in [1, 2] {
        let outcome = Machine::new().processors(processors).run(|| {
            let never = Event::notification();
            while !is_set(&never) {}
        });
        assert!(matches!(outcome.end(), End::Deadlock(_)), "{outcome}");
        assert!(outcome.to_string().contains("(spinning) waits for event #"), "{outcome}");
    }
}

#[test]
fn a_state_that_changes_is_read_as_often_as_one_likes() {
    let outcome = Machine::new().processors(2).run(|| {
        let event = Event::notification();
        for turn in 0..1_000 {
            // Another operation between two reads.
            if turn % 2 == 0 {
                _ = event.set()
            } else {
                raw!(KeClearEvent(event.ptr()))
            }
            assert_eq!(is_set(&event), turn % 2 == 0);
        }
        // No more than a loop would have.
        assert!((0..8).all(|_| !is_set(&event)));
    });
    outcome.expect_clean();
}
