//! The inlines of the WDK's headers, in Rust.
//!
//! What C writes as a macro that assigns to a variable takes a pointer to it here.

mod io;
mod list;
mod lookaside;
mod shared_data;

pub use io::*;
pub use list::*;
pub use lookaside::*;
#[cfg(all(windows, not(feature = "hosted")))]
pub use shared_data::*;

use crate::*;
use core::ptr::null_mut;

/// Returns the current level, from the register CR8.
///
/// # IRQL
/// Any level.
///
/// # Safety
/// The caller is in kernel mode. Where it is not, as under Wine, whatever handles the trap must emulate the read; Wine's reads zero.
#[cfg(all(windows, not(feature = "hosted"), target_arch = "x86_64"))]
#[inline(always)]
#[must_use]
pub unsafe extern "system" fn KeGetCurrentIrql() -> KIRQL {
    let level: u64;
    // SAFETY: kernel mode may read CR8, which changes nothing. Leaving out `nomem` keeps the read in program order with
    // the calls that change the level.
    unsafe { core::arch::asm!("mov {}, cr8", out(reg) level, options(nostack, preserves_flags)) };
    // CAST: the task priority has four bits.
    level as KIRQL
}

/// The type of the routine `KeGetCurrentIrql`.
#[cfg(all(windows, not(feature = "hosted"), target_arch = "x86_64"))]
pub type KeGetCurrentIrql = unsafe extern "system" fn() -> KIRQL;

/// Raises the level and writes the one before.
///
/// # IRQL
/// `<= NewIrql`.
///
/// # Safety
/// As for every routine; `OldIrql` is written.
#[inline]
pub unsafe fn KeRaiseIrql(NewIrql: KIRQL, OldIrql: *mut KIRQL) {
    // SAFETY: by the caller's contract.
    let old = unsafe { KfRaiseIrql(NewIrql) };
    // SAFETY: by the caller's contract.
    unsafe { OldIrql.write(old) }
}

/// Initialises a free spin lock: writes zero.
///
/// # IRQL
/// Any level.
///
/// # Safety
/// As for every routine.
#[inline]
pub unsafe fn KeInitializeSpinLock(SpinLock: *mut KSPIN_LOCK) {
    // SAFETY: by the caller's contract.
    unsafe { SpinLock.write_volatile(0) }
    #[cfg(not(all(windows, not(feature = "hosted"))))]
    {
        unsafe extern "system-unwind" {
            /// Tells the hosted kernel that a lock begins here.
            fn KsimInitializeSpinLock(SpinLock: *mut KSPIN_LOCK);
        }
        // SAFETY: by the caller's contract.
        unsafe { KsimInitializeSpinLock(SpinLock) }
    }
}

/// Raises the level to `DISPATCH_LEVEL`, acquires the lock and then writes the level before.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Safety
/// As for every routine; `OldIrql` is written.
#[inline]
pub unsafe fn KeAcquireSpinLock(SpinLock: *mut KSPIN_LOCK, OldIrql: *mut KIRQL) {
    // SAFETY: by the caller's contract.
    let old = unsafe { KeAcquireSpinLockRaiseToDpc(SpinLock) };
    // SAFETY: by the caller's contract.
    unsafe { OldIrql.write(old) }
}

/// Initialises a free fast mutex.
///
/// # IRQL
/// Any level.
///
/// # Safety
/// As for every routine.
#[inline]
pub unsafe fn ExInitializeFastMutex(FastMutex: *mut FAST_MUTEX) {
    // SAFETY: by the caller's contract.
    unsafe { (*FastMutex).Count = 1 };
    // SAFETY: by the caller's contract.
    unsafe { (*FastMutex).Owner = null_mut() };
    // SAFETY: by the caller's contract.
    unsafe { (*FastMutex).Contention = 0 };
    // SAFETY: the field lies in the caller's mutex.
    let event = unsafe { &raw mut (*FastMutex).Event };
    // SAFETY: by the caller's contract.
    unsafe { KeInitializeEvent(event, SynchronizationEvent, FALSE) }
}

/// Waits for a mutex: [`KeWaitForSingleObject`](fn@crate::KeWaitForSingleObject).
///
/// # IRQL
/// `<= APC_LEVEL`; `<= DISPATCH_LEVEL` with a timeout of zero.
///
/// # Safety
/// As for every routine.
#[inline]
pub unsafe fn KeWaitForMutexObject(
    Mutex: *mut KMUTEX,
    WaitReason: KWAIT_REASON,
    WaitMode: KPROCESSOR_MODE,
    Alertable: BOOLEAN,
    Timeout: *const LARGE_INTEGER,
) -> NTSTATUS {
    // SAFETY: by the caller's contract.
    unsafe { KeWaitForSingleObject(Mutex.cast(), WaitReason, WaitMode, Alertable, Timeout) }
}

