//! Threads and processes by handle.
#![expect(non_upper_case_globals, reason = "the classes in the patterns have NT's names")]

use super::{Mode, Use, ZW_PASSIVE, attributes, give, give_handle};
use crate::engine::Tid;
use crate::engine::kernel::Kernel;
use crate::engine::ob::Type;
use crate::engine::object::{Kind, ObjId};
use crate::engine::thread::State;
use crate::exports::exports;
use crate::machine::Call;
use ksync_sys::{
    ACCESS_MASK, CLIENT_ID, HANDLE, KAFFINITY, KPRIORITY, NTSTATUS, OBJ_KERNEL_HANDLE, OBJECT_ATTRIBUTES,
    PROCESS_BASIC_INFORMATION, PROCESS_QUERY_INFORMATION, PROCESSINFOCLASS, PVOID, ProcessBasicInformation,
    STATUS_BUFFER_TOO_SMALL, STATUS_INFO_LENGTH_MISMATCH, STATUS_INVALID_CID, STATUS_INVALID_INFO_CLASS,
    STATUS_INVALID_PARAMETER, STATUS_INVALID_PARAMETER_MIX, STATUS_PENDING, STATUS_SUCCESS, THREAD_ALERT,
    THREAD_BASIC_INFORMATION, THREAD_QUERY_INFORMATION, THREAD_SET_INFORMATION, THREADINFOCLASS, ThreadBasicInformation,
    ThreadIsTerminated, ThreadNameInformation, ThreadPriority, ULONG, ULONG_PTR, UNICODE_STRING, WCHAR,
};

/// The greatest number of bytes of a thread's name.
const LONGEST_NAME: u16 = u16::MAX - 1;

fn thread_of(kernel: &Kernel, id: ObjId) -> Tid {
    match kernel.objects[id].kind {
        Kind::Thread(tid) => tid,
        _ => unreachable!("the handle's type was checked"),
    }
}

/// Opens a handle to the thread or process with an ID.
fn open_by_id(
    call: Call,
    object_type: Type,
    (place, access, object_attributes): (*mut HANDLE, ACCESS_MASK, *const OBJECT_ATTRIBUTES),
    id: *const CLIENT_ID,
) -> NTSTATUS {
    let attributes = match attributes(object_attributes) {
        Ok(attributes) => attributes,
        Err(status) => return status,
    };
    // SAFETY: the caller passes null or a valid pointer.
    let id = unsafe { id.as_ref() };
    // By ID or by name, and threads and processes have no names.
    let (Some(id), None) = (id, &attributes.name) else { return STATUS_INVALID_PARAMETER_MIX };
    let number = if object_type == Type::Thread { id.UniqueThread } else { id.UniqueProcess };
    let process = id.UniqueProcess as usize;
    let opened = call.operate(|kernel| {
        let found = u32::try_from(number as usize).ok().and_then(|number| kernel.ob.by_client_id(number));
        let Some(object) = found.filter(|&object| kernel.type_of(object) == Some(object_type)) else {
            return Ok(Err(if object_type == Type::Thread { STATUS_INVALID_CID } else { STATUS_INVALID_PARAMETER }));
        };
        if object_type == Type::Thread && process != 0 {
            let owner = kernel.threads[thread_of(kernel, object) as usize].process;
            if kernel.ob.processes[owner as usize].client_id as usize != process {
                return Ok(Err(STATUS_INVALID_CID));
            }
        }
        kernel.open_handle(object, access, attributes.flags & OBJ_KERNEL_HANDLE != 0).map(Ok)
    });
    give_handle(place, opened.map(|handle| (handle, STATUS_SUCCESS)))
}

/// Writes a fact of a fixed size.
fn give_information<T>(place: PVOID, length: ULONG, needed: *mut ULONG, value: T) -> NTSTATUS {
    give(needed, size_of::<T>() as ULONG);
    if length as usize != size_of::<T>() {
        return STATUS_INFO_LENGTH_MISMATCH;
    }
    // SAFETY: the caller passes a buffer of the length that was checked.
    unsafe { place.cast::<T>().write_unaligned(value) };
    STATUS_SUCCESS
}

