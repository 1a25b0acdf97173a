//! Any bytes are an image or an error, and what an image says of itself is sound.
#![no_main]

use ksim::image::Image;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(image) = Image::load(bytes) else { return };
    for import in image.imports() {
        assert!(!import.name.is_empty() && !import.library.is_empty());
    }
    for section in image.sections() {
        assert!(section.start as usize + section.size as usize <= image.size());
        assert!(!(section.writable && section.executable));
        // The lines are read when the first is asked for.
        let _ = image.source_line(section.start);
    }
});
