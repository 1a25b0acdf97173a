//! EX_TIMER (rule 56), and the length of a clock tick.

use crate::engine::clock::TickRequest;
use crate::engine::ex_timer::{Deletion, ExTimerSetting};
use crate::exports::{ANY, BLOCKING, TO_DISPATCH, exports};
use crate::image::call as call_driver;
use crate::machine::current;
use crate::report::bug_check::{Violation, codes};
use ksync_sys::{
    BOOLEAN, EX_TIMER, EX_TIMER_UNLIMITED_TOLERANCE, EXT_DELETE_PARAMETERS, EXT_SET_PARAMETERS, KDPC, LONGLONG, PEXT_CALLBACK,
    PVOID, ULONG,
};
use std::ffi::c_void;

/// Runs the callbacks of a timer that are due: the routine of its DPC.
unsafe extern "system-unwind" fn run_callbacks(
    _dpc: *mut KDPC,
    timer: *mut c_void,
    _argument1: *mut c_void,
    _argument2: *mut c_void,
) {
    let call = current("an EX_TIMER's callback").call();
    let timer: *mut EX_TIMER = timer.cast();
    while let Some((callback, context)) = call.read(|kernel| kernel.begin_ex_callback(timer)) {
        // SAFETY: the driver vouched for the callback and its context when it allocated the timer.
        unsafe { call_driver(callback, (timer, context)) };
        call.operate(|kernel| kernel.end_ex_callback(timer));
    }
    if let Some(then) = call.operate(|kernel| kernel.end_ex_callbacks(timer)) {
        notify(then);
    }
}

/// Tells a driver that its timer is gone.
fn notify(then: Deletion) {
    if let Some((callback, context)) = then {
        // SAFETY: the driver vouched for the callback and its context when it deleted the timer.
        unsafe { call_driver(callback, (context,)) };
    }
}

/// A parameter that the page of a routine rules out.
fn bad_parameter(value: u64, meaning: &'static str) -> Box<Violation> {
    Violation::boxed(codes::DRIVER_VERIFIER_DETECTED_VIOLATION, [codes::verifier::BAD_ARGUMENT, value, 0, 0], meaning)
}

exports! {
    [TO_DISPATCH] silent fn ExAllocateTimer(
        call; Callback: PEXT_CALLBACK, CallbackContext: PVOID, Attributes: ULONG
    ) -> *mut EX_TIMER {
        call.operate(|kernel| kernel.allocate_ex_timer(Callback, CallbackContext, Attributes, Some(run_callbacks)))
    }

    [TO_DISPATCH] visible(set_timer_within Timer, DueTime, u32::from(!Parameters.is_null())) fn ExSetTimer(
        call; Timer: *mut EX_TIMER, DueTime: LONGLONG, Period: LONGLONG, Parameters: *mut EXT_SET_PARAMETERS
    ) -> BOOLEAN {
        let mut tolerance = 0;
        if !Parameters.is_null() {
            // SAFETY: the caller passes null or a valid pointer.
            let parameters = unsafe { Parameters.read() };
            if parameters.Version != 0 || parameters.Reserved != 0 {
                call.fail(bad_parameter(u64::from(parameters.Version), "EXT_SET_PARAMETERS were not initialised"));
            }
            tolerance = parameters.NoWakeTolerance;
        }
        if tolerance < EX_TIMER_UNLIMITED_TOLERANCE {
            call.fail(bad_parameter(tolerance as u64, "a timer cannot be early"));
        }
        let Ok(period) = u64::try_from(Period) else {
            call.fail(bad_parameter(Period as u64, "a timer's period is not negative"));
        };
        let setting = ExTimerSetting { due: DueTime, period, tolerance };
        BOOLEAN::from(call.operate(|kernel| kernel.set_ex_timer(Timer, setting)))
    }

    [TO_DISPATCH] visible(access Timer) fn ExCancelTimer(call; Timer: *mut EX_TIMER, Parameters: PVOID) -> BOOLEAN {
        if !Parameters.is_null() {
            call.fail(bad_parameter(Parameters as u64, "ExCancelTimer takes no parameters: the pointer must be null"));
        }
        BOOLEAN::from(call.operate(|kernel| kernel.cancel_ex_timer(Timer)))
    }

    [TO_DISPATCH] visible fn ExDeleteTimer(
        call; Timer: *mut EX_TIMER, Cancel: BOOLEAN, Wait: BOOLEAN, Parameters: *mut EXT_DELETE_PARAMETERS
    ) -> BOOLEAN {
        let wait = Wait != 0 && !call.is_dying();
        if wait {
            let (irql, in_threaded_dpc) = call.read(|kernel| {
                let threaded = kernel.current_thread().is_some_and(|tid| kernel.threads[tid as usize].runs_dpcs);
                (kernel.irql(), threaded)
            });
            // The callback itself is above this level too, so that it cannot wait for itself.
            if !BLOCKING.contains(irql) {
                call.fail(BLOCKING.violation("ExDeleteTimer with Wait = TRUE", irql));
            }
            if in_threaded_dpc {
                call.fail(Violation::boxed(
                    codes::ATTEMPTED_SWITCH_FROM_DPC,
                    [0, Timer as u64, 0, 0],
                    "a threaded DPC routine waited: it may run at DISPATCH_LEVEL on another machine",
                ));
            }
        }
        let mut then = None;
        if !Parameters.is_null() {
            // SAFETY: the caller passes null or a valid pointer.
            let parameters = unsafe { Parameters.read() };
            if parameters.Version != 0 || parameters.Reserved != 0 {
                call.fail(bad_parameter(u64::from(parameters.Version), "EXT_DELETE_PARAMETERS were not initialised"));
            }
            then = parameters.DeleteCallback.map(|callback| (callback, parameters.DeleteContext));
            if wait && then.is_some() {
                call.fail(bad_parameter(1, "ExDeleteTimer has either a callback or a wait"));
            }
        }
        let deleted = call.operate(|kernel| kernel.delete_ex_timer(Timer, Cancel != 0, wait, then));
        match deleted.gone {
            Some(then) => notify(then),
            // A kernel APC may end a turn of the wait early.
            None if wait => while !call.is_dying() && !call.operate(|kernel| kernel.ex_timer_is_gone(Timer, deleted.number)) {},
            None => {}
        }
        BOOLEAN::from(deleted.cancelled)
    }

    [BLOCKING.rule(0x2_0006)] visible fn ExSetTimerResolution(call; DesiredTime: ULONG, SetResolution: BOOLEAN) -> ULONG {
        call.operate(|kernel| {
            let driver = kernel.current_driver();
            if SetResolution != 0 {
                let site = kernel.site();
                kernel.clock.request_tick(DesiredTime, TickRequest { driver, site });
            } else {
                kernel.clock.release_tick(driver);
            }
            Ok(kernel.clock.tick())
        })
    }

    [ANY] silent fn ExQueryTimerResolution(call; MaximumTime: *mut ULONG, MinimumTime: *mut ULONG, CurrentTime: *mut ULONG) {
        let times = call.read(|kernel| [kernel.clock.increment(), kernel.clock.shortest_tick(), kernel.clock.tick()]);
        for (pointer, time) in [MaximumTime, MinimumTime, CurrentTime].into_iter().zip(times) {
            // SAFETY: the caller passes valid pointers.
            unsafe { pointer.write(time) };
        }
    }
}
