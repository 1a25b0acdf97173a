//! `ksync` 29 and 49: a delayed closure runs on any processor, after its maker's frame is gone.

use std::rc::Rc;
use std::time::Duration;

fn main() {
    let shared = Rc::new(0);
    let _ = ksync::timer::delay_run(Duration::ZERO, move || drop(shared));
    let text = String::new();
    let _ = ksync::timer::delay_run(Duration::ZERO, || drop(text.len()));
}
