//! Seed 004, the chapter on the synchronization objects of WDM: its C code in raw calls, as the chapter writes them, on the hosted kernel. The same over this library is in
//! `seed_004_wdm.rs`.
//!
//! What is changed throughout, and why:
//! - The page's case and spaces (`KeGetCurrentIqrl`, `NSTATUS`, `Kesettimer`) are those of NT's headers.
//! - A `LARGE_INTEGER` is an `i64`, and a `TRUE` or `FALSE` a `BOOLEAN`, of one byte.
//! - `PKTIMER` and the like are `*mut KTIMER`.
//! - "someone gives you this" memory is on the test's stack, which the hosted kernel takes for nonpaged; the machine's own checks watch it.

#![expect(non_camel_case_types, non_snake_case, reason = "the chapter's names")]

use core::mem::MaybeUninit;
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicU32, Ordering};

use ksim::Machine;
use ksync::sys::*;

/// The chapter's `ASSERT`.
use std::assert as ASSERT;

/// A call of a routine, of which each has its own conditions: those that the chapter names are asserted before it.
macro_rules! raw {
    ($call:expr) => {
        // SAFETY: the objects are local variables or statics that outlive their use, initialised by the call or before it.
        unsafe { $call }
    };
}

fn on_machines(code: impl Fn()) {
    for seed in 0..20 {
        Machine::new().processors(2).seed(seed).run(&code).expect_clean();
    }
}

fn irql() -> KIRQL {
    raw!(KeGetCurrentIrql())
}

/// "Kernel mutex".
#[test]
fn kernel_mutex() {
    on_machines(|| {
        let mut storage = MaybeUninit::<KMUTEX>::uninit();
        let mutex = storage.as_mut_ptr();
        let level = 0;

        ASSERT!(irql() == PASSIVE_LEVEL);
        raw!(KeInitializeMutex(mutex, level));

        ASSERT!(irql() <= DISPATCH_LEVEL);
        let signalled: LONG = raw!(KeReadStateMutex(mutex));
        assert_ne!(signalled, 0);

        // `#define KeWaitForMutexObject KeWaitForSingleObject`. It "can be obtained recursively", and "must release the mutex at the same time".
        for _ in 0..2 {
            assert_eq!(raw!(KeWaitForSingleObject(mutex.cast(), Executive, KernelMode, FALSE, null())), STATUS_SUCCESS);
        }
        let wait = FALSE;
        ASSERT!(irql() == PASSIVE_LEVEL);
        // "The return value of this function is always 0, indicating that the mutex object has been occupied": not on the first of two releases. It is the state before,
        // which is 1 less for each time that it was acquired.
        let wassignalled: LONG = raw!(KeReleaseMutex(mutex, wait));
        assert_eq!(wassignalled, -1);
        assert_eq!(raw!(KeReleaseMutex(mutex, wait)), 0);
    });
}

/// "Notification timer usage event".
#[test]
fn notification_timer() {
    on_machines(|| {
        let mut storage = MaybeUninit::<KTIMER>::uninit();
        let timer: *mut KTIMER = storage.as_mut_ptr(); //  someone gives you this
        ASSERT!(irql() <= DISPATCH_LEVEL);
        raw!(KeInitializeTimer(timer));

        ASSERT!(irql() <= DISPATCH_LEVEL);
        // The chapter leaves the time open: a second from now.
        let duetime: LARGE_INTEGER = -10_000_000;
        let wascounting: BOOLEAN = raw!(KeSetTimer(timer, duetime, null_mut()));
        assert_eq!(wascounting, FALSE);

        ASSERT!(irql() <= DISPATCH_LEVEL);
        // What it reads is whether the timer is signaled, and not, as its name in the chapter says, whether it counts.
        let counting: BOOLEAN = raw!(KeReadStateTimer(timer));
        assert_eq!(counting, FALSE);

        assert_eq!(raw!(KeWaitForSingleObject(timer.cast(), Executive, KernelMode, FALSE, null())), STATUS_SUCCESS);
        assert_ne!(raw!(KeReadStateTimer(timer)), FALSE);

        // "We can call the initialization timer as follows".
        ASSERT!(irql() <= DISPATCH_LEVEL);
        raw!(KeInitializeTimerEx(timer, NotificationTimer));

        ASSERT!(irql() <= DISPATCH_LEVEL);
        let wascounting: BOOLEAN = raw!(KeSetTimerEx(timer, duetime, 0, null_mut()));
        assert_eq!(wascounting, FALSE);
        assert_ne!(raw!(KeCancelTimer(timer)), FALSE);
    });
}

