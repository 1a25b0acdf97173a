//! What a thread asks or does about itself.

use core::time::Duration;

use ksync_sys as sys;

use crate::error::Result;
use crate::irql::{self, Irql};
use crate::object::ThreadId;
use crate::time::{SystemTime, Timeout};
use crate::wait::{self, WaitOptions, WaitResult};

/// Suspends the thread for an interval at least.
///
/// The clock ticks every 15.6 ms or less, and an interval ends with a tick. [`Duration::ZERO`] gives the processor to other threads, as [`pause`] does;
/// [`Duration::MAX`] is as good as for ever.
///
/// # IRQL
/// `<= APC_LEVEL`.
///
/// # Errors
/// [`NtError::IRQL_TOO_HIGH`](crate::NtError::IRQL_TOO_HIGH) above `APC_LEVEL`; the thread did not sleep.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use ksync::thread::this_thread;
///
/// # ksim::Machine::new().run(|| {
/// this_thread::sleep(Duration::from_secs(3600)).unwrap();
/// # }).expect_clean();
/// ```
///
/// Wraps [`KeDelayExecutionThread`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kedelayexecutionthread).
#[doc(alias = "KeDelayExecutionThread")]
pub fn sleep(interval: Duration) -> Result {
    // An interval is never `NEVER`, whose raw form is none.
    wait::delay(Timeout::after(interval).to_raw().unwrap_or(0))
}

/// Suspends the thread until a date. If the system time is changed, the moment changes with it.
///
/// # IRQL
/// `<= APC_LEVEL`.
///
/// # Errors
/// [`NtError::IRQL_TOO_HIGH`](crate::NtError::IRQL_TOO_HIGH) above `APC_LEVEL`; the thread did not sleep.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use ksync::thread::this_thread;
/// use ksync::time::SystemTime;
///
/// # ksim::Machine::new().run(|| {
/// this_thread::sleep_until(SystemTime::now().saturating_add(Duration::from_secs(1))).unwrap();
/// # }).expect_clean();
/// ```
///
/// Wraps [`KeDelayExecutionThread`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kedelayexecutionthread).
#[doc(alias = "KeDelayExecutionThread")]
pub fn sleep_until(date: SystemTime) -> Result {
    wait::delay(date.ticks())
}

/// Suspends the thread for as long as the options' timeout says, unless an alert or a user APC breaks the sleep off: [`WaitResult::TimedOut`] if it lasted.
///
/// # IRQL
/// `<= APC_LEVEL`.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use ksync::thread::this_thread;
/// use ksync::time::Timeout;
/// use ksync::wait::{WaitOptions, WaitResult};
///
/// # ksim::Machine::new().run(|| {
/// let second = WaitOptions::from(Timeout::after(Duration::from_secs(1)));
/// assert_eq!(this_thread::sleep_with(second), WaitResult::TimedOut);
/// ksim::alert_thread(this_thread::id().get(), ksim::ProcessorMode::Kernel);
/// assert_eq!(this_thread::sleep_with(second.alertable(true)), WaitResult::Alerted);
/// # }).expect_clean();
/// ```
///
/// Wraps [`KeDelayExecutionThread`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kedelayexecutionthread).
#[doc(alias = "KeDelayExecutionThread")]
pub fn sleep_with(options: WaitOptions) -> WaitResult {
    wait::delay_with(options)
}

/// Gives the processor to another thread that is ready, if there is one: [`pause`] under the name that `std` has for it.
///
/// # IRQL
/// `<= APC_LEVEL`.
///
/// # Errors
/// Those of [`pause`].
///
/// # Examples
/// ```
/// # ksim::Machine::new().run(|| {
/// ksync::thread::this_thread::yield_now().unwrap();
/// # }).expect_clean();
/// ```
pub fn yield_now() -> Result {
    pause()
}

/// Gives the processor to another thread that is ready, if there is one.
///
/// # IRQL
/// `<= APC_LEVEL`.
///
/// # Errors
/// [`NtError::IRQL_TOO_HIGH`](crate::NtError::IRQL_TOO_HIGH) above `APC_LEVEL`.
///
/// # Examples
/// ```
/// # ksim::Machine::new().run(|| {
/// ksync::thread::this_thread::pause().unwrap();
/// # }).expect_clean();
/// ```
///
/// Wraps [`KeDelayExecutionThread`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kedelayexecutionthread) with an interval of zero, which every Windows
/// exports; `ZwYieldExecution` is newer.
#[doc(alias = "KeDelayExecutionThread")]
#[doc(alias = "ZwYieldExecution")]
pub fn pause() -> Result {
    wait::delay(0)
}

