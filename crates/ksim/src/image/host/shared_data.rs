//! KUSER_SHARED_DATA: the page at a fixed address in the kernel's half from which inlined code reads time and version.
//!
//! A program cannot map anything there. A read faults, and is done again from this copy.

use super::arena::{Access, Block};
use super::variables::SystemTime;
use crate::engine::Kernel;
use std::io;

const ADDRESS: u64 = 0xffff_f780_0000_0000;
const SIZE: usize = 4096;

const TICK_COUNT_LOW: usize = 0x0;
const TICK_COUNT_MULTIPLIER: usize = 0x4;
const INTERRUPT_TIME: usize = 0x8;
const SYSTEM_TIME: usize = 0x14;
const SYSTEM_ROOT: usize = 0x30;
const BUILD_NUMBER: usize = 0x260;
const PRODUCT_TYPE: usize = 0x264;
const PRODUCT_TYPE_IS_VALID: usize = 0x268;
const MAJOR_VERSION: usize = 0x26c;
const MINOR_VERSION: usize = 0x270;
const PROCESSOR_FEATURES: usize = 0x274;
const QPC_FREQUENCY: usize = 0x300;
const TICK_COUNT: usize = 0x320;
const ACTIVE_PROCESSORS: usize = 0x3c0;

/// The processor features that every x86-64 has, of those that Windows counts.
pub(crate) const FEATURES: [u32; 8] = [
    2,  // compare and exchange of 8 bytes
    3,  // MMX
    6,  // SSE
    8,  // the time stamp counter
    9,  // physical addresses of more than 32 bits
    10, // SSE2
    12, // no execution of data
    14, // compare and exchange of 16 bytes
];

/// True for an address in the page.
pub(super) fn contains(address: u64) -> bool {
    address.wrapping_sub(ADDRESS) < SIZE as u64
}

/// The copy.
pub(crate) struct SharedData {
    block: Block,
}

impl SharedData {
    pub(super) fn new() -> io::Result<Self> {
        let block = Block::new(SIZE)?;
        block.protect(0, SIZE, Access::Write)?;
        Ok(Self { block })
    }

    /// Where the copy of a byte is.
    pub(super) fn place(&self, address: u64) -> u64 {
        self.block.start() as u64 + (address - ADDRESS)
    }

    fn write<T>(&self, offset: usize, value: T) {
        assert!(offset + size_of::<T>() <= SIZE, "ksim: {offset:#x} is outside the page");
        // SAFETY: the block is one writable page, and the offset is within it.
        unsafe { ((self.block.start() + offset) as *mut T).write_unaligned(value) };
    }

    /// Brings the copy up to date.
    pub(super) fn update(&self, kernel: &Kernel, interrupt_time: u64) {
        let ticks = kernel.clock.tick_count();
        self.write(TICK_COUNT_LOW, ticks as u32);
        // Milliseconds a tick, as a fraction of 2^24.
        self.write(TICK_COUNT_MULTIPLIER, (u64::from(kernel.clock.increment()) * (1 << 24) / 10_000) as u32);
        self.write(INTERRUPT_TIME, SystemTime::new(interrupt_time as i64));
        self.write(SYSTEM_TIME, SystemTime::new(kernel.clock.system_time()));
        for (index, unit) in "C:\\Windows".encode_utf16().enumerate() {
            self.write(SYSTEM_ROOT + index * 2, unit);
        }
        let (major, minor, build) = kernel.config.profile.version();
        self.write(BUILD_NUMBER, build);
        self.write(PRODUCT_TYPE, 1_u32);
        self.write(PRODUCT_TYPE_IS_VALID, 1_u8);
        self.write(MAJOR_VERSION, major);
        self.write(MINOR_VERSION, minor);
        for feature in FEATURES {
            self.write(PROCESSOR_FEATURES + feature as usize, 1_u8);
        }
        self.write(QPC_FREQUENCY, 10_000_000_u64);
        self.write(TICK_COUNT, SystemTime::new(ticks as i64));
        self.write(ACTIVE_PROCESSORS, u32::from(kernel.config.processors));
    }
}
