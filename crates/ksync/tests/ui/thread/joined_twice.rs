//! A thread's result is taken once.

fn join(handle: ksync::thread::JoinHandle<u32>) {
    let _ = handle.join();
    let _ = handle.join();
}

fn main() {}
