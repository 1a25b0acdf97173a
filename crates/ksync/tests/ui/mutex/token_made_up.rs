// A token comes from a check, from a raise, or from an entry point.
use ksync::irql::{Irql, Passive};

fn main() {
    let _ = Irql::<Passive>::assume();
}
