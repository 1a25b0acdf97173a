//! Instructions that an image cannot execute, done elsewhere: in a few bytes of code behind the image.
//!
//! A read or a write of CR8 costs microseconds as a fault. So its place is patched at the first one, with a jump to code that reads the level from
//! the engine, or calls it. The jump needs five bytes where the instruction has four. Two ways are taken, and where neither is certain to be
//! right, the fault stays:
//! - a two-byte jump to padding between functions that is near and has room for the long jump;
//! - the next instruction moves along, where nothing can jump to it.

use super::arena::{Access, Block};
use super::level::ksim_image_write_level;
use super::mapping::Mapping;
use super::processor::IRQL_POINTER;
use crate::image::file::{File, PAGE};
use iced_x86::{Code, Decoder, DecoderOptions, Encoder, FlowControl, Instruction, OpKind, Register};
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;

const JUMP: usize = 5;
/// How far a two-byte jump reaches.
const NEAR: i64 = 127;
/// Bytes kept for one piece of code.
const PIECE: usize = 64;

/// Room for code behind an image.
#[derive(Debug)]
pub(crate) struct Trampolines {
    start: usize,
    used: usize,
    /// What was made for an instruction, by its address.
    elsewhere: FxHashMap<(u64, u64), u64>,
    /// Places that are patched, or cannot be.
    tried: BTreeSet<u64>,
    /// All that direct branches of the image go to, once it was asked for.
    targets: Option<BTreeSet<u64>>,
}

/// The end of a piece of code that writes the level.
#[repr(C)]
#[derive(Debug)]
pub(super) struct WritePiece {
    code: [u8; PIECE - 24],
    /// What the code calls.
    routine: u64,
    /// The instruction.
    pub(super) site: u64,
    /// What stood behind it.
    pub(super) next: u64,
}

const _: () = assert!(size_of::<WritePiece>() == PIECE);

impl WritePiece {
    /// The piece that has called.
    pub(super) fn of_return_address(address: u64) -> *const Self {
        (address & !(PIECE as u64 - 1)) as *const Self
    }
}

impl Trampolines {
    pub(crate) const BYTES: usize = 4 * PAGE as usize;

    pub(super) fn new(start: usize) -> Self {
        Self { start, used: 0, elsewhere: FxHashMap::default(), tried: BTreeSet::new(), targets: None }
    }

    /// Where the next piece goes that stays.
    fn next(&mut self) -> Option<usize> {
        let offset = self.start + self.used;
        (self.used + PIECE <= Self::BYTES - PIECE).then(|| {
            self.used += PIECE;
            offset
        })
    }

    fn write(&self, block: &Block, offset: usize, code: &[u8]) -> Option<u64> {
        assert!(code.len() <= PIECE, "ksim: a piece of {} bytes", code.len());
        overwrite(block, offset, code)
    }
}

/// Writes code.
fn overwrite(block: &Block, offset: usize, code: &[u8]) -> Option<u64> {
    let page = PAGE as usize;
    let (first, end) = (offset / page * page, (offset + code.len()).next_multiple_of(page));
    block.protect(first, end - first, Access::Write).ok()?;
    let address = block.start() + offset;
    // SAFETY: the pages are the block's, and writable now; its code does not run meanwhile, as the machine has one OS thread.
    unsafe { (address as *mut u8).copy_from_nonoverlapping(code.as_ptr(), code.len()) };
    block.protect(first, end - first, Access::Execute).ok()?;
    Some(address as u64)
}

/// A five-byte jump.
fn jump(from: u64, to: u64) -> Option<[u8; JUMP]> {
    let distance = i32::try_from(to.wrapping_sub(from + JUMP as u64) as i64).ok()?;
    let mut code = [0xe9; JUMP];
    code[1..].copy_from_slice(&distance.to_le_bytes());
    Some(code)
}

/// `mov register, gs:[the level's address]; movzx register, byte ptr [register]`.
fn read_level(register: u8) -> Vec<u8> {
    let (high, low) = (register >> 3, register & 7);
    let mut code = vec![0x65, 0x48 | high << 2, 0x8b, low << 3 | 4, 0x25];
    code.extend(IRQL_POINTER.to_le_bytes());
    code.extend([0x40 | high << 2 | high, 0x0f, 0xb6, 0x40 | low << 3 | low]);
    if low == 4 {
        code.push(0x24);
    }
    code.push(0);
    code
}

/// `push register; call [...]`: the address is at the end of the piece.
fn write_level(register: u8) -> Vec<u8> {
    let mut code = if register < 8 { vec![] } else { vec![0x41] };
    code.extend([0x50 | register & 7, 0xff, 0x15]);
    let after = code.len() + 4;
    code.extend(((std::mem::offset_of!(WritePiece, routine) - after) as u32).to_le_bytes());
    code
}

