//! Exhaustive searches: each class of schedules once.

use ksim::explore::{Exploration, Explore, Strategy};
use ksim::{Machine, explore};
use ksync_sys::atomic::{AtomicU32, Ordering};
use ksync_sys::*;
use std::cell::{Cell, UnsafeCell};
use test_support::*;

/// Without the check of the order of locks, which finds in the first schedule what these searches are to look for.
fn machine(processors: u8) -> Machine {
    Machine::new().processors(processors).check_lock_order(false)
}

fn exhaust(processors: u8, program: impl Fn() + Sync) -> Exploration {
    explore().machine(machine(processors)).strategy(Strategy::Exhaustive).keep_going(true).check(program)
}

/// Threads that count under a lock. One for the first thread, one for each of the others.
fn count<L>(threads: usize, turns: usize, lock: &L, with: impl Fn(&L, &dyn Fn())) {
    let count = Cell::new(0);
    let code = || {
        for _ in 0..turns {
            with(lock, &|| count.set(count.get() + 1));
        }
    };
    join_all((0..threads).map(|_| spawn(code)).collect::<Vec<_>>());
    assert_eq!(count.get(), threads * turns);
}

fn mutex(threads: usize, turns: usize) {
    count(threads, turns, &Mutex::new(), |lock, code| {
        wait(lock.object());
        code();
        lock.release();
    });
}

fn fast_mutex(threads: usize, turns: usize) {
    count(threads, turns, &FastMutex::new(), |lock, code| {
        lock.acquire();
        code();
        lock.release();
    });
}

fn spin_lock(threads: usize, turns: usize) {
    count(threads, turns, &SpinLock::new(), |lock, code| lock.with(code));
}

fn queued_spin_lock(threads: usize, turns: usize) {
    count(threads, turns, &SpinLock::new(), |lock, code| {
        let handle = QueueHandle::new();
        handle.acquire(lock);
        code();
        handle.release();
    });
}

/// A lock that several can share, whose acquisitions and releases are `share` and `own`.
trait SharedLock {
    fn new() -> Box<Self>;
    fn share(&self, code: &dyn Fn());
    fn own(&self, code: &dyn Fn());
}

struct Push(UnsafeCell<EX_PUSH_LOCK>);

impl SharedLock for Push {
    fn new() -> Box<Self> {
        Box::new(Self(UnsafeCell::new(0)))
    }

    fn share(&self, code: &dyn Fn()) {
        // SAFETY: as in `own`.
        unsafe { KeEnterCriticalRegion() };
        // SAFETY: as in `own`.
        unsafe { ExAcquirePushLockSharedEx(self.0.get(), 0) };
        code();
        // SAFETY: as in `own`.
        unsafe { ExReleasePushLockSharedEx(self.0.get(), 0) };
        // SAFETY: as in `own`.
        unsafe { KeLeaveCriticalRegion() };
    }

    fn own(&self, code: &dyn Fn()) {
        // SAFETY: threads are at PASSIVE_LEVEL.
        unsafe { KeEnterCriticalRegion() };
        // SAFETY: the word is a push lock, used from within a critical region.
        unsafe { ExAcquirePushLockExclusiveEx(self.0.get(), 0) };
        code();
        // SAFETY: as above, and it is held.
        unsafe { ExReleasePushLockExclusiveEx(self.0.get(), 0) };
        // SAFETY: the region was entered above.
        unsafe { KeLeaveCriticalRegion() };
    }
}

struct SpinRw(UnsafeCell<EX_SPIN_LOCK>);

impl SharedLock for SpinRw {
    fn new() -> Box<Self> {
        Box::new(Self(UnsafeCell::new(0)))
    }

    fn share(&self, code: &dyn Fn()) {
        // SAFETY: the word is a lock, and threads are at PASSIVE_LEVEL.
        let level = unsafe { ExAcquireSpinLockShared(self.0.get()) };
        code();
        // SAFETY: it is held.
        unsafe { ExReleaseSpinLockShared(self.0.get(), level) };
    }

    fn own(&self, code: &dyn Fn()) {
        // SAFETY: as above.
        let level = unsafe { ExAcquireSpinLockExclusive(self.0.get()) };
        code();
        // SAFETY: as above.
        unsafe { ExReleaseSpinLockExclusive(self.0.get(), level) };
    }
}

