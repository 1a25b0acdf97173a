//! The order of locks (bug check 0xC4, 0x1001).
//!
//! Whoever takes a lock while holding another gives the two an order. If the orders of a run form a cycle, some schedule of the same code
//! deadlocks, whether this one did or not: so one run finds what a search might need many for. Attempts that do not wait cannot
//! deadlock and give no order.
//!
//! The check covers more than Driver Verifier's: spin locks of all kinds, fast and guarded mutexes, mutexes, push locks and resources. Locks of one class, which is where they
//! were created, stand for each other; a lock of no class stands for itself.

use crate::engine::kernel::{Check, Executing, Kernel};
use crate::engine::object::{Kind, ObjId};
use crate::report::bug_check::{Violation, codes};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::ops::Range;

/// What stands in the order: a class, or a single lock by its number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) enum Node {
    Class(u32),
    Lock(u32),
}

/// Where locks were created.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Class {
    pub(crate) file: String,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// The orders seen so far.
#[derive(Debug, Default)]
pub(crate) struct LockOrder {
    after: FxHashMap<Node, Vec<Node>>,
    classes: Vec<Class>,
    class_numbers: FxHashMap<Class, u32>,
    /// By the first address of a lock's memory: the address behind the last one, and the class.
    class_of: BTreeMap<usize, (usize, u32)>,
}

impl LockOrder {
    /// A lock somewhere in `memory` belongs to a class from now on, and whatever was there before is gone.
    pub(crate) fn classify(&mut self, memory: Range<usize>, class: Class) {
        let number = match self.class_numbers.get(&class) {
            Some(&number) => number,
            None => {
                let number = self.classes.len() as u32;
                self.classes.push(class.clone());
                self.class_numbers.insert(class, number);
                number
            }
        };
        let overlapping: Vec<usize> =
            self.class_of.range(..memory.end).filter(|(_, (end, _))| *end > memory.start).map(|(start, _)| *start).collect();
        for start in overlapping {
            self.class_of.remove(&start);
        }
        self.class_of.insert(memory.start, (memory.end, number));
    }

    fn node(&self, address: usize, number: u32) -> Node {
        match self.class_of.range(..=address).next_back() {
            Some((_, &(end, class))) if address < end => Node::Class(class),
            _ => Node::Lock(number),
        }
    }

    /// Adds `second` after `first`. The way back, if there is one already: a cycle.
    fn add(&mut self, first: Node, second: Node) -> Option<Vec<Node>> {
        let after = self.after.entry(first).or_default();
        if after.contains(&second) {
            return None;
        }
        after.push(second);
        self.path(second, first)
    }

    /// A way from one lock to another along the orders seen.
    fn path(&self, from: Node, to: Node) -> Option<Vec<Node>> {
        let mut came_from: FxHashMap<Node, Node> = FxHashMap::default();
        let mut pending = vec![from];
        while let Some(node) = pending.pop() {
            if node == to {
                let mut path = vec![to];
                let mut current = to;
                while current != from {
                    current = came_from[&current];
                    path.push(current);
                }
                path.reverse();
                return Some(path);
            }
            for &next in self.after.get(&node).into_iter().flatten() {
                if next != from && !came_from.contains_key(&next) {
                    came_from.insert(next, node);
                    pending.push(next);
                }
            }
        }
        None
    }

    fn describe(&self, node: Node) -> String {
        match node {
            Node::Lock(number) => format!("lock #{number}"),
            Node::Class(class) => {
                let Class { file, line, column } = &self.classes[class as usize];
                format!("the lock created at {file}:{line}:{column}")
            }
        }
    }
}

impl Kernel {
    /// What acts is about to wait for, or take, a lock: checks it against the order of all that were seen.
    #[inline]
    pub(crate) fn check_lock_order(&mut self, id: ObjId) -> Check<()> {
        if self.config.lock_order { self.check_order_of(id) } else { Ok(()) }
    }

    fn check_order_of(&mut self, id: ObjId) -> Check<()> {
        let object = &self.objects[id];
        let (address, number) = (object.address, object.number);
        let wanted = self.lock_order.node(address, number);
        for held in self.held_locks() {
            if held == id {
                continue;
            }
            let first = &self.objects[held];
            let (first_address, first_number) = (first.address, first.number);
            let first = self.lock_order.node(first_address, first_number);
            // Locks of one class have no order among themselves that this check could know.
            if first == wanted {
                continue;
            }
            if let Some(cycle) = self.lock_order.add(first, wanted) {
                let cycle: Vec<_> = cycle.into_iter().map(|node| self.lock_order.describe(node)).collect();
                return Err(Violation::boxed_owned(
                    codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                    [codes::verifier::LOCK_HIERARCHY, address as u64, first_address as u64, 0],
                    format!(
                        "{} was taken while {} was held; elsewhere the order was {}: some schedule deadlocks",
                        self.lock_order.describe(wanted),
                        self.lock_order.describe(first),
                        cycle.join(", then ")
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The locks that what acts holds.
    fn held_locks(&self) -> Vec<ObjId> {
        match self.executing {
            Executing::Thread(tid) => {
                let thread = &self.threads[tid as usize];
                let address = thread.address();
                let mut held: Vec<ObjId> = thread.mutants.clone();
                held.extend(&thread.fast_mutexes);
                held.extend(&thread.push_locks);
                held.extend(&thread.spin_locks);
                held.extend(self.objects.iter().filter_map(|(id, object)| match &object.kind {
                    Kind::Resource(state) if state.owner_keys().any(|key| key == address) => Some(id),
                    _ => None,
                }));
                held
            }
            Executing::Dpcs => self.processors[self.cpu as usize].dpc_spin_locks.clone(),
            Executing::Machine => Vec::new(),
        }
    }
}
