//! Loops that read the state of an object.

use crate::{SMALL, Seen, Words, compare_if_small, few, perform};
use ksync_sys::*;
use proptest::prelude::*;
use test_support::*;

/// Objects are numbered: two events, a timer.
#[derive(Clone, Copy, Debug)]
enum Step {
    Load(usize),
    Store(usize),
    Set(usize),
    Reset(usize),
    /// Until the event is signaled.
    Poll(usize),
    /// Until one of the two is.
    PollBoth,
    /// The same, letting time pass.
    PollSlowly(usize),
    SetTimer(i64),
    PollTimer,
    /// Takes the signal of an event away, without a wait.
    Take(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..2_usize).prop_map(Step::Load),
        2 => (0..2_usize).prop_map(Step::Store),
        4 => (0..2_usize).prop_map(Step::Set),
        1 => (0..2_usize).prop_map(Step::Reset),
        3 => (0..2_usize).prop_map(Step::Poll),
        1 => Just(Step::PollBoth),
        1 => (0..2_usize).prop_map(Step::PollSlowly),
        1 => (1..3_i64).prop_map(Step::SetTimer),
        1 => Just(Step::PollTimer),
        1 => (0..2_usize).prop_map(Step::Take),
    ]
}

struct Shared {
    words: Words,
    events: [Event; 2],
    timer: Timer,
}

fn state(event: &Event) -> bool {
    raw!(KeReadStateEvent(event.ptr())) != 0
}

impl Shared {
    fn step(&self, step: Step) -> i64 {
        match step {
            Step::Load(which) => self.words.load(which),
            Step::Store(which) => self.words.store(which),
            Step::Set(which) => self.events[which].set().into(),
            Step::Reset(which) => raw!(KeResetEvent(self.events[which].ptr())).into(),
            Step::Poll(which) => {
                while !state(&self.events[which]) {}
                0
            }
            Step::PollBoth => loop {
                for (which, event) in self.events.iter().enumerate() {
                    if state(event) {
                        return which as i64;
                    }
                }
            },
            Step::PollSlowly(which) => {
                while !state(&self.events[which]) {
                    raw!(KeStallExecutionProcessor(1));
                }
                0
            }
            Step::SetTimer(time) => self.timer.set(-time * MS).into(),
            Step::PollTimer => {
                while raw!(KeReadStateTimer(self.timer.ptr())) == 0 {}
                0
            }
            Step::Take(which) => i64::from(wait_until(self.events[which].object(), 0)),
        }
    }
}

fn run(program: &[Vec<Step>]) -> Seen {
    let shared = Shared {
        words: Words::default(),
        events: [Event::synchronization(), Event::notification()],
        timer: Timer::notification(),
    };
    let results = perform(program, |step, _, _| shared.step(step));
    let mut after = shared.words.both();
    after.extend(shared.events.iter().map(|event| i64::from(state(event))));
    (results, after)
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn nothing_is_missed_of_polls(program in prop_oneof![
        3 => prop::collection::vec(prop::collection::vec(step(), 1..=3), 2),
        1 => prop::collection::vec(prop::collection::vec(step(), 1..=1), 3),
    ]) {
        compare_if_small(program.len(), SMALL, || run(&program));
    }
}
