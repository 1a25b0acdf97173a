//! Code on every processor at once.

use crate::Step;
use core::sync::atomic::{AtomicUsize, Ordering};
use ksync::dpc::{self, Dpc};
use ksync::error::Result;
use ksync::irql::{self, Irql};
use ksync::pool::KArc;
use ksync::thread;

pub(crate) const STEPS: &[Step] = &[
    // Wine queues no DPC. It lacks the level too, by which it is told apart.
    Step { name: "DPC", needs: &["KeGetCurrentIrql"], run: dpc },
    Step { name: "once on each processor", needs: &["KeGenericCallDpc"], run: once_per_core },
];

fn dpc() -> Result {
    let sum = KArc::new(AtomicUsize::new(0))?;
    let total = sum.clone();
    let dpc = Dpc::new_with_arguments(move |count, size| {
        if irql::current() == Irql::DISPATCH {
            total.fetch_add(count * size, Ordering::SeqCst);
        }
    })?;
    dpc.enqueue_with(3, 4)?;
    dpc.flush()?;
    ksync::println!("at DISPATCH_LEVEL the DPC made it {}", sum.load(Ordering::SeqCst));
    Ok(())
}

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
