//! Pageable sections that are taken away at raised levels.

use super::pe::{Pe, Section, code};
use super::run;
use ksim::{Machine, bug_check};

const PAGEABLE_DATA: u32 = 0xc000_0040;
const PAGEABLE_CODE: u32 = 0x6000_0020;

code! { trim:
    // Reads its pageable section at DISPATCH_LEVEL.
    "sub rsp, 0x28"
    "lea rax, [rip + trim_unload]"
    "mov [rcx + 0x68], rax"
    "mov cl, 2"
    "call [rip + trim_KfRaiseIrql]"
    "mov eax, [rip + image_trim + 0x2000]"
    "xor ecx, ecx"
    "call [rip + trim_KeLowerIrql]"
    "xor eax, eax"
    "add rsp, 0x28"
    "trim_unload: ret"
    ".p2align 12"
    "image_trim_data:"
    "trim_KfRaiseIrql: .quad 0"
    "trim_KeLowerIrql: .quad 0, 0"
}

code! { locked:
    // Reads it there while it has it locked, and at PASSIVE_LEVEL when it was taken away in between.
    "push rbx"
    "sub rsp, 0x20"
    "lea rax, [rip + locked_unload]"
    "mov [rcx + 0x68], rax"
    "lea rcx, [rip + image_locked + 0x2008]"
    "call [rip + locked_MmLockPagableDataSection]"
    "mov rbx, rax"
    "mov cl, 2"
    "call [rip + locked_KfRaiseIrql]"
    "mov eax, [rip + image_locked + 0x2000]"
    "xor ecx, ecx"
    "call [rip + locked_KeLowerIrql]"
    "mov rcx, rbx"
    "call [rip + locked_MmUnlockPagableImageSection]"
    "mov cl, 2"
    "call [rip + locked_KfRaiseIrql]"
    "xor ecx, ecx"
    "call [rip + locked_KeLowerIrql]"
    "mov eax, [rip + image_locked + 0x2000]"
    "xor eax, eax"
    "add rsp, 0x20"
    "pop rbx"
    "locked_unload: ret"
    ".p2align 12"
    "image_locked_data:"
    "locked_KfRaiseIrql: .quad 0"
    "locked_KeLowerIrql: .quad 0"
    "locked_MmLockPagableDataSection: .quad 0"
    "locked_MmUnlockPagableImageSection: .quad 0, 0"
}

code! { quiet:
    // Calls its pageable code at DISPATCH_LEVEL, which calls nothing.
    "sub rsp, 0x28"
    "lea rax, [rip + quiet_unload]"
    "mov [rcx + 0x68], rax"
    "mov cl, 2"
    "call [rip + quiet_KfRaiseIrql]"
    "call image_quiet + 0x2000"
    "xor ecx, ecx"
    "call [rip + quiet_KeLowerIrql]"
    "xor eax, eax"
    "add rsp, 0x28"
    "quiet_unload: ret"
    ".p2align 12"
    "image_quiet_data:"
    "quiet_KfRaiseIrql: .quad 0"
    "quiet_KeLowerIrql: .quad 0, 0"
}

/// An image with one more section behind its code and its data.
fn with_section(mut pe: Pe, name: &'static str, bytes: &[u8], flags: u32) -> Pe {
    pe.sections.push(Section { name, bytes: bytes.to_vec(), flags });
    pe
}

fn trim() -> Pe {
    with_section(Pe::new(trim::text(), trim::data(), &["KfRaiseIrql", "KeLowerIrql"]), "PAGEDATA", &[7; 16], PAGEABLE_DATA)
}

#[test]
fn pageable_data_is_taken_away_where_that_is_asked_for() {
    run(&Machine::new(), &trim()).expect_clean();
    let outcome = run(&Machine::new().force_irql_checking(true), &trim());
    let check = outcome.bug_check().expect("a bug check");
    assert_eq!((check.code, check.parameters[1]), (bug_check::DRIVER_IRQL_NOT_LESS_OR_EQUAL, 2), "{check}");
    assert!(check.meaning.contains("read pageable") && check.meaning.contains("section PAGEDATA"), "{check}");
    assert_eq!(check.call_sites.len(), 1, "{check}");
}

