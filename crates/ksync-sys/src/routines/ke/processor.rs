//! Threads, processors, time, and bug checks.

use crate::*;

routines! {
    // Threads and processors.

    /// Returns the current thread.
    ///
    /// # IRQL
    /// Any level.
    fn KeGetCurrentThread() -> *mut KTHREAD;

    /// Returns the index of the current processor, and its group and number if asked.
    ///
    /// # IRQL
    /// Any; the answer lasts at `>= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kegetcurrentprocessornumberex)
    fn KeGetCurrentProcessorNumberEx(ProcNumber: *mut PROCESSOR_NUMBER) -> ULONG;

    /// Returns how many processors of group 0 are active, and which.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequeryactiveprocessorcount)
    fn KeQueryActiveProcessorCount(ActiveProcessors: *mut KAFFINITY) -> ULONG;

    /// Returns how many processors of a group, or of all, are active.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequeryactiveprocessorcountex)
    fn KeQueryActiveProcessorCountEx(GroupNumber: USHORT) -> ULONG;

    /// Returns which processors of group 0 are active.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequeryactiveprocessors)
    fn KeQueryActiveProcessors() -> KAFFINITY;

    /// Returns how many processors a group, or all, can have.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequerymaximumprocessorcountex)
    fn KeQueryMaximumProcessorCountEx(GroupNumber: USHORT) -> ULONG;

    /// Returns how many groups have active processors.
    ///
    /// Since Windows 7.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequeryactivegroupcount)
    fn KeQueryActiveGroupCount() -> USHORT;

    /// Returns how many groups there can be.
    ///
    /// Since Windows 7.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequerymaximumgroupcount)
    fn KeQueryMaximumGroupCount() -> USHORT;

    /// Returns which processors of a group are active; zero if there is no such group.
    ///
    /// Since Windows 7.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequerygroupaffinity)
    fn KeQueryGroupAffinity(GroupNumber: USHORT) -> KAFFINITY;

    /// Returns the group and number of the processor with an index.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kegetprocessornumberfromindex)
    fn KeGetProcessorNumberFromIndex(ProcIndex: ULONG, ProcNumber: *mut PROCESSOR_NUMBER) -> NTSTATUS;

    /// Returns the index of the processor with a group and number, or `INVALID_PROCESSOR_INDEX`.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kegetprocessorindexfromnumber)
    fn KeGetProcessorIndexFromNumber(ProcNumber: *const PROCESSOR_NUMBER) -> ULONG;

    /// Registers a routine that is told of processors which are added, and if asked to of those that are there. Returns null if the routine refuses one of them.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keregisterprocessorchangecallback)
    fn KeRegisterProcessorChangeCallback(CallbackFunction: PPROCESSOR_CALLBACK_FUNCTION, CallbackContext: PVOID, Flags: ULONG) -> PVOID;

    /// Takes back what `KeRegisterProcessorChangeCallback` returned.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kederegisterprocessorchangecallback)
    fn KeDeregisterProcessorChangeCallback(CallbackHandle: PVOID);

    /// Confines the current thread to processors of group 0 and returns the confinement before, zero if none.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`; takes effect at once below `DISPATCH_LEVEL` only.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kesetsystemaffinitythreadex)
    fn KeSetSystemAffinityThreadEx(Affinity: KAFFINITY) -> KAFFINITY;

    /// Restores what `KeSetSystemAffinityThreadEx` returned.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereverttouseraffinitythreadex)
    fn KeRevertToUserAffinityThreadEx(Affinity: KAFFINITY);

    /// Confines the current thread to processors of one group.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`; takes effect at once below `DISPATCH_LEVEL` only.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kesetsystemgroupaffinitythread)
    fn KeSetSystemGroupAffinityThread(Affinity: *const GROUP_AFFINITY, PreviousAffinity: *mut GROUP_AFFINITY);

    /// Restores what `KeSetSystemGroupAffinityThread` wrote.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereverttousergroupaffinitythread)
    fn KeRevertToUserGroupAffinityThread(PreviousAffinity: *const GROUP_AFFINITY);

    /// Sets the thread's priority and returns the one before.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kesetprioritythread)
    fn KeSetPriorityThread(Thread: *mut KTHREAD, Priority: KPRIORITY) -> KPRIORITY;

    /// Returns the thread's priority.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequeryprioritythread)
    fn KeQueryPriorityThread(Thread: *mut KTHREAD) -> KPRIORITY;

    /// Sets the thread's base priority relative to its process and returns the increment before.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-kesetbaseprioritythread)
    fn KeSetBasePriorityThread(Thread: *mut KTHREAD, Increment: LONG) -> LONG;

    /// Returns the thread's kernel time in ticks, and its user time.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequeryruntimethread)
    fn KeQueryRuntimeThread(Thread: *mut KTHREAD, UserTime: *mut ULONG) -> ULONG;

    /// Lets the kernel stack of this thread be paged out while it waits in user mode, or keeps it in memory. Returns what was the case before.
    ///
    /// Declared in `ntifs.h`.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    fn KeSetKernelStackSwapEnable(Enable: BOOLEAN) -> BOOLEAN;

    // Time.

    /// Returns the interrupt time in 100 ns, exact, and the performance counter it was made from.
    ///
    /// Since Windows 8.1.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequeryinterrupttimeprecise)
    fn KeQueryInterruptTimePrecise(QpcTimeStamp: *mut ULONGLONG) -> ULONGLONG;

    /// Returns the interrupt time in 100 ns without the time that the machine slept.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequeryunbiasedinterrupttime)
    fn KeQueryUnbiasedInterruptTime() -> ULONGLONG;

    /// Returns the interrupt time without the time that the system slept, as precisely as the performance counter tells it, and stores that.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequeryunbiasedinterrupttimeprecise)
    fn KeQueryUnbiasedInterruptTimePrecise(QpcTimeStamp: *mut ULONGLONG) -> ULONGLONG;

    /// Writes the system time in 100 ns since 1601, exact.
    ///
    /// Since Windows 8.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequerysystemtimeprecise)
    fn KeQuerySystemTimePrecise(CurrentTime: *mut LARGE_INTEGER);

    /// Returns the length of a clock tick in 100 ns.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequerytimeincrement)
    fn KeQueryTimeIncrement() -> ULONG;

    // Bug checks.

    /// Stops the machine.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kebugcheckex)
    fn KeBugCheckEx(BugCheckCode: ULONG, BugCheckParameter1: ULONG_PTR, BugCheckParameter2: ULONG_PTR, BugCheckParameter3: ULONG_PTR, BugCheckParameter4: ULONG_PTR) -> !;

    /// Stops the machine, with zero parameters.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-kebugcheck)
    fn KeBugCheck(BugCheckCode: ULONG) -> !;
}
