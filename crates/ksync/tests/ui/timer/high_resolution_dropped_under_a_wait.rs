//! A timer is not deleted under whoever waits on it.

use ksync::timer::{HrTimer, TimerKind};
use ksync::wait::Dispatchable;

fn main() {
    let timer = HrTimer::waitable(TimerKind::Notification).unwrap();
    let waiting: &dyn Dispatchable = &timer;
    drop(timer);
    let _ = waiting.wait();
}
