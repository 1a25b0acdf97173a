//! `ksync` 59: a thread that is not scoped cannot borrow.

fn main() {
    let counter = 0;
    let _ = ksync::thread::spawn(|| counter + 1);
}
