//! Pool: every allocation accounted for, guarded on both sides, and kept for a while after it is freed.
//!
//! Most blocks are of special pool (`pool/special.rs`), as Driver Verifier's option of that name has it: they end where their pages do, with a page behind them that is not there, and their own
//! pages are not there any more once they are freed. What touches them is stopped where it does (`pool/touched.rs`). Other blocks are seen to be written outside, or after they were freed,
//! when they are looked at.

mod kept;
mod paging;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) mod special;
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
#[path = "pool/no_special.rs"]
mod special;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod touched;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) use touched::Toucher;

use super::kernel::{Check, Executing, Kernel};
use super::object::{Kind, ObjId};
use super::thread::Tid;
use crate::check::rules::RuleId;
use crate::config::Config;
use crate::irql::{APC_LEVEL, DISPATCH_LEVEL};
use crate::report::bug_check::Related;
use crate::report::bug_check::{Violation, codes};
use crate::report::sites::SiteId;
use crate::schedule::Event;
use std::alloc::Layout;
use std::collections::{BTreeMap, VecDeque};

/// Bytes on both sides of each block that a driver must not write. What is behind them is the host's allocator's, which does not survive it either. Most that go too far do so
/// at the end, by an element or a structure. In front of a block that begins a page there is a page.
const GUARD_IN_FRONT: usize = 64;
const GUARD_BEHIND: usize = 128;
const GUARD_BYTE: u8 = 0xfd;
/// What freed memory is filled with.
const FREED_BYTE: u8 = 0xdd;
/// How much freed memory is kept before it goes back to the host.
const QUARANTINE: usize = 16 << 20;
const PAGE: usize = 4096;
/// How many blocks of a machine have pages of their own at a time. The host has room for some 32,000 in a process; those above are ordinary ones.
const MOST_IN_PAGES: usize = 4096;

/// The fourth parameters of bug check 0xC1, for bytes in the pages of a block that were written: in front of it, and behind.
const CORRUPTED_IN_FRONT: u64 = 0x23;
const CORRUPTED_BEHIND: u64 = 0x24;

/// Where a block is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Memory {
    /// With others, between guards.
    Heap,
    /// In pages of its own, at their end.
    Pages,
    /// The same, and a lookaside list keeps it: they are not there until that gives it out again.
    Kept,
    /// The same, and it was freed, and they were taken away.
    Gone,
}

/// Why an allocation failed, where the caller may know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PoolBlock {
    pub(crate) size: usize,
    pub(crate) tag: u32,
    pub(crate) paged: bool,
    pub(crate) driver: Option<u16>,
    /// Its place among all allocations.
    pub(crate) order: u64,
    /// Stands for it among others that drivers have: that and who allocated it, and how many he had before, say the same. 0 for the system's.
    name: u16,
    /// It holds an object of the system's, which is no driver's to free.
    pub(crate) system: bool,
    /// Where it was allocated, and freed, if that is recorded.
    pub(crate) allocated_at: Option<SiteId>,
    pub(crate) freed_at: Option<SiteId>,
    memory: Memory,
    /// The lookaside list that has given it out, if it is known which; otherwise 0.
    list: usize,
}

impl PoolBlock {
    /// A block of nobody's that is to be allocated.
    fn new(size: usize, tag: u32, order: u64) -> Self {
        Self {
            size,
            tag,
            paged: false,
            driver: None,
            order,
            name: 0,
            system: false,
            allocated_at: None,
            freed_at: None,
            memory: Memory::Heap,
            list: 0,
        }
    }

    /// The host's memory for it and its guards, where it has no pages of its own.
    fn layout(&self) -> Layout {
        // Page-sized and larger blocks are page-aligned, smaller ones 16-aligned, as in NT on 64-bit systems.
        let align = if self.size >= PAGE { PAGE } else { 16 };
        Layout::from_size_align(self.bytes(), align).expect("ksim: the size was checked when the block was allocated")
    }

    /// What of that is in front of the block.
    fn front(&self) -> usize {
        match (self.memory, self.size >= PAGE) {
            (Memory::Heap, true) => PAGE,
            (Memory::Heap, false) => GUARD_IN_FRONT,
            (_, true) => 0,
            // As far behind as the alignment of blocks lets it be.
            (_, false) => PAGE - self.size.next_multiple_of(16),
        }
    }

