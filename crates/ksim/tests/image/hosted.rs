//! Hosted code beside an image in one machine, and called by it.

use super::run;
use super::script::Arg::N;
use super::script::Script;
use ksim::image::Image;
use ksim::{Machine, Outcome};
use std::hint::black_box;

/// Deeper than any stack.
const BOTTOM: usize = 1 << 40;

fn depth(level: usize) -> usize {
    if level == BOTTOM {
        return 0;
    }
    let text = black_box(vec![level; 3]);
    depth(level + 1) + text.len()
}

unsafe extern "system-unwind" fn deep(argument: usize) -> usize {
    depth(argument)
}

unsafe extern "system-unwind" fn shallow(argument: usize) -> usize {
    argument + 1
}

#[track_caller]
fn used_up(outcome: &Outcome) {
    let stop = outcome.bug_check().unwrap_or_else(|| panic!("{outcome}"));
    assert!(stop.code == 0x7f && stop.parameters[0] == 8, "{outcome}");
    assert!(stop.meaning.contains("hosted code ran out of stack"), "{outcome}");
    assert!(stop.call_sites.iter().any(|site| site.function.contains("hosted::depth")), "{outcome}");
}

#[test]
fn an_image_calls_hosted_code() {
    let mut script = Script::new();
    script.check("KeIpiGenericCall", &[N(shallow as *const () as u64), N(6)], 7);
    script.run();
}

#[test]
fn hosted_code_that_an_image_calls_uses_up_its_stack() {
    let mut script = Script::new();
    script.call("KeExpandKernelStackAndCallout", &[N(deep as *const () as u64), N(0), N(0x4000)]);
    for _ in 0..5 {
        used_up(&run(&Machine::new(), &script.image()));
    }
    // An image of its own is run as ever.
    let mut script = Script::new();
    script.check("KeGetCurrentIrql", &[], 0);
    script.run();
}

#[test]
fn hosted_code_beside_an_image_uses_up_its_stack() {
    let mut script = Script::new();
    script.call("KeGetCurrentIrql", &[]);
    let image = Image::load(&script.image().bytes()).expect("the image is sound");
    let outcome = Machine::new().run(|| {
        let _driver = ksim::load_image("test", &image).expect("the entry succeeds");
        black_box(depth(0));
    });
    used_up(&outcome);
}
