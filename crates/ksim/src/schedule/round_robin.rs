//! Taking turns.

use super::{Decision, Policy};

/// Lets contexts take turns: each performs a number of operations, then the next one has its turn.
#[derive(Debug)]
pub struct RoundRobin {
    operations: u32,
    left: u32,
}

impl RoundRobin {
    /// Turns of so many operations, at least 1.
    ///
    /// # Panics
    /// If the number is 0.
    #[must_use]
    pub fn new(operations: u32) -> Self {
        assert!(operations > 0, "a turn is at least one operation");
        Self { operations, left: operations }
    }
}

impl Policy for RoundRobin {
    fn choose(&mut self, decision: &Decision<'_>) -> u32 {
        let (Some(current), true) = (decision.candidate(0), decision.is_about_contexts()) else { return 0 };
        if self.left > 1 {
            self.left -= 1;
            return 0;
        }
        self.left = self.operations;
        // The next processor in order, cyclically: the others are in ascending order.
        let next = (1..decision.len()).find(|&option| {
            decision.ends_quantum(option) || decision.candidate(option).is_some_and(|other| other.processor > current.processor)
        });
        next.unwrap_or(1)
    }
}
