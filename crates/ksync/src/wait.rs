//! Waiting for one, any or all of several objects.
//!
//! What can be waited on is a [`Dispatchable`]: an event, a semaphore, a timer, a thread, a process. A wait may also *take* what it waited for: it clears a
//! synchronization event or timer, and counts a semaphore down.
//!
//! # How a wait can end
//! A wait returns a [`WaitResult`]. The kernel's own answers to a wait are nearly all success codes, timeouts and alerts included, so that a test
//! with `NT_SUCCESS` tells nothing; the cases of the enumeration cannot be confused.
//!
//! # IRQL
//! A wait needs `<= APC_LEVEL`, and one with [`Timeout::POLL`] `<= DISPATCH_LEVEL`. At a higher level nothing is done and
//! the result is [`WaitResult::Failed`]. Code that runs in an arbitrary thread should not block it, and the routine of a threaded DPC must not.
//!
//! # Examples
//! A thread that polls a device every 500 ms until it is told to stop:
//! ```
//! use core::time::Duration;
//! use ksync::error::Result;
//! use ksync::event::{Event, EventProperty};
//! use ksync::thread;
//! use ksync::timer::{Timer, TimerKind};
//! use ksync::wait::{self, WaitOptions, WaitResult};
//!
//! fn polls_in(run: Duration) -> Result<u32> {
//!     let kill = Event::new(EventProperty::Notification, false)?;
//!     thread::scope(|scope| {
//!         let polling = scope.spawn(|| {
//!             let timer = Timer::waitable(TimerKind::Synchronization)?;
//!             timer.start(Duration::ZERO, Duration::from_millis(500))?;
//!             let mut polls = 0;
//!             while wait::wait_any(&[&kill, &timer], WaitOptions::new()) == WaitResult::Signaled(1) {
//!                 polls += 1;
//!             }
//!             Result::Ok(polls)
//!         })?;
//!         thread::this_thread::sleep(run)?;
//!         kill.set()?;
//!         polling.join()?
//!     })
//! }
//! # ksim::Machine::new().run(|| assert_eq!(polls_in(Duration::from_millis(2100)), Ok(5))).expect_clean();
//! ```

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::time::Duration;

use ksync_sys as sys;

use crate::error::{NtError, Result};
use crate::irql::{self, Irql};
use crate::time::Timeout;

/// The greatest number of objects that one wait can name.
// CAST: 64.
pub const MAXIMUM_WAIT_OBJECTS: usize = sys::MAXIMUM_WAIT_OBJECTS as usize;

/// How many objects one wait can name with the wait blocks that each thread has.
// CAST: 3.
const THREAD_WAIT_OBJECTS: usize = sys::THREAD_WAIT_OBJECTS as usize;

pub(crate) mod sealed {
    /// Keeps [`Dispatchable`](super::Dispatchable) to this crate.
    pub trait Sealed {
        /// The object's dispatcher header.
        #[doc(hidden)]
        fn dispatcher_object(&self) -> *mut core::ffi::c_void;

        /// A wait makes the thread the object's owner, so that it needs a level at which it can be released.
        #[doc(hidden)]
        fn has_owner(&self) -> bool {
            false
        }

        /// Checks that a wait can take the object once more.
        #[doc(hidden)]
        fn check_count(&self) -> crate::error::Result {
            Ok(())
        }
    }
}

/// On whose behalf a thread waits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum WaitMode {
    /// The driver's. The thread's kernel stack stays in memory, and a wait that is not alertable is never broken off.
    #[default]
    Kernel,
    /// A user's, whose termination breaks the wait off with [`WaitResult::UserApc`]. NT would page the thread's kernel stack out meanwhile, with what others may be using on
    /// it, such as an object that was pinned there; the waits of this library keep it in memory.
    User,
}

