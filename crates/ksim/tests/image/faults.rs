//! Instructions that only a kernel may execute, and faults.

use super::pe::{Pe, code};
use super::{run, run_image};
use ksim::image::Image;
use ksim::{BugCheck, Machine, bug_check};

/// An image of code that calls routines, in the order of its import table.
macro_rules! pe {
    ($name:ident, $($import:literal),*) => { Pe::new($name::text(), $name::data(), &[$($import),*]) };
}

code! { level:
    "push rbx"
    "push rsi"
    "push r12"
    "sub rsp, 0x30"
    "lea rax, [rip + level_unload]"
    "mov [rcx + 0x68], rax"
    "mov esi, 3"
    // The same place again and again: as a fault first, then patched.
    "level_again:"
    "stc"
    "mov rbx, cr8"
    "setc r9b"
    "movzx r9d, r9b"
    "lea rcx, [rip + level_lock]"
    "mov [rip + level_carry], r9d"
    "call [rip + level_KeAcquireSpinLockRaiseToDpc]"
    "mov r12, cr8"
    "nop"
    "lea rcx, [rip + level_lock]"
    "movzx edx, al"
    "call [rip + level_KeReleaseSpinLock]"
    "lea rcx, [rip + level_format]"
    "mov edx, ebx"
    "mov r8d, r12d"
    "mov r9d, [rip + level_carry]"
    "call [rip + level_DbgPrint]"
    "dec esi"
    "jnz level_again"
    // A raise and a lowering, as old headers inline them.
    "mov eax, 2"
    "mov cr8, rax"
    "call [rip + level_KeGetCurrentIrql]"
    "mov ebx, eax"
    "xor eax, eax"
    "mov cr8, rax"
    "call [rip + level_KeGetCurrentIrql]"
    "cli"
    "sti"
    "lea rcx, [rip + level_format]"
    "mov edx, ebx"
    "movzx r8d, al"
    "xor r9d, r9d"
    "call [rip + level_DbgPrint]"
    "xor eax, eax"
    "add rsp, 0x30"
    "pop r12"
    "pop rsi"
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
    "level_KeAcquireSpinLockRaiseToDpc: .quad 0"
    "level_KeReleaseSpinLock: .quad 0"
    "level_DbgPrint: .quad 0"
    "level_KeGetCurrentIrql: .quad 0, 0"
    "level_lock: .quad 0"
    "level_carry: .long 0"
    "level_format: .asciz \"%d %d %d\\n\""
}

#[test]
fn the_level_is_read_and_written_by_its_register() {
    let outcome =
        run(&Machine::new(), &pe!(level, "KeAcquireSpinLockRaiseToDpc", "KeReleaseSpinLock", "DbgPrint", "KeGetCurrentIrql"));
    let outcome = outcome.expect_clean();
    assert_eq!(outcome.debug_output(), ["0 2 1", "0 2 1", "0 2 1", "2 0 0"]);
}