/// Reads a fact of a fixed size.
fn read_information<T>(place: PVOID, length: ULONG) -> Result<T, NTSTATUS> {
    if length as usize != size_of::<T>() {
        return Err(STATUS_INFO_LENGTH_MISMATCH);
    }
    // SAFETY: the caller passes a buffer of the length that was checked.
    Ok(unsafe { place.cast::<T>().read_unaligned() })
}

fn thread_basics(kernel: &Kernel, tid: Tid) -> THREAD_BASIC_INFORMATION {
    let thread = &kernel.threads[tid as usize];
    let process = kernel.ob.processes[thread.process as usize].client_id;
    THREAD_BASIC_INFORMATION {
        ExitStatus: if thread.state == State::Terminated { thread.exit_status } else { STATUS_PENDING },
        TebBaseAddress: std::ptr::null_mut(),
        ClientId: CLIENT_ID { UniqueProcess: process as usize as HANDLE, UniqueThread: thread.client_id as usize as HANDLE },
        AffinityMask: thread.affinity as KAFFINITY,
        Priority: thread.priority.into(),
        BasePriority: thread.base_priority.into(),
    }
}

/// Writes a thread's name, with its text behind the string.
fn give_name(place: PVOID, length: ULONG, needed: *mut ULONG, name: &[WCHAR]) -> NTSTATUS {
    let header = size_of::<UNICODE_STRING>();
    let bytes = size_of_val(name);
    give(needed, (header + bytes) as ULONG);
    if (length as usize) < header + bytes {
        return STATUS_BUFFER_TOO_SMALL;
    }
    let buffer = place.wrapping_byte_add(header).cast::<WCHAR>();
    let value = UNICODE_STRING { Length: bytes as u16, MaximumLength: bytes as u16, Buffer: buffer };
    // SAFETY: the caller passes a buffer of the length that was checked.
    unsafe { place.cast::<UNICODE_STRING>().write_unaligned(value) };
    for (index, &unit) in name.iter().enumerate() {
        // SAFETY: as above.
        unsafe { buffer.wrapping_add(index).write_unaligned(unit) };
    }
    STATUS_SUCCESS
}

