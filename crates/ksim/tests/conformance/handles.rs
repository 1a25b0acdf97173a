//! Objects by reference, by handle and by name: rule 65.

use ksim::Machine;
use ksync_sys::*;
use std::cell::{Cell, RefCell};
use std::ptr::{null, null_mut};
use test_support::*;

#[test]
fn rule_65_references_by_handle() {
    run(|| {
        let mut handle = null_mut();
        let thread = current_thread();
        let thread_type = raw!(PsThreadType);
        let process_type = raw!(PsProcessType);
        let open = |attributes, access, handle: *mut HANDLE| {
            raw!(ObOpenObjectByPointer(thread, attributes, null_mut(), access, thread_type, KernelMode, handle))
        };
        assert_eq!(open(OBJ_KERNEL_HANDLE, THREAD_ALL_ACCESS, &mut handle), STATUS_SUCCESS);
        let reference = |handle, access, kind, mode| {
            let mut object = null_mut();
            let status = raw!(ObReferenceObjectByHandle(handle, access, kind, mode, &mut object, null_mut()));
            if status == STATUS_SUCCESS {
                assert_eq!(object, thread);
                raw!(ObfDereferenceObject(object));
            }
            status
        };
        assert_eq!(reference(handle, 0, thread_type, KernelMode), STATUS_SUCCESS);
        assert_eq!(reference(handle, 0, null_mut(), KernelMode), STATUS_SUCCESS);
        assert_eq!(reference(handle, 0, process_type, KernelMode), STATUS_OBJECT_TYPE_MISMATCH);
        assert_eq!(raw!(ZwClose(handle)), STATUS_SUCCESS);
        assert_eq!(raw!(ZwClose(handle)), STATUS_INVALID_HANDLE);
        assert_eq!(open(0, SYNCHRONIZE, &mut handle), STATUS_SUCCESS);
        assert_eq!(reference(handle, SYNCHRONIZE, thread_type, UserMode), STATUS_SUCCESS);
        assert_eq!(reference(handle, THREAD_ALL_ACCESS, thread_type, UserMode), STATUS_ACCESS_DENIED);
        assert_eq!(reference(handle, THREAD_ALL_ACCESS, thread_type, KernelMode), STATUS_SUCCESS);
        assert_eq!(raw!(ZwClose(handle)), STATUS_SUCCESS);
        assert_eq!(reference(handle, SYNCHRONIZE, thread_type, UserMode), STATUS_INVALID_HANDLE);
    });
}

#[test]
fn rule_65_handles_belong_to_processes() {
    run(|| {
        let process = ksim::create_process();
        let mut handle = null_mut();
        let thread = spawn(|| {
            sleep(SECOND);
        });
        ksim::in_process(process, || {
            let status = raw!(ObOpenObjectByPointer(
                thread.object(),
                0,
                null_mut(),
                THREAD_ALL_ACCESS,
                null_mut(),
                KernelMode,
                &mut handle
            ));
            assert_eq!(status, STATUS_SUCCESS);
        });
        let mut object = null_mut();
        let reference = |object: *mut PVOID| raw!(ObReferenceObjectByHandle(handle, 0, null_mut(), UserMode, object, null_mut()));
        assert_eq!(reference(&mut object), STATUS_INVALID_HANDLE);
        ksim::in_process(process, || {
            assert_eq!(reference(&mut object), STATUS_SUCCESS);
            raw!(ObfDereferenceObject(object));
            assert_eq!(raw!(ZwClose(handle)), STATUS_SUCCESS);
        });
        thread.join();
    });
}

#[test]
fn rule_65_bad_handles_are_bug_checks() {
    let reference = |handle: HANDLE, mode: KPROCESSOR_MODE| {
        let mut object = null_mut();
        raw!(ObReferenceObjectByHandle(handle, 0, null_mut(), mode, &mut object, null_mut()));
    };
    assert_eq!(crash(0xc4, || reference(0x44 as HANDLE, KernelMode)).parameters[..2], [0x3c, 0x44]);
    assert_eq!(crash(0xc4, || reference(null_mut(), KernelMode)).parameters[0], 0xf5);
    let user_as_kernel = crash(0xc4, || {
        let process = ksim::create_process();
        ksim::in_process(process, || reference(0x44 as HANDLE, KernelMode));
    });
    assert_eq!(user_as_kernel.parameters[..2], [0xf6, 0x44]);
    let kernel_as_user = crash(0xc4, || {
        let mut handle = null_mut();
        raw!(ObOpenObjectByPointer(current_thread(), OBJ_KERNEL_HANDLE, null_mut(), 0, null_mut(), KernelMode, &mut handle));
        reference(handle, UserMode);
    });
    assert_eq!(kernel_as_user.parameters[0], 0xf7);
}

#[test]
fn rule_65_reference_counts() {
    explore(|| {
        let thread = spawn(|| {});
        let object = thread.object();
        assert!(raw!(ObfReferenceObject(object)) >= 2);
        assert!(raw!(ObfDereferenceObject(object)) >= 1);
        wait(object);
        thread.join();
    });
    let too_often = crash(0x18, || {
        let thread = spawn(|| {});
        wait(thread.object());
        raw!(ObfDereferenceObject(thread.object()));
        raw!(ObfDereferenceObject(thread.object()));
    });
    assert_eq!(too_often.routine, Some("ObfDereferenceObject"));
    let from_zero = crash(0xc4, || {
        let thread = spawn(|| {});
        wait(thread.object());
        raw!(ObfDereferenceObject(thread.object()));
        raw!(ObfReferenceObject(thread.object()));
    });
    assert_eq!(from_zero.parameters[0], 0x3f);
    let live = crash(0x18, || {
        raw!(ObfDereferenceObject(current_thread()));
    });
    assert_eq!(live.name, "REFERENCE_BY_POINTER");
}

