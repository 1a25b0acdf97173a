//! Who acts next: one search policy per file.
//!
//! Everything in a run that NT leaves open is one call of [`Policy::choose`]: which processor performs the next visible
//! operation, whether a quantum ends here, which waiting processor gets a freed spin lock. A policy and its seed
//! therefore determine a run completely.

mod random;
mod replay;

pub use random::Random;
pub(crate) use replay::Replay;

/// Decides what NT leaves open.
pub trait Policy: std::fmt::Debug {
    /// Picks one of `options` (at least 2) possibilities, numbered from 0. At a scheduling point, 0 is "the same processor goes on".
    fn choose(&mut self, options: u32) -> u32;
}

/// How a search chooses schedules.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Strategy {
    /// A random walk: each choice is uniform.
    #[default]
    Random,
}

impl Strategy {
    /// The policy of one schedule of a search.
    pub(crate) fn policy(self, seed: u64, schedule: u64) -> Box<dyn Policy> {
        match self {
            Self::Random => Box::new(Random::of_schedule(seed, schedule)),
        }
    }
}
