// A box is as good as its value: what cannot be sent cannot be sent in a box.
use ksync::lookaside::Lookaside;
use std::rc::Rc;

fn send(_: impl Send) {}

fn main() {
    let list = Lookaside::<Rc<u8>>::new().unwrap();
    send(list.alloc(Rc::new(1)).unwrap());
}
