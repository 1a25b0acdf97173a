//! The search itself: schedules are handed out to OS threads, each of which has a machine of its own.
//!
//! Schedules are numbered, and a number alone decides the schedule. When one fails, those of lower numbers that are still to be run are run, and the lowest failure
//! is reported: so the result depends on neither the number of OS threads nor their speed. (A limit on time is the exception.)

use super::progress::{Progress, REPORT_EVERY};
use super::shrink::{preemptions, shrink};
use super::token::{self, Choice, TokenError};
use super::{Allowed, Exploration, Explore, Failure, faults, watchdog};
use crate::machine::{Keep, Recorded};
use crate::schedule::{Planned, Policy, Replay};
use crate::{End, Outcome};
use rustc_hash::FxHashSet;
use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How many schedules a worker takes at a time.
const BATCH: u64 = 16;

/// What the workers share.
struct Shared<'a> {
    planned: Planned,
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
    failures: AtomicU64,
    allowed: Mutex<Allowed>,
    progress: Progress,
}

/// Lets the context that acted last go on as long as it can.
pub(super) fn uneventful() -> Box<dyn Policy> {
    Box::new(Replay::new(&[]))
}

/// Makes a search. It makes its first run whatever the time is. Also returns whether a run came to the fault that was asked for.
#[track_caller]
pub(super) fn search(explore: &Explore, program: &(dyn Fn() + Sync)) -> (Exploration, bool) {
    assert!(!crate::machine::is_running(), "a search cannot be made from code that runs on a machine");
    let (begin, deadline) = (Instant::now(), explore.deadline());
    let total = explore.limit();
    // This part's share of the schedules: those whose number is its index, modulo the number of parts.
    let limit = match total {
        u64::MAX => u64::MAX,
        total => total.saturating_sub(explore.shard.index).div_ceil(explore.shard.count),
    };
    let first = first_run(explore, program);
    let explore = &explore.of_statics(first.uses_statics);
    let estimate = Arc::new(first.estimate);
    let planned = Planned { strategy: explore.strategy, seed: explore.seed, estimate };
    let shared = Shared {
        planned,
        explore,
        program,
        limit,
        deadline,
        next: AtomicU64::new(u64::from(explore.shard.index == 0)),
        lowest_failure: AtomicU64::new(u64::MAX),
        failure: Mutex::new(None),
        distinct: Mutex::new(FxHashSet::default()),
        executions: AtomicU64::new(0),
        has_fault: AtomicBool::new(false),
        failures: AtomicU64::new(0),
        allowed: Mutex::default(),
        progress: Progress::new(explore.progress, limit, deadline),
    };
    shared.has_fault.store(first.outcome.has_fault(), Ordering::Relaxed);
    if explore.shard.index == 0 && limit > 0 {
        shared.executions.store(1, Ordering::Relaxed);
        shared.distinct.lock().expect("nobody else is there").insert(first.class);
        shared.record_allowed(&first.outcome);
        if first.outcome.is_failure() {
            shared.record_failure(0, &first.choices);
        }
    }
    let jobs = (jobs(explore) as u64).min(limit.div_ceil(BATCH)).max(1);
    std::thread::scope(|scope| {
        for _ in 1..jobs {
            scope.spawn(|| {
                let _watched = watchdog::watch();
                shared.work();
            });
        }
        shared.work();
    });
    let Shared { failure, failures, allowed, distinct, executions, has_fault, progress, .. } = shared;
    drop(progress);
    let mut reported = None;
    // Not in a closure, which would hide who asked for the search.
    if let Some((number, choices)) = failure.into_inner().expect("no worker panics while it holds the lock") {
        let schedule = number * explore.shard.count + explore.shard.index;
        reported = Some(report(&explore.of_schedule(schedule), schedule, &choices, program));
    }
    let failure = reported;
    let exploration = Exploration {
        executions: executions.into_inner(),
        distinct: distinct.into_inner().expect("no worker panics while it holds the lock").len() as u64,
        exhausted: false,
        elapsed: begin.elapsed(),
        failures: if explore.keep_going { failures.into_inner() } else { u64::from(failure.is_some()) },
        allowed: allowed.into_inner().expect("no worker panics while it holds the lock"),
        failure,
    };
    (exploration, has_fault.into_inner())
}

