//! Waits for several objects.

use crate::{SMALL, Seen, Words, compare, compare_if_small, few, perform};
use ksync_sys::*;
use proptest::prelude::*;
use test_support::*;

/// Objects are numbered: two events, a semaphore, a mutex, two timers.
#[derive(Clone, Copy, Debug)]
enum Step {
    Load(usize),
    Store(usize),
    Set(usize),
    Reset(usize),
    Pulse(usize),
    Poll(usize),
    Release,
    SetTimer(usize, i64),
    CancelTimer(usize),
    /// With a word changed under the mutex.
    Mutex(usize),
    /// For two of the objects; no longer than so many milliseconds.
    Any(usize, usize, Option<i64>),
    All(usize, usize, Option<i64>),
    /// For one of them.
    Wait(usize, Option<i64>),
}

const MUTEX: usize = 3;

fn word_step() -> impl Strategy<Value = Step> {
    prop_oneof![(0..2_usize).prop_map(Step::Load), (0..2_usize).prop_map(Step::Store)]
}

/// What signals objects, or takes the signal.
fn signal() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..2_usize).prop_map(Step::Set),
        1 => (0..2_usize).prop_map(Step::Reset),
        1 => (0..2_usize).prop_map(Step::Pulse),
        1 => (0..4_usize).prop_map(Step::Poll),
        2 => Just(Step::Release),
        2 => (0..2_usize).prop_map(Step::Mutex),
    ]
}

fn timed_signal() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..2_usize, 1..3_i64).prop_map(|(which, time)| Step::SetTimer(which, time)),
        1 => (0..2_usize).prop_map(Step::CancelTimer),
        2 => (0..2_usize).prop_map(Step::Set),
        1 => Just(Step::Release),
    ]
}

/// Two different objects among so many.
fn pair(objects: usize) -> impl Strategy<Value = (usize, usize)> {
    (0..objects, 1..objects).prop_map(move |(first, by)| (first, (first + by) % objects))
}

fn waits(objects: usize, timeout: impl Strategy<Value = Option<i64>> + Clone) -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (pair(objects), timeout.clone()).prop_map(|((first, second), timeout)| Step::Any(first, second, timeout)),
        2 => (pair(objects), timeout.clone()).prop_map(|((first, second), timeout)| Step::All(first, second, timeout)),
        1 => (0..objects, timeout).prop_map(|(which, timeout)| Step::Wait(which, timeout)),
    ]
}

type Program = Vec<Vec<Step>>;

fn untimed() -> impl Strategy<Value = Program> {
    let step = || prop_oneof![1 => word_step(), 3 => signal(), 3 => waits(4, prop_oneof![Just(None), Just(Some(0))])];
    prop_oneof![
        3 => prop::collection::vec(prop::collection::vec(step(), 1..=2), 2),
        2 => beside(signal()),
    ]
}

fn timed() -> impl Strategy<Value = Program> {
    let time = prop_oneof![1 => Just(None), 1 => Just(Some(0)), 3 => (1..3_i64).prop_map(Some)];
    let step = move || prop_oneof![1 => word_step(), 3 => timed_signal(), 3 => waits(6, time.clone())];
    prop_oneof![
        3 => prop::collection::vec(prop::collection::vec(step(), 1..=2), 2),
        1 => prop::collection::vec(prop::collection::vec(step(), 1..=1), 3),
        1 => beside(timed_signal()),
    ]
}

/// Two threads that signal objects, beside one that waits.
fn beside(signal: impl Strategy<Value = Step>) -> impl Strategy<Value = Program> {
    let wait = waits(4, Just(None));
    (wait, prop::collection::vec(signal, 3))
        .prop_map(|(wait, signals)| vec![vec![wait], signals[..1].to_vec(), signals[1..].to_vec()])
}

struct Shared {
    words: Words,
    events: [Event; 2],
    semaphore: Semaphore,
    mutex: Mutex,
    timers: [Timer; 2],
}

