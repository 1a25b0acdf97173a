//! Small drivers, assembled here, so that they need no other tools than the tests themselves.

#[path = "../../../ksim/tests/image/pe.rs"]
mod pe;

use pe::{Pe, code};
use std::path::Path;

code! { hello:
    "sub rsp, 0x28"
    "lea rax, [rip + hello_unload]"
    "mov [rcx + 0x68], rax" // DriverUnload
    "lea rcx, [rip + hello_text]"
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
    "hello_text: .asciz \"hello\\n\""
    "hello_bye: .asciz \"bye\\n\""
}

// A thread pulses the event that DriverEntry waits for: a wait that begins after the pulse never ends.
code! { pulse:
    "sub rsp, 0x48"
    "lea rax, [rip + pulse_unload]"
    "mov [rcx + 0x68], rax"
    "lea rcx, [rip + pulse_event]"
    "xor edx, edx"
    "xor r8d, r8d"
    "call [rip + pulse_KeInitializeEvent]"
    "lea rcx, [rip + pulse_handle]"
    "mov edx, 0x1fffff"
    "xor r8d, r8d"
    "xor r9d, r9d"
    "mov qword ptr [rsp + 0x20], 0"
    "lea rax, [rip + pulse_thread]"
    "mov [rsp + 0x28], rax"
    "mov qword ptr [rsp + 0x30], 0"
    "call [rip + pulse_PsCreateSystemThread]"
    "lea rcx, [rip + pulse_event]"
    "xor edx, edx"
    "xor r8d, r8d"
    "xor r9d, r9d"
    "mov qword ptr [rsp + 0x20], 0"
    "call [rip + pulse_KeWaitForSingleObject]"
    // The thread itself is waited for by its handle, as long as it runs.
    "mov rcx, [rip + pulse_handle]"
    "xor edx, edx"
    "xor r8d, r8d"
    "call [rip + pulse_ZwWaitForSingleObject]"
    "mov rcx, [rip + pulse_handle]"
    "call [rip + pulse_ZwClose]"
    "xor eax, eax"
    "add rsp, 0x48"
    "ret"
    "pulse_unload:"
    "ret"
    "pulse_thread:"
    "sub rsp, 0x28"
    "lea rcx, [rip + pulse_event]"
    "xor edx, edx"
    "xor r8d, r8d"
    "call [rip + pulse_KePulseEvent]"
    "xor ecx, ecx"
    "call [rip + pulse_PsTerminateSystemThread]"
    "int3"
    ".p2align 12"
    "image_pulse_data:"
    "pulse_KeInitializeEvent: .quad 0"
    "pulse_PsCreateSystemThread: .quad 0"
    "pulse_KeWaitForSingleObject: .quad 0"
    "pulse_ZwWaitForSingleObject: .quad 0"
    "pulse_ZwClose: .quad 0"
    "pulse_KePulseEvent: .quad 0"
    "pulse_PsTerminateSystemThread: .quad 0, 0"
    "pulse_event: .quad 0, 0, 0"
    "pulse_handle: .quad 0"
}

// A region is entered at DISPATCH_LEVEL, where it must not be.
code! { level:
    "sub rsp, 0x28"
    "mov ecx, 2"
    "call [rip + level_KfRaiseIrql]"
    "call [rip + level_KeEnterCriticalRegion]"
    "int3"
    ".p2align 12"
    "image_level_data:"
    "level_KfRaiseIrql: .quad 0"
    "level_KeEnterCriticalRegion: .quad 0, 0"
}

// A routine that no kernel has, and an entry that fails before it gets there.
code! { refuse:
    "sub rsp, 0x28"
    "mov eax, 0xc00000bb" // STATUS_NOT_SUPPORTED
    "add rsp, 0x28"
    "ret"
    ".p2align 12"
    "image_refuse_data:"
    "refuse_KeDoNothingAtAll: .quad 0"
    "refuse_DbgPrint: .quad 0, 0"
}

