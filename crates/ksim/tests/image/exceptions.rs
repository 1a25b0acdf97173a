//! Structured exceptions: `__try` with `__except` and `__finally`, as compilers lay them down.

use super::pe::{Pe, code};
use super::run;
use ksim::{Machine, bug_check};

const ROUTINES: [&str; 9] = [
    "DbgPrint",
    "ExRaiseStatus",
    "KeInitializeMutex",
    "KeReleaseMutex",
    "memcpy",
    "ProbeForRead",
    "ProbeForWrite",
    "RtlRunOnceExecuteOnce",
    "__C_specific_handler",
];

code! { seh:
    "seh_entry:"
    "push rbx"
    "push rdi"
    "sub rsp, 0x38"
    "seh_body:"
    "lea rax, [rip + seh_unload]"
    "mov [rcx + 0x68], rax"
    "mov ebx, 0xb"
    "movd xmm6, ebx"
    // An access violation.
    "seh_try1: mov eax, [0x18]"
    "nop"
    "seh_end1: ud2"
    "seh_except1: call seh_print"
    // A status, which a filter takes.
    "seh_try2: mov ecx, 0xc0000123"
    "call [rip + seh_ExRaiseStatus]"
    "nop"
    "seh_end2: ud2"
    "seh_except2: call seh_print"
    // A routine that raises.
    "lea rcx, [rip + seh_mutex]"
    "xor edx, edx"
    "call [rip + seh_KeInitializeMutex]"
    "seh_try3: lea rcx, [rip + seh_mutex]"
    "xor edx, edx"
    "call [rip + seh_KeReleaseMutex]"
    "nop"
    "seh_end3: ud2"
    "seh_except3: call seh_print"
    // A callee that has registers and a __finally of its own, from a memcpy.
    "seh_try4: call seh_callee"
    "nop"
    "seh_end4: ud2"
    "seh_except4: call seh_print"
    // A filter that mends the registers and has the instruction done again.
    "mov edi, 0x18"
    "seh_try5: mov eax, [rdi]"
    "nop"
    "seh_end5: call seh_print"
    // Probes.
    "seh_try6: mov ecx, 0x1001"
    "mov edx, 4"
    "mov r8d, 4"
    "call [rip + seh_ProbeForRead]"
    "nop"
    "seh_end6: ud2"
    "seh_except6: call seh_print"
    "seh_try7: movabs rcx, 0x7ffffffefffc"
    "mov edx, 8"
    "mov r8d, 4"
    "call [rip + seh_ProbeForRead]"
    "nop"
    "seh_end7: ud2"
    "seh_except7: call seh_print"
    "seh_try8: mov ecx, 0x2000"
    "mov edx, 8"
    "mov r8d, 4"
    "call [rip + seh_ProbeForWrite]"
    "nop"
    "seh_end8: ud2"
    "seh_except8: call seh_print"
    // Two blocks in one frame: the inner one's filter declines.
    "seh_try9:"
    "seh_try10: mov ecx, 0xc0000001"
    "call [rip + seh_ExRaiseStatus]"
    "nop"
    "seh_end10:"
    "nop"
    "seh_end9: ud2"
    "seh_except10: ud2"
    "seh_except9: call seh_print"
    "xor eax, eax"
    "add rsp, 0x38"
    "pop rdi"
    "pop rbx"
    "ret"
    "seh_entry_end:"
    // Prints eax, rbx and xmm6.
    "seh_print:"
    "sub rsp, 0x28"
    "seh_print_body:"
    "lea rcx, [rip + seh_format]"
    "mov edx, eax"
    "mov r8d, ebx"
    "movd r9d, xmm6"
    "call [rip + seh_DbgPrint]"
    "add rsp, 0x28"
    "ret"
    "seh_print_end:"
    "seh_callee:"
    "push rbp"
    "push rbx"
    "sub rsp, 0x48"
    "movaps [rsp + 0x30], xmm6"
    "lea rbp, [rsp + 0x20]"
    "seh_callee_body:"
    "xor ebx, ebx"
    "xorps xmm6, xmm6"
    "sub rsp, 0x20"
    "seh_callee_try: lea rcx, [rip + seh_mutex]"
    "mov edx, 0x40"
    "mov r8d, 8"
    "call [rip + seh_memcpy]"
    "nop"
    "seh_callee_try_end: ud2"
    "seh_callee_end:"
    // The __finally: whether the block was left by an exception, and whose frame it was.
    "seh_finally:"
    "push rbx"
    "sub rsp, 0x20"
    "seh_finally_body:"
    "movzx r8d, cl"
    "lea rcx, [rip + seh_finally_format]"
    "mov edx, [rdx + 0x20]"
    "mov edx, r8d"
    "call [rip + seh_DbgPrint]"
    "add rsp, 0x20"
    "pop rbx"
    "ret"
    "seh_finally_end:"
    // Takes one status.
    "seh_filter2:"
    "mov rax, [rcx]"
    "xor edx, edx"
    "cmp dword ptr [rax], 0xc0000123"
    "sete dl"
    "mov eax, edx"
    "ret"
    "seh_filter_end2:"
    // Mends rdi, and continues.
    "seh_filter5:"
    "mov rax, [rcx + 8]"
    "lea rdx, [rip + seh_mended]"
    "mov [rax + 0xb0], rdx"
    "mov eax, -1"
    "ret"
    "seh_handler: jmp [rip + seh___C_specific_handler]"
    "seh_unload: ret"
    ".p2align 12"
    "image_seh_data:"
    "seh_DbgPrint: .quad 0"
    "seh_ExRaiseStatus: .quad 0"
    "seh_KeInitializeMutex: .quad 0"
    "seh_KeReleaseMutex: .quad 0"
    "seh_memcpy: .quad 0"
    "seh_ProbeForRead: .quad 0"
    "seh_ProbeForWrite: .quad 0"
    "seh_RtlRunOnceExecuteOnce: .quad 0"
    "seh___C_specific_handler: .quad 0, 0"
    "seh_mutex: .zero 56"
    "seh_mended: .long 0x77"
    "seh_format: .asciz \"%x %x %x\\n\""
    "seh_finally_format: .asciz \"finally %d\\n\""
    ".p2align 8"
    "seh_functions:"
    ".long seh_entry - image_seh + 0x1000, seh_entry_end - image_seh + 0x1000, seh_entry_unwind - image_seh + 0x1000"
    ".long seh_print - image_seh + 0x1000, seh_print_end - image_seh + 0x1000, seh_print_unwind - image_seh + 0x1000"
    ".long seh_callee - image_seh + 0x1000, seh_callee_end - image_seh + 0x1000, seh_callee_unwind - image_seh + 0x1000"
    ".long seh_finally - image_seh + 0x1000, seh_finally_end - image_seh + 0x1000, seh_finally_unwind - image_seh + 0x1000"
    "seh_entry_unwind:"
    // Version 1 with both kinds of handler; the stack of 0x38, rdi, rbx.
    ".byte 0x19, seh_body - seh_entry, 3, 0"
    ".byte 6, 0x62, 2, 0x70, 1, 0x30, 0, 0"
    ".long seh_handler - image_seh + 0x1000"
    ".long 10"
    ".long seh_try1 - image_seh + 0x1000, seh_end1 - image_seh + 0x1000, 1, seh_except1 - image_seh + 0x1000"
    ".long seh_try2 - image_seh + 0x1000, seh_end2 - image_seh + 0x1000"
    ".long seh_filter2 - image_seh + 0x1000, seh_except2 - image_seh + 0x1000"
    ".long seh_try3 - image_seh + 0x1000, seh_end3 - image_seh + 0x1000, 1, seh_except3 - image_seh + 0x1000"
    ".long seh_try4 - image_seh + 0x1000, seh_end4 - image_seh + 0x1000, 1, seh_except4 - image_seh + 0x1000"
    ".long seh_try5 - image_seh + 0x1000, seh_end5 - image_seh + 0x1000"
    ".long seh_filter5 - image_seh + 0x1000, seh_except1 - image_seh + 0x1000"
    ".long seh_try6 - image_seh + 0x1000, seh_end6 - image_seh + 0x1000, 1, seh_except6 - image_seh + 0x1000"
    ".long seh_try7 - image_seh + 0x1000, seh_end7 - image_seh + 0x1000, 1, seh_except7 - image_seh + 0x1000"
    ".long seh_try8 - image_seh + 0x1000, seh_end8 - image_seh + 0x1000, 1, seh_except8 - image_seh + 0x1000"
    ".long seh_try10 - image_seh + 0x1000, seh_end10 - image_seh + 0x1000"
    ".long seh_filter2 - image_seh + 0x1000, seh_except10 - image_seh + 0x1000"
    ".long seh_try9 - image_seh + 0x1000, seh_end9 - image_seh + 0x1000, 1, seh_except9 - image_seh + 0x1000"
    "seh_print_unwind:"
    ".byte 0x01, seh_print_body - seh_print, 1, 0"
    ".byte 4, 0x42, 0, 0"
    "seh_callee_unwind:"
    // The frame pointer is 0x20 above the stack pointer; xmm6 at 0x30 of the frame; the stack of 0x48; rbx; rbp.
    ".byte 0x11, seh_callee_body - seh_callee, 6, 0x25"
    ".byte seh_callee_body - seh_callee, 0x03"
    ".byte seh_callee_body - seh_callee - 5, 0x68, 3, 0"
    ".byte 6, 0x82, 2, 0x30, 1, 0x50"
    ".long seh_handler - image_seh + 0x1000"
    ".long 1"
    ".long seh_callee_try - image_seh + 0x1000, seh_callee_try_end - image_seh + 0x1000, seh_finally - image_seh + 0x1000, 0"
    "seh_finally_unwind:"
    ".byte 0x01, seh_finally_body - seh_finally, 2, 0"
    ".byte 5, 0x32, 1, 0x30"
}