code! { writes:
    "writes_entry:"
    "push rbx"
    "push rsi"
    "sub rsp, 0x38"
    "writes_body:"
    "lea rax, [rip + writes_unload]"
    "mov [rcx + 0x68], rax"
    "lea rcx, [rip + writes_dpc]"
    "lea rdx, [rip + writes_routine]"
    "xor r8d, r8d"
    "call [rip + writes_KeInitializeDpc]"
    "mov esi, 3"
    "writes_again:"
    // The same places again and again: as faults first, then patched. All that a driver sees of its registers stays.
    "mov eax, 2"
    "xorps xmm5, xmm5"
    "movd xmm0, eax"
    "movd xmm15, esi"
    "mov rdx, rsp"
    "mov r8d, 8"
    "mov r9d, 9"
    "mov r10d, 10"
    "mov r11d, 11"
    "mov ecx, 1"
    "std"
    "cmp ecx, 2"
    "writes_up: mov cr8, rax"
    "pushfq"
    "cld"
    "pop rbx"
    "and ebx, 0xcd5"
    "mov [rip + writes_flags], ebx"
    "sub rdx, rsp"
    "movd ebx, xmm0"
    "sub ebx, eax"
    "or edx, ebx"
    "movd ebx, xmm15"
    "sub ebx, esi"
    "or edx, ebx"
    "add r8d, r9d"
    "add r8d, r10d"
    "add r8d, r11d"
    "add r8d, ecx"
    "lea rcx, [rip + writes_format]"
    "mov r9d, [rip + writes_flags]"
    "call [rip + writes_DbgPrint]"
    "call [rip + writes_KeGetCurrentIrql]"
    "movzx ebx, al"
    // A DPC that waits for the level to fall.
    "lea rcx, [rip + writes_dpc]"
    "xor edx, edx"
    "xor r8d, r8d"
    "call [rip + writes_KeInsertQueueDpc]"
    "call writes_leaf"
    "call [rip + writes_KeGetCurrentIrql]"
    "movzx edx, al"
    "lea rcx, [rip + writes_format]"
    "mov r8d, ebx"
    "mov r9d, [rip + writes_ran]"
    "call [rip + writes_DbgPrint]"
    "dec esi"
    "jnz writes_again"
    // The first bytes of the three places, which say whether they were patched.
    "movzx edx, byte ptr [rip + writes_up]"
    "movzx r8d, byte ptr [rip + writes_down]"
    "lea rcx, [rip + writes_format]"
    "xor r9d, r9d"
    "call [rip + writes_DbgPrint]"
    "xor eax, eax"
    "add rsp, 0x38"
    "pop rsi"
    "pop rbx"
    "ret"
    "writes_entry_end:"
    // Where the stack is 8 off a multiple of 16.
    "writes_leaf:"
    "xor r10d, r10d"
    "writes_down: mov cr8, r10"
    "ret"
    "writes_leaf_end:"
    "writes_unload: ret"
    "nop"
    "nop"
    "nop"
    "nop"
    "nop"
    "nop"
    "writes_routine:"
    "inc dword ptr [rip + writes_ran]"
    "xorps xmm0, xmm0"
    "ret"
    ".p2align 12"
    "image_writes_data:"
    "writes_DbgPrint: .quad 0"
    "writes_KeGetCurrentIrql: .quad 0"
    "writes_KeInitializeDpc: .quad 0"
    "writes_KeInsertQueueDpc: .quad 0, 0"
    "writes_functions:"
    ".long writes_entry - image_writes + 0x1000, writes_entry_end - image_writes + 0x1000, writes_unwind - image_writes + 0x1000"
    ".long writes_leaf - image_writes + 0x1000, writes_leaf_end - image_writes + 0x1000, writes_leaf_unwind - image_writes + 0x1000"
    "writes_unwind:"
    ".byte 0x01, writes_body - writes_entry, 3, 0, writes_body - writes_entry, 0x62, 2, 0x60, 1, 0x30, 0, 0"
    "writes_leaf_unwind: .byte 0x01, 0, 0, 0"
    "writes_flags: .long 0"
    "writes_ran: .long 0"
    "writes_format: .asciz \"%x %x %x\\n\""
    ".p2align 3"
    "writes_dpc: .zero 64"
}

#[test]
fn a_write_of_the_level_keeps_all_registers_and_delivers_dpcs() {
    let mut pe = pe!(writes, "DbgPrint", "KeGetCurrentIrql", "KeInitializeDpc", "KeInsertQueueDpc");
    pe.functions = (0x1000 + writes::text().len() as u32 + 40, 24);
    let expected = |places| {
        let turn = |number| ["0 27 495".to_owned(), format!("0 2 {number}")];
        [turn(1), turn(2), turn(3)].into_iter().flatten().chain([places]).collect::<Vec<_>>()
    };
    // One place keeps its fault, as what stands behind it may not move; behind the other is a return, which may.
    let outcome = run(&Machine::new(), &pe).expect_clean();
    assert_eq!(outcome.debug_output(), expected("44 e9 0".to_owned()));
    // With padding near by, both are patched with a short jump.
    let text = &mut pe.sections[0].bytes;
    let padding = text.windows(6).position(|window| window == [0x90; 6]).expect("six bytes");
    text[padding..padding + 6].fill(0xcc);
    let outcome = run(&Machine::new(), &pe).expect_clean();
    assert_eq!(outcome.debug_output(), expected("44 eb 0".to_owned()));
}

