//! Smaller schedules that fail in the same way.
//!
//! The choices that are not the uneventful one are taken back, many at a time and then one by one, as long as the run still fails as it did; and what a context does in
//! two turns is put into one. Each of these tries one change at a time, and may stop above what the failure needs: so then all schedules with fewer turns taken from
//! contexts that could go on are run, none at first, then one and so on, as far as they are not too many. What remains has the fewest such turns, and then few choices.

use super::Explore;
use super::token::Choice;
use crate::machine::Keep;
use crate::report::{End, Outcome};
use crate::schedule::{Bounded, BoundedSearch, Guided, Policy, Replay};
use std::cell::RefCell;
use std::rc::Rc;

/// How many runs, and how many scheduling points in all, are spent at most.
const MOST_RUNS: u32 = 1_000;
const MOST_POINTS: u64 = 20_000_000;

/// How many of them the search for fewer turns may have on top.
const MOST_BOUNDED_RUNS: u32 = 2_000;

/// How many choices are few.
const FEW: usize = 24;

/// What is to be small, the most important first.
type Size = (usize, usize, usize);

fn size(choices: &[Choice]) -> Size {
    let eventful = choices.iter().filter(|choice| choice.value != 0).count();
    let used = choices.iter().rposition(|choice| choice.value != 0).map_or(0, |last| last + 1);
    (preemptions(choices), eventful, used)
}

/// How often a turn is taken from a context that could go on.
pub(super) fn preemptions(choices: &[Choice]) -> usize {
    choices.iter().filter(|choice| choice.preempts).count()
}

/// True when both are one failure, as far as can be told.
fn is_same(first: &Outcome, second: &Outcome) -> bool {
    match (first.end(), second.end()) {
        (End::Completed, End::Completed) | (End::Deadlock(_), End::Deadlock(_)) | (End::StepLimit(_), End::StepLimit(_)) => {
            first.is_failure() == second.is_failure()
        }
        (End::BugCheck(first), End::BugCheck(second)) => {
            // The first parameter is the kind of violation for Driver Verifier, and an address for many others.
            let small = |parameter: u64| parameter < 1 << 32;
            first.code == second.code
                && (first.parameters[0] == second.parameters[0] || !(small(first.parameters[0]) && small(second.parameters[0])))
        }
        (End::Panic(first), End::Panic(second)) => first.location == second.location,
        _ => false,
    }
}

struct Shrinking<'a> {
    explore: &'a Explore,
    program: &'a dyn Fn(),
    failure: &'a Outcome,
    best: Vec<Choice>,
    runs: u32,
    points: u64,
}

/// A schedule that fails like this one and is at most as large.
pub(super) fn shrink(explore: &Explore, failure: &Outcome, choices: Vec<Choice>, program: &dyn Fn()) -> Vec<Choice> {
    let mut shrinking = Shrinking { explore, program, failure, best: choices, runs: 0, points: 0 };
    while shrinking.pass() {}
    if shrinking.search_fewer() {
        while shrinking.pass() {}
    }
    shrinking.best
}

impl Shrinking<'_> {
    fn is_spent(&self) -> bool {
        self.runs >= MOST_RUNS || self.points >= MOST_POINTS
    }

    /// Runs with these choices, as far as they can be made. True when that is a smaller way to the same failure, which is kept.
    fn try_choices(&mut self, choices: &[Choice]) -> bool {
        self.try_policy(Box::new(Replay::lenient(choices)))
    }

    fn try_policy(&mut self, policy: Box<dyn Policy>) -> bool {
        let machine = self.explore.faulty_machine().record_trace(false);
        let run = machine.run_recorded(policy, Keep::Choices(Vec::new()), self.program);
        self.runs += 1;
        self.points += run.outcome.statistics().scheduling_points;
        if !is_same(self.failure, &run.outcome) || size(&run.choices) >= size(&self.best) {
            return false;
        }
        self.best = run.choices;
        true
    }

    /// Takes back choices, half of them at a time, then a quarter, and so on. True when one of it made the schedule smaller.
    fn pass(&mut self) -> bool {
        let before = size(&self.best);
        let mut part = self.eventful().len();
        while part > 0 {
            let mut from = 0;
            loop {
                let eventful = self.eventful();
                if from >= eventful.len() || self.is_spent() {
                    break;
                }
                let mut choices = self.best.clone();
                for &place in &eventful[from..eventful.len().min(from + part)] {
                    choices[place].value = 0;
                }
                if !self.try_choices(&choices) {
                    // Where there are few, also those of two parts together.
                    from += if eventful.len() <= FEW { 1 } else { part };
                }
            }
            part /= 2;
        }
        self.join_turns();
        size(&self.best) < before && !self.is_spent()
    }

    /// Runs the schedules that take fewer turns than the best. True when one of them is a way to the same failure.
    fn search_fewer(&mut self) -> bool {
        let (most_runs, most_points) = (self.runs + MOST_BOUNDED_RUNS, self.points + MOST_POINTS);
        for fewer in 0..preemptions(&self.best) {
            let search = Rc::new(RefCell::new(BoundedSearch::new(fewer as u32)));
            loop {
                if self.try_policy(Box::new(Bounded(Rc::clone(&search)))) {
                    // What there is left of runs is for making it shorter.
                    self.runs = self.runs.min(MOST_RUNS / 2);
                    self.points = self.points.min(MOST_POINTS / 2);
                    return true;
                }
                if self.runs >= most_runs || self.points >= most_points {
                    return false;
                }
                if !search.borrow_mut().finish().more {
                    break;
                }
            }
        }
        false
    }

    /// Lets contexts have fewer turns: one is left out, or changes places with the next, or a context does at once what it does in two.
    fn join_turns(&mut self) {
        let mut from = 0;
        while !self.is_spent() {
            let order: Vec<_> = self.best.iter().map(|choice| choice.actor).collect();
            let turns: Vec<&[Option<u32>]> = order.chunk_by(|first, second| first == second).collect();
            let Some(turn) = turns.get(from) else { return };
            let (before, behind) = (turns[..from].concat(), turns[from + 1..].concat());
            let mut orders = vec![[&before[..], &behind[..]].concat()];
            if let Some(next) = turns.get(from + 1) {
                orders.push([&before[..], next, turn, &turns[from + 2..].concat()].concat());
            }
            if let Some(again) = (from + 1..turns.len()).find(|&again| turns[again][0] == turn[0]) {
                let (between, behind) = (turns[from + 1..again].concat(), turns[again + 1..].concat());
                orders.push([&before[..], turn, turns[again], &between[..], &behind[..]].concat());
                orders.push([&before[..], &between[..], turn, turns[again], &behind[..]].concat());
            }
            if !orders.iter().any(|order| self.try_policy(Box::new(Guided::new(order)))) {
                from += 1;
            }
        }
    }

    /// Where the choices are that are not the uneventful one.
    fn eventful(&self) -> Vec<usize> {
        self.best.iter().enumerate().filter(|(_, choice)| choice.value != 0).map(|(place, _)| place).collect()
    }
}
