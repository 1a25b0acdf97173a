// The data cannot be taken out while a guard is there (seed 002 asks for this with `unsafe`).
use ksync::mutex::KMutex;

fn main() {
    let mutex = KMutex::new(0u32).unwrap();
    let guard = mutex.lock().unwrap();
    let data = mutex.to_owned();
    println!("{data} {guard}");
}
