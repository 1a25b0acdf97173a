//! Semaphores, on the hosted kernel.

use core::time::Duration;
use ksim::Machine;
use ksync::NtError;
use ksync::error::Result;
use ksync::semaphore::Semaphore;
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
