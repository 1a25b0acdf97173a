//! `ksync` 29: what is posted runs in another thread.

use ksync::driver::DriverObject;
use std::rc::Rc;

fn wrong(driver: &DriverObject) {
    let count = Rc::new(0);
    let _ = ksync::work_item::post(driver, move || drop(count));
}

fn main() {
    let _ = wrong;
}
