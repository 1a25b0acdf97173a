//! Queues of requests that can be cancelled while they are in it.

use core::cell::UnsafeCell;
use core::fmt;
use core::mem::offset_of;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicUsize, Ordering, fence};

use ksync_sys as sys;

use super::irp::{Disposition, Irp, PendingIrp, is_cancelled};
use crate::error::{NtError, NtStatus, Result};
use crate::irql::{self, Irql};
use crate::pool::KBox;

/// A queue of pending requests, first come first served. A request that is cancelled while it waits leaves the queue and is completed as `STATUS_CANCELLED`.
///
/// Dropping the queue completes what is in it as `STATUS_CANCELLED`.
///
/// # IRQL
/// Made, used and dropped at `<= DISPATCH_LEVEL`, and not under a spin lock.
///
/// # Examples
/// See [`Device`](super::Device).
#[doc(alias = "IO_CSQ")]
pub struct IrpQueue {
    /// # Invariants
    /// It is alive, and one of its users is this handle.
    shared: NonNull<Shared>,
}

// SAFETY: requests may be sent, and the queue is used under its lock.
unsafe impl Send for IrpQueue {}
// SAFETY: as above.
unsafe impl Sync for IrpQueue {}

/// A queue, in a block of nonpaged pool.
///
/// # Invariants
/// - `users` counts the handle, and each request until it has left the queue and the list is not touched for it any more.
/// - The list is touched under `lock` only. The requests in it are this queue's, and are valid: whoever gets a request's cancel routine back owns the request, and takes it out.
struct Shared {
    lock: UnsafeCell<sys::KSPIN_LOCK>,
    list: UnsafeCell<sys::LIST_ENTRY>,
    users: AtomicUsize,
}

/// The place of a request's links.
fn entry_of(irp: *mut sys::IRP) -> *mut sys::LIST_ENTRY {
    irp.wrapping_byte_add(offset_of!(sys::IRP, Tail) + offset_of!(sys::IRP_TAIL_OVERLAY, ListEntry)).cast()
}

fn irp_of(entry: *mut sys::LIST_ENTRY) -> *mut sys::IRP {
    entry.wrapping_byte_sub(offset_of!(sys::IRP, Tail) + offset_of!(sys::IRP_TAIL_OVERLAY, ListEntry)).cast()
}

/// Where a request in a queue keeps the queue's address: one of the pointers that are its driver's.
fn queue_of(irp: *mut sys::IRP) -> *mut *mut Shared {
    irp.wrapping_byte_add(offset_of!(sys::IRP, Tail)).cast()
}

impl Shared {
    /// Runs code with the list, under the lock.
    fn locked<R>(&self, code: impl FnOnce(*mut sys::LIST_ENTRY) -> R) -> R {
        // SAFETY: the word is a spin lock as long as the queue lives; the callers have checked the level, and the code under it does not acquire it again.
        let level = unsafe { sys::KeAcquireSpinLockRaiseToDpc(self.lock.get()) };
        let result = code(self.list.get());
        // SAFETY: it was acquired just now, at `level`.
        unsafe { sys::KeReleaseSpinLock(self.lock.get(), level) };
        result
    }
}

/// Takes a request out of its list.
///
/// # Safety
/// It is in the list, whose lock is held.
unsafe fn unlink(irp: *mut sys::IRP) {
    // SAFETY: by this function's contract.
    unsafe { sys::RemoveEntryList(entry_of(irp)) };
}

/// Ends one use of a queue. The last one frees it.
///
/// # Safety
/// The caller is one of the users, and does not use the queue any more.
unsafe fn leave(shared: NonNull<Shared>) {
    // SAFETY: by this function's contract it is alive until the count is down.
    let users = unsafe { &shared.as_ref().users };
    if users.fetch_sub(1, Ordering::Release) == 1 {
        fence(Ordering::Acquire);
        // SAFETY: the block was given up for this pointer when it was made, and nobody uses it any more.
        drop(unsafe { KBox::from_raw(shared.as_ptr()) });
    }
}

/// The cancel routine of the requests in a queue.
///
/// # Safety
/// It is called by the I/O manager, for a request in a queue, with the cancel spin lock held.
unsafe extern "system-unwind" fn cancelled(_device: *mut sys::DEVICE_OBJECT, irp: *mut sys::IRP) {
    // SAFETY: the I/O manager has written the level.
    let level = unsafe { (*irp).CancelIrql };
    // SAFETY: by this function's contract the lock is held, and was acquired at that level.
    unsafe { sys::IoReleaseCancelSpinLock(level) };
    // SAFETY: a request that had this cancel routine is in a queue, of which it is a user.
    let shared = unsafe { queue_of(irp).read() };
    // SAFETY: the address is that of a block.
    let shared = unsafe { NonNull::new_unchecked(shared) };
    // The I/O manager has taken the cancel routine, so that nobody else takes the request out.
    // SAFETY: as above.
    unsafe { shared.as_ref() }.locked(|_| {
        // SAFETY: as above, and the lock is held.
        unsafe { unlink(irp) };
    });
    // SAFETY: the request's use is ended here.
    unsafe { leave(shared) };
    // SAFETY: who takes the cancel routine owns the request.
    let irp = unsafe { PendingIrp::from_raw(irp) };
    irp.complete(NtError::CANCELLED.status(), 0);
}

