//! Searches in which each run is planned by those before it, but for exhaustive ones that are not made in shards (`stealing.rs`).
//!
//! A search that takes long is divided: after some runs, what is left becomes several parts, which OS threads take as they come, and which are divided again. What is in
//! a part depends on nothing but the part, and parts have an order: so neither the number of OS threads nor their speed changes what is found and counted.

use super::made::Made;
use super::progress::Progress;
use super::workers::{first_run, jobs, report};
use super::{Allowed, Exploration, Explore, Shard};
use super::{stealing, watchdog};
use crate::explore::token::Choice;
use crate::machine::Keep;
use crate::schedule::{Bounded, BoundedSearch, Exhaustive, ExhaustiveSearch, Finished, Policy, Strategy};
use rustc_hash::FxHashSet;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Instant;

/// After how many runs a part is divided.
const PART: u64 = 256;

/// A search that plans its runs.
trait Plan: Send + Default {
    fn policy(search: &Rc<RefCell<Self>>) -> Box<dyn Policy>;
    fn finish(&mut self) -> Finished;
    fn split(self) -> Vec<Self>;
    fn unsupported(&self) -> Option<&'static str>;
}

impl Plan for ExhaustiveSearch {
    fn policy(search: &Rc<RefCell<Self>>) -> Box<dyn Policy> {
        Box::new(Exhaustive::of(search))
    }

    fn finish(&mut self) -> Finished {
        self.finish()
    }

    fn split(self) -> Vec<Self> {
        self.split()
    }

    fn unsupported(&self) -> Option<&'static str> {
        self.unsupported()
    }
}

impl Plan for BoundedSearch {
    fn policy(search: &Rc<RefCell<Self>>) -> Box<dyn Policy> {
        Box::new(Bounded(Rc::clone(search)))
    }

    fn finish(&mut self) -> Finished {
        self.finish()
    }

    fn split(self) -> Vec<Self> {
        self.split()
    }

    fn unsupported(&self) -> Option<&'static str> {
        None
    }
}

/// Where a part comes from. The first two generations are made in every shard, as all others come from them.
#[derive(Clone, Copy)]
struct Origin {
    generation: u32,
    /// Its number among the parts that its own comes from.
    number: u64,
}

impl Origin {
    const WHOLE: Self = Self { generation: 0, number: 0 };

    fn child(self, number: usize) -> Self {
        let number = if self.generation < 2 { self.number + number as u64 } else { self.number };
        Self { generation: self.generation + 1, number }
    }

    fn counts_in(self, shard: Shard) -> bool {
        self.number % shard.count == shard.index
    }

    fn is_made_in(self, shard: Shard) -> bool {
        self.generation < 2 || self.counts_in(shard)
    }
}

enum State<S> {
    Waits(S),
    Runs,
    Made(Made),
}

struct Slot<S> {
    origin: Origin,
    /// Tells it from others.
    number: u64,
    state: State<S>,
}

/// What the workers share: all that is not counted yet, in order, and what has been counted.
struct Parts<S> {
    slots: Vec<Slot<S>>,
    numbers: u64,
    distinct: FxHashSet<u64>,
    executions: u64,
    failures: u64,
    allowed: Allowed,
    /// The number and the choices of the first schedule that failed.
    first_failure: Option<(u64, Vec<Choice>)>,
    has_fault: bool,
    unsupported: Option<&'static str>,
    /// Nothing more is to be made: a failure, the limit, or the host's time.
    over: bool,
}

struct Systematic<'a, S> {
    explore: &'a Explore,
    program: &'a (dyn Fn() + Sync),
    limit: u64,
    deadline: Option<Instant>,
    progress: Progress,
    parts: Mutex<Parts<S>>,
    changed: Condvar,
}

