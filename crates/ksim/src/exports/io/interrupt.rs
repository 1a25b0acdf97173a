//! Interrupts: connected, served, and kept out.

use crate::engine::io::interrupt::{Connection, Service};
use crate::engine::io::routine::Routine;
use crate::engine::spin::Attempt;
use crate::exports::ke::spin_lock::{acquire, raise_to};
use crate::exports::{ANY, PASSIVE, exports};
use crate::machine::Call;
use crate::report::bug_check::{Violation, codes};
use crate::schedule::Footprint;
use ksync_sys::{
    BOOLEAN, KAFFINITY, KINTERRUPT, KINTERRUPT_MODE, KIRQL, KSPIN_LOCK, Latched, NTSTATUS, PKSERVICE_ROUTINE,
    PKSYNCHRONIZE_ROUTINE, PVOID, STATUS_INVALID_PARAMETER, STATUS_SUCCESS, ULONG,
};

/// Raises to the level of an interrupt, and acquires its lock. Returns how it is connected, and the level before.
fn enter(call: Call, interrupt: *mut KINTERRUPT) -> (Connection, u8) {
    let connection = call.operate(|kernel| {
        let id = kernel.interrupt_at(interrupt)?;
        let connection = kernel.connection(id);
        let irql = kernel.irql();
        if irql <= connection.synchronize_irql {
            return Ok(connection);
        }
        Err(Violation::boxed_owned(
            codes::IRQL_NOT_LESS_OR_EQUAL,
            [interrupt as u64, u64::from(irql), 8, 0],
            format!("an interrupt whose level is {} was kept out at IRQL {irql}", connection.synchronize_irql),
        ))
    });
    let old = raise_to(call, connection.synchronize_irql);
    acquire(call, connection.lock, Some(old), 0);
    (connection, old)
}

fn leave(call: Call, connection: Connection, old: u8) {
    call.operate(|kernel| kernel.spin_release(connection.lock, Some(old), 0));
}

/// Acquires the lock for a service routine. False, at the level before, if the interrupt is disconnected by who has the lock.
fn enter_service(call: Call, service: &Service, old: u8) -> bool {
    loop {
        match call.operate(|kernel| kernel.enter_service(service, old)) {
            Some(Attempt::Acquired) => return true,
            Some(Attempt::Turning) if call.is_dying() => return true,
            Some(Attempt::Turning) => call.again(Footprint::acquire(service.connection.lock)),
            None => {
                call.operate(|kernel| kernel.set_irql(old));
                return false;
            }
        }
    }
}

/// A device interrupts the processor that acts. False if nobody took the interrupt for its own.
pub(crate) fn serve(call: Call, vector: u32) -> bool {
    let (mut order, mut served) = (0, false);
    loop {
        // Who is connected, and what the lock protects, is something that others change.
        call.again(Footprint::UNKNOWN);
        let Some(service) = call.read(|kernel| kernel.next_service(vector, order)) else { return served };
        let Service { interrupt, connection, driver, .. } = service;
        order = service.order;
        let level = call.read(|kernel| kernel.irql());
        assert!(level < connection.irql, "the processor is at IRQL {level}, which holds the interrupt back");
        let old = raise_to(call, connection.synchronize_irql);
        if !enter_service(call, &service, old) {
            continue;
        }
        let address = connection.routine as usize;
        let running = call.operate(|kernel| Ok(kernel.enter_driver_routine(Routine::Service, address, driver)));
        // SAFETY: the driver vouched for the routine when it connected the interrupt.
        let claimed = unsafe { crate::image::call(connection.routine, (interrupt, connection.context)) } != 0;
        call.operate(|kernel| kernel.leave_routine(running, None));
        call.again(Footprint::release(connection.lock));
        leave(call, connection, old);
        served |= claimed;
        // A device that asks until it is served is looked for no further. Of those that ask once, several may have.
        if claimed && !connection.latched {
            return true;
        }
    }
}

exports! {
    [PASSIVE] visible fn IoConnectInterrupt(
        call; InterruptObject: *mut *mut KINTERRUPT, ServiceRoutine: PKSERVICE_ROUTINE, ServiceContext: PVOID,
        SpinLock: *mut KSPIN_LOCK, Vector: ULONG, Irql: KIRQL, SynchronizeIrql: KIRQL, InterruptMode: KINTERRUPT_MODE,
        ShareVector: BOOLEAN, ProcessorEnableMask: KAFFINITY, _FloatingSave: BOOLEAN
    ) -> NTSTATUS {
        call.check_pointer(InterruptObject);
        let processors = call.read(|kernel| kernel.config.groups.flat(0, ProcessorEnableMask));
        let Some(routine) = ServiceRoutine.filter(|_| processors != 0) else { return STATUS_INVALID_PARAMETER };
        let connection = Connection {
            routine,
            context: ServiceContext,
            lock: SpinLock,
            vector: Vector,
            irql: Irql,
            synchronize_irql: SynchronizeIrql,
            latched: InterruptMode == Latched,
            shared: ShareVector != 0,
        };
        match call.operate(|kernel| Ok(kernel.connect_interrupt(connection))) {
            Ok(interrupt) => {
                // SAFETY: the caller passes a valid pointer.
                unsafe { InterruptObject.write(interrupt) };
                STATUS_SUCCESS
            }
            Err(status) => status,
        }
    }

    [PASSIVE] visible fn IoDisconnectInterrupt(call; InterruptObject: *mut KINTERRUPT) {
        // Its routine may be running on another processor.
        let (connection, old) = enter(call, InterruptObject);
        leave(call, connection, old);
        call.operate(|kernel| {
            let id = kernel.interrupt_at(InterruptObject)?;
            kernel.disconnect_interrupt(id)
        });
    }

    [ANY] visible fn KeSynchronizeExecution(
        call; Interrupt: *mut KINTERRUPT, SynchronizeRoutine: PKSYNCHRONIZE_ROUTINE, SynchronizeContext: PVOID
    ) -> BOOLEAN {
        let (connection, old) = enter(call, Interrupt);
        let address = SynchronizeRoutine.map_or(0, |routine| routine as usize);
        let running = call.operate(|kernel| {
            if address == 0 {
                return Err(Violation::boxed(
                    codes::IRQL_NOT_LESS_OR_EQUAL,
                    [0, u64::from(kernel.irql()), 8, 0],
                    "KeSynchronizeExecution was passed no routine: NT calls address 0",
                ));
            }
            let driver = kernel.current_driver();
            Ok(kernel.enter_driver_routine(Routine::Synchronize, address, driver))
        });
        // SAFETY: the driver vouches for its routine.
        let result = SynchronizeRoutine.map_or(0, |routine| unsafe { crate::image::call(routine, (SynchronizeContext,)) });
        call.operate(|kernel| kernel.leave_routine(running, None));
        call.again(Footprint::release(connection.lock));
        leave(call, connection, old);
        result
    }

    [ANY] visible fn KeAcquireInterruptSpinLock(call; Interrupt: *mut KINTERRUPT) -> KIRQL {
        enter(call, Interrupt).1
    }

    [ANY] visible fn KeReleaseInterruptSpinLock(call; Interrupt: *mut KINTERRUPT, OldIrql: KIRQL) {
        let connection = call.operate(|kernel| {
            let id = kernel.interrupt_at(Interrupt)?;
            Ok(kernel.connection(id))
        });
        leave(call, connection, OldIrql);
    }
}
