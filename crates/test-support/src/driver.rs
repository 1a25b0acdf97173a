//! A driver whose entry is a test's code.

use ksim::{LoadedDriver, load_driver};
use ksync::driver::{DriverObject, UnicodeStr};
use ksync::error::Result;
use ksync::sys::NTSTATUS;
use std::cell::Cell;

thread_local! {
    /// What the driver's entry does, on the OS thread that the machine runs on.
    static BODY: Cell<fn(&DriverObject)> = const { Cell::new(|_| ()) };
}

fn entry(driver: &DriverObject, _path: &UnicodeStr<'_>) -> Result<()> {
    BODY.get()(driver);
    Ok(())
}

ksync::driver_entry!(entry);

/// Loads a driver that has this code as its entry.
pub fn load(body: fn(&DriverObject)) -> core::result::Result<LoadedDriver, NTSTATUS> {
    BODY.set(body);
    load_driver("sample", DriverEntry)
}

/// Runs code as a driver's entry, and unloads the driver.
pub fn in_driver(body: fn(&DriverObject)) {
    load(body).unwrap().unload();
}
