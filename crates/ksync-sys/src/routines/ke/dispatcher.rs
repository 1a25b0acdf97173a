//! Dispatcher objects and waits.

use crate::*;

routines! {
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
