//! `ksync` 29: a high-resolution timer's closure runs on any processor, and on two at once.

use std::cell::Cell;
use std::rc::Rc;

fn main() {
    let count = Cell::new(0);
    let _ = ksync::timer::HrTimer::new(move || count.set(count.get() + 1));
    let shared = Rc::new(0);
    let _ = ksync::timer::HrTimer::new(move || drop(Rc::clone(&shared)));
}
