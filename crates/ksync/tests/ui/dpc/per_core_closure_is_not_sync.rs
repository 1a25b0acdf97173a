//! All processors run the closure at once.

use std::cell::Cell;

fn main() {
    let count = Cell::new(0);
    let _ = ksync::dpc::run_once_per_core(|| count.set(count.get() + 1));
}
