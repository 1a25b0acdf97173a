//! The order of locks (bug check 0xC4, 0x1001).
//!
//! Whoever takes a lock while holding another gives the two an order. If the orders of a run form a cycle, some schedule of the same code
//! deadlocks, whether this one did or not: so one run finds what a search might need many for. Attempts that do not wait, and waits that time out, cannot
//! deadlock and give no order.
//!
//! The check covers more than Driver Verifier's: spin locks of all kinds, fast and guarded mutexes, mutexes, push locks and resources.
//!
//! By default it reports only what can come to a deadlock: each order of the cycle is another thread's (or DPC's), nothing that signals and waits puts one behind
//! another, no further lock keeps them apart, and shared acquisitions do not count against each other, unless somebody else asks for the same lock exclusively: who
//! would share it waits behind him. Rundown protection is a lock that is shared, and whoever waits for its release asks for it exclusively. A lock is the same lock as long as its memory is known to be: in pool, in a static,
//! or since it was initialised. [`Machine::check_lock_order`](crate::Machine::check_lock_order) asks for more: there one thread alone can close a cycle, and locks of one class, which is where they were created,
//! stand for each other.

mod clocks;
mod graph;

use self::clocks::Clocks;
pub(crate) use self::graph::Wanted;
use self::graph::{Cycle, Graph, Held, Known, Use};
use crate::engine::kernel::{Check, Executing, Kernel};
use crate::engine::object::{Identity, Kind, ObjId};
use crate::engine::{Cpu, Tid};
use crate::report::bug_check::{Related, Violation, codes};
use crate::report::sites::Frames;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::ops::Range;

/// How much the check reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Strictness {
    Off,
    /// What can come to a deadlock.
    Certain,
    /// Every two orders that contradict each other.
    Strict,
}

/// Stands for the ends of DPC routines, calls and initialisations where an object's number would be: whoever sees one of them end may have waited for all.
const ENDINGS: u32 = 0;

/// What stands in the order: a class, or a single lock by its number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) enum Node {
    Class(u32),
    Lock(u32),
}

/// Who takes locks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Who {
    Thread(Tid),
    /// The DPC routines of a processor.
    Dpc(Cpu),
}

impl Who {
    fn index(self) -> usize {
        match self {
            Self::Thread(tid) => tid as usize * 2,
            Self::Dpc(cpu) => usize::from(cpu) * 2 + 1,
        }
    }
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
    graph: Graph,
    pub(crate) clocks: Clocks,
    classes: Vec<Class>,
    class_numbers: FxHashMap<Class, u32>,
    /// By the first address of a lock's memory: the address behind the last one, and the class.
    class_of: BTreeMap<usize, (usize, u32)>,
    /// Room for the locks that someone holds.
    held: Vec<(ObjId, Held)>,
    gates: Vec<Held>,
}

impl LockOrder {
    /// True when it is as a new machine's, but for the room that it has.
    pub(crate) fn is_unused(&self) -> bool {
        let Self { graph, clocks, classes, class_numbers, class_of, held, gates } = self;
        let none_seen = graph.is_empty() && !clocks.are_running() && held.is_empty() && gates.is_empty();
        none_seen && classes.is_empty() && class_numbers.is_empty() && class_of.is_empty()
    }

    /// What was in `memory` is gone.
    pub(crate) fn forget(&mut self, memory: Range<usize>) {
        if self.class_of.is_empty() {
            return;
        }
        let overlapping: Vec<usize> =
            self.class_of.range(..memory.end).filter(|(_, (end, _))| *end > memory.start).map(|(start, _)| *start).collect();
        for start in overlapping {
            self.class_of.remove(&start);
        }
    }

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
        self.forget(memory.clone());
        self.class_of.insert(memory.start, (memory.end, number));
    }

    fn class(&self, address: usize) -> Option<u32> {
        match self.class_of.range(..=address).next_back() {
            Some((_, &(end, class))) if address < end => Some(class),
            _ => None,
        }
    }
}

