//! Runs that ended early, as a rule that is off was broken there.

use crate::Outcome;
use crate::check::rules::{Rule, RuleId};
use std::collections::BTreeMap;
use std::fmt;

/// How many runs did, by rule.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Allowed(BTreeMap<RuleId, u64>);

impl Allowed {
    /// A run was made.
    pub(crate) fn record(&mut self, outcome: &Outcome) {
        if let Some(rule) = outcome.allowed() {
            self.count(rule.id);
        }
    }

    pub(super) fn count(&mut self, rule: RuleId) {
        *self.0.entry(rule).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (&rule, runs) in &other.0 {
            *self.0.entry(rule).or_default() += runs;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    pub(super) fn by_rule(&self) -> impl ExactSizeIterator<Item = (&'static Rule, u64)> {
        self.0.iter().map(|(&rule, &runs)| (Rule::with(rule), runs))
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules: Vec<_> = self.by_rule().map(|(rule, runs)| format!("{} {runs}", rule.name)).collect();
        write!(f, "{} ended early, at breaches of rules that are off ({})", self.total(), rules.join(", "))
    }
}
