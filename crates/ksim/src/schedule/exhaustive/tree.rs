//! Wakeup trees: the ways to the reversals of races.

use super::names::Names;
use super::races::Clock;
use super::{Asleep, Named};
use crate::schedule::Footprint;

/// One event on a way, as the run that it was seen in had it.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) actor: u32,
    /// Its number among the events of its context, from 1.
    pub(super) number: u32,
    pub(super) operation: Footprint,
    /// What happens before it.
    pub(super) clock: Clock,
}

impl Step {
    /// The first step of the present run, of which nothing else needs to be known: whatever does not begin with it depends on it.
    pub(super) fn planned(actor: u32) -> Self {
        Self { actor, number: 0, operation: Footprint::UNKNOWN, clock: Clock::default() }
    }
}

/// A step, and what comes after it.
#[derive(Clone, Debug)]
pub(super) struct Branch {
    pub(super) step: Step,
    pub(super) then: Vec<Branch>,
}

impl Branch {
    /// One that begins like this, and leads anywhere.
    pub(super) fn to(first: Named) -> Self {
        Self { step: Step { operation: first.operation, ..Step::planned(first.actor) }, then: Vec::new() }
    }
}

/// How a context stands to a way.
enum Standing {
    /// Its event at this place can come first.
    First(usize),
    /// It has none, and what it does is independent of all.
    Beside,
    /// Neither.
    Other,
}

fn standing(actor: u32, operation: Footprint, way: &[Step], names: &Names) -> Standing {
    match way.iter().position(|step| step.actor == actor) {
        Some(place) => {
            let clock = &way[place].clock;
            let behind = way[..place].iter().any(|before| clock.has(before.actor, before.number));
            if behind { Standing::Other } else { Standing::First(place) }
        }
        None if way.iter().all(|step| !names.depends(step.operation, operation)) => Standing::Beside,
        None => Standing::Other,
    }
}

/// True when one that is asleep could come first, so that the way has been explored already. What is independent of the way is explored with it too, and its races tell of what may
/// come between: but only to the part that all of them are looked at in.
pub(super) fn is_explored(sleep: &[Asleep], way: &[Step], names: &Names) -> bool {
    sleep.iter().any(|asleep| match standing(asleep.actor, asleep.operation, way, names) {
        Standing::First(_) => true,
        Standing::Beside => asleep.races_known,
        Standing::Other => false,
    })
}

/// True when all races behind what is asleep are known. Otherwise runs are not looked at to their end.
pub(super) fn is_all_known(sleep: &[Asleep]) -> bool {
    sleep.iter().all(|asleep| asleep.races_known)
}

/// Adds a way, unless what is there leads to it.
pub(super) fn insert(branches: &mut Vec<Branch>, mut way: Vec<Step>, names: &Names) {
    for branch in branches.iter_mut() {
        match standing(branch.step.actor, branch.step.operation, &way, names) {
            Standing::First(place) => _ = way.remove(place),
            Standing::Beside => {}
            Standing::Other => continue,
        }
        if !branch.then.is_empty() && !way.is_empty() {
            insert(&mut branch.then, way, names);
        }
        return;
    }
    let mut chain = Vec::new();
    for step in way.into_iter().rev() {
        chain = vec![Branch { step, then: chain }];
    }
    branches.append(&mut chain);
}
