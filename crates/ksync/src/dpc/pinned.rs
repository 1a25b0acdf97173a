//! A DPC and its closure in one block of pool, and who frees it.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::fmt;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicUsize, Ordering, fence};
use core::time::Duration;

use ksync_sys as sys;

use super::{Importance, Processor, flush_all, may_flush};
use crate::driver::image::{Image, Running};
use crate::error::{NtError, Result, check};
use crate::irql::{self, Irql};
use crate::pool::KBox;
use crate::thread::this_thread;

/// A DPC in its place, which is its own block of pool. It is made by [`Dpc::new`](super::Dpc::new) and [`ThreadedDpc::new`](super::ThreadedDpc::new).
///
/// There is no DPC inside a larger structure: that structure could not be freed at `DISPATCH_LEVEL` while the routine runs on another processor.
///
/// # Invariants
/// - The object is initialised with the address of this as its context, and is the first part of a block with the closure.
/// - `users` counts the handle, and each insertion until its routine is done.
#[repr(C)]
pub struct PinnedDpc {
    dpc: UnsafeCell<MaybeUninit<sys::KDPC>>,
    users: AtomicUsize,
    image: &'static Image,
    threaded: bool,
    call: unsafe fn(NonNull<PinnedDpc>, usize, usize),
    free: unsafe fn(NonNull<PinnedDpc>),
}

// SAFETY: the kernel's routines on DPCs are atomic with respect to each other; the other fields are atomic or never change.
unsafe impl Sync for PinnedDpc {}
// SAFETY: a DPC belongs to no thread.
unsafe impl Send for PinnedDpc {}

/// A DPC and its closure, as they are allocated.
#[repr(C)]
struct Block<F> {
    dpc: PinnedDpc,
    closure: F,
}

/// The handle's share of a DPC.
///
/// # Invariants
/// The DPC is alive, and one of its users is this.
pub(super) struct Owner {
    dpc: NonNull<PinnedDpc>,
    _owned: PhantomData<PinnedDpc>,
}

// SAFETY: the DPC can be used, and its closure, which is `Send`, be dropped in any thread.
unsafe impl Send for Owner {}
// SAFETY: a shared handle gives out shared references to the DPC, which is `Sync`.
unsafe impl Sync for Owner {}

impl Owner {
    /// Allocates and initialises a DPC.
    pub(super) fn new<F>(closure: F, threaded: bool) -> Result<Self>
    where
        F: Fn(usize, usize) + Send + Sync + 'static,
    {
        let block = KBox::new(Block {
            dpc: PinnedDpc {
                dpc: UnsafeCell::new(MaybeUninit::uninit()),
                users: AtomicUsize::new(1),
                image: Image::this(),
                threaded,
                call: call::<F>,
                free: free::<F>,
            },
            closure,
        })?;
        let block = KBox::into_raw(block);
        // SAFETY: the block was allocated just now, and is not used otherwise yet.
        let dpc = unsafe { &(*block).dpc }.as_raw();
        if threaded {
            // SAFETY: the DPC lies in nonpaged pool, in which it stays.
            unsafe { sys::KeInitializeThreadedDpc(dpc, Some(routine), block.cast()) };
        } else {
            // SAFETY: as above.
            unsafe { sys::KeInitializeDpc(dpc, Some(routine), block.cast()) };
        }
        // SAFETY: pointers of boxes are never null.
        let dpc = unsafe { NonNull::new_unchecked(block.cast()) };
        // INVARIANT: the DPC was made with one user.
        Ok(Self { dpc, _owned: PhantomData })
    }

    /// The DPC.
    #[inline]
    pub(super) fn dpc(&self) -> &PinnedDpc {
        // SAFETY: by the type's invariant the DPC is alive while `self` is.
        unsafe { self.dpc.as_ref() }
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.dpc(), f)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let dpc = self.dpc();
        // Besides the handle there is a user if the DPC is queued, or if a processor runs it or is about to.
        let used = || dpc.users.load(Ordering::Acquire) > 1;
        if used() {
            dpc.cancel();
        }
        if used() && may_flush(dpc.image) {
            flush_all();
            // No page says that a flush waits for threaded DPCs too. If it does, as hosted, there is nothing to wait for here.
            while dpc.threaded && used() {
                let _ = this_thread::sleep(Duration::from_millis(1));
            }
        }
        // SAFETY: by the type's invariant one of the users is the handle, which is going away.
        unsafe { leave(self.dpc) };
    }
}

/// Ends one use of a DPC. The last one frees it.
///
/// # Safety
/// The caller is one of the users, and does not use the DPC any more.
unsafe fn leave(dpc: NonNull<PinnedDpc>) {
    // SAFETY: by this function's contract the DPC is alive until the count is down.
    let users = unsafe { &dpc.as_ref().users };
    if users.fetch_sub(1, Ordering::Release) == 1 {
        fence(Ordering::Acquire);
        // SAFETY: the DPC is alive, because the last user frees it.
        let free = unsafe { dpc.as_ref().free };
        // SAFETY: by the type's invariant the function is the one for this block, and nobody uses the DPC any more: it is not queued and does not run.
        unsafe { free(dpc) };
    }
}