#[test]
fn rule_65_levels() {
    let stop = crash(0xc4, || {
        raise(APC_LEVEL);
        let mut object = null_mut();
        raw!(ObReferenceObjectByHandle(null_mut(), 0, null_mut(), KernelMode, &mut object, null_mut()));
    });
    assert_eq!(stop.parameters[..2], [0x2_001b, 1]);
    let stop = crash(0xc4, || {
        raise(APC_LEVEL);
        raw!(ZwClose(null_mut()));
    });
    assert_eq!(stop.parameters[..2], [0x2_001f, 1]);
    let stop = crash(0xc4, || {
        raise(APC_LEVEL);
        let mut handle = null_mut();
        raw!(PsCreateSystemThread(&mut handle, 0, null(), null_mut(), null_mut(), None, null_mut()));
    });
    assert_eq!(stop.parameters[..2], [0x2_001c, 1]);
}

#[test]
fn rule_65_lookup_by_id() {
    explore(|| {
        let id = raw!(PsGetCurrentThreadId());
        let mut thread = null_mut();
        assert_eq!(raw!(PsLookupThreadByThreadId(id, &mut thread)), STATUS_SUCCESS);
        assert_eq!(thread.cast(), current_thread());
        assert_eq!(raw!(PsGetThreadId(thread)), id);
        raw!(ObfDereferenceObject(thread.cast()));
        let mut process = null_mut();
        assert_eq!(raw!(PsLookupProcessByProcessId(4 as HANDLE, &mut process)), STATUS_SUCCESS);
        assert_eq!(process, raw!(PsGetCurrentProcess()));
        assert_eq!(raw!(PsGetProcessId(process)), 4 as HANDLE);
        raw!(ObfDereferenceObject(process.cast()));
        assert_eq!(raw!(PsLookupThreadByThreadId(4 as HANDLE, &mut thread)), STATUS_INVALID_PARAMETER);
        assert_eq!(raw!(PsLookupProcessByProcessId(0x9999 as HANDLE, &mut process)), STATUS_INVALID_CID);
    });
}

/// Creates an event, and gives its handle.
fn create_event(flags: u32, kind: EVENT_TYPE, state: bool) -> HANDLE {
    let (mut handle, attributes) = (null_mut(), attributes(flags));
    assert_eq!(raw!(ZwCreateEvent(&mut handle, EVENT_ALL_ACCESS, &attributes, kind, state.into())), STATUS_SUCCESS);
    handle
}

fn close(handle: HANDLE) {
    assert_eq!(raw!(ZwClose(handle)), STATUS_SUCCESS);
}

/// The object of a kernel handle, referenced.
fn object_of(handle: HANDLE, object_type: *mut OBJECT_TYPE) -> PVOID {
    let mut object = null_mut();
    let status = raw!(ObReferenceObjectByHandle(handle, 0, object_type, KernelMode, &mut object, null_mut()));
    assert_eq!(status, STATUS_SUCCESS);
    object
}

fn wait_for_handle(handle: HANDLE, timeout: i64) -> NTSTATUS {
    raw!(ZwWaitForSingleObject(handle, FALSE, &timeout))
}

#[test]
fn rule_65_events_by_handle_and_by_pointer() {
    explore(|| {
        let handle = create_event(OBJ_KERNEL_HANDLE, SynchronizationEvent, true);
        let event = object_of(handle, raw!(ExEventObjectType)).cast::<KEVENT>();
        assert_eq!(raw!(KeReadStateEvent(event)), 1);
        assert_eq!(wait_for_handle(handle, 0), STATUS_SUCCESS);
        assert_eq!(wait_for_handle(handle, 0), STATUS_TIMEOUT);
        let mut previous = -1;
        assert_eq!(raw!(ZwSetEvent(handle, &mut previous)), STATUS_SUCCESS);
        assert_eq!((previous, raw!(KeReadStateEvent(event))), (0, 1));
        assert_eq!(raw!(NtSetEvent(handle, null_mut())), STATUS_SUCCESS);
        assert_eq!(raw!(ZwResetEvent(handle, &mut previous)), STATUS_SUCCESS);
        assert_eq!(previous, 1);
        assert_eq!(raw!(KeSetEvent(event, 0, FALSE)), 0);
        assert_eq!(raw!(ZwClearEvent(handle)), STATUS_SUCCESS);
        assert_eq!(raw!(ZwPulseEvent(handle, &mut previous)), STATUS_SUCCESS);
        assert_eq!((previous, raw!(KeReadStateEvent(event))), (0, 0));
        // The reference keeps the object when the handle is closed.
        let waiter = spawn(|| assert_eq!(wait(event.cast()), STATUS_SUCCESS));
        settle();
        close(handle);
        raw!(KeSetEvent(event, 0, FALSE));
        waiter.join();
        raw!(ObfDereferenceObject(event.cast()));
    });
}

