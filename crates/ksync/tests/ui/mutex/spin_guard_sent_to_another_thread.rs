// The level that the guard restores is this processor's.
use ksync::mutex::SpinLocked;

fn send<T: Send>(_: T) {}

static LOCK: SpinLocked<u32> = SpinLocked::const_new(0);

fn main() {
    send(LOCK.lock().unwrap());
}
