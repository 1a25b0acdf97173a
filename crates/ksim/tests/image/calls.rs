//! Calls in both directions.

use super::pe::{Pe, code};
use super::{run, run_image};
use ksim::image::Image;
use ksim::{End, Machine};

code! { hello:
    "sub rsp, 0x28"
    "lea rax, [rip + hello_unload]"
    "mov [rcx + 0x68], rax"
    "lea rcx, [rip + hello_format]"
    "mov edx, 42"
    "lea r8, [rip + hello_text]"
    "mov r9d, -1"
    "movabs rax, 0x123456789"
    "mov [rsp + 0x20], rax"
    "call [rip + hello_DbgPrint]"
    "xor eax, eax"
    "add rsp, 0x28"
    "ret"
    "hello_unload:"
    "lea rcx, [rip + hello_bye]"
    "jmp [rip + hello_DbgPrint]"
    ".p2align 12"
    "image_hello_data:"
    "hello_DbgPrint: .quad 0, 0"
    "hello_format: .asciz \"hello %d %s %u %I64x\\n\""
    "hello_text: .asciz \"there\""
    "hello_bye: .asciz \"bye\\n\""
}

pub(super) fn hello() -> Pe {
    Pe::new(hello::text(), hello::data(), &["DbgPrint"])
}

#[test]
fn a_driver_prints_and_unloads() {
    let outcome = run(&Machine::new(), &hello());
    let outcome = outcome.expect_clean();
    assert_eq!(outcome.debug_output(), ["hello 42 there 4294967295 123456789", "bye"]);
}

#[test]
fn an_image_is_loaded_any_number_of_times_by_several_machines() {
    let image = Image::load(&hello().bytes()).expect("sound");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    run_image(&Machine::new(), &image).expect_clean();
                }
            });
        }
    });
}

code! { lacking:
    "sub rsp, 0x28"
    "call [rip + lacking_Nothing]"
    "add rsp, 0x28"
    "ret"
    ".p2align 12"
    "image_lacking_data:"
    "lacking_Nothing: .quad 0, 0"
}

