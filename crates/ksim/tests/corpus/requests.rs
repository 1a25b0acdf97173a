//! Mistakes with requests, their cancellation, device timers, and interrupts.

use crate::{Case, Caught, always, sometimes, with};
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

const VECTOR: u32 = 0x51;

/// What a device's service routine and the rest of its driver share.
struct Shared {
    count: Cell<u32>,
    /// In the wrong driver, an event that the service routine sets.
    event: Event,
    dpc: Dpc<'static>,
    sets_event: bool,
}

fn add(shared: &Shared) {
    let before = shared.count.get();
    // Anything that another processor can see lets it act.
    now();
    shared.count.set(before + 1);
}

unsafe extern "system-unwind" fn serve(_interrupt: *mut KINTERRUPT, context: PVOID) -> BOOLEAN {
    // SAFETY: the context is the test's, which outlives the connection.
    let shared = unsafe { &*context.cast_const().cast::<Shared>() };
    add(shared);
    if shared.sets_event {
        shared.event.set();
    } else {
        shared.dpc.queue();
    }
    TRUE
}

unsafe extern "system-unwind" fn add_synchronized(context: PVOID) -> BOOLEAN {
    // SAFETY: as above.
    add(unsafe { &*context.cast_const().cast::<Shared>() });
    TRUE
}

/// Connects, runs `code` beside a device that interrupts, and returns how often was counted.
fn with_interrupt(sets_event: bool, code: impl Fn(*mut KINTERRUPT, &Shared, PVOID)) -> u32 {
    let shared = Shared { count: Cell::new(0), event: Event::notification(), dpc: Dpc::new(|| ()), sets_event };
    let context = (&raw const shared).cast_mut().cast();
    let mut interrupt = null_mut();
    let level = 6;
    let status = raw!(IoConnectInterrupt(
        &mut interrupt,
        Some(serve),
        context,
        null_mut(),
        VECTOR,
        level,
        level,
        Latched,
        FALSE,
        1,
        FALSE
    ));
    assert_eq!(status, STATUS_SUCCESS);
    let device = spawn(|| assert!(ksim::interrupt(VECTOR)));
    code(interrupt, &shared, context);
    device.join();
    raw!(IoDisconnectInterrupt(interrupt));
    flush_dpcs();
    shared.count.get()
}

fn data_of_an_interrupt_under_a_spin_lock(wrong: bool) {
    let lock = SpinLock::new();
    let count = with_interrupt(false, |interrupt, shared, context| {
        if wrong {
            // It keeps out DPCs, and not the service routine.
            lock.with(|| add(shared));
        } else {
            raw!(KeSynchronizeExecution(interrupt, Some(add_synchronized), context));
        }
    });
    assert_eq!(count, 2);
}

fn event_set_by_a_service_routine(wrong: bool) {
    assert_eq!(with_interrupt(wrong, |_, _, _| ()), 1);
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
    sometimes(
        "data_of_an_interrupt_under_a_spin_lock",
        "What a service routine changes is changed under a spin lock, which does not keep the interrupt out.",
        Caught::Panic,
        20,
        data_of_an_interrupt_under_a_spin_lock,
    ),
    always(
        "event_set_by_a_service_routine",
        "An interrupt service routine sets an event, which is for a DPC to do.",
        Caught::By("IrqlKeSetEvent"),
        event_set_by_a_service_routine,
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
