//! The polling driver on the hosted kernel: loaded, left to poll, and unloaded, under many schedules.

use ksim::{ClockMode, Machine, Outcome};
use ksync::thread::this_thread;
use std::time::Duration;

const PROCESSORS: [u8; 3] = [1, 2, 4];

fn load_and_unload(machine: Machine, between: Duration) -> Outcome {
    machine.run(|| {
        let driver = ksim::load_driver("polling", polling::DriverEntry).expect("the entry succeeds");
        if !between.is_zero() {
            this_thread::sleep(between).unwrap();
        }
        driver.unload();
    })
}

/// How often the device was looked at, by what the driver printed.
fn looks(outcome: &Outcome) -> u32 {
    let line = outcome.debug_output().iter().find_map(|line| line.strip_prefix("# looked at "));
    line.and_then(|line| line.strip_suffix(" times")).and_then(|count| count.parse().ok()).expect("the driver prints the count")
}

#[test]
fn polls_until_it_is_unloaded() {
    for processors in PROCESSORS {
        for seed in 0..100 {
            // "The timer immediately enters the signal state. Then triggered every 500 milliseconds."
            for (between, expected) in [(100, 1), (499, 1), (750, 2), (4_750, 10), (60_100, 121)] {
                let machine = Machine::new().processors(processors).seed(seed);
                let outcome = load_and_unload(machine, Duration::from_millis(between));
                assert_eq!(looks(&outcome), expected, "{between} ms: {outcome}");
                let printed = outcome.debug_output();
                assert!(printed.iter().any(|line| line == "the timer was armed when it was stopped: true"), "{printed:?}");
                assert!(printed.iter().any(|line| line == "it is content: true"), "{printed:?}");
                // Nothing is left: no thread, no timer, no pool.
                outcome.expect_clean();
            }
        }
    }
}

#[test]
fn is_unloaded_at_any_moment() {
    // At once, and just when a poll is due.
    for processors in PROCESSORS {
        for seed in 0..100 {
            for between in [Duration::ZERO, Duration::from_millis(500), Duration::from_millis(1_000)] {
                let outcome = load_and_unload(Machine::new().processors(processors).seed(seed), between);
                assert!(looks(&outcome) >= 1);
                outcome.expect_clean();
            }
        }
    }
}

#[test]
fn polls_on_a_clock_that_ticks() {
    for seed in 0..20 {
        let machine = Machine::new().processors(2).clock(ClockMode::DEFAULT_TICK).seed(seed);
        let outcome = load_and_unload(machine, Duration::from_secs(10));
        // 500 ms are 32 ticks.
        assert!((20..=21).contains(&looks(&outcome)), "{outcome}");
        outcome.expect_clean();
    }
}

#[test]
fn is_loaded_and_unloaded_again() {
    for seed in 0..20 {
        let outcome = Machine::new().processors(2).seed(seed).run(|| {
            for _ in 0..3 {
                let driver = ksim::load_driver("polling", polling::DriverEntry).expect("the entry succeeds");
                this_thread::sleep(Duration::from_millis(700)).unwrap();
                driver.unload();
            }
        });
        outcome.expect_clean();
    }
}

#[test]
fn every_allocation_may_fail() {
    let mut failures = 0;
    for processors in PROCESSORS {
        for failing in 1..20 {
            let machine = Machine::new().processors(processors).fail_allocation(failing);
            let outcome = machine.run(|| match ksim::load_driver("polling", polling::DriverEntry) {
                Ok(driver) => driver.unload(),
                Err(error) => {
                    assert_eq!(error, ksync::sys::STATUS_INSUFFICIENT_RESOURCES);
                    ksync::println!("failed");
                }
            });
            failures += outcome.debug_output().iter().filter(|line| *line == "failed").count();
            outcome.expect_clean();
        }
    }
    // Two events, what is shared, the thread's packet, the thread: on each number of processors.
    assert!(failures >= 5 * PROCESSORS.len(), "{failures}");
}
