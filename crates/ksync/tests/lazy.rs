//! Cells: initialised once or by the first, waited for or never, under many schedules.

use core::cell::Cell;
use core::ffi::c_void;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::{Arc, MutexGuard};

use ksim::Machine;
use ksync::NtError;
use ksync::dpc::Dpc;
use ksync::error::Result;
use ksync::irql::{self, Irql};
use ksync::lazy::{self, LazyCell, LazyLock, OnceCell, OnceLock};
use ksync::sys;
use ksync::thread::{self, this_thread};
use static_assertions::{assert_impl_all, assert_not_impl_any};

/// How many schedules each search looks at.
const SEEDS: u64 = 100;

/// Runs a test on one processor, cleanly.
fn on_machine(code: impl FnOnce() -> Result) {
    Machine::new().run(|| code().unwrap()).expect_clean();
}

/// Runs a test on four processors under many schedules, cleanly.
fn on_machines(code: impl Fn(u64)) {
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

/// Gives others a chance to come in between, of both kinds.
fn dawdle(i: usize) {
    if i.is_multiple_of(2) {
        this_thread::sleep(Duration::from_micros(10)).unwrap();
    } else {
        irql::with_raised(Irql::DISPATCH, || ()).unwrap();
    }
}

fn sleep(milliseconds: u64) {
    this_thread::sleep(Duration::from_millis(milliseconds)).unwrap();
}

/// Runs code at a level that guards do not raise to.
fn at_level<R>(level: u8, code: impl FnOnce() -> R) -> R {
    // SAFETY: the level is above the present one, and taken back below.
    let old = unsafe { sys::KfRaiseIrql(level) };
    let result = code();
    // SAFETY: as above.
    unsafe { sys::KeLowerIrql(old) };
    result
}

/// A value that counts its drops.
#[derive(Debug)]
struct Counted<'a>(&'a AtomicU32);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

// ---- One initialiser, and who waits for it --------------------------------------------------------------------------------------

#[test]
fn once_lock_runs_one_initialiser_and_all_see_its_value() {
    on_machines(|_| {
        let (cell, runs) = (OnceLock::new(), AtomicU32::new(0));
        crowd(6, |i| {
            dawdle(i);
            let value = cell.get_or_init(|| {
                runs.fetch_add(1, Ordering::Relaxed);
                dawdle(i + 1);
                dawdle(i);
                [i; 16]
            });
            assert_eq!(value, Ok(cell.get().unwrap()));
            assert!(value.unwrap().iter().all(|n| *n == value.unwrap()[0]));
        });
        assert_eq!(runs.into_inner(), 1);
    });
}

#[test]
fn lazy_lock_runs_its_closure_once_and_all_see_the_value() {
    on_machines(|seed| {
        let runs = AtomicU32::new(0);
        let cell = LazyLock::new(|| {
            dawdle(seed as usize);
            runs.fetch_add(1, Ordering::Relaxed);
            dawdle(1);
            String::from("made")
        });
        crowd(6, |i| {
            dawdle(i);
            assert_eq!(if i % 2 == 0 { LazyLock::force(&cell).unwrap() } else { &*cell }, "made");
        });
        drop(cell);
        assert_eq!(runs.into_inner(), 1);
    });
}

#[test]
fn waiters_sleep_as_long_as_it_takes() {
    let outcome = Machine::new().processors(2).run(|| {
        let cell = OnceLock::new();
        crowd(5, |i| {
            sleep(i as u64);
            assert_eq!(cell.get_or_init(|| (sleep(60_000), i).1), Ok(&0));
        });
    });
    // Nothing was polled for in that minute.
    assert!(outcome.expect_clean().statistics().scheduling_points < 500);
}

#[test]
fn waiting_without_an_initialiser_of_one_s_own() {
    on_machines(|seed| {
        let cell = OnceLock::new();
        crowd(5, |i| match i {
            0 => {
                dawdle(seed as usize);
                assert_eq!(cell.get_or_try_init(|| (dawdle(0), Err(NtError::UNSUCCESSFUL)).1), Err(NtError::UNSUCCESSFUL));
                dawdle(1);
                cell.set(7).unwrap();
            }
            _ => assert_eq!(cell.wait(), Ok(&7)),
        });
        assert_eq!(cell.wait(), Ok(&7));
    });
}

/// Who has initialised in vain may wait for others like anybody.
#[test]
fn waiting_after_a_failure_of_one_s_own() {
    on_machines(|_| {
        let cell = OnceLock::new();
        crowd(2, |i| {
            if i == 0 {
                sleep(1);
                cell.set(5).unwrap();
            } else {
                assert_eq!(cell.get_or_try_init(|| Err(NtError::UNSUCCESSFUL)), Err(NtError::UNSUCCESSFUL));
                assert_eq!(cell.wait(), Ok(&5));
            }
        });
    });
}

