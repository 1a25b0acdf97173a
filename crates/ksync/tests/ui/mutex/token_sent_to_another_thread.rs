// A level is that of the processor on which the token was had.
use ksync::irql::{Irql, Passive};

fn send<T: Send>(_: T) {}

fn main() {
    send(Irql::<Passive>::claim().unwrap());
}
