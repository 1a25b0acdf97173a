//! Lookaside lists: what win-lookaside gets wrong, calls in every order and from every processor, and every allocation failing in turn.
//!
//! The tests that begin with `defect_` carry the numbers of `docs/defects.md`, section win-lookaside.

use allocator_api2::alloc::{AllocError, Allocator};
use allocator_api2::boxed::Box;
use allocator_api2::vec::Vec;
use core::cell::Cell;
use core::ffi::c_void;
use core::pin::Pin;
use core::ptr::NonNull;
use ksim::{Machine, OsProfile};
use ksync::alloc::{NonPaged, Paged, Pool, tag};
use ksync::error::NtError;
use ksync::init::pin_init_from_closure;
use ksync::irql::{self, Irql};
use ksync::lookaside::{AllocateFn, FreeFn, Lookaside, LookasideAlloc, LookasideBox, LookasideError, Statistics};
use ksync::sys;
use static_assertions::{assert_impl_all, assert_not_impl_any};
use std::alloc::Layout;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::MutexGuard;
use test_support::threads::crowd;

// A list holds no values, so that it can be used from everywhere, whatever its type.
assert_impl_all!(LookasideAlloc: Send, Sync, Allocator);
assert_impl_all!(&LookasideAlloc: Allocator);
assert_impl_all!(Lookaside<u8>: Send, Sync);
assert_impl_all!(Lookaside<Rc<u8>, Paged>: Send, Sync);
// A box is as good as its value.
assert_impl_all!(LookasideBox<'static, u8>: Send, Sync, Unpin);
assert_impl_all!(LookasideBox<'static, Cell<u8>>: Send);
assert_not_impl_any!(LookasideBox<'static, Cell<u8>>: Sync);
assert_impl_all!(LookasideBox<'static, MutexGuard<'static, u8>>: Sync);
assert_not_impl_any!(LookasideBox<'static, MutexGuard<'static, u8>>: Send);
assert_not_impl_any!(LookasideBox<'static, Rc<u8>>: Send, Sync);
assert_impl_all!(LookasideBox<'static, core::marker::PhantomPinned>: Unpin);
assert_impl_all!(AllocateFn: Send, Sync, Copy);
assert_impl_all!(FreeFn: Send, Sync, Copy);
assert_impl_all!(LookasideError: Send, Sync, core::error::Error);
// Defect 2: what would have to be copied with care cannot be copied.
assert_not_impl_any!(LookasideAlloc: Clone);

/// How many schedules each search looks at.
const SEEDS: u64 = 200;

fn on_machine(code: impl FnOnce()) {
    Machine::new().run(code).expect_clean();
}

/// A list for entries of a size.
fn list_of(size: usize, pool: Pool) -> LookasideAlloc {
    let list = LookasideAlloc::default();
    list.init(size, pool, None, None, None, None).unwrap();
    list
}

/// Runs code above `DISPATCH_LEVEL`.
fn above_dispatch_level<R>(code: impl FnOnce() -> R) -> R {
    // SAFETY: the level is above the present one, and taken back below.
    let old = unsafe { sys::KfRaiseIrql(5) };
    let result = code();
    // SAFETY: as above.
    unsafe { sys::KeLowerIrql(old) };
    result
}

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

#[test]
fn defect_1_what_does_not_fit_is_refused() {
    on_machine(|| {
        let list = list_of(8, Pool::NonPaged);
        assert!(Box::try_new_in([0_u8; 4096], &list).is_err());
        for (size, align) in [(9, 1), (4096, 64), (8, 32), (1, 4096), (isize::MAX as usize, 1)] {
            assert_eq!(list.allocate(layout(size, align)), Err(AllocError), "{size} aligned to {align}");
        }
        assert_eq!((list.entries(), list.statistics().unwrap().allocates), (0, 0));
        let fits = list.allocate(layout(8, 16)).unwrap();
        assert_eq!(fits.len(), 8);
        // SAFETY: the entry is the list's, with this layout.
        unsafe { list.deallocate(fits.cast(), layout(8, 16)) };
    });
}

#[test]
fn defect_2_the_list_stays_where_it_is_when_its_owner_moves() {
    on_machine(|| {
        let list = list_of(8, Pool::NonPaged);
        let boxed = Box::try_new_in(5_u64, list).unwrap();
        let mut owners = vec![boxed];
        for n in 0..100 {
            owners.push(Box::try_new_in(n, list_of(8, Pool::Paged)).unwrap());
        }
        owners.swap(0, 50);
        assert_eq!(*owners[50], 5);
    });
}

#[test]
fn defect_3_destroying_twice_and_initialising_twice() {
    on_machine(|| {
        let list = LookasideAlloc::default();
        assert_eq!(list.destroy(), Ok(()));
        for _ in 0..3 {
            assert_eq!(list.init(8, Pool::NonPaged, None, None, None, None), Ok(()));
            assert_eq!(list.init(16, Pool::Paged, None, None, None, None), Err(LookasideError::AlreadyInitialized));
            assert_eq!(list.entry_size(), Some(8));
            assert_eq!(list.destroy(), Ok(()));
            assert_eq!(list.destroy(), Ok(()));
            assert_eq!(list.entry_size(), None);
        }
        list.init(8, Pool::NonPaged, None, None, None, None).unwrap();
        // And once more when it is dropped.
    });
}

#[test]
fn defect_4_a_list_that_is_not_initialised_is_not_used() {
    on_machine(|| {
        let list = LookasideAlloc::default();
        for _ in 0..2 {
            assert_eq!(list.alloc(), Err(LookasideError::Uninitialized));
            assert_eq!(list.allocate(layout(1, 1)), Err(AllocError));
            assert_eq!(list.flush(), Err(LookasideError::Uninitialized));
            assert_eq!(list.statistics(), Err(LookasideError::Uninitialized));
            assert_eq!((list.entry_size(), list.entries()), (None, 0));
            assert_eq!(format!("{list:?}"), "LookasideAlloc { state: Uninitialized }");
            list.init(1, Pool::NonPaged, None, None, None, None).unwrap();
            list.destroy().unwrap();
        }
    });
}

/// The hosted kernel checks the list's own alignment when it is initialised (0xC4/0xCB).
#[test]
fn defect_5_list_and_entries_are_aligned_to_16_bytes() {
    on_machine(|| {
        for size in [1, 8, 24, 40, 4096, 5000] {
            let list = list_of(size, Pool::NonPaged);
            let entries = [(); 8].map(|()| list.alloc().unwrap());
            for entry in entries {
                assert!(entry.addr().get().is_multiple_of(16));
                // SAFETY: the entry is so large.
                unsafe { entry.write_bytes(0xff, size) };
                // SAFETY: the entry is the list's.
                unsafe { list.free(entry) };
            }
        }
    });
}

/// A thread that is preempted within an allocation is no obstacle to one at `DISPATCH_LEVEL`, on its processor or another.
#[test]
fn defect_6_nobody_spins_for_a_preempted_thread() {
    for seed in 0..SEEDS {
        Machine::new()
            .processors(2)
            .seed(seed)
            .run(|| {
                let list = Lookaside::<usize>::new().unwrap();
                crowd(4, |id| {
                    let turn = || {
                        let value = list.alloc(id).unwrap();
                        assert_eq!(*value, id);
                    };
                    for _ in 0..5 {
                        if id % 2 == 0 { turn() } else { irql::with_raised(Irql::DISPATCH, turn).unwrap() }
                    }
                });
            })
            .expect_clean();
    }
}

#[test]
fn defect_7_levels_are_checked_and_exceptions_refused() {
    on_machine(|| {
        let raise = Some(sys::EX_LOOKASIDE_LIST_EX_FLAGS_RAISE_ON_FAIL);
        let list = LookasideAlloc::default();
        assert_eq!(list.init(8, Pool::NonPaged, None, raise, None, None), Err(LookasideError::RaiseOnFail));
        assert_eq!(list.init(8, Pool::NonPaged, None, Some(3), None, None), Err(LookasideError::RaiseOnFail));
        assert_eq!(list.init(8, Pool::NonPaged, None, Some(4), None, None), Err(LookasideError::InvalidFlags(4)));
        let no_raise = Some(sys::EX_LOOKASIDE_LIST_EX_FLAGS_FAIL_NO_RAISE);
        assert_eq!(list.init(8, Pool::NonPaged, None, no_raise, None, None), Ok(()));

        for (pool, at_dispatch) in [(Pool::Paged, Err(LookasideError::IrqlTooHigh)), (Pool::NonPaged, Ok(()))] {
            let list = list_of(8, pool);
            let too_high = Err(LookasideError::IrqlTooHigh);
            let pair = || {
                let entry = list.alloc()?;
                // SAFETY: the entry is the list's.
                unsafe { list.free(entry) };
                Ok(())
            };
            assert_eq!(irql::with_raised(Irql::APC, pair), Ok(Ok(())));
            assert_eq!(irql::with_raised(Irql::DISPATCH, pair), Ok(at_dispatch));
            assert_eq!(above_dispatch_level(pair), too_high);
            assert_eq!(irql::with_raised(Irql::DISPATCH, || list.flush()), Ok(at_dispatch));
            assert_eq!(above_dispatch_level(|| list.flush()), too_high);
            // Figures are to be had everywhere.
            assert!(above_dispatch_level(|| list.statistics()).is_ok());
            assert_eq!(above_dispatch_level(|| list.destroy()), too_high);
            assert!(list.entry_size().is_some(), "a refused destruction leaves the list");
            assert_eq!(irql::with_raised(Irql::DISPATCH, || list.destroy()), Ok(at_dispatch));
            assert_eq!(list.destroy(), Ok(()));
            assert_eq!(above_dispatch_level(|| list.init(8, pool, None, None, None, None)), too_high);
            assert_eq!(irql::with_raised(Irql::DISPATCH, || list.init(8, pool, None, None, None, None)), Ok(Ok(())));
        }
    });
}

#[test]
fn defect_8_growing_and_shrinking_never_panic() {
    on_machine(|| {
        let list = list_of(32, Pool::NonPaged);
        let mut numbers = Vec::new_in(&list);
        numbers.try_reserve(1).unwrap();
        let place: *const u64 = numbers.as_ptr();
        numbers.extend([1_u64, 2, 3, 4]);
        assert!(numbers.try_reserve(1).is_err());
        numbers.truncate(1);
        numbers.shrink_to_fit();
        numbers.try_reserve_exact(3).unwrap();
        assert_eq!((&numbers[..], numbers.as_ptr(), list.entries()), (&[1][..], place, 1));
        numbers.clear();
        numbers.shrink_to_fit();
        assert_eq!((numbers.capacity(), list.entries()), (0, 0));
        numbers.try_reserve(4).unwrap();
        assert!(numbers.try_reserve(5).is_err());
    });
}

/// The same in the trait's own words, with alignments.
#[test]
fn defect_8_a_block_resizes_within_its_entry_only() {
    on_machine(|| {
        let list = list_of(64, Pool::NonPaged);
        let old = list.allocate(layout(10, 1)).unwrap().cast();
        // SAFETY: here and below: the memory is the list's, with this layout.
        let place = unsafe { list.grow(old, layout(10, 1), layout(64, 16)) }.unwrap();
        assert_eq!((place.cast(), place.len()), (old, 64));
        // SAFETY: as above.
        assert_eq!(unsafe { list.grow(old, layout(64, 16), layout(65, 16)) }, Err(AllocError));
        // SAFETY: as above.
        assert_eq!(unsafe { list.grow_zeroed(old, layout(64, 16), layout(64, 32)) }, Err(AllocError));
        // SAFETY: as above.
        assert_eq!(unsafe { list.shrink(old, layout(64, 16), layout(5, 32)) }, Err(AllocError));
        // SAFETY: as above.
        let place = unsafe { list.shrink(old, layout(64, 16), layout(5, 4)) }.unwrap();
        assert_eq!((place.cast(), place.len()), (old, 5));
        // SAFETY: the memory is so large.
        unsafe { old.write_bytes(1, 64) };
        // SAFETY: as above.
        let place = unsafe { list.grow_zeroed(old, layout(5, 4), layout(40, 4)) }.unwrap();
        // SAFETY: all of it is written.
        let bytes = unsafe { place.as_ref() };
        assert!(bytes[..5] == [1; 5] && bytes[5..] == [0; 35]);
        // SAFETY: as above.
        let none = unsafe { list.shrink(old, layout(40, 4), layout(0, 4)) }.unwrap();
        assert_eq!((none.len(), list.entries()), (0, 0));
        // SAFETY: as above.
        unsafe { list.deallocate(none.cast(), layout(0, 4)) };
        assert_eq!(list.statistics().unwrap().frees, 1);
    });
}

#[test]
fn defect_9_zeroed_memory_is_zero_though_the_entry_was_used() {
    on_machine(|| {
        let list = list_of(64, Pool::Paged);
        let entry = list.alloc().unwrap();
        // SAFETY: the entry is so large.
        unsafe { entry.write_bytes(0xee, 64) };
        // SAFETY: the entry is the list's.
        unsafe { list.free(entry) };
        let zeroed = list.allocate_zeroed(layout(64, 8)).unwrap();
        assert_eq!(zeroed.cast(), entry, "the list kept the entry");
        // SAFETY: all of it is written.
        assert_eq!(unsafe { zeroed.as_ref() }, [0; 64]);
        // SAFETY: the entry is the list's.
        unsafe { list.deallocate(zeroed.cast(), layout(64, 8)) };
    });
}

#[test]
fn defect_10_errors_say_what_they_mean() {
    let errors = [
        (LookasideError::Uninitialized, "the lookaside list is not initialised", NtError::INVALID_DEVICE_STATE),
        (LookasideError::AlreadyInitialized, "the lookaside list is initialised already", NtError::INVALID_DEVICE_STATE),
        (LookasideError::Busy, "the lookaside list is in use by a call that excludes this one", NtError::INVALID_DEVICE_STATE),
        (LookasideError::EntriesOut(1), "1 entry of the lookaside list was not given back", NtError::INVALID_DEVICE_STATE),
        (LookasideError::EntriesOut(2), "2 entries of the lookaside list were not given back", NtError::INVALID_DEVICE_STATE),
        (
            LookasideError::DoesNotFit(layout(9, 8)),
            "9 bytes aligned to 8 do not fit into an entry of the lookaside list",
            NtError::INVALID_PARAMETER,
        ),
        (
            LookasideError::InvalidSize(1 << 32),
            "a lookaside list cannot have entries of 4294967296 bytes",
            NtError::INVALID_PARAMETER,
        ),
        (LookasideError::InvalidTag(0x2a), r"the pool takes no tag 0x2a '*\x00\x00\x00'", NtError::INVALID_PARAMETER),
        (LookasideError::InvalidFlags(8), "lookaside lists know no flags 0x8", NtError::INVALID_PARAMETER),
        (
            LookasideError::RaiseOnFail,
            "a lookaside list must not raise an exception when an allocation fails",
            NtError::INVALID_PARAMETER,
        ),
        (LookasideError::NoMemory, "there is no pool", NtError::INSUFFICIENT_RESOURCES),
        (LookasideError::IrqlTooHigh, "the IRQL is too high", NtError::IRQL_TOO_HIGH),
        (LookasideError::Refused(NtError::NOT_SUPPORTED), "STATUS_NOT_SUPPORTED", NtError::NOT_SUPPORTED),
    ];
    for (error, text, status) in errors {
        let error: &dyn core::error::Error = &error;
        assert_eq!(error.to_string(), text);
        assert_eq!(NtError::from(*error.downcast_ref::<LookasideError>().unwrap()), status);
    }
    on_machine(|| {
        let list = LookasideAlloc::default();
        for bad in [0, tag(b"BIG "), tag(b"****")] {
            assert_eq!(list.init(8, Pool::NonPaged, Some(bad), None, None, None), Err(LookasideError::InvalidTag(bad)));
        }
        let size = 1 << 32;
        assert_eq!(list.init(size, Pool::NonPaged, None, None, None, None), Err(LookasideError::InvalidSize(size)));
    });
}

#[test]
fn defect_10_figures_flush_and_what_is_out() {
    on_machine(|| {
        let list = list_of(8, Pool::NonPaged);
        let boxes = [(); 6].map(|()| Box::try_new_in(1_u64, &list).unwrap());
        assert_eq!(list.destroy(), Err(LookasideError::EntriesOut(6)));
        drop(boxes);
        // A fresh list keeps four (the hosted kernel's depth), so that two were freed.
        let figures = list.statistics().unwrap();
        assert_eq!((figures.entries, figures.kept, figures.depth, figures.lost), (0, 4, 4, 0));
        assert_eq!((figures.allocates, figures.allocate_misses, figures.allocate_hits()), (6, 6, 0));
        assert_eq!((figures.frees, figures.free_misses, figures.free_hits()), (6, 2, 4));
        drop([(); 2].map(|()| Box::try_new_in(1_u64, &list).unwrap()));
        assert_eq!(list.statistics().unwrap().allocate_hits(), 2);
        list.flush().unwrap();
        assert_eq!(list.statistics().unwrap().kept, 0);
        assert!(format!("{list:?}").contains("allocates: 8"), "{list:?}");
    });
}

#[test]
fn entries_that_are_out_when_the_list_is_dropped_are_leaked_and_reported() {
    let outcome = Machine::new().run(|| {
        let list = list_of(48, Pool::NonPaged);
        drop([(); 3].map(|()| Box::try_new_in(1_u64, &list).unwrap()));
        let number = Box::leak(Box::try_new_in(7_u64, &list).unwrap());
        assert_eq!(*number, 7);
    });
    assert!(outcome.is_completed(), "{outcome}");
    assert_eq!(outcome.left().pool_bytes(), 48);
    let [line] = outcome.debug_output() else { panic!("{outcome:?}") };
    assert!(line.starts_with("ksync: lookaside list ") && line.ends_with(" with 1 entries out, which are leaked"), "{line}");
}

/// What is pinned is not overwritten, even if its box is forgotten and its list dropped.
#[test]
fn a_forgotten_pinned_value_stays_for_ever() {
    let outcome = Machine::new().run(|| {
        let list = Lookaside::<[u64; 2]>::new().unwrap();
        let place: *const [u64; 2] = &raw const **core::mem::ManuallyDrop::new(list.alloc_pin([1, 2]).unwrap());
        drop(list);
        let other = Lookaside::<[u64; 2]>::new().unwrap();
        let _others = [(); 20].map(|()| other.alloc([3, 4]).unwrap());
        // SAFETY: the value was pinned and never dropped, so its memory is still its own.
        assert_eq!(unsafe { place.read() }, [1, 2]);
    });
    assert!(outcome.is_completed(), "{outcome}");
}

#[test]
fn what_is_freed_at_too_high_a_level_is_leaked_and_counted() {
    let outcome = Machine::new().run(|| {
        let list = list_of(24, Pool::Paged);
        let entry = list.alloc().unwrap();
        // SAFETY: the entry is the list's.
        irql::with_raised(Irql::DISPATCH, || unsafe { list.free(entry) }).unwrap();
        let figures = list.statistics().unwrap();
        assert_eq!((figures.entries, figures.lost, figures.frees), (0, 1, 0));
        // It is gone, and does not keep the list.
        assert_eq!(list.destroy(), Ok(()));

        let counted = Rc::new(());
        let values = Lookaside::<_, Paged>::new().unwrap();
        let value = values.alloc(counted.clone()).unwrap();
        irql::with_raised(Irql::DISPATCH, || drop(value)).unwrap();
        assert_eq!((Rc::strong_count(&counted), values.entries()), (2, 0));
    });
    assert!(outcome.is_completed(), "{outcome}");
    assert_eq!(outcome.left().pool_bytes(), 24 + 8);
    assert!(outcome.debug_output().iter().all(|line| line.ends_with("cannot be freed at IRQL 2 and is leaked")), "{outcome:?}");
    assert_eq!(outcome.debug_output().len(), 2);
}

/// The list's memory must not be freed with the list in it: all of it stays.
#[test]
fn a_list_dropped_at_too_high_a_level_is_leaked() {
    let outcome = Machine::new().run(|| {
        let list = list_of(8, Pool::Paged);
        irql::with_raised(Irql::DISPATCH, || drop(list)).unwrap();
        let list = list_of(8, Pool::NonPaged);
        above_dispatch_level(|| drop(list));
    });
    assert!(outcome.is_completed(), "{outcome}");
    assert_eq!((outcome.left().pool.len(), outcome.debug_output().len()), (2, 1));
}

thread_local! {
    /// Entries that the two functions below have allocated and not freed.
    static BALANCE: Cell<i32> = const { Cell::new(0) };
}

unsafe extern "system-unwind" fn counting_allocate(
    pool: sys::POOL_TYPE,
    size: usize,
    tag: u32,
    list: *mut sys::LOOKASIDE_LIST_EX,
) -> *mut c_void {
    assert!(list.is_aligned());
    BALANCE.set(BALANCE.get() + 1);
    // SAFETY: the list passes what it was initialised with.
    unsafe { sys::ExAllocatePoolWithTag(pool, size, tag) }
}

unsafe extern "system-unwind" fn counting_free(entry: *mut c_void, _: *mut sys::LOOKASIDE_LIST_EX) {
    BALANCE.set(BALANCE.get() - 1);
    // SAFETY: the list passes an entry of its own.
    unsafe { sys::ExFreePool(entry) };
}

#[test]
fn functions_of_the_drivers_own_are_called_in_any_combination() {
    // SAFETY: the function returns what the pool gave.
    let allocate = unsafe { AllocateFn::new(counting_allocate) };
    // SAFETY: the function frees what came from the pool.
    let free = unsafe { FreeFn::new(counting_free) };
    for (allocate, free) in [(Some(allocate), Some(free)), (Some(allocate), None), (None, Some(free))] {
        BALANCE.set(0);
        let outcome = Machine::new().run(|| {
            let list = LookasideAlloc::default();
            list.init(40, Pool::NonPaged, Some(tag(b"Mine")), None, allocate, free).unwrap();
            drop([(); 10].map(|()| Box::try_new_in([1_u64; 5], &list).unwrap()));
            let expected = i32::from(allocate.is_some()) * 10 - i32::from(free.is_some()) * 6;
            assert_eq!(BALANCE.get(), expected);
        });
        outcome.expect_clean();
        assert_eq!(BALANCE.get(), 10 * (i32::from(allocate.is_some()) - i32::from(free.is_some())));
    }
    assert!(format!("{allocate:?} {free:?}").starts_with("AllocateFn(0x"));
}

/// A panic in a function of the driver's own ends the machine; on the way out nothing is freed twice or used after it is freed.
#[test]
fn a_function_that_panics_leaves_the_list_whole() {
    unsafe extern "system-unwind" fn panics(_: sys::POOL_TYPE, _: usize, _: u32, _: *mut sys::LOOKASIDE_LIST_EX) -> *mut c_void {
        panic!("no more")
    }
    let outcome = Machine::new().run(|| {
        let list = LookasideAlloc::default();
        // SAFETY: the function returns nothing at all.
        list.init(8, Pool::NonPaged, None, None, Some(unsafe { AllocateFn::new(panics) }), None).unwrap();
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| list.alloc()));
        assert!(unwound.is_err());
        assert_eq!(list.entries(), 0);
        assert_eq!(list.destroy(), Ok(()));
    });
    assert!(outcome.bug_check().is_none(), "{outcome}");
}

#[test]
fn entries_carry_the_tag() {
    let outcome = Machine::new().run(|| {
        let list = LookasideAlloc::default();
        list.init(8, Pool::NonPaged, Some(tag(b"aabb")), None, None, None).unwrap();
        let _ = list.alloc().unwrap();
        list.alloc().map(drop).unwrap();
        let typed = Lookaside::<u64, Paged<{ tag(b"Rqst") }>>::new().unwrap();
        core::mem::forget(typed.alloc(1).unwrap());
    });
    let tags: std::vec::Vec<_> = outcome.left().pool.iter().map(|block| (&*block.tag, block.size)).collect();
    assert_eq!(tags, [("aabb", 8), ("aabb", 8), ("Rqst", 8)]);
}

#[test]
fn it_works_on_old_and_new_systems() {
    for profile in [OsProfile::Windows7, OsProfile::Windows10, OsProfile::Windows11] {
        Machine::new()
            .profile(profile)
            .run(|| {
                let list = Lookaside::<u8>::new().unwrap();
                assert_eq!(*list.alloc(1).unwrap(), 1);
            })
            .expect_clean();
    }
}

#[test]
fn boxes_drop_their_value_once() {
    on_machine(|| {
        let counted = Rc::new(());
        let list = Lookaside::<Rc<()>>::new().unwrap();
        let (a, b) = (list.alloc(counted.clone()).unwrap(), list.alloc(counted.clone()).unwrap());
        assert_eq!((Rc::strong_count(&counted), list.entries()), (3, 2));
        drop(a);
        assert_eq!((Rc::strong_count(&counted), list.entries()), (2, 1));
        let inner = LookasideBox::into_inner(b);
        assert_eq!((Rc::strong_count(&counted), list.entries()), (2, 0));
        drop(inner);
        // Through a pointer, as C code would hold it.
        let pointer = LookasideBox::into_raw(list.alloc(counted.clone()).unwrap());
        assert_eq!(list.destroy(), Err(LookasideError::EntriesOut(1)));
        // SAFETY: the pointer is of a box of this list, and is taken back once.
        drop(unsafe { list.from_raw(pointer) });
        // Memory without a value, and with one written later.
        drop(list.alloc_uninit().unwrap());
        drop(list.alloc_uninit().unwrap().write(counted.clone()));
        assert_eq!((Rc::strong_count(&counted), list.entries()), (1, 0));
    });
}

#[test]
fn boxes_behave_like_their_value() {
    on_machine(|| {
        let list = Lookaside::<u32>::new().unwrap();
        let mut number = list.alloc(5).unwrap();
        *number += 1;
        *number.as_mut() += 1;
        assert_eq!((format!("{number} {number:?}"), *number.as_ref()), ("7 7".to_owned(), 7));
        let mut pinned: Pin<LookasideBox<'_, u32>> = number.into();
        pinned.set(9);
        assert_eq!(*pinned, 9);
        let leaked = LookasideBox::leak(list.alloc(1).unwrap());
        *leaked = 2;
        // The leaked entry keeps the list.
        assert_eq!(list.entries(), 2);
        drop(pinned);
        assert_eq!(list.destroy(), Err(LookasideError::EntriesOut(1)));
        // SAFETY: the pointer is that of a leaked box of this list, and is taken back once.
        assert_eq!(*unsafe { list.from_raw(leaked) }, 2);
    });
}

#[test]
fn a_failed_initialiser_gives_the_entry_back() {
    on_machine(|| {
        let list = Lookaside::<u32>::new().unwrap();
        // SAFETY: the closure fails, and wrote nothing.
        let fails = unsafe { pin_init_from_closure::<u32, NtError>(|_| Err(NtError::NOT_SUPPORTED)) };
        assert_eq!(list.pin_init(fails).map(drop), Err(NtError::NOT_SUPPORTED));
        assert_eq!(list.entries(), 0);
    });
}

#[test]
fn values_without_size_and_with_the_largest_alignment() {
    #[repr(align(16))]
    struct Aligned(u8);
    on_machine(|| {
        let nothing = Lookaside::<()>::new().unwrap();
        let units = [(); 3].map(|()| nothing.alloc(()).unwrap());
        assert_eq!((nothing.entries(), units.len()), (3, 3));
        drop(units);
        let aligned = Lookaside::<Aligned>::new().unwrap();
        let value = aligned.alloc(Aligned(3)).unwrap();
        assert!((&raw const *value).is_aligned() && value.0 == 3);
        // As an allocator, nothing is taken for what has no size.
        let list = list_of(0, Pool::NonPaged);
        let unit = Box::try_new_in((), &list).unwrap();
        assert_eq!((list.entries(), list.entry_size()), (0, Some(8)));
        drop(unit);
        let none = list.allocate(layout(0, 64)).unwrap();
        assert_eq!((none.len(), list.entries()), (0, 0));
        // SAFETY: the memory is the list's, with this layout.
        unsafe { list.deallocate(none.cast(), layout(0, 64)) };
    });
}

/// What happened in the races below, to see that they looked at something.
#[derive(Default)]
struct Seen(RefCell<BTreeSet<String>>);

impl Seen {
    fn note<T>(&self, what: &str, result: &Result<T, LookasideError>) {
        let how = match result {
            Ok(_) => "ok".to_owned(),
            Err(LookasideError::EntriesOut(_)) => "EntriesOut".to_owned(),
            Err(error) => format!("{error:?}"),
        };
        self.0.borrow_mut().insert(format!("{what} {how}"));
    }
}

/// Everything at once, in any order, on four processors: no entry is handed out twice, none is lost, no deleted list is touched.
#[test]
fn races_of_everything_with_everything() {
    let seen = Seen::default();
    for seed in 0..SEEDS {
        let outcome = Machine::new().processors(4).seed(seed).run(|| {
            let list = LookasideAlloc::default();
            let out = RefCell::new(BTreeSet::new());
            let (list, out, seen) = (&list, &out, &seen);
            crowd(4, |id| {
                let mut kept: Option<NonNull<u8>> = None;
                let mut random = seed * 4 + id as u64 + 1;
                for _ in 0..30 {
                    // Which step comes next differs from thread to thread and seed to seed.
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    match (random >> 33) % 8 {
                        0 => seen.note("init", &list.init(16, Pool::NonPaged, None, None, None, None)),
                        1 => seen.note("destroy", &list.destroy()),
                        2 => seen.note("flush", &list.flush()),
                        3 => seen.note("statistics", &list.statistics()),
                        _ => match kept.take() {
                            Some(entry) => {
                                // SAFETY: the entry is this thread's own.
                                assert_eq!(unsafe { entry.cast::<usize>().read() }, id);
                                assert!(out.borrow_mut().remove(&entry));
                                // SAFETY: the entry is the list's.
                                unsafe { list.free(entry) };
                            }
                            None => {
                                let result = list.alloc();
                                seen.note("alloc", &result);
                                if let Ok(entry) = result {
                                    assert!(out.borrow_mut().insert(entry), "an entry was handed out twice");
                                    // SAFETY: the entry is this thread's own, and large enough.
                                    unsafe { entry.cast::<usize>().write(id) };
                                    kept = Some(entry);
                                }
                            }
                        },
                    }
                }
                if let Some(entry) = kept {
                    assert!(out.borrow_mut().remove(&entry));
                    // SAFETY: the entry is the list's.
                    unsafe { list.free(entry) };
                }
            });
            assert_eq!(list.destroy(), Ok(()));
        });
        outcome.expect_clean();
    }
    let seen = seen.0.into_inner();
    for what in [
        "init ok",
        "init AlreadyInitialized",
        "destroy ok",
        "destroy EntriesOut",
        "destroy Busy",
        "alloc ok",
        "alloc Uninitialized",
        "alloc Busy",
        "flush ok",
        "flush Busy",
    ] {
        assert!(seen.contains(what), "{what} was never seen, but {seen:?}");
    }
}

/// A destruction that is called until it succeeds comes after the last entry was given back, and nobody gets one afterwards.
#[test]
fn a_destruction_excludes_what_comes_after() {
    for seed in 0..SEEDS {
        let outcome = Machine::new().processors(4).seed(seed).run(|| {
            let list = LookasideAlloc::default();
            let gone = Cell::new(false);
            list.init(8, Pool::NonPaged, None, None, None, None).unwrap();
            let (list, gone) = (&list, &gone);
            crowd(4, |id| {
                for _ in 0..5 {
                    if id == 0 {
                        match list.destroy() {
                            Ok(()) => gone.set(true),
                            Err(LookasideError::EntriesOut(entries)) => assert!((1..=3).contains(&entries)),
                            Err(error) => panic!("{error}"),
                        }
                    } else {
                        let was_gone = gone.get();
                        match Box::try_new_in(id, list) {
                            Ok(value) => assert!(!was_gone && *value == id),
                            Err(AllocError) => assert!(list.entry_size().is_none()),
                        }
                    }
                }
            });
        });
        outcome.expect_clean();
    }
}

/// Four threads pass boxes of one list around; each is dropped by another thread than the one that made it.
#[test]
fn boxes_are_dropped_in_other_threads() {
    for seed in 0..SEEDS {
        let outcome = Machine::new().processors(4).seed(seed).run(|| {
            let list = Lookaside::<std::boxed::Box<usize>>::new().unwrap();
            let basket = ksync::mutex::SpinLocked::const_new(std::vec::Vec::with_capacity(40));
            crowd(4, |id| {
                for n in 0..10 {
                    let mut basket = basket.lock().unwrap();
                    basket.push(list.alloc(std::boxed::Box::new(id * 10 + n)).unwrap());
                    let other = basket.swap_remove(0);
                    if n % 2 == 0 {
                        basket.push(other);
                    }
                }
            });
            assert_eq!(list.entries() as usize, basket.lock().unwrap().len());
            basket.lock().unwrap().clear();
            assert_eq!(list.entries(), 0);
        });
        outcome.expect_clean();
    }
}

/// Runs code with the first allocation failing, then the second and so on, until it makes fewer. Nothing may be left behind.
fn every_allocation_fails_in_turn(code: impl Fn()) {
    for n in 1.. {
        let outcome = Machine::new().fail_allocation(n).run(&code).expect_clean();
        if outcome.statistics().allocations < n {
            assert!(n > 1, "the code makes no allocation");
            return;
        }
    }
}

#[test]
fn no_failing_allocation_leaks_lists_or_entries() {
    every_allocation_fails_in_turn(|| {
        let list = LookasideAlloc::default();
        match list.init(24, Pool::NonPaged, None, None, None, None) {
            Ok(()) => {}
            Err(LookasideError::NoMemory) => return assert_eq!(list.destroy(), Ok(())),
            Err(error) => panic!("{error}"),
        }
        let boxes: [_; 6] = core::array::from_fn(|n| Box::try_new_in(n, &list));
        assert!(boxes.iter().enumerate().all(|(n, number)| number.as_ref().is_ok_and(|number| **number == n) || number.is_err()));
        assert_eq!(list.entries() as usize, boxes.iter().flatten().count());
    });
}

#[test]
fn no_failing_allocation_leaks_values() {
    every_allocation_fails_in_turn(|| {
        let counted = Rc::new(());
        let Ok(list) = Lookaside::<Rc<()>, NonPaged<{ tag(b"Fail") }>>::new() else { return };
        let values: [_; 6] = core::array::from_fn(|_| list.alloc(counted.clone()));
        let failures = values.iter().filter_map(|value| value.as_ref().err());
        assert!(failures.clone().all(|failure| failure.error == NtError::INSUFFICIENT_RESOURCES));
        assert_eq!((failures.count() + list.entries() as usize, Rc::strong_count(&counted)), (6, 7));
        drop(values);
        assert_eq!((Rc::strong_count(&counted), list.entries()), (1, 0));
    });
}

#[test]
fn figures_can_be_compared_and_printed() {
    on_machine(|| {
        let list = Lookaside::<u8>::new().unwrap();
        let figures: Statistics = list.statistics().unwrap();
        assert_eq!(figures, list.statistics().unwrap());
        assert!(figures.maximum_depth >= figures.depth && format!("{list:?}").starts_with("Lookaside { list: LookasideAlloc"));
        list.flush().unwrap();
    });
}
