//! The registry: names, types, shares, and its end, under many schedules.

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::{Arc, MutexGuard};

use ksim::Machine;
use ksync::NtError;
use ksync::dpc::Dpc;
use ksync::error::Result;
use ksync::event::{Event, EventProperty};
use ksync::grt::{Grt, Handle, HandleGuard, MAX_NAME, Registry};
use ksync::irql::{self, Irql};
use ksync::mutex::{Fast, FastLocked, InStackQueueLocked, KMutex, LockedQueueHandle, Mutex, SpinLocked};
use ksync::thread::{self, this_thread};
use ksync::wait::Dispatchable;
use static_assertions::{assert_impl_all, assert_not_impl_any};

/// How many schedules each search looks at.
const SEEDS: u64 = 100;

/// Runs a test on one processor, cleanly.
fn on_machine(code: impl FnOnce() -> Result) {
    Machine::new().run(|| code().unwrap()).expect_clean();
}

/// Runs a test on four processors under many schedules, cleanly.
fn on_machines(mut code: impl FnMut(u64)) {
    for seed in 0..SEEDS {
        Machine::new().processors(4).seed(seed).run(|| code(seed)).expect_clean();
    }
}

/// Runs one body in several threads.
fn crowd(count: usize, body: impl Fn(usize) + Sync) {
    let body = &body;
    thread::scope(|scope| {
        for i in 0..count {
            let _ = scope.spawn(move || body(i)).unwrap();
        }
    });
}

fn sleep(milliseconds: u64) {
    this_thread::sleep(Duration::from_millis(milliseconds)).unwrap();
}

/// Runs code at a level that guards do not raise to.
fn at_level<R>(level: u8, code: impl FnOnce() -> R) -> R {
    // SAFETY: the level is above the present one, and taken back below.
    let old = unsafe { ksync::sys::KfRaiseIrql(level) };
    let result = code();
    // SAFETY: as above.
    unsafe { ksync::sys::KeLowerIrql(old) };
    result
}

/// A value that counts its drops.
#[derive(Debug)]
struct Counted(Arc<AtomicU32>, u32);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

// ---- As the seed has it ----------------------------------------------------------------------------------------------------------

/// The code of the seed's example, in its order. `Grt::destroy` is safe, so that its `unsafe` block is more than is needed.
#[test]
fn the_seed_s_example() {
    fn driver_entry() -> i32 {
        if let Err(e) = Grt::init() {
            ksync::println!("Error creating Grt!: {:?}", e);
            return -1;
        }
        my_function();
        0
    }

    fn my_function() {
        Grt::register_kmutex("my_test_mutex", 0u32).unwrap();
    }

    fn my_thread_fn() {
        let my_mutex = Grt::get_kmutex::<u32>("my_test_mutex");
        if let Err(e) = my_mutex {
            ksync::println!("Error in thread: {:?}", e);
            return;
        }
        let mut lock = my_mutex.unwrap().lock().unwrap();
        *lock += 1;
    }

    fn driver_exit() {
        #[expect(unused_unsafe, reason = "the seed's destroy is unsafe, and this one is not")]
        // SAFETY: nothing is asked for.
        unsafe { Grt::destroy() }.unwrap();
    }

    on_machines(|_| {
        assert_eq!(driver_entry(), 0);
        crowd(4, |_| (0..5).for_each(|_| my_thread_fn()));
        assert_eq!(*Grt::get_kmutex::<u32>("my_test_mutex").unwrap().lock().unwrap(), 20);
        driver_exit();
        my_thread_fn();
    });
}