impl IrpQueue {
    /// Makes an empty queue.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::INSUFFICIENT_RESOURCES`] if there is no pool.
    /// - [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    pub fn new() -> Result<Self> {
        irql::require_at_most(Irql::DISPATCH)?;
        let none = sys::LIST_ENTRY { Flink: ptr::null_mut(), Blink: ptr::null_mut() };
        let shared = KBox::new(Shared { lock: UnsafeCell::new(0), list: UnsafeCell::new(none), users: AtomicUsize::new(1) })?;
        let shared = KBox::into_raw(shared);
        // SAFETY: pointers of boxes are never null.
        let shared = unsafe { NonNull::new_unchecked(shared) };
        // SAFETY: the block was made just now, and stays in its place.
        let list = unsafe { shared.as_ref() }.list.get();
        // SAFETY: as above.
        unsafe { sys::InitializeListHead(list) };
        Ok(Self { shared })
    }

    fn shared(&self) -> &Shared {
        // SAFETY: by the type's invariant it is alive while `self` is.
        unsafe { self.shared.as_ref() }
    }

    /// Makes a request pending, and puts it last. From now on it belongs to who takes it out, which may be before this returns, or to its cancellation.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// Does what [`IoCsqInsertIrp`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iocsqinsertirp) does.
    #[doc(alias = "IoCsqInsertIrp")]
    pub fn insert<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
        let (irp, disposition) = irp.pend();
        self.push(irp);
        disposition
    }

    /// Puts a request that is pending already last.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    pub fn push(&self, irp: PendingIrp) {
        if irql::current() > Irql::DISPATCH {
            // It cannot be completed either: it stays as it is.
            core::mem::forget(irp);
            return;
        }
        let irp = irp.into_raw().as_ptr();
        let shared = self.shared();
        shared.users.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the request is owned.
        unsafe { queue_of(irp).write(self.shared.as_ptr()) };
        let refused = shared.locked(|list| {
            // SAFETY: the list is initialised; the request is in none.
            unsafe { sys::InsertTailList(list, entry_of(irp)) };
            // SAFETY: the request is in the queue now, as its cancel routine wants it.
            unsafe { sys::IoSetCancelRoutine(irp, Some(cancelled)) };
            // Cancelled before it had a cancel routine: then nobody else sees to it.
            // SAFETY: nobody has taken the request out, because the lock is held.
            let cancel = unsafe { is_cancelled(irp) };
            // SAFETY: as above.
            if !cancel || unsafe { sys::IoSetCancelRoutine(irp, None) }.is_none() {
                return false;
            }
            // SAFETY: as above.
            unsafe { unlink(irp) };
            true
        });
        if refused {
            // SAFETY: the request's use is ended here; the handle is borrowed and is another.
            unsafe { leave(self.shared) };
            // SAFETY: the cancel routine was got back, and with it the request.
            let irp = unsafe { PendingIrp::from_raw(irp) };
            irp.complete(NtError::CANCELLED.status(), 0);
        }
    }

    /// Takes out the first request that is not being cancelled; none if there is none.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// Does what [`IoCsqRemoveNextIrp`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iocsqremovenextirp) does.
    #[doc(alias = "IoCsqRemoveNextIrp")]
    #[must_use]
    pub fn pop(&self) -> Option<PendingIrp> {
        self.take(|_| true)
    }

    /// Takes out the first request for an open file, as [`PendingIrp::file`] names it.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    #[must_use]
    pub fn pop_for_file(&self, file: usize) -> Option<PendingIrp> {
        self.take(|irp| irp.file() == file)
    }

    /// Completes all requests for an open file as `STATUS_CANCELLED`: what a driver does when the last handle is closed.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    pub fn cancel_for_file(&self, file: usize) {
        while let Some(irp) = self.pop_for_file(file) {
            irp.complete(NtError::CANCELLED.status(), 0);
        }
    }

    /// Completes all requests with a status.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    pub fn complete_all(&self, status: NtStatus) {
        while let Some(irp) = self.pop() {
            irp.complete(status, 0);
        }
    }

    fn take(&self, wanted: impl Fn(&PendingIrp) -> bool) -> Option<PendingIrp> {
        if irql::current() > Irql::DISPATCH {
            return None;
        }
        let shared = self.shared();
        let irp = shared.locked(|list| {
            // SAFETY: the list is initialised, and its lock is held.
            let mut entry = unsafe { (*list).Flink };
            while entry != list {
                let irp = irp_of(entry);
                // SAFETY: entries of the list are valid.
                entry = unsafe { (*entry).Flink };
                // SAFETY: the request is in the queue. It is only looked at, and given up for its pointer again.
                let seen = core::mem::ManuallyDrop::new(unsafe { PendingIrp::from_raw(irp) });
                // SAFETY: as above.
                if wanted(&seen) && unsafe { sys::IoSetCancelRoutine(irp, None) }.is_some() {
                    // SAFETY: as above, and the lock is held.
                    unsafe { unlink(irp) };
                    return NonNull::new(irp);
                }
            }
            None
        })?;
        // SAFETY: the request's use is ended here; the handle is borrowed and is another.
        unsafe { leave(self.shared) };
        // SAFETY: the cancel routine was got back, and with it the request.
        Some(unsafe { PendingIrp::from_raw(irp.as_ptr()) })
    }
}

impl fmt::Debug for IrpQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IrpQueue").finish_non_exhaustive()
    }
}

impl Drop for IrpQueue {
    fn drop(&mut self) {
        if irql::current() > Irql::DISPATCH {
            // The lock cannot be taken: the queue is leaked, with what is in it.
            return;
        }
        self.complete_all(NtError::CANCELLED.status());
        // What is being cancelled takes itself out, and the last one frees the queue.
        // SAFETY: by the type's invariant one of the users is the handle, which is going away.
        unsafe { leave(self.shared) };
    }
}