#[test]
fn a_dpc_stores_what_threads_wait_for() {
    on_machines(|_| {
        let cell = Arc::new(OnceLock::new());
        let dpc = Dpc::new({
            let cell = Arc::clone(&cell);
            move || {
                let _ = cell.set(5);
            }
        })
        .unwrap();
        crowd(4, |i| {
            if i == 0 {
                dpc.enqueue().unwrap();
            }
            assert_eq!(cell.wait(), Ok(&5));
        });
    });
}

// ---- Racing initialisers that nobody waits for -----------------------------------------------------------------------------------

#[test]
fn once_cell_keeps_the_first_value_and_all_get_it() {
    let mut most = 0;
    on_machines_mut(|_| {
        let (cell, runs, drops) = (OnceCell::new(), AtomicU32::new(0), AtomicU32::new(0));
        let first = AtomicUsize::new(0);
        crowd(6, |i| {
            let (value, _) = cell.get_or_init(|| {
                runs.fetch_add(1, Ordering::Relaxed);
                dawdle(i);
                (i, Counted(&drops))
            });
            // All see one value, at one address.
            let address = core::ptr::from_ref(value).addr() + *value;
            let seen = first.compare_exchange(0, address, Ordering::Relaxed, Ordering::Relaxed);
            assert!(seen.is_ok() || seen == Err(address));
        });
        // The others are dropped, and the first with the cell.
        assert_eq!(drops.load(Ordering::Relaxed), runs.load(Ordering::Relaxed) - 1);
        drop(cell);
        assert_eq!(drops.into_inner(), runs.load(Ordering::Relaxed));
        most = most.max(runs.into_inner());
    });
    assert!(most > 1, "no schedule had a race");
}

/// As `on_machines`, for tests that gather something.
fn on_machines_mut(mut code: impl FnMut(u64)) {
    for seed in 0..SEEDS {
        Machine::new().processors(4).seed(seed).run(|| code(seed)).expect_clean();
    }
}

#[test]
fn lazy_cell_may_run_several_times_and_keeps_the_first_value() {
    let mut most = 0;
    on_machines_mut(|_| {
        let (runs, drops) = (AtomicU32::new(0), AtomicU32::new(0));
        let cell = LazyCell::new(|| {
            let run = runs.fetch_add(1, Ordering::Relaxed);
            dawdle(run as usize);
            (run, Counted(&drops))
        });
        crowd(6, |_| assert_eq!(cell.0, LazyCell::get(&cell).unwrap().0));
        drop(cell);
        assert_eq!(drops.into_inner(), runs.load(Ordering::Relaxed));
        most = most.max(runs.into_inner());
    });
    assert!(most > 1, "no schedule had a race");
}

/// Processors that really run at once: those of one hosted machine take turns, and only at calls of the kernel.
#[test]
fn once_cell_under_true_parallelism() {
    const ROUNDS: usize = 4000;
    static DROPS: AtomicU32 = AtomicU32::new(0);
    let cells: Vec<OnceCell<([usize; 64], Counted<'_>)>> = (0..ROUNDS).map(|_| OnceCell::new()).collect();
    let (made, arrived) = (AtomicU32::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for me in 1..=2 {
            let (cells, made, arrived) = (&cells, &made, &arrived);
            let make = move || {
                made.fetch_add(1, Ordering::Relaxed);
                ([me; 64], Counted(&DROPS))
            };
            let race = move || {
                for (round, cell) in cells.iter().enumerate() {
                    arrived.fetch_add(1, Ordering::AcqRel);
                    while arrived.load(Ordering::Acquire) < 2 * (round + 1) {
                        core::hint::spin_loop();
                    }
                    // Now one is first, now the other, and now both are.
                    (0..round * me % 7).for_each(|_| core::hint::spin_loop());
                    let (value, _) = if round.is_multiple_of(2) {
                        cell.try_insert(make()).unwrap_or_else(|(first, _)| first)
                    } else {
                        cell.get_or_init(make)
                    };
                    assert_eq!(*value, [value[0]; 64]);
                    assert!(core::ptr::eq(&raw const cell.get().unwrap().0, value));
                }
            };
            scope.spawn(move || Machine::new().run(race).expect_clean());
        }
    });
    let made = made.into_inner();
    assert_eq!(DROPS.load(Ordering::Relaxed) as usize, made as usize - ROUNDS);
    drop(cells);
    assert_eq!(DROPS.load(Ordering::Relaxed), made);
}

/// Between the claim and the publication of a value nothing may interrupt the processor.
#[test]
fn a_cell_raises_the_level_to_store_and_only_then() {
    fn points(code: impl FnOnce()) -> u64 {
        Machine::new().run(code).expect_clean().statistics().scheduling_points
    }
    let full = OnceCell::from(1);
    let none = points(|| ());
    // Lowering the level again is a point at which a machine could turn to something else.
    assert_eq!(points(|| assert_eq!(OnceCell::new().set(1), Ok(()))), none + 1);
    assert_eq!(points(|| assert_eq!(at_level(15, || OnceCell::new().set(1)), Ok(()))), none + 1);
    assert_eq!(points(|| assert_eq!((full.set(2), *full.get_or_init(|| 3)), (Err(2), 1))), none);
}

