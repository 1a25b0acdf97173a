//! Boxes in nonpaged pool.

use core::mem::MaybeUninit;
use core::pin::Pin;
use core::sync::atomic::{AtomicU32, Ordering};
use ksim::{Machine, OsProfile};
use ksync::NtError;
use ksync::error::Result;
use ksync::init::{init_from_closure, pin_init_from_closure};
use ksync::irql::{self, Irql};
use ksync::pool::{KArc, KBox, TAG};
use ksync::thread::{self, this_thread};
use std::rc::Rc;

fn on_machine(code: impl FnOnce() -> Result) {
    Machine::new().run(|| code().unwrap()).expect_clean();
}

/// Defects ksync 46, wdk-mutex 10: alignments above what the pool gives by itself are honoured.
#[test]
fn any_alignment_is_honoured() {
    #[repr(align(32))]
    struct By32([u8; 3]);
    #[repr(align(4096))]
    struct By4096(u8);
    #[repr(align(256))]
    struct By256([u8; 300]);
    on_machine(|| {
        for _ in 0..10 {
            let (a, b, c) = (KBox::new(By32([1, 2, 3]))?, KBox::new(By4096(4))?, KBox::new(By256([5; 300]))?);
            assert_eq!((&raw const *a).addr() % 32, 0);
            assert_eq!((&raw const *b).addr() % 4096, 0);
            assert_eq!((&raw const *c).addr() % 256, 0);
            assert_eq!((a.0, b.0, c.into_inner().0), ([1, 2, 3], 4, [5; 300]));
        }
        Ok(())
    });
}

#[test]
fn values_without_size_take_no_memory() {
    Machine::new()
        .fail_allocation(1)
        .run(|| {
            let nothing = KBox::new(()).unwrap();
            assert_eq!(*nothing, ());
            let empty = KBox::new([0u64; 0]).unwrap();
            assert_eq!(empty.into_inner(), [0_u64; 0]);
        })
        .expect_clean();
}

#[test]
fn values_are_dropped_once() {
    on_machine(|| {
        let value = Rc::new(());
        let boxed = KBox::new(value.clone())?;
        assert_eq!(Rc::strong_count(&value), 2);
        drop(boxed);
        assert_eq!(Rc::strong_count(&value), 1);
        let inner = KBox::new(value.clone())?.into_inner();
        assert_eq!(Rc::strong_count(&value), 2);
        drop(inner);
        let raw = KBox::into_raw(KBox::new(value.clone())?);
        assert_eq!(Rc::strong_count(&value), 2);
        // SAFETY: the pointer is taken back once.
        drop(unsafe { KBox::from_raw(raw) });
        let pinned: Pin<KBox<_>> = KBox::new(value.clone())?.into();
        drop(pinned);
        assert_eq!(Rc::strong_count(&value), 1);
        Ok(())
    });
}

#[test]
fn a_box_of_another_type_is_made_by_its_pointer() {
    on_machine(|| {
        let value = Rc::new(5);
        let boxed = KBox::new(value.clone())?;
        let raw = boxed.into_raw() as *mut dyn core::fmt::Debug;
        // SAFETY: the pointer is taken back once, unsized.
        let boxed = unsafe { KBox::from_raw(raw) };
        assert_eq!(format!("{boxed:?}"), "5");
        drop(boxed);
        assert_eq!(Rc::strong_count(&value), 1);
        Ok(())
    });
}

#[test]
fn a_value_without_memory_comes_back() {
    Machine::new()
        .fail_allocation(1)
        .run(|| {
            let failure = KBox::try_new_with(String::from("kept")).unwrap_err();
            assert_eq!((failure.value.as_str(), failure.error), ("kept", NtError::INSUFFICIENT_RESOURCES));
            assert_eq!(*KBox::new(1).unwrap(), 1);
        })
        .expect_clean();
}

#[test]
fn a_failed_initialiser_leaves_nothing() {
    on_machine(|| {
        // SAFETY: the closure fails, and wrote nothing that would have to be dropped.
        let fails = unsafe { pin_init_from_closure::<u32, NtError>(|_| Err(NtError::NOT_SUPPORTED)) };
        assert_eq!(KBox::pin_init(fails).map(drop), Err(NtError::NOT_SUPPORTED));
        let writes = |slot: *mut u32| {
            // SAFETY: the slot is valid for writes.
            unsafe { slot.write(5) };
            Ok::<(), core::convert::Infallible>(())
        };
        // SAFETY: the closure writes the value and does not fail.
        assert_eq!(*KBox::init(unsafe { init_from_closure(writes) })?, 5);
        Ok(())
    });
}

