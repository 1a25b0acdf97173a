//! Where control passes between an image and the hosted kernel.
//!
//! Each import of an image is bound to a stub of a few instructions, which loads the address of the routine's [`Entry`] and jumps to
//! `ksim_image_import`. That saves the registers that the driver expects back, which makes a [`CallFrame`], and calls
//! the entry's adapter, which reads the arguments from the driver's stack. The frame is also where an exception starts that the
//! routine raises: it has all that the unwinder needs of the driver's registers.

use super::arena;
use super::context::{Context, RBP, RBX, RDI, RSI, RSP};
use super::{guarded, signal};
use crate::machine::{Call, current, panicked_in_image};
use crate::report::bug_check::{Violation, codes};
use std::arch::{asm, global_asm};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The driver's registers at a call of an import.
#[repr(C, align(16))]
#[derive(Debug)]
pub(crate) struct CallFrame {
    xmm: [u128; 10],
    rbx: u64,
    rbp: u64,
    rsi: u64,
    rdi: u64,
    r12: u64,
    r13: u64,
    r14: u64,
    r15: u64,
    entry: *const Entry,
    /// The frame of the call that was under way when the driver was called, which called here.
    previous: *mut CallFrame,
    /// 1 while the routine has called the driver where exceptions pass it: see [`through`].
    passable: u64,
    /// The driver's stack pointer right after the call returns.
    rsp: u64,
    _unused: u64,
    return_address: u64,
}

const _: () = {
    assert!(std::mem::offset_of!(CallFrame, rbx) == 160);
    assert!(std::mem::offset_of!(CallFrame, entry) == 224);
    assert!(std::mem::offset_of!(CallFrame, rsp) == 248);
    assert!(std::mem::offset_of!(CallFrame, return_address) == 264);
    assert!(size_of::<CallFrame>() == 272);
};

/// Reads the arguments, calls the routine, and returns its result.
pub(crate) type Adapter = unsafe extern "C" fn(frame: *mut CallFrame, arguments: *const u64) -> u64;

/// What an import is bound to.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) adapter: Adapter,
    pub(crate) name: String,
}