impl Kernel {
    /// What acts is about to wait for, or take, a lock: checks it against the order of all that were seen.
    #[inline]
    pub(crate) fn check_lock_order(&mut self, id: ObjId, wanted: Wanted) -> Check<()> {
        // What a claim says of orders before the first one is lost: clocks that never stand still would cost every run.
        let matters = self.holds_locks() || (wanted == Wanted::Exclusive && self.lock_order.clocks.are_running());
        if self.config.lock_order == Strictness::Off || !matters { Ok(()) } else { self.check_order_of(id, wanted) }
    }

    fn who(&self) -> Option<Who> {
        match self.executing {
            Executing::Thread(tid) => Some(Who::Thread(tid)),
            Executing::Dpcs => Some(Who::Dpc(self.cpu)),
            Executing::Machine => None,
        }
    }

    /// What acts signals an object.
    #[inline]
    pub(crate) fn order_published(&mut self, object: ObjId) {
        if self.lock_order.clocks.are_running()
            && let Some(who) = self.who()
        {
            let number = self.objects[object].number;
            self.lock_order.clocks.publish(who, number);
        }
    }

    /// A wait of a thread for an object was satisfied.
    #[inline]
    pub(crate) fn order_learned(&mut self, object: ObjId, tid: Tid) {
        if self.lock_order.clocks.are_running() {
            let number = self.objects[object].number;
            self.lock_order.clocks.learn(Who::Thread(tid), number);
        }
    }

    /// What acts lets a thread go on that waits for something without an object, or for the end of something.
    #[inline]
    pub(crate) fn order_ended(&mut self) {
        if self.lock_order.clocks.are_running()
            && let Some(who) = self.who()
        {
            self.lock_order.clocks.publish(who, ENDINGS);
        }
    }

    /// A thread sees that something has ended.
    #[inline]
    pub(crate) fn order_end_seen(&mut self, tid: Tid) {
        if self.lock_order.clocks.are_running() {
            self.lock_order.clocks.learn(Who::Thread(tid), ENDINGS);
        }
    }

    /// A timer queues its DPC.
    #[inline]
    pub(crate) fn order_forwarded(&mut self, timer: ObjId, dpc: ObjId) {
        if self.lock_order.clocks.are_running() {
            let (from, to) = (self.objects[timer].number, self.objects[dpc].number);
            self.lock_order.clocks.forward(from, to);
        }
    }

    /// A DPC routine begins.
    #[inline]
    pub(crate) fn order_of_dpc_begins(&mut self, dpc: ObjId) {
        if self.lock_order.clocks.are_running() {
            let (who, number) = (Who::Dpc(self.cpu), self.objects[dpc].number);
            self.lock_order.clocks.begin(who, number);
        }
    }

    fn check_order_of(&mut self, id: ObjId, how: Wanted) -> Check<()> {
        let mut held = std::mem::take(&mut self.lock_order.held);
        let mut gates = std::mem::take(&mut self.lock_order.gates);
        let result = self.check_order_within(id, how, &mut held, &mut gates);
        self.lock_order.held = held;
        self.lock_order.gates = gates;
        result
    }

    fn check_order_within(&mut self, id: ObjId, how: Wanted, held: &mut Vec<(ObjId, Held)>, gates: &mut Vec<Held>) -> Check<()> {
        let (Some(who), Some(wanted)) = (self.who(), self.order_node(id)) else { return Ok(()) };
        self.collect_held(held);
        // Taking again what is held, where that is allowed, gives no order.
        if held.iter().any(|(lock, _)| *lock == id) {
            return Ok(());
        }
        gates.clear();
        gates.extend(held.iter().map(|(_, held)| *held));
        for &(lock, first) in held.iter() {
            // Locks of one class have no order among themselves that this check could know.
            if first.node != wanted {
                self.check_pair(who, (lock, first), (id, wanted, how), gates)?;
            }
        }
        if how == Wanted::Exclusive && self.config.lock_order == Strictness::Certain {
            return self.check_claim(who, id, wanted, gates);
        }
        Ok(())
    }

