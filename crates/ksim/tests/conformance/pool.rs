//! Pool and objects: rules 63 to 65.

use crate::common::*;
use ksim::Machine;
use ksync_sys::*;
use std::ptr::{null, null_mut};

#[test]
fn rule_63_allocations_are_aligned_and_zeroed_as_asked() {
    run(|| {
        for bytes in [1, 8, 15, 16, 17, 100, 4095, 4096, 10_000] {
            let memory = allocate(bytes).cast::<u8>();
            assert!(!memory.is_null());
            assert_eq!(memory.addr() % if bytes >= 4096 { 4096 } else { 16 }, 0);
            assert!((0..bytes).all(|index| raw!(memory.add(index).read()) == 0));
            free(memory.cast());
        }
        let memory = raw!(ExAllocatePoolWithTag(NonPagedPoolNx, 64, TAG));
        assert_ne!(raw!(memory.cast::<u8>().read()), 0, "uninitialised pool is filled with a pattern");
        raw!(ExFreePool(memory));
        let memory = raw!(ExAllocatePool2(POOL_FLAG_PAGED | POOL_FLAG_UNINITIALIZED, 64, TAG));
        raw!(ExFreePoolWithTag(memory, 0));
    });
}

#[test]
fn rule_63_sub_codes() {
    let allocate = |size: usize, tag: &[u8; 4]| {
        let tag = u32::from_le_bytes(*tag);
        crash(0xc2, || {
            raw!(ExAllocatePoolWithTag(NonPagedPoolNx, size, tag));
        })
        .parameters
    };
    assert_eq!(allocate(0, b"Test")[0], 0x00);
    assert_eq!(allocate(8, b"\0\0\0\0"), [0x9b, 0, 8, 0]);
    assert_eq!(allocate(8, b"BIG\0")[0], 0x9c);
    assert_eq!(allocate(8, b"BIG ")[0], 0x9c);
    assert_eq!(allocate(8, b"!?-+")[0], 0x9d);
    let twice = crash(0xc2, || {
        let memory = allocate_one();
        free(memory);
        free(memory);
    });
    assert_eq!((twice.parameters[0], twice.parameters[2]), (0x7, u64::from(TAG)));
    let tag = crash(0xc2, || raw!(ExFreePoolWithTag(allocate_one(), 0x3131_3131)));
    assert_eq!((tag.parameters[0], tag.parameters[2], tag.parameters[3]), (0xa, u64::from(TAG), 0x3131_3131));
    let bad = crash(0xc2, || free(allocate_one().wrapping_byte_add(8)));
    assert_eq!(bad.parameters[0], 0x46);
    for (paged, irql) in [(true, DISPATCH_LEVEL), (false, 3)] {
        let pool = if paged { POOL_FLAG_PAGED } else { POOL_FLAG_NON_PAGED };
        let stop = crash(0xc2, || {
            raise(irql);
            raw!(ExAllocatePool2(pool, 32, TAG));
        });
        assert_eq!(stop.parameters, [0x8, u64::from(irql), u64::from(paged), 32]);
        let stop = crash(0xc2, || {
            let memory = raw!(ExAllocatePool2(pool, 32, TAG));
            raise(irql);
            raw!(ExFreePoolWithTag(memory, TAG));
        });
        assert_eq!(stop.parameters[..3], [0x9, u64::from(irql), u64::from(paged)]);
    }
}

fn allocate_one() -> PVOID {
    allocate(40)
}

#[test]
fn rule_63_failure_raises_only_on_request() {
    let machine = Machine::new().pool_limit(1000);
    machine
        .run(|| {
            assert!(allocate(2000).is_null());
            assert!(allocate(usize::MAX / 2).is_null());
            free(allocate(1000));
        })
        .expect_clean();
    let raised = machine
        .run(|| {
            raw!(ExAllocatePool2(POOL_FLAG_NON_PAGED | POOL_FLAG_RAISE_ON_FAILURE, 2000, TAG));
        })
        .expect_bug_check(0x1e);
    assert_eq!(raised.parameters[0], STATUS_INSUFFICIENT_RESOURCES as u32 as u64);
    let raised = machine
        .run(|| {
            raw!(ExAllocatePoolWithTag(NonPagedPoolNx | POOL_RAISE_IF_ALLOCATION_FAILURE, 2000, TAG));
        })
        .expect_bug_check(0x1e);
    assert_eq!(raised.parameters[0], STATUS_INSUFFICIENT_RESOURCES as u32 as u64);
}

#[test]
fn rule_64_freed_memory_must_not_hold_active_objects() {
    let timer = crash(0xc4, || {
        let memory = allocate(64);
        raw!(KeInitializeTimer(memory.cast()));
        raw!(KeSetTimer(memory.cast(), -SECOND, null_mut()));
        free(memory);
    });
    assert_eq!(timer.parameters[0], 0x15);
    let lock = crash(0xc4, || {
        let memory = allocate(64);
        raw!(KeAcquireSpinLockRaiseToDpc(memory.cast()));
        free(memory);
    });
    assert_eq!(lock.parameters[0], 0x100b);
    run(|| {
        let memory = allocate(64);
        raw!(KeInitializeTimer(memory.cast()));
        raw!(KeSetTimer(memory.cast(), -SECOND, null_mut()));
        raw!(KeCancelTimer(memory.cast()));
        free(memory);
    });
}

#[test]
fn rule_64_memory_behind_a_block_must_not_be_written() {
    for (size, offset) in [(1, 0), (24, 0), (24, 7), (4096, 0), (4096, 15)] {
        let stop = crash(0xc4, || {
            let memory = allocate(size);
            raw!(memory.cast::<u8>().add(size + offset).write(7));
            free(memory);
        });
        assert_eq!(stop.parameters[0], 0x51);
        assert_eq!(stop.parameters[2] - stop.parameters[1], (size + offset) as u64);
    }
}

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