/// "Synchronous Timer".
#[test]
fn synchronization_timer() {
    on_machines(|| {
        let mut storage = MaybeUninit::<KTIMER>::uninit();
        let timer: *mut KTIMER = storage.as_mut_ptr();
        ASSERT!(irql() <= DISPATCH_LEVEL);
        raw!(KeInitializeTimerEx(timer, SynchronizationTimer));
        raw!(KeSetTimer(timer, -1, null_mut()));
        // "Once a thread waits on such a timer, the timer automatically enters the non-signal state."
        assert_eq!(raw!(KeWaitForSingleObject(timer.cast(), Executive, KernelMode, FALSE, null())), STATUS_SUCCESS);
        assert_eq!(raw!(KeReadStateTimer(timer)), FALSE);
    });
}

/// The chapter's device extension, as far as it is shown.
#[repr(C)]
struct DEVICE_EXTENSION {
    evKill: KEVENT,
    /// The device, as it were: how often it was polled.
    polls: AtomicU32,
}
type PDEVICE_EXTENSION = *mut DEVICE_EXTENSION;

/// `arraysize(pollevents)`, which is a `ULONG` for the routine.
fn arraysize<T, const N: usize>(_: &[T; N]) -> ULONG {
    N as ULONG
}

unsafe extern "system-unwind" fn PollingThreadRoutine(context: PVOID) {
    // A start routine takes a `PVOID`; the chapter's takes the extension.
    let pdx: PDEVICE_EXTENSION = context.cast();
    let mut status: NTSTATUS;
    let mut timer = MaybeUninit::<KTIMER>::uninit();
    raw!(KeInitializeTimerEx(timer.as_mut_ptr(), SynchronizationTimer)); // <--1
    let pollevents: [PVOID; 2] = [
        // <--2
        raw!(&raw mut (*pdx).evKill).cast(),
        timer.as_mut_ptr().cast(),
    ];
    ASSERT!(arraysize(&pollevents) <= THREAD_WAIT_OBJECTS);

    let duetime: LARGE_INTEGER = 0;
    const POLLING_INTERVAL: LONG = 500;
    raw!(KeSetTimerEx(timer.as_mut_ptr(), duetime, POLLING_INTERVAL, null_mut())); // <--3
    loop {
        status = raw!(KeWaitForMultipleObjects(
            arraysize(&pollevents), // <--4
            pollevents.as_ptr(),
            WaitAny,
            Executive,
            KernelMode,
            FALSE,
            null(),
            null_mut()
        ));
        if status == STATUS_WAIT_0 {
            break;
        }
        // if (<device needs attention>)     <--5
        //   <do something>;
        raw!((*pdx).polls.fetch_add(1, Ordering::Relaxed));
    }
    raw!(KeCancelTimer(timer.as_mut_ptr()));
    // "The kernel thread calls the PsTerminateSystemThread function", which does not return: the function's frame must own nothing then.
    raw!(PsTerminateSystemThread(STATUS_SUCCESS));
}

/// The polling thread, and "Kernel Thread Synchronization": the object of a thread from its handle, and the wait for its end.
#[test]
fn polling_thread() {
    on_machines(|| {
        let mut storage = MaybeUninit::<DEVICE_EXTENSION>::uninit();
        let pdx: PDEVICE_EXTENSION = storage.as_mut_ptr();
        raw!(KeInitializeEvent(&raw mut (*pdx).evKill, NotificationEvent, FALSE));
        raw!((&raw mut (*pdx).polls).write(AtomicU32::new(0)));

        let mut hthread: HANDLE = null_mut();
        let mut thread: PVOID = null_mut();
        let status = raw!(PsCreateSystemThread(
            &raw mut hthread,
            THREAD_ALL_ACCESS,
            null(),
            null_mut(),
            null_mut(),
            Some(PollingThreadRoutine),
            pdx.cast()
        ));
        assert_eq!(status, STATUS_SUCCESS);
        let status =
            raw!(ObReferenceObjectByHandle(hthread, THREAD_ALL_ACCESS, null_mut(), KernelMode, &raw mut thread, null_mut()));
        assert_eq!(status, STATUS_SUCCESS);
        raw!(ZwClose(hthread));

        // "You can call this function at passive_level and give a time interval."
        ASSERT!(irql() == PASSIVE_LEVEL);
        let duetime: LARGE_INTEGER = -47_500_000;
        let status: NTSTATUS = raw!(KeDelayExecutionThread(KernelMode, FALSE, &raw const duetime));
        assert_eq!(status, STATUS_SUCCESS);

        // "The other part of the driver may set this object".
        raw!(KeSetEvent(&raw mut (*pdx).evKill, 0, FALSE));
        // "If a kernel thread object is specified in the call, your thread will be blocked until the kernel thread ends running."
        assert_eq!(raw!(KeWaitForSingleObject(thread, Executive, KernelMode, FALSE, null())), STATUS_SUCCESS);
        // "In some places, you still need to call ObDereferenceObject". It is a macro for this.
        raw!(ObfDereferenceObject(thread));
        // At once, and after each of nine times 500 ms.
        assert_eq!(raw!((*pdx).polls.load(Ordering::Relaxed)), 10);
    });
}

