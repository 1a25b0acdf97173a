//! What the allocators of this library have in common, before it is put in the words of an allocator trait.

use core::alloc::Layout;
use core::ptr::NonNull;

/// A source of memory.
///
/// # Safety
/// - [`obtain`](Self::obtain) returns memory of at least the layout's size and alignment that nobody else uses, and that stays valid until it is given back or the
///   source is dropped. If asked for, it is zero. For a layout of size zero any aligned pointer will do, and nothing need be given back.
/// - Moving the source changes none of that, and all copies of the source are as good as the source.
/// - No method unwinds, except with a panic of code that the source's user supplied.
pub(crate) unsafe trait Memory {
    /// Obtains memory, or `None` where there is none, at this level or at all.
    fn obtain(&self, layout: Layout, zeroed: bool) -> Option<NonNull<u8>>;

    /// Gives memory back. Where that is not possible it is leaked.
    ///
    /// # Safety
    /// The memory came from this source's `obtain` with this layout, or from one of another size for which [`resize_in_place`](Self::resize_in_place) was true since. Nobody uses it any more.
    unsafe fn give_back(&self, memory: NonNull<u8>, layout: Layout);

    /// Tells whether memory of one layout serves for another, where it is. If so, it counts as obtained with the other.
    ///
    /// # Safety
    /// As for [`give_back`](Self::give_back), with the old layout, but that the memory may be in use. Neither size is zero.
    unsafe fn resize_in_place(&self, memory: NonNull<u8>, old: Layout, new: Layout) -> bool;
}

/// Changes the layout of memory, where it is or by moving it. What fits of the contents is kept, and the rest is zeroed if asked for.
///
/// `None` where there is no memory for it: then nothing has changed.
///
/// # Safety
/// As for [`Memory::give_back`], with the old layout; after a success, what is returned takes the old memory's place.
pub(crate) unsafe fn resize(
    source: &impl Memory,
    memory: NonNull<u8>,
    old: Layout,
    new: Layout,
    zeroed: bool,
) -> Option<NonNull<u8>> {
    // SAFETY: by the caller's contract; neither size is zero.
    if old.size() != 0 && new.size() != 0 && unsafe { source.resize_in_place(memory, old, new) } {
        if let Some(added) = new.size().checked_sub(old.size())
            && zeroed
        {
            // SAFETY: the memory has the new layout's size now, which is not less than the old one's.
            let end = unsafe { memory.add(old.size()) };
            // SAFETY: as above.
            unsafe { end.write_bytes(0, added) };
        }
        return Some(memory);
    }
    let fresh = source.obtain(new, zeroed)?;
    // SAFETY: both are as large as the smaller of the two sizes, and the fresh memory is nobody else's.
    unsafe { fresh.copy_from_nonoverlapping(memory, old.size().min(new.size())) };
    // SAFETY: by the caller's contract; the contents have moved.
    unsafe { source.give_back(memory, old) };
    Some(fresh)
}
