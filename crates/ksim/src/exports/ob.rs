//! The object manager: `Ob...` (rule 65).

use crate::engine::ob::{HandleUse, Type};
use crate::exports::{ANY, IrqlRange, TO_DISPATCH, exports};
use crate::faults::FaultKind;
use crate::irql::PASSIVE_LEVEL;
use crate::machine::Call;
use ksync_sys::{
    ACCESS_MASK, ACCESS_STATE, BOOLEAN, HANDLE, KPROCESSOR_MODE, LONG_PTR, NTSTATUS, OBJ_KERNEL_HANDLE,
    OBJECT_HANDLE_INFORMATION, OBJECT_TYPE, PVOID, STATUS_INSUFFICIENT_RESOURCES, STATUS_OBJECT_TYPE_MISMATCH, STATUS_SUCCESS,
    ULONG, UserMode,
};

const OB_PASSIVE: IrqlRange = IrqlRange { lowest: PASSIVE_LEVEL, highest: PASSIVE_LEVEL, verifier: 0x2_001b };

/// The memory behind a pointer to an object type. Drivers only compare it.
#[repr(C)]
pub(crate) struct TypeObject {
    kind: Type,
}

/// A pointer that is exported as data.
#[repr(transparent)]
pub(crate) struct Exported<T>(*const T);

// SAFETY: the pointers are to statics that nobody writes.
unsafe impl<T> Sync for Exported<T> {}

static THREAD_TYPE: TypeObject = TypeObject { kind: Type::Thread };
static PROCESS_TYPE: TypeObject = TypeObject { kind: Type::Process };
static EVENT_TYPE: TypeObject = TypeObject { kind: Type::Event };
static SEMAPHORE_TYPE: TypeObject = TypeObject { kind: Type::Semaphore };
// NT exports no variable for the types of mutants, timers and callback objects.
static MUTANT_TYPE: TypeObject = TypeObject { kind: Type::Mutant };
static TIMER_TYPE: TypeObject = TypeObject { kind: Type::Timer };
static DRIVER_TYPE: TypeObject = TypeObject { kind: Type::Driver };
static DEVICE_TYPE: TypeObject = TypeObject { kind: Type::Device };
static CALLBACK_TYPE: TypeObject = TypeObject { kind: Type::Callback };
static FILE_TYPE: TypeObject = TypeObject { kind: Type::File };

/// The memory behind the type of objects that this kernel has none of: it equals no other.
#[repr(C)]
pub(crate) struct OtherType {
    name: &'static str,
}

/// Types that drivers import, and whose objects this kernel does not have, for images.
static OTHER_TYPES: [OtherType; 8] = [
    OtherType { name: "CmKeyObjectType" },
    OtherType { name: "ExDesktopObjectType" },
    OtherType { name: "ExWindowStationObjectType" },
    OtherType { name: "IoAdapterObjectType" },
    OtherType { name: "IoDeviceHandlerObjectType" },
    OtherType { name: "MmSectionObjectType" },
    OtherType { name: "PsJobType" },
    OtherType { name: "SeTokenObjectType" },
];

/// The variables that those are imported by.
static OTHER_POINTERS: [Exported<OtherType>; 8] = {
    let mut pointers = [const { Exported(std::ptr::null()) }; 8];
    let mut index = 0;
    while index < 8 {
        pointers[index] = Exported(&OTHER_TYPES[index]);
        index += 1;
    }
    pointers
};

/// The names of such types.
#[cfg(test)]
pub(super) fn other_types() -> impl Iterator<Item = &'static str> {
    OTHER_TYPES.iter().map(|other| other.name)
}

/// The address of the variable with the name of such a type.
pub(super) fn other_type(name: &str) -> Option<usize> {
    let index = OTHER_TYPES.iter().position(|other| other.name == name)?;
    Some((&raw const OTHER_POINTERS[index]).addr())
}

#[unsafe(no_mangle)]
pub(super) static PsThreadType: Exported<TypeObject> = Exported(&THREAD_TYPE);

#[unsafe(no_mangle)]
pub(super) static PsProcessType: Exported<TypeObject> = Exported(&PROCESS_TYPE);

#[unsafe(no_mangle)]
pub(super) static ExEventObjectType: Exported<TypeObject> = Exported(&EVENT_TYPE);

