//! All schedules that differ by more than the order of independent operations, each once: optimal dynamic partial-order reduction
//! (Abdulla, Aronis, Jonsson, Sagonas: POPL 2014, JACM 2017).
//!
//! A run is a sequence of events, each of which is one operation of one context. After a run, every pair of dependent events of two contexts that could as well happen the
//! other way round is a *race*. The way to its reversal is kept where the runs part, in a *wakeup tree*; what has been explored from there is in its *sleep set*. A run
//! that would only repeat another in a different order is never begun.
//!
//! # Waiting
//! A context that wants what another has is not let begin to wait: "wait, then be given it" and "come when it is free" differ in nothing that a driver can see. So a
//! release and an acquisition are in the order that the program has them in, and never a race, and the races between acquisitions are found behind them. When all
//! contexts want what others have, they are let wait: that is the deadlock, or the clock moves.
//!
//! # The clock
//! Where the clock may move early, that is an event of a context of its own, which depends on all others. What acts may end the wait or cancel the timer that it would have let
//! expire, so that its event is planned wherever it can happen.
//!
//! # Names
//! Contexts and objects are known by what created or used them, and not by numbers or addresses: those depend on the order of things that are independent. An operation is
//! the same one in two runs if all that happens before it is the same; then its object is the same one too. Names are given as soon as operations are announced, so that what is asleep
//! has those that the present run uses.

mod names;
mod races;
mod tree;

use super::{Actor, Decision, Event, Footprint, Policy};
use names::Names;
use races::{Clock, Done};
use std::cell::RefCell;
use std::rc::Rc;
use tree::{Branch, Step};

/// An operation, by the names of what it touches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Named {
    actor: u32,
    operation: Footprint,
}

/// A place where runs can part.
#[derive(Debug)]
enum Node {
    Act {
        /// The context that acts in the present run, and what it does there.
        chosen: Option<u32>,
        operation: Footprint,
        /// What has been explored from here, and need not come first again.
        sleep: Vec<Named>,
        /// What is to be explored from here, in this order. The first is the present run's.
        wakeup: Vec<Branch>,
    },
    /// Something else that NT leaves open.
    Value { chosen: u32, options: u32 },
}

/// The search, from run to run.
#[derive(Debug, Default)]
pub(crate) struct Search {
    names: Names,
    nodes: Vec<Node>,
    /// How many nodes the present run has come through.
    at: usize,
    done: Vec<Done>,
    /// What each context has seen.
    clocks: Vec<Clock>,
    /// For each context, what stands for all that happens before what it does next.
    pasts: Vec<u64>,
    /// The context that was chosen is let wait, as all of them would do no more, until the clock moves.
    waits: bool,
    /// The clock could move instead of what was chosen.
    clock_could_move: bool,
    /// No context can ever do more than wait: what they still perform is only how the run ends.
    stuck: bool,
    /// The present run repeats another.
    redundant: bool,
    /// Why the search cannot be complete.
    unsupported: Option<&'static str>,
}

/// The policy of one run.
#[derive(Debug)]
pub(crate) struct Exhaustive(Rc<RefCell<Search>>);

impl Exhaustive {
    pub(crate) fn of(search: &Rc<RefCell<Search>>) -> Self {
        search.borrow_mut().begin();
        Self(Rc::clone(search))
    }
}

impl Policy for Exhaustive {
    fn choose(&mut self, decision: &Decision<'_>) -> u32 {
        self.0.borrow_mut().choose(decision)
    }

    fn observes(&self) -> bool {
        true
    }

    fn observe(&mut self, event: Event) {
        self.0.borrow_mut().observe(event);
    }
}

impl Search {
    fn begin(&mut self) {
        self.names.begin();
        self.at = 0;
        self.done.clear();
        self.clocks.clear();
        self.pasts.clear();
        self.waits = false;
        self.clock_could_move = false;
        self.stuck = false;
        self.redundant = false;
    }