#[test]
fn pageable_code_that_calls_nothing_is_seen_too() {
    let pe = with_section(Pe::new(quiet::text(), quiet::data(), &["KfRaiseIrql", "KeLowerIrql"]), "PAGE", &[0xc3], PAGEABLE_CODE);
    run(&Machine::new(), &pe).expect_clean();
    let outcome = run(&Machine::new().force_irql_checking(true), &pe);
    let check = outcome.bug_check().expect("a bug check");
    assert_eq!((check.code, check.parameters[2]), (bug_check::DRIVER_IRQL_NOT_LESS_OR_EQUAL, 8), "{check}");
    assert!(check.meaning.contains("jumped to pageable"), "{check}");
}

fn locked() -> Pe {
    let names = ["KfRaiseIrql", "KeLowerIrql", "MmLockPagableDataSection", "MmUnlockPagableImageSection"];
    with_section(Pe::new(locked::text(), locked::data(), &names), "PAGEDATA", &[7; 16], PAGEABLE_DATA)
}

#[test]
fn a_locked_section_stays_and_an_unlocked_one_comes_back() {
    run(&Machine::new().force_irql_checking(true), &locked()).expect_clean();
}

#[test]
fn what_is_not_locked_cannot_be_unlocked() {
    let mut pe = locked();
    // The first call's import becomes that of the second.
    pe.imports[0].1[2] = "MmUnlockPagableImageSection";
    let outcome = run(&Machine::new(), &pe);
    let check = outcome.bug_check().expect("a bug check");
    assert!(check.meaning.contains("wanted to unlock"), "{check}");
}

code! { read_paged:
    // Has a string in its pageable section copied at DISPATCH_LEVEL, by a routine that reads it.
    "sub rsp, 0x28"
    "mov cl, 2"
    "call [rip + read_paged_KfRaiseIrql]"
    "lea rcx, [rip + image_read_paged + 0x2000]"
    "call [rip + read_paged_strlen]"
    "xor eax, eax"
    "add rsp, 0x28"
    "ret"
    ".p2align 12"
    "image_read_paged_data:"
    "read_paged_KfRaiseIrql: .quad 0"
    "read_paged_strlen: .quad 0, 0"
}

#[test]
fn a_routine_that_reads_what_is_paged_out_is_named() {
    let pe = Pe::new(read_paged::text(), read_paged::data(), &["KfRaiseIrql", "strlen"]);
    let pe = with_section(pe, "PAGEDATA", &[0; 16], PAGEABLE_DATA);
    let outcome = run(&Machine::new().force_irql_checking(true), &pe);
    let check = outcome.bug_check().expect("a bug check");
    assert_eq!(check.code, bug_check::IRQL_NOT_LESS_OR_EQUAL);
    assert!(check.meaning.contains("strlen") && check.meaning.contains("pageable section PAGEDATA"), "{check}");
}

code! { pool:
    // Writes paged pool, raises the level, and touches it if it is to; lowers it again, and touches it.
    "push rbx"
    "sub rsp, 0x20"
    "lea rax, [rip + pool_unload]"
    "mov [rcx + 0x68], rax"
    "mov ecx, 1"
    "mov edx, 100"
    "mov r8d, 0x74736574"
    "call [rip + pool_ExAllocatePoolWithTag]"
    "mov rbx, rax"
    "mov dword ptr [rbx + 8], 0"
    "mov cl, 2"
    "call [rip + pool_KfRaiseIrql]"
    "mov rcx, rbx"
    "pool_touch: nop"
    "nop"
    "nop"
    "nop"
    "nop"
    "nop"
    "xor ecx, ecx"
    "call [rip + pool_KeLowerIrql]"
    "mov eax, [rbx + 8]"
    "mov rcx, rbx"
    "call [rip + pool_ExFreePool]"
    "xor eax, eax"
    "add rsp, 0x20"
    "pop rbx"
    "pool_unload: ret"
    "pool_read: mov eax, [rbx + 8]"
    "nop"
    "nop"
    "nop"
    "pool_length: call [rip + pool_strlen]"
    ".p2align 12"
    "image_pool_data:"
    "pool_ExAllocatePoolWithTag: .quad 0"
    "pool_KfRaiseIrql: .quad 0"
    "pool_KeLowerIrql: .quad 0"
    "pool_ExFreePool: .quad 0"
    "pool_strlen: .quad 0, 0"
}