#[test]
fn both_kinds_of_mutex_and_anything_else() {
    on_machine(|| {
        Grt::init()?;
        Grt::register_kmutex("k", vec![1])?;
        Grt::register_fast_mutex("fast", vec![2])?;
        Grt::register("spin", SpinLocked::new(3)?)?;
        Grt::register("count", AtomicU32::new(4))?;
        Grt::get_kmutex::<Vec<i32>>("k")?.lock()?.push(10);
        Grt::get_fast_mutex::<Vec<i32>>("fast")?.try_lock()?.push(20);
        *Grt::get::<SpinLocked<i32>>("spin")?.lock()? += 1;
        Grt::get::<AtomicU32>("count")?.fetch_add(1, Ordering::Relaxed);
        assert_eq!(*Grt::get_kmutex::<Vec<i32>>("k")?.lock()?, [1, 10]);
        assert_eq!(*Grt::get::<FastLocked<Vec<i32>>>("fast")?.lock()?, [2, 20]);
        assert_eq!(*Grt::get::<SpinLocked<i32>>("spin")?.lock()?, 4);
        assert_eq!(Grt::get::<AtomicU32>("count")?.load(Ordering::Relaxed), 5);
        for name in ["k", "fast", "spin", "count"] {
            assert_eq!(Grt::register_kmutex_checked(name, 0), Err(NtError::OBJECT_NAME_COLLISION));
            assert_eq!(Grt::register_fast_mutex_checked(name, 0), Err(NtError::OBJECT_NAME_COLLISION));
            assert_eq!(Grt::register_checked(name, 0), Err(NtError::OBJECT_NAME_COLLISION));
        }
        assert_eq!(format!("{:?}", Grt::get::<AtomicU32>("count")?), "5");
        Grt::unregister("count")?;
        Grt::register_checked("count", 6)?;
        assert_eq!(Grt::get::<i32>("count")?.to_string(), "6");
        Grt::destroy()
    });
}

/// Locks whose acquisition asks for more have their own methods.
#[test]
fn locks_of_other_kinds_are_locked_through_the_handle() {
    on_machine(|| {
        let registry = Registry::new();
        registry.register("queue", InStackQueueLocked::new(1)?)?;
        registry.register("kmutex", KMutex::new(1)?)?;
        let queue = registry.get::<InStackQueueLocked<i32>>("queue")?;
        let mut place = core::pin::pin!(LockedQueueHandle::new());
        *queue.lock(&mut place)? += 1;
        assert_eq!(queue.with(|value| *value)?, 2);
        let kmutex = registry.get::<KMutex<i32>>("kmutex")?;
        let guard = kmutex.lock_for(Duration::from_secs(1))?;
        assert_eq!((*kmutex).lock().unwrap_err(), NtError::WOULD_DEADLOCK);
        assert_eq!(kmutex.lock().unwrap_err(), NtError::WOULD_DEADLOCK);
        assert_eq!((*guard, kmutex.with(|value| *value)), (1, Err(NtError::WOULD_DEADLOCK)));
        Ok(())
    });
}

#[test]
fn the_order_of_init_and_destroy() {
    const CLOSED: NtError = NtError::INVALID_DEVICE_STATE;
    on_machine(|| {
        for _ in 0..2 {
            assert_eq!(Grt::register_kmutex("name", 1), Err(CLOSED));
            assert_eq!(Grt::register_fast_mutex_checked("name", 1), Err(CLOSED));
            assert_eq!(Grt::get_kmutex::<i32>("name").unwrap_err(), CLOSED);
            assert_eq!(Grt::unregister("name"), Err(CLOSED));
            assert_eq!(Grt::destroy(), Err(CLOSED));
            Grt::init()?;
            assert_eq!(Grt::init(), Err(CLOSED));
            assert_eq!(Grt::get_kmutex::<i32>("name").unwrap_err(), NtError::NOT_FOUND);
            Grt::register_kmutex("name", 1)?;
            Grt::destroy()?;
        }
        Ok(())
    });
}

// ---- Names and types -------------------------------------------------------------------------------------------------------------

#[test]
fn another_type_is_an_error() {
    on_machine(|| {
        let registry = Registry::new();
        registry.register("name", 1u32)?;
        assert_eq!(registry.get::<i32>("name").unwrap_err(), NtError::OBJECT_TYPE_MISMATCH);
        assert_eq!(registry.get::<KMutex<u32>>("name").unwrap_err(), NtError::OBJECT_TYPE_MISMATCH);
        registry.register("fast", FastLocked::new(1u32)?)?;
        assert_eq!(registry.get::<KMutex<u32>>("fast").unwrap_err(), NtError::OBJECT_TYPE_MISMATCH);
        assert_eq!(registry.get::<FastLocked<i32>>("fast").unwrap_err(), NtError::OBJECT_TYPE_MISMATCH);
        // A name can change its type by being registered again.
        registry.register("name", "text")?;
        assert_eq!(*registry.get::<&str>("name")?, "text");
        Ok(())
    });
}