struct Resource(UnsafeCell<ERESOURCE>);

impl SharedLock for Resource {
    fn new() -> Box<Self> {
        // SAFETY: the structure is plain data, for which zero is valid.
        let resource = Box::new(Self(UnsafeCell::new(unsafe { std::mem::zeroed() })));
        // SAFETY: the memory is the box's, and stays where it is.
        unsafe { ExInitializeResourceLite(resource.0.get()) };
        resource
    }

    fn share(&self, code: &dyn Fn()) {
        // SAFETY: the resource is initialised, and threads are at PASSIVE_LEVEL.
        unsafe { ExEnterCriticalRegionAndAcquireResourceShared(self.0.get()) };
        code();
        // SAFETY: it is held.
        unsafe { ExReleaseResourceAndLeaveCriticalRegion(self.0.get()) };
    }

    fn own(&self, code: &dyn Fn()) {
        // SAFETY: as above.
        unsafe { ExEnterCriticalRegionAndAcquireResourceExclusive(self.0.get()) };
        code();
        // SAFETY: as above.
        unsafe { ExReleaseResourceAndLeaveCriticalRegion(self.0.get()) };
    }
}

impl Drop for Resource {
    fn drop(&mut self) {
        // SAFETY: the resource is initialised, and nobody uses it any more.
        unsafe { ExDeleteResourceLite(self.0.get()) };
    }
}

fn owned<L: SharedLock>(threads: usize, turns: usize) {
    count(threads, turns, &*L::new(), |lock, code| lock.own(code));
}

/// Readers that share a lock twice each, and writers that have it once.
fn readers_and_writers<L: SharedLock>(readers: usize, writers: usize) {
    let (lock, value) = (L::new(), Cell::new(0));
    let (read, write) = (|| (0..2).for_each(|_| lock.share(&|| _ = value.get())), || lock.own(&|| value.set(value.get() + 1)));
    let mut threads: Vec<_> = (0..readers).map(|_| spawn(read)).collect();
    threads.extend((0..writers).map(|_| spawn(write)));
    join_all(threads);
    assert_eq!(value.get(), writers);
}

/// Who shares does not see in which order others do; who owns has its place among all.
#[test]
fn sharing_is_no_order() {
    fn executions<L: SharedLock>(readers: usize, writers: usize) -> u64 {
        let exploration = exhaust((readers + writers) as u8 + 1, || readers_and_writers::<L>(readers, writers));
        exploration.expect_clean();
        assert!(exploration.is_exhausted());
        exploration.executions()
    }
    for readers in 1..=3 {
        let executions = [executions::<Push>(readers, 0), executions::<SpinRw>(readers, 0), executions::<Resource>(readers, 0)];
        assert_eq!(executions, [1; 3], "{readers} readers");
    }
    // Before, between, and after the reader's two turns, or while it waits for the end of one. Who turns is handed nothing, and has to be the first again.
    assert_eq!([executions::<Push>(1, 1), executions::<SpinRw>(1, 1), executions::<Resource>(1, 1)], [5, 6, 5]);
}

/// A thread that shares a lock twice waits for a writer that came between, and that for the thread.
#[test]
fn a_writer_between_two_shares_of_one_thread_is_found() {
    let exploration = exhaust(3, || {
        let lock = Push::new();
        join_all([spawn(|| lock.share(&|| lock.share(&|| ()))), spawn(|| lock.own(&|| ()))]);
    });
    assert!(exploration.expect_failure().outcome.deadlock().is_some());
    assert!(exploration.failures() < exploration.executions(), "{exploration}");
}

/// As many executions as there are orders of acquisition.
#[test]
fn locks_are_exhausted_in_as_many_executions_as_there_are_orders() {
    type Program = fn(usize, usize);
    let locks: [(&str, Program); 7] = [
        ("mutex", mutex),
        ("fast mutex", fast_mutex),
        ("spin lock", spin_lock),
        ("queued spin lock", queued_spin_lock),
        ("push lock", owned::<Push>),
        ("reader-writer spin lock", owned::<SpinRw>),
        ("resource", owned::<Resource>),
    ];
    for (name, program) in locks {
        for (threads, turns, orders) in [(2, 1, 2), (2, 2, 6), (2, 3, 20), (2, 4, 70), (2, 5, 252), (3, 1, 6), (3, 2, 90)] {
            let exploration = exhaust(threads as u8 + 1, || program(threads, turns));
            exploration.expect_clean();
            assert!(exploration.is_exhausted(), "{exploration}");
            assert_eq!((exploration.executions(), exploration.distinct()), (orders, orders), "{name}, {threads} x {turns}");
        }
    }
}

