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
    BOOLEAN, CONNECT_FULLY_SPECIFIED, CONNECT_FULLY_SPECIFIED_GROUP, CONNECT_LINE_BASED, CONNECT_MESSAGE_BASED, DEVICE_OBJECT,
    IO_CONNECT_INTERRUPT_FULLY_SPECIFIED_PARAMETERS, IO_CONNECT_INTERRUPT_LINE_BASED_PARAMETERS,
    IO_CONNECT_INTERRUPT_MESSAGE_BASED_PARAMETERS, IO_CONNECT_INTERRUPT_PARAMETERS, IO_DISCONNECT_INTERRUPT_PARAMETERS,
    KAFFINITY, KINTERRUPT, KINTERRUPT_MODE, KIRQL, KSPIN_LOCK, Latched, NTSTATUS, PKSERVICE_ROUTINE, PKSYNCHRONIZE_ROUTINE,
    PVOID, STATUS_INVALID_PARAMETER, STATUS_NOT_FOUND, STATUS_NOT_SUPPORTED, STATUS_SUCCESS, ULONG, USHORT,
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

/// What IoConnectInterruptEx is asked for, whichever way it is said.
struct Request {
    device: *mut DEVICE_OBJECT,
    place: *mut *mut KINTERRUPT,
    routine: PKSERVICE_ROUTINE,
    context: PVOID,
    lock: *mut KSPIN_LOCK,
    synchronize_irql: KIRQL,
}

/// Connects an interrupt, and stores its object.
fn connect(call: Call, connection: Connection, place: *mut *mut KINTERRUPT) -> NTSTATUS {
    match call.operate(|kernel| Ok(kernel.connect_interrupt(connection))) {
        Ok(interrupt) => {
            // SAFETY: the caller passes a valid pointer.
            unsafe { place.write(interrupt) };
            STATUS_SUCCESS
        }
        Err(status) => status,
    }
}

/// Connects an interrupt that the driver has specified.
fn connect_specified(call: Call, wanted: &IO_CONNECT_INTERRUPT_FULLY_SPECIFIED_PARAMETERS, group: USHORT) -> NTSTATUS {
    call.check_pointer(wanted.InterruptObject);
    let processors = call.read(|kernel| kernel.config.groups.flat(group, wanted.ProcessorEnableMask));
    let Some(routine) = wanted.ServiceRoutine.filter(|_| processors != 0 && !wanted.PhysicalDeviceObject.is_null()) else {
        return STATUS_INVALID_PARAMETER;
    };
    let connection = Connection {
        routine,
        context: wanted.ServiceContext,
        lock: wanted.SpinLock,
        vector: wanted.Vector,
        irql: wanted.Irql,
        synchronize_irql: wanted.SynchronizeIrql,
        latched: wanted.InterruptMode == Latched,
        shared: wanted.ShareVector != 0,
    };
    connect(call, connection, wanted.InterruptObject)
}

/// Connects the interrupt of a device's line.
fn connect_line(call: Call, request: &Request) -> NTSTATUS {
    call.check_pointer(request.place);
    let Some(routine) = request.routine.filter(|_| !request.device.is_null()) else { return STATUS_INVALID_PARAMETER };
    let Some(line) = call.read(|kernel| kernel.interrupt_line(request.device)) else { return STATUS_NOT_FOUND };
    let connection = Connection {
        routine,
        context: request.context,
        lock: request.lock,
        vector: line.vector,
        irql: line.irql,
        // 0 is the level of the interrupt itself.
        synchronize_irql: if request.synchronize_irql == 0 { line.irql } else { request.synchronize_irql },
        latched: line.latched,
        shared: line.shared,
    };
    connect(call, connection, request.place)
}