#[test]
fn a_set_that_comes_second_gives_its_value_back() {
    on_machines(|_| {
        let (cell, lock) = (OnceCell::new(), OnceLock::new());
        let (stored, refused) = (AtomicU32::new(0), AtomicU32::new(0));
        crowd(4, |i| {
            dawdle(i);
            for result in [cell.set(i), lock.set(i).map_err(|refused| refused.value)] {
                match result {
                    Ok(()) => stored.fetch_add(1, Ordering::Relaxed),
                    Err(value) => {
                        assert_eq!(value, i);
                        refused.fetch_add(1, Ordering::Relaxed)
                    }
                };
            }
        });
        assert_eq!((stored.into_inner(), refused.into_inner()), (2, 6));
        assert!(cell.get().is_some() && lock.get().is_some());
    });
}

// ---- Levels ----------------------------------------------------------------------------------------------------------------------

#[test]
fn locks_refuse_to_initialise_above_apc_level_even_if_nobody_else_does() {
    on_machine(|| {
        let (cell, lazy) = (OnceLock::<u32>::new(), LazyLock::new(|| 1));
        for level in [2, 3, 15] {
            at_level(level, || {
                assert_eq!(cell.get(), None);
                assert_eq!(cell.get_or_init(|| unreachable!()), Err(NtError::IRQL_TOO_HIGH), "at {level}");
                assert_eq!(cell.get_or_try_init(|| Err(NtError::UNSUCCESSFUL)), Err(NtError::IRQL_TOO_HIGH));
                assert_eq!(cell.wait(), Err(NtError::IRQL_TOO_HIGH));
                assert_eq!(LazyLock::force(&lazy), Err(NtError::IRQL_TOO_HIGH));
                assert_eq!(LazyLock::get(&lazy), None);
            });
        }
        // Nothing has happened, and nothing was used up.
        irql::with_raised(Irql::APC, || {
            assert_eq!(cell.get_or_init(|| 5), Ok(&5));
            assert_eq!(LazyLock::force(&lazy), Ok(&1));
        })?;
        at_level(15, || {
            assert_eq!((cell.get(), cell.get_or_init(|| 6), cell.wait()), (Some(&5), Ok(&5), Ok(&5)));
            assert_eq!((*lazy, LazyLock::force(&lazy)), (1, Ok(&1)));
        });
        Ok(())
    });
}

#[test]
fn set_of_a_lock_is_for_dispatch_level_too() {
    on_machine(|| {
        let cell = OnceLock::new();
        let refused = at_level(3, || cell.set(1)).unwrap_err();
        assert_eq!((refused.value, refused.error), (1, NtError::IRQL_TOO_HIGH));
        at_level(2, || cell.set(2).unwrap());
        assert_eq!(at_level(3, || cell.set(3)).unwrap_err().error, NtError::INVALID_DEVICE_STATE);
        assert_eq!(cell.get(), Some(&2));
        Ok(())
    });
}

#[test]
fn cells_are_for_every_level_and_leave_it_alone() {
    on_machine(|| {
        for level in [0, 1, 2, 5, 15] {
            at_level(level, || {
                let at = |value: u32| {
                    assert_eq!(irql::current().get(), level);
                    value
                };
                let (cell, stored, lazy) = (OnceCell::new(), OnceCell::new(), LazyCell::new(|| at(3)));
                assert_eq!(*cell.get_or_init(|| at(1)), 1);
                assert_eq!(at(stored.set(2).map(|()| 2).unwrap()), 2);
                assert_eq!(stored.try_insert(4), Err((&2, 4)));
                assert_eq!(at(*lazy), 3);
                assert_eq!(LazyCell::force(&lazy), Ok(&at(3)));
            });
        }
        Ok(())
    });
}

/// Defect ksync 54: a DPC that forces what the thread under it is initialising would spin for ever.
#[test]
fn ksync_54_a_dpc_is_refused_while_the_thread_under_it_initialises() {
    on_machine(|| {
        let lock = Arc::new(OnceLock::new());
        let dpc = Dpc::new({
            let lock = Arc::clone(&lock);
            move || {
                assert_eq!(lock.get(), None);
                assert_eq!(lock.get_or_init(|| 2), Err(NtError::IRQL_TOO_HIGH));
                assert_eq!(lock.set(2).unwrap_err().error, NtError::IRQL_TOO_HIGH);
            }
        })?;
        assert_eq!(lock.get_or_init(|| (dpc.enqueue().unwrap(), dpc.flush().unwrap(), 1).2), Ok(&1));

        // A cell's value is there at once, and the thread gets the DPC's.
        let cell = Arc::new(OnceCell::new());
        let dpc = Dpc::new({
            let cell = Arc::clone(&cell);
            move || assert_eq!(*cell.get_or_init(|| 2), 2)
        })?;
        assert_eq!(*cell.get_or_init(|| (dpc.enqueue().unwrap(), dpc.flush().unwrap(), 1).2), 2);
        Ok(())
    });
}