#[test]
fn names_of_all_lengths() {
    on_machine(|| {
        let registry = Registry::new();
        let longest = "x".repeat(MAX_NAME);
        for name in ["", "a", "a\0", "é", &longest] {
            registry.register_checked(name, name.len())?;
        }
        for name in ["", "a", "a\0", "é", &longest] {
            let handle = registry.get::<usize>(name)?;
            assert_eq!((*handle, Handle::name(&handle)), (name.len(), name));
        }
        let too_long = "x".repeat(MAX_NAME + 1);
        assert_eq!(registry.register(&too_long, 1), Err(NtError::INVALID_PARAMETER));
        assert_eq!(registry.get::<i32>(&too_long).unwrap_err(), NtError::INVALID_PARAMETER);
        assert_eq!(registry.unregister(&too_long), Err(NtError::INVALID_PARAMETER));
        Ok(())
    });
}

#[test]
fn entries_leave_from_anywhere_in_the_list() {
    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    on_machine(|| {
        for removed in 0..16 {
            let registry = Registry::new();
            NAMES.iter().try_for_each(|name| registry.register(name, *name))?;
            for (i, name) in NAMES.iter().enumerate() {
                if removed >> i & 1 == 1 {
                    registry.unregister(name)?;
                }
            }
            for (i, name) in NAMES.iter().enumerate() {
                let expected = if removed >> i & 1 == 1 { Err(NtError::NOT_FOUND) } else { Ok(*name) };
                assert_eq!(registry.get::<&str>(name).map(|handle| *handle), expected);
            }
        }
        Ok(())
    });
}

// ---- Levels ----------------------------------------------------------------------------------------------------------------------

#[test]
fn too_high_a_level_is_an_error() {
    on_machine(|| {
        let registry = Registry::new();
        let drops = Arc::default();
        registry.register("name", 1)?;
        for level in [3, 15] {
            let results = at_level(level, || {
                [
                    registry.register("other", 1),
                    registry.get::<i32>("name").map(drop),
                    registry.unregister("name"),
                    registry.open(),
                    registry.destroy(),
                ]
            });
            assert_eq!(results, [Err(NtError::IRQL_TOO_HIGH); 5]);
        }
        irql::with_raised(Irql::DISPATCH, || {
            registry.register("other", Counted(Arc::clone(&drops), 2)).unwrap();
            assert_eq!(registry.get::<Counted>("other").unwrap().1, 2);
            registry.unregister("other").unwrap();
            assert_eq!(registry.destroy(), Err(NtError::IRQL_TOO_HIGH));
        })?;
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        assert_eq!(*registry.get::<i32>("name")?, 1);
        irql::with_raised(Irql::APC, || registry.destroy())?
    });
}

#[test]
fn a_dpc_finds_values() {
    on_machine(|| {
        Grt::init()?;
        Grt::register("count", AtomicU32::new(0))?;
        let dpc = Dpc::new(|| {
            Grt::get::<AtomicU32>("count").unwrap().fetch_add(1, Ordering::Relaxed);
        })?;
        for _ in 0..3 {
            dpc.enqueue()?;
            dpc.flush()?;
        }
        assert_eq!(Grt::get::<AtomicU32>("count")?.load(Ordering::Relaxed), 3);
        Grt::destroy()
    });
}

/// What can be freed nowhere stays: the last handle is dropped above `DISPATCH_LEVEL`.
#[test]
fn a_handle_that_is_dropped_too_high_is_leaked() {
    let outcome = Machine::new().run(|| {
        let registry = Registry::new();
        registry.register("name", 1).unwrap();
        let handle = registry.get::<i32>("name").unwrap();
        at_level(3, || drop(handle));
        assert_eq!(registry.destroy_within(Duration::from_secs(1)), Err(NtError::TIMEOUT));
    });
    assert_eq!(outcome.expect_completed().left().pool.len(), 1);
}

