//! `ksync` 23: `take(&self)` destroyed the value under live references.

use ksync::lazy::{OnceCell, OnceLock};

fn main() {
    let mut cell = OnceCell::from(String::from("in use"));
    let value = cell.get();
    cell.take();
    let _ = value;

    let mut lock = OnceLock::from(String::from("in use"));
    let value = lock.get();
    lock.take();
    let _ = value;
}
