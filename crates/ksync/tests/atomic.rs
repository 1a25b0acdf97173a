//! Atomics and plain shared memory under searches of schedules.

use core::cell::Cell;
use ksim::explore::{Exploration, Strategy};
use ksim::{Machine, explore};
use ksync::dpc::Dpc;
use ksync::event::{Event, EventProperty};
use ksync::mutex::FastLocked;
use ksync::sync::RaceCell;
use ksync::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use ksync::wait::Dispatchable;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use test_support::threads::crowd;

const STRATEGIES: [Strategy; 7] = [
    Strategy::Portfolio,
    Strategy::Random,
    Strategy::Urw,
    Strategy::Pos,
    Strategy::Pct { depth: 3 },
    Strategy::RoundRobin,
    Strategy::Exhaustive,
];

/// Writes a cell that is known to be free of races, or is looked at for one.
fn set(cell: &RaceCell<u32>, value: u32) {
    // SAFETY: the machine runs on one OS thread, and panics before an access that races.
    unsafe { cell.set(value) };
}

fn get(cell: &RaceCell<u32>) -> u32 {
    // SAFETY: as above.
    unsafe { cell.get() }
}

fn exhaust(processors: u8, program: impl Fn() + Sync) -> Exploration {
    explore().processors(processors).strategy(Strategy::Exhaustive).keep_going(true).check(program)
}

/// True when some schedule of a few has a race, and every failure is one.
fn races(program: impl Fn() + Sync) -> bool {
    let exploration = explore().processors(4).schedules(40).check(program);
    let Some(failure) = exploration.failure() else { return false };
    let message = &failure.outcome.panic().unwrap_or_else(|| panic!("{failure}")).message;
    assert!(message.contains("data race") && message.contains("atomic.rs:"), "{message}");
    true
}

#[test]
fn every_operation_is_that_of_core() {
    Machine::new()
        .run(|| {
            let number = AtomicU8::new(250);
            assert_eq!(number.fetch_add(10, Ordering::SeqCst), 250);
            assert_eq!((number.swap(7, Ordering::Relaxed), number.load(Ordering::Acquire)), (4, 7));
            assert_eq!((number.fetch_sub(8, Ordering::SeqCst), number.fetch_and(0x0f, Ordering::SeqCst)), (7, 255));
            assert_eq!((number.fetch_or(0xf0, Ordering::SeqCst), number.fetch_xor(0xff, Ordering::SeqCst)), (15, 255));
            assert_eq!((number.fetch_nand(1, Ordering::SeqCst), number.fetch_max(3, Ordering::SeqCst)), (0, 255));
            assert_eq!((number.fetch_min(3, Ordering::SeqCst), number.load(Ordering::SeqCst)), (255, 3));
            assert_eq!(number.compare_exchange(4, 5, Ordering::AcqRel, Ordering::Acquire), Err(3));
            assert_eq!(number.compare_exchange_weak(3, 5, Ordering::AcqRel, Ordering::Acquire), Ok(3));
            assert_eq!(number.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| old.checked_add(1)), Ok(5));
            assert_eq!(number.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |_| None), Err(6));
            assert_eq!(format!("{number:?} {:?}", AtomicBool::default()), "6 false");
            let flag = AtomicBool::from(true);
            assert!(flag.fetch_and(false, Ordering::SeqCst) && !flag.into_inner());
            let (mut one, mut two) = (1, 2);
            let pointer = AtomicPtr::new(&raw mut one);
            assert_eq!(pointer.swap(&raw mut two, Ordering::SeqCst), &raw mut one);
            assert_eq!(pointer.load(Ordering::SeqCst), &raw mut two);
        })
        .expect_clean();
    // Outside a machine too.
    static COUNT: AtomicUsize = AtomicUsize::new(1);
    COUNT.store(2, Ordering::Relaxed);
    assert_eq!(COUNT.load(Ordering::Relaxed), 2);
}

/// An increment in two operations loses one, in one operation none.
#[test]
fn operations_are_scheduling_points() {
    let seen = Mutex::new(BTreeSet::new());
    let exploration = exhaust(3, || {
        let (torn, whole) = (AtomicU32::new(0), AtomicU32::new(0));
        crowd(2, |_| {
            let value = torn.load(Ordering::Relaxed);
            torn.store(value + 1, Ordering::Relaxed);
            whole.fetch_add(1, Ordering::Relaxed);
        });
        seen.lock().unwrap().insert((torn.into_inner(), whole.into_inner()));
    });
    assert!(exploration.expect_clean().is_exhausted());
    assert_eq!(seen.into_inner().unwrap(), [(1, 2), (2, 2)].into());
}