    /// What of it is behind the block.
    fn behind(&self) -> usize {
        match self.memory {
            Memory::Heap => GUARD_BEHIND,
            _ => self.pages() * PAGE - self.front() - self.size,
        }
    }

    /// The size of all that.
    fn bytes(&self) -> usize {
        self.front() + self.size + self.behind()
    }

    /// How many pages it needs for itself.
    fn pages(&self) -> usize {
        self.size.div_ceil(PAGE)
    }

    /// The tag as its four characters.
    pub(crate) fn tag_text(&self) -> String {
        tag_text(self.tag)
    }

    /// Fills the guards of the block at an address.
    fn write_guards(&self, address: usize) {
        let front = self.front();
        // SAFETY: the host's memory begins there, and has room for the block and both guards.
        unsafe { ((address - front) as *mut u8).write_bytes(GUARD_BYTE, front) };
        // SAFETY: as above.
        unsafe { ((address + self.size) as *mut u8).write_bytes(GUARD_BYTE, self.behind()) };
    }

    /// How far outside the block an offset is.
    fn outside(&self, offset: isize) -> String {
        match usize::try_from(offset) {
            Ok(offset) if offset < self.size => String::new(),
            Ok(offset) if offset == self.size => ", right behind its end".to_owned(),
            Ok(offset) => format!(", {} bytes behind its end", offset - self.size),
            Err(_) if offset == -1 => ", right in front of it".to_owned(),
            Err(_) => format!(", {} bytes in front of it", offset.unsigned_abs()),
        }
    }

    /// Where it came from and went, for a report.
    fn related(&self) -> Vec<Related> {
        let what = |what: &str| format!("the block of {} bytes with tag '{}' was {what}", self.size, self.tag_text());
        let allocated = self.allocated_at.map(|site| Related { what: what("allocated"), site: Some(site) });
        let freed = self.freed_at.map(|site| Related { what: what("freed"), site: Some(site) });
        allocated.into_iter().chain(freed).collect()
    }
}

/// The first byte that is not as expected.
fn first_other(bytes: &[u8], expected: u8) -> Option<usize> {
    const STEP: usize = 16;
    let equal = bytes.chunks_exact(STEP).take_while(|chunk| **chunk == [expected; STEP]).count() * STEP;
    bytes[equal..].iter().position(|&byte| byte != expected).map(|rest| equal + rest)
}

