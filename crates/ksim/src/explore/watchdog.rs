//! Says that a search has come to a halt: a thread that loops without a call of the kernel, or waits for a lock of the host, is seen by nobody.
//!
//! The OS threads that search count their runs. A thread of the watchdog's own looks at these counts now and then, and says on standard error, once for each run, where one has not changed for long.
//! Nothing depends on it.

use super::tell;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// For how long a run is left alone, and how often it is looked at.
const PATIENCE: Duration = Duration::from_secs(10);
const PERIOD: Duration = Duration::from_secs(1);

/// No schedule has this number.
const UNNUMBERED: u64 = u64::MAX;

/// What an OS thread does that searches.
struct Searcher {
    /// How often it has begun and ended a run: odd within one.
    turns: AtomicU64,
    schedule: AtomicU64,
}

thread_local! {
    /// This OS thread, while it searches.
    static OWN: RefCell<Option<Arc<Searcher>>> = const { RefCell::new(None) };
}

struct All {
    searchers: Vec<Arc<Searcher>>,
    /// Somebody looks at them.
    watched: bool,
}

static ALL: Mutex<All> = Mutex::new(All { searchers: Vec::new(), watched: false });

fn all() -> MutexGuard<'static, All> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This OS thread is watched until this goes away.
pub(super) struct Watched(Option<Arc<Searcher>>);

/// This OS thread searches from now on.
pub(super) fn watch() -> Watched {
    let own = Arc::new(Searcher { turns: AtomicU64::new(0), schedule: AtomicU64::new(UNNUMBERED) });
    let is_first = OWN.with_borrow_mut(|slot| {
        let is_free = slot.is_none();
        if is_free {
            *slot = Some(Arc::clone(&own));
        }
        is_free
    });
    if !is_first {
        return Watched(None);
    }
    let mut all = all();
    all.searchers.push(Arc::clone(&own));
    if !all.watched {
        // Without it nothing is said.
        all.watched = std::thread::Builder::new().name("ksim watchdog".to_owned()).spawn(look).is_ok();
    }
    Watched(Some(own))
}

impl Drop for Watched {
    fn drop(&mut self) {
        let Some(own) = &self.0 else { return };
        OWN.with_borrow_mut(Option::take);
        all().searchers.retain(|searcher| !Arc::ptr_eq(searcher, own));
    }
}

/// A run, for as long as this is there.
pub(crate) struct Running(());

/// A run begins on this OS thread.
#[inline]
pub(crate) fn run_begins() -> Running {
    turn();
    Running(())
}

impl Drop for Running {
    fn drop(&mut self) {
        turn();
    }
}

#[inline]
fn turn() {
    OWN.with_borrow(|own| {
        if let Some(own) = own {
            // Nobody else writes it.
            own.turns.store(own.turns.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    });
}

/// The runs that follow on this OS thread are of that schedule, if they have a number.
pub(super) fn set_schedule(schedule: Option<u64>) {
    OWN.with_borrow(|own| {
        if let Some(own) = own {
            own.schedule.store(schedule.unwrap_or(UNNUMBERED), Ordering::Relaxed);
        }
    });
}

/// Looks at all that search, until nobody does.
fn look() {
    let mut seen = Seen::default();
    loop {
        std::thread::sleep(PERIOD);
        let mut all = all();
        if all.searchers.is_empty() {
            all.watched = false;
            return;
        }
        let searchers = all.searchers.clone();
        drop(all);
        seen.look_at(&searchers, Instant::now()).iter().for_each(|searcher| say(searcher));
    }
}

/// The searchers that are in a run, as they were when that was first seen, and whether they have been told of.
#[derive(Default)]
struct Seen(Vec<(Arc<Searcher>, u64, Instant, bool)>);

impl Seen {
    /// Those that have been in the same run for long, each once for each run.
    fn look_at(&mut self, searchers: &[Arc<Searcher>], now: Instant) -> Vec<Arc<Searcher>> {
        let is_there = |searcher: &Arc<Searcher>| searchers.iter().any(|other| Arc::ptr_eq(other, searcher));
        self.0.retain(|(searcher, turns, ..)| is_there(searcher) && searcher.turns.load(Ordering::Relaxed) == *turns);
        for searcher in searchers {
            let turns = searcher.turns.load(Ordering::Relaxed);
            if turns % 2 == 1 && !self.0.iter().any(|(known, ..)| Arc::ptr_eq(known, searcher)) {
                self.0.push((Arc::clone(searcher), turns, now, false));
            }
        }
        let late = self.0.iter_mut().filter(|(_, _, since, said)| !said && now.duration_since(*since) >= PATIENCE);
        late.map(|(searcher, _, _, said)| {
            *said = true;
            Arc::clone(searcher)
        })
        .collect()
    }
}

fn say(searcher: &Searcher) {
    let which = match searcher.schedule.load(Ordering::Relaxed) {
        UNNUMBERED => "a schedule".to_owned(),
        number => format!("schedule {number}"),
    };
    tell(&format!(
        "{which} has run for more than {} s. Does a thread loop without a call of the kernel, or wait for a lock of the host? See `When nothing happens` in docs/simulator.md",
        PATIENCE.as_secs()
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_takes_long_is_told_of_once() {
        let searcher = Arc::new(Searcher { turns: AtomicU64::new(0), schedule: AtomicU64::new(UNNUMBERED) });
        let (all, begin) = ([Arc::clone(&searcher)], Instant::now());
        let mut seen = Seen::default();
        let mut late = |seconds| seen.look_at(&all, begin + Duration::from_secs(seconds)).len();
        // Between runs, for however long.
        assert_eq!([late(0), late(20)], [0, 0]);
        searcher.turns.store(1, Ordering::Relaxed);
        assert_eq!([late(21), late(30), late(31), late(60)], [0, 0, 1, 0]);
        // Another run.
        searcher.turns.store(3, Ordering::Relaxed);
        assert_eq!([late(61), late(71), late(72)], [0, 1, 0]);
        searcher.turns.store(4, Ordering::Relaxed);
        assert_eq!(late(100), 0);
    }

    #[test]
    fn runs_are_counted_where_somebody_searches() {
        drop(run_begins());
        let watched = watch();
        let own = Arc::clone(watched.0.as_ref().unwrap());
        let inner = watch();
        assert!(inner.0.is_none());
        drop(inner);
        let running = run_begins();
        assert_eq!(own.turns.load(Ordering::Relaxed), 1);
        drop(running);
        assert_eq!(own.turns.load(Ordering::Relaxed), 2);
        drop(watched);
        drop(run_begins());
        assert_eq!(own.turns.load(Ordering::Relaxed), 2);
    }
}
