//! Pool. What special pool sees is in `tests/special_pool.rs`.

use crate::{expected, misuse, misuse_on};
use ksim::{Machine, RuleId};
use ksync_sys::*;
use std::ptr::null_mut;
use test_support::*;

/// A machine without special pool.
fn ordinary() -> Machine {
    Machine::new().special_pool(false)
}

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
    let stop = misuse_on(&ordinary(), &expected, || {
        let memory = allocate(24);
        raw!(memory.cast::<u8>().add(26).write(0));
        raw!(ExFreePoolWithTag(memory, TAG));
    });
    assert_eq!(stop.parameters[2] - stop.parameters[1], 26);
}

#[test]
fn written_outside() {
    let places = [
        (64_isize, "byte 64 of a block of 64 bytes with tag 'Test' was written, right behind its end"),
        (72, "byte 72 of a block of 64 bytes with tag 'Test' was written, 8 bytes behind its end"),
        (80, "16 bytes behind its end"),
        (96, "32 bytes behind its end"),
        (104, "40 bytes behind its end"),
        (191, "127 bytes behind its end"),
        (-1, "byte -1 of a block of 64 bytes with tag 'Test' was written, right in front of it"),
        (-16, "16 bytes in front of it"),
        (-64, "64 bytes in front of it"),
    ];
    for (offset, words) in places {
        for frees in [true, false] {
            let outcome = ordinary().record_sites(true).run(|| {
                let memory = allocate(64);
                raw!(memory.cast::<u8>().offset(offset).write_volatile(1));
                if frees {
                    free(memory);
                }
            });
            let report = outcome.report().to_string();
            let stop = outcome.expect_bug_check(0xc4);
            assert_eq!((stop.parameters[0], stop.parameters[3]), (0x51, 64), "{report}");
            assert_eq!(stop.parameters[2].wrapping_sub(stop.parameters[1]) as isize, offset, "{report}");
            assert!(stop.meaning.ends_with(words), "{report}");
            assert!(report.contains("the block of 64 bytes with tag 'Test' was allocated"), "{report}");
        }
    }
}

#[test]
fn large_blocks_begin_a_page_and_are_guarded() {
    for offset in [-4096_isize, -1, 4096, 4096 + 127] {
        let outcome = ordinary().run(|| {
            let memory = allocate(4096);
            assert_eq!(memory.addr() % 4096, 0);
            raw!(memory.cast::<u8>().offset(offset).write_volatile(1));
            free(memory);
        });
        assert_eq!(outcome.expect_bug_check(0xc4).parameters[0], 0x51);
    }
    ordinary()
        .run(|| {
            for size in [1, 15, 16, 100, 4095, 4096, 10_000] {
                let memory = allocate(size);
                assert_eq!(memory.addr() % 16, 0);
                raw!(memory.cast::<u8>().write_bytes(1, size));
                free(memory);
            }
        })
        .expect_clean();
}

#[test]
fn written_outside_after_it_was_freed() {
    for offset in [-1_isize, 64] {
        let outcome = ordinary().run(|| {
            let memory = allocate(64);
            free(memory);
            raw!(memory.cast::<u8>().offset(offset).write_volatile(1));
        });
        let stop = outcome.expect_bug_check(0xc6);
        assert_eq!(stop.parameters[0].wrapping_sub(stop.parameters[1]) as isize, offset);
    }
    // What the rule lets pass while the block is allocated is not said of it when it is freed.
    let outcome = Machine::new().check_rule(RuleId::PoolOverrun, false).run(|| {
        let memory = allocate(64);
        raw!(memory.cast::<u8>().add(64).write_volatile(1));
        free(memory);
    });
    outcome.expect_clean();
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
