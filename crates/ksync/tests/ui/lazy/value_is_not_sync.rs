//! `ksync` 26, 27: what a static holds is read by all threads, and one of them puts it in.

use std::cell::Cell;
use std::rc::Rc;

use ksync::lazy::{LazyCell, LazyLock, OnceCell, OnceLock};

static ONCE_CELL: OnceCell<Cell<u32>> = OnceCell::new();
static ONCE_LOCK: OnceLock<Rc<u32>> = OnceLock::new();
static LAZY_CELL: LazyCell<Cell<u32>> = LazyCell::new(|| Cell::new(1));
static LAZY_LOCK: LazyLock<Rc<u32>> = LazyLock::new(|| Rc::new(1));

fn main() {}
