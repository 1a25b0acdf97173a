//! `ksync` 27: a value that belongs to its thread is not stored from another.

use std::sync::MutexGuard;

use ksync::lazy::{OnceCell, OnceLock};

static ONCE_CELL: OnceCell<MutexGuard<'static, u32>> = OnceCell::new();
static ONCE_LOCK: OnceLock<MutexGuard<'static, u32>> = OnceLock::new();

fn main() {}
