//! `ksync` 16: a handle that is closed is gone.

use ksync::handle::ObjectHandle;

fn close(handle: ObjectHandle) {
    let _ = handle.close();
    let _ = handle.to_thread();
}

fn main() {}
