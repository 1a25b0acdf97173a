//! `ksync` 33: a request that is in a queue may be completed already.

use ksync::device::{Dispatch, Disposition, Irp, IrpQueue};

struct Sample(IrpQueue);

impl Dispatch for Sample {
    fn device_control<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
        let disposition = self.0.insert(irp);
        let _ = irp.control_code();
        disposition
    }
}

fn main() {}
