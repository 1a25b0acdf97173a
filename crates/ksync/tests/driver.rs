//! Entry and unload of drivers, on the hosted kernel. `ksim` checks at the unload that nothing of the driver is left.

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use ksim::Machine;
use ksync::NtError;
use ksync::dpc::Dpc;
use ksync::driver::{DriverObject, UnicodeStr};
use ksync::error::Result;
use ksync::irql::{self, Irql};
use ksync::thread::{self, JoinHandle, this_thread};
use ksync::timer::{Timer, TimerKind};
use std::cell::RefCell;
use std::sync::{Arc, Mutex};

const SECOND: Duration = Duration::from_secs(1);

/// Runs a driver for 2.5 s on several seeds.
fn run_driver(entry: ksync::sys::DRIVER_INITIALIZE) -> Vec<String> {
    let mut output = Vec::new();
    for seed in 0..20 {
        let outcome = Machine::new().processors(2).seed(seed).run(|| {
            let driver = ksim::load_driver("sample", entry).unwrap();
            this_thread::sleep(SECOND * 5 / 2).unwrap();
            driver.unload();
        });
        output = outcome.debug_output().to_vec();
        outcome.expect_clean();
    }
    output
}

mod state {
    use super::*;

    struct State {
        _timer: Timer,
        _thread: JoinHandle<()>,
    }

    impl Drop for State {
        fn drop(&mut self) {
            ksync::println!("dropped");
        }
    }

    fn entry(driver: &DriverObject, path: &UnicodeStr<'_>) -> Result<State> {
        ksync::println!("{path}");
        assert!(!driver.as_raw().is_null());
        let _timer = Timer::new(|| ksync::println!("tick"), false)?;
        _timer.start(SECOND, SECOND)?;
        let _thread = thread::spawn(|| this_thread::sleep(4 * SECOND).unwrap())?;
        Ok(State { _timer, _thread })
    }

    ksync::driver_entry!(entry);
}

#[test]
fn the_state_lives_until_the_unload() {
    assert_eq!(
        run_driver(state::DriverEntry),
        [r"\Registry\Machine\System\CurrentControlSet\Services\sample", "tick", "tick", "dropped"]
    );
}

mod without_state {
    use super::*;

    fn entry(_: &DriverObject, _: &UnicodeStr<'_>) -> Result {
        thread::spawn(|| this_thread::sleep(10 * SECOND).unwrap())?.detach();
        Ok(())
    }

    ksync::driver_entry!(entry);
}

#[test]
fn detached_threads_are_waited_for() {
    run_driver(without_state::DriverEntry);
}

mod at_dispatch_level {
    use super::*;

    /// What is dropped where nothing can wait.
    fn entry(_: &DriverObject, _: &UnicodeStr<'_>) -> Result {
        let timer = Timer::new(|| (), false)?;
        timer.start(Duration::ZERO, Duration::from_millis(1))?;
        let threaded = Timer::new(|| (), true)?;
        threaded.start(Duration::ZERO, Duration::from_millis(1))?;
        let dpc = Dpc::new(|| ())?;
        let thread = thread::spawn(|| this_thread::sleep(10 * SECOND).unwrap())?;
        irql::with_raised(Irql::DISPATCH, || {
            dpc.enqueue().unwrap();
            drop((timer, threaded, dpc, thread));
        })
    }

    ksync::driver_entry!(entry);
}

#[test]
fn what_was_dropped_at_dispatch_level_is_gone_after_the_unload() {
    run_driver(at_dispatch_level::DriverEntry);
}

mod forgetful {
    use super::*;

    fn entry(_: &DriverObject, _: &UnicodeStr<'_>) -> Result {
        let timer = Timer::new(|| (), false)?;
        timer.start(SECOND, SECOND)?;
        std::mem::forget(timer);
        std::mem::forget(thread::spawn(|| this_thread::sleep(10 * SECOND).unwrap())?);
        Ok(())
    }

