//! Timeouts and clocks.
//!
//! NT counts time in units of 100 ns. A wait or a timer takes one signed number: negative is an interval from now on, positive a date. A conversion that
//! overflows therefore turns "for ever" into "at once" or into a date. Nothing here does: intervals saturate at [`FAR`], and one that is not
//! zero never becomes zero.
//!
//! There are two clocks. [`InterruptTime`] runs from the system's start and is never set; intervals are measured on it. [`SystemTime`] is the date, which an
//! administrator can change; a timeout of [`Timeout::at`] follows it.

use core::fmt;
use core::time::Duration;

use ksync_sys as sys;

/// How many units of 100 ns a second has.
pub const TICKS_PER_SECOND: u64 = 10_000_000;

/// The longest interval that is handed to the kernel, in units of 100 ns: some 7,300 years.
///
/// It stays well below what the kernel's own sums with the current time can hold.
pub const FAR: i64 = i64::MAX / 4;

/// Converts an interval to units of 100 ns: rounded up, and at most [`FAR`].
pub(crate) const fn ticks(interval: Duration) -> i64 {
    // The product of a `u64` and 10 million, and what is added, fit in 128 bits.
    let ticks = interval.as_secs() as u128 * TICKS_PER_SECOND as u128 + interval.subsec_nanos().div_ceil(100) as u128;
    if ticks > FAR as u128 {
        FAR
    } else {
        // CAST: at most `FAR`, as was just tested.
        ticks as i64
    }
}

/// Converts units of 100 ns to an interval.
pub(crate) const fn interval(ticks: u64) -> Duration {
    // CAST: the remainder of a division by 10 million, times 100, is below a billion.
    let nanoseconds = (ticks % TICKS_PER_SECOND * 100) as u32;
    Duration::new(ticks / TICKS_PER_SECOND, nanoseconds)
}

/// When a wait gives up, or when a timer expires.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use ksync::event::{Event, EventProperty};
/// use ksync::time::Timeout;
/// use ksync::wait::{Dispatchable, WaitOptions, WaitResult};
///
/// # ksim::Machine::new().run(|| {
/// let event = Event::new(EventProperty::Notification, false).unwrap();
/// let options = WaitOptions::new().timeout(Timeout::after(Duration::from_millis(5)));
/// assert_eq!(event.wait_with(options), WaitResult::TimedOut);
/// assert_eq!(event.wait_with(options.timeout(Timeout::POLL)), WaitResult::TimedOut);
/// # }).expect_clean();
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timeout(Limit);

/// What a [`Timeout`] is.
///
/// INVARIANT: the number of `After` is from 1 to [`FAR`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Limit {
    Never,
    Poll,
    After(i64),
    At(SystemTime),
}

impl Timeout {
    /// There is no limit.
    pub const NEVER: Self = Self(Limit::Never);

    /// No waiting at all: only what is the case now counts. This is the one timeout that may be used at `DISPATCH_LEVEL`.
    pub const POLL: Self = Self(Limit::Poll);

    /// An interval from now on, measured on the clock that nobody sets.
    ///
    /// [`Duration::ZERO`] is [`POLL`](Self::POLL). Below 100 ns an interval is rounded up, so that it does not become a poll; above [`FAR`] it is cut to
    /// that, so that [`Duration::MAX`] is as good as for ever.
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::time::Timeout;
    ///
    /// assert_eq!(Timeout::after(Duration::ZERO), Timeout::POLL);
    /// assert_eq!(Timeout::after(Duration::from_nanos(1)), Timeout::after(Duration::from_nanos(100)));
    /// assert_ne!(Timeout::after(Duration::MAX), Timeout::POLL);
    /// ```
    #[must_use]
    pub const fn after(interval: Duration) -> Self {
        match ticks(interval) {
            0 => Self(Limit::Poll),
            // INVARIANT: `ticks` returns at most `FAR`, and zero is handled above.
            ticks => Self(Limit::After(ticks)),
        }
    }

    /// A date. If the system time is changed, the moment changes with it. A date that is past is a [`POLL`](Self::POLL) in effect, but still needs the
    /// IRQL of a wait.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::event::{Event, EventProperty};
    /// use ksync::time::{SystemTime, Timeout};
    /// use ksync::wait::Dispatchable;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let event = Event::new(EventProperty::Notification, false).unwrap();
    /// assert!(event.wait_with(Timeout::at(SystemTime::now()).into()).timed_out());
    /// # }).expect_clean();
    /// ```
    #[must_use]
    pub const fn at(date: SystemTime) -> Self {
        Self(Limit::At(date))
    }

    /// True for [`POLL`](Self::POLL) and what equals it.
    #[must_use]
    pub const fn is_poll(self) -> bool {
        matches!(self.0, Limit::Poll)
    }

    /// NT's form of it: `None` is a null pointer.
    #[inline]
    pub(crate) const fn to_raw(self) -> Option<sys::LARGE_INTEGER> {
        match self.0 {
            Limit::Never => None,
            Limit::Poll => Some(0),
            Limit::After(ticks) => Some(-ticks),
            Limit::At(date) => Some(date.0),
        }
    }
}

