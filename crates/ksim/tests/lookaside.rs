//! Lookaside lists and the interlocked lists that they are made of, through raw calls: what they do (rule 64), and what they must not be done to.

use ksim::{BugCheck, Machine};
use ksync_sys::*;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use test_support::*;

type List = Place<LOOKASIDE_LIST_EX>;
type Classic = Place<NPAGED_LOOKASIDE_LIST>;
type ClassicPaged = Place<PAGED_LOOKASIDE_LIST>;

/// An interlocked list's head, or entry, aligned as both must be.
#[repr(C, align(16))]
struct Aligned<T>(T);

fn init(list: *mut LOOKASIDE_LIST_EX, pool: POOL_TYPE, size: usize) {
    assert_eq!(raw!(ExInitializeLookasideListEx(list, None, None, pool, 0, size, TAG, 0)), STATUS_SUCCESS);
}

fn list_of(pool: POOL_TYPE, size: usize) -> List {
    let list = List::zeroed();
    init(list.ptr(), pool, size);
    list
}

fn delete(list: &List) {
    raw!(ExDeleteLookasideListEx(list.ptr()));
}

/// The bug check 0xC4 that wrong code ends in.
#[track_caller]
fn verifier(sub_code: u64, wrong: impl Fn()) -> BugCheck {
    let stop = crash(0xc4, wrong);
    assert_eq!(stop.parameters[0], sub_code, "{stop}");
    stop
}

#[test]
fn rule_64_the_older_lists_have_the_pool_that_their_flags_say() {
    let outcome = Machine::new().run(|| {
        // POOL_NX_ALLOCATION is the bit of NonPagedPoolNx.
        for flags in [0, NonPagedPoolNx as ULONG] {
            let (list, paged) = (Classic::zeroed(), ClassicPaged::zeroed());
            raw!(ExInitializeNPagedLookasideList(list.ptr(), None, None, flags, 64, TAG, 0));
            raw!(ExInitializePagedLookasideList(paged.ptr(), None, None, flags, 64, TAG, 0));
            assert_eq!(raw!((*list.ptr()).L.P.Type), NonPagedPool | flags as POOL_TYPE);
            assert_eq!(raw!((*paged.ptr()).L.P.Type), PagedPool | flags as POOL_TYPE);
            raw!(ExDeleteNPagedLookasideList(list.ptr()));
            raw!(ExDeletePagedLookasideList(paged.ptr()));
        }
    });
    outcome.expect_clean();
}

#[test]
fn rule_64_entries_are_kept_up_to_the_depth() {
    let outcome = Machine::new().run(|| {
        let list = list_of(NonPagedPoolNx, 40);
        let entries = [(); 6].map(|()| raw!(ExAllocateFromLookasideListEx(list.ptr())));
        assert!(entries.iter().all(|entry| entry.addr().is_multiple_of(16) && !entry.is_null()));
        for entry in entries {
            raw!(ExFreeToLookasideListEx(list.ptr(), entry));
        }
        let figures = list.read().L;
        assert_eq!((figures.Depth, figures.Size, figures.Tag, figures.Type), (4, 40, TAG, NonPagedPoolNx));
        assert_eq!((figures.TotalAllocates, figures.AllocateMisses), (6, 6));
        assert_eq!((figures.TotalFrees, figures.FreeMisses), (6, 2));
        // The last that was kept comes first.
        assert_eq!(raw!(ExAllocateFromLookasideListEx(list.ptr())), entries[3]);
        raw!(ExFreeToLookasideListEx(list.ptr(), entries[3]));
        raw!(ExFlushLookasideListEx(list.ptr()));
        assert_eq!(raw!(ExQueryDepthSList(list.ptr().cast())), 0);
        delete(&list);
        // What was deleted can be initialised again.
        init(list.ptr(), PagedPool, 1);
        assert_eq!(list.read().L.Size, 8);
        delete(&list);
    });
    assert_eq!(outcome.expect_clean().statistics().allocations, 6);
}

