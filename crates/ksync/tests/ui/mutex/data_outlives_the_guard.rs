// What was borrowed from a guard ends with it.
use ksync::mutex::SpinLocked;

fn main() {
    let lock = SpinLocked::const_new(0u32);
    let mut guard = lock.lock().unwrap();
    let value: &mut u32 = &mut guard;
    drop(guard);
    *value = 1;
}
