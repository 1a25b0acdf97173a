//! Semaphores, on the hosted kernel.

use core::time::Duration;
use ksim::Machine;
use ksync::NtError;
use ksync::error::Result;
use ksync::semaphore::Semaphore;
use ksync::thread;
use ksync::time::Timeout;
use ksync::wait::Dispatchable;

fn on_machine(code: impl FnOnce() -> Result) {
    Machine::new().run(|| code().unwrap()).expect_clean();
}

#[test]
fn counts() {
    on_machine(|| {
        let semaphore = Semaphore::new(1, 3)?;
        assert_eq!(semaphore.limit(), 3);
        assert_eq!(semaphore.release(2)?, 1);
        assert_eq!(semaphore.count()?, 3);
        for _ in 0..3 {
            assert!(semaphore.wait_for(Duration::ZERO, false).success());
        }
        assert!(semaphore.wait_with(Timeout::POLL.into()).timed_out());
        Ok(())
    });
}

#[test]
fn ksync_28_counts_and_limits_are_checked() {
    on_machine(|| {
        for (count, limit) in [(0, 0), (2, 1), (0, u32::MAX), (u32::MAX, u32::MAX), (0, 1 << 31)] {
            assert_eq!(Semaphore::new(count, limit).unwrap_err(), NtError::INVALID_PARAMETER);
        }
        let largest = i32::MAX.unsigned_abs();
        let semaphore = Semaphore::new(largest - 1, largest)?;
        assert_eq!(semaphore.release(1)?, largest - 1);
        Ok(())
    });
}

#[test]
fn ksync_28_a_release_over_the_limit_is_an_error_and_not_an_exception() {
    on_machine(|| {
        let semaphore = Semaphore::new(1, 2)?;
        for adjustment in [2, 3, i32::MAX.unsigned_abs(), u32::MAX] {
            assert_eq!(semaphore.release(adjustment), Err(NtError::SEMAPHORE_LIMIT_EXCEEDED));
            assert_eq!(semaphore.count()?, 1);
        }
        assert_eq!(semaphore.release(0), Err(NtError::INVALID_PARAMETER));
        assert_eq!(semaphore.release(1)?, 1);
        assert_eq!(semaphore.release(1), Err(NtError::SEMAPHORE_LIMIT_EXCEEDED));
        Ok(())
    });
}

#[test]
fn ksync_28_racing_releases_never_exceed_the_limit() {
    for seed in 0..50 {
        Machine::new()
            .processors(4)
            .seed(seed)
            .run(|| {
                let semaphore = Semaphore::new(0, 3).unwrap();
                let (released, taken) = thread::scope(|scope| {
                    let releasers: Vec<_> = (0..3)
                        .map(|_| scope.spawn(|| (0..5).filter(|_| semaphore.release(1).is_ok()).count()).unwrap())
                        .collect();
                    let takers: Vec<_> = (0..2)
                        .map(|_| {
                            scope
                                .spawn(|| {
                                    (0..4).filter(|_| semaphore.wait_for(Duration::from_millis(1), false).success()).count()
                                })
                                .unwrap()
                        })
                        .collect();
                    let sum = |threads: Vec<thread::ScopedJoinHandle<'_, usize>>| {
                        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
                    };
                    (sum(releasers), sum(takers))
                });
                // Nothing is lost and nothing is refused without need.
                assert_eq!(semaphore.count().unwrap() as usize, released - taken);
                assert!(released == 15 || released - taken <= 3);
            })
            .expect_clean();
    }
}

#[test]
fn ksync_42_releasing_and_waiting_are_separate() {
    // There is no "release and wait" on one semaphore here, whose two halves are not atomic in NT either.
    on_machine(|| {
        let semaphore = Semaphore::new(0, 1)?;
        semaphore.release(1)?;
        assert!(semaphore.wait().success());
        Ok(())
    });
}
