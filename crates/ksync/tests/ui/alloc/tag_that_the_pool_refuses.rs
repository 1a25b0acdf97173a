// Tags are checked when the driver is built, not when the pool is asked.
use ksync::alloc::{NonPaged, tag};

const POOL: NonPaged<{ tag(b"BIG ") }> = NonPaged::tagged();

fn main() {
    let _ = POOL;
}
