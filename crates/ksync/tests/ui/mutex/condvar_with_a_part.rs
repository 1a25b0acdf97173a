// A part of the data may be gone when the lock is held again.
use ksync::mutex::{Condvar, FastLocked, LockedGuard};

fn main() {
    let (lock, change) = (FastLocked::new(vec![0u32]).unwrap(), Condvar::new());
    let mut part = LockedGuard::map(lock.lock().unwrap(), |data| &mut data[0]);
    let _ = change.wait(&mut part);
}