#[test]
fn rule_64_classic_lists() {
    run(|| {
        let list = Classic::zeroed();
        raw!(ExInitializeNPagedLookasideList(list.ptr(), None, None, 0, 64, TAG, 0));
        let entry = raw!(ExAllocateFromNPagedLookasideList(list.ptr()));
        raw!(ExFreeToNPagedLookasideList(list.ptr(), entry));
        assert_eq!(raw!(ExAllocateFromNPagedLookasideList(list.ptr())), entry);
        raw!(ExFreeToNPagedLookasideList(list.ptr(), entry));
        raw!(ExDeleteNPagedLookasideList(list.ptr()));

        let list = ClassicPaged::zeroed();
        raw!(ExInitializePagedLookasideList(list.ptr(), None, None, 0, 64, TAG, 0));
        let entry = raw!(ExAllocateFromPagedLookasideList(list.ptr()));
        raw!(ExFreeToPagedLookasideList(list.ptr(), entry));
        raw!(ExDeletePagedLookasideList(list.ptr()));
    });
}

#[test]
fn rule_64_bad_arguments_are_refused() {
    run(|| {
        let list = List::zeroed();
        let init = |pool, flags| raw!(ExInitializeLookasideListEx(list.ptr(), None, None, pool, flags, 8, TAG, 0));
        assert_eq!(init(-1, 0), STATUS_INVALID_PARAMETER_4);
        assert_eq!(init(0x400, 0), STATUS_INVALID_PARAMETER_4);
        assert_eq!(init(NonPagedPoolNx, 4), STATUS_INVALID_PARAMETER_5);
        assert_eq!(init(NonPagedPoolNx, 3), STATUS_INVALID_PARAMETER_5);
        assert_eq!(init(NonPagedPoolNx, EX_LOOKASIDE_LIST_EX_FLAGS_FAIL_NO_RAISE), STATUS_SUCCESS);
        delete(&list);
    });
}

#[test]
fn rule_64_an_empty_pool_gives_null_or_raises() {
    let allocate = |flags| {
        let list = List::zeroed();
        raw!(ExInitializeLookasideListEx(list.ptr(), None, None, NonPagedPoolNx, flags, 8, TAG, 0));
        assert_eq!(raw!(ExAllocateFromLookasideListEx(list.ptr())), null_mut());
        delete(&list);
    };
    Machine::new().fail_allocation(1).run(|| allocate(0)).expect_clean();
    let raising = Machine::new().fail_allocation(1).run(|| allocate(EX_LOOKASIDE_LIST_EX_FLAGS_RAISE_ON_FAIL));
    assert_eq!(raising.expect_bug_check(0x7e).parameters[0], u64::from(STATUS_INSUFFICIENT_RESOURCES as u32));
}

#[test]
fn rule_64_initialised_again() {
    verifier(0xca, || {
        let list = list_of(NonPagedPoolNx, 8);
        init(list.ptr(), NonPagedPoolNx, 8);
    });
    verifier(0xca, || {
        let list = Classic::zeroed();
        raw!(ExInitializeNPagedLookasideList(list.ptr(), None, None, 0, 8, TAG, 0));
        raw!(ExInitializeNPagedLookasideList(list.ptr(), None, None, 0, 8, TAG, 0));
    });
}

#[test]
fn rule_64_deleted_or_flushed_without_being_initialised() {
    verifier(0xcb, || delete(&List::zeroed()));
    verifier(0xcb, || raw!(ExFlushLookasideListEx(List::zeroed().ptr())));
    verifier(0xcb, || raw!(ExDeleteNPagedLookasideList(Classic::zeroed().ptr())));
    verifier(0xcb, || raw!(ExDeletePagedLookasideList(ClassicPaged::zeroed().ptr())));
    // Twice.
    verifier(0xcb, || {
        let list = list_of(PagedPool, 8);
        delete(&list);
        delete(&list);
    });
    // A list that moved is not where it was.
    verifier(0xcb, || {
        let list = list_of(NonPagedPoolNx, 8);
        let moved = List::zeroed();
        raw!(moved.ptr().copy_from_nonoverlapping(list.ptr(), 1));
        delete(&moved);
    });
}

#[test]
fn rule_64_not_aligned() {
    verifier(0xcb, || {
        let memory = allocate(200);
        init(memory.wrapping_byte_add(8).cast(), NonPagedPoolNx, 8);
    });
}

#[test]
fn rule_64_freed_while_active() {
    let stop = verifier(0xcc, || {
        let memory = allocate(size_of::<LOOKASIDE_LIST_EX>());
        init(memory.cast(), NonPagedPoolNx, 8);
        free(memory);
    });
    assert!(stop.meaning.contains("lookaside"), "{stop}");
    run(|| {
        let memory = allocate(size_of::<LOOKASIDE_LIST_EX>());
        init(memory.cast(), NonPagedPoolNx, 8);
        raw!(ExDeleteLookasideListEx(memory.cast()));
        free(memory);
    });
}

