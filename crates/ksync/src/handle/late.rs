//! Handles that could not be closed where they were dropped.
//!
//! Closing needs `PASSIVE_LEVEL`. A handle that is dropped above it is put into a list of the image's; the next handle that is opened or dropped at `PASSIVE_LEVEL`
//! closes it, or [`drain`](crate::driver::drain) does.

use core::ptr::NonNull;

use ksync_sys as sys;

use crate::driver::image::Image;
use crate::driver::list::Node;
use crate::pool::KBox;

/// A handle that is to be closed.
#[repr(C)]
struct Late {
    node: Node,
    handle: sys::HANDLE,
}

/// Puts a handle into the list. False if that is impossible, for want of memory or above `DISPATCH_LEVEL`.
///
/// # Safety
/// The handle is open, a kernel handle, and the caller gives up the right to close it.
pub(super) unsafe fn defer(handle: sys::HANDLE) -> bool {
    let Ok(late) = KBox::new(Late { node: Node::new(), handle }) else { return false };
    // Above `DISPATCH_LEVEL` there was no memory, so that this is below, where lists can be locked.
    let Some(mut list) = Image::this().handles.lock() else { return false };
    // SAFETY: the node is new, and stays in its place until it is taken out by `close_all`.
    unsafe { list.insert(KBox::into_raw(late).cast()) };
    true
}

/// Closes the handles of the list.
///
/// # IRQL
/// `PASSIVE_LEVEL`.
pub(crate) fn close_all(image: &Image) {
    if !image.handles.was_used() {
        return;
    }
    while let Some(late) = next(image) {
        // SAFETY: by the contract of `defer` the handle is open and ours to close. It is closed once, because it was taken out of the list. IRQL: by this function's contract.
        let _ = unsafe { sys::ZwClose(late.handle) };
    }
}

/// Takes a handle out of the list.
fn next(image: &Image) -> Option<KBox<Late>> {
    let mut list = image.handles.lock()?;
    let node = list.nodes().next()?;
    // SAFETY: the node was found in this list.
    unsafe { list.remove(node) };
    drop(list);
    let late = NonNull::new(node)?;
    // SAFETY: the nodes of this list are the first fields of `Late`s that `defer` gave up, and this one is in the list no more.
    Some(unsafe { KBox::from_raw(late.as_ptr().cast()) })
}
