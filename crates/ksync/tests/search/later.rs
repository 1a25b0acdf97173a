//! What runs later: DPCs, timers, threads.

use super::{exhaust, sample};
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use ksync::dpc::{self, Dpc, ThreadedDpc};
use ksync::thread;
use ksync::timer::{self, HrTimer, Timer, TimerKind};
use ksync::wait::{Dispatchable, WaitOptions};
use std::sync::Arc;
use test_support::threads::crowd;

/// A DPC that is dropped has run as often as it was queued, or was cancelled, and never runs afterwards.
fn dpc(threads: usize) {
    let runs = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&runs);
    let dpc = Dpc::new(move || _ = counter.fetch_add(1, Ordering::Relaxed)).unwrap();
    let queued = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| _ = queued.fetch_add(u32::from(dpc.enqueue().unwrap()), Ordering::Relaxed)).unwrap();
        }
    });
    dpc.flush().unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), queued.into_inner());
    drop(dpc);
    assert_eq!(Arc::strong_count(&runs), 1, "the closure is freed");
}

#[test]
fn dpc_exhaustively() {
    assert!(exhaust(3, || dpc(1)).is_exhausted());
}

#[test]
fn dpc_portfolio() {
    sample(5, || dpc(4));
}

/// A timer that is dropped while it may expire runs its closure at most once, and not afterwards.
fn timer(threads: usize) {
    let runs = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&runs);
    let timer = Timer::new(move || _ = counter.fetch_add(1, Ordering::Relaxed), false).unwrap();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| _ = timer.start(Duration::from_millis(1), Duration::ZERO)).unwrap();
        }
    });
    drop(timer);
    let runs_when_dropped = runs.load(Ordering::Relaxed);
    thread::this_thread::sleep(Duration::from_millis(5)).unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), runs_when_dropped);
    assert_eq!(Arc::strong_count(&runs), 1, "the closure is freed");
}

#[test]
fn timer_exhaustively() {
    assert!(exhaust(2, || timer(1)).is_exhausted());
    assert!(exhaust(3, || timer(2)).is_exhausted());
}

#[test]
fn timer_portfolio() {
    sample(4, || timer(3));
}

/// The same of a high-resolution timer.
fn fine_timer(threads: usize) {
    let runs = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&runs);
    let timer = HrTimer::new(move || _ = counter.fetch_add(1, Ordering::Relaxed)).unwrap();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| _ = timer.start(Duration::from_micros(100), Duration::ZERO).unwrap()).unwrap();
        }
    });
    drop(timer);
    let runs_when_dropped = runs.load(Ordering::Relaxed);
    thread::this_thread::sleep(Duration::from_millis(1)).unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), runs_when_dropped);
    assert_eq!(Arc::strong_count(&runs), 1, "the closure is freed");
}

#[test]
fn high_resolution_timer_exhaustively() {
    assert!(exhaust(2, || fine_timer(1)).is_exhausted());
    assert!(exhaust(3, || fine_timer(2)).is_exhausted());
}

#[test]
fn high_resolution_timer_portfolio() {
    sample(4, || fine_timer(3));
}

/// A threaded DPC, as `dpc`.
fn threaded_dpc(threads: usize) {
    let runs = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&runs);
    let dpc = ThreadedDpc::new(move || _ = counter.fetch_add(1, Ordering::Relaxed)).unwrap();
    let queued = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| _ = queued.fetch_add(u32::from(dpc.enqueue().unwrap()), Ordering::Relaxed)).unwrap();
        }
    });
    drop(dpc);
    assert!(runs.load(Ordering::Relaxed) <= queued.into_inner());
    assert_eq!(Arc::strong_count(&runs), 1, "the closure is freed");
}

#[test]
fn threaded_dpc_exhaustively() {
    assert!(exhaust(4, || threaded_dpc(1)).is_exhausted());
}

#[test]
fn threaded_dpc_portfolio() {
    sample(5, || threaded_dpc(3));
}

/// A closure that runs once does, somewhere, and is freed; one for each processor has run everywhere when the call returns.
fn once(closures: u32) {
    let (runs, everywhere) = (Arc::new(AtomicU32::new(0)), AtomicU32::new(0));
    for _ in 0..closures {
        let counter = Arc::clone(&runs);
        dpc::run_once(move || _ = counter.fetch_add(1, Ordering::Relaxed)).unwrap();
    }
    dpc::run_once_per_core(|| _ = everywhere.fetch_add(1, Ordering::Relaxed)).unwrap();
    assert_eq!(everywhere.into_inner() as usize, thread::available_parallelism().get());
    // SAFETY: this is at PASSIVE_LEVEL.
    unsafe { ksync::sys::KeFlushQueuedDpcs() };
    assert_eq!(runs.load(Ordering::Relaxed), closures);
    assert_eq!(Arc::strong_count(&runs), 1, "the closures are freed");
}

