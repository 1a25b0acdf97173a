//! `setjmp` and `longjmp`.

use super::pe::{Pe, code};
use super::run;
use ksim::Machine;

code! { jump:
    // setjmp in a frame with registers; a callee that changes them, and has a __finally, jumps back.
    "jump_entry:"
    "push rbx"
    "push rdi"
    "sub rsp, 0x38"
    "jump_body:"
    "lea rax, [rip + jump_unload]"
    "mov [rcx + 0x68], rax"
    "mov ebx, 0xb"
    "mov edi, 0xd"
    "movd xmm6, ebx"
    "lea rcx, [rip + jump_buffer]"
    "lea rdx, [rsp]"
    "call [rip + jump__setjmp]"
    "mov [rsp + 0x30], eax"
    "lea rcx, [rip + jump_format]"
    "mov edx, eax"
    "mov r8d, ebx"
    "mov r9d, edi"
    "movd eax, xmm6"
    "mov [rsp + 0x20], rax"
    "call [rip + jump_DbgPrint]"
    "cmp dword ptr [rsp + 0x30], 2"
    "jae jump_done"
    "mov ecx, [rsp + 0x30]"
    "inc ecx"
    "call jump_callee"
    "jump_done:"
    "xor eax, eax"
    "add rsp, 0x38"
    "pop rdi"
    "pop rbx"
    "ret"
    "jump_callee:"
    "push rbx"
    "sub rsp, 0x20"
    "jump_callee_body:"
    "jump_try: mov edx, ecx"
    "lea rcx, [rip + jump_buffer]"
    "xor ebx, ebx"
    "xor edi, edi"
    "xorps xmm6, xmm6"
    "call [rip + jump_longjmp]"
    "nop"
    "jump_end: int3"
    "jump_callee_end:"
    "jump_finally:"
    "sub rsp, 0x28"
    "jump_finally_body:"
    "lea rcx, [rip + jump_left]"
    "call [rip + jump_DbgPrint]"
    "add rsp, 0x28"
    "ret"
    "jump_finally_end:"
    "jump_handler: jmp [rip + jump___C_specific_handler]"
    "jump_unload: ret"
    ".p2align 12"
    "image_jump_data:"
    "jump_DbgPrint: .quad 0"
    "jump__setjmp: .quad 0"
    "jump_longjmp: .quad 0"
    "jump___C_specific_handler: .quad 0, 0"
    "jump_functions:"
    ".long jump_entry - image_jump + 0x1000, jump_callee - image_jump + 0x1000, jump_unwind1 - image_jump + 0x1000"
    ".long jump_callee - image_jump + 0x1000, jump_callee_end - image_jump + 0x1000, jump_unwind2 - image_jump + 0x1000"
    ".long jump_finally - image_jump + 0x1000, jump_finally_end - image_jump + 0x1000, jump_unwind3 - image_jump + 0x1000"
    ".p2align 2"
    "jump_unwind1: .byte 1, jump_body - jump_entry, 3, 0"
    ".byte jump_body - jump_entry, 0x62, 2, 0x70, 1, 0x30, 0, 0"
    "jump_unwind2: .byte 0x11, jump_callee_body - jump_callee, 2, 0"
    ".byte jump_callee_body - jump_callee, 0x32, 1, 0x30"
    ".long jump_handler - image_jump + 0x1000"
    ".long 1, jump_try - image_jump + 0x1000, jump_end - image_jump + 0x1000, jump_finally - image_jump + 0x1000, 0"
    "jump_unwind3: .byte 1, jump_finally_body - jump_finally, 1, 0"
    ".byte jump_finally_body - jump_finally, 0x42, 0, 0"
    ".p2align 4"
    "jump_buffer: .zero 256"
    "jump_format: .asciz \"%d %x %x %x\\n\""
    "jump_left: .asciz \"left\\n\""
}

fn jump() -> Pe {
    let mut pe = Pe::new(jump::text(), jump::data(), &["DbgPrint", "_setjmp", "longjmp", "__C_specific_handler"]);
    pe.functions = (0x1000 + jump::text().len() as u32 + 40, 36);
    pe
}

#[test]
fn a_jump_restores_the_registers_and_runs_termination_handlers() {
    let outcome = run(&Machine::new(), &jump()).expect_clean();
    assert_eq!(outcome.debug_output(), ["0 b d b", "left", "1 b d b", "left", "2 b d b"]);
}

#[test]
fn a_buffer_without_a_frame_runs_none() {
    let mut pe = jump();
    // lea rdx, [rsp] becomes xor edx, edx.
    let text = &mut pe.sections[0].bytes;
    let at = text.windows(4).position(|window| window == [0x48, 0x8d, 0x14, 0x24]).expect("the frame is passed");
    text[at..at + 4].copy_from_slice(&[0x31, 0xd2, 0x90, 0x90]);
    let outcome = run(&Machine::new(), &pe).expect_clean();
    assert_eq!(outcome.debug_output(), ["0 b d b", "1 b d b", "2 b d b"]);
}