code! { uppers:
    // What the upper halves of the vector registers have at a write of the level, with a DPC that clears them.
    "push rbx"
    "push rsi"
    "sub rsp, 0x28"
    "lea rax, [rip + uppers_unload]"
    "mov [rcx + 0x68], rax"
    "lea rcx, [rip + uppers_dpc]"
    "lea rdx, [rip + uppers_routine]"
    "xor r8d, r8d"
    "call [rip + uppers_KeInitializeDpc]"
    "mov esi, 3"
    "uppers_again:"
    "mov cl, 2"
    "call [rip + uppers_KfRaiseIrql]"
    "lea rcx, [rip + uppers_dpc]"
    "xor edx, edx"
    "xor r8d, r8d"
    "call [rip + uppers_KeInsertQueueDpc]"
    "mov eax, 0x5eed"
    "movd xmm0, eax"
    "vinsertf128 ymm7, ymm0, xmm0, 1"
    "xor ebx, ebx"
    "mov cr8, rbx"
    "vextractf128 xmm0, ymm7, 1"
    "movd edx, xmm0"
    "lea rcx, [rip + uppers_format]"
    "call [rip + uppers_DbgPrint]"
    "dec esi"
    "jnz uppers_again"
    "xor eax, eax"
    "add rsp, 0x28"
    "pop rsi"
    "pop rbx"
    "uppers_unload: ret"
    "uppers_routine: vzeroall"
    "ret"
    ".rept 16"
    "int3"
    ".endr"
    ".p2align 12"
    "image_uppers_data:"
    "uppers_KfRaiseIrql: .quad 0"
    "uppers_DbgPrint: .quad 0"
    "uppers_KeInitializeDpc: .quad 0"
    "uppers_KeInsertQueueDpc: .quad 0, 0"
    "uppers_format: .asciz \"%x\\n\""
    ".p2align 3"
    "uppers_dpc: .zero 64"
}

#[test]
fn a_write_of_the_level_keeps_vectors_in_full() {
    if !is_x86_feature_detected!("avx") {
        return;
    }
    let pe = pe!(uppers, "KfRaiseIrql", "DbgPrint", "KeInitializeDpc", "KeInsertQueueDpc");
    for seed in 0..10 {
        let outcome = run(&Machine::new().processors(2).seed(seed), &pe).expect_clean();
        assert_eq!(outcome.debug_output(), ["5eed"; 3]);
    }
}

code! { wrong:
    // Lowers the level by its register, past what the last raise began with. The second turn is the wrong one.
    "sub rsp, 0x28"
    "xor edx, edx"
    "wrong_again:"
    "mov [rsp + 0x20], edx"
    "mov cl, 5"
    "call [rip + wrong_KfRaiseIrql]"
    "mov eax, [rsp + 0x20]"
    "wrong_site: mov cr8, rax"
    "inc edx"
    "mov edx, 2"
    "jmp wrong_again"
    "nop"
    "nop"
    "nop"
    "nop"
    "nop"
    "nop"
    ".p2align 12"
    "image_wrong_data:"
    "wrong_KfRaiseIrql: .quad 0, 0"
}

