//! A high-resolution timer expires after its maker's frame is gone.

fn main() {
    let text = String::new();
    let _ = ksync::timer::HrTimer::new(|| drop(text.len()));
}
