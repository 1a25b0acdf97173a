//! The kernel proper: dispatcher objects, spin locks, DPCs, APCs, time, processors.

use crate::*;

routines! {
    // Interrupt request level.

    /// Raises the level and returns the one before.
    ///
    /// # IRQL
    /// `<= NewIrql`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kfraiseirql)
    fn KfRaiseIrql(NewIrql: KIRQL) -> KIRQL;

    /// Restores the level that the last raise returned.
    ///
    /// # IRQL
    /// `>= NewIrql`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kelowerirql)
    fn KeLowerIrql(NewIrql: KIRQL);

    /// Raises the level to `DISPATCH_LEVEL` and returns the one before.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keraiseirqltodpclevel)
    fn KeRaiseIrqlToDpcLevel() -> KIRQL;

    // Spin locks.

    /// Raises the level to `DISPATCH_LEVEL`, acquires the lock and returns the level before.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keacquirespinlockraisetodpc)
    fn KeAcquireSpinLockRaiseToDpc(SpinLock: *mut KSPIN_LOCK) -> KIRQL;

    /// Releases the lock and returns to the level that the acquire returned.
    ///
    /// # IRQL
    /// `DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereleasespinlock)
    fn KeReleaseSpinLock(SpinLock: *mut KSPIN_LOCK, NewIrql: KIRQL);

    /// Acquires the lock without a change of level.
    ///
    /// # IRQL
    /// `>= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keacquirespinlockatdpclevel)
    fn KeAcquireSpinLockAtDpcLevel(SpinLock: *mut KSPIN_LOCK);

    /// Releases the lock without a change of level.
    ///
    /// # IRQL
    /// `>= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereleasespinlockfromdpclevel)
    fn KeReleaseSpinLockFromDpcLevel(SpinLock: *mut KSPIN_LOCK);

    /// Acquires the lock if it is free.
    ///
    /// # IRQL
    /// `>= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ketrytoacquirespinlockatdpclevel)
    fn KeTryToAcquireSpinLockAtDpcLevel(SpinLock: *mut KSPIN_LOCK) -> BOOLEAN;

    /// Tells whether the lock looked free, and gives way to a sibling processor if not.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ketestspinlock)
    fn KeTestSpinLock(SpinLock: *const KSPIN_LOCK) -> BOOLEAN;

    /// Acquires the lock in a DPC routine that may be threaded; raises the level if it is.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keacquirespinlockfordpc)
    fn KeAcquireSpinLockForDpc(SpinLock: *mut KSPIN_LOCK) -> KIRQL;

    /// Releases what `KeAcquireSpinLockForDpc` acquired.
    ///
    /// # IRQL
    /// `DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereleasespinlockfordpc)
    fn KeReleaseSpinLockForDpc(SpinLock: *mut KSPIN_LOCK, OldIrql: KIRQL);

    // In-stack queued spin locks.

    /// Raises the level to `DISPATCH_LEVEL` and acquires the lock in order of arrival.
    ///
    /// The handle stays in place until the release.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keacquireinstackqueuedspinlock)
    fn KeAcquireInStackQueuedSpinLock(SpinLock: *mut KSPIN_LOCK, LockHandle: *mut KLOCK_QUEUE_HANDLE);

    /// Releases the lock and returns to the level that the handle saved.
    ///
    /// # IRQL
    /// `DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereleaseinstackqueuedspinlock)
    fn KeReleaseInStackQueuedSpinLock(LockHandle: *mut KLOCK_QUEUE_HANDLE);

    /// Acquires the lock in order of arrival without a change of level.
    ///
    /// # IRQL
    /// `>= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keacquireinstackqueuedspinlockatdpclevel)
    fn KeAcquireInStackQueuedSpinLockAtDpcLevel(SpinLock: *mut KSPIN_LOCK, LockHandle: *mut KLOCK_QUEUE_HANDLE);

    /// Releases the lock without a change of level.
    ///
    /// # IRQL
    /// `>= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereleaseinstackqueuedspinlockfromdpclevel)
    fn KeReleaseInStackQueuedSpinLockFromDpcLevel(LockHandle: *mut KLOCK_QUEUE_HANDLE);

    /// Acquires the lock in a DPC routine that may be threaded.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keacquireinstackqueuedspinlockfordpc)
    fn KeAcquireInStackQueuedSpinLockForDpc(SpinLock: *mut KSPIN_LOCK, LockHandle: *mut KLOCK_QUEUE_HANDLE);

    /// Releases what `KeAcquireInStackQueuedSpinLockForDpc` acquired.
    ///
    /// # IRQL
    /// `DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereleaseinstackqueuedspinlockfordpc)
    fn KeReleaseInStackQueuedSpinLockForDpc(LockHandle: *mut KLOCK_QUEUE_HANDLE);

    // Events.

    /// Initialises an event, signaled or not.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializeevent)
    fn KeInitializeEvent(Event: *mut KEVENT, Type: EVENT_TYPE, State: BOOLEAN);

    /// Signals the event and returns the previous state.
    ///
    /// With `Wait` true the next call must be a wait.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; `<= APC_LEVEL` with `Wait` true.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kesetevent)
    fn KeSetEvent(Event: *mut KEVENT, Increment: KPRIORITY, Wait: BOOLEAN) -> LONG;

    /// Clears the event and returns the previous state.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keresetevent)
    fn KeResetEvent(Event: *mut KEVENT) -> LONG;

    /// Clears the event.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keclearevent)
    fn KeClearEvent(Event: *mut KEVENT);

    /// Satisfies the waits of the moment, clears the event and returns the previous state.
    ///
    /// Unreliable: a waiter that runs a kernel APC misses it.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; `<= APC_LEVEL` with `Wait` true.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-kepulseevent)
    fn KePulseEvent(Event: *mut KEVENT, Increment: KPRIORITY, Wait: BOOLEAN) -> LONG;

    /// Returns the event's state.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereadstateevent)
    fn KeReadStateEvent(Event: *const KEVENT) -> LONG;

    // Semaphores.

    /// Initialises a semaphore with a count and a limit of at least one.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializesemaphore)
    fn KeInitializeSemaphore(Semaphore: *mut KSEMAPHORE, Count: LONG, Limit: LONG);

    /// Adds to the count and returns the previous one.
    ///
    /// Raises `STATUS_SEMAPHORE_LIMIT_EXCEEDED` past the limit.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; `PASSIVE_LEVEL` with `Wait` true.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereleasesemaphore)
    fn KeReleaseSemaphore(Semaphore: *mut KSEMAPHORE, Increment: KPRIORITY, Adjustment: LONG, Wait: BOOLEAN) -> LONG;

    /// Returns the count.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereadstatesemaphore)
    fn KeReadStateSemaphore(Semaphore: *const KSEMAPHORE) -> LONG;

    // Mutexes.

    /// Initialises a free mutex.
    ///
    /// The level means nothing.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializemutex)
    fn KeInitializeMutex(Mutex: *mut KMUTEX, Level: ULONG);

    /// Initialises a mutant, which unlike a mutex does not hold back APCs, and may be abandoned.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL` if owned at once.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-keinitializemutant)
    fn KeInitializeMutant(Mutant: *mut KMUTANT, InitialOwner: BOOLEAN);

    /// Releases the mutex once and returns the previous state; zero means that it is free now.
    ///
    /// Raises `STATUS_MUTANT_NOT_OWNED` or `STATUS_ABANDONED` if the caller is not the owner.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; `<= APC_LEVEL` with `Wait` true.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereleasemutex)
    fn KeReleaseMutex(Mutex: *mut KMUTEX, Wait: BOOLEAN) -> LONG;

    /// Releases the mutant once, or abandons it, and returns the previous state.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; `<= APC_LEVEL` with `Wait` true.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-kereleasemutant)
    fn KeReleaseMutant(Mutant: *mut KMUTANT, Increment: KPRIORITY, Abandoned: BOOLEAN, Wait: BOOLEAN) -> LONG;

    /// Returns the state: 1 is free.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereadstatemutex)
    fn KeReadStateMutex(Mutex: *const KMUTEX) -> LONG;

    // Timers.

    /// Initialises a notification timer.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializetimer)
    fn KeInitializeTimer(Timer: *mut KTIMER);

    /// Initialises a timer of either kind.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializetimerex)
    fn KeInitializeTimerEx(Timer: *mut KTIMER, Type: TIMER_TYPE);

    /// Sets the timer in 100 ns: negative is relative, positive is a system time.
    ///
    /// Returns whether it was set before.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kesettimer)
    fn KeSetTimer(Timer: *mut KTIMER, DueTime: LARGE_INTEGER, Dpc: *mut KDPC) -> BOOLEAN;

    /// Sets the timer with a period in milliseconds.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kesettimerex)
    fn KeSetTimerEx(Timer: *mut KTIMER, DueTime: LARGE_INTEGER, Period: LONG, Dpc: *mut KDPC) -> BOOLEAN;

    /// Sets the timer with a period and a tolerable delay in milliseconds.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kesetcoalescabletimer)
    fn KeSetCoalescableTimer(Timer: *mut KTIMER, DueTime: LARGE_INTEGER, Period: ULONG, TolerableDelay: ULONG, Dpc: *mut KDPC) -> BOOLEAN;

    /// Takes the timer out of the queue and returns whether it was there.
    ///
    /// Its DPC may be queued or running.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kecanceltimer)
    fn KeCancelTimer(Timer: *mut KTIMER) -> BOOLEAN;

    /// Returns whether the timer is signaled.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereadstatetimer)
    fn KeReadStateTimer(Timer: *const KTIMER) -> BOOLEAN;

    // Waits.

    /// Waits for one object.
    ///
    /// A null timeout is for ever, zero is a poll.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`; `<= DISPATCH_LEVEL` with a timeout of zero.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject)
    fn KeWaitForSingleObject(Object: PVOID, WaitReason: KWAIT_REASON, WaitMode: KPROCESSOR_MODE, Alertable: BOOLEAN, Timeout: *const LARGE_INTEGER) -> NTSTATUS;

    /// Waits for one or all of several objects.
    ///
    /// More than [`THREAD_WAIT_OBJECTS`] need an array of wait blocks.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`; `<= DISPATCH_LEVEL` with a timeout of zero.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitformultipleobjects)
    fn KeWaitForMultipleObjects(Count: ULONG, Object: *const PVOID, WaitType: WAIT_TYPE, WaitReason: KWAIT_REASON, WaitMode: KPROCESSOR_MODE, Alertable: BOOLEAN, Timeout: *const LARGE_INTEGER, WaitBlockArray: *mut KWAIT_BLOCK) -> NTSTATUS;

    /// Sleeps.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kedelayexecutionthread)
    fn KeDelayExecutionThread(WaitMode: KPROCESSOR_MODE, Alertable: BOOLEAN, Interval: *const LARGE_INTEGER) -> NTSTATUS;

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

    // Guarded mutexes.

    /// Initialises a free guarded mutex.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializeguardedmutex)
    fn KeInitializeGuardedMutex(Mutex: *mut KGUARDED_MUTEX);

    /// Enters a guarded region and acquires the mutex.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keacquireguardedmutex)
    fn KeAcquireGuardedMutex(Mutex: *mut KGUARDED_MUTEX);

    /// Releases the mutex and leaves the guarded region.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereleaseguardedmutex)
    fn KeReleaseGuardedMutex(Mutex: *mut KGUARDED_MUTEX);

    /// Acquires the mutex if it is free.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ketrytoacquireguardedmutex)
    fn KeTryToAcquireGuardedMutex(Mutex: *mut KGUARDED_MUTEX) -> BOOLEAN;

    /// Acquires the mutex; the caller is in a guarded region.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keacquireguardedmutexunsafe)
    fn KeAcquireGuardedMutexUnsafe(FastMutex: *mut KGUARDED_MUTEX);

    /// Releases the mutex; the caller stays in its guarded region.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereleaseguardedmutexunsafe)
    fn KeReleaseGuardedMutexUnsafe(FastMutex: *mut KGUARDED_MUTEX);

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

    // Queues.

    /// Initialises a queue for so many running threads at a time; zero is the number of processors.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-keinitializequeue)
    fn KeInitializeQueue(Queue: *mut KQUEUE, Count: ULONG);

    /// Puts an entry at the tail, or hands it to a waiting thread; returns the previous state.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-keinsertqueue)
    fn KeInsertQueue(Queue: *mut KQUEUE, Entry: *mut LIST_ENTRY) -> LONG;

    /// Puts an entry at the head, or hands it to a waiting thread; returns the previous state.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-keinsertheadqueue)
    fn KeInsertHeadQueue(Queue: *mut KQUEUE, Entry: *mut LIST_ENTRY) -> LONG;

    /// Takes an entry, or waits for one; a status is returned as a pointer.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`; `<= DISPATCH_LEVEL` with a timeout of zero.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-keremovequeue)
    fn KeRemoveQueue(Queue: *mut KQUEUE, WaitMode: KPROCESSOR_MODE, Timeout: *const LARGE_INTEGER) -> *mut LIST_ENTRY;

    /// Ends the queue and returns its entries, linked in a ring, or null.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-kerundownqueue)
    fn KeRundownQueue(Queue: *mut KQUEUE) -> *mut LIST_ENTRY;

    /// Returns the number of entries.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-kereadstatequeue)
    fn KeReadStateQueue(Queue: *const KQUEUE) -> LONG;
}

// The WDK's headers read CR8 on x86-64; see the inlines.
#[cfg(not(all(windows, not(feature = "hosted"), target_arch = "x86_64")))]
routines! {
    mod irql = "ntoskrnl.exe";

    /// Returns the current level.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kegetcurrentirql)
    fn KeGetCurrentIrql() -> KIRQL;
}

// The WDK's headers read the page that the kernel shares with user mode; see the inlines.
#[cfg(not(all(windows, not(feature = "hosted"))))]
routines! {
    /// Returns the interrupt time in 100 ns, as of the last clock tick.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequeryinterrupttime)
    fn KeQueryInterruptTime() -> ULONGLONG;

    /// Writes the system time in 100 ns since 1601, as of the last clock tick.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequerysystemtime~r1)
    fn KeQuerySystemTime(CurrentTime: *mut LARGE_INTEGER);

    /// Writes the number of clock ticks since the start.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequerytickcount)
    fn KeQueryTickCount(CurrentCount: *mut LARGE_INTEGER);
}