/// Each philosopher takes the left fork, then the right.
fn philosophers(number: usize) {
    let forks: Vec<_> = (0..number).map(|_| Mutex::new()).collect();
    let eat = |index: usize| {
        let (left, right) = (&forks[index], &forks[(index + 1) % number]);
        wait(left.object());
        wait(right.object());
        right.release();
        left.release();
    };
    let eat = &eat;
    join_all((0..number).map(|index| spawn(move || eat(index))).collect::<Vec<_>>());
}

#[test]
fn philosophers_are_exhausted_in_as_many_executions_as_there_are_orders() {
    for (number, executions) in [(2, 3), (3, 7), (4, 15)] {
        let exploration = exhaust(number as u8 + 1, || philosophers(number));
        assert!(exploration.is_exhausted());
        assert_eq!((exploration.executions(), exploration.failures()), (executions, 1), "{number}: {exploration}");
        assert!(exploration.expect_failure().outcome.deadlock().is_some());
    }
}

/// Searches that are long enough to be divided, by several OS threads or one, whole or in shards.
#[test]
fn long_searches_are_as_exact_however_they_are_made() {
    fn check(processors: u8, executions: u64, failures: u64, program: fn()) {
        let search = || explore().machine(machine(processors)).strategy(Strategy::Exhaustive).keep_going(true);
        for jobs in [1, 3] {
            let exploration = search().jobs(jobs.try_into().unwrap()).check(program);
            assert!(exploration.is_exhausted());
            assert_eq!((exploration.executions(), exploration.failures()), (executions, failures), "{jobs} OS threads");
        }
        let parts: Vec<_> = (0..3).map(|part| search().shard(part, 3).check(program)).collect();
        assert!(parts.iter().all(|part| part.is_exhausted() && part.executions() < executions));
        assert_eq!(parts.iter().map(Exploration::executions).sum::<u64>(), executions);
        assert_eq!(parts.iter().map(Exploration::failures).sum::<u64>(), failures);
    }
    check(3, 924, 0, || mutex(2, 6));
    check(4, 1680, 0, || spin_lock(3, 3));
}

/// The first failure and where a limit ends a search depend on no OS thread's speed.
#[test]
fn what_long_searches_find_does_not_depend_on_the_number_of_os_threads() {
    // The threads may not turn in the one order that is as far as can be from that of their creation.
    let program = || {
        let (lock, log) = (Mutex::new(), std::cell::RefCell::new(Vec::new()));
        let turns = |name| {
            let (lock, log) = (&lock, &log);
            spawn(move || {
                for _ in 0..6 {
                    wait(lock.object());
                    log.borrow_mut().push(name);
                    lock.release();
                }
            })
        };
        join_all((0..2).map(turns).collect::<Vec<_>>());
        assert_ne!(*log.borrow(), [1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]);
    };
    for strategy in [Strategy::Exhaustive, Strategy::Bounded { preemptions: 2 }] {
        let search = |jobs: usize| explore().machine(machine(3)).strategy(strategy).shrink(false).jobs(jobs.try_into().unwrap());
        let found = |jobs| {
            let exploration = search(jobs).check(program);
            let failure = exploration.expect_failure();
            let limited = search(jobs).schedules(500).check(|| mutex(2, 6));
            assert_eq!((limited.executions(), limited.is_exhausted()), (500, false));
            (failure.schedule, failure.found.clone(), exploration.executions(), limited.distinct())
        };
        let first = found(1);
        assert!(first.0 > 300, "{strategy:?}: {first:?}");
        assert_eq!(first, found(3));
    }
}

/// What threads of a random program do: take a lock, and perhaps another meanwhile.
type Locks = Vec<Vec<(usize, Option<usize>)>>;

