//! Catches code that touches its stack's margin, and leads it to where it can be stopped.

use super::access::Touch;
use super::symbols::{self, Owner, Text};
use super::violation;
use crate::engine::context::{MARGIN_BYTES, open_margin, running_stack};
use crate::image::emergency_stack;
use crate::machine::{current, machine_of_this_thread};
use std::arch::global_asm;
use std::cell::Cell;
use std::fmt::Write;
use std::ops::Range;

/// After so many instructions the code is let go on by itself: it calls nothing, or something that takes long. What it calls next of the kernel is stopped at its entry.
const MOST_STEPS: u32 = 100_000;

/// The flag that makes the processor stop after an instruction, and those that are off where Rust code begins.
const TRAP: i64 = 0x100;
const NOT_RUST: i64 = 0x4_0500;

/// Bytes of the guard page below the margin.
const GUARD: usize = 4096;

thread_local! {
    /// How many instructions are left while code is led to where it can be stopped.
    static STEPS: Cell<Option<u32>> = const { Cell::new(None) };
}

/// The registers where the code was stopped, in the order of their numbers in debug information. Behind them the instruction.
#[repr(C, align(16))]
#[derive(Debug)]
pub(super) struct Stopped {
    pub(super) registers: [u64; 16],
    pub(super) instruction: u64,
    /// What it touched, if it does not stop for want of a stack.
    pub(super) touch: Option<Touch>,
}

pub(super) const RSP: usize = 7;