// ---- Shares ----------------------------------------------------------------------------------------------------------------------

/// Defect wdk-mutex 6: registering a name again dropped the mutex to which references were out.
#[test]
fn wdk_mutex_6_a_name_that_is_registered_again_leaves_references_valid() {
    on_machine(|| {
        Grt::init()?;
        let drops = Arc::default();
        Grt::register_kmutex("name", Counted(Arc::clone(&drops), 1))?;
        let old = Grt::get_kmutex::<Counted>("name")?;
        let locked = old.lock()?;
        Grt::register_kmutex("name", Counted(Arc::clone(&drops), 2))?;
        assert_eq!((locked.1, Grt::get_kmutex::<Counted>("name")?.lock()?.1), (1, 2));
        assert!(!Handle::ptr_eq(&old, &Grt::get_kmutex::<Counted>("name")?));
        drop(old);
        assert_eq!((locked.1, drops.load(Ordering::Relaxed)), (1, 0));
        drop(locked);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        // With nobody using it, it goes at once.
        Grt::register_kmutex("name", Counted(Arc::clone(&drops), 3))?;
        assert_eq!(drops.load(Ordering::Relaxed), 2);
        // And a refused one is dropped too.
        assert!(Grt::register_kmutex_checked("name", Counted(Arc::clone(&drops), 4)).is_err());
        assert_eq!(drops.load(Ordering::Relaxed), 3);
        Grt::destroy()?;
        assert_eq!(drops.load(Ordering::Relaxed), 4);
        Ok(())
    });
}

#[test]
fn a_removed_value_lives_as_long_as_its_handles() {
    on_machine(|| {
        let (registry, drops) = (Registry::new(), Arc::default());
        registry.register("name", Counted(Arc::clone(&drops), 5))?;
        let one = registry.get::<Counted>("name")?;
        let two = one.clone();
        registry.unregister("name")?;
        assert_eq!(registry.get::<Counted>("name").unwrap_err(), NtError::NOT_FOUND);
        assert!(Handle::ptr_eq(&one, &two));
        drop(one);
        assert_eq!((two.1, drops.load(Ordering::Relaxed)), (5, 0));
        drop(two);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        Ok(())
    });
}

#[test]
fn a_registry_that_is_dropped_drops_its_values() {
    on_machine(|| {
        let drops = Arc::default();
        let registry = Registry::default();
        for name in ["a", "b", "c"] {
            registry.register(name, Counted(Arc::clone(&drops), 0))?;
        }
        core::mem::drop(registry.get::<Counted>("b")?);
        assert!(format!("{registry:?}").contains("entries: 3"));
        drop(registry);
        assert_eq!(drops.load(Ordering::Relaxed), 3);
        Ok(())
    });
}

