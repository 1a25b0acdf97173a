//! Partial order sampling (Yuan, Yang, Gu: CAV 2018).
//!
//! Each pending operation has a random priority, and the highest is performed. Those that raced with it then draw anew, so that what does not matter is not drawn again.

use super::random::Draws;
use super::{Actor, Decision, Policy};
use smallvec::SmallVec;

/// Random priorities of operations.
#[derive(Debug)]
pub struct Pos {
    draws: Draws,
    /// For each context, how many operations it had performed when it drew, and what it drew.
    drawn: SmallVec<[(Actor, u32, u64); 8]>,
}

impl Pos {
    /// Priorities determined by `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with(Draws::new(seed))
    }

    pub(super) fn with(draws: Draws) -> Self {
        Self { draws, drawn: SmallVec::new() }
    }

    fn priority(&mut self, actor: Actor, performed: u32) -> u64 {
        match self.drawn.iter_mut().find(|(known, ..)| *known == actor) {
            Some((_, at, priority)) => {
                if *at != performed {
                    (*at, *priority) = (performed, self.draws.any());
                }
                *priority
            }
            None => {
                let priority = self.draws.any();
                self.drawn.push((actor, performed, priority));
                priority
            }
        }
    }
}

impl Policy for Pos {
    fn choose(&mut self, decision: &Decision<'_>) -> u32 {
        if !decision.is_about_contexts() {
            return self.draws.below(decision.len());
        }
        let mut best = (0, 0);
        for option in 0..decision.len() {
            let Some(standing) = decision.standing(option) else { return 0 };
            let priority = self.priority(standing.actor, standing.performed());
            if option == 0 || priority > best.1 {
                best = (option, priority);
            }
        }
        let Some(chosen) = decision.standing(best.0).map(|standing| standing.operation()) else { return 0 };
        for option in (0..decision.len()).filter(|&option| option != best.0) {
            let Some(other) = decision.standing(option) else { continue };
            if other.operation().depends_on(chosen)
                && let Some((.., priority)) = self.drawn.iter_mut().find(|(known, ..)| *known == other.actor)
            {
                *priority = self.draws.any();
            }
        }
        best.0
    }
}
