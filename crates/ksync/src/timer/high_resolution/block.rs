//! A system's timer with its closure, and how both are freed.

use core::cell::Cell;
use core::ffi::c_void;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;

use ksync_sys as sys;

use super::Resolution;
use crate::dpc;
use crate::driver::image::Image;
use crate::driver::list::Node;
use crate::error::{NtError, Result};
use crate::irql::{self, Irql};
use crate::pool::KBox;
use crate::routine::Routine;
use crate::thread::this_thread;
use crate::timer::TimerKind;

// SAFETY: the exported routine of this name has this type.
static ALLOCATE: Routine<sys::ExAllocateTimer> = unsafe { Routine::new("ExAllocateTimer") };
// SAFETY: as above.
static SET: Routine<sys::ExSetTimer> = unsafe { Routine::new("ExSetTimer") };
// SAFETY: as above.
static CANCEL: Routine<sys::ExCancelTimer> = unsafe { Routine::new("ExCancelTimer") };
// SAFETY: as above.
static DELETE: Routine<sys::ExDeleteTimer> = unsafe { Routine::new("ExDeleteTimer") };

/// The system's routines for these timers.
#[derive(Clone, Copy)]
pub(super) struct Routines {
    allocate: sys::ExAllocateTimer,
    set: sys::ExSetTimer,
    cancel: sys::ExCancelTimer,
    delete: sys::ExDeleteTimer,
}

impl Routines {
    /// Finds the routines.
    ///
    /// # Errors
    /// - [`NtError::NOT_SUPPORTED`] if the system does not have them.
    /// - [`NtError::IRQL_TOO_HIGH`] above `PASSIVE_LEVEL`, if they have not been found before.
    pub(super) fn find() -> Result<Self> {
        Ok(Self { allocate: ALLOCATE.require()?, set: SET.require()?, cancel: CANCEL.require()?, delete: DELETE.require()? })
    }
}

/// The part of a block that does not depend on the closure's type.
///
/// # Invariants
/// - `timer` is a timer of the system's, from when it is allocated until it is deleted, which is just before the block is freed. With a closure, its callback is [`callback`] with the
///   block's address.
/// - With a closure, the block is in its image's list of these timers.
#[repr(C)]
struct Header {
    node: Node,
    timer: Cell<*mut sys::EX_TIMER>,
    routines: Routines,
    image: &'static Image,
    resolution: Resolution,
    /// It has been armed at least once.
    started: AtomicBool,
    /// The handle is going or gone, and with it the timer; the block follows as soon as its closure runs nowhere. Touched under the list's lock.
    dying: Cell<bool>,
    /// Calls the closure; `None` if there is none.
    call: Option<unsafe fn(NonNull<Header>)>,
    free: unsafe fn(NonNull<Header>),
}

/// A block as it is allocated.
#[repr(C)]
struct Block<F> {
    header: Header,
    closure: F,
}

/// The handle to a block.
///
/// # Invariants
/// The block is alive, and nobody else frees it or deletes its timer.
pub(super) struct Owner {
    header: NonNull<Header>,
    _owned: PhantomData<Header>,
}

// SAFETY: the system's timer can be used, and the closure, which is `Send`, be dropped in any thread.
unsafe impl Send for Owner {}
// SAFETY: the system's routines on a timer are atomic with respect to each other. Of the block, a shared handle changes a flag that is atomic.
unsafe impl Sync for Owner {}

impl Owner {
    /// Allocates a timer with a closure.
    pub(super) fn new<F>(resolution: Resolution, kind: TimerKind, closure: F) -> Result<Self>
    where
        F: Fn() + Send + Sync + 'static,
    {
        Self::allocate(resolution, kind, closure, Some(call::<F>))
    }

    /// Allocates a timer without a closure.
    pub(super) fn waitable(resolution: Resolution, kind: TimerKind) -> Result<Self> {
        Self::allocate(resolution, kind, (), None)
    }

