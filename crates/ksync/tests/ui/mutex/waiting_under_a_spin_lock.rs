// A lock that waits is not for the holder of a spin lock.
use ksync::irql::{Irql, Passive};
use ksync::mutex::{PushLocked, SpinLocked};

fn both(spin: &SpinLocked<u32>, push: &PushLocked<u32>, passive: &mut Irql<Passive>) {
    let mut guard = spin.lock_at(passive);
    let (value, dispatch) = guard.split();
    *value = *push.lock_at(dispatch);
}

fn main() {
    let _ = both;
}
