//! What a routine returns is what became of its own request.

use ksync::device::{Disposition, Irp};
use ksync::error::NtStatus;

fn mix<'a, 'b>(first: Irp<'a>, second: Irp<'b>) -> Disposition<'a> {
    let _ = first.complete(NtStatus::SUCCESS, 0);
    second.complete(NtStatus::SUCCESS, 0)
}

fn main() {
    let _ = mix;
}