/// True for an instruction that does the same anywhere, and cannot fault: a fault is reported where it happens.
fn may_move(instruction: &Instruction) -> bool {
    use iced_x86::Mnemonic::{
        Add, And, Cmp, Dec, Inc, Mov, Movsx, Movsxd, Movzx, Neg, Nop, Not, Or, Pop, Push, Sar, Shl, Shr, Sub, Test, Xor,
    };
    let plain = matches!(
        instruction.mnemonic(),
        Add | And
            | Cmp
            | Dec
            | Inc
            | Mov
            | Movsx
            | Movsxd
            | Movzx
            | Neg
            | Nop
            | Not
            | Or
            | Pop
            | Push
            | Sar
            | Shl
            | Shr
            | Sub
            | Test
            | Xor
    );
    let registers = (0..instruction.op_count()).all(|operand| match instruction.op_kind(operand) {
        OpKind::Register => instruction.op_register(operand).is_gpr(),
        OpKind::Memory => false,
        _ => true,
    });
    plain && registers || instruction.code() == Code::Retnq
}

/// What an instruction does with CR8, and its register.
#[derive(Clone, Copy, Debug)]
pub(super) enum Level {
    Read(u8),
    Write(u8),
}

impl Level {
    fn register(self) -> u8 {
        match self {
            Self::Read(register) | Self::Write(register) => register,
        }
    }

    fn code(self) -> Vec<u8> {
        match self {
            Self::Read(register) => read_level(register),
            Self::Write(register) => write_level(register),
        }
    }
}

impl Mapping {
    /// Makes a read or a write of CR8 cheap from now on. False if that cannot be done: it keeps its fault.
    pub(super) fn patch_level(&mut self, instruction: &Instruction, level: Level) -> bool {
        // A level in the stack pointer is nonsense, and would leave no stack.
        if level.register() == 4 || !self.trampolines.tried.insert(instruction.ip()) {
            return false;
        }
        self.patch_to_padding(instruction, level).or_else(|| self.patch_with_next(instruction, level)).is_some()
    }

    fn offset(&self, address: u64) -> usize {
        self.rva(address) as usize
    }

    fn bytes(&self, start: u32, size: u32) -> Option<&[u8]> {
        let file = &self.file;
        let section = file.section_at(start).filter(|section| section.executable)?;
        if start + size > section.start + section.size {
            return None;
        }
        // SAFETY: a section of code is mapped and readable, and nobody writes it meanwhile.
        Some(unsafe { std::slice::from_raw_parts((self.base() + start as usize) as *const u8, size as usize) })
    }

    fn level_piece(&mut self, instruction: &Instruction, level: Level, more: &[u8], back_to: u64) -> Option<u64> {
        let mut code = level.code();
        code.extend_from_slice(more);
        let offset = self.trampolines.next()?;
        let end = (self.base() + offset + code.len()) as u64;
        code.extend(jump(end, back_to)?);
        if let Level::Write(_) = level {
            code.resize(std::mem::offset_of!(WritePiece, routine), 0xcc);
            let routine = ksim_image_write_level as *const () as u64;
            code.extend([routine, instruction.ip(), instruction.next_ip()].into_iter().flat_map(u64::to_le_bytes));
        }
        self.trampolines.write(self.block(), offset, &code)
    }

    /// The first way.
    fn patch_to_padding(&mut self, instruction: &Instruction, level: Level) -> Option<()> {
        let site = self.rva(instruction.ip());
        let pad = self.find_padding(site)?;
        let piece = self.level_piece(instruction, level, &[], instruction.next_ip())?;
        let pad_address = (self.base() + pad as usize) as u64;
        let long = jump(pad_address, piece)?;
        overwrite(self.block(), pad as usize, &long)?;
        let distance = i8::try_from(i64::from(pad) - i64::from(site) - 2).ok()?;
        let offset = self.offset(instruction.ip());
        overwrite(self.block(), offset, &[0xeb, distance as u8])?;
        Some(())
    }

    /// Five bytes near by that nothing executes.
    fn find_padding(&self, site: u32) -> Option<u32> {
        let section = self.file.section_at(site)?;
        let first = (i64::from(site) + 2 - NEAR).max(i64::from(section.start)) as u32;
        let last = (i64::from(site) + 2 + NEAR).min(i64::from(section.start + section.size) - JUMP as i64) as u32;
        (first..=last).find(|&at| {
            let outside = (at..at + JUMP as u32).all(|at| self.file.function_at(at).is_none());
            let never = self.bytes(at, JUMP as u32).is_some_and(|bytes| bytes.iter().all(|&byte| byte == 0xcc));
            outside && (never || self.is_gap(at))
        })
    }

