//! What other OS threads make ahead of its turn.
//!
//! From the nodes of the present run, what is planned to come first after the present choice will be explored for certain, and all that is asleep then is known
//! already. So another OS thread can explore it at once, and comes to the same runs as the search itself would in its turn. It can tell the nodes above of the races that it finds
//! only then, as the order in which they hear of them matters; when its turn comes, the search *adopts* it: takes the ways that it has kept for the nodes above, and goes on from
//! where it has got to. If in the meantime a way was added to what is explored, so that the search itself would follow that, it is made in vain, and made again.
//! So the runs, their order and their number are those of a search on one OS thread.

use super::names::Known;
use super::tree::{Branch, Step, is_all_known, is_begun, is_explored, lay_asleep};
use super::{Asleep, Node, Search};
use crate::schedule::Actor;
use std::sync::Arc;

/// What comes next in a search.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Next {
    #[default]
    Run,
    /// What was given away under this number is to be adopted, or to be made here after all.
    Given(u64),
    /// All is explored.
    Over,
}

/// What another makes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given {
    node: usize,
    /// The context that comes first, or the value.
    choice: u32,
    /// How many steps were planned.
    size: usize,
    ticket: u64,
}

/// The ways from nodes above, in the order in which they were found.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The node, the way, and what is known of the run that it was seen in.
    ways: Vec<(usize, Vec<Step>, Arc<Known>)>,
    /// The present run's, if it has told a way.
    known: Option<Arc<Known>>,
}

impl Told {
    /// A run begins.
    pub(super) fn begin(&mut self) {
        self.known = None;
    }
}

impl Node {
    /// What a part that is made ahead keeps of a node above: enough to see that a way is explored.
    fn above(&self) -> Self {
        match self {
            Self::Act { chosen, sleep, wakeup, .. } => {
                let present = wakeup.iter().filter(|branch| Some(branch.step.actor) == *chosen);
                let wakeup =
                    present.map(|branch| Branch { step: branch.step.clone(), unsure: false, then: Vec::new() }).collect();
                Self::Act { chosen: *chosen, performed: None, able: Vec::new(), sleep: sleep.clone(), wakeup }
            }
            &Self::Value { chosen, options } => Self::Value { chosen, options },
        }
    }
}

impl Search {
    /// What comes next.
    pub(crate) fn next(&self) -> Next {
        self.next
    }

    /// True for the search itself, and false for what it gives away.
    pub(crate) fn is_whole(&self) -> bool {
        self.told.is_none()
    }

    /// How many ways it has kept for the nodes above.
    pub(crate) fn told(&self) -> usize {
        self.told.as_ref().map_or(0, |told| told.ways.len())
    }

