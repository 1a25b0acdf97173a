//! Pool.

use crate::{expected, misuse};
use ksync_sys::*;
use std::ptr::null_mut;
use test_support::*;

#[test]
fn armed_timer_freed() {
    let expected = expected!(armed_timer_freed, 0xc4, [Some(0x15)], "ExFreePoolWithTag", 0);
    let stop = misuse(&expected, || {
        let memory = allocate(128);
        let timer = memory.wrapping_byte_add(32).cast::<KTIMER>();
        raw!(KeInitializeTimer(timer));
        raw!(KeSetTimer(timer, -SECOND, null_mut()));
        raw!(ExFreePoolWithTag(memory, TAG));
    });
    assert_eq!(stop.parameters[1] - stop.parameters[2], 32);
    assert_eq!(stop.parameters[3], 128);
}

#[test]
fn queued_dpc_freed() {
    let expected = expected!(queued_dpc_freed, 0xc7, [Some(1)], "ExFreePoolWithTag", 2);
    let stop = misuse(&expected, || {
        let memory = allocate(64);
        raw!(KeInitializeDpc(memory.cast(), None, null_mut()));
        raise(DISPATCH_LEVEL);
        raw!(KeInsertQueueDpc(memory.cast(), null_mut(), null_mut()));
        raw!(ExFreePoolWithTag(memory, TAG));
    });
    assert_eq!(stop.parameters[3] - stop.parameters[2], 64);
}

#[test]
fn held_locks_freed() {
    let expected = |irql| expected!(held_locks_freed, 0xc4, [Some(0x100b)], "ExFreePoolWithTag", irql);
    misuse(&expected(2), || {
        let memory = allocate(64);
        raw!(KeAcquireSpinLockRaiseToDpc(memory.cast()));
        raw!(ExFreePoolWithTag(memory, TAG));
    });
    misuse(&expected(1), || {
        let memory = allocate(64);
        raw!(ExInitializeFastMutex(memory.cast()));
        raw!(ExAcquireFastMutex(memory.cast()));
        raw!(ExFreePoolWithTag(memory, TAG));
    });
    misuse(&expected(0), || {
        let memory = allocate(64);
        raw!(KeInitializeMutex(memory.cast(), 0));
        wait(memory);
        raw!(ExFreePoolWithTag(memory, TAG));
    });
}

#[test]
fn event_freed_while_a_thread_waits() {
    let expected = expected!(event_freed_while_a_thread_waits, 0xc4, [Some(0x100b)], "ExFreePoolWithTag", 0);
    misuse(&expected, || {
        let memory = allocate(64);
        raw!(KeInitializeEvent(memory.cast(), NotificationEvent, FALSE));
        let thread = spawn(|| {
            wait(memory);
        });
        settle();
        raw!(ExFreePoolWithTag(memory, TAG));
        thread.join();
    });
}

#[test]
fn freed_twice() {
    let expected = expected!(freed_twice, 0xc2, [Some(0x7), Some(0), Some(TAG.into())], "ExFreePool", 0);
    misuse(&expected, || {
        let memory = allocate(64);
        free(memory);
        raw!(ExFreePool(memory));
    });
}

#[test]
fn freed_with_another_tag() {
    let other = u32::from_le_bytes(*b"Oops");
    let expected =
        expected!(freed_with_another_tag, 0xc2, [Some(0xa), None, Some(TAG.into()), Some(other.into())], "ExFreePoolWithTag", 0);
    let stop = misuse(&expected, || raw!(ExFreePoolWithTag(allocate(64), other)));
    assert!(stop.meaning.contains("'Test'") && stop.meaning.contains("'Oops'"));
}

#[test]
fn bad_requests() {
    let cases: [(usize, &[u8; 4], u64); 5] =
        [(0, b"Test", 0x0), (8, b"\0\0\0\0", 0x9b), (8, b"BIG\0", 0x9c), (8, b"    ", 0x9d), (8, b"\xff~~!", 0x9d)];
    for (size, tag, sub_code) in cases {
        let tag = u32::from_le_bytes(*tag);
        let expected = expected!(
            bad_requests,
            0xc2,
            [Some(sub_code), Some(0), Some(size as u64), Some(tag.into())],
            "ExAllocatePoolWithTag",
            0
        );
        misuse(&expected, || {
            raw!(ExAllocatePoolWithTag(NonPagedPoolNx, size, tag));
        });
        let expected = expected!(bad_requests, 0xc2, [Some(sub_code)], "ExAllocatePool2", 0);
        misuse(&expected, || {
            raw!(ExAllocatePool2(POOL_FLAG_NON_PAGED, size, tag));
        });
    }
}

#[test]
fn bad_addresses_freed() {
    let expected = expected!(bad_addresses_freed, 0xc2, [Some(0x46)], "ExFreePoolWithTag", 0);
    misuse(&expected, || raw!(ExFreePoolWithTag(allocate(64).wrapping_byte_add(16), TAG)));
    misuse(&expected, || raw!(ExFreePoolWithTag(null_mut(), TAG)));
    misuse(&expected, || {
        let on_the_stack = 0_u64;
        raw!(ExFreePoolWithTag((&raw const on_the_stack).cast_mut().cast(), TAG));
    });
}

#[test]
fn written_past_the_end() {
    let expected = expected!(written_past_the_end, 0xc4, [Some(0x51), None, None, Some(24)], "ExFreePoolWithTag", 0);
    let stop = misuse(&expected, || {
        let memory = allocate(24);
        raw!(memory.cast::<u8>().add(26).write(0));
        raw!(ExFreePoolWithTag(memory, TAG));
    });
    assert_eq!(stop.parameters[2] - stop.parameters[1], 26);
}

#[test]
fn allocated_at_too_high_a_level() {
    let expected = expected!(allocated_at_too_high_a_level, 0xc2, [Some(0x8), Some(3), Some(0), Some(16)], "ExAllocatePool2", 3);
    misuse(&expected, || {
        raise(3);
        raw!(ExAllocatePool2(POOL_FLAG_NON_PAGED, 16, TAG));
    });
    let expected =
        expected!(allocated_at_too_high_a_level, 0xc2, [Some(0x8), Some(2), Some(1), Some(16)], "ExAllocatePoolWithTag", 2);
    misuse(&expected, || {
        raise(DISPATCH_LEVEL);
        raw!(ExAllocatePoolWithTag(PagedPool, 16, TAG));
    });
}

#[test]
fn freed_at_too_high_a_level() {
    let expected = expected!(freed_at_too_high_a_level, 0xc2, [Some(0x9), Some(3), Some(0)], "ExFreePool", 3);
    misuse(&expected, || {
        let memory = allocate(16);
        raise(3);
        raw!(ExFreePool(memory));
    });
}
