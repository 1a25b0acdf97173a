//! Exhaustive searches on all OS threads.
//!
//! One of them makes the search. Who has nothing to do asks, and is given what comes later in the search, as far from its turn as there is; who makes that gives away parts of it
//! in the same way. When the turn of a part has come, the search goes on from where that has got to. So the runs, their order and their number are those of one OS thread
//! (`schedule/exhaustive/given.rs`).

use super::made::Made;
use super::progress::{Progress, REPORT_EVERY};
use super::systematic::refuse;
use super::workers::{jobs, report};
use super::{Allowed, Exploration, Explore, watchdog};
use crate::machine::Keep;
use crate::schedule::{Exhaustive, ExhaustiveSearch as Search, NextRun};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

/// How many runs are made before others are asked to help: most searches are over by then.
const ALONE: usize = 32;
/// How many ways a part keeps for the nodes above before it waits for its turn.
const MOST_TOLD: usize = 8192;

/// What was given away.
enum Part {
    Waits(Box<Search>),
    /// Whoever makes it looks at this after each run.
    Runs(Arc<AtomicBool>),
    Stopped(Box<Search>, Made),
}

#[derive(Default)]
struct Pool {
    parts: FxHashMap<u64, Part>,
    /// Those that wait, in the order in which they were given away.
    queue: VecDeque<u64>,
    /// How many OS threads have nothing to do.
    idle: usize,
}

struct Stealing<'a> {
    explore: &'a Explore,
    program: &'a (dyn Fn() + Sync),
    limit: usize,
    deadline: Option<Instant>,
    progress: Progress,
    pool: Mutex<Pool>,
    changed: Condvar,
    /// How many parts are asked for.
    hungry: AtomicUsize,
    tickets: AtomicU64,
    runs: AtomicU64,
    /// How many of them ended early.
    allowed: AtomicU64,
    /// The search is at its end, or its program has panicked outside the machine.
    over: AtomicBool,
}

/// Makes a search. Also returns whether a run came to the fault that was asked for.
#[track_caller]
pub(super) fn search(explore: &Explore, program: &(dyn Fn() + Sync), whole: Search) -> (Exploration, bool) {
    let (begin, deadline) = (Instant::now(), explore.deadline());
    let limit = usize::try_from(explore.limit()).unwrap_or(usize::MAX);
    let shared = Stealing {
        explore,
        program,
        limit,
        deadline,
        progress: Progress::new(explore.progress, explore.limit(), deadline),
        pool: Mutex::default(),
        changed: Condvar::new(),
        hungry: AtomicUsize::new(0),
        tickets: AtomicU64::new(0),
        runs: AtomicU64::new(0),
        allowed: AtomicU64::new(0),
        over: AtomicBool::new(false),
    };
    let never = AtomicBool::new(false);
    let (mut search, mut made) = (whole, Made::default());
    let jobs = jobs(explore);
    let alone = if jobs == 1 { usize::MAX } else { ALONE };
    shared.make(&mut search, &mut made, alone, &never);
    if !shared.is_at_end(&search, &made) {
        std::thread::scope(|scope| {
            let _over = Over(&shared);
            for _ in 1..jobs {
                scope.spawn(|| {
                    let _watched = watchdog::watch();
                    shared.help();
                });
            }
            shared.make(&mut search, &mut made, usize::MAX, &never);
        });
    }
    let Stealing { progress, .. } = shared;
    drop(progress);
    refuse(made.unsupported);
    let is_over = search.next() == NextRun::Over && made.classes.len() <= limit;
    made.classes.truncate(limit);
    let mut allowed = Allowed::default();
    made.count_allowed(limit as u64, &mut allowed);
    made.failures.retain(|&number| number < limit as u64);
    let mut failure = None;
    // Not in a closure, which would hide who asked for the search.
    if let Some(&schedule) = made.failures.first() {
        failure = Some(report(explore, schedule, &made.choices, program));
    }
    let exploration = Exploration {
        executions: made.classes.len() as u64,
        distinct: made.classes.iter().collect::<FxHashSet<_>>().len() as u64,
        exhausted: is_over && (made.failures.is_empty() || explore.keep_going) && allowed.is_empty(),
        elapsed: begin.elapsed(),
        failures: made.failures.len() as u64,
        allowed,
        failure,
    };
    (exploration, made.has_fault)
}

impl Pool {
    /// What is not wanted any more, and what was given away of it.
    fn cancel(&mut self, tickets: impl IntoIterator<Item = u64>) {
        for ticket in tickets {
            match self.parts.remove(&ticket) {
                Some(Part::Waits(_)) => self.queue.retain(|&waiting| waiting != ticket),
                Some(Part::Runs(stop)) => stop.store(true, Ordering::Relaxed),
                Some(Part::Stopped(search, _)) => self.cancel(search.tickets().collect::<Vec<_>>()),
                None => {}
            }
        }
    }
}

