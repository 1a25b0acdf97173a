//! `ksync` 29: a work item runs after its maker's frame is gone.

use core::sync::atomic::{AtomicU32, Ordering};
use ksync::driver::DriverObject;
use ksync::work_item::{self, WorkItem};

fn wrong(driver: &DriverObject) {
    let counter = AtomicU32::new(0);
    let _ = WorkItem::new(driver, || {
        counter.load(Ordering::Relaxed);
    });
    let _ = work_item::post(driver, || {
        counter.load(Ordering::Relaxed);
    });
}

fn main() {
    let _ = wrong;
}
