//! Random sequences of operations against a small model of the dispatcher.

use ksim::Machine;
use ksync_sys::*;
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::ptr::null_mut;
use test_support::*;

/// How many objects of each kind there are: two of each, in this order.
const EVENTS: std::ops::Range<usize> = 0..2;
const SEMAPHORES: std::ops::Range<usize> = 2..4;
const MUTEXES: std::ops::Range<usize> = 4..6;
const TIMERS: std::ops::Range<usize> = 6..8;
const OBJECTS: usize = 8;
const LIMIT: i32 = 3;

#[derive(Clone, Debug)]
enum Step {
    Set(usize),
    Reset(usize),
    Pulse(usize),
    Release(usize, i32),
    ReleaseMutex(usize),
    SetTimer(usize, i64, i32),
    Cancel(usize),
    Poll(usize),
    PollAny(Vec<usize>),
    PollAll(Vec<usize>),
    WaitFor(Vec<usize>, bool, i64),
    Sleep(i64),
}

fn some_objects() -> impl Strategy<Value = Vec<usize>> {
    proptest::sample::subsequence((0..OBJECTS).collect::<Vec<_>>(), 1..=OBJECTS).prop_shuffle()
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => EVENTS.prop_map(Step::Set),
        1 => EVENTS.prop_map(Step::Reset),
        1 => EVENTS.prop_map(Step::Pulse),
        3 => (SEMAPHORES, 1..3).prop_map(|(object, by)| Step::Release(object, by)),
        3 => MUTEXES.prop_map(Step::ReleaseMutex),
        3 => (TIMERS, 0..4_i64, 0..3).prop_map(|(object, due, period)| Step::SetTimer(object, due, period)),
        1 => TIMERS.prop_map(Step::Cancel),
        4 => (0..OBJECTS).prop_map(Step::Poll),
        3 => some_objects().prop_map(Step::PollAny),
        3 => some_objects().prop_map(Step::PollAll),
        2 => (some_objects(), any::<bool>(), 1..4_i64).prop_map(|(objects, all, time)| Step::WaitFor(objects, all, time)),
        2 => (1..4_i64).prop_map(Step::Sleep),
    ]
}

/// What the rules say of the objects, for one thread that owns everything that is owned. Times are in milliseconds.
#[derive(Default)]
struct Model {
    now: i64,
    states: [i32; OBJECTS],
    /// Due time, period and place in the order of arming.
    timers: [Option<(i64, i64, u64)>; OBJECTS],
    armings: u64,
}

impl Model {
    fn new() -> Self {
        let mut model = Self::default();
        for mutex in MUTEXES {
            model.states[mutex] = 1;
        }
        model
    }

    /// The first of each kind is of the notification kind.
    fn is_notification(object: usize) -> bool {
        object.is_multiple_of(2)
    }

    fn is_signaled(&self, object: usize) -> bool {
        // All mutexes that are owned are ours.
        MUTEXES.contains(&object) || self.states[object] > 0
    }

    fn consume(&mut self, object: usize) {
        let keeps = Self::is_notification(object) && (EVENTS.contains(&object) || TIMERS.contains(&object));
        if !keeps {
            self.states[object] -= 1;
        }
    }

    fn try_wait(&mut self, objects: &[usize], all: bool) -> Option<NTSTATUS> {
        if all {
            if !objects.iter().all(|&object| self.is_signaled(object)) {
                return None;
            }
            objects.iter().for_each(|&object| self.consume(object));
            return Some(STATUS_SUCCESS);
        }
        let index = objects.iter().position(|&object| self.is_signaled(object))?;
        self.consume(objects[index]);
        Some(index as NTSTATUS)
    }

    /// Times of waits and sleeps are odd and those of timers even, so that no two things happen at once.
    fn wait(&mut self, objects: &[usize], all: bool, time: i64) -> NTSTATUS {
        let until = self.now + time;
        loop {
            if let Some(status) = self.try_wait(objects, all) {
                return status;
            }
            if self.now == until {
                return STATUS_TIMEOUT;
            }
            self.now += 1;
            // Timers of one moment expire one by one, each serving the wait.
            let mut due: Vec<_> = TIMERS.filter(|&timer| self.timers[timer].is_some_and(|(due, _, _)| due == self.now)).collect();
            due.sort_by_key(|&timer| self.timers[timer].map(|(_, _, order)| order));
            let mut status = None;
            for timer in due {
                self.expire(timer);
                if status.is_none() {
                    status = self.try_wait(objects, all);
                }
            }
            if let Some(status) = status {
                return status;
            }
        }
    }

