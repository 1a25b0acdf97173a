//! What closures own: where it is dropped, how it lies, and what it does there.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use core::time::Duration;
use std::sync::{Arc, Mutex, PoisonError};

use super::{MS, US, with_driver};
use ksim::Machine;
use ksync::NtError;
use ksync::dpc::{self, Dpc, Importance, Processor, ThreadedDpc};
use ksync::driver::{self, DriverObject};
use ksync::error::Result;
use ksync::event::{Event, EventProperty};
use ksync::irql::{self, Irql};
use ksync::pool::{KArc, KBox};
use ksync::thread::{self, this_thread};
use ksync::timer::{HrTimer, Timer, delay_run};
use ksync::work_item::{self, WorkItem};
use test_support::driver::load;

/// What does all it can when it is dropped, wherever that is.
struct Busy {
    dpc: Option<Dpc>,
    threaded: Option<ThreadedDpc>,
    timer: Option<Timer>,
    precise: Option<HrTimer>,
    item: Option<WorkItem>,
    event: Event,
    dropped: Arc<AtomicU32>,
}

impl Busy {
    fn new(driver: &DriverObject, dropped: &Arc<AtomicU32>) -> Result<Self> {
        let busy = Self {
            dpc: Some(Dpc::new(|| {})?),
            threaded: Some(ThreadedDpc::new(|| {})?),
            timer: Some(Timer::new(|| {}, true)?),
            precise: Some(HrTimer::new(|| {})?),
            item: Some(WorkItem::new(driver, || {})?),
            event: Event::new(EventProperty::Notification, true)?,
            dropped: dropped.clone(),
        };
        Ok(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let level = irql::current();
        assert!(level <= Irql::DISPATCH);
        self.event.set().unwrap();
        // While an image is being drained these are refused.
        let _ = self.dpc.as_ref().unwrap().enqueue();
        let _ = self.threaded.as_ref().unwrap().enqueue();
        let _ = self.timer.as_ref().unwrap().start(US, Duration::ZERO);
        let _ = self.precise.as_ref().unwrap().start(US, Duration::ZERO);
        let _ = self.item.as_ref().unwrap().enqueue();
        let _ = delay_run(US, || {});
        let _ = dpc::run_once(|| {});
        let flushed = self.dpc.as_ref().unwrap().flush();
        assert!(flushed.is_ok() || level > Irql::PASSIVE || flushed == Err(NtError::WOULD_DEADLOCK));
        drop((self.dpc.take(), self.threaded.take(), self.timer.take(), self.precise.take(), self.item.take()));
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

/// Closures are dropped by whoever uses them last: a drop at each level, a DPC, a threaded DPC, a worker. What they own does what it likes there.
#[test]
fn what_closures_own_may_do_anything_when_it_is_dropped() {
    with_driver(|driver| {
        for level in [Irql::PASSIVE, Irql::APC, Irql::DISPATCH] {
            let dropped = Arc::new(AtomicU32::new(0));
            let owned = || -> Result<_> {
                let busy = Busy::new(driver, &dropped)?;
                // The closure goes on while its handle is dropped.
                Ok(move || {
                    for _ in 0..3 {
                        this_thread::stall(US);
                    }
                    let _ = &busy;
                })
            };
            let (ordinary, threaded) = (Timer::new(owned()?, false)?, Timer::new(owned()?, true)?);
            let (precise, dpc) = (HrTimer::new(owned()?)?, Dpc::new(owned()?)?);
            let (threaded_dpc, item) = (ThreadedDpc::new(owned()?)?, WorkItem::new(driver, owned()?)?);
            delay_run(US, owned()?).map_err(|refused| refused.error)?;
            dpc::run_once(owned()?).map_err(|refused| refused.error)?;
            work_item::post(driver, owned()?)?;
            let last = Processor::from_index(u32::try_from(thread::available_parallelism().get() - 1).unwrap()).unwrap();
            for dpc in [&*dpc, &*threaded_dpc] {
                dpc.set_target(last)?;
                dpc.set_importance(Importance::High);
            }
            irql::with_raised(level, || -> Result {
                ordinary.start(US, Duration::ZERO)?;
                threaded.start(US, Duration::ZERO)?;
                precise.start(US, Duration::ZERO)?;
                dpc.enqueue()?;
                threaded_dpc.enqueue()?;
                item.enqueue()?;
                for _ in 0..2 {
                    this_thread::stall(US);
                }
                drop((ordinary, threaded, precise, dpc, threaded_dpc, item));
                Ok(())
            })??;
            driver::drain()?;
            assert_eq!(dropped.load(Ordering::SeqCst), 9);
        }
        Ok(())
    });
}

/// More aligned than pool is.
#[repr(align(256))]
struct Aligned(u64);

impl Aligned {
    fn check(&self) -> u64 {
        assert!((&raw const *self).addr().is_multiple_of(256));
        self.0
    }
}

/// The count of `Nothing`s that are alive.
static NOTHINGS: AtomicUsize = AtomicUsize::new(0);
/// The tests that count them, one at a time.
static COUNTING: Mutex<()> = Mutex::new(());

/// A value of no size, which owns something all the same.
struct Nothing;

impl Nothing {
    fn new() -> Self {
        NOTHINGS.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

impl Drop for Nothing {
    fn drop(&mut self) {
        NOTHINGS.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn what_closures_own_keeps_its_alignment_and_its_size() {
    let _counting = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    NOTHINGS.store(0, Ordering::SeqCst);
    with_driver(|driver| {
        let sum = Arc::new(AtomicUsize::new(0));
        // Aligned, large, and nothing at all.
        let owned = |number: u64| {
            let (aligned, large, nothing, sum) = (Aligned(number), [number; 64], Nothing::new(), sum.clone());
            move || {
                let (_, _) = (&nothing, &aligned);
                assert!(large.iter().all(|&word| word == number));
                sum.fetch_add(usize::try_from(aligned.check()).unwrap(), Ordering::SeqCst);
            }
        };
        let timers = [Timer::new(owned(1), false)?, Timer::new(owned(10), true)?];
        for timer in &timers {
            timer.start(MS, Duration::ZERO)?;
        }
        let precise = HrTimer::new(owned(100))?;
        precise.start(US, Duration::ZERO)?;
        let dpc = Dpc::new(owned(1000))?;
        dpc.enqueue()?;
        let threaded = ThreadedDpc::new(owned(10_000))?;
        threaded.enqueue()?;
        let item = WorkItem::new(driver, owned(100_000))?;
        item.enqueue()?;
        delay_run(US, owned(1_000_000)).map_err(|refused| refused.error)?;
        dpc::run_once(owned(10_000_000)).map_err(|refused| refused.error)?;
        work_item::post(driver, owned(100_000_000))?;
        let last = owned(1_000_000_000);
        let result = thread::spawn(move || (last(), Aligned(7)))?.join()?;
        assert_eq!(result.1.check(), 7);
        dpc::run_once_per_core(owned(0))?;
        assert_eq!(KBox::new(Aligned(8))?.check(), 8);
        assert_eq!(KArc::new(Aligned(9))?.check(), 9);
        drop((KBox::new(Nothing::new())?, KArc::new(Nothing::new())?, KBox::new([(); usize::MAX])?));
        assert_eq!(KBox::<[u8; 1 << 46]>::new_uninit().map(drop), Err(NtError::INSUFFICIENT_RESOURCES));
        this_thread::sleep(5 * MS)?;
        drop((timers, precise, dpc, threaded, item));
        driver::drain()?;
        assert_eq!(sum.load(Ordering::SeqCst), 1_111_111_111);
        assert_eq!(NOTHINGS.load(Ordering::SeqCst), 0);
        Ok(())
    });
}

/// A closure that panics stops a hosted machine as a bug check; what it owns is not dropped twice on the way.
#[test]
fn a_panic_in_a_closure_is_reported_and_frees_nothing_twice() {
    let _counting = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    fn panicking() -> impl Fn() + Send + Sync {
        let (nothing, text) = (Nothing::new(), String::from("on purpose"));
        move || {
            let _ = &nothing;
            panic!("{text}");
        }
    }
    type Start = fn(&DriverObject) -> Result;
    let starts: [(&str, Start); 9] = [
        ("timer", |_| {
            let timer = Timer::new(panicking(), false)?;
            timer.start(US, MS)?;
            this_thread::sleep(MS)
        }),
        ("dpc", |_| Dpc::new(panicking())?.enqueue().map(drop)),
        ("threaded dpc", |_| {
            let dpc = ThreadedDpc::new(panicking())?;
            dpc.enqueue()?;
            dpc.flush()
        }),
        ("threaded timer", |_| {
            let timer = Timer::new(panicking(), true)?;
            timer.start(US, MS)?;
            this_thread::sleep(MS)
        }),
        ("hr timer", |_| {
            let timer = HrTimer::new(panicking())?;
            timer.start(US, US)?;
            this_thread::sleep(MS)
        }),
        ("work item", |driver| {
            let item = WorkItem::new(driver, panicking())?;
            item.enqueue()?;
            item.flush()
        }),
        ("post", |driver| {
            work_item::post(driver, panicking())?;
            this_thread::sleep(MS)
        }),
        ("delayed", |_| {
            delay_run(US, panicking()).map_err(|refused| refused.error)?;
            this_thread::sleep(MS)
        }),
        ("per core", |_| dpc::run_once_per_core(panicking())),
    ];
    for (name, start) in starts {
        NOTHINGS.store(0, Ordering::SeqCst);
        let outcome = Machine::new().processors(2).run(|| {
            let _ = load(start);
        });
        let report = outcome.to_string();
        assert!(!outcome.is_completed() && report.contains("on purpose"), "{name}: {report}");
        // Once, or not at all where the machine stopped first. One that was dropped twice would be a huge number.
        assert!(NOTHINGS.load(Ordering::SeqCst) <= 1, "{name}");
    }
}
