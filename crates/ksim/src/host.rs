//! What the host knows about memory.

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
