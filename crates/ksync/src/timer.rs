//! Timers: an object that is signaled at a time, once or periodically, and code that runs then.
//!
//! A [`Timer`] owns a closure that runs as a DPC at each expiry, or has none and is only waited on. All timers are [`Dispatchable`]:
//! one of kind [`Notification`](TimerKind::Notification) stays signaled after an expiry and releases everyone who waits, one of kind
//! [`Synchronization`](TimerKind::Synchronization) is cleared by the one wait that each expiry satisfies.
//!
//! # Vocabulary
//! ```text
//!         start                  the time comes
//! idle ----------> armed ----------------------------> expired: signaled, the DPC is queued
//!   ^  cancel, true  | ^                                   |
//!   +----------------+ +-------- with a period ------------+
//! ```
//! Starting a timer that is armed cancels it first, and clears it.
//!
//! # Resolution
//! The clock ticks every 15.6 ms or less, and an expiry of a [`Timer`] comes with a tick. A period is a whole number of milliseconds: anything else is an error rather than another
//! period, or none at all. For what must be finer there is the [`HrTimer`], whose intervals and periods are in units of 100 ns. [`set_timer_resolution`] makes
//! the ticks of the whole system shorter, at the cost of power; a [coalescable](PinnedTimer::start_coalescable) timer does the opposite, and gives the system
//! leeway to serve several timers at once.
//!
//! # Who frees it
//! Dropping a timer cancels it, and then waits at `PASSIVE_LEVEL` until its closure no longer runs. Elsewhere nothing can wait, so a DPC is sent to
//! every processor: a processor runs one DPC after another, so when the last of these runs, the closure runs nowhere, and the timer is freed. Until then
//! the driver's unload waits for it.

mod block;
mod delay;
mod high_resolution;
mod resolution;

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::fmt;
use core::marker::PhantomPinned;
use core::mem::MaybeUninit;
use core::ops::Deref;
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use ksync_sys as sys;

use crate::dpc::ThreadedDpc;
use crate::driver::image::Image;
use crate::error::{NtError, Result};
use crate::init::{PinInit, pin_init_from_closure};
use crate::irql::{self, Dispatch, Irql};
use crate::time::{SystemTime, Timeout};
use crate::wait::{Dispatchable, sealed};

use block::Owner;

pub use delay::delay_run;
pub use high_resolution::{HrTimer, Resolution};
pub use resolution::{TimerResolution, set_timer_resolution};

/// What a wait does to a timer that satisfies it.
#[doc(alias = "TIMER_TYPE")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum TimerKind {
    /// Nothing: the timer stays signaled until it is started again, and releases every waiter.
    #[default]
    Notification,
    /// It is cleared: each expiry releases one waiter.
    Synchronization,
}

impl TimerKind {
    /// NT's number.
    const fn raw(self) -> sys::TIMER_TYPE {
        match self {
            Self::Notification => sys::NotificationTimer,
            Self::Synchronization => sys::SynchronizationTimer,
        }
    }
}

/// A timer in its own block of nonpaged pool, with a closure that runs at each expiry or without one. It has the operations of [`PinnedTimer`].
///
/// # IRQL
/// Made and dropped at `<= DISPATCH_LEVEL`. At `PASSIVE_LEVEL` a drop waits until the closure no longer runs, and drops what it owns there and then.
/// Elsewhere, and in the closure itself, what the closure owns is dropped at `DISPATCH_LEVEL` a little later. Above `DISPATCH_LEVEL` the timer is leaked, and
/// goes on until the driver is unloaded.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use ksync::println;
/// use ksync::thread::this_thread;
/// use ksync::timer::Timer;
/// use std::sync::Arc;
///
/// # let outcome = ksim::Machine::new().run(|| {
/// // this timer will use a DPC as backend
/// let timer = Arc::new(
///     Timer::new(
///         || {
///             println!("timer expired");
///         },
///         false,
///     )
///     .unwrap(),
/// );
///
/// timer.start(Duration::ZERO, Duration::from_secs(5)).unwrap();
/// # this_thread::sleep(Duration::from_secs(11)).unwrap();
/// # });
/// # assert_eq!(outcome.debug_output(), ["timer expired"; 3]);
/// # outcome.expect_clean();
/// ```
#[doc(alias = "KTIMER")]
pub struct Timer(Owner);

