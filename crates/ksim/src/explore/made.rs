//! What the runs of a search came to that plans them.

use super::Allowed;
use super::token::Choice;
use crate::check::rules::RuleId;
use crate::machine::Recorded;

/// What became of some runs, one after the other.
#[derive(Default)]
pub(super) struct Made {
    /// The class of each run that counts.
    pub(super) classes: Vec<u64>,
    /// Which of them failed, and the choices of the first of these.
    pub(super) failures: Vec<u64>,
    pub(super) choices: Vec<Choice>,
    /// Which of them ended early, and the rules that were broken there.
    pub(super) allowed: Vec<(u64, RuleId)>,
    pub(super) has_fault: bool,
    pub(super) unsupported: Option<&'static str>,
    /// The host's time was up before the end.
    pub(super) is_late: bool,
}

impl Made {
    /// A run was made. True if it counts and failed.
    pub(super) fn record(&mut self, run: Recorded, counts: bool) -> bool {
        self.has_fault |= run.outcome.has_fault();
        if !counts {
            return false;
        }
        self.classes.push(run.class);
        let number = self.classes.len() as u64 - 1;
        self.allowed.extend(run.outcome.allowed().map(|rule| (number, rule.id)));
        let failed = run.outcome.is_failure();
        if failed {
            if self.failures.is_empty() {
                self.choices = run.choices;
            }
            self.failures.push(number);
        }
        failed
    }

    /// What comes after it.
    pub(super) fn append(&mut self, other: Self) {
        let before = self.classes.len() as u64;
        if self.failures.is_empty() {
            self.choices = other.choices;
        }
        self.failures.extend(other.failures.iter().map(|number| before + number));
        self.allowed.extend(other.allowed.iter().map(|(number, rule)| (before + number, *rule)));
        self.classes.extend(other.classes);
        self.has_fault |= other.has_fault;
        self.unsupported = self.unsupported.or(other.unsupported);
        self.is_late |= other.is_late;
    }

    /// Counts those of the first runs that ended early.
    pub(super) fn count_allowed(&self, runs: u64, allowed: &mut Allowed) {
        self.allowed.iter().filter(|(number, _)| *number < runs).for_each(|(_, rule)| allowed.count(*rule));
    }
}
