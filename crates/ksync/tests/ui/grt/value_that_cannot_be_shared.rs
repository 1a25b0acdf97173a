//! A value with no lock around it is used by several threads at once.

use std::cell::Cell;

use ksync::grt::{Grt, Registry};

fn main() {
    let _ = Grt::register("name", Cell::new(1));
    let _ = Registry::new().register_checked("name", Cell::new(1));
}