/// In how many orders the locks can be acquired, up to the end or to a deadlock.
fn orders(program: &Locks) -> (u64, u64) {
    type State = (Vec<usize>, Vec<Option<usize>>, Vec<Vec<usize>>);
    let operations = |thread: &Vec<(usize, Option<usize>)>| {
        let nested = |&(outer, inner): &(usize, Option<usize>)| {
            let inner = inner.map_or(Vec::new(), |inner| vec![(inner, true), (inner, false)]);
            [vec![(outer, true)], inner, vec![(outer, false)]].concat()
        };
        thread.iter().flat_map(nested).collect::<Vec<_>>()
    };
    let threads: Vec<_> = program.iter().map(operations).collect();
    let first: State = (vec![0; threads.len()], vec![None; 3], vec![Vec::new(); 3]);
    let (mut seen, mut ends) = (std::collections::HashSet::from([first.clone()]), (0, 0));
    let mut left = vec![first];
    while let Some(state) = left.pop() {
        let mut stuck = true;
        for (thread, operations) in threads.iter().enumerate() {
            let Some(&(lock, acquires)) = operations.get(state.0[thread]) else { continue };
            if acquires && state.1[lock].is_some() {
                continue;
            }
            stuck = false;
            let mut next = state.clone();
            next.0[thread] += 1;
            next.1[lock] = acquires.then_some(thread);
            if acquires {
                next.2[lock].push(thread);
            }
            if seen.insert(next.clone()) {
                left.push(next);
            }
        }
        if stuck {
            let over = state.0.iter().zip(&threads).all(|(&at, operations)| at == operations.len());
            *if over { &mut ends.0 } else { &mut ends.1 } += 1;
        }
    }
    ends
}

/// Programs of locks, with deadlocks and without, are exhausted in as many executions as there are orders, also where searches are divided.
#[test]
fn random_programs_of_locks_are_exhausted_exactly() {
    let mut state = 1_u64;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % below) as usize
    };
    let (mut divided, mut deadlocks) = (0, 0);
    for _ in 0..12 {
        let threads = 2 + draw(3);
        let mut turn = || {
            let outer = draw(3);
            (outer, (draw(2) == 0).then(|| (outer + 1 + draw(2)) % 3))
        };
        let program: Locks = (0..threads).map(|_| (0..[4, 3, 2][threads - 2]).map(|_| turn()).collect()).collect();
        let (clean, dead) = orders(&program);
        if clean + dead > 600 {
            continue;
        }
        let search = explore().machine(machine(5)).strategy(Strategy::Exhaustive).keep_going(true);
        let exploration = search.check(|| {
            let locks = [Mutex::new(), Mutex::new(), Mutex::new()];
            let run = |turns: &Vec<(usize, Option<usize>)>| {
                for &(outer, inner) in turns {
                    wait(locks[outer].object());
                    if let Some(inner) = inner {
                        wait(locks[inner].object());
                        locks[inner].release();
                    }
                    locks[outer].release();
                }
            };
            let run = &run;
            join_all(program.iter().map(|turns| spawn(move || run(turns))).collect::<Vec<_>>());
        });
        assert!(exploration.is_exhausted());
        let found = (exploration.executions() - exploration.failures(), exploration.failures());
        assert_eq!(found, (clean, dead), "{program:?}: {exploration}");
        divided += u32::from(clean + dead > 300);
        deadlocks += u32::from(dead > 0);
    }
    assert!(divided > 1 && deadlocks > 1, "{divided} were divided, {deadlocks} had deadlocks");
}

#[test]
fn the_order_of_locks_finds_the_philosophers_in_the_first_execution() {
    for strategy in [Strategy::Exhaustive, Strategy::Portfolio] {
        let exploration = explore().processors(5).strategy(strategy).check(|| philosophers(4));
        assert_eq!(exploration.expect_failure().schedule, 0);
        assert!(exploration.expect_failure().outcome.bug_check().is_some());
    }
}

/// What is independent is not multiplied.
#[test]
fn locks_of_their_own_need_one_execution() {
    let exploration = exhaust(4, || {
        let locks: Vec<_> = (0..3).map(|_| (Mutex::new(), SpinLock::new())).collect();
        let threads = locks.iter().map(|(mutex, spin)| {
            spawn(|| {
                for _ in 0..5 {
                    wait(mutex.object());
                    spin.with(|| ());
                    mutex.release();
                }
            })
        });
        join_all(threads.collect::<Vec<_>>());
    });
    assert_eq!(exploration.expect_clean().executions(), 1);
}

