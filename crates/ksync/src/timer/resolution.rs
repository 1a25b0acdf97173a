//! The length of the system's clock tick.

use core::sync::atomic::Ordering;
use core::time::Duration;

use ksync_sys as sys;

use crate::driver::image::Image;
use crate::error::Result;
use crate::irql::{self, Irql};
use crate::time;

/// A request for a shorter clock tick, which is taken back when this is dropped.
///
/// The tick is the whole system's: it is as short as the shortest that anyone asked for. Shorter ticks cost power, also while nothing expires.
///
/// # IRQL
/// Dropped at `<= APC_LEVEL`. At a higher level the request cannot be taken back there: the next [`set_timer_resolution`], the next drop at such a level or
/// [`drain`](crate::driver::drain) does that, and a line to the debugger reports it.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use ksim::ClockMode;
/// use ksync::thread::this_thread;
/// use ksync::time::InterruptTime;
/// use ksync::timer::set_timer_resolution;
///
/// # ksim::Machine::new().clock(ClockMode::DEFAULT_TICK).run(|| {
/// let millisecond = Duration::from_millis(1);
/// let resolution = set_timer_resolution(millisecond).unwrap();
/// assert_eq!(resolution.tick(), millisecond);
/// let start = InterruptTime::now();
/// this_thread::sleep(millisecond).unwrap();
/// assert_eq!(start.elapsed(), millisecond);
/// drop(resolution);
/// # }).expect_clean();
/// ```
#[derive(Debug)]
#[must_use = "the request is taken back as soon as this is dropped"]
pub struct TimerResolution {
    tick: Duration,
}

impl TimerResolution {
    /// The tick when the request was made: what was asked for, cut to what the system has, or less if someone else had asked for less.
    #[must_use]
    pub const fn tick(&self) -> Duration {
        self.tick
    }
}

/// Asks for clock ticks of a length. Timers and waits that come with a tick come that much closer to their time. See [`TimerResolution`].
///
/// What is below or above what the system has (0.5 ms to 15.6 ms as a rule) is cut to it. To have one timer only that is finer, take an [`HrTimer`](super::HrTimer).
///
/// # IRQL
/// `<= APC_LEVEL`.
///
/// # Errors
/// [`NtError::IRQL_TOO_HIGH`](crate::NtError::IRQL_TOO_HIGH) above `APC_LEVEL`.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use ksync::timer::set_timer_resolution;
///
/// # ksim::Machine::new().run(|| {
/// let resolution = set_timer_resolution(Duration::ZERO).unwrap();
/// assert_eq!(resolution.tick(), Duration::from_micros(500));
/// # }).expect_clean();
/// ```
///
/// Wraps [`ExSetTimerResolution`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exsettimerresolution).
#[doc(alias = "ExSetTimerResolution")]
pub fn set_timer_resolution(tick: Duration) -> Result<TimerResolution> {
    irql::require_at_most(Irql::APC)?;
    take_back_late(Image::this());
    let wanted = u32::try_from(time::ticks(tick)).unwrap_or(u32::MAX);
    // SAFETY: the level was checked.
    let tick = unsafe { sys::ExSetTimerResolution(wanted, sys::TRUE) };
    Ok(TimerResolution { tick: time::interval(u64::from(tick)) })
}

impl Drop for TimerResolution {
    fn drop(&mut self) {
        if irql::current() > Irql::APC {
            Image::this().late_resolutions.fetch_add(1, Ordering::Relaxed);
            crate::println!("ksync: a timer resolution was dropped above APC_LEVEL; it is taken back later");
            return;
        }
        take_back_late(Image::this());
        // SAFETY: the level was checked, and this takes back the one request that this value stands for.
        unsafe { sys::ExSetTimerResolution(0, sys::FALSE) };
    }
}

/// Takes back what was dropped where it could not be.
///
/// # IRQL
/// `<= APC_LEVEL`.
pub(super) fn take_back_late(image: &Image) {
    for _ in 0..image.late_resolutions.swap(0, Ordering::Relaxed) {
        // SAFETY: by this function's contract the level admits it, and this takes back one request whose value is gone.
        unsafe { sys::ExSetTimerResolution(0, sys::FALSE) };
    }
}
