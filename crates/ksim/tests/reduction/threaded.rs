//! Threaded DPCs, and KeGenericCallDpc. The threads of threaded DPCs have processors of their own here: on another's they would outrank it, and the search would say that it waits.

use crate::{LONG_RUNS, Seen, Words, compare_if_small, few, perform, two_threads};
use ksync_sys::*;
use proptest::prelude::*;
use std::cell::RefCell;
use test_support::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    Load(usize),
    Store(usize),
    /// A word is changed at DISPATCH_LEVEL.
    Raised(usize),
    /// One of the DPCs, of which some are threaded.
    Queue(usize),
    Remove(usize),
    Flush,
    Lock(usize),
    /// A call on all processors, which changes a word on each.
    Call(usize),
    /// Likewise, with a barrier after which the word is looked at.
    CallWithBarrier(usize),
}

fn which() -> std::ops::Range<usize> {
    0..2
}

fn word_step() -> impl Strategy<Value = Step> {
    prop_oneof![which().prop_map(Step::Load), which().prop_map(Step::Store), which().prop_map(Step::Raised)]
}

/// The first two DPCs are threaded and have processors of their own, the third runs on the first thread's.
fn threaded_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..3_usize).prop_map(Step::Queue),
        2 => (0..3_usize).prop_map(Step::Remove),
        2 => Just(Step::Flush),
        1 => which().prop_map(Step::Lock),
    ]
}

fn calling_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => which().prop_map(Step::Call),
        1 => which().prop_map(Step::CallWithBarrier),
        1 => Just(Step::Queue(2)),
        1 => Just(Step::Flush),
    ]
}

type Program = Vec<Vec<Step>>;

fn of(step: BoxedStrategy<Step>) -> impl Strategy<Value = Program> {
    two_threads(word_step().boxed(), step)
}

struct Shared<'a> {
    words: &'a Words,
    lock: &'a SpinLock,
    dpcs: Vec<Dpc<'a>>,
}

/// A call on all processors: which word, and what each of them saw.
struct Generic<'a> {
    words: &'a Words,
    word: usize,
    barrier: bool,
    seen: RefCell<Vec<(u32, i64)>>,
}

unsafe extern "system-unwind" fn everywhere(_dpc: *mut KDPC, context: PVOID, argument1: PVOID, argument2: PVOID) {
    // SAFETY: the caller keeps it until the call is over.
    let call = unsafe { &*context.cast_const().cast::<Generic<'_>>() };
    let mut seen = call.words.double(call.word);
    if call.barrier {
        seen *= 2;
        seen += i64::from(raw!(KeSignalCallDpcSynchronize(argument2)));
        seen = 100 * seen + call.words.load(call.word);
    }
    call.seen.borrow_mut().push((processor(), seen));
    raw!(KeSignalCallDpcDone(argument1));
}

impl Shared<'_> {
    fn call(&self, word: usize, barrier: bool) -> i64 {
        let call = Generic { words: self.words, word, barrier, seen: RefCell::default() };
        raw!(KeGenericCallDpc(Some(everywhere), (&raw const call).cast_mut().cast()));
        let mut seen = call.seen.into_inner();
        seen.sort_unstable();
        seen.into_iter().fold(0, |sum, (_, seen)| 1000 * sum + seen)
    }

    fn perform(&self, step: Step) -> i64 {
        let words = self.words;
        match step {
            Step::Load(which) => words.load(which),
            Step::Store(which) => words.store(which),
            Step::Raised(which) => at(DISPATCH_LEVEL, || words.double(which)),
            Step::Queue(which) => self.dpcs[which].queue().into(),
            Step::Remove(which) => self.dpcs[which].remove().into(),
            Step::Flush => {
                flush_dpcs();
                words.load(0)
            }
            Step::Lock(which) => self.lock.with(|| words.double(which)),
            Step::Call(which) => self.call(which, false),
            Step::CallWithBarrier(which) => self.call(which, true),
        }
    }
}

fn run(program: &Program) -> Seen {
    let words = Words::default();
    let lock = SpinLock::new();
    let logs: [RefCell<Vec<i64>>; 3] = Default::default();
    let (words, lock, logs_of) = (&words, &lock, &logs);
    // What one DPC saw; it never runs twice at once, but on the same processor.
    let routine =
        |number: usize, routine: fn(&Words, &SpinLock) -> i64| move || logs_of[number].borrow_mut().push(routine(words, lock));
    let threads = program.len() as u8;
    let shared = Shared {
        words,
        lock,
        dpcs: vec![
            Dpc::threaded(routine(0, |words, _| words.double(0))).on(threads + 1),
            Dpc::threaded(routine(1, |words, lock| lock.with(|| words.double(1)))).on(threads + 2).importance(HighImportance),
            Dpc::new(routine(2, |words, _| words.double(0))).on(1).importance(HighImportance),
        ],
    };
    let results = perform(program, |step, _, _| shared.perform(step));
    sleep(SECOND);
    flush_dpcs();
    drop(shared);
    let mut end = words.both();
    end.extend(logs.iter().flat_map(|log| [-1].into_iter().chain(log.take())));
    (results, end)
}

fn check(program: &Program, processors: usize) {
    compare_if_small(processors, LONG_RUNS, || run(program));
}

proptest! {
    #![proptest_config(few())]
    #[test]
    fn nothing_is_missed_of_threaded_dpcs(program in of(threaded_step().boxed())) {
        check(&program, program.len() + 2);
    }

    #[test]
    fn nothing_is_missed_of_calls_on_all_processors(program in of(calling_step().boxed())) {
        check(&program, program.len());
    }
}
