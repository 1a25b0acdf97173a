//! Work items: of drivers and of the executive, in several queues, and threads that serve a KQUEUE.

use crate::{LONG_RUNS, Seen, Words, compare_if_small, few, perform};
use ksync_sys::*;
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use test_support::io::Sample;
use test_support::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    Load(usize),
    Store(usize),
    /// The step's own executive work item, which changes a word.
    Executive(usize, WORK_QUEUE_TYPE),
    /// One of two I/O work items, if it is not queued.
    TryQueue(usize, WORK_QUEUE_TYPE),
    /// An I/O work item that is allocated, and frees itself.
    OneShot(usize, WORK_QUEUE_TYPE),
    /// An executive work item that queues itself once more.
    Twice(usize),
    /// Waits for an item to end.
    Await,
    PollEnd,
    Lock(usize),
}

fn which() -> std::ops::Range<usize> {
    0..2
}

fn step() -> impl Strategy<Value = Step> {
    let queue = || prop_oneof![Just(DelayedWorkQueue), Just(CriticalWorkQueue), Just(HyperCriticalWorkQueue)];
    prop_oneof![
        1 => which().prop_map(Step::Load),
        1 => which().prop_map(Step::Store),
        3 => (which(), queue()).prop_map(|(which, queue)| Step::Executive(which, queue)),
        2 => (which(), queue()).prop_map(|(which, queue)| Step::TryQueue(which, queue)),
        2 => (which(), queue()).prop_map(|(which, queue)| Step::OneShot(which, queue)),
        1 => which().prop_map(Step::Twice),
        1 => Just(Step::Await),
        1 => Just(Step::PollEnd),
        1 => which().prop_map(Step::Lock),
    ]
}

type Program = Vec<Vec<Step>>;

fn program() -> impl Strategy<Value = Program> {
    prop_oneof![
        3 => prop::collection::vec(prop::collection::vec(step(), 1..=2), 2),
        1 => prop::collection::vec(prop::collection::vec(step(), 1..=1), 3),
    ]
}

/// An executive work item, and what it does.
struct Item<'a> {
    item: Place<WORK_QUEUE_ITEM>,
    shared: &'a Shared,
    word: Cell<usize>,
    again: Cell<bool>,
    seen: Cell<i64>,
}

struct Shared {
    words: Words,
    lock: FastMutex,
    /// How many have ended.
    ended: Semaphore,
    queued: Cell<u32>,
    /// What each I/O work item has seen, and what those have that free themselves.
    seen: [RefCell<Vec<i64>>; 4],
}

impl Shared {
    fn end(&self) {
        self.ended.release(1);
    }

    /// What an I/O work item does, of the two that stay or of those that free themselves.
    fn work(&self, which: usize) {
        let seen = self.words.double(which % 2);
        self.seen[which].borrow_mut().push(seen);
        self.end();
    }
}

unsafe extern "system-unwind" fn execute(parameter: PVOID) {
    // SAFETY: the items outlive their way.
    let item = unsafe { &*parameter.cast_const().cast::<Item<'_>>() };
    let seen = item.shared.words.double(item.word.get());
    item.seen.set(10 * item.seen.get() + seen + 1);
    if item.again.take() {
        raw!(ExQueueWorkItem(item.item.ptr(), DelayedWorkQueue));
    } else {
        item.shared.end();
    }
}

/// The context of an I/O work item: the shared state's address, and which it is.
fn parts<'a>(context: PVOID) -> (&'a Shared, usize) {
    let which = context as usize & 3;
    // SAFETY: the state outlives the work, and its alignment leaves the lowest bits.
    (unsafe { &*(context.map_addr(|address| address & !3)).cast::<Shared>() }, which)
}

unsafe extern "system-unwind" fn stays(_object: PVOID, context: PVOID, _item: *mut IO_WORKITEM) {
    let (shared, which) = parts(context);
    shared.work(which);
}

unsafe extern "system-unwind" fn frees_itself(_object: PVOID, context: PVOID, item: *mut IO_WORKITEM) {
    let (shared, which) = parts(context);
    raw!(IoFreeWorkItem(item));
    shared.work(which);
}

