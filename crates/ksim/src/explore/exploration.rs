//! What a search came to.

use super::{Allowed, tell};
use crate::Outcome;
use crate::check::rules::Rule;
use std::fmt;
use std::time::Duration;

/// Tokens that are longer are not shown.
const LONGEST_SHOWN: usize = 4_000;

/// A schedule that fails.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failure {
    /// How the run ended, with its trace.
    pub outcome: Outcome,
    /// Stands for the schedule: [`Explore::replay`](super::Explore::replay) repeats it, as `KSIM_REPLAY` does.
    pub token: String,
    /// The number of the schedule in the search, from 0. A replay has no other than 0.
    pub schedule: u64,
    /// How often the schedule takes the turn from a context that could go on.
    pub preemptions: usize,
    /// The token of the schedule as it was found, which fails in the same way and is larger.
    pub found: String,
    /// It was not searched for.
    pub(super) replayed: bool,
    /// How often the clock could move early, where the environment says so.
    pub(super) early_expiries: Option<u32>,
}

impl Failure {
    /// What to put before the command that runs the test, to repeat the failure: `KSIM_REPLAY=token`.
    #[must_use]
    pub fn replay_line(&self) -> String {
        match self.early_expiries {
            Some(most) => format!("{}={most} {}={}", super::EARLY_EXPIRIES, super::REPLAY, self.token),
            None => format!("{}={}", super::REPLAY, self.token),
        }
    }

    fn found_by(&self) -> String {
        if self.replayed { "the replayed schedule".to_owned() } else { format!("schedule {}", self.schedule) }
    }

    /// The report as JSON, with the line that repeats it. See [`Report::to_json`](crate::Report::to_json).
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        self.outcome.report().replay(Some(&self.replay_line())).to_json()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let turns = match self.preemptions {
            1 => "1 turn was".to_owned(),
            number => format!("{number} turns were"),
        };
        let replay = match self.token.len() {
            length if length > LONGEST_SHOWN => format!("a token of {length} characters: see Failure::token"),
            _ => self.replay_line(),
        };
        let report = self.outcome.report().replay(Some(&replay));
        write!(f, "{report}\nfound by {}; {turns} taken from a context that could go on", self.found_by())
    }
}

/// What a search came to.
#[derive(Clone, Debug)]
pub struct Exploration {
    pub(super) executions: u64,
    pub(super) distinct: u64,
    pub(super) exhausted: bool,
    pub(super) elapsed: Duration,
    pub(super) failures: u64,
    pub(super) allowed: Allowed,
    pub(super) failure: Option<Box<Failure>>,
}

impl Exploration {
    /// How many schedules were run.
    #[must_use]
    pub fn executions(&self) -> u64 {
        self.executions
    }

    /// How many of them differ by more than the order of operations that do not depend on each other. Operations of which that is not known count as dependent on each other only, so that an exhaustive
    /// search may have to run more.
    #[must_use]
    pub fn distinct(&self) -> u64 {
        self.distinct
    }

    /// True when no schedule is left that would differ from those that were run, and all of these were run to their ends: none ended early at a breach of a rule that is [off](Self::allowed), as nothing behind such a
    /// breach is known.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    /// How long it took by the host's clock.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// How many schedules failed: at most one, unless the search was to [keep going](super::Explore::keep_going).
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// How many schedules ended early at a breach of a rule that is [off](crate::Machine::check_rule), by rule, in the order of [`rules`](crate::rules). What would have come behind the breach was not run in these, so that the
    /// search says nothing about it, and is not exhausted. They are no failures.
    ///
    /// # Example
    /// ```
    /// use ksim::{Machine, RuleId, explore};
    /// use ksync_sys::KeLowerIrql;
    ///
    /// let machine = Machine::new().check_rule(RuleId::IrqlKeRaiseLower2, false);
    /// // SAFETY: none is needed: the call is wrong, and ends the run.
    /// let search = explore().machine(machine).schedules(20).check(|| unsafe { KeLowerIrql(1) });
    /// let allowed: Vec<_> = search.expect_clean().allowed().map(|(rule, schedules)| (rule.name, schedules)).collect();
    /// assert_eq!(allowed, [("IrqlKeRaiseLower2", 20)]);
    /// ```
    pub fn allowed(&self) -> impl ExactSizeIterator<Item = (&'static Rule, u64)> {
        self.allowed.by_rule()
    }

    /// The failure of the lowest schedule that failed.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_deref()
    }

    /// Passes a search on that found nothing. If schedules [ended early](Self::allowed), standard error says so.
    ///
    /// # Panics
    /// If a schedule failed, with the whole report.
    #[track_caller]
    pub fn expect_clean(&self) -> &Self {
        if let Some(failure) = &self.failure {
            let replay = failure.replay_line();
            let report = failure.outcome.report().replay(Some(&replay)).colored_for_terminal();
            panic!("{report}\nfound by {}", failure.found_by());
        }
        if !self.allowed.is_empty() {
            tell(&format!("of {} schedules, {}", self.executions, self.allowed));
        }
        self
    }

    /// The failure that the search found.
    ///
    /// # Panics
    /// If it found none.
    #[track_caller]
    #[must_use]
    pub fn expect_failure(&self) -> &Failure {
        match &self.failure {
            Some(failure) => failure,
            None => panic!("expected a failure, but: {self}"),
        }
    }
}

impl fmt::Display for Exploration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} schedules, ", self.executions)?;
        if self.exhausted {
            f.write_str("which are all there are")?;
        } else {
            write!(f, "{} of them distinct", self.distinct)?;
        }
        write!(f, ", in {:.1?}", self.elapsed)?;
        if !self.allowed.is_empty() {
            write!(f, "\nincomplete: {}", self.allowed)?;
        }
        if let Some(failure) = &self.failure {
            write!(f, "\n{failure}")?;
        }
        Ok(())
    }
}
