//! Pool as an allocator: alignments, sizes of zero, levels, collections, and every allocation failing in turn.
#![cfg_attr(feature = "nightly", feature(allocator_api))]

use allocator_api2::alloc::{AllocError, Allocator};
use allocator_api2::boxed::Box;
use allocator_api2::vec::Vec;
use core::ptr::NonNull;
use ksim::{Machine, OsProfile, Outcome};
use ksync::alloc::{NonPaged, Paged, Pool, PoolAlloc, PoolAllocator, is_valid_tag, tag};
use ksync::irql::{self, Irql};
use ksync::pool::{KBox, NotAllocated};
use ksync::{NtError, sys};
use proptest::prelude::*;
use static_assertions::{assert_eq_size, assert_impl_all};
use std::alloc::{GlobalAlloc, Layout};
use std::rc::Rc;

assert_impl_all!(NonPaged: Allocator, GlobalAlloc, Send, Sync, Copy, Default);
assert_impl_all!(Paged: Allocator, Send, Sync, Copy, Default);
assert_impl_all!(Vec<u8, NonPaged>: Send, Sync);
// The allocator takes no room.
assert_eq_size!(Box<u8, Paged>, *mut u8);

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
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

/// Fills memory and checks that it is all there.
fn fill(memory: NonNull<[u8]>, byte: u8) {
    // SAFETY: the memory is the caller's, and bytes may be written to all of it.
    let bytes = unsafe { &mut *(memory.as_ptr() as *mut [core::mem::MaybeUninit<u8>]) };
    bytes.fill(core::mem::MaybeUninit::new(byte));
}

