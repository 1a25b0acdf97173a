//! Mistakes with pool and lookaside lists.

use crate::{Case, Caught, always, under};
use ksim::FaultKind;
use ksync_sys::*;
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

fn lookaside_list_freed_without_its_deletion(wrong: bool) {
    let memory = allocate(size_of::<LOOKASIDE_LIST_EX>());
    let list = memory.cast::<LOOKASIDE_LIST_EX>();
    raw!(ExInitializeLookasideListEx(list, None, None, NonPagedPoolNx, 0, 32, TAG, 0));
    if !wrong {
        raw!(ExDeleteLookasideListEx(list));
    }
    free(memory);
}

pub(crate) const CASES: &[Case] = &[
    always("pool_overrun", "A byte behind a block is written.", Caught::By("PoolOverrun"), pool_overrun),
    always(
        "pool_overrun_of_what_is_never_freed",
        "A byte behind a block is written that the driver keeps.",
        Caught::By("PoolOverrun"),
        pool_overrun_of_what_is_never_freed,
    ),
    always("double_free", "A block is freed twice.", Caught::By("BadPoolCaller"), double_free),
    always("write_after_free", "A block is written after it was freed.", Caught::By("PoolWrittenAfterFree"), write_after_free),
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
        "lookaside_list_freed_without_its_deletion",
        "The memory of a lookaside list is freed without its deletion.",
        Caught::By("FreedLookaside"),
        lookaside_list_freed_without_its_deletion,
    ),
];