    fn allocate<F: 'static>(
        resolution: Resolution,
        kind: TimerKind,
        closure: F,
        call: Option<unsafe fn(NonNull<Header>)>,
    ) -> Result<Self> {
        irql::require_at_most(Irql::DISPATCH)?;
        let routines = Routines::find()?;
        let image = Image::this();
        let block = KBox::new(Block {
            header: Header {
                node: Node::new(),
                timer: Cell::new(ptr::null_mut()),
                routines,
                image,
                resolution,
                started: AtomicBool::new(false),
                dying: Cell::new(false),
                call,
                free: free::<F>,
            },
            closure,
        })?;
        let block = KBox::into_raw(block);
        let callback: sys::PEXT_CALLBACK = if call.is_some() { Some(callback) } else { None };
        let notification = if kind == TimerKind::Notification { sys::EX_TIMER_NOTIFICATION } else { 0 };
        // SAFETY: the block stays in its place until the timer is deleted, and is what the callback takes. The level was checked.
        let timer = unsafe { (routines.allocate)(callback, block.cast(), resolution.raw() | notification) };
        if timer.is_null() {
            // SAFETY: the block came from `into_raw`, and no timer knows of it.
            drop(unsafe { KBox::from_raw(block) });
            return Err(NtError::INSUFFICIENT_RESOURCES);
        }
        // SAFETY: the block was allocated just now, and is not used otherwise yet.
        unsafe { &(*block).header }.timer.set(timer);
        if call.is_some()
            && let Some(mut timers) = image.hr_timers.lock()
        {
            // SAFETY: the node is new, and stays in its place until the block is freed, which takes it out first.
            unsafe { timers.insert(block.cast()) };
        }
        // SAFETY: pointers of boxes are never null.
        let header = unsafe { NonNull::new_unchecked(block.cast()) };
        // INVARIANT: nobody else has the pointer.
        Ok(Self { header, _owned: PhantomData })
    }

    fn header(&self) -> &Header {
        // SAFETY: by the type's invariant the block is alive while `self` is.
        unsafe { self.header.as_ref() }
    }

    pub(super) fn timer(&self) -> *mut sys::EX_TIMER {
        self.header().timer.get()
    }

    pub(super) fn resolution(&self) -> Resolution {
        self.header().resolution
    }

    /// Arms the timer. All times are in NT's form, the period and the tolerance not negative, or the latter NT's "unlimited".
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::DELETE_PENDING`] for a timer with a closure, while the driver is being unloaded.
    pub(super) fn set(&self, due: i64, period: i64, tolerance: i64) -> Result<bool> {
        let header = self.header();
        if header.call.is_some() {
            header.image.check_open()?;
        }
        header.started.store(true, Ordering::Relaxed);
        let mut parameters = sys::EXT_SET_PARAMETERS { Version: 0, Reserved: 0, NoWakeTolerance: 0 };
        // SAFETY: the structure is a local variable.
        unsafe { sys::ExInitializeSetTimerParameters(&raw mut parameters) };
        parameters.NoWakeTolerance = tolerance;
        // SAFETY: by the type's invariant the timer is there, and the parameters are a local variable that the routine reads. The callers have checked the level.
        Ok(unsafe { (header.routines.set)(self.timer(), due, period, &raw mut parameters) } != 0)
    }

    /// Disarms the timer.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    pub(super) fn cancel(&self) -> bool {
        // SAFETY: by the type's invariant the timer is there. The callers have checked the level.
        unsafe { (self.header().routines.cancel)(self.timer(), ptr::null_mut()) != 0 }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let level = irql::current();
        if level > Irql::DISPATCH {
            crate::println!("ksync: a high-resolution timer was dropped above DISPATCH_LEVEL and is leaked");
            return;
        }
        let header = self.header();
        let (delete, timer) = (header.routines.delete, header.timer.get());
        if header.call.is_some()
            && let Some(_timers) = header.image.hr_timers.lock()
        {
            header.dying.set(true);
        }
        let used = header.call.is_some() && header.started.load(Ordering::Relaxed);
        if !used {
            // There is no closure, or it was never due: nothing of ours can run.
            // SAFETY: by the type's invariant the timer is there, nobody else deletes it, and nobody waits on it, because a wait borrows the handle. The level was checked.
            unsafe { delete(timer, sys::TRUE, sys::FALSE, ptr::null_mut()) };
        } else if level <= Irql::APC && !header.image.in_threaded_dpc() {
            // SAFETY: as above. At this level the routine may wait. The callback, for which it waits, is above this level, so that this is not it.
            unsafe { delete(timer, sys::TRUE, sys::TRUE, ptr::null_mut()) };
        } else {
            let mut parameters =
                sys::EXT_DELETE_PARAMETERS { Version: 0, Reserved: 0, DeleteCallback: None, DeleteContext: ptr::null_mut() };
            // SAFETY: the structure is a local variable.
            unsafe { sys::ExInitializeDeleteTimerParameters(&raw mut parameters) };
            parameters.DeleteCallback = Some(deleted);
            parameters.DeleteContext = self.header.as_ptr().cast();
            // SAFETY: as above. The block is given up to `deleted`, which is called when the timer is gone, and may have been when this returns.
            unsafe { delete(timer, sys::TRUE, sys::FALSE, &raw mut parameters) };
            return;
        }
        // SAFETY: the timer is deleted, its callback runs nowhere, and the only handle is going away.
        unsafe { release(self.header) };
    }
}

/// Takes a block out of its list, if it is in one, and frees it.
///
/// # Safety
/// Its timer is deleted, its closure runs nowhere, and there is no handle. The level is `<= DISPATCH_LEVEL`.
unsafe fn release(header: NonNull<Header>) {
    // SAFETY: by this function's contract the block is alive.
    let this = unsafe { header.as_ref() };
    let free = this.free;
    if this.call.is_some()
        && let Some(mut timers) = this.image.hr_timers.lock()
    {
        // SAFETY: by the type's invariant the block is in this list.
        unsafe { timers.remove(header.as_ptr().cast()) };
    }
    // SAFETY: by the type's invariant the function is the one for this block, and by this function's contract nobody uses it any more.
    unsafe { free(header) };
}

/// Frees a block.
///
/// # Safety
/// The header is that of a `Block<F>` that is in no list. Nobody uses it any more.
unsafe fn free<F>(header: NonNull<Header>) {
    // SAFETY: by this function's contract; the block was given up for this pointer when it was made.
    drop(unsafe { KBox::from_raw(header.cast::<Block<F>>().as_ptr()) });
}

/// Calls a block's closure.
///
/// # Safety
/// The header is that of a `Block<F>` that is alive.
unsafe fn call<F: Fn()>(header: NonNull<Header>) {
    // SAFETY: by this function's contract; the closure is used shared.
    let closure = unsafe { &(*header.cast::<Block<F>>().as_ptr()).closure };
    closure();
}

/// The system's way into a timer's closure.
///
/// # Safety
/// The context is the header of a block with a closure, which stays alive while this runs.
unsafe extern "system-unwind" fn callback(_timer: *mut sys::EX_TIMER, context: *mut c_void) {
    // SAFETY: the context is not null.
    let header = unsafe { NonNull::new_unchecked(context.cast::<Header>()) };
    // SAFETY: by this function's contract.
    let Some(call) = (unsafe { header.as_ref() }).call else { return };
    // SAFETY: by the type's invariant the function is the one for this block, which is alive.
    unsafe { call(header) };
}

/// The system has freed a timer, and its closure runs nowhere.
///
/// # Safety
/// The context is the header of a block with a closure, whose handle is gone and which nobody else frees.
unsafe extern "system-unwind" fn deleted(context: *mut c_void) {
    // SAFETY: the context is not null.
    let header = unsafe { NonNull::new_unchecked(context.cast::<Header>()) };
    // IRQL: that of the drop or of the callback, `<= DISPATCH_LEVEL`.
    // SAFETY: by this function's contract, and because the system calls this when the timer is gone.
    unsafe { release(header) };
}

/// Disarms all timers of an image that have a closure, and waits until no closure runs and all that are being freed are gone.
///
/// A timer whose handle was forgotten is not deleted: safe code may still have a reference to it. Its callbacks run at `DISPATCH_LEVEL`, so that after a flush, which lets every
/// processor go below that, none of them runs any more.
///
/// # IRQL
/// `PASSIVE_LEVEL`.
pub(in crate::timer) fn drain(image: &'static Image) {
    loop {
        let mut dying = false;
        if let Some(timers) = image.hr_timers.lock() {
            for node in timers.nodes() {
                // SAFETY: the nodes of this list are the first fields of headers of blocks that are alive while they are in it. The list is locked.
                let header = unsafe { &*node.cast::<Header>() };
                if header.dying.get() {
                    // Its timer is cancelled and deleted, now or soon, and must not be touched.
                    dying = true;
                } else {
                    // IRQL: under the lock, so at `DISPATCH_LEVEL`.
                    // SAFETY: the timer of a block that is not dying is there: a drop says that it is dying, for which it needs the lock, before it deletes the timer.
                    unsafe { (header.routines.cancel)(header.timer.get(), ptr::null_mut()) };
                }
            }
        }
        dpc::flush_all();
        if !dying {
            return;
        }
        let _ = this_thread::sleep(Duration::from_millis(1));
    }
}