// A device that gives the input of each control request back, every bit of it turned.
code! { turn:
    "sub rsp, 0x48"
    "lea rax, [rip + turn_unload]"
    "mov [rcx + 0x68], rax"
    "lea rax, [rip + turn_dispatch]"
    "mov [rcx + 0x70], rax" // IRP_MJ_CREATE
    "mov [rcx + 0x80], rax" // IRP_MJ_CLOSE
    "mov [rcx + 0xe0], rax" // IRP_MJ_DEVICE_CONTROL
    "mov [rcx + 0x100], rax" // IRP_MJ_CLEANUP
    "lea rax, [rip + turn_text]"
    "mov [rip + turn_name + 8], rax"
    "xor edx, edx"
    "lea r8, [rip + turn_name]"
    "mov r9d, 0x22"
    "mov qword ptr [rsp + 0x20], 0"
    "mov qword ptr [rsp + 0x28], 0"
    "lea rax, [rip + turn_device]"
    "mov [rsp + 0x30], rax"
    "call [rip + turn_IoCreateDevice]"
    "add rsp, 0x48"
    "ret"
    "turn_unload:"
    "mov rcx, [rcx + 8]"
    "jmp [rip + turn_IoDeleteDevice]"
    "turn_dispatch:"
    "sub rsp, 0x28"
    "mov rax, [rdx + 0xb8]" // The stack location.
    "xor ecx, ecx"
    "cmp byte ptr [rax], 14"
    "jne turn_done"
    "mov ecx, [rax + 0x10]" // InputBufferLength
    "mov r8, [rdx + 0x18]" // SystemBuffer
    "xor r9d, r9d"
    "turn_next:"
    "cmp r9d, ecx"
    "jae turn_done"
    "not byte ptr [r8 + r9]"
    "inc r9d"
    "jmp turn_next"
    "turn_done:"
    "mov [rdx + 0x38], rcx" // Information
    "mov dword ptr [rdx + 0x30], 0" // Status
    "mov rcx, rdx"
    "xor edx, edx"
    "call [rip + turn_IofCompleteRequest]"
    "xor eax, eax"
    "add rsp, 0x28"
    "ret"
    ".p2align 12"
    "image_turn_data:"
    "turn_IoCreateDevice: .quad 0"
    "turn_IoDeleteDevice: .quad 0"
    "turn_IofCompleteRequest: .quad 0, 0"
    "turn_device: .quad 0"
    "turn_name: .short 24, 24, 0, 0"
    ".quad 0"
    "turn_text: .short '\\\\', 'D', 'e', 'v', 'i', 'c', 'e', '\\\\', 'T', 'u', 'r', 'n'"
}

/// The drivers, by name.
fn samples() -> [(&'static str, Pe); 5] {
    [
        ("hello", Pe::new(hello::text(), hello::data(), &["DbgPrint"])),
        (
            "pulse",
            Pe::new(
                pulse::text(),
                pulse::data(),
                &[
                    "KeInitializeEvent",
                    "PsCreateSystemThread",
                    "KeWaitForSingleObject",
                    "ZwWaitForSingleObject",
                    "ZwClose",
                    "KePulseEvent",
                    "PsTerminateSystemThread",
                ],
            ),
        ),
        ("level", Pe::new(level::text(), level::data(), &["KfRaiseIrql", "KeEnterCriticalRegion"])),
        ("refuse", Pe::new(refuse::text(), refuse::data(), &["KeDoNothingAtAll", "DbgPrint"])),
        ("turn", Pe::new(turn::text(), turn::data(), &["IoCreateDevice", "IoDeleteDevice", "IofCompleteRequest"])),
    ]
}

/// Writes all drivers into a folder.
pub(crate) fn write(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    samples().iter().try_for_each(|(name, pe)| std::fs::write(folder.join(format!("{name}.sys")), pe.bytes()))
}