/// An image that calls one routine, and expects nothing of it.
pub(super) fn lacking(names: &[&'static str]) -> Pe {
    Pe::new(lacking::text(), lacking::data(), names)
}

#[test]
fn a_routine_that_the_kernel_lacks_is_named_when_it_is_called() {
    let image = Image::load(&Pe::new(lacking::text(), lacking::data(), &["KeDoNothingAtAll"]).bytes()).expect("sound");
    let import = image.imports().next().expect("one import");
    assert_eq!((import.library, import.name, import.available), ("ntoskrnl.exe", "KeDoNothingAtAll", false));
    let outcome = run_image(&Machine::new(), &image);
    let bug_check = outcome.bug_check().expect("a bug check");
    assert_eq!(bug_check.code, ksim::bug_check::DRIVER_ENTRYPOINT_NOT_FOUND);
    assert!(bug_check.meaning.contains("ntoskrnl.exe!KeDoNothingAtAll"), "{bug_check}");
    assert_eq!(bug_check.call_site().expect("a site").function, "test+0x1009");
}

code! { thread:
    // Starts a thread that sets an event, and waits for it: callbacks, and switches within calls.
    "push rbx"
    "sub rsp, 0x50"
    "lea rax, [rip + thread_unload]"
    "mov [rcx + 0x68], rax"
    "lea rcx, [rip + thread_event]"
    "xor edx, edx"
    "xor r8d, r8d"
    "call [rip + thread_KeInitializeEvent]"
    "lea rcx, [rip + thread_handle]"
    "mov edx, 0x1fffff"
    "xor r8d, r8d"
    "xor r9d, r9d"
    "mov qword ptr [rsp + 0x20], 0"
    "lea rax, [rip + thread_start]"
    "mov [rsp + 0x28], rax"
    "mov qword ptr [rsp + 0x30], 77"
    "mov ebx, 0x5eed"
    "movd xmm6, ebx"
    "movd xmm15, ebx"
    "call [rip + thread_PsCreateSystemThread]"
    "lea rcx, [rip + thread_event]"
    "xor edx, edx"
    "xor r8d, r8d"
    "xor r9d, r9d"
    "mov qword ptr [rsp + 0x20], 0"
    "call [rip + thread_KeWaitForSingleObject]"
    "lea rcx, [rip + thread_format]"
    "mov edx, [rip + thread_seen]"
    "mov r8d, ebx"
    "movd r9d, xmm6"
    "movd eax, xmm15"
    "mov [rsp + 0x20], rax"
    "call [rip + thread_DbgPrint]"
    "mov rcx, [rip + thread_handle]"
    "xor edx, edx"
    "xor r8d, r8d"
    "xor r9d, r9d"
    "lea rax, [rip + thread_object]"
    "mov [rsp + 0x20], rax"
    "mov qword ptr [rsp + 0x28], 0"
    "call [rip + thread_ObReferenceObjectByHandle]"
    "mov rcx, [rip + thread_object]"
    "xor edx, edx"
    "xor r8d, r8d"
    "xor r9d, r9d"
    "mov qword ptr [rsp + 0x20], 0"
    "call [rip + thread_KeWaitForSingleObject]"
    "mov rcx, [rip + thread_object]"
    "call [rip + thread_ObfDereferenceObject]"
    "mov rcx, [rip + thread_handle]"
    "call [rip + thread_ZwClose]"
    "xor eax, eax"
    "add rsp, 0x50"
    "pop rbx"
    "ret"
    "thread_start:"
    "sub rsp, 0x28"
    "mov [rip + thread_seen], ecx"
    // Other values, so that a switch that forgets a register is seen.
    "xor ebx, ebx"
    "xorps xmm6, xmm6"
    "xorps xmm15, xmm15"
    "lea rcx, [rip + thread_event]"
    "xor edx, edx"
    "xor r8d, r8d"
    "call [rip + thread_KeSetEvent]"
    "xor ecx, ecx"
    "call [rip + thread_PsTerminateSystemThread]"
    "int3"
    "thread_unload:"
    "ret"
    ".p2align 12"
    "image_thread_data:"
    "thread_KeInitializeEvent: .quad 0"
    "thread_PsCreateSystemThread: .quad 0"
    "thread_KeWaitForSingleObject: .quad 0"
    "thread_DbgPrint: .quad 0"
    "thread_ZwClose: .quad 0"
    "thread_KeSetEvent: .quad 0"
    "thread_PsTerminateSystemThread: .quad 0"
    "thread_ObReferenceObjectByHandle: .quad 0"
    "thread_ObfDereferenceObject: .quad 0, 0"
    "thread_object: .quad 0"
    "thread_event: .zero 24"
    "thread_handle: .quad 0"
    "thread_seen: .long 0"
    "thread_format: .asciz \"%d %x %x %x\\n\""
}

fn thread() -> Pe {
    let names = [
        "KeInitializeEvent",
        "PsCreateSystemThread",
        "KeWaitForSingleObject",
        "DbgPrint",
        "ZwClose",
        "KeSetEvent",
        "PsTerminateSystemThread",
        "ObReferenceObjectByHandle",
        "ObfDereferenceObject",
    ];
    Pe::new(thread::text(), thread::data(), &names)
}

#[test]
fn an_import_by_ordinal_is_a_trap_that_says_so() {
    let mut bytes = lacking(&["KeDoNothingAtAll"]).bytes();
    // The lookup table's one entry points to the name.
    let name = bytes.windows(16).position(|window| window == b"KeDoNothingAtAll").expect("the name is there");
    let image_base = 0x2000 + lacking::data().len() as u64;
    let entry = bytes.windows(8).rposition(|window| {
        let value = u64::from_le_bytes(window.try_into().expect("8 bytes"));
        (image_base..image_base + 0x1000).contains(&value)
    });
    let entry = entry.expect("it points to the name");
    assert!(entry > name);
    bytes[entry..entry + 8].copy_from_slice(&(1_u64 << 63 | 77).to_le_bytes());
    let image = Image::load(&bytes).expect("sound");
    let import = image.imports().next().expect("one import");
    assert_eq!((import.name, import.available), ("#77", false));
    let outcome = run_image(&Machine::new(), &image);
    let bug_check = outcome.bug_check().expect("a bug check");
    assert_eq!(bug_check.code, ksim::bug_check::DRIVER_ENTRYPOINT_NOT_FOUND);
    assert!(bug_check.meaning.contains("ordinal 77 of ntoskrnl.exe"), "{bug_check}");
}

#[test]
fn registers_survive_calls_that_switch_threads() {
    let image = Image::load(&thread().bytes()).expect("sound");
    for seed in 0..64 {
        let outcome = run_image(&Machine::new().processors(2).seed(seed), &image);
        let outcome = outcome.expect_clean();
        assert_eq!(outcome.debug_output(), ["77 5eed 5eed 5eed"], "seed {seed}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let image = Image::load(&thread().bytes()).expect("sound");
    let trace = |seed| run_image(&Machine::new().processors(2).seed(seed), &image).trace();
    assert_eq!(trace(3), trace(3));
}

code! { stamps:
    // Reads the counter, waits for ten million cycles by it, and prints how far it went before and after.
    "push rbx"
    "push rdi"
    "sub rsp, 0x28"
    "lea rax, [rip + stamps_unload]"
    "mov [rcx + 0x68], rax"
    "rdtsc"
    "shl rdx, 32"
    "or rax, rdx"
    "mov rbx, rax"
    "stamps_wait:"
    "rdtscp"
    "mov edi, ecx"
    "shl rdx, 32"
    "or rax, rdx"
    "sub rax, rbx"
    "cmp rax, 10000000"
    "jb stamps_wait"
    "lea rcx, [rip + stamps_format]"
    "mov rdx, rax"
    "mov r8d, edi"
    "call [rip + stamps_DbgPrint]"
    "xor eax, eax"
    "add rsp, 0x28"
    "pop rdi"
    "pop rbx"
    "stamps_unload: ret"
    ".p2align 12"
    "image_stamps_data:"
    "stamps_DbgPrint: .quad 0, 0"
    "stamps_format: .asciz \"%I64d on %d\\n\""
}

#[test]
fn the_time_stamp_counter_is_virtual() {
    let image = Image::load(&Pe::new(stamps::text(), stamps::data(), &["DbgPrint"]).bytes()).expect("sound");
    let run = || {
        Machine::new().run(|| {
            let driver = ksim::load_image("test", &image).expect("the entry succeeds");
            // The host's own clock goes on meanwhile.
            let before = std::time::Instant::now();
            while before.elapsed() < std::time::Duration::from_micros(50) {}
            driver.unload();
        })
    };
    let (one, other) = (run().expect_clean(), run().expect_clean());
    assert_eq!(one.debug_output(), ["10000000 on 0"]);
    assert_eq!(one.debug_output(), other.debug_output());
    assert_eq!(one.statistics().virtual_time, std::time::Duration::from_millis(10));
    assert_eq!(one.trace(), other.trace());
}

#[test]
fn a_machine_that_stops_leaves_the_thread_usable() {
    let lacking = Image::load(&Pe::new(lacking::text(), lacking::data(), &["Nothing"]).bytes()).expect("sound");
    let hello = Image::load(&hello().bytes()).expect("sound");
    for _ in 0..20 {
        assert!(matches!(run_image(&Machine::new(), &lacking).end(), End::BugCheck(_)));
        run_image(&Machine::new(), &hello).expect_clean();
    }
}
