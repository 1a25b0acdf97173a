//! Condition variables.
//!
//! A [`Condvar`] lets the holder of a lock wait until someone else has changed the data: it releases the lock, sleeps, and acquires the lock again. NT has no such object in the kernel; this one is
//! a list of events under a spin lock, works with any lock that waits, and allocates nothing.

use core::fmt;

use super::backend::Blocking;
use super::guard::LockedGuard;
use super::wait_queue::WaitQueue;
use crate::error::{NtError, Result};
use crate::irql::{self, Irql};
use crate::time::{InterruptTime, Timeout};

/// A condition variable: waiting for a change of locked data.
///
/// Waiters are woken in the order in which they came. A wait ends only when it is notified or its time runs out, never by itself; but another thread may have changed the data
/// again before the waiter has the lock, so [`wait_while`](Self::wait_while) is the form to prefer.
///
/// A notification wakes only those who wait: nothing is remembered for those who come later.
///
/// It can be a static, and may be used with any number of locks, though one is usual.
///
/// # Examples
/// ```
/// use ksync::mutex::{Condvar, FastLocked};
/// use ksync::thread;
///
/// # ksim::Machine::new().processors(2).run(|| {
/// let (ready, changed) = (FastLocked::new(false).unwrap(), Condvar::new());
/// thread::scope(|scope| {
///     scope.spawn(|| {
///         *ready.lock().unwrap() = true;
///         changed.notify_one().unwrap();
///     }).unwrap();
///     let mut guard = ready.lock().unwrap();
///     changed.wait_while(&mut guard, |ready| !*ready).unwrap();
///     assert!(*guard);
/// });
/// # }).expect_clean();
/// ```
pub struct Condvar {
    waiters: WaitQueue<()>,
}

