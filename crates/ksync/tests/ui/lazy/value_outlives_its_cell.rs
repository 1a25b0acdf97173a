//! The value is the cell's.

use ksync::lazy::OnceLock;

fn main() {
    let value = {
        let cell = OnceLock::from(String::from("gone"));
        cell.get_or_init(String::new).unwrap()
    };
    let _ = value.len();
}
