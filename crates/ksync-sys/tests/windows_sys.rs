//! Compares layouts and signatures with `windows-sys`, which is made from Microsoft's own metadata.

use std::collections::BTreeSet;
use std::mem::{align_of, offset_of, size_of};

mod theirs {
    //! What is compared, under the names of `ksync-sys`.
    pub(crate) use windows_sys::Wdk::Foundation::IO_STACK_LOCATION_0 as IO_PARAMETERS;
    pub(crate) use windows_sys::Wdk::Foundation::*;
    pub(crate) use windows_sys::Wdk::Storage::FileSystem::*;
    pub(crate) use windows_sys::Wdk::System::SystemServices::*;
    pub(crate) use windows_sys::Wdk::System::Threading::*;
    pub(crate) use windows_sys::Win32::Foundation::UNICODE_STRING;
    pub(crate) use windows_sys::Win32::System::IO::IO_STATUS_BLOCK;
    pub(crate) use windows_sys::Win32::System::Kernel::{
        LIST_ENTRY, PROCESSOR_NUMBER, SINGLE_LIST_ENTRY, SLIST_ENTRY, SLIST_HEADER,
    };
    pub(crate) use windows_sys::Win32::System::SystemInformation::{GROUP_AFFINITY, OSVERSIONINFOW as RTL_OSVERSIONINFOW};
    pub(crate) use windows_sys::Win32::System::Threading::INIT_ONCE as RTL_RUN_ONCE;
    pub(crate) use windows_sys::Win32::System::WindowsProgramming::CLIENT_ID;
    #[expect(non_camel_case_types, reason = "the name is NT's")]
    pub(crate) type EXT_SET_PARAMETERS = windows_sys::Wdk::System::SystemServices::_EXT_SET_PARAMETERS_V0;
}

/// Where `windows-sys` 0.61 is wrong: the fact, its value there, its value here, and why.
const MISTAKES: &[(&str, usize, usize, &str)] = &[
    ("DEVICE_OBJECT align", 8, 16, "it lacks the alignment of pool allocations"),
    ("DEVICE_OBJECT size", 328, 336, "as above"),
    ("ERESOURCE size", 96, 104, "it lacks Reserved2, which 64-bit Windows has; a driver that trusts it corrupts 8 bytes"),
    ("ERESOURCE.Address", 80, 88, "as above"),
    ("ERESOURCE.SpinLock", 88, 96, "as above"),
    ("KTIMER.Period", 56, 60, "it lacks Processor and TimerType, which 64-bit Windows has"),
    ("SLIST_ENTRY align", 8, 16, "it lacks the alignment that the interlocked routines need"),
    ("SLIST_ENTRY size", 8, 16, "as above"),
    ("SLIST_HEADER align", 8, 16, "as above"),
];

/// Routines that `windows-sys` does not have.
const MISSING: &[&str] = &[
    "DbgBreakPoint",
    "DbgPrint",
    "DbgPrintEx",
    "ExDeleteLookasideListEx",
    "ExDeleteNPagedLookasideList",
    "ExDeletePagedLookasideList",
    "ExFlushLookasideListEx",
    "ExInitializeLookasideListEx",
    "ExInitializeNPagedLookasideList",
    "ExInitializePagedLookasideList",
    "ExQueryDepthSList",
    "ExTryAcquirePushLockExclusiveEx",
    "ExTryAcquirePushLockSharedEx",
    "ExpInterlockedFlushSList",
    "ExpInterlockedPopEntrySList",
    "ExpInterlockedPushEntrySList",
    "InitializeSListHead",
    "KeAcquireSpinLockAtDpcLevel",
    "KeAcquireSpinLockRaiseToDpc",
    "KeAlertThread",
    "KeGenericCallDpc",
    "KeGetCurrentThread",
    "KeInitializeApc",
    "KeInsertQueueApc",
    "KeLowerIrql",
    "KeQueryInterruptTime",
    "KeQuerySystemTime",
    "KeQueryTickCount",
    "KeRaiseIrqlToDpcLevel",
    "KeReleaseSpinLock",
    "KeReleaseSpinLockFromDpcLevel",
    "KeRemoveQueueApc",
    "KeSignalCallDpcDone",
    "KeSignalCallDpcSynchronize",
    "KeTestAlertThread",
    "ObGetObjectType",
    "RtlInitUnicodeString",
    "ZwAlertThread",
    "ZwClearEvent",
    "ZwOpenThread",
    "ZwPulseEvent",
    "ZwResetEvent",
    "ZwWaitForMultipleObjects",
    "ZwYieldExecution",
];