#[test]
fn rule_65_a_deleted_object_is_no_object() {
    let deleted = |code: u32, use_it: fn(PVOID)| {
        crash(code, || {
            let handle = create_event(OBJ_KERNEL_HANDLE, NotificationEvent, false);
            let event = object_of(handle, null_mut());
            close(handle);
            raw!(ObDereferenceObjectDeferDelete(event));
            use_it(event);
        })
    };
    let set = deleted(0xc4, |event| {
        raw!(KeSetEvent(event.cast(), 0, FALSE));
    });
    assert!(set.meaning.contains("'Even'"), "{}", set.meaning);
    let referenced = deleted(0x18, |event| {
        raw!(ObfReferenceObject(event));
    });
    assert_eq!(referenced.routine, Some("ObfReferenceObject"));
    deleted(0x18, |event| {
        raw!(ObfDereferenceObject(event));
    });
    // Its memory is the object manager's, not the driver's.
    let freed = crash(0xc2, || {
        let handle = create_event(OBJ_KERNEL_HANDLE, NotificationEvent, false);
        raw!(ExFreePoolWithTag(object_of(handle, null_mut()), 0));
    });
    assert_eq!(freed.parameters[0], 0x46);
}

#[test]
fn rule_65_who_waits_keeps_a_reference() {
    let stop = crash(0xc4, || {
        let handle = create_event(OBJ_KERNEL_HANDLE, NotificationEvent, false);
        let event = object_of(handle, null_mut());
        raw!(ObfDereferenceObject(event));
        let _waiter = spawn(|| {
            wait(event);
        });
        settle();
        close(handle);
    });
    assert_eq!((stop.parameters[0], stop.routine), (0x100b, Some("ZwClose")));
    // A wait by handle keeps one itself.
    explore(|| {
        let handle = create_event(OBJ_KERNEL_HANDLE, NotificationEvent, false);
        let waiter = spawn(|| assert_eq!(wait_for_handle(handle, -SECOND), STATUS_TIMEOUT));
        settle();
        close(handle);
        waiter.join();
    });
}

#[test]
fn rule_65_all_forms_of_a_reference() {
    explore(|| {
        let handle = create_event(OBJ_KERNEL_HANDLE, NotificationEvent, false);
        let (event_type, semaphore_type) = (raw!(ExEventObjectType), raw!(ExSemaphoreObjectType));
        let event = object_of(handle, event_type);
        let tag = u32::from_le_bytes(*b"Refs");
        assert_eq!(raw!(ObGetObjectType(event)), event_type);
        assert_eq!(raw!(ObReferenceObjectByPointer(event, 0, event_type, KernelMode)), STATUS_SUCCESS);
        let mismatch = raw!(ObReferenceObjectByPointer(event, 0, semaphore_type, KernelMode));
        assert_eq!(mismatch, STATUS_OBJECT_TYPE_MISMATCH);
        assert_eq!(raw!(ObfReferenceObject(event)), 4);
        assert_eq!(raw!(ObfReferenceObjectWithTag(event, tag)), 5);
        assert_eq!(raw!(ObReferenceObjectSafe(event)), TRUE);
        at(DISPATCH_LEVEL, || {
            assert_eq!(raw!(ObfDereferenceObject(event)), 5);
            assert_eq!(raw!(ObfDereferenceObjectWithTag(event, tag)), 4);
            raw!(ObDereferenceObjectDeferDelete(event));
            raw!(ObDereferenceObjectDeferDeleteWithTag(event, tag));
        });
        close(handle);
        // The last one, where the object cannot be deleted at once.
        at(DISPATCH_LEVEL, || raw!(ObDereferenceObjectDeferDelete(event)));
    });
    // A thread that has ended and that nobody references any more is not there to be referenced safely.
    explore(|| {
        let thread = spawn(|| {});
        let object = thread.object();
        thread.join();
        assert_eq!(raw!(ObReferenceObjectSafe(object)), FALSE);
    });
}

