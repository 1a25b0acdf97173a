// A lock that waits is not for a DPC.
use ksync::irql::{Dispatch, Irql};
use ksync::mutex::FastLocked;

fn routine(lock: &FastLocked<u32>, dispatch: &mut Irql<Dispatch>) {
    *lock.lock_at(dispatch) += 1;
}

fn main() {
    let _ = routine;
}
