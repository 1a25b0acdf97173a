//! Lookaside lists, `Ex` and classic (rule 64).
//!
//! Allocation and free are header code over the interlocked list; here are initialisation, deletion and flush, and the routines that the
//! lists call when they are empty or full.

use crate::engine::Kind;
use crate::engine::kernel::{Check, Kernel};
use crate::engine::pool::PoolRequest;
use crate::exports::{IrqlRange, at_most, exports};
use crate::image::{address_for_images, call as call_driver, for_caller};
use crate::irql::{APC_LEVEL, DISPATCH_LEVEL};
use crate::machine::{Call, current};
use crate::report::bug_check::{Violation, codes};
use ksync_sys::{
    EX_LOOKASIDE_LIST_EX_FLAGS_FAIL_NO_RAISE, EX_LOOKASIDE_LIST_EX_FLAGS_RAISE_ON_FAIL, ExpInterlockedFlushSList,
    GENERAL_LOOKASIDE_POOL, LOOKASIDE_ALLOCATE, LOOKASIDE_FREE, LOOKASIDE_LIST_EX, NPAGED_LOOKASIDE_LIST, NTSTATUS, NonPagedPool,
    PAGED_LOOKASIDE_LIST, PALLOCATE_FUNCTION, PALLOCATE_FUNCTION_EX, PFREE_FUNCTION, PFREE_FUNCTION_EX,
    POOL_RAISE_IF_ALLOCATION_FAILURE, POOL_TYPE, PVOID, PagedPool, SIZE_T, SLIST_ENTRY, STATUS_INSUFFICIENT_RESOURCES,
    STATUS_INVALID_PARAMETER_4, STATUS_INVALID_PARAMETER_5, STATUS_SUCCESS, ULONG, USHORT,
};

const LISTS: IrqlRange = at_most(DISPATCH_LEVEL);
/// What touches paged entries (DDI compliance rule IrqlExApcLte2).
const PAGED_LISTS: IrqlRange = at_most(APC_LEVEL).rule(0x2_0006);
/// How many entries a fresh list keeps, and the most that NT's balance set manager lets one grow to.
const DEPTH: USHORT = 4;
const MAXIMUM_DEPTH: USHORT = 256;
/// A free entry holds a pointer to the next one.
const SMALLEST: SIZE_T = 8;
const PAGED_BIT: POOL_TYPE = 1;

/// The names that images know the routines below by: their inlined code calls them by the images' convention.
const ALLOCATE_EX: &str = "KsimLookasideAllocateEx";
const FREE_EX: &str = "KsimLookasideFreeEx";
const ALLOCATE_CLASSIC: &str = "KsimLookasideAllocate";
const FREE_CLASSIC: &str = "KsimLookasideFree";
const DELETED_ALLOCATE_EX: &str = "KsimLookasideDeletedAllocateEx";
const DELETED_FREE_EX: &str = "KsimLookasideDeletedFreeEx";
const DELETED_CLASSIC: &str = "KsimLookasideDeleted";

/// What an allocation for an empty list does unless the driver has a routine for it.
unsafe extern "system-unwind" fn allocate_ex(pool: POOL_TYPE, size: SIZE_T, tag: ULONG, list: *mut LOOKASIDE_LIST_EX) -> PVOID {
    allocate(pool, size, tag, list as usize)
}

unsafe extern "system-unwind" fn allocate_classic(pool: POOL_TYPE, size: SIZE_T, tag: ULONG) -> PVOID {
    allocate(pool, size, tag, 0)
}

/// Pool for a list that has none; 0 for one that is not known.
pub(crate) fn allocate(pool: POOL_TYPE, size: SIZE_T, tag: ULONG, list: usize) -> PVOID {
    let call = Call { cell: current("a lookaside list"), export: None };
    let request = PoolRequest { size, tag, paged: pool & PAGED_BIT != 0, zeroed: false };
    call.operate(|kernel| {
        let memory = kernel.allocate_pool(request)?;
        if memory.is_null() && pool & POOL_RAISE_IF_ALLOCATION_FAILURE != 0 {
            return Err(Violation::raised(
                STATUS_INSUFFICIENT_RESOURCES,
                "a lookaside list that raises at failure found no pool".to_owned(),
            ));
        }
        kernel.note_list(memory as usize, list);
        Ok(memory.cast())
    })
}

unsafe extern "system-unwind" fn free_ex(entry: PVOID, list: *mut LOOKASIDE_LIST_EX) {
    free(entry, list as usize);
}

