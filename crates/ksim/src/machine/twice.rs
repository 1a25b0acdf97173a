//! Runs that are compared with each other.

use super::{Keep, Machine, Recorded};
use crate::check::rules::RuleId;
use crate::report::Outcome;

impl Machine {
    /// [`run`](Self::run), twice, for whether the program decides anything by itself: by the host's clock, by addresses, by a `HashMap` or a static. Then neither a seed nor a token repeats
    /// what it does. The outcome is the second run's.
    ///
    /// # Panics
    /// - If the two runs differ: the message says where. (Not where rule Repetition is off.)
    /// - If called from code that runs on a machine already.
    ///
    /// # Examples
    /// ```should_panic
    /// use ksim::Machine;
    /// use std::sync::atomic::{AtomicU32, Ordering};
    ///
    /// static RUNS: AtomicU32 = AtomicU32::new(0);
    /// let _ = Machine::new().run_twice(|| {
    ///     // SAFETY: the call may be made anywhere.
    ///     unsafe { ksync_sys::KeStallExecutionProcessor(1 + RUNS.fetch_add(1, Ordering::Relaxed)) };
    /// });
    /// ```
    #[track_caller]
    #[must_use = "a bug check, a panic, a deadlock and a leak are all reported in the outcome and nowhere else"]
    pub fn run_twice(&self, main: impl Fn()) -> Outcome {
        let machine = self.clone().record_trace(true);
        let [first, second] = [(); 2].map(|()| machine.run_recorded(machine.config.policy(), Keep::Choices(Vec::new()), &main));
        if machine.config.rules.has(RuleId::Repetition)
            && let Some(difference) = first.difference(&second)
        {
            panic!("ksim: the program is not deterministic: {difference}");
        }
        second.outcome
    }
}

impl Recorded {
    /// Where two runs with their traces differ, if they do.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        let traces = [self, other].map(|run| String::from_utf8_lossy(&run.outcome.trace()).into_owned());
        let [mut one, mut another] = traces.each_ref().map(|trace| trace.lines());
        let mut number = 0;
        loop {
            number += 1;
            match (one.next(), another.next()) {
                (None, None) => break,
                (one, another) if one == another => {}
                (one, another) => {
                    let [one, another] = [one, another].map(|line| line.unwrap_or("its end"));
                    return Some(format!("line {number} of the trace is {one:?} in one run and {another:?} in another"));
                }
            }
        }
        let same = self.choices == other.choices && told(&self.outcome) == told(&other.outcome);
        (!same).then(|| format!("one run ended in {}, and another in {}", self.outcome, other.outcome))
    }
}

/// What two runs must have in common beside their traces. A breach that is allowed has parameters that are addresses.
fn told(outcome: &Outcome) -> String {
    outcome.allowed().map_or_else(|| outcome.to_string(), |rule| rule.name.to_owned())
}