/// A set and a reset of an event race, and who waits sees each order that can be seen.
#[test]
fn outcomes_that_orders_can_have_are_all_seen() {
    let seen = std::sync::Mutex::new(std::collections::BTreeMap::<(i32, i32), u32>::new());
    let exploration = exhaust(4, || {
        let event = Event::notification();
        let states = [Cell::new(0), Cell::new(0)];
        let threads = [
            spawn(|| _ = event.set()),
            spawn(|| {
                states[0].set(event.state());
                states[1].set(event.state());
            }),
            spawn(|| _ = event.reset()),
        ];
        join_all(threads);
        *seen.lock().unwrap().entry((states[0].get(), states[1].get())).or_default() += 1;
    });
    exploration.expect_clean();
    let seen = seen.into_inner().unwrap();
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [(0, 0), (0, 1), (1, 0), (1, 1)]);
    // 4! / 2! orders of a set, a reset and two reads of one thread, of which none is equivalent to another but two reads are independent.
    assert_eq!(exploration.executions(), 12);
}

/// Every outcome that a random search finds is found by the exhaustive one.
#[test]
fn lost_wakeups_are_found() {
    let program = || {
        let (event, done) = (Event::synchronization(), Cell::new(0));
        let threads = [
            spawn(|| {
                wait(event.object());
                done.set(done.get() + 1);
            }),
            spawn(|| {
                wait(event.object());
                done.set(done.get() + 1);
            }),
            spawn(|| {
                event.set();
                event.set();
            }),
        ];
        join_all(threads);
    };
    let exploration = exhaust(4, program);
    assert!(exploration.failures() > 0 && exploration.failures() < exploration.executions(), "{exploration}");
    assert!(exploration.expect_failure().outcome.deadlock().is_some());
}

#[test]
fn dpcs_are_searched() {
    let seen = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let exploration = exhaust(3, || {
        let event = Event::notification();
        let dpc = Dpc::new(|| _ = event.set()).importance(HighImportance).on(2);
        let state = Cell::new(0);
        join_all([spawn(|| state.set(event.state())), spawn(|| _ = dpc.queue())]);
        flush_dpcs();
        seen.lock().unwrap().insert(state.get());
    });
    exploration.expect_clean();
    assert_eq!(seen.into_inner().unwrap().into_iter().collect::<Vec<_>>(), [0, 1], "{exploration}");
}

/// The DPC comes before, between and after all that the interrupted thread does, whatever order the search begins with.
#[test]
fn a_dpc_interrupts_wherever_it_can() {
    for main_first in [false, true] {
        let seen = std::sync::Mutex::new(std::collections::BTreeSet::new());
        let exploration = exhaust(3, || {
            let (words, runs) = ([AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0)], Cell::new(0));
            let over = Event::notification();
            let dpc = Dpc::new(|| {
                runs.set(words.iter().filter(|word| word.load(Ordering::SeqCst) != 0).count());
                over.set();
            });
            let first = if main_first { 1 } else { 2 };
            let dpc = dpc.importance(HighImportance).on(first);
            let works = || words.iter().for_each(|word| word.store(1, Ordering::SeqCst));
            let queues = || _ = dpc.queue();
            if main_first {
                join_all([spawn(works), spawn(queues)])
            } else {
                join_all([spawn(queues), spawn(works)])
            }
            wait(over.object());
            seen.lock().unwrap().insert(runs.get());
        });
        exploration.expect_clean();
        assert_eq!(seen.into_inner().unwrap().into_iter().collect::<Vec<_>>(), [0, 1, 2, 3], "{exploration}");
        // Before it begins, before each of the three, before its end, and after that.
        assert_eq!(exploration.executions(), 6, "{exploration}");
    }
}

/// DPCs of different processors that touch different things have no order, and neither have their insertions.
#[test]
fn dpcs_of_different_processors_are_independent() {
    let exploration = exhaust(5, || {
        let words = [AtomicU32::new(0), AtomicU32::new(0)];
        let over = [Event::notification(), Event::notification()];
        let dpcs = [0, 1].map(|which| {
            let word = &words[which];
            let over = &over[which];
            let dpc = Dpc::new(move || {
                word.fetch_add(1, Ordering::SeqCst);
                over.set();
            });
            dpc.importance(HighImportance).on(3 + which as u8)
        });
        join_all(dpcs.each_ref().map(|dpc| spawn(move || _ = dpc.queue())));
        over.iter().for_each(|over| _ = wait(over.object()));
    });
    exploration.expect_clean();
    assert_eq!(exploration.executions(), 1, "{exploration}");
}

