//! Writes of CR8, which change the level: by a fault, or by a call from the place that was patched for it.
//!
//! The instruction changes no register and no flag, and may stand anywhere in a function. What it does here may deliver DPCs and give control to other threads, so that all
//! registers are kept meanwhile, those of vectors in full.

use super::context::{Context, ExceptionRecord, RSP};
use super::entry::{CallFrame, boundary, unboxed};
use super::exception::{self, Exception};
use super::patch::WritePiece;
use crate::machine::{Call, current};
use ksync_sys::{KeLowerIrql, KfRaiseIrql, STATUS_PRIVILEGED_INSTRUCTION};
use std::arch::{asm, global_asm};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// The parts of the vector state that are kept: x87, SSE, AVX and AVX-512.
const PARTS: u32 = 0xe7;
/// Bytes for the state: the architecture's legacy area and header, and what today's processors need for the parts.
const STATE: usize = 2752;

/// Which parts the host keeps, or 0 where it has the legacy area only.
#[unsafe(export_name = "ksim_image_vector_parts")]
static VECTOR_PARTS: AtomicU32 = AtomicU32::new(0);

/// Saves the vector state below the stack pointer, which is moved. Changes eax and edx.
macro_rules! save_vectors {
    () => {
        "sub rsp, 2752
        and rsp, -64
        mov eax, [rip + ksim_image_vector_parts]
        xor edx, edx
        test eax, eax
        jz 20f
        mov [rsp + 512], rdx
        mov [rsp + 520], rdx
        mov [rsp + 528], rdx
        mov [rsp + 536], rdx
        mov [rsp + 544], rdx
        mov [rsp + 552], rdx
        mov [rsp + 560], rdx
        mov [rsp + 568], rdx
        xsave64 [rsp]
        jmp 21f
        20: fxsave64 [rsp]
        21:"
    };
}

/// Loads what was saved at the stack pointer. Changes eax and edx.
macro_rules! load_vectors {
    () => {
        "mov eax, [rip + ksim_image_vector_parts]
        xor edx, edx
        test eax, eax
        jz 22f
        xrstor64 [rsp]
        jmp 23f
        22: fxrstor64 [rsp]
        23:"
    };
}

const _: () = assert!(STATE == 2752);

// A piece of code has pushed the new level, and calls here. The flags and all registers go onto the stack in the order of their numbers.
// `ksim_image_fault` is where the handler of signals goes on: with the registers in a record, and all of them free.
global_asm!(
    ".pushsection .text.ksim_image, \"ax\", @progbits",
    ".globl ksim_image_write_level",
    ".p2align 4",
    "ksim_image_write_level:",
    "pushfq",
    "push r15",
    "push r14",
    "push r13",
    "push r12",
    "push r11",
    "push r10",
    "push r9",
    "push r8",
    "push rdi",
    "push rsi",
    "push rbp",
    "push rsp",
    "push rbx",
    "push rdx",
    "push rcx",
    "push rax",
    "cld",
    "mov rbx, rsp",
    save_vectors!(),
    "mov rdi, rbx",
    "mov rsi, rsp",
    "call {on_write}",
    load_vectors!(),
    "mov rsp, rbx",
    "pop rax",
    "pop rcx",
    "pop rdx",
    "pop rbx",
    // Where the stack pointer stands.
    "pop rbp",
    "pop rbp",
    "pop rsi",
    "pop rdi",
    "pop r8",
    "pop r9",
    "pop r10",
    "pop r11",
    "pop r12",
    "pop r13",
    "pop r14",
    "pop r15",
    "popfq",
    "ret 8",
    ".globl ksim_image_fault",
    ".p2align 4",
    "ksim_image_fault:",
    "mov rbx, rdi",
    save_vectors!(),
    "mov rdi, rbx",
    "call {on_fault}",
    load_vectors!(),
    "mov rdi, rbx",
    "jmp ksim_image_resume",
    ".popsection",
    on_write = sym on_write,
    on_fault = sym super::fault::on_fault,
);