impl Timer {
    /// Makes a notification timer whose closure runs at each expiry: at `DISPATCH_LEVEL`, as a [`Dpc`](crate::dpc::Dpc), or if `threaded` is set as a
    /// [`ThreadedDpc`], at `PASSIVE_LEVEL` where the system admits it.
    ///
    /// The closure can run on two processors at once, if it takes longer than the period.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::INSUFFICIENT_RESOURCES`] if there is no pool. The closure is dropped.
    /// - [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::timer::Timer;
    /// use ksync::wait::Dispatchable;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let timer = Timer::new(|| ksync::println!("expired"), true).unwrap();
    /// timer.start(Duration::from_millis(1), Duration::ZERO).unwrap();
    /// assert!(timer.wait().success());
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeInitializeTimerEx`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializetimerex).
    #[doc(alias = "KeInitializeTimerEx")]
    pub fn new<F>(closure: F, threaded: bool) -> Result<Self>
    where
        F: Fn() + Send + Sync + 'static,
    {
        Self::with_kind(TimerKind::Notification, closure, threaded)
    }

    /// [`new`](Self::new) for a closure that runs at `DISPATCH_LEVEL` and is given the token of that level, so that what it locks is checked at compile time.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::mutex::{LockAt, SpinLocked};
    /// use ksync::timer::Timer;
    /// use ksync::wait::Dispatchable;
    ///
    /// # ksim::Machine::new().run(|| {
    /// static COUNT: SpinLocked<u32> = SpinLocked::const_new(0);
    /// # *COUNT.lock().unwrap() = 0;
    /// let timer = Timer::new_with_irql(|dispatch| *COUNT.lock_at(dispatch) += 1).unwrap();
    /// timer.start(Duration::from_millis(1), Duration::ZERO).unwrap();
    /// assert!(timer.wait().success());
    /// drop(timer);
    /// assert_eq!(*COUNT.lock().unwrap(), 1);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeInitializeTimerEx`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializetimerex).
    #[doc(alias = "KeInitializeTimerEx")]
    pub fn new_with_irql<F>(closure: F) -> Result<Self>
    where
        F: Fn(&mut Irql<Dispatch>) + Send + Sync + 'static,
    {
        // IRQL: an ordinary DPC runs at `DISPATCH_LEVEL`.
        Self::new(move || closure(&mut Irql::made()), false)
    }

    /// Makes a timer of either kind whose closure runs at each expiry. See [`new`](Self::new).
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::timer::{Timer, TimerKind};
    /// use ksync::wait::Dispatchable;
    ///
    /// # let outcome = ksim::Machine::new().run(|| {
    /// let timer = Timer::with_kind(TimerKind::Synchronization, || ksync::println!("now"), false).unwrap();
    /// timer.start(Duration::from_millis(10), Duration::ZERO).unwrap();
    /// assert!(timer.wait().success());
    /// # });
    /// # assert_eq!(outcome.debug_output(), ["now"]);
    /// # outcome.expect_clean();
    /// ```
    ///
    /// Wraps [`KeInitializeTimerEx`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializetimerex).
    #[doc(alias = "KeInitializeTimerEx")]
    pub fn with_kind<F>(kind: TimerKind, closure: F, threaded: bool) -> Result<Self>
    where
        F: Fn() + Send + Sync + 'static,
    {
        if !threaded {
            return Ok(Self(Owner::new(kind, closure)?));
        }
        // The timer has an ordinary DPC, after which it can be freed by what is known of those; and the threaded one counts its own users.
        let dpc = ThreadedDpc::new(closure)?;
        let enqueue = move || {
            // It is refused when the driver is being unloaded, and when it is queued still it runs once for both, as it would if it were the timer's.
            let _ = dpc.enqueue();
        };
        Ok(Self(Owner::new(kind, enqueue)?))
    }

    /// Makes a timer without a closure, to be waited on.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::timer::{Timer, TimerKind};
    /// use ksync::wait::Dispatchable;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let timer = Timer::waitable(TimerKind::Synchronization).unwrap();
    /// timer.start(Duration::ZERO, Duration::from_millis(500)).unwrap();
    /// for _ in 0..5 {
    ///     assert!(timer.wait().success());
    /// }
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeInitializeTimerEx`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializetimerex).
    #[doc(alias = "KeInitializeTimerEx")]
    pub fn waitable(kind: TimerKind) -> Result<Self> {
        Ok(Self(Owner::waitable(kind)?))
    }
}

impl Deref for Timer {
    type Target = PinnedTimer;

    #[inline]
    fn deref(&self) -> &PinnedTimer {
        self.0.timer()
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl sealed::Sealed for Timer {
    fn dispatcher_object(&self) -> *mut c_void {
        (**self).dispatcher_object()
    }
}

// SAFETY: as for `PinnedTimer`, which the block keeps in its place while the handle is borrowed.
unsafe impl Dispatchable for Timer {}

/// A timer in place. One that is made by [`pin_init`](Self::pin_init) has no closure, and is waited on.
///
/// There is no timer with a closure inside a larger structure: that structure could not be freed at `DISPATCH_LEVEL` while the closure runs on another processor.
///
/// # Invariants
/// - The object is initialised, and stays where it is until it is dropped. Nobody waits on it then, because a wait borrows it.
/// - `dpc` is null, or a DPC that is alive for as long as this, whose owner frees it only after this is cancelled.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use ksync::init::stack_try_pin_init;
/// use ksync::timer::{PinnedTimer, TimerKind};
/// use ksync::wait::Dispatchable;
///
/// # ksim::Machine::new().run(|| {
/// stack_try_pin_init!(let timer = PinnedTimer::pin_init(TimerKind::Notification));
/// let timer = timer.unwrap().into_ref().get_ref();
/// timer.start(Duration::from_millis(1), Duration::ZERO).unwrap();
/// assert!(timer.wait().success());
/// # }).expect_clean();
/// ```
#[doc(alias = "KTIMER")]
pub struct PinnedTimer {
    timer: UnsafeCell<MaybeUninit<sys::KTIMER>>,
    dpc: *mut sys::KDPC,
    /// It has been armed at least once.
    started: AtomicBool,
    _pin: PhantomPinned,
}

