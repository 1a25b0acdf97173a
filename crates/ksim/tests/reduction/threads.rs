//! Threads that create threads, which get the next processors, whoever creates them.

use crate::{SMALL, Seen, Words, apart, compare, compare_if_small, few};
use ksync_sys::*;
use proptest::prelude::*;
use std::cell::RefCell;
use std::ptr::null_mut;
use test_support::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    Load(usize),
    Store(usize),
    /// The DPC of the thread, which changes a word, on the processor of the thread.
    QueueDpc,
    /// A word is changed at DISPATCH_LEVEL.
    Raised(usize),
    /// Which one the thread is on.
    Processor,
    Sleep,
    /// Waits for all threads that this one has created.
    Join,
    /// A thread that performs these two steps, by a handle that is waited for.
    Create([Simple; 2]),
    /// The same, by its object.
    CreateReferenced([Simple; 2]),
}

/// What threads do that create no others.
#[derive(Clone, Copy, Debug)]
enum Simple {
    Nothing,
    Load(usize),
    Store(usize),
    QueueDpc,
    Raised(usize),
    Processor,
    /// One that does nothing but change a word.
    Create(usize),
}

impl Simple {
    fn step(self) -> Option<Step> {
        Some(match self {
            Self::Nothing => return None,
            Self::Load(which) => Step::Load(which),
            Self::Store(which) => Step::Store(which),
            Self::QueueDpc => Step::QueueDpc,
            Self::Raised(which) => Step::Raised(which),
            Self::Processor => Step::Processor,
            Self::Create(which) => Step::Create([Self::Store(which), Self::Processor]),
        })
    }
}

fn simple() -> impl Strategy<Value = Simple> {
    prop_oneof![
        3 => Just(Simple::Nothing),
        1 => (0..2_usize).prop_map(Simple::Load),
        1 => (0..2_usize).prop_map(Simple::Store),
        2 => Just(Simple::QueueDpc),
        1 => (0..2_usize).prop_map(Simple::Raised),
        2 => Just(Simple::Processor),
    ]
}

fn creation() -> impl Strategy<Value = Step> {
    let two = || (simple(), simple()).prop_map(|(first, second)| [first, second]);
    prop_oneof![
        3 => two().prop_map(Step::Create),
        3 => two().prop_map(Step::CreateReferenced),
        1 => (0..2_usize).prop_map(|which| Step::Create([Simple::Create(which), Simple::Nothing])),
    ]
}

fn other() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..2_usize).prop_map(Step::Load),
        2 => (0..2_usize).prop_map(Step::Store),
        2 => Just(Step::QueueDpc),
        1 => (0..2_usize).prop_map(Step::Raised),
        1 => Just(Step::Processor),
        1 => Just(Step::Sleep),
        2 => Just(Step::Join),
    ]
}

type Program = Vec<Vec<Step>>;

/// Two threads, of which each creates one that may create one.
fn nested() -> impl Strategy<Value = Program> {
    let thread = || {
        (prop::collection::vec(other(), 0..=1), creation(), prop::collection::vec(other(), 0..=1))
            .prop_map(|(before, creation, behind)| [before, vec![creation], behind].concat())
    };
    prop_oneof![
        4 => prop::collection::vec(thread(), 2),
        1 => (thread(), prop::collection::vec(other(), 1..=2)).prop_map(|(one, other)| vec![one, other]),
    ]
}

/// Threads that create others after earlier ones have ended.
fn one_after_the_other() -> impl Strategy<Value = Program> {
    let thread = || {
        (creation(), creation(), prop::collection::vec(other(), 0..=1))
            .prop_map(|(first, second, behind)| [vec![first, Step::Join, second], behind].concat())
    };
    let short = || prop_oneof![creation().prop_map(|creation| vec![creation]), other().prop_map(|step| vec![step])];
    (thread(), short()).prop_map(|(one, other)| vec![one, other])
}

/// Another thread, as it is waited for.
enum Created {
    Handle(HANDLE),
    Object(Thread),
}

impl Created {
    fn join(self) {
        match self {
            Self::Handle(handle) => {
                assert_eq!(raw!(ZwWaitForSingleObject(handle, FALSE, null_mut())), STATUS_SUCCESS);
                assert_eq!(raw!(ZwClose(handle)), STATUS_SUCCESS);
            }
            Self::Object(thread) => thread.join(),
        }
    }
}

/// What a thread has done, by the steps that led to it.
type Results = RefCell<Vec<(Vec<usize>, i64)>>;

fn note(results: &Results, path: &[usize], what: usize, result: i64) {
    results.borrow_mut().push(([path, &[what]].concat(), result));
}

/// The steps of a thread.
fn steps_of(steps: [Simple; 2]) -> Vec<Step> {
    steps.into_iter().filter_map(Simple::step).collect()
}

/// The path of a thread's `count`th child.
fn child_of(path: &[usize], count: usize) -> Vec<usize> {
    [path, &[10 + count]].concat()
}

