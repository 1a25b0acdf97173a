//! What a scoped thread borrows must lie outside of the scope.

fn main() {
    ksync::thread::scope(|scope| {
        let inside = String::new();
        let _ = scope.spawn(|| inside.len());
    });
}
