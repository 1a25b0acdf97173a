//! Uniform random walk (Zhao, Wolff, Mathur, Roychoudhury: ASPLOS 2025).
//!
//! A context is chosen with a probability that is proportional to the number of operations that are left to it, so that all interleavings of independent contexts are equally
//! likely, where a plain random walk prefers those in which they end together. The numbers come from an earlier run.

use super::random::Draws;
use super::{Decision, Estimate, Policy};
use smallvec::SmallVec;
use std::sync::Arc;

/// A walk weighted by what is left to do.
#[derive(Debug)]
pub struct Urw {
    draws: Draws,
    estimate: Arc<Estimate>,
    weights: SmallVec<[u32; 16]>,
}

impl Urw {
    pub(super) fn with(draws: Draws, estimate: Arc<Estimate>) -> Self {
        Self { draws, estimate, weights: SmallVec::new() }
    }
}

impl Policy for Urw {
    fn choose(&mut self, decision: &Decision<'_>) -> u32 {
        if !decision.is_about_contexts() {
            return self.draws.below(decision.len());
        }
        self.weights.clear();
        let mut total = 0_u32;
        for option in 0..decision.len() {
            let Some(standing) = decision.standing(option) else { return 0 };
            let expected = self.estimate.operations(standing.actor);
            // One that does more than expected has something left all the same.
            let left = expected.saturating_sub(standing.performed()).clamp(1, 1 << 20);
            total += left;
            self.weights.push(left);
        }
        let mut drawn = self.draws.below(total);
        for (option, &weight) in self.weights.iter().enumerate() {
            if drawn < weight {
                return option as u32;
            }
            drawn -= weight;
        }
        0
    }
}
