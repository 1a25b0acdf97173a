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
//! # DPCs
//! They interrupt the thread of their processor, wherever it is. What that does next could come before them only by coming before their *opener*, what made them interrupt: see
//! [`Held`]. What acts may take them away, or occupy the processor that they wait for, so that their beginning is planned wherever it can happen.
//!
//! # The clock
//! Where the clock may move early, that is an event of a context of its own, which depends on all others. What acts may end the wait or cancel the timer that it would have let
//! expire, so that its event is planned wherever it can happen.
//!
//! # Names
//! Contexts are known by what created them, and not by numbers or addresses: those depend on the order of things that are independent. An object is known within a run only: nothing that is
//! kept of it would be the same in all others. So what is kept of an operation is whose it is, its number, and what happens before it, by which it is looked up among the operations of the run that it
//! is to be compared with. One that is not found there depends on all.
//!
//! # Parts
//! A search can be made in parts. Those of shards, `parts.rs`, know nothing of each other: from each node above them everything is explored that could come first there, so that a
//! part need not tell others of the races that it finds. What comes first in an earlier part is asleep in the later ones. So each class is still run in one part only; but a part may begin with a
//! run that repeats another's, and more, none of which count. Those of OS threads, `given.rs`, are the same search, made ahead of its turn.

mod given;
mod names;
mod parts;
mod races;
mod tree;

use super::{Actor, Decision, Event, Finished, Footprint, Policy};
pub(crate) use given::Next;
use given::{Given, Told};
use names::Names;
use races::{Clock, Done, Held};
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::rc::Rc;
use tree::Branch;

/// An operation of the present run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Named {
    actor: u32,
    /// Its number among the events of its context, from 1.
    number: u32,
    operation: Footprint,
}

/// What need not come first, as that has been, or will be, explored.
#[derive(Clone, Copy, Debug)]
struct Asleep {
    actor: u32,
    /// Its number among the events of its context, from 1.
    number: u32,
    operation: Footprint,
    /// All races behind it have been looked at here: it is not explored in another part, nor beside something that is.
    races_known: bool,
}

impl Asleep {
    fn of(event: Named, races_known: bool) -> Self {
        let Named { actor, number, operation } = event;
        Self { actor, number, operation, races_known }
    }
}

/// A place where runs can part.
#[derive(Debug)]
enum Node {
    Act {
        /// The context that acts in the present run, and what it has done there.
        chosen: Option<u32>,
        performed: Option<Named>,
        /// What could act here.
        able: Vec<Named>,
        /// What has been explored from here, and need not come first again.
        sleep: Vec<Asleep>,
        /// What is to be explored from here, in this order. The first is the present run's.
        wakeup: Vec<Branch>,
    },
    /// Something else that NT leaves open.
    Value { chosen: u32, options: u32 },
}

impl Node {
    fn act(sleep: Vec<Asleep>, wakeup: Vec<Branch>) -> Self {
        Self::Act { chosen: None, performed: None, able: Vec::new(), sleep, wakeup }
    }
}