impl Default for Timeout {
    /// [`Timeout::NEVER`].
    fn default() -> Self {
        Self::NEVER
    }
}

impl From<Duration> for Timeout {
    /// [`Timeout::after`].
    fn from(interval: Duration) -> Self {
        Self::after(interval)
    }
}

impl From<SystemTime> for Timeout {
    /// [`Timeout::at`].
    fn from(date: SystemTime) -> Self {
        Self::at(date)
    }
}

impl fmt::Debug for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Limit::Never => f.write_str("Timeout::NEVER"),
            Limit::Poll => f.write_str("Timeout::POLL"),
            // CAST: positive by the type's invariant.
            Limit::After(ticks) => write!(f, "Timeout::after({:?})", interval(ticks as u64)),
            Limit::At(date) => write!(f, "Timeout::at({date:?})"),
        }
    }
}

/// A moment on the clock that nobody sets: the time since the system's start, sleep included.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use ksync::thread::this_thread;
/// use ksync::time::InterruptTime;
///
/// # ksim::Machine::new().run(|| {
/// let before = InterruptTime::now();
/// this_thread::sleep(Duration::from_millis(20)).unwrap();
/// assert!(before.elapsed() >= Duration::from_millis(20));
/// # }).expect_clean();
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterruptTime(u64);

impl InterruptTime {
    /// The time as of the last clock tick.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::time::InterruptTime;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let before = InterruptTime::now();
    /// assert!(InterruptTime::now() >= before);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeQueryInterruptTime`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequeryinterrupttime), which reads a page that
    /// the kernel shares and imports nothing.
    #[doc(alias = "KeQueryInterruptTime")]
    #[must_use]
    pub fn now() -> Self {
        // SAFETY: the routine reads a clock and may be called anywhere.
        Self(unsafe { sys::KeQueryInterruptTime() })
    }

    /// The time as of now, and not of the last clock tick.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::time::InterruptTime;
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert!(InterruptTime::now_precise() >= InterruptTime::now());
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeQueryInterruptTimePrecise`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequeryinterrupttimeprecise). First
    /// Windows: 8.1.
    #[doc(alias = "KeQueryInterruptTimePrecise")]
    #[must_use]
    pub fn now_precise() -> Self {
        let mut counter = 0;
        // SAFETY: the routine reads a clock, may be called anywhere, and writes to a local variable.
        Self(unsafe { sys::KeQueryInterruptTimePrecise(&raw mut counter) })
    }

    /// A moment in units of 100 ns since the system's start.
    #[must_use]
    pub const fn from_ticks(ticks: u64) -> Self {
        Self(ticks)
    }

    /// Units of 100 ns since the system's start.
    #[must_use]
    pub const fn ticks(self) -> u64 {
        self.0
    }

    /// The interval since an earlier moment; zero if that is later.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::time::InterruptTime;
    ///
    /// let (earlier, later) = (InterruptTime::from_ticks(5), InterruptTime::from_ticks(15));
    /// assert_eq!(later.since(earlier), Duration::from_micros(1));
    /// assert_eq!(earlier.since(later), Duration::ZERO);
    /// ```
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        interval(self.0.saturating_sub(earlier.0))
    }

    /// The interval from this moment until now.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::time::InterruptTime;
    /// use ksync::thread::this_thread;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let start = InterruptTime::now();
    /// this_thread::sleep(Duration::from_secs(1)).unwrap();
    /// assert!(start.elapsed() >= Duration::from_secs(1));
    /// # }).expect_clean();
    /// ```
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Self::now().since(self)
    }
}

impl fmt::Debug for InterruptTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InterruptTime({:?})", interval(self.0))
    }
}

/// A date: units of 100 ns since the beginning of 1601, UTC.
///
/// # Invariants
/// It is not negative, because a negative number would mean an interval.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use ksync::thread::this_thread;
/// use ksync::time::SystemTime;
///
/// # ksim::Machine::new().run(|| {
/// let later = SystemTime::now().saturating_add(Duration::from_secs(3600));
/// this_thread::sleep_until(later).unwrap();
/// assert!(SystemTime::now() >= later);
/// # }).expect_clean();
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemTime(i64);

impl SystemTime {
    /// The beginning of 1601.
    pub const EPOCH: Self = Self(0);

    /// The beginning of 1970.
    pub const UNIX_EPOCH: Self = Self(116_444_736_000_000_000);