/// Store buffering with one order of all operations: three of four outcomes.
#[test]
fn operations_have_one_order() {
    let seen = Mutex::new(BTreeSet::new());
    let exploration = exhaust(3, || {
        let flags = [AtomicU32::new(0), AtomicU32::new(0)];
        let read = [Cell::new(0), Cell::new(0)];
        crowd(2, |thread| {
            flags[thread].store(1, Ordering::SeqCst);
            read[thread].set(flags[1 - thread].load(Ordering::SeqCst));
        });
        seen.lock().unwrap().insert((read[0].get(), read[1].get()));
    });
    assert!(exploration.expect_clean().is_exhausted());
    assert_eq!(seen.into_inner().unwrap(), [(0, 1), (1, 0), (1, 1)].into());
    assert_eq!(exploration.executions(), 3);
}

/// A lock that spins on an atomic, with data that it protects.
fn spin_lock(threads: usize, turns: u32) {
    let (locked, count) = (AtomicBool::new(false), RaceCell::new(0));
    crowd(threads, |_| {
        for _ in 0..turns {
            while locked.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {}
            set(&count, get(&count) + 1);
            locked.store(false, Ordering::Release);
        }
    });
    assert_eq!(count.into_inner(), threads as u32 * turns);
}

#[test]
fn loops_that_spin_end_under_every_strategy() {
    for strategy in STRATEGIES {
        let machine = Machine::new().processors(3).step_limit(10_000);
        explore().machine(machine).strategy(strategy).schedules(50).check(|| spin_lock(2, 2)).expect_clean();
    }
    for processors in [1, 2, 5] {
        let machine = Machine::new().processors(processors).step_limit(50_000);
        explore().machine(machine).schedules(60).check(|| spin_lock(4, 3)).expect_clean();
    }
}

#[test]
fn loops_that_spin_are_exhausted() {
    let exploration = exhaust(3, || {
        let ready = AtomicBool::new(false);
        crowd(2, |thread| {
            if thread == 0 {
                while !ready.load(Ordering::Acquire) {}
            } else {
                ready.store(true, Ordering::Release);
            }
        });
    });
    assert!(exploration.expect_clean().is_exhausted());
    assert!(exploration.executions() <= 3, "{exploration}");
}

#[test]
fn a_loop_that_spins_for_ever_is_a_deadlock() {
    let outcome = Machine::new().processors(2).run(|| {
        let never = AtomicBool::new(false);
        while !never.load(Ordering::Relaxed) {}
    });
    assert!(outcome.deadlock().is_some(), "{outcome}");
}

/// The clock moves while a loop waits for a timer.
#[test]
fn a_loop_that_spins_until_a_timer_expires_ends() {
    Machine::new()
        .run(|| {
            let due = Arc::new(AtomicBool::new(false));
            let flag = Arc::clone(&due);
            let timer = ksync::timer::Timer::new(move || flag.store(true, Ordering::Release), false).unwrap();
            timer.start(core::time::Duration::from_secs(1), core::time::Duration::ZERO).unwrap();
            while !due.load(Ordering::Acquire) {}
        })
        .expect_clean();
}

/// What is read twice at one place is not always a loop.
#[test]
fn reading_twice_is_no_spinning() {
    let outcome = Machine::new().run(|| {
        let flag = AtomicBool::new(false);
        let read = || flag.load(Ordering::Relaxed);
        assert!(!read() && !read() && !read());
    });
    outcome.expect_clean();
}

#[test]
fn release_and_acquire_order_what_is_plain() {
    let publish = |store: Ordering, load: Ordering| {
        races(move || {
            let (ready, value) = (AtomicBool::new(false), RaceCell::new(0));
            crowd(2, |thread| {
                if thread == 0 {
                    set(&value, 1);
                    ready.store(true, store);
                } else if ready.load(load) {
                    assert_eq!(get(&value), 1);
                }
            });
        })
    };
    assert!(!publish(Ordering::Release, Ordering::Acquire));
    assert!(!publish(Ordering::SeqCst, Ordering::SeqCst));
    assert!(publish(Ordering::Relaxed, Ordering::Acquire));
    assert!(publish(Ordering::Release, Ordering::Relaxed));
}