unsafe extern "system-unwind" fn free_classic(entry: PVOID) {
    free(entry, 0);
}

/// Frees an entry that a list has enough of; 0 for one that is not known.
pub(crate) fn free(entry: PVOID, list: usize) {
    let call = Call { cell: current("a lookaside list"), export: None };
    call.operate(|kernel| {
        if list != 0 {
            kernel.check_entry_of(list, entry as usize, None)?;
        }
        kernel.free_pool(entry as usize, 0)
    });
}

/// What a list has for routines once it is deleted: a use of it ends here.
unsafe extern "system-unwind" fn deleted_allocate_ex(_: POOL_TYPE, _: SIZE_T, _: ULONG, list: *mut LOOKASIDE_LIST_EX) -> PVOID {
    deleted(list as usize)
}

unsafe extern "system-unwind" fn deleted_allocate_classic(_: POOL_TYPE, _: SIZE_T, _: ULONG) -> PVOID {
    deleted(0)
}

unsafe extern "system-unwind" fn deleted_free_ex(_: PVOID, list: *mut LOOKASIDE_LIST_EX) {
    deleted(list as usize);
}

unsafe extern "system-unwind" fn deleted_free_classic(_: PVOID) {
    deleted(0);
}

/// A deleted list was used. The routines of a classic list are not told which.
pub(crate) fn deleted(list: usize) -> ! {
    let call = Call { cell: current("a lookaside list"), export: None };
    call.fail(Violation::boxed(
        codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
        [codes::verifier::LOOKASIDE_UNINITIALIZED, list as u64, 0, 0],
        "a lookaside list was allocated from or freed to that has been deleted",
    ))
}

/// A list that stands in the table, by the address of its head.
fn registered(kernel: &mut Kernel, list: usize) -> Option<*mut GENERAL_LOOKASIDE_POOL> {
    let id = kernel.objects.find(list)?;
    matches!(kernel.objects[id].kind, Kind::Lookaside).then_some(list as *mut GENERAL_LOOKASIDE_POOL)
}

/// The entries of a paged list are not touched above APC_LEVEL. `head` may be that of any interlocked list.
pub(super) fn check_level(kernel: &mut Kernel, head: usize, routine: &str) -> Check<()> {
    let irql = kernel.irql();
    if PAGED_LISTS.contains(irql) {
        return Ok(());
    }
    let Some(list) = registered(kernel, head) else { return Ok(()) };
    // SAFETY: the list is registered, and so initialised.
    let pool = unsafe { (*list).Type };
    if pool & PAGED_BIT == 0 { Ok(()) } else { Err(PAGED_LISTS.violation(routine, irql)) }
}

/// What is given back to a list must be an entry, and must not be in it. `head` may be that of any interlocked list.
///
/// NT finds neither by itself; Driver Verifier does, because it has lists keep nothing, so that every entry goes to the pool at once, which knows.
pub(super) fn check_entry(kernel: &mut Kernel, head: usize, entry: usize, mut first: *mut SLIST_ENTRY) -> Check<()> {
    let Some(list) = registered(kernel, head) else { return Ok(()) };
    while !first.is_null() {
        if first as usize == entry {
            return Err(Violation::boxed(
                codes::BAD_POOL_CALLER,
                [0x7, 0, 0, entry as u64],
                "an entry was given back to a lookaside list twice",
            ));
        }
        first = next(kernel, first);
    }
    // What a driver's own routine frees need not be pool.
    if !is_of_pool(list) {
        return Ok(());
    }
    // SAFETY: the list is registered, and so initialised.
    let routine = unsafe { (*list).Allocate };
    // SAFETY: whichever kind of list it is, the member is a pointer to a routine.
    let routine = unsafe { routine.Allocate }.map_or(0, |routine| routine as usize);
    let ours = [allocate_ex as *const (), allocate_classic as *const ()];
    let is_of_pool = is_routine(routine, ours, [ALLOCATE_EX, ALLOCATE_CLASSIC]);
    // SAFETY: the list is registered, and so initialised.
    let size = unsafe { (*list).Size };
    // SAFETY: as above.
    let tag = unsafe { (*list).Tag };
    kernel.check_entry_of(head, entry, is_of_pool.then_some((size as usize, tag)))
}

/// The entry behind one that is in a list.
fn next(kernel: &Kernel, entry: *mut SLIST_ENTRY) -> *mut SLIST_ENTRY {
    match kernel.pool.next_of_kept(entry as usize) {
        Some(next) => next as *mut SLIST_ENTRY,
        // SAFETY: an entry is valid while it is in a list, and the pages of this one are there.
        None => unsafe { (*entry).Next },
    }
}

