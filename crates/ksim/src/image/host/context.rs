//! The registers of x86-64, laid out as Windows' CONTEXT is, and the exception structures that drivers' handlers are given.

/// The registers' numbers, as unwind codes and [`Context::gpr`] have them.
pub(crate) const RAX: usize = 0;
pub(crate) const RCX: usize = 1;
pub(crate) const RDX: usize = 2;
pub(crate) const RBX: usize = 3;
pub(crate) const RSP: usize = 4;
pub(crate) const RBP: usize = 5;
pub(crate) const RSI: usize = 6;
pub(crate) const RDI: usize = 7;

/// `CONTEXT_CONTROL | CONTEXT_INTEGER | CONTEXT_FLOATING_POINT` of AMD64.
const FULL: u32 = 0x0010_000b;

/// CONTEXT of AMD64.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    home: [u64; 6],
    pub(crate) flags: u32,
    pub(crate) mxcsr: u32,
    segments: [u16; 6],
    pub(crate) eflags: u32,
    debug: [u64; 6],
    /// In the order of their numbers.
    pub(crate) gpr: [u64; 16],
    pub(crate) rip: u64,
    x87: [u8; 160],
    pub(crate) xmm: [u128; 16],
    reserved: [u8; 96],
    vector: [u128; 26],
    vector_control: u64,
    debug_control: [u64; 5],
}

const _: () = {
    assert!(size_of::<Context>() == 1232);
    assert!(std::mem::offset_of!(Context, mxcsr) == 52);
    assert!(std::mem::offset_of!(Context, eflags) == 68);
    assert!(std::mem::offset_of!(Context, gpr) == 120);
    assert!(std::mem::offset_of!(Context, rip) == 248);
    assert!(std::mem::offset_of!(Context, xmm) == 416);
    assert!(std::mem::offset_of!(Context, vector) == 768);
};

impl Context {
    pub(crate) const fn new() -> Self {
        Self {
            home: [0; 6],
            flags: FULL,
            mxcsr: 0x1f80,
            segments: [0x10, 0x2b, 0x2b, 0x53, 0x2b, 0x18],
            // Interrupts enabled, and the bit that is always set.
            eflags: 0x202,
            debug: [0; 6],
            gpr: [0; 16],
            rip: 0,
            x87: [0; 160],
            xmm: [0; 16],
            reserved: [0; 96],
            vector: [0; 26],
            vector_control: 0,
            debug_control: [0; 5],
        }
    }

    pub(crate) fn rsp(&self) -> u64 {
        self.gpr[RSP]
    }
}

/// EXCEPTION_RECORD.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExceptionRecord {
    pub(crate) code: u32,
    pub(crate) flags: u32,
    pub(crate) record: *mut ExceptionRecord,
    pub(crate) address: u64,
    pub(crate) parameters: u32,
    pub(crate) information: [u64; 15],
}

impl ExceptionRecord {
    pub(crate) fn new(code: i32, address: u64, information: &[u64]) -> Self {
        let mut record =
            Self { code: code as u32, flags: 0, record: std::ptr::null_mut(), address, parameters: 0, information: [0; 15] };
        for (slot, value) in record.information.iter_mut().zip(information) {
            *slot = *value;
            record.parameters += 1;
        }
        record
    }
}

/// Flags of an exception record.
pub(crate) const EXCEPTION_NONCONTINUABLE: u32 = 0x1;
pub(crate) const EXCEPTION_UNWINDING: u32 = 0x2;
pub(crate) const EXCEPTION_EXIT_UNWIND: u32 = 0x4;
pub(crate) const EXCEPTION_NESTED_CALL: u32 = 0x10;
pub(crate) const EXCEPTION_TARGET_UNWIND: u32 = 0x20;
pub(crate) const EXCEPTION_COLLIDED_UNWIND: u32 = 0x40;

/// EXCEPTION_POINTERS.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExceptionPointers {
    pub(crate) record: *mut ExceptionRecord,
    pub(crate) context: *mut Context,
}

/// What a language handler is told about the frame that it is called for: DISPATCHER_CONTEXT of AMD64.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct DispatcherContext {
    pub(crate) control_pc: u64,
    pub(crate) image_base: u64,
    pub(crate) function_entry: u64,
    pub(crate) establisher_frame: u64,
    pub(crate) target_ip: u64,
    pub(crate) context: *mut Context,
    pub(crate) language_handler: u64,
    pub(crate) handler_data: u64,
    pub(crate) history: u64,
    pub(crate) scope_index: u32,
    pub(crate) fill: u32,
}
