//! Blocks of pool of any alignment: the one place that allocates and frees.
//!
//! The pool aligns to 16 bytes. A block for a larger alignment is larger by that alignment, and the address at which it begins is written just
//! before the aligned address that is handed out.

use core::alloc::Layout;
use core::mem;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicUsize, Ordering};

use ksync_sys as sys;

use super::Pool;
use crate::error::{NtError, Result};
use crate::irql::{self, Irql};

/// What the pool aligns to by itself on 64-bit Windows.
pub(crate) const NATURAL_ALIGN: usize = 16;

/// Allocates memory. What is not to be zeroed is uninitialised.
///
/// A layout of size zero takes no memory and is served at every level.
///
/// # IRQL
/// At most [`Pool::highest_irql`].
///
/// # Errors
/// - [`NtError::INSUFFICIENT_RESOURCES`] if there is no memory.
/// - [`NtError::IRQL_TOO_HIGH`] above that level.
pub(crate) fn allocate(pool: Pool, tag: u32, layout: Layout, zeroed: bool) -> Result<NonNull<u8>> {
    if layout.size() == 0 {
        return Ok(layout.dangling_ptr());
    }
    let level = irql::current();
    if level > pool.highest_irql() {
        return Err(NtError::IRQL_TOO_HIGH);
    }
    if is_natural(layout) {
        return allocate_block(pool, tag, layout.size(), zeroed, level);
    }
    // Pool of a page or more is aligned to pages, which is no help for less, so every such block is cut to measure: at least
    // `NATURAL_ALIGN` bytes lie between the block's beginning and the aligned address, and the beginning is written there.
    let size = layout.size().checked_add(layout.align()).ok_or(NtError::INSUFFICIENT_RESOURCES)?;
    let block = allocate_block(pool, tag, size, zeroed, level)?;
    let offset = layout.align() - (block.addr().get() & (layout.align() - 1));
    // SAFETY: the offset is at most the alignment, by which the block is larger than the layout's size.
    let aligned = unsafe { block.add(offset) };
    let beginning = aligned.cast::<NonNull<u8>>();
    // SAFETY: the block is aligned to 16, so the offset is at least 16 and the slot before the aligned address lies in the block.
    let beginning = unsafe { beginning.sub(1) };
    // SAFETY: the slot lies in the block, and is aligned because the address after it is.
    unsafe { beginning.write(block) };
    Ok(aligned)
}

/// Frees what [`allocate`] returned.
///
/// # IRQL
/// At most [`Pool::highest_irql`]; not checked.
///
/// # Safety
/// The memory came from [`allocate`] with the same tag, a layout of an alignment on the same side of [`NATURAL_ALIGN`], and a size that
/// was zero only if this one is. Nobody uses it any more. The level is not too high.
pub(crate) unsafe fn free(tag: u32, memory: NonNull<u8>, layout: Layout) {
    if layout.size() == 0 {
        return;
    }
    let block = if is_natural(layout) {
        memory
    } else {
        // SAFETY: for such a layout `allocate` wrote the block's beginning just before the memory.
        let beginning = unsafe { memory.cast::<NonNull<u8>>().sub(1) };
        // SAFETY: as above.
        unsafe { beginning.read() }
    };
    // SAFETY: the caller vouches that the block is one of `allocate`'s with this tag, and for the level.
    unsafe { sys::ExFreePoolWithTag(block.as_ptr().cast(), tag) };
}

/// Tells whether a block of one layout can serve as one of another, smaller one without moving.
///
/// It does so unless that would waste more than half of it. A block for a larger alignment can take the place of another such, because [`free`] finds the
/// beginning of both in the same way.
pub(crate) fn can_stay(memory: NonNull<u8>, old: Layout, new: Layout) -> bool {
    new.size() <= old.size()
        && new.size() > old.size() / 2
        && is_natural(old) == is_natural(new)
        && memory.addr().get().is_multiple_of(new.align())
}

/// Tells whether the pool aligns as this layout wants it by itself.
const fn is_natural(layout: Layout) -> bool {
    layout.align() <= NATURAL_ALIGN
}

/// Allocates a block from the pool itself, aligned to [`NATURAL_ALIGN`].
///
/// The caller has checked the level, and that the size is not zero. Every tag that gets here is valid.
fn allocate_block(pool: Pool, tag: u32, size: usize, zeroed: bool, level: Irql) -> Result<NonNull<u8>> {
    let block = match modern_allocator(level) {
        Some(allocate) => {
            let flags = pool.flags() | if zeroed { 0 } else { sys::POOL_FLAG_UNINITIALIZED };
            // SAFETY: this pool may be allocated at the present level, as the caller checked; the flags do not ask for an exception; size and tag are not zero.
            unsafe { allocate(flags, size, tag) }
        }
        None => {
            // SAFETY: as above, in the older routine's terms.
            let block = unsafe { sys::ExAllocatePoolWithTag(pool.pool_type(), size, tag) };
            if zeroed && !block.is_null() {
                // SAFETY: the block has the size that was asked for.
                unsafe { block.cast::<u8>().write_bytes(0, size) };
            }
            block
        }
    };
    NonNull::new(block.cast()).ok_or(NtError::INSUFFICIENT_RESOURCES)
}

/// `ExAllocatePool2`, where the running system has it and the level allows asking.
fn modern_allocator(level: Irql) -> Option<sys::ExAllocatePool2> {
    /// In [`FOUND`]: nobody asked yet.
    const UNASKED: usize = 0;
    /// In [`FOUND`]: the system does not have it.
    const ABSENT: usize = 1;
    /// The routine's address, or one of the two above.
    // SAFETY: the value is an integer that owns nothing and that may be used from everywhere.
    static FOUND: sys::ImageLocal<AtomicUsize> = unsafe { sys::ImageLocal::new(AtomicUsize::new(UNASKED)) };

    // SAFETY: the variable is there as long as the image whose code this is.
    let found = unsafe { &*FOUND.get() };
    let mut address = found.load(Ordering::Relaxed);
    if address == UNASKED {
        if level > Irql::PASSIVE {
            return None;
        }
        address = find_modern_allocator().unwrap_or(ABSENT);
        found.store(address, Ordering::Relaxed);
    }
    if address == ABSENT {
        return None;
    }
    // SAFETY: the address is that of the exported routine `ExAllocatePool2`, which has this signature. Exports are not unmapped.
    Some(unsafe { mem::transmute::<*const (), sys::ExAllocatePool2>(ptr::with_exposed_provenance(address)) })
}

/// Asks the system for the address of `ExAllocatePool2`.
fn find_modern_allocator() -> Option<usize> {
    /// The name in UTF-16.
    static NAME: [u16; 15] = {
        let (ascii, mut name, mut i) = (b"ExAllocatePool2", [0; 15], 0);
        while i < name.len() {
            name[i] = ascii[i] as u16;
            i += 1;
        }
        name
    };
    const LENGTH: u16 = size_of_val(&NAME) as u16;
    let name = sys::UNICODE_STRING { Length: LENGTH, MaximumLength: LENGTH, Buffer: NAME.as_ptr().cast_mut() };
    // SAFETY: the string is valid for the call, which only reads it. IRQL: the caller checked for PASSIVE_LEVEL.
    let address = unsafe { sys::MmGetSystemRoutineAddress(&raw const name) };
    (!address.is_null()).then(|| address.expose_provenance())
}