unsafe extern "C" {
    pub(super) fn ksim_image_write_level();
    pub(super) fn ksim_image_fault();
}

/// Looks at what vector state the host has: once, as that takes long on a virtual machine.
pub(super) fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| VECTOR_PARTS.store(parts(), Ordering::Relaxed));
}

fn parts() -> u32 {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const OSXSAVE: u32 = 1 << 27;
    if __cpuid(1).ecx & OSXSAVE == 0 {
        return 0;
    }
    let (low, _high): (u32, u32);
    // SAFETY: the host has enabled the instruction.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _high, options(nomem, nostack, preserves_flags)) };
    let parts = low & PARTS;
    let fits = |part: u32| {
        let leaf = __cpuid_count(0xd, part);
        (leaf.eax + leaf.ebx) as usize <= STATE
    };
    if (2..32).filter(|part| parts & 1 << part != 0).all(fits) { parts } else { parts & 3 }
}

/// The registers at a write of CR8, as `ksim_image_write_level` has saved them.
#[repr(C)]
#[derive(Debug)]
struct Write {
    gpr: [u64; 16],
    flags: u64,
    /// In the piece of code.
    return_address: u64,
    level: u64,
}

/// The legacy area of a saved vector state.
#[repr(C, align(64))]
#[derive(Debug)]
struct Vectors {
    control: [u8; 24],
    mxcsr: u32,
    x87: [u8; 132],
    xmm: [u128; 16],
}

const _: () = assert!(std::mem::offset_of!(Vectors, xmm) == 160);

/// A patched write.
unsafe extern "C" fn on_write(write: *mut Write, vectors: *const Vectors) {
    // SAFETY: the caller has saved the registers there, and nobody else looks at them.
    let write = unsafe { &mut *write };
    // SAFETY: the caller has saved the state there.
    let vectors = unsafe { &*vectors };
    write.gpr[RSP] = (&raw const *write) as u64 + size_of::<Write>() as u64;
    // SAFETY: a piece has called.
    let piece = unsafe { &*WritePiece::of_return_address(write.return_address) };
    let frame = CallFrame::of_instruction(&write.gpr, &vectors.xmm, piece.next);
    if let Err(exception) = set(write.level, piece.site, frame) {
        let activity = current("an image").images.activity();
        let mut context = Context::new();
        context.gpr = write.gpr;
        context.rip = piece.site;
        context.eflags = write.flags as u32;
        context.xmm = vectors.xmm;
        context.mxcsr = vectors.mxcsr;
        // SAFETY: these are the registers of driver code on this stack, and nothing of ours lies between.
        unsafe { exception::dispatch(&context, unboxed(exception), activity) }
    }
}

/// Does what the instruction at `site` does, whose frame that is.
pub(super) fn set(level: u64, site: u64, mut frame: CallFrame) -> Result<(), Box<Exception>> {
    let Ok(level @ 0..=15) = u8::try_from(level) else {
        let meaning = exception::not_handled(STATUS_PRIVILEGED_INSTRUCTION, &format!("{level:#x} was written to CR8"));
        let record = ExceptionRecord::new(STATUS_PRIVILEGED_INSTRUCTION, site, &[]);
        return Err(Box::new(Exception::new(record, meaning)));
    };
    let call = Call { cell: current("an image"), export: None };
    let now = call.read(|kernel| kernel.irql());
    let body = || {
        if level < now {
            // SAFETY: the routine checks what it is passed.
            unsafe { KeLowerIrql(level) };
        } else if level > now {
            // SAFETY: as above.
            unsafe { KfRaiseIrql(level) };
        }
        0
    };
    // SAFETY: the frame is that of the instruction, and nothing here has to be dropped.
    unsafe { boundary(&raw mut frame, body) };
    Ok(())
}
