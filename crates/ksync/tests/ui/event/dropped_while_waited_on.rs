//! A wait borrows what it waits on.

use ksync::event::{Event, EventProperty};
use ksync::wait::Dispatchable;

fn main() {
    let event = Event::new(EventProperty::Notification, false).unwrap();
    ksync::thread::scope(|scope| {
        let _ = scope.spawn(|| event.wait().success());
        drop(event);
    });
}
