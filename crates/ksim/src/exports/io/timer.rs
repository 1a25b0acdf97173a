//! Device timers.

use crate::engine::io::routine::Routine;
use crate::engine::kernel::{Check, Kernel};
use crate::exports::ke::spin_lock::{acquire, raise_to_dispatch};
use crate::exports::{IO_DISPATCH, PASSIVE, exports};
use crate::machine::{Call, current};
use crate::report::bug_check::{Violation, codes};
use crate::schedule::Footprint;
use ksync_sys::{DEVICE_OBJECT, KDPC, KSPIN_LOCK, NTSTATUS, PIO_TIMER_ROUTINE, PVOID};

fn lock(call: Call) -> *mut KSPIN_LOCK {
    call.read(|kernel| kernel.io.timers.lock())
}

/// The routine of the system's DPC: calls those of the devices.
unsafe extern "system-unwind" fn call_routines(_dpc: *mut KDPC, _context: PVOID, _argument1: PVOID, _argument2: PVOID) {
    let call = Call { cell: current("a device timer"), export: None };
    let lock = lock(call);
    call.again(Footprint::acquire(lock));
    acquire(call, lock, None, 0);
    let mut order = 0;
    loop {
        // Whether a timer is started is something that others change.
        call.again(Footprint::UNKNOWN);
        let next = call.operate(|kernel| {
            let next = kernel.next_io_timer(order);
            Ok(next.map(|due| {
                let running = kernel.enter_driver_routine(Routine::Timer, due.routine as usize, Some(due.driver));
                (due, running)
            }))
        });
        let Some((due, running)) = next else { break };
        order = due.order;
        // SAFETY: the driver vouched for the routine when it initialised the timer.
        unsafe { crate::image::call(due.routine, (due.device, due.context)) };
        call.operate(|kernel| kernel.leave_routine(running, None));
    }
    call.again(Footprint::release(lock));
    call.operate(|kernel| kernel.spin_release(lock, None, 0));
}

/// Does something while no timer routine runs.
pub(super) fn between_routines<R>(call: Call, routine: &str, operation: impl FnOnce(&mut Kernel) -> Check<R>) -> R {
    call.operate(|kernel| {
        let within = kernel.held_spin_locks().iter().any(|&held| kernel.is_io_timer_lock(held));
        if !within {
            return Ok(());
        }
        let lock = kernel.io.timers.lock();
        Err(Violation::boxed_owned(
            codes::SPIN_LOCK_ALREADY_OWNED,
            [lock as u64, 0, 0, 0],
            format!("{routine} was called in a device's timer routine: it waits for that routine to return"),
        ))
    });
    let lock = lock(call);
    let old = raise_to_dispatch(call);
    acquire(call, lock, Some(old), 0);
    let result = call.operate(operation);
    call.operate(|kernel| kernel.spin_release(lock, Some(old), 0));
    result
}

exports! {
    [PASSIVE] visible fn IoInitializeTimer(
        call; DeviceObject: *mut DEVICE_OBJECT, TimerRoutine: PIO_TIMER_ROUTINE, Context: PVOID
    ) -> NTSTATUS {
        call.operate(|kernel| {
            let id = kernel.device_at(DeviceObject)?;
            let Some(routine) = TimerRoutine else {
                return Err(Violation::boxed(
                    codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                    [codes::verifier::BAD_ARGUMENT, DeviceObject as u64, 0, 0],
                    "a device's timer needs a routine: NT would call address 0",
                ));
            };
            kernel.initialize_io_timer(id, routine, Context)
        })
    }

    [IO_DISPATCH] visible fn IoStartTimer(call; DeviceObject: *mut DEVICE_OBJECT) {
        call.operate(|kernel| {
            let id = kernel.device_at(DeviceObject)?;
            kernel.start_io_timer(id, Some(call_routines))
        });
    }

    [IO_DISPATCH] visible fn IoStopTimer(call; DeviceObject: *mut DEVICE_OBJECT) {
        between_routines(call, "IoStopTimer", |kernel| {
            let id = kernel.device_at(DeviceObject)?;
            kernel.stop_io_timer(id)
        });
    }
}
