//! A timer, its DPC and its closure in one block of pool, and how that is freed.

use core::alloc::Layout;
use core::cell::{Cell, UnsafeCell};
use core::ffi::c_void;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;

use ksync_sys as sys;

use crate::dpc::{self, Processor};
use crate::driver::image::Image;
use crate::driver::list::Node;
use crate::error::{NtError, Result, check};
use crate::irql::{self, Irql};
use crate::pool::{self, KBox};
use crate::thread::this_thread;
use crate::timer::{PinnedTimer, TimerKind};

/// The part of a block that does not depend on the closure's type.
///
/// # Invariants
/// - With a closure, the block is in its image's list of timers, and `dpc` is initialised with [`routine`] and the block's address. Without one, neither is the case.
/// - `timer` is initialised, with `dpc` or null accordingly.
#[repr(C)]
pub(super) struct Header {
    node: Node,
    timer: MaybeUninit<PinnedTimer>,
    dpc: UnsafeCell<MaybeUninit<sys::KDPC>>,
    image: &'static Image,
    /// No handle is left, and the block is freed as soon as its closure runs nowhere. Touched under the list's lock.
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
/// The block is alive, and nobody else frees it.
pub(super) struct Owner {
    header: NonNull<Header>,
    _owned: PhantomData<Header>,
}

// SAFETY: the timer can be used, and the closure, which is `Send`, be dropped in any thread.
unsafe impl Send for Owner {}
// SAFETY: a shared handle gives out shared references to the timer, which is `Sync`.
unsafe impl Sync for Owner {}
// The timer does not move when its handle does.
impl Unpin for Owner {}

impl Owner {
    /// Allocates a timer with a closure.
    pub(super) fn new<F>(kind: TimerKind, closure: F) -> Result<Self>
    where
        F: Fn() + Send + Sync + 'static,
    {
        Self::allocate(kind, closure, Some(call::<F>))
    }

    /// Allocates a timer without a closure.
    pub(super) fn waitable(kind: TimerKind) -> Result<Self> {
        Self::allocate(kind, (), None)
    }

    /// Allocates and initialises a block.
    fn allocate<F: 'static>(kind: TimerKind, closure: F, call: Option<unsafe fn(NonNull<Header>)>) -> Result<Self> {
        let image = Image::this();
        let block = KBox::new(Block {
            header: Header {
                node: Node::new(),
                timer: MaybeUninit::uninit(),
                dpc: UnsafeCell::new(MaybeUninit::uninit()),
                image,
                dying: Cell::new(false),
                call,
                free: free::<F>,
            },
            closure,
        })?;
        let block = KBox::into_raw(block);
        // SAFETY: the block was allocated just now; the place is only pointed to.
        let dpc = unsafe { &raw const (*block).header.dpc };
        let dpc: *mut sys::KDPC = dpc.cast_mut().cast();
        // SAFETY: as above.
        let timer = unsafe { &raw mut (*block).header.timer };
        // The level is `<= DISPATCH_LEVEL`, or there would be no block.
        if call.is_some() {
            // SAFETY: the DPC lies in nonpaged pool, in which it stays.
            unsafe { sys::KeInitializeDpc(dpc, Some(routine), block.cast()) };
        }
        let used = if call.is_some() { dpc } else { ptr::null_mut() };
        // SAFETY: the slot is the block's, in which the timer stays. The DPC is in the same block, which is freed only after the timer is cancelled and the DPC is through.
        unsafe { PinnedTimer::init_at(timer.cast(), kind, used) };
        if call.is_some()
            && let Some(mut timers) = image.timers.lock()
        {
            // SAFETY: the node is new, and stays in its place until the block is freed, which takes it out first.
            unsafe { timers.insert(block.cast()) };
        }
        // SAFETY: pointers of boxes are never null.
        let header = unsafe { NonNull::new_unchecked(block.cast()) };
        Ok(Self { header, _owned: PhantomData })
    }

