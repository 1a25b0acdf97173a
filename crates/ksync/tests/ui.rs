//! Mistakes that do not compile: `tests/ui/<area>/<mistake>.rs`, each with the message that it gets.
//!
//! The messages are the pinned compiler's. After an upgrade, `TRYBUILD=overwrite cargo test -p ksync --test ui` writes them anew.

#[test]
fn mistakes_do_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/ui/*/*.rs");
}
