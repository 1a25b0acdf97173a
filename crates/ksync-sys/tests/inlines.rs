//! The inlines, over stand-ins for the few routines that they call.
#![cfg(any(not(windows), feature = "hosted"))]

use ksync_sys::*;
use std::mem::{MaybeUninit, offset_of};
use std::panic::catch_unwind;
use std::ptr::{null_mut, without_provenance_mut};

/// Stand-ins with the pinned signatures. The lists are not interlocked: each test uses its own.
mod kernel {
    use ksync_sys::*;
    use std::ptr::null_mut;

    #[unsafe(no_mangle)]
    unsafe extern "system-unwind" fn KeBugCheckEx(code: ULONG, first: ULONG_PTR, _: ULONG_PTR, _: ULONG_PTR, _: ULONG_PTR) -> ! {
        panic!("bug check {code:#x} {first}");
    }
    const _: ksync_sys::KeBugCheckEx = KeBugCheckEx;

    #[unsafe(no_mangle)]
    unsafe extern "system-unwind" fn KeInitializeEvent(event: *mut KEVENT, kind: EVENT_TYPE, state: BOOLEAN) {
        let links = LIST_ENTRY { Flink: null_mut(), Blink: null_mut() };
        let header = DISPATCHER_HEADER {
            Type: kind as u8,
            Signalling: 0,
            Size: (size_of::<KEVENT>() / 4) as u8,
            Inserted: 0,
            SignalState: state.into(),
            WaitListHead: links,
        };
        // SAFETY: by the caller's contract.
        unsafe { event.write(KEVENT { Header: header }) }
    }
    const _: ksync_sys::KeInitializeEvent = KeInitializeEvent;

    #[unsafe(no_mangle)]
    unsafe extern "system-unwind" fn KsimInitializeSpinLock(_: *mut KSPIN_LOCK) {}

    #[unsafe(no_mangle)]
    unsafe extern "system-unwind" fn KfRaiseIrql(level: KIRQL) -> KIRQL {
        level - 1
    }
    const _: ksync_sys::KfRaiseIrql = KfRaiseIrql;

    #[unsafe(no_mangle)]
    unsafe extern "system-unwind" fn KeAcquireSpinLockRaiseToDpc(lock: *mut KSPIN_LOCK) -> KIRQL {
        // SAFETY: by the caller's contract.
        unsafe { lock.write(1) };
        APC_LEVEL
    }
    const _: ksync_sys::KeAcquireSpinLockRaiseToDpc = KeAcquireSpinLockRaiseToDpc;

    #[unsafe(no_mangle)]
    unsafe extern "system-unwind" fn ExpInterlockedPopEntrySList(list: *mut SLIST_HEADER) -> *mut SLIST_ENTRY {
        // SAFETY: by the caller's contract.
        let list = unsafe { &mut *list };
        let first: *mut SLIST_ENTRY = std::ptr::with_exposed_provenance_mut(list.Region as usize);
        if !first.is_null() {
            // SAFETY: entries of a list are valid.
            list.Region = unsafe { (*first).Next }.expose_provenance() as u64;
            list.Alignment -= 1;
        }
        first
    }
    const _: ksync_sys::ExpInterlockedPopEntrySList = ExpInterlockedPopEntrySList;

    #[unsafe(no_mangle)]
    unsafe extern "system-unwind" fn ExpInterlockedPushEntrySList(
        list: *mut SLIST_HEADER,
        entry: *mut SLIST_ENTRY,
    ) -> *mut SLIST_ENTRY {
        // SAFETY: by the caller's contract.
        let list = unsafe { &mut *list };
        let first: *mut SLIST_ENTRY = std::ptr::with_exposed_provenance_mut(list.Region as usize);
        // SAFETY: by the caller's contract.
        unsafe { (*entry).Next = first };
        list.Region = entry.expose_provenance() as u64;
        list.Alignment += 1;
        first
    }
    const _: ksync_sys::ExpInterlockedPushEntrySList = ExpInterlockedPushEntrySList;

    #[unsafe(no_mangle)]
    unsafe extern "system-unwind" fn ExQueryDepthSList(list: *mut SLIST_HEADER) -> USHORT {
        // SAFETY: by the caller's contract.
        unsafe { (*list).Alignment as USHORT }
    }
    const _: ksync_sys::ExQueryDepthSList = ExQueryDepthSList;
}

const NO_LINKS: LIST_ENTRY = LIST_ENTRY { Flink: null_mut(), Blink: null_mut() };

