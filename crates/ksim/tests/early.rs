//! Timers and timeouts that expire while something else could act.

use ksim::explore::{Exploration, Explore, Strategy};
use ksim::{Machine, explore};
use ksync_sys::*;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::sync::Mutex as HostMutex;
use test_support::*;

fn search(early: u32) -> Explore {
    explore().machine(Machine::new().processors(3).early_expiries(early).check_lock_order(false))
}

/// All that is seen in all schedules.
fn seen<T: Ord + Send>(explore: &Explore, program: impl Fn() -> T + Sync) -> (Vec<T>, Exploration) {
    let seen = HostMutex::new(BTreeSet::new());
    let exploration = explore.clone().check(|| {
        let value = program();
        seen.lock().unwrap().insert(value);
    });
    exploration.expect_clean();
    (seen.into_inner().unwrap().into_iter().collect(), exploration)
}

/// A wait with a timeout, and a thread that ends it.
fn timed_wait() -> NTSTATUS {
    let (event, status) = (Event::notification(), Cell::new(-1));
    let waiter = || status.set(wait_until(event.object(), -MS));
    join_all([spawn(waiter), spawn(|| _ = event.set())]);
    status.get()
}

#[test]
fn a_timeout_may_end_before_another_thread_acts() {
    for strategy in [Strategy::Exhaustive, Strategy::Portfolio, Strategy::Bounded { preemptions: 2 }] {
        assert_eq!(seen(&search(0).strategy(strategy), timed_wait).0, [STATUS_SUCCESS], "{strategy:?}");
        let (both, exploration) = seen(&search(1).strategy(strategy), timed_wait);
        assert_eq!(both, [STATUS_SUCCESS, STATUS_TIMEOUT], "{strategy:?}: {exploration}");
    }
}

/// A sleep is no promise that another thread has come somewhere meanwhile.
#[test]
fn sleeping_orders_nothing() {
    let program = || {
        let (ready, seen) = (Event::notification(), Cell::new(-1));
        let sleeper = || {
            sleep(1_000 * MS);
            seen.set(ready.state());
        };
        join_all([spawn(sleeper), spawn(|| _ = ready.set())]);
        assert_eq!(seen.get(), 1, "one second was too short");
    };
    for strategy in [Strategy::Exhaustive, Strategy::Portfolio] {
        search(0).strategy(strategy).check(program).expect_clean();
        let exploration = search(1).strategy(strategy).check(program);
        let failure = exploration.expect_failure();
        assert!(failure.outcome.panic().is_some_and(|panic| panic.message.contains("too short")), "{failure}");
        let again = search(1).replay(&failure.token, program).unwrap();
        assert_eq!(again.expect_failure().outcome.trace(), failure.outcome.trace());
        assert!(search(0).replay(&failure.token, program).is_err(), "other settings make other choices");
    }
}

/// What is due first expires first, however early.
#[test]
fn the_order_of_timers_stays() {
    let program = || {
        let (timers, log) = ([Timer::synchronization(), Timer::synchronization()], RefCell::new(String::new()));
        timers[0].set_with(-MS, 0, std::ptr::null_mut());
        timers[1].set_with(-2 * MS, 0, std::ptr::null_mut());
        let look = || {
            for _ in 0..2 {
                log.borrow_mut().push(if timers[1].state() { 'b' } else { '-' });
                log.borrow_mut().push(if timers[0].state() { 'a' } else { '-' });
            }
        };
        join_all([spawn(look)]);
        timers.iter().for_each(|timer| _ = timer.cancel());
        log.into_inner()
    };
    let (logs, _) = seen(&search(2).strategy(Strategy::Exhaustive), program);
    // The second is looked at first: where it is seen, the first one is.
    assert!(logs.iter().all(|log| !log.contains("b-")), "{logs:?}");
    for log in ["----", "---a", "-a-a", "-aba", "baba", "--ba"] {
        assert!(logs.iter().any(|seen| seen == log), "{log}: {logs:?}");
    }
    assert_eq!(logs.len(), 6, "{logs:?}");
}

/// A timer's DPC runs before, between and after two operations of a thread.
#[test]
fn dpcs_of_timers_run_at_any_time() {
    let program = || {
        let (timer, event) = (Timer::notification(), Event::notification());
        let dpc = Dpc::new(|| _ = event.set());
        timer.set_with(-MS, 0, dpc.ptr());
        let states = [event.state(), event.state()];
        timer.cancel();
        flush_dpcs();
        (states, event.state())
    };
    let (all, _) = seen(&search(1).strategy(Strategy::Exhaustive), program);
    assert_eq!(all, [([0, 0], 0), ([0, 0], 1), ([0, 1], 1), ([1, 1], 1)]);
}

/// Where there are no timers, there is nothing more to search.
#[test]
fn programs_without_timers_are_exhausted_as_before() {
    for (turns, orders) in [(1, 2), (2, 6), (3, 20)] {
        let exploration = search(3).strategy(Strategy::Exhaustive).check(|| {
            let lock = Mutex::new();
            let turn = || {
                for _ in 0..turns {
                    wait(lock.object());
                    lock.release();
                }
            };
            join_all([spawn(turn), spawn(turn)]);
        });
        exploration.expect_clean();
        assert_eq!(exploration.executions(), orders);
    }
}

/// A periodic timer could expire for ever: the bound ends it.
#[test]
fn expiries_are_bounded() {
    let program = || {
        let timer = Timer::synchronization();
        timer.set_with(-MS, 1, std::ptr::null_mut());
        let number = Cell::new(0);
        for _ in 0..6 {
            number.set(number.get() + u32::from(poll(timer.object()) == STATUS_SUCCESS));
        }
        timer.cancel();
        number.get()
    };
    for early in 0..3 {
        let (numbers, exploration) = seen(&search(early).strategy(Strategy::Exhaustive), program);
        assert!(exploration.is_exhausted());
        assert_eq!(numbers, (0..=early).collect::<Vec<_>>());
    }
}

/// What is independent of each other comes before a timeout in every combination, and a search that knows nothing of independence sees the same.
#[test]
fn a_timeout_ends_after_any_part_of_what_is_independent() {
    let sleeper = || {
        let events = [Event::notification(), Event::notification()];
        let states = Cell::new((0, 0));
        let look = || {
            sleep(MS);
            states.set((events[0].state(), events[1].state()));
        };
        let [first, second] = events.each_ref();
        join_all([spawn(look), spawn(|| _ = first.set()), spawn(|| _ = second.set())]);
        states.get()
    };
    let two_waits = || {
        let (event, done) = (Event::synchronization(), RefCell::new((0, 0)));
        let first = || done.borrow_mut().0 = wait_until(event.object(), -MS);
        let second = || done.borrow_mut().1 = wait_until(event.object(), -2 * MS);
        join_all([spawn(first), spawn(second), spawn(|| _ = event.set())]);
        done.into_inner()
    };
    for (program, preemptions, number) in [(&sleeper as &(dyn Fn() -> (i32, i32) + Sync), 2, 4), (&two_waits, 1, 2)] {
        let machine = Machine::new().processors(4).early_expiries(1);
        let search = explore().machine(machine);
        let (exhaustive, exploration) = seen(&search.clone().strategy(Strategy::Exhaustive), program);
        let (bounded, _) = seen(&search.strategy(Strategy::Bounded { preemptions }), program);
        assert_eq!(exhaustive, bounded, "{exploration}");
        assert_eq!(exhaustive.len(), number, "{exhaustive:?}");
    }
}
