// A list calls the driver's own functions, so someone has to vouch for them.
use ksync::lookaside::FreeFn;
use ksync::sys;

unsafe extern "system-unwind" fn free(_: sys::PVOID, _: *mut sys::LOOKASIDE_LIST_EX) {}

fn main() {
    let _ = FreeFn::new(free);
}