/// One that does not ask for an interrupt runs when its processor has nothing to do: while the thread there waits, or once it has ended.
#[test]
fn a_dpc_that_waits_for_company_runs_when_its_processor_is_idle() {
    let seen = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let exploration = exhaust(3, || {
        let (event, order) = (Event::notification(), std::cell::RefCell::new(Vec::new()));
        let dpc = Dpc::new(|| order.borrow_mut().push("DPC")).importance(LowImportance).on(1);
        let waits = || {
            wait(event.object());
            order.borrow_mut().push("thread");
            event.state();
        };
        let queues = || {
            dpc.queue();
            event.set();
        };
        join_all([spawn(waits), spawn(queues)]);
        flush_dpcs();
        seen.lock().unwrap().insert(order.take());
    });
    exploration.expect_clean();
    let seen: Vec<_> = seen.into_inner().unwrap().into_iter().collect();
    assert_eq!(seen, [["DPC", "thread"], ["thread", "DPC"]], "{exploration}");
}

/// A DPC that is taken off its queue in time does not run, and the thread that it would have interrupted goes on.
#[test]
fn a_dpc_runs_or_is_removed() {
    let seen = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let exploration = exhaust(3, || {
        let (word, runs) = (AtomicU32::new(0), Cell::new(0));
        let dpc = Dpc::new(|| runs.set(1 + word.load(Ordering::SeqCst))).importance(HighImportance).on(1);
        let works = || word.store(1, Ordering::SeqCst);
        let removed = Cell::new(false);
        let queues = || {
            dpc.queue();
            removed.set(dpc.remove());
        };
        join_all([spawn(works), spawn(queues)]);
        flush_dpcs();
        seen.lock().unwrap().insert((removed.get(), runs.get()));
    });
    exploration.expect_clean();
    let seen: Vec<_> = seen.into_inner().unwrap().into_iter().collect();
    assert_eq!(seen, [(false, 1), (false, 2), (true, 0)], "{exploration}");
}

/// Who waits first is served first, where a timer is what serves.
#[test]
fn waits_for_the_clock_are_in_every_order() {
    let seen = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let exploration = exhaust(3, || {
        let (timer, log) = (Timer::synchronization(), std::cell::RefCell::new(String::new()));
        timer.set_with(-MS, 1, std::ptr::null_mut());
        let waiter = |name| {
            let (timer, log) = (&timer, &log);
            spawn(move || {
                wait(timer.object());
                log.borrow_mut().push(name);
            })
        };
        join_all([waiter('a'), waiter('b')]);
        timer.cancel();
        seen.lock().unwrap().insert(log.borrow().clone());
    });
    exploration.expect_clean();
    assert_eq!(seen.into_inner().unwrap().into_iter().collect::<Vec<_>>(), ["ab", "ba"], "{exploration}");
}

/// How many executions two threads take that do each something.
fn executions_of_two(first: impl Fn() + Sync, second: impl Fn() + Sync, end: impl Fn() + Sync) -> u64 {
    let exploration = exhaust(5, || {
        join_all([spawn(&first), spawn(&second)]);
        end();
    });
    exploration.expect_clean();
    assert!(exploration.is_exhausted());
    exploration.executions()
}

/// Timers are independent, and what is due at the same moment has an order.
#[test]
fn timers_need_as_many_executions_as_there_are_orders() {
    let set_and_cancel = |times: [i64; 2], which: [usize; 2]| {
        exhaust(3, || {
            let timers = [Timer::notification(), Timer::synchronization()];
            let thread = |index: usize| {
                let timers = &timers;
                spawn(move || {
                    timers[which[index]].set(-times[index] * MS);
                    timers[which[index]].state();
                })
            };
            join_all([thread(0), thread(1)]);
            timers.iter().for_each(|timer| _ = timer.cancel());
        })
    };
    let executions = |exploration: Exploration| exploration.expect_clean().executions();
    assert_eq!(executions(set_and_cancel([1, 2], [0, 1])), 1);
    assert_eq!(executions(set_and_cancel([1, 1], [0, 1])), 2);
    // Of two sets and two looks, which are one thread's each: 4! / (2! 2!), where the looks are independent.
    assert_eq!(executions(set_and_cancel([1, 2], [0, 0])), 4);
    assert_eq!(executions_of_two(|| _ = sleep(MS), || _ = sleep(MS), || ()), 1);
}

