//! Initialisers that come first, and who waits for them or does not.

use super::*;

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
