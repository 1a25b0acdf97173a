//! Processes and threads: `Ps...`.

use crate::engine::kernel::Kernel;
use crate::engine::ob::Type;
use crate::engine::thread::State;
use crate::engine::{Kind, Tid};
use crate::exports::{ANY, IrqlRange, PASSIVE, at_most, exports};
use crate::faults::FaultKind;
use crate::image::call as call_driver;
use crate::irql::{APC_LEVEL, PASSIVE_LEVEL};
use crate::machine::{Call, acting_processor};
use ksync_sys::{
    BOOLEAN, CLIENT_ID, EPROCESS, ETHREAD, HANDLE, KSTART_ROUTINE, NTSTATUS, OBJ_KERNEL_HANDLE, OBJECT_ATTRIBUTES, PVOID,
    STATUS_INSUFFICIENT_RESOURCES, STATUS_INVALID_CID, STATUS_INVALID_HANDLE, STATUS_INVALID_PARAMETER, STATUS_PENDING,
    STATUS_SUCCESS, THREAD_ALL_ACCESS, ULONG,
};

const PS_PASSIVE: IrqlRange = IrqlRange { lowest: PASSIVE_LEVEL, highest: PASSIVE_LEVEL, verifier: 0x2_001c };

/// The id of a thread's process, or of the system process on an idle processor.
fn process_id(kernel: &Kernel, process: u32) -> HANDLE {
    kernel.ob.processes[process as usize].client_id as usize as HANDLE
}

/// The process that a handle of PsCreateSystemThread means: none is the system process.
fn process_of_handle(call: Call, handle: HANDLE) -> Result<u32, NTSTATUS> {
    if handle.is_null() {
        return Ok(Kernel::SYSTEM_PROCESS);
    }
    let request =
        crate::engine::ob::HandleUse { handle: handle as usize, user_mode: false, access: 0, object_type: Some(Type::Process) };
    call.operate(|kernel| {
        let found = kernel.reference_handle(request)?;
        let Ok(id) = found else { return Ok(Err(STATUS_INVALID_HANDLE)) };
        kernel.dereference_object(id, 1)?;
        match kernel.objects[id].kind {
            Kind::Process(process) => Ok(Ok(process)),
            _ => Ok(Err(STATUS_INVALID_HANDLE)),
        }
    })
}