#[test]
fn a_wrong_write_of_the_level_is_reported_at_its_place() {
    for (padded, level) in [(false, 2), (true, 2), (false, 0x20), (true, 0x20)] {
        let mut pe = pe!(wrong, "KfRaiseIrql");
        let text = &mut pe.sections[0].bytes;
        let at = |bytes: &[u8], text: &[u8]| text.windows(bytes.len()).position(|window| window == bytes).expect("the bytes");
        let site = at(&[0x44, 0x0f, 0x22, 0xc0], text);
        if padded {
            let padding = at(&[0x90; 6], text);
            text[padding..padding + 6].fill(0xcc);
        }
        let again = at(&[0xba, 2], text);
        text[again + 1] = level;
        let check = bug_check(&pe);
        let place = check.call_site().expect("a site").function.clone();
        if level == 2 {
            assert_eq!((check.code, check.parameters[0]), (bug_check::DRIVER_VERIFIER_DETECTED_VIOLATION, 0x31), "{check}");
            // Within the instruction, as for a call.
            assert_eq!(place, format!("test+{:#x}", 0x1000 + site + 3), "{check}");
        } else {
            assert_eq!(
                (check.code, check.parameters[0]),
                (bug_check::SYSTEM_THREAD_EXCEPTION_NOT_HANDLED, 0xc000_0096),
                "{check}"
            );
            assert_eq!(place, format!("test+{:#x}", 0x1000 + site), "{check}");
        }
    }
}

code! { block:
    "sub rsp, 0x38"
    "lea rax, [rip + block_unload]"
    "mov [rcx + 0x68], rax"
    "call [rip + block_KeGetCurrentThread]"
    "mov rdx, gs:[0x188]"
    "sub rdx, rax"
    "mov [rsp + 0x28], rdx"
    "xor ecx, ecx"
    "call [rip + block_KeGetCurrentProcessorNumberEx]"
    "mov r8d, gs:[0x1a4]"
    "sub r8d, eax"
    "movzx r9d, byte ptr gs:[0x184]"
    "sub r9d, eax"
    "mov rdx, [rsp + 0x28]"
    "mov rax, gs:[0x18]"
    "mov rax, [rax + 0x20]"
    "sub rax, gs:[0x20]"
    "mov [rsp + 0x20], rax"
    "lea rcx, [rip + block_format]"
    "call [rip + block_DbgPrint]"
    "xor eax, eax"
    "add rsp, 0x38"
    "ret"
    "block_unload: ret"
    ".p2align 12"
    "image_block_data:"
    "block_KeGetCurrentThread: .quad 0"
    "block_KeGetCurrentProcessorNumberEx: .quad 0"
    "block_DbgPrint: .quad 0, 0"
    "block_format: .asciz \"%d %d %d %d\\n\""
}

#[test]
fn the_processor_block_is_that_of_the_simulated_processor() {
    let image =
        Image::load(&pe!(block, "KeGetCurrentThread", "KeGetCurrentProcessorNumberEx", "DbgPrint").bytes()).expect("sound");
    for seed in 0..20 {
        let outcome = run_image(&Machine::new().processors(4).seed(seed), &image).expect_clean();
        assert_eq!(outcome.debug_output(), ["0 0 0 0"]);
    }
}

code! { shared:
    "push rbx"
    "sub rsp, 0x40"
    "lea rax, [rip + shared_unload]"
    "mov [rcx + 0x68], rax"
    // Three ways to read the page; flags and other registers stay.
    "movabs rax, [0xfffff78000000014]"
    "mov [rsp + 0x30], rax"
    "lea rcx, [rsp + 0x38]"
    "call [rip + shared_KeQuerySystemTimePrecise]"
    "mov rdx, [rsp + 0x38]"
    "sub rdx, [rsp + 0x30]"
    "movabs rbx, 0xfffff78000000000"
    "mov r8d, [rbx + 0x26c]"
    "movzx r9d, byte ptr [rbx + 0x27e]"
    "xor eax, eax"
    "cmp dword ptr [rbx + 0x264], 1"
    "sete al"
    "mov [rsp + 0x20], rax"
    "lea rcx, [rip + shared_format]"
    "call [rip + shared_DbgPrint]"
    // A loop that only looks at the time must see it pass.
    "mov rax, [rbx + 8]"
    "shared_wait:"
    "mov rcx, [rbx + 8]"
    "sub rcx, rax"
    "cmp rcx, 1000000"
    "jb shared_wait"
    "xor eax, eax"
    "add rsp, 0x40"
    "pop rbx"
    "ret"
    "shared_unload: ret"
    ".p2align 12"
    "image_shared_data:"
    "shared_KeQuerySystemTimePrecise: .quad 0"
    "shared_DbgPrint: .quad 0, 0"
    "shared_format: .asciz \"%I64d %d %d %d\\n\""
}