/// Makes a search. Also returns whether a run came to the fault that was asked for.
#[track_caller]
pub(super) fn search(explore: &Explore, program: &(dyn Fn() + Sync)) -> (Exploration, bool) {
    assert!(!crate::machine::is_running(), "a search cannot be made from code that runs on a machine");
    // Only for whether it can be repeated, and uses statics. It also sets those that are set once.
    let first = explore.repeats.then(|| first_run(explore, program));
    let explore = &explore.of_statics(first.is_some_and(|first| first.uses_statics));
    match explore.strategy {
        Strategy::Bounded { preemptions } => search_all(explore, program, BoundedSearch::new(preemptions)),
        _ => {
            let whole = ExhaustiveSearch::new(explore.machine.config().early_expiries > 0);
            match explore.shard.count {
                1 => stealing::search(explore, program, whole),
                _ => search_all(explore, program, whole),
            }
        }
    }
}

#[track_caller]
fn search_all<S: Plan>(explore: &Explore, program: &(dyn Fn() + Sync), whole: S) -> (Exploration, bool) {
    let (begin, deadline) = (Instant::now(), explore.deadline());
    let limit = explore.limit();
    let whole = Slot { origin: Origin::WHOLE, number: 0, state: State::Waits(whole) };
    let parts = Parts {
        slots: vec![whole],
        numbers: 1,
        distinct: FxHashSet::default(),
        executions: 0,
        failures: 0,
        allowed: Allowed::default(),
        first_failure: None,
        has_fault: false,
        unsupported: None,
        over: limit == 0,
    };
    let search = Systematic {
        explore,
        program,
        limit,
        deadline,
        progress: Progress::new(explore.progress, limit, deadline),
        parts: Mutex::new(parts),
        changed: Condvar::new(),
    };
    // Most searches are over after the first part.
    search.work(true);
    let jobs = if search.lock().is_over() { 1 } else { jobs(explore) };
    std::thread::scope(|scope| {
        for _ in 1..jobs {
            scope.spawn(|| {
                let _watched = watchdog::watch();
                search.work(false);
            });
        }
        search.work(false);
    });
    let Systematic { progress, parts, .. } = search;
    drop(progress);
    let parts = parts.into_inner().expect("no worker panics while it holds the lock");
    refuse(parts.unsupported);
    let mut failure = None;
    // Not in a closure, which would hide who asked for the search.
    if let Some((schedule, choices)) = parts.first_failure {
        failure = Some(report(explore, schedule, &choices, program));
    }
    let exploration = Exploration {
        executions: parts.executions,
        distinct: parts.distinct.len() as u64,
        exhausted: !parts.over && parts.allowed.is_empty(),
        elapsed: begin.elapsed(),
        failures: parts.failures,
        allowed: parts.allowed,
        failure,
    };
    (exploration, parts.has_fault)
}

/// Says why a search cannot be made.
#[track_caller]
pub(super) fn refuse(unsupported: Option<&'static str>) {
    if let Some(reason) = unsupported {
        panic!("ksim: the schedules cannot be searched to the end: {reason}");
    }
}

impl<S: Plan> Systematic<'_, S> {
    fn lock(&self) -> MutexGuard<'_, Parts<S>> {
        self.parts.lock().expect("no worker panics while it holds the lock")
    }

    /// Makes one part after the other, until none is left. `once` is for one part.
    #[track_caller]
    fn work(&self, once: bool) {
        let mut parts = self.lock();
        while !parts.is_over() {
            let Some((number, origin, search)) = parts.take() else {
                parts = self.changed.wait(parts).expect("no worker panics while it holds the lock");
                continue;
            };
            drop(parts);
            let mut abandon = Abandon(Some(self));
            let (made, rest) = self.make(search, origin);
            abandon.0 = None;
            parts = self.lock();
            parts.put(number, made, rest, self.explore.shard);
            let before = parts.executions;
            parts.count(self.limit, self.explore);
            self.progress.advance(parts.executions - before, parts.distinct.len() as u64, parts.allowed.total());
            self.changed.notify_all();
            if once {
                return;
            }
        }
    }

    /// Makes some runs of a part. Also returns what is left of it.
    #[track_caller]
    fn make(&self, search: S, origin: Origin) -> (Made, Vec<S>) {
        let machine = self.explore.faulty_machine().record_trace(false);
        let counts = origin.counts_in(self.explore.shard);
        let search = Rc::new(RefCell::new(search));
        let mut made = Made::default();
        for _ in 0..PART.min(self.limit) {
            let is_first = origin.generation == 0 && made.classes.is_empty();
            if !is_first && self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                made.is_late = true;
                return (made, Vec::new());
            }
            let run = machine.run_recorded(S::policy(&search), Keep::Choices(Vec::new()), self.program);
            let finished = search.borrow_mut().finish();
            made.unsupported = search.borrow().unsupported();
            if made.unsupported.is_some() {
                return (made, Vec::new());
            }
            let failed = made.record(run, finished.counts);
            if !finished.more || failed && counts && !self.explore.keep_going {
                return (made, Vec::new());
            }
        }
        (made, search.take().split())
    }
}

