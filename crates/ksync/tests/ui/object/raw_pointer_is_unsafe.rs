//! `ksync` 18: who makes a reference of a raw pointer vouches for it.

use core::ptr::NonNull;
use ksync::handle::ObjectHandle;
use ksync::object::ThreadObject;

fn main() {
    let _ = ThreadObject::from_raw(NonNull::dangling());
    let _ = ObjectHandle::from_raw(core::ptr::null_mut());
}