impl Shared {
    fn context(&self, which: usize) -> PVOID {
        (&raw const *self).cast_mut().cast::<std::ffi::c_void>().map_addr(|address| address | which)
    }

    fn perform(&self, sample: &Sample, items: &[*mut IO_WORKITEM; 2], own: &Item<'_>, step: Step) -> i64 {
        let words = &self.words;
        match step {
            Step::Load(which) => words.load(which),
            Step::Store(which) => words.store(which),
            Step::Executive(word, queue) => {
                self.queued.set(self.queued.get() + 1);
                own.word.set(word);
                raw!(ExQueueWorkItem(own.item.ptr(), queue));
                0
            }
            Step::Twice(word) => {
                own.again.set(true);
                self.queued.set(self.queued.get() + 1);
                own.word.set(word);
                raw!(ExQueueWorkItem(own.item.ptr(), CriticalWorkQueue));
                0
            }
            Step::TryQueue(which, queue) => {
                let is_queued = raw!(IoTryQueueWorkItem(items[which], Some(stays), queue, self.context(which)));
                self.queued.set(self.queued.get() + u32::from(is_queued));
                is_queued.into()
            }
            Step::OneShot(which, queue) => {
                self.queued.set(self.queued.get() + 1);
                let item = raw!(IoAllocateWorkItem(sample.device()));
                raw!(IoQueueWorkItemEx(item, Some(frees_itself), queue, self.context(2 + which)));
                0
            }
            Step::Await => wait(self.ended.object()).into(),
            Step::PollEnd => poll(self.ended.object()).into(),
            Step::Lock(which) => {
                self.lock.acquire();
                let value = words.double(which);
                self.lock.release();
                value
            }
        }
    }
}

fn run(program: &Program) -> Seen {
    let shared = &Shared {
        words: Words::default(),
        lock: FastMutex::new(),
        ended: Semaphore::new(0, 99),
        queued: Cell::default(),
        seen: Default::default(),
    };
    let sample = Sample::load("sample");
    let items = [0, 1].map(|_| raw!(IoAllocateWorkItem(sample.device())));
    let steps = program.iter().map(Vec::len).max().unwrap_or(0);
    let own: Vec<Item<'_>> = (0..program.len() * steps)
        .map(|_| Item { item: Place::zeroed(), shared, word: Cell::default(), again: Cell::default(), seen: Cell::default() })
        .collect();
    for item in &own {
        raw!(ExInitializeWorkItem(item.item.ptr(), Some(execute), (&raw const *item).cast_mut().cast()));
    }
    let results = perform(program, |step, thread, place| shared.perform(&sample, &items, &own[thread * steps + place], step));
    let waited: u32 = program
        .iter()
        .flatten()
        .zip(results.iter().flatten())
        .map(|(step, &result)| u32::from(matches!(step, Step::Await | Step::PollEnd) && result == i64::from(STATUS_SUCCESS)))
        .sum();
    for _ in waited..shared.queued.get() {
        wait(shared.ended.object());
    }
    items.into_iter().for_each(|item| raw!(IoFreeWorkItem(item)));
    let mut end = shared.words.both();
    end.extend(own.iter().map(|item| item.seen.get()));
    end.extend(shared.seen.iter().flat_map(|seen| [-1].into_iter().chain(seen.take())));
    (results, end)
}

/// Each item may get a worker of its own.
fn check(program: &Program) {
    let items = program.iter().flatten().map(|step| match step {
        Step::Executive(..) | Step::TryQueue(..) | Step::OneShot(..) => 1,
        // It is still at work when it queues itself.
        Step::Twice(_) => 2,
        _ => 0,
    });
    compare_if_small(program.len() + items.sum::<usize>(), LONG_RUNS, || run(program));
}

proptest! {
    #![proptest_config(few())]
    #[test]
    fn nothing_is_missed_of_work_items(program in program()) {
        check(&program);
    }
}
