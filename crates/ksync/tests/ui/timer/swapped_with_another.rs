//! The kernel knows a timer by its address, so that nothing gives out what it could be moved by.

use ksync::timer::{PinnedTimer, Timer, TimerKind};

fn swap(one: &mut PinnedTimer, other: &mut PinnedTimer) {
    core::mem::swap(one, other);
}

fn main() {
    let mut one = Timer::waitable(TimerKind::Notification).unwrap();
    let mut other = Timer::waitable(TimerKind::Notification).unwrap();
    swap(&mut one, &mut other);
}
