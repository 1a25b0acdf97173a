//! Barriers: rounds under many schedules, leaders, levels.

use core::sync::atomic::{AtomicU32, Ordering};
use ksim::Machine;
use ksync::NtError;
use ksync::irql::{self, Irql};
use ksync::mutex::{Barrier, BarrierWaitResult};
use static_assertions::assert_impl_all;
use test_support::threads::{crowd, scheduling_point, sleep};

const SEEDS: u64 = 100;

assert_impl_all!(Barrier: Send, Sync);
assert_impl_all!(BarrierWaitResult: Send, Sync, Copy);

/// Nobody is in a round before all have ended the one before, and each round has one leader.
#[test]
fn rounds_do_not_overlap() {
    for count in 1..=6 {
        for seed in 0..SEEDS {
            Machine::new()
                .processors(4)
                .seed(seed)
                .run(|| {
                    let (barrier, leaders) = (Barrier::new(count), AtomicU32::new(0));
                    let rounds = [const { AtomicU32::new(0) }; 4];
                    crowd(count as usize, |_| {
                        for (round, arrived) in rounds.iter().enumerate() {
                            arrived.fetch_add(1, Ordering::Relaxed);
                            scheduling_point();
                            let leader = barrier.wait().unwrap().is_leader();
                            leaders.fetch_add(leader.into(), Ordering::Relaxed);
                            assert_eq!(arrived.load(Ordering::Relaxed), count);
                            if let Some(next) = rounds.get(round + 2) {
                                assert_eq!(next.load(Ordering::Relaxed), 0, "somebody is two rounds ahead");
                            }
                        }
                    });
                    assert_eq!(leaders.into_inner(), 4);
                })
                .expect_clean();
        }
    }
}

/// More threads than it is for: they go in groups, and the last group is complete too.
#[test]
fn groups_form_from_a_crowd() {
    for seed in 0..SEEDS {
        Machine::new()
            .processors(4)
            .seed(seed)
            .run(|| {
                let (barrier, leaders) = (Barrier::new(3), AtomicU32::new(0));
                crowd(9, |_| {
                    let leader = barrier.wait().unwrap().is_leader();
                    leaders.fetch_add(leader.into(), Ordering::Relaxed);
                });
                assert_eq!(leaders.into_inner(), 3);
            })
            .expect_clean();
    }
}

#[test]
fn the_leader_is_the_last_to_come() {
    Machine::new()
        .processors(2)
        .run(|| {
            let barrier = Barrier::new(3);
            crowd(3, |thread| {
                sleep(10 * (1 + thread as i64));
                assert_eq!(barrier.wait().unwrap().is_leader(), thread == 2);
            });
        })
        .expect_clean();
}

/// A refused caller is not counted, and at `APC_LEVEL` one may wait.
#[test]
fn levels_are_checked() {
    Machine::new()
        .processors(2)
        .run(|| {
            let barrier = Barrier::new(2);
            for _ in 0..5 {
                let refused = irql::with_raised(Irql::DISPATCH, || barrier.wait()).unwrap();
                assert_eq!(refused, Err(NtError::IRQL_TOO_HIGH));
            }
            crowd(2, |thread| {
                irql::with_raised(Irql::APC, || {
                    barrier.wait().unwrap();
                    assert_eq!(irql::current(), Irql::APC);
                    if thread == 0 {
                        assert!(barrier.wait().is_ok());
                    }
                })
                .unwrap_or_else(|error| panic!("{error}"));
                if thread == 1 {
                    assert!(barrier.wait().is_ok());
                }
            });
        })
        .expect_completed();
}

#[test]
fn a_barrier_for_nobody_is_an_error() {
    static NOBODY: Barrier = Barrier::new(0);
    Machine::new().run(|| assert_eq!(NOBODY.wait(), Err(NtError::INVALID_PARAMETER))).expect_clean();
}

/// Too few come: the wait graph shows it.
#[test]
fn too_few_is_a_deadlock() {
    let outcome = Machine::new().processors(2).run(|| {
        let barrier = Barrier::new(3);
        crowd(2, |_| {
            let _ = barrier.wait();
        });
    });
    assert!(outcome.deadlock().is_some(), "{outcome:?}");
}
