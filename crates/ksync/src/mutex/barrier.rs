//! Barriers.
//!
//! A [`Barrier`] holds threads until a number of them has come. NT has no such object for threads; this one is a list of events under a spin lock and allocates nothing.

use core::fmt;

use super::wait_queue::WaitQueue;
use crate::error::Result;
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
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BarrierWaitResult {
    is_leader: bool,
}

impl BarrierWaitResult {
    /// True for exactly one thread of those that went on together: the one that came last.
    #[must_use]
    pub const fn is_leader(self) -> bool {
        self.is_leader
    }
}

impl Barrier {
    /// Makes a barrier for a number of threads. Zero is as good as one: nobody waits.
    ///
    /// # IRQL
    /// Any.
    #[must_use]
    pub const fn new(threads: u32) -> Self {
        Self { threads, waiters: WaitQueue::new(0) }
    }

    /// Waits until all have come.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`](crate::NtError::IRQL_TOO_HIGH) at a higher level. The caller was not counted.
    ///
    /// # Examples
    /// See [the type](Self).
    pub fn wait(&self) -> Result<BarrierWaitResult> {
        irql::require_at_most(Irql::APC)?;
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
