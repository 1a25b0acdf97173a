//! Special pool's pages: a block has pages of its own, those next to them are never there, and those of a freed block are not either.
//!
//! One range of addresses is reserved for the whole process when somebody asks first. OS threads take parts of it, and keep what they have for their next machines: to change what may be
//! done with a page takes a microsecond or two, to map one several times that. What an OS thread has when it ends, the next that asks takes over.

use super::PAGE;
use std::cell::{Cell, RefCell};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Bytes of the range, and of the part of it that an OS thread takes at a time.
const RANGE: usize = 1 << 36;
const PART: usize = 4 << 20;
/// The most pages that a block has.
const MOST_PAGES: usize = 64;
/// How many blocks an OS thread keeps as they are that runs of searches behind the first have left allocated.
const MOST_LEFT: usize = 256;
/// How many pages may be opened.
const MOST_OPENED: usize = 64;

/// Where the range begins; 0 if the host had no room for it.
static BASE: OnceLock<usize> = OnceLock::new();
static TAKEN: AtomicUsize = AtomicUsize::new(0);
/// What OS threads had that have ended.
static LEFT_OVER: Mutex<Vec<Slots>> = Mutex::new(Vec::new());

thread_local! {
    static KEPT: RefCell<Kept> = RefCell::new(Kept(left_over().pop().unwrap_or_default()));
    static OPENED: [Cell<usize>; MOST_OPENED] = const { [const { Cell::new(0) }; MOST_OPENED] };
}

/// What an OS thread has of the range.
#[derive(Default)]
struct Slots {
    /// Places for blocks of so many pages that nobody uses.
    free: Vec<Vec<usize>>,
    /// The rest of the part that was taken last.
    next: usize,
    end: usize,
    left: usize,
}

struct Kept(Slots);

impl Drop for Kept {
    fn drop(&mut self) {
        // Who takes them over has left nothing yet.
        left_over().push(Slots { left: 0, ..std::mem::take(&mut self.0) });
    }
}

fn left_over() -> std::sync::MutexGuard<'static, Vec<Slots>> {
    LEFT_OVER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reserves the range.
fn reserve() -> usize {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh anonymous mapping touches nothing that exists.
    let memory = unsafe { libc::mmap(null_mut(), RANGE, libc::PROT_NONE, flags, -1, 0) };
    if memory == libc::MAP_FAILED { 0 } else { memory.addr() }
}

/// True for an address in the range.
pub(super) fn contains(address: usize) -> bool {
    BASE.get().is_some_and(|&base| base != 0 && address.wrapping_sub(base) < RANGE)
}

/// Lets pages of the range be used, or takes them away. False if the host refuses, which leaves them as they are.
pub(super) fn protect(start: usize, bytes: usize, there: bool) -> bool {
    debug_assert!(contains(start) && contains(start + bytes), "pages outside the range");
    let access = if there { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_NONE };
    // SAFETY: the pages are special pool's, and what they hold is its blocks.
    unsafe { libc::mprotect(start as *mut _, bytes, access) == 0 }
}

/// Gives pages back that were taken away.
///
/// # Panics
/// If the host refuses: what is there by the machine's account is not.
pub(super) fn bring_back(start: usize, bytes: usize) {
    assert!(protect(start, bytes, true), "ksim: the host does not give pool's pages back: {}", std::io::Error::last_os_error());
}

impl Slots {
    fn take(&mut self, pages: usize) -> Option<usize> {
        let start = match self.free.get_mut(pages).and_then(Vec::pop) {
            Some(start) => start,
            None => self.carve(pages)?,
        };
        if protect(start, pages * PAGE, true) {
            return Some(start);
        }
        self.give_back(start, pages);
        None
    }

    /// Takes pages that nobody has had, with one in front of them and one behind.
    fn carve(&mut self, pages: usize) -> Option<usize> {
        let bytes = (pages + 2) * PAGE;
        if self.end - self.next < bytes {
            let base = *BASE.get_or_init(reserve);
            let offset = TAKEN.fetch_add(PART, Ordering::Relaxed);
            if base == 0 || offset.checked_add(PART).is_none_or(|end| end > RANGE) {
                return None;
            }
            (self.next, self.end) = (base + offset, base + offset + PART);
        }
        let start = self.next + PAGE;
        self.next += bytes;
        Some(start)
    }

    fn give_back(&mut self, start: usize, pages: usize) {
        if self.free.len() <= pages {
            self.free.resize_with(pages + 1, Vec::new);
        }
        self.free[pages].push(start);
    }
}

/// So many pages, which are there. None if the host has no more, or they are too many.
pub(super) fn take(pages: usize) -> Option<usize> {
    if pages > MOST_PAGES {
        return None;
    }
    KEPT.try_with(|kept| kept.borrow_mut().0.take(pages)).ok().flatten()
}

/// Gives pages back that [`take`] gave.
pub(super) fn give_back(start: usize, pages: usize) {
    // Who has them while the OS thread ends has them for good.
    let _ = KEPT.try_with(|kept| kept.borrow_mut().0.give_back(start, pages));
}

/// A machine is over that has left these blocks allocated, by their pages. Statics of the process may point to them: those of single runs, and of the first run of a search, stay. Of
/// the others, an OS thread keeps some.
pub(super) fn leave(blocks: impl Iterator<Item = (usize, usize)>, stay: bool) {
    let blocks: Vec<_> = blocks.collect();
    let stay = stay
        || KEPT
            .try_with(|kept| {
                let left = &mut kept.borrow_mut().0.left;
                let stay = *left < MOST_LEFT;
                *left += if stay { blocks.len() } else { 0 };
                stay
            })
            // Who leaves them while the OS thread ends leaves them for good.
            .unwrap_or(true);
    for (start, pages) in blocks {
        if stay {
            // Without pages between them that are not there, many cost the host no more than one.
            protect(start - PAGE, (pages + 2) * PAGE, true);
        } else {
            protect(start, pages * PAGE, false);
            give_back(start, pages);
        }
    }
}

/// Lets the page of an address of a machine's pool be used until [`close`]. For the handler of its fault, where nothing may be allocated. False for what faults all the same, and for more
/// pages than there is room for.
pub(crate) fn open(address: usize) -> bool {
    let page = address & !(PAGE - 1);
    contains(address)
        && OPENED.with(|opened| {
            if opened.iter().any(|opened| opened.get() == page) {
                return false;
            }
            let free = opened.iter().find(|opened| opened.get() == 0);
            free.is_some_and(|free| {
                let opens = protect(page, PAGE, true);
                if opens {
                    free.set(page);
                }
                opens
            })
        })
}

/// Takes away what was opened.
pub(super) fn close() {
    // There is nothing to close while the OS thread ends: no machine runs on it any more.
    let _ = OPENED.try_with(|opened| {
        for opened in opened.iter().map(|opened| opened.replace(0)).filter(|&page| page != 0) {
            protect(opened, PAGE, false);
        }
    });
}
