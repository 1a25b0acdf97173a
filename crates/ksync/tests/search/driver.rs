//! What belongs to a driver or its device: work items, remove locks, queued requests.

use super::{exhaust, sample};
use core::sync::atomic::{AtomicU32, Ordering};
use ksim::explore;
use ksim::explore::Strategy;
use ksim::{Requestor, load_driver, open_device};
use ksync::NtError;
use ksync::device::{Device, DeviceBuilder, Dispatch, Disposition, Irp, IrpQueue};
use ksync::driver::{DriverObject, UnicodeStr};
use ksync::error::{NtStatus, Result};
use ksync::remove_lock::RemoveLock;
use ksync::sys;
use ksync::thread;
use ksync::work_item::{self, WorkItem};
use std::cell::Cell;
use std::sync::Arc;
use test_support::driver::in_driver;
use test_support::threads::crowd;

/// An item runs as often as it was queued, and not after its drop.
fn work<const THREADS: usize>(driver: &DriverObject) {
    let runs = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&runs);
    let item = WorkItem::new(driver, move || _ = counter.fetch_add(1, Ordering::Relaxed)).unwrap();
    let queued = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| _ = queued.fetch_add(u32::from(item.enqueue().unwrap()), Ordering::Relaxed)).unwrap();
        }
    });
    drop(item);
    assert_eq!(runs.load(Ordering::Relaxed), queued.into_inner());
    assert_eq!(Arc::strong_count(&runs), 1, "the closure is freed");
}

#[test]
fn work_item_exhaustively() {
    assert!(exhaust(4, || in_driver(work::<1>)).is_exhausted());
}

#[test]
fn work_item_portfolio() {
    sample(6, || in_driver(work::<4>));
}

/// What was posted runs once before the driver is gone.
fn posts<const ITEMS: usize>(driver: &DriverObject) {
    for _ in 0..ITEMS {
        let posted = Box::new(1_u32);
        work_item::post(driver, move || assert_eq!(*posted, 1)).unwrap();
    }
}

/// All schedules with one preemption: those of the driver's unloading are too many to be run without a bound.
#[test]
fn posted_work_within_a_bound() {
    let strategy = Strategy::Bounded { preemptions: 1 };
    let exploration = explore().processors(3).strategy(strategy).check(|| in_driver(posts::<1>));
    exploration.expect_clean();
    assert!(exploration.is_exhausted());
}

#[test]
fn posted_work_portfolio() {
    sample(5, || in_driver(posts::<5>));
}

/// A removal waits for who is inside, and admits nobody afterwards.
fn removal(users: usize) {
    let (lock, gone) = (RemoveLock::new().unwrap(), Cell::new(false));
    crowd(users + 1, |thread| {
        if thread == 0 {
            lock.remove().unwrap();
            gone.set(true);
        } else {
            match lock.acquire() {
                Ok(_guard) => assert!(!gone.get()),
                Err(error) => assert_eq!(error, NtError::DELETE_PENDING),
            }
        }
    });
    assert!(gone.get());
}

#[test]
fn remove_lock_exhaustively() {
    assert!(exhaust(3, || removal(1)).is_exhausted());
    assert!(exhaust(4, || removal(2)).is_exhausted());
}

#[test]
fn remove_lock_portfolio() {
    sample(6, || removal(5));
}

const CODE: u32 = 0x22_2000;

/// A device whose requests wait in a queue: one with input completes one that waits.
struct Queued(IrpQueue);

impl Dispatch for Queued {
    fn device_control<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
        if irp.input().is_empty() {
            return self.0.insert(irp);
        }
        let found = self.0.pop().map(|found| found.complete(NtStatus::SUCCESS, 0));
        irp.complete(NtStatus::SUCCESS, found.iter().count())
    }

    fn cleanup<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
        self.0.cancel_for_file(irp.file());
        irp.complete_with(Ok(0))
    }
}

mod owner {
    use super::{Device, DeviceBuilder, DriverObject, IrpQueue, Queued, Result, UnicodeStr};

    fn entry(driver: &DriverObject, _path: &UnicodeStr<'_>) -> Result<Device<Queued>> {
        DeviceBuilder::new().name(r"\Device\Queued").link(r"\??\Queued").create(driver, Queued(IrpQueue::new()?))
    }

    ksync::driver_entry!(entry);
}

/// Requests that are completed while they are cancelled end one way, and not both.
fn requests(requests: usize, cancelled: usize) {
    let driver = load_driver("sample", owner::DriverEntry).unwrap();
    let device = open_device(r"\\.\Queued", Requestor::User).unwrap();
    let requests: Vec<_> = (0..requests).map(|_| device.begin_device_control(CODE, b"", 0)).collect();
    let taken = thread::scope(|scope| {
        let taker = scope.spawn(|| device.device_control(CODE, b"take", 4).information).unwrap();
        requests[..cancelled].iter().for_each(|request| _ = request.cancel());
        taker.join().unwrap()
    });
    device.close();
    let statuses: Vec<_> = requests.into_iter().map(|request| request.wait().status).collect();
    assert_eq!(statuses.iter().filter(|&&status| status == sys::STATUS_SUCCESS).count(), taken);
    assert!(statuses.iter().all(|&status| status == sys::STATUS_SUCCESS || status == NtError::CANCELLED.status().0));
    driver.unload();
}

#[test]
fn queued_requests_exhaustively() {
    assert!(exhaust(3, || requests(1, 1)).is_exhausted());
}

#[test]
fn queued_requests_portfolio() {
    sample(4, || requests(4, 2));
}