/// Returns the current thread, without a reference.
///
/// # IRQL
/// Any level.
///
/// # Safety
/// As for every routine.
#[inline]
#[must_use]
pub unsafe fn PsGetCurrentThread() -> *mut ETHREAD {
    // SAFETY: by the caller's contract.
    unsafe { KeGetCurrentThread() }.cast()
}

/// Returns the current process, without a reference.
///
/// # IRQL
/// Any level.
///
/// # Safety
/// As for every routine.
#[inline]
#[must_use]
pub unsafe fn PsGetCurrentProcess() -> *mut EPROCESS {
    // SAFETY: by the caller's contract.
    unsafe { IoGetCurrentProcess() }
}

/// Returns the current thread as an owner of executive resources.
///
/// # IRQL
/// Any level.
///
/// # Safety
/// As for every routine.
#[inline]
#[must_use]
pub unsafe fn ExGetCurrentResourceThread() -> ERESOURCE_THREAD {
    // SAFETY: by the caller's contract.
    unsafe { KeGetCurrentThread() }.expose_provenance()
}

/// References an object.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Safety
/// As for every routine.
#[inline]
pub unsafe fn ObReferenceObject(Object: PVOID) -> LONG_PTR {
    // SAFETY: by the caller's contract.
    unsafe { ObfReferenceObject(Object) }
}

/// Gives a reference back; the last one deletes the object.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`; `PASSIVE_LEVEL` if it may be the last.
///
/// # Safety
/// As for every routine; the reference is the caller's.
#[inline]
pub unsafe fn ObDereferenceObject(Object: PVOID) -> LONG_PTR {
    // SAFETY: by the caller's contract.
    unsafe { ObfDereferenceObject(Object) }
}

/// Acquires a push lock exclusively; the caller is in a critical region.
///
/// # IRQL
/// `<= APC_LEVEL`.
///
/// # Safety
/// As for every routine.
#[inline]
pub unsafe fn ExAcquirePushLockExclusive(PushLock: *mut EX_PUSH_LOCK) {
    // SAFETY: by the caller's contract.
    unsafe { ExAcquirePushLockExclusiveEx(PushLock, EX_DEFAULT_PUSH_LOCK_FLAGS) }
}

/// Acquires a push lock shared; the caller is in a critical region.
///
/// # IRQL
/// `<= APC_LEVEL`.
///
/// # Safety
/// As for every routine.
#[inline]
pub unsafe fn ExAcquirePushLockShared(PushLock: *mut EX_PUSH_LOCK) {
    // SAFETY: by the caller's contract.
    unsafe { ExAcquirePushLockSharedEx(PushLock, EX_DEFAULT_PUSH_LOCK_FLAGS) }
}

/// Releases a push lock that was acquired exclusively.
///
/// # IRQL
/// `<= APC_LEVEL`.
///
/// # Safety
/// As for every routine.
#[inline]
pub unsafe fn ExReleasePushLockExclusive(PushLock: *mut EX_PUSH_LOCK) {
    // SAFETY: by the caller's contract.
    unsafe { ExReleasePushLockExclusiveEx(PushLock, EX_DEFAULT_PUSH_LOCK_FLAGS) }
}

/// Releases a push lock that was acquired shared.
///
/// # IRQL
/// `<= APC_LEVEL`.
///
/// # Safety
/// As for every routine.
#[inline]
pub unsafe fn ExReleasePushLockShared(PushLock: *mut EX_PUSH_LOCK) {
    // SAFETY: by the caller's contract.
    unsafe { ExReleasePushLockSharedEx(PushLock, EX_DEFAULT_PUSH_LOCK_FLAGS) }
}

/// Initialises a work item that is not queued.
///
/// # IRQL
/// Any level.
///
/// # Safety
/// As for every routine.
#[inline]
pub unsafe fn ExInitializeWorkItem(Item: *mut WORK_QUEUE_ITEM, Routine: PWORKER_THREAD_ROUTINE, Context: PVOID) {
    // SAFETY: by the caller's contract.
    unsafe { (*Item).WorkerRoutine = Routine };
    // SAFETY: by the caller's contract.
    unsafe { (*Item).Parameter = Context };
    // SAFETY: by the caller's contract.
    unsafe { (*Item).List.Flink = null_mut() }
}

/// Initialises the parameters of [`ExSetTimer`](fn@crate::ExSetTimer): no tolerance.
///
/// # IRQL
/// Any level.
///
/// # Safety
/// As for every routine.
#[inline]
pub unsafe fn ExInitializeSetTimerParameters(Parameters: *mut EXT_SET_PARAMETERS) {
    // SAFETY: by the caller's contract.
    unsafe { Parameters.write(EXT_SET_PARAMETERS { Version: 0, Reserved: 0, NoWakeTolerance: 0 }) }
}

