//! System services: `Zw...`, which act for the kernel, and `Nt...`, which act for whom the thread acted for before.

mod event;
mod handle;
mod thread;
mod timer;
mod wait;

use super::Table;
use crate::engine::kernel::{Check, Kernel};
use crate::engine::ob::{Attributes, Creation, HandleUse, Type};
use crate::engine::object::ObjId;
use crate::exports::IrqlRange;
use crate::irql::PASSIVE_LEVEL;
use crate::machine::Call;
use ksync_sys::{
    ACCESS_MASK, HANDLE, NTSTATUS, OBJ_VALID_ATTRIBUTES, OBJECT_ATTRIBUTES, STATUS_INVALID_PARAMETER,
    STATUS_OBJECT_TYPE_MISMATCH, STATUS_SUCCESS,
};

pub(super) fn tables() -> Vec<&'static Table> {
    vec![&event::TABLE, &handle::TABLE, &thread::TABLE, &timer::TABLE, &wait::TABLE]
}

pub(crate) const ZW_PASSIVE: IrqlRange = IrqlRange { lowest: PASSIVE_LEVEL, highest: PASSIVE_LEVEL, verifier: 0x2_001f };

/// Whom a service acts for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Kernel,
    User,
}

impl Mode {
    /// That of an `Nt...` call: the previous mode of the running thread.
    fn previous(call: Call) -> Self {
        if call.read(|kernel| kernel.previous_mode_is_user()) { Self::User } else { Self::Kernel }
    }

    fn is_user(self) -> bool {
        self == Self::User
    }
}

/// Reads what a driver says of an object that it makes or opens.
pub(crate) fn attributes(pointer: *const OBJECT_ATTRIBUTES) -> Result<Attributes, NTSTATUS> {
    // SAFETY: the caller of the service passes null or valid attributes.
    let Some(value) = (unsafe { pointer.as_ref() }) else { return Ok(Attributes::default()) };
    if value.Length as usize != size_of::<OBJECT_ATTRIBUTES>() || value.Attributes & !OBJ_VALID_ATTRIBUTES != 0 {
        return Err(STATUS_INVALID_PARAMETER);
    }
    // A root is a directory's handle, and nobody has one here: whatever it stands for is something else.
    if !value.RootDirectory.is_null() {
        return Err(STATUS_OBJECT_TYPE_MISMATCH);
    }
    // SAFETY: as above; the name is null or a valid counted string.
    let name = unsafe { value.ObjectName.as_ref() }.map(|name| {
        if name.Buffer.is_null() {
            return Vec::new();
        }
        // SAFETY: as above; the length is in bytes.
        unsafe { std::slice::from_raw_parts(name.Buffer, usize::from(name.Length) / 2) }.to_vec()
    });
    Ok(Attributes { name: name.filter(|name| !name.is_empty()), flags: value.Attributes })
}

/// Gives the caller of a service what it made or opened.
fn give_handle(place: *mut HANDLE, result: Result<(usize, NTSTATUS), NTSTATUS>) -> NTSTATUS {
    match result {
        Ok((handle, status)) => {
            // SAFETY: the caller of the service passes a valid pointer.
            unsafe { place.write(handle as HANDLE) };
            status
        }
        Err(status) => status,
    }
}

/// Makes an object of a type, or opens the one that has its name. `init` makes its memory into one.
pub(crate) fn create<T>(
    call: Call,
    object_type: Type,
    (place, access, object_attributes): (*mut HANDLE, ACCESS_MASK, *const OBJECT_ATTRIBUTES),
    init: impl FnOnce(&mut Kernel, *mut T) -> Check<()>,
) -> NTSTATUS {
    let attributes = match attributes(object_attributes) {
        Ok(attributes) => attributes,
        Err(status) => return status,
    };
    let creation = Creation { object_type, bytes: size_of::<T>(), access, attributes };
    let result = call.operate(|kernel| kernel.create_object(creation, |kernel, memory| init(kernel, memory as *mut T)));
    give_handle(place, result)
}

/// Opens the object of a type that has a name.
pub(crate) fn open(
    call: Call,
    object_type: Type,
    (place, access, object_attributes): (*mut HANDLE, ACCESS_MASK, *const OBJECT_ATTRIBUTES),
) -> NTSTATUS {
    let attributes = match attributes(object_attributes) {
        Ok(attributes) => attributes,
        Err(status) => return status,
    };
    let result = call.operate(|kernel| kernel.open_by_name(object_type, access, &attributes));
    give_handle(place, result.map(|handle| (handle, STATUS_SUCCESS)))
}

/// What a service is asked to do to the object of a handle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Use {
    mode: Mode,
    handle: HANDLE,
    access: ACCESS_MASK,
    object_type: Option<Type>,
}

impl Use {
    pub(crate) fn new(mode: Mode, handle: HANDLE, access: ACCESS_MASK, object_type: impl Into<Option<Type>>) -> Self {
        Self { mode, handle, access, object_type: object_type.into() }
    }

    fn reference(self, kernel: &mut Kernel) -> Check<Result<ObjId, NTSTATUS>> {
        kernel.reference_handle(HandleUse {
            handle: self.handle as usize,
            user_mode: self.mode.is_user(),
            access: self.access,
            object_type: self.object_type,
        })
    }

    /// Does something to the object, in one operation.
    pub(crate) fn operate<R>(self, call: Call, operation: impl FnOnce(&mut Kernel, ObjId) -> Check<R>) -> Result<R, NTSTATUS> {
        call.operate(|kernel| {
            let id = match self.reference(kernel)? {
                Ok(id) => id,
                Err(status) => return Ok(Err(status)),
            };
            let result = operation(kernel, id)?;
            kernel.dereference_object(id, 1)?;
            Ok(Ok(result))
        })
    }
}

/// Gives the caller of a service something that it may not want.
pub(crate) fn give<T>(place: *mut T, value: T) {
    if !place.is_null() {
        // SAFETY: the caller of the service passes null or a valid pointer.
        unsafe { place.write(value) };
    }
}
