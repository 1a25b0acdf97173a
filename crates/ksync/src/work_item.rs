//! Work items: code that a thread of the system's runs at `PASSIVE_LEVEL` soon.
//!
//! A [`WorkItem`] owns a closure and is queued from any level up to `DISPATCH_LEVEL`: it is how a DPC gets something done that has to wait. [`post`] runs
//! a closure once and needs no handle.
//!
//! # Vocabulary
//! ```text
//!        enqueue          a worker thread takes it off its queue
//! idle -----------> queued ------------------------------------> running --> idle
//!                                        enqueue again: queued, while it still runs
//! ```
//! There is no cancelling: what is queued will run. As with a DPC, the item is off its queue before its closure runs, so that it can be queued again meanwhile and run in two
//! threads at once: closures are `Fn` and `Sync`.
//!
//! # What it keeps
//! A work item belongs to a device or to the driver, and while it is queued or runs the system keeps that: the device is not freed, and the driver's image not unloaded, before
//! the closure has returned. The driver's unload [waits](crate::driver::drain) for it besides.
//!
//! Its memory counts its users: the handle, and each time that it is queued until the closure is done. The last one frees it, so that a handle may be dropped anywhere, in the
//! closure too.

use core::cell::{Cell, UnsafeCell};
use core::ffi::c_void;
use core::fmt;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use core::sync::atomic::Ordering;
use core::time::Duration;

use ksync_sys as sys;

use crate::driver::DriverObject;
use crate::driver::image::Image;
use crate::driver::list::Node;
use crate::error::{NtError, Result};
use crate::irql::{self, Irql};
use crate::pool::KBox;
use crate::thread::this_thread;

/// The queue that a work item goes to, which decides the priority of the thread that runs it.
#[doc(alias = "WORK_QUEUE_TYPE")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum WorkQueue {
    /// Priority 13: for what others wait for.
    Critical,
    /// Priority 12, the usual choice.
    #[default]
    Delayed,
    /// Priority 8. First Windows: 8.
    Normal,
    /// Priority 7. First Windows: 8.
    Background,
    /// Priority 18. First Windows: 8.
    RealTime,
}

impl WorkQueue {
    /// NT's number.
    const fn raw(self) -> sys::WORK_QUEUE_TYPE {
        match self {
            Self::Critical => sys::CriticalWorkQueue,
            Self::Delayed => sys::DelayedWorkQueue,
            Self::Normal => sys::NormalWorkQueue,
            Self::Background => sys::BackgroundWorkQueue,
            Self::RealTime => sys::RealTimeWorkQueue,
        }
    }
}

/// What a work item keeps.
pub(crate) mod sealed {
    use super::sys;

    /// A device or driver object.
    #[derive(Clone, Copy, Debug)]
    pub enum Raw {
        /// A device.
        Device(*mut sys::DEVICE_OBJECT),
        /// A driver.
        Driver(*mut sys::DRIVER_OBJECT),
    }

    /// Who can be the target of a work item.
    pub trait Sealed {
        /// The object, which is valid while `self` is borrowed.
        fn raw(&self) -> Raw;
    }
}
use sealed::Raw;

/// What a work item can belong to: a [`DriverObject`], a [`Device`](crate::device::Device) or a [`DeviceObject`](crate::device::DeviceObject).
///
/// A device is the better choice where there is one: its work items exist on every Windows, those of a driver since Vista.
pub trait WorkTarget: sealed::Sealed {}

impl sealed::Sealed for DriverObject {
    fn raw(&self) -> Raw {
        Raw::Driver(self.as_raw())
    }
}

impl WorkTarget for DriverObject {}

