// Defect win-lookaside 4: giving back whatever pointer one has is not safe.
use ksync::alloc::Pool;
use ksync::lookaside::LookasideAlloc;

fn main() {
    let list = LookasideAlloc::default();
    list.init(8, Pool::NonPaged, None, None, None, None).unwrap();
    list.free(core::ptr::NonNull::dangling());
}
