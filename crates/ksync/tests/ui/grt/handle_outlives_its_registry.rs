//! `wdk-mutex` 8: a reference that `destroy` invalidates. A handle borrows its registry, or keeps `Grt::destroy` waiting.

use ksync::grt::Registry;

fn main() {
    let registry = Registry::new();
    let handle = registry.get::<u32>("name").unwrap();
    drop(registry);
    let _ = *handle;
}
