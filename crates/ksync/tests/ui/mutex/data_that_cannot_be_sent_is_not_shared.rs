// A lock does not make an `Rc` fit for other threads (defects ksync 10, wdk-mutex 3).
use ksync::mutex::KMutex;
use std::rc::Rc;

fn share<T: Sync>(_: &T) {}

fn main() {
    share(&KMutex::new(Rc::new(0u32)).unwrap());
}