    /// A lock that others share is asked for exclusively: those who ask for it from now on wait.
    fn check_claim(&mut self, who: Who, id: ObjId, wanted: Node, gates: &[Held]) -> Check<()> {
        let LockOrder { graph, clocks, .. } = &mut self.lock_order;
        if !clocks.are_running() {
            return Ok(());
        }
        let claim = Use {
            who,
            clock: clocks.now(who).clone(),
            held_exclusive: false,
            wanted: Wanted::Exclusive,
            gates: gates.to_vec(),
            held_at: None,
            wanted_at: self.config.trace.then(|| self.sites.enter(Frames::capture())),
        };
        if !graph.claim(wanted, claim) {
            return Ok(());
        }
        match self.lock_order.graph.cycle_of_claim(wanted) {
            Some(cycle) => Err(self.lock_cycle(&cycle, id, id)),
            None => Ok(()),
        }
    }

    /// One lock is taken within another.
    fn check_pair(
        &mut self,
        who: Who,
        (lock, first): (ObjId, Held),
        (id, wanted, asked): (ObjId, Node, Wanted),
        gates: &[Held],
    ) -> Check<()> {
        let LockOrder { graph, clocks, .. } = &mut self.lock_order;
        clocks.start();
        let clock = clocks.now(who);
        let how = match graph.find(first.node, wanted, clock, who, (first.exclusive, asked), gates) {
            Known::Seen => return Ok(()),
            Known::Again(index) => graph.renew(first.node, wanted, index, clock),
            Known::New => {
                let clock = clock.clone();
                let held_at = self.acquired_at(who, lock);
                let wanted_at = self.config.trace.then(|| self.sites.enter(Frames::capture()));
                let how = Use {
                    who,
                    clock,
                    held_exclusive: first.exclusive,
                    wanted: asked,
                    gates: gates.iter().copied().filter(|gate| gate.node != first.node).collect(),
                    held_at,
                    wanted_at,
                };
                self.lock_order.graph.add(first.node, wanted, how.clone());
                how
            }
        };
        let certain = self.config.lock_order == Strictness::Certain;
        match self.lock_order.graph.cycle(first.node, wanted, &how, certain) {
            Some(cycle) => Err(self.lock_cycle(&cycle, id, lock)),
            None => Ok(()),
        }
    }

    /// What stands for a lock in the order, unless nothing does: then its memory may have been another lock's before.
    fn order_node(&mut self, id: ObjId) -> Option<Node> {
        let (address, number) = (self.objects[id].address, self.objects[id].number);
        if self.config.lock_order == Strictness::Strict {
            return Some(self.lock_order.class(address).map_or(Node::Lock(number), Node::Class));
        }
        if self.objects[id].identity == Identity::Unasked {
            let known = match self.objects[id].kind {
                Kind::SpinLock(_) | Kind::SpinRw(_) | Kind::PushLock(_) | Kind::Rundown(_) => {
                    self.pool.is_allocated(address) || self.lock_order.class(address).is_some() || crate::host::is_static(address)
                }
                // These cannot be used without their initialisation, which makes them new.
                _ => true,
            };
            self.objects[id].identity = if known { Identity::Known } else { Identity::Unknown };
        }
        (self.objects[id].identity == Identity::Known).then_some(Node::Lock(number))
    }

    /// True when what acts may hold a lock.
    #[inline]
    fn holds_locks(&self) -> bool {
        match self.executing {
            Executing::Thread(tid) => self.threads[tid as usize].holds_locks(),
            Executing::Dpcs => !self.processors[self.cpu as usize].dpc_spin_locks.is_empty(),
            Executing::Machine => false,
        }
    }

