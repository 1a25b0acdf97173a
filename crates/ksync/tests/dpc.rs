//! DPCs, on the hosted kernel.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use core::time::Duration;
use ksim::Machine;
use ksync::NtError;
use ksync::dpc::{self, Dpc, Importance, Processor, ThreadedDpc};
use ksync::event::{Event, EventProperty};
use ksync::irql::{self, Irql};
use ksync::thread::{self, this_thread};
use ksync::wait::Dispatchable;
use std::sync::{Arc, Mutex};

use test_support::owned::{Owned, on_machines, on_seeds};

#[test]
fn ksync_1_a_dpc_runs_again_and_its_closure_is_dropped_once() {
    on_machines(|| {
        let (owned, runs, drops) = Owned::new();
        let dpc = Dpc::new(move || owned.run())?;
        for run in 1..=5 {
            assert!(dpc.enqueue()?);
            dpc.flush()?;
            assert_eq!(runs.load(Ordering::Relaxed), run);
        }
        drop(dpc);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        Ok(())
    });
    on_machines(|| {
        let (owned, runs, drops) = Owned::new();
        let dpc = ThreadedDpc::new(move || owned.run())?;
        for run in 1..=5 {
            assert!(dpc.enqueue()?);
            dpc.flush()?;
            assert_eq!(runs.load(Ordering::Relaxed), run);
        }
        drop(dpc);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        Ok(())
    });
}

#[test]
fn ksync_47_a_dpc_that_never_ran_drops_its_closure() {
    on_machines(|| {
        let (owned, runs, drops) = Owned::new();
        drop(Dpc::new(move || owned.run())?);
        assert_eq!((runs.load(Ordering::Relaxed), drops.load(Ordering::Relaxed)), (0, 1));
        Ok(())
    });
}

#[test]
fn ksync_13_a_queued_dpc_is_removed_when_it_is_dropped() {
    on_machines(|| {
        let (owned, runs, drops) = Owned::new();
        let dpc = Dpc::new(move || owned.run())?;
        irql::with_raised(Irql::DISPATCH, || {
            dpc.enqueue().unwrap();
            drop(dpc);
            assert_eq!(drops.load(Ordering::Relaxed), 1);
        })?;
        assert_eq!(runs.load(Ordering::Relaxed), 0);
        Ok(())
    });
}

#[test]
fn a_dpc_on_another_processor_may_run_while_it_is_dropped() {
    for level in [Irql::PASSIVE, Irql::APC, Irql::DISPATCH] {
        on_seeds(|| {
            let (owned, _, drops) = Owned::new();
            let running = Arc::new(AtomicBool::new(false));
            let flag = running.clone();
            let dpc = Dpc::new(move || {
                flag.store(true, Ordering::Relaxed);
                this_thread::stall(Duration::from_micros(5));
                owned.run();
                flag.store(false, Ordering::Relaxed);
            })?;
            dpc.set_importance(Importance::High);
            dpc.set_target(Processor { group: 0, number: 2 })?;
            dpc.enqueue()?;
            irql::with_raised(level, || drop(dpc))?;
            if level == Irql::PASSIVE {
                assert!(!running.load(Ordering::Relaxed));
                assert_eq!(drops.load(Ordering::Relaxed), 1);
            }
            ksync::driver::drain()?;
            assert_eq!(drops.load(Ordering::Relaxed), 1);
            Ok(())
        });
    }
}

#[test]
fn a_dpc_may_drop_its_own_handle() {
    on_machines(|| {
        let (owned, runs, drops) = Owned::new();
        let slot: Arc<Mutex<Option<Dpc>>> = Arc::default();
        let own = Arc::downgrade(&slot);
        *slot.lock().unwrap() = Some(Dpc::new(move || {
            owned.run();
            let handle = own.upgrade().unwrap().lock().unwrap().take();
            drop(handle);
            owned.run();
        })?);
        let raised = irql::raise(Irql::DISPATCH)?;
        slot.lock().unwrap().as_ref().unwrap().enqueue()?;
        drop(raised);
        ksync::driver::drain()?;
        assert_eq!((runs.load(Ordering::Relaxed), drops.load(Ordering::Relaxed)), (2, 1));
        Ok(())
    });
}

