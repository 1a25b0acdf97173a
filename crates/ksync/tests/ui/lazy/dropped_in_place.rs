//! `ksync` 22, 23: a safe `drop` of the cells' own could be called twice, and left a cell that gave the dropped value out.

use ksync::lazy::{LazyCell, LazyLock, OnceCell, OnceLock};

fn main() {
    OnceLock::drop(&mut OnceLock::from(1));
    OnceCell::drop(&mut OnceCell::from(1));
    LazyLock::drop(&LazyLock::new(|| 1));
    LazyCell::drop(&LazyCell::new(|| 1));
}
