//! A result with an `Rc` cannot come from another thread.

use std::rc::Rc;

fn main() {
    let _ = ksync::thread::spawn(|| Rc::new(0));
}
