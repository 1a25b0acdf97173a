//! Objects, handles, references.

use crate::{address, expected, misuse};
use ksync_sys::*;
use std::ptr::{null, null_mut};
use test_support::*;

#[test]
fn uninitialised_object() {
    let place = Place::<KEVENT>::zeroed();
    let expected = expected!(uninitialised_object, 0xc4, [Some(0x1002), address(place.ptr())], "KeSetEvent", 0);
    misuse(&expected, || {
        raw!(KeSetEvent(place.ptr(), 0, FALSE));
    });
}

#[test]
fn moved_object() {
    let moved = Place::<KEVENT>::zeroed();
    let expected = expected!(moved_object, 0xc4, [Some(0x1002), address(moved.ptr())], "KeSetEvent", 0);
    let stop = misuse(&expected, || {
        let event = Event::notification();
        raw!(moved.ptr().write(event.read()));
        raw!(KeSetEvent(moved.ptr(), 0, FALSE));
    });
    assert!(stop.meaning.contains("moved"));
}

#[test]
fn null_object() {
    let expected = expected!(null_object, 0xa, [Some(0), Some(0)], "KeWaitForSingleObject", 0);
    misuse(&expected, || {
        raw!(KeWaitForSingleObject(null_mut(), Executive, KernelMode, FALSE, null()));
    });
}

#[test]
fn null_to_initialise() {
    let expected = expected!(null_to_initialise, 0xa, [Some(0), Some(0)], "KeInitializeEvent", 0);
    misuse(&expected, || raw!(KeInitializeEvent(null_mut(), NotificationEvent, FALSE)));
}

#[test]
fn event_used_as_a_semaphore() {
    let expected = expected!(event_used_as_a_semaphore, 0xc4, [Some(0x1002)], "KeReleaseSemaphore", 0);
    let stop = misuse(&expected, || {
        let event = Event::notification();
        raw!(KeReleaseSemaphore(event.ptr().cast(), 0, 1, FALSE));
    });
    assert!(stop.meaning.contains("semaphore") && stop.meaning.contains("event"), "{}", stop.meaning);
}

#[test]
fn wait_on_a_dpc() {
    let expected = expected!(wait_on_a_dpc, 0xc4, [Some(0x1002)], "KeWaitForSingleObject", 0);
    misuse(&expected, || {
        let dpc = Dpc::new(|| {});
        raw!(KeWaitForSingleObject(dpc.ptr().cast(), Executive, KernelMode, FALSE, null()));
    });
}

#[test]
fn event_in_freed_pool() {
    let expected = expected!(event_in_freed_pool, 0xc4, [Some(0x1002)], "KeSetEvent", 0);
    let stop = misuse(&expected, || {
        let memory = allocate(100);
        let event = memory.wrapping_byte_add(8).cast::<KEVENT>();
        raw!(KeInitializeEvent(event, NotificationEvent, FALSE));
        free(memory);
        raw!(KeSetEvent(event, 0, FALSE));
    });
    assert!(stop.meaning.contains("byte 8") && stop.meaning.contains("'Test'"), "{}", stop.meaning);
}

#[test]
fn event_initialised_while_a_thread_waits() {
    let expected = expected!(event_initialised_while_a_thread_waits, 0xc4, [Some(0x1005)], "KeInitializeEvent", 0);
    misuse(&expected, || {
        let event = Event::notification();
        let thread = spawn(|| {
            wait(event.object());
        });
        settle();
        raw!(KeInitializeEvent(event.ptr(), NotificationEvent, FALSE));
        thread.join();
    });
}

#[test]
fn mutex_initialised_while_owned() {
    let expected = expected!(mutex_initialised_while_owned, 0xc4, [Some(0x1005)], "KeInitializeMutex", 0);
    misuse(&expected, || {
        let mutex = Mutex::new();
        wait(mutex.object());
        raw!(KeInitializeMutex(mutex.ptr(), 0));
    });
}

fn reference(handle: HANDLE, mode: KPROCESSOR_MODE) {
    let mut object = null_mut();
    raw!(ObReferenceObjectByHandle(handle, 0, null_mut(), mode, &mut object, null_mut()));
}

#[test]
fn bad_handle() {
    let expected = expected!(reference, 0xc4, [Some(0x3c), Some(0x1234)], "ObReferenceObjectByHandle", 0);
    misuse(&expected, || reference(0x1234 as HANDLE, KernelMode));
}

#[test]
fn null_handle() {
    let expected = expected!(reference, 0xc4, [Some(0xf5), Some(0)], "ObReferenceObjectByHandle", 0);
    misuse(&expected, || reference(null_mut(), KernelMode));
}