    /// The node of the next event, which is made if the run has come further than those before it.
    fn node(&mut self) -> &mut Node {
        if self.at == self.nodes.len() {
            let (sleep, wakeup) = self.inherited();
            self.nodes.push(Node::Act { chosen: None, operation: Footprint::UNKNOWN, sleep, wakeup });
        }
        &mut self.nodes[self.at]
    }

    /// What a new node has from the event before it: those asleep that do not depend on that event, and the rest of the way to a race's reversal.
    fn inherited(&mut self) -> (Vec<Named>, Vec<Branch>) {
        let names = &self.names;
        let before = self.nodes.iter_mut().rev().find_map(|node| match node {
            Node::Act { chosen, operation, sleep, wakeup } => Some((*chosen, *operation, sleep, wakeup)),
            Node::Value { .. } => None,
        });
        let Some((Some(actor), operation, sleep, wakeup)) = before else { return (Vec::new(), Vec::new()) };
        let sleep =
            sleep.iter().filter(|asleep| asleep.actor != actor && !names.depends(asleep.operation, operation)).copied().collect();
        let way = wakeup.iter_mut().find(|branch| branch.step.actor == actor).map(|branch| std::mem::take(&mut branch.then));
        (sleep, way.unwrap_or_default())
    }

    fn choose(&mut self, decision: &Decision<'_>) -> u32 {
        if !decision.is_about_contexts() {
            return self.choose_value(decision.len());
        }
        if (1..decision.len()).any(|option| decision.ends_quantum(option)) {
            self.unsupported = Some("a thread waits for a processor: give the machine one for each thread");
            return 0;
        }
        let mut candidates = Vec::with_capacity(decision.len() as usize);
        for option in 0..decision.len() {
            let Some(candidate) = decision.candidate(option) else { continue };
            let actor = self.names.actor(candidate.actor);
            let past = *self.past(actor);
            self.names.operation(actor, past, candidate.operation);
            candidates.push((option, actor, decision.would_wait(option)));
        }
        let clock = self.names.actor(Actor::CLOCK);
        let all_wait = candidates.iter().all(|&(_, actor, waits)| waits || actor == clock);
        let stuck = all_wait && !decision.clock_can_move();
        let redundant = &mut false;
        let Node::Act { chosen, sleep, wakeup, .. } = self.node() else { unreachable!("a value was chosen here before") };
        if chosen.is_none() && !candidates.iter().any(|&(_, actor, _)| actor == clock) {
            // Nothing is left to expire on this way.
            wakeup.retain(|branch| branch.step.actor != clock);
        }
        let planned = chosen.or_else(|| wakeup.first().map(|branch| branch.step.actor));
        let picked = match planned {
            Some(actor) => candidates.iter().find(|&&(_, candidate, _)| candidate == actor),
            None => {
                // What would wait is let wait before the clock moves.
                let can_act =
                    |&&(_, actor, waits): &&(u32, u32, bool)| if actor == clock { !all_wait } else { !waits || all_wait };
                let awake = |&&(_, actor, _): &&(u32, u32, bool)| stuck || !sleep.iter().any(|asleep| asleep.actor == actor);
                let first = candidates.iter().filter(can_act).find(awake);
                *redundant = first.is_none();
                first.or_else(|| candidates.iter().find(can_act))
            }
        };
        let (is_new, clock_is_candidate) = (chosen.is_none(), candidates.iter().any(|&(_, actor, _)| actor == clock));
        let Some(&(option, actor, _)) = picked else {
            self.unsupported = Some("the program does not do the same things each time");
            return 0;
        };
        *chosen = Some(actor);
        if wakeup.is_empty() {
            wakeup.push(Branch { step: Step::planned(actor), then: Vec::new() });
        }
        // What acts may take away what would expire, so that no run has shown a race with that.
        let may_move = is_new && actor != clock && clock_is_candidate;
        let known = wakeup.iter().map(|branch| branch.step.actor).chain(sleep.iter().map(|asleep| asleep.actor));
        if may_move && !known.into_iter().any(|actor| actor == clock) {
            wakeup.push(Branch { step: Step::planned(clock), then: Vec::new() });
        }
        self.clock_could_move = clock_is_candidate;
        self.waits = all_wait && !stuck;
        self.stuck |= stuck;
        self.redundant |= *redundant;
        option
    }

