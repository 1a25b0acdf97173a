// Others change the data during the wait, so that no reference to it lasts.
use ksync::mutex::{Condvar, FastLocked};

fn main() {
    let (lock, change) = (FastLocked::new(vec![0u32]).unwrap(), Condvar::new());
    let mut guard = lock.lock().unwrap();
    let first = &guard[0];
    let _ = change.wait(&mut guard);
    let _ = *first;
}
