// The kernel's objects are made in nonpaged memory only.
use ksync::alloc::Paged;
use ksync::event::{EventProperty, PinnedEvent};
use ksync::lookaside::Lookaside;

fn main() {
    let list = Lookaside::<PinnedEvent, Paged>::new().unwrap();
    let _event = list.pin_init(PinnedEvent::pin_init(EventProperty::Notification, false));
}
