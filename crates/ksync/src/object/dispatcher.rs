//! Events, semaphores, mutants and timers that others made, users as a rule.

use ksync_sys as sys;

use super::{Event, KernelObject, Mutant, Semaphore, Timer};
use crate::error::{NtError, Result};
use crate::irql::{self, Irql};

impl KernelObject<Event> {
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
    /// use ksync::event::EventProperty;
    /// use ksync::handle::ObjectHandle;
    /// use ksync::object::EventObject;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let handle = ObjectHandle::create_event(None, EventProperty::Notification, false).unwrap();
    /// let event: EventObject = handle.to_object().unwrap();
    /// assert_eq!(event.set(), Ok(false));
    /// assert_eq!(event.is_signaled(), Ok(true));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeSetEvent`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kesetevent).
    #[doc(alias = "KeSetEvent")]
    pub fn set(&self) -> Result<bool> {
        irql::require_at_most(Irql::DISPATCH)?;
        // SAFETY: by the type's invariant the object is a live event, and the level was checked. No wait follows.
        Ok(unsafe { sys::KeSetEvent(self.as_raw(), 0, sys::FALSE) } != 0)
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
    /// use ksync::event::EventProperty;
    /// use ksync::handle::ObjectHandle;
    /// use ksync::object::EventObject;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let handle = ObjectHandle::create_event(None, EventProperty::Notification, true).unwrap();
    /// let event: EventObject = handle.to_object().unwrap();
    /// assert_eq!((event.reset(), event.reset()), (Ok(true), Ok(false)));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeResetEvent`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keresetevent).
    #[doc(alias = "KeResetEvent")]
    #[doc(alias = "KeClearEvent")]
    pub fn reset(&self) -> Result<bool> {
        irql::require_at_most(Irql::DISPATCH)?;
        // SAFETY: by the type's invariant the object is a live event, and the level was checked.
        Ok(unsafe { sys::KeResetEvent(self.as_raw()) } != 0)
    }

    /// Tells whether the event is signaled.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// See [`set`](Self::set).
    ///
    /// Wraps [`KeReadStateEvent`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereadstateevent).
    #[doc(alias = "KeReadStateEvent")]
    pub fn is_signaled(&self) -> Result<bool> {
        irql::require_at_most(Irql::DISPATCH)?;
        // SAFETY: by the type's invariant the object is a live event, and the level was checked.
        Ok(unsafe { sys::KeReadStateEvent(self.as_raw()) } != 0)
    }
}

impl KernelObject<Semaphore> {
    /// The count at the moment.
    ///
    /// A wait counts the semaphore down. There is no release: how far it may be released is known to its maker only, and one release too many is an exception that
    /// nobody in the kernel handles.
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
    /// use ksync::object::{Semaphore, SemaphoreObject};
    /// use ksync::sys::{HANDLE, SYNCHRONIZE};
    /// use ksync::wait::Dispatchable;
    ///
    /// # ksim::Machine::new().run(|| ksim::in_process(ksim::create_process(), || {
    /// let handle = ksim::create_semaphore(2, 5).unwrap() as HANDLE; // a user's
    /// let semaphore = SemaphoreObject::from_handle(handle, SYNCHRONIZE).unwrap();
    /// assert!(semaphore.wait_for(Duration::ZERO, false).success());
    /// assert_eq!(semaphore.count(), Ok(1));
    /// # unsafe { ksync::sys::ZwClose(handle) };
    /// # })).expect_clean();
    /// ```
    ///
    /// Wraps [`KeReadStateSemaphore`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereadstatesemaphore).
    #[doc(alias = "KeReadStateSemaphore")]
    pub fn count(&self) -> Result<u32> {
        irql::require_at_most(Irql::DISPATCH)?;
        // SAFETY: by the type's invariant the object is a live semaphore, and the level was checked.
        let count = unsafe { sys::KeReadStateSemaphore(self.as_raw()) };
        // A semaphore's count is never negative.
        Ok(u32::try_from(count).unwrap_or(0))
    }
}

impl KernelObject<Mutant> {
    /// Tells whether nobody owns the mutant.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// See [`release`](Self::release).
    ///
    /// Wraps [`KeReadStateMutex`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereadstatemutex).
    #[doc(alias = "KeReadStateMutex")]
    pub fn is_free(&self) -> Result<bool> {
        irql::require_at_most(Irql::DISPATCH)?;
        // SAFETY: by the type's invariant the object is a live mutant, and the level was checked.
        Ok(unsafe { sys::KeReadStateMutex(self.as_raw()) } > 0)
    }

