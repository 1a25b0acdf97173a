//! `ksync` 29: a closure that runs once may do so on any processor.

use std::rc::Rc;

fn main() {
    let shared = Rc::new(0);
    let _ = ksync::dpc::run_once(move || drop(shared));
}
