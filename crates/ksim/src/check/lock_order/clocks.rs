//! What happened before what: vector clocks of those that take locks.
//!
//! Whoever signals an object, starts a thread or queues a DPC passes on all that it knows; whoever waits for the object, or is the thread or the DPC, learns it.
//! The locks themselves order nothing here: in another schedule they are taken the other way round.

use super::Who;
use rustc_hash::FxHashMap;

/// How far each of those that act had come, as one of them knows it.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Clock(Vec<u32>);

impl Clock {
    /// What is known of one. The first epoch is 1.
    pub(super) fn of(&self, who: Who) -> u32 {
        self.0.get(who.index()).copied().unwrap_or(0)
    }

    fn set(&mut self, who: Who, epoch: u32) {
        if self.0.len() <= who.index() {
            self.0.resize(who.index() + 1, 0);
        }
        self.0[who.index()] = epoch;
    }

    fn learn(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine = (*mine).max(*theirs);
        }
    }
}

/// The clocks of a run. They stand still until the first lock is taken within another: what was before that orders nothing.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    running: bool,
    actors: FxHashMap<Who, Clock>,
    /// What the signal of an object passes on, by the object's number.
    objects: FxHashMap<u32, Clock>,
}

impl Clocks {
    #[inline]
    pub(crate) fn are_running(&self) -> bool {
        self.running
    }

    pub(super) fn start(&mut self) {
        self.running = true;
    }

    /// The clock of one that acts, its own epoch in it.
    pub(super) fn now(&mut self, who: Who) -> &Clock {
        let clock = self.actors.entry(who).or_default();
        if clock.of(who) == 0 {
            clock.set(who, 1);
        }
        clock
    }

    /// `who` signals an object.
    #[cold]
    pub(crate) fn publish(&mut self, who: Who, object: u32) {
        let mut clock = self.now(who).clone();
        self.objects.entry(object).or_default().learn(&clock);
        let epoch = clock.of(who) + 1;
        clock.set(who, epoch);
        self.actors.insert(who, clock);
    }

    /// A wait of `who` for an object was satisfied.
    #[cold]
    pub(crate) fn learn(&mut self, who: Who, object: u32) {
        let Some(known) = self.objects.get(&object) else { return };
        self.actors.entry(who).or_default().learn(known);
    }

    /// What a timer passes on, its DPC passes on.
    #[cold]
    pub(crate) fn forward(&mut self, from: u32, to: u32) {
        if let Some(known) = self.objects.get(&from).cloned() {
            self.objects.entry(to).or_default().learn(&known);
        }
    }

    /// `who` begins anew, with what an object passes on: a DPC routine knows nothing of what ran before it on its processor.
    #[cold]
    pub(crate) fn begin(&mut self, who: Who, object: u32) {
        let epoch = self.now(who).of(who) + 1;
        let mut clock = self.objects.get(&object).cloned().unwrap_or_default();
        clock.set(who, epoch);
        self.actors.insert(who, clock);
    }
}
