//! `ksync` 29: a closure that runs once may do so after its maker's frame is gone.

fn main() {
    let text = String::new();
    let _ = ksync::dpc::run_once(|| drop(text.len()));
}
