//! Who acts next: one search policy per file.
//!
//! Everything in a run that NT leaves open is one call of [`Policy::choose`]: which processor performs the next visible
//! operation, whether a quantum ends here, which waiting processor gets a freed spin lock. A policy and its seed
//! therefore determine a run completely.

mod random;

pub use random::Random;

/// Decides what NT leaves open.
pub trait Policy: std::fmt::Debug {
    /// Picks one of `options` (at least 2) possibilities, numbered from 0. At a scheduling point, 0 is "the same processor goes on".
    fn choose(&mut self, options: u32) -> u32;
}
