//! `ksync` 29: a DPC runs after its maker's frame is gone.

use ksync::dpc::{Dpc, ThreadedDpc};

fn main() {
    let counter = core::sync::atomic::AtomicU32::new(0);
    let _ = Dpc::new(|| {
        counter.load(core::sync::atomic::Ordering::Relaxed);
    });
    let _ = ThreadedDpc::new(|| {
        counter.load(core::sync::atomic::Ordering::Relaxed);
    });
}
