//! Kernel objects in statics: machines have them one after the other, and each finds its locks free.

use ksim::explore::Strategy;
use ksim::{End, Machine, explore};
use ksync_sys::*;
use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use test_support::*;

/// The word of a lock. The routines of the kernel are all that touches it.
struct Word(AtomicUsize);

impl Word {
    const fn zero() -> Self {
        Self(AtomicUsize::new(0))
    }

    fn ptr<T>(&self) -> *mut T {
        self.0.as_ptr().cast()
    }
}

fn jobs(jobs: usize) -> NonZeroUsize {
    NonZeroUsize::new(jobs).unwrap()
}

#[test]
fn a_global_lock_can_be_searched_on_all_os_threads() {
    static LOCK: Word = Word::zero();
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let program = || {
        let before = COUNT.load(Ordering::Relaxed);
        join_all([(); 2].map(|()| {
            spawn(|| {
                let old = raw!(KeAcquireSpinLockRaiseToDpc(LOCK.ptr()));
                COUNT.fetch_add(1, Ordering::Relaxed);
                raw!(KeReleaseSpinLock(LOCK.ptr(), old));
            })
        }));
        // No other machine has counted meanwhile.
        assert_eq!(COUNT.load(Ordering::Relaxed), before + 2);
    };
    explore().processors(3).schedules(5_000).jobs(jobs(4)).progress(false).check(program).expect_clean();
    let search = explore().processors(3).strategy(Strategy::Exhaustive).jobs(jobs(4)).progress(false).check(program);
    assert!(search.is_exhausted() && search.executions() == 2, "{search}");
}

#[test]
fn tests_side_by_side_share_their_statics() {
    static LOCK: Word = Word::zero();
    static USERS: AtomicU32 = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for seed in 0..4 {
            scope.spawn(move || {
                for run in 0..200 {
                    let machine = Machine::new().processors(2).seed(seed * 1000 + run);
                    machine
                        .run(|| {
                            let old = raw!(KeAcquireSpinLockRaiseToDpc(LOCK.ptr()));
                            assert_eq!(USERS.fetch_add(1, Ordering::Relaxed), 0);
                            raw!(KeReleaseSpinLock(LOCK.ptr(), old));
                            let other = spawn(|| {
                                raw!(KeEnterCriticalRegion());
                                raw!(ExAcquirePushLockExclusiveEx(LOCK2.ptr(), 0));
                                raw!(ExReleasePushLockExclusiveEx(LOCK2.ptr(), 0));
                                raw!(KeLeaveCriticalRegion());
                            });
                            join_all([other]);
                            USERS.fetch_sub(1, Ordering::Relaxed);
                        })
                        .expect_clean();
                }
            });
        }
    });
    static LOCK2: Word = Word::zero();
}

/// What the runs of a search end with, each with a static lock held.
fn failures(acquire: impl Fn() + Sync) {
    let search = explore().processors(2).schedules(20).jobs(jobs(2)).keep_going(true).progress(false).check(|| {
        acquire();
        assert!(std::hint::black_box(false), "the real failure");
    });
    let failure = search.failure().expect("each run fails");
    let End::Panic(panic) = failure.outcome.end() else { panic!("{search}") };
    assert!(panic.message.contains("the real failure"), "{search}");
    assert_eq!(search.failures(), 20, "{search}");
}

#[test]
fn a_run_that_fails_under_a_global_lock_is_reported_as_it_failed() {
    static SPIN: Word = Word::zero();
    static SHARED: Word = Word::zero();
    static PUSH: Word = Word::zero();
    static RUNDOWN: Word = Word::zero();
    failures(|| {
        raw!(KeAcquireSpinLockRaiseToDpc(SPIN.ptr()));
    });
    failures(|| {
        raw!(ExAcquireSpinLockExclusive(SHARED.ptr()));
    });
    failures(|| {
        raw!(ExAcquireSpinLockShared(SHARED.ptr()));
    });
    failures(|| {
        raw!(KeEnterCriticalRegion());
        raw!(ExAcquirePushLockExclusiveEx(PUSH.ptr(), 0));
    });
    failures(|| {
        assert!(raw!(ExAcquireRundownProtection(RUNDOWN.ptr())) != 0);
    });
}

#[test]
fn a_bug_check_under_a_global_lock_is_found_again() {
    static LOCK: Word = Word::zero();
    let search = explore().processors(3).schedules(1_000).jobs(jobs(2)).progress(false).check(|| {
        let order = AtomicU32::new(0);
        let one = spawn(|| {
            let old = raw!(KeAcquireSpinLockRaiseToDpc(LOCK.ptr()));
            order.fetch_add(1, Ordering::Relaxed);
            raw!(KeReleaseSpinLock(LOCK.ptr(), old));
        });
        let old = raw!(KeAcquireSpinLockRaiseToDpc(LOCK.ptr()));
        if order.load(Ordering::Relaxed) == 1 {
            raw!(KeBugCheckEx(0xe2, 1, 2, 3, 4));
        }
        raw!(KeReleaseSpinLock(LOCK.ptr(), old));
        join_all([one]);
    });
    let failure = search.failure().expect("one of the two orders fails");
    assert_eq!(failure.outcome.bug_check().map(|stop| stop.code), Some(0xe2), "{search}");
}

#[test]
fn what_the_first_run_sets_once_is_no_difference() {
    static ONCE: OnceLock<u32> = OnceLock::new();
    let program = || {
        ONCE.get_or_init(|| {
            // What only the first run of all does.
            let event = Event::notification();
            event.set();
            7
        });
        let other = spawn(|| {});
        join_all([other]);
    };
    explore().processors(3).schedules(100).progress(false).check(program).expect_clean();
    static TWICE: OnceLock<u32> = OnceLock::new();
    let search = explore().processors(3).strategy(Strategy::Exhaustive).progress(false).check(|| {
        TWICE.get_or_init(|| {
            let event = Event::notification();
            event.set();
            7
        });
        let other = spawn(|| {});
        join_all([other]);
    });
    assert!(search.is_exhausted(), "{search}");
}

#[test]
fn what_lies_beside_a_global_lock_stays() {
    /// A lock of four bytes and its neighbour, as a driver has them in a structure.
    #[repr(C, align(8))]
    struct Beside(AtomicU32, AtomicU32);
    static BESIDE: Beside = Beside(AtomicU32::new(0), AtomicU32::new(7));
    let outcome = Machine::new().processors(2).run(|| {
        raw!(ExAcquireSpinLockExclusive(BESIDE.0.as_ptr().cast()));
        panic!("the real failure");
    });
    assert!(matches!(outcome.end(), End::Panic(_)), "{outcome}");
    assert_eq!((BESIDE.0.load(Ordering::Relaxed), BESIDE.1.load(Ordering::Relaxed)), (0, 7));
}
