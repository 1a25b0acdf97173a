//! The executive: fast mutexes, resources, push locks, rundown protection, pool, lookaside lists, timers.

use crate::*;

routines! {
    // Fast mutexes.

    /// Raises the level to `APC_LEVEL` and acquires the mutex.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquirefastmutex)
    fn ExAcquireFastMutex(FastMutex: *mut FAST_MUTEX);

    /// Releases the mutex and returns to the level before the acquire.
    ///
    /// # IRQL
    /// `APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exreleasefastmutex)
    fn ExReleaseFastMutex(FastMutex: *mut FAST_MUTEX);

    /// Acquires the mutex if it is free.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-extrytoacquirefastmutex)
    fn ExTryToAcquireFastMutex(FastMutex: *mut FAST_MUTEX) -> BOOLEAN;

    /// Acquires the mutex without a change of level; the caller has APCs held back.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquirefastmutexunsafe)
    fn ExAcquireFastMutexUnsafe(FastMutex: *mut FAST_MUTEX);

    /// Releases what `ExAcquireFastMutexUnsafe` acquired.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exreleasefastmutexunsafe)
    fn ExReleaseFastMutexUnsafe(FastMutex: *mut FAST_MUTEX);

    // Executive resources.

    /// Initialises a free resource and links it into the system's list.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exinitializeresourcelite)
    fn ExInitializeResourceLite(Resource: *mut ERESOURCE) -> NTSTATUS;

    /// Makes a resource as good as new.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exreinitializeresourcelite)
    fn ExReinitializeResourceLite(Resource: *mut ERESOURCE) -> NTSTATUS;

    /// Takes the resource out of the system's list; required before its memory goes.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exdeleteresourcelite)
    fn ExDeleteResourceLite(Resource: *mut ERESOURCE) -> NTSTATUS;

    /// Acquires exclusively; the owner may again.
    ///
    /// Normal kernel APCs must be held back.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquireresourceexclusivelite)
    fn ExAcquireResourceExclusiveLite(Resource: *mut ERESOURCE, Wait: BOOLEAN) -> BOOLEAN;

    /// Acquires shared, after exclusive waiters unless the caller holds it already.
    ///
    /// Normal kernel APCs must be held back.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquireresourcesharedlite)
    fn ExAcquireResourceSharedLite(Resource: *mut ERESOURCE, Wait: BOOLEAN) -> BOOLEAN;

    /// Acquires shared, before exclusive waiters.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquiresharedstarveexclusive)
    fn ExAcquireSharedStarveExclusive(Resource: *mut ERESOURCE, Wait: BOOLEAN) -> BOOLEAN;

    /// Acquires shared, after exclusive waiters even if the caller holds it already.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquiresharedwaitforexclusive)
    fn ExAcquireSharedWaitForExclusive(Resource: *mut ERESOURCE, Wait: BOOLEAN) -> BOOLEAN;

    /// Turns the caller's exclusive ownership into a shared one and lets shared waiters in.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exconvertexclusivetosharedlite)
    fn ExConvertExclusiveToSharedLite(Resource: *mut ERESOURCE);

    /// Releases the resource once.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exreleaseresourcelite)
    fn ExReleaseResourceLite(Resource: *mut ERESOURCE);

    /// Releases the resource once on behalf of a thread or an owner pointer.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exreleaseresourceforthreadlite)
    fn ExReleaseResourceForThreadLite(Resource: *mut ERESOURCE, ResourceThreadId: ERESOURCE_THREAD);

    /// Tells whether the caller holds the resource exclusively.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exisresourceacquiredexclusivelite)
    fn ExIsResourceAcquiredExclusiveLite(Resource: *mut ERESOURCE) -> BOOLEAN;

    /// Returns how often the caller holds the resource, in either way.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exisresourceacquiredsharedlite)
    fn ExIsResourceAcquiredSharedLite(Resource: *mut ERESOURCE) -> ULONG;

    /// Returns how many wait for exclusive access.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exgetexclusivewaitercount)
    fn ExGetExclusiveWaiterCount(Resource: *mut ERESOURCE) -> ULONG;

    /// Returns how many wait for shared access.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exgetsharedwaitercount)
    fn ExGetSharedWaiterCount(Resource: *mut ERESOURCE) -> ULONG;

    /// Hands the caller's ownership to an owner pointer, both of whose low bits are set.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exsetresourceownerpointer)
    fn ExSetResourceOwnerPointer(Resource: *mut ERESOURCE, OwnerPointer: PVOID);

    /// Switches priority boosts of owners off.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-exdisableresourceboostlite)
    fn ExDisableResourceBoostLite(Resource: *mut ERESOURCE);

    /// Enters a critical region and acquires exclusively.
    ///
    /// Returns a `Win32Thread` pointer.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-exentercriticalregionandacquireresourceexclusive)
    fn ExEnterCriticalRegionAndAcquireResourceExclusive(Resource: *mut ERESOURCE) -> PVOID;

    /// Enters a critical region and acquires shared.
    ///
    /// Returns a `Win32Thread` pointer.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-exentercriticalregionandacquireresourceshared)
    fn ExEnterCriticalRegionAndAcquireResourceShared(Resource: *mut ERESOURCE) -> PVOID;

    /// Enters a critical region and acquires shared, after exclusive waiters.
    ///
    /// Returns a `Win32Thread` pointer.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-exentercriticalregionandacquiresharedwaitforexclusive)
    fn ExEnterCriticalRegionAndAcquireSharedWaitForExclusive(Resource: *mut ERESOURCE) -> PVOID;

    /// Releases the resource once and leaves the critical region.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-exreleaseresourceandleavecriticalregion)
    fn ExReleaseResourceAndLeaveCriticalRegion(Resource: *mut ERESOURCE);

    // Push locks.

    /// Initialises a free push lock: writes zero.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exinitializepushlock)
    fn ExInitializePushLock(PushLock: *mut EX_PUSH_LOCK);

    /// Acquires exclusively; the caller is in a critical region.
    ///
    /// Not exported by Windows 7.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquirepushlockexclusive)
    fn ExAcquirePushLockExclusiveEx(PushLock: *mut EX_PUSH_LOCK, Flags: ULONG);

    /// Acquires shared; the caller is in a critical region.
    ///
    /// Not exported by Windows 7.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquirepushlockshared)
    fn ExAcquirePushLockSharedEx(PushLock: *mut EX_PUSH_LOCK, Flags: ULONG);

    /// Releases what was acquired exclusively.
    ///
    /// Not exported by Windows 7.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exreleasepushlockexclusive)
    fn ExReleasePushLockExclusiveEx(PushLock: *mut EX_PUSH_LOCK, Flags: ULONG);

    /// Releases what was acquired shared.
    ///
    /// Not exported by Windows 7.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exreleasepushlockshared)
    fn ExReleasePushLockSharedEx(PushLock: *mut EX_PUSH_LOCK, Flags: ULONG);

    /// Acquires exclusively if the lock is free.
    ///
    /// Undocumented. Not exported by Windows 7 and not in any published import library; resolve it at run time.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    fn ExTryAcquirePushLockExclusiveEx(PushLock: *mut EX_PUSH_LOCK, Flags: ULONG) -> BOOLEAN;

    /// Acquires shared if that needs no wait.
    ///
    /// Undocumented. Not exported by Windows 7 and not in any published import library; resolve it at run time.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    fn ExTryAcquirePushLockSharedEx(PushLock: *mut EX_PUSH_LOCK, Flags: ULONG) -> BOOLEAN;

    // Reader-writer spin locks.

    /// Raises the level to `DISPATCH_LEVEL`, acquires exclusively and returns the level before.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquirespinlockexclusive)
    fn ExAcquireSpinLockExclusive(SpinLock: *mut EX_SPIN_LOCK) -> KIRQL;

    /// Releases what was acquired exclusively and returns to the level before.
    ///
    /// # IRQL
    /// `DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exreleasespinlockexclusive)
    fn ExReleaseSpinLockExclusive(SpinLock: *mut EX_SPIN_LOCK, OldIrql: KIRQL);

    /// Raises the level to `DISPATCH_LEVEL`, acquires shared and returns the level before.
    ///
    /// Not recursive.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquirespinlockshared)
    fn ExAcquireSpinLockShared(SpinLock: *mut EX_SPIN_LOCK) -> KIRQL;

    /// Releases what was acquired shared and returns to the level before.
    ///
    /// # IRQL
    /// `DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exreleasespinlockshared)
    fn ExReleaseSpinLockShared(SpinLock: *mut EX_SPIN_LOCK, OldIrql: KIRQL);

    /// Acquires exclusively without a change of level.
    ///
    /// # IRQL
    /// `>= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquirespinlockexclusiveatdpclevel)
    fn ExAcquireSpinLockExclusiveAtDpcLevel(SpinLock: *mut EX_SPIN_LOCK);

    /// Releases what was acquired exclusively without a change of level.
    ///
    /// # IRQL
    /// `>= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exreleasespinlockexclusivefromdpclevel)
    fn ExReleaseSpinLockExclusiveFromDpcLevel(SpinLock: *mut EX_SPIN_LOCK);

    /// Acquires shared without a change of level.
    ///
    /// # IRQL
    /// `>= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquirespinlocksharedatdpclevel)
    fn ExAcquireSpinLockSharedAtDpcLevel(SpinLock: *mut EX_SPIN_LOCK);

    /// Releases what was acquired shared without a change of level.
    ///
    /// # IRQL
    /// `>= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exreleasespinlocksharedfromdpclevel)
    fn ExReleaseSpinLockSharedFromDpcLevel(SpinLock: *mut EX_SPIN_LOCK);

    /// Makes the only reader the writer; false if there are others.
    ///
    /// # IRQL
    /// `>= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-extryconvertsharedspinlockexclusive)
    fn ExTryConvertSharedSpinLockExclusive(SpinLock: *mut EX_SPIN_LOCK) -> LOGICAL;

    /// Acquires exclusively if that needs no wait.
    ///
    /// Not exported by Windows 7.
    ///
    /// # IRQL
    /// `>= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-extryacquirespinlockexclusiveatdpclevel)
    fn ExTryAcquireSpinLockExclusiveAtDpcLevel(SpinLock: *mut EX_SPIN_LOCK) -> LOGICAL;

    /// Acquires shared if that needs no wait.
    ///
    /// Not exported by Windows 7.
    ///
    /// # IRQL
    /// `>= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-extryacquirespinlocksharedatdpclevel)
    fn ExTryAcquireSpinLockSharedAtDpcLevel(SpinLock: *mut EX_SPIN_LOCK) -> LOGICAL;

    // Rundown protection.

    /// Initialises rundown protection: writes zero.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exinitializerundownprotection)
    fn ExInitializeRundownProtection(RunRef: *mut EX_RUNDOWN_REF);

    /// Makes rundown protection usable again after a wait.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exreinitializerundownprotection)
    fn ExReInitializeRundownProtection(RunRef: *mut EX_RUNDOWN_REF);

    /// Adds a user; false once the wait began.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquirerundownprotection)
    fn ExAcquireRundownProtection(RunRef: *mut EX_RUNDOWN_REF) -> BOOLEAN;

    /// Adds several users.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquirerundownprotectionex)
    fn ExAcquireRundownProtectionEx(RunRef: *mut EX_RUNDOWN_REF, Count: ULONG) -> BOOLEAN;

    /// Takes a user away.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exreleaserundownprotection)
    fn ExReleaseRundownProtection(RunRef: *mut EX_RUNDOWN_REF);

    /// Takes several users away.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exreleaserundownprotectionex)
    fn ExReleaseRundownProtectionEx(RunRef: *mut EX_RUNDOWN_REF, Count: ULONG);

    /// Admits no more users and waits for the last one.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exwaitforrundownprotectionrelease)
    fn ExWaitForRundownProtectionRelease(RunRef: *mut EX_RUNDOWN_REF);

    /// Marks the rundown as complete, so that no user is ever admitted.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exrundowncompleted)
    fn ExRundownCompleted(RunRef: *mut EX_RUNDOWN_REF);

    // Rundown protection with a counter per processor.

    /// Returns the size of the structure in bytes on this machine.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exsizeofrundownprotectioncacheaware)
    fn ExSizeOfRundownProtectionCacheAware() -> SIZE_T;

    /// Allocates and initialises one; null if there is no memory.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL` for nonpaged pool, else `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exallocatecacheawarerundownprotection)
    fn ExAllocateCacheAwareRundownProtection(PoolType: POOL_TYPE, PoolTag: ULONG) -> *mut EX_RUNDOWN_REF_CACHE_AWARE;

    /// Frees what `ExAllocateCacheAwareRundownProtection` allocated.
    ///
    /// # IRQL
    /// As for the allocation.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exfreecacheawarerundownprotection)
    fn ExFreeCacheAwareRundownProtection(RunRefCacheAware: *mut EX_RUNDOWN_REF_CACHE_AWARE);

    /// Initialises one in the caller's memory.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exinitializerundownprotectioncacheaware)
    fn ExInitializeRundownProtectionCacheAware(RunRefCacheAware: *mut EX_RUNDOWN_REF_CACHE_AWARE, RunRefSize: SIZE_T);

    /// Makes it usable again after a wait.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exreinitializerundownprotectioncacheaware)
    fn ExReInitializeRundownProtectionCacheAware(RunRefCacheAware: *mut EX_RUNDOWN_REF_CACHE_AWARE);

    /// Adds a user; false once the wait began.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquirerundownprotectioncacheaware)
    fn ExAcquireRundownProtectionCacheAware(RunRefCacheAware: *mut EX_RUNDOWN_REF_CACHE_AWARE) -> BOOLEAN;

    /// Adds several users.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquirerundownprotectioncacheawareex)
    fn ExAcquireRundownProtectionCacheAwareEx(RunRefCacheAware: *mut EX_RUNDOWN_REF_CACHE_AWARE, Count: ULONG) -> BOOLEAN;

    /// Takes a user away.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exreleaserundownprotectioncacheaware)
    fn ExReleaseRundownProtectionCacheAware(RunRefCacheAware: *mut EX_RUNDOWN_REF_CACHE_AWARE);

    /// Takes several users away.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exreleaserundownprotectioncacheawareex)
    fn ExReleaseRundownProtectionCacheAwareEx(RunRef: *mut EX_RUNDOWN_REF_CACHE_AWARE, Count: ULONG);

    /// Admits no more users and waits for the last one.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exwaitforrundownprotectionreleasecacheaware)
    fn ExWaitForRundownProtectionReleaseCacheAware(RunRef: *mut EX_RUNDOWN_REF_CACHE_AWARE);

    /// Marks the rundown as complete, so that no user is ever admitted.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exrundowncompletedcacheaware)
    fn ExRundownCompletedCacheAware(RunRefCacheAware: *mut EX_RUNDOWN_REF_CACHE_AWARE);

    // Pool.

    /// Allocates pool, zeroed unless asked not to; null if there is none.
    ///
    /// Since Windows 10 2004.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL` for nonpaged pool, else `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exallocatepool2)
    fn ExAllocatePool2(Flags: POOL_FLAGS, NumberOfBytes: SIZE_T, Tag: ULONG) -> PVOID;

    /// Allocates pool, not zeroed; null if there is none.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL` for nonpaged pool, else `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exallocatepoolwithtag)
    fn ExAllocatePoolWithTag(PoolType: POOL_TYPE, NumberOfBytes: SIZE_T, Tag: ULONG) -> PVOID;

    /// Frees pool.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL` for nonpaged pool, else `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-exfreepool)
    fn ExFreePool(P: PVOID);

    /// Frees pool that was allocated with this tag.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL` for nonpaged pool, else `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exfreepoolwithtag)
    fn ExFreePoolWithTag(P: PVOID, Tag: ULONG);

    // Lookaside lists.

    /// Initialises a list for entries of one size.
    ///
    /// The depth is zero.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exinitializelookasidelistex)
    fn ExInitializeLookasideListEx(Lookaside: *mut LOOKASIDE_LIST_EX, Allocate: PALLOCATE_FUNCTION_EX, Free: PFREE_FUNCTION_EX, PoolType: POOL_TYPE, Flags: ULONG, Size: SIZE_T, Tag: ULONG, Depth: USHORT) -> NTSTATUS;

    /// Frees the kept entries and takes the list out of the system's list.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL` for nonpaged entries, else `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exdeletelookasidelistex)
    fn ExDeleteLookasideListEx(Lookaside: *mut LOOKASIDE_LIST_EX);

    /// Frees the kept entries.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL` for nonpaged entries, else `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exflushlookasidelistex)
    fn ExFlushLookasideListEx(Lookaside: *mut LOOKASIDE_LIST_EX);

    /// Initialises a list for nonpaged entries of one size.
    ///
    /// The depth is zero.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exinitializenpagedlookasidelist)
    fn ExInitializeNPagedLookasideList(Lookaside: *mut NPAGED_LOOKASIDE_LIST, Allocate: PALLOCATE_FUNCTION, Free: PFREE_FUNCTION, Flags: ULONG, Size: SIZE_T, Tag: ULONG, Depth: USHORT);

    /// Frees the kept entries and takes the list out of the system's list.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exdeletenpagedlookasidelist)
    fn ExDeleteNPagedLookasideList(Lookaside: *mut NPAGED_LOOKASIDE_LIST);

    /// Initialises a list for paged entries of one size.
    ///
    /// The depth is zero.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exinitializepagedlookasidelist)
    fn ExInitializePagedLookasideList(Lookaside: *mut PAGED_LOOKASIDE_LIST, Allocate: PALLOCATE_FUNCTION, Free: PFREE_FUNCTION, Flags: ULONG, Size: SIZE_T, Tag: ULONG, Depth: USHORT);

    /// Frees the kept entries and takes the list out of the system's list.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exdeletepagedlookasidelist)
    fn ExDeletePagedLookasideList(Lookaside: *mut PAGED_LOOKASIDE_LIST);

    // Interlocked singly linked lists.

    /// Initialises an empty list: writes zeros.
    ///
    /// # IRQL
    /// Any level.
    fn InitializeSListHead(SListHead: *mut SLIST_HEADER);

    /// Takes the first entry; null if there is none.
    ///
    /// `InterlockedPopEntrySList` in C.
    ///
    /// # IRQL
    /// Any, if the entries are nonpaged.
    fn ExpInterlockedPopEntrySList(ListHead: *mut SLIST_HEADER) -> *mut SLIST_ENTRY;

    /// Puts an entry first and returns the one that was.
    ///
    /// `InterlockedPushEntrySList` in C.
    ///
    /// # IRQL
    /// Any, if the entries are nonpaged.
    fn ExpInterlockedPushEntrySList(ListHead: *mut SLIST_HEADER, ListEntry: *mut SLIST_ENTRY) -> *mut SLIST_ENTRY;

    /// Takes all entries.
    ///
    /// `InterlockedFlushSList` in C.
    ///
    /// # IRQL
    /// Any, if the entries are nonpaged.
    fn ExpInterlockedFlushSList(ListHead: *mut SLIST_HEADER) -> *mut SLIST_ENTRY;

    /// Returns the number of entries, modulo 65536.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exquerydepthslist)
    fn ExQueryDepthSList(SListHead: *mut SLIST_HEADER) -> USHORT;

    // Timers.

    /// Allocates a timer; null if there is no memory.
    ///
    /// Since Windows 8.1.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exallocatetimer)
    fn ExAllocateTimer(Callback: PEXT_CALLBACK, CallbackContext: PVOID, Attributes: ULONG) -> *mut EX_TIMER;

    /// Sets the timer, all in 100 ns, and returns whether it was set before.
    ///
    /// Since Windows 8.1.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exsettimer)
    fn ExSetTimer(Timer: *mut EX_TIMER, DueTime: LONGLONG, Period: LONGLONG, Parameters: *mut EXT_SET_PARAMETERS) -> BOOLEAN;

    /// Cancels the timer and returns whether it was set.
    ///
    /// Since Windows 8.1.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-excanceltimer)
    fn ExCancelTimer(Timer: *mut EX_TIMER, Parameters: PVOID) -> BOOLEAN;

    /// Deletes the timer; waits for its callback if asked, which the callback itself must not.
    ///
    /// Since Windows 8.1.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; `<= APC_LEVEL` with `Wait` true.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exdeletetimer)
    fn ExDeleteTimer(Timer: *mut EX_TIMER, Cancel: BOOLEAN, Wait: BOOLEAN, Parameters: *mut EXT_DELETE_PARAMETERS) -> BOOLEAN;

    /// Asks for a clock tick in 100 ns, or takes the request back; returns the tick.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exsettimerresolution)
    fn ExSetTimerResolution(DesiredTime: ULONG, SetResolution: BOOLEAN) -> ULONG;

    /// Writes the longest, the shortest and the present clock tick in 100 ns.
    ///
    /// Since Windows 8.1.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exquerytimerresolution)
    fn ExQueryTimerResolution(MaximumTime: *mut ULONG, MinimumTime: *mut ULONG, CurrentTime: *mut ULONG);

    // Work items, exceptions, the previous mode.

    /// Queues a work item.
    ///
    /// Nothing keeps the driver loaded meanwhile.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exqueueworkitem)
    fn ExQueueWorkItem(WorkItem: *mut WORK_QUEUE_ITEM, QueueType: WORK_QUEUE_TYPE);

    // Callback objects.

    /// Makes a callback object, or opens the one that has the name, with a reference of the caller's.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-excreatecallback)
    fn ExCreateCallback(CallbackObject: *mut *mut CALLBACK_OBJECT, ObjectAttributes: *const OBJECT_ATTRIBUTES, Create: BOOLEAN, AllowMultipleCallbacks: BOOLEAN) -> NTSTATUS;

    /// Registers a routine. Null if the object has a routine and takes no other.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exregistercallback)
    fn ExRegisterCallback(CallbackObject: *mut CALLBACK_OBJECT, CallbackFunction: CALLBACK_FUNCTION, CallbackContext: PVOID) -> PVOID;

    /// Takes a registration back, and waits for calls of its routine to return. Not to be called by the routine itself.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exunregistercallback)
    fn ExUnregisterCallback(CallbackRegistration: PVOID);

    /// Calls the registered routines in the order of their registration, at the caller's level.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exnotifycallback)
    fn ExNotifyCallback(CallbackObject: *mut CALLBACK_OBJECT, Argument1: PVOID, Argument2: PVOID);

    /// Raises an exception.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-exraisestatus)
    fn ExRaiseStatus(Status: NTSTATUS) -> !;

    /// Returns the mode that the current thread was in before its system call.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exgetpreviousmode)
    fn ExGetPreviousMode() -> KPROCESSOR_MODE;
}

data_exports! {
    /// The type of events. `*ExEventObjectType` in C.
    static ExEventObjectType: *mut OBJECT_TYPE;

    /// The type of semaphores. `*ExSemaphoreObjectType` in C.
    static ExSemaphoreObjectType: *mut OBJECT_TYPE;
}
