//! Priorities of threads, which whoever wakes them raises.

use crate::{SMALL, Seen, Words, apart, compare, compare_if_small, few};
use ksync_sys::*;
use proptest::prelude::*;
use std::cell::RefCell;
use test_support::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    Load(usize),
    Store(usize),
    /// One of two events, with a boost of so much.
    Set(usize, i32),
    Reset(usize),
    Pulse(usize, i32),
    Wait(usize),
    Poll(usize),
    WaitWithin(usize, i64),
    Release(i32),
    WaitForSemaphore,
    /// A word is changed under the mutex.
    Mutex(usize),
    /// Of the first thread, or the second.
    Priority(usize),
    SetPriority(usize, i32),
    SetBase(usize, i32),
    Yield,
    Sleep(i64),
    Raised(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let which = || 0..2_usize;
    prop_oneof![
        1 => which().prop_map(Step::Load),
        1 => which().prop_map(Step::Store),
        4 => (which(), 0..3_i32).prop_map(|(which, boost)| Step::Set(which, boost)),
        1 => which().prop_map(Step::Reset),
        1 => (which(), 0..3_i32).prop_map(|(which, boost)| Step::Pulse(which, boost)),
        3 => which().prop_map(Step::Wait),
        1 => which().prop_map(Step::Poll),
        1 => (which(), 1..3_i64).prop_map(|(which, time)| Step::WaitWithin(which, time)),
        1 => (0..3_i32).prop_map(Step::Release),
        1 => Just(Step::WaitForSemaphore),
        2 => which().prop_map(Step::Mutex),
        5 => which().prop_map(Step::Priority),
        2 => (which(), 6..11_i32).prop_map(|(which, priority)| Step::SetPriority(which, priority)),
        1 => (which(), -2..3_i32).prop_map(|(which, by)| Step::SetBase(which, by)),
        1 => Just(Step::Yield),
        1 => (0..2_i64).prop_map(Step::Sleep),
        1 => which().prop_map(Step::Raised),
    ]
}

type Program = Vec<Vec<Step>>;

fn program() -> impl Strategy<Value = Program> {
    prop_oneof![
        3 => prop::collection::vec(prop::collection::vec(step(), 1..=3), 2),
        1 => prop::collection::vec(prop::collection::vec(step(), 1..=2), 3),
    ]
}

struct Shared {
    words: Words,
    events: [Event; 2],
    semaphore: Semaphore,
    mutex: Mutex,
}

impl Shared {
    fn perform(&self, step: Step, threads: [PVOID; 2]) -> i64 {
        let thread = |which: usize| threads[which].cast::<KTHREAD>();
        match step {
            Step::Load(which) => self.words.load(which),
            Step::Store(which) => self.words.store(which),
            Step::Set(which, boost) => self.events[which].set_boosting(boost).into(),
            Step::Reset(which) => self.events[which].reset().into(),
            Step::Pulse(which, boost) => raw!(KePulseEvent(self.events[which].ptr(), boost, FALSE)).into(),
            Step::Wait(which) => wait(self.events[which].object()).into(),
            Step::Poll(which) => poll(self.events[which].object()).into(),
            Step::WaitWithin(which, time) => wait_until(self.events[which].object(), -time * MS).into(),
            Step::Release(boost) => raw!(KeReleaseSemaphore(self.semaphore.ptr(), boost, 1, FALSE)).into(),
            Step::WaitForSemaphore => wait(self.semaphore.object()).into(),
            Step::Mutex(which) => {
                wait(self.mutex.object());
                let value = self.words.double(which);
                self.mutex.release();
                value
            }
            Step::Priority(which) => raw!(KeQueryPriorityThread(thread(which))).into(),
            Step::SetPriority(which, priority) => raw!(KeSetPriorityThread(thread(which), priority)).into(),
            Step::SetBase(which, by) => raw!(KeSetBasePriorityThread(thread(which), by)).into(),
            Step::Yield => raw!(ZwYieldExecution()).into(),
            Step::Sleep(time) => sleep(time * MS).into(),
            Step::Raised(which) => at(DISPATCH_LEVEL, || self.words.double(which)),
        }
    }
}

/// Only the others are created, so that all know the first two from the beginning.
fn run(program: &Program) -> Seen {
    let shared = Shared {
        words: Words::default(),
        events: [Event::synchronization(), Event::notification()],
        semaphore: Semaphore::new(0, 8),
        mutex: Mutex::new(),
    };
    let results: Vec<RefCell<Vec<i64>>> = program.iter().map(|_| RefCell::default()).collect();
    let perform = |number: usize, threads| {
        for &step in &program[number] {
            let result = shared.perform(step, threads);
            results[number].borrow_mut().push(result);
        }
    };
    let (perform, first) = (&perform, current_thread());
    let second = spawn(move || apart(|| perform(1, [first, current_thread()])));
    let both = [first, second.object()];
    let third = program.get(2).map(|_| spawn(move || apart(|| perform(2, both))));
    apart(|| perform(0, both));
    wait(both[1]);
    let priorities = both.map(|thread| raw!(KeQueryPriorityThread(thread.cast())).into());
    join_all([Some(second), third].into_iter().flatten());
    let states = [shared.events[0].state(), shared.events[1].state(), shared.semaphore.state()].map(i64::from);
    let end = [shared.words.both(), states.to_vec(), priorities.to_vec()].concat();
    (results.into_iter().map(RefCell::into_inner).collect(), end)
}

fn check(program: &Program) {
    compare(program.len() - 1, || run(program));
}

proptest! {
    #![proptest_config(few())]
    #[test]
    fn nothing_is_missed_of_priorities(program in program()) {
        compare_if_small(program.len() - 1, SMALL, || run(&program));
    }
}

/// A priority is what others have made it so far.
#[test]
fn a_priority_may_change_before_it_is_looked_at() {
    check(&vec![vec![Step::Priority(1)], vec![Step::Load(0), Step::SetPriority(1, 10)]]);
    check(&vec![vec![Step::Wait(0)], vec![Step::Set(0, 2)], vec![Step::Load(0), Step::Priority(0)]]);
    check(&vec![vec![Step::Set(0, 2)], vec![Step::Wait(0)], vec![Step::Load(0), Step::Priority(1)]]);
}

/// Who has had to wait has been boosted, and who has not has not.
#[test]
fn a_priority_tells_who_has_waited() {
    check(&vec![vec![Step::Wait(0), Step::Priority(0)], vec![Step::Load(0), Step::Set(0, 2)]]);
    check(&vec![vec![Step::Mutex(0), Step::Priority(0)], vec![Step::Mutex(0)]]);
}
