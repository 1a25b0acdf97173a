//! All schedules with a bounded number of preemptions.
//!
//! Most bugs need few (Musuvathi, Qadeer: PLDI 2007): with a bound of 1 or 2 a small program is searched soon, also one that has more threads than processors.

use super::{DIVIDED, Decision, Finished, Policy};
use std::cell::RefCell;
use std::rc::Rc;

#[derive(Clone, Copy, Debug)]
struct Node {
    chosen: u32,
    options: u32,
    /// The options from here on take a turn from a context that could go on.
    preempting_from: u32,
    /// How many preemptions there are before.
    before: u32,
}

/// The search, from run to run.
#[derive(Debug, Default)]
pub(crate) struct BoundedSearch {
    most: u32,
    nodes: Vec<Node>,
    at: usize,
    /// The nodes before this one are other parts' business.
    floor: usize,
}

impl BoundedSearch {
    pub(crate) fn new(most: u32) -> Self {
        Self { most, ..Self::default() }
    }

    fn choose(&mut self, decision: &Decision<'_>) -> u32 {
        if self.at == self.nodes.len() {
            let before = self.nodes.last().map_or(0, |node| node.preemptions());
            let preempting_from = if decision.preempts(1) { 1 } else { decision.len() };
            self.nodes.push(Node { chosen: 0, options: decision.len(), preempting_from, before });
        }
        let node = &self.nodes[self.at];
        self.at += 1;
        node.chosen.min(decision.len() - 1)
    }

    /// The present run is over.
    pub(crate) fn finish(&mut self) -> Finished {
        self.nodes.truncate(self.at.max(self.floor));
        self.at = 0;
        while self.nodes.len() > self.floor
            && let Some(node) = self.nodes.last_mut()
        {
            if let Some(next) = node.next(self.most) {
                *node = next;
                return Finished { counts: true, more: true };
            }
            self.nodes.pop();
        }
        Finished { counts: true, more: false }
    }

    /// Divides what is left of the search into parts, in the order in which they count.
    pub(crate) fn split(mut self) -> Vec<Self> {
        // The last node has its next choice already.
        let Some(before) = self.nodes.len().checked_sub(1) else { return vec![self] };
        let open = (self.floor..before).filter(|&node| self.nodes[node].next(self.most).is_some());
        let Some(last) = open.take(DIVIDED).last() else { return vec![self] };
        let mut parts = Vec::new();
        for node in (self.floor..=last).rev() {
            if let Some(next) = self.nodes[node].next(self.most) {
                let nodes = self.nodes[..node].iter().copied().chain([next]).collect();
                parts.push(Self { most: self.most, nodes, at: 0, floor: node });
            }
        }
        self.floor = last + 1;
        parts.insert(0, self);
        parts
    }
}

impl Node {
    /// The node with its next choice.
    fn next(self, most: u32) -> Option<Self> {
        let next = Self { chosen: self.chosen + 1, ..self };
        (next.chosen < next.options && next.preemptions() <= most).then_some(next)
    }

    fn preemptions(self) -> u32 {
        self.before + u32::from(self.chosen >= self.preempting_from)
    }
}

/// The policy of one run.
#[derive(Debug)]
pub(crate) struct Bounded(pub(crate) Rc<RefCell<BoundedSearch>>);

impl Policy for Bounded {
    fn choose(&mut self, decision: &Decision<'_>) -> u32 {
        self.0.borrow_mut().choose(decision)
    }
}