#[test]
fn rule_65_names() {
    explore(|| {
        let create = |name: &str, flags: u32, handle: &mut HANDLE| {
            named(name, flags | OBJ_KERNEL_HANDLE, |attributes| {
                raw!(ZwCreateEvent(handle, EVENT_ALL_ACCESS, attributes, NotificationEvent, FALSE))
            })
        };
        let open = |name: &str, flags: u32, handle: &mut HANDLE| {
            named(name, flags | OBJ_KERNEL_HANDLE, |attributes| raw!(ZwOpenEvent(handle, SYNCHRONIZE, attributes)))
        };
        let (mut first, mut second) = (null_mut(), null_mut());
        let name = "\\BaseNamedObjects\\Ready";
        assert_eq!(open(name, 0, &mut second), STATUS_OBJECT_NAME_NOT_FOUND);
        assert_eq!(create(name, 0, &mut first), STATUS_SUCCESS);
        assert_eq!(create(name, 0, &mut second), STATUS_OBJECT_NAME_COLLISION);
        assert_eq!(create(name, OBJ_OPENIF, &mut second), STATUS_OBJECT_NAME_EXISTS);
        assert_eq!(raw!(ZwSetEvent(first, null_mut())), STATUS_SUCCESS);
        assert_eq!(wait_for_handle(second, 0), STATUS_SUCCESS, "both are one event");
        close(second);
        assert_eq!(open("\\basenamedobjects\\READY", 0, &mut second), STATUS_OBJECT_NAME_NOT_FOUND);
        assert_eq!(open("\\basenamedobjects\\READY", OBJ_CASE_INSENSITIVE, &mut second), STATUS_SUCCESS);
        // The name is that of an event.
        let mut timer = null_mut();
        let status = named(name, OBJ_KERNEL_HANDLE, |attributes| raw!(ZwOpenTimer(&mut timer, 0, attributes)));
        assert_eq!(status, STATUS_OBJECT_TYPE_MISMATCH);
        let status = named(name, OBJ_OPENIF, |attributes| raw!(ZwCreateTimer(&mut timer, 0, attributes, NotificationTimer)));
        assert_eq!(status, STATUS_OBJECT_TYPE_MISMATCH);
        // A name goes with the last handle, also when the object stays.
        let event = object_of(first, null_mut());
        close(first);
        close(second);
        assert_eq!(open(name, 0, &mut second), STATUS_OBJECT_NAME_NOT_FOUND);
        assert_eq!(create(name, 0, &mut first), STATUS_SUCCESS);
        close(first);
        raw!(ObfDereferenceObject(event));

        for (wrong, status) in [
            ("Ready", STATUS_OBJECT_PATH_SYNTAX_BAD),
            ("\\BaseNamedObjects\\", STATUS_OBJECT_NAME_INVALID),
            ("\\Nowhere\\Ready", STATUS_OBJECT_PATH_NOT_FOUND),
        ] {
            assert_eq!((create(wrong, 0, &mut first), open(wrong, 0, &mut first)), (status, status), "{wrong}");
        }
        let mut short = attributes(0);
        short.Length -= 1;
        let refused = raw!(ZwCreateEvent(&mut first, 0, &short, NotificationEvent, FALSE));
        assert_eq!(refused, STATUS_INVALID_PARAMETER);
        assert_eq!(raw!(ZwCreateEvent(&mut first, 0, null(), 2, FALSE)), STATUS_INVALID_PARAMETER);
    });
}

#[test]
fn rule_65_rights_of_a_handle() {
    run(|| {
        let process = ksim::create_process();
        ksim::in_process(process, || {
            let granted = |access: ACCESS_MASK| {
                let (mut handle, mut object) = (null_mut(), null_mut());
                let mut facts = OBJECT_HANDLE_INFORMATION { HandleAttributes: 0, GrantedAccess: 0 };
                assert_eq!(raw!(ZwCreateEvent(&mut handle, access, null(), NotificationEvent, FALSE)), STATUS_SUCCESS);
                let status = raw!(ObReferenceObjectByHandle(handle, 0, null_mut(), UserMode, &mut object, &mut facts));
                assert_eq!(status, STATUS_SUCCESS);
                raw!(ObfDereferenceObject(object));
                // What it does not grant, it is not referenced for.
                let more = EVENT_ALL_ACCESS & !facts.GrantedAccess;
                let status = raw!(ObReferenceObjectByHandle(handle, more, null_mut(), UserMode, &mut object, null_mut()));
                assert_eq!(status, if more == 0 { STATUS_SUCCESS } else { STATUS_ACCESS_DENIED });
                if more == 0 {
                    raw!(ObfDereferenceObject(object));
                }
                close(handle);
                facts.GrantedAccess
            };
            assert_eq!(granted(EVENT_MODIFY_STATE), EVENT_MODIFY_STATE);
            assert_eq!(granted(GENERIC_READ), READ_CONTROL | EVENT_QUERY_STATE);
            assert_eq!(granted(GENERIC_WRITE), READ_CONTROL | EVENT_MODIFY_STATE);
            assert_eq!(granted(GENERIC_EXECUTE), READ_CONTROL | SYNCHRONIZE);
            assert_eq!(granted(GENERIC_ALL), EVENT_ALL_ACCESS);
            assert_eq!(granted(MAXIMUM_ALLOWED), EVENT_ALL_ACCESS);
        });
    });
}

#[test]
fn rule_65_services_act_for_the_previous_mode() {
    run(|| {
        let process = ksim::create_process();
        ksim::in_process(process, || {
            let mut handle = null_mut();
            assert_eq!(raw!(ZwCreateEvent(&mut handle, SYNCHRONIZE, null(), NotificationEvent, FALSE)), STATUS_SUCCESS);
            ksim::system_call(|| {
                assert_eq!(raw!(ExGetPreviousMode()), UserMode);
                assert_eq!(raw!(NtSetEvent(handle, null_mut())), STATUS_ACCESS_DENIED);
                let now = 0;
                assert_eq!(raw!(NtWaitForSingleObject(handle, FALSE, &now)), STATUS_TIMEOUT);
                assert_eq!(raw!(NtClose(handle)), STATUS_SUCCESS);
                assert_eq!(raw!(NtClose(handle)), STATUS_INVALID_HANDLE);
            });
            assert_eq!(raw!(ExGetPreviousMode()), KernelMode);
        });
        // A user cannot close the kernel's handles.
        let kernel = create_event(OBJ_KERNEL_HANDLE, NotificationEvent, false);
        ksim::system_call(|| assert_eq!(raw!(NtClose(kernel)), STATUS_INVALID_HANDLE));
        close(kernel);
    });
}

