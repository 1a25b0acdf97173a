//! Objects, threads and processes: the forms with tags, and simple queries.

use crate::engine::kernel::Kernel;
use crate::exports::{ANY, BLOCKING, DISPATCHER, PASSIVE, image_exports};
use ksync_sys::{
    ACCESS_MASK, ACCESS_STATE, BOOLEAN, DEVICE_OBJECT, EPROCESS, ETHREAD, ExGetPreviousMode, FALSE, GROUP_AFFINITY, HANDLE, IRP,
    IoGetCurrentProcess, IoSetCompletionRoutine, KAFFINITY, KPROCESSOR_MODE, KTHREAD, KWAIT_REASON, KeGetCurrentThread,
    KeRevertToUserAffinityThreadEx, KeSetSystemAffinityThreadEx, KeWaitForSingleObject, LARGE_INTEGER, LONG_PTR, NTSTATUS,
    NtClose, OBJECT_HANDLE_INFORMATION, OBJECT_TYPE, ObOpenObjectByPointer, ObReferenceObjectByHandle,
    ObReferenceObjectByPointer, ObReferenceObjectSafe, ObfDereferenceObject, PIO_COMPLETION_ROUTINE, PVOID,
    PsGetCurrentProcessId, PsGetThreadProcess, PsIsSystemThread, STATUS_SUCCESS, ULONG, UNICODE_STRING, USHORT, UserMode,
    ZwClose,
};
use std::ptr::null_mut;

/// The size of a cache line, which data that processors share is best kept apart by.
const CACHE_LINE: ULONG = 64;

/// Writes what the caller may not want.
fn give<T>(place: *mut T, value: T) {
    if !place.is_null() {
        // SAFETY: the driver passes null or a valid pointer.
        unsafe { place.write(value) };
    }
}

