//! Searches of schedules.

use ksim::explore::{Explore, Strategy, TokenError};
use ksim::{FaultKind, Machine, explore};
use std::cell::Cell;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use test_support::*;

/// Two threads that take two locks in opposite orders.
fn opposite_orders() {
    let (a, b) = (Mutex::new(), Mutex::new());
    let nest = |first: &Mutex, second: &Mutex| {
        wait(first.object());
        wait(second.object());
        second.release();
        first.release();
    };
    let threads = [spawn(|| nest(&a, &b)), spawn(|| nest(&b, &a))];
    join_all(threads);
}

/// The same in one order: every choice of the other can be made, and nothing fails.
fn same_order() {
    let (a, b) = (Mutex::new(), Mutex::new());
    let nest = || {
        wait(a.object());
        wait(b.object());
        b.release();
        a.release();
    };
    join_all([spawn(nest), spawn(nest)]);
}

/// Two threads that count under a lock.
fn count() {
    let (lock, count) = (FastMutex::new(), Cell::new(0));
    let turn = || {
        lock.acquire();
        count.set(count.get() + 1);
        lock.release();
    };
    join_all([spawn(turn), spawn(turn)]);
    assert_eq!(count.get(), 2);
}

/// Without the check of the order of locks, which finds in the first schedule what these searches are to look for.
fn two() -> Explore {
    explore().machine(Machine::new().processors(3).check_lock_order(false))
}

fn jobs(jobs: usize) -> NonZeroUsize {
    NonZeroUsize::new(jobs).unwrap()
}

#[test]
fn so_many_schedules_are_run_as_was_asked_for() {
    let runs = AtomicU64::new(0);
    let exploration = two().schedules(1234).check(|| {
        runs.fetch_add(1, Ordering::Relaxed);
        count();
    });
    exploration.expect_clean();
    assert_eq!(exploration.executions(), 1234);
    // The first is run a second time, to see that it repeats.
    assert_eq!(runs.into_inner(), 1235);
    assert!((2..1234).contains(&exploration.distinct()), "{exploration}");
}

#[test]
fn a_deadlock_is_found_and_its_token_repeats_it() {
    let exploration = two().check(opposite_orders);
    let failure = exploration.expect_failure();
    assert!(failure.outcome.deadlock().is_some(), "{failure}");
    let again = two().replay(&failure.token, opposite_orders).unwrap();
    assert_eq!(again.expect_failure().outcome.trace(), failure.outcome.trace());
    assert!(failure.outcome.trace_len() > 0);
    assert!(failure.to_string().contains(&format!("KSIM_REPLAY={}", failure.token)), "{failure}");
}

#[test]
fn what_is_found_does_not_depend_on_the_number_of_os_threads() {
    for seed in 0..20 {
        let found = |number| {
            let exploration = two().seed(seed).jobs(jobs(number)).check(opposite_orders);
            let failure = exploration.expect_failure();
            (failure.schedule, failure.token.clone())
        };
        assert_eq!(found(1), found(4), "seed {seed}");
    }
}

#[test]
fn the_parts_of_a_search_are_the_whole() {
    let whole = two().seed(3).check(opposite_orders);
    let parts = (0..4).filter_map(|part| two().seed(3).shard(part, 4).check(opposite_orders).failure().cloned());
    let lowest = parts.min_by_key(|failure| failure.schedule).unwrap();
    assert_eq!(lowest.schedule, whole.expect_failure().schedule);
    assert_eq!(lowest.token, whole.expect_failure().token);
    let schedules = |part| two().schedules(10).shard(part, 4).check(count).executions();
    assert_eq!((0..4).map(schedules).collect::<Vec<_>>(), [3, 3, 2, 2]);
}

#[test]
fn what_is_left_behind_is_a_failure() {
    let exploration = explore().check(|| _ = allocate(24));
    let failure = exploration.expect_failure();
    assert_eq!((failure.schedule, failure.outcome.left().pool_bytes()), (0, 24));
}

