// The token of the level before is not true while the lock is held.
use ksync::irql::{Irql, Passive};
use ksync::mutex::{FastLocked, SpinLocked};

fn both(spin: &SpinLocked<u32>, fast: &FastLocked<u32>, passive: &mut Irql<Passive>) {
    let guard = spin.lock_at(passive);
    *fast.lock_at(passive) = *guard;
}

fn main() {
    let _ = both;
}
