//! The kernel knows a DPC by its address, so that it is not taken out of its block.

use ksync::dpc::{Dpc, PinnedDpc};

fn main() {
    let dpc = Dpc::new(|| ()).unwrap();
    let taken: PinnedDpc = *dpc;
    let _ = taken.enqueue();
}