/// How to wait: by default without limit, in kernel mode, and not alertable.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use ksync::time::Timeout;
/// use ksync::wait::WaitOptions;
///
/// let options = WaitOptions::new().timeout(Timeout::after(Duration::from_secs(1))).alertable(true);
/// assert_ne!(options, WaitOptions::default());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[must_use = "options do nothing until a wait is made with them"]
pub struct WaitOptions {
    mode: WaitMode,
    alertable: bool,
    timeout: Timeout,
}

impl WaitOptions {
    /// Without limit, in kernel mode, not alertable.
    pub const fn new() -> Self {
        Self { mode: WaitMode::Kernel, alertable: false, timeout: Timeout::NEVER }
    }

    /// On whose behalf.
    pub const fn mode(self, mode: WaitMode) -> Self {
        Self { mode, ..self }
    }

    /// Whether an alert breaks the wait off, and in user mode a user APC.
    pub const fn alertable(self, alertable: bool) -> Self {
        Self { alertable, ..self }
    }

    /// When to give up.
    pub const fn timeout(self, timeout: Timeout) -> Self {
        Self { timeout, ..self }
    }

    /// NT's wait mode.
    const fn raw_mode(self) -> sys::KPROCESSOR_MODE {
        match self.mode {
            WaitMode::Kernel => sys::KernelMode,
            WaitMode::User => sys::UserMode,
        }
    }

    /// Keeps this thread's kernel stack in memory for a wait in user mode, in which it could be paged out.
    ///
    /// What lies on the stack may be in use on other processors at a raised level, by safe code: what is waited for, or what a scope's threads borrow.
    fn keep_stack(self) -> Option<StackKept> {
        // A poll does not wait.
        if self.mode == WaitMode::Kernel || self.timeout.is_poll() {
            return None;
        }
        // SAFETY: the routine may be called at the levels at which one may wait. The stack is let go again, if it was before, when the value is dropped.
        Some(StackKept(unsafe { sys::KeSetKernelStackSwapEnable(sys::FALSE) }))
    }

    /// Checks that the caller's level admits such a wait, on objects one of which may come to have an owner by it.
    fn check_level(self, owner: impl FnOnce() -> bool) -> Result {
        let highest = if self.timeout.is_poll() && !owner() { Irql::DISPATCH } else { Irql::APC };
        irql::require_at_most(highest)
    }
}

/// This thread's kernel stack stays in memory until this is dropped.
struct StackKept(sys::BOOLEAN);

impl Drop for StackKept {
    fn drop(&mut self) {
        if self.0 != sys::FALSE {
            // SAFETY: as when this was made, in the same thread. What was the case before is restored.
            unsafe { sys::KeSetKernelStackSwapEnable(sys::TRUE) };
        }
    }
}

impl From<Timeout> for WaitOptions {
    fn from(timeout: Timeout) -> Self {
        Self::new().timeout(timeout)
    }
}

/// How a wait ended.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use ksync::event::{Event, EventProperty};
/// use ksync::wait::{Dispatchable, WaitResult};
///
/// # ksim::Machine::new().run(|| {
/// let event = Event::new(EventProperty::Synchronization, true).unwrap();
/// assert_eq!(event.wait(), WaitResult::Signaled(0));
/// assert!(!event.wait_for(Duration::ZERO, false).success()); // the first wait took the signal
/// # }).expect_clean();
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[must_use = "a wait can end early, and then what was waited for has not happened"]
pub enum WaitResult {
    /// The object with this index was signaled. For a wait for all objects it is 0, and for a single one too.
    Signaled(usize),
    /// The object with this index is a mutant whose owner ended without releasing it. The wait took it nevertheless.
    Abandoned(usize),
    /// The time ran out.
    TimedOut,
    /// The thread was alerted.
    Alerted,
    /// A user APC, such as the thread's termination, broke the wait off.
    UserApc,
    /// There was no wait.
    Failed(NtError),
}

