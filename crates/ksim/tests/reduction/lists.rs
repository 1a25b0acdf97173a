//! Interlocked lists and device queues.

use crate::{Seen, Words, compare, few, perform};
use ksync_sys::*;
use proptest::prelude::*;
use test_support::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    Load(usize),
    Store(usize),
    /// On one of two interlocked lists: the entry of the step's own.
    Push(usize),
    Pop(usize),
    Flush(usize),
    Depth(usize),
    /// On the device queue.
    Insert,
    InsertByKey(u32),
    Remove,
    RemoveByKey(u32),
    /// The entry of the first thread's first step.
    RemoveEntry,
}

fn step() -> impl Strategy<Value = Step> {
    let which = || 0..2_usize;
    prop_oneof![
        1 => which().prop_map(Step::Load),
        1 => which().prop_map(Step::Store),
        3 => which().prop_map(Step::Push),
        2 => which().prop_map(Step::Pop),
        1 => which().prop_map(Step::Flush),
        1 => which().prop_map(Step::Depth),
        3 => Just(Step::Insert),
        2 => (0..2_u32).prop_map(Step::InsertByKey),
        2 => Just(Step::Remove),
        1 => (0..2_u32).prop_map(Step::RemoveByKey),
        1 => Just(Step::RemoveEntry),
    ]
}

type Program = Vec<Vec<Step>>;

fn program() -> impl Strategy<Value = Program> {
    prop_oneof![
        3 => prop::collection::vec(prop::collection::vec(step(), 1..=3), 2),
        2 => prop::collection::vec(prop::collection::vec(step(), 1..=2), 3),
    ]
}

/// An entry of an interlocked list, which is aligned.
#[repr(C, align(16))]
struct Aligned(SLIST_ENTRY);

struct Shared {
    words: Words,
    lists: [Place<SLIST_HEADER>; 2],
    entries: Vec<Place<Aligned>>,
    queue: Place<KDEVICE_QUEUE>,
    waiting: Vec<Place<KDEVICE_QUEUE_ENTRY>>,
}

impl Shared {
    fn new() -> Self {
        let lists = [Place::zeroed(), Place::zeroed()];
        lists.iter().for_each(|list| raw!(InitializeSListHead(list.ptr())));
        let queue = Place::zeroed();
        raw!(KeInitializeDeviceQueue(queue.ptr()));
        Self {
            words: Words::default(),
            lists,
            entries: (0..9).map(|_| Place::zeroed()).collect(),
            queue,
            waiting: (0..9).map(|_| Place::zeroed()).collect(),
        }
    }

    /// Which entry a list gave.
    fn entry(&self, entry: *mut SLIST_ENTRY) -> i64 {
        self.entries.iter().position(|known| known.ptr().cast() == entry).map_or(-1, |place| place as i64)
    }

    fn waiting(&self, entry: *mut KDEVICE_QUEUE_ENTRY) -> i64 {
        self.waiting.iter().position(|known| known.ptr() == entry).map_or(-1, |place| place as i64)
    }

    fn perform(&self, step: Step, place: usize) -> i64 {
        let queue = self.queue.ptr();
        match step {
            Step::Load(which) => self.words.load(which),
            Step::Store(which) => self.words.store(which),
            Step::Push(which) => {
                let entry = self.entries[place].ptr().cast();
                self.entry(raw!(ExpInterlockedPushEntrySList(self.lists[which].ptr(), entry)))
            }
            Step::Pop(which) => self.entry(raw!(ExpInterlockedPopEntrySList(self.lists[which].ptr()))),
            Step::Flush(which) => self.entry(raw!(ExpInterlockedFlushSList(self.lists[which].ptr()))),
            Step::Depth(which) => raw!(ExQueryDepthSList(self.lists[which].ptr())).into(),
            Step::Insert => at(DISPATCH_LEVEL, || raw!(KeInsertDeviceQueue(queue, self.waiting[place].ptr())).into()),
            Step::InsertByKey(key) => {
                at(DISPATCH_LEVEL, || raw!(KeInsertByKeyDeviceQueue(queue, self.waiting[place].ptr(), key)).into())
            }
            Step::Remove => at(DISPATCH_LEVEL, || self.waiting(raw!(KeRemoveByKeyDeviceQueueIfBusy(queue, 0)))),
            Step::RemoveByKey(key) => at(DISPATCH_LEVEL, || self.waiting(raw!(KeRemoveByKeyDeviceQueueIfBusy(queue, key)))),
            Step::RemoveEntry => raw!(KeRemoveEntryDeviceQueue(queue, self.waiting[0].ptr())).into(),
        }
    }
}

fn run(program: &Program) -> Seen {
    let shared = Shared::new();
    let results = perform(program, |step, thread, place| shared.perform(step, 3 * thread + place));
    let mut end = shared.words.both();
    for list in &shared.lists {
        while let entry @ 0.. = shared.entry(raw!(ExpInterlockedPopEntrySList(list.ptr()))) {
            end.push(entry);
        }
        end.push(-1);
    }
    at(DISPATCH_LEVEL, || {
        while let entry @ 0.. = shared.waiting(raw!(KeRemoveByKeyDeviceQueueIfBusy(shared.queue.ptr(), 0))) {
            end.push(entry);
        }
    });
    (results, end)
}

proptest! {
    #![proptest_config(few())]
    #[test]
    fn nothing_is_missed_of_lists(program in program()) {
        compare(program.len(), || run(&program));
    }
}
