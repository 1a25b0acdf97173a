//! Events: threads that signal each other.
//!
//! An event is signaled or not. A *notification* event stays signaled until it is cleared, and releases everyone who waits. A *synchronization* event
//! is cleared by the one wait that it satisfies.
//!
//! Choose an event when one thread tells others that something has happened. To hand out several of something, take a
//! [`Semaphore`](crate::semaphore::Semaphore); to protect data, a lock of [`mutex`](crate::mutex).
//!
//! The kernel's object is a [`KEVENT`](ksync_sys::KEVENT). [`Event`] keeps it in a box of nonpaged pool and can be moved; [`PinnedEvent`] is the object itself, to be
//! placed inside a larger structure, and has the operations.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::fmt;
use core::marker::PhantomPinned;
use core::ops::Deref;
use core::pin::Pin;

use ksync_sys as sys;

use crate::error::{NtError, Result};
use crate::init::{PinInit, pin_init_from_closure};
use crate::irql::{self, Irql};
use crate::pool::KBox;
use crate::wait::{Dispatchable, sealed};

/// What a wait does to an event that satisfies it.
#[doc(alias = "EVENT_TYPE")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EventProperty {
    /// Nothing: the event stays signaled and releases every waiter.
    Notification,
    /// It is cleared: each signal releases one waiter.
    Synchronization,
}

impl EventProperty {
    /// NT's number.
    pub(crate) const fn raw(self) -> sys::EVENT_TYPE {
        match self {
            Self::Notification => sys::NotificationEvent,
            Self::Synchronization => sys::SynchronizationEvent,
        }
    }
}

/// An event in its own box of nonpaged pool. It has the operations of [`PinnedEvent`].
///
/// # Examples
/// ```
/// use ksync::event::{Event, EventProperty};
/// use ksync::thread;
/// use ksync::wait::Dispatchable;
///
/// # ksim::Machine::new().processors(2).run(|| {
/// let ready = Event::new(EventProperty::Synchronization, false).unwrap();
/// thread::scope(|scope| {
///     let waiter = scope.spawn(|| ready.wait().success()).unwrap();
///     ready.set().unwrap();
///     assert_eq!(waiter.join(), Ok(true));
/// });
/// # }).expect_clean();
/// ```
pub struct Event(Pin<KBox<PinnedEvent>>);

impl Event {
    /// Makes an event.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::INSUFFICIENT_RESOURCES`] if there is no pool.
    /// - [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::event::{Event, EventProperty};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let event = Event::new(EventProperty::Notification, true).unwrap();
    /// assert_eq!(event.is_signaled(), Ok(true));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeInitializeEvent`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializeevent).
    #[doc(alias = "KeInitializeEvent")]
    pub fn new(property: EventProperty, signaled: bool) -> Result<Self> {
        Ok(Self(KBox::pin_init(PinnedEvent::pin_init(property, signaled))?))
    }
}

impl Deref for Event {
    type Target = PinnedEvent;