/// KQUEUEs that the threads are not too many for are independent, and so are handles of different events.
#[test]
fn queues_and_handles_need_as_many_executions_as_there_are_orders() {
    let inserts = |which: [usize; 2]| {
        exhaust(3, || {
            let (queues, entries) = ([Queue::new(0), Queue::new(0)], [Place::zeroed(), Place::zeroed()]);
            let insert = |index: usize| {
                let (queues, entries) = (&queues, &entries);
                spawn(move || _ = queues[which[index]].insert(&entries[index]))
            };
            join_all([insert(0), insert(1)]);
            which.iter().for_each(|&queue| _ = queues[queue].remove());
        })
    };
    assert_eq!(inserts([0, 1]).expect_clean().executions(), 1);
    assert_eq!(inserts([0, 0]).expect_clean().executions(), 2);
    let uses = |which: [usize; 2], closes: bool| {
        exhaust(3, || {
            let mut handles = [std::ptr::null_mut(); 2];
            for handle in &mut handles {
                raw!(ZwCreateEvent(handle, EVENT_ALL_ACCESS, &attributes(OBJ_KERNEL_HANDLE), NotificationEvent, FALSE));
            }
            let thread = |index: usize| {
                let handle = handles[which[index]];
                spawn(move || {
                    raw!(ZwSetEvent(handle, std::ptr::null_mut()));
                    if closes {
                        raw!(ZwClose(handle));
                    }
                })
            };
            join_all([thread(0), thread(1)]);
            if !closes {
                handles.iter().for_each(|&handle| _ = raw!(ZwClose(handle)));
            }
        })
    };
    assert_eq!(uses([0, 1], true).expect_clean().executions(), 1);
    assert_eq!(uses([0, 0], false).expect_clean().executions(), 2);
    // Where one thread closes what the other uses or closes, that is seen.
    let exploration = uses([0, 0], true);
    assert!(exploration.failures() > 0, "{exploration}");
}

/// A timed wait depends on what moves the clock, others do not.
#[test]
fn timed_waits_need_as_many_executions_as_there_are_orders() {
    let count = |stalls: bool| {
        exhaust(3, || {
            let events = [Event::notification(), Event::notification()];
            let second = || {
                if stalls {
                    raw!(KeStallExecutionProcessor(10));
                } else {
                    wait_until(events[1].object(), -MS);
                }
            };
            join_all([spawn(|| _ = wait_until(events[0].object(), -MS)), spawn(second)]);
        })
    };
    assert_eq!(count(false).expect_clean().executions(), 1);
    assert!(count(true).expect_clean().executions() > 1);
}

/// A pulse lets go on who waits already, so that there is a difference between waiting and coming later.
#[test]
fn a_pulse_is_seen_by_those_that_wait() {
    let program = || {
        let event = Event::notification();
        join_all([spawn(|| _ = wait(event.object())), spawn(|| _ = event.pulse())]);
    };
    let exploration = exhaust(3, program);
    assert_eq!((exploration.executions(), exploration.failures()), (2, 1), "{exploration}");
}

#[test]
fn threads_that_threads_create_are_told_apart() {
    let exploration = exhaust(6, || {
        let lock = Mutex::new();
        let turn = || {
            wait(lock.object());
            lock.release();
        };
        let pair = || join_all([spawn(turn)]);
        join_all([spawn(pair), spawn(pair)]);
    });
    // The orders of the lock, and those of the creations, one of which is in two parts: a handle that is closed may be the next one that is given.
    assert_eq!(exploration.expect_clean().executions(), 6, "{exploration}");
}

/// What a block of pool holds may be used before it is freed, or behind. One that nobody else knows is freed in no order.
#[test]
fn pool_is_freed_before_or_after_it_is_used() {
    let program = |uses: bool| {
        let shared = allocate(size_of::<KEVENT>()).cast::<KEVENT>();
        raw!(KeInitializeEvent(shared, NotificationEvent, FALSE));
        let kept = Event::notification();
        let frees = || {
            kept.reset();
            free(allocate(16));
            if uses {
                free(shared.cast());
            }
        };
        join_all([spawn(frees), spawn(|| _ = raw!(KeSetEvent(shared, 0, FALSE)))]);
        if !uses {
            free(shared.cast());
        }
    };
    assert_eq!(exhaust(3, || program(false)).expect_clean().executions(), 1);
    let exploration = exhaust(3, || program(true));
    assert_eq!((exploration.executions(), exploration.failures()), (2, 1), "{exploration}");
}

