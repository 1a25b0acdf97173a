//! Pool: rules 63 and 64.

use ksim::Machine;
use ksync_sys::*;
use std::ptr::null_mut;
use test_support::*;

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
        .expect_bug_check(0x7e);
    assert_eq!(raised.parameters[0], STATUS_INSUFFICIENT_RESOURCES as u32 as u64);
    let raised = machine
        .run(|| {
            raw!(ExAllocatePoolWithTag(NonPagedPoolNx | POOL_RAISE_IF_ALLOCATION_FAILURE, 2000, TAG));
        })
        .expect_bug_check(0x7e);
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
        // With special pool: `tests/special_pool.rs`.
        let outcome = Machine::new().special_pool(false).run(|| {
            let memory = allocate(size);
            raw!(memory.cast::<u8>().add(size + offset).write(7));
            free(memory);
        });
        let stop = outcome.expect_bug_check(0xc4);
        assert_eq!(stop.parameters[0], 0x51);
        assert_eq!(stop.parameters[2] - stop.parameters[1], (size + offset) as u64);
    }
}

#[test]
fn rule_60_kernel_objects_do_not_lie_in_paged_pool() {
    // A dispatcher object is touched at DISPATCH_LEVEL, whoever calls.
    let stop = crash(0xd1, || {
        let memory = raw!(ExAllocatePool2(POOL_FLAG_PAGED, size_of::<KEVENT>(), TAG)).cast::<KEVENT>();
        raw!(KeInitializeEvent(memory, NotificationEvent, FALSE));
    });
    assert_eq!(stop.name, "DRIVER_IRQL_NOT_LESS_OR_EQUAL");
    run(|| {
        let memory = raw!(ExAllocatePool2(POOL_FLAG_NON_PAGED, size_of::<KEVENT>(), TAG)).cast::<KEVENT>();
        raw!(KeInitializeEvent(memory, NotificationEvent, FALSE));
        free(memory.cast());
    });
}