/// True for a list whose entries go to the pool when it has enough.
fn is_of_pool(list: *mut GENERAL_LOOKASIDE_POOL) -> bool {
    // SAFETY: the callers' list is registered, and so initialised.
    let routine = unsafe { (*list).Free };
    // SAFETY: whichever kind of list it is, the member is a pointer to a routine.
    let routine = unsafe { routine.Free }.map_or(0, |routine| routine as usize);
    is_routine(routine, [free_ex as *const (), free_classic as *const ()], [FREE_EX, FREE_CLASSIC])
}

/// True for one of our routines, as hosted code has its address or as images have it.
fn is_routine(address: usize, ours: [*const (); 2], for_images: [&str; 2]) -> bool {
    // Where there are no images, they have no address.
    let is_for_images = || address != 0 && for_images.into_iter().any(|name| address_for_images(name) == address);
    ours.iter().any(|routine| routine.addr() == address) || is_for_images()
}

/// An entry was put on a list, in front of another. `head` may be that of any interlocked list.
pub(super) fn keep(kernel: &mut Kernel, head: usize, entry: usize, next: usize) {
    if registered(kernel, head).is_some_and(is_of_pool) {
        kernel.keep_entry(entry, next);
    }
}

/// The first entry of a list is about to be taken. `head` may be that of any interlocked list.
pub(super) fn give_out(kernel: &mut Kernel, head: usize, entry: usize) {
    let list = registered(kernel, head).map(|_| head);
    kernel.give_out_entry(entry, list);
}

/// All entries of a list are about to be taken, from one on.
pub(super) fn give_out_all(kernel: &mut Kernel, mut entry: *mut SLIST_ENTRY) {
    while !entry.is_null() && kernel.pool.keeps_any() {
        let next = next(kernel, entry);
        kernel.give_out_entry(entry as usize, None);
        entry = next;
    }
}

/// Enters a list into the table. One that stands there must have been deleted.
fn register(kernel: &mut Kernel, list: usize) -> Check<()> {
    if !list.is_multiple_of(16) {
        return Err(Violation::boxed(
            codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [codes::verifier::LOOKASIDE_UNINITIALIZED, list as u64, 0, 0],
            "a lookaside list is not aligned to 16 bytes",
        ));
    }
    if let Some(id) = kernel.objects.find(list)
        && matches!(kernel.objects[id].kind, Kind::Lookaside)
    {
        return Err(Violation::boxed(
            codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [codes::verifier::LOOKASIDE_REINITIALIZED, list as u64, 0, 0],
            "a lookaside list was initialised again that has not been deleted",
        ));
    }
    kernel.objects.register(list, Kind::Lookaside);
    Ok(())
}

fn check_registered(kernel: &mut Kernel, list: usize) -> Check<u32> {
    match kernel.objects.find(list) {
        Some(id) if matches!(kernel.objects[id].kind, Kind::Lookaside) => Ok(id),
        _ => Err(Violation::boxed(
            codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [codes::verifier::LOOKASIDE_UNINITIALIZED, list as u64, 0, 0],
            "a lookaside list was deleted or flushed that is not initialised",
        )),
    }
}

/// What differs from list to list.
struct Parts {
    pool: POOL_TYPE,
    size: SIZE_T,
    tag: ULONG,
    allocate: LOOKASIDE_ALLOCATE,
    free: LOOKASIDE_FREE,
}

/// Writes a list's structure.
///
/// # Safety
/// `list` points to writable memory of one.
unsafe fn fill(list: *mut GENERAL_LOOKASIDE_POOL, parts: Parts) {
    // SAFETY: by this function's contract; zero is valid for all of it.
    unsafe { list.write_bytes(0, 1) };
    // SAFETY: as above, for the rest of the function.
    let list = unsafe { &mut *list };
    list.Depth = DEPTH;
    list.MaximumDepth = MAXIMUM_DEPTH;
    list.Type = parts.pool;
    list.Tag = parts.tag;
    list.Size = u32::try_from(parts.size).unwrap_or(u32::MAX);
    list.Allocate = parts.allocate;
    list.Free = parts.free;
}

/// Empties a list, and gives each entry to `free`.
fn flush(list: *mut GENERAL_LOOKASIDE_POOL, mut free: impl FnMut(PVOID)) {
    // SAFETY: the caller passes an initialised list.
    let head = unsafe { &raw mut (*list).ListHead };
    // SAFETY: as above.
    let mut entry = unsafe { ExpInterlockedFlushSList(head) };
    while !entry.is_null() {
        // SAFETY: an entry is valid until it is freed.
        let next: *mut SLIST_ENTRY = unsafe { (*entry).Next };
        free(entry.cast());
        entry = next;
    }
}