#[test]
fn rule_65_handles_are_duplicated() {
    explore(|| {
        let (this, user) = (NtCurrentProcess(), ksim::create_process());
        let mut target = null_mut();
        let id = CLIENT_ID { UniqueProcess: user as HANDLE, UniqueThread: null_mut() };
        let kernel = attributes(OBJ_KERNEL_HANDLE);
        assert_eq!(raw!(ZwOpenProcess(&mut target, PROCESS_DUP_HANDLE, &kernel, &id)), STATUS_SUCCESS);
        let handle = create_event(OBJ_KERNEL_HANDLE, NotificationEvent, false);
        let mut copy = null_mut();
        // Into the user's table, with fewer rights, and back from there.
        let status = raw!(ZwDuplicateObject(this, handle, target, &mut copy, SYNCHRONIZE, 0, 0));
        assert_eq!(status, STATUS_SUCCESS);
        ksim::in_process(user, || {
            ksim::system_call(|| assert_eq!(raw!(NtSetEvent(copy, null_mut())), STATUS_ACCESS_DENIED));
        });
        let mut back = null_mut();
        let options = DUPLICATE_SAME_ACCESS | DUPLICATE_CLOSE_SOURCE;
        let status = raw!(ZwDuplicateObject(target, copy, this, &mut back, 0, OBJ_KERNEL_HANDLE, options));
        assert_eq!(status, STATUS_SUCCESS);
        let status = raw!(ZwDuplicateObject(target, copy, this, &mut copy, 0, OBJ_KERNEL_HANDLE, options));
        assert_eq!(status, STATUS_INVALID_HANDLE, "the source was closed");
        let (first, second) = (object_of(handle, null_mut()), object_of(back, null_mut()));
        assert_eq!(first, second);
        for object in [first, second] {
            raw!(ObfDereferenceObject(object));
        }
        [handle, back, target].into_iter().for_each(close);
    });
}

#[test]
fn rule_65_what_an_object_tells() {
    run(|| {
        let handle = create_event(OBJ_KERNEL_HANDLE, NotificationEvent, false);
        let basics = Place::<PUBLIC_OBJECT_BASIC_INFORMATION>::zeroed();
        let mut needed = 0;
        let size = size_of::<PUBLIC_OBJECT_BASIC_INFORMATION>() as u32;
        let query =
            |length: u32, needed: &mut u32| raw!(ZwQueryObject(handle, ObjectBasicInformation, basics.object(), length, needed));
        assert_eq!(query(size - 1, &mut needed), STATUS_INFO_LENGTH_MISMATCH);
        assert_eq!((query(size, &mut needed), needed), (STATUS_SUCCESS, size));
        let facts = basics.read();
        assert_eq!((facts.HandleCount, facts.PointerCount, facts.GrantedAccess), (1, 1, EVENT_ALL_ACCESS));
        let types = [
            (handle, "Event"),
            (NtCurrentThread(), "Thread"),
            (NtCurrentProcess(), "Process"),
            (ksim::create_mutant(false).unwrap() as HANDLE, "Mutant"),
            (ksim::create_semaphore(1, 2).unwrap() as HANDLE, "Semaphore"),
        ];
        for (handle, name) in types {
            let place = Place::<[u64; 32]>::zeroed();
            let status = raw!(ZwQueryObject(handle, ObjectTypeInformation, place.object(), 256, &mut needed));
            assert_eq!(status, STATUS_SUCCESS);
            let found = raw!(place.ptr().cast::<PUBLIC_OBJECT_TYPE_INFORMATION>().read()).TypeName;
            let units = raw!(std::slice::from_raw_parts(found.Buffer, usize::from(found.Length / 2)));
            assert_eq!(String::from_utf16(units).unwrap(), name);
            let short = raw!(ZwQueryObject(handle, ObjectTypeInformation, place.object(), needed - 1, &mut needed));
            assert_eq!(short, STATUS_INFO_LENGTH_MISMATCH);
        }
        assert_eq!(raw!(ZwQueryObject(handle, 77, null_mut(), 0, null_mut())), STATUS_INVALID_INFO_CLASS);
        for (handle, _) in types.into_iter().filter(|(handle, _)| (handle.addr() as isize) > 0 || *handle == types[0].0) {
            close(handle);
        }
    });
}