/// Defect wdk-mutex 11: an allocation above DISPATCH_LEVEL is an error and not a bug check.
#[test]
fn levels_are_checked() {
    on_machine(|| {
        irql::with_raised(Irql::DISPATCH, || drop(KBox::new(1).unwrap()))?;
        // SAFETY: the level is above the present one, and taken back below.
        let old = unsafe { ksync::sys::KfRaiseIrql(3) };
        let result = KBox::new(1).map(drop);
        // SAFETY: as above.
        unsafe { ksync::sys::KeLowerIrql(old) };
        assert_eq!(result, Err(NtError::IRQL_TOO_HIGH));
        Ok(())
    });
}

#[test]
fn a_box_dropped_above_dispatch_level_is_leaked_whole() {
    let outcome = Machine::new().run(|| {
        let value = Rc::new(());
        let boxed = KBox::new(value.clone()).unwrap();
        // SAFETY: the level is above the present one, and taken back below.
        let old = unsafe { ksync::sys::KfRaiseIrql(3) };
        drop(boxed);
        // SAFETY: as above.
        unsafe { ksync::sys::KeLowerIrql(old) };
        assert_eq!(Rc::strong_count(&value), 2);
    });
    assert!(outcome.is_completed(), "{outcome:?}");
    assert_eq!(outcome.left().pool_bytes(), 8);
}

/// The older routine does where the newer one is not exported, and where it cannot be looked for; both leave zeros.
#[test]
fn both_allocators_zero() {
    for profile in [OsProfile::Windows8, OsProfile::Windows11] {
        for level in [Irql::PASSIVE, Irql::DISPATCH] {
            Machine::new()
                .profile(profile)
                .run(|| {
                    irql::with_raised(level, || {
                        for _ in 0..3 {
                            let memory: KBox<MaybeUninit<[u8; 100]>> = KBox::<[u8; 100]>::new_uninit().unwrap();
                            // SAFETY: bytes have no invalid values, and all are written by the allocator.
                            assert_eq!(*unsafe { memory.assume_init() }, [0; 100]);
                        }
                    })
                    .unwrap();
                })
                .expect_clean();
        }
    }
}

#[test]
fn the_tag_reads_ksyn() {
    assert_eq!(TAG.to_le_bytes(), *b"ksyn");
}

#[test]
fn shared_values_are_dropped_once_by_whoever_is_last() {
    struct Counted<'a>(&'a AtomicU32);
    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    for processors in [1, 2, 4, 64] {
        for seed in 0..20 {
            let drops = AtomicU32::new(0);
            Machine::new()
                .processors(processors)
                .seed(seed)
                .run(|| {
                    let shared = KArc::new(Counted(&drops)).unwrap();
                    thread::scope(|scope| {
                        for _ in 0..4 {
                            let owner = shared.clone();
                            scope
                                .spawn(move || {
                                    let second = owner.clone();
                                    drop(owner);
                                    this_thread::pause().unwrap();
                                    assert_eq!(second.0.load(Ordering::Relaxed), 0);
                                })
                                .unwrap();
                        }
                        drop(shared);
                    });
                    assert_eq!(drops.load(Ordering::Relaxed), 1);
                })
                .expect_clean();
        }
    }
}

#[test]
fn shared_values_need_memory_and_a_level() {
    Machine::new()
        .fail_allocation(1)
        .run(|| {
            assert_eq!(KArc::new(1).unwrap_err(), NtError::INSUFFICIENT_RESOURCES);
            let shared = KArc::new(String::from("shared")).unwrap();
            assert_eq!(format!("{shared} {shared:?}"), "shared \"shared\"");
            irql::with_raised(Irql::DISPATCH, || drop(shared)).unwrap();
        })
        .expect_clean();
    let outcome = Machine::new().run(|| {
        let shared = KArc::new(1).unwrap();
        // SAFETY: the level is restored below.
        let old = unsafe { ksync::sys::KfRaiseIrql(5) };
        drop(shared);
        // SAFETY: the level was raised above from this one.
        unsafe { ksync::sys::KeLowerIrql(old) };
    });
    assert!(outcome.debug_output()[0].contains("leaked"));
    assert_eq!(outcome.left().pool.len(), 1);
}
