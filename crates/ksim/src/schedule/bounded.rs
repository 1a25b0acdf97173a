//! All schedules with a bounded number of preemptions.
//!
//! Most bugs need few (Musuvathi, Qadeer: PLDI 2007): with a bound of 1 or 2 a small program is searched soon, also one that has more threads than processors.

use super::{Decision, Policy};
use std::cell::RefCell;
use std::rc::Rc;

#[derive(Debug)]
struct Node {
    chosen: u32,
    options: u32,
    /// The options from here on take a turn from a context that could go on.
    preempting_from: u32,
    /// How many preemptions there are before.
    before: u32,
}

/// The search, from run to run.
#[derive(Debug)]
pub(crate) struct BoundedSearch {
    most: u32,
    nodes: Vec<Node>,
    at: usize,
}

impl BoundedSearch {
    pub(crate) fn new(most: u32) -> Self {
        Self { most, nodes: Vec::new(), at: 0 }
    }

    fn choose(&mut self, decision: &Decision<'_>) -> u32 {
        if self.at == self.nodes.len() {
            let before = self.nodes.last().map_or(0, Node::preemptions);
            let preempting_from = if decision.preempts(1) { 1 } else { decision.len() };
            self.nodes.push(Node { chosen: 0, options: decision.len(), preempting_from, before });
        }
        let node = &self.nodes[self.at];
        self.at += 1;
        node.chosen.min(decision.len() - 1)
    }

    /// The present run is over. False when all have been made.
    pub(crate) fn finish(&mut self) -> bool {
        self.nodes.truncate(self.at);
        self.at = 0;
        while let Some(node) = self.nodes.last_mut() {
            node.chosen += 1;
            if node.chosen < node.options && node.preemptions() <= self.most {
                return true;
            }
            self.nodes.pop();
        }
        false
    }
}

impl Node {
    fn preemptions(&self) -> u32 {
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