/// A value that uses the registry while it is dropped, and holds another.
#[test]
fn values_may_use_the_registry_while_they_are_dropped() {
    struct Nested(#[expect(dead_code, reason = "it is held")] Handle<'static, u32>);
    impl Drop for Nested {
        fn drop(&mut self) {
            assert!(matches!(Grt::get::<u32>("inner").map(drop), Ok(()) | Err(NtError::DELETE_PENDING | NtError::NOT_FOUND)));
            let _ = Grt::unregister("inner");
        }
    }
    on_machine(|| {
        for order in 0..3 {
            Grt::init()?;
            Grt::register("inner", 1u32)?;
            Grt::register("outer", Nested(Grt::get("inner")?))?;
            match order {
                0 => Grt::unregister("outer")?,
                1 => Grt::register("outer", 5)?,
                _ => {}
            }
            Grt::destroy()?;
        }
        Ok(())
    });
}

// ---- Races -----------------------------------------------------------------------------------------------------------------------

/// Defect wdk-mutex 5: the map was changed and read with no lock.
#[test]
fn wdk_mutex_5_threads_register_find_and_remove_at_once() {
    on_machines(|_| {
        let drops = Arc::new(AtomicU32::new(0));
        let registry = Registry::new();
        let made = AtomicU32::new(0);
        crowd(4, |i| {
            let name = ["a", "b"][i % 2];
            for _ in 0..8 {
                let value = Counted(Arc::clone(&drops), made.fetch_add(1, Ordering::Relaxed));
                if i < 2 {
                    registry.register(name, value).unwrap()
                } else {
                    let _ = registry.register_checked(name, value);
                }
                if let Ok(handle) = registry.get::<Counted>(["a", "b"][(i + 1) % 2]) {
                    let seen = handle.1;
                    let _ = this_thread::pause();
                    assert_eq!(handle.1, seen);
                }
                let _ = registry.unregister(name);
            }
        });
        registry.destroy().unwrap();
        assert_eq!(drops.load(Ordering::Relaxed), made.into_inner());
    });
}

/// Defect wdk-mutex 8: two threads that saw no registry both made one, and two that destroyed it both freed it.
#[test]
fn wdk_mutex_8_one_of_several_inits_and_destroys_succeeds() {
    on_machines(|_| {
        let (inits, destroys) = (AtomicU32::new(0), AtomicU32::new(0));
        crowd(4, |_| match Grt::init() {
            Ok(()) => drop(inits.fetch_add(1, Ordering::Relaxed)),
            Err(error) => assert_eq!(error, NtError::INVALID_DEVICE_STATE),
        });
        Grt::register_kmutex("name", 0).unwrap();
        crowd(4, |_| match Grt::destroy() {
            Ok(()) => drop(destroys.fetch_add(1, Ordering::Relaxed)),
            Err(error) => assert!(matches!(error, NtError::INVALID_DEVICE_STATE | NtError::DELETE_PENDING), "{error}"),
        });
        assert_eq!((inits.into_inner(), destroys.into_inner()), (1, 1));
    });
}

/// Defect wdk-mutex 8: `destroy` invalidated every reference. Here it waits for them.
#[test]
fn wdk_mutex_8_destroy_waits_for_handles_and_guards() {
    on_machines(|seed| {
        Grt::init().unwrap();
        let (k_drops, fast_drops) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        Grt::register_kmutex("k", Counted(Arc::clone(&k_drops), 0)).unwrap();
        Grt::register_fast_mutex("fast", Counted(Arc::clone(&fast_drops), 0)).unwrap();
        let started = Event::new(EventProperty::Notification, false).unwrap();
        let users = AtomicU32::new(0);
        crowd(4, |i| {
            if i == 3 {
                started.wait().ok().unwrap();
                Grt::destroy().unwrap();
                assert_eq!(users.load(Ordering::Relaxed), 0);
                assert_eq!((k_drops.load(Ordering::Relaxed), fast_drops.load(Ordering::Relaxed)), (1, 1));
                return;
            }
            // Some come too late.
            let Ok(k) = Grt::get_kmutex::<Counted>("k") else { return };
            users.fetch_add(1, Ordering::Relaxed);
            let fast = Grt::get_fast_mutex::<Counted>("fast");
            started.set().unwrap();
            let mut guard = k.lock().unwrap();
            guard.1 += 1;
            sleep(seed % 3);
            drop(k);
            if let Ok(fast) = fast {
                fast.lock().unwrap().1 += 1;
                assert_eq!(fast_drops.load(Ordering::Relaxed), 0);
            }
            // What this holds is there, whatever `destroy` does.
            assert_eq!(k_drops.load(Ordering::Relaxed), 0);
            users.fetch_sub(1, Ordering::Relaxed);
            drop(guard);
        });
    });
}

#[test]
fn a_registry_that_is_being_destroyed_takes_nobody_new() {
    on_machines(|_| {
        let registry = Registry::new();
        registry.register("name", 5u32).unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let handle = registry.get::<u32>("name").unwrap();
            let destroying = scope
                .spawn(|| {
                    registry.destroy().unwrap();
                    assert!(done.load(Ordering::Relaxed));
                })
                .unwrap();
            sleep(5);
            assert_eq!(registry.get::<u32>("name").unwrap_err(), NtError::DELETE_PENDING);
            assert_eq!(registry.register("other", 1), Err(NtError::DELETE_PENDING));
            assert_eq!(registry.register_checked("other", 1), Err(NtError::DELETE_PENDING));
            assert_eq!(registry.unregister("name"), Err(NtError::DELETE_PENDING));
            assert_eq!(registry.open(), Err(NtError::DELETE_PENDING));
            assert_eq!(registry.destroy(), Err(NtError::DELETE_PENDING));
            assert_eq!(*handle, 5);
            let other = handle.clone();
            drop(handle);
            sleep(5);
            done.store(true, Ordering::Relaxed);
            // The last one may be dropped by a DPC or under a lock.
            irql::with_raised(Irql::DISPATCH, || drop(other)).unwrap();
            destroying.join().unwrap();
        });
        registry.open().unwrap();
    });
}

