// The owner may have several guards, so none of them gives out `&mut`.
use ksync::mutex::ReentrantKMutex;

fn main() {
    let lock = ReentrantKMutex::new(0u32).unwrap();
    *lock.lock().unwrap() = 1;
}