/// To join a thread by its handle touches that thread.
#[test]
fn threads_are_joined_by_handle() {
    let exploration = exhaust(3, || {
        let words = [AtomicU32::new(0), AtomicU32::new(0)];
        let count = |word: &AtomicU32| (0..3).for_each(|_| _ = word.fetch_add(1, Ordering::SeqCst));
        let handles = words.each_ref().map(|word| spawn_with_handle(move || count(word)));
        for handle in handles {
            assert_eq!(raw!(ZwWaitForSingleObject(handle, FALSE, std::ptr::null_mut())), STATUS_SUCCESS);
            raw!(ZwClose(handle));
        }
    });
    assert_eq!(exploration.expect_clean().executions(), 1, "{exploration}");
}

/// A thread that waits for one of two events, or both, or for no longer than some time, beside others that have nothing to do with them.
fn wait_for_two(kind: WAIT_TYPE, timeout: Option<i64>, turns: usize) -> Exploration {
    exhaust(5, || {
        let events = [Event::synchronization(), Event::synchronization()];
        let word = AtomicU32::new(0);
        let worker = || {
            for _ in 0..turns {
                wait_many(&[events[0].object(), events[1].object()], kind, timeout);
            }
        };
        let count = || (0..2).for_each(|_| _ = word.fetch_add(1, Ordering::SeqCst));
        let set = || (0..turns).for_each(|_| events.iter().for_each(|event| _ = event.set()));
        join_all([spawn(worker), spawn(set), spawn(count)]);
    })
}

/// What is waited for among several objects depends on each of them, and on nothing else.
#[test]
fn waits_for_several_objects_touch_these() {
    let executions = [
        wait_for_two(WaitAny, None, 1),
        wait_for_two(WaitAll, None, 1),
        wait_for_two(WaitAny, Some(-MS), 1),
        wait_for_two(WaitAny, None, 2),
    ];
    assert_eq!(executions.map(|exploration| exploration.executions()), [3, 3, 3, 14]);
}

/// Threads' own priorities are as independent of each other as the threads are.
#[test]
fn priorities_are_of_threads() {
    let exploration = exhaust(3, || {
        let turn = || {
            let old = set_own_priority(10);
            assert_eq!((old, own_priority()), (8, 10));
        };
        join_all([spawn(turn), spawn(turn)]);
    });
    assert_eq!(exploration.expect_clean().executions(), 1, "{exploration}");
}

#[test]
#[should_panic(expected = "a thread waits for a processor")]
fn each_thread_needs_a_processor() {
    let _ = exhaust(1, || mutex(2, 1));
}

#[test]
fn a_bound_on_preemptions_limits_the_schedules() {
    let bounded = |preemptions, processors| {
        let strategy = Strategy::Bounded { preemptions };
        let exploration = explore().processors(processors).strategy(strategy).check(|| mutex(2, 2));
        assert!(exploration.expect_clean().is_exhausted());
        exploration.executions()
    };
    // Long enough to be divided.
    let search = || explore().processors(3).strategy(Strategy::Bounded { preemptions: 2 });
    let executions = |search: Explore| search.check(|| mutex(2, 3)).expect_clean().executions();
    let [one, several] = [1, 3].map(|jobs| executions(search().jobs(jobs.try_into().unwrap())));
    let parts: u64 = (0..3).map(|part| executions(search().shard(part, 3))).sum();
    assert_eq!((several, parts), (one, one));
    assert!(one > 1_000);
    for processors in [1, 3] {
        let numbers: Vec<_> = (0..3).map(|preemptions| bounded(preemptions, processors)).collect();
        assert!(numbers[0] < numbers[1] && numbers[1] < numbers[2], "{processors}: {numbers:?}");
    }
    let exploration = explore().machine(machine(4)).strategy(Strategy::Bounded { preemptions: 3 }).check(|| philosophers(3));
    assert!(exploration.expect_failure().outcome.deadlock().is_some());
}
