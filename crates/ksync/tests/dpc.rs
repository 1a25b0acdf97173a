//! DPCs, on the hosted kernel.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use core::time::Duration;
use ksim::Machine;
use ksync::NtError;
use ksync::dpc::{self, Dpc, Importance, Processor, ThreadedDpc};
use ksync::error::Result;
use ksync::event::{Event, EventProperty};
use ksync::irql::{self, Irql};
use ksync::thread::{self, this_thread};
use ksync::wait::Dispatchable;
use std::sync::{Arc, Mutex};

fn on_seeds(code: impl Fn() -> Result) {
    for seed in 0..50 {
        Machine::new().processors(3).seed(seed).run(|| code().unwrap()).expect_clean();
    }
}

/// A value that a closure owns and that counts its uses and drops.
struct Owned {
    text: String,
    runs: Arc<AtomicU32>,
    drops: Arc<AtomicU32>,
}

impl Owned {
    fn new() -> (Self, Arc<AtomicU32>, Arc<AtomicU32>) {
        let (runs, drops) = (Arc::default(), Arc::default());
        let owned = Self { text: "captured".to_owned(), runs: Arc::clone(&runs), drops: Arc::clone(&drops) };
        (owned, runs, drops)
    }

    fn run(&self) {
        assert_eq!(self.text, "captured");
        self.runs.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn ksync_1_a_dpc_runs_again_and_its_closure_is_dropped_once() {
    on_seeds(|| {
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
    on_seeds(|| {
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
    on_seeds(|| {
        let (owned, runs, drops) = Owned::new();
        drop(Dpc::new(move || owned.run())?);
        assert_eq!((runs.load(Ordering::Relaxed), drops.load(Ordering::Relaxed)), (0, 1));
        Ok(())
    });
}

#[test]
fn ksync_13_a_queued_dpc_is_removed_when_it_is_dropped() {
    on_seeds(|| {
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
    on_seeds(|| {
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
    on_seeds(|| {
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
    on_seeds(|| {
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
    on_seeds(|| {
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
    on_seeds(|| {
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
