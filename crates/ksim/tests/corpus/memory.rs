//! Mistakes with pool and lookaside lists.

use crate::{Case, Caught, always, by_access, sometimes, under, with};
use ksim::{FaultKind, Machine};
use ksync_sys::*;
use std::hint::black_box;
use test_support::*;

fn allocate_paged(bytes: usize) -> PVOID {
    raw!(ExAllocatePool2(POOL_FLAG_PAGED, bytes, TAG))
}

fn pool_overrun(wrong: bool) {
    let memory = allocate(24);
    let bytes = if wrong { 25 } else { 24 };
    raw!(memory.cast::<u8>().write_bytes(7, bytes));
    free(memory);
}

fn pool_overrun_of_what_is_never_freed(wrong: bool) {
    let memory = allocate(24);
    raw!(memory.cast::<u8>().add(if wrong { 30 } else { 23 }).write(0));
    if !wrong {
        free(memory);
    }
}

fn double_free(wrong: bool) {
    let memory = allocate(24);
    free(memory);
    if wrong {
        free(memory);
    }
}

fn write_after_free(wrong: bool) {
    let memory = allocate(64);
    let last = || raw!(memory.cast::<u32>().add(3).write(1));
    if wrong {
        free(memory);
        last();
    } else {
        last();
        free(memory);
    }
}

fn read_after_free(wrong: bool) {
    let memory = allocate(64).cast::<u32>();
    raw!(memory.write_bytes(0, 16));
    let last = || _ = black_box(raw!(memory.add(3).read_volatile()));
    if wrong {
        free(memory.cast());
        last();
    } else {
        last();
        free(memory.cast());
    }
}

fn read_behind_the_end(wrong: bool) {
    let memory = allocate(64).cast::<u32>();
    raw!(memory.write_bytes(0, 16));
    for index in 0..if wrong { 17 } else { 16 } {
        black_box(raw!(memory.add(index).read_volatile()));
    }
    free(memory.cast());
}

/// Who does not drop the last reference has none any more.
fn read_of_what_another_thread_frees(wrong: bool) {
    let memory = allocate(16).cast::<u64>();
    raw!(memory.write(2));
    let lock = SpinLock::new();
    let release = || {
        let left = lock.with(|| {
            let left = raw!(memory.read_volatile()) - 1;
            raw!(memory.write_volatile(left));
            left
        });
        let left = if wrong { lock.with(|| raw!(memory.read_volatile())) } else { left };
        if left == 0 {
            free(memory.cast());
        }
    };
    let other = spawn(release);
    release();
    other.join();
}

fn paged_pool_read_under_a_spin_lock(wrong: bool) {
    let lock = SpinLock::new();
    let memory = allocate_paged(24).cast::<u64>();
    raw!(memory.write(7));
    let read = || assert_eq!(raw!(memory.read_volatile()), 7);
    if wrong {
        lock.with(read);
    } else {
        read();
    }
    free(memory.cast());
}

fn leak(wrong: bool) {
    let memory = allocate(100);
    if !wrong {
        free(memory);
    }
}

fn leak_on_an_error_path(wrong: bool) {
    let first = allocate(40);
    if first.is_null() {
        return;
    }
    let second = allocate(80);
    if second.is_null() {
        if !wrong {
            free(first);
        }
        return;
    }
    free(second);
    free(first);
}

fn allocation_that_never_fails(wrong: bool) {
    let memory = allocate(16);
    if memory.is_null() {
        assert!(!wrong, "no memory, which the driver did not think of");
        return;
    }
    free(memory);
}

fn wrong_tag(wrong: bool) {
    let memory = allocate(24);
    raw!(ExFreePoolWithTag(memory, if wrong { u32::from_le_bytes(*b"Else") } else { TAG }));
}

fn part_of_a_block_freed(wrong: bool) {
    let memory = allocate(64);
    free(if wrong { memory.wrapping_byte_add(16) } else { memory });
}

fn paged_pool_at_dispatch_level(wrong: bool) {
    let old = raise(DISPATCH_LEVEL);
    let memory = if wrong { allocate_paged(24) } else { allocate(24) };
    free(memory);
    lower(old);
}

fn paged_pool_freed_under_a_spin_lock(wrong: bool) {
    let lock = SpinLock::new();
    let memory = if wrong { allocate_paged(24) } else { allocate(24) };
    lock.with(|| free(memory));
}

fn event_in_paged_pool(wrong: bool) {
    let memory = if wrong { allocate_paged(64) } else { allocate(64) };
    raw!(KeInitializeEvent(memory.cast(), NotificationEvent, FALSE));
    raw!(KeSetEvent(memory.cast(), 0, FALSE));
    free(memory);
}

fn spin_lock_in_paged_pool(wrong: bool) {
    let memory = if wrong { allocate_paged(64) } else { allocate(64) };
    raw!(memory.cast::<KSPIN_LOCK>().write(0));
    let old = raw!(KeAcquireSpinLockRaiseToDpc(memory.cast()));
    raw!(KeReleaseSpinLock(memory.cast(), old));
    free(memory);
}

