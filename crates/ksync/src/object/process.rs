//! Processes.

use core::ptr::{self, NonNull};

use ksync_sys as sys;

use super::{KernelObject, Process, ProcessId};
use crate::error::{NtError, Result, check};
use crate::irql::{self, Irql};

impl KernelObject<Process> {
    /// The process of the current thread, or the one that it is attached to.
    ///
    /// In a DPC on a processor that was idle this is the idle process, which is no object like others: it has the number 0, never ends, and gets neither a handle nor a wait, for which the error is
    /// [`NtError::INVALID_CID`].
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ProcessObject;
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(ProcessObject::current().id(), 4); // a system thread
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`IoGetCurrentProcess`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-iogetcurrentprocess).
    #[doc(alias = "PsGetCurrentProcess")]
    #[doc(alias = "IoGetCurrentProcess")]
    #[must_use]
    pub fn current() -> Self {
        // SAFETY: the routine may be called anywhere.
        let process = unsafe { sys::PsGetCurrentProcess() };
        // SAFETY: there always is a current process.
        let process = unsafe { NonNull::new_unchecked(process) };
        // SAFETY: the current process is a process, and alive while one of its threads, or one attached to it, runs this.
        unsafe { Self::reference(process) }
    }

    /// The process with an identifier.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// - The status of `PsLookupProcessByProcessId`, `STATUS_INVALID_PARAMETER` as a rule, if there is no such process.
    /// - [`NtError::IRQL_TOO_HIGH`] above `APC_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ProcessObject;
    ///
    /// # ksim::Machine::new().run(|| {
    /// if let Ok(process) = ProcessObject::from_process_id(0x1024) {
    ///     // ...
    /// #   panic!("{process:?}");
    /// } // the reference is given back here
    /// let system = ProcessObject::from_process_id(4).unwrap();
    /// assert_eq!(system.id(), 4);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`PsLookupProcessByProcessId`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-pslookupprocessbyprocessid).
    #[doc(alias = "PsLookupProcessByProcessId")]
    pub fn from_process_id(id: impl Into<ProcessId>) -> Result<Self> {
        // Before the level is looked at: the conversion is the caller's code.
        let id = id.into().raw();
        irql::require_at_most(Irql::APC)?;
        let mut process = ptr::null_mut();
        // SAFETY: the object is written to a local variable, and the level was checked. Any number may be passed as an identifier.
        let status = unsafe { sys::PsLookupProcessByProcessId(id, &raw mut process) };
        check(status)?;
        let process = NonNull::new(process).ok_or(NtError::INVALID_CID)?;
        // SAFETY: the routine succeeded: it found a process, and gave us a reference.
        Ok(unsafe { Self::from_raw(process) })
    }

    /// The process that a handle stands for. See [`from_handle`](Self::from_handle); a user's handle must grant `SYNCHRONIZE`.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// Those of [`from_handle`](Self::from_handle).
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ProcessObject;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let process = ProcessObject::from_process_handle(ksync::sys::NtCurrentProcess());
    /// assert_eq!(process, Ok(ProcessObject::current()));
    /// # }).expect_clean();
    /// ```
    #[doc(alias = "ObReferenceObjectByHandle")]
    pub fn from_process_handle(handle: sys::HANDLE) -> Result<Self> {
        Self::from_handle(handle, sys::SYNCHRONIZE)
    }

    /// The process' identifier.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ProcessObject;
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(ProcessObject::current().id(), 4);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`PsGetProcessId`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-psgetprocessid).
    #[doc(alias = "PsGetProcessId")]
    #[must_use]
    pub fn id(&self) -> ProcessId {
        // SAFETY: by the type's invariant the object is a live process.
        ProcessId::from_raw(unsafe { sys::PsGetProcessId(self.as_raw()) })
    }

    /// Tells whether the process has ended.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ProcessObject;
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(ProcessObject::current().is_terminated(), Ok(false));
    /// # }).expect_clean();
    /// ```
    pub fn is_terminated(&self) -> Result<bool> {
        self.poll()
    }
}
