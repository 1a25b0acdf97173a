// The kernel links the handle, so it has to be pinned first (defect ksync 12).
use ksync::mutex::{InStackQueueLocked, LockedQueueHandle};

fn main() {
    let lock = InStackQueueLocked::const_new(0u32);
    let mut handle = LockedQueueHandle::new();
    let _ = lock.lock(&mut handle);
}
