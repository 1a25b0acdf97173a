//! `ksync` 40: a wait can end early, so its result must be looked at.
#![deny(unused_must_use)]

use ksync::event::Event;
use ksync::wait::Dispatchable;

fn wait(event: &Event) {
    event.wait();
}

fn main() {}