#[test]
fn rule_65_threads_and_processes_by_id() {
    explore(|| {
        let thread = spawn(|| {
            sleep(SECOND);
        });
        let id = raw!(PsGetThreadId(thread.object().cast()));
        let (mut handle, kernel) = (null_mut(), attributes(OBJ_KERNEL_HANDLE));
        let open = |process: usize, thread: HANDLE, handle: &mut HANDLE| {
            let id = CLIENT_ID { UniqueProcess: process as HANDLE, UniqueThread: thread };
            raw!(ZwOpenThread(handle, THREAD_ALL_ACCESS, &kernel, &id))
        };
        assert_eq!(open(4, 0x9998 as HANDLE, &mut handle), STATUS_INVALID_CID);
        assert_eq!(open(0x9998, id, &mut handle), STATUS_INVALID_CID);
        assert_eq!(open(0, id, &mut handle), STATUS_SUCCESS);
        let basics = Place::<THREAD_BASIC_INFORMATION>::zeroed();
        let query = |basics: &Place<THREAD_BASIC_INFORMATION>| {
            let size = size_of::<THREAD_BASIC_INFORMATION>() as u32;
            let status = raw!(ZwQueryInformationThread(handle, ThreadBasicInformation, basics.object(), size, null_mut()));
            assert_eq!(status, STATUS_SUCCESS);
            basics.read()
        };
        let running = query(&basics);
        assert_eq!((running.ExitStatus, running.BasePriority, running.ClientId.UniqueThread), (STATUS_PENDING, 8, id));
        let priority: i32 = 12;
        let size = size_of::<i32>() as u32;
        let place = (&raw const priority).cast_mut().cast();
        assert_eq!(raw!(ZwSetInformationThread(handle, ThreadPriority, place, size)), STATUS_SUCCESS);
        assert_eq!(query(&basics).Priority, 12);
        assert_eq!(raw!(ZwSetInformationThread(handle, ThreadPriority, place, 1)), STATUS_INFO_LENGTH_MISMATCH);
        assert_eq!(raw!(ZwSetInformationThread(handle, 99, place, size)), STATUS_INVALID_INFO_CLASS);
        assert_eq!(wait_for_handle(handle, -10 * SECOND), STATUS_SUCCESS);
        assert_eq!(query(&basics).ExitStatus, 0);
        close(handle);
        thread.join();

        let id = CLIENT_ID { UniqueProcess: 4 as HANDLE, UniqueThread: null_mut() };
        assert_eq!(raw!(ZwOpenProcess(&mut handle, PROCESS_ALL_ACCESS, &kernel, &id)), STATUS_SUCCESS);
        let basics = Place::<PROCESS_BASIC_INFORMATION>::zeroed();
        let size = size_of::<PROCESS_BASIC_INFORMATION>() as u32;
        let status = raw!(ZwQueryInformationProcess(handle, ProcessBasicInformation, basics.object(), size, null_mut()));
        assert_eq!((status, basics.read().UniqueProcessId), (STATUS_SUCCESS, 4));
        close(handle);
        let id = CLIENT_ID { UniqueProcess: 0x9998 as HANDLE, UniqueThread: null_mut() };
        assert_eq!(raw!(ZwOpenProcess(&mut handle, 0, &kernel, &id)), STATUS_INVALID_PARAMETER);
        assert_eq!(raw!(ZwOpenProcess(&mut handle, 0, &kernel, null())), STATUS_INVALID_PARAMETER_MIX);
    });
}

#[test]
fn rule_65_threads_have_names() {
    run(|| {
        let mut units: Vec<u16> = "poller".encode_utf16().collect();
        let name = UNICODE_STRING { Length: 12, MaximumLength: 12, Buffer: units.as_mut_ptr() };
        let thread = NtCurrentThread();
        let size = size_of::<UNICODE_STRING>() as u32;
        let place = (&raw const name).cast_mut().cast();
        assert_eq!(raw!(ZwSetInformationThread(thread, ThreadNameInformation, place, size)), STATUS_SUCCESS);
        let found = Place::<[u64; 8]>::zeroed();
        let mut needed = 0;
        let mut query =
            |length| raw!(ZwQueryInformationThread(thread, ThreadNameInformation, found.object(), length, &mut needed));
        assert_eq!(query(16), STATUS_BUFFER_TOO_SMALL);
        assert_eq!(query(64), STATUS_SUCCESS);
        let found = raw!(found.ptr().cast::<UNICODE_STRING>().read());
        assert_eq!(raw!(std::slice::from_raw_parts(found.Buffer, usize::from(found.Length / 2))), units);
    });
    let old = Machine::new().profile(ksim::OsProfile::Windows8).run(|| {
        let name = UNICODE_STRING { Length: 0, MaximumLength: 0, Buffer: null_mut() };
        let place = (&raw const name).cast_mut().cast();
        let status = raw!(ZwSetInformationThread(NtCurrentThread(), ThreadNameInformation, place, 16));
        assert_eq!(status, STATUS_INVALID_INFO_CLASS);
    });
    old.expect_clean();
}

#[test]
fn rule_65_every_create_may_fail() {
    for failing in 1..=2 {
        let outcome = Machine::new().fail_allocation(failing).run(|| {
            let mut handle = null_mut();
            let event = raw!(ZwCreateEvent(&mut handle, 0, null(), NotificationEvent, FALSE));
            let expected = if failing == 1 { STATUS_INSUFFICIENT_RESOURCES } else { STATUS_SUCCESS };
            assert_eq!((event, handle.is_null()), (expected, failing == 1));
            if failing == 2 {
                close(handle);
            }
            let timer = raw!(ZwCreateTimer(&mut handle, 0, null(), NotificationTimer));
            let expected = if failing == 2 { STATUS_INSUFFICIENT_RESOURCES } else { STATUS_SUCCESS };
            assert_eq!(timer, expected);
            if failing == 1 {
                close(handle);
            }
        });
        outcome.expect_clean();
    }
    let outcome = Machine::new().fail_allocation(1).run(|| {
        let mut handle = null_mut();
        let (thread, kernel) = (current_thread(), OBJ_KERNEL_HANDLE);
        let mut open = || raw!(ObOpenObjectByPointer(thread, kernel, null_mut(), 0, null_mut(), KernelMode, &mut handle));
        assert_eq!(open(), STATUS_INSUFFICIENT_RESOURCES);
        assert_eq!(open(), STATUS_SUCCESS);
        close(handle);
    });
    outcome.expect_clean();
}

#[test]
fn rule_65_what_is_left_is_reported() {
    let outcome = Machine::new().run(|| {
        create_event(OBJ_KERNEL_HANDLE, NotificationEvent, false);
        let handle = create_event(OBJ_KERNEL_HANDLE, NotificationEvent, false);
        object_of(handle, null_mut());
        close(handle);
    });
    assert!(outcome.is_completed());
    assert_eq!((outcome.left().handles, outcome.left().references, outcome.left().pool.len()), (1, 1, 0));
}