/// A work item.
///
/// # IRQL
/// Made and dropped at `<= DISPATCH_LEVEL`. At `PASSIVE_LEVEL` a drop waits until the closure no longer runs, unless that is who drops it, and what the closure owns is dropped there and
/// then; at a higher level that is left to the worker thread. So the dropper must not hold what the closure waits for: [`detach`](Self::detach) does not wait. Above `DISPATCH_LEVEL` the item is leaked.
///
/// # Examples
/// ```
/// use core::sync::atomic::{AtomicU32, Ordering};
/// use ksync::driver::{DriverObject, UnicodeStr};
/// use ksync::error::Result;
/// use ksync::irql::{self, Irql};
/// use ksync::work_item::WorkItem;
///
/// fn entry(driver: &DriverObject, _registry_path: &UnicodeStr) -> Result<WorkItem> {
///     let item = WorkItem::new(driver, || ksync::println!("at {}", irql::current()))?;
///     irql::with_raised(Irql::DISPATCH, || {
///         assert_eq!(item.enqueue(), Ok(true));
///     })?;
///     item.flush()?;
///     Ok(item)
/// }
/// # ksync::driver_entry!(entry);
/// # fn main() {
/// # let outcome = ksim::Machine::new().run(|| ksim::load_driver("sample", DriverEntry).unwrap().unload());
/// # assert_eq!(outcome.debug_output(), ["at PASSIVE_LEVEL"]);
/// # outcome.expect_clean();
/// # }
/// ```
#[doc(alias = "IO_WORKITEM")]
pub struct WorkItem {
    /// # Invariants
    /// It is alive, and one of its users is this handle.
    head: NonNull<Head>,
    _owned: PhantomData<Head>,
}

// SAFETY: an item can be used, and its closure, which is `Send`, be dropped in any thread.
unsafe impl Send for WorkItem {}
// SAFETY: what a shared handle offers may be called by several threads at once.
unsafe impl Sync for WorkItem {}

/// A work item, in a block of nonpaged pool with its closure.
///
/// # Invariants
/// - `users` counts the handle, and each time that the item is queued until its routine is done.
/// - `object` is referenced, and `item` is a work item of it that is queued by this alone.
/// - `users`, `queued` and `outstanding` are touched under `lock` only, so that who ends the last use comes after all others have released it; `idle` is signaled when `outstanding` is 0.
#[repr(C)]
struct Head {
    node: Node,
    image: &'static Image,
    item: *mut sys::IO_WORKITEM,
    object: Raw,
    users: Cell<usize>,
    lock: UnsafeCell<sys::KSPIN_LOCK>,
    queued: Cell<bool>,
    outstanding: Cell<usize>,
    idle: UnsafeCell<MaybeUninit<sys::KEVENT>>,
    /// Who frees the item, when nobody uses it any more. Touched under the lock.
    freed_by: Cell<*mut sys::KTHREAD>,
    call: unsafe fn(NonNull<Head>),
    free: unsafe fn(NonNull<Head>),
}

/// A head and its closure, as they are allocated.
#[repr(C)]
struct Block<F> {
    head: Head,
    closure: F,
}

/// A routine that runs. It lies on the routine's stack.
#[repr(C)]
struct Working {
    node: Node,
    thread: *mut sys::KTHREAD,
    head: *const Head,
}

impl WorkItem {
    /// Makes a work item.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::INSUFFICIENT_RESOURCES`] if there is no memory. The closure is dropped.
    /// - [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// See [`WorkItem`].
    ///
    /// Wraps [`IoAllocateWorkItem`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioallocateworkitem), and for a driver
    /// [`IoInitializeWorkItem`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioinitializeworkitem).
    #[doc(alias = "IoAllocateWorkItem")]
    #[doc(alias = "IoInitializeWorkItem")]
    pub fn new<F>(target: &impl WorkTarget, closure: F) -> Result<Self>
    where
        F: Fn() + Send + Sync + 'static,
    {
        // SAFETY: the closure may be called by several threads at once.
        unsafe { Self::with_closure(target.raw(), closure) }
    }

    /// Makes a work item.
    ///
    /// # Safety
    /// The object is valid. If the closure is not `Sync`, the item is queued once only.
    unsafe fn with_closure<F>(object: Raw, closure: F) -> Result<Self>
    where
        F: Fn() + Send + 'static,
    {
        irql::require_at_most(Irql::DISPATCH)?;
        let image = Image::this();
        let block = KBox::new(Block {
            head: Head {
                node: Node::new(),
                image,
                item: ptr::null_mut(),
                object,
                users: Cell::new(1),
                lock: UnsafeCell::new(0),
                queued: Cell::new(false),
                outstanding: Cell::new(0),
                idle: UnsafeCell::new(MaybeUninit::uninit()),
                freed_by: Cell::new(ptr::null_mut()),
                call: call::<F>,
                free: free::<F>,
            },
            closure,
        })?;
        let mut block = block;
        block.head.item = allocate(object)?;
        let block = KBox::into_raw(block);
        // SAFETY: the block was given up just now, and is not used otherwise yet.
        let head = unsafe { &raw mut (*block).head };
        // SAFETY: the event lies in nonpaged pool, in which it stays.
        let idle = unsafe { (*head).idle.get() };
        // SAFETY: as above.
        unsafe { sys::KeInitializeEvent(idle.cast(), sys::NotificationEvent, sys::TRUE) };
        // SAFETY: by this function's contract the object is valid. The reference is dropped when the item is freed.
        unsafe { sys::ObfReferenceObject(pointer(object)) };
        if let Some(mut list) = image.work.lock() {
            // SAFETY: the node is new, and is taken out before the block is freed.
            unsafe { list.insert(head.cast()) };
        }
        // SAFETY: pointers of boxes are never null.
        let head = unsafe { NonNull::new_unchecked(head) };
        // INVARIANT: the item was made with one user.
        Ok(Self { head, _owned: PhantomData })
    }