/// A pool tag as its four characters, in memory order.
pub(crate) fn tag_text(tag: u32) -> String {
    tag.to_le_bytes().iter().map(|&byte| if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' }).collect()
}

/// All pool of a machine.
#[derive(Debug)]
pub(crate) struct Pool {
    /// By their first address.
    blocks: BTreeMap<usize, PoolBlock>,
    freed: BTreeMap<usize, PoolBlock>,
    quarantine: VecDeque<usize>,
    quarantined: usize,
    in_use: usize,
    limit: usize,
    allocations: u64,
    /// Blocks are of special pool.
    is_special: bool,
    /// What drivers leave allocated stays.
    stays: bool,
    /// Paged blocks have pages of their own, which are taken away at raised levels.
    takes_pages: bool,
    /// How many allocated blocks have pages of their own, and how many of these are taken away at raised levels.
    in_pages: usize,
    pageable: usize,
    /// They are not there.
    paged_out: bool,
    /// The entries that lookaside lists keep whose pages are not there, and what each has for the next one.
    kept: BTreeMap<usize, usize>,
    /// A block that was written after it was freed, and noticed where nobody could be told.
    written: Option<(usize, isize, PoolBlock)>,
    failing: Option<u64>,
}

impl Pool {
    /// A pool of no machine.
    pub(crate) fn new() -> Self {
        Self {
            blocks: BTreeMap::new(),
            freed: BTreeMap::new(),
            quarantine: VecDeque::new(),
            quarantined: 0,
            in_use: 0,
            limit: 0,
            allocations: 0,
            is_special: false,
            stays: true,
            takes_pages: false,
            in_pages: 0,
            pageable: 0,
            paged_out: false,
            kept: BTreeMap::new(),
            written: None,
            failing: None,
        }
    }

    /// True when nothing is or was in it, whatever was asked for.
    pub(crate) fn is_unused(&self) -> bool {
        self.blocks.is_empty() && self.freed.is_empty() && self.written.is_none()
    }

    /// Becomes that of no machine.
    pub(super) fn clear(&mut self) {
        if self.is_unused() {
            // What could have failed counts all the same.
            self.allocations = 0;
        } else {
            *self = Self::new();
        }
    }

    /// Becomes a new machine's.
    pub(super) fn set_up(&mut self, config: &Config) {
        (self.limit, self.failing) = (config.pool_limit, config.failing_allocation);
        self.is_special = config.has_special_pool();
        self.stays = !config.is_later;
        self.takes_pages = config.force_irql_checking && config.rules.has(RuleId::PagedObject);
    }

    /// Memory for a driver, or null when there is none.
    fn allocate(&mut self, request: PoolRequest, driver: Option<u16>, allocated_at: Option<SiteId>, name: u16) -> *mut u8 {
        let PoolRequest { size, tag, paged, .. } = request;
        let order = self.allocations + 1;
        self.allocate_block(PoolBlock { paged, driver, name, allocated_at, ..PoolBlock::new(size, tag, order) })
    }

    /// Zeroed memory for an object of the system's, whose tag is the beginning of the type's name; none when there is none.
    pub(crate) fn allocate_for_system(&mut self, size: usize, type_name: &str) -> Option<usize> {
        let mut tag = [b' '; 4];
        for (byte, character) in tag.iter_mut().zip(type_name.bytes()) {
            *byte = character;
        }
        let order = self.allocations + 1;
        let tag = u32::from_le_bytes(tag);
        let memory = self.allocate_block(PoolBlock { system: true, ..PoolBlock::new(size, tag, order) });
        if memory.is_null() {
            return None;
        }
        // SAFETY: the block is fresh and so large.
        unsafe { memory.write_bytes(0, size) };
        Some(memory as usize)
    }

    /// Takes memory back that [`allocate_for_system`](Self::allocate_for_system) gave.
    pub(crate) fn free_for_system(&mut self, memory: usize) {
        if let Some(block) = self.blocks.remove(&memory) {
            self.retire(memory, block);
        }
    }

    /// True for the address of an object of the system's that was deleted, and whose memory has not been used again.
    pub(crate) fn is_freed_for_system(&self, address: usize) -> bool {
        self.freed.get(&address).is_some_and(|block| block.system)
    }

    fn allocate_block(&mut self, mut block: PoolBlock) -> *mut u8 {
        let size = block.size;
        self.allocations += 1;
        let too_much = self.in_use.checked_add(size).is_none_or(|total| total > self.limit) || size > isize::MAX as usize / 2;
        if too_much || self.failing == Some(block.order) {
            return std::ptr::null_mut();
        }
        let pages = self.take_pages(&block);
        let start = match pages {
            Some(pages) => {
                block.memory = Memory::Pages;
                pages as *mut u8
            }
            // SAFETY: the layout is not zero-sized: it holds the guards at least.
            None => unsafe { std::alloc::alloc(block.layout()) },
        };
        if start.is_null() {
            return start;
        }
        // SAFETY: the block lies within the allocation.
        let memory = unsafe { start.add(block.front()) };
        block.write_guards(memory as usize);
        self.freed.remove(&(memory as usize));
        self.in_use += size;
        self.count_pages(&block, 1);
        self.blocks.insert(memory as usize, block);
        memory
    }

    /// Pages for a block that is to have its own, if there are any. The system's own blocks are no driver's to touch, and there are many.
    fn take_pages(&self, block: &PoolBlock) -> Option<usize> {
        let wants = !block.system && (self.is_special || self.takes_pages && block.paged);
        if wants && self.in_pages < MOST_IN_PAGES { special::take(block.pages()) } else { None }
    }

    /// A block has come to those that drivers have, or has left them.
    fn count_pages(&mut self, block: &PoolBlock, change: isize) {
        if block.memory != Memory::Heap {
            self.in_pages = self.in_pages.wrapping_add_signed(change);
            self.pageable = self.pageable.wrapping_add_signed(if self.takes_pages && block.paged { change } else { 0 });
        }
    }

    /// A byte outside the block that was written, the nearest that is behind it or else in front, as an offset.
    fn overrun(address: usize, block: &PoolBlock) -> Option<isize> {
        // SAFETY: the guard lies within the allocation, which the host has while the block is in a table.
        let behind = unsafe { std::slice::from_raw_parts((address + block.size) as *const u8, block.behind()) };
        if let Some(offset) = first_other(behind, GUARD_BYTE) {
            return Some((block.size + offset) as isize);
        }
        let front = block.front();
        // SAFETY: as above.
        let in_front = unsafe { std::slice::from_raw_parts((address - front) as *const u8, front) };
        first_other(in_front, GUARD_BYTE)?;
        let nearest = in_front.iter().rposition(|&byte| byte != GUARD_BYTE)?;
        Some(nearest as isize - front as isize)
    }

    /// A block was freed: it is filled, or its pages are taken away, and it is kept for a while.
    fn retire(&mut self, address: usize, mut block: PoolBlock) {
        self.count_pages(&block, -1);
        let in_pages = self.is_special && block.memory == Memory::Pages;
        if in_pages && special::protect(address - block.front(), block.bytes(), false) {
            block.memory = Memory::Gone;
        } else {
            // SAFETY: the block is allocated and so large.
            unsafe { (address as *mut u8).write_bytes(FREED_BYTE, block.size) };
        }
        self.in_use -= block.size;
        self.freed.insert(address, block);
        self.quarantine.push_back(address);
        self.quarantined += block.bytes();
        while self.quarantined > QUARANTINE
            && let Some(oldest) = self.quarantine.pop_front()
        {
            if let Some(block) = self.freed.remove(&oldest) {
                self.quarantined -= block.bytes();
                if let Some(offset) = Self::written_since(oldest, &block) {
                    self.written.get_or_insert((oldest, offset, block));
                }
                Self::give_back(oldest, &block);
            }
        }
    }

    /// Gives the host its memory back.
    fn give_back(address: usize, block: &PoolBlock) {
        let start = address - block.front();
        if block.memory == Memory::Heap {
            // SAFETY: the block was allocated with this layout, so far in front, and leaves the tables.
            unsafe { std::alloc::dealloc(start as *mut u8, block.layout()) };
        } else {
            special::give_back(start, block.pages());
        }
    }

    /// The block of a map that an address lies in, and its first address.
    fn find(blocks: &BTreeMap<usize, PoolBlock>, address: usize) -> Option<(usize, &PoolBlock)> {
        let (start, block) = blocks.range(..=address).next_back()?;
        (address < *start + block.size).then_some((*start, block))
    }

    /// What stands for the block that an address lies in, or has lain in.
    pub(crate) fn name_around(&self, address: usize) -> Option<u16> {
        let found = Self::find(&self.blocks, address).or_else(|| Self::find(&self.freed, address));
        found.map(|(_, block)| block.name).filter(|&name| name != 0)
    }

    /// True when an address lies in an allocated block.
    pub(crate) fn is_allocated(&self, address: usize) -> bool {
        Self::find(&self.blocks, address).is_some()
    }

    /// True when an address lies in an allocated block of paged pool.
    pub(crate) fn is_paged(&self, address: usize) -> bool {
        Self::find(&self.blocks, address).is_some_and(|(_, block)| block.paged)
    }

    /// The first byte of a freed block that was written since, or else one of its guards, as an offset.
    fn written_since(address: usize, block: &PoolBlock) -> Option<isize> {
        if block.memory == Memory::Gone {
            return None;
        }
        // SAFETY: freed blocks stay allocated with the host while they are in the table, and were filled when they were freed.
        let bytes = unsafe { std::slice::from_raw_parts(address as *const u8, block.size) };
        let kept = if block.tag == super::io::irp::TAG { super::io::irp::KEPT } else { 0..0 };
        let (first, rest) = bytes.split_at(kept.start.min(bytes.len()));
        let (_, rest) = rest.split_at(kept.len().min(rest.len()));
        let written = first_other(first, FREED_BYTE);
        let written = written.or_else(|| first_other(rest, FREED_BYTE).map(|offset| block.size - rest.len() + offset));
        written.map(|offset| offset as isize).or_else(|| Self::overrun(address, block))
    }

    /// The tag of the block that begins at an address.
    pub(crate) fn tag_of(&self, address: usize) -> Option<u32> {
        self.blocks.get(&address).map(|block| block.tag)
    }

    /// True for the beginning of a freed block whose memory is still there.
    pub(crate) fn is_kept(&self, address: usize) -> bool {
        self.freed.get(&address).is_some_and(|block| block.memory != Memory::Gone)
    }

    /// The tag of the freed block that begins at an address.
    pub(crate) fn freed_tag(&self, address: usize) -> Option<u32> {
        self.freed.get(&address).map(|block| block.tag)
    }

    /// Says which freed block an address lies in.
    pub(crate) fn describe_freed(&self, address: usize) -> Option<String> {
        let (start, block) = Self::find(&self.freed, address)?;
        Some(format!(
            "byte {} of a block of {} bytes with tag '{}' that has been freed",
            address - start,
            block.size,
            block.tag_text()
        ))
    }

    /// What drivers have allocated, in order of allocation.
    pub(crate) fn outstanding(&self) -> Vec<PoolBlock> {
        if self.is_unused() {
            return Vec::new();
        }
        let mut blocks: Vec<_> = self.blocks.values().filter(|block| !block.system).copied().collect();
        blocks.sort_by_key(|block| block.order);
        blocks
    }

    /// How many allocations have been asked for.
    pub(crate) fn allocations(&self) -> u64 {
        self.allocations
    }
}

impl Drop for Pool {
    /// Gives back what was freed. What the drivers left allocated stays, as a static of the process may still point to it, and a later machine's code may
    /// follow that pointer; but see [`special::leave`] for blocks in pages.
    fn drop(&mut self) {
        special::close();
        for (address, block) in std::mem::take(&mut self.freed) {
            Self::give_back(address, &block);
        }
        self.page(false);
        while let Some((&entry, _)) = self.kept.first_key_value() {
            self.give_out(entry);
        }
        let left = self.blocks.iter().filter(|(_, block)| block.memory == Memory::Pages);
        special::leave(left.map(|(address, block)| (address - block.front(), block.pages())), self.stays);
    }
}

/// How an allocation was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolRequest {
    pub(crate) size: usize,
    pub(crate) tag: u32,
    pub(crate) paged: bool,
    pub(crate) zeroed: bool,
}

