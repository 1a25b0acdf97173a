//! Probabilistic concurrency testing (Burckhardt, Kothari, Musuvathi, Nagarakatte: ASPLOS 2010).
//!
//! Contexts have random priorities, and the highest acts. At `depth - 1` random moments the one that acts falls below all others. A bug that needs `depth` ordering constraints
//! is hit with a probability of at least 1 / (n k^(depth - 1)), for n contexts and k choices.

use super::random::Draws;
use super::{Actor, Decision, Policy};
use smallvec::SmallVec;

/// Priorities that change `depth - 1` times.
#[derive(Debug)]
pub struct Pct {
    draws: Draws,
    /// The choices at which the acting context falls, ascending, and how many have come.
    changes: SmallVec<[u64; 4]>,
    fallen: usize,
    choice: u64,
    /// Who was chosen last, and how often in a row.
    row: (Option<Actor>, u32),
    /// How many have fallen for having been chosen too often in a row.
    greedy: u64,
    /// Threads' by their index, 0 for those that have none yet. A higher number acts first.
    threads: SmallVec<[u64; 8]>,
    /// Those of other contexts.
    others: SmallVec<[(Actor, u64); 4]>,
}

/// Above all priorities that contexts fall to.
const INITIAL: u64 = 1 << 32;
/// Below those that contexts fall to at the random moments.
const GREEDY: u64 = 1 << 31;
/// A context that is chosen so often in a row may wait in a loop for another, which must have its turn some time.
const LONGEST_ROW: u32 = 5_000;

impl Pct {
    /// For bugs of some depth, at least 1, in runs of about so many choices.
    ///
    /// # Panics
    /// If the depth is 0.
    #[must_use]
    pub fn new(seed: u64, depth: u32, choices: u64) -> Self {
        Self::with(Draws::new(seed), depth, choices)
    }

    pub(super) fn with(mut draws: Draws, depth: u32, choices: u64) -> Self {
        assert!(depth > 0, "the depth of a bug is at least 1");
        let mut changes: SmallVec<[u64; 4]> = (1..depth).map(|_| draws.below_64(choices.max(1))).collect();
        changes.sort_unstable();
        Self {
            draws,
            changes,
            fallen: 0,
            choice: 0,
            row: (None, 0),
            greedy: 0,
            threads: SmallVec::new(),
            others: SmallVec::new(),
        }
    }

    #[inline]
    fn priority(&mut self, actor: Actor) -> u64 {
        match actor.as_thread().and_then(|tid| self.threads.get(tid as usize)) {
            Some(&priority) if priority != 0 => priority,
            _ => self.other_priority(actor),
        }
    }

    /// The same for a context that is no thread, or has none yet.
    #[inline(never)]
    fn other_priority(&mut self, actor: Actor) -> u64 {
        if let Some((_, priority)) = self.others.iter().find(|(known, _)| *known == actor) {
            return *priority;
        }
        let priority = INITIAL | self.draws.any() >> 1;
        match actor.as_thread() {
            Some(tid) => {
                let length = self.threads.len().max(tid as usize + 1);
                self.threads.resize(length, 0);
                self.threads[tid as usize] = priority;
            }
            None => self.others.push((actor, priority)),
        }
        priority
    }

    /// Below all others, and those that fell before.
    fn fall(&mut self, actor: Actor) {
        self.greedy += 1;
        self.lower(actor, GREEDY.saturating_sub(self.greedy));
    }

    fn lower(&mut self, actor: Actor, to: u64) {
        // Nothing has none.
        let to = to.max(1);
        match actor.as_thread().and_then(|tid| self.threads.get_mut(tid as usize)) {
            Some(priority) => *priority = to,
            None => {
                if let Some((_, priority)) = self.others.iter_mut().find(|(known, _)| *known == actor) {
                    *priority = to;
                }
            }
        }
    }

    #[inline]
    fn highest(&mut self, decision: &Decision<'_>) -> Option<(u32, Actor)> {
        let mut best: Option<(u64, u32, Actor)> = None;
        for option in 0..decision.len() {
            let actor = decision.standing(option)?.actor;
            let priority = self.priority(actor);
            if best.is_none_or(|(highest, ..)| priority > highest) {
                best = Some((priority, option, actor));
            }
        }
        best.map(|(_, option, actor)| (option, actor))
    }
}

impl Policy for Pct {
    fn choose(&mut self, decision: &Decision<'_>) -> u32 {
        if !decision.is_about_contexts() {
            return self.draws.below(decision.len());
        }
        self.choice += decision.passed();
        self.row.1 += decision.passed() as u32;
        let choice = self.choice;
        self.choice += 1;
        while self.changes.get(self.fallen).is_some_and(|&change| change <= choice) {
            self.fallen += 1;
            let Some((_, actor)) = self.highest(decision) else { return 0 };
            // The later it falls, the lower.
            self.lower(actor, GREEDY + (self.changes.len() - self.fallen) as u64);
        }
        // Who stalls lets time pass for others to act in: it falls, as it would be chosen for ever in a loop.
        let Some((mut option, mut actor)) = self.highest(decision) else { return 0 };
        for _ in 1..decision.len() {
            if !decision.standing(option).is_some_and(|standing| standing.operation().lets_time_pass()) {
                break;
            }
            self.fall(actor);
            let Some(next) = self.highest(decision) else { return 0 };
            (option, actor) = next;
        }
        self.row = if self.row.0 == Some(actor) { (Some(actor), self.row.1 + 1) } else { (Some(actor), 1) };
        if self.row.1 < LONGEST_ROW {
            let before_change = self.changes.get(self.fallen).map_or(u64::MAX, |change| change - self.choice);
            decision.repeat(before_change.min((LONGEST_ROW - 1 - self.row.1).into()));
            return option;
        }
        self.row.1 = 0;
        self.fall(actor);
        self.highest(decision).map_or(0, |(option, _)| option)
    }
}
