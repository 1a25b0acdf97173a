//! What the runs of a search came to that plans them.

use super::token::Choice;
use super::workers::fails;
use crate::machine::Recorded;

/// What became of some runs, one after the other.
#[derive(Default)]
pub(super) struct Made {
    /// The class of each run that counts.
    pub(super) classes: Vec<u64>,
    /// Which of them failed, and the choices of the first of these.
    pub(super) failures: Vec<u64>,
    pub(super) choices: Vec<Choice>,
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
        let failed = fails(&run.outcome);
        if failed {
            if self.failures.is_empty() {
                self.choices = run.choices;
            }
            self.failures.push(self.classes.len() as u64 - 1);
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
        self.classes.extend(other.classes);
        self.has_fault |= other.has_fault;
        self.unsupported = self.unsupported.or(other.unsupported);
        self.is_late |= other.is_late;
    }
}