fn freed_with_a_held_lock(wrong: bool) {
    let memory = allocate(64);
    raw!(KeInitializeMutex(memory.cast(), 0));
    wait(memory);
    if !wrong {
        raw!(KeReleaseMutex(memory.cast(), FALSE));
    }
    free(memory);
}

fn resource_never_deleted(wrong: bool) {
    let memory = allocate(size_of::<ERESOURCE>());
    raw!(ExInitializeResourceLite(memory.cast()));
    if !wrong {
        raw!(ExDeleteResourceLite(memory.cast()));
    }
    free(memory);
}

fn resource_initialised_twice(wrong: bool) {
    let memory = allocate(size_of::<ERESOURCE>());
    for _ in 0..if wrong { 2 } else { 1 } {
        raw!(ExInitializeResourceLite(memory.cast()));
    }
    raw!(ExDeleteResourceLite(memory.cast()));
    free(memory);
}

fn zero_bytes(wrong: bool) {
    free(allocate(if wrong { 0 } else { 1 }));
}

struct List(Place<LOOKASIDE_LIST_EX>);

impl List {
    fn new() -> Self {
        let list = Self(Place::zeroed());
        list.initialize();
        list
    }

    fn initialize(&self) {
        let status = raw!(ExInitializeLookasideListEx(self.0.ptr(), None, None, NonPagedPoolNx, 0, 32, TAG, 0));
        assert_eq!(status, STATUS_SUCCESS);
    }

    fn delete(&self) {
        raw!(ExDeleteLookasideListEx(self.0.ptr()));
    }
}

fn lookaside_list_initialised_twice(wrong: bool) {
    let list = List::new();
    if wrong {
        list.initialize();
    }
    list.delete();
}

fn lookaside_list_deleted_twice(wrong: bool) {
    let list = List::new();
    list.delete();
    if wrong {
        list.delete();
    }
}

fn lookaside_list_used_after_its_deletion(wrong: bool) {
    let list = List::new();
    if wrong {
        list.delete();
    }
    let entry = raw!(ExAllocateFromLookasideListEx(list.0.ptr()));
    raw!(ExFreeToLookasideListEx(list.0.ptr(), entry));
    if !wrong {
        list.delete();
    }
}

fn lookaside_entry_never_freed(wrong: bool) {
    let list = List::new();
    let entry = raw!(ExAllocateFromLookasideListEx(list.0.ptr()));
    if !wrong {
        raw!(ExFreeToLookasideListEx(list.0.ptr(), entry));
    }
    list.delete();
}

fn lookaside_entry_freed_twice(wrong: bool) {
    let list = List::new();
    let entries = [(); 2].map(|()| raw!(ExAllocateFromLookasideListEx(list.0.ptr())));
    for entry in if wrong { [entries[0]; 2] } else { entries } {
        raw!(ExFreeToLookasideListEx(list.0.ptr(), entry));
    }
    list.delete();
}

fn lookaside_entry_freed_to_another_list(wrong: bool) {
    let lists = [(); 2].map(|()| List::new());
    let entry = raw!(ExAllocateFromLookasideListEx(lists[0].0.ptr()));
    raw!(ExFreeToLookasideListEx(lists[usize::from(wrong)].0.ptr(), entry));
    lists.iter().for_each(List::delete);
}

fn lookaside_entry_used_after_it_was_freed(wrong: bool) {
    let list = List::new();
    let entry = raw!(ExAllocateFromLookasideListEx(list.0.ptr())).cast::<u64>();
    let last = || raw!(entry.add(2).write_volatile(7));
    if wrong {
        raw!(ExFreeToLookasideListEx(list.0.ptr(), entry.cast()));
        last();
    } else {
        last();
        raw!(ExFreeToLookasideListEx(list.0.ptr(), entry.cast()));
    }
    list.delete();
}

fn lookaside_list_freed_without_its_deletion(wrong: bool) {
    let memory = allocate(size_of::<LOOKASIDE_LIST_EX>());
    let list = memory.cast::<LOOKASIDE_LIST_EX>();
    raw!(ExInitializeLookasideListEx(list, None, None, NonPagedPoolNx, 0, 32, TAG, 0));
    if !wrong {
        raw!(ExDeleteLookasideListEx(list));
    }
    free(memory);
}

/// The same, in a run whose blocks are ordinary ones.
const fn without_special_pool(case: Case) -> Case {
    with(|machine| machine.special_pool(false), case)
}

