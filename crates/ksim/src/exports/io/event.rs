//! Named events, as drivers create them.

use crate::exports::{PASSIVE, exports};
use ksync_sys::{
    EVENT_ALL_ACCESS, EVENT_TYPE, HANDLE, KEVENT, KernelMode, NotificationEvent, OBJ_CASE_INSENSITIVE, OBJ_KERNEL_HANDLE,
    OBJ_OPENIF, OBJECT_ATTRIBUTES, ObReferenceObjectByHandle, ObfDereferenceObject, STATUS_SUCCESS, SynchronizationEvent, TRUE,
    UNICODE_STRING, ZwCreateEvent,
};
use std::ptr::null_mut;

/// Creates an event that is signaled, or opens the one with the name. Null if neither can be done.
fn create(name: *mut UNICODE_STRING, handle: *mut HANDLE, event_type: EVENT_TYPE) -> *mut KEVENT {
    let attributes = OBJECT_ATTRIBUTES {
        Length: size_of::<OBJECT_ATTRIBUTES>() as u32,
        RootDirectory: null_mut(),
        ObjectName: name,
        Attributes: OBJ_OPENIF | OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE,
        SecurityDescriptor: null_mut(),
        SecurityQualityOfService: null_mut(),
    };
    let mut opened = null_mut();
    // SAFETY: the attributes and the result are local, and the name is the caller's, who vouches for it.
    if unsafe { ZwCreateEvent(&raw mut opened, EVENT_ALL_ACCESS, &raw const attributes, event_type, TRUE) } < STATUS_SUCCESS {
        return null_mut();
    }
    let mut event = null_mut();
    // SAFETY: the handle was opened just now, to an event; the result is local.
    let status = unsafe { ObReferenceObjectByHandle(opened, 0, null_mut(), KernelMode, &raw mut event, null_mut()) };
    if status < STATUS_SUCCESS {
        return null_mut();
    }
    // The pointer comes without a reference: it is the handle that keeps the event.
    // SAFETY: the reference was taken just now.
    unsafe { ObfDereferenceObject(event) };
    // SAFETY: the caller passes a valid pointer.
    unsafe { handle.write(opened) };
    event.cast()
}

exports! {
    [PASSIVE] visible fn IoCreateNotificationEvent(call; EventName: *mut UNICODE_STRING, EventHandle: *mut HANDLE) -> *mut KEVENT {
        let _ = call;
        create(EventName, EventHandle, NotificationEvent)
    }

    [PASSIVE] visible fn IoCreateSynchronizationEvent(
        call; EventName: *mut UNICODE_STRING, EventHandle: *mut HANDLE
    ) -> *mut KEVENT {
        let _ = call;
        create(EventName, EventHandle, SynchronizationEvent)
    }
}