    /// The item.
    #[inline]
    fn head(&self) -> &Head {
        // SAFETY: by the type's invariant it is alive while `self` is.
        unsafe { self.head.as_ref() }
    }

    /// Queues the item to the [usual](WorkQueue::Delayed) queue, and tells whether it was not queued already.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::DELETE_PENDING`] while the driver is being unloaded.
    /// - [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// See [`WorkItem`].
    ///
    /// Wraps [`IoQueueWorkItem`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioqueueworkitem).
    #[doc(alias = "IoQueueWorkItem")]
    #[doc(alias = "activate")]
    pub fn enqueue(&self) -> Result<bool> {
        self.enqueue_on(WorkQueue::Delayed)
    }

    /// [`enqueue`](Self::enqueue) with a choice of the queue.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Those of [`enqueue`](Self::enqueue).
    #[doc(alias = "IoQueueWorkItem")]
    pub fn enqueue_on(&self, queue: WorkQueue) -> Result<bool> {
        irql::require_at_most(Irql::DISPATCH)?;
        self.head().image.check_open()?;
        Ok(self.insert(queue))
    }

    /// [`enqueue_on`](Self::enqueue_on), while the driver is being unloaded too. The level was checked.
    pub(crate) fn insert(&self, queue: WorkQueue) -> bool {
        let head = self.head();
        head.image.started.fetch_add(1, Ordering::SeqCst);
        let fresh = head.locked(|| {
            if head.queued.replace(true) {
                return false;
            }
            let outstanding = head.outstanding.get();
            head.outstanding.set(outstanding + 1);
            if outstanding == 0 {
                // SAFETY: by the type's invariant the event is initialised and in its place.
                unsafe { sys::KeClearEvent(head.idle.get().cast()) };
            }
            // Before the item is queued, because its routine may be done before the kernel's returns. The count cannot overflow: each user has a thread, but for the one that is queued.
            head.users.set(head.users.get() + 1);
            true
        });
        if fresh {
            let context = self.head.as_ptr().cast();
            // SAFETY: by the type's invariant the item is initialised and belongs to an object that is referenced. It is not queued: whoever queues it sets `queued` first, and only its routine, which
            // runs after it was taken off the queue, clears that. It stays alive until the use is ended by the routine.
            unsafe { sys::IoQueueWorkItem(head.item, Some(routine), queue.raw(), context) };
        }
        fresh
    }

    /// Waits until the item is neither queued nor running.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::IRQL_TOO_HIGH`] above `APC_LEVEL`.
    /// - [`NtError::WOULD_DEADLOCK`] in the item's own closure, and in the closure of a threaded DPC.
    ///
    /// # Examples
    /// See [`WorkItem`].
    pub fn flush(&self) -> Result {
        irql::require_at_most(Irql::APC)?;
        let head = self.head();
        if head.runs_here() || head.image.in_threaded_dpc() {
            return Err(NtError::WOULD_DEADLOCK);
        }
        head.wait();
        Ok(())
    }

    /// Gives the handle up without waiting: the item is freed when it is neither queued nor running.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; above, the item is leaked.
    pub fn detach(self) {
        let head = self.head;
        core::mem::forget(self);
        // SAFETY: by the type's invariant one of the users is the handle, which is gone.
        unsafe { leave(head) };
    }
}

impl fmt::Debug for WorkItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkItem").finish_non_exhaustive()
    }
}

impl Drop for WorkItem {
    fn drop(&mut self) {
        let head = self.head();
        if irql::current() == Irql::PASSIVE && !head.runs_here() && !head.image.in_threaded_dpc() {
            head.wait();
        }
        // SAFETY: by the type's invariant one of the users is the handle, which is going away.
        unsafe { leave(self.head) };
    }
}

