//! A driver whose entry is a test's code.

use ksim::{LoadedDriver, load_driver};
use ksync::driver::{DriverObject, UnicodeStr};
use ksync::error::Result;
use ksync::sys::NTSTATUS;
use std::cell::RefCell;
use std::rc::Rc;

type Body = dyn Fn(&DriverObject) -> Result<()>;

thread_local! {
    /// What the driver's entry does, on the OS thread that the machine runs on.
    static BODY: RefCell<Option<Rc<Body>>> = const { RefCell::new(None) };
}

fn entry(driver: &DriverObject, _path: &UnicodeStr<'_>) -> Result<()> {
    let body = BODY.with_borrow(Clone::clone).expect("`load` has said what the entry does");
    body(driver)
}

ksync::driver_entry!(entry);

/// Loads a driver that has this code as its entry.
pub fn load(body: impl Fn(&DriverObject) -> Result<()> + 'static) -> core::result::Result<LoadedDriver, NTSTATUS> {
    BODY.set(Some(Rc::new(body)));
    load_driver("sample", DriverEntry)
}

/// Runs code as a driver's entry, and unloads the driver.
pub fn in_driver(body: impl Fn(&DriverObject) + 'static) {
    let body = move |driver: &DriverObject| {
        body(driver);
        Ok(())
    };
    load(body).unwrap().unload();
}
