//! What happens before what, and the races of a run.

use super::names::Known;
use super::tree::{Step, insert, is_explored};
use super::{Named, Node, Search};
use crate::schedule::{Actor, Effect, Footprint};
use smallvec::SmallVec;

/// For each context, how many of its events happen before. Small programs have few, and clocks are copied at every event.
#[derive(Clone, Debug, Default)]
pub(super) struct Clock(SmallVec<[u32; 8]>);

impl Clock {
    pub(super) fn join(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine = (*mine).max(*theirs);
        }
    }

    /// True when the event with this number, from 1, of a context happens before.
    pub(super) fn has(&self, actor: u32, number: u32) -> bool {
        self.0.get(actor as usize).is_some_and(|&seen| seen >= number)
    }

    pub(super) fn seen(&self, actor: u32) -> u32 {
        self.0.get(actor as usize).copied().unwrap_or(0)
    }

    fn add(&mut self, actor: u32, number: u32) {
        let index = actor as usize;
        if index >= self.0.len() {
            self.0.resize(index + 1, 0);
        }
        self.0[index] = number;
    }
}

/// Spreads a number over all bits.
pub(super) fn mixed(number: u64) -> u64 {
    let number = (number ^ number >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (number ^ number >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// A context was held back by DPCs that interrupted its processor: what it does next happens after them, and could only have come before them if it had come before what made them do so.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// What happens before their end.
    clock: Clock,
    /// Stands for it.
    past: u64,
    /// What made them interrupt.
    opener: Option<(u32, u32)>,
}

impl Held {
    /// True for what happens before the end of the DPCs, and is not what let them begin.
    fn is_behind(&self, (actor, number): (u32, u32)) -> bool {
        self.clock.has(actor, number) && self.opener != Some((actor, number))
    }
}

/// An event of the present run.
#[derive(Debug)]
pub(super) struct Done {
    actor: u32,
    /// Its number among the events of its context, from 1.
    number: u32,
    /// What stands for all that happens before its context does it.
    before: u64,
    operation: Footprint,
    /// Whether another could have come before it at that moment.
    available: bool,
    /// Whether the clock could move at that moment, so that its move could have come first.
    clock_could_move: bool,
    /// What happens before it but for what it depends on: its context's own events, and what woke that.
    own: Clock,
    /// What held its context back before it.
    held: Option<Held>,
    clock: Clock,
    /// Stands for it and all that happens before it.
    past: u64,
    /// Its node. None when the run ended before it, or in its waiting for ever.
    node: Option<usize>,
}

impl Done {
    /// Whose it is, and its number.
    pub(super) fn event(&self) -> (u32, u32) {
        (self.actor, self.number)
    }

    /// What has happened with it.
    pub(super) fn end(&self) -> (Clock, u64) {
        (self.clock.clone(), self.past)
    }
}

impl Search {
    pub(super) fn clock(&mut self, actor: u32) -> &mut Clock {
        let index = actor as usize;
        if index >= self.clocks.len() {
            self.clocks.resize(index + 1, self.before_move.0.clone());
        }
        &mut self.clocks[index]
    }

    pub(super) fn past(&mut self, actor: u32) -> &mut u64 {
        let index = actor as usize;
        if index >= self.pasts.len() {
            let before = self.before_move.1;
            self.pasts.extend((self.pasts.len()..=index).map(|index| mixed(index as u64 + 1).wrapping_add(before)));
        }
        &mut self.pasts[index]
    }

    /// The last event turns out to have done more, by what came of it before the next. So does what `actor` does from now on, who did it.
    pub(super) fn mark(&mut self, actor: Option<Actor>, with: impl Fn(Footprint) -> Footprint) {
        let Some((last, before)) = self.done.split_last_mut() else { return };
        let operation = with(last.operation);
        if operation == last.operation {
            return;
        }
        last.operation = operation;
        if let Some(actor) = actor {
            let actor = self.names.actor(actor);
            let others_create = self.creator.is_some_and(|creator| creator != actor);
            if operation.creates_thread() {
                self.creator.get_or_insert(actor);
            }
            self.turned_out |= operation.turned_out(others_create);
            if self.divided_by.is_some_and(|known| known != self.turned_out) {
                self.unsupported = Some("what threads create or free is not known from the first schedule: search it as a whole");
            }
        }
        let (mut clock, mut past) = (Clock::default(), 0_u64);
        for done in before.iter().rev() {
            if !last.clock.has(done.actor, done.number)
                && !clock.has(done.actor, done.number)
                && done.operation.depends_on(operation)
            {
                clock.join(&done.clock);
                past = past.wrapping_add(mixed(done.past));
            }
        }
        last.clock.join(&clock);
        last.past = last.past.wrapping_add(past);
        let Some(node) = last.node else { return };
        let context = last.actor;
        if let Node::Act { performed: Some(performed), .. } = &mut self.nodes[node] {
            performed.operation = operation;
        }
        let other = actor.map(|actor| self.names.actor(actor)).filter(|&other| other != context);
        for later in [Some(context), other].into_iter().flatten() {
            self.clock(later).join(&clock);
            let before = self.past(later);
            *before = before.wrapping_add(past);
        }
    }

    /// The last event makes DPCs interrupt their processor.
    pub(super) fn open(&mut self, dpcs: u32) {
        let Some(opener) = self.done.last() else { return };
        let (event, end) = (opener.event(), opener.end());
        self.openers.insert(dpcs, event);
        self.follow(dpcs, end);
    }

    /// What a context does from now on comes after this.
    pub(super) fn follow(&mut self, actor: u32, (clock, past): (Clock, u64)) {
        self.clock(actor).join(&clock);
        let before = self.past(actor);
        *before = before.wrapping_add(mixed(past));
    }

    /// DPCs have held back what a context does next until this had happened.
    pub(super) fn hold(&mut self, actor: u32, dpcs: u32, (clock, past): (Clock, u64)) {
        self.hold_by(actor, Held { clock, past, opener: self.openers.get(&dpcs).copied() });
    }

    /// What holds a context back until it has performed something holds back what it creates before that.
    pub(super) fn hold_created(&mut self, actor: u32, creator: u32) {
        if let Some(held) = self.held.get(creator as usize).cloned().flatten() {
            self.hold_by(actor, held);
        }
    }

    fn hold_by(&mut self, actor: u32, held: Held) {
        let index = actor as usize;
        if index >= self.held.len() {
            self.held.resize(index + 1, None);
        }
        let held = match self.held[index].take() {
            None => held,
            Some(earlier) => {
                let mut clock = earlier.clock;
                clock.join(&held.clock);
                Held { clock, past: mixed(earlier.past).wrapping_add(held.past), ..held }
            }
        };
        self.held[index] = Some(held);
    }

    /// An event of the present run, after what has happened so far.
    pub(super) fn event(&mut self, event: Named, available: bool, node: Option<usize>) -> Done {
        let Named { actor, number, operation } = event;
        let own = self.clock(actor).clone();
        let mut clock = own.clone();
        let before = *self.past(actor);
        let effects = operation.effect as u64 | (operation.second_effect as u64) << 8;
        let mut past = mixed(before).wrapping_add(effects);
        let held = self.held.get(actor as usize).cloned().flatten();
        if let Some(held) = &held {
            clock.join(&held.clock);
            past = past.wrapping_add(mixed(held.past));
        }
        // The latest first: what they come after need not be looked at.
        for done in self.done.iter().rev() {
            if !clock.has(done.actor, done.number) && done.operation.depends_on(operation) {
                clock.join(&done.clock);
                past = past.wrapping_add(mixed(done.past));
            }
        }
        clock.add(actor, number);
        Done { actor, number, before, operation, available, clock_could_move: false, own, held, clock, past, node }
    }

    /// An event happens.
    pub(super) fn perform(&mut self, event: Named, available: bool, node: Option<usize>) {
        let actor = event.actor;
        let mut done = self.event(event, available, node);
        done.clock_could_move = std::mem::take(&mut self.clock_could_move);
        if node.is_some() {
            *self.clock(actor) = done.clock.clone();
            *self.past(actor) = done.past;
            if let Some(held) = self.held.get_mut(actor as usize) {
                *held = None;
            }
            self.names.performed(actor);
        }
        self.done.push(done);
    }

    /// Finds the races of the present run, and keeps the ways to their reversals.
    pub(super) fn plan_reversals(&mut self) {
        let the_clock = self.names.actor(Actor::CLOCK);
        // A priority tells who has had to wait: runs that are the same but for that are others.
        let sees_priority = self.done.iter().any(|done| done.operation.sees_priority());
        for later in 0..self.done.len() {
            let event = &self.done[later];
            if event.node.is_some_and(|node| node < self.parts_at) && !(sees_priority && event.operation.is_boosted()) {
                continue;
            }
            let mut ordered = event.own.clone();
            for earlier in (0..later).rev() {
                let (other, event) = (&self.done[earlier], &self.done[later]);
                if other.actor == event.actor
                    || ordered.has(other.actor, other.number)
                    || event.held.as_ref().is_some_and(|held| held.is_behind(other.event()))
                    || !other.operation.depends_on(event.operation)
                {
                    continue;
                }
                // What only waits could not have come before what held the object, or gave it. Before what sees those that wait it could begin to, and before the object goes.
                let sees_waiters = matches!(other.operation.effect, Effect::AmongWaiters | Effect::Leave);
                let is_seen_to_wait = sees_priority && event.operation.is_boosted() || other.operation.frees(event.operation);
                let came_too_early = event.operation.waits() && !other.available && !sees_waiters && !is_seen_to_wait;
                if came_too_early && other.operation.object == event.operation.object {
                    continue;
                }
                // What arms depends on all, so that nothing between the two could have let the clock move.
                let is_feasible = event.actor != the_clock || other.clock_could_move;
                ordered.join(&other.clock);
                if !is_feasible {
                    continue;
                }
                self.plan_reversal(earlier, later);
            }
        }
    }

    /// The way to the reversal of a race: what does not come after the earlier event, and then the later.
    fn plan_reversal(&mut self, earlier: usize, later: usize) {
        let first = &self.done[earlier];
        let Some(node) = first.node.filter(|&node| node >= self.floor || self.told.is_some()) else { return };
        let step = |done: &Done| Step {
            actor: done.actor,
            number: done.number,
            before: done.before,
            operation: done.operation,
            clock: done.clock.clone(),
        };
        let beside = self.done[earlier + 1..].iter();
        let mut way: Vec<Step> =
            beside.filter(|done| done.node.is_some() && !done.clock.has(first.actor, first.number)).map(step).collect();
        let second = &self.done[later];
        let mut last = Step { clock: second.own.clone(), ..step(second) };
        for before in &way {
            if before.operation.depends_on(second.operation) {
                last.clock.join(&before.clock);
            }
        }
        last.clock.add(second.actor, second.number);
        way.push(last);
        if node < self.floor {
            return self.tell(node, way);
        }
        let known = std::mem::take(&mut self.names.known);
        self.keep(node, way, &known);
        self.names.known = known;
    }

    /// Keeps a way from a node, as the run that it was seen in has it, of which so much is known.
    pub(super) fn keep(&mut self, node: usize, way: Vec<Step>, known: &Known) {
        let Node::Act { sleep, wakeup, .. } = &mut self.nodes[node] else { unreachable!("an event's node is of an event") };
        if !is_explored(sleep, &way, known) {
            insert(wakeup, way, known);
        }
    }
}
