//! Threads and processes.

use crate::*;

routines! {
    // System threads.

    /// Creates a system thread, which starts in a critical region.
    ///
    /// Pass `OBJ_KERNEL_HANDLE` unless in the system process.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-pscreatesystemthread)
    fn PsCreateSystemThread(ThreadHandle: *mut HANDLE, DesiredAccess: ULONG, ObjectAttributes: *const OBJECT_ATTRIBUTES, ProcessHandle: HANDLE, ClientId: *mut CLIENT_ID, StartRoutine: PKSTART_ROUTINE, StartContext: PVOID) -> NTSTATUS;

    /// Ends the current system thread.
    ///
    /// Returns only on failure, for other threads.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-psterminatesystemthread)
    fn PsTerminateSystemThread(ExitStatus: NTSTATUS) -> NTSTATUS;

    /// Tells whether the thread is a system thread.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-psissystemthread)
    fn PsIsSystemThread(Thread: *mut ETHREAD) -> BOOLEAN;

    /// Tells whether the thread is ending.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-psisthreadterminating)
    fn PsIsThreadTerminating(Thread: *mut ETHREAD) -> BOOLEAN;

    /// Returns the thread's exit status, or `STATUS_PENDING`.
    ///
    /// Not exported by Windows 7.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-psgetthreadexitstatus)
    fn PsGetThreadExitStatus(Thread: *mut ETHREAD) -> NTSTATUS;

    // Identifiers.

    /// Returns the current thread's identifier.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-psgetcurrentthreadid)
    fn PsGetCurrentThreadId() -> HANDLE;

    /// Returns the current process's identifier.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-psgetcurrentprocessid)
    fn PsGetCurrentProcessId() -> HANDLE;

    /// Returns the thread's identifier.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-psgetthreadid)
    fn PsGetThreadId(Thread: *mut ETHREAD) -> HANDLE;

    /// Returns the identifier of the thread's process.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-psgetthreadprocessid)
    fn PsGetThreadProcessId(Thread: *mut ETHREAD) -> HANDLE;

    /// Returns the process's identifier.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-psgetprocessid)
    fn PsGetProcessId(Process: *mut EPROCESS) -> HANDLE;

    // Objects.

    /// Returns the thread's process, without a reference.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-psgetthreadprocess)
    fn PsGetThreadProcess(Thread: *mut ETHREAD) -> *mut EPROCESS;

    /// Returns the process's exit status, or `STATUS_PENDING`.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-psgetprocessexitstatus)
    fn PsGetProcessExitStatus(Process: *mut EPROCESS) -> NTSTATUS;

    /// Finds a process by its identifier and references it.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-pslookupprocessbyprocessid)
    fn PsLookupProcessByProcessId(ProcessId: HANDLE, Process: *mut *mut EPROCESS) -> NTSTATUS;

    /// Finds a thread by its identifier and references it.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-pslookupthreadbythreadid)
    fn PsLookupThreadByThreadId(ThreadId: HANDLE, Thread: *mut *mut ETHREAD) -> NTSTATUS;
}

data_exports! {
    /// The system process.
    static PsInitialSystemProcess: *mut EPROCESS;

    /// The type of processes. `*PsProcessType` in C.
    static PsProcessType: *mut OBJECT_TYPE;

    /// The type of threads. `*PsThreadType` in C.
    static PsThreadType: *mut OBJECT_TYPE;
}
