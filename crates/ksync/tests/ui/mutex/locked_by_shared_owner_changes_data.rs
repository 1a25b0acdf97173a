// A shared borrow of what the lock guards reads only.
use ksync::mutex::{FastLocked, LockedBy};

fn main() {
    let lock = FastLocked::new(0u8).unwrap();
    let part = LockedBy::new(&lock, 0u32);
    let guard = lock.lock().unwrap();
    let _ = part.access_mut(&guard);
}