/// The sources that declare routines.
const SOURCES: &[&str] = &[
    include_str!("../src/routines/dbg.rs"),
    include_str!("../src/routines/device_queue.rs"),
    include_str!("../src/routines/ex.rs"),
    include_str!("../src/routines/hal.rs"),
    include_str!("../src/routines/io.rs"),
    include_str!("../src/routines/ke/calls.rs"),
    include_str!("../src/routines/ke/dispatcher.rs"),
    include_str!("../src/routines/ke/processor.rs"),
    include_str!("../src/routines/ke/spin.rs"),
    include_str!("../src/routines/mm.rs"),
    include_str!("../src/routines/ob.rs"),
    include_str!("../src/routines/ps.rs"),
    include_str!("../src/routines/rtl.rs"),
    include_str!("../src/routines/zw.rs"),
];

/// A difference: the fact, its value there, its value here.
type Difference = (String, usize, usize);

macro_rules! types {
    ($differences:ident; $($type:ident { $($field:ident $(as $($their:ident).+)?),* $(,)? })*) => {$(
        compare(&mut $differences, concat!(stringify!($type), " size"), size_of::<theirs::$type>(), size_of::<ksync_sys::$type>());
        compare(&mut $differences, concat!(stringify!($type), " align"), align_of::<theirs::$type>(), align_of::<ksync_sys::$type>());
        $(compare(
            &mut $differences,
            concat!(stringify!($type), ".", stringify!($field)),
            types!(@offset $type, $field $(, $($their).+)?),
            offset_of!(ksync_sys::$type, $field),
        );)*
    )*};
    (@offset $type:ident, $field:ident) => { offset_of!(theirs::$type, $field) };
    (@offset $type:ident, $field:ident, $($their:ident).+) => { offset_of!(theirs::$type, $($their).+) };
}

fn compare(differences: &mut Vec<Difference>, fact: &str, theirs: usize, ours: usize) {
    if theirs != ours {
        differences.push((fact.into(), theirs, ours));
    }
}

