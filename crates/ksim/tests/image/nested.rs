//! Exceptions in filters and termination handlers.

use super::pe::{Pe, code};
use super::run;
use ksim::{Machine, bug_check};

code! { nested:
    "nested_entry:"
    "push rbx"
    "sub rsp, 0x20"
    "nested_body:"
    "lea rax, [rip + nested_unload]"
    "mov [rcx + 0x68], rax"
    "mov ebx, 0xb"
    // The filter has a callee that handles an exception of its own.
    "nested_try1: mov ecx, 0xc0000001"
    "call [rip + nested_ExRaiseStatus]"
    "nop"
    "nested_end1: ud2"
    "nested_except1: mov ecx, eax"
    "call nested_print"
    // The filter raises what it takes when it is asked again.
    "nested_try2: mov ecx, 0xc0000002"
    "call [rip + nested_ExRaiseStatus]"
    "nop"
    "nested_end2: ud2"
    "nested_except2: mov ecx, eax"
    "call nested_print"
    // A callee with two termination handlers, the inner of which raises.
    "nested_try3: call nested_callee"
    "nop"
    "nested_end3: ud2"
    "nested_except3: mov ecx, eax"
    "call nested_print"
    // The same within one function.
    "nested_try4:"
    "nested_try5: mov ecx, 0xc0000005"
    "call [rip + nested_ExRaiseStatus]"
    "nop"
    "nested_end5:"
    "nop"
    "nested_end4: ud2"
    "nested_except4: mov ecx, eax"
    "call nested_print"
    "mov ecx, ebx"
    "call nested_print"
    "xor eax, eax"
    "add rsp, 0x20"
    "pop rbx"
    "nested_unload: ret"
    "nested_entry_end:"
    "nested_print:"
    "sub rsp, 0x28"
    "nested_print_body:"
    "mov edx, ecx"
    "lea rcx, [rip + nested_format]"
    "call [rip + nested_DbgPrint]"
    "add rsp, 0x28"
    "ret"
    "nested_print_end:"
    "nested_callee:"
    "push rbx"
    "sub rsp, 0x20"
    "nested_callee_body:"
    "xor ebx, ebx"
    "nested_try6:"
    "nested_try7: mov ecx, 0xc0000003"
    "call [rip + nested_ExRaiseStatus]"
    "nop"
    "nested_end7:"
    "nop"
    "nested_end6: ud2"
    "nested_callee_end:"
    // Handles what it raises itself, and prints it.
    "nested_filter1:"
    "push rbx"
    "sub rsp, 0x20"
    "nested_filter1_body:"
    "xor ebx, ebx"
    "nested_try8: mov eax, [rbx + 0x18]"
    "nop"
    "nested_end8: ud2"
    "nested_except8: mov ecx, eax"
    "call nested_print"
    "mov eax, 1"
    "add rsp, 0x20"
    "pop rbx"
    "ret"
    "nested_filter1_end:"
    // Prints the flags, and raises another status than the one it takes.
    "nested_filter2:"
    "push rbx"
    "sub rsp, 0x20"
    "nested_filter2_body:"
    "mov rbx, [rcx]"
    "mov ecx, [rbx + 4]"
    "call nested_print"
    "mov eax, 1"
    "cmp dword ptr [rbx], 0xc0000022"
    "je nested_takes"
    "nested_try9: mov ecx, 0xc0000022"
    "call [rip + nested_ExRaiseStatus]"
    "nop"
    "nested_end9: ud2"
    "nested_takes:"
    "add rsp, 0x20"
    "pop rbx"
    "ret"
    "nested_filter2_end:"
    // A termination handler that raises.
    "nested_finally1:"
    "sub rsp, 0x28"
    "nested_finally1_body:"
    "mov ecx, 1"
    "call nested_print"
    "mov ecx, 0xc0000033"
    "call [rip + nested_ExRaiseStatus]"
    "nop"
    "nested_finally1_end:"
    // One that does not.
    "nested_finally2:"
    "sub rsp, 0x28"
    "nested_finally2_body:"
    "mov ecx, 2"
    "call nested_print"
    "add rsp, 0x28"
    "ret"
    "nested_finally2_end:"
    "nested_handler: jmp [rip + nested___C_specific_handler]"
    ".p2align 12"
    "image_nested_data:"
    "nested_DbgPrint: .quad 0"
    "nested_ExRaiseStatus: .quad 0"
    "nested___C_specific_handler: .quad 0, 0"
    "nested_functions:"
    ".irp f, entry, print, callee, filter1, filter2, finally1, finally2"
    ".long nested_\\f - image_nested + 0x1000, nested_\\f\\()_end - image_nested + 0x1000"
    ".long nested_\\f\\()_unwind - image_nested + 0x1000"
    ".endr"
    ".macro nested_scope n, filter, except"
    ".long nested_try\\n - image_nested + 0x1000, nested_end\\n - image_nested + 0x1000, \\filter, \\except"
    ".endm"
    "nested_entry_unwind:"
    ".byte 0x19, nested_body - nested_entry, 2, 0, nested_body - nested_entry, 0x32, 1, 0x30"
    ".long nested_handler - image_nested + 0x1000"
    ".long 5"
    "nested_scope 1, nested_filter1 - image_nested + 0x1000, nested_except1 - image_nested + 0x1000"
    "nested_scope 2, nested_filter2 - image_nested + 0x1000, nested_except2 - image_nested + 0x1000"
    "nested_scope 3, 1, nested_except3 - image_nested + 0x1000"
    "nested_scope 5, nested_finally1 - image_nested + 0x1000, 0"
    "nested_scope 4, 1, nested_except4 - image_nested + 0x1000"
    "nested_print_unwind:"
    ".byte 1, nested_print_body - nested_print, 1, 0, nested_print_body - nested_print, 0x42, 0, 0"
    "nested_callee_unwind:"
    ".byte 0x19, nested_callee_body - nested_callee, 2, 0, nested_callee_body - nested_callee, 0x32, 1, 0x30"
    ".long nested_handler - image_nested + 0x1000"
    ".long 2"
    "nested_scope 7, nested_finally1 - image_nested + 0x1000, 0"
    "nested_scope 6, nested_finally2 - image_nested + 0x1000, 0"
    "nested_filter1_unwind:"
    ".byte 0x19, nested_filter1_body - nested_filter1, 2, 0, nested_filter1_body - nested_filter1, 0x32, 1, 0x30"
    ".long nested_handler - image_nested + 0x1000"
    ".long 1"
    "nested_scope 8, 1, nested_except8 - image_nested + 0x1000"
    "nested_filter2_unwind:"
    ".byte 0x19, nested_filter2_body - nested_filter2, 2, 0, nested_filter2_body - nested_filter2, 0x32, 1, 0x30"
    ".long nested_handler - image_nested + 0x1000"
    ".long 1"
    "nested_scope 9, nested_finally2 - image_nested + 0x1000, 0"
    "nested_finally1_unwind:"
    ".byte 1, nested_finally1_body - nested_finally1, 1, 0, nested_finally1_body - nested_finally1, 0x42, 0, 0"
    "nested_finally2_unwind:"
    ".byte 1, nested_finally2_body - nested_finally2, 1, 0, nested_finally2_body - nested_finally2, 0x42, 0, 0"
    "nested_format: .asciz \"%x\\n\""
}