impl Stealing<'_> {
    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().expect("no worker panics while it holds the lock")
    }

    /// To be called where the pool has changed.
    fn count_hungry(&self, pool: &Pool) {
        self.hungry.store(pool.idle.saturating_sub(pool.queue.len()), Ordering::Relaxed);
    }

    /// True where nothing more is to be made: a failure, the limit, or the host's time.
    fn is_at_end(&self, search: &Search, made: &Made) -> bool {
        let failed = !made.failures.is_empty() && !self.explore.keep_going;
        failed || made.is_late || made.unsupported.is_some() || made.classes.len() >= self.limit || search.next() == NextRun::Over
    }

    /// Goes on with a search until it is at its end, has made so many runs that count, or is told to stop.
    #[track_caller]
    fn make(&self, search: &mut Search, made: &mut Made, most: usize, stop: &AtomicBool) {
        let machine = self.explore.faulty_machine().record_trace(false);
        let shared = Rc::new(RefCell::new(std::mem::take(search)));
        let mut reported = (made.classes.len(), made.allowed.len());
        loop {
            let mut search = shared.borrow_mut();
            if self.is_at_end(&search, made) || made.classes.len() >= most || search.told() >= MOST_TOLD {
                break;
            }
            if let NextRun::Given(ticket) = search.next() {
                if !self.reclaim(ticket, &mut search, made) {
                    break;
                }
                continue;
            }
            let is_first = made.classes.is_empty() && search.is_whole();
            if !is_first && self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                made.is_late = true;
                break;
            }
            drop(search);
            let policy = Box::new(Exhaustive::of(&shared));
            let run = machine.run_recorded(policy, Keep::Choices(Vec::new()), self.program);
            let mut search = shared.borrow_mut();
            let counts = search.finish().counts;
            made.unsupported = search.unsupported();
            if made.unsupported.is_some() {
                break;
            }
            made.record(run, counts);
            self.cancel(&mut search);
            while self.hungry.load(Ordering::Relaxed) > 0 && self.give(&mut search) {}
            if made.classes.len() >= reported.0 + REPORT_EVERY as usize {
                self.report(made.classes.len() - reported.0, made.allowed.len() - reported.1);
                reported = (made.classes.len(), made.allowed.len());
            }
            if stop.load(Ordering::Relaxed) || self.over.load(Ordering::Relaxed) {
                break;
            }
        }
        *search = shared.take();
    }

    fn cancel(&self, search: &mut Search) {
        let stale = search.stale();
        if !stale.is_empty() {
            let mut pool = self.lock();
            pool.cancel(stale);
            self.count_hungry(&pool);
        }
    }

    fn report(&self, runs: usize, allowed: usize) {
        let all = self.runs.fetch_add(runs as u64, Ordering::Relaxed) + runs as u64;
        let early = self.allowed.fetch_add(allowed as u64, Ordering::Relaxed) + allowed as u64;
        self.progress.advance(runs as u64, all, early);
    }

    /// Gives a part of a search to those that have nothing to do. False when there is none.
    fn give(&self, search: &mut Search) -> bool {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let Some(part) = search.give(ticket) else { return false };
        let mut pool = self.lock();
        pool.parts.insert(ticket, Part::Waits(Box::new(part)));
        pool.queue.push_back(ticket);
        self.count_hungry(&pool);
        self.changed.notify_all();
        true
    }

    /// The turn of a part has come. False when the search is over.
    fn reclaim(&self, ticket: u64, search: &mut Search, made: &mut Made) -> bool {
        let mut pool = self.lock();
        loop {
            match pool.parts.remove(&ticket) {
                Some(Part::Waits(_)) => {
                    pool.queue.retain(|&waiting| waiting != ticket);
                    search.take_back(ticket);
                    break;
                }
                Some(Part::Stopped(part, its)) => {
                    search.adopt(ticket, *part);
                    made.append(its);
                    break;
                }
                Some(Part::Runs(stop)) => {
                    stop.store(true, Ordering::Relaxed);
                    pool.parts.insert(ticket, Part::Runs(stop));
                }
                None => {}
            }
            if self.over.load(Ordering::Relaxed) {
                return false;
            }
            pool = self.changed.wait(pool).expect("no worker panics while it holds the lock");
        }
        self.count_hungry(&pool);
        drop(pool);
        self.cancel(search);
        true
    }

    /// Makes what is given away, until the search is over.
    fn help(&self) {
        let _over = Over(self);
        let mut pool = self.lock();
        while !self.over.load(Ordering::Relaxed) {
            let Some(ticket) = pool.queue.pop_front() else {
                pool.idle += 1;
                self.count_hungry(&pool);
                pool = self.changed.wait(pool).expect("no worker panics while it holds the lock");
                pool.idle -= 1;
                self.count_hungry(&pool);
                continue;
            };
            let stop = Arc::new(AtomicBool::new(false));
            let Some(Part::Waits(mut search)) = pool.parts.insert(ticket, Part::Runs(Arc::clone(&stop))) else {
                unreachable!("what is in the queue waits")
            };
            self.count_hungry(&pool);
            drop(pool);
            let mut made = Made::default();
            self.make(&mut search, &mut made, usize::MAX, &stop);
            pool = self.lock();
            match pool.parts.get_mut(&ticket) {
                Some(part) => *part = Part::Stopped(search, made),
                None => {
                    pool.cancel(search.tickets().collect::<Vec<_>>());
                    self.count_hungry(&pool);
                }
            }
            self.changed.notify_all();
        }
    }
}

/// Ends the others, also where the program panics outside the machine.
struct Over<'a, 'b>(&'a Stealing<'b>);

impl Drop for Over<'_, '_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
        // Whoever looks whether it is over, and is about to wait, has the lock.
        drop(self.0.pool.lock());
        self.0.changed.notify_all();
    }
}