#[test]
fn rule_64_blocks_too_small() {
    let stop = verifier(0xcd, || {
        let list = Classic::zeroed();
        raw!(ExInitializeNPagedLookasideList(list.ptr(), None, None, 0, 7, TAG, 0));
    });
    assert_eq!(stop.parameters[2..], [7, 8]);
    verifier(0xcd, || {
        let list = ClassicPaged::zeroed();
        raw!(ExInitializePagedLookasideList(list.ptr(), None, None, 0, 0, TAG, 0));
    });
}

/// Compliance rule IrqlExApcLte2, and the entries themselves, which are paged.
#[test]
fn paged_lists_end_at_apc_level() {
    let too_high = |use_it: fn(&List)| {
        verifier(0x2_0006, || {
            let list = list_of(PagedPool, 8);
            let entry = raw!(ExAllocateFromLookasideListEx(list.ptr()));
            raw!(ExFreeToLookasideListEx(list.ptr(), entry));
            raise(DISPATCH_LEVEL);
            use_it(&list);
        })
    };
    too_high(|list| {
        raw!(ExAllocateFromLookasideListEx(list.ptr()));
    });
    too_high(|list| raw!(ExFlushLookasideListEx(list.ptr())));
    let stop = too_high(delete);
    assert_eq!((stop.parameters[1..3].to_vec(), stop.irql), (vec![2, 1], DISPATCH_LEVEL));
    verifier(0x2_0006, || {
        let list = list_of(PagedPool, 8);
        let entry = raw!(ExAllocateFromLookasideListEx(list.ptr()));
        raise(DISPATCH_LEVEL);
        raw!(ExFreeToLookasideListEx(list.ptr(), entry));
    });
    verifier(0x2_0006, || {
        let list = ClassicPaged::zeroed();
        raise(DISPATCH_LEVEL);
        raw!(ExInitializePagedLookasideList(list.ptr(), None, None, 0, 8, TAG, 0));
    });
    // Initialising an Ex list touches no entry.
    run(|| {
        let list = List::zeroed();
        let old = raise(DISPATCH_LEVEL);
        init(list.ptr(), PagedPool, 8);
        lower(old);
        delete(&list);
    });
}

#[test]
fn nonpaged_lists_end_at_dispatch_level() {
    let stop = crash(0xa, || {
        let list = list_of(NonPagedPoolNx, 8);
        raise(3);
        delete(&list);
    });
    assert_eq!(stop.routine, Some("ExDeleteLookasideListEx"));
    // Nothing is kept, so that the pool is asked.
    crash(0xc2, || {
        let list = list_of(NonPagedPoolNx, 8);
        raise(3);
        raw!(ExAllocateFromLookasideListEx(list.ptr()));
    });
}

#[test]
fn a_deleted_list_is_not_used() {
    verifier(0xcb, || {
        let list = list_of(NonPagedPoolNx, 8);
        delete(&list);
        raw!(ExAllocateFromLookasideListEx(list.ptr()));
    });
    verifier(0xcb, || {
        let list = list_of(NonPagedPoolNx, 8);
        let entry = raw!(ExAllocateFromLookasideListEx(list.ptr()));
        delete(&list);
        raw!(ExFreeToLookasideListEx(list.ptr(), entry));
    });
    verifier(0xcb, || {
        let list = Classic::zeroed();
        raw!(ExInitializeNPagedLookasideList(list.ptr(), None, None, 0, 8, TAG, 0));
        let entry = raw!(ExAllocateFromNPagedLookasideList(list.ptr()));
        raw!(ExDeleteNPagedLookasideList(list.ptr()));
        raw!(ExFreeToNPagedLookasideList(list.ptr(), entry));
    });
    verifier(0xcb, || {
        let list = Classic::zeroed();
        raw!(ExInitializeNPagedLookasideList(list.ptr(), None, None, 0, 8, TAG, 0));
        raw!(ExDeleteNPagedLookasideList(list.ptr()));
        raw!(ExAllocateFromNPagedLookasideList(list.ptr()));
    });
}

