//! An event that the kernel links to does not move.

use core::pin::Pin;
use ksync::event::PinnedEvent;

fn take(event: Pin<&mut PinnedEvent>, other: Pin<&mut PinnedEvent>) {
    core::mem::swap(event.get_mut(), other.get_mut());
}

fn main() {}