#[test]
fn the_shared_page_is_read_where_it_cannot_be() {
    let outcome = run(&Machine::new(), &pe!(shared, "KeQuerySystemTimePrecise", "DbgPrint")).expect_clean();
    assert_eq!(outcome.debug_output(), ["0 10 1 1"]);
    assert!(outcome.statistics().virtual_time.as_millis() >= 100);
}

/// What a fault comes to. The entry begins with it.
macro_rules! fault {
    ($name:ident: $($line:literal)*) => {
        code! { @ $name [
            "sub rsp, 0x28",
            $($line,)*
            "add rsp, 0x28",
            "xor eax, eax",
            "ret",
            ".p2align 12",
            concat!("image_", stringify!($name), "_data:"),
            concat!(stringify!($name), "_raise: .quad 0, 0"),
        ] }
    };
}

fn bug_check(pe: &Pe) -> BugCheck {
    let outcome = run(&Machine::new(), pe);
    outcome.bug_check().unwrap_or_else(|| panic!("no bug check but {}", outcome.end())).clone()
}

fault! { null: "mov eax, [0x18]" }
fault! { wrote: "mov byte ptr [0x18], 1" }
fault! { high: "movabs rax, 0xffff900000000000" "mov eax, [rax]" }
fault! { neither: "movabs rax, 0x900000000000" "mov eax, [rax]" }
fault! { jumped: "xor eax, eax" "call rax" }
fault! { divided: "xor ecx, ecx" "xor edx, edx" "mov eax, 1" "div ecx" }
fault! { undefined: "ud2" }
fault! { stopped: "int3" }
fault! { fastfail: "mov ecx, 3" "int 0x29" }
fault! { privileged: "mov ecx, 0x10" "rdmsr" }
fault! { control: "mov rax, cr3" }
fault! { overflow: "overflow_again:" "sub rsp, 0x100" "mov [rsp], rax" "jmp overflow_again" }
fault! { misaligned: "push rax" "call [rip + misaligned_raise]" }
fault! { recursive: "call recursive_again" "recursive_again:" "sub rsp, 0x28" "call [rip + recursive_raise]" "call recursive_again" }
fault! { raised: "call [rip + raised_raise]" "mov eax, [0x18]" }
fault! { passed: "mov ecx, 0x18" "call [rip + passed_raise]" }
fault! { self_modified: "lea rax, [rip + self_modified_here]" "mov byte ptr [rax], 0x90" "self_modified_here:" }

const ACCESS_VIOLATION: u64 = 0xc000_0005;

#[test]
fn an_access_violation_that_nothing_handles_is_bug_check_7e() {
    let check = bug_check(&pe!(null, "DbgPrint"));
    assert_eq!(check.code, bug_check::SYSTEM_THREAD_EXCEPTION_NOT_HANDLED);
    assert_eq!([check.parameters[0], check.parameters[1] & 0xfff], [ACCESS_VIOLATION, 4], "{check}");
    assert!(check.meaning.contains("read address 0x18"), "{check}");
    assert_eq!(check.call_site().expect("a site").function, "test+0x1004");
    let check = bug_check(&pe!(wrote, "DbgPrint"));
    assert!(check.meaning.contains("wrote address 0x18"), "{check}");
    let check = bug_check(&pe!(neither, "DbgPrint"));
    assert_eq!((check.code, check.parameters[0]), (bug_check::SYSTEM_THREAD_EXCEPTION_NOT_HANDLED, ACCESS_VIOLATION));
    assert!(check.meaning.contains("0x900000000000"), "{check}");
}

#[test]
fn a_jump_to_nowhere_is_reported_with_its_caller() {
    let check = bug_check(&pe!(jumped, "DbgPrint"));
    assert_eq!(check.code, bug_check::SYSTEM_THREAD_EXCEPTION_NOT_HANDLED);
    assert_eq!(check.parameters, [ACCESS_VIOLATION, 0, 0, 0]);
    assert_eq!(check.call_site().expect("a site").function, "test+0x1007");
}

