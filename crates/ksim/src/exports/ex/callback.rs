//! Callback objects.

use crate::engine::callback::CallbackCall;
use crate::engine::kernel::Kernel;
use crate::engine::ob::{Creation, HandleUse, Type};
use crate::exports::zw::attributes;
use crate::exports::{BLOCKING, PASSIVE, TO_DISPATCH, exports};
use crate::image::call_through;
use crate::machine::Call;
use ksync_sys::{
    BOOLEAN, CALLBACK_ALL_ACCESS, CALLBACK_FUNCTION, CALLBACK_OBJECT, NTSTATUS, OBJ_KERNEL_HANDLE, OBJ_OPENIF, OBJECT_ATTRIBUTES,
    PVOID, STATUS_SUCCESS,
};

/// The callback objects that the system itself has, and calls when there is something to tell. They are made when they are first asked for.
const OF_THE_SYSTEM: [&str; 3] = ["\\Callback\\SetSystemTime", "\\Callback\\PowerState", "\\Callback\\ProcessorAdd"];

/// Bytes of an object, which drivers do not look into.
const OBJECT_BYTES: usize = 48;

/// The object of a handle, with a reference, in place of the handle.
fn object_of(kernel: &mut Kernel, handle: usize) -> crate::engine::Check<Result<usize, NTSTATUS>> {
    let request = HandleUse { handle, user_mode: false, access: 0, object_type: Some(Type::Callback) };
    let referenced = kernel.reference_handle(request)?;
    kernel.close_handle(handle, false)?;
    Ok(referenced.map(|id| kernel.objects[id].address))
}

fn create(
    call: Call,
    object_attributes: *const OBJECT_ATTRIBUTES,
    create: bool,
    multiple: bool,
) -> Result<*mut CALLBACK_OBJECT, NTSTATUS> {
    let mut attributes = attributes(object_attributes)?;
    attributes.flags |= OBJ_KERNEL_HANDLE | OBJ_OPENIF;
    let name = attributes.name.as_ref().map(|name| String::from_utf16_lossy(name));
    let of_the_system = name.is_some_and(|name| OF_THE_SYSTEM.iter().any(|known| known.eq_ignore_ascii_case(&name)));
    call.operate(|kernel| {
        if !create && !of_the_system {
            return match kernel.open_by_name(Type::Callback, CALLBACK_ALL_ACCESS, &attributes)? {
                Ok(handle) => object_of(kernel, handle),
                Err(status) => Ok(Err(status)),
            };
        }
        let creation = Creation { object_type: Type::Callback, bytes: OBJECT_BYTES, access: CALLBACK_ALL_ACCESS, attributes };
        let created = kernel.create_object(creation, |kernel, memory| {
            kernel.initialize_callback(memory as *mut CALLBACK_OBJECT, multiple || of_the_system);
            Ok(())
        })?;
        match created {
            Ok((handle, _)) => object_of(kernel, handle),
            Err(status) => Ok(Err(status)),
        }
    })
    .map(|address| address as *mut CALLBACK_OBJECT)
}

exports! {
    [PASSIVE] visible fn ExCreateCallback(
        call; CallbackObject: *mut *mut CALLBACK_OBJECT, ObjectAttributes: *const OBJECT_ATTRIBUTES, Create: BOOLEAN,
        AllowMultipleCallbacks: BOOLEAN
    ) -> NTSTATUS {
        match create(call, ObjectAttributes, Create != 0, AllowMultipleCallbacks != 0) {
            Ok(object) => {
                // SAFETY: the caller passes a valid pointer.
                unsafe { CallbackObject.write(object) };
                STATUS_SUCCESS
            }
            Err(status) => status,
        }
    }

    [BLOCKING.rule(0x2_0006)] visible(access CallbackObject) fn ExRegisterCallback(
        call; CallbackObject: *mut CALLBACK_OBJECT, CallbackFunction: CALLBACK_FUNCTION, CallbackContext: PVOID
    ) -> PVOID {
        call.operate(|kernel| kernel.register_callback(CallbackObject, CallbackFunction, CallbackContext)) as PVOID
    }

    [BLOCKING] visible fn ExUnregisterCallback(call; CallbackRegistration: PVOID) {
        while !call.is_dying() && !call.operate(|kernel| kernel.unregister_callback(CallbackRegistration)) {}
    }

    [TO_DISPATCH] visible(access CallbackObject) fn ExNotifyCallback(
        call; CallbackObject: *mut CALLBACK_OBJECT, Argument1: PVOID, Argument2: PVOID
    ) {
        if CallbackObject.is_null() || call.is_dying() {
            return;
        }
        let mut returned: Option<CallbackCall> = None;
        while let Some(next) = call.operate(|kernel| kernel.next_callback(CallbackObject, returned)) {
            // SAFETY: the driver vouched for the routine when it registered it.
            unsafe { call_through(next.routine, (next.context, Argument1, Argument2), || {}) };
            returned = Some(next);
        }
    }
}
