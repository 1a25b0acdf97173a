// What the owner's data opens is open for as long as that is borrowed.
use ksync::mutex::{FastLocked, LockedBy};

fn main() {
    let lock = FastLocked::new(0u8).unwrap();
    let part = LockedBy::new(&lock, 0u32);
    let mut guard = lock.lock().unwrap();
    let data = part.access_mut(&mut guard).unwrap();
    drop(guard);
    *data = 1;
}
