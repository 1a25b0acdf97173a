//! What a machine is configured with.

use crate::check::lock_order::Strictness;
use crate::check::rules::{RuleId, RuleSet};
use crate::engine::groups::Groups;
use crate::faults::Fault;
use crate::schedule::{Policy, Random};

/// How the clock reads and when timers expire (rule 57).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ClockMode {
    /// Timers expire exactly when they are due.
    Exact,
    /// Time advances in ticks of so many 100 ns units, and timers expire at the first tick at or after their due time.
    /// Windows' default tick is 15.625 ms: 156,250 units.
    Tick(u32),
}

impl ClockMode {
    /// Windows' default clock interval, 15.625 ms.
    pub const DEFAULT_TICK: Self = Self::Tick(156_250);
}

/// The Windows whose behaviour a machine shows where versions differ.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum OsProfile {
    /// Guarded mutexes are a primitive of their own.
    Windows7,
    /// From here on guarded mutexes are fast mutexes (rule 28).
    Windows8,
    /// Windows 10, before version 2004.
    Windows10,
    /// Windows 10 version 2004 and later: `ExAllocatePool2` exists.
    Windows10_2004,
    /// Windows 11.
    Windows11,
}

impl OsProfile {
    /// Major, minor and build number as `RtlGetVersion` reports them.
    #[must_use]
    pub const fn version(self) -> (u32, u32, u32) {
        match self {
            Self::Windows7 => (6, 1, 7601),
            Self::Windows8 => (6, 2, 9200),
            Self::Windows10 => (10, 0, 17763),
            Self::Windows10_2004 => (10, 0, 19041),
            Self::Windows11 => (10, 0, 22631),
        }
    }
}

/// Which runs have special pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum SpecialPool {
    /// Single runs, all of a systematic search, and some of another search.
    #[default]
    Some,
    All,
    Never,
}

/// The settings of one machine.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// How many processors there are, in all groups.
    pub(crate) processors: u8,
    pub(crate) groups: Groups,
    pub(crate) seed: u64,
    pub(crate) system_time: i64,
    pub(crate) clock: ClockMode,
    pub(crate) profile: OsProfile,
    pub(crate) pool_limit: usize,
    pub(crate) failing_allocation: Option<u64>,
    pub(crate) failing: Option<Fault>,
    pub(crate) step_limit: u64,
    /// How often in a run the clock may move while something else could act.
    pub(crate) early_expiries: u32,
    pub(crate) trace: bool,
    pub(crate) sites: bool,
    pub(crate) echo: bool,
    pub(crate) threaded_dpcs: bool,
    pub(crate) flushes_threaded_dpcs: bool,
    pub(crate) force_irql_checking: bool,
    pub(crate) special_pool: SpecialPool,
    /// The search that the run is of has made its first one.
    pub(crate) is_later: bool,
    /// Where some runs have special pool, this is one of them.
    pub(crate) is_sample: bool,
    /// Objects in statics are used: no other machine that uses any runs meanwhile.
    pub(crate) statics: bool,
    pub(crate) lock_order: Strictness,
    pub(crate) rules: RuleSet,
    /// In 100 ns units.
    pub(crate) dispatch_limit: u64,
    /// In calls of the kernel.
    pub(crate) dispatch_call_limit: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            processors: 1,
            groups: Groups::new(&[1]),
            seed: 0,
            // 2026-01-01 00:00:00 UTC, in 100 ns units since 1601.
            system_time: 134_116_992_000_000_000,
            clock: ClockMode::Exact,
            profile: OsProfile::Windows11,
            pool_limit: 1 << 30,
            failing_allocation: None,
            failing: None,
            step_limit: 2_000_000,
            early_expiries: 0,
            trace: true,
            sites: false,
            echo: false,
            threaded_dpcs: true,
            flushes_threaded_dpcs: true,
            force_irql_checking: false,
            special_pool: SpecialPool::default(),
            is_later: false,
            is_sample: true,
            statics: false,
            lock_order: Strictness::Certain,
            rules: RuleSet::default(),
            dispatch_limit: 200_000_000,
            dispatch_call_limit: 1_000_000,
        }
    }
}

impl Config {
    /// All settings that the choices of a run depend on, as text.
    pub(crate) fn choices_depend_on(&self) -> String {
        let Self { groups, system_time, clock, profile, pool_limit, failing_allocation, failing, threaded_dpcs, .. } = self;
        let mut all = format!(
            "{groups} {system_time} {clock:?} {profile:?} {pool_limit} {failing_allocation:?} {failing:?} {threaded_dpcs}"
        );
        if !self.flushes_threaded_dpcs {
            all += " unflushed";
        }
        if !self.asks_for_special_pool() {
            all += " ordinary";
        }
        if self.early_expiries > 0 {
            all += &format!(" {} early", self.early_expiries);
        }
        all
    }

    fn asks_for_special_pool(&self) -> bool {
        match self.special_pool {
            SpecialPool::Some => self.is_sample,
            SpecialPool::All => true,
            SpecialPool::Never => false,
        }
    }

    /// Whether blocks of pool have pages of their own. Who lets pass what they are for has ordinary ones, where that can go on.
    pub(crate) fn has_special_pool(&self) -> bool {
        const RULES: [RuleId; 4] =
            [RuleId::PoolOverrun, RuleId::PoolWrittenAfterFree, RuleId::FreedPoolTouched, RuleId::BeyondPoolTouched];
        self.asks_for_special_pool() && RULES.into_iter().all(|rule| self.rules.has(rule))
    }

    /// The run is that of a schedule of a search.
    pub(crate) fn set_schedule(&mut self, number: u64) {
        /// Of so many schedules, one is a sample.
        const SHARE: u64 = 16;
        // So that a part of the search has its share, whatever its numbers have in common.
        self.is_sample = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).is_multiple_of(SHARE);
    }

    pub(crate) fn policy(&self) -> Box<dyn Policy> {
        Box::new(Random::new(self.seed))
    }
}