impl WaitResult {
    /// True if what was waited for happened: [`Signaled`](Self::Signaled) or [`Abandoned`](Self::Abandoned).
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::wait::WaitResult;
    ///
    /// assert!(WaitResult::Signaled(0).success());
    /// assert!(!WaitResult::Alerted.success());
    /// ```
    #[must_use]
    #[inline]
    pub const fn success(self) -> bool {
        matches!(self, Self::Signaled(_) | Self::Abandoned(_))
    }

    /// True for [`TimedOut`](Self::TimedOut).
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::wait::WaitResult;
    ///
    /// assert!(WaitResult::TimedOut.timed_out());
    /// ```
    #[must_use]
    #[inline]
    pub const fn timed_out(self) -> bool {
        matches!(self, Self::TimedOut)
    }

    /// The index of the object, if the wait ended with one.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::wait::WaitResult;
    ///
    /// assert_eq!(WaitResult::Signaled(3).index(), Some(3));
    /// assert_eq!(WaitResult::TimedOut.index(), None);
    /// ```
    #[must_use]
    #[inline]
    pub const fn index(self) -> Option<usize> {
        match self {
            Self::Signaled(index) | Self::Abandoned(index) => Some(index),
            _ => None,
        }
    }

    /// For callers to whom an early end is an error.
    ///
    /// # Errors
    /// - [`NtError::TIMEOUT`] if the time ran out.
    /// - [`NtError::CANCELLED`] if an alert or a user APC broke the wait off.
    /// - The error itself, if there was no wait.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::NtError;
    /// use ksync::wait::WaitResult;
    ///
    /// assert_eq!(WaitResult::Signaled(3).ok(), Ok(3));
    /// assert_eq!(WaitResult::TimedOut.ok(), Err(NtError::TIMEOUT));
    /// ```
    #[inline]
    pub const fn ok(self) -> Result<usize> {
        match self {
            Self::Signaled(index) | Self::Abandoned(index) => Ok(index),
            Self::TimedOut => Err(NtError::TIMEOUT),
            Self::Alerted | Self::UserApc => Err(NtError::CANCELLED),
            Self::Failed(error) => Err(error),
        }
    }

    /// Reads what the kernel returned.
    fn from_raw(status: sys::NTSTATUS) -> Self {
        match status {
            // CAST: from 0 to 63, by the pattern.
            sys::STATUS_SUCCESS..=sys::STATUS_WAIT_63 => Self::Signaled(status as usize),
            sys::STATUS_ABANDONED_WAIT_0..=sys::STATUS_ABANDONED_WAIT_63 => {
                // CAST: from 0 to 63, by the pattern.
                Self::Abandoned((status - sys::STATUS_ABANDONED_WAIT_0) as usize)
            }
            sys::STATUS_TIMEOUT => Self::TimedOut,
            sys::STATUS_ALERTED => Self::Alerted,
            sys::STATUS_USER_APC => Self::UserApc,
            _ => Self::Failed(NtError::from_status(status).unwrap_or(NtError::UNSUCCESSFUL)),
        }
    }
}

