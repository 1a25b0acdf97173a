//! Deferred procedure calls: code that runs at `DISPATCH_LEVEL` soon, on this processor or another.
//!
//! A [`Dpc`] owns a closure and can be queued from any level, an interrupt's included. A [`ThreadedDpc`] runs at `PASSIVE_LEVEL` where the system admits
//! it, and still must not wait. [`run_once_per_core`] runs a closure on every processor and waits for all of them.
//!
//! # Vocabulary
//! ```text
//!          enqueue               the processor takes it off its queue
//! idle -------------> queued ------------------------------------------> running --> idle
//!        cancel, true <--'                     enqueue again: queued, while it still runs
//! ```
//! A DPC is taken off the queue *before* its routine runs. It can therefore be queued again meanwhile, and run on two processors at once: closures are
//! `Fn` and `Sync`.
//!
//! # Who frees it
//! The closure and the kernel's object lie in one block of nonpaged pool, which counts its users: the handle, and each time that it is queued until the routine is done. The last
//! one frees it. So a handle may be dropped at any level up to `DISPATCH_LEVEL`, in the closure too. At `PASSIVE_LEVEL` a drop also waits until the routine no longer runs.

mod once;

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::fmt;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::Deref;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicUsize, Ordering, fence};
use core::time::Duration;

use ksync_sys as sys;

use crate::driver::image::{Image, Running};
use crate::error::{NtError, Result, check};
use crate::irql::{self, Dispatch, Irql};
use crate::pool::KBox;
use crate::thread::this_thread;

pub use once::{NotQueued, run_once, run_once_on};

/// Where in its queue a DPC goes, and how soon the queue is drained.
#[doc(alias = "KDPC_IMPORTANCE")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Importance {
    /// At the end; the processor may take its time.
    Low,
    /// At the end; at once on this processor, and in time on another.
    #[default]
    Medium,
    /// At the end, and at once on another processor too.
    MediumHigh,
    /// At the beginning, and at once.
    High,
}

impl Importance {
    /// NT's number.
    const fn raw(self) -> sys::KDPC_IMPORTANCE {
        match self {
            Self::Low => sys::LowImportance,
            Self::Medium => sys::MediumImportance,
            Self::MediumHigh => sys::MediumHighImportance,
            Self::High => sys::HighImportance,
        }
    }
}

/// A processor, by its group and its number in the group.
///
/// # Examples
/// ```
/// use ksync::dpc::Processor;
///
/// # ksim::Machine::new().processors(2).run(|| {
/// assert_eq!(Processor::from_index(1), Some(Processor { group: 0, number: 1 }));
/// assert_eq!(Processor::from_index(2), None);
/// assert!(Processor::current().number < 2);
/// # }).expect_clean();
/// ```
#[doc(alias = "PROCESSOR_NUMBER")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Processor {
    /// The group.
    pub group: u16,
    /// The number in the group, from 0 to 63.
    pub number: u8,
}

impl Processor {
    /// The processor that runs this, which below `DISPATCH_LEVEL` may change at any time.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::dpc::Processor;
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(Processor::current(), Processor { group: 0, number: 0 });
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeGetCurrentProcessorNumberEx`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kegetcurrentprocessornumberex).
    #[doc(alias = "KeGetCurrentProcessorNumberEx")]
    #[must_use]
    pub fn current() -> Self {
        let mut number = sys::PROCESSOR_NUMBER::default();
        // SAFETY: the number is a local variable, and the routine may be called anywhere.
        unsafe { sys::KeGetCurrentProcessorNumberEx(&raw mut number) };
        Self { group: number.Group, number: number.Number }
    }

    /// The processor with an index, which counts through all groups.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::dpc::Processor;
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(Processor::from_index(0), Some(Processor { group: 0, number: 0 }));
    /// assert_eq!(Processor::from_index(1), None);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeGetProcessorNumberFromIndex`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kegetprocessornumberfromindex).
    #[doc(alias = "KeGetProcessorNumberFromIndex")]
    #[must_use]
    pub fn from_index(index: u32) -> Option<Self> {
        let mut number = sys::PROCESSOR_NUMBER::default();
        // SAFETY: the number is a local variable, and the routine may be called anywhere.
        let status = unsafe { sys::KeGetProcessorNumberFromIndex(index, &raw mut number) };
        check(status).ok().map(|_| Self { group: number.Group, number: number.Number })
    }

    /// The processor's index, which counts through all groups; `None` if there is no such processor.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::dpc::Processor;
    ///
    /// # ksim::Machine::new().groups(&[2, 2]).run(|| {
    /// assert_eq!(Processor { group: 1, number: 0 }.index(), Some(2));
    /// assert_eq!(Processor { group: 0, number: 2 }.index(), None);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeGetProcessorIndexFromNumber`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kegetprocessorindexfromnumber). First
    /// Windows: 7.
    #[doc(alias = "KeGetProcessorIndexFromNumber")]
    #[must_use]
    pub fn index(self) -> Option<u32> {
        let number = self.raw();
        // SAFETY: the number is a local variable, and the routine may be called anywhere.
        let index = unsafe { sys::KeGetProcessorIndexFromNumber(&raw const number) };
        (index != sys::INVALID_PROCESSOR_INDEX).then_some(index)
    }

    /// NT's form.
    pub(crate) const fn raw(self) -> sys::PROCESSOR_NUMBER {
        sys::PROCESSOR_NUMBER { Group: self.group, Number: self.number, Reserved: 0 }
    }
}