    ksync::driver_entry!(entry);
}

#[test]
fn forgotten_timers_and_threads_are_stopped_before_the_image_goes() {
    let outcome = Machine::new().processors(2).run(|| {
        let driver = ksim::load_driver("forgetful", forgetful::DriverEntry).unwrap();
        driver.unload();
    });
    // Their memory is lost, which is what forgetting means, and is all that is wrong.
    let bug_check = outcome.bug_check().expect("pool is left");
    assert_eq!(bug_check.parameters[0], 0x62, "{bug_check}");
    assert!(bug_check.to_string().contains("2 pool blocks"), "{bug_check}");
}

mod rearming {
    use super::*;

    /// Timers that their own closures arm again, and that nobody drops: the closures own references to them. They run on a processor each, and take longer than
    /// the time to their next expiry, so that whenever one has ended another runs.
    fn entry(_: &DriverObject, _: &UnicodeStr<'_>) -> Result {
        use std::sync::{Arc, OnceLock};
        for processor in 1..4 {
            let slot: Arc<OnceLock<Timer>> = Arc::default();
            let own = slot.clone();
            let timer = Timer::new(
                move || {
                    for _ in 0..3 * processor {
                        this_thread::stall(Duration::from_micros(900));
                    }
                    if let Some(timer) = own.get() {
                        let _ = timer.start(Duration::from_millis(1), Duration::ZERO);
                    }
                },
                false,
            )?;
            slot.set(timer).unwrap();
            // A timer expires on the processor that armed it.
            let arm = move || slot.get().map(|timer| timer.start(Duration::from_millis(1), Duration::ZERO));
            thread::Builder::new().affinity(1 << processor).spawn(arm)?.join()?.unwrap()?;
        }
        Ok(())
    }

    ksync::driver_entry!(entry);
}

#[test]
fn a_timer_that_arms_itself_is_refused_during_the_unload() {
    for seed in 0..50 {
        let outcome = Machine::new().processors(4).seed(seed).run(|| {
            let driver = ksim::load_driver("rearming", rearming::DriverEntry).unwrap();
            this_thread::sleep(Duration::from_millis(10)).unwrap();
            driver.unload();
        });
        assert_eq!(outcome.bug_check().expect("pool is left").parameters[0], 0x62);
    }
}

static ENTRIES: AtomicU32 = AtomicU32::new(0);

mod failing {
    use super::*;

    fn entry(_: &DriverObject, _: &UnicodeStr<'_>) -> Result {
        ENTRIES.fetch_add(1, Ordering::Relaxed);
        let timer = Timer::new(|| (), false)?;
        timer.start(SECOND, SECOND)?;
        thread::spawn(|| this_thread::sleep(10 * SECOND).unwrap())?.detach();
        Err(NtError::NOT_FOUND)
    }

    ksync::driver_entry!(entry);
}

#[test]
fn an_entry_that_fails_leaves_nothing_behind() {
    Machine::new()
        .run(|| {
            let error = ksim::load_driver("failing", failing::DriverEntry).unwrap_err();
            assert_eq!(error, NtError::NOT_FOUND.status().0);
        })
        .expect_clean();
    assert_eq!(ENTRIES.load(Ordering::Relaxed), 1);
    // No memory for the state: the entry is not even called.
    Machine::new()
        .fail_allocation(1)
        .run(|| {
            let error = ksim::load_driver("state", state::DriverEntry).unwrap_err();
            assert_eq!(error, NtError::INSUFFICIENT_RESOURCES.status().0);
        })
        .expect_clean();
}

#[test]
fn two_drivers_on_one_machine_do_not_wait_for_each_other() {
    let outcome = Machine::new().processors(2).run(|| {
        let long = ksim::load_driver("long", without_state::DriverEntry).unwrap();
        let short = ksim::load_driver("short", state::DriverEntry).unwrap();
        let before = ksync::time::InterruptTime::now();
        short.unload();
        assert!(before.elapsed() < 5 * SECOND);
        long.unload();
    });
    outcome.expect_clean();
}

