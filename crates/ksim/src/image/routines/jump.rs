//! `setjmp` and `longjmp`, as the kernel exports them.

use crate::exports::{ANY, image_exports};
use crate::image::host::context::{Context, ExceptionRecord, RBP, RBX, RDI, RSI, RSP};
use crate::image::host::exception;
use crate::machine::Call;

const STATUS_LONGJUMP: i32 = 0x8000_0026_u32 as i32;
/// The first floating-point register that a callee keeps.
const FIRST_KEPT: usize = 6;

/// `_JUMP_BUFFER` of AMD64.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug)]
struct JumpBuffer {
    /// What the caller says that its frame is, or 0.
    frame: u64,
    rbx: u64,
    rsp: u64,
    rbp: u64,
    rsi: u64,
    rdi: u64,
    kept: [u64; 4],
    rip: u64,
    mxcsr: u32,
    fpcsr: u16,
    spare: u16,
    xmm: [u128; 10],
}

const _: () = {
    assert!(size_of::<JumpBuffer>() == 256);
    assert!(std::mem::offset_of!(JumpBuffer, rip) == 80);
    assert!(std::mem::offset_of!(JumpBuffer, xmm) == 96);
};

/// The driver's registers at the call, into its buffer.
fn set(call: Call, buffer: *mut JumpBuffer, frame: u64) -> i32 {
    call.check_pointer(buffer);
    let context = super::exception::registers(call);
    let mut kept = [0; 4];
    kept.copy_from_slice(&context.gpr[12..]);
    let mut xmm = [0; 10];
    xmm.copy_from_slice(&context.xmm[FIRST_KEPT..]);
    let value = JumpBuffer {
        frame,
        rbx: context.gpr[RBX],
        rsp: context.gpr[RSP],
        rbp: context.gpr[RBP],
        rsi: context.gpr[RSI],
        rdi: context.gpr[RDI],
        kept,
        rip: context.rip,
        mxcsr: context.mxcsr,
        fpcsr: 0x27f,
        spare: 0,
        xmm,
    };
    // SAFETY: the driver passes memory for a buffer.
    unsafe { buffer.write_unaligned(value) };
    0
}

impl JumpBuffer {
    /// The registers that the driver goes on with.
    fn context(&self) -> Context {
        let mut context = Context::new();
        context.rip = self.rip;
        context.mxcsr = self.mxcsr;
        for (register, value) in [(RBX, self.rbx), (RSP, self.rsp), (RBP, self.rbp), (RSI, self.rsi), (RDI, self.rdi)] {
            context.gpr[register] = value;
        }
        context.gpr[12..].copy_from_slice(&self.kept);
        context.xmm[FIRST_KEPT..].copy_from_slice(&self.xmm);
        context
    }
}

image_exports! {
    [ANY] silent fn _setjmp(call; Buffer: *mut JumpBuffer, Frame: u64) -> i32 {
        set(call, Buffer, Frame)
    }

    [ANY] silent fn _setjmpex(call; Buffer: *mut JumpBuffer, Frame: u64) -> i32 {
        set(call, Buffer, Frame)
    }

    [ANY] silent fn longjmp(call; Buffer: *const JumpBuffer, Value: i32) {
        call.check_pointer(Buffer);
        // SAFETY: the driver passes a buffer that it has filled.
        let buffer = unsafe { Buffer.read_unaligned() };
        let mut target = buffer.context();
        target.gpr[crate::image::host::context::RAX] = u64::from(if Value == 0 { 1 } else { Value as u32 });
        if buffer.frame == 0 {
            // The driver wants no termination handlers to be run.
            exception::restore(call, &target);
        }
        let record = ExceptionRecord::new(STATUS_LONGJUMP, 0, &[Buffer as u64]);
        // SAFETY: the driver asks to leave these frames, and nothing is left to be done here.
        unsafe { exception::jump_to(call, target, record, super::exception::registers(call)) }
    }
}
