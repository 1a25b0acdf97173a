//! Values that come and go, statics, and what is shown and shared.

use super::*;

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