/// A list of at most four entries that stays in place.
struct List {
    /// The head, then the entries.
    nodes: Box<[LIST_ENTRY; 5]>,
}

impl List {
    fn new() -> Self {
        let mut list = Self { nodes: Box::new([NO_LINKS; 5]) };
        // SAFETY: the head is the list's own and stays in place.
        unsafe { InitializeListHead(list.at(0)) };
        list
    }

    fn at(&mut self, index: usize) -> *mut LIST_ENTRY {
        self.nodes.as_mut_ptr().wrapping_add(index)
    }

    fn index(&mut self, entry: *mut LIST_ENTRY) -> usize {
        (entry.addr() - self.at(0).addr()) / size_of::<LIST_ENTRY>()
    }

    fn push_back(&mut self, index: usize) {
        let (head, entry) = (self.at(0), self.at(index));
        // SAFETY: head and entry are the list's own; the entry is in no list.
        unsafe { InsertTailList(head, entry) }
    }

    fn push_front(&mut self, index: usize) {
        let (head, entry) = (self.at(0), self.at(index));
        // SAFETY: as above.
        unsafe { InsertHeadList(head, entry) }
    }

    fn pop_front(&mut self) -> usize {
        // SAFETY: the head is initialised.
        let entry = unsafe { RemoveHeadList(self.at(0)) };
        self.index(entry)
    }

    fn pop_back(&mut self) -> usize {
        // SAFETY: the head is initialised.
        let entry = unsafe { RemoveTailList(self.at(0)) };
        self.index(entry)
    }

    fn remove(&mut self, index: usize) -> bool {
        // SAFETY: the callers name entries of the list.
        unsafe { RemoveEntryList(self.at(index)) != FALSE }
    }

    fn is_empty(&mut self) -> bool {
        // SAFETY: the head is initialised.
        unsafe { IsListEmpty(self.at(0)) != FALSE }
    }

    /// The entries by following `Flink`, and by following `Blink`.
    fn walk(&mut self) -> (Vec<usize>, Vec<usize>) {
        let (mut forth, mut back) = (Vec::new(), Vec::new());
        let mut at = self.index(self.nodes[0].Flink);
        while at != 0 {
            forth.push(at);
            let next = self.nodes[at].Flink;
            at = self.index(next);
        }
        at = self.index(self.nodes[0].Blink);
        while at != 0 {
            back.push(at);
            let next = self.nodes[at].Blink;
            at = self.index(next);
        }
        back.reverse();
        (forth, back)
    }
}

#[test]
fn lists_keep_their_order_in_both_directions() {
    let mut list = List::new();
    assert!(list.is_empty());
    list.push_back(1);
    list.push_back(2);
    list.push_front(3);
    list.push_back(4);
    assert!(!list.is_empty());
    assert_eq!(list.walk(), (vec![3, 1, 2, 4], vec![3, 1, 2, 4]));
    assert!(!list.remove(1));
    assert_eq!(list.walk(), (vec![3, 2, 4], vec![3, 2, 4]));
    assert_eq!(list.pop_front(), 3);
    assert_eq!(list.pop_back(), 4);
    assert!(list.remove(2), "the list is empty now");
    assert!(list.is_empty());
    assert_eq!(list.pop_front(), 0, "an empty list returns its head");
    assert_eq!(list.pop_back(), 0, "an empty list returns its head");
}

#[test]
fn a_damaged_list_stops_the_machine() {
    let message = |result: Result<(), Box<dyn std::any::Any + Send>>| *result.unwrap_err().downcast::<String>().unwrap();
    for operation in [
        (|list: &mut List| list.push_back(3)) as fn(&mut List),
        |list| list.push_front(3),
        |list| {
            list.pop_front();
        },
        |list| {
            list.pop_back();
        },
        |list| {
            list.remove(1);
        },
    ] {
        let result = catch_unwind(|| {
            let mut list = List::new();
            list.push_back(1);
            list.push_back(2);
            list.nodes[1].Blink = list.at(1);
            operation(&mut list);
        });
        assert_eq!(message(result), "bug check 0x139 3");
    }
}