/// "When you are running in the context of a thread, you can easily obtain the KTHREAD pointer of the current thread".
#[test]
fn current_thread() {
    on_machines(|| {
        ASSERT!(irql() <= DISPATCH_LEVEL);
        let thread: *mut KTHREAD = raw!(KeGetCurrentThread());
        assert_eq!(raw!(KeGetCurrentThread()), thread);
        assert!(!thread.is_null());
    });
}

/// "You can call KeStallExecutionProcessor at any IRQL level". The page has lost the call itself.
#[test]
fn stall() {
    on_machines(|| {
        raw!(KeStallExecutionProcessor(50));
        let old = raw!(KfRaiseIrql(DISPATCH_LEVEL));
        raw!(KeStallExecutionProcessor(50));
        raw!(KeLowerIrql(old));
    });
}

unsafe extern "system-unwind" fn DpcRoutine(_dpc: *mut KDPC, context: PVOID, _junk1: PVOID, _junk2: PVOID) {
    assert_eq!(irql(), DISPATCH_LEVEL);
    // "A context parameter is an arbitrary 32-bit value (type: PVOID)": of 64 bits by now.
    let runs: *const AtomicU32 = context.cast();
    raw!((*runs).fetch_add(1, Ordering::Relaxed));
}

/// "In this section, we want the timer to trigger a DPC routine", and with it the periodic timer and its end.
#[test]
fn timer_with_a_dpc() {
    on_machines(|| {
        let runs = AtomicU32::new(0);
        let context: PVOID = (&raw const runs).cast_mut().cast();
        let (mut timer_storage, mut dpc_storage) = (MaybeUninit::<KTIMER>::uninit(), MaybeUninit::<KDPC>::uninit());
        let timer: *mut KTIMER = timer_storage.as_mut_ptr();
        let dpc: *mut KDPC = dpc_storage.as_mut_ptr(); //  points to KDPC you've allocated
        ASSERT!(irql() == PASSIVE_LEVEL);
        raw!(KeInitializeTimer(timer));
        raw!(KeInitializeDpc(dpc, Some(DpcRoutine), context));

        ASSERT!(irql() <= DISPATCH_LEVEL);
        let duetime: LARGE_INTEGER = -100_000;
        let wascounting: BOOLEAN = raw!(KeSetTimer(timer, duetime, dpc));
        assert_eq!(wascounting, FALSE);

        // "You can call KeWaitXxx even if you provide dpc parameters". "In a single CPU system, the DPC will be executed before completion": in others it is flushed first.
        assert_eq!(raw!(KeWaitForSingleObject(timer.cast(), Executive, KernelMode, FALSE, null())), STATUS_SUCCESS);
        raw!(KeFlushQueuedDpcs());
        assert_eq!(runs.load(Ordering::Relaxed), 1);

        // "Periodic Timer": with "the duetime as the relative time of the same period".
        ASSERT!(irql() <= DISPATCH_LEVEL);
        let period: LONG = 10;
        let wascounting: BOOLEAN = raw!(KeSetTimerEx(timer, duetime, period, dpc));
        assert_eq!(wascounting, FALSE);
        let interval: LARGE_INTEGER = -550_000;
        raw!(KeDelayExecutionThread(KernelMode, FALSE, &raw const interval));

        // "You must call KeCancelTimer [..] If this periodic timer has a DPC, you also need to call KeRemoveQueueDpc. Even if you do these two tasks, there may be an unsolved
        // problem [..] This problem can only be solved by the operating system of future versions": by KeFlushQueuedDpcs.
        assert_ne!(raw!(KeCancelTimer(timer)), FALSE);
        raw!(KeRemoveQueueDpc(dpc));
        raw!(KeFlushQueuedDpcs());
        assert_eq!(runs.load(Ordering::Relaxed), 6);
    });
}
