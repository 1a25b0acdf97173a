//! Searches with faults: one search for each.

use super::{Exploration, Explore, TokenError, systematic, workers};
use crate::faults::{Fault, MOST_FAULTS};
use std::time::Instant;

/// What is between a token and the fault of its run. It is in no token.
const SEPARATOR: char = '.';

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

/// Searches without a fault, and then with each that the program comes to, up to the first failure.
pub(super) fn search(explore: &Explore, program: &(dyn Fn() + Sync)) -> Exploration {
    let begin = Instant::now();
    let (mut whole, _) = one_search(explore, program);
    for &kind in &explore.faults {
        for n in 1..=MOST_FAULTS {
            if whole.failure.is_some() {
                return whole;
            }
            let explore = Explore { fault: Some(Fault { kind, n }), ..explore.clone() };
            let (part, has_fault) = one_search(&explore, program);
            if !has_fault {
                break;
            }
            whole.executions += part.executions;
            whole.distinct += part.distinct;
            whole.exhausted &= part.exhausted;
            whole.elapsed = begin.elapsed();
            whole.failures += part.failures;
            whole.failure = part.failure;
        }
    }
    whole
}

fn one_search(explore: &Explore, program: &(dyn Fn() + Sync)) -> (Exploration, bool) {
    if explore.strategy.is_systematic() { systematic::search(explore, program) } else { workers::search(explore, program) }
}
