//! DPCs whose target and importance are changed, those of timers with a period and of EX_TIMERs, and who waits for all of them.

use crate::{SMALL, Seen, Words, compare_if_small, few, perform, two_threads};
use ksync_sys::*;
use proptest::prelude::*;
use std::cell::RefCell;
use std::ptr::null_mut;
use test_support::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    Load(usize),
    Store(usize),
    /// One of two DPCs.
    Queue(usize),
    Remove(usize),
    /// To the processor of one of the threads.
    Target(usize, u8),
    Importance(usize, KDPC_IMPORTANCE),
    Flush,
    /// A timer with one of the DPCs, which is due and then comes again after so many milliseconds.
    SetPeriodic(usize, usize, i64, i32),
    CancelTimer(usize),
    SetExTimer(i64, i64),
    CancelExTimer,
    WaitWithin(usize, i64),
    Sleep(i64),
    /// A word is changed at DISPATCH_LEVEL.
    Raised(usize),
}

fn word_step() -> impl Strategy<Value = Step> {
    let which = || 0..2_usize;
    prop_oneof![which().prop_map(Step::Load), which().prop_map(Step::Store), which().prop_map(Step::Raised)]
}

fn setting_step() -> impl Strategy<Value = Step> {
    let which = || 0..2_usize;
    let importance = prop_oneof![Just(LowImportance), Just(MediumImportance), Just(MediumHighImportance), Just(HighImportance)];
    prop_oneof![
        3 => which().prop_map(Step::Queue),
        1 => which().prop_map(Step::Remove),
        2 => (which(), 0..3_u8).prop_map(|(which, target)| Step::Target(which, target)),
        2 => (which(), importance).prop_map(|(which, importance)| Step::Importance(which, importance)),
    ]
}

fn flushing_step() -> impl Strategy<Value = Step> {
    let which = || 0..2_usize;
    prop_oneof![3 => which().prop_map(Step::Queue), 1 => which().prop_map(Step::Remove), 3 => Just(Step::Flush)]
}

fn timer_step() -> impl Strategy<Value = Step> {
    let which = || 0..2_usize;
    let time = || 1..3_i64;
    prop_oneof![
        4 => (which(), which(), time(), 1..3_i32).prop_map(|(timer, dpc, due, period)| Step::SetPeriodic(timer, dpc, due, period)),
        1 => which().prop_map(Step::CancelTimer),
        2 => (time(), 0..3_i64).prop_map(|(due, period)| Step::SetExTimer(due, period)),
        1 => Just(Step::CancelExTimer),
        2 => (which(), time()).prop_map(|(which, time)| Step::WaitWithin(which, time)),
        2 => (1..5_i64).prop_map(Step::Sleep),
    ]
}

type Program = Vec<Vec<Step>>;

fn of(step: BoxedStrategy<Step>) -> impl Strategy<Value = Program> {
    two_threads(word_step().boxed(), step)
}

struct Shared<'a> {
    words: &'a Words,
    dpcs: Vec<Dpc<'a>>,
    timers: [Timer; 2],
    ex_timer: *mut EX_TIMER,
}

unsafe extern "system-unwind" fn on_expiry(_timer: *mut EX_TIMER, context: PVOID) {
    // SAFETY: the timer is deleted before the words go.
    let words = unsafe { &*context.cast::<Words>() };
    words.double(0);
}

impl Shared<'_> {
    fn perform(&self, step: Step) -> i64 {
        let words = self.words;
        match step {
            Step::Load(which) => words.load(which),
            Step::Store(which) => words.store(which),
            Step::Raised(which) => at(DISPATCH_LEVEL, || words.double(which)),
            Step::Queue(which) => self.dpcs[which].queue().into(),
            Step::Remove(which) => self.dpcs[which].remove().into(),
            Step::Target(which, target) => {
                raw!(KeSetTargetProcessorDpc(self.dpcs[which].ptr(), target as CCHAR));
                0
            }
            Step::Importance(which, importance) => {
                raw!(KeSetImportanceDpc(self.dpcs[which].ptr(), importance));
                0
            }
            Step::Flush => {
                flush_dpcs();
                words.load(0)
            }
            Step::SetPeriodic(timer, dpc, due, period) => {
                self.timers[timer].set_with(-due * MS, period, self.dpcs[dpc].ptr()).into()
            }
            Step::CancelTimer(which) => self.timers[which].cancel().into(),
            Step::SetExTimer(due, period) => raw!(ExSetTimer(self.ex_timer, -due * MS, period * MS, null_mut())).into(),
            Step::CancelExTimer => raw!(ExCancelTimer(self.ex_timer, null_mut())).into(),
            Step::WaitWithin(which, time) => wait_until(self.timers[which].object(), -time * MS).into(),
            Step::Sleep(time) => sleep(time * MS).into(),
        }
    }
}

fn run(program: &Program) -> Seen {
    let words = Words::default();
    // Of each processor.
    let logs: [RefCell<Vec<i64>>; 3] = Default::default();
    let (words, logs_of) = (&words, &logs);
    let dpc = |number: usize| move || logs_of[processor() as usize].borrow_mut().push(100 * number as i64 + words.double(number));
    let shared = Shared {
        words,
        dpcs: vec![Dpc::new(dpc(0)).on(1), Dpc::new(dpc(1)).on(2).importance(LowImportance)],
        timers: [Timer::synchronization(), Timer::notification()],
        ex_timer: raw!(ExAllocateTimer(Some(on_expiry), (&raw const *words).cast_mut().cast(), 0)),
    };
    let results = perform(program, |step, _, _| shared.perform(step));
    let mut end: Vec<i64> = shared.timers.iter().map(|timer| timer.cancel().into()).collect();
    end.push(raw!(ExDeleteTimer(shared.ex_timer, TRUE, TRUE, null_mut())).into());
    flush_dpcs();
    drop(shared);
    end.extend(words.both());
    end.extend(logs.into_iter().flat_map(RefCell::into_inner));
    (results, end)
}

fn check(program: &Program) {
    compare_if_small(program.len(), SMALL, || run(program));
}

/// Which processor a DPC is queued to, and whether it asks for an interrupt, may be changed at any time.
#[test]
fn a_target_may_change_before_the_insertion() {
    check(&vec![vec![Step::Queue(0)], vec![Step::Load(1), Step::Target(0, 2)]]);
    check(&vec![vec![Step::Queue(1)], vec![Step::Load(0), Step::Importance(1, HighImportance)]]);
}

proptest! {
    #![proptest_config(few())]
    #[test]
    fn nothing_is_missed_of_targets_and_importance(program in of(setting_step().boxed())) {
        check(&program);
    }

    #[test]
    fn nothing_is_missed_of_flushes(program in of(flushing_step().boxed())) {
        check(&program);
    }

    #[test]
    fn nothing_is_missed_of_periods(program in of(timer_step().boxed())) {
        check(&program);
    }
}
