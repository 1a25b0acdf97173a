// A handle is one place in one queue.
use core::pin::pin;
use ksync::mutex::{InStackQueueLocked, LockedQueueHandle};

fn main() {
    let (one, two) = (InStackQueueLocked::const_new(0u32), InStackQueueLocked::const_new(0u32));
    let mut handle = pin!(LockedQueueHandle::new());
    let first = one.lock(&mut handle);
    let second = two.lock(&mut handle);
    drop(first);
    drop(second);
}