    /// The date as of the last clock tick.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::time::SystemTime;
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert!(SystemTime::now() > SystemTime::UNIX_EPOCH);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeQuerySystemTime`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequerysystemtime), which reads a page that the
    /// kernel shares and imports nothing.
    #[doc(alias = "KeQuerySystemTime")]
    #[must_use]
    pub fn now() -> Self {
        let mut time = 0;
        // SAFETY: the routine reads a clock, may be called anywhere, and writes to a local variable.
        unsafe { sys::KeQuerySystemTime(&raw mut time) };
        Self::from_ticks(time)
    }

    /// The date as of now, and not of the last clock tick.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::time::SystemTime;
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert!(SystemTime::now_precise() >= SystemTime::now());
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeQuerySystemTimePrecise`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequerysystemtimeprecise). First Windows: 8.
    #[doc(alias = "KeQuerySystemTimePrecise")]
    #[must_use]
    pub fn now_precise() -> Self {
        let mut time = 0;
        // SAFETY: the routine reads a clock, may be called anywhere, and writes to a local variable.
        unsafe { sys::KeQuerySystemTimePrecise(&raw mut time) };
        Self::from_ticks(time)
    }

    /// A date in units of 100 ns since 1601. A negative number is taken for zero.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::time::SystemTime;
    ///
    /// assert_eq!(SystemTime::from_ticks(-1), SystemTime::EPOCH);
    /// ```
    #[must_use]
    pub const fn from_ticks(ticks: i64) -> Self {
        // INVARIANT: negative numbers are replaced.
        Self(if ticks < 0 { 0 } else { ticks })
    }

    /// Units of 100 ns since 1601.
    #[must_use]
    pub const fn ticks(self) -> i64 {
        self.0
    }

    /// The date that is an interval later, or the last one that there is.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::time::SystemTime;
    ///
    /// assert_eq!(SystemTime::EPOCH.saturating_add(Duration::from_micros(1)).ticks(), 10);
    /// let last = SystemTime::from_ticks(i64::MAX);
    /// assert_eq!(last.saturating_add(Duration::MAX), last);
    /// ```
    #[must_use]
    pub const fn saturating_add(self, interval: Duration) -> Self {
        // INVARIANT: the sum of two numbers that are not negative, cut at the largest.
        Self(self.0.saturating_add(ticks(interval)))
    }

    /// The date that is an interval earlier, or [`EPOCH`](Self::EPOCH).
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::time::SystemTime;
    ///
    /// assert_eq!(SystemTime::UNIX_EPOCH.saturating_sub(Duration::MAX), SystemTime::EPOCH);
    /// ```
    #[must_use]
    pub const fn saturating_sub(self, interval: Duration) -> Self {
        Self::from_ticks(self.0.saturating_sub(ticks(interval)))
    }

    /// The interval since an earlier date; zero if that is later.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::time::SystemTime;
    ///
    /// assert_eq!(SystemTime::UNIX_EPOCH.since(SystemTime::EPOCH), Duration::from_secs(11_644_473_600));
    /// assert_eq!(SystemTime::EPOCH.since(SystemTime::UNIX_EPOCH), Duration::ZERO);
    /// ```
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        let ticks = self.0.saturating_sub(earlier.0);
        // CAST: not negative, as was just tested.
        interval(if ticks < 0 { 0 } else { ticks as u64 })
    }
}

impl fmt::Debug for SystemTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SystemTime({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_saturate_and_round_up() {
        assert_eq!(ticks(Duration::ZERO), 0);
        assert_eq!(ticks(Duration::from_nanos(1)), 1);
        assert_eq!(ticks(Duration::from_nanos(100)), 1);
        assert_eq!(ticks(Duration::from_nanos(101)), 2);
        assert_eq!(ticks(Duration::from_nanos(999_999_999)), 10_000_000);
        assert_eq!(ticks(Duration::from_millis(500)), 5_000_000);
        assert_eq!(ticks(Duration::MAX), FAR);
        // Where a 64-bit product would wrap to zero or to a date.
        for seconds in [u64::MAX / 10_000_000, u64::MAX / 10_000_000 + 1, i64::MAX as u64, u64::MAX] {
            assert_eq!(ticks(Duration::from_secs(seconds)), FAR);
        }
    }

    #[test]
    fn raw_timeouts_have_the_right_sign() {
        assert_eq!(Timeout::NEVER.to_raw(), None);
        assert_eq!(Timeout::POLL.to_raw(), Some(0));
        assert_eq!(Timeout::after(Duration::from_secs(1)).to_raw(), Some(-10_000_000));
        assert_eq!(Timeout::after(Duration::MAX).to_raw(), Some(-FAR));
        assert_eq!(Timeout::at(SystemTime::from_ticks(-5)).to_raw(), Some(0));
        assert_eq!(Timeout::at(SystemTime::UNIX_EPOCH).to_raw(), Some(116_444_736_000_000_000));
    }

    #[test]
    fn dates_saturate() {
        let last = SystemTime::from_ticks(i64::MAX);
        assert_eq!(last.saturating_add(Duration::MAX), last);
        assert_eq!(SystemTime::EPOCH.saturating_sub(Duration::from_secs(1)), SystemTime::EPOCH);
        assert_eq!(SystemTime::EPOCH.since(last), Duration::ZERO);
        assert_eq!(SystemTime::UNIX_EPOCH.since(SystemTime::EPOCH), Duration::from_secs(11_644_473_600));
    }
}
