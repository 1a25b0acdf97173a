//! Waits for the objects of handles.

use super::{Mode, Use, ZW_PASSIVE};
use crate::engine::layout;
use crate::engine::object::ObjId;
use crate::exports::exports;
use crate::exports::ke::wait::{read_timeout, time, wait, wait_request};
use crate::machine::Call;
use crate::report::trace::Operation;
use ksync_sys::{
    BOOLEAN, HANDLE, KernelMode, LARGE_INTEGER, MAXIMUM_WAIT_OBJECTS, NTSTATUS, STATUS_INVALID_PARAMETER_1,
    STATUS_INVALID_PARAMETER_3, SYNCHRONIZE, THREAD_WAIT_OBJECTS, ULONG, UserMode, WAIT_TYPE, WaitAll, WaitAny,
};

/// How a service waits.
#[derive(Clone, Copy)]
struct How {
    mode: Mode,
    wait_type: WAIT_TYPE,
    alertable: BOOLEAN,
    timeout: *const LARGE_INTEGER,
    reason: &'static str,
}

/// Waits for the objects of handles, which are referenced meanwhile.
fn wait_for(call: Call, handles: &[HANDLE], how: How) -> NTSTATUS {
    let mut objects: Vec<ObjId> = Vec::with_capacity(handles.len());
    let mut status = None;
    for &handle in handles {
        match call.operate(|kernel| Use::new(how.mode, handle, SYNCHRONIZE, None).reference(kernel)) {
            Ok(id) => objects.push(id),
            Err(refused) => {
                status = Some(refused);
                break;
            }
        }
    }
    let status = status.unwrap_or_else(|| wait_on(call, &objects, how));
    call.operate(|kernel| objects.iter().try_for_each(|&id| kernel.dereference_object(id, 1).map(drop)));
    status
}

fn wait_on(call: Call, objects: &[ObjId], how: How) -> NTSTATUS {
    let timeout = read_timeout(call, how.timeout);
    let mode = if how.mode.is_user() { UserMode } else { KernelMode };
    let mut request = wait_request(how.wait_type, mode, how.alertable, timeout);
    request.reason = how.reason;
    // The thread's own blocks are enough for a few.
    let mut blocks = Vec::new();
    if objects.len() > THREAD_WAIT_OBJECTS as usize {
        blocks.resize(objects.len(), layout::WAIT_BLOCK);
        request.blocks = blocks.as_mut_ptr();
    }
    wait(call, |kernel| {
        for &id in objects {
            let number = kernel.objects[id].number;
            kernel.record(Operation::BeginWait, number, objects.len() as u64);
        }
        let tid = kernel.this_thread();
        let waited = &mut kernel.thread(tid).wait.objects;
        waited.clear();
        waited.extend_from_slice(objects);
        kernel.begin_wait(request)
    })
}

exports! {
    [ZW_PASSIVE] visible(wait_by_handle Handle, time(Timeout), Alertable != 0) fn ZwWaitForSingleObject(
        call; Handle: HANDLE, Alertable: BOOLEAN, Timeout: *const LARGE_INTEGER
    ) -> NTSTATUS {
        let reason = "ZwWaitForSingleObject";
        wait_for(call, &[Handle], How { mode: Mode::Kernel, wait_type: WaitAny, alertable: Alertable, timeout: Timeout, reason })
    }

    [ZW_PASSIVE] visible fn NtWaitForSingleObject(
        call; Handle: HANDLE, Alertable: BOOLEAN, Timeout: *const LARGE_INTEGER
    ) -> NTSTATUS {
        let (mode, reason) = (Mode::previous(call), "NtWaitForSingleObject");
        wait_for(call, &[Handle], How { mode, wait_type: WaitAny, alertable: Alertable, timeout: Timeout, reason })
    }

    [ZW_PASSIVE] visible fn ZwWaitForMultipleObjects(
        call; Count: ULONG, Handles: *const HANDLE, WaitType: WAIT_TYPE, Alertable: BOOLEAN, Timeout: *const LARGE_INTEGER
    ) -> NTSTATUS {
        if Count == 0 || Count > MAXIMUM_WAIT_OBJECTS {
            return STATUS_INVALID_PARAMETER_1;
        }
        if WaitType != WaitAny && WaitType != WaitAll {
            return STATUS_INVALID_PARAMETER_3;
        }
        // SAFETY: the caller passes an array of `Count` handles.
        let handles = unsafe { std::slice::from_raw_parts(Handles, Count as usize) }.to_vec();
        let reason = "ZwWaitForMultipleObjects";
        wait_for(call, &handles, How { mode: Mode::Kernel, wait_type: WaitType, alertable: Alertable, timeout: Timeout, reason })
    }
}