    /// True for bytes in a gap between two functions of the table in which there is nothing but padding.
    fn is_gap(&self, at: u32) -> bool {
        let functions = &self.file.functions;
        let after = functions.partition_point(|function| function.start <= at);
        let (Some(before), Some(next)) = (after.checked_sub(1).map(|index| functions[index]), functions.get(after)) else {
            return false;
        };
        let Some(size) = next.start.checked_sub(before.end).filter(|size| (JUMP as u32..64).contains(size)) else { return false };
        let Some(bytes) = self.bytes(before.end, size) else { return false };
        at >= before.end
            && at + JUMP as u32 <= next.start
            && Decoder::new(64, bytes, DecoderOptions::NONE)
                .iter()
                .all(|instruction| matches!(instruction.mnemonic(), iced_x86::Mnemonic::Nop | iced_x86::Mnemonic::Int3))
    }

    /// The second way.
    fn patch_with_next(&mut self, instruction: &Instruction, level: Level) -> Option<()> {
        const EXCEPTION_FLAGS: u32 = 0x18;
        let site = self.rva(instruction.ip());
        let function = self.file.function_at(site)?;
        // A handler may let control go on anywhere in its function.
        if self.file.word(function.unwind)? & EXCEPTION_FLAGS != 0 {
            return None;
        }
        let bytes = self.bytes(function.start, function.end - function.start)?;
        let start = (self.base() + function.start as usize) as u64;
        let mut next = None;
        for other in Decoder::with_ip(64, bytes, start, DecoderOptions::NONE).iter() {
            // So may a table of addresses.
            if other.is_invalid() || other.flow_control() == FlowControl::IndirectBranch {
                return None;
            }
            if other.ip() == instruction.next_ip() {
                next = Some(other);
            }
        }
        let next = next?;
        if !may_move(&next) || next.next_ip() > start + u64::from(function.end - function.start) {
            return None;
        }
        let targets = match self.trampolines.targets.take() {
            Some(targets) => targets,
            None => self.branch_targets(),
        };
        let is_target = targets.range(instruction.ip() + 1..next.next_ip()).next().is_some();
        self.trampolines.targets = Some(targets);
        if is_target {
            return None;
        }
        let moved = self.bytes(self.rva(next.ip()), next.len() as u32)?.to_vec();
        let piece = self.level_piece(instruction, level, &moved, next.next_ip())?;
        let code = jump(instruction.ip(), piece)?;
        let offset = self.offset(instruction.ip());
        overwrite(self.block(), offset, &code)?;
        Some(())
    }

    fn branch_targets(&self) -> BTreeSet<u64> {
        let file: &File = &self.file;
        let mut targets = BTreeSet::new();
        for function in &file.functions {
            let Some(bytes) = self.bytes(function.start, function.end - function.start) else { continue };
            let start = (self.base() + function.start as usize) as u64;
            for instruction in Decoder::with_ip(64, bytes, start, DecoderOptions::NONE).iter() {
                if matches!(instruction.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64) {
                    targets.insert(instruction.near_branch_target());
                }
            }
        }
        targets
    }

    /// Makes a copy of an instruction that reads its memory operand from another place, and goes on behind the original. Returns
    /// where the copy is.
    pub(super) fn elsewhere(&mut self, instruction: &Instruction, place: u64) -> Option<u64> {
        // The place belongs to the address that is read, which may differ from one execution to the next.
        let key = (instruction.ip(), place);
        if let Some(&address) = self.trampolines.elsewhere.get(&key) {
            return Some(address);
        }
        let mut copy = *instruction;
        match copy.code() {
            Code::Mov_AL_moffs8 => copy.set_code(Code::Mov_r8_rm8),
            Code::Mov_AX_moffs16 => copy.set_code(Code::Mov_r16_rm16),
            Code::Mov_EAX_moffs32 => copy.set_code(Code::Mov_r32_rm32),
            Code::Mov_RAX_moffs64 => copy.set_code(Code::Mov_r64_rm64),
            _ => {}
        }
        let operands = (0..copy.op_count()).filter(|&operand| copy.op_kind(operand) == OpKind::Memory).count();
        if operands != 1 || copy.flow_control() != FlowControl::Next || copy.has_rep_prefix() || copy.has_repne_prefix() {
            return None;
        }
        copy.set_segment_prefix(Register::None);
        copy.set_memory_base(Register::RIP);
        copy.set_memory_index(Register::None);
        copy.set_memory_index_scale(1);
        copy.set_memory_displ_size(8);
        copy.set_memory_displacement64(place);
        // The last place is for what finds no room to stay: it is left as soon as it was run.
        let (offset, kept) = match self.trampolines.next() {
            Some(offset) => (offset, true),
            None => (self.trampolines.start + Trampolines::BYTES - PIECE, false),
        };
        let start = (self.base() + offset) as u64;
        let mut encoder = Encoder::new(64);
        let length = encoder.encode(&copy, start).ok()?;
        let mut code = encoder.take_buffer();
        code.extend(jump(start + length as u64, instruction.next_ip())?);
        let address = self.trampolines.write(self.block(), offset, &code)?;
        if kept {
            self.trampolines.elsewhere.insert(key, address);
        }
        Some(address)
    }
}