    fn expire(&mut self, timer: usize) {
        let Some((due, period, _)) = self.timers[timer] else { return };
        self.states[timer] = 1;
        self.timers[timer] = None;
        if period > 0 {
            self.arm(timer, due + period, period);
        }
    }

    fn arm(&mut self, timer: usize, due: i64, period: i64) {
        self.armings += 1;
        self.timers[timer] = Some((due, period, self.armings));
    }
}

/// The objects of the kernel.
struct Objects {
    events: [Event; 2],
    semaphores: [Semaphore; 2],
    mutexes: [Mutex; 2],
    timers: [Timer; 2],
}

impl Objects {
    fn new() -> Self {
        Self {
            events: [Event::notification(), Event::synchronization()],
            semaphores: [Semaphore::new(0, LIMIT), Semaphore::new(0, LIMIT)],
            mutexes: [Mutex::new(), Mutex::mutant(false)],
            timers: [Timer::notification(), Timer::synchronization()],
        }
    }

    fn pointer(&self, object: usize) -> PVOID {
        match object {
            0 | 1 => self.events[object].object(),
            2 | 3 => self.semaphores[object - 2].object(),
            4 | 5 => self.mutexes[object - 4].object(),
            _ => self.timers[object - 6].object(),
        }
    }

    fn pointers(&self, objects: &[usize]) -> Vec<PVOID> {
        objects.iter().map(|&object| self.pointer(object)).collect()
    }

    fn states(&self) -> [i32; OBJECTS] {
        std::array::from_fn(|object| match object {
            0 | 1 => self.events[object].state(),
            2 | 3 => self.semaphores[object - 2].state(),
            4 | 5 => self.mutexes[object - 4].state(),
            _ => i32::from(self.timers[object - 6].state()),
        })
    }
}

/// Performs a step on both and compares what comes back.
fn perform(step: &Step, model: &mut Model, objects: &Objects) {
    let clear = |model: &mut Model, object: usize| std::mem::replace(&mut model.states[object], 0);
    match step {
        Step::Set(object) => {
            let previous = std::mem::replace(&mut model.states[*object], 1);
            assert_eq!(objects.events[*object].set(), previous);
        }
        Step::Reset(object) => assert_eq!(objects.events[*object].reset(), clear(model, *object)),
        Step::Pulse(object) => assert_eq!(objects.events[*object].pulse(), clear(model, *object)),
        Step::Release(object, by) => {
            let state = &mut model.states[*object];
            // Beyond the limit is a bug check, which the other tests look at.
            if *state + by <= LIMIT {
                assert_eq!(objects.semaphores[object - 2].release(*by), *state);
                *state += by;
            }
        }
        Step::ReleaseMutex(object) => {
            let state = &mut model.states[*object];
            if *state < 1 {
                assert_eq!(objects.mutexes[object - 4].release(), *state);
                *state += 1;
            }
        }
        Step::SetTimer(object, due, period) => {
            let was_armed = model.timers[*object].take().is_some();
            model.states[*object] = 0;
            // Timers are due at even times: see `Model::wait`.
            let due = if *due == 0 { 0 } else { due * 2 + model.now % 2 };
            model.arm(*object, model.now + due, i64::from(*period) * 2);
            if due == 0 {
                model.expire(*object);
            }
            assert_eq!(objects.timers[object - 6].set_with(-due * MS, period * 2, null_mut()), was_armed);
        }
        Step::Cancel(object) => {
            let was_armed = model.timers[*object].take().is_some();
            assert_eq!(objects.timers[object - 6].cancel(), was_armed);
        }
        Step::Poll(object) => {
            let expected = model.try_wait(&[*object], false).unwrap_or(STATUS_TIMEOUT);
            assert_eq!(poll(objects.pointer(*object)), expected);
        }
        Step::PollAny(list) => {
            let expected = model.try_wait(list, false).unwrap_or(STATUS_TIMEOUT);
            assert_eq!(wait_many(&objects.pointers(list), WaitAny, Some(0)), expected);
        }
        Step::PollAll(list) => {
            let expected = model.try_wait(list, true).unwrap_or(STATUS_TIMEOUT);
            assert_eq!(wait_many(&objects.pointers(list), WaitAll, Some(0)), expected);
        }
        Step::WaitFor(list, all, time) => {
            let time = time * 2 + 1 - model.now % 2;
            let expected = model.wait(list, *all, time);
            let kind = if *all { WaitAll } else { WaitAny };
            assert_eq!(wait_many(&objects.pointers(list), kind, Some(-time * MS)), expected);
        }
        Step::Sleep(time) => {
            let time = time * 2 + 1 - model.now % 2;
            assert_eq!(model.wait(&[], false, time), STATUS_TIMEOUT);
            assert_eq!(sleep(time * MS), STATUS_SUCCESS);
        }
    }
    assert_eq!(objects.states(), model.states, "after {step:?}");
    assert_eq!(now(), model.now * MS, "after {step:?}");
}

