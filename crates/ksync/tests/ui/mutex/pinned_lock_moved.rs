// A lock in place cannot be moved out of its place.
use ksync::mutex::PinnedFastLocked;
use ksync::pool::KBox;

fn main() {
    let lock = KBox::pin_init(PinnedFastLocked::pin_init(0u32)).unwrap();
    let moved = *lock;
    drop(moved);
}
