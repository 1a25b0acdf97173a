//! `ksync` 20: a reference to an object is no Rust reference to its contents.

use ksync::object::ProcessObject;
use ksync::sys::EPROCESS;

fn contents(process: &ProcessObject) -> &EPROCESS {
    process
}

fn main() {}
