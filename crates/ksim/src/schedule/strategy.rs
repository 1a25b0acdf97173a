//! How a search chooses its schedules.

use super::random::Draws;
use super::{Actor, Pct, Policy, Pos, Random, RoundRobin, Urw, portfolio};
use std::sync::Arc;

/// How a search chooses schedules.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Strategy {
    /// URW, POS, PCT of depth 2 and PCT of depth 3 in turn, for none finds all bugs soon.
    #[default]
    Portfolio,
    /// A random walk: each choice is uniform.
    Random,
    /// A random walk that weighs contexts by what is left to them, so that interleavings are equally likely.
    Urw,
    /// Partial order sampling: operations have random priorities.
    Pos,
    /// Probabilistic concurrency testing: contexts have random priorities that change `depth - 1` times.
    Pct {
        /// How many ordering constraints make up the bugs that are looked for, at least 1.
        depth: u32,
    },
    /// Turns of 1 operation, then of 2, of 3 and so on.
    RoundRobin,
    /// All schedules that differ by more than the order of independent operations, each once.
    ///
    /// For small programs. Each thread needs a processor of its own: the search panics where one has to wait for a processor. It is made on all OS threads, with the same runs in the
    /// same order as on one. `Explore::schedules` limits it only where it is called. Behind a run that ends in a bug check or a panic, which only a search that is told to keep going comes to, it may leave out some.
    Exhaustive,
    /// All schedules that take the turn from a context that could go on at most so many times.
    ///
    /// No two of them are the same, but many may differ in nothing that matters. `Explore::schedules` limits it only where it is called.
    Bounded {
        /// The most such times in one schedule.
        preemptions: u32,
    },
}

impl Strategy {
    /// True for those that plan each run by those before it.
    pub(crate) fn is_systematic(self) -> bool {
        matches!(self, Self::Exhaustive | Self::Bounded { .. })
    }
}

/// What is known of a program from its first run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Estimate {
    /// Choices in all.
    pub(crate) choices: u64,
    /// Operations of each thread, in order of creation.
    pub(crate) threads: Vec<u32>,
    /// Operations of the DPCs of each processor.
    pub(crate) dpcs: Vec<u32>,
}

impl Estimate {
    pub(super) fn operations(&self, actor: Actor) -> u32 {
        let list = if actor.is_dpcs() { &self.dpcs } else { &self.threads };
        list.get((actor.index() & 0x7fff_ffff) as usize).copied().unwrap_or(1)
    }
}

/// A strategy with what it needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) strategy: Strategy,
    pub(crate) seed: u64,
    pub(crate) estimate: Arc<Estimate>,
}

impl Planned {
    /// The policy of one schedule of a search, from 1. Schedule 0 is the uneventful run, which the estimate comes from.
    pub(crate) fn policy(&self, schedule: u64) -> Box<dyn Policy> {
        self.of(self.strategy, schedule)
    }

    fn of(&self, strategy: Strategy, schedule: u64) -> Box<dyn Policy> {
        let draws = Draws::of_schedule(self.seed, schedule);
        match strategy {
            Strategy::Portfolio => self.of(portfolio::turn(schedule - 1), schedule),
            Strategy::Random => Box::new(Random::with(draws)),
            Strategy::Urw => Box::new(Urw::with(draws, Arc::clone(&self.estimate))),
            Strategy::Pos => Box::new(Pos::with(draws)),
            Strategy::Pct { depth } => Box::new(Pct::with(draws, depth, self.estimate.choices)),
            Strategy::Exhaustive | Strategy::Bounded { .. } => {
                unreachable!("a systematic search plans its runs one after the other")
            }
            Strategy::RoundRobin => Box::new(RoundRobin::new(u32::try_from(schedule).unwrap_or(u32::MAX))),
        }
    }
}