/// Where a label of the data stands: the function table is aligned to 256 behind what is before it.
fn seh() -> Pe {
    let mut pe = Pe::new(seh::text(), seh::data(), &ROUTINES);
    let first = 0x1000_u32.to_le_bytes();
    let at = seh::data().chunks(256).position(|chunk| chunk.starts_with(&first)).expect("the table begins with the entry");
    pe.functions = (0x1000 + seh::text().len() as u32 + at as u32 * 256, 48);
    pe
}

#[test]
fn exceptions_reach_the_blocks_that_handle_them() {
    let outcome = run(&Machine::new(), &seh()).expect_clean();
    let expected = [
        "c0000005 b b",
        "c0000123 b b",
        "c0000046 b b",
        "finally 1",
        "c0000005 b b",
        "77 b b",
        "80000002 b b",
        "c0000005 b b",
        "c0000005 b b",
        "c0000001 b b",
    ];
    assert_eq!(outcome.debug_output(), expected);
}

#[test]
fn handled_exceptions_are_the_same_under_every_seed() {
    let pe = seh();
    let first = run(&Machine::new().processors(2).seed(1), &pe).expect_clean();
    let again = run(&Machine::new().processors(2).seed(1), &pe).expect_clean();
    assert_eq!(first.trace(), again.trace());
}