/// A DPC whose closure runs at `DISPATCH_LEVEL`. It has the operations of [`PinnedDpc`].
///
/// # IRQL
/// Made and dropped at `<= DISPATCH_LEVEL`. At `PASSIVE_LEVEL` a drop waits until the closure no longer runs, and drops what it owns there and then; at a
/// higher level that is left to the routine if it still runs, so that what the closure owns must bear being dropped at `DISPATCH_LEVEL`. Above
/// `DISPATCH_LEVEL` the closure is leaked.
///
/// # Examples
/// ```
/// use core::sync::atomic::{AtomicU32, Ordering};
/// use ksync::dpc::Dpc;
/// use std::sync::Arc;
///
/// # ksim::Machine::new().run(|| {
/// let runs = Arc::new(AtomicU32::new(0));
/// let counter = runs.clone();
/// let dpc = Dpc::new(move || {
///     counter.fetch_add(1, Ordering::Relaxed);
/// }).unwrap();
/// dpc.enqueue().unwrap();
/// dpc.flush().unwrap();
/// dpc.enqueue().unwrap();
/// dpc.flush().unwrap();
/// assert_eq!(runs.load(Ordering::Relaxed), 2);
/// # drop(dpc); drop(runs);
/// # }).expect_clean();
/// ```
#[doc(alias = "KDPC")]
#[derive(Debug)]
pub struct Dpc(Owner);

impl Dpc {
    /// Makes a DPC.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::INSUFFICIENT_RESOURCES`] if there is no pool. The closure is dropped.
    /// - [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::dpc::Dpc;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let dpc = Dpc::new(|| ksync::println!("at DISPATCH_LEVEL")).unwrap();
    /// assert_eq!(dpc.enqueue(), Ok(true));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeInitializeDpc`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializedpc).
    #[doc(alias = "KeInitializeDpc")]
    pub fn new<F>(closure: F) -> Result<Self>
    where
        F: Fn() + Send + Sync + 'static,
    {
        Self::new_with_arguments(move |_, _| closure())
    }

    /// [`new`](Self::new) for a closure that is given the two arguments of whoever [queued](PinnedDpc::enqueue_with) the DPC.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    ///
    /// # Examples
    /// ```
    /// use core::sync::atomic::{AtomicUsize, Ordering};
    /// use ksync::dpc::Dpc;
    /// use std::sync::Arc;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let sum = Arc::new(AtomicUsize::new(0));
    /// let total = sum.clone();
    /// let dpc = Dpc::new_with_arguments(move |count, size| {
    ///     total.fetch_add(count * size, Ordering::Relaxed);
    /// }).unwrap();
    /// dpc.enqueue_with(3, 14).unwrap();
    /// dpc.flush().unwrap();
    /// assert_eq!(sum.load(Ordering::Relaxed), 42);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeInitializeDpc`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializedpc).
    #[doc(alias = "KeInitializeDpc")]
    pub fn new_with_arguments<F>(closure: F) -> Result<Self>
    where
        F: Fn(usize, usize) + Send + Sync + 'static,
    {
        Ok(Self(Owner::new(closure, false)?))
    }

    /// [`new`](Self::new) for a closure that is given the token of its level, so that what it locks is checked at compile time.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    ///
    /// # Examples
    /// ```
    /// use ksync::dpc::Dpc;
    /// use ksync::mutex::{LockAt, SpinLocked};
    ///
    /// # ksim::Machine::new().run(|| {
    /// static COUNT: SpinLocked<u32> = SpinLocked::const_new(0);
    /// # *COUNT.lock().unwrap() = 0;
    /// let dpc = Dpc::new_with_irql(|dispatch| *COUNT.lock_at(dispatch) += 1).unwrap();
    /// assert_eq!(dpc.enqueue(), Ok(true));
    /// dpc.flush().unwrap();
    /// assert_eq!(*COUNT.lock().unwrap(), 1);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeInitializeDpc`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializedpc).
    #[doc(alias = "KeInitializeDpc")]
    pub fn new_with_irql<F>(closure: F) -> Result<Self>
    where
        F: Fn(&mut Irql<Dispatch>) + Send + Sync + 'static,
    {
        // IRQL: an ordinary DPC runs at `DISPATCH_LEVEL`.
        Self::new(move || closure(&mut Irql::made()))
    }
}

