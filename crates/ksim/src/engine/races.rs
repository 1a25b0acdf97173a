//! Data races of cells that opt in, by vector clocks.
//!
//! Each context has a clock of what happens before what it does next. An operation on an object takes over what its earlier users had done, and leaves what its context has done; whoever wakes,
//! creates or interrupts a context hands its clock on; an atomic does either as its order says. Two accesses to a cell race if neither happens before the other and one of them
//! writes. That does not depend on the schedule in which they were seen.
//!
//! Nothing is recorded before the first access to such a cell. What came before is taken to be in order, which hides nothing: no access was among it.

use super::kernel::Kernel;
use crate::schedule::{Actor, Effect, Footprint};
use rustc_hash::FxHashMap;
use std::panic::Location;

/// Stands for the DPC queues among the objects.
const DPCS: usize = 2;

/// How far each context had come.
#[derive(Clone, Debug, Default)]
struct Clock(FxHashMap<Actor, u32>);

impl Clock {
    fn join(&mut self, other: &Self) {
        for (&actor, &theirs) in &other.0 {
            let mine = self.0.entry(actor).or_default();
            *mine = (*mine).max(theirs);
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Access {
    actor: Actor,
    time: u32,
    site: &'static Location<'static>,
}

/// The accesses to a cell that later ones may race with.
#[derive(Debug, Default)]
struct History {
    write: Option<Access>,
    /// Since that write, the last of each context.
    reads: Vec<Access>,
}

/// What is known of a run.
#[derive(Debug, Default)]
pub(crate) struct Races {
    /// An access has been made.
    pub(crate) enabled: bool,
    clocks: FxHashMap<Actor, Clock>,
    objects: FxHashMap<usize, Clock>,
    /// What operations that may depend on everything leave.
    everything: Clock,
    cells: FxHashMap<usize, History>,
}

impl Races {
    /// True when it is as a new machine's.
    pub(super) fn is_unused(&self) -> bool {
        // Until the first access, nothing is followed.
        !self.enabled
    }

    /// What `actor` does from now on comes after what `after` has done.
    pub(crate) fn follows(&mut self, actor: Actor, after: Actor) {
        let clock = self.clocks.get(&after).cloned().unwrap_or_default();
        self.clocks.entry(actor).or_default().join(&clock);
        self.advance(after);
    }

    /// Nothing could act: whatever comes comes after all there was.
    pub(crate) fn clock_moves(&mut self) {
        let mut all = Clock::default();
        self.clocks.values().for_each(|clock| all.join(clock));
        for (&actor, clock) in &mut self.clocks {
            clock.join(&all);
            *clock.0.entry(actor).or_insert(1) += 1;
        }
        self.everything.join(&all);
    }

    /// Who learns of the object comes after what `actor` has done so far.
    pub(crate) fn publishes(&mut self, actor: Actor, object: usize) {
        let clock = self.clocks.entry(actor).or_default();
        self.objects.entry(object).or_default().join(clock);
        self.advance(actor);
    }

    /// Who learns of `to` comes after what was done to `from`.
    pub(crate) fn forwards(&mut self, from: usize, to: usize) {
        if let Some(clock) = self.objects.get(&from).cloned() {
            self.objects.entry(to).or_default().join(&clock);
        }
    }

    /// What `actor` does from now on comes after what was done to the object.
    pub(crate) fn learns(&mut self, actor: Actor, object: usize) {
        if let Some(object) = self.objects.get(&object) {
            self.clocks.entry(actor).or_default().join(object);
        }
    }

    fn advance(&mut self, actor: Actor) {
        *self.clocks.entry(actor).or_default().0.entry(actor).or_insert(1) += 1;
    }

    /// A visible operation of NT.
    pub(crate) fn performs(&mut self, actor: Actor, operation: Footprint) {
        let clock = self.clocks.entry(actor).or_default();
        clock.join(&self.everything);
        if operation.effect == Effect::Unknown {
            self.objects.values().for_each(|object| clock.join(object));
            self.everything.join(clock);
        } else {
            // That two timers expire at the same moment orders nothing that was done before.
            for (effect, object) in operation.objects().filter(|(effect, _)| *effect != Effect::Due) {
                let object = self.objects.entry(object).or_default();
                clock.join(object);
                if matches!(
                    effect,
                    Effect::Access | Effect::AmongWaiters | Effect::Arm | Effect::Release | Effect::Unshare | Effect::Leave
                ) {
                    object.join(clock);
                }
            }
        }
        self.advance(actor);
    }

    /// A DPC routine has returned: who flushes the queues comes after it.
    pub(crate) fn dpc_ends(&mut self, actor: Actor) {
        if let Some(clock) = self.clocks.get(&actor) {
            self.objects.entry(DPCS).or_default().join(clock);
        }
        self.advance(actor);
    }

    /// An operation on an atomic.
    pub(crate) fn atomic(&mut self, actor: Actor, address: usize, acquires: bool, releases: bool) {
        let clock = self.clocks.entry(actor).or_default();
        if acquires && let Some(object) = self.objects.get(&address) {
            clock.join(object);
        }
        if releases {
            self.objects.entry(address).or_default().join(clock);
        }
        self.advance(actor);
    }

    /// An access to a cell. Where it races with another, that one's place.
    fn access(
        &mut self,
        actor: Actor,
        address: usize,
        writes: bool,
        site: &'static Location<'static>,
    ) -> Option<&'static Location<'static>> {
        let clock = self.clocks.entry(actor).or_default();
        let time = *clock.0.entry(actor).or_insert(1);
        let history = self.cells.entry(address).or_default();
        let races = |other: &&Access| other.actor != actor && clock.0.get(&other.actor).copied().unwrap_or(0) < other.time;
        let write = history.write.as_ref().filter(races);
        let other = if writes { write.or_else(|| history.reads.iter().find(races)) } else { write };
        let found = other.map(|other| other.site);
        let access = Access { actor, time, site };
        if writes {
            *history = History { write: Some(access), reads: Vec::new() };
        } else {
            history.reads.retain(|read| read.actor != actor);
            history.reads.push(access);
        }
        found
    }
}

impl Kernel {
    /// What runs accesses a cell. Where that races with another access, that one's place.
    pub(crate) fn access_cell(
        &mut self,
        address: usize,
        writes: bool,
        site: &'static Location<'static>,
    ) -> Option<&'static Location<'static>> {
        self.races.enabled = true;
        self.plain = false;
        self.races.access(self.actor()?, address, writes, site)
    }
}
