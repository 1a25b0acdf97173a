//! A closure with an `Rc` cannot go to another thread.

use std::rc::Rc;

fn main() {
    let shared = Rc::new(0);
    let _ = ksync::thread::spawn(move || *shared + 1);
}