#[test]
fn a_threaded_dpc_may_drop_its_own_handle() {
    on_machines(|| {
        let (owned, runs, drops) = Owned::new();
        let slot: Arc<Mutex<Option<ThreadedDpc>>> = Arc::default();
        let done = Arc::new(Event::new(EventProperty::Notification, false)?);
        let (own, signal) = (Arc::downgrade(&slot), done.clone());
        *slot.lock().unwrap() = Some(ThreadedDpc::new(move || {
            let handle = own.upgrade().unwrap().lock().unwrap().take();
            assert!(handle.as_ref().unwrap().flush().is_err());
            drop(handle);
            owned.run();
            signal.set().unwrap();
        })?);
        let raised = irql::raise(Irql::DISPATCH)?;
        slot.lock().unwrap().as_ref().unwrap().enqueue()?;
        drop(raised);
        assert!(done.wait().success());
        ksync::driver::drain()?;
        assert_eq!((runs.load(Ordering::Relaxed), drops.load(Ordering::Relaxed)), (1, 1));
        Ok(())
    });
}

#[test]
fn rule_41_a_queued_dpc_is_not_queued_again() {
    on_machines(|| {
        let (owned, runs, _) = Owned::new();
        let dpc = Dpc::new(move || owned.run())?;
        irql::with_raised(Irql::DISPATCH, || {
            assert_eq!(dpc.enqueue(), Ok(true));
            assert_eq!(dpc.enqueue(), Ok(false));
            assert!(dpc.cancel());
            assert!(!dpc.cancel());
            assert_eq!(dpc.enqueue(), Ok(true));
        })?;
        dpc.flush()?;
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        Ok(())
    });
}

#[test]
fn rule_42_a_dpc_can_queue_itself_from_its_closure() {
    on_machines(|| {
        let slot: Arc<Mutex<Option<Arc<Dpc>>>> = Arc::default();
        let left = AtomicU32::new(3);
        let own = Arc::downgrade(&slot);
        let dpc = Arc::new(Dpc::new(move || {
            if left.fetch_sub(1, Ordering::Relaxed) > 1 {
                let own = own.upgrade().unwrap().lock().unwrap().clone();
                assert_eq!(own.unwrap().enqueue(), Ok(true));
            }
        })?);
        *slot.lock().unwrap() = Some(dpc.clone());
        dpc.enqueue()?;
        for _ in 0..4 {
            dpc.flush()?;
        }
        slot.lock().unwrap().take();
        Ok(())
    });
}

#[test]
fn levels_are_checked() {
    on_seeds(|| {
        let dpc = Dpc::new(|| ())?;
        irql::with_raised(Irql::APC, || assert_eq!(dpc.flush(), Err(NtError::IRQL_TOO_HIGH)))?;
        // SAFETY: the level is restored below, and in between only operations run that are for any level or check it.
        let old = unsafe { ksync::sys::KfRaiseIrql(5) };
        let made = Dpc::new(|| ()).map(drop);
        let queued = dpc.enqueue();
        let removed = dpc.cancel();
        // SAFETY: the level was raised above from this one.
        unsafe { ksync::sys::KeLowerIrql(old) };
        assert_eq!(made, Err(NtError::IRQL_TOO_HIGH));
        assert_eq!(queued, Ok(true));
        assert!(removed);
        assert_eq!(dpc.set_target(Processor { group: 0, number: 3 }), Err(NtError::INVALID_PARAMETER));
        assert_eq!(dpc.set_target(Processor { group: 1, number: 0 }), Err(NtError::INVALID_PARAMETER));
        Ok(())
    });
}

