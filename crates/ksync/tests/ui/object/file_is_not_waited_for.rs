//! A file object is no dispatcher object.

use ksync::object::FileObject;
use ksync::wait::Dispatchable;

fn main() {
    let wait = |file: FileObject| file.wait();
    let _ = wait;
}