#[test]
fn a_machine_that_stopped_leaves_nothing_to_the_next() {
    for _ in 0..3 {
        let outcome = Machine::new().run(|| {
            std::mem::forget(Timer::new(|| (), false).unwrap());
            std::mem::forget(thread::spawn(|| this_thread::sleep(SECOND).unwrap()).unwrap());
            panic!("on purpose");
        });
        assert!(!outcome.is_completed());
        Machine::new()
            .run(|| {
                drop(Timer::waitable(TimerKind::Notification).unwrap());
                thread::spawn(|| ()).unwrap().detach();
                ksync::driver::drain().unwrap();
            })
            .expect_clean();
    }
}

#[test]
fn drain_is_refused_above_passive_level() {
    Machine::new()
        .run(|| {
            let refused = irql::with_raised(Irql::APC, ksync::driver::drain).unwrap();
            assert_eq!(refused, Err(NtError::IRQL_TOO_HIGH));
        })
        .expect_clean();
}

#[test]
fn printing_splits_long_lines_and_survives_zeros() {
    let outcome = Machine::new().run(|| {
        let long = "é".repeat(300);
        ksync::println!("{long}");
        ksync::print!("a{}b", '\0');
        ksync::println!("%s%n{}", 1);
        ksync::println!();
        ksync::println!("two\nlines");
    });
    let expected = ["é".repeat(300), "a\u{FFFD}b%s%n1".to_owned(), String::new(), "two".to_owned(), "lines".to_owned()];
    assert_eq!(outcome.debug_output(), expected);
    outcome.expect_clean();
}

/// Destructors that start threads, the results of which drop devices at a raised level, whose states are dropped later and start threads: the unload waits for all of them.
mod chain {
    use super::*;
    use ksync::device::{Device, DeviceBuilder, Dispatch};

    thread_local! {
        pub(super) static ENDED: RefCell<Arc<AtomicU32>> = RefCell::default();
    }

    pub(super) struct Link(Mutex<Option<Device<Link>>>, Arc<AtomicU32>);

    impl Dispatch for Link {}

    impl Drop for Link {
        fn drop(&mut self) {
            let (next, ended) = (self.0.lock().unwrap().take(), self.1.clone());
            let late = move || {
                this_thread::sleep(SECOND).unwrap();
                ended.fetch_add(1, Ordering::Relaxed);
                DroppedHigh(next)
            };
            // At a raised level, where the state goes if the worker was faster, no thread can be started.
            let _ = thread::spawn(late).map(JoinHandle::detach);
        }
    }

    pub(super) struct DroppedHigh(Option<Device<Link>>);

    impl Drop for DroppedHigh {
        fn drop(&mut self) {
            irql::with_raised(Irql::DISPATCH, || drop(self.0.take())).unwrap();
        }
    }

    fn entry(driver: &DriverObject, _path: &UnicodeStr<'_>) -> Result<DroppedHigh> {
        let mut first = None;
        for _ in 0..4 {
            let ended = ENDED.with_borrow(Clone::clone);
            first = Some(DeviceBuilder::new().create(driver, Link(Mutex::new(first), ended))?);
        }
        Ok(DroppedHigh(first))
    }

    ksync::driver_entry!(entry);
}

#[test]
fn an_unload_waits_for_what_destructors_start_however_often() {
    let mut most = 0;
    for seed in 0..60 {
        chain::ENDED.set(Arc::default());
        let outcome = Machine::new().processors(2).seed(seed).run(|| {
            ksim::load_driver("chain", chain::DriverEntry).unwrap().unload();
        });
        outcome.expect_clean();
        most = most.max(chain::ENDED.with_borrow(|ended| ended.load(Ordering::Relaxed)));
    }
    assert_eq!(most, 4);
}