/// Initialises the parameters of [`ExDeleteTimer`](fn@crate::ExDeleteTimer): no callback.
///
/// # IRQL
/// Any level.
///
/// # Safety
/// As for every routine.
#[inline]
pub unsafe fn ExInitializeDeleteTimerParameters(Parameters: *mut EXT_DELETE_PARAMETERS) {
    let parameters = EXT_DELETE_PARAMETERS { Version: 0, Reserved: 0, DeleteCallback: None, DeleteContext: null_mut() };
    // SAFETY: by the caller's contract.
    unsafe { Parameters.write(parameters) }
}

/// The size that the remove lock routines are told, which tells them the structure apart from a checked driver's.
// CAST: 32.
const REMOVE_LOCK_SIZE: ULONG = size_of::<IO_REMOVE_LOCK>() as ULONG;

/// Initialises a remove lock.
///
/// # IRQL
/// `PASSIVE_LEVEL`.
///
/// # Safety
/// As for every routine.
#[inline]
pub unsafe fn IoInitializeRemoveLock(
    Lock: *mut IO_REMOVE_LOCK,
    AllocateTag: ULONG,
    MaxLockedMinutes: ULONG,
    HighWatermark: ULONG,
) {
    // SAFETY: by the caller's contract.
    unsafe { IoInitializeRemoveLockEx(Lock, AllocateTag, MaxLockedMinutes, HighWatermark, REMOVE_LOCK_SIZE) }
}

/// Adds a user to a remove lock, or returns `STATUS_DELETE_PENDING`.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Safety
/// As for every routine.
#[inline]
pub unsafe fn IoAcquireRemoveLock(RemoveLock: *mut IO_REMOVE_LOCK, Tag: PVOID) -> NTSTATUS {
    // SAFETY: by the caller's contract.
    unsafe { IoAcquireRemoveLockEx(RemoveLock, Tag, c"".as_ptr().cast(), 1, REMOVE_LOCK_SIZE) }
}

/// Takes a user away from a remove lock.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Safety
/// As for every routine.
#[inline]
pub unsafe fn IoReleaseRemoveLock(RemoveLock: *mut IO_REMOVE_LOCK, Tag: PVOID) {
    // SAFETY: by the caller's contract.
    unsafe { IoReleaseRemoveLockEx(RemoveLock, Tag, REMOVE_LOCK_SIZE) }
}

/// Takes the caller's use away from a remove lock, admits no more users and waits for the last one.
///
/// # IRQL
/// `PASSIVE_LEVEL`.
///
/// # Safety
/// As for every routine.
#[inline]
pub unsafe fn IoReleaseRemoveLockAndWait(RemoveLock: *mut IO_REMOVE_LOCK, Tag: PVOID) {
    // SAFETY: by the caller's contract.
    unsafe { IoReleaseRemoveLockAndWaitEx(RemoveLock, Tag, REMOVE_LOCK_SIZE) }
}

/// Fills in object attributes.
///
/// # Safety
/// `Attributes` is written. What the other pointers need is up to the routine that is given the attributes.
#[inline]
pub unsafe fn InitializeObjectAttributes(
    Attributes: *mut OBJECT_ATTRIBUTES,
    ObjectName: *mut UNICODE_STRING,
    Flags: ULONG,
    RootDirectory: HANDLE,
    SecurityDescriptor: PVOID,
) {
    let attributes = OBJECT_ATTRIBUTES {
        // CAST: 48.
        Length: size_of::<OBJECT_ATTRIBUTES>() as ULONG,
        RootDirectory,
        ObjectName,
        Attributes: Flags,
        SecurityDescriptor,
        SecurityQualityOfService: null_mut(),
    };
    // SAFETY: by the caller's contract.
    unsafe { Attributes.write(attributes) }
}

/// Returns the handle that stands for the current process.
#[inline]
#[must_use]
pub const fn NtCurrentProcess() -> HANDLE {
    core::ptr::without_provenance_mut(usize::MAX)
}

/// Returns the handle that stands for the current process.
#[inline]
#[must_use]
pub const fn ZwCurrentProcess() -> HANDLE {
    NtCurrentProcess()
}

/// Returns the handle that stands for the current thread.
#[inline]
#[must_use]
pub const fn NtCurrentThread() -> HANDLE {
    core::ptr::without_provenance_mut(usize::MAX - 1)
}

/// Returns the handle that stands for the current thread.
#[inline]
#[must_use]
pub const fn ZwCurrentThread() -> HANDLE {
    NtCurrentThread()
}