/// Lets the others end where the program panics outside the machine.
struct Abandon<'a, 'b, S: Plan>(Option<&'a Systematic<'b, S>>);

impl<S: Plan> Drop for Abandon<'_, '_, S> {
    fn drop(&mut self) {
        if let Some(search) = self.0 {
            if let Ok(mut parts) = search.parts.lock() {
                parts.over = true;
            }
            search.changed.notify_all();
        }
    }
}

impl<S: Plan> Parts<S> {
    fn is_over(&self) -> bool {
        self.over || self.slots.is_empty()
    }

    /// The first part that nobody makes.
    fn take(&mut self) -> Option<(u64, Origin, S)> {
        for slot in &mut self.slots {
            if matches!(slot.state, State::Waits(_))
                && let State::Waits(search) = std::mem::replace(&mut slot.state, State::Runs)
            {
                return Some((slot.number, slot.origin, search));
            }
        }
        None
    }

    /// A part is made: those that are left of it take their place behind it.
    fn put(&mut self, number: u64, made: Made, rest: Vec<S>, shard: Shard) {
        let Some(place) = self.slots.iter().position(|slot| slot.number == number) else { return };
        self.slots[place].state = State::Made(made);
        let parent = self.slots[place].origin;
        let mut numbers = self.numbers;
        let children = rest.into_iter().enumerate().filter_map(|(index, search)| {
            let origin = parent.child(index);
            numbers += 1;
            origin.is_made_in(shard).then_some(Slot { origin, number: numbers, state: State::Waits(search) })
        });
        self.slots.splice(place + 1..place + 1, children);
        self.numbers = numbers;
    }

    /// Counts what is made, up to the first part that is not.
    fn count(&mut self, limit: u64, explore: &Explore) {
        let number = self.slots.iter().take_while(|slot| matches!(slot.state, State::Made(_))).count();
        for slot in self.slots.drain(..number) {
            let State::Made(made) = slot.state else { continue };
            self.over |= self.executions == limit;
            if self.over {
                break;
            }
            self.unsupported = made.unsupported;
            self.over = made.unsupported.is_some() || made.is_late;
            self.has_fault |= made.has_fault;
            if !slot.origin.counts_in(explore.shard) {
                continue;
            }
            let left = limit - self.executions;
            let fitting = made.failures.iter().filter(|&&failure| failure < left).count() as u64;
            made.count_allowed(left, &mut self.allowed);
            if fitting > 0 && self.first_failure.is_none() {
                self.first_failure = Some((self.executions + made.failures[0], made.choices));
                self.over |= !explore.keep_going;
            }
            self.failures += fitting;
            self.over |= made.classes.len() as u64 > left;
            let classes = made.classes.iter().take(usize::try_from(left).unwrap_or(usize::MAX));
            self.executions += classes.len() as u64;
            self.distinct.extend(classes);
        }
        self.over |= self.executions == limit && !self.slots.is_empty();
    }
}