#[unsafe(no_mangle)]
pub(super) static ExSemaphoreObjectType: Exported<TypeObject> = Exported(&SEMAPHORE_TYPE);

#[unsafe(no_mangle)]
pub(super) static IoDriverObjectType: Exported<TypeObject> = Exported(&DRIVER_TYPE);

#[unsafe(no_mangle)]
pub(super) static IoDeviceObjectType: Exported<TypeObject> = Exported(&DEVICE_TYPE);

#[unsafe(no_mangle)]
pub(super) static IoFileObjectType: Exported<TypeObject> = Exported(&FILE_TYPE);

/// The type that a driver's pointer means.
fn type_at(pointer: *mut OBJECT_TYPE) -> Option<Result<Type, ()>> {
    if pointer.is_null() {
        return None;
    }
    let known = [
        &THREAD_TYPE,
        &PROCESS_TYPE,
        &EVENT_TYPE,
        &SEMAPHORE_TYPE,
        &MUTANT_TYPE,
        &TIMER_TYPE,
        &DRIVER_TYPE,
        &DEVICE_TYPE,
        &FILE_TYPE,
        &CALLBACK_TYPE,
    ];
    Some(known.iter().find(|known| std::ptr::addr_eq(**known, pointer)).map(|known| known.kind).ok_or(()))
}

/// Drops a reference. A file's last one tells its driver.
fn dereference(call: Call, object: PVOID) -> LONG_PTR {
    let (id, left) = call.operate(|kernel| {
        let id = kernel.referenced_object(object as usize)?;
        Ok((id, kernel.dereference_object(id, 1)? as LONG_PTR))
    });
    if left == 0 {
        super::io::file::unreferenced(call, id);
    }
    left
}

/// Drops a reference, and leaves what its being the last one means to a system thread.
fn dereference_deferred(call: Call, object: PVOID) {
    call.operate(|kernel| {
        let id = kernel.referenced_object(object as usize)?;
        if kernel.dereference_object(id, 1)? == 0 && matches!(kernel.objects[id].kind, crate::engine::Kind::File(_)) {
            kernel.queue_close(id)?;
        }
        Ok(())
    });
}