    #[inline]
    fn deref(&self) -> &PinnedEvent {
        &self.0
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl sealed::Sealed for Event {
    fn dispatcher_object(&self) -> *mut c_void {
        (**self).dispatcher_object()
    }
}

// SAFETY: as for `PinnedEvent`, which the box keeps in its place while it is borrowed.
unsafe impl Dispatchable for Event {}

/// An event in place.
///
/// # Invariants
/// The object is initialised, and stays where it is until it is dropped. Nobody waits on it when it is dropped, because a wait borrows it.
///
/// # Examples
/// Inside a larger structure:
/// ```
/// use ksync::event::{EventProperty, PinnedEvent};
/// use ksync::init::{PinInit, pin_data, try_pin_init};
/// use ksync::pool::KBox;
/// use ksync::NtError;
///
/// #[pin_data]
/// struct Extension {
///     #[pin]
///     done: PinnedEvent,
///     number: u32,
/// }
///
/// # ksim::Machine::new().run(|| {
/// let extension = KBox::pin_init(try_pin_init!(Extension {
///     done <- PinnedEvent::pin_init(EventProperty::Notification, false),
///     number: 7,
/// }? NtError)).unwrap();
/// assert_eq!(extension.done.set(), Ok(false));
/// # }).expect_clean();
/// ```
#[doc(alias = "KEVENT")]
#[repr(transparent)]
pub struct PinnedEvent {
    event: UnsafeCell<sys::KEVENT>,
    _pin: PhantomPinned,
}

// SAFETY: an event belongs to no thread; all that is done to it, dropping included, may be done in any.
unsafe impl Send for PinnedEvent {}
// SAFETY: the kernel's routines on events are atomic with respect to each other, and nothing else here touches the object.
unsafe impl Sync for PinnedEvent {}

impl PinnedEvent {
    /// Makes an event where it stays. The memory must be nonpaged.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::event::{EventProperty, PinnedEvent};
    /// use ksync::init::stack_try_pin_init;
    ///
    /// # ksim::Machine::new().run(|| {
    /// stack_try_pin_init!(let event = PinnedEvent::pin_init(EventProperty::Notification, false));
    /// let event = event.unwrap();
    /// assert_eq!(event.is_signaled(), Ok(false));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeInitializeEvent`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializeevent).
    #[doc(alias = "KeInitializeEvent")]
    pub fn pin_init(property: EventProperty, signaled: bool) -> impl PinInit<Self, NtError> {
        let initialise = move |slot: *mut Self| {
            // SAFETY: the slot is valid for writes, as initialisers are promised, and the event will not move from it.
            unsafe { sys::KeInitializeEvent(slot.cast(), property.raw(), signaled.into()) };
            Ok(())
        };
        // SAFETY: the closure initialises the whole of the slot, which is nothing but the event, and never fails.
        unsafe { pin_init_from_closure(initialise) }
    }

    /// The kernel's object.
    #[inline]
    fn raw(&self) -> *mut sys::KEVENT {
        self.event.get()
    }

    /// Signals the event, and tells whether it was signaled before.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::event::{Event, EventProperty};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let event = Event::new(EventProperty::Notification, false).unwrap();
    /// assert_eq!(event.set(), Ok(false));
    /// assert_eq!(event.set(), Ok(true));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeSetEvent`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kesetevent).
    #[doc(alias = "KeSetEvent")]
    #[inline]
    pub fn set(&self) -> Result<bool> {
        self.set_with_increment(sys::IO_NO_INCREMENT)
    }

    /// Signals the event as [`set`](Self::set) does, and raises the priority of threads that this wakes for a moment.
    ///
    /// An increment outside 0 to 15 counts as the nearest of these.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::event::{Event, EventProperty};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let event = Event::new(EventProperty::Notification, false).unwrap();
    /// assert_eq!(event.set_with_increment(ksync::sys::EVENT_INCREMENT), Ok(false));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeSetEvent`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kesetevent).
    #[doc(alias = "KeSetEvent")]
    #[inline]
    pub fn set_with_increment(&self, increment: i32) -> Result<bool> {
        irql::require_at_most(Irql::DISPATCH)?;
        // SAFETY: by the type's invariant the event is initialised and in its place. The level was checked; without `Wait`, `DISPATCH_LEVEL` is admitted.
        Ok(unsafe { sys::KeSetEvent(self.raw(), increment.clamp(0, 15), sys::FALSE) } != 0)
    }

    /// Clears the event, and tells whether it was signaled.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::event::{Event, EventProperty};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let event = Event::new(EventProperty::Notification, true).unwrap();
    /// assert_eq!(event.reset(), Ok(true));
    /// assert_eq!(event.reset(), Ok(false));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeResetEvent`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keresetevent).
    #[doc(alias = "KeResetEvent")]
    #[inline]
    pub fn reset(&self) -> Result<bool> {
        irql::require_at_most(Irql::DISPATCH)?;
        // SAFETY: by the type's invariant the event is initialised and in its place, and the level was checked.
        Ok(unsafe { sys::KeResetEvent(self.raw()) } != 0)
    }

    /// Clears the event. This is cheaper than [`reset`](Self::reset).
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::event::{Event, EventProperty};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let event = Event::new(EventProperty::Notification, true).unwrap();
    /// event.clear().unwrap();
    /// assert_eq!(event.is_signaled(), Ok(false));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeClearEvent`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keclearevent).
    #[doc(alias = "KeClearEvent")]
    #[inline]
    pub fn clear(&self) -> Result {
        irql::require_at_most(Irql::DISPATCH)?;
        // SAFETY: by the type's invariant the event is initialised and in its place, and the level was checked.
        unsafe { sys::KeClearEvent(self.raw()) };
        Ok(())
    }

    /// Releases those who wait now (all of them for a notification event, otherwise one) and leaves the event clear. Tells whether it was signaled before.
    ///
    /// A thread that is about to wait misses a pulse, and so does one whose wait is interrupted at that moment by a kernel APC. Prefer [`set`](Self::set) in new code.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::event::{Event, EventProperty};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let event = Event::new(EventProperty::Notification, false).unwrap();
    /// assert_eq!(event.pulse(), Ok(false));
    /// assert_eq!(event.is_signaled(), Ok(false));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KePulseEvent`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-kepulseevent).
    #[doc(alias = "KePulseEvent")]
    #[inline]
    pub fn pulse(&self) -> Result<bool> {
        irql::require_at_most(Irql::DISPATCH)?;
        // SAFETY: by the type's invariant the event is initialised and in its place. The level was checked; without `Wait`, `DISPATCH_LEVEL` is admitted.
        Ok(unsafe { sys::KePulseEvent(self.raw(), sys::IO_NO_INCREMENT, sys::FALSE) } != 0)
    }

    /// Tells whether the event is signaled, which may have changed when the caller looks at the answer.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::event::{Event, EventProperty};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let event = Event::new(EventProperty::Notification, true).unwrap();
    /// assert_eq!(event.is_signaled(), Ok(true));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeReadStateEvent`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereadstateevent).
    #[doc(alias = "KeReadStateEvent")]
    #[inline]
    pub fn is_signaled(&self) -> Result<bool> {
        irql::require_at_most(Irql::DISPATCH)?;
        // SAFETY: by the type's invariant the event is initialised and in its place, and the level was checked.
        Ok(unsafe { sys::KeReadStateEvent(self.raw()) } != 0)
    }

    /// The kernel's object, for routines that this library does not wrap, such as those of the I/O manager that signal an event.
    ///
    /// The pointer is valid for as long as the event is. The object must not be initialised again.
    #[must_use]
    pub fn as_raw(&self) -> *mut sys::KEVENT {
        self.raw()
    }
}

impl fmt::Debug for PinnedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut event = f.debug_struct("Event");
        match self.is_signaled() {
            Ok(signaled) => event.field("signaled", &signaled).finish(),
            Err(_) => event.finish_non_exhaustive(),
        }
    }
}

impl sealed::Sealed for PinnedEvent {
    fn dispatcher_object(&self) -> *mut c_void {
        self.raw().cast()
    }
}

// SAFETY: by the type's invariant the event is initialised, and it stays in its place at least while it is borrowed. A wait on an event asks nothing of the thread.
unsafe impl Dispatchable for PinnedEvent {}