/// What one thread of several does. Every wait has a timeout, so that every program ends.
#[derive(Clone, Debug)]
enum Act {
    Give(usize, i32),
    Take(usize, i64),
    TakeAny(Vec<usize>, i64),
    TakeAll(Vec<usize>, i64),
    Locked(usize),
    SetEvent,
    AwaitEvent(i64),
    Sleep(i64),
    /// Sets the event with Wait = TRUE, and waits for a token.
    SetAndTake(usize, i64),
    Priority(i32),
    Affinity(usize),
    Insert,
    Remove(i64),
    /// Queues a DPC that gives a token.
    GiveByDpc(usize),
    /// Sets a timer whose DPC gives a token.
    GiveByTimer(usize, i64),
    /// Queues a special or a normal kernel APC to a thread, which takes and gives back a token.
    Interrupt(usize, bool),
    Alert(usize),
    Spin(i64),
    Flush,
}

const POOLS: usize = 3;

fn act() -> impl Strategy<Value = Act> {
    let pools = || proptest::sample::subsequence((0..POOLS).collect::<Vec<_>>(), 1..=POOLS).prop_shuffle();
    prop_oneof![
        4 => (0..POOLS, 1..4).prop_map(|(pool, count)| Act::Give(pool, count)),
        4 => (0..POOLS, 0..4_i64).prop_map(|(pool, time)| Act::Take(pool, time)),
        2 => (pools(), 0..4_i64).prop_map(|(pools, time)| Act::TakeAny(pools, time)),
        2 => (pools(), 0..4_i64).prop_map(|(pools, time)| Act::TakeAll(pools, time)),
        2 => (0..2_usize).prop_map(Act::Locked),
        2 => Just(Act::SetEvent),
        2 => (0..4_i64).prop_map(Act::AwaitEvent),
        1 => (0..3_i64).prop_map(Act::Sleep),
        2 => (0..POOLS, 0..4_i64).prop_map(|(pool, time)| Act::SetAndTake(pool, time)),
        1 => (1..20).prop_map(Act::Priority),
        1 => (1..16_usize).prop_map(Act::Affinity),
        2 => Just(Act::Insert),
        2 => (0..4_i64).prop_map(Act::Remove),
        1 => (0..POOLS).prop_map(Act::GiveByDpc),
        1 => (0..POOLS, 0..4_i64).prop_map(|(pool, time)| Act::GiveByTimer(pool, time)),
        2 => (0..7_usize, any::<bool>()).prop_map(|(thread, special)| Act::Interrupt(thread, special)),
        1 => (0..7_usize).prop_map(Act::Alert),
        1 => (0..20_i64).prop_map(Act::Spin),
        1 => Just(Act::Flush),
    ]
}

/// Counts what the threads say they did.
#[derive(Default)]
struct Accounts {
    given: [Cell<i32>; POOLS],
    taken: [Cell<i32>; POOLS],
    sets: Cell<i32>,
    awaited: Cell<i32>,
    locked: Cell<i32>,
    inside: Cell<bool>,
    inserted: Cell<i32>,
    removed: Cell<i32>,
}

fn add(account: &Cell<i32>, count: i32) {
    account.set(account.get() + count);
}