impl Deref for Dpc {
    type Target = PinnedDpc;

    #[inline]
    fn deref(&self) -> &PinnedDpc {
        self.0.dpc()
    }
}

/// A DPC whose closure runs at `PASSIVE_LEVEL` in a thread of the system's, or at `DISPATCH_LEVEL` where threaded DPCs are turned off. It has the operations of
/// [`PinnedDpc`].
///
/// The closure must work at both levels, and must not wait: the processor's other threaded DPCs come after it.
///
/// # IRQL
/// As for [`Dpc`]. A drop within the routine of a threaded DPC does not wait.
///
/// # Examples
/// ```
/// use ksync::dpc::ThreadedDpc;
/// use ksync::event::{Event, EventProperty};
/// use ksync::wait::Dispatchable;
/// use std::sync::Arc;
///
/// # ksim::Machine::new().run(|| {
/// let done = Arc::new(Event::new(EventProperty::Notification, false).unwrap());
/// let signal = done.clone();
/// let dpc = ThreadedDpc::new(move || {
///     signal.set().unwrap();
/// }).unwrap();
/// assert_eq!(dpc.enqueue(), Ok(true));
/// assert!(done.wait().success());
/// # }).expect_clean();
/// ```
#[doc(alias = "KDPC")]
#[derive(Debug)]
pub struct ThreadedDpc(Owner);

