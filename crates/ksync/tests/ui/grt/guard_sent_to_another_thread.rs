//! `wdk-mutex` 4: a guard is dropped in the thread that acquired the lock.

use ksync::grt::Grt;

fn main() {
    let guard = Grt::get_kmutex::<u32>("name").unwrap().lock().unwrap();
    let _ = ksync::thread::spawn(move || drop(guard));
}
