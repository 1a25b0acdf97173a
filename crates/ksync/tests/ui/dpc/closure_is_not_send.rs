//! `ksync` 29: a DPC runs on any processor.

use std::rc::Rc;

fn main() {
    let shared = Rc::new(0);
    let _ = ksync::dpc::Dpc::new(move || {
        let _ = Rc::clone(&shared);
    });
}