    /// The locks that what acts holds.
    fn collect_held(&mut self, held: &mut Vec<(ObjId, Held)>) {
        held.clear();
        match self.executing {
            Executing::Thread(tid) => {
                let lists = |thread: &crate::engine::thread::Thread, list: usize| match list {
                    0 => thread.mutants.len(),
                    1 => thread.fast_mutexes.len(),
                    2 => thread.push_locks.len(),
                    3 => thread.resources.len(),
                    4 => thread.rundowns.len(),
                    _ => thread.spin_locks.len(),
                };
                for list in 0..6 {
                    for index in 0..lists(&self.threads[tid as usize], list) {
                        let thread = &self.threads[tid as usize];
                        let id = match list {
                            0 => thread.mutants[index],
                            1 => thread.fast_mutexes[index],
                            2 => thread.push_locks[index],
                            3 => thread.resources[index],
                            4 => thread.rundowns[index],
                            _ => thread.spin_locks[index],
                        };
                        self.collect_one(id, held);
                    }
                }
            }
            Executing::Dpcs => {
                for index in 0..self.processors[self.cpu as usize].dpc_spin_locks.len() {
                    let id = self.processors[self.cpu as usize].dpc_spin_locks[index];
                    self.collect_one(id, held);
                }
            }
            Executing::Machine => {}
        }
    }

    fn collect_one(&mut self, id: ObjId, held: &mut Vec<(ObjId, Held)>) {
        let Some(node) = self.order_node(id) else { return };
        let exclusive = match &self.objects[id].kind {
            Kind::PushLock(state) => state.exclusive.is_some(),
            Kind::SpinRw(state) => state.exclusive.is_some(),
            Kind::Resource(state) => state.is_exclusive(),
            Kind::Rundown(_) => false,
            _ => true,
        };
        if !held.iter().any(|(lock, _)| *lock == id) {
            held.push((id, Held { node, exclusive }));
        }
    }

    #[cold]
    fn lock_cycle(&self, Cycle { steps: cycle, claims }: &Cycle<'_>, wanted: ObjId, held: ObjId) -> crate::engine::Fault {
        let mut related = Vec::new();
        for step in cycle {
            let who = self.describe_who(step.how.who);
            let (first, second) = (self.describe_node(step.first), self.describe_node(step.second));
            if step.how.held_at.is_some() {
                related.push(Related { what: format!("{who} acquired {first}"), site: step.how.held_at });
            }
            related.push(Related { what: format!("{who}, holding {first}, asked for {second}"), site: step.how.wanted_at });
        }
        for (node, claim) in claims {
            let what = format!(
                "{} asked for {} exclusively, and nobody shares it before he has had it",
                self.describe_who(claim.who),
                self.describe_node(*node)
            );
            related.push(Related { what, site: claim.wanted_at });
        }
        let order: Vec<_> = cycle.iter().skip(1).map(|step| self.describe_node(step.first)).collect();
        let (first, second) = (self.describe_node(cycle[0].first), self.describe_node(cycle[0].second));
        let parameters =
            [codes::verifier::LOCK_HIERARCHY, self.objects[wanted].address as u64, self.objects[held].address as u64, 0];
        let meaning = format!(
            "{second} was taken while {first} was held; elsewhere the order was {}, then {first}: some schedule deadlocks",
            order.join(", then ")
        );
        let mut fault = Violation::boxed_owned(codes::DRIVER_VERIFIER_DETECTED_VIOLATION, parameters, meaning);
        fault.related = related;
        fault
    }

    fn describe_who(&self, who: Who) -> String {
        match who {
            Who::Thread(tid) => format!("thread #{}", self.thread_number(tid)),
            Who::Dpc(cpu) => format!("a DPC on processor {cpu}"),
        }
    }

    fn describe_node(&self, node: Node) -> String {
        let class = |class: u32| {
            let Class { file, line, column } = &self.lock_order.classes[class as usize];
            format!("created at {file}:{line}:{column}")
        };
        match node {
            Node::Class(number) => format!("the lock {}", class(number)),
            Node::Lock(number) => {
                let Some((_, object)) = self.objects.iter().find(|(_, object)| object.number == number) else {
                    return format!("lock #{number}, which is gone");
                };
                match self.lock_order.class(object.address) {
                    Some(of) => format!("{} #{number} ({})", object.kind.name(), class(of)),
                    None => format!("{} #{number}", object.kind.name()),
                }
            }
        }
    }
}
