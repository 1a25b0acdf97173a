// A list cannot be moved away or dropped while a box of it is alive.
use ksync::lookaside::Lookaside;

fn main() {
    let list = Lookaside::<u32>::new().unwrap();
    let number = list.alloc(1).unwrap();
    drop(list);
    drop(number);
}
