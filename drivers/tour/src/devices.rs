//! A device, and work that is done in a worker thread while the device stays.

use crate::Step;
use core::sync::atomic::{AtomicU32, Ordering};
use ksync::device::{DeviceBuilder, Dispatch, Disposition, Irp};
use ksync::driver::DriverObject;
use ksync::error::{NtStatus, Result};
use ksync::pool::KArc;
use ksync::remove_lock::RemoveLock;
use ksync::work_item::WorkItem;

/// What a step does that needs the driver object.
type OnDriver = fn(&DriverObject) -> Result;

pub(crate) const STEPS: &[Step<OnDriver>] =
    &[Step { name: "device and work item", needs: &[], run: device }, Step { name: "remove lock", needs: &[], run: remove_lock }];

/// Counts its requests.
struct Counting(AtomicU32);

impl Dispatch for Counting {
    fn device_control<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
        self.0.fetch_add(1, Ordering::Relaxed);
        irp.complete(NtStatus::SUCCESS, 0)
    }
}

fn device(driver: &DriverObject) -> Result {
    let device = DeviceBuilder::new().name(r"\Device\KsyncTour").create(driver, Counting(AtomicU32::new(0)))?;
    let done = KArc::new(AtomicU32::new(0))?;
    let doing = done.clone();
    let item = WorkItem::new(&device, move || {
        doing.fetch_add(1, Ordering::Relaxed);
    })?;
    for _ in 0..3 {
        item.enqueue()?;
        item.flush()?;
    }
    ksync::println!(
        "the work was done {} times, for {} requests",
        done.load(Ordering::Relaxed),
        device.state().0.load(Ordering::Relaxed)
    );
    Ok(())
}

fn remove_lock(_driver: &DriverObject) -> Result {
    let lock = RemoveLock::new()?;
    drop(lock.acquire()?);
    lock.remove()?;
    ksync::println!("removed: another acquisition fails: {}", lock.acquire().is_err());
    Ok(())
}
