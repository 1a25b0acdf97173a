//! Mistakes with requests, their cancellation, and device timers.

use crate::{Case, Caught, always, with};
use ksync_sys::*;
use std::cell::Cell;
use std::ptr::null_mut;
use test_support::io::*;
use test_support::*;

thread_local! {
    static WRONG: Cell<bool> = const { Cell::new(false) };
    /// The request that the driver keeps.
    static HELD: Cell<*mut IRP> = const { Cell::new(null_mut()) };
}

fn with_cancel_lock(code: impl FnOnce()) {
    let mut irql = 0;
    raw!(IoAcquireCancelSpinLock(&mut irql));
    code();
    raw!(IoReleaseCancelSpinLock(irql));
}

pub(crate) fn cancel_spin_lock_recursion(wrong: bool) {
    let irp = raw!(IoAllocateIrp(1, 0));
    // A driver looks at its requests under the lock, and cancels one.
    if wrong {
        with_cancel_lock(|| {
            raw!(IoCancelIrp(irp));
        });
    } else {
        with_cancel_lock(|| assert_eq!(raw!((*irp).Cancel), 0));
        raw!(IoCancelIrp(irp));
    }
    raw!(IoFreeIrp(irp));
}

/// The level of IoReleaseCancelSpinLock is right, and the lock is nobody's.
pub(crate) fn cancel_spin_lock_released_twice(wrong: bool) {
    at(DISPATCH_LEVEL, || {
        with_cancel_lock(|| ());
        if wrong {
            raw!(IoReleaseCancelSpinLock(DISPATCH_LEVEL));
        }
    });
}

unsafe extern "system-unwind" fn cancels(_device: *mut DEVICE_OBJECT, irp: *mut IRP) {
    if !WRONG.get() {
        raw!(IoReleaseCancelSpinLock((*irp).CancelIrql));
        complete(irp, STATUS_CANCELLED, 0);
    }
}

fn cancel_routine_that_keeps_the_cancel_spin_lock(wrong: bool) {
    WRONG.set(wrong);
    let sample = Sample::load("sample");
    sample.on(IRP_MJ_DEVICE_CONTROL, |_, irp| {
        raw!(IoMarkIrpPending(irp));
        raw!(IoSetCancelRoutine(irp, Some(cancels)));
        STATUS_PENDING
    });
    let handle = sample.open();
    let request = handle.begin_device_control(BUFFERED, &[], 0);
    request.cancel();
    assert_eq!(request.wait().status, STATUS_CANCELLED);
    drop(handle);
    sample.unload();
}

pub(crate) fn dispatch_routine_that_keeps_the_cancel_spin_lock(wrong: bool) {
    let sample = Sample::load("sample");
    sample.on(IRP_MJ_DEVICE_CONTROL, move |_, irp| {
        let mut irql = 0;
        raw!(IoAcquireCancelSpinLock(&mut irql));
        // A driver that finds its request cancelled returns early, and forgets the lock.
        if raw!((*irp).Cancel) == 0 && !wrong {
            raw!(IoReleaseCancelSpinLock(irql));
            return succeed(irp);
        }
        STATUS_PENDING
    });
    let handle = sample.open();
    assert_eq!(handle.device_control(BUFFERED, &[], 0).status, STATUS_SUCCESS);
    drop(handle);
    sample.unload();
}

unsafe extern "system-unwind" fn times_out(_device: *mut DEVICE_OBJECT, _context: PVOID) {
    let irp = HELD.replace(null_mut());
    if irp.is_null() {
        return;
    }
    // Who takes the cancel routine away owns the request.
    if WRONG.get() || raw!(IoSetCancelRoutine(irp, None)).is_some() {
        complete(irp, STATUS_IO_TIMEOUT, 0);
    }
}

fn timer_completes_a_request_that_can_be_cancelled(wrong: bool) {
    WRONG.set(wrong);
    HELD.set(null_mut());
    let sample = Sample::load("sample");
    sample.on(IRP_MJ_DEVICE_CONTROL, |_, irp| {
        raw!(IoMarkIrpPending(irp));
        raw!(IoSetCancelRoutine(irp, Some(cancels)));
        HELD.set(irp);
        STATUS_PENDING
    });
    assert_eq!(raw!(IoInitializeTimer(sample.device(), Some(times_out), null_mut())), STATUS_SUCCESS);
    raw!(IoStartTimer(sample.device()));
    let handle = sample.open();
    assert_eq!(handle.device_control(BUFFERED, &[], 0).status, STATUS_IO_TIMEOUT);
    drop(handle);
    sample.unload();
}