impl Head {
    /// Runs code under the lock. The level was checked.
    fn locked<R>(&self, code: impl FnOnce() -> R) -> R {
        // SAFETY: the word is a spin lock as long as the head lives; the callers are at `DISPATCH_LEVEL` or below, and the code under it does not acquire it again.
        let level = unsafe { sys::KeAcquireSpinLockRaiseToDpc(self.lock.get()) };
        let result = code();
        // SAFETY: it was acquired just now, at `level`.
        unsafe { sys::KeReleaseSpinLock(self.lock.get(), level) };
        result
    }

    /// Ends one use, and so many insertions. True if it was the last use: then the caller frees the item.
    fn end_use(&self, insertions: usize) -> bool {
        self.locked(|| {
            let (users, outstanding) = (self.users.get() - 1, self.outstanding.get() - insertions);
            self.users.set(users);
            self.outstanding.set(outstanding);
            if insertions > 0 && outstanding == 0 {
                // SAFETY: by the type's invariant the event is initialised and in its place.
                unsafe { sys::KeSetEvent(self.idle.get().cast(), sys::IO_NO_INCREMENT, sys::FALSE) };
            }
            if users == 0 {
                // SAFETY: the routine may be called anywhere.
                self.freed_by.set(unsafe { sys::KeGetCurrentThread() });
            }
            users == 0
        })
    }

    /// Waits until the item is idle. The level was checked.
    fn wait(&self) {
        // SAFETY: by the type's invariant the event is initialised and in its place, and the caller keeps it alive; the level is one to wait at.
        unsafe { sys::KeWaitForSingleObject(self.idle.get().cast(), sys::Executive, sys::KernelMode, sys::FALSE, ptr::null()) };
    }

    /// Tells whether the current thread runs the item's closure, where it must not wait for it.
    fn runs_here(&self) -> bool {
        works_in_this_thread(self.image, |head| ptr::eq(head, self))
    }
}

/// Tells whether the current thread runs the closure of an item of the image's.
pub(crate) fn runs_in_this_thread(image: &Image) -> bool {
    works_in_this_thread(image, |_| true)
}

/// Tells whether the current thread runs the closure of one of the chosen items of the image's. True where nothing can be found out.
fn works_in_this_thread(image: &Image, chosen: impl Fn(*const Head) -> bool) -> bool {
    let Some(list) = image.working.lock() else { return true };
    // SAFETY: the routine may be called anywhere.
    let current = unsafe { sys::KeGetCurrentThread() };
    list.nodes().any(|node| {
        // SAFETY: the nodes of this list are the first fields of `Working`s, which are valid while they are in it.
        let working = unsafe { &*node.cast::<Working>() };
        working.thread == current && chosen(working.head)
    })
}

/// The object's pointer, for the object manager.
const fn pointer(object: Raw) -> *mut c_void {
    match object {
        Raw::Device(device) => device.cast(),
        Raw::Driver(driver) => driver.cast(),
    }
}

/// The layout of a work item in pool of this library's own.
fn item_layout() -> Result<core::alloc::Layout> {
    // SAFETY: the level was checked.
    let bytes = unsafe { sys::IoSizeofWorkItem() };
    // CAST: from 32 to 64 bits.
    core::alloc::Layout::from_size_align(bytes as usize, 16).map_err(|_| NtError::INTEGER_OVERFLOW)
}

/// Makes the kernel's part. The object is valid, and the level was checked.
fn allocate(object: Raw) -> Result<*mut sys::IO_WORKITEM> {
    match object {
        Raw::Device(device) => {
            // SAFETY: by the caller's contract.
            let item = unsafe { sys::IoAllocateWorkItem(device) };
            if item.is_null() { Err(NtError::INSUFFICIENT_RESOURCES) } else { Ok(item) }
        }
        Raw::Driver(driver) => {
            let item: *mut sys::IO_WORKITEM = crate::pool::allocate(item_layout()?)?.as_ptr().cast();
            // SAFETY: the memory is as large as the kernel says, nonpaged, and stays where it is until the item is uninitialised.
            unsafe { sys::IoInitializeWorkItem(driver.cast(), item) };
            Ok(item)
        }
    }
}

