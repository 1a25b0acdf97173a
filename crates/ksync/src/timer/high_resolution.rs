//! Timers that the system allocates: finer than its clock's ticks, or so patient that they wake no sleeping processor.

mod block;

use core::ffi::c_void;
use core::fmt;
use core::time::Duration;

use ksync_sys as sys;

use crate::error::{NtError, Result};
use crate::irql::{self, Dispatch, Irql};
use crate::time::{self, Timeout};
use crate::timer::TimerKind;
use crate::wait::{Dispatchable, sealed};

use block::Owner;
pub(super) use block::drain;

/// How exactly a system's timer keeps its time.
#[doc(alias = "EX_TIMER_HIGH_RESOLUTION")]
#[doc(alias = "EX_TIMER_NO_WAKE")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Resolution {
    /// To about the shortest clock tick that the system has, whatever the tick is at present. It costs power while it is armed.
    #[default]
    High,
    /// At the first clock tick after its time, and at most once in a tick.
    Tick,
    /// As [`Tick`](Self::Tick), and it does not wake a processor that sleeps, until its tolerance is over.
    NoWake,
}

impl Resolution {
    /// NT's flags.
    const fn raw(self) -> sys::ULONG {
        match self {
            Self::High => sys::EX_TIMER_HIGH_RESOLUTION,
            Self::Tick => 0,
            Self::NoWake => sys::EX_TIMER_NO_WAKE,
        }
    }
}

/// A high-resolution timer, with a closure that runs at each expiry or without one. Intervals and periods are in units of 100 ns.
///
/// It is waited on as a [`Timer`](super::Timer) is, and has two more kinds of [`Resolution`].
///
/// # Who frees it
/// Dropping it cancels it. At `<= APC_LEVEL` the drop then waits until the closure no longer runs, and drops what it owns there and then. At `DISPATCH_LEVEL`, which is where the closure
/// itself runs, and in a threaded DPC, nothing can wait: the system frees the timer when the closure runs nowhere, and what the closure owns is dropped then, at up to
/// `DISPATCH_LEVEL`. The driver's unload waits for that. Above `DISPATCH_LEVEL` the timer is leaked, which a line to the debugger reports, and goes on until the
/// driver is unloaded.
///
/// # Which systems have it
/// Windows 8.1 and later. The routines are looked up by name, so that a driver loads on earlier systems too, and on Wine 8; there [`new`](Self::new) fails with
/// [`NtError::NOT_SUPPORTED`], and a [`Timer`](super::Timer) with [`set_timer_resolution`](super::set_timer_resolution) has to do.
///
/// # Examples
/// ```
/// use core::sync::atomic::{AtomicU32, Ordering};
/// use core::time::Duration;
/// use ksync::thread::this_thread;
/// use ksync::timer::HrTimer;
/// use std::sync::Arc;
///
/// # ksim::Machine::new().run(|| {
/// let ticks = Arc::new(AtomicU32::new(0));
/// let counter = ticks.clone();
/// let timer = HrTimer::new(move || {
///     counter.fetch_add(1, Ordering::Relaxed);
/// }).unwrap();
/// let period = Duration::from_micros(250);
/// timer.start(period, period).unwrap();
/// this_thread::sleep(Duration::from_millis(10)).unwrap();
/// drop(timer);
/// assert!((39..=40).contains(&ticks.load(Ordering::Relaxed)));
/// # }).expect_clean();
/// ```
#[doc(alias = "EX_TIMER")]
pub struct HrTimer(Owner);

