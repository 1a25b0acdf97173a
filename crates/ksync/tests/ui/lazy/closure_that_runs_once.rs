//! `ksync` 21: several threads may run the closure of a `LazyCell`, so it is not one that can be called once.

use ksync::lazy::LazyCell;

fn main() {
    let text = String::from("given away");
    let cell = LazyCell::new(move || text);
    let _ = cell.len();
}