/// Ends an insertion and its use. The last use frees the item.
///
/// # Safety
/// The caller is the insertion, and does not use the item any more.
unsafe fn finish(head: NonNull<Head>) {
    // SAFETY: by this function's contract the item is alive until the count is down.
    if unsafe { head.as_ref() }.end_use(1) {
        // SAFETY: the item is alive, because the last user frees it.
        let free = unsafe { head.as_ref().free };
        // SAFETY: by the type's invariant the function is the one for this block, and nobody uses the item any more.
        unsafe { free(head) };
    }
}

/// Ends one use of an item. The last one frees it; above `DISPATCH_LEVEL`, where that cannot be done, it is leaked.
///
/// # Safety
/// The caller is one of the users, and does not use the item any more.
unsafe fn leave(head: NonNull<Head>) {
    if irql::current() > Irql::DISPATCH {
        return;
    }
    // SAFETY: by this function's contract the item is alive until the count is down.
    if unsafe { head.as_ref() }.end_use(0) {
        // SAFETY: the item is alive, because the last user frees it.
        let free = unsafe { head.as_ref().free };
        // SAFETY: by the type's invariant the function is the one for this block, and nobody uses the item any more.
        unsafe { free(head) };
    }
}

/// Calls an item's closure.
///
/// # Safety
/// The head is the first part of a `Block<F>` that is alive.
unsafe fn call<F: Fn()>(head: NonNull<Head>) {
    // SAFETY: by this function's contract; others use the closure only shared.
    let closure = unsafe { &(*head.cast::<Block<F>>().as_ptr()).closure };
    closure();
}

/// Frees an item and its closure.
///
/// # Safety
/// The head is the first part of a `Block<F>`, and nobody uses it any more.
unsafe fn free<F>(head: NonNull<Head>) {
    /// What follows the end of the closure, also if that unwinds.
    struct Rest<F>(NonNull<Head>, PhantomData<F>);
    impl<F> Drop for Rest<F> {
        fn drop(&mut self) {
            // SAFETY: the head is valid until its memory is freed below.
            let this = unsafe { self.0.as_ref() };
            let object = this.object;
            if let Some(mut list) = this.image.work.lock() {
                // SAFETY: the node was put into this list when the item was made, and is taken out once, here.
                unsafe { list.remove(self.0.as_ptr().cast()) };
            }
            // SAFETY: the block was given up for this pointer when it was made. Its closure was dropped, and nothing else in it needs that.
            drop(unsafe { KBox::from_raw(self.0.cast::<MaybeUninit<Block<F>>>().as_ptr()) });
            // SAFETY: the reference was taken when the item was made.
            unsafe { sys::ObfDereferenceObject(pointer(object)) };
        }
    }
    // SAFETY: by this function's contract the head is valid.
    let this = unsafe { head.as_ref() };
    match this.object {
        // SAFETY: the item was allocated for the device, and is not queued.
        Raw::Device(_) => unsafe { sys::IoFreeWorkItem(this.item) },
        Raw::Driver(_) => {
            // SAFETY: the item was initialised in this memory, and is not queued.
            unsafe { sys::IoUninitializeWorkItem(this.item) };
            // SAFETY: the memory was allocated from nonpaged pool with this tag, and is not used any more.
            unsafe { sys::ExFreePoolWithTag(this.item.cast(), crate::pool::TAG) };
        }
    }
    // The item stays in its list until the closure is gone, which is the image's code: a drain waits for that.
    let _rest = Rest::<F>(head, PhantomData);
    // SAFETY: by this function's contract the head is that of such a block, whose closure nobody uses any more.
    let closure = unsafe { &raw mut (*head.cast::<Block<F>>().as_ptr()).closure };
    // SAFETY: as above; it is dropped once, here.
    unsafe { ptr::drop_in_place(closure) };
}