#[test]
fn an_address_of_the_kernels_half_is_bug_check_50() {
    let check = bug_check(&pe!(high, "DbgPrint"));
    assert_eq!(check.code, bug_check::PAGE_FAULT_IN_NONPAGED_AREA);
    assert_eq!(check.parameters[..2], [0xffff_9000_0000_0000, 0]);
}

#[test]
fn a_page_fault_at_dispatch_level_is_bug_check_d1() {
    let check = bug_check(&pe!(raised, "KeRaiseIrqlToDpcLevel"));
    assert_eq!(check.code, bug_check::DRIVER_IRQL_NOT_LESS_OR_EQUAL);
    assert_eq!(check.parameters[..3], [0x18, 2, 0]);
}

#[test]
fn a_bad_pointer_that_was_passed_names_the_routine() {
    let check = bug_check(&pe!(passed, "KeQuerySystemTimePrecise"));
    assert_eq!(check.code, bug_check::SYSTEM_THREAD_EXCEPTION_NOT_HANDLED);
    assert_eq!(check.parameters[0], ACCESS_VIOLATION);
    assert!(check.meaning.contains("KeQuerySystemTimePrecise was passed a bad pointer: it wrote address 0x18"), "{check}");
    assert_eq!(check.call_site().expect("a site").function, "test+0x100e");
}

fault! { nothing:
    "sub rsp, 0x40"
    "xor ecx, ecx"
    "xor edx, edx"
    "xor r8d, r8d"
    "xor r9d, r9d"
    "mov [rsp + 0x20], rcx"
    "mov [rsp + 0x28], rcx"
    "mov [rsp + 0x30], rcx"
    "mov [rsp + 0x38], rcx"
    "call [rip + nothing_raise]"
    "add rsp, 0x40"
}
fault! { odd:
    "sub rsp, 0x40"
    "mov ecx, 0x11"
    "mov edx, 0x13"
    "mov r8d, 0x15"
    "mov r9d, 0x17"
    "mov [rsp + 0x20], rcx"
    "mov [rsp + 0x28], rdx"
    "mov [rsp + 0x30], r8"
    "mov [rsp + 0x38], r9"
    "call [rip + odd_raise]"
    "add rsp, 0x40"
}

#[test]
fn no_routine_lets_bad_pointers_end_the_process() {
    let of_images = include_str!("../../src/image/names.txt").lines();
    let all = ksim::exports().map(|export| export.name).chain(of_images);
    for name in all {
        for (text, data) in [(nothing::text(), nothing::data()), (odd::text(), odd::data())] {
            let image = Image::load(&Pe::new(text, data, &[name]).bytes()).expect("sound");
            // Whatever comes of it, it comes back. A variable is no routine: its call is a jump to where no code is.
            let outcome = Machine::new().step_limit(10_000).run(|| {
                if let Ok(driver) = ksim::load_image("test", &image) {
                    std::mem::forget(driver);
                }
            });
            if name == "strlen" {
                let check = outcome.bug_check().expect("a bug check");
                assert_eq!((check.code, check.parameters[0]), (bug_check::SYSTEM_THREAD_EXCEPTION_NOT_HANDLED, ACCESS_VIOLATION));
                assert!(check.meaning.contains("strlen was passed a bad pointer: it read address"), "{check}");
            }
        }
    }
}

#[test]
fn exceptions_of_the_processor_have_their_status() {
    for (pe, status) in [
        (pe!(divided, "DbgPrint"), 0xc000_0094),
        (pe!(undefined, "DbgPrint"), 0xc000_001d),
        (pe!(stopped, "DbgPrint"), 0x8000_0003),
        (pe!(privileged, "DbgPrint"), 0xc000_0096),
        (pe!(control, "DbgPrint"), 0xc000_0096),
    ] {
        let check = bug_check(&pe);
        assert_eq!((check.code, check.parameters[0]), (bug_check::SYSTEM_THREAD_EXCEPTION_NOT_HANDLED, status), "{check}");
    }
    assert!(bug_check(&pe!(privileged, "DbgPrint")).meaning.contains("`rdmsr`"));
    let check = bug_check(&pe!(fastfail, "DbgPrint"));
    assert_eq!((check.code, check.parameters[0]), (bug_check::KERNEL_SECURITY_CHECK_FAILURE, 3));
}