#[test]
fn layouts_differ_in_the_known_mistakes_only() {
    let mut differences = Vec::new();
    types! { differences;
        LIST_ENTRY { Flink, Blink }
        SINGLE_LIST_ENTRY { Next }
        SLIST_ENTRY { Next }
        SLIST_HEADER { Alignment as Anonymous.Alignment, Region as Anonymous.Region }
        UNICODE_STRING { Length, MaximumLength, Buffer }
        OBJECT_ATTRIBUTES { Length, RootDirectory, ObjectName, Attributes, SecurityDescriptor, SecurityQualityOfService }
        OBJECT_HANDLE_INFORMATION { HandleAttributes, GrantedAccess }
        CLIENT_ID { UniqueProcess, UniqueThread }
        PROCESSOR_NUMBER { Group, Number, Reserved }
        GROUP_AFFINITY { Mask, Group, Reserved }
        RTL_OSVERSIONINFOW { dwOSVersionInfoSize, dwMajorVersion, dwMinorVersion, dwBuildNumber, dwPlatformId, szCSDVersion }
        DISPATCHER_HEADER { SignalState, WaitListHead }
        KEVENT { Header }
        KGATE { Header }
        KSEMAPHORE { Header, Limit }
        KMUTANT { Header, MutantListEntry, OwnerThread, Abandoned as Anonymous, ApcDisable }
        KTIMER { Header, DueTime, TimerListEntry, Dpc, Period }
        KWAIT_BLOCK { WaitListEntry, WaitType, BlockState, WaitKey, Thread as Anonymous, Object, SparePtr }
        KQUEUE { Header, EntryListHead, CurrentCount, MaximumCount, ThreadListHead }
        KDEVICE_QUEUE { Type, Size, DeviceListHead, Lock, Busy }
        KDEVICE_QUEUE_ENTRY { DeviceListEntry, SortKey, Inserted }
        KDPC {
            Type as Anonymous, DpcListEntry, ProcessorHistory, DeferredRoutine, DeferredContext, SystemArgument1, SystemArgument2,
            DpcData,
        }
        KAPC {
            Type, AllFlags, Size, SpareByte1, SpareLong0, Thread, ApcListEntry, KernelRoutine as Reserved, NormalContext,
            SystemArgument1, SystemArgument2, ApcStateIndex, ApcMode, Inserted,
        }
        KSPIN_LOCK_QUEUE { Next, Lock }
        KLOCK_QUEUE_HANDLE { LockQueue, OldIrql }
        FAST_MUTEX { Count, Owner, Contention, Event, OldIrql }
        OWNER_ENTRY { OwnerThread, OwnerCount as Anonymous }
        ERESOURCE {
            SystemResourcesList, OwnerTable, ActiveCount, Flag as Anonymous1, SharedWaiters, ExclusiveWaiters, OwnerEntry,
            ActiveEntries, ContentionCount, NumberOfSharedWaiters, NumberOfExclusiveWaiters, Address as Anonymous2, SpinLock,
        }
        EX_RUNDOWN_REF { Count as Anonymous }
        IO_REMOVE_LOCK_COMMON_BLOCK { Removed, Reserved, IoCount, RemoveEvent }
        IO_REMOVE_LOCK { Common }
        RTL_RUN_ONCE {}
        DRIVER_EXTENSION { DriverObject, AddDevice, Count, ServiceKeyName }
        DRIVER_OBJECT {
            Type, Size, DeviceObject, Flags, DriverStart, DriverSize, DriverSection, DriverExtension, DriverName,
            HardwareDatabase, FastIoDispatch, DriverInit, DriverStartIo, DriverUnload, MajorFunction,
        }
        WAIT_CONTEXT_BLOCK {
            WaitQueueEntry as Anonymous, DeviceRoutine, DeviceContext, NumberOfMapRegisters, DeviceObject, CurrentIrp,
            BufferChainingDpc,
        }
        DEVICE_OBJECT {
            Type, Size, ReferenceCount, DriverObject, NextDevice, AttachedDevice, CurrentIrp, Timer, Flags, Characteristics,
            Vpb, DeviceExtension, DeviceType, StackSize, Queue, AlignmentRequirement, DeviceQueue, Dpc, ActiveThreadCount,
            SecurityDescriptor, DeviceLock, SectorSize, Spare1, DeviceObjectExtension, Reserved,
        }
        WORK_QUEUE_ITEM { List, WorkerRoutine, Parameter }
        IO_STATUS_BLOCK { Information }
        MDL { Next, Size, MdlFlags, Process, MappedSystemVa, StartVa, ByteCount, ByteOffset }
        IRP {
            Type, Size, MdlAddress, Flags, AssociatedIrp, ThreadListEntry, IoStatus, RequestorMode, PendingReturned, StackCount,
            CurrentLocation, Cancel, CancelIrql, ApcEnvironment, AllocationFlags, UserIosb as Anonymous, UserEvent, Overlay, CancelRoutine,
            UserBuffer, Tail,
        }
        IO_STACK_LOCATION {
            MajorFunction, MinorFunction, Flags, Control, Parameters, DeviceObject, FileObject, CompletionRoutine, Context,
        }
        IO_PARAMETERS {}
        FILE_OBJECT {
            Type, Size, DeviceObject, Vpb, FsContext, FsContext2, SectionObjectPointer, PrivateCacheMap, FinalStatus,
            RelatedFileObject, LockOperation, DeletePending, ReadAccess, WriteAccess, DeleteAccess, SharedRead, SharedWrite,
            SharedDelete, Flags, FileName, CurrentByteOffset, Waiters, Busy, LastLock, Lock, Event, CompletionContext,
            IrpListLock, IrpList, FileObjectExtension,
        }
        IO_CSQ {
            Type, CsqInsertIrp, CsqRemoveIrp, CsqPeekNextIrp, CsqAcquireLock, CsqReleaseLock, CsqCompleteCanceledIrp,
            ReservePointer,
        }
        IO_CSQ_IRP_CONTEXT { Type, Irp, Csq }
        TIMER_SET_COALESCABLE_TIMER_INFO {
            DueTime, TimerApcRoutine, TimerContext, WakeContext, Period, TolerableDelay, PreviousState,
        }
        EXT_SET_PARAMETERS { Version, Reserved, NoWakeTolerance }
        EXT_DELETE_PARAMETERS { Version, Reserved, DeleteCallback, DeleteContext }
        KE_PROCESSOR_CHANGE_NOTIFY_CONTEXT { State, NtNumber, Status, ProcNumber }
        IO_CONNECT_INTERRUPT_PARAMETERS { Version, Anonymous }
        IO_CONNECT_INTERRUPT_FULLY_SPECIFIED_PARAMETERS {
            PhysicalDeviceObject, InterruptObject, ServiceRoutine, ServiceContext, SpinLock, SynchronizeIrql, FloatingSave,
            ShareVector, Vector, Irql, InterruptMode, ProcessorEnableMask, Group,
        }
        IO_CONNECT_INTERRUPT_LINE_BASED_PARAMETERS {
            PhysicalDeviceObject, InterruptObject, ServiceRoutine, ServiceContext, SpinLock, SynchronizeIrql, FloatingSave,
        }
        IO_CONNECT_INTERRUPT_MESSAGE_BASED_PARAMETERS {
            PhysicalDeviceObject, ConnectionContext, MessageServiceRoutine, ServiceContext, SpinLock, SynchronizeIrql,
            FloatingSave, FallBackServiceRoutine,
        }
        IO_DISCONNECT_INTERRUPT_PARAMETERS { Version, ConnectionContext }
    }
    let known: BTreeSet<Difference> = MISTAKES.iter().map(|&(fact, theirs, ours, _)| (fact.into(), theirs, ours)).collect();
    let found: BTreeSet<Difference> = differences.into_iter().collect();
    assert_eq!(found, known, "a new difference, or windows-sys has been mended: bring MISTAKES up to date");
}

