//! Code on every processor at once.

use crate::Step;
use core::sync::atomic::{AtomicUsize, Ordering};
use ksync::error::Result;
use ksync::{dpc, irql, thread};

pub(crate) const STEPS: &[Step] = &[Step { name: "once on each processor", needs: &["KeGenericCallDpc"], run: once_per_core }];

fn once_per_core() -> Result {
    let runs = AtomicUsize::new(0);
    dpc::run_once_per_core(|| {
        runs.fetch_add(1, Ordering::SeqCst);
    })?;
    let processors = thread::available_parallelism().get();
    ksync::println!("# {processors} processors");
    ksync::println!("each processor ran it once: {}", runs.load(Ordering::SeqCst) == processors);
    ksync::println!("back at {}", irql::current());
    Ok(())
}