#[test]
fn singly_linked_lists_are_stacks() {
    let mut head = SINGLE_LIST_ENTRY { Next: null_mut() };
    let mut entries = [head; 2];
    let [first, second] = entries.each_mut().map(|entry| &raw mut *entry);
    // SAFETY: the head is valid.
    assert!(unsafe { PopEntryList(&raw mut head) }.is_null());
    for entry in [first, second] {
        // SAFETY: head and entry are valid, and the entry is in no list.
        unsafe { PushEntryList(&raw mut head, entry) };
    }
    for entry in [second, first, null_mut()] {
        // SAFETY: the head is valid.
        assert_eq!(unsafe { PopEntryList(&raw mut head) }, entry);
    }
}

#[test]
fn a_fast_mutex_is_free_and_its_event_clear() {
    let mut mutex = MaybeUninit::<FAST_MUTEX>::zeroed();
    // SAFETY: the memory is a mutex's.
    unsafe { ExInitializeFastMutex(mutex.as_mut_ptr()) };
    // SAFETY: it is initialised, and all zero before that.
    let mutex = unsafe { mutex.assume_init() };
    assert_eq!((mutex.Count, mutex.Owner, mutex.Contention), (1, null_mut(), 0));
    assert_eq!(mutex.Event.Header.Type, EventSynchronizationObject as u8);
    assert_eq!(mutex.Event.Header.SignalState, 0);
}

#[test]
fn macros_that_assign_write_through_their_pointer() {
    let (mut lock, mut old) = (7, HIGH_LEVEL);
    // SAFETY: the lock is a local.
    unsafe { KeInitializeSpinLock(&raw mut lock) };
    assert_eq!(lock, 0);
    // SAFETY: lock and level are locals.
    unsafe { KeAcquireSpinLock(&raw mut lock, &raw mut old) };
    assert_eq!((lock, old), (1, APC_LEVEL));
    // SAFETY: the level is a local.
    unsafe { KeRaiseIrql(HIGH_LEVEL, &raw mut old) };
    assert_eq!(old, HIGH_LEVEL - 1);
}

#[test]
fn structures_are_filled_in_as_the_macros_do() {
    let mut name = UNICODE_STRING { Length: 0, MaximumLength: 0, Buffer: null_mut() };
    let mut attributes = MaybeUninit::uninit();
    let (root, descriptor) = (without_provenance_mut(8), without_provenance_mut(16));
    // SAFETY: the attributes are written.
    unsafe {
        InitializeObjectAttributes(attributes.as_mut_ptr(), &raw mut name, OBJ_KERNEL_HANDLE, root, descriptor);
    }
    // SAFETY: they have been.
    let attributes = unsafe { attributes.assume_init() };
    assert_eq!(attributes.Length, 48);
    assert_eq!((attributes.ObjectName, attributes.Attributes), (&raw mut name, OBJ_KERNEL_HANDLE));
    assert_eq!((attributes.RootDirectory, attributes.SecurityDescriptor), (root, descriptor));
    assert!(attributes.SecurityQualityOfService.is_null());

    let mut set = EXT_SET_PARAMETERS { Version: 9, Reserved: 9, NoWakeTolerance: 9 };
    // SAFETY: the parameters are a local.
    unsafe { ExInitializeSetTimerParameters(&raw mut set) };
    assert_eq!((set.Version, set.Reserved, set.NoWakeTolerance), (0, 0, 0));

    let mut delete = MaybeUninit::uninit();
    // SAFETY: the parameters are written.
    unsafe { ExInitializeDeleteTimerParameters(delete.as_mut_ptr()) };
    // SAFETY: they have been.
    let delete: EXT_DELETE_PARAMETERS = unsafe { delete.assume_init() };
    assert!(delete.DeleteCallback.is_none() && delete.DeleteContext.is_null());
    assert_eq!((delete.Version, delete.Reserved), (0, 0));

    assert_eq!((NtCurrentProcess().addr(), ZwCurrentThread().addr()), (usize::MAX, usize::MAX - 1));
}

unsafe extern "system-unwind" fn allocate(pool: POOL_TYPE, size: SIZE_T, tag: ULONG) -> PVOID {
    assert_eq!((pool, size, tag), (NonPagedPoolNx, 32, 0x6B73_796E));
    Box::into_raw(Box::new([SLIST_ENTRY { Next: null_mut() }; 2])).cast()
}

unsafe extern "system-unwind" fn free(entry: PVOID) {
    // SAFETY: `allocate` made it.
    drop(unsafe { Box::from_raw(entry.cast::<[SLIST_ENTRY; 2]>()) });
}

unsafe extern "system-unwind" fn allocate_ex(pool: POOL_TYPE, size: SIZE_T, tag: ULONG, list: *mut LOOKASIDE_LIST_EX) -> PVOID {
    assert!(!list.is_null());
    // SAFETY: by the caller's contract.
    unsafe { allocate(pool, size, tag) }
}