// SAFETY: a timer belongs to no thread; all that is done to it, dropping included, may be done in any.
unsafe impl Send for PinnedTimer {}
// SAFETY: the kernel's routines on timers are atomic with respect to each other, and the DPC's address never changes.
unsafe impl Sync for PinnedTimer {}

impl PinnedTimer {
    /// Makes a timer where it stays. The memory must be nonpaged.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`, and so for its drop.
    ///
    /// # Errors
    /// The initialiser fails with [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::pool::KBox;
    /// use ksync::timer::{PinnedTimer, TimerKind};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let timer = KBox::pin_init(PinnedTimer::pin_init(TimerKind::Notification)).unwrap();
    /// assert_eq!(timer.is_signaled(), Ok(false));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeInitializeTimerEx`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializetimerex).
    #[doc(alias = "KeInitializeTimerEx")]
    pub fn pin_init(kind: TimerKind) -> impl PinInit<Self, NtError> {
        let initialise = move |slot: *mut Self| {
            irql::require_at_most(Irql::DISPATCH)?;
            // SAFETY: the slot is valid for writes, as initialisers are promised, and the timer will not move from it. The level was checked. A null DPC is none.
            unsafe { Self::init_at(slot, kind, ptr::null_mut()) };
            Ok(())
        };
        // SAFETY: when it succeeds the closure has initialised the whole of the slot; when it fails nothing of it.
        unsafe { pin_init_from_closure(initialise) }
    }

    /// Initialises a timer.
    ///
    /// # Safety
    /// The slot is valid for writes, and the timer will not move from it. The DPC is null or as the type's invariant wants it. The level is `<= DISPATCH_LEVEL`.
    unsafe fn init_at(slot: *mut Self, kind: TimerKind, dpc: *mut sys::KDPC) {
        let parts =
            Self { timer: UnsafeCell::new(MaybeUninit::uninit()), dpc, started: AtomicBool::new(false), _pin: PhantomPinned };
        // SAFETY: by this function's contract.
        unsafe { slot.write(parts) };
        // SAFETY: the slot was written just now.
        let timer = unsafe { &*slot }.as_raw();
        // SAFETY: the timer lies in the slot, from which it will not move, and the level admits it.
        unsafe { sys::KeInitializeTimerEx(timer, kind.raw()) };
    }

    /// The kernel's object, for routines that this library does not wrap. It must be neither set nor initialised through this pointer.
    #[must_use]
    pub fn as_raw(&self) -> *mut sys::KTIMER {
        self.timer.get().cast()
    }

