// The outer lock returns to the level before, so it is released last.
use ksync::irql::{Irql, Passive};
use ksync::mutex::SpinLocked;

fn both(one: &SpinLocked<u32>, two: &SpinLocked<u32>, passive: &mut Irql<Passive>) {
    let mut outer = one.lock_at(passive);
    let (_, dispatch) = outer.split();
    let inner = two.lock_at(dispatch);
    drop(outer);
    drop(inner);
}

fn main() {
    let _ = both;
}
