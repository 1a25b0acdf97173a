//! A timer expires after its maker's frame is gone.

fn main() {
    let text = String::new();
    let _ = ksync::timer::Timer::new(|| drop(text.len()), false);
}
