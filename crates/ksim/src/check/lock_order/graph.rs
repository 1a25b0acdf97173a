//! The orders of a run, and the search for a cycle in them.

use super::clocks::Clock;
use super::{Node, Who};
use crate::report::sites::SiteId;
use rustc_hash::FxHashMap;

/// How long a cycle may be, and how much is looked at to find one.
const LONGEST: usize = 8;
const PATIENCE: u32 = 10_000;

/// How a lock is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wanted {
    /// As what nobody shares.
    Only,
    /// Exclusively, where others share it.
    Exclusive,
    Shared,
    /// Shared, past those who wait to have it exclusively.
    SharedAhead,
}

impl Wanted {
    pub(crate) fn of(exclusive: bool) -> Self {
        if exclusive { Self::Exclusive } else { Self::Shared }
    }

    fn is_exclusive(self) -> bool {
        matches!(self, Self::Only | Self::Exclusive)
    }
}

/// One lock of several that were held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Held {
    pub(super) node: Node,
    pub(super) exclusive: bool,
}

/// How someone took one lock within another.
#[derive(Clone, Debug)]
pub(super) struct Use {
    pub(super) who: Who,
    /// The clock then.
    pub(super) clock: Clock,
    pub(super) held_exclusive: bool,
    pub(super) wanted: Wanted,
    /// The other locks that were held.
    pub(super) gates: Vec<Held>,
    /// Where the first lock was acquired, and where the second was asked for.
    pub(super) held_at: Option<SiteId>,
    pub(super) wanted_at: Option<SiteId>,
}

impl Use {
    fn happened_before(&self, later: &Self) -> bool {
        self.who == later.who || later.clock.of(self.who) >= self.clock.of(self.who)
    }

    /// True when a lock that both held keeps the two apart.
    fn is_kept_apart_from(&self, other: &Self) -> bool {
        let both =
            |gate: &Held| other.gates.iter().any(|theirs| theirs.node == gate.node && (theirs.exclusive || gate.exclusive));
        self.gates.iter().any(both)
    }

    /// True when both can be in the middle of it at once.
    fn can_meet(&self, other: &Self) -> bool {
        self.who != other.who && !self.happened_before(other) && !other.happened_before(self) && !self.is_kept_apart_from(other)
    }
}

/// One order: the first lock was held when the second was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step<'a> {
    pub(super) first: Node,
    pub(super) second: Node,
    pub(super) how: &'a Use,
}

/// The orders of a run: by the first lock the second ones, each with how it was taken.
#[derive(Debug, Default)]
pub(super) struct Graph {
    after: FxHashMap<Node, Vec<(Node, Vec<Use>)>>,
    /// Who asked for a lock exclusively that others share, whatever he held.
    claims: FxHashMap<Node, Vec<Use>>,
}

/// A cycle, and who has to wait for a lock exclusively, so that others who would share it wait behind him.
pub(super) struct Cycle<'a> {
    pub(super) steps: Vec<Step<'a>>,
    pub(super) claims: Vec<(Node, &'a Use)>,
}

impl Graph {
    /// True when no order has been seen.
    pub(super) fn is_empty(&self) -> bool {
        self.after.is_empty() && self.claims.is_empty()
    }
}

/// Whether an order is new.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Known {
    /// Nothing changed since it was last seen.
    Seen,
    /// It was seen, but not since its actor last signaled something.
    Again(usize),
    New,
}

impl Graph {
    /// Whether an order has been seen.
    pub(super) fn find(
        &self,
        first: Node,
        second: Node,
        clock: &Clock,
        who: Who,
        (held_exclusive, wanted): (bool, Wanted),
        held: &[Held],
    ) -> Known {
        let Some((_, uses)) = self.after.get(&first).and_then(|seconds| seconds.iter().find(|(node, _)| *node == second)) else {
            return Known::New;
        };
        let same = |seen: &Use| {
            seen.who == who
                && (seen.held_exclusive, seen.wanted) == (held_exclusive, wanted)
                && seen.gates.iter().eq(held.iter().filter(|gate| gate.node != first))
        };
        match uses.iter().position(same) {
            Some(index) if uses[index].clock == *clock => Known::Seen,
            Some(index) => Known::Again(index),
            None => Known::New,
        }
    }

    /// An order that was seen was seen again: it is as late as that.
    pub(super) fn renew(&mut self, first: Node, second: Node, index: usize, clock: &Clock) -> Use {
        let seconds = self.after.entry(first).or_default();
        let (_, uses) = seconds.iter_mut().find(|(node, _)| *node == second).expect("ksim: the order was found just now");
        uses[index].clock = clock.clone();
        uses[index].clone()
    }

    /// Adds an order.
    pub(super) fn add(&mut self, first: Node, second: Node, how: Use) {
        let seconds = self.after.entry(first).or_default();
        match seconds.iter_mut().find(|(node, _)| *node == second) {
            Some((_, uses)) => uses.push(how),
            None => seconds.push((second, vec![how])),
        }
    }

