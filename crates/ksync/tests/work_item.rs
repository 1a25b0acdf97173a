//! Work items, on the hosted kernel, in a driver that is loaded and unloaded around each test.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use core::time::Duration;
use ksim::{Machine, Outcome};
use ksync::NtError;
use ksync::device::{DeviceBuilder, Dispatch};
use ksync::driver::DriverObject;
use ksync::event::{Event, EventProperty};
use ksync::irql::{self, Irql};
use ksync::object::ThreadId;
use ksync::thread::{self, this_thread};
use ksync::wait::Dispatchable;
use ksync::work_item::{self, WorkItem, WorkQueue};
use std::sync::{Arc, Mutex};

/// Runs code as a driver's entry, and unloads the driver.
fn in_driver(machine: &Machine, body: fn(&DriverObject)) -> Outcome {
    machine.run(|| test_support::driver::in_driver(body))
}

/// The same on several numbers of processors with several seeds.
fn explore(body: fn(&DriverObject)) {
    for processors in [1, 2, 4] {
        for seed in 0..12 {
            let outcome = in_driver(&Machine::new().processors(processors).seed(seed), body);
            assert!(outcome.is_completed() && outcome.left().is_empty(), "{processors} processors: {outcome}");
        }
    }
}

const MS: Duration = Duration::from_millis(1);