#[test]
fn a_stack_that_is_used_up_is_a_double_fault() {
    for _ in 0..3 {
        // Also where it is the kernel that finds none left.
        for pe in [pe!(overflow, "DbgPrint"), pe!(recursive, "KeGetCurrentIrql")] {
            let check = bug_check(&pe);
            assert_eq!((check.code, check.parameters[0]), (bug_check::UNEXPECTED_KERNEL_MODE_TRAP, 8), "{check}");
            assert!(!check.call_sites.is_empty(), "{check}");
        }
    }
}

#[test]
fn a_call_with_a_stack_that_is_not_aligned_is_reported() {
    let check = bug_check(&pe!(misaligned, "KeGetCurrentIrql"));
    assert_eq!(check.parameters[0], ACCESS_VIOLATION, "{check}");
    assert_eq!(check.call_site().expect("a site").function, "test+0x100a", "{check}");
}

#[test]
fn code_cannot_be_written() {
    let mut pe = pe!(self_modified, "DbgPrint");
    // Also where a section asks for both.
    pe.sections[0].flags |= 0x8000_0000;
    let check = bug_check(&pe);
    assert_eq!((check.code, check.parameters[0]), (bug_check::SYSTEM_THREAD_EXCEPTION_NOT_HANDLED, ACCESS_VIOLATION), "{check}");
    assert!(check.meaning.contains("wrote"), "{check}");
}

code! { init:
    // The unload routine calls into what was for the entry alone.
    "lea rax, [rip + init_unload]"
    "mov [rcx + 0x68], rax"
    "xor eax, eax"
    "ret"
    "init_unload:"
    "sub rsp, 0x28"
    "call init_late"
    "add rsp, 0x28"
    "ret"
    ".p2align 12"
    "image_init_data:"
    "init_slot: .quad 0, 0"
    ".p2align 12"
    "init_late: ret"
}

#[test]
fn a_call_of_init_code_after_the_entry_is_reported() {
    let mut pe = pe!(init, "DbgPrint");
    let (data, late) = init::data().split_at(0x1000);
    pe.sections[1].bytes = data.to_vec();
    pe.sections.push(super::pe::Section { name: "INIT", bytes: late.to_vec(), flags: 0x6200_0020 });
    let check = bug_check(&pe);
    assert_eq!(check.code, bug_check::PAGE_FAULT_IN_NONPAGED_AREA);
    assert!(check.meaning.contains("section INIT"), "{check}");
}

code! { paged:
    "sub rsp, 0x28"
    "lea rcx, [rip + paged_lock]"
    "call [rip + paged_KeAcquireSpinLockRaiseToDpc]"
    "lea rcx, [rip + paged_lock]"
    "xor edx, edx"
    "call [rip + paged_KeReleaseSpinLock]"
    "xor eax, eax"
    "add rsp, 0x28"
    "ret"
    ".p2align 12"
    "image_paged_data:"
    "paged_KeAcquireSpinLockRaiseToDpc: .quad 0"
    "paged_KeReleaseSpinLock: .quad 0, 0"
    "paged_lock: .quad 0"
}

#[test]
fn pageable_code_at_dispatch_level_is_reported() {
    let mut pe = pe!(paged, "KeAcquireSpinLockRaiseToDpc", "KeReleaseSpinLock");
    pe.sections[0].name = "PAGE";
    let check = bug_check(&pe);
    assert_eq!(check.code, bug_check::DRIVER_IRQL_NOT_LESS_OR_EQUAL);
    assert!(check.meaning.contains("section PAGE"), "{check}");
}

