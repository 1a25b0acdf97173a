//! A schedule in the order of its contexts, followed as far as it can be.

use super::{Decision, Policy};

/// Lets contexts act in an order that an earlier run had, or nearly had.
#[derive(Debug)]
pub(crate) struct Guided {
    /// For each choice, the context that acts, by its index. None for other choices.
    order: Vec<Option<u32>>,
}

impl Guided {
    pub(crate) fn new(order: &[Option<u32>]) -> Self {
        // The next is the last.
        Self { order: order.iter().rev().copied().collect() }
    }
}

impl Policy for Guided {
    fn choose(&mut self, decision: &Decision<'_>) -> u32 {
        if !decision.is_about_contexts() {
            return 0;
        }
        // The first of those that are still to act and can.
        for place in (0..self.order.len()).rev() {
            let Some(wanted) = self.order[place] else { continue };
            let option = (0..decision.len())
                .find(|&option| decision.candidate(option).is_some_and(|candidate| candidate.actor.index() == wanted));
            if let Some(option) = option {
                self.order.remove(place);
                return option;
            }
        }
        0
    }
}