// The arguments in registers go to the home space that the convention gives the callee above its return address, so that all of
// them lie in one row. At the entry the stack is 8 off a multiple of 16.
// The section is said, as in `guarded.rs`.
global_asm!(
    ".pushsection .text.ksim_image, \"ax\", @progbits",
    ".globl ksim_image_import",
    ".p2align 4",
    "ksim_image_import:",
    "mov [rsp + 8], rcx",
    "mov [rsp + 16], rdx",
    "mov [rsp + 24], r8",
    "mov [rsp + 32], r9",
    "sub rsp, 264",
    "lea rax, [rsp + 272]",
    "mov [rsp + 248], rax",
    "movaps [rsp], xmm6",
    "movaps [rsp + 16], xmm7",
    "movaps [rsp + 32], xmm8",
    "movaps [rsp + 48], xmm9",
    "movaps [rsp + 64], xmm10",
    "movaps [rsp + 80], xmm11",
    "movaps [rsp + 96], xmm12",
    "movaps [rsp + 112], xmm13",
    "movaps [rsp + 128], xmm14",
    "movaps [rsp + 144], xmm15",
    "mov [rsp + 160], rbx",
    "mov [rsp + 168], rbp",
    "mov [rsp + 176], rsi",
    "mov [rsp + 184], rdi",
    "mov [rsp + 192], r12",
    "mov [rsp + 200], r13",
    "mov [rsp + 208], r14",
    "mov [rsp + 216], r15",
    "mov [rsp + 224], r10",
    "mov rdi, rsp",
    "mov rsi, rax",
    "call [r10]",
    "movaps xmm6, [rsp]",
    "movaps xmm7, [rsp + 16]",
    "movaps xmm8, [rsp + 32]",
    "movaps xmm9, [rsp + 48]",
    "movaps xmm10, [rsp + 64]",
    "movaps xmm11, [rsp + 80]",
    "movaps xmm12, [rsp + 96]",
    "movaps xmm13, [rsp + 112]",
    "movaps xmm14, [rsp + 128]",
    "movaps xmm15, [rsp + 144]",
    "mov rsi, [rsp + 176]",
    "mov rdi, [rsp + 184]",
    "add rsp, 264",
    "ret",
    // Loads all registers and goes on there. The three words below the new stack pointer are used on the way.
    ".globl ksim_image_resume",
    ".p2align 4",
    "ksim_image_resume:",
    "ldmxcsr [rdi + 52]",
    "movaps xmm0, [rdi + 416]",
    "movaps xmm1, [rdi + 432]",
    "movaps xmm2, [rdi + 448]",
    "movaps xmm3, [rdi + 464]",
    "movaps xmm4, [rdi + 480]",
    "movaps xmm5, [rdi + 496]",
    "movaps xmm6, [rdi + 512]",
    "movaps xmm7, [rdi + 528]",
    "movaps xmm8, [rdi + 544]",
    "movaps xmm9, [rdi + 560]",
    "movaps xmm10, [rdi + 576]",
    "movaps xmm11, [rdi + 592]",
    "movaps xmm12, [rdi + 608]",
    "movaps xmm13, [rdi + 624]",
    "movaps xmm14, [rdi + 640]",
    "movaps xmm15, [rdi + 656]",
    "mov rax, [rdi + 152]",
    "mov rcx, [rdi + 248]",
    "mov [rax - 8], rcx",
    "mov ecx, [rdi + 68]",
    "mov [rax - 16], rcx",
    "mov rcx, [rdi + 176]",
    "mov [rax - 24], rcx",
    "lea rsp, [rax - 24]",
    "mov rax, [rdi + 120]",
    "mov rcx, [rdi + 128]",
    "mov rdx, [rdi + 136]",
    "mov rbx, [rdi + 144]",
    "mov rbp, [rdi + 160]",
    "mov rsi, [rdi + 168]",
    "mov r8, [rdi + 184]",
    "mov r9, [rdi + 192]",
    "mov r10, [rdi + 200]",
    "mov r11, [rdi + 208]",
    "mov r12, [rdi + 216]",
    "mov r13, [rdi + 224]",
    "mov r14, [rdi + 232]",
    "mov r15, [rdi + 240]",
    "pop rdi",
    "popfq",
    "ret",
    ".popsection",
);

unsafe extern "C" {
    fn ksim_image_import();
    fn ksim_image_resume(context: *const Context) -> !;
}

/// True for code that a call of an import begins and ends with.
pub(super) fn contains(rip: u64) -> bool {
    (ksim_image_import as *const () as u64..ksim_image_resume as *const () as u64).contains(&rip)
}

/// Bytes of a stub.
pub(crate) const STUB: usize = 32;

/// The stub for an entry, which must outlive it.
pub(crate) fn stub(entry: *const Entry) -> [u8; STUB] {
    // mov r10, entry; mov r11, ksim_image_import; jmp r11
    let mut code = [0xcc; STUB];
    code[..2].copy_from_slice(&[0x49, 0xba]);
    code[2..10].copy_from_slice(&(entry as u64).to_le_bytes());
    code[10..12].copy_from_slice(&[0x49, 0xbb]);
    code[12..20].copy_from_slice(&(ksim_image_import as *const () as u64).to_le_bytes());
    code[20..23].copy_from_slice(&[0x41, 0xff, 0xe3]);
    code
}

/// Goes on with these registers, and leaves everything below them on the stack behind.
///
/// # Safety
/// The registers are those of driver code that may go on: its stack is the one that runs. No frame below it has anything left to do. The
/// context itself does not lie in the three words below the stack pointer in it.
pub(crate) unsafe fn resume(context: *const Context) -> ! {
    // SAFETY: by this function's contract.
    unsafe { ksim_image_resume(context) }
}

impl CallFrame {
    /// The frame of an instruction that the kernel does for the driver, which goes on at `next` with these registers.
    pub(super) fn of_instruction(gpr: &[u64; 16], xmm: &[u128; 16], next: u64) -> Self {
        let [.., xmm6, xmm7, xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14, xmm15] = *xmm;
        Self {
            xmm: [xmm6, xmm7, xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14, xmm15],
            rbx: gpr[RBX],
            rbp: gpr[RBP],
            rsi: gpr[RSI],
            rdi: gpr[RDI],
            r12: gpr[12],
            r13: gpr[13],
            r14: gpr[14],
            r15: gpr[15],
            entry: std::ptr::null(),
            previous: std::ptr::null_mut(),
            passable: 0,
            rsp: gpr[RSP],
            _unused: 0,
            return_address: next,
        }
    }

