//! Deferred and asynchronous procedure calls, and regions that hold the latter back.

use crate::*;

routines! {
    // DPCs.

    /// Initialises a DPC.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializedpc)
    fn KeInitializeDpc(Dpc: *mut KDPC, DeferredRoutine: PKDEFERRED_ROUTINE, DeferredContext: PVOID);

    /// Initialises a DPC whose routine may run at `PASSIVE_LEVEL` in a thread of the highest priority.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializethreadeddpc)
    fn KeInitializeThreadedDpc(Dpc: *mut KDPC, DeferredRoutine: PKDEFERRED_ROUTINE, DeferredContext: PVOID);

    /// Queues the DPC; false if it is queued already.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinsertqueuedpc)
    fn KeInsertQueueDpc(Dpc: *mut KDPC, SystemArgument1: PVOID, SystemArgument2: PVOID) -> BOOLEAN;

    /// Takes the DPC out of its queue; true means that the routine did not start.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keremovequeuedpc)
    fn KeRemoveQueueDpc(Dpc: *mut KDPC) -> BOOLEAN;

    /// Takes the DPC out of its queue; true means that the routine did not start. Waits, if asked to, until the routine does not run any more.
    ///
    /// # IRQL
    /// Any level; `<= DISPATCH_LEVEL` to wait.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keremovequeuedpcex)
    fn KeRemoveQueueDpcEx(Dpc: *mut KDPC, WaitIfActive: BOOLEAN) -> BOOLEAN;

    /// Runs a routine on all processors at IPI_LEVEL, while each does nothing else, and returns what it returned on the calling one.
    ///
    /// # IRQL
    /// `< IPI_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keipigenericcall)
    fn KeIpiGenericCall(BroadcastFunction: PKIPI_BROADCAST_WORKER, Context: ULONG_PTR) -> ULONG_PTR;

    /// Returns when every DPC that was queued before the call has run, on all processors.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keflushqueueddpcs)
    fn KeFlushQueuedDpcs();

    /// Sets the importance for later insertions.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kesetimportancedpc)
    fn KeSetImportanceDpc(Dpc: *mut KDPC, Importance: KDPC_IMPORTANCE);

    /// Sets the processor for later insertions, by its number in group 0.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-kesettargetprocessordpc)
    fn KeSetTargetProcessorDpc(Dpc: *mut KDPC, Number: CCHAR);

    /// Sets the processor for later insertions.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kesettargetprocessordpcex)
    fn KeSetTargetProcessorDpcEx(Dpc: *mut KDPC, ProcNumber: *mut PROCESSOR_NUMBER) -> NTSTATUS;

    /// Runs the routine on every processor at `DISPATCH_LEVEL` and returns when all are done.
    ///
    /// Undocumented.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    fn KeGenericCallDpc(Routine: PKDEFERRED_ROUTINE, Context: PVOID);

    /// Ends a `KeGenericCallDpc` routine, with its first argument.
    ///
    /// Undocumented.
    ///
    /// # IRQL
    /// `DISPATCH_LEVEL`.
    fn KeSignalCallDpcDone(SystemArgument1: PVOID);

    /// Waits in a `KeGenericCallDpc` routine until every processor is here; true on one of them.
    ///
    /// Undocumented.
    ///
    /// # IRQL
    /// `DISPATCH_LEVEL`.
    fn KeSignalCallDpcSynchronize(SystemArgument2: PVOID) -> LOGICAL;

    // Critical and guarded regions.

    /// Holds back user APCs and normal kernel APCs of this thread.
    ///
    /// Nests.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-keentercriticalregion)
    fn KeEnterCriticalRegion();

    /// Undoes one `KeEnterCriticalRegion`.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-keleavecriticalregion)
    fn KeLeaveCriticalRegion();

    /// Holds back all APCs of this thread.
    ///
    /// Nests.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keenterguardedregion)
    fn KeEnterGuardedRegion();

    /// Undoes one `KeEnterGuardedRegion`.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keleaveguardedregion)
    fn KeLeaveGuardedRegion();

    /// Tells whether the thread is in a critical or guarded region.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-keareapcsdisabled)
    fn KeAreApcsDisabled() -> BOOLEAN;

    /// Tells whether the thread is in a guarded region or at `APC_LEVEL` or above.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keareallapcsdisabled)
    fn KeAreAllApcsDisabled() -> BOOLEAN;

    // APCs.

    /// Initialises an APC.
    ///
    /// Undocumented.
    ///
    /// # IRQL
    /// Any level.
    fn KeInitializeApc(Apc: *mut KAPC, Thread: *mut KTHREAD, Environment: KAPC_ENVIRONMENT, KernelRoutine: PKKERNEL_ROUTINE, RundownRoutine: PKRUNDOWN_ROUTINE, NormalRoutine: PKNORMAL_ROUTINE, ApcMode: KPROCESSOR_MODE, NormalContext: PVOID);

    /// Queues the APC to its thread; false if it is queued already or the thread takes no more.
    ///
    /// Undocumented.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    fn KeInsertQueueApc(Apc: *mut KAPC, SystemArgument1: PVOID, SystemArgument2: PVOID, Increment: KPRIORITY) -> BOOLEAN;

    /// Takes the APC out of its queue; false if it was not there.
    ///
    /// Undocumented. Not exported by Windows 7 and not in any published import library; resolve it at run time.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    fn KeRemoveQueueApc(Apc: *mut KAPC) -> BOOLEAN;

    /// Clears the current thread's alert for a mode and returns whether it was set.
    ///
    /// Undocumented.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    fn KeTestAlertThread(AlertMode: KPROCESSOR_MODE) -> BOOLEAN;

    /// Alerts a thread, which ends an alertable wait, and returns whether it was alerted.
    ///
    /// Undocumented.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    fn KeAlertThread(Thread: *mut KTHREAD, AlertMode: KPROCESSOR_MODE) -> BOOLEAN;
}
