//! What the host knows about memory.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// True when an address is known to lie in a loaded image, so that what is there is a static, which is the same one as long as the process lives.
#[cfg(unix)]
pub(crate) fn is_static(address: usize) -> bool {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::uninit();
    // SAFETY: the address is only looked up, and the structure is valid for writes.
    let found = unsafe { libc::dladdr(std::ptr::without_provenance(address), info.as_mut_ptr()) };
    found != 0
}

/// True when an address is known to lie in a loaded image. Not known on this host.
#[cfg(not(unix))]
pub(crate) fn is_static(_address: usize) -> bool {
    false
}

/// Held by the machine that uses objects in statics: they are the same ones for all machines of the process, which have them one after the other.
static STATICS: Mutex<()> = Mutex::new(());

/// Waits until no other machine uses statics, and keeps others from it.
pub(crate) fn claim_statics() -> MutexGuard<'static, ()> {
    // What it guards is not changed by a panic.
    STATICS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// True when an address lies in the program's own image, where the statics of drivers under test are.
pub(crate) fn is_in_program(address: usize) -> bool {
    static PROGRAM: OnceLock<Range<usize>> = OnceLock::new();
    PROGRAM.get_or_init(program).contains(&address)
}

/// Where the data of the program begins and ends: of the image that this function is linked into.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn program() -> Range<usize> {
    /// The image that has a certain address, and its writable segments from first to last.
    struct Search {
        address: usize,
        found: Range<usize>,
    }

    unsafe extern "C" fn look(info: *mut libc::dl_phdr_info, _: usize, search: *mut libc::c_void) -> libc::c_int {
        // SAFETY: the loader passes a description of an image.
        let info = unsafe { &*info };
        // SAFETY: this is what `dl_iterate_phdr` was given below, which nothing else uses meanwhile.
        let search = unsafe { &mut *search.cast::<Search>() };
        // SAFETY: the image has so many headers there.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        let loaded = headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W != 0);
        let base = info.dlpi_addr as usize;
        let ranges = loaded.map(|header| {
            let start = base.wrapping_add(header.p_vaddr as usize);
            start..start + header.p_memsz as usize
        });
        let whole = ranges.reduce(|all, one| all.start.min(one.start)..all.end.max(one.end)).unwrap_or(0..0);
        let is_it = whole.contains(&search.address);
        if is_it {
            search.found = whole;
        }
        is_it.into()
    }

    let mut search = Search { address: (&raw const STATICS).addr(), found: 0..0 };
    // SAFETY: the function is called with this structure only, before the call returns.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut search).cast()) };
    search.found
}

/// Not known on this host.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn program() -> Range<usize> {
    0..0
}
