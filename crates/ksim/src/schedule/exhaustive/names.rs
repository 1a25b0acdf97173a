//! Names of contexts and objects that do not depend on the order of independent operations.

use crate::schedule::{Actor, Effect, Footprint};
use rustc_hash::FxHashMap;
use std::sync::Arc;

type Objects = FxHashMap<(u32, u64), u32>;

/// The names, from run to run, and who bears them in the present one.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    /// A context, by the context that created it, what had happened before, and how many it had created since. The system's own have no creator.
    contexts: FxHashMap<(u32, u64, u32), u32>,
    /// The object of an operation, by the context and what has happened before.
    objects: Objects,
    /// Those that were known when the search became one part of several, which share them.
    shared: Arc<Objects>,
    /// For each name of an object, another that turned out to be the same one's, or itself.
    merged: Vec<u32>,
    actors: FxHashMap<Actor, u32>,
    addresses: FxHashMap<usize, u32>,
    /// How many contexts each has created since its last operation.
    created: Vec<u32>,
}

/// In place of a creator.
const SYSTEM: u32 = u32::MAX;

impl Names {
    pub(super) fn begin(&mut self) {
        self.actors.clear();
        self.addresses.clear();
        self.created.clear();
    }

    /// The search is about to become several parts, each of which goes on with these names.
    pub(super) fn share(&mut self) {
        let shared = Arc::make_mut(&mut self.shared);
        shared.extend(self.objects.drain());
    }

    fn context(&mut self, key: (u32, u64, u32)) -> u32 {
        let next = self.contexts.len() as u32;
        *self.contexts.entry(key).or_insert(next)
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

    /// The next operation of a context, with its object's name. `past` stands for what happens before it.
    pub(super) fn operation(&mut self, actor: u32, past: u64, operation: Footprint) -> Footprint {
        if operation.effect == Effect::Unknown {
            return operation;
        }
        let here = self.addresses.get(&operation.object).copied();
        let before = self.objects.get(&(actor, past)).or_else(|| self.shared.get(&(actor, past))).copied();
        let name = match (here, before) {
            (Some(here), Some(before)) => {
                // The same operation has the same object.
                let (here, before) = (self.find(here), self.find(before));
                self.merged[before.max(here) as usize] = before.min(here);
                before.min(here)
            }
            (Some(name), None) | (None, Some(name)) => self.find(name),
            (None, None) => {
                let name = self.merged.len() as u32;
                self.merged.push(name);
                name
            }
        };
        if here != Some(name) {
            self.addresses.insert(operation.object, name);
        }
        if before != Some(name) {
            self.objects.insert((actor, past), name);
        }
        Footprint { object: name as usize, ..operation }
    }

    fn find(&self, mut name: u32) -> u32 {
        while self.merged[name as usize] != name {
            name = self.merged[name as usize];
        }
        name
    }

    /// True when the order of two operations may matter.
    pub(super) fn depends(&self, first: Footprint, second: Footprint) -> bool {
        if first.effect == Effect::Unknown || second.effect == Effect::Unknown {
            return true;
        }
        let object = |operation: Footprint| self.find(operation.object as u32) as usize;
        let first = Footprint { object: object(first), ..first };
        first.depends_on(Footprint { object: object(second), ..second })
    }
}