#[test]
fn readers_do_not_race_and_writers_do() {
    let shared = |first_writes: bool, second_writes: bool| {
        races(move || {
            let value = RaceCell::new(0);
            crowd(2, |thread| {
                if [first_writes, second_writes][thread] {
                    set(&value, 1);
                } else {
                    let _ = get(&value);
                }
            });
        })
    };
    assert!(!shared(false, false));
    assert!(shared(true, false));
    assert!(shared(false, true));
    assert!(shared(true, true));
}

/// A race is found in a schedule in which it does no harm.
#[test]
fn the_first_schedule_finds_a_race() {
    let exploration = explore().processors(3).schedules(1).check(|| {
        let value = RaceCell::new(0);
        crowd(2, |_| set(&value, 1));
    });
    assert!(exploration.failure().is_some());
}

#[test]
fn what_nt_orders_does_not_race() {
    assert!(!races(|| {
        let (lock, under_lock) = (FastLocked::new(()).unwrap(), RaceCell::new(0));
        let (event, before_event) = (Event::new(EventProperty::Notification, false).unwrap(), RaceCell::new(0));
        let before = RaceCell::new(0);
        set(&before, 1);
        crowd(3, |thread| {
            // A thread starts after what its creator did before.
            assert_eq!(get(&before), 1);
            let guard = lock.lock().unwrap();
            set(&under_lock, get(&under_lock) + 1);
            drop(guard);
            if thread == 0 {
                set(&before_event, 1);
                event.set().unwrap();
            } else {
                assert!(event.wait().success());
                assert_eq!(get(&before_event), 1);
            }
        });
        // And is over before who joins it goes on.
        assert_eq!(get(&under_lock), 3);
        set(&before, 2);
    }));
}

#[test]
fn what_nt_does_not_order_races() {
    // The lock is not the same.
    assert!(races(|| {
        let locks = [FastLocked::new(()).unwrap(), FastLocked::new(()).unwrap()];
        let value = RaceCell::new(0);
        crowd(2, |thread| {
            let _guard = locks[thread].lock().unwrap();
            set(&value, thread as u32);
        });
    }));
    // The write is behind the event.
    assert!(races(|| {
        let (event, value) = (Event::new(EventProperty::Notification, false).unwrap(), RaceCell::new(0));
        crowd(2, |thread| {
            if thread == 0 {
                event.set().unwrap();
                set(&value, 1);
            } else {
                assert!(event.wait().success());
                let _ = get(&value);
            }
        });
    }));
}

#[test]
fn dpcs_are_after_what_queued_them_and_before_a_flush() {
    assert!(!races(|| {
        let value = Arc::new(RaceCell::new(0));
        let shared = Arc::clone(&value);
        let dpc = Dpc::new(move || set(&shared, get(&shared) + 1)).unwrap();
        set(&value, 1);
        dpc.enqueue().unwrap();
        dpc.flush().unwrap();
        assert_eq!(get(&value), 2);
    }));
    assert!(races(|| {
        let value = Arc::new(RaceCell::new(0));
        let shared = Arc::clone(&value);
        let dpc = Dpc::new(move || set(&shared, 1)).unwrap();
        dpc.enqueue().unwrap();
        set(&value, 2);
        dpc.flush().unwrap();
    }));
}

/// Whoever lets time pass: the DPC of a timer comes after the thread that has set the timer.
#[test]
fn timers_dpcs_are_after_what_set_the_timer() {
    use core::time::Duration;
    use ksync::timer::{HrTimer, Timer};
    let time = Duration::from_millis;
    let program = |high_resolution: bool, starts_first: bool| {
        let value = Arc::new(RaceCell::new(0));
        let shared = Arc::clone(&value);
        let reads = move || _ = get(&shared);
        let start: Box<dyn Fn() -> bool> = if high_resolution {
            let timer = HrTimer::new(reads).unwrap();
            Box::new(move || timer.start(time(1), Duration::ZERO).unwrap())
        } else {
            let timer = Timer::new(reads, false).unwrap();
            Box::new(move || timer.start(time(1), Duration::ZERO).unwrap())
        };
        let sets = || {
            if starts_first {
                start();
            }
            set(&value, 1);
            if !starts_first {
                start();
            }
        };
        // In steps, so that the timer is set meanwhile.
        let stalls = || (0..3).for_each(|_| ksync::thread::this_thread::stall(time(1)));
        crowd(2, |thread| if thread == 0 { sets() } else { stalls() });
    };
    for high_resolution in [false, true] {
        assert!(!races(|| program(high_resolution, false)), "high resolution: {high_resolution}");
        assert!(races(|| program(high_resolution, true)), "high resolution: {high_resolution}");
    }
}