/// How many OS threads search.
pub(super) fn jobs(explore: &Explore) -> usize {
    explore.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get)
}

/// The failure of a schedule that made these choices.
#[track_caller]
pub(super) fn report(explore: &Explore, schedule: u64, choices: &[Choice], program: &dyn Fn()) -> Box<Failure> {
    let encode = |choices: &[Choice]| {
        faults::with_fault(token::encode(explore.faulty_machine().config(), explore.program, choices), explore.fault)
    };
    let found = encode(choices);
    let mut outcome = repeat(explore, choices, program);
    let mut choices = choices.to_vec();
    // A run that does not end would take too long to be made smaller.
    if explore.shrinks && !matches!(outcome.end(), End::StepLimit(_)) {
        choices = shrink(explore, &outcome, choices, program);
        outcome = repeat(explore, &choices, program);
    }
    let token = encode(&choices);
    Box::new(Failure {
        outcome,
        token,
        schedule,
        replayed: false,
        preemptions: preemptions(&choices),
        found,
        early_expiries: explore.early_by_environment,
    })
}

/// The uneventful run, which a search makes twice to see that the program does the same things each time. One that failed short of its end is repeated for its report.
///
/// Statics that the program sets once are set by the first run of all: where that differs from its repetition, the repetition counts as the first.
///
/// # Panics
/// If the program did something else.
#[track_caller]
pub(super) fn first_run(explore: &Explore, program: &dyn Fn()) -> Recorded {
    let machine = explore.faulty_machine().record_trace(explore.checks_repetition());
    let run = |policy: Box<dyn Policy>| machine.run_recorded(policy, Keep::Choices(Vec::new()), program);
    let mut first = run(uneventful());
    for is_last in [false, true] {
        let is_whole = first.outcome.is_completed() || first.outcome.allowed().is_some();
        if !explore.checks_repetition() || !is_whole {
            break;
        }
        let second = run(Box::new(Replay::new(&first.choices)));
        let Some(difference) = first.difference(&second) else { break };
        if is_last {
            panic!(
                "ksim: the program is not deterministic: {difference}. It must decide nothing by the host's clock, addresses, hash maps or statics"
            );
        }
        first = run(uneventful());
    }
    first
}

impl Shared<'_> {
    fn work(&self) {
        let mut machine = self.explore.faulty_machine().record_trace(false);
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
                watchdog::set_schedule(Some(schedule));
                machine.set_schedule(schedule);
                let run = machine.run_recorded(self.planned.policy(schedule), Keep::Class, self.program);
                executions += 1;
                if run.outcome.has_fault() {
                    self.has_fault.store(true, Ordering::Relaxed);
                }
                classes.insert(run.class);
                self.record_allowed(&run.outcome);
                if run.outcome.is_failure() {
                    let mut choices = Vec::new();
                    if self.is_lowest(number) {
                        // The number alone decides the schedule: once more, for its choices, which cost more than all else.
                        let keep = Keep::Choices(choices);
                        choices = machine.run_recorded(self.planned.policy(schedule), keep, self.program).choices;
                    }
                    self.record_failure(number, &choices);
                }
            }
            if executions - reported >= REPORT_EVERY {
                let mut all = self.distinct.lock().expect("no worker panics while it holds the lock");
                all.extend(classes.drain());
                let distinct = all.len() as u64;
                drop(all);
                self.progress.advance(executions - reported, distinct, self.lock_allowed().total());
                reported = executions;
            }
        }
        watchdog::set_schedule(None);
        self.executions.fetch_add(executions, Ordering::Relaxed);
        self.distinct.lock().expect("no worker panics while it holds the lock").extend(classes);
    }

    fn lock_allowed(&self) -> MutexGuard<'_, Allowed> {
        self.allowed.lock().expect("no worker panics while it holds the lock")
    }

    fn record_allowed(&self, outcome: &Outcome) {
        if outcome.allowed().is_some() {
            self.lock_allowed().record(outcome);
        }
    }

    /// True when no failure of a lower number is known.
    fn is_lowest(&self, number: u64) -> bool {
        let failure = self.failure.lock().expect("no worker panics while it holds the lock");
        failure.as_ref().is_none_or(|(lowest, _)| number < *lowest)
    }

    /// Counts a failure, and keeps its choices if it is the lowest.
    fn record_failure(&self, number: u64, choices: &[Choice]) {
        let mut failure = self.failure.lock().expect("no worker panics while it holds the lock");
        if failure.as_ref().is_none_or(|(lowest, _)| number < *lowest) {
            *failure = Some((number, choices.to_vec()));
        }
        self.failures.fetch_add(1, Ordering::Relaxed);
        if !self.explore.keep_going {
            self.lowest_failure.fetch_min(number, Ordering::Relaxed);
        }
    }
}

