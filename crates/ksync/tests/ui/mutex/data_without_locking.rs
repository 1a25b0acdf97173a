// The lock itself does not lead to the data (defect ksync 7).
use ksync::mutex::FastLocked;

fn main() {
    let lock = FastLocked::new(vec![0u32]).unwrap();
    lock.len();
}