/// Linux' numbers of the registers, in that order.
pub(super) const REGISTERS: [i32; 16] = [
    libc::REG_RAX,
    libc::REG_RDX,
    libc::REG_RCX,
    libc::REG_RBX,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_RBP,
    libc::REG_RSP,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

// Where the code goes on that is stopped: on the emergency stack, with the address of its registers. What walks the stack finds them, as in the frame of a signal: the frame
// address is the stack pointer there, and each register lies at its place from rbx, which is 64 bytes into them so that the offsets are short.
global_asm!(
    ".pushsection .text.ksim_overflow, \"ax\", @progbits",
    ".globl ksim_stack_used_up",
    ".p2align 4",
    // Who looks for the caller of what is called may look one byte before this.
    "nop",
    "ksim_stack_used_up:",
    ".cfi_startproc",
    ".cfi_signal_frame",
    ".cfi_escape 0x0f, 3, 0x73, 0x78, 0x06",
    ".cfi_escape 0x10, 0, 2, 0x73, 0x40",
    ".cfi_escape 0x10, 1, 2, 0x73, 0x48",
    ".cfi_escape 0x10, 2, 2, 0x73, 0x50",
    ".cfi_escape 0x10, 3, 2, 0x73, 0x58",
    ".cfi_escape 0x10, 4, 2, 0x73, 0x60",
    ".cfi_escape 0x10, 5, 2, 0x73, 0x68",
    ".cfi_escape 0x10, 6, 2, 0x73, 0x70",
    ".cfi_escape 0x10, 8, 2, 0x73, 0x00",
    ".cfi_escape 0x10, 9, 2, 0x73, 0x08",
    ".cfi_escape 0x10, 10, 2, 0x73, 0x10",
    ".cfi_escape 0x10, 11, 2, 0x73, 0x18",
    ".cfi_escape 0x10, 12, 2, 0x73, 0x20",
    ".cfi_escape 0x10, 13, 2, 0x73, 0x28",
    ".cfi_escape 0x10, 14, 2, 0x73, 0x30",
    ".cfi_escape 0x10, 15, 2, 0x73, 0x38",
    ".cfi_escape 0x10, 16, 3, 0x73, 0xc0, 0x00",
    "lea rbx, [rdi + 64]",
    "call {stopped}",
    "ud2",
    ".cfi_endproc",
    ".popsection",
    stopped = sym stopped,
);

unsafe extern "C" {
    fn ksim_stack_used_up();
}

/// A register of the interrupted context.
pub(super) fn register(context: &mut libc::ucontext_t, number: i32) -> &mut i64 {
    &mut context.uc_mcontext.gregs[number as usize]
}

fn next_instruction(context: &mut libc::ucontext_t) -> u64 {
    *register(context, libc::REG_RIP) as u64
}

/// The handler: a page fault. True if it is of the stack that runs, and the code goes on otherwise.
pub(crate) fn touched(context: &mut libc::ucontext_t, address: u64) -> bool {
    let Some(stack) = running_stack() else { return false };
    let address = address as usize;
    let margin = stack.start - MARGIN_BYTES..stack.start;
    if margin.contains(&address) {
        if !open_margin() {
            give_up(USED_UP, next_instruction(context), "which could not be given more");
        }
        STEPS.set(Some(MOST_STEPS));
        lead(context, &stack);
        return true;
    }
    if !(margin.start - GUARD..margin.start).contains(&address) {
        return false;
    }
    // A large frame of a function that has only begun.
    if !leave(context) {
        give_up(USED_UP, next_instruction(context), "where it cannot be stopped");
    }
    true
}

/// True while code is led to where it can be stopped.
pub(crate) fn steps() -> bool {
    STEPS.get().is_some()
}

/// The code has got to a call of the kernel, which stops it: the next step is the last.
pub(super) fn end_steps() {
    if steps() {
        STEPS.set(Some(0));
    }
}

/// The handler: after one instruction.
pub(crate) fn step(context: &mut libc::ucontext_t) {
    match running_stack() {
        Some(stack) => lead(context, &stack),
        None => stop_stepping(context),
    }
}

fn stop_stepping(context: &mut libc::ucontext_t) {
    STEPS.set(None);
    *register(context, libc::REG_EFL) &= !TRAP;
}

/// Stops the code if it can be stopped here, and otherwise lets it execute one more instruction.
fn lead(context: &mut libc::ucontext_t, stack: &Range<usize>) {
    let pointer = *register(context, libc::REG_RSP) as usize;
    // What runs on another stack is the machine's loop, or the end of a call of the kernel; an image has its own checks.
    let elsewhere =
        !(stack.start - MARGIN_BYTES..stack.end).contains(&pointer) || crate::image::is_in_image(next_instruction(context));
    match STEPS.get() {
        Some(left) if left > 0 && !elsewhere => {
            STEPS.set(Some(left - 1));
            if !leave(context) {
                *register(context, libc::REG_EFL) |= TRAP;
            }
        }
        _ => stop_stepping(context),
    }
}

/// Lets the code go on in [`stopped`], if it is where it can be stopped.
fn leave(context: &mut libc::ucontext_t) -> bool {
    let instruction = next_instruction(context);
    let Some(function) = symbols::find(instruction).filter(|function| function.owner == Owner::Driver) else { return false };
    let can_stop = instruction == function.start || is_probe(function.start, function.end, instruction);
    if !can_stop || !machine_of_this_thread().is_some_and(|cell| cell.may_stop()) {
        return false;
    }
    let registers = REGISTERS.map(|number| *register(context, number) as u64);
    go_on_stopped(context, Stopped { registers, instruction, touch: None });
    true
}

/// Lets the code go on in [`stopped`].
pub(super) fn go_on_stopped(context: &mut libc::ucontext_t, stopped: Stopped) {
    stop_stepping(context);
    let record = (emergency_stack() - size_of::<Stopped>() as u64) & !15;
    // SAFETY: nothing else runs on that stack, which has room for the record.
    unsafe { (record as *mut Stopped).write(stopped) };
    *register(context, libc::REG_RSP) = record as i64;
    *register(context, libc::REG_RDI) = record as i64;
    *register(context, libc::REG_RIP) = ksim_stack_used_up as *const () as i64;
    *register(context, libc::REG_EFL) &= !NOT_RUST;
}

/// True for an instruction that touches a page of a large frame. A function does that for each page when it begins, before anything else: `sub rsp, 4096` and
/// `mov qword ptr [rsp], 0`, in a loop if there are many.
fn is_probe(start: u64, end: u64, instruction: u64) -> bool {
    const GROW: [u8; 7] = [0x48, 0x81, 0xec, 0x00, 0x10, 0x00, 0x00];
    const TOUCH: [u8; 8] = [0x48, 0xc7, 0x04, 0x24, 0x00, 0x00, 0x00, 0x00];
    let from = instruction.saturating_sub(GROW.len() as u64);
    if from < start || end < instruction + TOUCH.len() as u64 {
        return false;
    }
    // SAFETY: it is a part of the function's code, which is there as long as the program.
    let code = unsafe { std::slice::from_raw_parts(from as *const u8, GROW.len() + TOUCH.len()) };
    code[..GROW.len()] == GROW && code[GROW.len()..] == TOUCH
}

/// On the emergency stack, as an ordinary function: the code that has used up its own goes on never.
extern "C" fn stopped(record: *const Stopped) -> ! {
    // SAFETY: the handler has written it, above everything else on this stack.
    let record = unsafe { &*record };
    let Stopped { registers, instruction, touch } = record;
    if let Some(touch) = touch {
        match inside(*instruction, true) {
            None => super::access::stop(record, touch),
            Some(why) => give_up(super::access::TOUCHED, *instruction, why),
        }
    }
    if let Some(why) = inside(*instruction, false) {
        give_up(USED_UP, *instruction, why);
    }
    let pointer = registers[RSP];
    let meaning = format!("hosted code ran out of stack: {pointer:#x} is its stack pointer");
    current("hosted code").stop_interrupted(*violation(pointer, *instruction, meaning), None, *instruction as usize)
}

/// What is under way that cannot be left: an allocation that a function of the driver does, or, if that is asked, what the host does. Nothing may be allocated until this is known.
fn inside(instruction: u64, asks_for_host: bool) -> Option<&'static str> {
    let stack = running_stack().unwrap_or_default();
    let mut found = None;
    let mut entered = false;
    let mut is_program = !asks_for_host;
    let look = |frame: &backtrace::Frame| {
        let inside = (stack.start - MARGIN_BYTES..stack.end).contains(&frame.sp().addr());
        entered |= inside;
        // Where a function is to return to may be the first address behind its caller.
        let address = frame.ip().addr() as u64;
        let address = if address == instruction { address } else { address - 1 };
        let function = symbols::find(address);
        if function.is_some_and(|function| function.owner == Owner::Allocator) {
            found = Some("in the midst of an allocation");
        }
        if inside && !is_program {
            is_program = function.is_some();
            // Copies and the like hold nothing. Of all else it is not known: it may be the allocator's own, called by a jump.
            let is_harmless = address == instruction && is_copy(address);
            if !is_program && !is_harmless {
                found = Some("in the midst of what the host's library does, such as an allocation");
            }
        }
        found.is_none() && (inside || !entered)
    };
    // SAFETY: no other thread walks the stack of this one; what the lock is for is debug information on other hosts.
    unsafe { backtrace::trace_unsynchronized(look) };
    found
}