impl HrTimer {
    /// Makes a high-resolution notification timer whose closure runs at each expiry, at `DISPATCH_LEVEL`.
    ///
    /// The closure can run on two processors at once, if it takes longer than the period.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; the first one of a driver's at `PASSIVE_LEVEL`, because that is where the system can be asked for the routines.
    ///
    /// # Errors
    /// The closure is dropped, and the error is
    /// - [`NtError::NOT_SUPPORTED`] before Windows 8.1;
    /// - [`NtError::INSUFFICIENT_RESOURCES`] if there is no pool;
    /// - [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`, and above `PASSIVE_LEVEL` if nobody has asked for the routines yet.
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::timer::HrTimer;
    /// use ksync::wait::Dispatchable;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let timer = HrTimer::new(|| ksync::println!("expired")).unwrap();
    /// timer.start(Duration::from_micros(50), Duration::ZERO).unwrap();
    /// assert!(timer.wait().success());
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ExAllocateTimer`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exallocatetimer). First Windows: 8.1.
    #[doc(alias = "ExAllocateTimer")]
    pub fn new<F>(closure: F) -> Result<Self>
    where
        F: Fn() + Send + Sync + 'static,
    {
        Self::with_resolution(Resolution::High, TimerKind::Notification, closure)
    }

    /// [`new`](Self::new) for a closure that is given the token of `DISPATCH_LEVEL`, so that what it locks is checked at compile time.
    ///
    /// # IRQL
    /// As for [`new`](Self::new).
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::mutex::{LockAt, SpinLocked};
    /// use ksync::timer::HrTimer;
    /// use ksync::wait::Dispatchable;
    ///
    /// # ksim::Machine::new().run(|| {
    /// static COUNT: SpinLocked<u32> = SpinLocked::const_new(0);
    /// # *COUNT.lock().unwrap() = 0;
    /// let timer = HrTimer::new_with_irql(|dispatch| *COUNT.lock_at(dispatch) += 1).unwrap();
    /// timer.start(Duration::from_micros(50), Duration::ZERO).unwrap();
    /// assert!(timer.wait().success());
    /// drop(timer);
    /// assert_eq!(*COUNT.lock().unwrap(), 1);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ExAllocateTimer`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exallocatetimer). First Windows: 8.1.
    #[doc(alias = "ExAllocateTimer")]
    pub fn new_with_irql<F>(closure: F) -> Result<Self>
    where
        F: Fn(&mut Irql<Dispatch>) + Send + Sync + 'static,
    {
        // IRQL: the callback of a system's timer runs at `DISPATCH_LEVEL`.
        Self::new(move || closure(&mut Irql::made()))
    }

    /// Makes a timer of any resolution and kind whose closure runs at each expiry. See [`new`](Self::new).
    ///
    /// # IRQL
    /// As for [`new`](Self::new).
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::timer::{HrTimer, Resolution, TimerKind};
    /// use ksync::wait::Dispatchable;
    ///
    /// # let outcome = ksim::Machine::new().run(|| {
    /// let timer = HrTimer::with_resolution(Resolution::NoWake, TimerKind::Synchronization, || ksync::println!("now")).unwrap();
    /// timer.start(Duration::from_secs(1), Duration::ZERO).unwrap();
    /// assert!(timer.wait().success());
    /// # });
    /// # assert_eq!(outcome.debug_output(), ["now"]);
    /// # outcome.expect_clean();
    /// ```
    ///
    /// Wraps [`ExAllocateTimer`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exallocatetimer). First Windows: 8.1.
    #[doc(alias = "ExAllocateTimer")]
    pub fn with_resolution<F>(resolution: Resolution, kind: TimerKind, closure: F) -> Result<Self>
    where
        F: Fn() + Send + Sync + 'static,
    {
        Ok(Self(Owner::new(resolution, kind, closure)?))
    }

    /// Makes a high-resolution timer without a closure, to be waited on.
    ///
    /// # IRQL
    /// As for [`new`](Self::new).
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::time::InterruptTime;
    /// use ksync::timer::{HrTimer, TimerKind};
    /// use ksync::wait::Dispatchable;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let timer = HrTimer::waitable(TimerKind::Synchronization).unwrap();
    /// let (start, period) = (InterruptTime::now(), Duration::from_micros(100));
    /// timer.start(period, period).unwrap();
    /// for _ in 0..5 {
    ///     assert!(timer.wait().success());
    /// }
    /// assert_eq!(start.elapsed(), 5 * period);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ExAllocateTimer`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exallocatetimer). First Windows: 8.1.
    #[doc(alias = "ExAllocateTimer")]
    pub fn waitable(kind: TimerKind) -> Result<Self> {
        Self::waitable_with_resolution(Resolution::High, kind)
    }

    /// Makes a timer of any resolution without a closure, to be waited on.
    ///
    /// # IRQL
    /// As for [`new`](Self::new).
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::timer::{HrTimer, Resolution, TimerKind};
    /// use ksync::wait::Dispatchable;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let timer = HrTimer::waitable_with_resolution(Resolution::NoWake, TimerKind::Notification).unwrap();
    /// timer.start_tolerant(Duration::from_secs(1), Duration::ZERO, Duration::from_secs(60)).unwrap();
    /// assert!(timer.wait_for(Duration::from_secs(62), false).success());
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ExAllocateTimer`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exallocatetimer). First Windows: 8.1.
    #[doc(alias = "ExAllocateTimer")]
    pub fn waitable_with_resolution(resolution: Resolution, kind: TimerKind) -> Result<Self> {
        Ok(Self(Owner::waitable(resolution, kind)?))
    }

    /// Tells whether the running system has these timers.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`. At a higher level the answer is `false` if nobody has asked yet.
    ///
    /// # Examples
    /// ```
    /// use ksim::{Machine, OsProfile};
    /// use ksync::timer::HrTimer;
    ///
    /// Machine::new().run(|| assert!(HrTimer::is_supported())).expect_clean();
    /// Machine::new().profile(OsProfile::Windows7).run(|| assert!(!HrTimer::is_supported())).expect_clean();
    /// ```
    #[must_use]
    pub fn is_supported() -> bool {
        block::Routines::find().is_ok()
    }

    /// Arms the timer: it expires after `due` for the first time, and then after every `period`, or not again if that is zero. Tells whether it was armed.
    ///
    /// With a `due` of zero it expires at once. Both are rounded up to units of 100 ns, so that what is not zero does not become zero, and cut to
    /// [`FAR`](crate::time::FAR). Expiries that the processor had no time for are one: a timer does not make up for them.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// The timer is left as it was, and the error is
    /// - [`NtError::DELETE_PENDING`] for a timer with a closure, while the driver is being unloaded;
    /// - [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::timer::{HrTimer, TimerKind};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let timer = HrTimer::waitable(TimerKind::Notification).unwrap();
    /// let period = Duration::from_micros(500);
    /// assert_eq!(timer.start(period, Duration::ZERO), Ok(false));
    /// assert_eq!(timer.start(period, period), Ok(true));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ExSetTimer`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exsettimer). First Windows: 8.1.
    #[doc(alias = "ExSetTimer")]
    pub fn start(&self, due: Duration, period: Duration) -> Result<bool> {
        self.set(due, period, 0)
    }

    /// [`start`](Self::start) for a [`NoWake`](Resolution::NoWake) timer that may be up to `tolerance` late while the processor sleeps.
    ///
    /// [`Duration::MAX`] is as late as it likes: the timer alone never wakes a processor. Below 100 ns the tolerance is rounded up.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Those of [`start`](Self::start), and [`NtError::INVALID_PARAMETER`] for a timer of another resolution, which has no tolerance.
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::timer::{HrTimer, TimerKind};
    /// use ksync::NtError;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let timer = HrTimer::waitable(TimerKind::Notification).unwrap();
    /// let second = Duration::from_secs(1);
    /// assert_eq!(timer.start_tolerant(second, second, second), Err(NtError::INVALID_PARAMETER));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ExSetTimer`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exsettimer). First Windows: 8.1.
    #[doc(alias = "ExSetTimer")]
    pub fn start_tolerant(&self, due: Duration, period: Duration, tolerance: Duration) -> Result<bool> {
        if self.0.resolution() != Resolution::NoWake {
            return Err(NtError::INVALID_PARAMETER);
        }
        let tolerance = if tolerance == Duration::MAX { sys::EX_TIMER_UNLIMITED_TOLERANCE } else { time::ticks(tolerance) };
        self.set(due, period, tolerance)
    }

    /// Arms the timer.
    fn set(&self, due: Duration, period: Duration, tolerance: i64) -> Result<bool> {
        irql::require_at_most(Irql::DISPATCH)?;
        // A time that is past, as zero is, is "at once".
        let due = Timeout::after(due).to_raw().unwrap_or(-time::FAR);
        self.0.set(due, time::ticks(period), tolerance)
    }

    /// Disarms the timer, and tells whether it was armed. A closure that is due or runs already still runs.
    ///
    /// The timer keeps its signal.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::timer::HrTimer;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let timer = HrTimer::new(|| unreachable!()).unwrap();
    /// timer.start(Duration::from_micros(1), Duration::ZERO).unwrap();
    /// assert_eq!(timer.cancel(), Ok(true));
    /// assert_eq!(timer.cancel(), Ok(false));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ExCancelTimer`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-excanceltimer). First Windows: 8.1.
    #[doc(alias = "ExCancelTimer")]
    pub fn cancel(&self) -> Result<bool> {
        irql::require_at_most(Irql::DISPATCH)?;
        Ok(self.0.cancel())
    }

    /// [`cancel`](Self::cancel), by the name that goes with [`start`](Self::start).
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Those of [`cancel`](Self::cancel).
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::timer::{HrTimer, TimerKind};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let timer = HrTimer::waitable(TimerKind::Notification).unwrap();
    /// timer.start(Duration::from_micros(1), Duration::from_micros(1)).unwrap();
    /// assert_eq!(timer.stop(), Ok(true));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ExCancelTimer`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-excanceltimer). First Windows: 8.1.
    #[doc(alias = "ExCancelTimer")]
    pub fn stop(&self) -> Result<bool> {
        self.cancel()
    }

    /// The system's object, for routines that this library does not wrap. It must be neither set nor deleted through this pointer.
    #[must_use]
    pub fn as_raw(&self) -> *mut sys::EX_TIMER {
        self.0.timer()
    }
}

impl fmt::Debug for HrTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HrTimer").field("resolution", &self.0.resolution()).finish_non_exhaustive()
    }
}

impl sealed::Sealed for HrTimer {
    fn dispatcher_object(&self) -> *mut c_void {
        self.as_raw().cast()
    }
}

// SAFETY: the timer is deleted only when its handle is dropped, and a wait borrows the handle. A wait on a timer asks nothing of the thread.
unsafe impl Dispatchable for HrTimer {}
