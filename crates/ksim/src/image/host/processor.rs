//! The processor blocks that drivers' inlined code reads through `gs`: the current thread, the processor's number.
//!
//! Linux leaves `gs` to programs. Its base points to the block of the simulated processor whose turn it is, and is set when another
//! processor's turn comes.

use crate::engine::Kernel;
use crate::engine::thread::ThreadObject;
use std::arch::asm;
use std::io;

/// Bytes of a block: as much of a KPCR as there is to read.
const BYTES: usize = 0x2000;

const SELF: usize = 0x18;
const CURRENT_PRCB: usize = 0x20;
const IRQL: usize = 0x50;
const PRCB: usize = 0x180;
const LEGACY_NUMBER: usize = 0x184;
const CURRENT_THREAD: usize = 0x188;
const NUMBER: usize = 0x1a4;
/// Not NT's: the address of the processor's level in the engine, for patched reads of CR8.
pub(super) const IRQL_POINTER: u32 = 0x1ff8;

const ARCH_SET_GS: i32 = 0x1001;
const ARCH_GET_GS: i32 = 0x1004;
/// In AT_HWCAP2: programs may write the bases.
const FSGSBASE: u64 = 1 << 1;

#[repr(C, align(4096))]
struct Block([u8; BYTES]);

impl Block {
    fn write<T>(&mut self, offset: usize, value: T) {
        assert!(offset + size_of::<T>() <= BYTES, "ksim: {offset:#x} is outside a processor block");
        let place = self.0.as_mut_ptr().wrapping_add(offset).cast::<T>();
        // SAFETY: the offset is within the block.
        unsafe { place.write_unaligned(value) };
    }
}

/// The blocks of a machine's processors.
pub(crate) struct Processors {
    blocks: Vec<Box<Block>>,
    current: Option<u8>,
    writes_base: bool,
}

impl Processors {
    pub(super) fn new(kernel: &mut Kernel) -> io::Result<Self> {
        // SAFETY: the call reads what the host passed at the start of the process.
        let capabilities = unsafe { libc::getauxval(libc::AT_HWCAP2) };
        let writes_base = capabilities & FSGSBASE != 0;
        let mut blocks = Vec::new();
        for cpu in 0..kernel.config.processors {
            let mut block = Box::new(Block([0; BYTES]));
            let address = (&raw const *block).addr();
            block.write(SELF, address);
            block.write(CURRENT_PRCB, address + PRCB);
            block.write(LEGACY_NUMBER, cpu);
            block.write(NUMBER, u32::from(cpu));
            // The engine's processors are made with the machine, and do not move.
            block.write(IRQL_POINTER as usize, (&raw const kernel.processors[cpu as usize].irql).addr());
            blocks.push(block);
        }
        let mut processors = Self { blocks, current: None, writes_base };
        processors.enter(kernel);
        let block = (&raw const *processors.blocks[kernel.cpu as usize]).addr();
        if gs_base() != block {
            // A sandbox may say that it did and do nothing.
            return Err(io::Error::other("the host does not let a program set the base of gs"));
        }
        Ok(processors)
    }

    /// A context of the acting processor is about to run.
    pub(super) fn enter(&mut self, kernel: &mut Kernel) {
        let cpu = kernel.cpu;
        let thread = match kernel.current_thread() {
            Some(tid) => kernel.thread(tid).address(),
            None => (&raw const **kernel.processor().idle_thread.get_or_insert_with(ThreadObject::boxed)).addr(),
        };
        let block = &mut self.blocks[cpu as usize];
        block.write(CURRENT_THREAD, thread);
        block.write(IRQL, kernel.processors[cpu as usize].irql);
        if self.current != Some(cpu) {
            self.current = Some(cpu);
            set_gs_base((&raw const **block).addr(), self.writes_base);
        }
    }
}

impl Drop for Processors {
    fn drop(&mut self) {
        set_gs_base(0, self.writes_base);
    }
}

fn set_gs_base(base: usize, writes_base: bool) {
    if writes_base {
        // SAFETY: the host says that programs may do this, and nothing of the process uses gs but images.
        unsafe { asm!("wrgsbase {}", in(reg) base, options(nostack, preserves_flags)) };
        return;
    }
    // SAFETY: as above. Whether it had an effect is looked at when the blocks are made.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, base) };
}

fn gs_base() -> usize {
    let mut base = 0_usize;
    // SAFETY: the call writes the variable.
    let result = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_GET_GS, &raw mut base) };
    if result == 0 { base } else { 0 }
}