    fn choose_value(&mut self, options: u32) -> u32 {
        if self.at == self.nodes.len() {
            self.nodes.push(Node::Value { chosen: 0, options });
        }
        let value = match self.nodes[self.at] {
            Node::Value { chosen, .. } => chosen.min(options - 1),
            Node::Act { .. } => {
                self.unsupported = Some("the program does not do the same things each time");
                0
            }
        };
        self.at += 1;
        value
    }

    fn observe(&mut self, event: Event) {
        match event {
            Event::Performs { actor, operation, available } => {
                let actor = self.names.actor(actor);
                let past = *self.past(actor);
                let operation = self.names.operation(actor, past, operation);
                let clock = self.names.actor(Actor::CLOCK);
                match self.node() {
                    Node::Act { chosen, operation: performed, wakeup, .. } => {
                        *performed = operation;
                        if chosen.is_none() && actor != clock {
                            // As in `choose`.
                            wakeup.retain(|branch| branch.step.actor != clock);
                        }
                        chosen.get_or_insert(actor);
                        if wakeup.is_empty() {
                            wakeup.push(Branch { step: Step::planned(actor), then: Vec::new() });
                        }
                    }
                    Node::Value { .. } => self.unsupported = Some("the program does not do the same things each time"),
                }
                self.at += 1;
                let waits = std::mem::take(&mut self.waits);
                let node = if self.stuck { None } else { Some(self.at - 1) };
                self.perform(Named { actor, operation }, available || waits, node);
            }
            Event::Unperformed { actor, operation, available } => {
                let actor = self.names.actor(actor);
                let past = *self.past(actor);
                let operation = self.names.operation(actor, past, operation);
                self.perform(Named { actor, operation }, available, None);
            }
            Event::Follows { actor, after } => {
                let after = self.names.actor(after);
                let past = *self.past(after);
                let actor = self.names.created(actor, after, past);
                *self.past(actor) = self.past(actor).wrapping_add(races::mixed(past));
                let seen = self.clock(after).clone();
                self.clock(actor).join(&seen);
            }
            Event::ClockMoves => {
                let mut all = Clock::default();
                self.clocks.iter().for_each(|clock| all.join(clock));
                self.clocks.iter_mut().for_each(|clock| clock.join(&all));
                let sum = self.pasts.iter().fold(0, |sum: u64, past| sum.wrapping_add(races::mixed(*past)));
                self.pasts.iter_mut().for_each(|past| *past = past.wrapping_add(sum));
            }
        }
    }

    /// The present run is over. False when all have been made.
    pub(crate) fn finish(&mut self) -> bool {
        if !self.redundant && self.unsupported.is_none() {
            self.plan_reversals();
        }
        while let Some(node) = self.nodes.last_mut() {
            match node {
                Node::Value { chosen, options } if *chosen + 1 < *options => {
                    *chosen += 1;
                    return true;
                }
                Node::Value { .. } => {}
                Node::Act { chosen, operation, sleep, wakeup } => {
                    if let Some(actor) = chosen.take() {
                        wakeup.retain(|branch| branch.step.actor != actor);
                        sleep.push(Named { actor, operation: *operation });
                    }
                    if !wakeup.is_empty() {
                        return true;
                    }
                }
            }
            self.nodes.pop();
        }
        false
    }

    /// Why the search cannot be complete, if it cannot.
    pub(crate) fn unsupported(&self) -> Option<&'static str> {
        self.unsupported
    }
}