/// The search, from run to run.
#[derive(Debug, Default)]
pub(crate) struct Search {
    names: Names,
    nodes: Vec<Node>,
    /// How many nodes the present run has come through.
    at: usize,
    /// The node where it parts from those before it. The races of what comes before that have been found.
    parts_at: usize,
    done: Vec<Done>,
    /// What each context has seen.
    clocks: Vec<Clock>,
    /// For each context, what stands for all that happens before what it does next.
    pasts: Vec<u64>,
    /// For each context, what it waits for to be over before it goes on.
    held: Vec<Option<Held>>,
    /// For each DPC, what had happened when it was queued.
    queued: FxHashMap<usize, (Clock, u64)>,
    /// For the DPCs of each processor, what made them interrupt it.
    openers: FxHashMap<u32, (u32, u32)>,
    /// What had happened when the clock moved last: contexts that had done nothing by then come after that too.
    before_move: (Clock, u64),
    /// The context that was chosen is let wait, as all of them would do no more, until the clock moves.
    waits: bool,
    /// The clock could move instead of what was chosen.
    clock_could_move: bool,
    /// No context can ever do more than wait: what they still perform is only how the run ends.
    stuck: bool,
    /// The present run repeats another from this node on.
    repeats_from: Option<usize>,
    /// What had happened by then, as far as `done` goes, and what then waited for others that repeat what they do.
    done_by_then: usize,
    waited_by_then: Vec<Done>,
    /// The nodes before this one are other parts' business.
    floor: usize,
    /// What comes now.
    next: Next,
    /// What others make ahead of its turn.
    given: Vec<Given>,
    /// Likewise, what turned out to be made in vain.
    stale: Vec<u64>,
    /// The ways from nodes before the floor, for a part that is made ahead of its turn.
    told: Option<Told>,
    /// Whether the clock may move early.
    early: bool,
    /// The first context of the present run that has created a thread.
    creator: Option<u32>,
    /// What operations have turned out to do once they were performed, and, for a part, what they had when it was divided from the others.
    turned_out: u16,
    divided_by: Option<u16>,
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
    /// A search of the schedules of runs in which the clock may move early, or may not.
    pub(crate) fn new(early: bool) -> Self {
        Self { early, ..Self::default() }
    }

    fn begin(&mut self) {
        self.names.begin();
        self.told.iter_mut().for_each(Told::begin);
        self.at = 0;
        self.parts_at = self.nodes.len().saturating_sub(1);
        self.done.clear();
        self.clocks.clear();
        self.pasts.clear();
        self.held.clear();
        self.creator = None;
        self.openers.clear();
        self.queued.clear();
        self.before_move = Default::default();
        self.waits = false;
        self.clock_could_move = false;
        self.stuck = false;
        self.repeats_from = None;
    }

    /// The next event of a context.
    fn named(&mut self, actor: u32, operation: Footprint) -> Named {
        let (number, past) = (self.clock(actor).seen(actor) + 1, *self.past(actor));
        self.names.operation(actor, number, past, operation)
    }

    /// The node of the next event, which is made if the run has come further than those before it.
    fn node(&mut self) -> &mut Node {
        if self.at == self.nodes.len() {
            let (sleep, wakeup) = self.inherited();
            self.nodes.push(Node::act(sleep, wakeup));
        }
        &mut self.nodes[self.at]
    }