/// The kernel's way into an item.
///
/// # Safety
/// The context is a [`Head`], of whose users one is the insertion that this call is for.
unsafe extern "system-unwind" fn routine(_object: *mut sys::DEVICE_OBJECT, context: *mut c_void) {
    /// Ends the insertion's use, also when the closure unwinds.
    struct Leave<'a>(NonNull<Head>, &'a Working);
    impl Drop for Leave<'_> {
        fn drop(&mut self) {
            // SAFETY: by the contract of `routine` the insertion is a user until now.
            let image = unsafe { self.0.as_ref() }.image;
            // SAFETY: as above. The use and the insertion end together, so that who waits for the end of the insertion may be the last user.
            unsafe { finish(self.0) };
            // Only now, because the closure may have been dropped here, and what it owns must find that it is in a work item.
            if let Some(mut list) = image.working.lock() {
                // SAFETY: the node was put into this list below, and is taken out once, here.
                unsafe { list.remove((&raw const self.1.node).cast_mut()) };
            }
        }
    }
    // SAFETY: the context is not null.
    let head = unsafe { NonNull::new_unchecked(context.cast::<Head>()) };
    // SAFETY: by this function's contract the item is alive until `leave` is dropped.
    let this = unsafe { head.as_ref() };
    // The kernel has taken the item off its queue: from now on it may be queued again.
    this.locked(|| this.queued.set(false));
    // SAFETY: the routine may be called anywhere.
    let thread = unsafe { sys::KeGetCurrentThread() };
    let working = Working { node: Node::new(), thread, head: this };
    if let Some(mut list) = this.image.working.lock() {
        // The pointer is one to all of it, whose first field the node is: who finds the node looks at the rest.
        // SAFETY: the node is new, and stays in its place until it is taken out by the drop of `leave`.
        unsafe { list.insert((&raw const working).cast_mut().cast()) };
    }
    let leave = Leave(head, &working);
    // SAFETY: by the type's invariant the function is the one for this block, which is alive.
    unsafe { (this.call)(head) };
    drop(leave);
}

/// Runs a closure once, in a thread of the system's, and keeps the device or driver until then.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Errors
/// The closure was dropped and will not run, and the error is
/// - [`NtError::INSUFFICIENT_RESOURCES`] if there is no memory;
/// - [`NtError::DELETE_PENDING`] while the driver is being unloaded;
/// - [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
///
/// # Examples
/// ```
/// use ksync::driver::{DriverObject, UnicodeStr};
/// use ksync::error::Result;
/// use ksync::work_item;
///
/// fn entry(driver: &DriverObject, _registry_path: &UnicodeStr) -> Result<()> {
///     let text = String::from("later");
///     work_item::post(driver, move || ksync::println!("{text}"))
/// }
/// # ksync::driver_entry!(entry);
/// # fn main() {
/// # let outcome = ksim::Machine::new().run(|| ksim::load_driver("sample", DriverEntry).unwrap().unload());
/// # assert_eq!(outcome.debug_output(), ["later"]);
/// # outcome.expect_clean();
/// # }
/// ```
///
/// Wraps [`IoQueueWorkItem`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioqueueworkitem).
#[doc(alias = "IoQueueWorkItem")]
pub fn post<F>(target: &impl WorkTarget, closure: F) -> Result
where
    F: FnOnce() + Send + 'static,
{
    /// A closure that is taken out once.
    struct Once<F>(Cell<Option<F>>);
    let once = Once(Cell::new(Some(closure)));
    let run = move || {
        // The whole of it, and not its field alone.
        let once = &once;
        if let Some(closure) = once.0.take() {
            closure();
        }
    };
    // SAFETY: the target is borrowed, and so its object valid. The item is queued once, here.
    let item = unsafe { WorkItem::with_closure(target.raw(), run) }?;
    item.enqueue()?;
    item.detach();
    Ok(())
}

/// Waits until no work item of the image is queued or runs. None can be queued any more.
///
/// # IRQL
/// `PASSIVE_LEVEL`.
pub(crate) fn drain(image: &'static Image) {
    if !image.work.was_used() {
        return;
    }
    // SAFETY: the routine may be called anywhere.
    let current = unsafe { sys::KeGetCurrentThread() };
    loop {
        let Some(list) = image.work.lock() else { return };
        let mut dying = false;
        let busy = list.nodes().find_map(|node| {
            let head = node.cast::<Head>();
            // SAFETY: the nodes of this list are the first fields of heads, which are alive while they are in it.
            let this = unsafe { &*head };
            let busy = this.locked(|| {
                let users = this.users.get();
                // One that is being freed has no user any more, and cannot get one. If it is this thread that frees it, this is called by what its closure owns.
                dying |= users == 0 && this.freed_by.get() != current;
                let busy = users > 0 && this.outstanding.get() > 0;
                if busy {
                    this.users.set(users + 1);
                }
                busy
            });
            busy.then_some(head)
        });
        drop(list);
        let Some(head) = busy.and_then(NonNull::new) else {
            if !dying {
                return;
            }
            let _ = this_thread::sleep(Duration::from_millis(1));
            continue;
        };
        // SAFETY: a use was taken above.
        unsafe { head.as_ref() }.wait();
        // SAFETY: as above; it is ended here.
        unsafe { leave(head) };
    }
}