    /// Arms the timer: it expires after `due` for the first time, and then after every `period`, or not again if that is zero. Tells whether it was armed.
    ///
    /// With a `due` of zero it expires at once. The intervals do not change with the system time.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// The timer is left as it was, and the error is
    /// - [`NtError::INVALID_PARAMETER`] for a period that is not a whole number of milliseconds, or more than [`i32::MAX`] of them (24 days);
    /// - [`NtError::DELETE_PENDING`] for a timer with a closure, while the driver is being unloaded;
    /// - [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::timer::{Timer, TimerKind};
    /// use ksync::NtError;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let timer = Timer::waitable(TimerKind::Notification).unwrap();
    /// let second = Duration::from_secs(1);
    /// assert_eq!(timer.start(second, Duration::ZERO), Ok(false));
    /// assert_eq!(timer.start(second, second), Ok(true));
    /// assert_eq!(timer.start(second, Duration::from_micros(500)), Err(NtError::INVALID_PARAMETER));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeSetTimerEx`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kesettimerex).
    #[doc(alias = "KeSetTimerEx")]
    #[doc(alias = "KeSetTimer")]
    pub fn start(&self, due: Duration, period: Duration) -> Result<bool> {
        self.set(Timeout::after(due), period, Duration::ZERO)
    }

    /// [`start`](Self::start) for a timer whose expiries may each come up to `tolerance` later, so that the system can serve several timers at once and rest longer in between.
    ///
    /// If the timer is started again just when it is about to expire, its closure may still run for the expiry before.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Those of [`start`](Self::start), for the tolerance as for the period.
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::time::InterruptTime;
    /// use ksync::timer::{Timer, TimerKind};
    /// use ksync::wait::Dispatchable;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let timer = Timer::waitable(TimerKind::Synchronization).unwrap();
    /// let started = InterruptTime::now();
    /// timer.start_coalescable(Duration::from_secs(1), Duration::ZERO, Duration::from_millis(100)).unwrap();
    /// assert!(timer.wait().success());
    /// assert!((1_000..=1_100).contains(&started.elapsed().as_millis()));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeSetCoalescableTimer`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kesetcoalescabletimer). First Windows: 7.
    #[doc(alias = "KeSetCoalescableTimer")]
    pub fn start_coalescable(&self, due: Duration, period: Duration, tolerance: Duration) -> Result<bool> {
        self.set(Timeout::after(due), period, tolerance)
    }

    /// Arms the timer: it expires at a date for the first time, and then after every `period`, or not again if that is zero. Tells whether it was armed.
    ///
    /// If the system time is changed, the moment of the first expiry changes with it. A date that is past expires at once.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Those of [`start`](Self::start).
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::time::SystemTime;
    /// use ksync::timer::{Timer, TimerKind};
    /// use ksync::wait::Dispatchable;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let timer = Timer::waitable(TimerKind::Notification).unwrap();
    /// timer.start_at(SystemTime::now().saturating_add(Duration::from_secs(9)), Duration::ZERO).unwrap();
    /// assert!(timer.wait().success());
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeSetTimerEx`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kesettimerex).
    #[doc(alias = "KeSetTimerEx")]
    pub fn start_at(&self, date: SystemTime, period: Duration) -> Result<bool> {
        self.set(Timeout::at(date), period, Duration::ZERO)
    }

    /// Arms the timer.
    fn set(&self, due: Timeout, period: Duration, tolerance: Duration) -> Result<bool> {
        irql::require_at_most(Irql::DISPATCH)?;
        let period = milliseconds(period)?;
        let tolerance = milliseconds(tolerance)?;
        if !self.dpc.is_null() {
            Image::this().check_open()?;
        }
        self.started.store(true, Ordering::Relaxed);
        // Both ways to here have a time, so that this is never taken for "at once" by mistake.
        let due = due.to_raw().unwrap_or(-crate::time::FAR);
        if tolerance != 0 {
            // CAST: neither is negative.
            let (period, tolerance) = (period as u32, tolerance as u32);
            // SAFETY: as below.
            return Ok(unsafe { sys::KeSetCoalescableTimer(self.as_raw(), due, period, tolerance, self.dpc) } != 0);
        }
        // SAFETY: by the type's invariant the timer is initialised and in its place until it is dropped, which cancels it, and the DPC is null or lives longer. The level was
        // checked.
        Ok(unsafe { sys::KeSetTimerEx(self.as_raw(), due, period, self.dpc) } != 0)
    }

    /// Disarms the timer, and tells whether it was armed. A closure that is queued or runs already still runs.
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
    /// use ksync::timer::Timer;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let timer = Timer::new(|| unreachable!(), false).unwrap();
    /// timer.start(Duration::from_secs(1), Duration::ZERO).unwrap();
    /// assert_eq!(timer.cancel(), Ok(true));
    /// assert_eq!(timer.cancel(), Ok(false));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeCancelTimer`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kecanceltimer).
    #[doc(alias = "KeCancelTimer")]
    pub fn cancel(&self) -> Result<bool> {
        irql::require_at_most(Irql::DISPATCH)?;
        // SAFETY: by the type's invariant the timer is initialised and in its place, and the level was checked.
        Ok(unsafe { sys::KeCancelTimer(self.as_raw()) } != 0)
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
    /// use ksync::timer::{Timer, TimerKind};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let timer = Timer::waitable(TimerKind::Notification).unwrap();
    /// timer.start(Duration::from_secs(1), Duration::from_secs(1)).unwrap();
    /// assert_eq!(timer.stop(), Ok(true));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeCancelTimer`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kecanceltimer).
    #[doc(alias = "KeCancelTimer")]
    pub fn stop(&self) -> Result<bool> {
        self.cancel()
    }

    /// Tells whether the timer is signaled, which may have changed when the caller looks at the answer.
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
    /// use ksync::timer::{Timer, TimerKind};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let timer = Timer::waitable(TimerKind::Notification).unwrap();
    /// timer.start(Duration::ZERO, Duration::ZERO).unwrap();
    /// assert_eq!(timer.is_signaled(), Ok(true));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeReadStateTimer`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereadstatetimer).
    #[doc(alias = "KeReadStateTimer")]
    pub fn is_signaled(&self) -> Result<bool> {
        irql::require_at_most(Irql::DISPATCH)?;
        // SAFETY: by the type's invariant the timer is initialised and in its place, and the level was checked.
        Ok(unsafe { sys::KeReadStateTimer(self.as_raw()) } != 0)
    }
}