/// Counts its drops.
struct Counted(Arc<AtomicU32>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Nothing;
impl Dispatch for Nothing {}

#[test]
fn an_item_runs_at_passive_level_each_time_that_it_is_queued() {
    explore(|driver| {
        let runs = Arc::new(AtomicU32::new(0));
        let counter = runs.clone();
        let item = WorkItem::new(driver, move || {
            assert_eq!(irql::current(), Irql::PASSIVE);
            counter.fetch_add(1, Ordering::Relaxed);
        })
        .unwrap();
        for queue in [WorkQueue::Critical, WorkQueue::Delayed, WorkQueue::Normal, WorkQueue::Background, WorkQueue::RealTime] {
            assert_eq!(irql::with_raised(Irql::DISPATCH, || item.enqueue_on(queue)).unwrap(), Ok(true));
            item.flush().unwrap();
        }
        assert_eq!(runs.load(Ordering::Relaxed), 5);
    });
}

#[test]
fn ksync_51_an_item_that_is_queued_is_not_queued_again() {
    explore(|driver| {
        let runs = Arc::new(AtomicU32::new(0));
        let counter = runs.clone();
        let item = WorkItem::new(driver, move || {
            counter.fetch_add(1, Ordering::Relaxed);
        })
        .unwrap();
        let mut queued = 0;
        for _ in 0..8 {
            queued += u32::from(item.enqueue().unwrap());
        }
        drop(item);
        assert_eq!(runs.load(Ordering::Relaxed), queued);
    });
}

#[test]
fn an_item_is_queued_again_by_its_own_closure() {
    explore(|driver| {
        let place: Arc<Mutex<Option<Arc<WorkItem>>>> = Arc::new(Mutex::new(None));
        let (own, runs) = (place.clone(), Arc::new(AtomicU32::new(0)));
        let counter = runs.clone();
        let item = WorkItem::new(driver, move || {
            if counter.fetch_add(1, Ordering::Relaxed) < 3 {
                let item = own.lock().unwrap().clone().unwrap();
                assert_eq!(item.enqueue(), Ok(true));
                assert_eq!(item.flush(), Err(NtError::WOULD_DEADLOCK));
            }
        })
        .unwrap();
        let item = Arc::new(item);
        *place.lock().unwrap() = Some(item.clone());
        item.enqueue().unwrap();
        item.flush().unwrap();
        assert_eq!(runs.load(Ordering::Relaxed), 4);
        *place.lock().unwrap() = None;
    });
}

#[test]
fn ksync_15_an_item_is_dropped_while_it_is_queued_at_every_level() {
    explore(|driver| {
        for level in [Irql::PASSIVE, Irql::APC, Irql::DISPATCH] {
            let (runs, drops) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
            let (counter, counted) = (runs.clone(), Counted(drops.clone()));
            let item = WorkItem::new(driver, move || {
                let _ = &counted;
                counter.fetch_add(1, Ordering::Relaxed);
            })
            .unwrap();
            item.enqueue().unwrap();
            irql::with_raised(level, || drop(item)).unwrap();
            if level == Irql::PASSIVE {
                assert_eq!(drops.load(Ordering::Relaxed), 1, "the drop has waited");
            }
            this_thread::sleep(MS).unwrap();
            assert_eq!((runs.load(Ordering::Relaxed), drops.load(Ordering::Relaxed)), (1, 1), "{level:?}");
        }
    });
}

#[test]
fn an_item_is_dropped_by_its_own_closure() {
    explore(|driver| {
        let (place, drops) = (Arc::new(Mutex::new(None::<WorkItem>)), Arc::new(AtomicU32::new(0)));
        let (own, counted) = (place.clone(), Counted(drops.clone()));
        let item = WorkItem::new(driver, move || {
            let _ = &counted;
            drop(own.lock().unwrap().take());
        })
        .unwrap();
        let mut guard = place.lock().unwrap();
        *guard = Some(item);
        drop(guard);
        // Taken by the closure, whichever comes first.
        let item = place.lock().unwrap().take().unwrap();
        item.enqueue().unwrap();
        *place.lock().unwrap() = Some(item);
        this_thread::sleep(MS).unwrap();
        drop(place.lock().unwrap().take());
        assert_eq!(drops.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn an_item_is_dropped_while_it_runs() {
    explore(|driver| {
        for detached in [false, true] {
            let started = Arc::new(Event::new(EventProperty::Notification, false).unwrap());
            let (signal, done) = (started.clone(), Arc::new(AtomicBool::new(false)));
            let flag = done.clone();
            let item = WorkItem::new(driver, move || {
                signal.set().unwrap();
                this_thread::sleep(MS).unwrap();
                flag.store(true, Ordering::Relaxed);
            })
            .unwrap();
            item.enqueue().unwrap();
            assert!(started.wait().success());
            if detached {
                item.detach();
                assert!(!done.load(Ordering::Relaxed));
            } else {
                drop(item);
                assert!(done.load(Ordering::Relaxed));
            }
        }
    });
}

#[test]
fn an_unload_waits_for_what_is_queued() {
    static DONE: AtomicU32 = AtomicU32::new(0);
    explore(|driver| {
        DONE.store(0, Ordering::Relaxed);
        for _ in 0..3 {
            work_item::post(driver, || {
                this_thread::sleep(MS).unwrap();
                // What was started meanwhile is waited for too.
                thread::spawn(|| {
                    this_thread::sleep(MS).unwrap();
                    DONE.fetch_add(1, Ordering::Relaxed);
                })
                .unwrap()
                .detach();
            })
            .unwrap();
        }
    });
    assert_eq!(DONE.load(Ordering::Relaxed), 3);
}

#[test]
fn a_device_is_kept_by_its_items() {
    explore(|driver| {
        let device = DeviceBuilder::new().create(driver, Nothing).unwrap();
        let raw = device.object().as_raw() as usize;
        work_item::post(&device, move || {
            this_thread::sleep(MS).unwrap();
            // SAFETY: the item keeps the device, though it has been deleted.
            assert_eq!(unsafe { (*(raw as *const ksync::sys::DEVICE_OBJECT)).Type }, 3);
        })
        .unwrap();
        let item = WorkItem::new(device.object(), || ()).unwrap();
        drop(device);
        // The device is deleted, and still there for the item.
        assert_eq!(item.enqueue(), Ok(true));
    });
}

#[test]
fn too_high_a_level_is_an_error() {
    explore(|driver| {
        let item = WorkItem::new(driver, || ()).unwrap();
        irql::with_raised(Irql::DISPATCH, || {
            assert_eq!(item.flush(), Err(NtError::IRQL_TOO_HIGH));
        })
        .unwrap();
        // SAFETY: the level is lowered again at once.
        let old = unsafe { ksync::sys::KfRaiseIrql(12) };
        assert_eq!(item.enqueue(), Err(NtError::IRQL_TOO_HIGH));
        assert_eq!(WorkItem::new(driver, || ()).err(), Some(NtError::IRQL_TOO_HIGH));
        assert_eq!(work_item::post(driver, || ()), Err(NtError::IRQL_TOO_HIGH));
        // SAFETY: the level was raised above.
        unsafe { ksync::sys::KeLowerIrql(old) };
    });
}

#[test]
fn every_allocation_may_fail() {
    fn body(driver: &DriverObject) {
        let drops = Arc::new(AtomicU32::new(0));
        let made = [
            WorkItem::new(driver, {
                let counted = Counted(drops.clone());
                move || drop(counted.0.clone())
            })
            .map(|item| item.enqueue().map(drop)),
            work_item::post(driver, {
                let counted = Counted(drops.clone());
                move || drop(counted)
            })
            .map(Ok),
        ];
        for result in made {
            assert!(matches!(result, Ok(Ok(())) | Err(NtError::INSUFFICIENT_RESOURCES)));
        }
        this_thread::sleep(MS).unwrap();
        assert_eq!(drops.load(Ordering::Relaxed), 2);
    }
    let total = in_driver(&Machine::new(), body).expect_clean().statistics().allocations;
    for failing in 1..=total {
        let outcome = Machine::new().fail_allocation(failing).run(|| {
            if let Ok(driver) = test_support::driver::load(move |driver| {
                body(driver);
                Ok(())
            }) {
                driver.unload();
            }
        });
        assert!(outcome.is_completed() && outcome.left().is_empty(), "allocation {failing}: {outcome}");
    }
}

#[test]
fn a_forgotten_item_is_a_leak_and_no_more() {
    let outcome = in_driver(&Machine::new(), |driver| {
        let item = WorkItem::new(driver, || ()).unwrap();
        item.enqueue().unwrap();
        core::mem::forget(item);
    });
    assert_eq!(outcome.expect_bug_check(0xc4).parameters[0], 0x62);
}

/// What a closure owns is the image's code too: a drain waits until it is dropped, wherever that is.
#[test]
fn a_drain_waits_until_what_closures_own_is_gone() {
    struct Slow(Arc<AtomicU32>, ThreadId);
    impl Drop for Slow {
        fn drop(&mut self) {
            for _ in 0..10 {
                this_thread::stall(Duration::from_micros(1));
            }
            // In a worker a drain would wait for the worker's item; elsewhere it does not wait for the item that is being freed.
            let may = this_thread::id() == self.1 && irql::current() == Irql::PASSIVE;
            assert_eq!(ksync::driver::drain().is_ok(), may);
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    explore(|driver| {
        for level in [Irql::PASSIVE, Irql::APC, Irql::DISPATCH] {
            let gone = Arc::new(AtomicU32::new(0));
            let slow = || Slow(gone.clone(), this_thread::id());
            let (never, posted, queued) = (slow(), slow(), slow());
            let item = WorkItem::new(driver, move || {
                let _ = &never;
            })
            .unwrap();
            drop(item);
            assert_eq!(gone.load(Ordering::SeqCst), 1);
            work_item::post(driver, move || drop(posted)).unwrap();
            let item = WorkItem::new(driver, move || {
                let _ = &queued;
            })
            .unwrap();
            item.enqueue().unwrap();
            irql::with_raised(level, || drop(item)).unwrap();
            ksync::driver::drain().unwrap();
            assert_eq!(gone.load(Ordering::SeqCst), 3);
        }
    });
}
