//! A region is its thread's: another one cannot leave it.

use ksync::region::{CriticalRegion, GuardedRegion};
use ksync::thread;

fn main() {
    let critical = CriticalRegion::enter().unwrap();
    let guarded = GuardedRegion::enter().unwrap();
    thread::spawn(move || drop(critical)).unwrap().join().unwrap();
    thread::scope(|scope| scope.spawn(|| drop(&guarded)).map(drop)).unwrap();
}