const ROUTINES: [&str; 3] = ["DbgPrint", "ExRaiseStatus", "__C_specific_handler"];

fn nested() -> Pe {
    let mut pe = Pe::new(nested::text(), nested::data(), &ROUTINES);
    pe.functions = (0x1000 + nested::text().len() as u32 + 32, 7 * 12);
    pe
}

#[test]
fn exceptions_in_filters_and_termination_handlers_are_nested() {
    for seed in 0..5 {
        let outcome = run(&Machine::new().processors(2).seed(seed), &nested()).expect_clean();
        let expected = [
            // The filter's callee, and then the block.
            "c0000005", "c0000001",
            // The filter sees the first exception, which cannot be continued, then its own within the first. It takes that, and its frame is left.
            "1", "11", "2", "c0000022", // The inner handler runs once. What it raises runs the outer one.
            "1", "2", "c0000033", // It is in the frame that the unwinding goes to.
            "1", "c0000033", // The registers are those of the frame.
            "b",
        ];
        assert_eq!(outcome.debug_output(), expected);
    }
}

#[test]
fn a_filter_that_raises_again_and_again_uses_the_stack_up() {
    let mut pe = nested();
    let text = &mut pe.sections[0].bytes;
    let status = 0xc000_0022_u32.to_le_bytes();
    let taken = text.windows(6).position(|window| window[..2] == [0x81, 0x3b] && window[2..] == status);
    text[taken.expect("the comparison") + 2] = 0x23;
    for _ in 0..2 {
        let outcome = run(&Machine::new(), &pe);
        let check = outcome.bug_check().expect("a bug check");
        assert_eq!((check.code, check.parameters[0]), (bug_check::UNEXPECTED_KERNEL_MODE_TRAP, 8), "{check}");
        // The kernel that it calls is not what finds the end: it might be allocating.
        assert!(check.meaning.contains("ran out of kernel stack: it called "), "{check}");
    }
}