unsafe extern "system-unwind" fn free_ex(entry: PVOID, list: *mut LOOKASIDE_LIST_EX) {
    assert!(!list.is_null());
    // SAFETY: by the caller's contract.
    unsafe { free(entry) }
}

/// A list that keeps one entry.
fn lookaside(allocate: LOOKASIDE_ALLOCATE, free: LOOKASIDE_FREE) -> GENERAL_LOOKASIDE_POOL {
    GENERAL_LOOKASIDE_POOL {
        ListHead: SLIST_HEADER { Alignment: 0, Region: 0 },
        Depth: 1,
        MaximumDepth: 256,
        TotalAllocates: 0,
        AllocateMisses: 0,
        TotalFrees: 0,
        FreeMisses: 0,
        Type: NonPagedPoolNx,
        Tag: 0x6B73_796E,
        Size: 32,
        Allocate: allocate,
        Free: free,
        ListEntry: NO_LINKS,
        LastTotalAllocates: 0,
        LastAllocateMisses: 0,
        Future: [0; 2],
    }
}

/// Takes two entries, gives both back, takes one and gives it to the pool.
fn use_lookaside(list: *mut GENERAL_LOOKASIDE_POOL, allocate: impl Fn() -> PVOID, free: impl Fn(PVOID)) {
    let (first, second) = (allocate(), allocate());
    assert!(!first.is_null() && !second.is_null() && first != second);
    free(first);
    free(second);
    assert_eq!(allocate(), first, "the kept entry is used again");
    free(first);
    // SAFETY: the caller's list.
    let kept = unsafe { (*list).ListHead.Region } as usize;
    assert_eq!(kept, first.addr());
    // SAFETY: the caller's list.
    let list = unsafe { list.read() };
    assert_eq!((list.TotalAllocates, list.AllocateMisses), (3, 2));
    assert_eq!((list.TotalFrees, list.FreeMisses), (3, 1));
    // SAFETY: the list holds it no more, for it is not used again.
    unsafe { self::free(first) };
}

#[test]
fn lookaside_lists_keep_entries_up_to_their_depth() {
    let allocate = LOOKASIDE_ALLOCATE { Allocate: Some(allocate) };
    let free = LOOKASIDE_FREE { Free: Some(free) };
    let mut list = MaybeUninit::<NPAGED_LOOKASIDE_LIST>::zeroed();
    let pointer = list.as_mut_ptr();
    // SAFETY: it begins with what is written; the rest is zero.
    unsafe { pointer.cast::<GENERAL_LOOKASIDE_POOL>().write(lookaside(allocate, free)) };
    use_lookaside(
        pointer.cast(),
        // SAFETY: the list is initialised.
        || unsafe { ExAllocateFromNPagedLookasideList(pointer) },
        // SAFETY: the entry came from the list.
        |entry| unsafe { ExFreeToNPagedLookasideList(pointer, entry) },
    );

    let mut list = MaybeUninit::<PAGED_LOOKASIDE_LIST>::zeroed();
    let pointer = list.as_mut_ptr();
    // SAFETY: as above.
    unsafe { pointer.cast::<GENERAL_LOOKASIDE_POOL>().write(lookaside(allocate, free)) };
    use_lookaside(
        pointer.cast(),
        // SAFETY: the list is initialised.
        || unsafe { ExAllocateFromPagedLookasideList(pointer) },
        // SAFETY: the entry came from the list.
        |entry| unsafe { ExFreeToPagedLookasideList(pointer, entry) },
    );
    assert_eq!(offset_of!(PAGED_LOOKASIDE_LIST, L), 0);
}

#[test]
fn lookaside_lists_of_the_newer_kind_pass_themselves_on() {
    let allocate = LOOKASIDE_ALLOCATE { AllocateEx: Some(allocate_ex) };
    let free = LOOKASIDE_FREE { FreeEx: Some(free_ex) };
    let mut list = LOOKASIDE_LIST_EX { L: lookaside(allocate, free) };
    let pointer = &raw mut list;
    use_lookaside(
        pointer.cast(),
        // SAFETY: the list is initialised.
        || unsafe { ExAllocateFromLookasideListEx(pointer) },
        // SAFETY: the entry came from the list.
        |entry| unsafe { ExFreeToLookasideListEx(pointer, entry) },
    );
}
