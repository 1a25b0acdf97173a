//! The address space that images live in.
//!
//! One range is reserved for the whole process when the first image is loaded. So a pointer is told to be into an image by one
//! comparison, and code in one part of the range reaches every other part with a 32-bit displacement.

use std::io;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes of the range: what a 32-bit displacement spans.
const SIZE: usize = 1 << 31;
const PAGE: usize = 4096;

static BASE: AtomicUsize = AtomicUsize::new(0);
/// 0 until the range is reserved.
static RESERVED: AtomicUsize = AtomicUsize::new(0);
/// The free parts, in order of address.
static FREE: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// True when an address is in the range.
#[inline]
pub(crate) fn contains(address: usize) -> bool {
    address.wrapping_sub(BASE.load(Ordering::Relaxed)) < RESERVED.load(Ordering::Relaxed)
}

/// What may be done with pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    None,
    Read,
    Write,
    Execute,
}

impl Access {
    fn flags(self) -> i32 {
        match self {
            Self::None => libc::PROT_NONE,
            Self::Read => libc::PROT_READ,
            Self::Write => libc::PROT_READ | libc::PROT_WRITE,
            Self::Execute => libc::PROT_READ | libc::PROT_EXEC,
        }
    }
}

/// Pages of the range, zeroed and inaccessible at first. They are given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Block {
    start: usize,
    size: usize,
}

fn reserve(free: &mut Vec<(usize, usize)>) -> io::Result<()> {
    if RESERVED.load(Ordering::Relaxed) != 0 {
        return Ok(());
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh anonymous mapping touches nothing that exists.
    let memory = unsafe { libc::mmap(null_mut(), SIZE, libc::PROT_NONE, flags, -1, 0) };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    BASE.store(memory as usize, Ordering::Relaxed);
    RESERVED.store(SIZE, Ordering::Relaxed);
    free.push((memory as usize, SIZE));
    Ok(())
}

impl Block {
    /// Takes so many bytes, a multiple of a page.
    pub(crate) fn new(size: usize) -> io::Result<Self> {
        assert!(size != 0 && size.is_multiple_of(PAGE), "ksim: {size} bytes are no pages");
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        reserve(&mut free)?;
        let Some(index) = free.iter().position(|&(_, bytes)| bytes >= size) else {
            return Err(io::Error::other("there is no room for another image"));
        };
        let (start, bytes) = free[index];
        if bytes == size {
            free.remove(index);
        } else {
            free[index] = (start + size, bytes - size);
        }
        Ok(Self { start, size })
    }

    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// Sets what may be done with pages of the block.
    pub(crate) fn protect(&self, offset: usize, size: usize, access: Access) -> io::Result<()> {
        assert!(offset.checked_add(size).is_some_and(|end| end <= self.size), "ksim: pages outside their block");
        // SAFETY: the pages are the block's own.
        let result = unsafe { libc::mprotect((self.start + offset) as *mut _, size, access.flags()) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        // SAFETY: the pages are the block's own, and nothing refers to them any more.
        let memory = unsafe { libc::mmap(self.start as *mut _, self.size, libc::PROT_NONE, flags, -1, 0) };
        if memory == libc::MAP_FAILED {
            // The pages stay as they are, and are not used again.
            return;
        }
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let at = free.partition_point(|&(start, _)| start < self.start);
        free.insert(at, (self.start, self.size));
        // Neighbours are joined.
        if at + 1 < free.len() && free[at].0 + free[at].1 == free[at + 1].0 {
            free[at].1 += free[at + 1].1;
            free.remove(at + 1);
        }
        if at > 0 && free[at - 1].0 + free[at - 1].1 == free[at].0 {
            free[at - 1].1 += free[at].1;
            free.remove(at);
        }
    }
}
