//! Opening and closing devices: what the system does for `NtCreateFile`, `NtClose` and the last dereference.

use super::irp;
use crate::engine::Kind;
use crate::engine::io::request::{Completed, NewRequest, Operation};
use crate::engine::object::ObjId;
use crate::irql::PASSIVE_LEVEL;
use crate::machine::Call;
use crate::schedule::Footprint;
use ksync_sys::{NTSTATUS, STATUS_INSUFFICIENT_RESOURCES, STATUS_SUCCESS};

/// Opens a device by name. The result is a handle's reference to the file.
pub(crate) fn open(call: Call, name: &str, access: u32, user_mode: bool) -> Result<ObjId, NTSTATUS> {
    let (device, file) = call.operate(|kernel| {
        let (device, rest) = match kernel.io.names.device(name) {
            Ok(found) => found,
            Err(status) => return Ok(Err(status)),
        };
        let status = kernel.begin_open(device);
        if status != STATUS_SUCCESS {
            return Ok(Err(status));
        }
        match kernel.create_file(device, &rest, access, user_mode)? {
            Some(file) => Ok(Ok((device, file))),
            None => {
                kernel.end_open(device)?;
                Ok(Err(STATUS_INSUFFICIENT_RESOURCES))
            }
        }
    })?;
    let result = perform(call, file, Operation::Create { access });
    let status = result.map_or_else(|status| status, |completed| completed.status);
    call.operate(|kernel| {
        if status >= STATUS_SUCCESS {
            kernel.file_opened(file);
            return Ok(Ok(file));
        }
        // What was never open is not closed.
        debug_assert_eq!(kernel.file_state(file).device, device);
        kernel.dereference_object(file, 1)?;
        kernel.free_file(file)?;
        Ok(Err(status))
    })
}

/// Closes the last handle to a file: the driver is told, and the handle's reference dropped.
pub(crate) fn close_handle(call: Call, file: ObjId) {
    // A driver has no way to refuse; where there is no memory the system waits for some, and here the driver is not told.
    let _ = perform(call, file, Operation::Cleanup);
    let last = call.operate(|kernel| {
        kernel.file_cleaned_up(file);
        kernel.dereference_file(file)
    });
    if last {
        close(call, file);
    }
}

/// The last reference to an object is gone: if it is a file, its driver is told, at PASSIVE_LEVEL in a thread.
pub(crate) fn unreferenced(call: Call, id: ObjId) {
    let is_file = call.read(|kernel| matches!(kernel.objects[id].kind, Kind::File(_)));
    if !is_file {
        return;
    }
    let here = call.read(|kernel| kernel.irql() == PASSIVE_LEVEL && !kernel.in_dpc());
    if here {
        close(call, id);
    } else {
        call.operate(|kernel| kernel.queue_close(id));
    }
}

/// Tells the driver of a file that nobody references it, and frees it.
pub(crate) fn close(call: Call, file: ObjId) {
    let _ = perform(call, file, Operation::Close);
    call.operate(|kernel| kernel.free_file(file));
}

/// Sends a request for a file's device, without waiting for it.
pub(crate) fn send(call: Call, file: ObjId, operation: Operation) -> Result<u32, NTSTATUS> {
    let NewRequest { id, device, irp } = call.operate(|kernel| kernel.new_request(file, operation))?;
    // As IofCallDriver: what the dispatch routine does first may touch what others touch.
    call.again(Footprint::access(irp));
    let status = irp::call_driver(call, device, irp);
    call.operate(|kernel| kernel.request_sent(id, status));
    Ok(id)
}

/// Waits for a request.
pub(crate) fn wait(call: Call, id: u32) -> Completed {
    loop {
        if let Some(completed) = call.operate(|kernel| kernel.take_request(id)) {
            return completed;
        }
        if call.is_dying() {
            return Completed { status: ksync_sys::STATUS_CANCELLED, information: 0, output: Vec::new() };
        }
    }
}

fn perform(call: Call, file: ObjId, operation: Operation) -> Result<Completed, NTSTATUS> {
    let id = send(call, file, operation)?;
    Ok(wait(call, id))
}