/// The image whose unwind information for the entry was changed.
fn damaged(change: impl Fn(&mut [u8])) -> Pe {
    let mut pe = seh();
    let table = (pe.functions.0 - 0x1000) as usize - pe.sections[0].bytes.len();
    let data = &mut pe.sections[1].bytes;
    change(&mut data[table + 48..]);
    pe
}

#[test]
fn damaged_unwind_information_is_a_bug_check() {
    for (what, pe) in [
        ("its version", damaged(|information| information[0] = 0x1f)),
        ("its codes", damaged(|information| information[4..10].fill(0xff))),
        ("its handler", damaged(|information| information[12..16].fill(0xee))),
        ("the number of its codes", damaged(|information| information[2] = 0xff)),
    ] {
        let outcome = run(&Machine::new(), &pe);
        assert!(outcome.bug_check().is_some(), "{what}: {}", outcome.end());
    }
}

#[test]
fn an_exception_that_no_filter_takes_is_bug_check_7e() {
    // No block has a range.
    let pe = damaged(|information| information[16..20].fill(0));
    let outcome = run(&Machine::new(), &pe);
    let check = outcome.bug_check().expect("a bug check");
    assert_eq!((check.code, check.parameters[0]), (bug_check::SYSTEM_THREAD_EXCEPTION_NOT_HANDLED, 0xc000_0005));
    assert_eq!(check.call_sites.len(), 1, "{check}");
}