#[test]
fn damaged_and_foreign_tokens_are_told_apart() {
    let token = two().check(opposite_orders).expect_failure().token.clone();
    let error = |token: &str, explore: Explore, program: fn()| explore.replay(token, program).unwrap_err();
    assert_eq!(error("nonsense!", two(), opposite_orders), TokenError::Damaged);
    assert_eq!(error(&token[1..], two(), opposite_orders), TokenError::Damaged);
    assert_eq!(error(&token, two().processors(4), opposite_orders), TokenError::Settings);
    let differs = error(&token, two(), || ());
    assert!(matches!(differs, TokenError::Program { .. }), "{differs}");
    assert!(differs.to_string().contains("the run ended"), "{differs}");
}

#[test]
#[should_panic(expected = "is not deterministic")]
fn a_program_that_decides_by_itself_is_noticed() {
    let runs = AtomicU64::new(0);
    let _ = explore().check(|| {
        if runs.fetch_add(1, Ordering::Relaxed) == 0 {
            panic!("only once");
        }
    });
}

/// A program that completes is noticed too, where it differs from one run to the next.
#[test]
fn where_runs_differ_is_said() {
    for strategy in [Strategy::Portfolio, Strategy::Exhaustive, Strategy::Bounded { preemptions: 0 }] {
        let runs = AtomicU64::new(0);
        let search = || explore().processors(2).strategy(strategy).schedules(3);
        let program = || {
            let event = Event::notification();
            event.set();
            if runs.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
                event.reset()
            } else {
                event.set()
            };
        };
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| search().check(program))).unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.contains("is not deterministic: line ") && message.contains("of the trace"), "{strategy:?}: {message}");
        search().check_repetition(false).check(program).expect_clean();
    }
}