fault! { callback:
    "lea rcx, [rip + callback_raise + 24]"
    "mov edx, 0x18"
    "xor r8d, r8d"
    "call [rip + callback_raise]"
    "lea rcx, [rip + callback_raise + 24]"
    "call [rip + callback_raise + 8]"
}
fault! { far_callback:
    "lea rcx, [rip + far_callback_raise + 24]"
    "movabs rdx, 0xfffff80000001000"
    "xor r8d, r8d"
    "call [rip + far_callback_raise]"
    "lea rcx, [rip + far_callback_raise + 24]"
    "call [rip + far_callback_raise + 8]"
}

#[test]
fn a_routine_that_is_no_code_is_reported_when_it_is_called() {
    for (mut pe, address) in [
        (pe!(callback, "KeInitializeDpc", "KeInsertQueueDpc"), 0x18),
        (pe!(far_callback, "KeInitializeDpc", "KeInsertQueueDpc"), 0xffff_f800_0000_1000),
    ] {
        // Room for the DPC behind the table.
        pe.sections[1].bytes.resize(0x1000, 0);
        let check = bug_check(&pe);
        assert!(
            [bug_check::KMODE_EXCEPTION_NOT_HANDLED, bug_check::DRIVER_IRQL_NOT_LESS_OR_EQUAL].contains(&check.code),
            "{check}"
        );
        assert!(check.parameters.contains(&address), "{check}");
        assert!(check.in_dpc, "{check}");
    }
}

fault! { in_dpc:
    "lea rcx, [rip + in_dpc_raise + 24]"
    "lea rdx, [rip + in_dpc_routine]"
    "xor r8d, r8d"
    "call [rip + in_dpc_raise]"
    "lea rcx, [rip + in_dpc_raise + 24]"
    "call [rip + in_dpc_raise + 8]"
    "in_dpc_routine: ud2"
}

#[test]
fn an_exception_in_a_dpc_is_bug_check_1e() {
    let mut pe = pe!(in_dpc, "KeInitializeDpc", "KeInsertQueueDpc");
    pe.sections[1].bytes.resize(0x1000, 0);
    let check = bug_check(&pe);
    assert_eq!((check.code, check.parameters[0]), (bug_check::KMODE_EXCEPTION_NOT_HANDLED, 0xc000_001d), "{check}");
    assert!(check.in_dpc, "{check}");
}

code! { moved:
    "moved_entry:"
    "push rbx"
    "sub rsp, 0x20"
    "lea rax, [rip + moved_unload]"
    "mov [rcx + 0x68], rax"
    "mov ebx, 3"
    "moved_again:"
    // The next instruction moves along with the read, also when it is the first time.
    "mov r13, cr8"
    "mov edx, 7"
    "lea rcx, [rip + moved_format]"
    "mov r8d, r13d"
    "call [rip + moved_DbgPrint]"
    "dec ebx"
    "jnz moved_again"
    // A branch goes to what is behind this read: it keeps its fault.
    "mov ebx, 2"
    "mov rax, cr8"
    "moved_target:"
    "dec ebx"
    "jnz moved_target"
    "xor eax, eax"
    "add rsp, 0x20"
    "pop rbx"
    "ret"
    "moved_entry_end:"
    "moved_unload: ret"
    ".p2align 12"
    "image_moved_data:"
    "moved_DbgPrint: .quad 0, 0"
    "moved_functions:"
    ".long moved_entry - image_moved + 0x1000, moved_entry_end - image_moved + 0x1000, moved_unwind - image_moved + 0x1000"
    "moved_unwind:"
    ".byte 0x01, 5, 2, 0, 5, 0x32, 1, 0x30"
    "moved_format: .asciz \"%d %d\\n\""
}

#[test]
fn a_read_of_the_level_is_patched_where_there_is_no_padding() {
    let mut pe = pe!(moved, "DbgPrint");
    pe.functions = (0x1000 + moved::text().len() as u32 + 16, 12);
    let outcome = run(&Machine::new(), &pe).expect_clean();
    assert_eq!(outcome.debug_output(), ["7 0", "7 0", "7 0"]);
}