exports! {
    [PS_PASSIVE] silent fn PsCreateSystemThread(
        call; ThreadHandle: *mut HANDLE, DesiredAccess: ULONG, ObjectAttributes: *const OBJECT_ATTRIBUTES,
        ProcessHandle: HANDLE, ClientId: *mut CLIENT_ID, StartRoutine: Option<KSTART_ROUTINE>, StartContext: PVOID
    ) -> NTSTATUS {
        let Some(routine) = StartRoutine else { return STATUS_INVALID_PARAMETER };
        let process = match process_of_handle(call, ProcessHandle) {
            Ok(process) => process,
            Err(status) => return status,
        };
        if call.read(|kernel| kernel.fails_allocation() || kernel.fails_to_create(FaultKind::Thread)) {
            return STATUS_INSUFFICIENT_RESOURCES;
        }
        // SAFETY: the caller passes null or valid attributes.
        let attributes = unsafe { ObjectAttributes.as_ref() }.map_or(0, |attributes| attributes.Attributes);
        let body = move |_: &crate::machine::MachineCell| {
            // SAFETY: the caller vouched for the routine and its context.
            unsafe { call_driver(routine, (StartContext,)) };
        };
        // SAFETY: the body borrows nothing.
        let Ok(context) = (unsafe { call.cell.thread_context(body) }) else { return STATUS_INSUFFICIENT_RESOURCES };
        let access = if DesiredAccess == 0 { THREAD_ALL_ACCESS } else { DesiredAccess };
        let (handle, thread) = call.operate(|kernel| {
            let tid = kernel.create_thread(process, context);
            let object = kernel.threads[tid as usize].object;
            let handle = kernel.open_handle(object, access, attributes & OBJ_KERNEL_HANDLE != 0)?;
            Ok((handle, (process_id(kernel, process), kernel.threads[tid as usize].client_id)))
        });
        // SAFETY: the caller passes a valid pointer.
        unsafe { ThreadHandle.write(handle as HANDLE) };
        if !ClientId.is_null() {
            let id = CLIENT_ID { UniqueProcess: thread.0, UniqueThread: thread.1 as usize as HANDLE };
            // SAFETY: the caller passes null or a valid pointer.
            unsafe { ClientId.write(id) };
        }
        STATUS_SUCCESS
    }

    [PS_PASSIVE] silent fn PsTerminateSystemThread(call; ExitStatus: NTSTATUS) -> NTSTATUS {
        if call.is_dying() {
            return STATUS_SUCCESS;
        }
        call.end_thread(ExitStatus)
    }

    [ANY] silent fn PsGetCurrentThreadId(call) -> HANDLE {
        call.read(|kernel| kernel.current_thread().map_or(0, |tid| kernel.threads[tid as usize].client_id)) as usize as HANDLE
    }

    [ANY] silent fn PsGetCurrentProcessId(call) -> HANDLE {
        call.read(|kernel| {
            let process = kernel.current_process();
            process_id(kernel, process)
        })
    }

    [ANY] silent fn PsGetThreadId(call; Thread: *mut ETHREAD) -> HANDLE {
        call.operate(|kernel| {
            if kernel.is_idle_thread(Thread) {
                return Ok(std::ptr::null_mut());
            }
            let tid = kernel.thread_at(Thread)?;
            Ok(kernel.threads[tid as usize].client_id as usize as HANDLE)
        })
    }

    [ANY] silent fn PsGetProcessId(call; Process: *mut EPROCESS) -> HANDLE {
        call.operate(|kernel| {
            let process = kernel.process_at(Process)?;
            Ok(process_id(kernel, process))
        })
    }

    [ANY] silent fn PsGetThreadProcess(call; Thread: *mut ETHREAD) -> *mut EPROCESS {
        call.operate(|kernel| {
            let tid = kernel.thread_at(Thread)?;
            let process = kernel.threads[tid as usize].process;
            Ok(kernel.process_address(process) as *mut EPROCESS)
        })
    }

    [ANY] silent fn PsGetThreadProcessId(call; Thread: *mut ETHREAD) -> HANDLE {
        call.operate(|kernel| {
            let tid = kernel.thread_at(Thread)?;
            let process = kernel.threads[tid as usize].process;
            Ok(process_id(kernel, process))
        })
    }

    [at_most(APC_LEVEL).rule(0x2_0024)] visible fn PsLookupThreadByThreadId(call; ThreadId: HANDLE, Thread: *mut *mut ETHREAD) -> NTSTATUS {
        lookup(call, ThreadId, Type::Thread, Thread.cast(), STATUS_INVALID_PARAMETER)
    }

    [at_most(APC_LEVEL).rule(0x2_0024)] visible fn PsLookupProcessByProcessId(call; ProcessId: HANDLE, Process: *mut *mut EPROCESS) -> NTSTATUS {
        lookup(call, ProcessId, Type::Process, Process.cast(), STATUS_INVALID_CID)
    }

    [ANY] silent fn PsIsThreadTerminating(call; Thread: *mut ETHREAD) -> BOOLEAN {
        BOOLEAN::from(call.operate(|kernel| {
            let tid = kernel.thread_at(Thread)?;
            let thread = &kernel.threads[tid as usize];
            Ok(thread.state == State::Terminated || thread.terminating)
        }))
    }

    [ANY] silent fn PsIsSystemThread(call; Thread: *mut ETHREAD) -> BOOLEAN {
        BOOLEAN::from(call.operate(|kernel| {
            let tid: Tid = kernel.thread_at(Thread)?;
            Ok(kernel.threads[tid as usize].process == Kernel::SYSTEM_PROCESS)
        }))
    }

    [at_most(APC_LEVEL)] silent fn PsGetThreadExitStatus(call; Thread: *mut ETHREAD) -> NTSTATUS {
        call.operate(|kernel| {
            let tid = kernel.thread_at(Thread)?;
            let thread = &kernel.threads[tid as usize];
            Ok(if thread.state == State::Terminated { thread.exit_status } else { STATUS_PENDING })
        })
    }

    [at_most(APC_LEVEL)] silent fn PsGetProcessExitStatus(call; Process: *mut EPROCESS) -> NTSTATUS {
        // No process ends while its machine runs.
        call.operate(|kernel| kernel.process_at(Process).map(|_| STATUS_PENDING))
    }

    [ANY] silent fn IoGetCurrentProcess(call) -> *mut EPROCESS {
        call.read(|kernel| kernel.process_address(kernel.current_process())) as *mut EPROCESS
    }

    [PASSIVE] visible(yields acting_processor()) fn ZwYieldExecution(call) -> NTSTATUS {
        call.operate(|kernel| {
            let switches = kernel.switches;
            kernel.end_quantum();
            Ok(if kernel.switches == switches { ksync_sys::STATUS_NO_YIELD_PERFORMED } else { STATUS_SUCCESS })
        })
    }
}

fn lookup(call: Call, id: HANDLE, wanted: Type, result: *mut PVOID, missing: NTSTATUS) -> NTSTATUS {
    let address = call.operate(|kernel| {
        let found = u32::try_from(id as usize).ok().and_then(|id| kernel.ob.by_client_id(id));
        let Some(object) = found.filter(|&object| kernel.type_of(object) == Some(wanted)) else { return Ok(None) };
        kernel.reference_object(object, 1)?;
        Ok(Some(kernel.objects[object].address))
    });
    match address {
        Some(address) => {
            // SAFETY: the caller passes a valid pointer.
            unsafe { result.write(address as PVOID) };
            STATUS_SUCCESS
        }
        None => missing,
    }
}