/// Runs the schedule that made these choices once more, with the trace.
#[track_caller]
fn repeat(explore: &Explore, choices: &[Choice], program: &dyn Fn()) -> Outcome {
    let (outcome, differs) = run_choices(explore, choices, program);
    let reason = match differs {
        Some(error) => error.to_string(),
        None if !outcome.is_failure() => "the same choices led to no failure".to_owned(),
        None => return outcome,
    };
    panic!(
        "ksim: a schedule failed, and cannot be repeated, as the program is not deterministic: {reason}. It must decide nothing by the host's clock, \
         addresses, hash maps or statics. The repetition: {outcome}"
    );
}

/// Makes these choices, with the trace.
fn run_choices(explore: &Explore, choices: &[Choice], program: &dyn Fn()) -> (Outcome, Option<TokenError>) {
    let (recorded, differs) = run_recording(explore, choices, program);
    (recorded.outcome, differs)
}

fn run_recording(explore: &Explore, choices: &[Choice], program: &dyn Fn()) -> (Recorded, Option<TokenError>) {
    let replay = Rc::new(RefCell::new(Replay::new(choices)));
    let policy: Box<dyn Policy> = Box::new(Replay::shared(&replay));
    let machine = explore.faulty_machine().record_trace(true).record_sites(true);
    let recorded = machine.run_recorded(policy, Keep::Choices(Vec::new()), program);
    let mut differs = replay.borrow().difference();
    let sites = replay.borrow().place().map(|site| recorded.outcome.call_sites(site)).unwrap_or_default();
    if let (Some(TokenError::Differs { reason, .. }), Some(site)) = (&mut differs, sites.first()) {
        *reason += &format!(", at {site}");
    }
    (recorded, differs)
}

#[track_caller]
pub(super) fn replay(explore: &Explore, token: &str, program: &dyn Fn()) -> Result<Exploration, TokenError> {
    let begin = Instant::now();
    let decode = |explore: &Explore| token::decode(explore.faulty_machine().config(), token);
    let ordinary = explore.machine.clone().without_special_pool().map(|machine| Explore { machine, ..explore.clone() });
    let (explore, decoded) = match (decode(explore), &ordinary) {
        // Of the schedules of a search, some have special pool.
        (Err(TokenError::Settings), Some(ordinary)) => (ordinary, decode(ordinary)?),
        (decoded, _) => (explore, decoded?),
    };
    let (Recorded { outcome, choices, .. }, differs) = run_recording(explore, &decoded.choices, program);
    let is_other = decoded.program != explore.program;
    match differs {
        Some(error) if is_other => return Err(TokenError::Program { reason: error.to_string() }),
        Some(error) => return Err(error),
        None if is_other && !outcome.is_failure() => {
            return Err(TokenError::Program { reason: "this one makes all of its choices, and does not fail".to_owned() });
        }
        None => {}
    }
    let elapsed: Duration = begin.elapsed();
    let mut allowed = Allowed::default();
    allowed.record(&outcome);
    let failure = outcome.is_failure().then(|| {
        let token = faults::with_fault(token.to_owned(), explore.fault);
        let (found, early_expiries) = (token.clone(), explore.early_by_environment);
        Box::new(Failure {
            outcome,
            found,
            token,
            schedule: 0,
            replayed: true,
            preemptions: preemptions(&choices),
            early_expiries,
        })
    });
    let failures = u64::from(failure.is_some());
    Ok(Exploration { executions: 1, distinct: 1, exhausted: false, elapsed, failures, allowed, failure })
}