    /// The timer.
    #[inline]
    pub(super) fn timer(&self) -> &PinnedTimer {
        // SAFETY: by the type's invariant the block is alive while `self` is.
        unsafe { timer(self.header) }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if irql::current() > Irql::DISPATCH {
            crate::println!("ksync: a timer was dropped above DISPATCH_LEVEL and is leaked");
            return;
        }
        // SAFETY: by the type's invariant the block is alive.
        let header = unsafe { self.header.as_ref() };
        if header.call.is_none() {
            // SAFETY: no DPC and no list knows of the block, and its only handle is going away. Its drop cancels the timer.
            unsafe { (header.free)(self.header) };
            return;
        }
        // At the levels that are left it does not fail.
        let _ = self.timer().cancel();
        if !self.timer().started.load(Ordering::Relaxed) {
            // SAFETY: a timer that was never armed has never queued its DPC. The only handle is going away.
            unsafe { release(self.header) };
        } else if dpc::may_flush(header.image) {
            // If the DPC is queued it runs now, which is as good as taking it off its queue.
            dpc::flush_all();
            // SAFETY: the timer was cancelled, and after the flush its DPC is neither queued nor running. The only handle is going away.
            unsafe { release(self.header) };
        } else {
            // SAFETY: as above, except that the DPC may be queued or running.
            unsafe { release_later(self.header) };
        }
    }
}

/// The timer of a block.
///
/// # Safety
/// The block is alive for `'a`.
unsafe fn timer<'a>(header: NonNull<Header>) -> &'a PinnedTimer {
    // SAFETY: by this function's contract; the place is only pointed to.
    let slot = unsafe { &raw const (*header.as_ptr()).timer };
    // SAFETY: by the type's invariant the timer is initialised, and it is used shared until the block is freed.
    unsafe { &*slot.cast::<PinnedTimer>() }
}

