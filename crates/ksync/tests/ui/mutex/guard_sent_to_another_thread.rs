// A guard must be released on the thread that acquired (defect ksync 11).
use ksync::mutex::FastLocked;

fn send<T: Send>(_: T) {}

fn main() {
    let lock = FastLocked::new(0u32).unwrap();
    send(lock.lock().unwrap());
}
