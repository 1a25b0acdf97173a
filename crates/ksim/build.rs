//! Compiles the two C-variadic routines.

fn main() {
    println!("cargo::rerun-if-changed=src/exports/dbg/dbg.c");
    cc::Build::new().file("src/exports/dbg/dbg.c").warnings(true).flag_if_supported("-fexceptions").compile("ksim_dbg");
}