image_exports! {
    [PASSIVE] silent fn ObReferenceObjectByHandleWithTag(
        _call; Handle: HANDLE, DesiredAccess: ACCESS_MASK, ObjectType: *mut OBJECT_TYPE, AccessMode: KPROCESSOR_MODE,
        _Tag: ULONG, Object: *mut PVOID, HandleInformation: *mut OBJECT_HANDLE_INFORMATION
    ) -> NTSTATUS {
        // SAFETY: the same routine without the tag, which only debuggers look at; here and below.
        unsafe { ObReferenceObjectByHandle(Handle, DesiredAccess, ObjectType, AccessMode, Object, HandleInformation) }
    }

    [DISPATCHER] silent fn ObReferenceObjectByPointerWithTag(
        _call; Object: PVOID, DesiredAccess: ACCESS_MASK, ObjectType: *mut OBJECT_TYPE, AccessMode: KPROCESSOR_MODE, _Tag: ULONG
    ) -> NTSTATUS {
        // SAFETY: as above.
        unsafe { ObReferenceObjectByPointer(Object, DesiredAccess, ObjectType, AccessMode) }
    }

    [PASSIVE] silent fn ObOpenObjectByPointerWithTag(
        _call; Object: PVOID, HandleAttributes: ULONG, PassedAccessState: *mut ACCESS_STATE, DesiredAccess: ACCESS_MASK,
        ObjectType: *mut OBJECT_TYPE, AccessMode: KPROCESSOR_MODE, _Tag: ULONG, Handle: *mut HANDLE
    ) -> NTSTATUS {
        // SAFETY: as above.
        unsafe {
            ObOpenObjectByPointer(Object, HandleAttributes, PassedAccessState, DesiredAccess, ObjectType, AccessMode, Handle)
        }
    }

    [DISPATCHER] silent fn ObReferenceObjectSafeWithTag(_call; Object: PVOID, _Tag: ULONG) -> BOOLEAN {
        // SAFETY: as above.
        unsafe { ObReferenceObjectSafe(Object) }
    }

    [DISPATCHER] silent fn ObDereferenceObject(_call; Object: PVOID) -> LONG_PTR {
        // SAFETY: the same routine by its older name.
        unsafe { ObfDereferenceObject(Object) }
    }

    [PASSIVE] silent fn ObCloseHandle(_call; Handle: HANDLE, PreviousMode: KPROCESSOR_MODE) -> NTSTATUS {
        if PreviousMode == UserMode {
            // SAFETY: closing may be tried on any handle; here and below.
            return unsafe { NtClose(Handle) };
        }
        // SAFETY: as above.
        unsafe { ZwClose(Handle) }
    }

    [ANY] silent fn ObIsKernelHandle(_call; Handle: HANDLE) -> BOOLEAN {
        BOOLEAN::from(crate::engine::ob::is_kernel_handle(Handle as usize))
    }

    [ANY] silent fn PsGetCurrentThread(_call) -> *mut KTHREAD {
        // SAFETY: the routine may be called by anybody; here and below.
        unsafe { KeGetCurrentThread() }
    }

    [ANY] silent fn PsGetCurrentProcess(_call) -> *mut EPROCESS {
        // SAFETY: as above.
        unsafe { IoGetCurrentProcess() }
    }

    [ANY] silent fn PsGetCurrentThreadProcess(_call) -> *mut EPROCESS {
        // SAFETY: as above.
        unsafe { IoGetCurrentProcess() }
    }

    [ANY] silent fn PsGetCurrentThreadProcessId(_call) -> HANDLE {
        // SAFETY: as above.
        unsafe { PsGetCurrentProcessId() }
    }

    [ANY] silent fn IoThreadToProcess(_call; Thread: *mut ETHREAD) -> *mut EPROCESS {
        // SAFETY: the same routine by its other name.
        unsafe { PsGetThreadProcess(Thread) }
    }

    [ANY] silent fn IoIsSystemThread(_call; Thread: *mut ETHREAD) -> BOOLEAN {
        // SAFETY: the same routine by its other name.
        unsafe { PsIsSystemThread(Thread) }
    }

    [ANY] silent fn PsIsSystemProcess(call; Process: *mut EPROCESS) -> BOOLEAN {
        BOOLEAN::from(call.operate(|kernel| Ok(kernel.process_at(Process)? == Kernel::SYSTEM_PROCESS)))
    }

    [ANY] silent fn PsGetCurrentThreadPreviousMode(_call) -> KPROCESSOR_MODE {
        // SAFETY: the same routine by its other name.
        unsafe { ExGetPreviousMode() }
    }

    [ANY] silent fn PsGetProcessExitProcessCalled(call; Process: *mut EPROCESS) -> BOOLEAN {
        // Processes of the hosted kernel do not exit.
        call.operate(|kernel| kernel.process_at(Process).map(|_| FALSE))
    }

    // All processes are of session 0.
    [ANY] silent fn PsGetProcessSessionId(call; Process: *mut EPROCESS) -> ULONG {
        call.operate(|kernel| kernel.process_at(Process).map(|_| 0))
    }

    [ANY] silent fn PsGetCurrentProcessSessionId(_call) -> ULONG {
        0
    }

    // No thread has a block in user mode.
    [ANY] silent fn PsGetCurrentThreadTeb(_call) -> PVOID {
        null_mut()
    }

    [ANY] silent fn PsGetThreadTeb(call; Thread: *mut ETHREAD) -> PVOID {
        call.operate(|kernel| kernel.thread_at(Thread).map(|_| null_mut()))
    }

    [DISPATCHER] silent fn IoSetCompletionRoutineEx(
        _call; _DeviceObject: *mut DEVICE_OBJECT, Irp: *mut IRP, CompletionRoutine: PIO_COMPLETION_ROUTINE, Context: PVOID,
        InvokeOnSuccess: BOOLEAN, InvokeOnError: BOOLEAN, InvokeOnCancel: BOOLEAN
    ) -> NTSTATUS {
        // SAFETY: the same, but that the routine's driver cannot be unloaded meanwhile: here, that is reported.
        unsafe { IoSetCompletionRoutine(Irp, CompletionRoutine, Context, InvokeOnSuccess, InvokeOnError, InvokeOnCancel) };
        STATUS_SUCCESS
    }

    [BLOCKING] silent fn KeWaitForMutexObject(
        _call; Mutex: PVOID, WaitReason: KWAIT_REASON, WaitMode: KPROCESSOR_MODE, Alertable: BOOLEAN,
        Timeout: *const LARGE_INTEGER
    ) -> NTSTATUS {
        // SAFETY: as above.
        unsafe { KeWaitForSingleObject(Mutex, WaitReason, WaitMode, Alertable, Timeout) }
    }

    // All of a DPC's processor is busy with it.
    [ANY] silent fn KeIsExecutingDpc(call) -> ULONG {
        call.read(|kernel| ULONG::from(kernel.in_dpc()))
    }

    [PASSIVE] silent fn PsGetVersion(
        call; MajorVersion: *mut ULONG, MinorVersion: *mut ULONG, BuildNumber: *mut ULONG, CSDVersion: *mut UNICODE_STRING
    ) -> BOOLEAN {
        let (major, minor, build) = call.read(|kernel| kernel.config.profile.version());
        give(MajorVersion, major);
        give(MinorVersion, minor);
        give(BuildNumber, build);
        if !CSDVersion.is_null() {
            // SAFETY: the driver passes null or a valid string. There is no service pack.
            unsafe { (*CSDVersion).Length = 0 };
        }
        // A free build.
        FALSE
    }

    [BLOCKING] silent fn KeSetSystemAffinityThread(_call; Affinity: KAFFINITY) {
        // SAFETY: the routine may be called by any thread; here and below.
        unsafe { KeSetSystemAffinityThreadEx(Affinity) };
    }

    [BLOCKING] silent fn KeRevertToUserAffinityThread(_call) {
        // SAFETY: as above. No processors stand for the thread's own affinity.
        unsafe { KeRevertToUserAffinityThreadEx(0) };
    }

    [ANY] silent fn KeQueryMaximumProcessorCount(call) -> ULONG {
        call.read(|kernel| ULONG::from(kernel.config.groups.size(0)))
    }

    // All processors are of one node.
    [ANY] silent fn KeGetCurrentNodeNumber(_call) -> USHORT {
        0
    }

    [ANY] silent fn KeQueryHighestNodeNumber(_call) -> USHORT {
        0
    }

    // The only node is node 0, whose processors are those of group 0.
    [ANY] silent fn KeQueryNodeActiveAffinity(call; NodeNumber: USHORT, Affinity: *mut GROUP_AFFINITY, Count: *mut USHORT) {
        let mask = call.read(|kernel| if NodeNumber == 0 { kernel.config.groups.active(0) } else { 0 });
        give(Affinity, GROUP_AFFINITY { Mask: mask, Group: 0, Reserved: [0; 3] });
        give(Count, mask.count_ones() as USHORT);
    }

    [ANY] silent fn KeQueryNodeMaximumProcessorCount(call; NodeNumber: USHORT) -> USHORT {
        call.read(|kernel| if NodeNumber == 0 { kernel.config.groups.size(0).into() } else { 0 })
    }

    [ANY] silent fn KeGetRecommendedSharedDataAlignment(_call) -> ULONG {
        CACHE_LINE
    }
}
