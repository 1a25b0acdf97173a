//! The orders of a run, and the search for a cycle in them.

use super::clocks::Clock;
use super::{Node, Who};
use crate::report::sites::SiteId;
use rustc_hash::FxHashMap;

/// How long a cycle may be, and how much is looked at to find one.
const LONGEST: usize = 8;
const PATIENCE: u32 = 10_000;

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
    pub(super) wanted_exclusive: bool,
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
}

impl Graph {
    /// True when no order has been seen.
    pub(super) fn is_empty(&self) -> bool {
        self.after.is_empty()
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
        exclusive: (bool, bool),
        held: &[Held],
    ) -> Known {
        let Some((_, uses)) = self.after.get(&first).and_then(|seconds| seconds.iter().find(|(node, _)| *node == second)) else {
            return Known::New;
        };
        let same = |seen: &Use| {
            seen.who == who
                && (seen.held_exclusive, seen.wanted_exclusive) == exclusive
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
    /// keeps apart, each asking for what the next one does not share with it.
    pub(super) fn cycle<'a>(&'a self, first: Node, second: Node, how: &'a Use, certain: bool) -> Option<Vec<Step<'a>>> {
        if !self.after.contains_key(&second) {
            return None;
        }
        let mut search =
            Search { graph: self, target: first, certain, patience: PATIENCE, path: vec![Step { first, second, how }] };
        search.extend().then_some(search.path)
    }
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
            return !self.certain || conflict(last, self.path[0]);
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
                let fits = !self.certain || (conflict(last, step) && self.path.iter().all(|other| other.how.can_meet(how)));
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
    asks.how.wanted_exclusive || holds.how.held_exclusive
}
