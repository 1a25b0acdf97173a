//! Names of contexts that do not depend on the order of independent operations, and what is known of the operations of a run.

use super::tree::Step;
use super::{Asleep, Named};
use crate::engine::spinning::CLOCK;
use crate::schedule::{Actor, Effect, Footprint};
use rustc_hash::FxHashMap;
use std::sync::{Arc, Mutex};

/// A context, by the context that created it, what had happened before, and how many it had created since. The system's own have no creator.
type Creation = (u32, u64, u32);
type Contexts = FxHashMap<Creation, u32>;

/// The names, from run to run, and who bears them in the present one.
#[derive(Debug, Default)]
pub(super) struct Names {
    contexts: Contexts,
    /// Those of all OS threads that make the search together. What is known of them here need not be asked for.
    common: Option<Arc<Mutex<Contexts>>>,
    actors: FxHashMap<Actor, u32>,
    /// Numbers for the objects of the present run.
    objects: FxHashMap<usize, usize>,
    /// How many contexts each has created since its last operation.
    created: Vec<u32>,
    pub(super) known: Known,
}

/// In place of a creator.
const SYSTEM: u32 = u32::MAX;

impl Names {
    pub(super) fn begin(&mut self) {
        self.actors.clear();
        self.objects.clear();
        // It is called what footprints call it.
        self.objects.insert(CLOCK, CLOCK);
        self.created.clear();
        self.known.clear();
    }

    /// For a part that gives names of its own from now on.
    pub(super) fn copied(&self) -> Self {
        Self { contexts: self.contexts.clone(), ..Self::default() }
    }

    /// For a part of the same search, which gives names that all others know.
    pub(super) fn in_common(&mut self) -> Self {
        let common = self.common.get_or_insert_with(|| Arc::new(Mutex::new(self.contexts.clone())));
        Self { common: Some(Arc::clone(common)), ..Self::default() }
    }

    fn context(&mut self, key: Creation) -> u32 {
        let next = self.contexts.len() as u32;
        *self.contexts.entry(key).or_insert_with(|| match &self.common {
            None => next,
            Some(common) => {
                let mut contexts = common.lock().expect("nobody panics while he holds the lock");
                let next = contexts.len() as u32;
                *contexts.entry(key).or_insert(next)
            }
        })
    }

    fn created_by(&mut self, actor: u32) -> &mut u32 {
        let index = actor as usize;
        if index >= self.created.len() {
            self.created.resize(index + 1, 0);
        }
        &mut self.created[index]
    }

    /// A context has performed an operation.
    pub(super) fn performed(&mut self, actor: u32) {
        *self.created_by(actor) = 0;
    }

    /// The name of a context.
    pub(super) fn actor(&mut self, actor: Actor) -> u32 {
        if let Some(&name) = self.actors.get(&actor) {
            return name;
        }
        let name = self.context((SYSTEM, u64::from(actor.index()), 0));
        self.actors.insert(actor, name);
        name
    }

    /// The name of a context that another has an effect on: if it is new, that has created it. `past` stands for what has happened before.
    pub(super) fn created(&mut self, actor: Actor, creator: u32, past: u64) -> u32 {
        if actor.is_dpcs() || self.actors.contains_key(&actor) {
            return self.actor(actor);
        }
        let created = self.created_by(creator);
        let key = (creator, past, *created);
        *created += 1;
        let name = self.context(key);
        self.actors.insert(actor, name);
        name
    }

    /// The number of an object in this run.
    fn object(&mut self, object: usize) -> usize {
        let next = CLOCK + self.objects.len();
        *self.objects.entry(object).or_insert(next)
    }

    /// The operation that a context announces or performs, its next, with the numbers that its objects have in this run. `past` stands for what happens before the context does it.
    pub(super) fn operation(&mut self, actor: u32, number: u32, past: u64, operation: Footprint) -> Named {
        let addresses = (operation.object, operation.second);
        let noted = self
            .known
            .get(actor, number)
            .filter(|noted| noted.addresses == addresses && noted.operation.effect != Effect::Unknown)
            .map(|noted| noted.operation);
        let operation = match (operation.effect, noted) {
            (Effect::Unknown, _) => operation,
            // A context announces its next operation again at every choice.
            (_, Some(Footprint { object, second, .. })) => Footprint { object, second, ..operation },
            (_, None) => {
                let object = self.object(operation.object);
                let second = if operation.second == 0 { 0 } else { self.object(operation.second) };
                Footprint { object, second, ..operation }
            }
        };
        self.known.note(actor, number, Noted { past, addresses, operation });
        Named { actor, number, operation }
    }
}

/// The operations of a run that have been announced: for each context, by their numbers, what stands for all that happens before it does them, and what they are. What is kept from another run
/// is compared with this one's only after it was looked up here, as objects are not the same from run to run.
#[derive(Clone, Debug, Default)]
pub(super) struct Known(Vec<Vec<Noted>>);

#[derive(Clone, Copy, Debug)]
struct Noted {
    past: u64,
    /// Of its objects.
    addresses: (usize, usize),
    operation: Footprint,
}

impl Noted {
    const NOTHING: Self = Self { past: 0, addresses: (0, 0), operation: Footprint::UNKNOWN };
}

impl Known {
    fn clear(&mut self) {
        self.0.iter_mut().for_each(Vec::clear);
    }

    fn note(&mut self, actor: u32, number: u32, noted: Noted) {
        let (actor, place) = (actor as usize, number as usize - 1);
        if actor >= self.0.len() {
            self.0.resize(actor + 1, Vec::new());
        }
        let operations = &mut self.0[actor];
        if place >= operations.len() {
            operations.resize(place + 1, Noted::NOTHING);
        }
        operations[place] = noted;
    }

    fn get(&self, actor: u32, number: u32) -> Option<&Noted> {
        let place = (number as usize).checked_sub(1)?;
        self.0.get(actor as usize)?.get(place)
    }

    /// An operation that another run had, in terms of this one, and what stands for all that happens here before its context does it. Its effect is that in the state that it was seen in.
    fn find(&self, actor: u32, number: u32, operation: Footprint) -> Option<(u64, Footprint)> {
        let &Noted { past, operation: known, .. } = self.get(actor, number)?;
        let is_known = known.effect != Effect::Unknown
            && operation.effect != Effect::Unknown
            && (known.second == 0) == (operation.second == 0);
        Some((
            past,
            if is_known { Footprint { object: known.object, second: known.second, ..operation } } else { Footprint::UNKNOWN },
        ))
    }

    /// What is asleep at a node of this run.
    pub(super) fn asleep(&self, asleep: &Asleep) -> Footprint {
        self.find(asleep.actor, asleep.number, asleep.operation).map_or(Footprint::UNKNOWN, |(_, operation)| operation)
    }

    /// What is planned to come first at a node of this run: its context does there what it did in others.
    pub(super) fn first(&self, step: &Step) -> Footprint {
        self.find(step.actor, step.number, step.operation).map_or(Footprint::UNKNOWN, |(_, operation)| operation)
    }

    /// What is planned to come later, if its context comes to do it in this run.
    pub(super) fn later(&self, step: &Step) -> Option<Footprint> {
        let (past, operation) = self.find(step.actor, step.number, step.operation)?;
        (past == step.before).then_some(operation)
    }
}
