//! A resolution that nobody keeps is taken back at once.

#![deny(unused_must_use)]

use std::time::Duration;

fn main() {
    ksync::timer::set_timer_resolution(Duration::from_millis(1)).unwrap();
}