/// The sizes of a routine's result and of its parameters, in bytes.
trait Shape {
    fn shape() -> Vec<usize>;
}

macro_rules! shapes {
    ($($parameter:ident)*) => {
        impl<R, $($parameter),*> Shape for unsafe extern "system" fn($($parameter),*) -> R {
            fn shape() -> Vec<usize> {
                vec![size_of::<R>(), $(size_of::<$parameter>()),*]
            }
        }
        impl<R, $($parameter),*> Shape for unsafe extern "system-unwind" fn($($parameter),*) -> R {
            fn shape() -> Vec<usize> {
                vec![size_of::<R>(), $(size_of::<$parameter>()),*]
            }
        }
    };
}

shapes! {}
shapes! { A }
shapes! { A B }
shapes! { A B C }
shapes! { A B C D }
shapes! { A B C D E }
shapes! { A B C D E F }
shapes! { A B C D E F G }
shapes! { A B C D E F G H }
shapes! { A B C D E F G H I }
shapes! { A B C D E F G H I J K }

/// The shape of the function pointer that `_pointer` would return. It is not called, so that the routine need not exist.
fn shape_of<F: Shape>(_pointer: impl FnOnce() -> F) -> Vec<usize> {
    F::shape()
}

macro_rules! routines {
    ($($parameters:tt { $($name:ident)* })*) => {
        vec![$($((
            stringify!($name),
            shape_of(routines!(@closure $name $parameters)),
            <ksync_sys::$name as Shape>::shape(),
        )),*),*]
    };
    (@closure $name:ident ($($parameter:tt),*)) => { || theirs::$name as unsafe extern "system" fn($($parameter),*) -> _ };
}

