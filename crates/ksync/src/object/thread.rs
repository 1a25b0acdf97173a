//! Threads.

use core::ptr::{self, NonNull};

use ksync_sys as sys;

use super::{KernelObject, Thread, ThreadId};
use crate::error::{NtError, NtStatus, Result, check};
use crate::irql::{self, Irql};

impl KernelObject<Thread> {
    /// The current thread.
    ///
    /// In a DPC that is the thread it has interrupted. On a processor that was idle this is the idle processor's own thread, which is no object like others: it has the number 0 and the priority 0, never ends, and
    /// gets neither a handle nor a wait, for which the error is [`NtError::INVALID_CID`].
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ThreadObject;
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(ThreadObject::current(), ThreadObject::current());
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps `KeGetCurrentThread`.
    #[doc(alias = "KeGetCurrentThread")]
    #[doc(alias = "PsGetCurrentThread")]
    #[must_use]
    pub fn current() -> Self {
        // SAFETY: the routine may be called anywhere.
        let thread = unsafe { sys::KeGetCurrentThread() };
        // SAFETY: there always is a current thread.
        let thread = unsafe { NonNull::new_unchecked(thread.cast()) };
        // SAFETY: the current thread is a thread, and alive while it runs this.
        unsafe { Self::reference(thread) }
    }

    /// The thread with an identifier, such as that of [`this_thread::id`](crate::thread::this_thread::id).
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// - The status of `PsLookupThreadByThreadId`, `STATUS_INVALID_PARAMETER` as a rule, if there is no such thread.
    /// - [`NtError::IRQL_TOO_HIGH`] above `APC_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ThreadObject;
    /// use ksync::thread::this_thread;
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(ThreadObject::from_thread_id(this_thread::id()).unwrap().id(), this_thread::id());
    /// assert!(ThreadObject::from_thread_id(0x7FFF_FFF0).is_err());
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`PsLookupThreadByThreadId`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-pslookupthreadbythreadid).
    #[doc(alias = "PsLookupThreadByThreadId")]
    pub fn from_thread_id(id: impl Into<ThreadId>) -> Result<Self> {
        // Before the level is looked at: the conversion is the caller's code.
        let id = id.into().raw();
        irql::require_at_most(Irql::APC)?;
        let mut thread = ptr::null_mut();
        // SAFETY: the object is written to a local variable, and the level was checked. Any number may be passed as an identifier.
        let status = unsafe { sys::PsLookupThreadByThreadId(id, &raw mut thread) };
        check(status)?;
        let thread = NonNull::new(thread).ok_or(NtError::INVALID_CID)?;
        // SAFETY: the routine succeeded: it found a thread, and gave us a reference.
        Ok(unsafe { Self::from_raw(thread) })
    }

    /// The thread that a handle stands for. See [`from_handle`](Self::from_handle); a user's handle must grant `SYNCHRONIZE`.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// Those of [`from_handle`](Self::from_handle).
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::object::ThreadObject;
    /// use ksync::sys::HANDLE;
    /// use ksync::wait::Dispatchable;
    /// use ksync::NtError;
    ///
    /// fn is_thread_exited(h_thread: HANDLE) -> Result<bool, NtError> {
    ///     match ThreadObject::from_thread_handle(h_thread) {
    ///         Ok(thread) => Ok(thread.wait_for(Duration::ZERO, false).success()),
    ///         Err(e) => Err(e),
    ///     }
    /// }
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(is_thread_exited(0x1024 as HANDLE), Err(NtError::INVALID_HANDLE));
    /// assert_eq!(is_thread_exited(ksync::sys::NtCurrentThread()), Ok(false));
    /// # }).expect_clean();
    /// ```
    #[doc(alias = "ObReferenceObjectByHandle")]
    pub fn from_thread_handle(handle: sys::HANDLE) -> Result<Self> {
        Self::from_handle(handle, sys::SYNCHRONIZE)
    }

    /// The thread's identifier.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ThreadObject;
    /// use ksync::thread::this_thread;
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(ThreadObject::current().id(), this_thread::id());
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`PsGetThreadId`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-psgetthreadid).
    #[doc(alias = "PsGetThreadId")]
    #[must_use]
    pub fn id(&self) -> ThreadId {
        // SAFETY: by the type's invariant the object is a live thread.
        ThreadId::from_raw(unsafe { sys::PsGetThreadId(self.as_raw()) })
    }

    /// The status that the thread ended with, or `None` if it has not ended.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`] above `APC_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ThreadObject;
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(ThreadObject::current().exit_status(), Ok(None));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`PsGetThreadExitStatus`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-psgetthreadexitstatus).
    #[doc(alias = "PsGetThreadExitStatus")]
    pub fn exit_status(&self) -> Result<Option<NtStatus>> {
        irql::require_at_most(Irql::APC)?;
        if !self.is_terminated()? {
            return Ok(None);
        }
        // SAFETY: by the type's invariant the object is a thread with a reference, and the level was checked.
        Ok(Some(NtStatus(unsafe { sys::PsGetThreadExitStatus(self.as_raw()) })))
    }

    /// The thread's current priority, from 0 to 31.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ThreadObject;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let thread = ThreadObject::current();
    /// thread.set_priority(16).unwrap();
    /// assert_eq!(thread.priority(), Ok(16));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeQueryPriorityThread`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequeryprioritythread).
    #[doc(alias = "KeQueryPriorityThread")]
    pub fn priority(&self) -> Result<i32> {
        irql::require_at_most(Irql::DISPATCH)?;
        if !self.is_counted() {
            return Ok(0);
        }
        // SAFETY: by the type's invariant the object is a live thread, and the level was checked.
        Ok(unsafe { sys::KeQueryPriorityThread(self.as_raw().cast()) })
    }

    /// Sets the thread's base priority, from 1 to 31, and tells the one before. From 16 on priorities are real-time.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::INVALID_PARAMETER`] for a priority out of range.
    /// - [`NtError::INVALID_CID`] for the thread of an idle processor.
    /// - [`NtError::IRQL_TOO_HIGH`] above `PASSIVE_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ThreadObject;
    /// use ksync::NtError;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let thread = ThreadObject::current();
    /// let before = thread.set_priority(16).unwrap();
    /// assert_eq!(thread.set_priority(before), Ok(16));
    /// assert_eq!(thread.set_priority(32), Err(NtError::INVALID_PARAMETER));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeSetPriorityThread`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kesetprioritythread).
    #[doc(alias = "KeSetPriorityThread")]
    pub fn set_priority(&self, priority: i32) -> Result<i32> {
        irql::require_at_most(Irql::PASSIVE)?;
        if !(1..=sys::HIGH_PRIORITY).contains(&priority) {
            return Err(NtError::INVALID_PARAMETER);
        }
        if !self.is_counted() {
            return Err(NtError::INVALID_CID);
        }
        // SAFETY: by the type's invariant the object is a live thread. The level and the priority were checked.
        Ok(unsafe { sys::KeSetPriorityThread(self.as_raw().cast(), priority) })
    }

    /// Tells whether the thread has ended.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ThreadObject;
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(ThreadObject::current().is_terminated(), Ok(false));
    /// # }).expect_clean();
    /// ```
    pub fn is_terminated(&self) -> Result<bool> {
        self.poll()
    }
}
