//! Barriers.
//!
//! A [`Barrier`] holds threads until a number of them has come. NT has no such object for threads; this one is a list of events under a spin lock and allocates nothing.

use core::fmt;

use super::wait_queue::WaitQueue;
use crate::error::{NtError, Result};
use crate::irql::{self, Irql};
use crate::time::Timeout;

/// A barrier: threads that come wait until as many have come as it is for. Then all go on, and it can be used again.
///
/// It can be a static.
///
/// # Examples
/// ```
/// use ksync::mutex::{Barrier, SpinLocked};
/// use ksync::thread;
///
/// # ksim::Machine::new().processors(3).run(|| {
/// let (barrier, arrived) = (Barrier::new(3), SpinLocked::const_new(0));
/// thread::scope(|scope| {
///     for _ in 0..3 {
///         scope.spawn(|| {
///             *arrived.lock().unwrap() += 1;
///             barrier.wait().unwrap();
///             assert_eq!(*arrived.lock().unwrap(), 3);
///         }).unwrap();
///     }
/// });
/// # }).expect_clean();
/// ```
pub struct Barrier {
    threads: u32,
    /// The queue, and how many have come since the barrier opened last.
    waiters: WaitQueue<u32>,
}

/// What [`Barrier::wait`] tells.
///
/// # Examples
/// See [`is_leader`](Self::is_leader).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BarrierWaitResult {
    is_leader: bool,
}

impl BarrierWaitResult {
    /// True for exactly one thread of those that went on together: the one that came last.
    ///
    /// # Examples
    /// ```
    /// # ksim::Machine::new().run(|| {
    /// let barrier = ksync::mutex::Barrier::new(1);
    /// assert!(barrier.wait().unwrap().is_leader());
    /// # }).expect_clean();
    /// ```
    #[must_use]
    pub const fn is_leader(self) -> bool {
        self.is_leader
    }
}

impl Barrier {
    /// Makes a barrier for a number of threads.
    ///
    /// One for no threads can be made, so that this needs no `unwrap` in a static, but not be waited at.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::error::NtError;
    /// use ksync::mutex::Barrier;
    ///
    /// static ALONE: Barrier = Barrier::new(1);
    /// static NONSENSE: Barrier = Barrier::new(0);
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert!(ALONE.wait().is_ok());
    /// assert_eq!(NONSENSE.wait(), Err(NtError::INVALID_PARAMETER));
    /// # }).expect_clean();
    /// ```
    #[must_use]
    pub const fn new(threads: u32) -> Self {
        Self { threads, waiters: WaitQueue::new(0) }
    }

    /// Waits until all have come.
    ///
    /// A thread that waits does not give up: if not as many come, it waits for ever.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// The caller was not counted.
    /// - [`NtError::IRQL_TOO_HIGH`] at a higher level.
    /// - [`NtError::INVALID_PARAMETER`] if the barrier is for no threads.
    ///
    /// # Examples
    /// See [the type](Self).
    pub fn wait(&self) -> Result<BarrierWaitResult> {
        irql::require_at_most(Irql::APC)?;
        if self.threads == 0 {
            return Err(NtError::INVALID_PARAMETER);
        }
        let last = self.waiters.wait(
            |turn| {
                let arrived = turn.beside().saturating_add(1);
                *turn.beside() = arrived;
                (arrived >= self.threads).then(|| {
                    *turn.beside() = 0;
                    turn.wake_all();
                })
            },
            || {},
            Timeout::NEVER,
        )?;
        Ok(BarrierWaitResult { is_leader: last.is_some() })
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").field("threads", &self.threads).finish_non_exhaustive()
    }
}