pub(crate) const CASES: &[Case] = &[
    without_special_pool(always("pool_overrun", "A byte behind a block is written.", Caught::By("PoolOverrun"), pool_overrun)),
    without_special_pool(always(
        "pool_overrun_of_what_is_never_freed",
        "A byte behind a block is written that the driver keeps.",
        Caught::By("PoolOverrun"),
        pool_overrun_of_what_is_never_freed,
    )),
    by_access(always(
        "special_pool_overrun",
        "A byte behind a block is written, before the next multiple of 16.",
        Caught::By("SpecialPoolCorruption"),
        pool_overrun,
    )),
    by_access(always(
        "read_behind_the_end",
        "A loop over a block's elements reads one more.",
        Caught::By("BeyondPoolTouched"),
        read_behind_the_end,
    )),
    always("double_free", "A block is freed twice.", Caught::By("BadPoolCaller"), double_free),
    without_special_pool(always(
        "write_after_free",
        "A block is written after it was freed.",
        Caught::By("PoolWrittenAfterFree"),
        write_after_free,
    )),
    by_access(always(
        "special_pool_write_after_free",
        "A block is written after it was freed, which is seen where it is.",
        Caught::By("FreedPoolTouched"),
        write_after_free,
    )),
    by_access(always("read_after_free", "A block is read after it was freed.", Caught::By("FreedPoolTouched"), read_after_free)),
    by_access(sometimes(
        "read_of_what_another_thread_frees",
        "A count of references in the block that it counts is read again after it was lowered.",
        Caught::By("FreedPoolTouched"),
        1_000,
        read_of_what_another_thread_frees,
    )),
    always("leak", "A block is never freed.", Caught::Left, leak),
    under(
        &[FaultKind::Allocation],
        always(
            "leak_on_an_error_path",
            "A block is not freed where the next allocation fails.",
            Caught::Left,
            leak_on_an_error_path,
        ),
    ),
    under(
        &[FaultKind::Allocation],
        always(
            "allocation_that_never_fails",
            "The result of an allocation is not looked at.",
            Caught::Panic,
            allocation_that_never_fails,
        ),
    ),
    always("wrong_tag", "A block is freed with another tag.", Caught::By("BadPoolCaller"), wrong_tag),
    always("part_of_a_block_freed", "An address within a block is freed.", Caught::By("BadPoolCaller"), part_of_a_block_freed),
    always(
        "paged_pool_at_dispatch_level",
        "Paged pool is allocated at DISPATCH_LEVEL.",
        Caught::By("IrqlExAllocatePool"),
        paged_pool_at_dispatch_level,
    ),
    always(
        "paged_pool_freed_under_a_spin_lock",
        "Paged pool is freed under a spin lock.",
        Caught::By("IrqlExFree"),
        paged_pool_freed_under_a_spin_lock,
    ),
    by_access(with(
        |machine: Machine| machine.force_irql_checking(true),
        always(
            "paged_pool_read_under_a_spin_lock",
            "Paged pool is read under a spin lock.",
            Caught::By("PagedObject"),
            paged_pool_read_under_a_spin_lock,
        ),
    )),
    always("event_in_paged_pool", "An event lies in paged pool.", Caught::By("PagedObject"), event_in_paged_pool),
    always("spin_lock_in_paged_pool", "A spin lock lies in paged pool.", Caught::By("PagedObject"), spin_lock_in_paged_pool),
    always(
        "freed_with_a_held_lock",
        "A mutex is freed while it is owned.",
        Caught::By("DeletedWhileOwned"),
        freed_with_a_held_lock,
    ),
    always(
        "resource_never_deleted",
        "A resource's memory is freed without its deletion.",
        Caught::By("FreedResource"),
        resource_never_deleted,
    ),
    always(
        "resource_initialised_twice",
        "A resource is initialised twice.",
        Caught::By("ReinitializedResource"),
        resource_initialised_twice,
    ),
    always("zero_bytes", "Zero bytes of pool are asked for.", Caught::By("BadPoolCaller"), zero_bytes),
    always(
        "lookaside_list_initialised_twice",
        "A lookaside list is initialised twice.",
        Caught::By("ReinitializedLookaside"),
        lookaside_list_initialised_twice,
    ),
    always(
        "lookaside_list_deleted_twice",
        "A lookaside list is deleted explicitly, and again by its drop.",
        Caught::By("UninitializedLookaside"),
        lookaside_list_deleted_twice,
    ),
    always(
        "lookaside_list_used_after_its_deletion",
        "A deleted lookaside list is used.",
        Caught::By("UninitializedLookaside"),
        lookaside_list_used_after_its_deletion,
    ),
    always(
        "lookaside_entry_never_freed",
        "An entry does not go back to its lookaside list.",
        Caught::Left,
        lookaside_entry_never_freed,
    ),
    always(
        "lookaside_entry_freed_twice",
        "An entry goes back to its lookaside list twice.",
        Caught::By("BadPoolCaller"),
        lookaside_entry_freed_twice,
    ),
    always(
        "lookaside_entry_freed_to_another_list",
        "An entry goes back to another lookaside list than its own.",
        Caught::By("Arguments"),
        lookaside_entry_freed_to_another_list,
    ),
    by_access(always(
        "lookaside_entry_used_after_it_was_freed",
        "An entry is written that its lookaside list has back.",
        Caught::By("FreedPoolTouched"),
        lookaside_entry_used_after_it_was_freed,
    )),
    always(
        "lookaside_list_freed_without_its_deletion",
        "The memory of a lookaside list is freed without its deletion.",
        Caught::By("FreedLookaside"),
        lookaside_list_freed_without_its_deletion,
    ),
];