/// The routine of NT's that a driver has called where the code was stopped, if it is within one.
pub(super) fn export_around(instruction: u64) -> Option<&'static str> {
    let stack = running_stack().unwrap_or_default();
    let mut found = None;
    let mut entered = false;
    let look = |frame: &backtrace::Frame| {
        let inside = (stack.start - MARGIN_BYTES..stack.end).contains(&frame.sp().addr());
        entered |= inside;
        if !inside {
            return !entered;
        }
        let address = frame.ip().addr() as u64;
        let address = if address == instruction { address } else { address - 1 };
        found = symbols::export(address);
        found.is_none() && !symbols::find(address).is_some_and(|function| function.owner == Owner::Driver)
    };
    // SAFETY: as below.
    unsafe { backtrace::trace_unsynchronized(look) };
    found
}

/// True for an instruction of the host's routines that copy, fill and compare memory.
fn is_copy(instruction: u64) -> bool {
    /// What is behind the beginning of such a routine belongs to it, or to another of them.
    const LONGEST: u64 = 4096;
    let routines = [
        libc::memcpy as *const (),
        libc::memmove as *const (),
        libc::memset as *const (),
        libc::memcmp as *const (),
        libc::strlen as *const (),
    ];
    routines.into_iter().any(|routine| instruction.wrapping_sub(routine as u64) < LONGEST)
}

/// What hosted code has done that has no stack left.
const USED_UP: &str = "used up its stack";

/// There is no place to stop: the process ends.
pub(super) fn give_up(what: &str, instruction: u64, why: &str) -> ! {
    let mut text = Text::new();
    let mut name = Text::new();
    symbols::describe(&mut name, instruction);
    let name = name.bytes().utf8_chunks().next().map_or("", |chunk| chunk.valid());
    // Text is never full in vain: what does not fit is left out.
    let _written = write!(text, "\nksim: hosted code {what} ");
    if let Some(cell) = machine_of_this_thread() {
        // As above.
        let _written = cell.describe_running(&mut text);
    }
    // As above.
    let _written = writeln!(text, ", {why}: in {name}");
    let bytes = text.bytes();
    // SAFETY: the bytes are there. There is nobody to tell that they could not be written.
    unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) };
    // SAFETY: ends the process.
    unsafe { libc::abort() }
}