    /// The driver's registers right after the call returns.
    pub(crate) fn context(&self) -> Context {
        let mut context = Context::new();
        context.rip = self.return_address;
        context.gpr[RSP] = self.rsp;
        context.gpr[RBX] = self.rbx;
        context.gpr[RBP] = self.rbp;
        context.gpr[RSI] = self.rsi;
        context.gpr[RDI] = self.rdi;
        context.gpr[12..].copy_from_slice(&[self.r12, self.r13, self.r14, self.r15]);
        context.xmm[6..].copy_from_slice(&self.xmm);
        context
    }

    /// The driver's registers at the innermost call above an address on the stack, which may have come to nothing yet: only the stack pointer can be relied on.
    pub(super) fn find(from: u64) -> Option<Context> {
        const MOST_WORDS: u64 = 4096;
        let return_address = std::mem::offset_of!(Self, return_address) as u64;
        let distance = return_address - std::mem::offset_of!(Self, rsp) as u64;
        (0..MOST_WORDS).map(|word| (from & !7) + word * 8).find_map(|place| {
            let rip = guarded::quad(place).ok()?;
            let is_call = arena::contains(rip as usize) && guarded::quad(place - distance) == Ok(place + 8);
            is_call.then(|| {
                let mut context = Context::new();
                context.rip = rip;
                context.gpr[RSP] = place + 8;
                context
            })
        })
    }

    /// The entry that was called, unless an instruction is what is done.
    pub(crate) fn entry(&self) -> Option<&Entry> {
        // SAFETY: the stub passed it, and it outlives the stub.
        unsafe { self.entry.as_ref() }
    }

    /// The frame of the call that was under way before.
    pub(crate) fn previous(&self) -> *mut Self {
        self.previous
    }

    /// True when what the driver raises now may be handled by the code that has called here.
    pub(crate) fn is_passable(&self) -> bool {
        self.passable == 1
    }

    /// Where the driver called from.
    pub(crate) fn return_address(&self) -> u64 {
        self.return_address
    }
}

/// An exception on its way to the driver that called: what an unwinding carries.
#[derive(Debug)]
pub(crate) struct Raise(pub(crate) super::exception::Exception);

/// An unwinding of a driver's frames that passes a routine which it called: what goes on with the frames beyond.
#[derive(Debug)]
pub(crate) struct Crossing {
    pub(crate) target: super::exception::OwnedTarget,
    pub(crate) record: super::context::ExceptionRecord,
}

// SAFETY: as for `Exception`; the record's pointer is only handed back to the driver, on the thread that it came from.
unsafe impl Send for Crossing {}

/// Takes a value out of its box, which is freed here: who goes on with it may never return.
#[expect(clippy::boxed_local, reason = "the box is what is to go away")]
pub(super) fn unboxed<T>(value: Box<T>) -> T {
    *value
}

/// Calls a routine of the driver where NT's own frame has no handler, so that an exception in it passes to the code that called here. `left` is done when an unwinding leaves the
/// routine so, instead of what comes after it.
#[inline]
pub(crate) fn through<R>(routine: impl FnOnce() -> R, left: impl FnOnce()) -> R {
    let images = &current("a driver's routine").images;
    let frame = images.frame.get();
    if frame.is_null() {
        return routine();
    }
    // SAFETY: a frame is valid while its call is under way.
    let before = unsafe { std::mem::replace(&mut (*frame).passable, 1) };
    let result = routine();
    // SAFETY: as above: the call is still under way.
    unsafe { (*frame).passable = before };
    match images.crossing.take() {
        None => result,
        Some(crossing) => {
            left();
            // Unwinds the routine's own frames.
            std::panic::resume_unwind(crossing)
        }
    }
}

/// More than the frames between an image's call and the routine, which has the same test for hosted callers and would tell of those.
const FRAMES_OF_A_CALL: usize = 8 * 1024;

