//! A request is completed once.

use ksync::device::{Dispatch, Disposition, Irp};
use ksync::error::NtStatus;

struct Sample;

impl Dispatch for Sample {
    fn device_control<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
        let _ = irp.complete(NtStatus::SUCCESS, 0);
        irp.complete(NtStatus::SUCCESS, 0)
    }
}

fn main() {}
