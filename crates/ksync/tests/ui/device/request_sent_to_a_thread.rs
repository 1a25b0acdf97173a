//! A request that another thread completes is made pending first.

use ksync::device::{Dispatch, Disposition, Irp};
use ksync::error::NtStatus;

struct Sample;

impl Dispatch for Sample {
    fn device_control<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
        ksync::thread::scope(|scope| {
            let _ = scope.spawn(|| irp.complete(NtStatus::SUCCESS, 0));
        });
        loop {}
    }
}

fn main() {}
