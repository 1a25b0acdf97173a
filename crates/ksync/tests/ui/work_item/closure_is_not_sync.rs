//! A work item can run in two threads at once.

use ksync::driver::DriverObject;
use ksync::work_item::WorkItem;
use std::cell::Cell;

fn wrong(driver: &DriverObject) {
    let count = Cell::new(0);
    let _ = WorkItem::new(driver, move || count.set(count.get() + 1));
}

fn main() {
    let _ = wrong;
}