/// The paths of a thread and of all that it creates.
fn paths(steps: &[Step], path: &[usize]) -> Vec<Vec<usize>> {
    let created = steps.iter().filter_map(|step| match step {
        Step::Create(steps) | Step::CreateReferenced(steps) => Some(steps_of(*steps)),
        _ => None,
    });
    let children = created.enumerate().flat_map(|(count, steps)| paths(&steps, &child_of(path, count)));
    [path.to_vec()].into_iter().chain(children).collect()
}

/// What all threads have: their memory does not depend on who comes first.
struct Shared<'a> {
    words: &'a Words,
    results: &'a Results,
    dpcs: Vec<(Vec<usize>, Dpc<'a>)>,
}

fn perform(steps: &[Step], path: &[usize], shared: &Shared<'_>) {
    let Shared { words, results, dpcs } = shared;
    let dpc = &dpcs.iter().find(|(of, _)| of == path).expect("each thread has one").1;
    let (mut created, mut count) = (Vec::new(), 0);
    for (place, &step) in steps.iter().enumerate() {
        let mut child = |steps: [Simple; 2]| {
            let path = child_of(path, count);
            count += 1;
            move || apart(|| perform(&steps_of(steps), &path, shared))
        };
        let result = match step {
            Step::Load(which) => words.load(which),
            Step::Store(which) => words.store(which),
            Step::QueueDpc => dpc.queue().into(),
            Step::Raised(which) => at(DISPATCH_LEVEL, || words.double(which)),
            Step::Processor => processor().into(),
            Step::Sleep => sleep(MS).into(),
            Step::Join => {
                created.drain(..).for_each(Created::join);
                0
            }
            Step::Create(steps) => {
                created.push(Created::Handle(spawn_with_handle(child(steps))));
                0
            }
            Step::CreateReferenced(steps) => {
                created.push(Created::Object(spawn(child(steps))));
                0
            }
        };
        note(results, path, place, result);
    }
    created.into_iter().for_each(Created::join);
}

fn run(program: &Program) -> Seen {
    let words = Words::default();
    let results = Results::default();
    let all = program.iter().enumerate().flat_map(|(number, steps)| paths(steps, &[number]));
    let (its_words, its_results) = (&words, &results);
    let dpc = |path: Vec<usize>| {
        let of = path.clone();
        (path, Dpc::new(move || note(its_results, &of, 90, its_words.double(0))))
    };
    let shared = Shared { words: &words, results: &results, dpcs: all.map(dpc).collect() };
    let one = |(number, steps)| {
        let (shared, steps): (_, &Vec<Step>) = (&shared, steps);
        spawn(move || apart(|| perform(steps, &[number], shared)))
    };
    join_all(program.iter().enumerate().map(one).collect::<Vec<_>>());
    flush_dpcs();
    drop(shared);
    let mut results = results.into_inner();
    results.sort_by(|one, other| one.0.cmp(&other.0));
    let result = |(path, result): (Vec<usize>, i64)| path.into_iter().map(|part| part as i64).chain([result]).collect();
    (results.into_iter().map(result).collect(), words.both())
}

/// How many threads there are at most at a time, or in all.
fn threads(program: &Program, in_all: bool) -> usize {
    let of_step = |step: &Step| match step {
        Step::Create(steps) | Step::CreateReferenced(steps) => {
            1 + steps.iter().filter(|step| matches!(step, Simple::Create(_))).count()
        }
        _ => 0,
    };
    let of_thread = |steps: &Vec<Step>| {
        let mut most = 0;
        let mut present = 0;
        for step in steps {
            if matches!(step, Step::Join) && !in_all {
                present = 0;
            }
            present += of_step(step);
            most = most.max(present);
        }
        1 + most
    };
    program.iter().map(of_thread).sum()
}

fn check(program: &Program) {
    compare(threads(program, true), || run(program));
    compare(threads(program, false), || run(program));
}

proptest! {
    #![proptest_config(few())]
    #[test]
    fn nothing_is_missed_of_threads_that_create_threads(program in nested()) {
        compare_if_small(threads(&program, true), SMALL, || run(&program));
    }

    #[test]
    fn nothing_is_missed_of_threads_after_threads(program in one_after_the_other()) {
        compare_if_small(threads(&program, false), SMALL, || run(&program));
    }
}

/// Which processor a thread gets is decided by the order of creation, and matters to DPCs.
#[test]
fn creations_have_an_order() {
    let create = |what| Step::Create([what, Simple::Nothing]);
    check(&vec![vec![create(Simple::Processor)], vec![create(Simple::Nothing)]]);
    check(&vec![vec![create(Simple::QueueDpc)], vec![create(Simple::Raised(0))]]);
}

/// The end of a thread gives its processor to one that is created later.
#[test]
fn ends_come_before_creations_or_behind() {
    let create = |what| Step::Create([what, Simple::Nothing]);
    check(&vec![vec![create(Simple::Nothing), Step::Join, create(Simple::Processor)], vec![Step::Load(0)]]);
    check(&vec![vec![create(Simple::Nothing), Step::Join, create(Simple::Processor)], vec![create(Simple::Processor)]]);
}
