//! The life of each object: made, used and dropped at each level, on 1, 2, 4 and 64 processors, under many schedules, and with each allocation failing in turn. All of it is a driver's, so that
//! its unload finds what is left.

use core::cell::Cell;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::sync::Arc;

use ksim::{Machine, load_driver};
use ksync::NtError;
use ksync::device::{Device, DeviceBuilder, Dispatch, IrpQueue, OpenDevice};
use ksync::dpc::{self, Dpc, ThreadedDpc};
use ksync::driver::{self, DriverObject, UnicodeStr};
use ksync::error::Result;
use ksync::event::{Event, EventProperty};
use ksync::handle::ObjectHandle;
use ksync::irql::{self, Irql};
use ksync::lookaside::Lookaside;
use ksync::mutex::{
    FastLocked, GuardLocked, InStackQueueLocked, KMutex, PushLocked, ResourceLocked, Rundown, SpinLocked, SpinRwLocked,
};
use ksync::object::{EventObject, ProcessObject, ThreadObject};
use ksync::pool::{KArc, KBox};
use ksync::remove_lock::RemoveLock;
use ksync::semaphore::Semaphore;
use ksync::sys;
use ksync::thread::{self, Builder, this_thread};
use ksync::timer::{HrTimer, Timer, TimerKind, delay_run, set_timer_resolution};
use ksync::wait::Dispatchable;
use ksync::work_item::{self, WorkItem};

const US: Duration = Duration::from_micros(1);
const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// The life of an object of a driver's, which ends at a level.
type Life = fn(&DriverObject, Irql) -> Result;

/// Counts the runs of a closure, and that it is dropped once.
struct Counted(Arc<AtomicU32>, Arc<AtomicU32>);

impl Drop for Counted {
    fn drop(&mut self) {
        assert_eq!(self.1.fetch_add(1, Ordering::SeqCst), 0, "dropped twice");
    }
}

impl Counted {
    fn new() -> (Self, Arc<AtomicU32>) {
        let runs = Arc::new(AtomicU32::new(0));
        (Self(runs.clone(), Arc::default()), runs)
    }

    fn run(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        assert_eq!(self.1.load(Ordering::SeqCst), 0, "dropped while it runs");
    }
}

struct Nothing;

impl Dispatch for Nothing {}

fn drop_at<T>(level: Irql, value: T) -> Result {
    irql::with_raised(level, || drop(value))
}

/// Runs a closure's object, and drops it at a level, now and while it is due again.
fn closure<T>(level: Irql, make: impl FnOnce(Counted) -> Result<T>, fire: impl Fn(&T) -> Result) -> Result {
    let (counted, runs) = Counted::new();
    let handle = make(counted)?;
    fire(&handle)?;
    this_thread::sleep(2 * MS)?;
    assert!(runs.load(Ordering::SeqCst) > 0);
    fire(&handle)?;
    drop_at(level, handle)
}

