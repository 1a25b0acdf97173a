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
}