#[test]
fn ksync_3_and_55_run_once_per_core_runs_on_each_and_waits() {
    for processors in [1, 2, 4, 64] {
        for seed in 0..5 {
            Machine::new()
                .processors(processors)
                .seed(seed)
                .run(|| {
                    let (mask, runs) = (AtomicU64::new(0), AtomicU32::new(0));
                    for _ in 0..3 {
                        dpc::run_once_per_core(|| {
                            assert_eq!(irql::current(), Irql::DISPATCH);
                            mask.fetch_or(1 << Processor::current().number, Ordering::Relaxed);
                            runs.fetch_add(1, Ordering::Relaxed);
                        })
                        .unwrap();
                    }
                    let all = if processors == 64 { u64::MAX } else { (1 << processors) - 1 };
                    assert_eq!(mask.into_inner(), all);
                    assert_eq!(runs.into_inner(), 3 * u32::from(processors));
                    let refused = irql::with_raised(Irql::DISPATCH, || dpc::run_once_per_core(|| unreachable!()));
                    assert_eq!(refused, Ok(Err(NtError::IRQL_TOO_HIGH)));
                })
                .expect_clean();
        }
    }
}

#[test]
fn ksync_55_every_group_is_reached() {
    for groups in [&[1][..], &[1, 1], &[2, 1, 3], &[1, 63], &[32, 32]] {
        for seed in 0..5 {
            Machine::new()
                .groups(groups)
                .seed(seed)
                .run(|| {
                    let count: usize = groups.iter().map(|&size| usize::from(size)).sum();
                    assert_eq!(thread::available_parallelism().get(), count);
                    let all: Vec<_> = (0..count as u32).map(|index| Processor::from_index(index).unwrap()).collect();
                    let ran_on = Mutex::new(Vec::new());
                    dpc::run_once_per_core(|| ran_on.lock().unwrap().push(Processor::current())).unwrap();
                    let mut ran_on = ran_on.into_inner().unwrap();
                    ran_on.sort_unstable();
                    assert_eq!(ran_on, all);
                    let last = Arc::new(Mutex::new(None));
                    let seen = Arc::clone(&last);
                    let dpc = Dpc::new(move || *seen.lock().unwrap() = Some(Processor::current())).unwrap();
                    for (index, &processor) in all.iter().enumerate() {
                        assert_eq!(processor.index(), Some(index as u32));
                        dpc.set_target(processor).unwrap();
                        dpc.enqueue().unwrap();
                        dpc.flush().unwrap();
                        assert_eq!(last.lock().unwrap().take(), Some(processor));
                        let seen = Arc::clone(&last);
                        dpc::run_once_on(processor, move || *seen.lock().unwrap() = Some(Processor::current())).unwrap();
                        dpc.flush().unwrap();
                        assert_eq!(last.lock().unwrap().take(), Some(processor));
                    }
                    let nowhere = Processor { group: groups.len() as u16, number: 0 };
                    assert_eq!(nowhere.index(), None);
                    assert_eq!(dpc.set_target(nowhere), Err(NtError::INVALID_PARAMETER));
                })
                .expect_clean();
        }
    }
}

#[test]
fn rule_41_the_first_arguments_stay() {
    on_machines(|| {
        let seen: Arc<Mutex<Vec<(usize, usize)>>> = Arc::default();
        let log = Arc::clone(&seen);
        let dpc = Dpc::new_with_arguments(move |first, second| log.lock().unwrap().push((first, second)))?;
        irql::with_raised(Irql::DISPATCH, || {
            assert_eq!(dpc.enqueue_with(1, usize::MAX), Ok(true));
            assert_eq!(dpc.enqueue_with(3, 4), Ok(false));
        })?;
        dpc.enqueue_with(5, 6)?;
        dpc.enqueue()?;
        dpc.flush()?;
        assert_eq!(*seen.lock().unwrap(), [(1, usize::MAX), (5, 6), (0, 0)]);
        let log = Arc::clone(&seen);
        let threaded = ThreadedDpc::new_with_arguments(move |first, second| log.lock().unwrap().push((first, second)))?;
        threaded.enqueue_with(7, 8)?;
        threaded.flush()?;
        assert_eq!(seen.lock().unwrap().last(), Some(&(7, 8)));
        Ok(())
    });
}

