// A lock cannot go while a guard is there.
use ksync::mutex::FastLocked;

fn main() {
    let lock = FastLocked::new(0u32).unwrap();
    let guard = lock.lock().unwrap();
    drop(lock);
    drop(guard);
}