    /// Releases the mutant once, which the current thread owns since it waited for it.
    ///
    /// A thread that has waited several times releases it as often. One that ends and owns it abandons it: the next owner's wait is
    /// [`WaitResult::Abandoned`](crate::wait::WaitResult::Abandoned).
    ///
    /// # IRQL
    /// `<= APC_LEVEL`. A mutant cannot be waited for at `DISPATCH_LEVEL` here, not even with [`Timeout::POLL`](crate::time::Timeout::POLL), because it would have to be
    /// released there too.
    ///
    /// # Errors
    /// - [`NtError::MUTANT_NOT_OWNED`] if another thread owns it, or nobody.
    /// - [`NtError::IRQL_TOO_HIGH`] above `APC_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::MutantObject;
    /// use ksync::sys::{HANDLE, SYNCHRONIZE};
    /// use ksync::wait::Dispatchable;
    /// use ksync::NtError;
    ///
    /// # ksim::Machine::new().run(|| ksim::in_process(ksim::create_process(), || {
    /// let handle = ksim::create_mutant(false).unwrap() as HANDLE; // a user's
    /// let mutant = MutantObject::from_handle(handle, SYNCHRONIZE).unwrap();
    /// assert!(mutant.wait().success());
    /// assert_eq!(mutant.is_free(), Ok(false));
    /// assert_eq!(mutant.release(), Ok(()));
    /// assert_eq!(mutant.release(), Err(NtError::MUTANT_NOT_OWNED));
    /// # unsafe { ksync::sys::ZwClose(handle) };
    /// # })).expect_clean();
    /// ```
    ///
    /// Wraps [`KeReleaseMutex`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereleasemutex).
    #[doc(alias = "KeReleaseMutex")]
    pub fn release(&self) -> Result {
        irql::require_at_most(Irql::APC)?;
        // SAFETY: by the type's invariant the object is a live mutant.
        if !unsafe { is_own(self.as_raw()) } {
            return Err(NtError::MUTANT_NOT_OWNED);
        }
        // SAFETY: the current thread owns the mutant, and below `DISPATCH_LEVEL` since its wait, so that no exception is raised. The level was checked. No wait follows.
        unsafe { sys::KeReleaseMutex(self.as_raw(), sys::FALSE) };
        Ok(())
    }
}

impl KernelObject<Timer> {
    /// Tells whether the timer has expired.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::TimerObject;
    /// use ksync::sys::{self, TIMER_ALL_ACCESS};
    ///
    /// # ksim::Machine::new().run(|| {
    /// # let mut handle = core::ptr::null_mut();
    /// # // SAFETY: the handle is a local variable.
    /// # unsafe { sys::ZwCreateTimer(&mut handle, TIMER_ALL_ACCESS, core::ptr::null(), sys::NotificationTimer) };
    /// let timer = TimerObject::from_handle(handle, TIMER_ALL_ACCESS).unwrap(); // a user's
    /// assert_eq!(timer.is_signaled(), Ok(false));
    /// # unsafe { sys::ZwClose(handle) };
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeReadStateTimer`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereadstatetimer).
    #[doc(alias = "KeReadStateTimer")]
    pub fn is_signaled(&self) -> Result<bool> {
        irql::require_at_most(Irql::DISPATCH)?;
        // SAFETY: by the type's invariant the object is a live timer, and the level was checked.
        Ok(unsafe { sys::KeReadStateTimer(self.as_raw()) } != 0)
    }
}

/// Tells whether the current thread owns a mutant.
///
/// # Safety
/// The mutant is alive.
unsafe fn is_own(mutant: *mut sys::KMUTANT) -> bool {
    // SAFETY: by this function's contract; the field is only pointed to.
    let owner = unsafe { &raw const (*mutant).OwnerThread };
    // SAFETY: as above. Others change the field meanwhile, but only the current thread makes it itself, or stops to be it; a pointer is read whole.
    let owner = unsafe { owner.read_volatile() };
    // SAFETY: the routine may be called anywhere.
    owner == unsafe { sys::KeGetCurrentThread() }
}

/// Checks that a wait can take a mutant once more: for its owner, who has taken it as often as it can count, the wait would raise an exception.
///
/// # Safety
/// The mutant is alive.
pub(super) unsafe fn check_count(mutant: *mut sys::KMUTANT) -> Result {
    // SAFETY: by this function's contract.
    if !unsafe { is_own(mutant) } {
        return Ok(());
    }
    // SAFETY: as above; the field is only pointed to.
    let state = unsafe { &raw const (*mutant).Header.SignalState };
    // SAFETY: as above. While the current thread owns the mutant nobody else changes the field.
    if unsafe { state.read_volatile() } == i32::MIN { Err(NtError::MUTANT_LIMIT_EXCEEDED) } else { Ok(()) }
}