#[test]
#[should_panic(expected = "cannot be made from code that runs on a machine")]
fn a_search_is_not_made_on_a_machine() {
    let mut message = None;
    let _ = Machine::new().run(|| {
        let seen = std::panic::catch_unwind(|| explore().check(|| ()));
        message = seen.err().and_then(|payload| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    });
    panic!("{}", message.unwrap());
}

#[test]
fn time_limits_a_search() {
    let exploration = two().time(Duration::from_millis(50)).check(count);
    exploration.expect_clean();
    assert!(exploration.executions() > 0);
    assert!(exploration.elapsed() >= Duration::from_millis(50));
}

const STRATEGIES: [Strategy; 8] = [
    Strategy::Portfolio,
    Strategy::Random,
    Strategy::Urw,
    Strategy::Pos,
    Strategy::Pct { depth: 2 },
    Strategy::Pct { depth: 3 },
    Strategy::RoundRobin,
    Strategy::Bounded { preemptions: 1 },
];

#[test]
fn every_strategy_finds_a_deadlock_and_repeats_itself() {
    for strategy in STRATEGIES {
        let found = |number| {
            let exploration = two().strategy(strategy).jobs(jobs(number)).check(opposite_orders);
            let failure = exploration.expect_failure();
            assert!(failure.outcome.deadlock().is_some(), "{strategy:?}: {failure}");
            assert!(failure.schedule < 300, "{strategy:?}: {failure}");
            let again = two().replay(&failure.token, opposite_orders).unwrap();
            assert_eq!(again.expect_failure().outcome.trace(), failure.outcome.trace(), "{strategy:?}");
            (failure.schedule, failure.token.clone())
        };
        assert_eq!(found(1), found(3), "{strategy:?}");
    }
}

#[test]
fn every_strategy_searches_one_processor_too() {
    for strategy in STRATEGIES {
        let exploration = explore().machine(Machine::new().check_lock_order(false)).strategy(strategy).check(opposite_orders);
        assert!(exploration.expect_failure().outcome.deadlock().is_some(), "{strategy:?}");
    }
}

/// A reader that is too early only if the writer is late: nothing but the order of two operations behind many others.
#[test]
fn an_order_violation_behind_noise_is_found() {
    let program = || {
        let (noise, ready, value) = (Event::notification(), Event::notification(), Cell::new(0));
        let writer = || {
            value.set(1);
            ready.set();
        };
        let reader = || {
            for _ in 0..20 {
                noise.set();
            }
            assert!(ready.state() == 0 || value.get() == 1);
            assert_eq!(ready.state(), 1, "the reader was first");
        };
        join_all([spawn(reader), spawn(writer)]);
    };
    for seed in 0..10 {
        let exploration = two().seed(seed).check(program);
        let failure = exploration.expect_failure();
        assert!(failure.outcome.panic().is_some_and(|panic| panic.message.contains("the reader was first")), "{failure}");
    }
}

/// The deadlock needs one turn taken from a thread between its two locks, wherever it was found.
#[test]
fn failing_schedules_become_small() {
    for seed in 0..10 {
        for strategy in STRATEGIES {
            let search = two().seed(seed).strategy(strategy);
            let exploration = search.check(|| {
                let noise = Event::notification();
                let hum = || (0..10).for_each(|_| _ = noise.set());
                join_all([spawn(hum)]);
                opposite_orders();
            });
            let failure = exploration.expect_failure();
            assert!(failure.outcome.deadlock().is_some());
            assert_eq!(failure.preemptions, 1, "{strategy:?}: {failure}");
            assert!(failure.token.len() <= failure.found.len());
        }
    }
    let as_found = two().strategy(Strategy::Random).shrink(false).check(opposite_orders);
    assert_eq!(as_found.expect_failure().token, as_found.expect_failure().found);
}

/// What changes no choice before the failure leaves a token valid, and what does is noticed where it is.
#[test]
fn tokens_survive_what_does_not_matter() {
    let token = two().check(opposite_orders).expect_failure().token.clone();
    let edited = || {
        // Setting up differently, and doing more where nobody else is.
        let (spare, lock) = (Event::synchronization(), FastMutex::new());
        spare.set();
        lock.acquire();
        lock.release();
        opposite_orders();
    };
    let again = two().replay(&token, edited).unwrap();
    assert!(again.expect_failure().outcome.deadlock().is_some());
    let other = || {
        let lock = SpinLock::new();
        let turn = || lock.with(|| ());
        join_all([spawn(turn), spawn(turn)]);
    };
    let error = two().replay(&token, other).unwrap_err();
    assert!(matches!(error, TokenError::Program { .. }), "{error}");
}

/// The message of the panic that this ends in, and the file of the line that it names.
fn refusal(search: impl FnOnce() -> Explore) -> (String, String) {
    panic_of(|| _ = search())
}

fn panic_of(code: impl FnOnce()) -> (String, String) {
    thread_local!(static PLACE: Cell<Option<String>> = const { Cell::new(None) });
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PLACE.set(info.location().map(|location| location.file().to_owned()));
            previous(info);
        }));
    });
    let payload = std::panic::catch_unwind(std::panic::AssertUnwindSafe(code)).unwrap_err();
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let message = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap();
    (message, PLACE.take().unwrap())
}

#[test]
fn bad_settings_are_refused_where_they_are_made() {
    let refused = |search: fn() -> Explore, says: &str| {
        let (message, file) = refusal(search);
        assert!(message.contains(says), "{message}");
        assert_eq!(file, file!(), "{message}");
    };
    refused(|| explore().schedules(0), "a search of 0 schedules");
    refused(|| explore().strategy(Strategy::Pct { depth: 0 }), "the depth of PCT");
    refused(|| explore().processors(0), "1 to 64 processors");
    refused(|| explore().processors(65), "1 to 64 processors");
    refused(|| explore().machine(Machine::new().groups(&[1, 0])), "in groups of at least one");
    refused(|| explore().shard(3, 3), "there is no part 3 of 3");
}

#[test]
fn a_search_that_cannot_be_made_is_refused_where_it_is_made() {
    let (message, file) = panic_of(|| _ = explore().strategy(Strategy::Exhaustive).check(count));
    assert!(message.contains("cannot be searched to the end"), "{message}");
    assert_eq!(file, file!());
    let runs = AtomicU64::new(0);
    let program = || assert_ne!(runs.fetch_add(1, Ordering::Relaxed), 0, "only once");
    let (message, file) = panic_of(|| _ = explore().check(program));
    assert!(message.contains("is not deterministic"), "{message}");
    assert_eq!(file, file!());
}