/// Each object, with the highest level at which it can be dropped without a report.
const LIVES: &[(&str, Life)] = &[
    ("event", |_, level| {
        let event = Event::new(EventProperty::Synchronization, false)?;
        irql::with_raised(level, || event.set())??;
        assert!(event.wait().success());
        drop_at(level, event)
    }),
    ("semaphore", |_, level| {
        let semaphore = Semaphore::new(0, 2)?;
        irql::with_raised(level, || semaphore.release(1))??;
        assert!(semaphore.wait().success());
        drop_at(level, semaphore)
    }),
    ("mutex", |_, level| {
        let mutex = KMutex::new(1)?;
        *mutex.lock()? += 1;
        drop_at(level, mutex)
    }),
    ("spin locks", |_, level| {
        let locks = (SpinLocked::const_new(1), SpinRwLocked::const_new(1), InStackQueueLocked::const_new(1));
        irql::with_raised(level, || locks.0.lock().map(|mut data| *data += 1))??;
        irql::with_raised(level, || locks.1.lock().map(|mut data| *data += 1))??;
        drop_at(level, KBox::new(locks)?)
    }),
    ("locks that wait", |_, level| {
        let locks = (FastLocked::new(1)?, GuardLocked::new(1)?, PushLocked::const_new(1));
        *locks.0.lock()? += 1;
        *locks.1.lock()? += 1;
        *locks.2.lock()? += 1;
        drop_at(level, locks)
    }),
    ("resource", |_, level| {
        let resource = ResourceLocked::new(1)?;
        *resource.lock()? += 1;
        // A resource is deleted below DISPATCH_LEVEL.
        drop_at(level.min(Irql::APC), resource)
    }),
    ("rundown and remove lock", |_, level| {
        let (rundown, lock) = (Rundown::new(), RemoveLock::new()?);
        irql::with_raised(level, || rundown.acquire().map(drop))??;
        irql::with_raised(level, || lock.acquire().map(drop))??;
        rundown.wait()?;
        lock.remove()?;
        drop_at(level, (rundown, lock))
    }),
    ("boxes", |_, level| {
        let shared = KArc::new([1; 100])?;
        drop_at(level, (shared.clone(), KBox::new([2; 5000])?))?;
        drop_at(level, shared)
    }),
    ("lookaside list", |_, level| {
        let list = Lookaside::<[u8; 100]>::new()?;
        let entries = irql::with_raised(level, || (list.alloc([1; 100]), list.alloc([2; 100])))?;
        irql::with_raised(level, || drop(entries))?;
        drop_at(level, list)
    }),
    ("waitable timer", |_, level| {
        let timer = Timer::waitable(TimerKind::Synchronization)?;
        irql::with_raised(level, || timer.start(MS, MS))??;
        assert!(timer.wait().success());
        drop_at(level, timer)
    }),
    ("timer", |_, level| {
        closure(level, |counted| Timer::new(move || counted.run(), false), |timer| timer.start(US, MS).map(drop))
    }),
    ("threaded timer", |_, level| {
        closure(level, |counted| Timer::new(move || counted.run(), true), |timer| timer.start(US, MS).map(drop))
    }),
    ("timer that was never due", |_, level| {
        let (counted, _) = Counted::new();
        let timer = Timer::new(move || counted.run(), false)?;
        timer.start(SECOND, Duration::ZERO)?;
        drop_at(level, timer)
    }),
    ("coalescable timer", |_, level| {
        let start = |timer: &Timer| timer.start_coalescable(US, MS, MS).map(drop);
        closure(level, |counted| Timer::new(move || counted.run(), false), start)
    }),
    ("waitable high-resolution timer", |_, level| {
        let timer = HrTimer::waitable(TimerKind::Notification)?;
        irql::with_raised(level, || timer.start(US, 50 * US))??;
        assert!(timer.wait().success());
        drop_at(level, timer)
    }),
    ("high-resolution timer", |_, level| {
        closure(level, |counted| HrTimer::new(move || counted.run()), |timer| timer.start(US, 50 * US).map(drop))
    }),
    ("timer resolution", |_, level| {
        // Above APC_LEVEL it is the drain that takes it back.
        drop_at(level, set_timer_resolution(MS)?)?;
        driver::drain()
    }),
    ("delayed closure", |_, level| {
        let (counted, runs) = Counted::new();
        irql::with_raised(level, || delay_run(US, move || counted.run()).map_err(|refused| refused.error))??;
        this_thread::sleep(MS)?;
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        let (counted, _) = Counted::new();
        delay_run(SECOND, move || counted.run()).map_err(|refused| refused.error)
    }),
    ("dpc", |_, level| closure(level, |counted| Dpc::new(move || counted.run()), |dpc| dpc.enqueue().map(drop))),
    ("threaded dpc", |_, level| closure(level, |counted| ThreadedDpc::new(move || counted.run()), |dpc| dpc.enqueue().map(drop))),
    ("closures that run once", |driver, level| {
        let (counted, runs) = Counted::new();
        irql::with_raised(level, || dpc::run_once(move || counted.run()).map_err(|refused| refused.error))??;
        let (posted, posts) = Counted::new();
        irql::with_raised(level, || work_item::post(driver, move || posted.run()))??;
        driver::drain()?;
        assert_eq!((runs.load(Ordering::SeqCst), posts.load(Ordering::SeqCst)), (1, 1));
        Ok(())
    }),
    ("closure on all processors", |_, _| {
        let (counted, runs) = Counted::new();
        dpc::run_once_per_core(|| counted.run())?;
        assert_eq!(runs.load(Ordering::SeqCst) as usize, thread::available_parallelism().get());
        Ok(())
    }),
    ("work item", |driver, level| {
        closure(level, |counted| WorkItem::new(driver, move || counted.run()), |item| item.enqueue().map(drop))
    }),
    ("thread", |_, level| {
        let (counted, runs) = Counted::new();
        let thread = thread::spawn(move || counted.run())?;
        drop_at(level, thread)?;
        let (counted, more) = Counted::new();
        Builder::new().name("sleeper").priority(9).spawn(move || this_thread::sleep(MS).map(|()| counted.run()))?.detach();
        let result = thread::spawn(|| KBox::new([7; 50]))?.join()??;
        drop_at(level, result)?;
        driver::drain()?;
        assert_eq!((runs.load(Ordering::SeqCst), more.load(Ordering::SeqCst)), (1, 1));
        Ok(())
    }),
    ("scope", |_, _| {
        let mut data = [1, 2, 3, 4];
        let sum = thread::scope(|scope| -> Result<i32> {
            let (first, second) = data.split_at_mut(2);
            let one = scope.spawn(|| first.iter_mut().map(core::mem::take).sum::<i32>())?;
            let other = scope.spawn(|| second.iter().sum::<i32>())?;
            Ok(one.join()? + other.join()?)
        })?;
        assert_eq!((sum, data), (10, [0, 0, 3, 4]));
        Ok(())
    }),
    ("objects and handles", |_, level| {
        let made = ObjectHandle::create_event(None, EventProperty::Notification, false)?;
        let event: EventObject = made.to_object()?;
        let thread = ObjectHandle::from_thread(ThreadObject::current(), sys::GENERIC_ALL)?;
        let process = ProcessObject::from_process_id(ProcessObject::current().id())?;
        drop_at(level, (thread, process, made))?;
        drop_at(level, event)?;
        driver::drain()
    }),
    ("device", |driver, level| {
        let device: Device<Nothing> = DeviceBuilder::new().name(r"\Device\Life").link(r"\??\Life").create(driver, Nothing)?;
        let opened = OpenDevice::open(r"\Device\Life", sys::FILE_READ_DATA)?;
        let item = WorkItem::new(&device, || {})?;
        item.enqueue()?;
        drop_at(level, opened)?;
        drop_at(level, device)?;
        drop_at(level, item)?;
        driver::drain()
    }),
    ("queue of requests", |_, level| {
        let queue = IrpQueue::new()?;
        assert!(irql::with_raised(level, || queue.pop())?.is_none());
        drop_at(level, queue)
    }),
];

