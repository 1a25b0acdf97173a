// A fast mutex is linked into the kernel's lists, so there is none at compile time.
use ksync::mutex::FastLocked;

static LOCK: FastLocked<u32> = FastLocked::const_new(0);

fn main() {
    let _ = &LOCK;
}
