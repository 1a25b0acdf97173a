// Defect win-lookaside 2: a list has one owner.
use ksync::lookaside::LookasideAlloc;

fn main() {
    let list = LookasideAlloc::default();
    let other = list.clone();
    drop((list, other));
}