/// The bytes of memory that has been written.
fn bytes<'a>(memory: NonNull<[u8]>) -> &'a [u8] {
    // SAFETY: the callers have written all of it, and free it later.
    unsafe { memory.as_ref() }
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

/// Defects ksync 46 and wdk-mutex 10, and the official `wdk-alloc`'s: alignments above what the pool gives by itself are honoured.
fn any_alignment<A: PoolAllocator>() {
    let outcome = Machine::new().run(|| {
        let pool = A::default();
        for shift in 0..=16 {
            for size in [1, 8, 15, 16, 17, 100, 4095, 4096, 4097, 10_000] {
                let layout = layout(size, 1 << shift);
                let memory = [(); 4].map(|()| pool.allocate(layout).unwrap());
                for memory in memory {
                    assert!(memory.cast::<u8>().addr().get().is_multiple_of(layout.align()), "{layout:?}");
                    assert_eq!(memory.len(), size);
                    fill(memory, 0xaa);
                }
                for memory in memory {
                    assert!(bytes(memory).iter().all(|&byte| byte == 0xaa));
                    // SAFETY: the memory is this allocator's, with this layout.
                    unsafe { pool.deallocate(memory.cast(), layout) };
                }
            }
        }
    });
    outcome.expect_clean();
}

#[test]
fn any_alignment_is_honoured_in_nonpaged_pool() {
    any_alignment::<NonPaged>();
}

#[test]
fn any_alignment_is_honoured_in_paged_pool() {
    any_alignment::<Paged<{ tag(b"Page") }>>();
}

/// A size that a large alignment makes overflow is refused like one that the pool has not.
#[test]
fn sizes_beyond_reason_are_refused() {
    Machine::new()
        .run(|| {
            let pool = NonPaged::new();
            assert_eq!(pool.allocate(layout(isize::MAX as usize, 1)), Err(AllocError));
            assert_eq!(pool.allocate(layout(1, 1 << 62)), Err(AllocError));
            assert_eq!(pool.allocate(layout(isize::MAX as usize - (1 << 62) + 1, 1 << 62)), Err(AllocError));
        })
        .expect_clean();
}

#[test]
fn sizes_of_zero_take_no_memory_at_any_level() {
    let outcome = Machine::new().run(|| {
        let pool = Paged::new();
        let none = layout(0, 64);
        let memory = above_dispatch_level(|| pool.allocate(none)).unwrap();
        assert_eq!((memory.len(), memory.cast::<u8>().addr().get() % 64), (0, 0));
        // SAFETY: the memory is this allocator's, with this layout.
        above_dispatch_level(|| unsafe { pool.deallocate(memory.cast(), none) });

        // From nothing to something and back.
        // SAFETY: the memory is this allocator's, with this layout.
        let some = unsafe { pool.grow(memory.cast(), none, layout(10, 64)) }.unwrap();
        fill(some, 1);
        // SAFETY: as above.
        let none = unsafe { pool.shrink(some.cast(), layout(10, 64), layout(0, 8)) }.unwrap();
        assert_eq!(none.len(), 0);
    });
    assert_eq!(outcome.expect_clean().statistics().allocations, 1);
}

#[test]
fn zeroed_is_zero_and_growth_keeps_the_contents() {
    for profile in [OsProfile::Windows8, OsProfile::Windows11] {
        let outcome = Machine::new().profile(profile).run(|| {
            let pool = NonPaged::new();
            for align in [1, 16, 32, 4096] {
                let memory = pool.allocate_zeroed(layout(100, align)).unwrap();
                assert_eq!(bytes(memory), [0; 100]);
                fill(memory, 7);
                // SAFETY: the memory is this allocator's, with this layout.
                let memory = unsafe { pool.grow_zeroed(memory.cast(), layout(100, align), layout(300, align)) }.unwrap();
                assert_eq!(bytes(memory)[..100], [7; 100]);
                assert_eq!(bytes(memory)[100..], [0; 200]);
                fill(memory, 8);
                // SAFETY: as above.
                unsafe { pool.deallocate(memory.cast(), layout(300, align)) };
            }
        });
        outcome.expect_clean();
    }
}

/// By more and by less than half, and with other alignments, too.
#[test]
fn shrinking_keeps_the_contents() {
    for align in [1, 16, 32, 4096] {
        Machine::new().run(|| shrink_step_by_step(align)).expect_clean();
    }
}

fn shrink_step_by_step(align: usize) {
    let (pool, mut old) = (NonPaged::new(), layout(1000, align));
    let mut memory = pool.allocate(old).unwrap();
    fill(memory, 9);
    for new in [layout(990, align), layout(600, 1), layout(300, 16), layout(299, 32), layout(100, 4096), layout(3, 1)] {
        // SAFETY: the memory is this allocator's, with the layout before.
        memory = unsafe { pool.shrink(memory.cast(), old, new) }.unwrap();
        assert!(memory.cast::<u8>().addr().get().is_multiple_of(new.align()));
        assert_eq!(memory.len(), new.size());
        assert!(bytes(memory).iter().all(|&byte| byte == 9));
        old = new;
    }
    // SAFETY: as above.
    unsafe { pool.deallocate(memory.cast(), old) };
}

/// Paged pool ends at `APC_LEVEL`, nonpaged pool at `DISPATCH_LEVEL`; above, there is an error and no bug check.
#[test]
fn levels_are_checked() {
    let outcome = Machine::new().run(|| {
        let paged = || Box::try_new_in(1_u8, Paged::new()).is_ok();
        let nonpaged = || Box::try_new_in(1_u8, NonPaged::new()).is_ok();
        assert!(irql::with_raised(Irql::APC, paged).unwrap());
        assert!(!irql::with_raised(Irql::DISPATCH, paged).unwrap());
        assert!(!above_dispatch_level(paged));
        assert!(irql::with_raised(Irql::DISPATCH, nonpaged).unwrap());
        assert!(!above_dispatch_level(nonpaged));
        // SAFETY: the layout has a size.
        assert!(above_dispatch_level(|| unsafe { PoolAlloc::new().alloc(layout(1, 1)) }).is_null());
    });
    outcome.expect_clean();
}

#[test]
fn what_is_freed_at_too_high_a_level_is_leaked_and_reported() {
    let outcome = Machine::new().run(|| {
        let memory = Paged::new().allocate(layout(40, 64)).unwrap();
        // SAFETY: the memory is this allocator's, with this layout.
        irql::with_raised(Irql::DISPATCH, || unsafe { Paged::new().deallocate(memory.cast(), layout(40, 64)) }).unwrap();
        // Above DISPATCH_LEVEL nothing can be printed either.
        let number = Box::try_new_in(1_u64, NonPaged::new()).unwrap();
        above_dispatch_level(|| drop(number));
    });
    assert!(outcome.is_completed(), "{outcome}");
    assert_eq!(outcome.left().pool.iter().map(|block| block.size).collect::<std::vec::Vec<_>>(), [104, 8]);
    let [line] = outcome.debug_output() else { panic!("{outcome:?}") };
    assert!(line.starts_with("ksync: ") && line.ends_with(" cannot be freed at IRQL 2 and is leaked"), "{line}");
}

/// A resize at too high a level leaves all as it was.
#[test]
fn a_failed_resize_changes_nothing() {
    Machine::new()
        .run(|| {
            let mut numbers = Vec::new_in(NonPaged::new());
            numbers.try_reserve_exact(3).unwrap();
            numbers.extend([1, 2, 3]);
            above_dispatch_level(|| assert!(numbers.try_reserve(100).is_err()));
            assert_eq!(numbers[..], [1, 2, 3]);
        })
        .expect_clean();
}

#[test]
fn tags_are_in_the_type_and_in_the_pool() {
    let outcome = Machine::new().run(|| {
        core::mem::forget(Box::try_new_in(1_u8, NonPaged::<{ tag(b"Tour") }>::tagged()).unwrap());
        core::mem::forget(Box::try_new_in(1_u8, Paged::new()).unwrap());
    });
    assert_eq!(outcome.left().pool.iter().map(|block| &*block.tag).collect::<std::vec::Vec<_>>(), ["Tour", "ksyn"]);
    assert_eq!(format!("{:?}", NonPaged::<{ tag(b"Tour") }>::tagged()), "NonPaged('Tour')");
    assert_eq!(format!("{:?}", Paged::new()), "Paged('ksyn')");
    assert_eq!((<NonPaged as PoolAllocator>::POOL, <Paged as PoolAllocator>::POOL), (Pool::NonPaged, Pool::Paged));
}

#[test]
fn invalid_tags_are_known() {
    for valid in [b"ksyn", b"a   ", b"1234", b"~~z~", b"BIGx"] {
        assert!(is_valid_tag(tag(valid)), "{valid:?}");
    }
    for invalid in [b"\0\0\0\0", b"BIG ", b"****", b"    ", b"abc\0", b"ab\x7fc", b"ab\xe4c"] {
        assert!(!is_valid_tag(tag(invalid)), "{invalid:?}");
    }
}

#[test]
fn collections_drop_what_they_hold_once() {
    Machine::new()
        .run(|| {
            let counted = Rc::new(());
            let mut values = Vec::new_in(NonPaged::new());
            for _ in 0..100 {
                values.try_reserve(1).unwrap();
                values.push(counted.clone());
            }
            values.truncate(50);
            values.shrink_to_fit();
            assert_eq!((Rc::strong_count(&counted), values.len()), (51, 50));
            let boxed = values.into_boxed_slice();
            drop(boxed);
            assert_eq!(Rc::strong_count(&counted), 1);
        })
        .expect_clean();
}

#[test]
fn the_global_allocator_does_what_alloc_needs() {
    static ALLOCATOR: PoolAlloc<{ tag(b"Glob") }> = PoolAlloc::tagged();
    let outcome = Machine::new().run(|| {
        for align in [1, 8, 16, 64, 4096] {
            let old = layout(100, align);
            // SAFETY: the layout has a size.
            let memory = unsafe { ALLOCATOR.alloc_zeroed(old) };
            assert!(memory.addr().is_multiple_of(align));
            // SAFETY: the memory is so large, and zeroed.
            assert_eq!(unsafe { core::slice::from_raw_parts(memory, 100) }, [0; 100]);
            // SAFETY: the memory is so large.
            unsafe { memory.write_bytes(3, 100) };
            // SAFETY: the memory is the allocator's, with this layout.
            let memory = unsafe { ALLOCATOR.realloc(memory, old, 5000) };
            assert!(memory.addr().is_multiple_of(align));
            // SAFETY: so much was kept.
            assert_eq!(unsafe { core::slice::from_raw_parts(memory, 100) }, [3; 100]);
            // SAFETY: as above.
            let memory = unsafe { ALLOCATOR.realloc(memory, layout(5000, align), 90) };
            assert!(memory.addr().is_multiple_of(align));
            // SAFETY: so much was kept.
            assert_eq!(unsafe { core::slice::from_raw_parts(memory, 90) }, [3; 90]);
            // A size that no layout can have is refused, and the memory stays.
            // SAFETY: as above.
            assert!(unsafe { ALLOCATOR.realloc(memory, layout(90, align), usize::MAX) }.is_null());
            // SAFETY: as above.
            unsafe { ALLOCATOR.dealloc(memory, layout(90, align)) };
        }
    });
    outcome.expect_clean();
}

/// A realloc for which there is no memory leaves the old memory as it was.
#[test]
fn a_failed_realloc_keeps_the_memory() {
    let outcome = Machine::new().fail_allocation(2).run(|| {
        let pool = PoolAlloc::new();
        // SAFETY: the layout has a size.
        let memory = unsafe { pool.alloc(layout(1, 1)) };
        // SAFETY: the memory is so large.
        unsafe { memory.write(5) };
        // SAFETY: the memory is the allocator's, with this layout.
        assert!(unsafe { pool.realloc(memory, layout(1, 1), 100) }.is_null());
        // SAFETY: it was not moved.
        assert_eq!(unsafe { memory.read() }, 5);
        // SAFETY: as above.
        unsafe { pool.dealloc(memory, layout(1, 1)) };
    });
    outcome.expect_clean();
}

#[test]
fn no_failing_allocation_leaks_boxes() {
    every_allocation_fails_in_turn(|| {
        #[repr(align(64))]
        struct Wide(#[expect(dead_code, reason = "held for its drop")] Rc<()>);
        let counted = Rc::new(());
        let _one = KBox::new(counted.clone());
        let _two = KBox::new(Wide(counted.clone()));
        let _nested = KBox::new(counted.clone()).and_then(KBox::new);
        if let Err(NotAllocated { value, error }) = KBox::try_new_with(counted.clone()) {
            assert!(Rc::ptr_eq(&value, &counted) && error == NtError::INSUFFICIENT_RESOURCES);
        }
        let _paged = Box::try_new_in(counted.clone(), Paged::new());
    });
}

#[test]
fn no_failing_allocation_leaks_collections() {
    every_allocation_fails_in_turn(|| {
        let counted = Rc::new(());
        let mut values = Vec::new_in(NonPaged::new());
        for _ in 0..40 {
            match values.try_reserve(1) {
                Ok(()) => values.push(Box::try_new_in(counted.clone(), Paged::new())),
                Err(_) => break,
            }
        }
        let kept = values.iter().filter(|value| value.is_ok()).count();
        assert_eq!(Rc::strong_count(&counted), kept + 1);
        drop(values);
        assert_eq!(Rc::strong_count(&counted), 1);
    });
}

/// With a nightly compiler, Rust's own collections take the allocators.
#[cfg(feature = "nightly")]
#[test]
fn rusts_own_collections_take_the_allocators() {
    use ksync::lookaside::LookasideAlloc;
    Machine::new()
        .run(|| {
            let number = std::boxed::Box::try_new_in(5, NonPaged::new()).unwrap();
            let mut numbers = std::vec::Vec::new_in(Paged::new());
            numbers.try_reserve(1).unwrap();
            numbers.push(*number);
            assert_eq!(numbers, [5]);
            let list = LookasideAlloc::default();
            list.init(16, Pool::NonPaged, None, None, None, None).unwrap();
            // As in seed 003.
            let ctx = std::boxed::Box::try_new_in(10_u32, &list).unwrap();
            assert_eq!((*ctx, list.entries()), (10, 1));
            let mut words = std::vec::Vec::new_in(&list);
            words.try_reserve_exact(2).unwrap();
            words.extend(["look", "aside"].map(str::len));
            assert!(words.try_reserve_exact(1).is_err());
            assert!(std::boxed::Box::try_new_in([0_u64; 3], &list).is_err());
        })
        .expect_clean();
}

/// One thing done to one of eight blocks.
#[derive(Clone, Copy, Debug)]
struct Step {
    slot: usize,
    size: usize,
    shift: u32,
    zeroed: bool,
}

fn steps() -> impl Strategy<Value = std::vec::Vec<Step>> {
    let step = (0..8_usize, prop_oneof![0..40_usize, 0..9000_usize], 0..14_u32, any::<bool>())
        .prop_map(|(slot, size, shift, zeroed)| Step { slot, size, shift, zeroed });
    proptest::collection::vec(step, 1..60)
}

/// Resizes blocks to whatever layout, and checks them byte by byte.
fn carry_out(steps: &[Step]) -> Outcome {
    Machine::new().run(|| {
        let pool = NonPaged::new();
        let mut blocks: [Option<(NonNull<[u8]>, Layout)>; 8] = [None; 8];
        for (n, step) in steps.iter().enumerate() {
            let new = layout(step.size, 1 << step.shift);
            let byte = (n % 250) as u8 + 1;
            let (memory, kept) = match blocks[step.slot] {
                None if step.zeroed => (pool.allocate_zeroed(new).unwrap(), 0),
                None => (pool.allocate(new).unwrap(), 0),
                Some((old, layout)) => {
                    let before = bytes(old).first().copied();
                    let memory = match (new.size() >= layout.size(), step.zeroed) {
                        // SAFETY: the block is this allocator's, with this layout.
                        (true, false) => unsafe { pool.grow(old.cast(), layout, new) },
                        // SAFETY: as above.
                        (true, true) => unsafe { pool.grow_zeroed(old.cast(), layout, new) },
                        // SAFETY: as above.
                        (false, _) => unsafe { pool.shrink(old.cast(), layout, new) },
                    }
                    .unwrap();
                    let kept = layout.size().min(new.size());
                    // SAFETY: so many bytes were written, and kept.
                    let contents = unsafe { core::slice::from_raw_parts(memory.cast::<u8>().as_ptr(), kept) };
                    assert!(contents.iter().all(|&byte| Some(byte) == before));
                    (memory, kept)
                }
            };
            assert!(memory.cast::<u8>().addr().get().is_multiple_of(new.align()));
            assert_eq!(memory.len(), new.size());
            let grown = blocks[step.slot].is_none_or(|(_, layout)| new.size() >= layout.size());
            if step.zeroed && grown {
                assert!(bytes(memory)[kept..].iter().all(|&byte| byte == 0));
            }
            fill(memory, byte);
            blocks[step.slot] = Some((memory, new));
        }
        for (memory, layout) in blocks.into_iter().flatten() {
            // SAFETY: the block is this allocator's, with this layout.
            unsafe { pool.deallocate(memory.cast(), layout) };
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_sequence_of_resizes_keeps_the_contents(steps in steps()) {
        carry_out(&steps).expect_clean();
    }
}