/// Calls a DPC's closure.
///
/// # Safety
/// The DPC is the first part of a `Block<F>` that is alive.
unsafe fn call<F: Fn(usize, usize)>(dpc: NonNull<PinnedDpc>, first: usize, second: usize) {
    // SAFETY: by this function's contract; others use the closure only shared.
    let closure = unsafe { &(*dpc.cast::<Block<F>>().as_ptr()).closure };
    closure(first, second);
}

/// Frees a DPC and its closure.
///
/// # Safety
/// The DPC is the first part of a `Block<F>`, and nobody uses it any more.
unsafe fn free<F>(dpc: NonNull<PinnedDpc>) {
    // SAFETY: by this function's contract; the block was given up for this pointer when it was made.
    drop(unsafe { KBox::from_raw(dpc.cast::<Block<F>>().as_ptr()) });
}

/// The kernel's way into a DPC.
///
/// # Safety
/// The context is a [`PinnedDpc`], of whose users one is the insertion that this call is for.
unsafe extern "system-unwind" fn routine(
    _dpc: *mut sys::KDPC,
    context: *mut c_void,
    argument1: *mut c_void,
    argument2: *mut c_void,
) {
    /// Ends the insertion's use, also when the closure unwinds.
    struct Leave(NonNull<PinnedDpc>);
    impl Drop for Leave {
        fn drop(&mut self) {
            // SAFETY: by the contract of `routine` the insertion is a user until now.
            unsafe { leave(self.0) };
        }
    }
    /// The routine of a threaded DPC is over when nothing follows that touches the image.
    struct Out(&'static Image);
    impl Drop for Out {
        fn drop(&mut self) {
            self.0.threaded_out.fetch_sub(1, Ordering::Release);
        }
    }
    // SAFETY: the context is not null.
    let dpc = unsafe { NonNull::new_unchecked(context.cast::<PinnedDpc>()) };
    let leave = Leave(dpc);
    // SAFETY: by this function's contract the DPC is alive until `leave` is dropped.
    let this = unsafe { dpc.as_ref() };
    let (image, threaded, call) = (this.image, this.threaded, this.call);
    let code = move || {
        // This may drop the closure, and what that owns must find that it is in a DPC.
        let _leave = leave;
        // SAFETY: by the type's invariant the function is the one for this block, which is alive.
        unsafe { call(dpc, argument1.addr(), argument2.addr()) };
    };
    if threaded {
        let _out = Out(image);
        Running::run(&image.threaded, ptr::null(), code);
    } else {
        code();
    }
}

impl PinnedDpc {
    /// An insertion is no user any more without its routine having run. Another user is the handle, which is borrowed.
    fn undo_insertion(&self) {
        self.users.fetch_sub(1, Ordering::Release);
        if self.threaded {
            self.image.threaded_out.fetch_sub(1, Ordering::Release);
        }
    }

    /// The kernel's object, for routines that this library does not wrap. It must be neither queued nor initialised through this pointer.
    #[must_use]
    pub fn as_raw(&self) -> *mut sys::KDPC {
        self.dpc.get().cast()
    }

    /// Queues the DPC, and tells whether it was not queued already.
    ///
    /// # IRQL
    /// Any level. Below `DISPATCH_LEVEL`, a DPC for this processor has run when this returns, unless its importance is low or it is threaded.
    ///
    /// # Errors
    /// [`NtError::DELETE_PENDING`] while the driver is being unloaded.
    ///
    /// # Examples
    /// ```
    /// use ksync::dpc::Dpc;
    /// use ksync::irql::{self, Irql};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let dpc = Dpc::new(|| ksync::println!("once")).unwrap();
    /// irql::with_raised(Irql::DISPATCH, || {
    ///     assert_eq!(dpc.enqueue(), Ok(true));
    ///     assert_eq!(dpc.enqueue(), Ok(false));
    /// }).unwrap();
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeInsertQueueDpc`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinsertqueuedpc).
    #[doc(alias = "KeInsertQueueDpc")]
    #[doc(alias = "activate")]
    pub fn enqueue(&self) -> Result<bool> {
        self.enqueue_with(0, 0)
    }

    /// [`enqueue`](Self::enqueue) with two arguments for the closure. If the DPC is queued already, it keeps those that it was queued with.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Errors
    /// Those of [`enqueue`](Self::enqueue).
    ///
    /// # Examples
    /// ```
    /// use ksync::dpc::Dpc;
    /// use ksync::irql::{self, Irql};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let dpc = Dpc::new_with_arguments(|first, second| assert_eq!((first, second), (1, 2))).unwrap();
    /// irql::with_raised(Irql::DISPATCH, || {
    ///     assert_eq!(dpc.enqueue_with(1, 2), Ok(true));
    ///     assert_eq!(dpc.enqueue_with(3, 4), Ok(false));
    /// }).unwrap();
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeInsertQueueDpc`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinsertqueuedpc).
    #[doc(alias = "KeInsertQueueDpc")]
    pub fn enqueue_with(&self, first: usize, second: usize) -> Result<bool> {
        let (first, second) = (ptr::without_provenance_mut(first), ptr::without_provenance_mut(second));
        self.image.check_open()?;
        // Before the insertion, because the routine may be done before the kernel's routine returns. The count cannot overflow: insertions that count are in a queue
        // (one at most), run (one for each processor at most) or are just being tried.
        self.users.fetch_add(1, Ordering::Relaxed);
        if self.threaded {
            self.image.threaded_out.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: by the type's invariant the DPC is initialised and in its place, in which it stays until the insertion's use is ended by the routine.
        let inserted = unsafe { sys::KeInsertQueueDpc(self.as_raw(), first, second) } != 0;
        if !inserted {
            self.undo_insertion();
        }
        Ok(inserted)
    }

    /// Takes the DPC off its queue, and tells whether it was there. A routine that runs already is not waited for: see [`flush`](Self::flush).
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::dpc::Dpc;
    /// use ksync::irql::{self, Irql};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let dpc = Dpc::new(|| unreachable!()).unwrap();
    /// irql::with_raised(Irql::DISPATCH, || {
    ///     dpc.enqueue().unwrap();
    ///     assert!(dpc.cancel());
    /// }).unwrap();
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeRemoveQueueDpc`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keremovequeuedpc).
    #[doc(alias = "KeRemoveQueueDpc")]
    pub fn cancel(&self) -> bool {
        // SAFETY: by the type's invariant the DPC is initialised and in its place.
        let removed = unsafe { sys::KeRemoveQueueDpc(self.as_raw()) } != 0;
        if removed {
            self.undo_insertion();
        }
        removed
    }

    /// Waits until all DPCs that are queued now, on all processors and of all drivers, have run. This takes long, and is meant for shutting down.
    ///
    /// No page says whether the system's routine waits for threaded DPCs too. A drop of a [`ThreadedDpc`](super::ThreadedDpc) at `PASSIVE_LEVEL` does in any case.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::IRQL_TOO_HIGH`] above `PASSIVE_LEVEL`.
    /// - [`NtError::WOULD_DEADLOCK`] in the closure of a threaded DPC.
    ///
    /// # Examples
    /// ```
    /// use core::sync::atomic::{AtomicBool, Ordering};
    /// use std::sync::Arc;
    /// use ksync::dpc::Dpc;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let done = Arc::new(AtomicBool::new(false));
    /// let flag = done.clone();
    /// let dpc = Dpc::new(move || flag.store(true, Ordering::Relaxed)).unwrap();
    /// dpc.enqueue().unwrap();
    /// dpc.flush().unwrap();
    /// assert!(done.load(Ordering::Relaxed));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeFlushQueuedDpcs`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keflushqueueddpcs).
    #[doc(alias = "KeFlushQueuedDpcs")]
    pub fn flush(&self) -> Result {
        irql::require_at_most(Irql::PASSIVE)?;
        if self.image.in_threaded_dpc() {
            return Err(NtError::WOULD_DEADLOCK);
        }
        flush_all();
        Ok(())
    }

    /// Sets the importance for the next time that the DPC is queued.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::dpc::{Dpc, Importance};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let dpc = Dpc::new(|| ()).unwrap();
    /// dpc.set_importance(Importance::High);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeSetImportanceDpc`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kesetimportancedpc).
    #[doc(alias = "KeSetImportanceDpc")]
    pub fn set_importance(&self, importance: Importance) {
        // SAFETY: by the type's invariant the DPC is initialised and in its place.
        unsafe { sys::KeSetImportanceDpc(self.as_raw(), importance.raw()) };
    }

    /// Sets the processor for the next time that the DPC is queued. Without one it is whichever queues it.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Errors
    /// [`NtError::INVALID_PARAMETER`] if there is no such processor.
    ///
    /// # Examples
    /// ```
    /// use ksync::dpc::{Dpc, Processor};
    /// use ksync::NtError;
    ///
    /// # ksim::Machine::new().processors(2).run(|| {
    /// let dpc = Dpc::new(|| assert_eq!(Processor::current().number, 1)).unwrap();
    /// dpc.set_target(Processor { group: 0, number: 1 }).unwrap();
    /// dpc.enqueue().unwrap();
    /// assert_eq!(dpc.set_target(Processor { group: 0, number: 9 }), Err(NtError::INVALID_PARAMETER));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeSetTargetProcessorDpcEx`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kesettargetprocessordpcex). First Windows: 7.
    #[doc(alias = "KeSetTargetProcessorDpcEx")]
    pub fn set_target(&self, processor: Processor) -> Result {
        let mut number = processor.raw();
        // SAFETY: by the type's invariant the DPC is initialised and in its place; the number is a local variable.
        let status = unsafe { sys::KeSetTargetProcessorDpcEx(self.as_raw(), &raw mut number) };
        check(status).map(drop)
    }
}

impl fmt::Debug for PinnedDpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dpc").field("threaded", &self.threaded).finish_non_exhaustive()
    }
}
