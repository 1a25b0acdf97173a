//! `ksync` 34: the routines of a device run in several threads at once.

use core::cell::Cell;
use ksync::device::{Dispatch, Disposition, Irp};

struct Sample(Cell<u32>);

impl Dispatch for Sample {
    fn device_control<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
        self.0.set(self.0.get() + 1);
        irp.complete_with(Ok(0))
    }
}

fn main() {}
