//! A seeded random walk.

use super::Policy;
use rand_core::Rng;
use rand_pcg::Pcg64;

/// Chooses uniformly. The generator is PCG XSL RR 128/64 (LCG), which is specified, so that a seed means the same on every host.
#[derive(Debug)]
pub struct Random {
    generator: Pcg64,
}

impl Random {
    /// A walk determined by `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // The stream is an arbitrary constant; the seed alone tells runs apart.
        Self { generator: Pcg64::new(u128::from(seed), 0xa02b_dbf7_bb3c_0a7a_c28f_a16a_64ab_f96d) }
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