impl ThreadedDpc {
    /// Makes a threaded DPC.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Those of [`Dpc::new`].
    ///
    /// # Examples
    /// ```
    /// use ksync::dpc::ThreadedDpc;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let dpc = ThreadedDpc::new(|| ksync::println!("at PASSIVE_LEVEL, or not")).unwrap();
    /// assert_eq!(dpc.enqueue(), Ok(true));
    /// dpc.flush().unwrap();
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeInitializeThreadedDpc`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializethreadeddpc).
    #[doc(alias = "KeInitializeThreadedDpc")]
    pub fn new<F>(closure: F) -> Result<Self>
    where
        F: Fn() + Send + Sync + 'static,
    {
        Self::new_with_arguments(move |_, _| closure())
    }

    /// [`new`](Self::new) for a closure that is given the two arguments of whoever [queued](PinnedDpc::enqueue_with) the DPC.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Those of [`Dpc::new`].
    ///
    /// # Examples
    /// ```
    /// use ksync::dpc::ThreadedDpc;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let dpc = ThreadedDpc::new_with_arguments(|first, second| assert_eq!((first, second), (1, 2))).unwrap();
    /// dpc.enqueue_with(1, 2).unwrap();
    /// dpc.flush().unwrap();
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeInitializeThreadedDpc`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keinitializethreadeddpc).
    #[doc(alias = "KeInitializeThreadedDpc")]
    pub fn new_with_arguments<F>(closure: F) -> Result<Self>
    where
        F: Fn(usize, usize) + Send + Sync + 'static,
    {
        Ok(Self(Owner::new(closure, true)?))
    }
}

impl Deref for ThreadedDpc {
    type Target = PinnedDpc;

    #[inline]
    fn deref(&self) -> &PinnedDpc {
        self.0.dpc()
    }
}

/// A DPC in its place, which is its own block of pool. It is made by [`Dpc::new`] and [`ThreadedDpc::new`].
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
struct Owner {
    dpc: NonNull<PinnedDpc>,
    _owned: PhantomData<PinnedDpc>,
}

// SAFETY: the DPC can be used, and its closure, which is `Send`, be dropped in any thread.
unsafe impl Send for Owner {}
// SAFETY: a shared handle gives out shared references to the DPC, which is `Sync`.
unsafe impl Sync for Owner {}

impl Owner {
    /// Allocates and initialises a DPC.
    fn new<F>(closure: F, threaded: bool) -> Result<Self>
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
    fn dpc(&self) -> &PinnedDpc {
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
    /// No page says whether the system's routine waits for threaded DPCs too. A drop of a [`ThreadedDpc`] at `PASSIVE_LEVEL` does in any case.
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

/// Tells whether the caller may wait for DPCs.
pub(crate) fn may_flush(image: &Image) -> bool {
    irql::current() == Irql::PASSIVE && !image.in_threaded_dpc()
}

/// Waits until all DPCs that are queued now have run.
///
/// # IRQL
/// `PASSIVE_LEVEL`, and not in a threaded DPC.
pub(crate) fn flush_all() {
    // SAFETY: the callers have checked the level.
    unsafe { sys::KeFlushQueuedDpcs() };
}

/// Waits until no DPC of an image is queued or runs. No more are queued meanwhile, because the image is closing.
///
/// # IRQL
/// As for [`flush_all`].
pub(crate) fn drain(image: &Image) {
    flush_all();
    // No page says that a flush waits for threaded DPCs too.
    while image.threaded_out.load(Ordering::Acquire) > 0 {
        let _ = this_thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until the threads in which threaded DPCs of this image ran have left its code. One that has said that it is done may be a few instructions from that, for as long as something keeps its processor.
///
/// # IRQL
/// `PASSIVE_LEVEL`.
pub(crate) fn leave_threaded(image: &Image) {
    if !image.threaded.was_used() {
        return;
    }
    let mut before = sys::GROUP_AFFINITY::default();
    let mut moved = false;
    // CAST: a count that came from a `u32`.
    for processor in (0..crate::thread::available_parallelism().get() as u32).filter_map(Processor::from_index) {
        let affinity = sys::GROUP_AFFINITY { Mask: 1 << processor.number, Group: processor.group, Reserved: [0; 3] };
        let place = if moved { ptr::null_mut() } else { &raw mut before };
        // No thread preempts one that runs a threaded DPC. So where this thread runs, none of those is on its way.
        // SAFETY: the affinity is a local variable that names an active processor, and the place is one or null. The caller is at `PASSIVE_LEVEL`.
        unsafe { sys::KeSetSystemGroupAffinityThread(&raw const affinity, place) };
        moved = true;
    }
    if moved {
        // SAFETY: the value is the one that the first of the calls above wrote. The caller is at `PASSIVE_LEVEL`.
        unsafe { sys::KeRevertToUserGroupAffinityThread(&raw const before) };
    }
}

/// Runs a closure once on every processor, at `DISPATCH_LEVEL`, on all of them at the same time, and returns when all are done.
///
/// # IRQL
/// `PASSIVE_LEVEL`.
///
/// # Errors
/// - [`NtError::IRQL_TOO_HIGH`] above `PASSIVE_LEVEL`; the closure was not run.
/// - [`NtError::WOULD_DEADLOCK`] in the closure of a threaded DPC.
///
/// # Examples
/// ```
/// use core::sync::atomic::{AtomicU32, Ordering};
/// use ksync::dpc;
///
/// # ksim::Machine::new().processors(4).run(|| {
/// let seen = AtomicU32::new(0);
/// dpc::run_once_per_core(|| {
///     seen.fetch_or(1 << dpc::Processor::current().number, Ordering::Relaxed);
/// }).unwrap();
/// assert_eq!(seen.into_inner(), 0b1111);
/// # }).expect_clean();
/// ```
///
/// Wraps `KeGenericCallDpc`, which Microsoft does not document; all Windows from Server 2003 on, and Wine, export it.
#[doc(alias = "KeGenericCallDpc")]
#[doc(alias = "KeSignalCallDpcDone")]
pub fn run_once_per_core<F: Fn() + Sync>(closure: F) -> Result {
    /// Runs the closure on one processor.
    ///
    /// # Safety
    /// The context is an `F` that is alive until the last processor has signalled that it is done.
    unsafe extern "system-unwind" fn on_core<F: Fn()>(
        _dpc: *mut sys::KDPC,
        context: *mut c_void,
        done: *mut c_void,
        _synchronize: *mut c_void,
    ) {
        // SAFETY: by this function's contract; all processors use the closure shared.
        let closure = unsafe { &*context.cast::<F>() };
        closure();
        // SAFETY: the argument is the one that the kernel passed for this, and it is signalled once. The closure is not used any more.
        unsafe { sys::KeSignalCallDpcDone(done) };
    }
    irql::require_at_most(Irql::PASSIVE)?;
    if Image::this().in_threaded_dpc() {
        return Err(NtError::WOULD_DEADLOCK);
    }
    let context = (&raw const closure).cast_mut().cast();
    // SAFETY: the closure is `Sync`, and alive until this returns, which is after all processors have signalled that they are done. The level was checked.
    unsafe { sys::KeGenericCallDpc(Some(on_core::<F>), context) };
    Ok(())
}