/// Runs a routine for an image: what it raises goes to the driver's handlers, and a panic ends the machine.
///
/// # Safety
/// `frame` is the frame that `ksim_image_import` has made for this call, or that of an instruction, and nothing below the driver's own frames is left to be done when it is over.
#[inline]
pub(crate) unsafe fn boundary(frame: *mut CallFrame, body: impl FnOnce() -> u64) -> u64 {
    let images = &current("an import of an image").images;
    if frame.addr() < images.stack_floor.get() + FRAMES_OF_A_CALL {
        out_of_stack(frame);
    }
    let before = images.frame.replace(frame);
    // SAFETY: by this function's contract.
    unsafe { (*frame).previous = before };
    // SAFETY: as above.
    unsafe { (*frame).passable = 0 };
    if images.checks_paging.get() {
        // SAFETY: by this function's contract.
        super::paging::check(unsafe { (*frame).return_address });
    }
    let result = catch_unwind(AssertUnwindSafe(body));
    match result {
        Ok(value) => {
            images.frame.set(before);
            if images.forces_paging.get() {
                super::paging::settle();
            }
            value
        }
        Err(payload) => match payload.downcast::<Raise>() {
            // SAFETY: the call's own frames are gone, so that the driver's are next.
            Ok(raise) => unsafe { super::exception::raise_from_call(frame, unboxed(raise).0) },
            Err(payload) => match payload.downcast::<Crossing>() {
                // SAFETY: as above.
                Ok(crossing) => unsafe { super::exception::cross_call(frame, unboxed(crossing)) },
                Err(_) => panicked_in_image(),
            },
        },
    }
}

/// A call that the kernel has too little stack for: the machine stops, on the stack for that.
#[cold]
fn out_of_stack(frame: *mut CallFrame) -> ! {
    extern "C" fn stop(frame: *mut CallFrame) -> ! {
        let call = Call { cell: current("an image"), export: None };
        // SAFETY: the call that the frame is of goes on never, and its stack stays as it is.
        let frame = unsafe { &*frame };
        let routine = frame.entry().map_or("the kernel", |entry| &entry.name);
        let meaning = format!("a driver ran out of kernel stack: it called {routine} with {:#x} as its stack pointer", frame.rsp);
        let parameters = [8, frame.rsp, frame.return_address, 0];
        let violation = Violation::boxed_owned(codes::UNEXPECTED_KERNEL_MODE_TRAP, parameters, meaning);
        call.cell.stop_at(*violation, call.cell.images.places_from(&frame.context(), true))
    }
    let top = signal::emergency_stack();
    // SAFETY: nothing else runs on that stack, and nothing comes back to this one. What is called finds a return address as
    // its convention wants it, aligned to 16 bytes, and whoever walks the stack ends there: 0 is nowhere.
    unsafe {
        asm!("mov rsp, {top}", "push 0", "jmp {stop}", top = in(reg) top, stop = sym stop, in("rdi") frame, options(noreturn))
    }
}

/// The row of arguments that a driver's call leaves on its stack: slots of 8 bytes, of which a type is the low part.
#[derive(Debug)]
pub(crate) struct Arguments(Cell<*const u64>);

impl Arguments {
    /// # Safety
    /// The row has as many arguments, of the same types, as are taken from it.
    #[inline]
    pub(crate) unsafe fn new(arguments: *const u64) -> Self {
        Self(Cell::new(arguments))
    }

    /// The next argument.
    #[inline]
    pub(crate) fn next<T: Copy>(&self) -> T {
        let slot = self.0.get();
        self.0.set(slot.wrapping_add(1));
        // SAFETY: by the contract of `new`.
        unsafe { slot.cast::<T>().read() }
    }
}

/// What a routine returns, as the register holds it.
#[inline]
pub(crate) fn returned<R>(routine: impl FnOnce() -> R) -> u64 {
    const { assert!(size_of::<R>() <= 8, "a result is returned in a register") };
    let result = routine();
    let mut register = 0_u64;
    // SAFETY: the register has room for the result, by the assertion above, and is aligned for it.
    unsafe { (&raw mut register).cast::<R>().write(result) };
    register
}