    /// What a new node has from the event before it: those asleep that do not depend on that event, and the rest of the way to a race's reversal.
    fn inherited(&mut self) -> (Vec<Asleep>, Vec<Branch>) {
        let names = &self.names;
        let before = self.nodes.iter_mut().rev().find_map(|node| match node {
            Node::Act { performed, sleep, wakeup, .. } => Some((*performed, sleep, wakeup)),
            Node::Value { .. } => None,
        });
        let Some((Some(Named { actor, operation, .. }), sleep, wakeup)) = before else { return (Vec::new(), Vec::new()) };
        let stays = |asleep: &&Asleep| asleep.actor != actor && !names.known.asleep(asleep).depends_on(operation);
        let sleep = sleep.iter().filter(stays).copied().collect();
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
            let operation = decision.resolved(option, self.early).unwrap_or(Footprint::UNKNOWN);
            candidates.push((option, self.named(actor, operation), decision.only_waits(option, operation)));
        }
        let clock = self.names.actor(Actor::CLOCK);
        let is_clock = |candidate: &Named| candidate.actor == clock;
        let interrupts = |&&(option, ..): &&(u32, Named, bool)| decision.interrupts(option);
        let all_wait = candidates.iter().all(|(_, candidate, waits)| *waits || is_clock(candidate));
        let stuck = all_wait && !decision.ends_by_itself();
        // What would wait is let wait before the clock moves.
        let can_act =
            |(_, candidate, waits): &&(u32, Named, bool)| !(if is_clock(candidate) { all_wait } else { *waits && !all_wait });
        let clock_is_candidate = candidates.iter().any(|(_, candidate, _)| is_clock(candidate));
        let repeats = &mut false;
        let Node::Act { chosen, able, sleep, wakeup, .. } = self.node() else { unreachable!("a value was chosen here before") };
        let is_new = chosen.is_none();
        if is_new {
            able.clear();
            // Where all wait for ever, the order in which they do is none.
            able.extend(candidates.iter().filter(can_act).filter(|_| !stuck).map(|&(_, candidate, _)| candidate));
            if !clock_is_candidate {
                // Nothing is left to expire on this way.
                wakeup.retain(|branch| branch.step.actor != clock);
            }
        }
        let planned = chosen.or_else(|| wakeup.first().map(|branch| branch.step.actor));
        let picked = match planned {
            Some(actor) => candidates.iter().find(|(_, candidate, _)| candidate.actor == actor),
            None => {
                let awake = |(_, candidate, _): &&(u32, Named, bool)| {
                    stuck || !sleep.iter().any(|asleep| asleep.actor == candidate.actor)
                };
                let first = candidates.iter().filter(can_act).find(awake);
                *repeats = first.is_none();
                first.or_else(|| candidates.iter().find(can_act))
            }
        };
        let Some(&(option, Named { actor, operation, .. }, _)) = picked else {
            self.unsupported = Some("the program does not do the same things each time");
            return 0;
        };
        *chosen = Some(actor);
        if wakeup.is_empty() {
            wakeup.push(Branch::planned(actor));
        }
        // What acts may take away what would expire, so that no run has shown a race with that.
        let may_move = is_new && actor != clock && clock_is_candidate;
        let known = wakeup.iter().map(|branch| branch.step.actor).chain(sleep.iter().map(|asleep| asleep.actor));
        if may_move && !known.into_iter().any(|actor| actor == clock) {
            wakeup.push(Branch::planned(clock));
        }
        // Likewise, what acts may take DPCs away, or give their processor to a thread.
        for &(_, interrupt, _) in candidates.iter().filter(interrupts).filter(|_| is_new) {
            let known = wakeup.iter().map(|branch| branch.step.actor).chain(sleep.iter().map(|asleep| asleep.actor));
            let is_known = known.into_iter().any(|actor| actor == interrupt.actor);
            // Whether that happens to an idle processor is known later.
            if !is_known && (interrupt.operation.depends_on(operation) || interrupt.operation.is_idling()) {
                wakeup.push(Branch::to_interrupt(interrupt));
            }
        }
        self.clock_could_move = clock_is_candidate;
        self.waits = all_wait && !stuck;
        self.stuck |= stuck;
        if *repeats {
            let waiting = candidates.iter().filter(|(_, _, waits)| *waits).map(|&(_, candidate, _)| candidate);
            self.repeat(waiting.collect());
        }
        option
    }

    /// Whatever could act has come first in another run: the present one is over as far as the search goes. `waiting` is what would do no more than wait.
    fn repeat(&mut self, waiting: Vec<Named>) {
        if self.repeats_from.is_some() {
            return;
        }
        self.repeats_from = Some(self.at);
        self.done_by_then = self.done.len();
        self.waited_by_then = waiting.into_iter().map(|event| self.event(event, false, None)).collect();
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
                let event = self.named(actor, operation);
                let clock = self.names.actor(Actor::CLOCK);
                let (stuck, repeats) = (self.stuck, &mut false);
                match self.node() {
                    Node::Act { chosen, performed, sleep, wakeup, .. } => {
                        *performed = Some(event);
                        *repeats =
                            chosen.is_none() && !stuck && wakeup.is_empty() && sleep.iter().any(|asleep| asleep.actor == actor);
                        if chosen.is_none() && actor != clock {
                            // As in `choose`.
                            wakeup.retain(|branch| branch.step.actor != clock);
                        }
                        chosen.get_or_insert(actor);
                        if wakeup.is_empty() {
                            wakeup.push(Branch::planned(actor));
                        }
                    }
                    Node::Value { .. } => self.unsupported = Some("the program does not do the same things each time"),
                }
                if *repeats {
                    self.repeat(Vec::new());
                }
                self.at += 1;
                let waits = std::mem::take(&mut self.waits);
                let node = if self.stuck { None } else { Some(self.at - 1) };
                self.perform(event, available || waits, node);
            }
            Event::Unperformed { actor, operation, available } => {
                let actor = self.names.actor(actor);
                let event = self.named(actor, operation);
                self.perform(event, available, None);
            }
            Event::Follows { actor, after } => {
                let after = self.names.actor(after);
                let past = *self.past(after);
                let actor = self.names.created(actor, after, past);
                let seen = (self.clock(after).clone(), past);
                self.follow(actor, seen);
                self.hold_created(actor, after);
            }
            Event::Occupies { processor } => self.mark(None, |operation| operation.occupying(processor)),
            Event::Creates { actor, reuses } => self.mark(Some(actor), |operation| operation.creating(reuses)),
            Event::Frees { actor, block } => self.mark(Some(actor), |operation| operation.freeing_pool(block)),
            Event::Uses { actor, block } => self.mark(Some(actor), |operation| operation.using_pool(block)),
            Event::Queues { dpc } => {
                let end = self.done.last().map(Done::end).unwrap_or_default();
                self.queued.insert(dpc, end);
            }
            Event::Starts { actor, dpc } => {
                let actor = self.names.actor(actor);
                if let Some(end) = self.queued.remove(&dpc) {
                    self.follow(actor, end);
                }
            }
            Event::Interrupts { dpcs } => {
                let dpcs = self.names.actor(dpcs);
                self.open(dpcs);
            }
            Event::Resumes { actor, after } => {
                let (actor, after) = (self.names.actor(actor), self.names.actor(after));
                let held = (self.clock(after).clone(), *self.past(after));
                self.hold(actor, after, held);
            }
            Event::Spares { actor, dpcs } => {
                let (actor, dpcs) = (self.names.actor(actor), self.names.actor(dpcs));
                if let Some(last) = self.done.last() {
                    let held = last.end();
                    self.hold(actor, dpcs, held);
                }
            }
            Event::ClockMoves => {
                let mut all = Clock::default();
                self.clocks.iter().for_each(|clock| all.join(clock));
                self.clocks.iter_mut().for_each(|clock| clock.join(&all));
                let sum = self.pasts.iter().fold(0, |sum: u64, past| sum.wrapping_add(races::mixed(*past)));
                self.pasts.iter_mut().for_each(|past| *past = past.wrapping_add(sum));
                self.before_move = (all, sum);
            }
        }
    }

    /// The present run is over.
    pub(crate) fn finish(&mut self) -> Finished {
        if self.repeats_from.is_some() {
            self.done.truncate(self.done_by_then);
            self.done.append(&mut self.waited_by_then);
        }
        if self.unsupported.is_none() {
            self.plan_reversals();
        }
        let counts = self.repeats_from.is_none();
        if let Some(node) = self.repeats_from {
            // What comes behind is the business of the run that this one repeats.
            self.nodes.truncate(node.max(self.floor));
        }
        self.next = self.advance();
        Finished { counts, more: self.next != Next::Over }
    }

    /// Leaves the nodes behind that nothing is left at, up to the one where the next run parts from the present one.
    fn advance(&mut self) -> Next {
        while self.nodes.len() > self.floor
            && let Some(node) = self.nodes.last_mut()
        {
            let first = match node {
                Node::Value { chosen, options } if *chosen + 1 < *options => {
                    *chosen += 1;
                    Some((*chosen, 0))
                }
                Node::Value { .. } => None,
                Node::Act { chosen, performed, sleep, wakeup, .. } => {
                    if let Some(actor) = chosen.take() {
                        wakeup.retain(|branch| branch.step.actor != actor);
                        let races_known = tree::is_all_known(sleep);
                        sleep.extend(performed.take().map(|performed| Asleep::of(performed, races_known)));
                    }
                    wakeup.first().map(|branch| {
                        tree::lay_asleep(sleep, branch);
                        (branch.step.actor, branch.size())
                    })
                }
            };
            if let Some((choice, size)) = first {
                return self.at_branch(choice, size);
            }
            self.nodes.pop();
        }
        Next::Over
    }

    /// Why the search cannot be complete, if it cannot.
    pub(crate) fn unsupported(&self) -> Option<&'static str> {
        self.unsupported
    }
}
