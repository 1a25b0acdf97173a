//! Levels, and recursion.

use super::*;

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
