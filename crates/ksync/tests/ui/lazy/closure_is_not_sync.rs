//! Several threads may run the closure of a `LazyCell` at once.

use std::cell::Cell;

use ksync::lazy::LazyCell;

fn shared(_: &impl Sync) {}

fn main() {
    let runs = Cell::new(0);
    shared(&LazyCell::new(move || runs.replace(1)));
}
