// A level belongs to a processor and to what runs there.
use ksync::irql::{self, Irql};

fn send<T: Send>(_: T) {}

fn main() {
    send(irql::raise(Irql::DISPATCH).unwrap());
}