#[test]
fn a_search_without_time_makes_a_run() {
    for strategy in [Strategy::Portfolio, Strategy::Exhaustive, Strategy::Bounded { preemptions: 1 }] {
        let exploration = two().strategy(strategy).time(Duration::ZERO).check(count);
        assert_eq!(exploration.executions(), 1, "{strategy:?}");
        assert!(!exploration.is_exhausted(), "{strategy:?}");
        assert!(two().strategy(strategy).time(Duration::MAX).schedules(2).check(count).failure().is_none(), "{strategy:?}");
    }
}

/// The time is one for all faults, and each has some of it.
#[test]
fn faults_share_the_time() {
    let tried = AtomicU64::new(0);
    let time = Duration::from_millis(400);
    let exploration = explore().time(time).faults([FaultKind::Allocation]).check(|| {
        for number in 0..20 {
            match allocate(8) {
                memory if memory.is_null() => _ = tried.fetch_or(1 << number, Ordering::Relaxed),
                memory => free(memory),
            }
        }
    });
    exploration.expect_clean();
    assert_eq!(tried.into_inner(), (1 << 20) - 1);
    assert!(exploration.elapsed() < time * 3, "{exploration}");
}

#[test]
fn a_token_of_another_program_is_told_apart() {
    let search = || two().program_name("this");
    let token = search().check(opposite_orders).expect_failure().token.clone();
    // What fails as it did may be called something else.
    assert!(two().program_name("other").replay(&token, opposite_orders).unwrap().failure().is_some());
    let error = two().program_name("other").replay(&token, same_order).unwrap_err();
    assert!(matches!(error, TokenError::Program { .. }), "{error}");
    assert!(error.to_string().contains("does not fail"), "{error}");
    search().replay(&token, same_order).unwrap().expect_clean();
    assert!(search().processors(4).replay(&token, same_order).unwrap_err().to_string().contains("processors"));
}

/// Who was about to do what, where, is what helps to find the edit.
#[test]
fn where_a_token_does_not_fit_is_said() {
    let search = || two().program_name("this");
    let token = search().check(opposite_orders).expect_failure().token.clone();
    let edited = || {
        let event = Event::notification();
        join_all([spawn(|| _ = event.set()), spawn(|| _ = event.reset())]);
        opposite_orders();
    };
    let error = search().replay(&token, edited).unwrap_err().to_string();
    println!("{error}");
    assert!(error.contains("was about to act") && error.contains("the token takes option"), "{error}");
    #[cfg(debug_assertions)]
    assert!(error.contains("test-support/src/lib.rs:"), "{error}");
}

#[test]
fn a_replay_has_no_number() {
    let exploration = two().check(opposite_orders);
    let token = &exploration.expect_failure().token;
    let again = two().replay(token, opposite_orders).unwrap();
    assert!(again.expect_failure().to_string().contains("found by the replayed schedule"), "{again}");
    assert!(!exploration.to_string().contains("replayed"), "{exploration}");
}

const CHILD: &str = "KSIM_TEST_CHILD";

/// What the next test runs with an environment of its own.
#[test]
fn searched_as_the_environment_says() {
    if std::env::var_os(CHILD).is_some() {
        two().program_name("this").check(same_order).expect_clean();
    }
}

#[test]
fn what_the_environment_leaves_nothing_of_is_said() {
    let says = |variables: &[(&str, &str)]| {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "searched_as_the_environment_says"]).env(CHILD, "1").envs(variables.iter().copied());
        let output = child.output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap())
    };
    let token = |name| two().program_name(name).check(opposite_orders).expect_failure().token.clone();
    let (passes, text) = says(&[(ksim::explore::REPLAY, &token("this"))]);
    assert!(passes && text.contains("the schedule of KSIM_REPLAY does not fail any more"), "{text}");
    let (passes, text) = says(&[(ksim::explore::REPLAY, &token("that"))]);
    assert!(!passes && text.contains("the token was made for another program"), "{text}");
    let (passes, text) = says(&[(ksim::explore::SCHEDULES, "1"), (ksim::explore::SHARD, "3/4")]);
    assert!(passes && text.contains("no schedule was run: none was left for part 3 of 4"), "{text}");
    assert_eq!(says(&[]).1.matches("ksim:").count(), 0);
}
