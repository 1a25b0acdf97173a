//! What an image costs: `cargo xtask bench image`.
//!
//! An imported call beside the same call hosted, reads and writes of CR8, and loading. Each figure is the median of several runs.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[path = "../tests/image/pe.rs"]
mod pe;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod measured {
    use super::pe::{Pe, code};
    use ksim::Machine;
    use ksim::image::Image;
    use ksync_sys::{KEVENT, KeClearEvent, KeInitializeEvent, NotificationEvent};
    use std::hint::black_box;
    use std::mem::MaybeUninit;
    use std::time::{Duration, Instant};

    const RUNS: usize = 15;
    const CALLS: u32 = 1_000_000;
    /// Where the data has how often the loop turns.
    const COUNT: usize = 32;

    code! { calls:
        "push rbx"
        "sub rsp, 0x20"
        "lea rax, [rip + calls_unload]"
        "mov [rcx + 0x68], rax"
        "lea rcx, [rip + calls_event]"
        "xor edx, edx"
        "xor r8d, r8d"
        "call [rip + calls_KeInitializeEvent]"
        "mov ebx, [rip + calls_count]"
        "test ebx, ebx"
        "jz calls_done"
        "calls_again:"
        "lea rcx, [rip + calls_event]"
        "call [rip + calls_KeClearEvent]"
        "dec ebx"
        "jnz calls_again"
        "calls_done:"
        "xor eax, eax"
        "add rsp, 0x20"
        "pop rbx"
        "ret"
        "calls_unload: ret"
        ".p2align 12"
        "image_calls_data:"
        "calls_KeInitializeEvent: .quad 0"
        "calls_KeClearEvent: .quad 0, 0, 0"
        "calls_count: .quad 0"
        "calls_event: .zero 24"
    }

    code! { level:
        "push rbx"
        "lea rax, [rip + level_unload]"
        "mov [rcx + 0x68], rax"
        "mov ebx, [rip + level_count]"
        "test ebx, ebx"
        "jz level_done"
        "level_again:"
        "mov rdx, cr8"
        "dec ebx"
        "jnz level_again"
        "level_done:"
        "xor eax, eax"
        "pop rbx"
        "ret"
        "int3"
        "int3"
        "int3"
        "int3"
        "int3"
        "int3"
        "level_unload: ret"
        ".p2align 12"
        "image_level_data:"
        "level_KeInitializeEvent: .quad 0, 0, 0, 0"
        "level_count: .quad 0"
    }

    code! { write:
        // Raises and lowers the level by its register: two writes a turn.
        "push rbx"
        "lea rax, [rip + write_unload]"
        "mov [rcx + 0x68], rax"
        "mov ebx, [rip + write_count]"
        "test ebx, ebx"
        "jz write_done"
        "mov ecx, 2"
        "xor edx, edx"
        "write_again:"
        "mov cr8, rcx"
        "mov cr8, rdx"
        "dec ebx"
        "jnz write_again"
        "write_done:"
        "xor eax, eax"
        "pop rbx"
        "ret"
        ".rept 16"
        "int3"
        ".endr"
        "write_unload: ret"
        ".p2align 12"
        "image_write_data:"
        "write_KeInitializeEvent: .quad 0, 0, 0, 0"
        "write_count: .quad 0"
    }

    /// An image whose loop turns so often.
    fn image(text: &[u8], data: &[u8], count: u32) -> Image {
        let mut data = data.to_vec();
        data[COUNT..COUNT + 4].copy_from_slice(&count.to_le_bytes());
        Image::load(&Pe::new(text, &data, &["KeInitializeEvent", "KeClearEvent"]).bytes()).expect("the image is sound")
    }

    fn machine() -> Machine {
        Machine::new().record_trace(false).step_limit(u64::MAX)
    }

    /// How long it takes to load the image and to run its entry.
    fn load(image: &Image) -> Duration {
        let mut taken = Duration::ZERO;
        let outcome = machine().run(|| {
            let start = Instant::now();
            let driver = ksim::load_image("bench", image).expect("the entry succeeds");
            taken = start.elapsed();
            driver.unload();
        });
        outcome.expect_clean();
        taken
    }

    /// The same calls from hosted code.
    fn hosted() -> Duration {
        let mut taken = Duration::ZERO;
        let outcome = machine().run(|| {
            let mut event = Box::new(MaybeUninit::<KEVENT>::uninit());
            let event = event.as_mut_ptr();
            // SAFETY: the box is memory for a KEVENT.
            unsafe { KeInitializeEvent(event, NotificationEvent, 0) };
            let start = Instant::now();
            for _ in 0..CALLS {
                // SAFETY: the event was initialised.
                unsafe { KeClearEvent(black_box(event)) };
            }
            taken = start.elapsed();
        });
        outcome.expect_clean();
        taken
    }

    fn median(mut sample: impl FnMut() -> Duration) -> f64 {
        let mut samples: Vec<_> = (0..RUNS).map(|_| sample().as_secs_f64() * 1e9).collect();
        samples.sort_by(f64::total_cmp);
        samples[RUNS / 2]
    }

    pub(super) fn run() {
        let (idle, busy) = (image(calls::text(), calls::data(), 0), image(calls::text(), calls::data(), CALLS));
        let reading = image(level::text(), level::data(), CALLS);
        let writing = image(write::text(), write::data(), CALLS);
        let loaded = median(|| load(&idle));
        let imported = (median(|| load(&busy)) - loaded) / f64::from(CALLS);
        let hosted = median(hosted) / f64::from(CALLS);
        let level = (median(|| load(&reading)) - loaded) / f64::from(CALLS);
        let written = (median(|| load(&writing)) - loaded) / f64::from(2 * CALLS);
        println!("an imported call takes {imported:.1} ns, the same hosted {hosted:.1} ns: {:.2} times", imported / hosted);
        println!(
            "a read of CR8 takes {level:.2} ns after its first, a write {written:.1} ns; loading takes {:.1} us",
            loaded / 1e3
        );
        println!("RESULT image.call.imported {imported:.2} ns");
        println!("RESULT image.call.hosted {hosted:.2} ns");
        println!("RESULT image.call.ratio {:.3} times", imported / hosted);
        println!("RESULT image.cr8 {level:.3} ns");
        println!("RESULT image.cr8.write {written:.2} ns");
        println!("RESULT image.load {:.2} us", loaded / 1e3);
    }
}

fn main() {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    measured::run();
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    println!("images do not run on this host: there is nothing to measure");
}