#[test]
fn user_handle_as_a_kernel_one() {
    let expected = expected!(reference, 0xc4, [Some(0xf6)], "ObReferenceObjectByHandle", 0);
    misuse(&expected, || {
        let process = ksim::create_process();
        ksim::in_process(process, || {
            let mut handle = null_mut();
            let thread = current_thread();
            raw!(ObOpenObjectByPointer(thread, 0, null_mut(), 0, null_mut(), KernelMode, &mut handle));
            reference(handle, KernelMode);
        });
    });
}

#[test]
fn kernel_handle_as_a_user_one() {
    let expected = expected!(reference, 0xc4, [Some(0xf7)], "ObReferenceObjectByHandle", 0);
    misuse(&expected, || {
        let mut handle = null_mut();
        let thread = current_thread();
        raw!(ObOpenObjectByPointer(thread, OBJ_KERNEL_HANDLE, null_mut(), 0, null_mut(), KernelMode, &mut handle));
        reference(handle, UserMode);
    });
}

#[test]
fn dereferenced_too_often() {
    let expected = expected!(dereferenced_too_often, 0x18, [None, None], "ObfDereferenceObject", 0);
    misuse(&expected, || {
        let thread = spawn(|| {});
        wait(thread.object());
        raw!(ObfDereferenceObject(thread.object()));
        raw!(ObfDereferenceObject(thread.object()));
    });
}

#[test]
fn pointer_that_is_no_object_dereferenced() {
    let expected = expected!(pointer_that_is_no_object_dereferenced, 0x18, [], "ObfDereferenceObject", 0);
    misuse(&expected, || {
        let event = Event::notification();
        raw!(ObfDereferenceObject(event.object()));
    });
}

#[test]
fn referenced_from_zero() {
    let expected = expected!(referenced_from_zero, 0xc4, [Some(0x3f)], "ObfReferenceObject", 0);
    misuse(&expected, || {
        let thread = spawn(|| {});
        wait(thread.object());
        raw!(ObfDereferenceObject(thread.object()));
        raw!(ObfReferenceObject(thread.object()));
    });
}

#[test]
fn priority_out_of_range() {
    let expected = expected!(priority_out_of_range, 0xc4, [Some(0x6b73_0005), Some(32)], "KeSetPriorityThread", 0);
    misuse(&expected, || {
        raw!(KeSetPriorityThread(current_thread().cast(), 32));
    });
}

#[test]
fn driver_asks_for_a_bug_check() {
    let expected = expected!(driver_asks_for_a_bug_check, 0xe2, [Some(1), Some(2), Some(3), Some(4)], "KeBugCheckEx", 15);
    let stop = misuse(&expected, || {
        raise(HIGH_LEVEL);
        raw!(KeBugCheckEx(0xe2, 1, 2, 3, 4));
    });
    assert_eq!(stop.name, "MANUALLY_INITIATED_CRASH");
    let expected = expected!(driver_asks_for_a_bug_check, 0xe2, [Some(0), Some(0), Some(0), Some(0)], "KeBugCheck", 0);
    misuse(&expected, || raw!(KeBugCheck(0xe2)));
}

#[test]
fn exception_that_nobody_handles() {
    let status = STATUS_INSUFFICIENT_RESOURCES as u32;
    let expected = expected!(exception_that_nobody_handles, 0x7e, [Some(status.into())], "ExRaiseStatus", 0);
    let stop = misuse(&expected, || raw!(ExRaiseStatus(STATUS_INSUFFICIENT_RESOURCES)));
    assert!(stop.meaning.contains("STATUS_INSUFFICIENT_RESOURCES"));
}

#[test]
fn exception_at_dispatch_level() {
    let expected = expected!(exception_at_dispatch_level, 0xc4, [Some(0x2_0008), Some(2), Some(1)], "ExRaiseStatus", 2);
    misuse(&expected, || {
        raise(DISPATCH_LEVEL);
        raw!(ExRaiseStatus(STATUS_INSUFFICIENT_RESOURCES));
    });
}

#[test]
fn thread_created_at_apc_level() {
    let expected = expected!(thread_created_at_apc_level, 0xc4, [Some(0x2_001c), Some(1), Some(0)], "PsCreateSystemThread", 1);
    misuse(&expected, || {
        let mut handle = null_mut();
        raise(APC_LEVEL);
        raw!(PsCreateSystemThread(&mut handle, 0, null(), null_mut(), null_mut(), None, null_mut()));
    });
}