    /// The numbers of what was given away and is not wanted any more.
    pub(crate) fn stale(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.stale)
    }

    /// The numbers of all that was given away.
    pub(crate) fn tickets(&self) -> impl Iterator<Item = u64> {
        self.given.iter().map(|given| given.ticket).chain(self.stale.iter().copied())
    }

    /// The next run begins with this at the last node, of which so many steps are planned.
    pub(super) fn at_branch(&mut self, choice: u32, size: usize) -> Next {
        let node = self.nodes.len() - 1;
        let Some(place) = self.given.iter().position(|given| (given.node, given.choice) == (node, choice)) else {
            return Next::Run;
        };
        let given = self.given[place];
        if given.size == size {
            return Next::Given(given.ticket);
        }
        self.given.swap_remove(place);
        self.stale.push(given.ticket);
        Next::Run
    }

    /// Gives away what will be explored and is furthest from its turn, under a number. What leads anywhere comes before what leads along a way: no way is added to it, so that it is never made in vain.
    pub(crate) fn give(&mut self, ticket: u64) -> Option<Self> {
        let clock = self.names.actor(Actor::CLOCK);
        let mut first = None;
        let leads_anywhere = (self.floor..self.nodes.len()).find_map(|node| {
            let (choice, size) = self.to_give(node, clock)?;
            let given = Given { node, choice, size, ticket };
            first.get_or_insert(given);
            (size <= 1).then_some(given)
        });
        let given = leads_anywhere.or(first)?;
        let begun = self.as_given(given);
        let nodes = self.nodes[..given.node].iter().map(Node::above).chain([begun]).collect();
        self.given.push(given);
        Some(Self {
            names: self.names.in_common(),
            nodes,
            floor: given.node + 1,
            told: Some(Told::default()),
            early: self.early,
            ..Self::default()
        })
    }

    /// What will be explored at a node after the present choice, if it can be told: the choice, and how many steps are planned.
    fn to_give(&self, node: usize, clock: u32) -> Option<(u32, usize)> {
        let is_given = |choice| self.given.iter().any(|given| (given.node, given.choice) == (node, choice));
        match &self.nodes[node] {
            Node::Act { chosen: Some(chosen), performed: Some(_), wakeup, .. } => {
                // What comes after it has it asleep, and what it does there is not known yet. The clock may not be able to move when its turn comes.
                let next = wakeup.iter().find(|branch| branch.step.actor != *chosen)?;
                let actor = next.step.actor;
                (actor != clock && !is_given(actor)).then(|| (actor, next.size()))
            }
            Node::Act { .. } => None,
            &Node::Value { chosen, options } => {
                let value = (chosen + 1..options).find(|&value| !is_given(value))?;
                Some((value, 0))
            }
        }
    }

    /// A node as it will be when the present choice is explored.
    fn as_given(&self, given: Given) -> Node {
        match &self.nodes[given.node] {
            Node::Act { performed, sleep, wakeup, .. } => {
                let mut sleep = sleep.clone();
                let races_known = is_all_known(&sleep);
                sleep.extend(performed.map(|performed| Asleep::of(performed, races_known)));
                let next = wakeup.iter().filter(|branch| branch.step.actor == given.choice);
                next.clone().for_each(|branch| lay_asleep(&mut sleep, branch));
                Node::act(sleep, next.cloned().collect())
            }
            &Node::Value { options, .. } => Node::Value { chosen: given.choice, options },
        }
    }

    /// What was given away and nobody has begun is made here.
    pub(crate) fn take_back(&mut self, ticket: u64) {
        self.given.retain(|given| given.ticket != ticket);
        self.next = Next::Run;
    }

    /// Goes on from where another has got to with what was given to it, whose turn has come.
    pub(crate) fn adopt(&mut self, ticket: u64, mut other: Self) {
        self.given.retain(|given| given.ticket != ticket);
        let node = other.floor - 1;
        let behind = other.nodes.split_off(other.floor);
        match (&mut self.nodes[node], other.nodes.pop()) {
            (Node::Act { chosen, performed, wakeup, .. }, Some(Node::Act { chosen: its, performed: done, .. })) => {
                *chosen = its;
                *performed = done;
                // The runs that were made there have followed it.
                wakeup[0].then.clear();
            }
            (Node::Value { .. }, Some(Node::Value { .. })) => {}
            _ => unreachable!("the node is the same one"),
        }
        for (node, way, known) in other.told.take().unwrap_or_default().ways {
            if node >= self.floor {
                self.keep(node, way, &known);
            } else if let Some(told) = &mut self.told {
                told.ways.push((node, way, known));
            }
        }
        self.nodes.extend(behind);
        self.given.append(&mut other.given);
        self.stale.append(&mut other.stale);
        self.unsupported = self.unsupported.or(other.unsupported);
        self.next = if other.next == Next::Over { self.advance() } else { other.next };
    }

    /// Keeps a way from a node above, unless it is explored there.
    pub(super) fn tell(&mut self, node: usize, way: Vec<Step>) {
        let Node::Act { sleep, wakeup, .. } = &self.nodes[node] else { unreachable!("an event's node is of an event") };
        let known = &self.names.known;
        if is_explored(sleep, &way, known) || wakeup.first().is_some_and(|branch| is_begun(branch, &way, known)) {
            return;
        }
        if let Some(told) = &mut self.told {
            let known = Arc::clone(told.known.get_or_insert_with(|| Arc::new(known.clone())));
            told.ways.push((node, way, known));
        }
    }
}
