// Nobody may wait under a spin lock.
use ksync::mutex::{Condvar, SpinLocked};

fn main() {
    let (lock, change) = (SpinLocked::const_new(0u32), Condvar::new());
    let mut guard = lock.lock().unwrap();
    let _ = change.wait(&mut guard);
}
