//! The parts of a search.

use super::tree::{Branch, Step};
use super::{Asleep, Named, Node, Search};
use crate::schedule::DIVIDED;

impl Node {
    /// True where something is left to be explored.
    fn is_open(&self) -> bool {
        match self {
            Self::Act { wakeup, chosen, .. } => wakeup.len() > usize::from(chosen.is_some()),
            Self::Value { chosen, options } => chosen + 1 < *options,
        }
    }

    /// What a part keeps of a node before its first.
    fn passed(&self) -> Self {
        match self {
            Self::Act { chosen, sleep, .. } => {
                Self::Act { chosen: *chosen, performed: None, able: Vec::new(), sleep: sleep.clone(), wakeup: Vec::new() }
            }
            &Self::Value { chosen, options } => Self::Value { chosen, options },
        }
    }
}

impl Search {
    /// Divides what is left of the search into parts, in the order in which they count.
    pub(crate) fn split(mut self) -> Vec<Self> {
        let open = (self.floor..self.nodes.len()).filter(|&node| self.nodes[node].is_open());
        let Some(last) = open.take(DIVIDED).last() else { return vec![self] };
        let mut parts = Vec::new();
        for node in (self.floor..=last).rev() {
            self.branches(node, &mut parts);
        }
        if last + 1 < self.nodes.len() {
            self.floor = last + 1;
            parts.insert(0, self);
        }
        parts
    }

    /// The parts that begin with what can still come at a node.
    fn branches(&mut self, node: usize, parts: &mut Vec<Self>) {
        let begun = node + 1 < self.nodes.len();
        let passed = || self.nodes[..node].iter().map(Node::passed).collect::<Vec<_>>();
        let part = |first| Self {
            names: self.names.copied(),
            nodes: passed().into_iter().chain([first]).collect(),
            floor: node + 1,
            early: self.early,
            turned_out: self.turned_out,
            divided_by: Some(self.turned_out),
            ..Self::default()
        };
        match &self.nodes[node] {
            &Node::Value { chosen, options } => {
                let values = chosen + u32::from(begun)..options;
                parts.extend(values.map(|chosen| part(Node::Value { chosen, options })));
            }
            Node::Act { chosen, performed, able, sleep, wakeup } => {
                let mut sleep = sleep.clone();
                sleep.extend(performed.filter(|_| chosen.is_some()).map(|performed| Asleep::of(performed, false)));
                let planned = wakeup.iter().filter(|branch| Some(branch.step.actor) != *chosen);
                let mut branches: Vec<Branch> = planned.cloned().collect();
                let is_new = |able: &&Named| {
                    !sleep.iter().any(|asleep| asleep.actor == able.actor)
                        && !branches.iter().any(|branch| branch.step.actor == able.actor)
                };
                let others: Vec<_> = able.iter().filter(is_new).map(|able| Branch::to(*able)).collect();
                branches.extend(others);
                for branch in branches {
                    let actor = branch.step.actor;
                    let Step { number, operation, .. } = branch.step;
                    let unsure = |able: &Named| Named { operation: able.operation.unsure(self.turned_out), ..*able };
                    let first = able.iter().find(|able| able.actor == actor).map(unsure);
                    parts.push(part(Node::act(sleep.clone(), vec![branch])));
                    sleep.push(Asleep::of(first.unwrap_or(Named { actor, number, operation }), false));
                }
            }
        }
    }
}
