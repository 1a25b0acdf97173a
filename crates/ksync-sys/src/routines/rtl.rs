//! The run-time library.

use crate::*;

routines! {
    // Strings.

    /// Counts a zero-terminated string; it is not copied.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL` if the string is nonpaged.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-rtlinitunicodestring)
    fn RtlInitUnicodeString(DestinationString: *mut UNICODE_STRING, SourceString: *const WCHAR);

    // Run once.

    /// Initialises a run-once block: writes zero.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-rtlrunonceinitialize)
    fn RtlRunOnceInitialize(RunOnce: *mut RTL_RUN_ONCE);

    /// Calls the routine once, and has others wait for it.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-rtlrunonceexecuteonce)
    fn RtlRunOnceExecuteOnce(RunOnce: *mut RTL_RUN_ONCE, InitFn: PRTL_RUN_ONCE_INIT_FN, Parameter: PVOID, Context: *mut PVOID) -> NTSTATUS;

    /// Begins to initialise: `STATUS_PENDING` if the caller shall, `STATUS_SUCCESS` if it is done.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-rtlrunoncebegininitialize)
    fn RtlRunOnceBeginInitialize(RunOnce: *mut RTL_RUN_ONCE, Flags: ULONG, Context: *mut PVOID) -> NTSTATUS;

    /// Completes what `RtlRunOnceBeginInitialize` began.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-rtlrunoncecomplete)
    fn RtlRunOnceComplete(RunOnce: *mut RTL_RUN_ONCE, Flags: ULONG, Context: PVOID) -> NTSTATUS;

    // The version.

    /// Writes the version of the running system.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-rtlgetversion)
    fn RtlGetVersion(VersionInformation: *mut RTL_OSVERSIONINFOW) -> NTSTATUS;
}
