//! Handles of any object.
#![expect(non_upper_case_globals, reason = "the classes in the patterns have NT's names")]

use super::{Mode, Use, ZW_PASSIVE, give, give_handle};
use crate::check::rules::RuleId;
use crate::engine::kernel::Kernel;
use crate::engine::ob::{Duplication, HandleUse, Type};
use crate::engine::object::Kind;
use crate::exports::exports;
use crate::machine::Call;
use crate::report::bug_check::{Violation, codes};
use ksync_sys::{
    ACCESS_MASK, HANDLE, NTSTATUS, OBJECT_INFORMATION_CLASS, ObjectBasicInformation, ObjectTypeInformation, PROCESS_DUP_HANDLE,
    PUBLIC_OBJECT_BASIC_INFORMATION, PUBLIC_OBJECT_TYPE_INFORMATION, PVOID, STATUS_INFO_LENGTH_MISMATCH, STATUS_INVALID_HANDLE,
    STATUS_INVALID_INFO_CLASS, STATUS_SUCCESS, ULONG, UNICODE_STRING, WCHAR,
};

/// The process that a handle stands for.
fn process(call: Call, handle: HANDLE) -> Result<u32, NTSTATUS> {
    let found = Use::new(Mode::Kernel, handle, PROCESS_DUP_HANDLE, Type::Process)
        .operate(call, |kernel, id| Ok(kernel.objects[id].kind.process()))?;
    Ok(found.unwrap_or(Kernel::SYSTEM_PROCESS))
}

impl Kind {
    fn process(&self) -> Option<u32> {
        match self {
            Self::Process(process) => Some(*process),
            _ => None,
        }
    }
}

/// Writes the name of a type, with its text behind the structure.
fn type_information(place: PVOID, length: ULONG, needed: *mut ULONG, name: &str) -> NTSTATUS {
    let text: Vec<WCHAR> = name.encode_utf16().collect();
    let header = size_of::<PUBLIC_OBJECT_TYPE_INFORMATION>();
    let bytes = (text.len() + 1) * size_of::<WCHAR>();
    give(needed, (header + bytes) as ULONG);
    if (length as usize) < header + bytes {
        return STATUS_INFO_LENGTH_MISMATCH;
    }
    let buffer = place.wrapping_byte_add(header).cast::<WCHAR>();
    let name = UNICODE_STRING { Length: (bytes - size_of::<WCHAR>()) as u16, MaximumLength: bytes as u16, Buffer: buffer };
    let value = PUBLIC_OBJECT_TYPE_INFORMATION { TypeName: name, Reserved: [0; 22] };
    // SAFETY: the caller passes a buffer of the length that was checked.
    unsafe { place.cast::<PUBLIC_OBJECT_TYPE_INFORMATION>().write_unaligned(value) };
    for (index, unit) in text.into_iter().chain([0]).enumerate() {
        // SAFETY: as above.
        unsafe { buffer.wrapping_add(index).write_unaligned(unit) };
    }
    STATUS_SUCCESS
}

exports! {
    [ZW_PASSIVE] visible(close Handle) fn ZwClose(call; Handle: HANDLE) -> NTSTATUS {
        call.operate(|kernel| {
            let status = kernel.close_handle(Handle as usize, false)?;
            if status == STATUS_INVALID_HANDLE && kernel.config.rules.has(RuleId::ClosedHandle) {
                return Err(Violation::boxed(
                    codes::INVALID_KERNEL_HANDLE,
                    [Handle as u64, 1, 0, 0],
                    "a handle was closed that is not open, or no longer",
                ));
            }
            Ok(status)
        })
    }

    [ZW_PASSIVE] visible(close Handle) fn NtClose(call; Handle: HANDLE) -> NTSTATUS {
        let user_mode = Mode::previous(call).is_user();
        call.operate(|kernel| kernel.close_handle(Handle as usize, user_mode))
    }

    [ZW_PASSIVE] visible fn ZwDuplicateObject(
        call; SourceProcessHandle: HANDLE, SourceHandle: HANDLE, TargetProcessHandle: HANDLE, TargetHandle: *mut HANDLE,
        DesiredAccess: ACCESS_MASK, HandleAttributes: ULONG, Options: ULONG
    ) -> NTSTATUS {
        let source = match process(call, SourceProcessHandle) {
            Ok(process) => process,
            Err(status) => return status,
        };
        let target = match process(call, TargetProcessHandle) {
            Ok(process) => process,
            Err(status) => return status,
        };
        let request = Duplication {
            processes: [source, target],
            handle: SourceHandle as usize,
            user_mode: false,
            access: DesiredAccess,
            attributes: HandleAttributes,
            options: Options,
        };
        let result = call.operate(|kernel| kernel.duplicate_handle(request));
        give_handle(TargetHandle, result.map(|handle| (handle, STATUS_SUCCESS)))
    }

    [ZW_PASSIVE] visible fn ZwQueryObject(
        call; Handle: HANDLE, ObjectInformationClass: OBJECT_INFORMATION_CLASS, ObjectInformation: PVOID,
        ObjectInformationLength: ULONG, ReturnLength: *mut ULONG
    ) -> NTSTATUS {
        let request = HandleUse { handle: Handle as usize, user_mode: false, access: 0, object_type: None };
        let found = call.operate(|kernel| {
            let facts = match kernel.reference_handle_facts(request)? {
                Ok(facts) => facts,
                Err(status) => return Ok(Err(status)),
            };
            let counts = kernel.counts_of(facts.object);
            let name = kernel.type_of(facts.object).map_or("", Type::name);
            kernel.dereference_object(facts.object, 1)?;
            Ok(Ok((facts, counts, name)))
        });
        let (facts, (handles, references), name) = match found {
            Ok(found) => found,
            Err(status) => return status,
        };
        match ObjectInformationClass {
            ObjectBasicInformation => {
                let size = size_of::<PUBLIC_OBJECT_BASIC_INFORMATION>();
                give(ReturnLength, size as ULONG);
                if ObjectInformationLength as usize != size {
                    return STATUS_INFO_LENGTH_MISMATCH;
                }
                let value = PUBLIC_OBJECT_BASIC_INFORMATION {
                    Attributes: facts.attributes,
                    GrantedAccess: facts.access,
                    HandleCount: handles,
                    // Without the reference that the query itself took.
                    PointerCount: (references - 1) as ULONG,
                    Reserved: [0; 10],
                };
                // SAFETY: the caller passes a buffer of the length that was checked.
                unsafe { ObjectInformation.cast::<PUBLIC_OBJECT_BASIC_INFORMATION>().write_unaligned(value) };
                STATUS_SUCCESS
            }
            ObjectTypeInformation => type_information(ObjectInformation, ObjectInformationLength, ReturnLength, name),
            _ => STATUS_INVALID_INFO_CLASS,
        }
    }
}
