//! Mistakes with DPCs and timers, and at unload.

use crate::{Case, Caught, always, sometimes, with};
use ksim::load_driver;
use ksync_sys::*;
use std::cell::Cell;
use std::ptr::null_mut;
use std::time::Duration;
use test_support::*;

/// What a driver keeps for its timer, in pool.
#[repr(C)]
struct Context {
    timer: KTIMER,
    dpc: KDPC,
    event: KEVENT,
}

unsafe extern "system-unwind" fn set_event(_dpc: *mut KDPC, context: PVOID, _: PVOID, _: PVOID) {
    let context = context.cast::<Context>();
    raw!(KeSetEvent(&raw mut (*context).event, 0, FALSE));
}

fn context(routine: PKDEFERRED_ROUTINE) -> *mut Context {
    let context = allocate(size_of::<Context>()).cast::<Context>();
    raw!(KeInitializeTimer(&raw mut (*context).timer));
    raw!(KeInitializeDpc(&raw mut (*context).dpc, routine, context.cast()));
    raw!(KeInitializeEvent(&raw mut (*context).event, NotificationEvent, FALSE));
    context
}

fn arm(context: *mut Context, due: i64, period: i32) {
    raw!(KeSetTimerEx(&raw mut (*context).timer, due, period, &raw mut (*context).dpc));
}

fn cancel(context: *mut Context) {
    raw!(KeCancelTimer(&raw mut (*context).timer));
}

fn timer_freed_while_armed(wrong: bool) {
    let context = context(Some(set_event));
    arm(context, -SECOND, 0);
    if !wrong {
        cancel(context);
        flush_dpcs();
    }
    free(context.cast());
}

fn missing_flush(wrong: bool) {
    let context = context(Some(set_event));
    raw!(KeSetTargetProcessorDpc(&raw mut (*context).dpc, 1));
    let old = raw!(KeSetSystemAffinityThreadEx(1));
    arm(context, -1, 0);
    sleep(1);
    // The timer has expired: its DPC runs on the other processor, or is about to.
    cancel(context);
    raw!(KeRevertToUserAffinityThreadEx(old));
    if !wrong {
        flush_dpcs();
    }
    free(context.cast());
}

unsafe extern "system-unwind" fn free_context(_dpc: *mut KDPC, context: PVOID, _: PVOID, _: PVOID) {
    free(context);
}

fn periodic_timer_that_frees_itself(wrong: bool) {
    let context = context(Some(free_context));
    arm(context, -MS, if wrong { 1 } else { 0 });
    sleep(10 * MS);
}

unsafe extern "system-unwind" fn free_argument(_dpc: *mut KDPC, _: PVOID, argument: PVOID, _: PVOID) {
    free(argument);
}

fn closure_freed_by_each_run(wrong: bool) {
    let dpc = Place::<KDPC>::zeroed();
    raw!(KeInitializeDpc(dpc.ptr(), Some(free_argument), null_mut()));
    let closure = allocate(32);
    raw!(KeInsertQueueDpc(dpc.ptr(), closure, null_mut()));
    flush_dpcs();
    let closure = if wrong { closure } else { allocate(32) };
    raw!(KeInsertQueueDpc(dpc.ptr(), closure, null_mut()));
    flush_dpcs();
}

fn queued_dpc_initialised_again(wrong: bool) {
    let dpc = Dpc::new(|| ());
    let old = raise(DISPATCH_LEVEL);
    dpc.queue();
    if wrong {
        raw!(KeInitializeDpc(dpc.ptr(), None, null_mut()));
    }
    lower(old);
    flush_dpcs();
}

fn dpc_in_freed_memory(wrong: bool) {
    let context = context(Some(set_event));
    let old = raise(DISPATCH_LEVEL);
    raw!(KeInsertQueueDpc(&raw mut (*context).dpc, null_mut(), null_mut()));
    if wrong {
        free(context.cast());
    }
    lower(old);
    if !wrong {
        flush_dpcs();
        free(context.cast());
    }
}

fn dpc_returns_with_a_spin_lock(wrong: bool) {
    let lock = SpinLock::new();
    let dpc = Dpc::new(|| {
        raw!(KeAcquireSpinLockAtDpcLevel(lock.ptr()));
        if !wrong {
            raw!(KeReleaseSpinLockFromDpcLevel(lock.ptr()));
        }
    });
    dpc.queue();
    flush_dpcs();
}

fn dpc_returns_at_another_level(wrong: bool) {
    let dpc = Dpc::new(|| {
        let old = raise(5);
        if !wrong {
            lower(old);
        }
    });
    dpc.queue();
    flush_dpcs();
}

fn dpc_enters_a_region(wrong: bool) {
    let dpc = Dpc::new(|| {
        if wrong {
            raw!(KeEnterCriticalRegion());
        }
    });
    dpc.queue();
    flush_dpcs();
}