/// Keeps the processor busy for an interval at least. Keep it below 50 us: nothing else of the same level runs on this processor meanwhile.
///
/// An interval is rounded up to whole microseconds.
///
/// # IRQL
/// Any level.
///
/// # Examples
/// ```
/// use core::time::Duration;
///
/// # ksim::Machine::new().run(|| {
/// ksync::thread::this_thread::stall(Duration::from_micros(10));
/// # }).expect_clean();
/// ```
///
/// Wraps [`KeStallExecutionProcessor`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-kestallexecutionprocessor).
#[doc(alias = "KeStallExecutionProcessor")]
pub fn stall(interval: Duration) {
    let mut left = interval.as_nanos().div_ceil(1000);
    while left > 0 {
        // CAST: at most a million.
        let microseconds = left.min(1_000_000) as u32;
        // SAFETY: the routine may be called anywhere.
        unsafe { sys::KeStallExecutionProcessor(microseconds) };
        left -= u128::from(microseconds);
    }
}

/// The thread's identifier.
///
/// # IRQL
/// Any level.
///
/// # Examples
/// ```
/// use ksync::thread::{self, this_thread};
///
/// # ksim::Machine::new().run(|| {
/// let other = thread::spawn(this_thread::id).unwrap().join().unwrap();
/// assert_ne!(other, this_thread::id());
/// # }).expect_clean();
/// ```
///
/// Wraps [`PsGetCurrentThreadId`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-psgetcurrentthreadid).
#[doc(alias = "PsGetCurrentThreadId")]
#[must_use]
pub fn id() -> ThreadId {
    // SAFETY: the routine may be called anywhere.
    ThreadId::from_raw(unsafe { sys::PsGetCurrentThreadId() })
}

/// The thread's current priority, from 0 to 31.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Errors
/// [`NtError::IRQL_TOO_HIGH`](crate::NtError::IRQL_TOO_HIGH) above `DISPATCH_LEVEL`.
///
/// # Examples
/// ```
/// # ksim::Machine::new().run(|| {
/// assert_eq!(ksync::thread::this_thread::priority(), Ok(8));
/// # }).expect_clean();
/// ```
///
/// Wraps [`KeQueryPriorityThread`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequeryprioritythread).
#[doc(alias = "KeQueryPriorityThread")]
pub fn priority() -> Result<i32> {
    irql::require_at_most(Irql::DISPATCH)?;
    current().priority()
}

/// Sets the thread's base priority, from 1 to 31, and tells the one before. See [`ThreadObject::set_priority`](crate::object::ThreadObject::set_priority).
///
/// # IRQL
/// `PASSIVE_LEVEL`.
///
/// # Errors
/// - [`NtError::INVALID_PARAMETER`](crate::NtError::INVALID_PARAMETER) for a priority out of range.
/// - [`NtError::IRQL_TOO_HIGH`](crate::NtError::IRQL_TOO_HIGH) above `PASSIVE_LEVEL`.
///
/// # Examples
/// ```
/// use ksync::thread::this_thread;
///
/// # ksim::Machine::new().run(|| {
/// assert_eq!(this_thread::set_priority(16), Ok(8));
/// assert_eq!(this_thread::priority(), Ok(16));
/// # }).expect_clean();
/// ```
///
/// Wraps [`KeSetPriorityThread`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kesetprioritythread).
#[doc(alias = "KeSetPriorityThread")]
pub fn set_priority(priority: i32) -> Result<i32> {
    irql::require_at_most(Irql::PASSIVE)?;
    current().set_priority(priority)
}

/// Tells whether someone wants the thread to end: its process is ending, for one. A loop that serves a user looks at it when a wait in user mode is broken off.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Errors
/// [`NtError::IRQL_TOO_HIGH`](crate::NtError::IRQL_TOO_HIGH) above `DISPATCH_LEVEL`.
///
/// # Examples
/// ```
/// use ksync::thread::this_thread;
///
/// # ksim::Machine::new().run(|| {
/// assert_eq!(this_thread::is_terminating(), Ok(false));
/// ksim::request_termination(this_thread::id().get());
/// assert_eq!(this_thread::is_terminating(), Ok(true));
/// # }).expect_clean();
/// ```
///
/// Wraps [`PsIsThreadTerminating`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-psisthreadterminating).
#[doc(alias = "PsIsThreadTerminating")]
pub fn is_terminating() -> Result<bool> {
    irql::require_at_most(Irql::DISPATCH)?;
    let thread = current();
    if thread.id().get() == 0 {
        // An idle processor's, which stays.
        return Ok(false);
    }
    // SAFETY: the thread is referenced.
    Ok(unsafe { sys::PsIsThreadTerminating(thread.as_raw()) } != 0)
}

/// A reference to the thread: [`ThreadObject::current`](crate::object::ThreadObject::current).
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Examples
/// ```
/// use ksync::thread::this_thread;
///
/// # ksim::Machine::new().run(|| {
/// assert_eq!(this_thread::current().id(), this_thread::id());
/// # }).expect_clean();
/// ```
#[doc(alias = "KeGetCurrentThread")]
#[must_use]
pub fn current() -> crate::object::ThreadObject {
    crate::object::ThreadObject::current()
}