fn threads_conserve_tokens(scripts: &[Vec<Act>]) {
    let accounts = Accounts::default();
    let (queue, spin) = (Queue::new(2), SpinLock::new());
    // What the threads make stays until the end.
    let entries: RefCell<Vec<Place<LIST_ENTRY>>> = RefCell::default();
    let objects: RefCell<Vec<PVOID>> = RefCell::default();
    let pools: [Semaphore; POOLS] = std::array::from_fn(|pool| Semaphore::new(pool as i32, i32::MAX));
    let (mutex, fast, event) = (Mutex::new(), FastMutex::new(), Event::synchronization());
    let pointers = |list: &[usize]| list.iter().map(|&pool| pools[pool].object()).collect::<Vec<_>>();
    let critical = || {
        assert!(!accounts.inside.replace(true), "alone inside");
        pools[0].state();
        add(&accounts.locked, 1);
        accounts.inside.set(false);
    };
    let give = |pool: usize, count: i32| {
        add(&accounts.given[pool], count);
        raw!(KeReleaseSemaphore(pools[pool].ptr(), count % 2, count, FALSE));
    };
    let take = |pool: usize, time: i64| {
        let status = wait_until(pools[pool].object(), -time * MS);
        assert!(status == STATUS_SUCCESS || status == STATUS_TIMEOUT);
        add(&accounts.taken[pool], i32::from(status == STATUS_SUCCESS));
    };
    let (give, take) = (&give, &take);
    let (dpcs, timers, apcs) = (RefCell::new(vec![]), RefCell::new(vec![]), RefCell::new(vec![]));
    let perform = |act: &Act| match act {
        Act::Give(pool, count) => give(*pool, *count),
        Act::Take(pool, time) => take(*pool, *time),
        Act::TakeAny(list, time) => match wait_many(&pointers(list), WaitAny, Some(-time * MS)) {
            STATUS_TIMEOUT => {}
            index => add(&accounts.taken[list[index as usize]], 1),
        },
        Act::TakeAll(list, time) => match wait_many(&pointers(list), WaitAll, Some(-time * MS)) {
            STATUS_TIMEOUT => {}
            status => {
                assert_eq!(status, STATUS_SUCCESS);
                list.iter().for_each(|&pool| add(&accounts.taken[pool], 1));
            }
        },
        Act::Locked(0) => {
            wait(mutex.object());
            fast.acquire();
            critical();
            fast.release();
            mutex.release();
        }
        Act::Locked(_) => {
            fast.acquire();
            critical();
            fast.release();
        }
        Act::SetEvent => add(&accounts.sets, i32::from(event.set() == 0)),
        Act::AwaitEvent(time) => {
            let status = wait_until(event.object(), -time * MS);
            add(&accounts.awaited, i32::from(status == STATUS_SUCCESS));
        }
        Act::Sleep(time) => {
            sleep(time * MS);
        }
        Act::SetAndTake(pool, time) => {
            let previous = raw!(KeSetEvent(event.ptr(), 1, TRUE));
            add(&accounts.sets, i32::from(previous == 0));
            take(*pool, *time);
        }
        Act::Priority(priority) => {
            set_own_priority(*priority);
        }
        Act::Affinity(mask) => {
            raw!(KeSetSystemAffinityThreadEx(*mask));
        }
        Act::Insert => {
            let entry = Place::zeroed();
            let pointer = entry.ptr();
            entries.borrow_mut().push(entry);
            raw!(KeInsertQueue(queue.ptr(), pointer));
            add(&accounts.inserted, 1);
        }
        Act::Remove(time) => {
            let entry = queue.remove_within(time * MS);
            if entry as usize != STATUS_TIMEOUT as usize {
                assert!(entries.borrow().iter().any(|known| known.ptr() == entry));
                add(&accounts.removed, 1);
            }
        }
        Act::GiveByDpc(pool) => {
            let pool = *pool;
            let dpc = Dpc::new(move || give(pool, 1));
            assert!(dpc.queue());
            dpcs.borrow_mut().push(dpc);
        }
        Act::GiveByTimer(pool, time) => {
            let pool = *pool;
            let (timer, dpc) = (Timer::notification(), Dpc::new(move || give(pool, 1)));
            timer.set_with(-time * MS, 0, dpc.ptr());
            timers.borrow_mut().push(timer);
            dpcs.borrow_mut().push(dpc);
        }
        Act::Interrupt(thread, special) => {
            let thread = objects.borrow().get(*thread).copied();
            let Some(thread) = thread else { return };
            let routine = move || {
                take(0, 1);
                give(1, 1);
            };
            let apc = if *special { Apc::special(thread, routine) } else { Apc::normal(thread, routine) };
            apc.insert();
            apcs.borrow_mut().push(apc);
        }
        Act::Alert(thread) => {
            let thread = objects.borrow().get(*thread).copied();
            if let Some(thread) = thread {
                raw!(KeAlertThread(thread.cast(), KernelMode));
            }
        }
        Act::Spin(turns) => {
            spin.with(|| {
                for _ in 0..*turns {
                    raw!(KeStallExecutionProcessor(50));
                }
            });
        }
        Act::Flush => flush_dpcs(),
    };
    let perform = &perform;
    let threads: Vec<_> = scripts
        .iter()
        .enumerate()
        .map(|(index, script)| {
            let thread = spawn(move || {
                if index % 2 == 0 {
                    leave_start_region();
                }
                script.iter().for_each(perform);
                assert_eq!(irql(), PASSIVE_LEVEL);
                if index % 2 == 0 {
                    enter_start_region();
                }
            });
            objects.borrow_mut().push(thread.object());
            thread
        })
        .collect();
    for thread in &threads {
        wait(thread.object());
    }
    sleep(SECOND);
    flush_dpcs();
    join_all(threads);
    assert_eq!(raw!(KeReadStateQueue(queue.ptr())), accounts.inserted.get() - accounts.removed.get());
    for (pool, semaphore) in pools.iter().enumerate() {
        let expected = pool as i32 + accounts.given[pool].get() - accounts.taken[pool].get();
        assert_eq!(semaphore.state(), expected, "pool {pool}");
    }
    // Each change from not set to set is consumed once, or is there still.
    assert_eq!(event.state(), accounts.sets.get() - accounts.awaited.get());
    let locked = scripts.iter().flatten().filter(|act| matches!(act, Act::Locked(_))).count();
    assert_eq!(accounts.locked.get() as usize, locked);
    assert_eq!(mutex.state(), 1);
    assert_eq!(fast.read().Count, 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_thread_sees_what_the_model_says(steps in prop::collection::vec(step(), 1..60), processors in 1..3_u8, seed: u64) {
        let outcome = Machine::new().processors(processors).seed(seed).run(|| {
            let (mut model, objects) = (Model::new(), Objects::new());
            for step in &steps {
                perform(step, &mut model, &objects);
            }
            for mutex in MUTEXES {
                while model.states[mutex] < 1 {
                    perform(&Step::ReleaseMutex(mutex), &mut model, &objects);
                }
            }
            for timer in TIMERS {
                perform(&Step::Cancel(timer), &mut model, &objects);
            }
        });
        prop_assert!(outcome.is_completed() && outcome.left().is_empty(), "{}", outcome);
    }

    #[test]
    fn several_threads_lose_and_invent_nothing(
        scripts in prop::collection::vec(prop::collection::vec(act(), 1..20), 2..7),
        processors in 1..5_u8,
        seed: u64,
    ) {
        let machine = Machine::new().processors(processors).seed(seed);
        let outcome = machine.run(|| threads_conserve_tokens(&scripts));
        prop_assert!(outcome.is_completed() && outcome.left().is_empty(), "{}", outcome);
        let again = machine.run(|| threads_conserve_tokens(&scripts));
        prop_assert!(outcome.trace() == again.trace(), "the same seed gives the same trace");
    }

    #[test]
    fn hand_offs_arrive_in_order(length in 1..40_usize, stages in 1..6_usize, processors in 1..5_u8, seed: u64) {
        // A chain of one-place buffers, each with a pair of synchronization events.
        let outcome = Machine::new().processors(processors).seed(seed).run(|| {
            let slots: Vec<_> = (0..=stages).map(|_| Cell::new(0)).collect();
            let full: Vec<_> = (0..=stages).map(|_| Event::synchronization()).collect();
            let empty: Vec<_> = (0..=stages).map(|_| Event::new(SynchronizationEvent, true)).collect();
            let put = |stage: usize, value: usize| {
                wait(empty[stage].object());
                slots[stage].set(value);
                full[stage].set_boosting((value % 3) as i32);
            };
            let take = |stage: usize| {
                wait(full[stage].object());
                let value = slots[stage].get();
                empty[stage].set();
                value
            };
            let (put, take) = (&put, &take);
            let mut threads = vec![spawn(move || (1..=length).for_each(|value| put(0, value)))];
            for stage in 0..stages {
                threads.push(spawn(move || (0..length).for_each(|_| put(stage + 1, take(stage)))));
            }
            let received: Vec<_> = (0..length).map(|_| take(stages)).collect();
            assert_eq!(received, (1..=length).collect::<Vec<_>>());
            join_all(threads);
        });
        prop_assert!(outcome.is_completed() && outcome.left().is_empty(), "{}", outcome);
    }
}