impl Kernel {
    /// Allocates pool for a driver. Null when there is none.
    pub(crate) fn allocate_pool(&mut self, request: PoolRequest) -> Check<*mut u8> {
        let irql = self.irql();
        let highest = if request.paged { APC_LEVEL } else { DISPATCH_LEVEL };
        if irql > highest && self.config.rules.has(RuleId::IrqlExAllocatePool) {
            return Err(Violation::boxed(
                codes::BAD_POOL_CALLER,
                [0x8, u64::from(irql), u64::from(request.paged), request.size as u64],
                "pool was allocated at too high an IRQL",
            ));
        }
        self.check_pool_tag(request)?;
        let driver = self.current_driver();
        let site = self.site();
        let name = self.name_of_block();
        let memory = self.pool.allocate(request, driver, site, name);
        // From now on, each change of the level is looked at.
        self.attention |= self.pool.follows_level();
        if !memory.is_null() {
            let fill = if request.zeroed { 0 } else { 0xcd };
            // SAFETY: the block is fresh and so large.
            unsafe { memory.write_bytes(fill, request.size) };
        }
        Ok(memory)
    }

    fn check_pool_tag(&self, request: PoolRequest) -> Check<()> {
        let bad = |sub_code: u64, meaning: &'static str| {
            let parameters = [sub_code, u64::from(request.paged), request.size as u64, u64::from(request.tag)];
            Err(Violation::boxed(codes::BAD_POOL_CALLER, parameters, meaning))
        };
        if request.size == 0 {
            return bad(0x00, "zero bytes of pool were asked for");
        }
        if request.tag == 0 {
            return bad(0x9b, "pool was allocated with tag 0");
        }
        let bytes = request.tag.to_le_bytes();
        if &bytes == b"BIG " || &bytes == b"BIG\0" {
            return bad(0x9c, "pool was allocated with tag 'BIG'");
        }
        if !bytes.iter().any(u8::is_ascii_alphanumeric) {
            return bad(0x9d, "pool was allocated with a tag that has no letter and no digit");
        }
        Ok(())
    }

    /// One allocation of the system's own on a driver's behalf, such as a thread's stack: it can fail as pool does, and counts as
    /// an allocation for [`crate::Machine::fail_allocation`].
    pub(crate) fn fails_allocation(&mut self) -> bool {
        self.pool.allocations += 1;
        self.pool.failing == Some(self.pool.allocations)
    }

    /// Memory of the system's own, zeroed, on a driver's behalf: it counts as that driver's. Null when there is none.
    pub(crate) fn allocate_system(&mut self, size: usize, tag: u32, driver: Option<u16>) -> *mut u8 {
        let request = PoolRequest { size, tag, paged: false, zeroed: true };
        let site = self.site();
        let name = self.name_of_block();
        let memory = self.pool.allocate(request, driver, site, name);
        if !memory.is_null() {
            // SAFETY: the block is fresh and so large.
            unsafe { memory.write_bytes(0, size) };
        }
        memory
    }

    /// Where a block was allocated, for a report.
    pub(crate) fn allocation_of(&self, memory: usize) -> Vec<Related> {
        self.pool.blocks.get(&memory).map(PoolBlock::related).unwrap_or_default()
    }

    /// Frees memory of the system's own.
    pub(crate) fn release_system(&mut self, memory: usize) -> Check<()> {
        self.note_free(memory);
        let Some(block) = self.pool.blocks.get(&memory).copied() else {
            return Err(self.bad_free(memory));
        };
        self.release_block(memory, block)
    }

    /// The name of the next block that what runs allocates. It is the same in all runs in which that has done the same before.
    fn name_of_block(&mut self) -> u16 {
        let (owner, count) = match self.executing {
            Executing::Thread(tid) => (tid, &mut self.threads[tid as usize].allocated),
            _ => (Tid::MAX - Tid::from(self.cpu), &mut self.processors[self.cpu as usize].allocated),
        };
        *count = count.wrapping_add(1);
        let spread = (u64::from(owner) << 32 | u64::from(*count)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        1 + ((spread >> 48) as u16).min(u16::MAX - 2)
    }

    /// Tells the policy that a block is about to be freed, or is tried to be.
    fn note_free(&mut self, memory: usize) {
        if self.observed
            && let Some(actor) = self.actor()
            && let Some(block) = self.pool.name_around(memory)
        {
            self.policy.observe(Event::Frees { actor, block });
        }
    }

    /// Frees pool. `tag` 0 accepts any.
    pub(crate) fn free_pool(&mut self, memory: usize, tag: u32) -> Check<()> {
        self.note_free(memory);
        let irql = self.irql();
        let block = self.pool.blocks.get(&memory).copied();
        let Some(block) = block.filter(|block| !block.system && block.memory != Memory::Kept) else {
            return Err(self.bad_free(memory));
        };
        let highest = if block.paged { APC_LEVEL } else { DISPATCH_LEVEL };
        if irql > highest && self.config.rules.has(RuleId::IrqlExFree) {
            return Err(Violation::boxed(
                codes::BAD_POOL_CALLER,
                [0x9, u64::from(irql), u64::from(block.paged), memory as u64],
                "pool was freed at too high an IRQL",
            ));
        }
        if tag != 0 && tag != block.tag {
            return Err(Violation::boxed_owned(
                codes::BAD_POOL_CALLER,
                [0xa, memory as u64, u64::from(block.tag), u64::from(tag)],
                format!("a block with tag '{}' was freed with tag '{}'", block.tag_text(), tag_text(tag)),
            ));
        }
        self.release_block(memory, block)
    }

    /// Takes a block back, if nobody has written behind it and nothing in it is in use.
    fn release_block(&mut self, memory: usize, block: PoolBlock) -> Check<()> {
        self.pool.page(false);
        self.check_overrun(memory, &block)?;
        self.check_freed_objects(memory, &block)?;
        if self.overrun_rule(&block).is_some_and(|rule| !self.config.rules.has(rule)) {
            // What is found there later was written later.
            block.write_guards(memory);
        }
        self.pool.blocks.remove(&memory);
        self.lock_order.forget(memory..memory + block.size);
        let block = PoolBlock { freed_at: self.site(), ..block };
        self.pool.retire(memory, block);
        self.check_written()
    }

    fn check_written(&self) -> Check<()> {
        match &self.pool.written {
            Some((address, offset, block)) => self.written_after_free(*address, *offset, block),
            None => Ok(()),
        }
    }

    /// The rule that what is next to a block is not written.
    fn overrun_rule(&self, block: &PoolBlock) -> Option<RuleId> {
        match block.memory {
            // Paged blocks may have pages without being special.
            Memory::Pages if self.pool.is_special => Some(RuleId::SpecialPoolCorruption),
            Memory::Heap | Memory::Pages => Some(RuleId::PoolOverrun),
            // What a lookaside list keeps was looked at when it got it.
            Memory::Kept | Memory::Gone => None,
        }
    }

    fn check_overrun(&self, memory: usize, block: &PoolBlock) -> Check<()> {
        let Some(rule) = self.overrun_rule(block) else { return Ok(()) };
        if !self.config.rules.has(rule) {
            return Ok(());
        }
        let Some(offset) = Pool::overrun(memory, block) else { return Ok(()) };
        let written = memory.wrapping_add_signed(offset) as u64;
        let (code, parameters) = if rule == RuleId::PoolOverrun {
            let parameters = [codes::verifier::POOL_OVERRUN, memory as u64, written, block.size as u64];
            (codes::DRIVER_VERIFIER_DETECTED_VIOLATION, parameters)
        } else {
            let place = if offset < 0 { CORRUPTED_IN_FRONT } else { CORRUPTED_BEHIND };
            (codes::SPECIAL_POOL_DETECTED_MEMORY_CORRUPTION, [memory as u64, written, 0, place])
        };
        let mut fault = Violation::boxed_owned(
            code,
            parameters,
            format!(
                "byte {offset} of a block of {} bytes with tag '{}' was written{}",
                block.size,
                block.tag_text(),
                block.outside(offset)
            ),
        );
        fault.related = block.related();
        Err(fault)
    }

    fn written_after_free(&self, address: usize, offset: isize, block: &PoolBlock) -> Check<()> {
        if !self.config.rules.has(RuleId::PoolWrittenAfterFree) {
            return Ok(());
        }
        let mut fault = Violation::boxed_owned(
            codes::DRIVER_CAUGHT_MODIFYING_FREED_POOL,
            [address.wrapping_add_signed(offset) as u64, address as u64, block.size as u64, 0],
            format!(
                "byte {offset} of a block of {} bytes with tag '{}' was written after it was freed{}",
                block.size,
                block.tag_text(),
                block.outside(offset)
            ),
        );
        fault.related = block.related();
        Err(fault)
    }

    /// The run is over: what was written that nobody has looked at since?
    pub(crate) fn check_pool_at_end(&mut self) -> Check<()> {
        if self.pool.is_unused() {
            return Ok(());
        }
        self.pool.page(false);
        self.check_written()?;
        let mut freed: Vec<_> = self.pool.freed.iter().collect();
        freed.sort_by_key(|(_, block)| block.order);
        for (&address, block) in freed {
            if let Some(offset) = Pool::written_since(address, block) {
                self.written_after_free(address, offset, block)?;
            }
        }
        let mut left: Vec<_> = self.pool.blocks.iter().collect();
        left.sort_by_key(|(_, block)| block.order);
        for (&address, block) in left {
            self.check_overrun(address, block)?;
        }
        Ok(())
    }

    /// Checks that an address is the start of a block, as a free of it would.
    pub(crate) fn check_allocated(&self, memory: usize) -> Check<()> {
        if self.pool.blocks.get(&memory).is_some_and(|block| !block.system) { Ok(()) } else { Err(self.bad_free(memory)) }
    }

    #[cold]
    fn bad_free(&self, memory: usize) -> super::Fault {
        let kept = self.pool.blocks.get(&memory).filter(|block| block.memory == Memory::Kept);
        if let Some(block) = self.pool.freed.get(&memory).or(kept) {
            let mut fault = Violation::boxed_owned(
                codes::BAD_POOL_CALLER,
                [0x7, 0, u64::from(block.tag), memory as u64],
                format!("a block with tag '{}' was freed twice", block.tag_text()),
            );
            fault.related = block.related();
            return fault;
        }
        Violation::boxed(
            codes::BAD_POOL_CALLER,
            [0x46, memory as u64, 0, 0],
            "an address was freed that is not the start of a pool block",
        )
    }

    /// No object in use may lie in memory that is freed; the idle ones leave the table.
    fn check_freed_objects(&mut self, memory: usize, block: &PoolBlock) -> Check<()> {
        let objects = self.objects.in_range(memory, block.size);
        for &id in &objects {
            self.check_freed_object(id, memory, block.size)?;
        }
        for id in objects {
            if matches!(self.objects[id].kind, Kind::Queue(_)) {
                self.forget_queue(id);
            }
            self.objects.remove(id);
        }
        Ok(())
    }

    /// Why an object's memory must not go: the bug check, its first parameter, and the reason in words.
    pub(crate) fn problem_of_freeing(&self, id: ObjId) -> Option<(u32, u64, &'static str)> {
        let object = &self.objects[id];
        Some(match &object.kind {
            Kind::Timer(timer) if timer.armed.is_some() => {
                (codes::DRIVER_VERIFIER_DETECTED_VIOLATION, codes::verifier::FREED_ACTIVE_TIMER, "is armed")
            }
            Kind::Dpc(dpc) if dpc.queued_on.is_some() => (codes::TIMER_OR_DPC_INVALID, 1, "is queued"),
            // The memory is the system's: it goes with ExDeleteTimer.
            Kind::ExTimer(_) => (codes::TIMER_OR_DPC_INVALID, 0, "has not been deleted"),
            Kind::SpinLock(lock) if lock.owner.is_some() => {
                (codes::DRIVER_VERIFIER_DETECTED_VIOLATION, codes::verifier::DELETED_WHILE_OWNED, "is held")
            }
            Kind::FastMutex(mutex) if mutex.owner.is_some() => {
                (codes::DRIVER_VERIFIER_DETECTED_VIOLATION, codes::verifier::DELETED_WHILE_OWNED, "is owned")
            }
            Kind::Mutant(mutex) if mutex.owner.is_some() => {
                (codes::DRIVER_VERIFIER_DETECTED_VIOLATION, codes::verifier::DELETED_WHILE_OWNED, "is owned")
            }
            Kind::Resource(_) => {
                (codes::DRIVER_VERIFIER_DETECTED_VIOLATION, codes::verifier::FREED_ACTIVE_RESOURCE, "has not been deleted")
            }
            Kind::Lookaside => {
                (codes::DRIVER_VERIFIER_DETECTED_VIOLATION, codes::verifier::FREED_ACTIVE_LOOKASIDE, "has not been deleted")
            }
            Kind::WorkItem => (codes::WORKER_INVALID, 0, "is queued"),
            Kind::IoWorkItem(item) if item.queued => (codes::WORKER_INVALID, 2, "is queued"),
            Kind::Driver(_) | Kind::Device(_) | Kind::File(_) | Kind::IoWorkItem(_) => {
                (codes::BAD_POOL_CALLER, 0x46, "is the I/O manager's to free")
            }
            Kind::Irp(irp) if irp.is_the_systems() => (codes::BAD_POOL_CALLER, 0x46, "is the I/O manager's to free"),
            Kind::Rundown(rundown) if rundown.is_in_use() => {
                (codes::DRIVER_VERIFIER_DETECTED_VIOLATION, codes::verifier::DELETED_WHILE_OWNED, "is acquired, or waited for")
            }
            Kind::Queue(queue) if !queue.entries.is_empty() => {
                (codes::DRIVER_VERIFIER_DETECTED_VIOLATION, codes::verifier::DELETED_WHILE_OWNED, "has entries")
            }
            Kind::RemoveLock(lock) if !lock.users.is_empty() => {
                (codes::DRIVER_VERIFIER_DETECTED_VIOLATION, codes::verifier::DELETED_WHILE_OWNED, "is in use")
            }
            Kind::PushLock(lock) if lock.is_in_use() => {
                (codes::DRIVER_VERIFIER_DETECTED_VIOLATION, codes::verifier::DELETED_WHILE_OWNED, "is in use")
            }
            Kind::SpinRw(lock) if lock.is_held() => {
                (codes::DRIVER_VERIFIER_DETECTED_VIOLATION, codes::verifier::DELETED_WHILE_OWNED, "is held")
            }
            _ if !object.waiters.is_empty() => {
                (codes::DRIVER_VERIFIER_DETECTED_VIOLATION, codes::verifier::DELETED_WHILE_OWNED, "has waiters")
            }
            _ => return None,
        })
    }

    fn check_freed_object(&self, id: ObjId, start: usize, size: usize) -> Check<()> {
        let Some((code, first, problem)) = self.problem_of_freeing(id) else { return Ok(()) };
        let object = &self.objects[id];
        let parameters = if matches!(code, codes::TIMER_OR_DPC_INVALID | codes::WORKER_INVALID) {
            [first, object.address as u64, start as u64, (start + size) as u64]
        } else {
            [first, object.address as u64, start as u64, size as u64]
        };
        Err(Violation::boxed_owned(
            code,
            parameters,
            format!("pool was freed that holds {} #{}, which {problem}", object.kind.name(), object.number),
        ))
    }
}
