//! A request that is not pending cannot be had as one that is.

use ksync::device::{Irp, PendingIrp};

fn take(mut irp: Irp<'_>, other: PendingIrp) -> PendingIrp {
    core::mem::replace(&mut *irp, other)
}

fn main() {
    let _ = take;
}
