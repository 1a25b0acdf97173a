//! Initialisers that fail or panic, and machines that stop in one.

use super::*;

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

/// Where a panic unwinds, waits are over at once. What the unwinding drops after that may use the cell, and must not find the frame of such a wait in it.
#[test]
fn a_wait_in_an_unwinding_leaves_nothing_behind() {
    /// Writes over the frames of what was called before.
    #[inline(never)]
    fn use_stack() {
        std::hint::black_box([0x41_u8; 0x2000]);
    }
    struct Waits<'a>(&'a OnceLock<u32>, &'a Cell<Option<NtError>>);
    impl Drop for Waits<'_> {
        fn drop(&mut self) {
            self.1.set(self.0.wait().err());
        }
    }
    struct Initialises<'a>(&'a OnceLock<u32>, &'a Cell<Option<u32>>);
    impl Drop for Initialises<'_> {
        fn drop(&mut self) {
            use_stack();
            self.1.set(self.0.get_or_init(|| 5).ok().copied());
        }
    }
    let (cell, error, value) = (OnceLock::new(), Cell::new(None), Cell::new(None));
    let outcome = Machine::new().run(|| {
        let _later = Initialises(&cell, &value);
        let _first = Waits(&cell, &error);
        panic!("unwinds");
    });
    assert!(outcome.panic().is_some(), "{outcome}");
    assert_eq!((error.get(), value.get()), (Some(NtError::CANCELLED), Some(5)));
}
