//! The search itself: schedules are handed out to OS threads, each of which has a machine of its own.
//!
//! Schedules are numbered, and a number alone decides the schedule. When one fails, those of lower numbers that are still to be run are run, and the lowest failure
//! is reported: so the result depends on neither the number of OS threads nor their speed. (A limit on time is the exception.)

use super::progress::{Progress, REPORT_EVERY};
use super::token::{self, Choice, TokenError};
use super::{Exploration, Explore, Failure, faults};
use crate::Outcome;
use crate::schedule::{Policy, Replay};
use rustc_hash::{FxHashSet, FxHasher};
use std::cell::RefCell;
use std::hash::Hasher;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How many schedules a worker takes at a time.
const BATCH: u64 = 16;

/// What the workers share.
struct Shared<'a> {
    explore: &'a Explore,
    program: &'a (dyn Fn() + Sync),
    limit: u64,
    deadline: Option<Instant>,
    /// The next schedule that nobody has taken.
    next: AtomicU64,
    /// The lowest schedule that failed, as a number of this part.
    lowest_failure: AtomicU64,
    failure: Mutex<Option<(u64, Vec<Choice>)>>,
    distinct: Mutex<FxHashSet<u64>>,
    executions: AtomicU64,
    has_fault: AtomicBool,
    progress: Progress,
}

/// True for a run that a search reports.
fn fails(outcome: &Outcome) -> bool {
    !outcome.is_completed() || !outcome.left().is_empty()
}

/// A number that stands for what a run chose.
fn class(choices: &[Choice]) -> u64 {
    let mut hasher = FxHasher::default();
    for choice in choices {
        hasher.write_u32(choice.value);
    }
    hasher.finish()
}

/// Makes a search. Also returns whether a run came to the fault that was asked for.
pub(super) fn search(explore: &Explore, program: &(dyn Fn() + Sync)) -> (Exploration, bool) {
    assert!(!crate::machine::is_running(), "a search cannot be made from code that runs on a machine");
    let begin = Instant::now();
    let total = explore.limit();
    // This part's share of the schedules: those whose number is its index, modulo the number of parts.
    let limit = match total {
        u64::MAX => u64::MAX,
        total => total.saturating_sub(explore.shard.index).div_ceil(explore.shard.count),
    };
    let shared = Shared {
        explore,
        program,
        limit,
        deadline: explore.time.map(|time| begin + time),
        next: AtomicU64::new(0),
        lowest_failure: AtomicU64::new(u64::MAX),
        failure: Mutex::new(None),
        distinct: Mutex::new(FxHashSet::default()),
        executions: AtomicU64::new(0),
        has_fault: AtomicBool::new(false),
        progress: Progress::new(explore.progress, limit),
    };
    let jobs = explore.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let jobs = (jobs as u64).min(limit.div_ceil(BATCH)).max(1);
    std::thread::scope(|scope| {
        for _ in 1..jobs {
            scope.spawn(|| shared.work());
        }
        shared.work();
    });
    let Shared { failure, distinct, executions, has_fault, progress, .. } = shared;
    drop(progress);
    let failure = failure.into_inner().expect("no worker panics while it holds the lock");
    let failure = failure.map(|(schedule, choices)| {
        let outcome = repeat(explore, &choices, program);
        let token = faults::with_fault(token::encode(explore.faulty_machine().config(), &choices), explore.fault);
        Box::new(Failure { outcome, token, schedule: schedule * explore.shard.count + explore.shard.index })
    });
    let exploration = Exploration {
        executions: executions.into_inner(),
        distinct: distinct.into_inner().expect("no worker panics while it holds the lock").len() as u64,
        exhausted: false,
        elapsed: begin.elapsed(),
        failure,
    };
    (exploration, has_fault.into_inner())
}

impl Shared<'_> {
    fn work(&self) {
        let machine = self.explore.faulty_machine().record_trace(false);
        let mut choices = Vec::new();
        let (mut executions, mut reported, mut last_batch) = (0, 0, false);
        let mut classes = FxHashSet::default();
        while !last_batch {
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break;
            }
            let first = self.next.fetch_add(BATCH, Ordering::Relaxed);
            if first >= self.limit || first > self.lowest_failure.load(Ordering::Relaxed) {
                break;
            }
            for number in first..self.limit.min(first.saturating_add(BATCH)) {
                if number > self.lowest_failure.load(Ordering::Relaxed) {
                    last_batch = true;
                    break;
                }
                let schedule = number * self.explore.shard.count + self.explore.shard.index;
                let policy = self.explore.strategy.policy(self.explore.seed, schedule);
                choices.clear();
                let outcome;
                (outcome, choices) = machine.run_recorded(policy, Some(choices), self.program);
                executions += 1;
                if outcome.has_fault() {
                    self.has_fault.store(true, Ordering::Relaxed);
                }
                classes.insert(class(&choices));
                if fails(&outcome) {
                    self.record_failure(number, &choices);
                }
            }
            if executions - reported >= REPORT_EVERY {
                let mut all = self.distinct.lock().expect("no worker panics while it holds the lock");
                all.extend(classes.drain());
                let distinct = all.len() as u64;
                drop(all);
                self.progress.advance(executions - reported, distinct);
                reported = executions;
            }
        }
        self.executions.fetch_add(executions, Ordering::Relaxed);
        self.distinct.lock().expect("no worker panics while it holds the lock").extend(classes);
    }

    fn record_failure(&self, number: u64, choices: &[Choice]) {
        let mut failure = self.failure.lock().expect("no worker panics while it holds the lock");
        if failure.as_ref().is_none_or(|(lowest, _)| number < *lowest) {
            *failure = Some((number, choices.to_vec()));
        }
        self.lowest_failure.fetch_min(number, Ordering::Relaxed);
    }
}

/// Runs the schedule that made these choices once more, with the trace.
fn repeat(explore: &Explore, choices: &[Choice], program: &dyn Fn()) -> Outcome {
    let (outcome, differs) = run_choices(explore, choices, program);
    let reason = match differs {
        Some(error) => error.to_string(),
        None if !fails(&outcome) => "the same choices led to no failure".to_owned(),
        None => return outcome,
    };
    panic!(
        "ksim: a schedule failed, and cannot be repeated, as the program is not deterministic: {reason}. It must decide nothing by the host's clock, \
         addresses, hash maps or statics. The repetition: {outcome}"
    );
}

fn run_choices(explore: &Explore, choices: &[Choice], program: &dyn Fn()) -> (Outcome, Option<TokenError>) {
    let replay = Rc::new(RefCell::new(Replay::new(choices)));
    let policy: Box<dyn Policy> = Box::new(Replay::shared(&replay));
    let outcome = explore.faulty_machine().record_trace(true).record_sites(true).run_with_policy(policy, program);
    let differs = replay.borrow().difference();
    (outcome, differs)
}

pub(super) fn replay(explore: &Explore, token: &str, program: &dyn Fn()) -> Result<Exploration, TokenError> {
    let begin = Instant::now();
    let decoded = token::decode(explore.faulty_machine().config(), token)?;
    let (outcome, differs) = run_choices(explore, &decoded.choices, program);
    if let Some(error) = differs {
        return Err(error);
    }
    let elapsed: Duration = begin.elapsed();
    let failure = fails(&outcome)
        .then(|| Box::new(Failure { outcome, token: faults::with_fault(token.to_owned(), explore.fault), schedule: 0 }));
    Ok(Exploration { executions: 1, distinct: 1, exhausted: false, elapsed, failure })
}