#[test]
fn closures_that_run_once_are_freed_once() {
    for level in [Irql::PASSIVE, Irql::APC, Irql::DISPATCH] {
        on_seeds(|| {
            for number in 0..3 {
                let (owned, runs, drops) = Owned::new();
                irql::with_raised(level, || dpc::run_once_on(Processor { group: 0, number }, move || owned.run()))?
                    .map_err(NtError::from)?;
                ksync::driver::drain()?;
                assert_eq!((runs.load(Ordering::Relaxed), drops.load(Ordering::Relaxed)), (1, 1));
            }
            let (owned, runs, drops) = Owned::new();
            irql::with_raised(level, || {
                dpc::run_once(move || owned.run()).unwrap();
                // At DISPATCH_LEVEL it waits for the level to fall.
                assert_eq!(runs.load(Ordering::Relaxed), u32::from(level != Irql::DISPATCH));
            })?;
            ksync::driver::drain()?;
            assert_eq!((runs.load(Ordering::Relaxed), drops.load(Ordering::Relaxed)), (1, 1));
            Ok(())
        });
    }
}

#[test]
fn ksync_56_closures_that_cannot_be_queued_come_back() {
    Machine::new()
        .fail_allocation(1)
        .run(|| {
            let (owned, runs, drops) = Owned::new();
            let failure = dpc::run_once(move || owned.run()).unwrap_err();
            assert_eq!(failure.error, NtError::INSUFFICIENT_RESOURCES);
            assert_eq!((runs.load(Ordering::Relaxed), drops.load(Ordering::Relaxed)), (0, 0));
            let failure = dpc::run_once_on(Processor { group: 0, number: 1 }, failure.closure).unwrap_err();
            assert_eq!(failure.error, NtError::INVALID_PARAMETER);
            // SAFETY: the level is restored below, and in between only an operation runs that checks it.
            let old = unsafe { ksync::sys::KfRaiseIrql(5) };
            let refused = dpc::run_once(failure.closure);
            // SAFETY: the level was raised above from this one.
            unsafe { ksync::sys::KeLowerIrql(old) };
            let failure = refused.unwrap_err();
            assert_eq!(failure.error, NtError::IRQL_TOO_HIGH);
            dpc::run_once(failure.closure).unwrap();
            assert_eq!((runs.load(Ordering::Relaxed), drops.load(Ordering::Relaxed)), (1, 1));
        })
        .expect_clean();
}

#[test]
fn a_closure_that_runs_once_may_run_others() {
    on_seeds(|| {
        let (owned, runs, drops) = Owned::new();
        dpc::run_once(move || {
            owned.run();
            for number in 0..3 {
                let runs = Arc::clone(&owned.runs);
                dpc::run_once_on(Processor { group: 0, number }, move || {
                    runs.fetch_add(1, Ordering::Relaxed);
                })
                .unwrap();
            }
        })
        .map_err(NtError::from)?;
        ksync::driver::drain()?;
        assert_eq!((runs.load(Ordering::Relaxed), drops.load(Ordering::Relaxed)), (4, 1));
        Ok(())
    });
}

#[test]
fn ksync_56_no_memory_is_an_error() {
    Machine::new()
        .fail_allocation(1)
        .run(|| {
            let (owned, _, drops) = Owned::new();
            assert_eq!(Dpc::new(move || owned.run()).unwrap_err(), NtError::INSUFFICIENT_RESOURCES);
            assert_eq!(drops.load(Ordering::Relaxed), 1);
        })
        .expect_clean();
}

#[test]
fn threads_queue_one_dpc_at_once() {
    on_machines(|| {
        let (owned, runs, drops) = Owned::new();
        let dpc = Dpc::new(move || owned.run())?;
        let queued = thread::scope(|scope| {
            let threads: Vec<_> =
                (0..3).map(|_| scope.spawn(|| (0..4).filter(|_| dpc.enqueue().unwrap()).count()).unwrap()).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        dpc.flush()?;
        assert_eq!(runs.load(Ordering::Relaxed) as usize, queued);
        drop(dpc);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        Ok(())
    });
}
