//! `wdk-mutex` 7: the registry took values that belong to their thread.

use std::rc::Rc;

use ksync::grt::Grt;

fn main() {
    let _ = Grt::register_kmutex("name", Rc::new(1));
    let _ = Grt::register_kmutex_checked("name", Rc::new(1));
    let _ = Grt::register_fast_mutex("name", Rc::new(1));
    let _ = Grt::register_fast_mutex_checked("name", Rc::new(1));
    let _ = Grt::get_kmutex::<Rc<i32>>("name");
    let _ = Grt::get_fast_mutex::<Rc<i32>>("name");
}