exports! {
    [OB_PASSIVE] visible(reference_by_handle Handle) fn ObReferenceObjectByHandle(
        call; Handle: HANDLE, DesiredAccess: ACCESS_MASK, ObjectType: *mut OBJECT_TYPE, AccessMode: KPROCESSOR_MODE,
        Object: *mut PVOID, HandleInformation: *mut OBJECT_HANDLE_INFORMATION
    ) -> NTSTATUS {
        let object_type = match type_at(ObjectType) {
            None => None,
            Some(Ok(object_type)) => Some(object_type),
            Some(Err(())) => return STATUS_OBJECT_TYPE_MISMATCH,
        };
        let request = HandleUse {
            handle: Handle as usize,
            user_mode: AccessMode == UserMode,
            access: DesiredAccess,
            object_type,
        };
        let result = call.operate(|kernel| {
            Ok(kernel.reference_handle_facts(request)?.map(|facts| (kernel.objects[facts.object].address, facts)))
        });
        match result {
            Ok((address, facts)) => {
                // SAFETY: the caller passes a valid pointer.
                unsafe { Object.write(address as PVOID) };
                if !HandleInformation.is_null() {
                    let information =
                        OBJECT_HANDLE_INFORMATION { HandleAttributes: facts.attributes, GrantedAccess: facts.access };
                    // SAFETY: the caller passes null or a valid pointer.
                    unsafe { HandleInformation.write(information) };
                }
                STATUS_SUCCESS
            }
            Err(status) => status,
        }
    }

    [TO_DISPATCH] visible(reference Object) fn ObReferenceObjectByPointer(
        call; Object: PVOID, _DesiredAccess: ACCESS_MASK, ObjectType: *mut OBJECT_TYPE, _AccessMode: KPROCESSOR_MODE
    ) -> NTSTATUS {
        call.operate(|kernel| {
            let id = kernel.referenced_object(Object as usize)?;
            if let Some(wanted) = type_at(ObjectType)
                && wanted.ok() != kernel.type_of(id)
            {
                return Ok(STATUS_OBJECT_TYPE_MISMATCH);
            }
            kernel.reference_object(id, 1)?;
            Ok(STATUS_SUCCESS)
        })
    }

    [TO_DISPATCH] visible(reference Object) fn ObfReferenceObject(call; Object: PVOID) -> LONG_PTR {
        call.operate(|kernel| {
            let id = kernel.referenced_object(Object as usize)?;
            Ok(kernel.reference_object(id, 1)? as LONG_PTR)
        })
    }

    [TO_DISPATCH] visible(reference Object) fn ObfDereferenceObject(call; Object: PVOID) -> LONG_PTR {
        dereference(call, Object)
    }

    [TO_DISPATCH] visible(reference Object) fn ObDereferenceObjectDeferDelete(call; Object: PVOID) {
        dereference_deferred(call, Object);
    }

    [TO_DISPATCH] visible(reference Object) fn ObfReferenceObjectWithTag(call; Object: PVOID, _Tag: ULONG) -> LONG_PTR {
        call.operate(|kernel| {
            let id = kernel.referenced_object(Object as usize)?;
            Ok(kernel.reference_object(id, 1)? as LONG_PTR)
        })
    }

    [TO_DISPATCH] visible(reference Object) fn ObfDereferenceObjectWithTag(call; Object: PVOID, _Tag: ULONG) -> LONG_PTR {
        dereference(call, Object)
    }

    [TO_DISPATCH] visible(reference Object) fn ObDereferenceObjectDeferDeleteWithTag(call; Object: PVOID, _Tag: ULONG) {
        dereference_deferred(call, Object);
    }

    [TO_DISPATCH] visible(reference Object) fn ObReferenceObjectSafe(call; Object: PVOID) -> BOOLEAN {
        BOOLEAN::from(call.operate(|kernel| {
            let id = kernel.referenced_object(Object as usize)?;
            Ok(kernel.reference_if_alive(id))
        }))
    }

    [OB_PASSIVE] visible fn ObOpenObjectByPointer(
        call; Object: PVOID, HandleAttributes: ULONG, _PassedAccessState: *mut ACCESS_STATE, DesiredAccess: ACCESS_MASK,
        ObjectType: *mut OBJECT_TYPE, _AccessMode: KPROCESSOR_MODE, Handle: *mut HANDLE
    ) -> NTSTATUS {
        let opened = call.operate(|kernel| {
            let id = kernel.referenced_object(Object as usize)?;
            if let Some(wanted) = type_at(ObjectType)
                && wanted.ok() != kernel.type_of(id)
            {
                return Ok(Err(STATUS_OBJECT_TYPE_MISMATCH));
            }
            if kernel.fails_allocation() || kernel.fails_to_create(FaultKind::Object) {
                return Ok(Err(STATUS_INSUFFICIENT_RESOURCES));
            }
            kernel.open_handle(id, DesiredAccess, HandleAttributes & OBJ_KERNEL_HANDLE != 0).map(Ok)
        });
        match opened {
            Ok(handle) => {
                // SAFETY: the caller passes a valid pointer.
                unsafe { Handle.write(handle as HANDLE) };
                STATUS_SUCCESS
            }
            Err(status) => status,
        }
    }

    [ANY] silent fn ObGetObjectType(call; Object: PVOID) -> *mut OBJECT_TYPE {
        let object_type = call.operate(|kernel| {
            let id = kernel.referenced_object(Object as usize)?;
            Ok(kernel.type_of(id))
        });
        let found = match object_type {
            Some(Type::Thread) => &raw const THREAD_TYPE,
            Some(Type::Process) => &raw const PROCESS_TYPE,
            Some(Type::Event) => &raw const EVENT_TYPE,
            Some(Type::Semaphore) => &raw const SEMAPHORE_TYPE,
            Some(Type::Mutant) => &raw const MUTANT_TYPE,
            Some(Type::Timer) => &raw const TIMER_TYPE,
            Some(Type::Driver) => &raw const DRIVER_TYPE,
            Some(Type::Device) => &raw const DEVICE_TYPE,
            Some(Type::File) => &raw const FILE_TYPE,
            Some(Type::Callback) => &raw const CALLBACK_TYPE,
            None => std::ptr::null(),
        };
        found.cast_mut().cast()
    }
}
