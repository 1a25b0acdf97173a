//! A scoped thread's handle is of no use after its scope.

fn main() {
    let number = 0;
    let _handle = ksync::thread::scope(|scope| scope.spawn(|| number + 1));
}
