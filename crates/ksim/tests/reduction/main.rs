//! Random small programs: the exhaustive search, which leaves out schedules, sees all that the searches see which leave out none, and comes to its end.

mod dpcs;
mod irps;
mod lists;
mod locks;
mod polls;
mod pool;
mod priorities;
mod queues;
mod steps;
mod threaded;
mod threads;
mod waits;
mod work;

use ksim::explore::{Exploration, Strategy as Search};
use ksim::{Machine, explore};
use ksync_sys::atomic::{AtomicU32, Ordering};
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Mutex as HostMutex;
use test_support::*;

/// More executions than a program has classes.
const MOST: u64 = 50_000;
/// As many as those have that are searched beside others of more.
const SMALL: u64 = 3_000;
/// As many as those have whose runs load a driver, or create threads of the system's.
const LONG_RUNS: u64 = 200;
/// How many schedules are sampled by each strategy.
const SAMPLES: u64 = 400;

/// What a run is known by: what each step returned, and the state in the end.
type Seen = (Vec<Vec<i64>>, Vec<i64>);

/// Words that threads read and change.
#[derive(Default)]
struct Words([AtomicU32; 2]);

impl Words {
    fn load(&self, which: usize) -> i64 {
        self.0[which].load(Ordering::SeqCst).into()
    }

    fn store(&self, which: usize) -> i64 {
        self.0[which].store(1, Ordering::SeqCst);
        0
    }

    /// Changes a word by two operations.
    fn double(&self, which: usize) -> i64 {
        let value = self.0[which].load(Ordering::SeqCst);
        self.0[which].store(2 * value + 1, Ordering::SeqCst);
        value.into()
    }

    fn both(&self) -> Vec<i64> {
        vec![self.load(0), self.load(1)]
    }
}

/// Two threads of few steps, a third of which are about words.
fn two_threads<S: Clone + std::fmt::Debug + 'static>(
    word: BoxedStrategy<S>,
    step: BoxedStrategy<S>,
) -> impl Strategy<Value = Vec<Vec<S>>> {
    let step = prop_oneof![1 => word, 2 => step];
    prop_oneof![
        3 => prop::collection::vec(prop::collection::vec(step.clone(), 1..=2), 2),
        1 => prop::collection::vec(prop::collection::vec(step, 1..=3), 2),
    ]
}

/// Does something between two operations that nothing depends on. The beginning and the end of a thread depend on everything: right beside them, the orders of what
/// they are ordered with would be found whatever is known of it.
fn apart(code: impl FnOnce()) {
    let own = AtomicU32::new(0);
    own.load(Ordering::SeqCst);
    code();
    own.load(Ordering::SeqCst);
}

/// Has a thread perform each list of steps. Returns what the steps did.
fn perform<S: Copy>(program: &[Vec<S>], step: impl Fn(S, usize, usize) -> i64) -> Vec<Vec<i64>> {
    let results: Vec<RefCell<Vec<i64>>> = program.iter().map(|_| RefCell::default()).collect();
    let step = &step;
    let one = |(thread, (steps, results)): (usize, (_, _))| {
        let (steps, results): (&Vec<S>, &RefCell<Vec<i64>>) = (steps, results);
        spawn(move || {
            apart(|| {
                for (place, &each) in steps.iter().enumerate() {
                    let result = step(each, thread, place);
                    results.borrow_mut().push(result);
                }
            });
        })
    };
    let threads: Vec<_> = program.iter().zip(&results).enumerate().map(one).collect();
    join_all(threads);
    results.into_iter().map(RefCell::into_inner).collect()
}

/// A search, what its runs saw, and whether one ended in a deadlock.
fn search(
    threads: usize,
    run: &(dyn Fn() -> Seen + Sync),
    strategy: Search,
    most: u64,
    jobs: usize,
) -> (Exploration, BTreeSet<Seen>) {
    let seen = HostMutex::new(BTreeSet::new());
    let machine = Machine::new().processors(threads as u8 + 1).check_lock_order(false);
    let search = explore()
        .machine(machine)
        .strategy(strategy)
        .keep_going(true)
        .shrink(false)
        .progress(false)
        .jobs(jobs.try_into().unwrap());
    let exploration = search.schedules(most).check(|| {
        let result = run();
        seen.lock().unwrap().insert(result);
    });
    (exploration, seen.into_inner().unwrap())
}

/// Compares what the searches see of a program of so many threads.
fn compare(threads: usize, run: impl Fn() -> Seen + Sync) {
    let (reduced, seen) = search(threads, &run, Search::Exhaustive, MOST, 1);
    assert!(reduced.is_exhausted(), "so small a program has no more than {MOST} classes: {reduced}");
    compare_with(threads, &run, &reduced, &seen);
}

/// The same, unless the program has more classes than `most`: one in some thousands of those with DPCs has, where expiries that are held back let whatever may lower a level depend on everything.
fn compare_if_small(threads: usize, most: u64, run: impl Fn() -> Seen + Sync) {
    let (reduced, seen) = search(threads, &run, Search::Exhaustive, most, 1);
    assert!(reduced.is_exhausted() || reduced.executions() >= most, "the search is complete unless it is long: {reduced}");
    if reduced.is_exhausted() {
        compare_with(threads, &run, &reduced, &seen);
    }
}

/// Compares what an exhaustive search has seen with what others see.
fn compare_with(threads: usize, run: &(dyn Fn() -> Seen + Sync), reduced: &Exploration, seen: &BTreeSet<Seen>) {
    let (together, seen_together) = search(threads, run, Search::Exhaustive, MOST, 3);
    let found = |made: &Exploration| {
        let first = made.failure().map(|failure| (failure.schedule, failure.found.clone()));
        (made.executions(), made.distinct(), made.failures(), made.is_exhausted(), first)
    };
    assert!(found(reduced) == found(&together) && *seen == seen_together, "by one OS thread {reduced}, by three {together}");
    // A bug check hides what the other threads would have done behind it. That there is one is what a search is for: it ends there, unless it is told to go on.
    let hides = reduced.failure().is_some_and(|failure| failure.outcome.bug_check().is_some());
    for strategy in [Search::Random, Search::Urw, Search::Pct { depth: 3 }] {
        let (sampled, seen_by_it) = search(threads, run, strategy, SAMPLES, 1);
        let missed: Vec<_> = seen_by_it.difference(seen).collect();
        assert!(missed.is_empty() || hides, "{strategy:?} has seen {missed:?}; {reduced}");
        assert!(reduced.failures() > 0 || sampled.failures() == 0, "{strategy:?} has found a deadlock; {reduced}");
    }
}

/// Few, as each is searched four times; `PROPTEST_CASES` asks for others.
fn config() -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    ProptestConfig { cases: if asked { config.cases } else { 10 }, ..config }
}

/// Fewer: there are many generators of programs of few kinds.
fn few() -> ProptestConfig {
    let config = config();
    ProptestConfig { cases: if std::env::var_os("PROPTEST_CASES").is_some() { config.cases } else { 4 }, ..config }
}
