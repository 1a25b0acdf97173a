//! System services, as kernel mode calls them.

use crate::*;

routines! {
    // Handles.

    /// Closes a handle.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-zwclose)
    fn ZwClose(Handle: HANDLE) -> NTSTATUS;

    /// Waits for the object of a handle.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-zwwaitforsingleobject)
    fn ZwWaitForSingleObject(Handle: HANDLE, Alertable: BOOLEAN, Timeout: *const LARGE_INTEGER) -> NTSTATUS;

    /// Waits for the objects of up to 64 handles.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    fn ZwWaitForMultipleObjects(Count: ULONG, Handles: *const HANDLE, WaitType: WAIT_TYPE, Alertable: BOOLEAN, Timeout: *const LARGE_INTEGER) -> NTSTATUS;

    /// Makes another handle to the object of a handle.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-zwduplicateobject)
    fn ZwDuplicateObject(SourceProcessHandle: HANDLE, SourceHandle: HANDLE, TargetProcessHandle: HANDLE, TargetHandle: *mut HANDLE, DesiredAccess: ACCESS_MASK, HandleAttributes: ULONG, Options: ULONG) -> NTSTATUS;

    /// Tells facts about the object of a handle.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-ntqueryobject)
    fn ZwQueryObject(Handle: HANDLE, ObjectInformationClass: OBJECT_INFORMATION_CLASS, ObjectInformation: PVOID, ObjectInformationLength: ULONG, ReturnLength: *mut ULONG) -> NTSTATUS;

    // Events.

    /// Creates an event object, or opens a named one.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-zwcreateevent)
    fn ZwCreateEvent(EventHandle: *mut HANDLE, DesiredAccess: ACCESS_MASK, ObjectAttributes: *const OBJECT_ATTRIBUTES, EventType: EVENT_TYPE, InitialState: BOOLEAN) -> NTSTATUS;

    /// Opens a named event object.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    fn ZwOpenEvent(EventHandle: *mut HANDLE, DesiredAccess: ACCESS_MASK, ObjectAttributes: *const OBJECT_ATTRIBUTES) -> NTSTATUS;

    /// Signals an event object.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-zwsetevent)
    fn ZwSetEvent(EventHandle: HANDLE, PreviousState: *mut LONG) -> NTSTATUS;

    /// Clears an event object.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    fn ZwResetEvent(EventHandle: HANDLE, PreviousState: *mut LONG) -> NTSTATUS;

    /// Clears an event object.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    fn ZwClearEvent(EventHandle: HANDLE) -> NTSTATUS;

    /// Signals an event object for the waits that are there now.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    fn ZwPulseEvent(EventHandle: HANDLE, PreviousState: *mut LONG) -> NTSTATUS;

    // Timers.

    /// Creates a timer object, or opens a named one.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-zwcreatetimer)
    fn ZwCreateTimer(TimerHandle: *mut HANDLE, DesiredAccess: ACCESS_MASK, ObjectAttributes: *const OBJECT_ATTRIBUTES, TimerType: TIMER_TYPE) -> NTSTATUS;

    /// Opens a named timer object.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-zwopentimer)
    fn ZwOpenTimer(TimerHandle: *mut HANDLE, DesiredAccess: ACCESS_MASK, ObjectAttributes: *const OBJECT_ATTRIBUTES) -> NTSTATUS;

    /// Sets a timer object, with an APC for the current thread if there is a routine.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-zwsettimer)
    fn ZwSetTimer(TimerHandle: HANDLE, DueTime: *const LARGE_INTEGER, TimerApcRoutine: PTIMER_APC_ROUTINE, TimerContext: PVOID, ResumeTimer: BOOLEAN, Period: LONG, PreviousState: *mut BOOLEAN) -> NTSTATUS;

    /// Sets a timer object whose expiries may be late, as the information says.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-zwsettimerex)
    fn ZwSetTimerEx(TimerHandle: HANDLE, TimerSetInformationClass: TIMER_SET_INFORMATION_CLASS, TimerSetInformation: PVOID, TimerSetInformationLength: ULONG) -> NTSTATUS;

    /// Cancels a timer object.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-zwcanceltimer)
    fn ZwCancelTimer(TimerHandle: HANDLE, CurrentState: *mut BOOLEAN) -> NTSTATUS;

    // Threads and processes.

    /// Lets another ready thread run; `STATUS_NO_YIELD_PERFORMED` if there is none.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    fn ZwYieldExecution() -> NTSTATUS;

    /// Opens a handle to a thread by its identifier.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    fn ZwOpenThread(ThreadHandle: *mut HANDLE, DesiredAccess: ACCESS_MASK, ObjectAttributes: *const OBJECT_ATTRIBUTES, ClientId: *const CLIENT_ID) -> NTSTATUS;

    /// Opens a handle to a process by its identifier.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-zwopenprocess)
    fn ZwOpenProcess(ProcessHandle: *mut HANDLE, DesiredAccess: ACCESS_MASK, ObjectAttributes: *const OBJECT_ATTRIBUTES, ClientId: *const CLIENT_ID) -> NTSTATUS;

    /// Alerts a thread in kernel mode.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    fn ZwAlertThread(ThreadHandle: HANDLE) -> NTSTATUS;

    /// Tells facts about a thread.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-zwqueryinformationthread)
    fn ZwQueryInformationThread(ThreadHandle: HANDLE, ThreadInformationClass: THREADINFOCLASS, ThreadInformation: PVOID, ThreadInformationLength: ULONG, ReturnLength: *mut ULONG) -> NTSTATUS;

    /// Changes facts about a thread.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-zwsetinformationthread)
    fn ZwSetInformationThread(ThreadHandle: HANDLE, ThreadInformationClass: THREADINFOCLASS, ThreadInformation: PVOID, ThreadInformationLength: ULONG) -> NTSTATUS;

    /// Tells facts about a process.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-zwqueryinformationprocess)
    fn ZwQueryInformationProcess(ProcessHandle: HANDLE, ProcessInformationClass: PROCESSINFOCLASS, ProcessInformation: PVOID, ProcessInformationLength: ULONG, ReturnLength: *mut ULONG) -> NTSTATUS;

    // The same services, called in the mode that the thread was in before.

    /// `ZwClose` for the previous mode.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    fn NtClose(Handle: HANDLE) -> NTSTATUS;

    /// `ZwCreateEvent` for the previous mode.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    fn NtCreateEvent(EventHandle: *mut HANDLE, DesiredAccess: ACCESS_MASK, ObjectAttributes: *const OBJECT_ATTRIBUTES, EventType: EVENT_TYPE, InitialState: BOOLEAN) -> NTSTATUS;

    /// `ZwSetEvent` for the previous mode.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    fn NtSetEvent(EventHandle: HANDLE, PreviousState: *mut LONG) -> NTSTATUS;

    /// `ZwWaitForSingleObject` for the previous mode, which is also the wait's.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    fn NtWaitForSingleObject(Handle: HANDLE, Alertable: BOOLEAN, Timeout: *const LARGE_INTEGER) -> NTSTATUS;
}