fn dpc_that_takes_too_long(wrong: bool) {
    let dpc = Dpc::new(|| {
        for _ in 0..if wrong { 10 } else { 1 } {
            raw!(KeStallExecutionProcessor(50));
        }
    });
    dpc.queue();
    flush_dpcs();
}

fn spin_lock_held_too_long(wrong: bool) {
    let lock = SpinLock::new();
    for _ in 0..5 {
        lock.with(|| {
            for _ in 0..if wrong { 5 } else { 1 } {
                raw!(KeStallExecutionProcessor(50));
            }
        });
    }
}

fn dpc_that_queues_itself(wrong: bool) {
    let (left, timer) = (Cell::new(5_000), Timer::notification());
    let itself = Cell::new(null_mut::<KDPC>());
    let dpc = Dpc::new(|| {
        // It polls a device so often.
        left.set(left.get() - 1);
        if left.get() > 0 && wrong {
            raw!(KeInsertQueueDpc(itself.get(), null_mut(), null_mut()));
        } else if left.get() > 0 {
            timer.set_with(-MS, 0, itself.get());
        }
    });
    itself.set(dpc.ptr());
    dpc.queue();
    while left.get() > 0 {
        sleep(100 * MS);
    }
    flush_dpcs();
}

fn event_polled_under_a_spin_lock(wrong: bool) {
    let (lock, event) = (SpinLock::new(), Event::notification());
    let setter = spawn(|| {
        sleep(MS);
        event.set();
    });
    if wrong {
        // The thread that would set it cannot run on this processor.
        lock.with(|| while event.state() == 0 {});
    } else {
        assert_eq!(wait(event.object()), STATUS_SUCCESS);
        lock.with(|| assert_eq!(event.state(), 1));
    }
    setter.join();
}

fn timer_on_the_stack_of_a_thread_that_ended(wrong: bool) {
    let thread = spawn(|| {
        let mut timer = std::mem::MaybeUninit::<KTIMER>::uninit();
        raw!(KeInitializeTimer(timer.as_mut_ptr()));
        raw!(KeSetTimer(timer.as_mut_ptr(), -SECOND, null_mut()));
        if !wrong {
            raw!(KeCancelTimer(timer.as_mut_ptr()));
        }
    });
    thread.join();
}

fn flush_at_dispatch_level(wrong: bool) {
    if wrong {
        at(DISPATCH_LEVEL, flush_dpcs);
    } else {
        flush_dpcs();
    }
}

thread_local! {
    static ENTRY: Cell<fn()> = const { Cell::new(|| ()) };
    static UNLOAD: Cell<fn()> = const { Cell::new(|| ()) };
    static SHARED: Cell<*mut Context> = const { Cell::new(null_mut()) };
}

unsafe extern "system-unwind" fn entry(driver: *mut DRIVER_OBJECT, _path: *mut UNICODE_STRING) -> NTSTATUS {
    raw!((&raw mut (*driver).DriverUnload).write(Some(unload)));
    ENTRY.get()();
    STATUS_SUCCESS
}

unsafe extern "system-unwind" fn unload(_driver: *mut DRIVER_OBJECT) {
    UNLOAD.get()();
}

fn load_and_unload(on_entry: fn(), on_unload: fn()) {
    ENTRY.set(on_entry);
    UNLOAD.set(on_unload);
    load_driver("sample", entry).expect("the entry succeeds").unload();
}

fn dpc_after_unload(wrong: bool) {
    let arm_timer = || {
        SHARED.set(context(Some(set_event)));
        arm(SHARED.get(), -SECOND, 0);
    };
    let forget = || ();
    let clean_up = || {
        cancel(SHARED.get());
        flush_dpcs();
        free(SHARED.get().cast());
    };
    load_and_unload(arm_timer, if wrong { forget } else { clean_up });
}

unsafe extern "system-unwind" fn sleeper(_context: PVOID) {
    sleep(MS);
}

fn start_sleeper() {
    let mut handle = null_mut();
    raw!(PsCreateSystemThread(&mut handle, 0, std::ptr::null(), null_mut(), null_mut(), Some(sleeper), null_mut()));
    raw!(ZwClose(handle));
}

fn thread_after_unload(wrong: bool) {
    let wait_for_it = || {
        sleep(SECOND);
    };
    load_and_unload(start_sleeper, if wrong { || () } else { wait_for_it });
}

fn pool_left_at_unload(wrong: bool) {
    let keep = || SHARED.set(context(None));
    load_and_unload(keep, if wrong { || () } else { || free(SHARED.get().cast()) });
}

