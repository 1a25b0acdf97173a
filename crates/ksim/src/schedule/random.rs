//! A seeded random walk.

use super::{Decision, Policy};
use rand_core::Rng;
use rand_pcg::Pcg64;

/// The generator's stream: an arbitrary constant. The seed alone tells runs apart.
const STREAM: u128 = 0xa02b_dbf7_bb3c_0a7a_c28f_a16a_64ab_f96d;

/// Random numbers. The generator is PCG XSL RR 128/64 (LCG), which is specified, so that a seed means the same on every host.
#[derive(Debug)]
pub(super) struct Draws(Pcg64);

impl Draws {
    pub(super) fn new(seed: u64) -> Self {
        Self(Pcg64::new(u128::from(seed), STREAM))
    }

    /// Those of one schedule of a search.
    pub(super) fn of_schedule(seed: u64, schedule: u64) -> Self {
        Self(Pcg64::new(u128::from(seed) << 64 | u128::from(schedule), STREAM))
    }

    /// A number below `bound`, which is at least 1.
    #[inline]
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        // Lemire's multiply-shift without the rejection step: the bias is below bound / 2^32.
        ((u64::from(self.0.next_u32()) * u64::from(bound)) >> 32) as u32
    }

    /// A number below `bound`, which is at least 1.
    pub(super) fn below_64(&mut self, bound: u64) -> u64 {
        ((u128::from(self.0.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Any number.
    #[inline]
    pub(super) fn any(&mut self) -> u64 {
        self.0.next_u64()
    }
}

/// Chooses uniformly.
#[derive(Debug)]
pub struct Random {
    draws: Draws,
}

impl Random {
    /// A walk determined by `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { draws: Draws::new(seed) }
    }

    pub(super) fn with(draws: Draws) -> Self {
        Self { draws }
    }
}

impl Policy for Random {
    #[inline]
    fn choose(&mut self, decision: &Decision<'_>) -> u32 {
        self.draws.below(decision.len())
    }

    fn looks(&self) -> bool {
        false
    }
}
