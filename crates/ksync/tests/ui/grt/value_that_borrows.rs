//! What is registered may outlive everything that lies around.

use ksync::grt::Registry;

fn main() {
    let registry = Registry::new();
    let local = 5;
    let _ = registry.register("name", &local);
}