impl fmt::Debug for PinnedTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut timer = f.debug_struct("Timer");
        match self.is_signaled() {
            Ok(signaled) => timer.field("signaled", &signaled).finish(),
            Err(_) => timer.finish_non_exhaustive(),
        }
    }
}

impl Drop for PinnedTimer {
    fn drop(&mut self) {
        // IRQL: what drops a timer above `DISPATCH_LEVEL` breaks the routine's rule. But the memory goes, so leaving the timer armed would be worse.
        // SAFETY: by the type's invariant the timer is initialised and in its place.
        unsafe { sys::KeCancelTimer(self.as_raw()) };
    }
}

impl sealed::Sealed for PinnedTimer {
    fn dispatcher_object(&self) -> *mut c_void {
        self.as_raw().cast()
    }
}

// SAFETY: by the type's invariant the timer is initialised, and it stays in its place at least while it is borrowed. A wait on a timer asks nothing of the thread.
unsafe impl Dispatchable for PinnedTimer {}

/// Disarms all timers of an image that have a closure, and waits until no closure runs and all that are being freed are gone. Closures that wait for their delay are dropped.
///
/// # IRQL
/// `PASSIVE_LEVEL`.
pub(crate) fn drain(image: &'static Image) {
    delay::drain(image);
    block::drain(image);
    high_resolution::drain(image);
    resolution::take_back_late(image);
}

/// NT's form of a number of milliseconds.
///
/// # Errors
/// [`NtError::INVALID_PARAMETER`] if it is not a whole number of milliseconds from 0 to [`i32::MAX`].
fn milliseconds(period: Duration) -> Result<i32> {
    if !period.subsec_nanos().is_multiple_of(1_000_000) {
        return Err(NtError::INVALID_PARAMETER);
    }
    i32::try_from(period.as_millis()).map_err(|_| NtError::INVALID_PARAMETER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_whole_milliseconds_or_errors() {
        assert_eq!(milliseconds(Duration::ZERO), Ok(0));
        assert_eq!(milliseconds(Duration::from_millis(1)), Ok(1));
        assert_eq!(milliseconds(Duration::from_millis(i32::MAX as u64)), Ok(i32::MAX));
        for wrong in [
            Duration::from_nanos(1),
            Duration::from_micros(500),
            Duration::from_micros(1500),
            Duration::from_millis(i32::MAX as u64 + 1),
            Duration::from_millis(u32::MAX as u64 + 1),
            Duration::MAX,
        ] {
            assert_eq!(milliseconds(wrong), Err(NtError::INVALID_PARAMETER), "{wrong:?}");
        }
    }
}