#[test]
fn destroying_gives_up_in_time_and_can_go_on() {
    on_machines(|seed| {
        let registry = Registry::new();
        registry.register("name", 5u32).unwrap();
        thread::scope(|scope| {
            let handle = registry.get::<u32>("name").unwrap();
            let _ = scope
                .spawn(move || {
                    sleep(100);
                    assert_eq!(*handle, 5);
                })
                .unwrap();
            assert_eq!(registry.destroy_within(Duration::ZERO), Err(NtError::TIMEOUT));
            assert_eq!(registry.destroy_within(Duration::from_millis(50)), Err(NtError::TIMEOUT));
            assert_eq!(registry.get::<u32>("name").unwrap_err(), NtError::DELETE_PENDING);
            // About when it is dropped: whichever comes first, the answer is true.
            let result = registry.destroy_within(Duration::from_millis(49 + seed % 3));
            assert!(matches!(result, Ok(()) | Err(NtError::TIMEOUT)));
            if result.is_err() {
                registry.destroy().unwrap();
            }
        });
        assert_eq!(registry.destroy(), Err(NtError::INVALID_DEVICE_STATE));
    });
}

/// A thread that waits for itself: the hosted kernel says so.
#[test]
fn destroying_under_a_handle_of_one_s_own_is_a_deadlock() {
    let outcome = Machine::new().run(|| {
        Grt::init().unwrap();
        Grt::register_kmutex("name", 5).unwrap();
        let _handle = Grt::get_kmutex::<i32>("name").unwrap();
        Grt::destroy().unwrap();
    });
    assert!(outcome.deadlock().is_some(), "{outcome}");
}

// ---- Memory ----------------------------------------------------------------------------------------------------------------------

#[test]
fn every_allocation_may_fail() {
    for n in 1..4 {
        let outcome = Machine::new().fail_allocation(n).run(|| {
            Grt::init().unwrap();
            let result = Grt::register_kmutex("name", 5usize);
            if n <= 2 {
                assert_eq!(result, Err(NtError::INSUFFICIENT_RESOURCES));
                assert_eq!(Grt::get_kmutex::<usize>("name").unwrap_err(), NtError::NOT_FOUND);
            } else {
                assert_eq!(result, Ok(()));
            }
            Grt::destroy().unwrap();
        });
        outcome.expect_clean();
    }
}

/// Defect wdk-mutex 15: the registry's memory came from the driver's global allocator. Here it is nonpaged pool of this library's.
#[test]
fn wdk_mutex_15_a_registry_that_is_not_destroyed_is_a_leak_of_the_library_s_pool() {
    let outcome = Machine::new().run(|| {
        Grt::init().unwrap();
        Grt::register("name", 5).unwrap();
    });
    let outcome = outcome.expect_completed();
    assert_eq!(outcome.left().pool.iter().map(|block| block.tag.as_str()).collect::<Vec<_>>(), ["ksyn"]);
}

#[test]
fn looking_up_allocates_nothing() {
    let outcome = Machine::new().run(|| {
        let registry = Registry::new();
        registry.register("name", 5).unwrap();
        for _ in 0..10 {
            assert_eq!(*registry.get::<i32>("name").unwrap(), 5);
        }
    });
    assert_eq!(outcome.expect_clean().statistics().allocations, 1);
}

