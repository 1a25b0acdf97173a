//! Event objects.

use super::{Mode, Use, ZW_PASSIVE, create, give, open};
use crate::engine::kernel::{Check, Kernel};
use crate::engine::ob::Type;
use crate::engine::object::ObjId;
use crate::exports::exports;
use crate::machine::Call;
use ksync_sys::{
    ACCESS_MASK, BOOLEAN, EVENT_INCREMENT, EVENT_MODIFY_STATE, EVENT_TYPE, HANDLE, KEVENT, LONG, NTSTATUS, NotificationEvent,
    OBJECT_ATTRIBUTES, STATUS_INVALID_PARAMETER, STATUS_SUCCESS, SynchronizationEvent,
};

fn create_event(
    call: Call,
    what: (*mut HANDLE, ACCESS_MASK, *const OBJECT_ATTRIBUTES),
    event_type: EVENT_TYPE,
    state: BOOLEAN,
) -> NTSTATUS {
    if event_type != NotificationEvent && event_type != SynchronizationEvent {
        return STATUS_INVALID_PARAMETER;
    }
    create(call, Type::Event, what, |kernel, event: *mut KEVENT| {
        // SAFETY: the memory is fresh, and a KEVENT's.
        unsafe { kernel.initialize_event(event, event_type == NotificationEvent, state != 0) }.map(drop)
    })
}

/// Changes an event's state, and tells the one before.
fn change(
    call: Call,
    mode: Mode,
    handle: HANDLE,
    previous: *mut LONG,
    operation: impl FnOnce(&mut Kernel, ObjId) -> Check<LONG>,
) -> NTSTATUS {
    match Use::new(mode, handle, EVENT_MODIFY_STATE, Type::Event).operate(call, operation) {
        Ok(state) => {
            give(previous, state);
            STATUS_SUCCESS
        }
        Err(status) => status,
    }
}

exports! {
    [ZW_PASSIVE] visible fn ZwCreateEvent(
        call; EventHandle: *mut HANDLE, DesiredAccess: ACCESS_MASK, ObjectAttributes: *const OBJECT_ATTRIBUTES,
        EventType: EVENT_TYPE, InitialState: BOOLEAN
    ) -> NTSTATUS {
        create_event(call, (EventHandle, DesiredAccess, ObjectAttributes), EventType, InitialState)
    }

    [ZW_PASSIVE] visible fn NtCreateEvent(
        call; EventHandle: *mut HANDLE, DesiredAccess: ACCESS_MASK, ObjectAttributes: *const OBJECT_ATTRIBUTES,
        EventType: EVENT_TYPE, InitialState: BOOLEAN
    ) -> NTSTATUS {
        create_event(call, (EventHandle, DesiredAccess, ObjectAttributes), EventType, InitialState)
    }

    [ZW_PASSIVE] visible fn ZwOpenEvent(
        call; EventHandle: *mut HANDLE, DesiredAccess: ACCESS_MASK, ObjectAttributes: *const OBJECT_ATTRIBUTES
    ) -> NTSTATUS {
        open(call, Type::Event, (EventHandle, DesiredAccess, ObjectAttributes))
    }

    [ZW_PASSIVE] visible(access_by_handle EventHandle) fn ZwSetEvent(call; EventHandle: HANDLE, PreviousState: *mut LONG) -> NTSTATUS {
        change(call, Mode::Kernel, EventHandle, PreviousState, |kernel, id| kernel.set_event(id, EVENT_INCREMENT))
    }

    [ZW_PASSIVE] visible(access_by_handle EventHandle) fn NtSetEvent(call; EventHandle: HANDLE, PreviousState: *mut LONG) -> NTSTATUS {
        change(call, Mode::previous(call), EventHandle, PreviousState, |kernel, id| kernel.set_event(id, EVENT_INCREMENT))
    }

    [ZW_PASSIVE] visible(among_waiters_by_handle EventHandle) fn ZwPulseEvent(call; EventHandle: HANDLE, PreviousState: *mut LONG) -> NTSTATUS {
        change(call, Mode::Kernel, EventHandle, PreviousState, |kernel, id| kernel.pulse_event(id, EVENT_INCREMENT))
    }

    [ZW_PASSIVE] visible(access_by_handle EventHandle) fn ZwResetEvent(call; EventHandle: HANDLE, PreviousState: *mut LONG) -> NTSTATUS {
        change(call, Mode::Kernel, EventHandle, PreviousState, |kernel, id| Ok(kernel.reset_event(id)))
    }

    [ZW_PASSIVE] visible(access_by_handle EventHandle) fn ZwClearEvent(call; EventHandle: HANDLE) -> NTSTATUS {
        change(call, Mode::Kernel, EventHandle, std::ptr::null_mut(), |kernel, id| Ok(kernel.reset_event(id)))
    }
}