/// An object that can be waited on.
///
/// The trait is sealed: what implements it is a dispatcher object of the kernel's.
/// ```compile_fail,E0277
/// struct Mine;
/// unsafe impl ksync::wait::Dispatchable for Mine {}
/// ```
///
/// # Safety
/// `dispatcher_object` of the sealed trait returns a pointer to an initialised dispatcher object that stays where it is, and stays an object, for as
/// long as `self` is borrowed. Waiting on it, and taking it by a wait, is sound in any thread.
#[doc(alias = "KeWaitForSingleObject")]
pub unsafe trait Dispatchable: sealed::Sealed {
    /// Waits without limit, in kernel mode, not alertable.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::event::{Event, EventProperty};
    /// use ksync::wait::Dispatchable;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let event = Event::new(EventProperty::Notification, true).unwrap();
    /// assert!(event.wait().success());
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeWaitForSingleObject`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject).
    #[doc(alias = "KeWaitForSingleObject")]
    fn wait(&self) -> WaitResult {
        self.wait_with(WaitOptions::new())
    }

    /// Waits for at most an interval, in kernel mode. [`Duration::ZERO`] does not wait at all, and [`Duration::MAX`] is as good as for ever.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`; `<= DISPATCH_LEVEL` with [`Duration::ZERO`].
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::event::{Event, EventProperty};
    /// use ksync::wait::Dispatchable;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let event = Event::new(EventProperty::Notification, false).unwrap();
    /// assert!(event.wait_for(Duration::from_millis(1), false).timed_out());
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeWaitForSingleObject`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject).
    #[doc(alias = "KeWaitForSingleObject")]
    fn wait_for(&self, interval: Duration, alertable: bool) -> WaitResult {
        let options = WaitOptions::new().timeout(Timeout::after(interval));
        self.wait_with(options.alertable(alertable))
    }

    /// Waits as the options say.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`; `<= DISPATCH_LEVEL` with [`Timeout::POLL`].
    ///
    /// # Examples
    /// ```
    /// use ksync::event::{Event, EventProperty};
    /// use ksync::irql::{self, Irql};
    /// use ksync::time::Timeout;
    /// use ksync::wait::{Dispatchable, WaitOptions, WaitResult};
    /// use ksync::NtError;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let event = Event::new(EventProperty::Notification, true).unwrap();
    /// irql::with_raised(Irql::DISPATCH, || {
    ///     assert_eq!(event.wait(), WaitResult::Failed(NtError::IRQL_TOO_HIGH));
    ///     assert!(event.wait_with(Timeout::POLL.into()).success());
    /// }).unwrap();
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeWaitForSingleObject`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject).
    #[doc(alias = "KeWaitForSingleObject")]
    fn wait_with(&self, options: WaitOptions) -> WaitResult {
        if let Err(error) = options.check_level(|| self.has_owner()).and_then(|()| self.check_count()) {
            return WaitResult::Failed(error);
        }
        // SAFETY: by this trait's contract the object is one, and `self` is borrowed throughout the wait. The level was checked above.
        unsafe { wait_raw(self.dispatcher_object(), options) }
    }
}

/// Waits on one object.
///
/// # IRQL
/// The options' level, which the caller has checked.
///
/// # Safety
/// The object is a dispatcher object and stays one throughout the wait, and the level admits the wait.
unsafe fn wait_raw(object: *mut c_void, options: WaitOptions) -> WaitResult {
    let _stack = options.keep_stack();
    let timeout = options.timeout.to_raw();
    let timeout = timeout.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
    // SAFETY: by this function's contract; the timeout is null or a local variable.
    let status =
        unsafe { sys::KeWaitForSingleObject(object, sys::Executive, options.raw_mode(), options.alertable.into(), timeout) };
    WaitResult::from_raw(status)
}

/// Waits in kernel mode, not alertable, for an object that must be waited for: until it is signaled, however long that takes and whatever the level is.
///
/// At `DISPATCH_LEVEL` a thread cannot wait, so the object is polled. What is waited for may need the very processor, and then this hangs; but it never returns
/// early. Callers do that to keep memory alive that someone else still uses.
///
/// # Safety
/// The object is a dispatcher object and stays one throughout the wait.
pub(crate) unsafe fn wait_uninterrupted(object: *mut c_void) {
    loop {
        let timeout = if irql::current() <= Irql::APC { Timeout::NEVER } else { Timeout::POLL };
        // SAFETY: by this function's contract. A wait that polls is admitted up to `DISPATCH_LEVEL`; driver code above that is an interrupt's
        // and owns nothing that this is called for.
        let result = unsafe { wait_raw(object, timeout.into()) };
        if result.success() {
            return;
        }
        core::hint::spin_loop();
    }
}

/// Waits until one of several objects is signaled, and takes that one only. If several are, it is the one with the lowest index.
///
/// # IRQL
/// `<= APC_LEVEL`; `<= DISPATCH_LEVEL` with [`Timeout::POLL`].
///
/// # Errors
/// The result is [`WaitResult::Failed`] with
/// - [`NtError::INVALID_PARAMETER`] for no object or more than [`MAXIMUM_WAIT_OBJECTS`];
/// - [`NtError::IRQL_TOO_HIGH`];
/// - [`NtError::MUTANT_LIMIT_EXCEEDED`] for a mutant that the thread has taken 2³¹ times, which is as often as it can count.
///
/// # Examples
/// ```
/// use ksync::event::{Event, EventProperty};
/// use ksync::wait::{self, WaitOptions, WaitResult};
///
/// # ksim::Machine::new().run(|| {
/// let first = Event::new(EventProperty::Synchronization, false).unwrap();
/// let second = Event::new(EventProperty::Synchronization, true).unwrap();
/// assert_eq!(wait::wait_any(&[&first, &second], WaitOptions::new()), WaitResult::Signaled(1));
/// # }).expect_clean();
/// ```
///
/// Wraps [`KeWaitForMultipleObjects`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitformultipleobjects).
#[doc(alias = "KeWaitForMultipleObjects")]
pub fn wait_any(objects: &[&dyn Dispatchable], options: WaitOptions) -> WaitResult {
    wait_multiple(objects, sys::WaitAny, options)
}

/// Waits until all of several objects are signaled at once, and only then takes them, all together.
///
/// # IRQL
/// `<= APC_LEVEL`; `<= DISPATCH_LEVEL` with [`Timeout::POLL`].
///
/// # Errors
/// Those of [`wait_any`], and [`NtError::INVALID_PARAMETER`] if an object is named twice: it would be taken twice though it was signaled once.
///
/// # Examples
/// ```
/// use ksync::event::{Event, EventProperty};
/// use ksync::time::Timeout;
/// use ksync::wait::{self, WaitOptions};
///
/// # ksim::Machine::new().run(|| {
/// let first = Event::new(EventProperty::Synchronization, true).unwrap();
/// let second = Event::new(EventProperty::Synchronization, false).unwrap();
/// assert!(wait::wait_all(&[&first, &second], Timeout::POLL.into()).timed_out());
/// second.set().unwrap();
/// assert!(wait::wait_all(&[&first, &second], WaitOptions::new()).success());
/// # }).expect_clean();
/// ```
///
/// Wraps [`KeWaitForMultipleObjects`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitformultipleobjects).
#[doc(alias = "KeWaitForMultipleObjects")]
pub fn wait_all(objects: &[&dyn Dispatchable], options: WaitOptions) -> WaitResult {
    wait_multiple(objects, sys::WaitAll, options)
}

/// The kernel's bookkeeping of a wait for up to `N` objects.
type WaitBlocks<const N: usize> = [MaybeUninit<sys::KWAIT_BLOCK>; N];

/// Checks a wait for several objects and finds room for its wait blocks.
fn wait_multiple(objects: &[&dyn Dispatchable], wait_type: sys::WAIT_TYPE, options: WaitOptions) -> WaitResult {
    if let Err(error) = options.check_level(|| objects.iter().any(|object| object.has_owner())) {
        return WaitResult::Failed(error);
    }
    match objects.len() {
        1..=THREAD_WAIT_OBJECTS => wait_blocks::<THREAD_WAIT_OBJECTS>(objects, wait_type, options, None),
        // The stack stays in memory during the wait, so the blocks may lie on it. Few objects take little of it.
        ..=16 => {
            let mut blocks: WaitBlocks<16> = [MaybeUninit::uninit(); 16];
            wait_blocks::<16>(objects, wait_type, options, Some(&mut blocks))
        }
        _ => {
            let mut blocks: WaitBlocks<MAXIMUM_WAIT_OBJECTS> = [MaybeUninit::uninit(); MAXIMUM_WAIT_OBJECTS];
            wait_blocks::<MAXIMUM_WAIT_OBJECTS>(objects, wait_type, options, Some(&mut blocks))
        }
    }
}

/// Waits for up to `N` objects.
fn wait_blocks<const N: usize>(
    objects: &[&dyn Dispatchable],
    wait_type: sys::WAIT_TYPE,
    options: WaitOptions,
    blocks: Option<&mut WaitBlocks<N>>,
) -> WaitResult {
    if objects.is_empty() || objects.len() > N {
        return WaitResult::Failed(NtError::INVALID_PARAMETER);
    }
    let mut pointers = [core::ptr::null_mut::<c_void>(); N];
    for (pointer, object) in pointers.iter_mut().zip(objects) {
        if let Err(error) = object.check_count() {
            return WaitResult::Failed(error);
        }
        *pointer = object.dispatcher_object();
    }
    let pointers = &pointers[..objects.len()];
    if wait_type == sys::WaitAll && has_duplicates(pointers) {
        return WaitResult::Failed(NtError::INVALID_PARAMETER);
    }
    let _stack = options.keep_stack();
    let timeout = options.timeout.to_raw();
    let timeout = timeout.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
    let blocks = blocks.map_or(core::ptr::null_mut(), |blocks| blocks.as_mut_ptr().cast());
    // CAST: at most 64.
    let count = objects.len() as u32;
    // SAFETY: each pointer is to a dispatcher object which, by `Dispatchable`'s contract, stays one while `objects` is borrowed. There are at most `N` of
    // them, and either `N` wait blocks or, for three objects at most, none are needed. The blocks are borrowed throughout the wait, which ends before
    // this returns. The level was checked by the caller.
    let status = unsafe {
        sys::KeWaitForMultipleObjects(
            count,
            pointers.as_ptr(),
            wait_type,
            sys::Executive,
            options.raw_mode(),
            options.alertable.into(),
            timeout,
            blocks,
        )
    };
    match WaitResult::from_raw(status) {
        // A wait for all objects has no index of its own.
        WaitResult::Signaled(_) if wait_type == sys::WaitAll => WaitResult::Signaled(0),
        result => result,
    }
}

/// Tells whether a pointer occurs twice. There are 64 at most.
fn has_duplicates(pointers: &[*mut c_void]) -> bool {
    pointers.iter().enumerate().any(|(index, pointer)| pointers[..index].contains(pointer))
}

/// Suspends the thread for an interval or until a date.
///
/// # Errors
/// [`NtError::IRQL_TOO_HIGH`] above `APC_LEVEL`.
pub(crate) fn delay(interval: sys::LARGE_INTEGER) -> Result {
    irql::require_at_most(Irql::APC)?;
    // SAFETY: the interval is a local variable, and the level was checked.
    let status = unsafe { sys::KeDelayExecutionThread(sys::KernelMode, sys::FALSE, &raw const interval) };
    crate::error::check(status).map(drop)
}

/// Suspends the thread as the options say: for an interval or until a date, and for as good as ever with [`Timeout::NEVER`].
pub(crate) fn delay_with(options: WaitOptions) -> WaitResult {
    if let Err(error) = irql::require_at_most(Irql::APC) {
        return WaitResult::Failed(error);
    }
    let _stack = options.keep_stack();
    let interval = options.timeout.to_raw().unwrap_or(-crate::time::FAR);
    // SAFETY: the interval is a local variable, and the level was checked.
    let status = unsafe { sys::KeDelayExecutionThread(options.raw_mode(), options.alertable.into(), &raw const interval) };
    match WaitResult::from_raw(status) {
        // What a delay calls success is that the time has run out.
        WaitResult::Signaled(_) => WaitResult::TimedOut,
        result => result,
    }
}