/// Empties an `Ex` list through its own routine.
fn flush_ex(list: *mut LOOKASIDE_LIST_EX) {
    // SAFETY: the caller passes an initialised list.
    let routine = unsafe { (*list).L.Free };
    // SAFETY: a list of this kind has the routine of this kind.
    let routine = unsafe { routine.FreeEx };
    // SAFETY: a field address.
    let general = unsafe { &raw mut (*list).L };
    flush(general, |entry| {
        if let Some(routine) = routine {
            // SAFETY: the entry came from this list.
            unsafe { call_driver(routine, (entry, list)) };
        }
    });
}

fn initialize_classic(
    call: Call,
    list: *mut GENERAL_LOOKASIDE_POOL,
    pool: POOL_TYPE,
    size: SIZE_T,
    tag: ULONG,
    routines: (PALLOCATE_FUNCTION, PFREE_FUNCTION),
) {
    call.operate(|kernel| {
        if size < SMALLEST {
            return Err(Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::LOOKASIDE_BLOCK_TOO_SMALL, list as u64, size as u64, SMALLEST as u64],
                "a lookaside list's entries are too small to be linked",
            ));
        }
        register(kernel, list as usize)
    });
    let own = for_caller(call, allocate_classic as unsafe extern "system-unwind" fn(_, _, _) -> _, ALLOCATE_CLASSIC);
    let allocate = LOOKASIDE_ALLOCATE { Allocate: routines.0.or(Some(own)) };
    let own = for_caller(call, free_classic as unsafe extern "system-unwind" fn(_), FREE_CLASSIC);
    let free = LOOKASIDE_FREE { Free: routines.1.or(Some(own)) };
    // SAFETY: the caller of the export passes memory for a list.
    unsafe { fill(list, Parts { pool, size, tag, allocate, free }) };
}

fn delete_classic(call: Call, list: *mut GENERAL_LOOKASIDE_POOL) {
    let id = call.operate(|kernel| check_registered(kernel, list as usize));
    // SAFETY: the caller passes an initialised list.
    let routine = unsafe { (*list).Free };
    // SAFETY: a list of this kind has the routine of this kind.
    let routine = unsafe { routine.Free };
    flush(list, |entry| {
        if let Some(routine) = routine {
            // SAFETY: the entry came from this list.
            unsafe { call_driver(routine, (entry,)) };
        }
    });
    call.read(|kernel| kernel.objects.remove(id));
    let gone = for_caller(call, deleted_allocate_classic as unsafe extern "system-unwind" fn(_, _, _) -> _, DELETED_CLASSIC);
    let allocate = LOOKASIDE_ALLOCATE { Allocate: Some(gone) };
    let gone = for_caller(call, deleted_free_classic as unsafe extern "system-unwind" fn(_), DELETED_CLASSIC);
    // SAFETY: the caller passes a list's memory.
    unsafe { bury(list, allocate, LOOKASIDE_FREE { Free: Some(gone) }) };
}

/// Makes every use of a deleted list call these routines.
///
/// # Safety
/// `list` points to writable memory of a list.
unsafe fn bury(list: *mut GENERAL_LOOKASIDE_POOL, allocate: LOOKASIDE_ALLOCATE, free: LOOKASIDE_FREE) {
    // SAFETY: by this function's contract, for the rest of the function.
    let list = unsafe { &mut *list };
    list.Depth = 0;
    list.Allocate = allocate;
    list.Free = free;
}