#[test]
fn a_dpc_makes_a_lazy_cell_s_value_while_the_thread_under_it_does() {
    static DPC: OnceCell<Dpc> = OnceCell::new();
    static CELL: LazyCell<u32> = LazyCell::new(|| {
        if irql::current() == Irql::DISPATCH {
            return 2;
        }
        DPC.get().unwrap().enqueue().unwrap();
        DPC.get().unwrap().flush().unwrap();
        1
    });
    on_machine(|| {
        assert!(DPC.set(Dpc::new(|| assert_eq!(*CELL, 2))?).is_ok());
        assert_eq!(*CELL, 2);
        // SAFETY: nothing uses the cells any more.
        drop(unsafe { DPC.take_unchecked() });
        Ok(())
    });
}

// ---- Recursion -------------------------------------------------------------------------------------------------------------------

/// Defect ksync 54: recursion is an error, not a hang.
#[test]
fn ksync_54_recursion_is_an_error() {
    on_machine(|| {
        let lock = OnceLock::new();
        let value = lock.get_or_init(|| {
            assert_eq!(lock.get_or_init(|| 2), Err(NtError::WOULD_DEADLOCK));
            assert_eq!(lock.wait(), Err(NtError::WOULD_DEADLOCK));
            let refused = lock.set(3).unwrap_err();
            assert_eq!((refused.value, refused.error), (3, NtError::WOULD_DEADLOCK));
            assert_eq!(lock.get(), None);
            1
        });
        assert_eq!(value, Ok(&1));
        Ok(())
    });
}

/// An APC and what it runs.
#[repr(C)]
struct Interruption<'a> {
    apc: core::mem::MaybeUninit<sys::KAPC>,
    code: &'a dyn Fn(),
}