/// Hosted, a panic of a value's destructor unwinds: the entry is freed and counted nevertheless.
#[test]
fn a_destructor_that_panics_leaves_the_registry_whole() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            resume_unwind(Box::new(()));
        }
    }
    on_machine(|| {
        let registry = Registry::new();
        registry.register("name", Panics)?;
        assert!(catch_unwind(AssertUnwindSafe(|| registry.unregister("name"))).is_err());
        registry.register("name", Panics)?;
        assert!(catch_unwind(AssertUnwindSafe(|| registry.destroy())).is_err());
        assert_eq!(registry.destroy(), Err(NtError::INVALID_DEVICE_STATE));
        registry.open()?;
        registry.register("name", 5)
    });
}

// ---- One for each machine and driver ---------------------------------------------------------------------------------------------

#[test]
fn machines_side_by_side_have_a_grt_each() {
    let barrier = std::sync::Barrier::new(4);
    std::thread::scope(|scope| {
        for i in 0..4u64 {
            let barrier = &barrier;
            scope.spawn(move || {
                for seed in 0..10 {
                    Machine::new()
                        .processors(2)
                        .seed(seed)
                        .run(|| {
                            Grt::init().unwrap();
                            Grt::register_kmutex_checked("name", i).unwrap();
                            barrier.wait();
                            assert_eq!(*Grt::get_kmutex::<u64>("name").unwrap().lock().unwrap(), i);
                            barrier.wait();
                            Grt::destroy().unwrap();
                        })
                        .expect_clean();
                }
            });
        }
    });
}

mod driver {
    use super::*;
    use ksync::driver::{DriverObject, UnicodeStr};

    struct Driver;

    impl Drop for Driver {
        fn drop(&mut self) {
            assert_eq!(*Grt::get_kmutex::<u32>("mine").unwrap().lock().unwrap(), 1);
            Grt::destroy().unwrap();
        }
    }

    fn entry(_: &DriverObject, _: &UnicodeStr<'_>) -> Result<Driver> {
        Grt::init()?;
        Grt::register_kmutex("mine", 1u32)?;
        Ok(Driver)
    }

    ksync::driver_entry!(entry);

    #[test]
    fn drivers_have_a_grt_each() {
        Machine::new()
            .run(|| {
                Grt::init().unwrap();
                let drivers = [ksim::load_driver("one", DriverEntry).unwrap(), ksim::load_driver("two", DriverEntry).unwrap()];
                assert_eq!(Grt::get_kmutex::<u32>("mine").unwrap_err(), NtError::NOT_FOUND);
                drivers.into_iter().for_each(|driver| driver.unload());
                Grt::destroy().unwrap();
            })
            .expect_clean();
    }
}

// ---- Traits ----------------------------------------------------------------------------------------------------------------------

/// Defects wdk-mutex 3, 4, 7: who may share and send, exactly. What may be registered at all is in `tests/ui/grt`.
mod wdk_mutex_3_4_7_send_and_sync {
    use super::*;

    assert_impl_all!(Registry: Send, Sync);
    assert_impl_all!(Handle<'static, u32>: Send, Sync);
    assert_impl_all!(Handle<'static, KMutex<Cell<u32>>>: Send, Sync);
    assert_impl_all!(Handle<'static, FastLocked<Cell<u32>>>: Send, Sync);
    assert_not_impl_any!(Handle<'static, Cell<u32>>: Send, Sync);
    assert_not_impl_any!(Handle<'static, Rc<u32>>: Send, Sync);
    assert_not_impl_any!(Handle<'static, MutexGuard<'static, u32>>: Send, Sync);
    assert_not_impl_any!(Handle<'static, KMutex<Rc<u32>>>: Send, Sync);

    assert_impl_all!(HandleGuard<'static, u32, Mutex>: Sync);
    assert_not_impl_any!(HandleGuard<'static, u32, Mutex>: Send);
    assert_not_impl_any!(HandleGuard<'static, u32, Fast>: Send);
    assert_not_impl_any!(HandleGuard<'static, Cell<u32>, Mutex>: Send, Sync);
}