code! { between:
    // A __try around a call of the kernel, which calls back. The callback has a register to restore, and a __finally.
    "between_entry:"
    "push rbx"
    "sub rsp, 0x30"
    "between_body:"
    "lea rax, [rip + between_unload]"
    "mov [rcx + 0x68], rax"
    "mov ebx, 0x5eed"
    "movd xmm6, ebx"
    "movd xmm15, ebx"
    "between_try: lea rcx, [rip + between_once]"
    "lea rdx, [rip + between_callback]"
    "xor r8d, r8d"
    "xor r9d, r9d"
    "call [rip + between_RtlRunOnceExecuteOnce]"
    "nop"
    "between_try_end: ud2"
    "between_except:"
    "mov edx, eax"
    "mov r8d, ebx"
    "movd r9d, xmm6"
    "movd eax, xmm15"
    "mov [rsp + 0x20], rax"
    "lea rcx, [rip + between_format]"
    "call [rip + between_DbgPrint]"
    "xor eax, eax"
    "add rsp, 0x30"
    "pop rbx"
    "between_unload: ret"
    "between_entry_end:"
    "between_callback:"
    "push rbx"
    "sub rsp, 0x20"
    "between_callback_body:"
    "xor ebx, ebx"
    "movd xmm6, ebx"
    "movd xmm15, ebx"
    "between_inner_try: mov eax, [0x18]"
    "nop"
    "between_inner_end: int3"
    "between_callback_end:"
    "between_finally:"
    "sub rsp, 0x28"
    "between_finally_body:"
    "lea rcx, [rip + between_left]"
    "call [rip + between_DbgPrint]"
    "add rsp, 0x28"
    "ret"
    "between_finally_end:"
    "between_handler: jmp [rip + between___C_specific_handler]"
    ".p2align 12"
    "image_between_data:"
    "between_RtlRunOnceExecuteOnce: .quad 0"
    "between___C_specific_handler: .quad 0"
    "between_DbgPrint: .quad 0, 0"
    "between_functions:"
    ".long between_entry - image_between + 0x1000, between_entry_end - image_between + 0x1000"
    ".long between_unwind - image_between + 0x1000"
    ".long between_callback - image_between + 0x1000, between_callback_end - image_between + 0x1000"
    ".long between_callback_unwind - image_between + 0x1000"
    ".long between_finally - image_between + 0x1000, between_finally_end - image_between + 0x1000"
    ".long between_finally_unwind - image_between + 0x1000"
    ".p2align 2"
    "between_unwind:"
    ".byte 0x09, between_body - between_entry, 2, 0"
    ".byte between_body - between_entry, 0x52, 1, 0x30"
    ".long between_handler - image_between + 0x1000"
    ".long 1"
    ".long between_try - image_between + 0x1000, between_try_end - image_between + 0x1000, 1, between_except - image_between + 0x1000"
    "between_callback_unwind:"
    ".byte 0x11, between_callback_body - between_callback, 2, 0"
    ".byte between_callback_body - between_callback, 0x32, 1, 0x30"
    ".long between_handler - image_between + 0x1000"
    ".long 1"
    ".long between_inner_try - image_between + 0x1000, between_inner_end - image_between + 0x1000"
    ".long between_finally - image_between + 0x1000, 0"
    "between_finally_unwind:"
    ".byte 1, between_finally_body - between_finally, 1, 0"
    ".byte between_finally_body - between_finally, 0x42, 0, 0"
    ".p2align 3"
    "between_once: .quad 0"
    "between_format: .asciz \"%x %x %x %x\\n\""
    "between_left: .asciz \"left\\n\""
}

/// The image, with another routine that calls back.
fn between(routine: &'static str) -> Pe {
    let mut pe = Pe::new(between::text(), between::data(), &[routine, "__C_specific_handler", "DbgPrint"]);
    pe.functions = (0x1000 + between::text().len() as u32 + 32, 36);
    pe
}

#[test]
fn an_exception_passes_routines_without_handlers() {
    for seed in 0..20 {
        let outcome = run(&Machine::new().processors(2).seed(seed), &between("RtlRunOnceExecuteOnce")).expect_clean();
        // The kernel saves what its callers expect back, so that what the callback did to it is undone.
        assert_eq!(outcome.debug_output(), ["left", "c0000005 5eed 5eed 5eed"]);
    }
}

#[test]
fn an_exception_passes_a_call_on_a_larger_stack() {
    let mut pe = between("KeExpandKernelStackAndCallout");
    // The routine is the first argument there: lea rcx and lea rdx change places, and their displacements stay right.
    let text = &mut pe.sections[0].bytes;
    let at = text.windows(10).position(|window| window[..3] == [0x48, 0x8d, 0x0d] && window[7..] == [0x48, 0x8d, 0x15]);
    let at = at.expect("the first two arguments");
    text[at + 2] = 0x15;
    text[at + 9] = 0x0d;
    let outcome = run(&Machine::new(), &pe).expect_clean();
    assert_eq!(outcome.debug_output(), ["left", "c0000005 5eed 5eed 5eed"]);
}

#[test]
fn an_exception_that_nobody_beyond_takes_is_bug_check_7e() {
    let mut pe = between("RtlRunOnceExecuteOnce");
    // No block of the entry has a range: its scope follows a count of 1, and has a filter of 1.
    let data = &mut pe.sections[1].bytes;
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("4 bytes"));
    let at = data.windows(20).step_by(4).position(|window| word(&window[..4]) == 1 && word(&window[12..16]) == 1);
    let begin = at.expect("the scope") * 4 + 4;
    data[begin + 4..begin + 8].fill(0);
    let outcome = run(&Machine::new(), &pe);
    let check = outcome.bug_check().expect("a bug check");
    assert_eq!((check.code, check.parameters[0]), (bug_check::SYSTEM_THREAD_EXCEPTION_NOT_HANDLED, 0xc000_0005), "{check}");
    // Nothing was unwound: who looks at it sees all.
    assert!(outcome.debug_output().is_empty());
}
