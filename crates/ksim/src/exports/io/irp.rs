//! Requests: allocated, sent, completed.

use crate::engine::io::irp::{CompletionStep, Finish, Origin};
use crate::engine::layout::{self, ApcParts};
use crate::exports::{ANY, IO_DISPATCH, exports};
use crate::machine::{Call, current};
use crate::schedule::Footprint;
use ksync_sys::{
    BOOLEAN, CCHAR, DEVICE_OBJECT, IRP, KAPC, NTSTATUS, PKNORMAL_ROUTINE, PVOID, STATUS_INVALID_DEVICE_REQUEST,
    STATUS_MORE_PROCESSING_REQUIRED, USHORT,
};

/// The routine of all major functions that a driver does not set.
pub(crate) unsafe extern "system-unwind" fn invalid_request(_device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS {
    // SAFETY: the I/O manager calls it with a request that is its own to complete.
    unsafe { layout::set_status(irp, STATUS_INVALID_DEVICE_REQUEST, 0) };
    complete(Call { cell: current("a dispatch routine"), export: None }, irp, 0);
    STATUS_INVALID_DEVICE_REQUEST
}

/// Sends a request to a device's driver.
pub(crate) fn call_driver(call: Call, device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NTSTATUS {
    let dispatching = call.operate(|kernel| kernel.begin_dispatch(device, irp));
    let Some(routine) = dispatching.routine else {
        call.fail(crate::report::bug_check::Violation::boxed(
            crate::report::bug_check::codes::IRQL_NOT_LESS_OR_EQUAL,
            [0, 0, 8, 0],
            "a request was sent to a driver that has set the routine for its major function to null: NT calls address 0",
        ));
    };
    // SAFETY: the driver vouched for the routine when it set it in its object; device and request are registered.
    let status = unsafe {
        crate::image::call_through(routine, (device, irp), || call.read(|kernel| kernel.abandon_routine(dispatching.running)))
    };
    call.operate(|kernel| kernel.end_dispatch(&dispatching, status));
    status
}

/// Completes a request: calls the completion routines on its way up, and ends it at the top.
pub(crate) fn complete(call: Call, irp: *mut IRP, boost: i32) {
    call.operate(|kernel| kernel.begin_completion(irp));
    loop {
        match call.operate(|kernel| kernel.next_completion(irp)) {
            CompletionStep::Routine { routine, device, context, running } => {
                let Some(routine) = routine else { continue };
                let before = call.read(|kernel| kernel.progress().performed);
                // SAFETY: the driver vouched for the routine and its context when it set them.
                let status = unsafe { crate::image::call(routine, (device, irp, context)) };
                call.operate(|kernel| kernel.leave_routine(running, None));
                if status == STATUS_MORE_PROCESSING_REQUIRED {
                    return;
                }
                // Where the routine has done what others see, what comes now is no longer a part of the call's own operation.
                if call.read(|kernel| kernel.progress().performed) != before {
                    call.again(Footprint::UNKNOWN);
                }
            }
            CompletionStep::Top(id) => {
                match call.operate(|kernel| kernel.finish_completion(id)) {
                    Finish::Request(request) => {
                        let unreferenced = call.operate(|kernel| kernel.finish_request(request));
                        if let Some(file) = unreferenced {
                            // Not here, where the driver may hold what it needs then: in the system, this is an APC of the thread whose request it was.
                            call.operate(|kernel| kernel.queue_close(file));
                        }
                    }
                    Finish::Apc(tid) => {
                        call.operate(|kernel| {
                            let apc = layout::irp_apc(irp);
                            let value = layout::apc(ApcParts {
                                thread: kernel.threads[tid as usize].address() as *mut _,
                                environment: 0,
                                kernel: Some(finish_in_apc),
                                rundown: None,
                                normal: None,
                                mode: 0,
                                context: std::ptr::null_mut(),
                            });
                            // SAFETY: the tail of a request that is completed holds its APC.
                            unsafe { apc.write(value) };
                            // SAFETY: as above.
                            unsafe { (*apc).SystemArgument1 = irp.cast() };
                            kernel.insert_apc(apc, boost)
                        });
                    }
                    Finish::Here => call.operate(|kernel| kernel.finish_threaded_irp(irp)),
                }
                return;
            }
        }
    }
}

/// The kernel routine of the special APC that ends a thread's request.
unsafe extern "system-unwind" fn finish_in_apc(
    _apc: *mut KAPC,
    _normal: *mut PKNORMAL_ROUTINE,
    _context: *mut PVOID,
    argument1: *mut PVOID,
    _argument2: *mut PVOID,
) {
    // SAFETY: the delivery of an APC passes valid pointers.
    let irp = unsafe { argument1.read() };
    let call = Call { cell: current("a request's APC"), export: None };
    call.operate(|kernel| kernel.finish_threaded_irp(irp.cast()));
}

exports! {
    [IO_DISPATCH] visible(access Irp) fn IofCallDriver(call; DeviceObject: *mut DEVICE_OBJECT, Irp: *mut IRP) -> NTSTATUS {
        call_driver(call, DeviceObject, Irp)
    }

    [IO_DISPATCH] visible fn IofCompleteRequest(call; Irp: *mut IRP, PriorityBoost: CCHAR) {
        complete(call, Irp, i32::from(PriorityBoost));
    }

    [IO_DISPATCH] silent fn IoAllocateIrp(call; StackSize: CCHAR, _ChargeQuota: BOOLEAN) -> *mut IRP {
        call.operate(|kernel| Ok(kernel.allocate_irp(StackSize, Origin::Allocated)))
    }

    [IO_DISPATCH] visible fn IoFreeIrp(call; Irp: *mut IRP) {
        call.operate(|kernel| kernel.free_irp(Irp));
    }

    [IO_DISPATCH] silent fn IoReuseIrp(call; Irp: *mut IRP, Iostatus: NTSTATUS) {
        call.operate(|kernel| kernel.reuse_irp(Irp, Iostatus));
    }

    [ANY] silent fn IoInitializeIrp(call; Irp: *mut IRP, PacketSize: USHORT, StackSize: CCHAR) {
        call.operate(|kernel| {
            let needed = ksync_sys::IoSizeOfIrp(StackSize);
            if PacketSize < needed || (Irp as usize) < 0x1_0000 {
                return Err(crate::report::bug_check::Violation::boxed_owned(
                    crate::report::bug_check::codes::DRIVER_VERIFIER_IOMANAGER_VIOLATION,
                    [crate::report::bug_check::codes::verifier::IO_OTHER, Irp as u64, u64::from(PacketSize), 0],
                    format!("IoInitializeIrp was given {PacketSize} bytes for a request of {needed}, or a null pointer"),
                ));
            }
            // SAFETY: the caller passes memory of that size, which is enough.
            unsafe { kernel.initialize_irp(Irp, StackSize, Origin::Initialized) };
            Ok(())
        });
    }
}
