//! Handles and guards that are forgotten.

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::sync::Arc;

use super::{MS, US};
use ksim::Machine;
use ksync::dpc::{Dpc, ThreadedDpc};
use ksync::driver::{self, DriverObject};
use ksync::error::Result;
use ksync::irql::{self, Irql};
use ksync::mutex::{FastLocked, KMutex, PushLocked, Rundown, SpinLocked};
use ksync::pool::KBox;
use ksync::region::{CriticalRegion, GuardedRegion};
use ksync::thread::{self, this_thread};
use ksync::timer::{HrTimer, Timer};
use ksync::work_item::WorkItem;
use test_support::driver::load;

/// Forgotten handles leak what they stand for, which then is never due any more: nothing of the image runs after a drain.
#[test]
fn forgotten_handles_leak_and_are_stopped_by_a_drain() {
    for processors in [1, 2, 4, 64] {
        let outcome = Machine::new().processors(processors).run(|| {
            let runs = Arc::new(AtomicU32::new(0));
            let count = || {
                let runs = runs.clone();
                move || {
                    runs.fetch_add(1, Ordering::SeqCst);
                }
            };
            let (timer, threaded) = (Timer::new(count(), false).unwrap(), Timer::new(count(), true).unwrap());
            let (precise, dpc, threaded_dpc) =
                (HrTimer::new(count()).unwrap(), Dpc::new(count()).unwrap(), ThreadedDpc::new(count()).unwrap());
            timer.start(US, MS).unwrap();
            threaded.start(US, MS).unwrap();
            precise.start(US, MS).unwrap();
            dpc.enqueue().unwrap();
            threaded_dpc.enqueue().unwrap();
            let sleeper = count();
            let thread = thread::spawn(move || {
                this_thread::sleep(MS).unwrap();
                sleeper();
            });
            core::mem::forget((timer, threaded, precise, dpc, threaded_dpc, thread));
            driver::drain().unwrap();
            let before = runs.load(Ordering::SeqCst);
            this_thread::sleep(20 * MS).unwrap();
            assert_eq!(runs.load(Ordering::SeqCst), before);
            assert!(before >= 3, "{before}");
        });
        assert!(outcome.is_completed(), "{outcome}");
        assert!(outcome.left().timers.is_empty(), "{outcome}");
        assert!(outcome.left().pool.len() >= 6, "{outcome}");
    }
}

/// What a forgotten guard leaves behind in a thread, a worker, or a DPC.
const FORGOTTEN: [(&str, fn()); 9] = [
    ("level", || core::mem::forget(irql::raise(Irql::APC))),
    ("dispatch level", || core::mem::forget(irql::raise(Irql::DISPATCH))),
    ("critical region", || core::mem::forget(CriticalRegion::enter())),
    ("guarded region", || core::mem::forget(GuardedRegion::enter())),
    ("spin lock", || {
        let lock = KBox::leak(KBox::new(SpinLocked::const_new(1)).unwrap());
        core::mem::forget(lock.lock());
    }),
    ("fast mutex", || {
        if let Ok(lock) = FastLocked::new(1) {
            core::mem::forget(KBox::leak(KBox::new(lock).unwrap()).lock());
        }
    }),
    ("push lock", || {
        let lock = KBox::leak(KBox::new(PushLocked::const_new(1)).unwrap());
        core::mem::forget(lock.lock());
    }),
    ("mutex", || {
        if let Ok(lock) = KMutex::new(1) {
            core::mem::forget(KBox::leak(KBox::new(lock).unwrap()).lock());
        }
    }),
    ("rundown", || {
        let rundown = KBox::leak(KBox::new(Rundown::new()).unwrap());
        core::mem::forget(rundown.acquire());
    }),
];

/// Runs code somewhere.
type Place = fn(&DriverObject, fn()) -> Result;

/// A guard that was forgotten leaks its lock, or stops the system where its thread or routine ends, by the bug check that is for that.
#[test]
fn forgotten_guards_stop_the_system_at_worst() {
    let places: [(&str, Place); 5] = [
        ("thread", |_, forget| thread::spawn(forget)?.join()),
        ("dpc", |_, forget| {
            let dpc = Dpc::new(forget)?;
            dpc.enqueue()?;
            dpc.flush()
        }),
        ("threaded dpc", |_, forget| {
            let dpc = ThreadedDpc::new(forget)?;
            dpc.enqueue()?;
            dpc.flush()
        }),
        ("timer", |_, forget| {
            let timer = Timer::new(forget, false)?;
            timer.start(US, Duration::ZERO)?;
            this_thread::sleep(MS)
        }),
        ("work item", |driver, forget| {
            let item = WorkItem::new(driver, forget)?;
            item.enqueue()?;
            item.flush()
        }),
    ];
    let mut stopped = 0;
    for (what, forget) in FORGOTTEN {
        for (place, run) in places {
            let outcome = Machine::new().processors(2).run(|| {
                let _ = load(move |driver| run(driver, forget)).map(|driver| driver.unload());
            });
            let Some(stop) = outcome.bug_check() else {
                assert!(outcome.is_completed(), "{what} in a {place}: {outcome}");
                continue;
            };
            stopped += 1;
            // Those of a level, a region or a lock at the end of a routine or a thread, of pool at an unload, and of waits in a threaded DPC.
            let expected = [0x1, 0x20, 0xb8, 0xc4, 0xc7, 0xc8, 0xe1, 0x133, 0x153, 0x4000_008a];
            assert!(expected.contains(&stop.code), "{what} in a {place}: {outcome}");
        }
    }
    assert!(stopped >= 20, "{stopped}");
}
