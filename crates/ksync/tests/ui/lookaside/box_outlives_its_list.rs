// A box goes back to its list, so the list goes later.
use ksync::lookaside::{Lookaside, LookasideBox};

fn stray<'a>() -> LookasideBox<'a, u32> {
    let list = Lookaside::<u32>::new().unwrap();
    list.alloc(1).unwrap()
}

fn main() {
    stray();
}