#[test]
fn a_list_in_freed_memory_is_not_used() {
    for use_it in [
        |list: *mut LOOKASIDE_LIST_EX| {
            raw!(ExAllocateFromLookasideListEx(list));
        },
        |list: *mut LOOKASIDE_LIST_EX| raw!(ExFreeToLookasideListEx(list, allocate(8))),
    ] {
        let wrong = || {
            let memory = allocate(size_of::<LOOKASIDE_LIST_EX>());
            init(memory.cast(), NonPagedPoolNx, 8);
            raw!(ExDeleteLookasideListEx(memory.cast()));
            free(memory);
            use_it(memory.cast());
        };
        // Header code reads the list, which special pool does not let it.
        let outcome = Machine::new().special_pool(false).run(wrong);
        let stop = outcome.expect_bug_check(0xc4);
        assert!(stop.meaning.contains("freed"), "{stop}");
    }
}

#[test]
fn an_entry_is_given_back_once() {
    let stop = crash(0xc2, || {
        let list = list_of(NonPagedPoolNx, 8);
        let entries = [(); 3].map(|()| raw!(ExAllocateFromLookasideListEx(list.ptr())));
        for entry in [entries[0], entries[1], entries[2], entries[0]] {
            raw!(ExFreeToLookasideListEx(list.ptr(), entry));
        }
    });
    assert_eq!(stop.parameters[0], 0x7);
    // Also when the list has no room, and the pool gets it.
    let stop = crash(0xc2, || {
        let list = list_of(NonPagedPoolNx, 8);
        let entries = [(); 5].map(|()| raw!(ExAllocateFromLookasideListEx(list.ptr())));
        for entry in entries.into_iter().chain([entries[4]]) {
            raw!(ExFreeToLookasideListEx(list.ptr(), entry));
        }
    });
    assert_eq!(stop.parameters[0], 0x7);
}

#[test]
fn what_is_given_back_is_an_entry() {
    let stop = crash(0xc2, || {
        let list = list_of(NonPagedPoolNx, 8);
        raw!(ExFreeToLookasideListEx(list.ptr(), allocate(64).wrapping_byte_add(16)));
    });
    assert_eq!(stop.parameters[0], 0x46);
    crash(0xc2, || {
        let list = list_of(NonPagedPoolNx, 8);
        let on_the_stack = Aligned([0_u64; 2]);
        raw!(ExFreeToLookasideListEx(list.ptr(), (&raw const on_the_stack).cast_mut().cast()));
    });
}

#[test]
fn what_a_list_still_keeps_is_a_leak() {
    let outcome = Machine::new().run(|| {
        let list = list_of(NonPagedPoolNx, 24);
        let entry = raw!(ExAllocateFromLookasideListEx(list.ptr()));
        raw!(ExFreeToLookasideListEx(list.ptr(), entry));
    });
    assert_eq!(outcome.expect_completed().left().pool_bytes(), 24);
}

unsafe extern "system-unwind" fn from_the_host(_: POOL_TYPE, size: usize, _: ULONG, _: *mut LOOKASIDE_LIST_EX) -> PVOID {
    let block: Box<[MaybeUninit<u128>]> = Box::new_uninit_slice(size.div_ceil(16));
    assert_eq!(size, 64);
    Box::into_raw(block).cast()
}

unsafe extern "system-unwind" fn to_the_host(entry: PVOID, list: *mut LOOKASIDE_LIST_EX) {
    assert_eq!(raw!((*list).L.Size), 64);
    drop(raw!(Box::from_raw(std::ptr::slice_from_raw_parts_mut(entry.cast::<MaybeUninit<u128>>(), 4))));
}

/// What a driver's own routines allocate need not be pool.
#[test]
fn routines_of_the_drivers_own() {
    let outcome = Machine::new().run(|| {
        let list = List::zeroed();
        let routines = (Some(from_the_host as ALLOCATE_FUNCTION_EX), Some(to_the_host as FREE_FUNCTION_EX));
        raw!(ExInitializeLookasideListEx(list.ptr(), routines.0, routines.1, NonPagedPoolNx, 0, 64, TAG, 0));
        let entries = [(); 6].map(|()| raw!(ExAllocateFromLookasideListEx(list.ptr())));
        for entry in entries {
            raw!(ExFreeToLookasideListEx(list.ptr(), entry));
        }
        delete(&list);
    });
    assert_eq!(outcome.expect_clean().statistics().allocations, 0);
}