fn entry_returns_inside_a_region(wrong: bool) {
    let enter = || raw!(KeEnterCriticalRegion());
    let enter_and_leave = || {
        raw!(KeEnterCriticalRegion());
        raw!(KeLeaveCriticalRegion());
    };
    load_and_unload(if wrong { enter } else { enter_and_leave }, || ());
    if wrong {
        raw!(KeLeaveCriticalRegion());
    }
}

fn unload_returns_at_a_raised_level(wrong: bool) {
    let stay = || _ = raise(DISPATCH_LEVEL);
    load_and_unload(|| (), if wrong { stay } else { || () });
}

pub(crate) const CASES: &[Case] = &[
    always("timer_freed_while_armed", "An armed timer is freed.", Caught::By("FreedTimer"), timer_freed_while_armed),
    sometimes(
        "missing_flush",
        "A timer is cancelled and freed while its DPC may run.",
        Caught::By("TimerOrDpc"),
        300,
        missing_flush,
    ),
    always(
        "periodic_timer_that_frees_itself",
        "The DPC of a periodic timer frees it.",
        Caught::By("FreedTimer"),
        periodic_timer_that_frees_itself,
    ),
    always(
        "closure_freed_by_each_run",
        "A DPC routine frees its closure at each run, and the DPC is queued twice.",
        Caught::By("BadPoolCaller"),
        closure_freed_by_each_run,
    ),
    always(
        "queued_dpc_initialised_again",
        "A queued DPC is initialised.",
        Caught::By("TimerOrDpc"),
        queued_dpc_initialised_again,
    ),
    always("dpc_in_freed_memory", "A queued DPC is freed.", Caught::By("TimerOrDpc"), dpc_in_freed_memory),
    always(
        "dpc_returns_with_a_spin_lock",
        "A DPC routine returns while it holds a spin lock.",
        Caught::By("SpinlockRelease"),
        dpc_returns_with_a_spin_lock,
    ),
    always(
        "dpc_returns_at_another_level",
        "A DPC routine returns at a raised level.",
        Caught::By("IrqlUnexpected"),
        dpc_returns_at_another_level,
    ),
    always(
        "dpc_enters_a_region",
        "A DPC routine enters a critical region.",
        Caught::By("CriticalRegionEnter"),
        dpc_enters_a_region,
    ),
    with(
        |machine| machine.dispatch_limit(Duration::from_micros(100)),
        always(
            "dpc_that_takes_too_long",
            "A DPC routine stalls for 500 us, where 100 us were set as the limit.",
            Caught::By("DispatchTooLong"),
            dpc_that_takes_too_long,
        ),
    ),
    with(
        |machine| machine.dispatch_limit(Duration::from_micros(100)),
        always(
            "spin_lock_held_too_long",
            "A spin lock is held for 250 us, where 100 us were set as the limit.",
            Caught::By("DispatchTooLong"),
            spin_lock_held_too_long,
        ),
    ),
    with(
        |machine| machine.dispatch_call_limit(1_000),
        always(
            "dpc_that_queues_itself",
            "A DPC that polls queues itself each time, where 1000 calls at DISPATCH_LEVEL were set as the limit.",
            Caught::By("DispatchTooLong"),
            dpc_that_queues_itself,
        ),
    ),
    with(
        |machine| machine.dispatch_call_limit(1_000),
        always(
            "event_polled_under_a_spin_lock",
            "An event is polled under a spin lock: the thread that would set it cannot run.",
            Caught::By("DispatchTooLong"),
            event_polled_under_a_spin_lock,
        ),
    ),
    always(
        "timer_on_the_stack_of_a_thread_that_ended",
        "A thread ends while a timer on its stack is armed.",
        Caught::By("StackObjectInUse"),
        timer_on_the_stack_of_a_thread_that_ended,
    ),
    always("flush_at_dispatch_level", "DPCs are flushed at DISPATCH_LEVEL.", Caught::By("IrqlTooHigh"), flush_at_dispatch_level),
    always("dpc_after_unload", "A driver is unloaded while its timer is armed.", Caught::By("TimerOrDpc"), dpc_after_unload),
    always(
        "thread_after_unload",
        "A driver is unloaded while its thread runs.",
        Caught::By("UnloadedWithThreads"),
        thread_after_unload,
    ),
    always("pool_left_at_unload", "A driver is unloaded and leaves pool.", Caught::By("UnloadedWithPool"), pool_left_at_unload),
    always(
        "entry_returns_inside_a_region",
        "DriverEntry returns inside a critical region.",
        Caught::By("RegionsAtReturn"),
        entry_returns_inside_a_region,
    ),
    always(
        "unload_returns_at_a_raised_level",
        "DriverUnload returns at DISPATCH_LEVEL.",
        Caught::By("IrqlUnexpected"),
        unload_returns_at_a_raised_level,
    ),
];