#[test]
fn routines_take_and_return_values_of_the_same_sizes() {
    let routines = routines! {
        () {
            ExGetPreviousMode ExSizeOfRundownProtectionCacheAware IoGetCurrentProcess IoSizeofWorkItem
            KeAreAllApcsDisabled KeAreApcsDisabled KeEnterCriticalRegion KeEnterGuardedRegion
            KeFlushQueuedDpcs KeGetCurrentIrql KeLeaveCriticalRegion KeLeaveGuardedRegion
            KeQueryActiveGroupCount KeQueryActiveProcessors KeQueryMaximumGroupCount KeQueryTimeIncrement KeQueryUnbiasedInterruptTime
            PsGetCurrentProcessId PsGetCurrentThreadId
        }
        (_) {
            IoConnectInterruptEx IoDisconnectInterrupt IoDisconnectInterruptEx KeAcquireInterruptSpinLock
            KeDeregisterProcessorChangeCallback KeQueryUnbiasedInterruptTimePrecise
            IoStartTimer IoStopTimer
            ExUnregisterCallback
            KeRemoveDeviceQueue
            KeInitializeDeviceQueue
            KeSetKernelStackSwapEnable
            MmBuildMdlForNonPagedPool
            IoFreeMdl
            IoReleaseCancelSpinLock
            IoAcquireCancelSpinLock
            IoCancelIrp
            IoFreeIrp
            IoGetRelatedDeviceObject
            IoGetAttachedDeviceReference
            IoGetAttachedDevice
            IoDetachDevice
            IoDeleteSymbolicLink
            ExAcquireFastMutex ExAcquireFastMutexUnsafe ExAcquireRundownProtection
            ExAcquireRundownProtectionCacheAware ExAcquireSpinLockExclusive
            ExAcquireSpinLockExclusiveAtDpcLevel ExAcquireSpinLockShared
            ExAcquireSpinLockSharedAtDpcLevel ExConvertExclusiveToSharedLite ExDeleteResourceLite
            ExDisableResourceBoostLite ExEnterCriticalRegionAndAcquireResourceExclusive
            ExEnterCriticalRegionAndAcquireResourceShared
            ExEnterCriticalRegionAndAcquireSharedWaitForExclusive ExFreeCacheAwareRundownProtection
            ExFreePool ExGetExclusiveWaiterCount ExGetSharedWaiterCount ExInitializePushLock
            ExInitializeResourceLite ExInitializeRundownProtection ExIsResourceAcquiredExclusiveLite
            ExIsResourceAcquiredSharedLite ExRaiseStatus ExReInitializeRundownProtection
            ExReInitializeRundownProtectionCacheAware ExReinitializeResourceLite ExReleaseFastMutex
            ExReleaseFastMutexUnsafe ExReleaseResourceAndLeaveCriticalRegion ExReleaseResourceLite
            ExReleaseRundownProtection ExReleaseRundownProtectionCacheAware
            ExReleaseSpinLockExclusiveFromDpcLevel ExReleaseSpinLockSharedFromDpcLevel
            ExRundownCompleted ExRundownCompletedCacheAware ExTryAcquireSpinLockExclusiveAtDpcLevel
            ExTryAcquireSpinLockSharedAtDpcLevel ExTryConvertSharedSpinLockExclusive
            ExTryToAcquireFastMutex ExWaitForRundownProtectionRelease
            ExWaitForRundownProtectionReleaseCacheAware IoAllocateWorkItem IoDeleteDevice
            IoFreeWorkItem IoUninitializeWorkItem KeAcquireGuardedMutex KeAcquireGuardedMutexUnsafe
            KeAcquireSpinLockForDpc KeBugCheck KeCancelTimer KeClearEvent KeGetCurrentProcessorNumberEx
            KeGetProcessorIndexFromNumber KeInitializeGuardedMutex KeInitializeTimer
            KeQueryActiveProcessorCount KeQueryActiveProcessorCountEx KeQueryInterruptTimePrecise
            KeQueryGroupAffinity KeQueryMaximumProcessorCountEx KeQueryPerformanceCounter KeQueryPriorityThread
            KeQuerySystemTimePrecise KeReadStateEvent KeReadStateMutex KeReadStateQueue
            KeReadStateSemaphore KeReadStateTimer KeReleaseGuardedMutex KeReleaseGuardedMutexUnsafe
            KeReleaseInStackQueuedSpinLock KeReleaseInStackQueuedSpinLockForDpc
            KeReleaseInStackQueuedSpinLockFromDpcLevel KeRemoveQueueDpc KeResetEvent
            KeRevertToUserAffinityThreadEx KeRevertToUserGroupAffinityThread KeRundownQueue
            KeSetSystemAffinityThreadEx KeStallExecutionProcessor KeTestSpinLock
            KeTryToAcquireGuardedMutex KeTryToAcquireSpinLockAtDpcLevel KfRaiseIrql
            MmGetSystemRoutineAddress MmIsAddressValid ObDereferenceObjectDeferDelete
            ObReferenceObjectSafe ObfDereferenceObject ObfReferenceObject PsGetProcessExitStatus
            PsGetProcessId PsGetThreadExitStatus PsGetThreadId PsGetThreadProcess PsGetThreadProcessId
            PsIsSystemThread PsIsThreadTerminating PsTerminateSystemThread RtlGetVersion
            NtClose RtlRunOnceInitialize ZwClose
        }
        (_, _) {
            KeIpiGenericCall KeRemoveQueueDpcEx
            KeReleaseInterruptSpinLock
            IoGetDriverObjectExtension
            KeRemoveEntryDeviceQueue
            KeRemoveByKeyDeviceQueueIfBusy
            KeRemoveByKeyDeviceQueue
            KeInsertDeviceQueue
            IoCreateSynchronizationEvent
            IoCreateNotificationEvent
            IoCsqRemoveNextIrp
            IoCsqRemoveIrp
            IoStartNextPacket
            IoReuseIrp
            IoAllocateIrp
            IofCompleteRequest
            IofCallDriver
            IoAttachDeviceToDeviceStack
            IoCreateSymbolicLink
            ExAcquirePushLockExclusiveEx ExAcquirePushLockSharedEx ExAcquireResourceExclusiveLite
            ExAcquireResourceSharedLite ExAcquireRundownProtectionCacheAwareEx
            ExAcquireRundownProtectionEx ExAcquireSharedStarveExclusive ExAcquireSharedWaitForExclusive
            ExAllocateCacheAwareRundownProtection ExCancelTimer ExFreePoolWithTag
            ExInitializeRundownProtectionCacheAware ExQueueWorkItem ExReleasePushLockExclusiveEx
            ExReleasePushLockSharedEx ExReleaseResourceForThreadLite
            ExReleaseRundownProtectionCacheAwareEx ExReleaseRundownProtectionEx
            ExReleaseSpinLockExclusive ExReleaseSpinLockShared ExSetResourceOwnerPointer
            ExSetTimerResolution IoInitializeWorkItem KeAcquireInStackQueuedSpinLock
            KeAcquireInStackQueuedSpinLockAtDpcLevel KeAcquireInStackQueuedSpinLockForDpc
            KeGetProcessorNumberFromIndex KeInitializeMutant KeInitializeMutex KeInitializeQueue
            KeInitializeTimerEx KeInsertHeadQueue KeInsertQueue KeQueryRuntimeThread KeReleaseMutex
            KeReleaseSpinLockForDpc KeSetBasePriorityThread KeSetImportanceDpc KeSetPriorityThread
            KeSetSystemGroupAffinityThread KeSetTargetProcessorDpc KeSetTargetProcessorDpcEx
            NtSetEvent ObDereferenceObjectDeferDeleteWithTag ObfDereferenceObjectWithTag
            ObfReferenceObjectWithTag PsLookupProcessByProcessId PsLookupThreadByThreadId ZwCancelTimer
            ZwSetEvent
        }
        (_, _, _) {
            KeRegisterProcessorChangeCallback
            KeSynchronizeExecution
            IoInitializeTimer
            ExNotifyCallback ExRegisterCallback
            KeInsertByKeyDeviceQueue
            IoSetStartIoAttributes IoStartNextPacketByKey
            IoCsqInsertIrp
            IoInitializeIrp
            IoAttachDeviceToDeviceStackSafe
            ExAllocatePool2 ExAllocatePoolWithTag ExAllocateTimer ExQueryTimerResolution
            IoReleaseRemoveLockAndWaitEx IoReleaseRemoveLockEx KeDelayExecutionThread KeInitializeDpc
            KeInitializeEvent KeInitializeSemaphore KeInitializeThreadedDpc KeInsertQueueDpc
            KePulseEvent KeRemoveQueue KeSetEvent KeSetTimer RtlRunOnceBeginInitialize
            NtWaitForSingleObject RtlRunOnceComplete ZwOpenEvent ZwOpenTimer ZwWaitForSingleObject
        }
        (_, _, _, _) {
            IoTryQueueWorkItem
            IoAllocateDriverObjectExtension IoCsqInsertIrpEx ZwSetTimerEx
            ExCreateCallback
            IoStartPacket
            IoGetDeviceObjectPointer
            ExDeleteTimer ExSetTimer IoQueueWorkItem IoQueueWorkItemEx KeReleaseMutant
            KeReleaseSemaphore KeSetTimerEx ObReferenceObjectByPointer RtlRunOnceExecuteOnce
            ZwCreateTimer ZwOpenProcess ZwSetInformationThread
        }
        (_, _, _, _, _) {
            IoAllocateMdl
            IoAcquireRemoveLockEx IoInitializeRemoveLockEx KeBugCheckEx KeSetCoalescableTimer
            KeWaitForSingleObject NtCreateEvent ZwCreateEvent ZwQueryInformationProcess
            ZwQueryInformationThread ZwQueryObject
        }
        (_, _, _, _, _, _) {
            MmMapLockedPagesSpecifyCache
            IoBuildAsynchronousFsdRequest
            ObReferenceObjectByHandle
        }
        (_, _, _, _, _, _, _) {
            IoCsqInitializeEx
            IoCsqInitialize
            IoBuildSynchronousFsdRequest
            IoCreateDevice ObOpenObjectByPointer PsCreateSystemThread ZwDuplicateObject ZwSetTimer
        }
        (_, _, _, _, _, _, _, _) {
            KeWaitForMultipleObjects
        }
        (_, _, _, _, _, _, _, _, _) {
            IoBuildDeviceIoControlRequest
        }
        (_, _, _, _, _, _, _, _, _, _, _) {
            IoConnectInterrupt
        }
    };
    for (name, theirs, ours) in &routines {
        assert_eq!(theirs, ours, "{name}: the result, then the parameters");
    }

    // Nothing is left out.
    let compared: BTreeSet<&str> = routines.iter().map(|(name, ..)| *name).chain(MISSING.iter().copied()).collect();
    let declared: BTreeSet<&str> = SOURCES
        .iter()
        .flat_map(|source| source.lines())
        .filter_map(|line| line.trim().strip_prefix("fn ")?.split('(').next())
        .collect();
    assert_eq!(declared, compared);
}