/// Disconnects an interrupt, whose routine may be running on another processor.
fn disconnect(call: Call, interrupt: *mut KINTERRUPT) {
    let (connection, old) = enter(call, interrupt);
    leave(call, connection, old);
    call.operate(|kernel| {
        let id = kernel.interrupt_at(interrupt)?;
        kernel.disconnect_interrupt(id)
    });
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
        connect(call, connection, InterruptObject)
    }

    [PASSIVE] visible fn IoDisconnectInterrupt(call; InterruptObject: *mut KINTERRUPT) {
        disconnect(call, InterruptObject);
    }

    [PASSIVE] visible fn IoConnectInterruptEx(call; Parameters: *mut IO_CONNECT_INTERRUPT_PARAMETERS) -> NTSTATUS {
        call.check_pointer(Parameters);
        // SAFETY: the caller passes a valid pointer.
        let version = unsafe { (*Parameters).Version };
        // SAFETY: as above.
        let wanted = unsafe { &raw const (*Parameters).Anonymous };
        match version {
            CONNECT_FULLY_SPECIFIED | CONNECT_FULLY_SPECIFIED_GROUP => {
                // SAFETY: the version says which parameters are there.
                let wanted = unsafe { wanted.cast::<IO_CONNECT_INTERRUPT_FULLY_SPECIFIED_PARAMETERS>().read() };
                connect_specified(call, &wanted, if version == CONNECT_FULLY_SPECIFIED { 0 } else { wanted.Group })
            }
            CONNECT_LINE_BASED => {
                // SAFETY: as above.
                let wanted = unsafe { wanted.cast::<IO_CONNECT_INTERRUPT_LINE_BASED_PARAMETERS>().read() };
                connect_line(call, &Request {
                    device: wanted.PhysicalDeviceObject,
                    place: wanted.InterruptObject,
                    routine: wanted.ServiceRoutine,
                    context: wanted.ServiceContext,
                    lock: wanted.SpinLock,
                    synchronize_irql: wanted.SynchronizeIrql,
                })
            }
            CONNECT_MESSAGE_BASED => {
                // SAFETY: as above.
                let wanted = unsafe { wanted.cast::<IO_CONNECT_INTERRUPT_MESSAGE_BASED_PARAMETERS>().read() };
                // No device has messages here: it is connected by its line, for which the driver may have another routine.
                let status = connect_line(call, &Request {
                    device: wanted.PhysicalDeviceObject,
                    // SAFETY: all members of the union are such a place.
                    place: unsafe { wanted.ConnectionContext.InterruptObject },
                    routine: wanted.FallBackServiceRoutine,
                    context: wanted.ServiceContext,
                    lock: wanted.SpinLock,
                    synchronize_irql: wanted.SynchronizeIrql,
                });
                if status == STATUS_SUCCESS {
                    // SAFETY: the caller passes a valid pointer.
                    unsafe { (*Parameters).Version = CONNECT_LINE_BASED };
                }
                status
            }
            _ => {
                // SAFETY: as above.
                unsafe { (*Parameters).Version = CONNECT_FULLY_SPECIFIED_GROUP };
                STATUS_NOT_SUPPORTED
            }
        }
    }

    [PASSIVE] visible fn IoDisconnectInterruptEx(call; Parameters: *const IO_DISCONNECT_INTERRUPT_PARAMETERS) {
        call.check_pointer(Parameters);
        // SAFETY: the caller passes a valid pointer.
        let wanted = unsafe { Parameters.read() };
        if !matches!(wanted.Version, CONNECT_FULLY_SPECIFIED | CONNECT_LINE_BASED | CONNECT_FULLY_SPECIFIED_GROUP) {
            call.fail(Violation::boxed_owned(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::UNINITIALIZED_OBJECT, Parameters as u64, u64::from(wanted.Version), 0],
                format!("IoDisconnectInterruptEx was told that an interrupt is connected by version {}, as none is", wanted.Version),
            ));
        }
        // SAFETY: the version says which member is there.
        disconnect(call, unsafe { wanted.ConnectionContext.InterruptObject });
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
