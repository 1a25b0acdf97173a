//! Levels, and spin locks of both kinds.

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

    // Interrupts.

    /// Runs a routine at the interrupt's synchronization level with its lock held, and returns what it returned.
    ///
    /// # IRQL
    /// Up to the interrupt's synchronization level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kesynchronizeexecution)
    fn KeSynchronizeExecution(Interrupt: *mut KINTERRUPT, SynchronizeRoutine: PKSYNCHRONIZE_ROUTINE, SynchronizeContext: PVOID) -> BOOLEAN;

    /// Raises to the interrupt's synchronization level, acquires its lock, and returns the level before.
    ///
    /// # IRQL
    /// Up to the interrupt's synchronization level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keacquireinterruptspinlock)
    fn KeAcquireInterruptSpinLock(Interrupt: *mut KINTERRUPT) -> KIRQL;

    /// Releases an interrupt's lock, and restores the level.
    ///
    /// # IRQL
    /// The interrupt's synchronization level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kereleaseinterruptspinlock)
    fn KeReleaseInterruptSpinLock(Interrupt: *mut KINTERRUPT, OldIrql: KIRQL);
}