unsafe extern "system-unwind" fn run_apc(
    apc: *mut sys::KAPC,
    _: *mut sys::PKNORMAL_ROUTINE,
    _: *mut *mut c_void,
    _: *mut *mut c_void,
    _: *mut *mut c_void,
) {
    // SAFETY: the APC is the beginning of an interruption.
    let code = unsafe { (*apc.cast::<Interruption<'_>>()).code };
    code();
}

/// Runs code in a special kernel APC that interrupts the present thread.
fn interrupt(code: &dyn Fn()) {
    let mut interruption = Interruption { apc: core::mem::MaybeUninit::uninit(), code };
    let apc = (&raw mut interruption).cast::<sys::KAPC>();
    // SAFETY: the routine reads a word of the processor's.
    let thread = unsafe { sys::KeGetCurrentThread() };
    let (mode, null) = (sys::KernelMode, core::ptr::null_mut());
    // SAFETY: the APC is valid for writes, and is not moved.
    unsafe { sys::KeInitializeApc(apc, thread, sys::OriginalApcEnvironment, Some(run_apc), None, None, mode, null) };
    // SAFETY: the APC outlives its use: at PASSIVE_LEVEL it is delivered before this returns.
    assert_ne!(unsafe { sys::KeInsertQueueApc(apc, null, null, 0) }, 0);
}

/// An APC may wait, but not for the thread that it has interrupted.
#[test]
fn an_apc_that_interrupts_the_initialiser_is_refused() {
    static INTERRUPTED: LazyCell<u32> = LazyCell::new(|| {
        if irql::current() == Irql::APC {
            return 2;
        }
        interrupt(&|| assert_eq!(*INTERRUPTED, 2));
        1
    });
    on_machine(|| {
        let (lock, ran) = (OnceLock::new(), Cell::new(0));
        let value = lock.get_or_init(|| {
            interrupt(&|| {
                assert_eq!(irql::current(), Irql::APC);
                assert_eq!(lock.get_or_init(|| 2), Err(NtError::WOULD_DEADLOCK));
                assert_eq!(lock.wait(), Err(NtError::WOULD_DEADLOCK));
                assert_eq!(lock.set(2).unwrap_err().error, NtError::WOULD_DEADLOCK);
                ran.set(ran.get() + 1);
            });
            1
        });
        assert_eq!((value, ran.get()), (Ok(&1), 1));

        // These have their own way.
        let cell = OnceCell::new();
        assert_eq!(*cell.get_or_init(|| (interrupt(&|| assert_eq!(*cell.get_or_init(|| 2), 2)), 1).1), 2);
        assert_eq!(*INTERRUPTED, 2);
        Ok(())
    });
}

#[test]
fn recursion_of_lazy_values_is_an_error() {
    static LOCK: LazyLock<Result<u32>> = LazyLock::new(|| LazyLock::force(&LOCK).map(|_| 1));
    static CELL: LazyCell<Result<u32>> = LazyCell::new(|| LazyCell::force(&CELL).map(|_| 1));
    static DEEP: LazyCell<(Result<u32>, u8)> = LazyCell::new(|| {
        let outer = irql::current();
        irql::with_raised(Irql::DISPATCH, || match LazyCell::force(&DEEP) {
            Ok((_, depth)) => (Ok(1), depth + 1),
            Err(error) => (Err(error), outer.get()),
        })
        .unwrap()
    });
    on_machine(|| {
        assert_eq!(*LOCK, Err(NtError::WOULD_DEADLOCK));
        assert_eq!(*CELL, Err(NtError::WOULD_DEADLOCK));
        // An initialiser that raises the level is taken for a DPC once, and no more.
        assert_eq!(*DEEP, (Err(NtError::WOULD_DEADLOCK), 2));
        Ok(())
    });
}

#[test]
fn recursion_of_a_once_cell_is_a_race() {
    on_machine(|| {
        let drops = AtomicU32::new(0);
        let cell = OnceCell::new();
        let (value, _) = cell.get_or_init(|| {
            assert_eq!(cell.get_or_init(|| (2, Counted(&drops))).0, 2);
            (1, Counted(&drops))
        });
        assert_eq!(*value, 2);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        Ok(())
    });
}

#[test]
fn recursion_by_dereferencing_is_a_bug_check() {
    static LOCK: LazyLock<u32> = LazyLock::new(|| *LOCK + 1);
    static CELL: LazyCell<u32> = LazyCell::new(|| *CELL + 1);
    let status = NtError::WOULD_DEADLOCK.status().0 as u64;
    let bug_check = Machine::new().run(|| assert_eq!(*LOCK, 1)).expect_bug_check(lazy::DEREFERENCED_IN_VAIN);
    assert_eq!(bug_check.parameters, [(&raw const LOCK).addr() as u64, status, 0, 0]);
    let bug_check = Machine::new().run(|| assert_eq!(*CELL, 1)).expect_bug_check(lazy::DEREFERENCED_IN_VAIN);
    assert_eq!(bug_check.parameters, [(&raw const CELL).addr() as u64, status, 0, 0]);
}

#[test]
fn dereferencing_a_lazy_lock_too_high_is_a_bug_check() {
    let outcome = Machine::new().run(|| {
        let lazy = LazyLock::new(|| 1);
        let _raised = irql::raise(Irql::DISPATCH).unwrap();
        assert_eq!(*lazy, 1);
    });
    let bug_check = outcome.expect_bug_check(lazy::DEREFERENCED_IN_VAIN);
    assert_eq!(bug_check.parameters[1..], [NtError::IRQL_TOO_HIGH.status().0 as u64, 2, 0]);
}

// ---- Failing initialisers --------------------------------------------------------------------------------------------------------

#[test]
fn a_failure_leaves_the_cell_empty_and_the_next_waiter_tries() {
    let mut most_waited = 0;
    on_machines_mut(|_| {
        let (cell, runs, failed) = (OnceLock::new(), AtomicU32::new(0), AtomicU32::new(0));
        crowd(5, |i| {
            let result = cell.get_or_try_init(|| {
                let run = runs.fetch_add(1, Ordering::Relaxed);
                dawdle(i);
                if run < 3 { Err(NtError::UNSUCCESSFUL) } else { Ok(run) }
            });
            match result {
                Ok(value) => assert_eq!(*value, 3),
                Err(error) => {
                    assert_eq!(error, NtError::UNSUCCESSFUL);
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        // Each failure is told to the thread whose it was, and to no other.
        assert_eq!((cell.get(), failed.into_inner(), runs.load(Ordering::Relaxed)), (Some(&3), 3, 4));
        most_waited = most_waited.max(runs.into_inner());
    });
    assert_eq!(most_waited, 4);
}

#[test]
fn other_errors_than_nt_s_pass_through() {
    #[derive(PartialEq, Debug)]
    enum Error {
        Nt(NtError),
        Own,
    }
    impl From<NtError> for Error {
        fn from(error: NtError) -> Self {
            Self::Nt(error)
        }
    }
    on_machine(|| {
        let cell = OnceLock::<u32>::new();
        assert_eq!(cell.get_or_try_init(|| Err(Error::Own)), Err(Error::Own));
        at_level(2, || assert_eq!(cell.get_or_try_init(|| Err(Error::Own)), Err(Error::Nt(NtError::IRQL_TOO_HIGH))));
        let cell = OnceCell::<u32>::new();
        assert_eq!(cell.get_or_try_init(|| Err("own")), Err("own"));
        assert_eq!(cell.get_or_try_init(|| Ok::<_, &str>(1)), Ok(&1));
        Ok(())
    });
}

/// Unwinds without a word to the machine, which would stop.
fn panic_quietly() -> u32 {
    resume_unwind(Box::new(()))
}

#[test]
fn a_panic_leaves_the_cell_empty_and_the_next_waiter_tries() {
    on_machines(|_| {
        let (lock, cell, runs) = (OnceLock::new(), OnceCell::new(), AtomicU32::new(0));
        crowd(4, |i| {
            let lock_result = catch_unwind(AssertUnwindSafe(|| {
                lock.get_or_init(|| {
                    dawdle(i);
                    if runs.fetch_add(1, Ordering::Relaxed) < 2 { panic_quietly() } else { 7 }
                })
            }));
            assert!(lock_result.is_err() || lock_result.is_ok_and(|value| value == Ok(&7)));
            let cell_result = catch_unwind(AssertUnwindSafe(|| *cell.get_or_init(|| if i < 2 { panic_quietly() } else { 8 })));
            assert!(i < 2 || cell_result.is_ok_and(|value| value == 8));
            assert_eq!(irql::current(), Irql::PASSIVE);
        });
        assert_eq!((lock.get(), cell.get(), runs.into_inner()), (Some(&7), Some(&8), 3));
    });
}

#[test]
fn a_lazy_lock_whose_closure_panicked_is_an_error_for_all() {
    on_machines(|_| {
        let lazy = LazyLock::new(|| (dawdle(0), panic_quietly()).1);
        let panicked = AtomicU32::new(0);
        crowd(4, |_| match catch_unwind(AssertUnwindSafe(|| LazyLock::force(&lazy).copied())) {
            Ok(result) => assert_eq!(result, Err(NtError::INVALID_DEVICE_STATE)),
            Err(_) => drop(panicked.fetch_add(1, Ordering::Relaxed)),
        });
        assert_eq!(panicked.into_inner(), 1);
        assert_eq!(LazyLock::get(&lazy), None);
        assert!(LazyLock::into_inner(lazy).is_err_and(|closure| closure.is_none()));
    });
}

#[test]
fn a_lazy_cell_whose_closure_panicked_can_try_again() {
    on_machine(|| {
        let runs = Cell::new(0);
        let lazy = LazyCell::new(|| if runs.replace(1) == 0 { panic_quietly() } else { 5 });
        assert!(catch_unwind(AssertUnwindSafe(|| *lazy)).is_err());
        assert_eq!(LazyCell::force(&lazy), Ok(&5));
        Ok(())
    });
}

/// A machine that stops in an initialiser stops, whoever waits or forces on the way down.
#[test]
fn a_machine_that_stops_in_an_initialiser_does_not_hang() {
    struct ForcesInDrop<'a>(&'a OnceLock<u32>, &'a AtomicU32);
    impl Drop for ForcesInDrop<'_> {
        fn drop(&mut self) {
            if self.0.get_or_init(|| 1) == Err(NtError::CANCELLED) {
                self.1.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    for seed in 0..SEEDS {
        let cancelled = AtomicU32::new(0);
        let outcome = Machine::new().processors(2).seed(seed).run(|| {
            let cell = OnceLock::new();
            crowd(3, |i| {
                let _forces = ForcesInDrop(&cell, &cancelled);
                if i == 0 {
                    sleep(1);
                    panic!("stops here");
                }
                let _ = cell.get_or_init(|| (sleep(5), 2).1);
            });
        });
        assert_eq!(outcome.panic().map(|panic| panic.message.as_str()), Some("stops here"), "{outcome}");
        // The one thread that still ran did not wait for those that do not.
        assert_eq!(cancelled.into_inner(), 1);
    }
}

// ---- Values come and go once -----------------------------------------------------------------------------------------------------

/// Defect ksync 21: racing threads took the closure twice, and its captures were dropped twice.
#[test]
fn ksync_21_racing_threads_take_the_closure_once() {
    on_machines(|_| {
        let drops = AtomicU32::new(0);
        let capture = Counted(&drops);
        let cell = LazyLock::new(move || (dawdle(0), capture).1);
        crowd(4, |_| assert!(LazyLock::force(&cell).is_ok()));
        assert_eq!(drops.load(Ordering::Relaxed), 0);
        drop(cell);
        assert_eq!(drops.into_inner(), 1);
    });
}

/// Defects ksync 22, 23, 24: nothing destroys the value but the end of the cell, and that does so once.
#[test]
fn ksync_22_23_24_values_are_dropped_exactly_once() {
    on_machine(|| {
        let value = Rc::new(());
        let count = || Rc::strong_count(&value) - 1;
        macro_rules! check {
            ($cell:ident) => {{
                let cell = $cell::new();
                let _ = cell.set(value.clone());
                let _ = cell.set(value.clone());
                assert_eq!(count(), 1);
                drop(cell);
                assert_eq!(count(), 0);
                let mut cell = $cell::from(value.clone());
                drop(cell.clone());
                assert_eq!(count(), 1);
                drop(cell.take());
                assert_eq!((count(), cell.take()), (0, None));
                let _ = cell.set(value.clone());
                assert_eq!(count(), 1);
                // SAFETY: nobody uses the cell meanwhile.
                drop(unsafe { cell.take_unchecked() });
                assert_eq!((count(), cell.get()), (0, None));
                drop($cell::from(value.clone()).into_inner());
                drop($cell::<Rc<()>>::new().into_inner());
                drop($cell::<Rc<()>>::default());
                assert_eq!(count(), 0);
            }};
        }
        check!(OnceCell);
        check!(OnceLock);
        macro_rules! check_lazy {
            ($cell:ident) => {{
                let captured = value.clone();
                let make = || $cell::new(|| captured.clone());
                assert_eq!(count(), 1);
                drop(make());
                let cell = make();
                let _ = $cell::force(&cell);
                assert_eq!(count(), 2);
                drop(cell);
                let cell = make();
                assert_eq!($cell::force(&cell).map(|_| ()), Ok(()));
                drop($cell::into_inner(cell).ok());
                assert!($cell::into_inner(make()).is_err());
                let mut cell = make();
                assert!($cell::get_mut(&mut cell).is_none());
                *cell = captured.clone();
                assert!($cell::get_mut(&mut cell).is_some());
                // SAFETY: nobody uses the cell meanwhile.
                drop(unsafe { $cell::take_unchecked(&cell) });
                assert_eq!(count(), 1);
                drop(cell);
                drop(captured);
                assert_eq!(count(), 0);
            }};
        }
        check_lazy!(LazyCell);
        check_lazy!(LazyLock);
        Ok(())
    });
}

#[test]
fn a_value_that_was_taken_can_come_again_except_from_a_lazy_lock() {
    on_machine(|| {
        let mut cell = OnceLock::new();
        for i in 0..3 {
            assert_eq!(cell.get_or_init(|| i), Ok(&i));
            assert_eq!(cell.take(), Some(i));
        }
        let lazy = LazyLock::new(|| 1);
        assert_eq!(*lazy, 1);
        // SAFETY: nobody uses the cell meanwhile.
        assert_eq!(unsafe { LazyLock::take_unchecked(&lazy) }, Some(1));
        assert_eq!(LazyLock::force(&lazy), Err(NtError::INVALID_DEVICE_STATE));
        Ok(())
    });
}

/// Defect ksync 52: `OnceCell::get_or_init` returned `None` for a cell that had a value.
#[test]
fn ksync_52_get_or_init_of_a_full_cell_is_its_value() {
    on_machine(|| {
        let cell = OnceCell::from(1);
        assert_eq!(*cell.get_or_init(|| 2), 1);
        assert_eq!(cell.get_or_try_init(|| Err(())), Ok(&1));
        Ok(())
    });
}

/// Defect ksync 53: a `set` that lost dropped its value and said `Ok`; after a `take` everything hung.
#[test]
fn ksync_53_a_lost_set_is_an_error_and_a_taken_cell_works() {
    on_machines(|_| {
        let drops = AtomicU32::new(0);
        let mut cell = OnceLock::new();
        crowd(3, |i| {
            let set = cell.set((i, Counted(&drops)));
            // Exactly the one whose value is there was told so.
            assert_eq!(set.is_ok(), cell.get().unwrap().0 == i);
        });
        assert_eq!(drops.load(Ordering::Relaxed), 2);
        drop(cell.take());
        assert!(cell.set((9, Counted(&drops))).is_ok());
        assert_eq!(cell.wait().unwrap().0, 9);
        assert_eq!(cell.get_or_init(|| unreachable!()).unwrap().0, 9);
    });
}

// ---- Statics ---------------------------------------------------------------------------------------------------------------------

/// Serialises the tests that share a static.
static SHARED: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn shared() -> MutexGuard<'static, ()> {
    SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[test]
fn statics_of_each_kind() {
    static LOCK: OnceLock<Vec<u32>> = OnceLock::new();
    static CELL: OnceCell<Vec<u32>> = OnceCell::new();
    static LAZY_LOCK: LazyLock<Vec<u32>> = LazyLock::new(|| vec![3]);
    static LAZY_CELL: LazyCell<Vec<u32>> = LazyCell::new(|| vec![4]);
    let _turn = shared();
    for seed in 0..10 {
        Machine::new()
            .processors(4)
            .seed(seed)
            .run(|| {
                crowd(4, |_| {
                    assert_eq!(LOCK.get_or_init(|| vec![1]).unwrap(), &[1]);
                    assert_eq!(CELL.get_or_init(|| vec![2]), &[2]);
                    assert_eq!(*LAZY_LOCK, [3]);
                    assert_eq!(*LAZY_CELL, [4]);
                });
                // What an unload routine does.
                // SAFETY: nothing uses the cells any more.
                assert_eq!(unsafe { LOCK.take_unchecked() }.as_deref(), Some(&[1][..]));
                // SAFETY: as above.
                assert_eq!(unsafe { CELL.take_unchecked() }.as_deref(), Some(&[2][..]));
                // SAFETY: as above.
                assert_eq!(unsafe { LazyCell::take_unchecked(&LAZY_CELL) }.as_deref(), Some(&[4][..]));
            })
            .expect_clean();
    }
}

/// A static of which each machine has its own, so that nothing need be serialised.
#[test]
fn statics_of_which_each_machine_has_its_own() {
    // SAFETY: an empty cell owns nothing, and nothing points to it.
    static LOCK: sys::ImageLocal<OnceLock<u64>> = unsafe { sys::ImageLocal::new(OnceLock::new()) };
    std::thread::scope(|scope| {
        for first in [0, 1000] {
            scope.spawn(move || {
                for seed in first..first + 20 {
                    Machine::new()
                        .processors(4)
                        .seed(seed)
                        .run(|| {
                            crowd(4, |i| {
                                // SAFETY: the cell is there as long as the machine.
                                let lock = unsafe { &*LOCK.get() };
                                dawdle(i);
                                assert_eq!(lock.get_or_init(|| (dawdle(i), seed).1), Ok(&seed));
                            });
                        })
                        .expect_clean();
                }
            });
        }
    });
}

// ---- Traits ----------------------------------------------------------------------------------------------------------------------

#[test]
fn what_is_shown_and_compared() {
    on_machine(|| {
        let (cell, lock) = (OnceCell::new(), OnceLock::new());
        assert_eq!(format!("{cell:?} {lock:?}"), "OnceCell(<uninit>) OnceLock(<uninit>)");
        assert!(cell == OnceCell::new() && lock == OnceLock::new());
        cell.set(1).unwrap();
        lock.set(2).unwrap();
        assert_eq!(format!("{cell:?} {lock:?}"), "OnceCell(1) OnceLock(2)");
        assert!(cell == OnceCell::from(1) && cell != OnceCell::from(2) && cell != OnceCell::new());
        assert!(lock == OnceLock::from(2) && lock != OnceLock::from(1) && lock != OnceLock::new());
        let (cell, lock) = (LazyCell::<u32>::default(), LazyLock::<u32>::default());
        assert_eq!(format!("{cell:?} {lock:?}"), "LazyCell(<uninit>) LazyLock(<uninit>)");
        assert_eq!(*cell + *lock, 0);
        assert_eq!(format!("{cell:?} {lock:?}"), "LazyCell(0) LazyLock(0)");
        Ok(())
    });
}

/// Defects ksync 26, 27: who may share and send, exactly.
mod ksync_26_27_send_and_sync {
    use super::*;

    /// `Send` and not `Sync`.
    type SendOnly = Cell<u32>;
    /// `Sync` and not `Send`.
    type SyncOnly = MutexGuard<'static, u32>;
    /// Neither.
    type Neither = Rc<u32>;

    assert_impl_all!(OnceCell<u32>: Send, Sync);
    assert_impl_all!(OnceLock<u32>: Send, Sync);
    assert_impl_all!(LazyCell<u32>: Send, Sync);
    assert_impl_all!(LazyLock<u32>: Send, Sync);

    assert_impl_all!(OnceCell<SendOnly>: Send);
    assert_not_impl_any!(OnceCell<SendOnly>: Sync);
    assert_impl_all!(OnceLock<SendOnly>: Send);
    assert_not_impl_any!(OnceLock<SendOnly>: Sync);
    assert_impl_all!(LazyCell<SendOnly>: Send);
    assert_not_impl_any!(LazyCell<SendOnly>: Sync);
    assert_impl_all!(LazyLock<SendOnly>: Send);
    assert_not_impl_any!(LazyLock<SendOnly>: Sync);

    assert_not_impl_any!(OnceCell<SyncOnly>: Send, Sync);
    assert_not_impl_any!(OnceLock<SyncOnly>: Send, Sync);
    assert_not_impl_any!(LazyCell<SyncOnly>: Send, Sync);
    assert_not_impl_any!(LazyLock<SyncOnly>: Send, Sync);

    assert_not_impl_any!(OnceCell<Neither>: Send, Sync);
    assert_not_impl_any!(OnceLock<Neither>: Send, Sync);
    assert_not_impl_any!(LazyCell<Neither>: Send, Sync);
    assert_not_impl_any!(LazyLock<Neither>: Send, Sync);

    // The closure is called by several threads in the one, and by one of several in the other.
    assert_impl_all!(LazyCell<u32, SendOnly>: Send);
    assert_not_impl_any!(LazyCell<u32, SendOnly>: Sync);
    assert_impl_all!(LazyLock<u32, SendOnly>: Send, Sync);
    assert_impl_all!(LazyCell<u32, SyncOnly>: Sync);
    assert_not_impl_any!(LazyCell<u32, SyncOnly>: Send);
    assert_not_impl_any!(LazyLock<u32, SyncOnly>: Send, Sync);
    assert_not_impl_any!(LazyCell<u32, Neither>: Send, Sync);
    assert_not_impl_any!(LazyLock<u32, Neither>: Send, Sync);

    /// No cell allocates.
    #[test]
    fn nothing_is_allocated() {
        let outcome = Machine::new().run(|| {
            let _ = (OnceCell::new().set(1), OnceLock::new().set(1), *LazyCell::new(|| 1), *LazyLock::new(|| 1));
        });
        assert_eq!(outcome.expect_clean().statistics().allocations, 0);
    }
}