exports! {
    [LISTS] silent fn ExInitializeLookasideListEx(
        call; Lookaside: *mut LOOKASIDE_LIST_EX, Allocate: PALLOCATE_FUNCTION_EX, Free: PFREE_FUNCTION_EX, PoolType: POOL_TYPE,
        Flags: ULONG, Size: SIZE_T, Tag: ULONG, _Depth: USHORT
    ) -> NTSTATUS {
        const KNOWN: ULONG = EX_LOOKASIDE_LIST_EX_FLAGS_RAISE_ON_FAIL | EX_LOOKASIDE_LIST_EX_FLAGS_FAIL_NO_RAISE;
        if !(0..0x400).contains(&PoolType) {
            return STATUS_INVALID_PARAMETER_4;
        }
        if Flags & !KNOWN != 0 || Flags == KNOWN {
            return STATUS_INVALID_PARAMETER_5;
        }
        call.check_null(Lookaside);
        call.operate(|kernel| register(kernel, Lookaside as usize));
        let raise = if Flags & EX_LOOKASIDE_LIST_EX_FLAGS_RAISE_ON_FAIL != 0 { POOL_RAISE_IF_ALLOCATION_FAILURE } else { 0 };
        let own_allocate = for_caller(call, allocate_ex as unsafe extern "system-unwind" fn(_, _, _, _) -> _, ALLOCATE_EX);
        let own_free = for_caller(call, free_ex as unsafe extern "system-unwind" fn(_, _), FREE_EX);
        let parts = Parts {
            pool: PoolType | raise,
            size: Size.max(SMALLEST),
            tag: Tag,
            allocate: LOOKASIDE_ALLOCATE { AllocateEx: Allocate.or(Some(own_allocate)) },
            free: LOOKASIDE_FREE { FreeEx: Free.or(Some(own_free)) },
        };
        // SAFETY: the caller passes memory for a list.
        let list = unsafe { &raw mut (*Lookaside).L };
        // SAFETY: as above.
        unsafe { fill(list, parts) };
        STATUS_SUCCESS
    }

    [LISTS] visible(access Lookaside) fn ExDeleteLookasideListEx(call; Lookaside: *mut LOOKASIDE_LIST_EX) {
        let id = call.operate(|kernel| {
            let id = check_registered(kernel, Lookaside as usize)?;
            check_level(kernel, Lookaside as usize, "ExDeleteLookasideListEx")?;
            Ok(id)
        });
        flush_ex(Lookaside);
        call.read(|kernel| kernel.objects.remove(id));
        // SAFETY: a field address.
        let list = unsafe { &raw mut (*Lookaside).L };
        let gone = for_caller(call, deleted_allocate_ex as unsafe extern "system-unwind" fn(_, _, _, _) -> _, DELETED_ALLOCATE_EX);
        let allocate = LOOKASIDE_ALLOCATE { AllocateEx: Some(gone) };
        let gone = for_caller(call, deleted_free_ex as unsafe extern "system-unwind" fn(_, _), DELETED_FREE_EX);
        // SAFETY: the caller passes a list's memory.
        unsafe { bury(list, allocate, LOOKASIDE_FREE { FreeEx: Some(gone) }) };
    }

    [LISTS] visible(access Lookaside) fn ExFlushLookasideListEx(call; Lookaside: *mut LOOKASIDE_LIST_EX) {
        call.operate(|kernel| {
            check_registered(kernel, Lookaside as usize)?;
            check_level(kernel, Lookaside as usize, "ExFlushLookasideListEx")
        });
        flush_ex(Lookaside);
    }

    [LISTS] silent fn ExInitializeNPagedLookasideList(
        call; Lookaside: *mut NPAGED_LOOKASIDE_LIST, Allocate: PALLOCATE_FUNCTION, Free: PFREE_FUNCTION, Flags: ULONG, Size: SIZE_T,
        Tag: ULONG, _Depth: USHORT
    ) {
        // SAFETY: a field address.
        let list = unsafe { &raw mut (*Lookaside).L.P };
        initialize_classic(call, list, NonPagedPool | Flags as POOL_TYPE, Size, Tag, (Allocate, Free));
    }

    [LISTS] visible(access Lookaside) fn ExDeleteNPagedLookasideList(call; Lookaside: *mut NPAGED_LOOKASIDE_LIST) {
        // SAFETY: a field address.
        delete_classic(call, unsafe { &raw mut (*Lookaside).L.P });
    }

    [PAGED_LISTS] silent fn ExInitializePagedLookasideList(
        call; Lookaside: *mut PAGED_LOOKASIDE_LIST, Allocate: PALLOCATE_FUNCTION, Free: PFREE_FUNCTION, Flags: ULONG, Size: SIZE_T,
        Tag: ULONG, _Depth: USHORT
    ) {
        // SAFETY: a field address.
        let list = unsafe { &raw mut (*Lookaside).L.P };
        initialize_classic(call, list, PagedPool | Flags as POOL_TYPE, Size, Tag, (Allocate, Free));
    }

    [PAGED_LISTS] visible(access Lookaside) fn ExDeletePagedLookasideList(call; Lookaside: *mut PAGED_LOOKASIDE_LIST) {
        // SAFETY: a field address.
        delete_classic(call, unsafe { &raw mut (*Lookaside).L.P });
    }
}
