//! Searches in which each run is planned by those before it.

use super::progress::{Progress, REPORT_EVERY};
use super::workers::{fails, report};
use super::{Exploration, Explore};
use crate::machine::Keep;
use crate::schedule::{Bounded, BoundedSearch, Exhaustive, ExhaustiveSearch, Policy, Strategy};
use rustc_hash::FxHashSet;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

/// What plans the runs.
enum Plan {
    Exhaustive(Rc<RefCell<ExhaustiveSearch>>),
    Bounded(Rc<RefCell<BoundedSearch>>),
}

impl Plan {
    fn of(strategy: Strategy) -> Self {
        match strategy {
            Strategy::Bounded { preemptions } => Self::Bounded(Rc::new(RefCell::new(BoundedSearch::new(preemptions)))),
            _ => Self::Exhaustive(Rc::default()),
        }
    }

    fn policy(&self) -> Box<dyn Policy> {
        match self {
            Self::Exhaustive(search) => Box::new(Exhaustive::of(search)),
            Self::Bounded(search) => Box::new(Bounded(Rc::clone(search))),
        }
    }

    /// The run is over. False when it was the last.
    fn finish(&self) -> bool {
        match self {
            Self::Exhaustive(search) => search.borrow_mut().finish(),
            Self::Bounded(search) => search.borrow_mut().finish(),
        }
    }

    fn unsupported(&self) -> Option<&'static str> {
        match self {
            Self::Exhaustive(search) => search.borrow().unsupported(),
            Self::Bounded(_) => None,
        }
    }
}

/// Makes a search. Also returns whether a run came to the fault that was asked for.
pub(super) fn search(explore: &Explore, program: &dyn Fn()) -> (Exploration, bool) {
    assert!(!crate::machine::is_running(), "a search cannot be made from code that runs on a machine");
    let begin = Instant::now();
    let deadline = explore.time.map(|time| begin + time);
    let limit = explore.limit();
    let progress = Progress::new(explore.progress, limit);
    let machine = explore.faulty_machine().record_trace(false);
    let plan = Plan::of(explore.strategy);
    let (mut executions, mut failures, mut exhausted, mut has_fault) = (0, 0, false, false);
    let mut first_failure = None;
    let mut distinct = FxHashSet::default();
    let mut choices = Vec::new();
    while executions < limit && !exhausted && deadline.is_none_or(|deadline| Instant::now() < deadline) {
        choices.clear();
        let run = machine.run_recorded(plan.policy(), Keep::Choices(choices), program);
        exhausted = !plan.finish();
        if let Some(reason) = plan.unsupported() {
            panic!("ksim: the schedules cannot be searched to the end: {reason}");
        }
        executions += 1;
        has_fault |= run.outcome.has_fault();
        distinct.insert(run.class);
        if executions.is_multiple_of(REPORT_EVERY) {
            progress.advance(REPORT_EVERY, distinct.len() as u64);
        }
        choices = run.choices;
        if fails(&run.outcome) {
            failures += 1;
            first_failure.get_or_insert_with(|| (executions - 1, choices.clone()));
            if !explore.keep_going {
                break;
            }
        }
    }
    drop(progress);
    let failure = first_failure.map(|(schedule, choices)| report(explore, schedule, &choices, program));
    let exhausted = exhausted && (failures == 0 || explore.keep_going);
    let distinct = distinct.len() as u64;
    let elapsed = begin.elapsed();
    (Exploration { executions, distinct, exhausted, elapsed, failures, failure }, has_fault)
}
