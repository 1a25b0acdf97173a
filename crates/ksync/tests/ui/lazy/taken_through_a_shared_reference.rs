//! `ksync` 23: a value that others may be using is not taken.

use ksync::lazy::{OnceCell, OnceLock};

static CELL: OnceCell<String> = OnceCell::new();
static LOCK: OnceLock<String> = OnceLock::new();

fn main() {
    CELL.take();
    LOCK.take();
}
