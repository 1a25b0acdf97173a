//! Wakeup trees: the ways to the reversals of races.

use super::names::Known;
use super::races::Clock;
use super::{Asleep, Named};
use crate::schedule::Footprint;

/// One event on a way, as the run that it was seen in had it.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) actor: u32,
    /// Its number among the events of its context, from 1. 0 if nothing else is known of it.
    pub(super) number: u32,
    /// What stands for all that happens before its context does it.
    pub(super) before: u64,
    /// What it is, in terms of that run.
    pub(super) operation: Footprint,
    /// What happens before it.
    pub(super) clock: Clock,
}

impl Step {
    /// The first step of the present run, of which nothing else needs to be known: whatever does not begin with it depends on it.
    pub(super) fn planned(actor: u32) -> Self {
        Self { actor, number: 0, before: 0, operation: Footprint::UNKNOWN, clock: Clock::default() }
    }
}

/// A step, and what comes after it.
#[derive(Clone, Debug)]
pub(super) struct Branch {
    pub(super) step: Step,
    /// Whether those before it could be made first without a difference is not known, as what they do in its run is not. What is explored by them is then not relied on.
    pub(super) unsure: bool,
    pub(super) then: Vec<Branch>,
}

impl Branch {
    /// The first step of the present run.
    pub(super) fn planned(actor: u32) -> Self {
        Self { step: Step::planned(actor), unsure: false, then: Vec::new() }
    }

    /// One that begins with the DPC interrupt of a processor, and leads anywhere.
    pub(super) fn to_interrupt(first: Named) -> Self {
        Self::to(Named { operation: first.operation.unsure(Footprint::OF_INTERRUPT), ..first })
    }

    /// One that begins like this, and leads anywhere.
    pub(super) fn to(first: Named) -> Self {
        let Named { actor, number, operation } = first;
        Self { step: Step { number, operation, ..Step::planned(actor) }, ..Self::planned(actor) }
    }

    /// How many steps there are in it. Ways are only ever added.
    pub(super) fn size(&self) -> usize {
        1 + self.then.iter().map(Self::size).sum::<usize>()
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

fn standing(actor: u32, operation: Footprint, way: &[Step]) -> Standing {
    match way.iter().position(|step| step.actor == actor) {
        Some(place) => {
            let clock = &way[place].clock;
            let behind = way[..place].iter().any(|before| clock.has(before.actor, before.number));
            if behind { Standing::Other } else { Standing::First(place) }
        }
        None if way.iter().all(|step| !step.operation.depends_on(operation)) => Standing::Beside,
        None => Standing::Other,
    }
}

/// True when one that is asleep could come first, so that the way has been explored already. What is independent of the way is explored with it too, and its races tell of what may
/// come between: but only to the part that all of them are looked at in.
pub(super) fn is_explored(sleep: &[Asleep], way: &[Step], known: &Known) -> bool {
    sleep.iter().any(|asleep| match standing(asleep.actor, known.asleep(asleep), way) {
        Standing::First(_) => true,
        Standing::Beside => asleep.races_known,
        Standing::Other => false,
    })
}

/// True when all races behind what is asleep are known. Otherwise runs are not looked at to their end.
pub(super) fn is_all_known(sleep: &[Asleep]) -> bool {
    sleep.iter().all(|asleep| asleep.races_known)
}

/// True when the way from a node leads there too by what is explored there at present.
pub(super) fn is_begun(branch: &Branch, way: &[Step], known: &Known) -> bool {
    !matches!(standing(branch.step.actor, known.first(&branch.step), way), Standing::Other)
}

/// Adds a way from a node, unless what is there leads to it.
pub(super) fn insert(branches: &mut Vec<Branch>, way: Vec<Step>, known: &Known) {
    insert_by(branches, way, known, &|step| Some(known.first(step)));
}

fn insert_by(branches: &mut Vec<Branch>, mut way: Vec<Step>, known: &Known, operation: &dyn Fn(&Step) -> Option<Footprint>) {
    let mut unsure = false;
    for branch in branches.iter_mut() {
        let actor = branch.step.actor;
        let operation = operation(&branch.step);
        match standing(actor, operation.unwrap_or(Footprint::UNKNOWN), &way) {
            Standing::First(place) => _ = way.remove(place),
            Standing::Beside => {}
            Standing::Other => {
                unsure |= operation.is_none() && !way.iter().any(|step| step.actor == actor);
                continue;
            }
        }
        if !branch.then.is_empty() && !way.is_empty() {
            insert_by(&mut branch.then, way, known, &|step| known.later(step));
        }
        return;
    }
    let chain = way.into_iter().rfold(Vec::new(), |then, step| vec![Branch { step, unsure: false, then }]);
    branches.extend(chain.into_iter().map(|branch| Branch { unsure, ..branch }));
}

/// What is asleep where a branch is explored.
pub(super) fn lay_asleep(sleep: &mut [Asleep], branch: &Branch) {
    if branch.unsure {
        sleep.iter_mut().for_each(|asleep| asleep.races_known = false);
    }
}
