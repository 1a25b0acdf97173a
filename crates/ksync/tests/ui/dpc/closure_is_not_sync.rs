//! A DPC can run on two processors at once.

use std::cell::Cell;

fn main() {
    let count = Cell::new(0);
    let _ = ksync::dpc::Dpc::new(move || count.set(count.get() + 1));
}