impl Shared {
    fn new() -> Self {
        Self {
            words: Words::default(),
            events: [Event::synchronization(), Event::notification()],
            semaphore: Semaphore::new(0, 8),
            mutex: Mutex::new(),
            timers: [Timer::synchronization(), Timer::notification()],
        }
    }

    fn object(&self, which: usize) -> PVOID {
        match which {
            0 | 1 => self.events[which].object(),
            2 => self.semaphore.object(),
            MUTEX => self.mutex.object(),
            _ => self.timers[which - 4].object(),
        }
    }

    /// Gives back the mutex that a wait got, under which a word is changed.
    fn after_wait(&self, status: NTSTATUS, got_mutex: bool) -> i64 {
        if !got_mutex {
            return status.into();
        }
        let value = self.words.double(0);
        self.mutex.release();
        1_000 * (value + 1) + i64::from(status)
    }

    fn perform(&self, step: Step) -> i64 {
        match step {
            Step::Load(which) => self.words.load(which),
            Step::Store(which) => self.words.store(which),
            Step::Set(which) => self.events[which].set().into(),
            Step::Reset(which) => self.events[which].reset().into(),
            Step::Pulse(which) => self.events[which].pulse().into(),
            Step::Poll(which) => {
                let status = poll(self.object(which));
                self.after_wait(status, which == MUTEX && status == STATUS_SUCCESS)
            }
            Step::Release => self.semaphore.release(1).into(),
            Step::SetTimer(which, time) => self.timers[which].set(-time * MS).into(),
            Step::CancelTimer(which) => self.timers[which].cancel().into(),
            Step::Mutex(which) => {
                wait(self.mutex.object());
                let value = self.words.double(which);
                self.mutex.release();
                value
            }
            Step::Any(first, second, time) => {
                let objects = [self.object(first), self.object(second)];
                let status = wait_many(&objects, WaitAny, time.map(|time| -time * MS));
                self.after_wait(
                    status,
                    status == [first, second].iter().position(|&which| which == MUTEX).map_or(-1, |at| at as i32),
                )
            }
            Step::All(first, second, time) => {
                let objects = [self.object(first), self.object(second)];
                let status = wait_many(&objects, WaitAll, time.map(|time| -time * MS));
                self.after_wait(status, status == STATUS_SUCCESS && [first, second].contains(&MUTEX))
            }
            Step::Wait(which, time) => {
                let object = self.object(which);
                let status = match time {
                    Some(time) => wait_until(object, -time * MS),
                    None => wait(object),
                };
                self.after_wait(status, which == MUTEX && status == STATUS_SUCCESS)
            }
        }
    }
}

fn run(program: &Program) -> Seen {
    let shared = Shared::new();
    let results = perform(program, |step, _, _| shared.perform(step));
    let mut end = shared.words.both();
    end.extend([shared.events[0].state(), shared.events[1].state(), shared.semaphore.state()].map(i64::from));
    end.extend(shared.timers.iter().flat_map(|timer| [timer.state(), timer.cancel()].map(i64::from)));
    (results, end)
}

fn check(program: &Program) {
    compare(program.len(), || run(program));
}

proptest! {
    #![proptest_config(few())]
    #[test]
    fn nothing_is_missed_of_waits_for_several_objects(program in untimed()) {
        compare_if_small(program.len(), SMALL, || run(&program));
    }

    #[test]
    fn nothing_is_missed_of_timed_waits_for_several_objects(program in timed()) {
        compare_if_small(program.len(), SMALL, || run(&program));
    }
}

/// Who waits for several objects makes what is done to one of them matter to what is done to another.
#[test]
fn objects_of_one_wait_depend_on_each_other() {
    check(&vec![vec![Step::Any(0, 1, None)], vec![Step::Pulse(1)], vec![Step::Set(0)]]);
    check(&vec![vec![Step::All(0, 1, None)], vec![Step::Set(0), Step::Poll(0)], vec![Step::Set(1)]]);
}