#[test]
fn rule_12_mutants_semaphores_and_timers_of_a_user() {
    explore(|| {
        let process = ksim::create_process();
        ksim::in_process(process, || {
            let object = |handle: usize, object_type: *mut OBJECT_TYPE| {
                let mut object = null_mut();
                let handle = handle as HANDLE;
                let status = raw!(ObReferenceObjectByHandle(handle, SYNCHRONIZE, object_type, UserMode, &mut object, null_mut()));
                assert_eq!(status, STATUS_SUCCESS);
                object
            };
            let (mutant, semaphore) = (ksim::create_mutant(true).unwrap(), ksim::create_semaphore(1, 2).unwrap());
            let (taken, counted) = (object(mutant, null_mut()), object(semaphore, raw!(ExSemaphoreObjectType)));
            // Owned by this thread, and taken once more.
            assert_eq!(wait(taken), STATUS_SUCCESS);
            assert_eq!(ksim::release_mutant(mutant), Ok(-1));
            assert_eq!(ksim::release_mutant(mutant), Ok(0));
            assert_eq!(ksim::release_mutant(mutant), Err(STATUS_MUTANT_NOT_OWNED));
            // Nt mutants hold no APCs back, and are abandoned by their owner's end (rules 10 and 11).
            spawn(|| assert_eq!(wait(taken), STATUS_SUCCESS)).join();
            assert_eq!(wait(taken), STATUS_ABANDONED_WAIT_0);
            assert_eq!(raw!(KeReleaseMutex(taken.cast(), FALSE)), 0);

            assert_eq!(poll(counted), STATUS_SUCCESS);
            assert_eq!(poll(counted), STATUS_TIMEOUT);
            assert_eq!(ksim::release_semaphore(semaphore, 2), Ok(0));
            assert_eq!(ksim::release_semaphore(semaphore, 1), Err(STATUS_SEMAPHORE_LIMIT_EXCEEDED));
            assert_eq!(raw!(KeReadStateSemaphore(counted.cast())), 2);
            // An owned mutant may be deleted: it is abandoned.
            assert_eq!(wait(taken), STATUS_SUCCESS);
            for (handle, object) in [(mutant, taken), (semaphore, counted)] {
                raw!(ObfDereferenceObject(object));
                close(handle as HANDLE);
            }
        });
    });
}

#[test]
fn rule_12_timers_by_handle() {
    explore(|| {
        let (mut handle, kernel, mut state) = (null_mut(), attributes(OBJ_KERNEL_HANDLE), 9);
        assert_eq!(raw!(ZwCreateTimer(&mut handle, TIMER_ALL_ACCESS, &kernel, 7)), STATUS_INVALID_PARAMETER_4);
        assert_eq!(raw!(ZwCreateTimer(&mut handle, TIMER_ALL_ACCESS, &kernel, SynchronizationTimer)), STATUS_SUCCESS);
        let set = |due: i64, period: i32, state: &mut u8| raw!(ZwSetTimer(handle, &due, None, null_mut(), FALSE, period, state));
        assert_eq!(set(-SECOND, -1, &mut state), STATUS_INVALID_PARAMETER_6);
        assert_eq!((set(-SECOND, 0, &mut state), state), (STATUS_SUCCESS, FALSE));
        assert_eq!(wait_for_handle(handle, 0), STATUS_TIMEOUT);
        assert_eq!(wait_for_handle(handle, -10 * SECOND), STATUS_SUCCESS);
        assert_eq!(now(), SECOND);
        assert_eq!(set(-SECOND, 1000, &mut state), STATUS_SUCCESS);
        for second in 2..5 {
            assert_eq!(wait_for_handle(handle, -10 * SECOND), STATUS_SUCCESS);
            assert_eq!(now(), second * SECOND);
        }
        assert_eq!((raw!(ZwCancelTimer(handle, &mut state)), state), (STATUS_SUCCESS, FALSE));
        assert_eq!(wait_for_handle(handle, -10 * SECOND), STATUS_TIMEOUT);
        // Deleting one that is set cancels it.
        set(-SECOND, 1000, &mut state);
        close(handle);
    });
}

unsafe extern "system-unwind" fn timer_apc(context: PVOID, low: ULONG, high: LONG) {
    assert_eq!(irql(), PASSIVE_LEVEL);
    let time = i64::from(high) << 32 | i64::from(low);
    // SAFETY: the context is the test's cell.
    unsafe { &*context.cast_const().cast::<Cell<(u32, i64)>>() }.set((1, time));
}

#[test]
fn rule_25_timers_tell_the_thread_that_set_them() {
    explore(|| {
        let ran = Cell::new((0, 0));
        let (mut handle, kernel) = (null_mut(), attributes(OBJ_KERNEL_HANDLE));
        assert_eq!(raw!(ZwCreateTimer(&mut handle, TIMER_ALL_ACCESS, &kernel, NotificationTimer)), STATUS_SUCCESS);
        let context = (&raw const ran).cast_mut().cast();
        let due = -SECOND;
        let set = || assert_eq!(raw!(ZwSetTimer(handle, &due, Some(timer_apc), context, FALSE, 0, null_mut())), STATUS_SUCCESS);
        set();
        sleep(2 * SECOND);
        assert_eq!(ran.get().0, 0, "a critical region holds it back");
        let expired = system_time() - SECOND;
        leave_start_region();
        assert_eq!(ran.take(), (1, expired));
        // A cancelled one tells nobody, and neither does that of a thread that has ended.
        set();
        assert_eq!(raw!(ZwCancelTimer(handle, null_mut())), STATUS_SUCCESS);
        sleep(2 * SECOND);
        enter_start_region();
        spawn(set).join();
        sleep(2 * SECOND);
        assert_eq!(ran.get().0, 0);
        assert_eq!(wait_for_handle(handle, 0), STATUS_TIMEOUT, "it was cancelled by its thread's end");
        close(handle);
    });
}