unsafe extern "system-unwind" fn ticks(device: *mut DEVICE_OBJECT, _context: PVOID) {
    if WRONG.get() {
        raw!(IoStopTimer(device));
    }
}

fn timer_stopped_in_its_routine(wrong: bool) {
    WRONG.set(wrong);
    let sample = Sample::load("sample");
    assert_eq!(raw!(IoInitializeTimer(sample.device(), Some(ticks), null_mut())), STATUS_SUCCESS);
    raw!(IoStartTimer(sample.device()));
    sleep(2 * SECOND);
    raw!(IoStopTimer(sample.device()));
    sample.unload();
}

fn request_built_at_apc_level(wrong: bool) {
    let sample = Sample::load("sample");
    let (event, mut status) = (Event::notification(), Place::<IO_STATUS_BLOCK>::zeroed().read());
    let mut build = || {
        raw!(IoBuildDeviceIoControlRequest(BUFFERED, sample.device(), null_mut(), 0, null_mut(), 0, 0, event.ptr(), &mut status))
    };
    // Its completion is an APC of this thread, which the mutex would hold back.
    let mutex = FastMutex::new();
    let irp = if wrong {
        mutex.acquire();
        let irp = build();
        mutex.release();
        irp
    } else {
        build()
    };
    if raw!(IofCallDriver(sample.device(), irp)) == STATUS_PENDING {
        wait(event.object());
    }
    sample.unload();
}

fn guarded_region_within_another(wrong: bool) {
    raw!(KeEnterGuardedRegion());
    if !wrong {
        raw!(KeLeaveGuardedRegion());
    }
    raw!(KeEnterGuardedRegion());
    raw!(KeLeaveGuardedRegion());
    if wrong {
        raw!(KeLeaveGuardedRegion());
    }
}

pub(crate) const CASES: &[Case] = &[
    always(
        "cancel_spin_lock_recursion",
        "A request is cancelled with the cancel spin lock held, which IoCancelIrp acquires.",
        Caught::By("CancelSpinLock"),
        cancel_spin_lock_recursion,
    ),
    always(
        "cancel_spin_lock_released_twice",
        "The cancel spin lock is released by who has released it already.",
        Caught::By("CancelSpinLock"),
        cancel_spin_lock_released_twice,
    ),
    always(
        "cancel_routine_that_keeps_the_cancel_spin_lock",
        "A cancel routine returns without releasing the cancel spin lock, which it is called with.",
        Caught::By("CancelSpinlockRelease"),
        cancel_routine_that_keeps_the_cancel_spin_lock,
    ),
    always(
        "dispatch_routine_that_keeps_the_cancel_spin_lock",
        "A dispatch routine returns early, with the cancel spin lock held.",
        Caught::By("CancelSpinlockRelease"),
        dispatch_routine_that_keeps_the_cancel_spin_lock,
    ),
    always(
        "timer_completes_a_request_that_can_be_cancelled",
        "A device's timer routine completes a request whose cancel routine it has not taken away.",
        Caught::By("CancelRoutineInCompletion"),
        timer_completes_a_request_that_can_be_cancelled,
    ),
    always(
        "request_built_at_apc_level",
        "A request that is completed by an APC of its thread is built under a fast mutex, at APC_LEVEL.",
        Caught::By("IrqlIoRtlZwPassive"),
        request_built_at_apc_level,
    ),
    always(
        "timer_stopped_in_its_routine",
        "A device's timer routine stops the timer: IoStopTimer waits for the routine.",
        Caught::By("SpinLock"),
        timer_stopped_in_its_routine,
    ),
    with(
        |machine| machine.check_rule(ksim::RuleId::GuardedRegions, true),
        always(
            "guarded_region_within_another",
            "A guarded region is entered within another, where the rule against that is on.",
            Caught::By("GuardedRegions"),
            guarded_region_within_another,
        ),
    ),
];