/// The image that does one of these at DISPATCH_LEVEL: nothing, a read, a call that reads.
fn pool(touch: usize) -> Pe {
    let mut pe =
        Pe::new(pool::text(), pool::data(), &["ExAllocatePoolWithTag", "KfRaiseIrql", "KeLowerIrql", "ExFreePool", "strlen"]);
    let text = &mut pe.sections[0].bytes;
    let place = text.windows(6).position(|window| window == [0x90; 6]).expect("six bytes");
    let code = text.windows(3).rposition(|window| window == [0x8b, 0x43, 0x08]).expect("the read") + 6 * (touch.max(1) - 1);
    let bytes = text[code..code + 6].to_vec();
    if touch != 0 {
        text[place..place + 6].copy_from_slice(&bytes);
        // The displacement is from the place that the call is now at.
        if touch == 2 {
            let displacement = i32::from_le_bytes(bytes[2..].try_into().expect("4 bytes")) + (code - place) as i32;
            text[place + 2..place + 6].copy_from_slice(&displacement.to_le_bytes());
        }
    }
    pe
}

#[test]
fn paged_pool_is_taken_away_where_that_is_asked_for() {
    let machine = Machine::new().force_irql_checking(true);
    run(&machine, &pool(0)).expect_clean();
    run(&Machine::new(), &pool(1)).expect_clean();
    let outcome = run(&machine, &pool(1));
    let check = outcome.bug_check().expect("a bug check");
    assert_eq!(
        (check.code, check.parameters[1], check.parameters[2]),
        (bug_check::DRIVER_IRQL_NOT_LESS_OR_EQUAL, 2, 0),
        "{check}"
    );
    assert!(
        check.meaning.contains("read paged pool at IRQL 2: byte 8 of a block of 100 bytes of paged pool with tag 'test'"),
        "{check}"
    );
    let outcome = run(&machine, &pool(2));
    let check = outcome.bug_check().expect("a bug check");
    assert_eq!(check.code, bug_check::IRQL_NOT_LESS_OR_EQUAL, "{check}");
    assert!(check.meaning.contains("strlen was passed") && check.meaning.contains("with tag 'test'"), "{check}");
}

code! { entire:
    // Makes all of itself pageable, and perhaps not, and raises the level.
    "sub rsp, 0x28"
    "lea rax, [rip + entire_unload]"
    "mov [rcx + 0x68], rax"
    "lea rcx, [rip + entire_unload]"
    "call [rip + entire_MmPageEntireDriver]"
    "mov rcx, rax"
    "call [rip + entire_MmResetDriverPaging]"
    "mov cl, 2"
    "call [rip + entire_KfRaiseIrql]"
    "xor ecx, ecx"
    "call [rip + entire_KeLowerIrql]"
    "xor eax, eax"
    "add rsp, 0x28"
    "entire_unload: ret"
    ".p2align 12"
    "image_entire_data:"
    "entire_MmPageEntireDriver: .quad 0"
    "entire_MmResetDriverPaging: .quad 0"
    "entire_KfRaiseIrql: .quad 0"
    "entire_KeLowerIrql: .quad 0, 0"
}

#[test]
fn an_entire_driver_may_be_pageable() {
    let mut pe =
        Pe::new(entire::text(), entire::data(), &["MmPageEntireDriver", "MmResetDriverPaging", "KfRaiseIrql", "KeLowerIrql"]);
    for machine in [Machine::new(), Machine::new().force_irql_checking(true)] {
        run(&machine, &pe).expect_clean();
    }
    pe.imports[0].1[1] = "MmPageEntireDriver";
    for machine in [Machine::new(), Machine::new().force_irql_checking(true)] {
        let outcome = run(&machine, &pe);
        let check = outcome.bug_check().expect("a bug check");
        assert_eq!(check.code, bug_check::DRIVER_IRQL_NOT_LESS_OR_EQUAL, "{check}");
        assert!(check.meaning.contains("section .text"), "{check}");
    }
}
