//! A seeded random walk.

use super::Policy;
use rand_core::Rng;
use rand_pcg::Pcg64;

/// The generator's stream: an arbitrary constant. The seed alone tells runs apart.
const STREAM: u128 = 0xa02b_dbf7_bb3c_0a7a_c28f_a16a_64ab_f96d;

/// Chooses uniformly. The generator is PCG XSL RR 128/64 (LCG), which is specified, so that a seed means the same on every host.
#[derive(Debug)]
pub struct Random {
    generator: Pcg64,
}

impl Random {
    /// A walk determined by `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { generator: Pcg64::new(u128::from(seed), STREAM) }
    }

    /// The walk of one schedule of a search.
    pub(crate) fn of_schedule(seed: u64, schedule: u64) -> Self {
        Self { generator: Pcg64::new(u128::from(seed) << 64 | u128::from(schedule), STREAM) }
    }
}

impl Policy for Random {
    #[inline]
    fn choose(&mut self, options: u32) -> u32 {
        let random = self.generator.next_u32();
        // Lemire's multiply-shift without the rejection step: the bias is below options / 2^32.
        ((u64::from(random) * u64::from(options)) >> 32) as u32
    }
}