exports! {
    [ZW_PASSIVE] visible fn ZwOpenThread(
        call; ThreadHandle: *mut HANDLE, DesiredAccess: ACCESS_MASK, ObjectAttributes: *const OBJECT_ATTRIBUTES,
        ClientId: *const CLIENT_ID
    ) -> NTSTATUS {
        open_by_id(call, Type::Thread, (ThreadHandle, DesiredAccess, ObjectAttributes), ClientId)
    }

    [ZW_PASSIVE] visible fn ZwOpenProcess(
        call; ProcessHandle: *mut HANDLE, DesiredAccess: ACCESS_MASK, ObjectAttributes: *const OBJECT_ATTRIBUTES,
        ClientId: *const CLIENT_ID
    ) -> NTSTATUS {
        open_by_id(call, Type::Process, (ProcessHandle, DesiredAccess, ObjectAttributes), ClientId)
    }

    [ZW_PASSIVE] visible fn ZwAlertThread(call; ThreadHandle: HANDLE) -> NTSTATUS {
        let alerted = Use::new(Mode::Kernel, ThreadHandle, THREAD_ALERT, Type::Thread).operate(call, |kernel, id| {
            let tid = thread_of(kernel, id);
            kernel.alert_thread(tid, false)?;
            Ok(())
        });
        alerted.err().unwrap_or(STATUS_SUCCESS)
    }

    [ZW_PASSIVE] visible fn ZwQueryInformationThread(
        call; ThreadHandle: HANDLE, ThreadInformationClass: THREADINFOCLASS, ThreadInformation: PVOID,
        ThreadInformationLength: ULONG, ReturnLength: *mut ULONG
    ) -> NTSTATUS {
        let found = Use::new(Mode::Kernel, ThreadHandle, THREAD_QUERY_INFORMATION, Type::Thread).operate(call, |kernel, id| {
            let tid = thread_of(kernel, id);
            Ok((thread_basics(kernel, tid), kernel.threads[tid as usize].name.clone()))
        });
        let (basics, name) = match found {
            Ok(found) => found,
            Err(status) => return status,
        };
        match ThreadInformationClass {
            ThreadBasicInformation => give_information(ThreadInformation, ThreadInformationLength, ReturnLength, basics),
            ThreadIsTerminated => {
                let ended = ULONG::from(basics.ExitStatus != STATUS_PENDING);
                give_information(ThreadInformation, ThreadInformationLength, ReturnLength, ended)
            }
            ThreadNameInformation => give_name(ThreadInformation, ThreadInformationLength, ReturnLength, &name),
            _ => STATUS_INVALID_INFO_CLASS,
        }
    }

    [ZW_PASSIVE] visible fn ZwSetInformationThread(
        call; ThreadHandle: HANDLE, ThreadInformationClass: THREADINFOCLASS, ThreadInformation: PVOID,
        ThreadInformationLength: ULONG
    ) -> NTSTATUS {
        let thread = Use::new(Mode::Kernel, ThreadHandle, THREAD_SET_INFORMATION, Type::Thread);
        let changed = match ThreadInformationClass {
            ThreadPriority => match read_information::<KPRIORITY>(ThreadInformation, ThreadInformationLength) {
                Ok(priority) if (1..=31).contains(&priority) => thread.operate(call, |kernel, id| {
                    let tid = thread_of(kernel, id);
                    kernel.set_priority(tid, priority as u8);
                    Ok(())
                }),
                Ok(_) => Err(STATUS_INVALID_PARAMETER),
                Err(status) => Err(status),
            },
            // Windows 10 version 1607 brought names.
            ThreadNameInformation if call.read(|kernel| kernel.config.profile.version().0 >= 10) => {
                match read_information::<UNICODE_STRING>(ThreadInformation, ThreadInformationLength) {
                    Ok(name) if name.Length <= LONGEST_NAME && name.Length % 2 == 0 => {
                        let units = if name.Buffer.is_null() {
                            Vec::new()
                        } else {
                            // SAFETY: the caller passes a valid counted string; the length is in bytes.
                            unsafe { std::slice::from_raw_parts(name.Buffer, usize::from(name.Length) / 2) }.to_vec()
                        };
                        thread.operate(call, |kernel, id| {
                            let tid = thread_of(kernel, id);
                            kernel.thread(tid).name = units;
                            Ok(())
                        })
                    }
                    Ok(_) => Err(STATUS_INVALID_PARAMETER),
                    Err(status) => Err(status),
                }
            }
            _ => Err(STATUS_INVALID_INFO_CLASS),
        };
        changed.err().unwrap_or(STATUS_SUCCESS)
    }

    [ZW_PASSIVE] visible fn ZwQueryInformationProcess(
        call; ProcessHandle: HANDLE, ProcessInformationClass: PROCESSINFOCLASS, ProcessInformation: PVOID,
        ProcessInformationLength: ULONG, ReturnLength: *mut ULONG
    ) -> NTSTATUS {
        let found = Use::new(Mode::Kernel, ProcessHandle, PROCESS_QUERY_INFORMATION, Type::Process).operate(call, |kernel, id| {
            let process = match kernel.objects[id].kind {
                Kind::Process(process) => process,
                _ => unreachable!("the handle's type was checked"),
            };
            Ok(PROCESS_BASIC_INFORMATION {
                // No process ends while its machine runs.
                ExitStatus: STATUS_PENDING,
                PebBaseAddress: std::ptr::null_mut(),
                AffinityMask: kernel.all_processors() as KAFFINITY,
                BasePriority: crate::engine::thread::NORMAL_PRIORITY.into(),
                UniqueProcessId: kernel.ob.processes[process as usize].client_id as ULONG_PTR,
                InheritedFromUniqueProcessId: 0,
            })
        });
        match (found, ProcessInformationClass) {
            (Err(status), _) => status,
            (Ok(basics), ProcessBasicInformation) => {
                give_information(ProcessInformation, ProcessInformationLength, ReturnLength, basics)
            }
            _ => STATUS_INVALID_INFO_CLASS,
        }
    }
}
