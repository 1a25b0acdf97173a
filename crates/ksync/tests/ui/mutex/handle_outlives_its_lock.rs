// A handle may have to release its lock when it goes, so the lock goes later.
use core::pin::pin;
use ksync::mutex::{InStackQueueLocked, LockedQueueHandle};

fn main() {
    let mut handle = pin!(LockedQueueHandle::new());
    let lock = InStackQueueLocked::const_new(0u32);
    let _ = lock.lock(&mut handle);
}