#[test]
fn interlocked_lists_are_last_in_first_out() {
    run(|| {
        let mut head = Aligned(SLIST_HEADER { Alignment: 7, Region: 7 });
        let mut entries = [0_u64; 3].map(|_| Aligned(SLIST_ENTRY { Next: null_mut() }));
        let head = &raw mut head.0;
        let [a, b, c] = entries.each_mut().map(|entry| &raw mut entry.0);
        raw!(InitializeSListHead(head));
        assert_eq!(raw!(InterlockedPopEntrySList(head)), null_mut());
        assert_eq!(raw!(InterlockedPushEntrySList(head, a)), null_mut());
        assert_eq!(raw!(InterlockedPushEntrySList(head, b)), a);
        assert_eq!(raw!(InterlockedPushEntrySList(head, c)), b);
        assert_eq!(raw!(ExQueryDepthSList(head)), 3);
        assert_eq!(raw!(InterlockedPopEntrySList(head)), c);
        assert_eq!(raw!(InterlockedFlushSList(head)), b);
        assert_eq!((raw!((*b).Next), raw!(ExQueryDepthSList(head))), (a, 0));
        // Every level will do.
        let old = raise(HIGH_LEVEL);
        raw!(InterlockedPushEntrySList(head, a));
        assert_eq!(raw!(InterlockedPopEntrySList(head)), a);
        lower(old);
    });
}

#[test]
fn interlocked_lists_are_aligned() {
    let misaligned = |wrong: fn(*mut Aligned<[u64; 8]>)| {
        let stop = crash(0x7e, || {
            let memory = Place::<Aligned<[u64; 8]>>::zeroed();
            wrong(memory.ptr());
        });
        assert_eq!(stop.parameters[0], u64::from(STATUS_DATATYPE_MISALIGNMENT as u32));
    };
    misaligned(|memory| raw!(InitializeSListHead(memory.wrapping_byte_add(8).cast())));
    misaligned(|memory| {
        raw!(InterlockedPopEntrySList(memory.wrapping_byte_add(8).cast()));
    });
    misaligned(|memory| {
        raw!(InterlockedPushEntrySList(memory.cast(), memory.wrapping_byte_add(24).cast()));
    });
}

/// Four threads push and pop: no entry is lost, and none is there twice.
#[test]
fn interlocked_lists_under_many_schedules() {
    for seed in 0..100 {
        let outcome = Machine::new().processors(4).seed(seed).run(|| {
            let list = list_of(NonPagedPoolNx, 16);
            let address = list.ptr().expose_provenance();
            let threads = (0..4).map(|id| {
                spawn(move || {
                    let list = std::ptr::with_exposed_provenance_mut::<LOOKASIDE_LIST_EX>(address);
                    for _ in 0..10 {
                        let entry = raw!(ExAllocateFromLookasideListEx(list)).cast::<usize>();
                        raw!(entry.write(id));
                        settle();
                        assert_eq!(raw!(entry.read()), id);
                        raw!(ExFreeToLookasideListEx(list, entry.cast()));
                    }
                })
            });
            for thread in threads.collect::<Vec<_>>() {
                thread.join();
            }
            delete(&list);
        });
        outcome.expect_clean();
    }
}

#[test]
fn rule_63_must_succeed_pool_is_no_more() {
    let stop = crash(0xc2, || {
        raw!(ExAllocatePoolWithTag(NonPagedPool | 2, 8, TAG));
    });
    assert_eq!(stop.parameters, [0x9a, 2, 8, u64::from(TAG)]);
}

#[test]
fn rule_63_flags_name_exactly_one_pool() {
    run(|| {
        for flags in
            [0, POOL_FLAG_UNINITIALIZED, POOL_FLAG_PAGED | POOL_FLAG_NON_PAGED, POOL_FLAG_NON_PAGED | POOL_FLAG_NON_PAGED_EXECUTE]
        {
            assert_eq!(raw!(ExAllocatePool2(flags, 8, TAG)), null_mut(), "{flags:#x}");
        }
        free(raw!(ExAllocatePool2(POOL_FLAG_NON_PAGED_EXECUTE, 8, TAG)));
    });
    let stop = crash(0x7e, || {
        raw!(ExAllocatePool2(POOL_FLAG_RAISE_ON_FAILURE, 8, TAG));
    });
    assert_eq!(stop.parameters[0], u64::from(STATUS_INVALID_PARAMETER as u32));
}
