//! Searches with faults: one search for each.

use super::{Exploration, Explore, TokenError, systematic, workers};
use crate::faults::{Fault, MOST_FAULTS};
use crate::machine::Keep;
use std::time::Instant;

/// What is between a token and the fault of its run. It is in no token.
const SEPARATOR: char = '.';

/// The part of the time that may be taken to find out how many searches there are.
const COUNTING: u32 = 4;

/// A token with the fault that its run has.
pub(super) fn with_fault(token: String, fault: Option<Fault>) -> String {
    match fault {
        Some(fault) => format!("{token}{SEPARATOR}{fault}"),
        None => token,
    }
}

/// A token without its fault, and that.
pub(super) fn parse(token: &str) -> Result<(&str, Option<Fault>), TokenError> {
    match token.trim().split_once(SEPARATOR) {
        Some((token, fault)) => Ok((token, Some(fault.parse().map_err(|()| TokenError::Damaged)?))),
        None => Ok((token, None)),
    }
}

/// Searches without a fault, and then with each that the program comes to, up to the first failure. A limit on time is one for all.
#[track_caller]
pub(super) fn search(explore: &Explore, program: &(dyn Fn() + Sync)) -> Exploration {
    let begin = Instant::now();
    let deadline = explore.deadline();
    let mut searches = 1 + deadline.map_or(0, |_| count(explore, program));
    let left = || deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    // There may be more than were counted, as another schedule may come to others.
    let mut share = || {
        let share = left().map(|left| left / searches);
        searches = searches.saturating_sub(1).max(1);
        share
    };
    let (mut whole, _) = one_search(&Explore { time: share(), ..explore.clone() }, program);
    for &kind in &explore.faults {
        for n in 1..=MOST_FAULTS {
            if whole.failure.is_some() {
                return whole;
            }
            if left().is_some_and(|left| left.is_zero()) {
                whole.exhausted = false;
                return whole;
            }
            let explore = Explore { fault: Some(Fault { kind, n }), time: share(), ..explore.clone() };
            let (part, has_fault) = one_search(&explore, program);
            if !has_fault {
                break;
            }
            whole.executions += part.executions;
            whole.distinct += part.distinct;
            whole.exhausted &= part.exhausted;
            whole.elapsed = begin.elapsed();
            whole.failures += part.failures;
            whole.allowed.add(&part.allowed);
            whole.failure = part.failure;
        }
    }
    whole
}

/// How many searches with a fault there are to share the time, as far as the uneventful schedules tell. That may take some of the time.
fn count(explore: &Explore, program: &dyn Fn()) -> u32 {
    let enough = explore.time.and_then(|time| Instant::now().checked_add(time / COUNTING));
    let mut searches = 0;
    for &kind in &explore.faults {
        for n in 1..=MOST_FAULTS {
            let machine = explore.machine.clone().fault(Fault { kind, n }).record_trace(false);
            let run = machine.run_recorded(workers::uneventful(), Keep::Nothing, program);
            // The search that comes to no fault takes its part too.
            searches += 1;
            if !run.outcome.has_fault() || enough.is_some_and(|enough| Instant::now() >= enough) {
                break;
            }
        }
    }
    searches
}

#[track_caller]
fn one_search(explore: &Explore, program: &(dyn Fn() + Sync)) -> (Exploration, bool) {
    if explore.strategy.is_systematic() { systematic::search(explore, program) } else { workers::search(explore, program) }
}