/// Takes a block out of its list and frees it.
///
/// # Safety
/// The block has a closure. Its timer is disarmed, its DPC is not queued and runs nowhere, and there is no handle. The level is `<= DISPATCH_LEVEL`.
unsafe fn release(header: NonNull<Header>) {
    // SAFETY: by this function's contract the block is alive.
    let this = unsafe { header.as_ref() };
    let free = this.free;
    if let Some(mut timers) = this.image.timers.lock() {
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
    let mut block = unsafe { KBox::from_raw(header.cast::<Block<F>>().as_ptr()) };
    // SAFETY: by the type's invariant the timer is initialised. It is dropped once, because `MaybeUninit` does not.
    unsafe { block.header.timer.assume_init_drop() };
    drop(block);
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

/// The kernel's way into a timer's closure.
///
/// # Safety
/// The context is the header of a block with a closure, which stays alive while this runs.
unsafe extern "system-unwind" fn routine(
    _dpc: *mut sys::KDPC,
    context: *mut c_void,
    _argument1: *mut c_void,
    _argument2: *mut c_void,
) {
    // SAFETY: the context is not null.
    let header = unsafe { NonNull::new_unchecked(context.cast::<Header>()) };
    // SAFETY: by this function's contract.
    let Some(call) = (unsafe { header.as_ref() }).call else { return };
    // SAFETY: by the type's invariant the function is the one for this block, which is alive.
    unsafe { call(header) };
}

/// A DPC for each processor. When the last of them runs, a block is freed.
///
/// A processor runs its DPCs one after another. So when a processor runs the one sent to it after a timer's DPC was taken off the queues, it no longer
/// runs that.
#[repr(C)]
struct Reaper {
    header: NonNull<Header>,
    /// How many have not run yet.
    left: AtomicUsize,
    layout: Layout,
    /// As many as there are processors.
    dpcs: [MaybeUninit<sys::KDPC>; 0],
}

/// Frees a block as soon as its closure runs nowhere.
///
/// If there is no memory for that, the block is leaked, which is reported.
///
/// # Safety
/// As for [`release`], except that the DPC may be queued or running.
unsafe fn release_later(header: NonNull<Header>) {
    // SAFETY: by this function's contract the block is alive.
    let this = unsafe { header.as_ref() };
    // SAFETY: by the type's invariant the DPC of a block with a closure is initialised and in its place.
    unsafe { sys::KeRemoveQueueDpc(this.dpc.get().cast()) };
    if let Some(_timers) = this.image.timers.lock() {
        this.dying.set(true);
    }
    // SAFETY: the block is alive, and is given up to the reaper.
    if unsafe { reap(header) }.is_err() {
        if let Some(_timers) = this.image.timers.lock() {
            this.dying.set(false);
        }
        crate::println!("ksync: a timer could be freed neither now nor later and is leaked");
    }
}

/// Sends a DPC to every processor, the last of which frees the block.
///
/// # Errors
/// [`NtError::INSUFFICIENT_RESOURCES`]; nothing was sent.
///
/// # Safety
/// As for [`release_later`].
unsafe fn reap(header: NonNull<Header>) -> Result {
    let count = crate::thread::available_parallelism().get();
    let (layout, offset) = Layout::array::<sys::KDPC>(count)
        .and_then(|dpcs| Layout::new::<Reaper>().extend(dpcs))
        .map_err(|_| NtError::INSUFFICIENT_RESOURCES)?;
    let memory = pool::allocate(layout)?;
    let reaper: NonNull<Reaper> = memory.cast();
    let parts = Reaper { header, left: AtomicUsize::new(count), layout, dpcs: [] };
    // SAFETY: the memory was allocated with room for it.
    unsafe { reaper.write(parts) };
    // SAFETY: the offset lies within the memory.
    let dpcs: NonNull<sys::KDPC> = unsafe { memory.add(offset) }.cast();
    for index in 0..count {
        // SAFETY: there is room for `count` DPCs.
        let dpc = unsafe { dpcs.add(index) }.as_ptr();
        let context = reaper.as_ptr().cast();
        // SAFETY: the DPC lies in nonpaged pool, in which it stays.
        unsafe { sys::KeInitializeDpc(dpc, Some(reap_routine), context) };
        // CAST: a count that came from a `u32`.
        if let Some(processor) = Processor::from_index(index as u32) {
            let mut number = processor.raw();
            // SAFETY: the DPC was initialised just now, and the number is a local variable.
            let status = unsafe { sys::KeSetTargetProcessorDpcEx(dpc, &raw mut number) };
            // The processor was found, so this does not fail.
            let _ = check(status);
        }
    }
    for index in 0..count {
        // SAFETY: as above. The memory is freed by the last of the DPCs, of which this is one that has not run yet.
        let dpc = unsafe { dpcs.add(index) }.as_ptr();
        // SAFETY: the DPC is initialised and in its place until it has run, and is queued once.
        unsafe { sys::KeInsertQueueDpc(dpc, ptr::null_mut(), ptr::null_mut()) };
    }
    Ok(())
}

/// The routine of a reaper's DPCs.
///
/// # Safety
/// The context is a [`Reaper`] of whose DPCs one is running this for the first time.
unsafe extern "system-unwind" fn reap_routine(
    _dpc: *mut sys::KDPC,
    context: *mut c_void,
    _argument1: *mut c_void,
    _argument2: *mut c_void,
) {
    let reaper = context.cast::<Reaper>();
    // SAFETY: by this function's contract the reaper is alive until the count is down.
    let left = unsafe { &(*reaper).left };
    if left.fetch_sub(1, Ordering::AcqRel) != 1 {
        return;
    }
    // SAFETY: the last one owns the reaper.
    let this = unsafe { reaper.read() };
    // SAFETY: reapers are never at null.
    let memory = unsafe { NonNull::new_unchecked(reaper.cast()) };
    // SAFETY: the memory was allocated with this layout. None of its DPCs is queued any more, and nobody else uses it.
    unsafe { pool::free(memory, this.layout) };
    // SAFETY: the timer was disarmed and its DPC taken off its queue before the reaper's DPCs were queued, and each processor has run one of those since.
    unsafe { release(this.header) };
}

/// Disarms all timers of an image that have a closure, and waits until no closure runs and all that are being freed are gone.
///
/// # IRQL
/// `PASSIVE_LEVEL`.
pub(super) fn drain(image: &'static Image) {
    loop {
        let mut dying = false;
        if let Some(timers) = image.timers.lock() {
            for node in timers.nodes() {
                // SAFETY: the nodes of this list are the first fields of headers of blocks that are alive while they are in it. The list is locked.
                dying |= unsafe { (*node.cast::<Header>()).dying.get() };
                // SAFETY: nodes are not null.
                let header = unsafe { NonNull::new_unchecked(node.cast::<Header>()) };
                // SAFETY: as above.
                let timer = unsafe { timer(header) };
                // IRQL: under the lock, so at `DISPATCH_LEVEL`, where it does not fail.
                let _ = timer.cancel();
            }
        }
        dpc::flush_all();
        if !dying {
            return;
        }
        let _ = this_thread::sleep(Duration::from_millis(1));
    }
}
