// A guard that is not kept releases at once.
#![deny(unused_must_use)]
use ksync::mutex::FastLocked;

fn main() {
    let lock = FastLocked::new(0u32).unwrap();
    lock.lock().unwrap();
}