#[test]
fn closures_that_run_once_exhaustively() {
    assert!(exhaust(2, || once(1)).is_exhausted());
}

#[test]
fn closures_that_run_once_portfolio() {
    sample(4, || once(3));
}

/// What a thread returns comes to who joins it.
fn results(threads: u32) {
    let handles: Vec<_> = (0..threads).map(|number| thread::spawn(move || number).unwrap()).collect();
    let results: Vec<u32> = handles.into_iter().map(|handle| handle.join().unwrap()).collect();
    assert_eq!(results, (0..threads).collect::<Vec<_>>());
}

#[test]
fn threads_exhaustively() {
    assert!(exhaust(3, || results(2)).is_exhausted());
}

#[test]
fn threads_portfolio() {
    sample(6, || results(5));
}

/// What runs after a delay does so once, and is freed.
fn delays(threads: u32) {
    let runs = Arc::new(AtomicU32::new(0));
    thread::scope(|scope| {
        for _ in 0..threads {
            let counter = Arc::clone(&runs);
            let start = move || {
                let run = move || _ = counter.fetch_add(1, Ordering::Relaxed);
                assert!(timer::delay_run(Duration::from_millis(1), run).is_ok());
            };
            scope.spawn(start).unwrap();
        }
    });
    thread::this_thread::sleep(Duration::from_millis(5)).unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), threads);
    assert_eq!(Arc::strong_count(&runs), 1, "the closures are freed");
}

#[test]
fn delays_exhaustively() {
    assert!(exhaust(2, || delays(1)).is_exhausted());
    assert!(exhaust(3, || delays(2)).is_exhausted());
}

#[test]
fn delays_portfolio() {
    sample(5, || delays(4));
}

/// The tick is as short as the shortest request that is left, and what is asked for is taken back.
fn resolutions(threads: usize) {
    crowd(threads, |thread| {
        let wanted = Duration::from_millis(1 + thread as u64);
        let resolution = timer::set_timer_resolution(wanted).unwrap();
        assert!(resolution.tick() <= wanted);
        drop(resolution);
    });
}

#[test]
fn timer_resolution_exhaustively() {
    assert!(exhaust(3, || resolutions(2)).is_exhausted());
}

#[test]
fn timer_resolution_portfolio() {
    sample(5, || resolutions(4));
}

/// An expiry releases all who wait for a notification timer, and one of those who wait for a synchronization timer.
fn expiries(threads: u32, kind: TimerKind, start: impl Fn(), timer: &(dyn Dispatchable + Sync)) {
    let released = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..threads {
            let wait = || {
                let options = WaitOptions::from(ksync::time::Timeout::after(Duration::from_millis(5)));
                _ = released.fetch_add(timer.wait_with(options).success().into(), Ordering::Relaxed);
            };
            scope.spawn(wait).unwrap();
        }
        start();
    });
    let expected = if kind == TimerKind::Notification { threads } else { 1 };
    assert_eq!(released.into_inner(), expected);
}

fn waitable(threads: u32) {
    let (due, once) = (Duration::from_millis(1), Duration::ZERO);
    for kind in [TimerKind::Notification, TimerKind::Synchronization] {
        let timer = Timer::waitable(kind).unwrap();
        expiries(threads, kind, || assert_eq!(timer.start(due, once), Ok(false)), &timer);
    }
}

#[test]
fn waitable_timer_exhaustively() {
    assert!(exhaust(3, || waitable(2)).is_exhausted());
}

#[test]
fn waitable_timer_portfolio() {
    sample(5, || waitable(4));
}

fn waitable_fine(threads: u32) {
    let (due, once) = (Duration::from_millis(1), Duration::ZERO);
    for kind in [TimerKind::Notification, TimerKind::Synchronization] {
        let timer = HrTimer::waitable(kind).unwrap();
        expiries(threads, kind, || assert_eq!(timer.start(due, once), Ok(false)), &timer);
    }
}

#[test]
fn waitable_high_resolution_timer_exhaustively() {
    assert!(exhaust(3, || waitable_fine(1)).is_exhausted());
}

#[test]
fn waitable_high_resolution_timer_portfolio() {
    sample(5, || waitable_fine(4));
}