#[test]
fn rule_54_timers_by_handle_may_be_late() {
    let late = RefCell::new(std::collections::BTreeSet::new());
    explore(|| {
        let ran = Cell::new((0_u32, 0_i64));
        let (mut handle, kernel, mut state) = (null_mut(), attributes(OBJ_KERNEL_HANDLE), 9);
        assert_eq!(raw!(ZwCreateTimer(&mut handle, TIMER_ALL_ACCESS, &kernel, NotificationTimer)), STATUS_SUCCESS);
        let information = TIMER_SET_COALESCABLE_TIMER_INFO {
            DueTime: -SECOND,
            TimerApcRoutine: Some(timer_apc),
            TimerContext: (&raw const ran).cast_mut().cast(),
            WakeContext: null_mut(),
            Period: 0,
            TolerableDelay: 500,
            PreviousState: &mut state,
        };
        let set_as = |class: i32, mut information: TIMER_SET_COALESCABLE_TIMER_INFO, length: u32| {
            raw!(ZwSetTimerEx(handle, class, (&raw mut information).cast(), length))
        };
        let set = |information| set_as(TimerSetCoalescableTimer, information, 48);
        assert_eq!(set_as(1, information, 48), STATUS_INVALID_INFO_CLASS);
        assert_eq!(set_as(TimerSetCoalescableTimer, information, 40), STATUS_INFO_LENGTH_MISMATCH);
        let period = TIMER_SET_COALESCABLE_TIMER_INFO { Period: u32::MAX, ..information };
        assert_eq!(set(period), STATUS_INVALID_PARAMETER);
        let delay = TIMER_SET_COALESCABLE_TIMER_INFO { TolerableDelay: 1 << 31, ..information };
        assert_eq!(set(delay), STATUS_INVALID_PARAMETER);
        let event = create_event(OBJ_KERNEL_HANDLE, SynchronizationEvent, false);
        let status = raw!(ZwSetTimerEx(event, 0, (&raw const information).cast_mut().cast(), 48));
        assert_eq!(status, STATUS_OBJECT_TYPE_MISMATCH);
        close(event);
        assert_eq!(state, 9, "what fails changes nothing");
        let start = now();
        leave_start_region();
        assert_eq!((set(information), state), (STATUS_SUCCESS, FALSE));
        assert_eq!(wait_for_handle(handle, -10 * SECOND), STATUS_SUCCESS);
        let passed = now() - start;
        assert!((SECOND..=SECOND + 500 * MS).contains(&passed), "{passed}");
        late.borrow_mut().insert(passed - SECOND);
        sleep(MS);
        assert_eq!(ran.get().0, 1);
        // Signaled now, which the next setting says and ends.
        let again = TIMER_SET_COALESCABLE_TIMER_INFO {
            TimerApcRoutine: None,
            TolerableDelay: 0,
            Period: 1000,
            WakeContext: 8 as *mut COUNTED_REASON_CONTEXT,
            ..information
        };
        assert_eq!((set(again), state), (STATUS_TIMER_RESUME_IGNORED, TRUE));
        assert_eq!(wait_for_handle(handle, 0), STATUS_TIMEOUT);
        let start = now();
        assert_eq!(wait_for_handle(handle, -10 * SECOND), STATUS_SUCCESS);
        assert_eq!(now() - start, SECOND);
        enter_start_region();
        close(handle);
    });
    assert!(late.borrow().len() > 1, "the delay is the schedule's choice: {late:?}");
}

#[test]
fn rule_13_waits_for_many_handles() {
    explore(|| {
        let handles: Vec<HANDLE> =
            (0..5).map(|index| create_event(OBJ_KERNEL_HANDLE, SynchronizationEvent, index == 3)).collect();
        let wait = |wait_type, timeout: i64| {
            raw!(ZwWaitForMultipleObjects(handles.len() as u32, handles.as_ptr(), wait_type, FALSE, &timeout))
        };
        assert_eq!(wait(WaitAny, -SECOND), 3);
        assert_eq!(wait(WaitAny, -SECOND), STATUS_TIMEOUT);
        let waiter = spawn(|| assert_eq!(wait(WaitAll, -10 * SECOND), STATUS_SUCCESS));
        settle();
        for &handle in &handles {
            assert_eq!(raw!(ZwSetEvent(handle, null_mut())), STATUS_SUCCESS);
        }
        waiter.join();
        assert_eq!(wait(WaitAny, 0), STATUS_TIMEOUT, "a wait for all took them all");
        let count = |count| raw!(ZwWaitForMultipleObjects(count, handles.as_ptr(), WaitAny, FALSE, null()));
        assert_eq!((count(0), count(65)), (STATUS_INVALID_PARAMETER_1, STATUS_INVALID_PARAMETER_1));
        let kind = raw!(ZwWaitForMultipleObjects(1, handles.as_ptr(), 9, FALSE, null()));
        assert_eq!(kind, STATUS_INVALID_PARAMETER_3);
        handles.into_iter().for_each(close);
    });
}