thread_local! {
    static LIFE: Cell<Option<(Life, Irql)>> = const { Cell::new(None) };
}

fn entry(driver: &DriverObject, _path: &UnicodeStr<'_>) -> Result {
    let (life, level) = LIFE.get().unwrap();
    life(driver, level)
}

ksync::driver_entry!(entry);

fn in_a_driver(machine: Machine, life: Life, level: Irql) -> (ksim::Outcome, bool) {
    LIFE.set(Some((life, level)));
    let outcome = machine.run(|| match load_driver("life", DriverEntry) {
        Ok(driver) => {
            driver.unload();
            ksync::println!("lived");
        }
        Err(status) => assert_eq!(status, NtError::INSUFFICIENT_RESOURCES.status().0),
    });
    let lived = outcome.debug_output().last().is_some_and(|line| line == "lived");
    (outcome, lived)
}

#[test]
fn each_object_lives_at_each_level_on_all_machines() {
    for &(name, life) in LIVES {
        for level in [Irql::PASSIVE, Irql::APC, Irql::DISPATCH] {
            for (processors, seeds) in [(1, 25), (2, 25), (4, 20), (64, 5)] {
                for seed in 0..seeds {
                    let machine = Machine::new()
                        .processors(processors)
                        .threaded_dpcs(seed % 2 == 0)
                        .flushes_threaded_dpcs(seed % 3 != 0)
                        .seed(seed);
                    let (outcome, lived) = in_a_driver(machine, life, level);
                    assert!(lived, "{name} at {level:?} on {processors} processors: {outcome}");
                    outcome.expect_clean();
                }
            }
        }
    }
}

/// Each allocation, those of the kernel's for what is created included, fails in turn: the error says so, and nothing is left but what was dropped where there was no other way.
#[test]
fn each_allocation_in_the_life_of_each_object_may_fail() {
    let mut failures = 0;
    for &(name, life) in LIVES {
        for level in [Irql::PASSIVE, Irql::APC, Irql::DISPATCH] {
            for failing in 1.. {
                assert!(failing < 60, "{name}");
                let machine = Machine::new().processors(2).fail_allocation(failing);
                let (outcome, lived) = in_a_driver(machine, life, level);
                let reported = outcome.debug_output().iter().any(|line| line.contains("leaked"));
                let unloaded_with_pool = outcome.to_string().contains("pool blocks");
                assert!(outcome.is_completed() || reported && unloaded_with_pool, "{name}, allocation {failing}: {outcome}");
                assert!(!reported || level > Irql::PASSIVE, "{name}, allocation {failing}: {outcome}");
                if !reported {
                    assert!(outcome.left().is_empty(), "{name}, allocation {failing}: {outcome}");
                }
                if lived && !reported && outcome.statistics().allocations < failing {
                    break;
                }
                failures += u32::from(!lived);
            }
        }
    }
    assert!(failures > 100, "{failures}");
}
