//! Drivers' images, loaded and run.
//!
//! The images are written here, byte by byte, so that they need no other tools than the tests themselves.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "image/across.rs"]
mod across;
#[path = "image/calls.rs"]
mod calls;
#[path = "image/corpus.rs"]
mod corpus;
#[path = "image/exceptions.rs"]
mod exceptions;
#[path = "image/faults.rs"]
mod faults;
#[path = "image/hosted.rs"]
mod hosted;
#[path = "image/jump.rs"]
mod jump;
#[path = "image/lines.rs"]
mod lines;
#[path = "image/nested.rs"]
mod nested;
#[path = "image/paging.rs"]
mod paging;
#[path = "image/pe.rs"]
mod pe;
#[path = "image/routines.rs"]
mod routines;
#[path = "image/script.rs"]
mod script;
#[path = "image/waiting.rs"]
mod waiting;

use ksim::image::Image;
use ksim::{Machine, Outcome};
use pe::Pe;

/// Loads an image, and unloads it when its entry succeeded.
fn run(machine: &Machine, pe: &Pe) -> Outcome {
    let image = Image::load(&pe.bytes()).expect("the image is sound");
    run_image(machine, &image)
}

fn run_image(machine: &Machine, image: &Image) -> Outcome {
    machine.run(|| {
        let driver = ksim::load_image("test", image).expect("the entry succeeds");
        driver.unload();
    })
}