    /// A cycle that an order closes. With `certain`, only one in which a schedule of this very code can deadlock: all in different threads that nothing orders or
    /// keeps apart, each asking for what the next one does not share with it, or what somebody else asks for in between who does not.
    pub(super) fn cycle<'a>(&'a self, first: Node, second: Node, how: &'a Use, certain: bool) -> Option<Cycle<'a>> {
        if !self.after.contains_key(&second) {
            return None;
        }
        let mut search =
            Search { graph: self, target: first, certain, patience: PATIENCE, path: vec![Step { first, second, how }] };
        let found = search.extend();
        found.then(|| Cycle { claims: self.claims_of(&search.path), steps: search.path })
    }

    /// Someone asks for a lock exclusively that others share. True unless nothing has changed since he last did.
    pub(super) fn claim(&mut self, node: Node, claim: Use) -> bool {
        let claims = self.claims.entry(node).or_default();
        match claims.iter_mut().find(|seen| seen.who == claim.who && seen.gates == claim.gates) {
            Some(seen) if seen.clock == claim.clock => return false,
            Some(seen) => seen.clock = claim.clock,
            None => claims.push(claim),
        }
        true
    }

    /// A cycle that a claim to a lock closes.
    pub(super) fn cycle_of_claim(&self, node: Node) -> Option<Cycle<'_>> {
        self.after.iter().find_map(|(&first, seconds)| {
            let (_, uses) = seconds.iter().find(|(second, _)| *second == node)?;
            let shared = uses.iter().filter(|how| how.wanted == Wanted::Shared);
            shared.filter_map(|how| self.cycle(first, node, how, true)).next()
        })
    }

    /// Who can ask for a lock exclusively while all of these are in the middle of what they do.
    fn claim_amid(&self, node: Node, steps: &[Step<'_>]) -> Option<&Use> {
        let meets = |claim: &Use, step: &Step<'_>| {
            let held = |gate: &Held| gate.node == step.first && (gate.exclusive || step.how.held_exclusive);
            claim.can_meet(step.how) && !claim.gates.iter().any(held)
        };
        self.claims.get(&node)?.iter().find(|claim| steps.iter().all(|step| meets(claim, step)))
    }

    /// True when the one that asks for a lock may have to wait though the one that holds it shares it.
    fn waits_behind(&self, asks: Step<'_>, steps: &[Step<'_>]) -> bool {
        asks.how.wanted == Wanted::Shared && self.claim_amid(asks.second, steps).is_some()
    }

    fn claims_of(&self, path: &[Step<'_>]) -> Vec<(Node, &Use)> {
        pairs(path)
            .filter(|(asks, holds)| !conflict(*asks, *holds))
            .filter_map(|(asks, _)| Some((asks.second, self.claim_amid(asks.second, path)?)))
            .collect()
    }

    /// True when all of a cycle can wait for each other at once.
    fn can_close(&self, path: &[Step<'_>]) -> bool {
        pairs(path).all(|(asks, holds)| conflict(asks, holds) || self.waits_behind(asks, path))
    }
}

/// Each step of a cycle with the one that it waits for.
fn pairs<'a, 'b>(path: &'b [Step<'a>]) -> impl Iterator<Item = (Step<'a>, Step<'a>)> + 'b {
    (0..path.len()).map(move |index| (path[index], path[(index + 1) % path.len()]))
}

struct Search<'a> {
    graph: &'a Graph,
    target: Node,
    certain: bool,
    patience: u32,
    path: Vec<Step<'a>>,
}

impl Search<'_> {
    /// Extends the path to a cycle. True when it is one.
    fn extend(&mut self) -> bool {
        let last = self.path[self.path.len() - 1];
        if last.second == self.target {
            return !self.certain || self.graph.can_close(&self.path);
        }
        if self.path.len() == LONGEST {
            return false;
        }
        let Some(seconds) = self.graph.after.get(&last.second) else { return false };
        for (second, uses) in seconds {
            // A cycle passes each lock once.
            if *second != self.target && self.path.iter().any(|step| step.first == *second) {
                continue;
            }
            for how in uses {
                self.patience = self.patience.saturating_sub(1);
                if self.patience == 0 {
                    return false;
                }
                let step = Step { first: last.second, second: *second, how };
                let waits = || conflict(last, step) || self.graph.waits_behind(last, &[last, step]);
                let fits = !self.certain || (waits() && self.path.iter().all(|other| other.how.can_meet(how)));
                if !fits {
                    continue;
                }
                self.path.push(step);
                if self.extend() {
                    return true;
                }
                self.path.pop();
            }
        }
        false
    }
}

/// True when the one that asks for a lock has to wait for the one that holds it.
fn conflict(asks: Step<'_>, holds: Step<'_>) -> bool {
    asks.how.wanted.is_exclusive() || holds.how.held_exclusive
}
