//! Copies that survive a bad address: the kernel's side of what a driver wraps in `__try`.
//!
//! A fault within one of these few instructions does not end anything: the signal's handler lets the routine return what happened.

use std::arch::global_asm;

/// What a guarded operation came to.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Result2 {
    /// 0, or 1 for a bad read and 3 for a bad write.
    fault: u64,
    address: u64,
}

// rdi, rsi and rdx as in C; the handler fills rax and rdx, and goes on at `ksim_guarded_fault`.
// The section is said, as otherwise it is that of whatever assembly comes before, which the linker may leave out.
global_asm!(
    ".pushsection .text.ksim_guarded, \"ax\", @progbits",
    ".globl ksim_guarded_begin",
    ".globl ksim_guarded_end",
    ".globl ksim_guarded_fault",
    ".globl ksim_guarded_copy",
    ".globl ksim_guarded_copy_down",
    ".globl ksim_guarded_fill",
    ".p2align 4",
    "ksim_guarded_begin:",
    "ksim_guarded_copy:",
    "mov rcx, rdx",
    "xor eax, eax",
    "rep movsb",
    "ret",
    ".p2align 4",
    "ksim_guarded_copy_down:",
    "mov rcx, rdx",
    "xor eax, eax",
    "lea rdi, [rdi + rdx - 1]",
    "lea rsi, [rsi + rdx - 1]",
    "std",
    "rep movsb",
    "cld",
    "ret",
    ".p2align 4",
    "ksim_guarded_fill:",
    "mov rcx, rdx",
    "mov eax, esi",
    "rep stosb",
    "xor eax, eax",
    "ret",
    "ksim_guarded_end:",
    "ksim_guarded_fault:",
    "cld",
    "ret",
    ".popsection",
);

unsafe extern "C" {
    static ksim_guarded_begin: u8;
    static ksim_guarded_end: u8;
    static ksim_guarded_fault: u8;
    fn ksim_guarded_copy(to: *mut u8, from: *const u8, bytes: usize) -> Result2;
    fn ksim_guarded_copy_down(to: *mut u8, from: *const u8, bytes: usize) -> Result2;
    fn ksim_guarded_fill(to: *mut u8, value: u32, bytes: usize) -> Result2;
}

/// A bad address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BadAddress {
    pub(crate) address: u64,
    pub(crate) write: bool,
}

fn checked(result: Result2) -> Result<(), BadAddress> {
    match result.fault {
        0 => Ok(()),
        fault => Err(BadAddress { address: result.address, write: fault & 2 != 0 }),
    }
}

/// Where the handler of signals lets a guarded operation go on that faulted at `rip`.
pub(super) fn continuation(rip: u64) -> Option<u64> {
    let begin = (&raw const ksim_guarded_begin).addr() as u64;
    let end = (&raw const ksim_guarded_end).addr() as u64;
    (begin..end).contains(&rip).then(|| (&raw const ksim_guarded_fault).addr() as u64)
}

/// Copies bytes, which may overlap.
///
/// # Safety
/// What is written may be written: where the memory exists, it is the driver's to change. Signal handlers are installed.
pub(crate) unsafe fn copy(to: *mut u8, from: *const u8, bytes: usize) -> Result<(), BadAddress> {
    if bytes == 0 {
        return Ok(());
    }
    let overlaps_up = (to as usize).wrapping_sub(from as usize) < bytes;
    let routine = if overlaps_up { ksim_guarded_copy_down } else { ksim_guarded_copy };
    // SAFETY: by this function's contract; a bad address is reported.
    checked(unsafe { routine(to, from, bytes) })
}

/// Fills bytes.
///
/// # Safety
/// As for [`copy`].
pub(crate) unsafe fn fill(to: *mut u8, value: u8, bytes: usize) -> Result<(), BadAddress> {
    // SAFETY: by this function's contract; a bad address is reported.
    checked(unsafe { ksim_guarded_fill(to, u32::from(value), bytes) })
}

/// Reads an 8-byte word.
pub(crate) fn quad(from: u64) -> Result<u64, BadAddress> {
    let mut value = 0_u64;
    // SAFETY: what is written is this function's own.
    unsafe { copy((&raw mut value).cast(), from as *const u8, size_of::<u64>()) }?;
    Ok(value)
}

/// Reads a 16-byte word.
pub(crate) fn octa(from: u64) -> Result<u128, BadAddress> {
    let mut value = 0_u128;
    // SAFETY: what is written is this function's own.
    unsafe { copy((&raw mut value).cast(), from as *const u8, size_of::<u128>()) }?;
    Ok(value)
}