impl Condvar {
    /// Makes a condition variable that nobody waits for.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::mutex::Condvar;
    ///
    /// static CHANGED: Condvar = Condvar::new();
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(CHANGED.notify_one(), Ok(false));
    /// # }).expect_clean();
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self { waiters: WaitQueue::new(()) }
    }

    /// Releases the lock, waits for a notification, and acquires the lock again.
    ///
    /// A notification that comes between the release and the wait is not lost. The guard stays the caller's whatever happens, so that the data is under the lock when this returns.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`] at a higher level. The lock was not released.
    ///
    /// # Examples
    /// ```
    /// use ksync::mutex::{Condvar, KMutex};
    /// use ksync::thread;
    ///
    /// # ksim::Machine::new().processors(2).run(|| {
    /// let (turns, changed) = (KMutex::new(0).unwrap(), Condvar::new());
    /// thread::scope(|scope| {
    ///     let mut guard = turns.lock().unwrap();
    ///     // It cannot notify before the wait, because it cannot have the lock before.
    ///     scope.spawn(|| {
    ///         *turns.lock().unwrap() += 1;
    ///         changed.notify_all().unwrap();
    ///     }).unwrap();
    ///     changed.wait(&mut guard).unwrap();
    ///     assert_eq!(*guard, 1);
    /// });
    /// # }).expect_clean();
    /// ```
    pub fn wait<T: ?Sized, L: Blocking>(&self, guard: &mut LockedGuard<'_, T, L>) -> Result {
        self.wait_for(guard, Timeout::NEVER)
    }

    /// Releases the lock, waits for a notification for some time at most, and acquires the lock again, which may take longer.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::TIMEOUT`] if none came in time. The lock is held again.
    /// - [`NtError::IRQL_TOO_HIGH`] at a higher level. The lock was not released.
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::error::NtError;
    /// use ksync::mutex::{Condvar, FastLocked};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let (lock, never) = (FastLocked::new(()).unwrap(), Condvar::new());
    /// let mut guard = lock.lock().unwrap();
    /// assert_eq!(never.wait_for(&mut guard, Duration::from_secs(1)), Err(NtError::TIMEOUT));
    /// # drop(guard); }).expect_clean();
    /// ```
    pub fn wait_for<T: ?Sized, L: Blocking>(&self, guard: &mut LockedGuard<'_, T, L>, timeout: impl Into<Timeout>) -> Result {
        // Before the level is looked at: the conversion is the caller's code.
        let timeout = timeout.into();
        irql::require_at_most(Irql::APC)?;
        let mut unlocked = None;
        let woken = self.waiters.wait(|_| None::<()>, || unlocked = Some(LockedGuard::unlock(guard)), timeout);
        // Acquires the lock again.
        drop(unlocked);
        woken.map(|_| ())
    }

    /// Waits, as [`wait`](Self::wait) does, as long as a condition holds. The condition is asked first, and again after each notification, under the lock.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    ///
    /// # Examples
    /// See [the type](Self).
    pub fn wait_while<T: ?Sized, L: Blocking>(
        &self,
        guard: &mut LockedGuard<'_, T, L>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> Result {
        while condition(guard) {
            self.wait(guard)?;
        }
        Ok(())
    }

    /// Waits as long as a condition holds, and for some time at most from now on, however often it is notified meanwhile.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// As [`wait_for`](Self::wait_for): [`NtError::TIMEOUT`] means that the condition still holds.
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::error::NtError;
    /// use ksync::mutex::{Condvar, FastLocked};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let (jobs, arrived) = (FastLocked::new(0).unwrap(), Condvar::new());
    /// let mut guard = jobs.lock().unwrap();
    /// let result = arrived.wait_while_for(&mut guard, Duration::from_secs(1), |jobs| *jobs == 0);
    /// assert_eq!(result, Err(NtError::TIMEOUT));
    /// *guard = 1;
    /// assert_eq!(arrived.wait_while_for(&mut guard, Duration::from_secs(1), |jobs| *jobs == 0), Ok(()));
    /// # drop(guard); }).expect_clean();
    /// ```
    pub fn wait_while_for<T: ?Sized, L: Blocking>(
        &self,
        guard: &mut LockedGuard<'_, T, L>,
        timeout: impl Into<Timeout>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> Result {
        let limit = Limit::new(timeout.into());
        while condition(guard) {
            match self.wait_for(guard, limit.left()) {
                Err(NtError::TIMEOUT) if !condition(guard) => return Ok(()),
                result => result?,
            }
        }
        Ok(())
    }

    /// Wakes the thread that has waited longest. Returns whether there was one.
    ///
    /// The lock need not be held. A thread that was counted here returns from its wait with success, even if its time runs out at this very moment.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`: a DPC may notify.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`] at a higher level.
    ///
    /// # Examples
    /// See [the type](Self) and [`new`](Self::new).
    pub fn notify_one(&self) -> Result<bool> {
        self.waiters.turn(|turn| turn.wake_one())
    }

    /// Wakes all threads that wait.
    ///
    /// The lock need not be held. The level is raised while they are woken, so that this takes as long as they are many.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`: a DPC may notify.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`] at a higher level.
    ///
    /// # Examples
    /// See [`wait`](Self::wait).
    pub fn notify_all(&self) -> Result {
        self.waiters.turn(|turn| turn.wake_all())
    }
}

impl Default for Condvar {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").finish_non_exhaustive()
    }
}

/// A limit in time for several waits together.
struct Limit {
    timeout: Timeout,
    began: InterruptTime,
}

impl Limit {
    /// Begins now.
    fn new(timeout: Timeout) -> Self {
        Self { timeout, began: InterruptTime::now() }
    }

    /// What is left of it.
    fn left(&self) -> Timeout {
        match self.timeout.to_raw() {
            // An interval. It is measured on the clock on which the kernel measures it, so that several waits take together what one would.
            Some(ticks) if ticks < 0 => {
                let end = InterruptTime::from_ticks(self.began.ticks().saturating_add(ticks.unsigned_abs()));
                Timeout::after(end.since(InterruptTime::now()))
            }
            // No limit, no waiting, or a date: each means the same at any time.
            _ => self.timeout,
        }
    }
}
