//! Blocks of pool that are freed while others may use what lies in them.

use crate::{SMALL, Seen, Words, compare, compare_if_small, few, perform};
use ksync_sys::*;
use proptest::prelude::*;
use std::cell::Cell;
use std::mem::offset_of;
use std::ptr::null_mut;
use test_support::*;

/// A block of pool: a part of a driver's, and what another allocates.
#[repr(C)]
struct Block {
    event: KEVENT,
    timer: KTIMER,
    dpc: KDPC,
    lock: KSPIN_LOCK,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Load(usize),
    Store(usize),
    /// What lies in one of two blocks.
    Set(usize),
    Wait(usize),
    Poll(usize),
    SetTimer(usize),
    CancelTimer(usize),
    QueueDpc(usize),
    RemoveDpc(usize),
    /// With a word changed under the lock.
    Lock(usize),
    /// Frees the block.
    Free(usize),
    /// Allocates and frees one that nobody knows.
    Own,
}

fn step() -> impl Strategy<Value = Step> {
    let which = || 0..2_usize;
    prop_oneof![
        2 => which().prop_map(Step::Load),
        2 => which().prop_map(Step::Store),
        2 => which().prop_map(Step::Set),
        1 => which().prop_map(Step::Wait),
        1 => which().prop_map(Step::Poll),
        1 => which().prop_map(Step::SetTimer),
        1 => which().prop_map(Step::CancelTimer),
        2 => which().prop_map(Step::QueueDpc),
        1 => which().prop_map(Step::RemoveDpc),
        2 => which().prop_map(Step::Lock),
        5 => which().prop_map(Step::Free),
        1 => Just(Step::Own),
    ]
}

type Program = Vec<Vec<Step>>;

fn program() -> impl Strategy<Value = Program> {
    prop_oneof![
        3 => prop::collection::vec(prop::collection::vec(step(), 1..=3), 2),
        1 => prop::collection::vec(prop::collection::vec(step(), 1..=2), 3),
    ]
}

fn event(block: *mut Block) -> *mut KEVENT {
    block.wrapping_byte_add(offset_of!(Block, event)).cast()
}

fn timer(block: *mut Block) -> *mut KTIMER {
    block.wrapping_byte_add(offset_of!(Block, timer)).cast()
}

fn dpc(block: *mut Block) -> *mut KDPC {
    block.wrapping_byte_add(offset_of!(Block, dpc)).cast()
}

fn lock(block: *mut Block) -> *mut KSPIN_LOCK {
    block.wrapping_byte_add(offset_of!(Block, lock)).cast()
}

struct Shared<'a> {
    words: &'a Words,
    blocks: [*mut Block; 2],
    freed: [Cell<bool>; 2],
}

unsafe extern "system-unwind" fn routine(_dpc: *mut KDPC, context: PVOID, _argument1: PVOID, _argument2: PVOID) {
    // SAFETY: the words are there until all DPCs have run.
    let words = unsafe { &*context.cast::<Words>() };
    words.double(0);
}

impl<'a> Shared<'a> {
    fn new(words: &'a Words) -> Self {
        let block = |target: i8| {
            let block = allocate(size_of::<Block>()).cast();
            raw!(KeInitializeEvent(event(block), SynchronizationEvent, FALSE));
            raw!(KeInitializeTimer(timer(block)));
            raw!(KeInitializeDpc(dpc(block), Some(routine), (&raw const *words).cast_mut().cast()));
            raw!(KeSetTargetProcessorDpc(dpc(block), target));
            block
        };
        Self { words, blocks: [block(1), block(2)], freed: [Cell::new(false), Cell::new(false)] }
    }

    fn perform(&self, step: Step) -> i64 {
        let block = |which: usize| self.blocks[which];
        match step {
            Step::Load(which) => self.words.load(which),
            Step::Store(which) => self.words.store(which),
            Step::Set(which) => raw!(KeSetEvent(event(block(which)), 0, FALSE)).into(),
            Step::Wait(which) => wait(event(block(which)).cast()).into(),
            Step::Poll(which) => poll(event(block(which)).cast()).into(),
            Step::SetTimer(which) => raw!(KeSetTimer(timer(block(which)), -MS, null_mut())).into(),
            Step::CancelTimer(which) => raw!(KeCancelTimer(timer(block(which)))).into(),
            Step::QueueDpc(which) => raw!(KeInsertQueueDpc(dpc(block(which)), null_mut(), null_mut())).into(),
            Step::RemoveDpc(which) => raw!(KeRemoveQueueDpc(dpc(block(which)))).into(),
            Step::Lock(which) => {
                let old = raw!(KeAcquireSpinLockRaiseToDpc(lock(block(which))));
                let value = self.words.double(which);
                raw!(KeReleaseSpinLock(lock(block(which)), old));
                value
            }
            Step::Free(which) => {
                self.freed[which].set(true);
                free(block(which).cast());
                0
            }
            Step::Own => {
                free(allocate(16));
                0
            }
        }
    }
}

fn run(program: &Program) -> Seen {
    let words = Words::default();
    let shared = Shared::new(&words);
    let results = perform(program, |step, _, _| shared.perform(step));
    flush_dpcs();
    for (block, freed) in shared.blocks.iter().zip(&shared.freed) {
        if !freed.get() {
            raw!(KeCancelTimer(timer(*block)));
            free(block.cast());
        }
    }
    (results, words.both())
}

fn check(program: &Program) {
    compare(program.len(), || run(program));
}

proptest! {
    #![proptest_config(few())]
    #[test]
    fn nothing_is_missed_of_pool_that_is_freed(program in program()) {
        compare_if_small(program.len(), SMALL, || run(&program));
    }
}

/// What lies in a block may be used before it is freed, or behind.
#[test]
fn what_is_freed_may_be_used_before() {
    check(&vec![vec![Step::Load(0), Step::Free(0)], vec![Step::Load(1), Step::Set(0)]]);
    check(&vec![vec![Step::Load(0), Step::Free(0)], vec![Step::Load(1), Step::Lock(0)]]);
    check(&vec![vec![Step::Load(0), Step::Free(0)], vec![Step::Load(1), Step::Free(0)]]);
}

/// Who waits already is woken before the memory goes; who comes later finds it gone.
#[test]
fn what_is_waited_for_may_be_freed_once_it_is_set() {
    check(&vec![vec![Step::Load(0), Step::Wait(1)], vec![Step::Set(1), Step::Free(1)]]);
}

/// A DPC may have begun when its memory goes, or be queued still.
#[test]
fn what_is_freed_may_be_a_dpc_that_runs() {
    check(&vec![vec![Step::Load(0)], vec![Step::QueueDpc(0)], vec![Step::Free(0)]]);
}
