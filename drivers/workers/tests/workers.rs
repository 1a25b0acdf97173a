//! The driver, hosted, over many schedules.

use ksim::{DeviceHandle, LoadedDriver, Machine, Requestor, load_driver, open_device};
use ksync::NtError;
use ksync::sys::{STATUS_DEVICE_BUSY, STATUS_INVALID_DEVICE_REQUEST, STATUS_INVALID_PARAMETER, STATUS_SUCCESS};
use ksync::thread;
use workers::{ADD, CAPACITY, STATISTICS, WORKERS};

const CANCELLED: i32 = NtError::CANCELLED.status().0;

fn load() -> LoadedDriver {
    load_driver("workers", workers::DriverEntry).expect("the driver loads")
}

fn open() -> DeviceHandle {
    open_device(r"\\.\Workers", Requestor::User).expect("the device opens")
}

fn bytes(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn sum(output: &[u8]) -> u64 {
    u64::from_le_bytes(output.try_into().expect("eight bytes"))
}

/// Completed, cancelled, refused.
fn statistics(device: &DeviceHandle) -> [u32; 3] {
    let output = device.device_control(STATISTICS, &[], 12).output;
    std::array::from_fn(|index| u32::from_le_bytes(output[index * 4..][..4].try_into().unwrap()))
}

/// Runs with many seeds on 1, 2 and 4 processors, and expects clean ends.
fn explore(code: impl Fn()) {
    for processors in [1, 2, 4] {
        for seed in 0..24 {
            let outcome = Machine::new().processors(processors).seed(seed).run(&code);
            assert!(outcome.is_completed() && outcome.left().is_empty(), "{processors} processors: {outcome}");
        }
    }
}

#[test]
fn requests_are_completed_by_workers() {
    explore(|| {
        let driver = load();
        let device = open();
        let requests: Vec<_> = (0..4).map(|n| device.begin_device_control(ADD, &bytes(&[n, 10, u32::MAX]), 8)).collect();
        for (n, request) in requests.into_iter().enumerate() {
            let result = request.wait();
            assert_eq!(result.status, STATUS_SUCCESS);
            assert_eq!(sum(&result.output), n as u64 + 10 + u64::from(u32::MAX));
        }
        assert_eq!(statistics(&device), [4, 0, 0]);
        device.close();
        driver.unload();
    });
}

#[test]
fn threads_share_the_device() {
    explore(|| {
        let driver = load();
        thread::scope(|scope| {
            for n in 0..3 {
                scope
                    .spawn(move || {
                        let device = open();
                        for round in 0..2 {
                            let result = device.device_control(ADD, &bytes(&[n, round]), 8);
                            assert_eq!(sum(&result.output), u64::from(n + round));
                        }
                        device.close();
                    })
                    .unwrap();
            }
        });
        driver.unload();
    });
}

#[test]
fn what_does_not_fit_is_refused() {
    explore(|| {
        let driver = load();
        let device = open();
        let total = CAPACITY + WORKERS as u32 + 4;
        let requests: Vec<_> = (0..total).map(|_| device.begin_device_control(ADD, &[], 8)).collect();
        let statuses: Vec<_> = requests.into_iter().map(|request| request.wait().status).collect();
        let refused = statuses.iter().filter(|&&status| status == STATUS_DEVICE_BUSY).count() as u32;
        assert!(statuses.iter().all(|&status| status == STATUS_SUCCESS || status == STATUS_DEVICE_BUSY));
        assert_eq!(statistics(&device), [total - refused, 0, refused]);
        device.close();
        driver.unload();
    });
}

#[test]
fn requests_are_cancelled_or_completed() {
    explore(|| {
        let driver = load();
        let device = open();
        let requests: Vec<_> = (0..6).map(|n| device.begin_device_control(ADD, &bytes(&[n]), 8)).collect();
        let cancelled: Vec<_> = requests.iter().map(|request| request.cancel()).collect();
        for (n, (request, cancelled)) in requests.into_iter().zip(cancelled).enumerate() {
            let result = request.wait();
            if cancelled {
                assert_eq!(result.status, CANCELLED);
            } else {
                assert_eq!(sum(&result.output), n as u64);
            }
        }
        device.close();
        driver.unload();
    });
}

#[test]
fn closing_cancels_what_waits() {
    explore(|| {
        let driver = load();
        let device = open();
        let requests: Vec<_> = (0..6).map(|_| device.begin_device_control(ADD, &[], 8)).collect();
        device.close();
        for request in requests {
            let status = request.wait().status;
            assert!(status == CANCELLED || status == STATUS_SUCCESS);
        }
        driver.unload();
    });
}

#[test]
fn the_unload_finishes_what_is_out() {
    explore(|| {
        let driver = load();
        let device = open();
        let request = device.begin_device_control(ADD, &bytes(&[7]), 8);
        let user = thread::spawn(move || {
            assert!(request.wait().is_success());
            device.close();
        })
        .unwrap();
        driver.unload();
        user.join().unwrap();
    });
}

#[test]
fn bad_input_is_an_error() {
    explore(|| {
        let driver = load();
        let device = open();
        assert_eq!(device.device_control(ADD, &[1, 2, 3], 8).status, STATUS_INVALID_PARAMETER);
        assert_eq!(device.device_control(ADD, &[], 7).status, ksync::sys::STATUS_BUFFER_TOO_SMALL);
        assert_eq!(device.device_control(STATISTICS, &[], 0).status, ksync::sys::STATUS_BUFFER_TOO_SMALL);
        assert_eq!(device.device_control(0x22_2008, &[], 8).status, STATUS_INVALID_DEVICE_REQUEST);
        assert_eq!(device.read(8).status, STATUS_INVALID_DEVICE_REQUEST);
        device.close();
        driver.unload();
    });
}

#[test]
fn every_allocation_may_fail() {
    let total = Machine::new().run(|| load().unload()).expect_clean().statistics().allocations;
    for failing in 1..=total {
        let outcome = Machine::new().processors(2).fail_allocation(failing).run(|| {
            if let Ok(driver) = load_driver("workers", workers::DriverEntry) {
                driver.unload();
            }
        });
        assert!(outcome.is_completed() && outcome.left().is_empty(), "allocation {failing} of {total}: {outcome}");
    }
}
